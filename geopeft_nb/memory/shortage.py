"""When memory runs out: say what took it and what to change, and leave the kernel usable."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from geopeft_nb.memory.measure import device_memory
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
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in WORDS)


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
    said: str, model: SegmentationModel, size: int, settings: dict[str, Any], device: torch.device
) -> OutOfMemory:
    """Make the error to raise: the memory plan, and the next smaller way to train.

    Args:
        said: What the failing operation said.
        model: The model, on the CPU.
        size: Chip side in pixels.
        settings: Those of the run: batch_size, accumulate, precision and frugal.
        device: Where it was trained.

    Returns:
        The error, which has no memory of what failed.
    """
    # Only here: planning is not needed to train.
    from geopeft_nb.memory.plan import memory_plan

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    memory = device_memory(device)
    limit = memory.get("total", memory["limit"])

    def plan(choice: dict[str, Any]) -> Any:  # noqa: ANN401 - a MemoryPlan
        return memory_plan(
            model, choice["batch_size"], size, choice["precision"], choice["frugal"] or None,
            device=device.type,
        )  # fmt: skip

    now = plan(settings)
    parts = ("weights", "gradients", "optimiser", "activations")
    lines = [
        f"Memory ran out on {device}, which has {in_bytes(limit)}: {said}",
        f"Planned for {_call(settings)} at {size} px: {in_bytes(now.total)} = "
        + " + ".join(f"{part} {in_bytes(getattr(now, part))}" for part in parts)
        + ". Workspace and other programs come on top.",
    ]
    for choice in smaller(settings):
        try:
            planned = plan(choice)
        except ValueError:  # a recipe that does not suit this model
            continue
        if planned.total < now.total and planned.fits(limit):
            lines.append(f"Try {_call(choice)}: planned {in_bytes(planned.total)}.")
            break
    else:
        lines.append(
            "No smaller batch and no recipe helps enough. Use smaller chips (load_data(..., size="
            "...)), a method that trains less (gp.list_methods()) or a smaller backbone "
            "(gp.list_backbones())."
        )
    lines.append("The model is on the CPU, the rest is freed: fit can be called again.")
    return OutOfMemory("\n".join(lines))


def smaller(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield ways to train the same with less memory, from the one that costs least time on."""
    whole, recipes = settings["batch_size"] * settings["accumulate"], tuple(settings["frugal"])
    sizes = [settings["batch_size"]]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    more = [recipes]
    more += [(*more[-1], name) for name in ("checkpoint", "bf16") if name not in recipes]
    for frugal in more:
        for batch in sizes:
            choice = {"batch_size": batch, "accumulate": -(-whole // batch), "frugal": frugal}
            if (batch, frugal) != (sizes[0], recipes):
                yield {**settings, **choice}


def _call(settings: dict[str, Any]) -> str:
    """Write settings as the call that has them."""
    words = [f"batch_size={settings['batch_size']}"]
    if settings["accumulate"] > 1:
        words.append(f"accumulate={settings['accumulate']}")
    words.append(f"precision={settings['precision']!r}")
    if settings["frugal"]:
        words.append(f"frugal={list(settings['frugal'])}")
    return f"fit(..., {', '.join(words)})"
