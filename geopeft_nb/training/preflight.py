"""What `fit` checks before it trains: that model, settings and data belong together."""

from __future__ import annotations

import torch

from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError, check_name, whole
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.methods import CARDS, names

DEVICES = ("auto", "cpu", "cuda")
#: Lightning's other strategies split the weights, or train in processes that give no history back.
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
#: What Lightning calls the precisions.
LIGHTNING_NAMES = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def choose_precision(precision: str, device: str) -> str:
    """Return ``"fp32"``, ``"bf16"`` or ``"fp16"``; ``"auto"`` is bf16 on a GPU that has it.

    Raises:
        ValueError: Another name, or fp16 without a GPU.
    """
    check_name("precision", precision, (*LIGHTNING_NAMES, "auto"))
    cuda = torch.cuda.is_available() and device != "cpu"
    if precision == "fp16" and not cuda:
        raise GeopeftError("precision='fp16' needs a GPU. Use 'fp32' or 'auto'.")
    if precision != "auto":
        return precision
    # From the Ampere generation on; older GPUs only emulate bf16, slowly.
    return "bf16" if cuda and torch.cuda.get_device_capability() >= (8, 0) else "fp32"


def check_fit(
    model: SegmentationModel, data: GeoData, device: str = "auto", strategy: str = "auto",
    devices: int = 1,
) -> None:  # fmt: skip
    """Refuse what would fail later, before any work; arguments as in `fit`.

    Raises:
        ValueError: Nothing is attached, a bad setting, or data that do not belong to the model.
    """
    if model.method not in CARDS:  # None, or such as "merged lora"
        what = f"This is a {model.method} model" if model.method else "Nothing is attached"
        raise GeopeftError(
            f"{what}: build one and call attach(model, method) first, with one of {names()}."
        )
    check_name("device", device, DEVICES)
    check_name("strategy", strategy, STRATEGIES)
    check_same(model, data)
    data.not_empty({name: part for name, part in data.parts.items() if name != "test"})
    whole("devices", devices, 1, len(data.train))


def check_same(model: SegmentationModel, data: GeoData) -> None:
    """Refuse data of another task, or with other classes, bands or dates, than the model's.

    Raises:
        ValueError: They differ; the message says in what.
    """
    for what in ("task", "classes", "bands", "frames"):
        ours, theirs = getattr(model, what), getattr(data, what)
        if ours != theirs:
            raise GeopeftError(
                f"The model was built for the {what} {ours}, and {data.card.title} has {theirs}. "
                "Take the data of its training, or build a model with these."
            )
