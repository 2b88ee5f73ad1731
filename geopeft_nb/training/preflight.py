"""What is checked before training, so that nothing fails after an hour of it."""

import torch

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError, check_name, check_values, whole
from geopeft_nb.inputs import first_lacking
from geopeft_nb.models import SegmentationModel, uneven
from geopeft_nb.tuning.methods import CARDS, names

DEVICES = ("auto", "cpu", "cuda")
#: What Lightning calls the precisions.
LIGHTNING_NAMES = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
#: So many chips of each part are read before training, evenly spread; and of training and of judged
#: regions to compare the scale of their pixels, for which a few are enough.
READ = 8


def choose_precision(precision: str, device: str) -> str:
    """Return ``"fp32"``, ``"bf16"`` or ``"fp16"``; ``"auto"`` is bf16 on a GPU that has it.

    Raises:
        ValueError: Another name, or fp16 without a GPU.
    """
    check_name("precision", precision, (*LIGHTNING_NAMES, "auto"))
    cuda = torch.cuda.is_available() and device != "cpu"
    if precision == "fp16" and not cuda:
        raise GeopeftError("precision='fp16' needs a GPU. Use 'fp32' or 'auto'.")
    # From the Ampere generation on; older GPUs only emulate bf16, slowly.
    modern = cuda and torch.cuda.get_device_capability() >= (8, 0)
    return precision if precision != "auto" else "bf16" if modern else "fp32"


def check_fit(
    model: SegmentationModel, data: GeoData, device: str = "auto", strategy: str = "auto",
    devices: int = 1,
) -> None:  # fmt: skip
    """Refuse what would fail later, before any work; arguments as in `fit`.

    Raises:
        ValueError: Nothing is attached, a bad setting, data that do not belong to the model, an
            unfit chip among those that are read, or one without the metadata that the model uses.
    """
    if model.method not in CARDS:  # None, or such as "merged lora"
        what = f"This is a {model.method} model" if model.method else "Nothing is attached"
        raise GeopeftError(
            f"{what}: build one and call attach(model, method) first, with one of {names()}."
        )
    check_name("device", device, DEVICES)
    # Lightning's others split the weights, or train in processes that give no history back
    check_name("strategy", strategy, ("auto", "ddp", "ddp_find_unused_parameters_true"))
    if odd := [name for name, x in model.state_dict().items() if not x.isfinite().all()]:
        raise GeopeftError(
            f"{len(odd)} weights of the model are infinite or NaN before training, {odd[0]} among "
            "them. No learning rate mends that: load the backbone and build the model anew."
        )
    check_same(model, data)
    check_values({"classes": data.classes}, {"classes": "Sequence[str]"})  # else no file takes them
    if data.size % model.backbone.patch_size and not model.pad:
        raise uneven(data.size, model.backbone.patch_size)
    shape = (len(data.bands), *[data.frames] * (data.frames > 1), data.size, data.size)
    parts = {name: part for name, part in data.parts.items() if part.chips or name != "test"}
    for name, part in data.not_empty(parts).items():
        for kind in model.metadata:
            _check_known(kind, name, part)
        # What is not read now is checked when training comes to it, see `ChipDataset.check`.
        for sample in part.spread(READ):
            given, chip = tuple(sample["image"].shape), sample["name"]
            if given != shape:
                raise GeopeftError(f"The image of {chip!r} is {given} instead of {shape}.")
    whole("devices", devices, 1, len(data.train))


def _check_known(kind: str, name: str, part: ChipDataset) -> None:
    """Refuse chips of which metadata are not known that the model uses."""
    if (chip := first_lacking(part, kind)) is not None:
        raise GeopeftError(
            f"The model uses {kind}, and that of chip {chip!r} in data.{name} is not known."
            " Use build_model(..., metadata=False), or leave such chips out."
        )


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
