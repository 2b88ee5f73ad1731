"""When memory runs out: say what took it and what to change, and leave the kernel usable."""

from __future__ import annotations

import traceback
from typing import Any

import torch

from geopeft_nb.memory.measure import device_memory, hand_back
from geopeft_nb.memory.plan import memory_plan
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.show import in_bytes

#: What PyTorch and its libraries say, besides `torch.OutOfMemoryError`, in lower case.
WORDS = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory",
    "alloc_failed", "unable to find an engine to execute",
)  # fmt: skip


class OutOfMemory(RuntimeError):
    """Training needed more memory than there is; the message says what took it and what to try.

    The model is on the CPU with its best weights, and everything else is freed.
    """


def is_shortage(error: BaseException) -> bool:
    """Say whether an error means that memory ran out."""
    said = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)
    return said or isinstance(error, MemoryError | torch.OutOfMemoryError)


def release(error: BaseException) -> str:
    """Let go of what the frames of an error hold, and return its first line.

    Each frame between `fit` and the failing operation holds tensors, and a notebook keeps the last
    error for its debugger: without this the memory would stay taken until another error came.
    """
    said = (str(error) or type(error).__name__).splitlines()[0]
    chain: BaseException | None = error
    while chain is not None:
        traceback.clear_frames(chain.__traceback__)
        chain = chain.__context__
    return said


def explain(
    said: str, model: SegmentationModel, size: int, settings: dict[str, Any], device: str
) -> OutOfMemory:
    """Make the error to raise: the memory plan, and what to change.

    Args:
        said: What the failing operation said.
        model: The model, on the CPU.
        size: Chip side in pixels.
        settings: Those of the run: batch_size, precision and frugal among them.
        device: Where it was trained, as in `fit`.

    Returns:
        The error, which has no memory of what failed.
    """
    hand_back(garbage=True)
    torch.cuda.empty_cache()  # does nothing unless a GPU is in use
    place = "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"
    memory = device_memory(place)
    limit = memory.get("total") or memory["limit"]

    plan = memory_plan(
        model, settings["batch_size"], size, settings["precision"], settings["frugal"], place
    )
    return OutOfMemory(
        f"Memory ran out on {place}, which has {in_bytes(limit)}: {said}\n{plan!r} Workspace and "
        "other programs come on top.\nHalve batch_size and double accumulate, take "
        "frugal='checkpoint' (see gp.list_recipes()), smaller chips or a smaller backbone: "
        "gp.memory_widget(model) shows what fits. The model is on the CPU, the rest is freed: fit "
        "can be called again."
    )
