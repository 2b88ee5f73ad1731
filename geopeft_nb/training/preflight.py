"""What is checked before training, so that nothing fails after an hour of it."""

from __future__ import annotations

import numpy as np
import torch

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError, check_name, expect, whole
from geopeft_nb.inputs import METADATA, without
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tasks import TASKS
from geopeft_nb.tuning.methods import CARDS

DEVICES = ("auto", "cpu", "cuda")
#: Lightning's other strategies split the weights, or train in processes that give no history back.
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
#: What Lightning calls the precisions.
LIGHTNING_NAMES = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
PRECISIONS = (*LIGHTNING_NAMES, "auto")
#: From a larger part of the data so many chips are read before training, evenly spread.
CHECKED_AT_MOST = 512


def check_fit(
    model: SegmentationModel, data: GeoData, epochs: int, batch_size: int, lr: float | None,
    precision: str, device: str, *, seed: int = 0, accumulate: int = 1, strategy: str = "auto",
    devices: int = 1,
) -> None:  # fmt: skip
    """Refuse what would fail later, before any work; arguments as in `fit`.

    Raises:
        ValueError: Nothing is attached, a bad setting, data that do not belong to the model, an
            unfit chip in any part of the data, or one without the metadata that the model uses.
    """
    expect(model, "method_options", "the model that build_model returned")
    expect(data, "holdout", "the data that load_data returned")
    if model.method is None:
        raise GeopeftError(
            "Nothing is attached: call attach(model, method) first, with one of "
            f"{', '.join(CARDS)}."
        )
    if model.method not in CARDS:
        raise GeopeftError(f"This is a {model.method} model. Build a new one to train it.")
    numbers = {
        "epochs": epochs, "batch_size": batch_size, "accumulate": accumulate, "devices": devices
    }  # fmt: skip
    for label, value in numbers.items():
        whole(label, value)
    whole("seed", seed, 0, 2**32 - 1)
    if lr is not None and not 0 < lr < 1:
        raise GeopeftError(f"lr must lie between 0 and 1, got {lr!r}.")
    check_name("precision", precision, PRECISIONS)
    check_name("device", device, DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise GeopeftError("device='cuda', but there is none. Use device='auto' or 'cpu'.")
    check_devices(strategy, devices, device)
    if model.classes != data.classes or model.bands != tuple(data.bands):
        raise GeopeftError(
            f"The model was built for classes {model.classes} and bands {model.bands}, the data "
            f"have {data.classes} and {tuple(data.bands)}. Build the model with these data."
        )
    if model.task != data.task:
        raise GeopeftError(
            f"The model was built for {model.task}, the data are for {data.task}. Build the model "
            "with these data."
        )
    if precision == "fp16" and (device == "cpu" or not torch.cuda.is_available()):
        raise GeopeftError("precision='fp16' needs a GPU. Use 'fp32' or 'auto'.")
    if data.size % model.backbone.patch_size and not model.pad:
        raise GeopeftError(
            f"Chips of {data.size} px are not divisible by the patch of "
            f"{model.backbone.patch_size} px. Build the model with these data."
        )
    parts = {"train": data.train, "val": data.val, "test": data.test}
    parts |= {f"holdout[{name!r}]": chips for name, chips in data.holdout.items()}
    for name, chips in parts.items():
        if not len(chips):
            raise GeopeftError(f"data.{name} has no chips.")
        for kind in model.metadata:
            check_metadata(name, kind, without(chips, kind))
        if not check_chips(chips, (len(data.bands), data.size, data.size), name, model.metadata):
            task = TASKS[data.task]
            ignored = task.unlabelled or data.ignore_index
            unit = "pixel" if task.target == "mask" else "chip"
            raise GeopeftError(f"data.{name} has no labelled {unit}: all are {ignored}.")
    if devices > len(data.train):
        raise GeopeftError(
            f"devices={devices}, but there are only {len(data.train)} training chips."
        )
    batches = len(data.train) // (min(batch_size, len(data.train) // devices) * devices)
    if accumulate > batches:
        raise GeopeftError(
            f"accumulate={accumulate} batches for one step, but an epoch has only {batches}. Use "
            "fewer, or a smaller batch_size."
        )


def check_devices(strategy: str, devices: int, device: str) -> None:
    """Refuse strategies whose history and weights stay in other processes, and absent devices."""
    check_name("strategy", strategy, STRATEGIES)
    there = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else None
    if there is not None and devices > there:
        raise GeopeftError(f"devices={devices}, but there are {there} GPUs.")


def check_chips(
    chips: ChipDataset, shape: tuple[int, int, int], part: str = "train", used: tuple[str, ...] = ()
) -> int:
    """Read chips once, so that an unfit one is named before training and not in its middle.

    Args:
        chips: What to read: all chips, or `CHECKED_AT_MOST` of more. What is not read now is
            checked when training comes to it.
        shape: (C, H, W) that every image must have.
        part: What the chips are in the data, for messages.
        used: Metadata that the model uses.

    Returns:
        The number of pixels, or of chips, with a label.

    Raises:
        ValueError: Another shape or type, or no metadata; and see
            `geopeft_nb.datasets.base.check_chip`.
    """
    labelled, task = 0, TASKS[chips.kind]
    count = min(CHECKED_AT_MOST, len(chips))
    for index in np.linspace(0, len(chips) - 1, count).round().astype(int):
        sample = chips[int(index)]
        image, target = sample["image"], sample[task.target]
        if tuple(image.shape) != shape:
            raise GeopeftError(
                f"The image of chip {sample['name']!r} is {tuple(image.shape)} instead of {shape}."
            )
        if image.dtype != torch.float32 or target.dtype != task.dtype:
            raise GeopeftError(
                f"Chip {sample['name']!r} has an image of {image.dtype} and a {task.target} of "
                f"{target.dtype}; float32 and {str(task.dtype).removeprefix('torch.')} are needed."
            )
        for kind in used:
            check_metadata(part, kind, None if METADATA[kind] in sample else sample["name"])
        labelled += int(task.known(target, chips.ignore_index).sum())
    return labelled


def check_metadata(part: str, kind: str, chip: str | None) -> None:
    """Refuse a chip, if there is one, of which metadata that the model uses are not known."""
    if chip is not None:
        raise GeopeftError(
            f"The model uses {kind}, and that of chip {chip!r} in data.{part} is not known. Use "
            "build_model(..., metadata=False), or leave such chips out."
        )
