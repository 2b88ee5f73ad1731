"""LoRA in less memory: compute a layer norm or a GELU again instead of keeping what it gave.

The gradient of LoRA's A needs the layer's input h, which is what a layer norm or a GELU gave. It
costs almost nothing to compute again from what those keep anyway, so it need not be kept. peft's
layers stay as they are; only the order in which a block calls them changes (`forward`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geopeft_nb.backbones.vit import FeedForward, PreNormBlock, SelfAttention


def forward(block: PreNormBlock, x: Tensor) -> Tensor:
    """Do what a block does, without keeping inputs of layers behind a layer norm or a GELU.

    Args:
        block: Its attention or feed-forward part may be wrapped, and is then called as it is.
        x: Tokens (B, N, D).

    Returns:
        (B, N, D); the same numbers as `block(x)`, gradients to rounding.
    """
    attn: nn.Module = block.attn
    mlp: nn.Module = block.mlp
    if isinstance(attn, SelfAttention):
        x = x + attn.mix(*_after(block.norm1, [attn.q, attn.k, attn.v], x))
    else:
        x = x + attn(block.norm1(x))
    if isinstance(mlp, FeedForward):
        (hidden,) = _after(block.norm2, [mlp.fc1], x)
        return x + _after(mlp.act, [mlp.fc2], hidden)[0]
    return x + mlp(block.norm2(x))


def saving_layers(block: nn.Module) -> list[nn.Module]:
    """Return the layers of a block before which `forward` computes something again."""
    found: list[nn.Module] = []
    if isinstance(block, PreNormBlock):
        if isinstance(block.attn, SelfAttention):
            found += [block.attn.q, block.attn.k, block.attn.v]
        if isinstance(block.mlp, FeedForward):
            found += [block.mlp.fc1, block.mlp.fc2]
    return [layer for layer in found if _keeps_input(layer)]


def _after(before: nn.Module, layers: Sequence[nn.Module], x: Tensor) -> Sequence[Tensor]:
    """Apply a layer norm or a GELU to x, and each of the layers to what it gave."""

    def run(x: Tensor) -> list[Tensor]:
        h = before(x)
        return [layer(h) for layer in layers]

    keeping = [layer for layer in layers if _keeps_input(layer)]
    if not torch.is_grad_enabled() or not keeping:
        return run(x)
    if not all(_is_plain(layer) for layer in keeping):
        return checkpoint(run, x, use_reentrant=False)

    def detours(x: Tensor) -> list[Tensor]:
        h = before(x)
        return [_detour(layer, h) for layer in keeping]

    h, added = before(x), iter(checkpoint(detours, x, use_reentrant=False))
    return [
        layer.get_base_layer()(h) + next(added) if layer in keeping else layer(h)  # type: ignore[operator]
        for layer in layers
    ]


def _detour(layer: Any, h: Tensor) -> Tensor:
    """Compute what LoRA adds to a layer: s B A h."""
    name = layer.active_adapters[0]
    low = layer.lora_A[name](layer.lora_dropout[name](h))
    return layer.lora_B[name](low) * layer.scaling[name]


def _keeps_input(layer: nn.Module) -> bool:
    """Say whether a gradient of the layer's own weights needs its input."""
    return any(p.requires_grad and p.ndim > 1 for p in layer.parameters())


def _is_plain(layer: nn.Module) -> bool:
    """Say whether a detour W x + s B A x is all that is trained of a layer."""
    if not isinstance(layer, Linear) or layer.disable_adapters or layer.merged:
        return False
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    return len(names) == 1 and names[0] not in layer.lora_variant
