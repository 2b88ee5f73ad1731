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
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from geopeft_nb.backbones.vit import FeedForward, PreNormBlock, SelfAttention, full_weight


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
    if not all(_is_plain(layer, before) for layer in keeping):
        return checkpoint(run, x, use_reentrant=False)
    return [_lora(before, layer, x) if layer in keeping else layer(before(x)) for layer in layers]


def _lora(before: nn.Module, layer: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - peft's
    """Apply a layer with LoRA to `before(x)`, which is not kept."""
    name, base = layer.active_adapters[0], layer.get_base_layer()
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    return _BeforeAndLora.apply(x, down, up, before, base, layer.scaling[name])


def _full(base: Any, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
    """Write out the weight of a linear layer, which may be held in fewer bytes."""
    return full_weight(base.weight, getattr(base, "weight_scale", None), dtype)


def _keeps_input(layer: nn.Module) -> bool:
    """Say whether a gradient of the layer's own weights needs its input."""
    return any(p.requires_grad and p.ndim > 1 for p in layer.parameters())


def _is_plain(layer: nn.Module, before: nn.Module) -> bool:
    """Say whether one LoRA without dropout or variant acts, and nothing else is trained."""
    if not isinstance(layer, Linear):
        return False
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(names) != 1:
        return False
    kept = [*layer.get_base_layer().parameters(), *before.parameters()]
    return not (
        names[0] in layer.lora_variant
        or not isinstance(layer.lora_dropout[names[0]], nn.Identity)
        or layer.lora_bias[names[0]]
        or any(p.requires_grad for p in kept)
    )


class _BeforeAndLora(torch.autograd.Function):
    """y = W h + b + scale * B A h with h = before(x); keeps x and A h, and never h."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor, down: Tensor, up: Tensor, before: nn.Module, base: nn.Linear, scale: float,
    ) -> Tensor:  # fmt: skip
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        h = before(x).to(dtype)
        with torch.autocast(kind, enabled=False):
            bias = None if base.bias is None else base.bias.to(dtype)
            y = functional.linear(h, _full(base, dtype), bias)
            low = functional.linear(h, down.to(dtype))  # (..., r)
            y.flatten(0, -2).addmm_(low.flatten(0, -2), up.to(dtype).T, alpha=scale)
        ctx.save_for_backward(x, low, down, up)
        ctx.before, ctx.base, ctx.scale = before, base, scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, low, down, up = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        d_up = (rows.T @ low.flatten(0, -2)).mul_(ctx.scale).to(up.dtype)
        d_low = (rows @ up.to(rows.dtype)).mul_(ctx.scale)
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            h = ctx.before(again)
        d_x, read = None, h.detach().flatten(0, -2).to(rows.dtype)
        d_down = (d_low.T @ read).to(down.dtype)
        if ctx.needs_input_grad[0]:
            # h has served: its memory takes its own gradient, and the GELU's takes its place.
            d_h = torch.mm(rows, _full(ctx.base, rows.dtype), out=read)
            d_h.addmm_(d_low, down.to(rows.dtype))
            d_x = d_h.view(x.shape).to(x.dtype)
            if isinstance(ctx.before, nn.GELU):
                kind = ctx.before.approximate
                torch.ops.aten.gelu_backward(d_x, x, approximate=kind, grad_input=d_x)
            else:
                (d_x,) = torch.autograd.grad(h, again, d_x)
        return d_x, d_down, d_up, None, None, None
