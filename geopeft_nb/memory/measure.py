"""Where does the memory go? Measured, in bytes, for the process, the device and one training step.

A training step keeps four things: the weights; one gradient per trainable weight; what the
optimiser remembers about each trainable weight (AdamW: two moments); and the activations, the
tensors of the forward pass that the backward pass will need again. PEFT shrinks the second and
third to almost nothing. Whether it shrinks the fourth is the interesting question, and
`training_bytes` answers it by watching what autograd really saves.
"""

import ctypes
import gc
import re
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def memory_now(device: torch.device | str = "cpu") -> int:
    """Return the bytes that tensors take on a CUDA device now, or else the process (resident)."""
    cuda = str(device).startswith("cuda")
    return torch.cuda.memory_allocated(device) if cuda else int(psutil.Process().memory_info().rss)


def device_memory(device: torch.device | str = "cpu") -> dict[str, int]:
    """Return what the device that trains has and has held, in bytes.

    Args:
        device: "cpu", "cuda", "cuda:1" or the same as a torch.device.

    Returns:
        Of a CUDA device `total`, its memory, and `peak`, the most that tensors took since
        `reset_peak`. Else `limit`, what the machine has, and where the system keeps count of it
        (Linux) `peak`, the most that the process held since `reset_peak`.
    """
    if str(device).startswith("cuda"):
        total = torch.cuda.get_device_properties(device).total_memory
        return {"total": total, "peak": torch.cuda.max_memory_allocated(device)}
    memory = {"limit": psutil.virtual_memory().total}
    if (status := Path("/proc/self/status")).exists():
        most = re.search(r"VmHWM:\s*(\d+)", status.read_text(encoding="utf-8"))  # in KiB
        memory["peak"] = max(1024 * int(most[1]) if most else 0, memory_now())
    return memory


def reset_peak(device: torch.device | str = "cpu") -> None:
    """Start counting the peak of `device_memory` anew, where the system can.

    What earlier work left unused is handed back first, so that the next run does not inherit it.
    """
    hand_back()
    if str(device).startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        # "5" resets the peak resident set size: man 5 proc, clear_refs
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def hand_back(garbage: bool = False) -> None:
    """Give the system what the allocator holds free, and before that what is garbage, if asked."""
    if garbage:
        gc.collect()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)  # GNU C library: man 3 malloc_trim


def training_bytes(model: nn.Module, compute_loss: Callable[[], Tensor]) -> dict[str, int]:
    """Measure what one training step of the model keeps in memory, in bytes.

    The forward pass runs once and autograd is watched while it saves tensors for the backward pass.
    A storage counts once however many tensors look into it, and with its full size even when only a
    view of it was saved, because that is what stays allocated. Weights and buffers are not counted
    again as activations. Workspace that an operation frees before it returns is not part of it.

    Args:
        model: The model as it will be trained: what is frozen is frozen, and in training mode.
        compute_loss: Runs the forward pass on one batch and returns the loss, a scalar tensor.

    Returns:
        Bytes under `weights` (parameters and buffers), `gradients`, `optimiser`, `activations` and
        their sum `total`. The model's buffers and the random state are left as they were.

    Source: PyTorch notes "Hooks for autograd saved tensors".

    Example:
        >>> layer, x = nn.Linear(4, 2, bias=False), torch.zeros(3, 4)
        >>> training_bytes(layer, lambda: layer(x).sum())["activations"]  # x: 3 * 4 * 4 bytes
        48
    """
    own = [*model.parameters(), *model.buffers()]
    with unmoved(model), saved_bytes(own) as kept:
        loss = compute_loss()  # noqa: F841 - held until counted: the graph dies with it
    gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    bill = {
        "weights": sum(_storages(own).values()),
        "gradients": gradients,
        "optimiser": 2 * gradients,  # AdamW has two moments
        "activations": kept.total(),
    }
    return {**bill, "total": sum(bill.values())}


@contextmanager
def saved_bytes(
    own: Iterable[Tensor], part: Callable[[], str] = lambda: ""
) -> Iterator[Counter[str]]:
    """Count what autograd saves for the backward pass, real tensors and torch's fake ones alike.

    Args:
        own: Weights and buffers, which are not counted again.
        part: Says at any time which part of the model computes; a storage belongs to the part that
            saved it first.

    Yields:
        The bytes by part, which are known when the forward pass is over and the context is left.
    """
    known, kept = set(_storages(own)), Counter[str]()
    first: dict[int, tuple[str, Tensor]] = {}

    def keep(tensor: Tensor) -> tuple[Tensor, bool]:
        # Kept until counted: a freed address could be given out again. Detached: with its
        # history it would hold the graph that holds it, in a circle that nothing collects.
        detached = tensor.detach()
        first.setdefault(detached.untyped_storage()._cdata, (part(), detached))
        return detached, tensor.requires_grad

    # Checkpointing computes again from what it saved, with the same gradients wanted.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x[0].requires_grad_(x[1])):
        yield kept
    for key, (name, tensor) in first.items():
        if key not in known:
            kept[name] += tensor.untyped_storage().nbytes()
    first.clear()  # the graph holds `keep`, and so this


class LiveBytes(TorchDispatchMode):
    """Counts every tensor from the operation that makes it until nothing refers to it any more.

    Works for real and for torch's fake tensors. What an operation uses and frees inside itself is
    not seen: neither the workspace of a convolution nor what an allocator adds by rounding.

    Whoever asks a fake tensor for its number is told yes, or 1. Asked are whether dates and places
    are in range, which week a date is in, and by some of peft's methods whether a layer takes part
    in this step; all of it with a dropout of layers of 0.

    Args:
        known: Tensors, such as weights, that are not counted.

    Attributes:
        now: Bytes alive now.
        most: The most that were alive at once since the start, or since it was last set.

    Example:
        >>> with LiveBytes([]) as live:
        ...     x = torch.zeros(100).exp().exp()  # float32; two of the three are alive at once
        >>> live.now, live.most
        (400, 800)
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive = set(_storages(known))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count the storages that it made."""
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return args[0].dtype is torch.bool or 1
        result = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._alive:
                self._alive.add(key)
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._drop, key, size).atexit = False
        return result

    def _drop(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


@contextmanager
def unmoved(model: nn.Module) -> Iterator[None]:
    """Leave buffers, such as running batch statistics, modes and random state as they were."""
    before = [buffer.clone() for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng({p.device for p in model.parameters() if p.is_cuda}):
        try:
            yield
        finally:
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)
            for module, mode in modes:
                module.training = mode


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the bytes of each storage behind the tensors, by its identity while it lives."""
    return {s._cdata: s.nbytes() for s in (tensor.untyped_storage() for tensor in tensors)}
