"""How many bytes of tensors are alive at once while something computes?"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geopeft_nb.memory.measure import plain_tensors


class LiveBytes(TorchDispatchMode):
    """Counts every tensor from the operation that makes it until nothing refers to it any more.

    Works for real and for torch's fake tensors. What an operation uses and frees inside itself is
    not seen: neither the workspace of a convolution nor what an allocator adds by rounding.

    Args:
        known: Tensors, such as weights, that are not counted.

    Attributes:
        now: Bytes alive now.
        most: The most that were alive at once since the start, or since it was last set.

    Example:
        >>> import torch
        >>> with LiveBytes([]) as live:
        ...     x = torch.zeros(100).exp().exp()  # float32; two of the three are alive at once
        >>> live.now, live.most
        (400, 800)
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive = {
            part.untyped_storage()._cdata for tensor in known for part in plain_tensors(tensor)
        }

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        """Run one operation and count the storages that it made."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                for tensor in plain_tensors(leaf):
                    self._add(tensor)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key, size).atexit = False

    def _drop(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size
