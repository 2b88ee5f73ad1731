"""When memory runs out: say what took it and what to change, and leave the kernel usable."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from geopeft_nb.memory.frugal import RECIPES
from geopeft_nb.memory.measure import device_memory, hand_back
from geopeft_nb.memory.plan import COLUMNS, MemoryPlan, memory_plan
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
    """Make the error to raise: the memory plan, and the next smaller way to train.

    Args:
        said: What the failing operation said.
        model: The model, on the CPU.
        size: Chip side in pixels.
        settings: Those of the run: batch_size, accumulate, precision and frugal.
        device: Where it was trained, as in `fit`.

    Returns:
        The error, which has no memory of what failed.
    """
    hand_back()
    torch.cuda.empty_cache()  # does nothing unless a GPU is in use
    place = "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"
    memory = device_memory(place)
    limit = memory.get("total", memory["limit"])

    def plan(batch_size: int, precision: str, frugal: Sequence[str], **_: object) -> MemoryPlan:
        return memory_plan(model, batch_size, size, precision, frugal, place)

    now = plan(**settings)
    kept = " + ".join(f"{part} {in_bytes(getattr(now, part))}" for part in COLUMNS)
    advice = (
        "No smaller batch and no recipe helps enough. Use smaller chips, a method that trains less "
        "(gp.list_methods()) or a smaller backbone (gp.list_backbones())."
    )
    for way in smaller(model, settings):
        less = plan(**way)
        if less.total < now.total and less.fits(limit):
            advice = f"Try {_call(**way)}: planned {in_bytes(less.total)}."
            break
    return OutOfMemory(
        f"Memory ran out on {place}, which has {in_bytes(limit)}: {said}\n"
        f"Planned for {_call(**settings)} at {size} px: {in_bytes(now.total)} = {kept}. Workspace "
        f"and other programs come on top.\n{advice}\n"
        "The model is on the CPU, the rest is freed: fit can be called again."
    )


def smaller(model: SegmentationModel, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield ways to train the same with less memory, from the one that costs least time on."""
    size, frugal = settings["batch_size"], tuple(settings["frugal"])
    chips = size * settings["accumulate"]
    for recipe in (None, "checkpoint", "bf16"):
        if recipe in frugal or (recipe and RECIPES[recipe].refuses(model)):
            continue
        frugal = (*frugal, recipe) if recipe else frugal
        for halved in range(0 if recipe else 1, size.bit_length()):
            less = {"batch_size": size >> halved, "accumulate": -(-chips // (size >> halved))}
            yield {**settings, **less, "frugal": frugal}


def _call(
    batch_size: int, precision: str, frugal: Sequence[str], accumulate: int = 1, **_: object
) -> str:
    """Write settings as the call that has them."""
    words = [f"batch_size={batch_size}", f"accumulate={accumulate}", f"precision={precision!r}"]
    words += [f"frugal={list(frugal)}"] * bool(frugal)
    return f"fit(..., {', '.join(word for word in words if word != 'accumulate=1')})"
