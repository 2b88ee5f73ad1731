"""Compute again instead of keeping: whole blocks, or only what is cheap.

Everything a block computes is kept until the backward pass has used it. One can also keep the
block's input alone and run the block a second time when the backward pass arrives (Chen et al.,
arXiv 1604.06174): the memory of a whole network shrinks to that of one block and the inputs of the
others, for a quarter to nearly half more time on one CPU core. Or one does so only for layer norms
and GELUs: they are cheap, and give two fifths of what a block keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from geopeft_nb.backbones.vit import PreNormBlock
from geopeft_nb.memory.blocks import replaced, running_blocks
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.lora import LeanLora
from geopeft_nb.tuning.vit_adapter import CrossAttention


@contextmanager
def checkpoint_blocks(model: SegmentationModel) -> Iterator[str]:
    """Keep only the input of each block that gradients reach, and run it again in backward.

    Of ViT-Adapter also the exchanges between branch and blocks. Dropout draws the same again;
    batch norms count a batch once.

    Yields:
        A sentence that says what was done.
    """
    parts = checkpointed(model)
    with ExitStack() as stack:
        for part in parts:
            again = partial(_run_again, part, part.forward)
            stack.enter_context(replaced(part, "forward", again))
        yield f"keeps only the input of {len(parts)} blocks"


def checkpointed(model: SegmentationModel) -> list[nn.Module]:
    """Return the parts of a model that `checkpoint_blocks` treats, those without graph left out."""
    blocks: list[nn.Module] = running_blocks(model)
    trains = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    if model.method == "vit_adapter":  # its first injector is before the first block
        exchanges = [part for part in model.modules() if isinstance(part, CrossAttention)]
        return [*blocks, *exchanges]
    return blocks[trains.index(True) :] if True in trains else []


def _run_again(part: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Call a module's own forward under torch's checkpoint, if a gradient will pass it."""
    given = [*args, *kwargs.values(), *part.parameters()]
    if not torch.is_grad_enabled() or not any(
        isinstance(x, Tensor) and x.requires_grad for x in given
    ):
        return forward(*args, **kwargs)
    norms = [m for m in part.modules() if isinstance(m, _BatchNorm) and m.training]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _counted_already(norms)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _counted_already(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let batch norms use the batch's statistics without moving their running ones again."""
    with ExitStack() as stack:
        for norm in norms:
            stack.enter_context(replaced(norm, "momentum", 0.0))
            stack.callback(norm._buffers.update, num_batches_tracked=norm.num_batches_tracked)
            norm.num_batches_tracked = None
        yield


@contextmanager
def recompute_cheap(model: SegmentationModel) -> Iterator[str]:
    """Compute layer norms and GELUs again in backward, instead of keeping what they gave.

    Where the layer behind is frozen nothing is kept anyway, and LoRA of this toolkit does the same
    by itself (see `geopeft_nb.tuning.lora`): there nothing changes.

    Yields:
        A sentence that says what was done.
    """
    layers = recomputed(model)
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced(layer, "forward_after", partial(_after, layer)))
        yield f"computes the norm or GELU before {len(layers)} layers again"


def recomputed(model: SegmentationModel) -> list[nn.Module]:
    """Return the layers behind a norm or GELU that would keep their input."""
    found: list[Any] = []
    for block in own_blocks(model):
        if not isinstance(block, PreNormBlock):
            continue
        attention = getattr(block.attn, "base_layer", block.attn)  # serial adapters wrap these
        feed_forward = getattr(block.mlp, "base_layer", block.mlp)
        found += [attention.qkv, feed_forward.fc1, feed_forward.fc2]
    return [layer for layer in found if _keeps_input(layer)]


def own_blocks(model: SegmentationModel) -> list[Any]:
    """Return the backbone's own blocks, without the prompts that may be wrapped around them."""
    return [getattr(block, "base_layer", block) for block in running_blocks(model)]


def _keeps_input(layer: nn.Module) -> bool:
    """Say whether a gradient of the layer's own weights needs its input."""
    if isinstance(layer, LeanLora) and layer.is_plain():
        return False
    return any(p.requires_grad and p.ndim > 1 for p in layer.parameters())


def _after(layer: nn.Module, before: nn.Module, x: Tensor) -> Tensor:
    def both(x: Tensor) -> Tensor:
        return layer(before(x))

    if not torch.is_grad_enabled():
        return both(x)
    # The second run ends as soon as it has the layer's input: the layer itself runs once.
    return checkpoint(both, x, use_reentrant=False)
