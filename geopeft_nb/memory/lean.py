"""Layers that keep less: inputs that are computed again, and frozen weights in fewer bytes.

Computed again: the gradient of LoRA's A needs the layer's input h, which is what a layer norm or a
GELU gave. It costs almost nothing to compute again from what those keep anyway, so it need not be
kept. peft's layers stay as they are; only the order in which a block calls them changes (`again`).

In fewer bytes: a frozen weight is only read, so it need not have the precision that training needs.
It is held in bfloat16, or as whole numbers from -127 to 127 with one factor per row (Dettmers et
al., arXiv 2208.07339), and written out in full for the moment in which its layer computes. The
backward pass does that a second time, so that no full copy is kept between the two (`hold`).
Libraries quantise weights too, but made for inference they let autograd keep the full copy that
they compute with (torchao 0.18 does), which is just what is to be saved here.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from geopeft_nb.backbones.vit import FeedForward, PreNormBlock, SelfAttention
from geopeft_nb.files import cache_folder
from geopeft_nb.memory.step import running_blocks
from geopeft_nb.models import SegmentationModel, part_of


def again(block: PreNormBlock, x: Tensor) -> Tensor:
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
    """Return the layers of a block before which `again` computes something again."""
    if not isinstance(block, PreNormBlock):
        return []
    attn, mlp = block.attn, block.mlp
    found = [attn.q, attn.k, attn.v] if isinstance(attn, SelfAttention) else []
    found += [mlp.fc1, mlp.fc2] if isinstance(mlp, FeedForward) else []
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
    return layer.lora_B[name](layer.lora_A[name](layer.lora_dropout[name](h))) * layer.scaling[name]


def _keeps_input(layer: nn.Module) -> bool:
    """Say whether a gradient of the layer's own weights needs its input."""
    return any(p.requires_grad and p.ndim > 1 for p in layer.parameters())


def _is_plain(layer: nn.Module) -> bool:
    """Say whether a detour W x + s B A x is all that is trained of a layer."""
    if not isinstance(layer, Linear) or layer.disable_adapters or layer.merged:
        return False
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    return len(names) == 1 and names[0] not in layer.lora_variant


@contextmanager
def hold(model: SegmentationModel, kind: str) -> Iterator[str]:
    """Hold the frozen linear layers of the blocks in fewer bytes, and restore them bit by bit.

    Args:
        model: Its weights are changed in place; norms, biases and what is trained stay as they are.
            The originals are meanwhile in a file of the cache folder that has no name, so that
            nothing of it can be left behind.
        kind: ``"bf16"`` or ``"8bit"``.

    Yields:
        A sentence that says what was done.
    """
    layers = frozen_layers(model)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_folder()) as file:
        torch.save([layer.weight.data for layer in layers], file)
        try:
            for layer in layers:
                weight = layer.weight.data
                held = quantise(weight) if kind == "8bit" else (weight.to(torch.bfloat16), None)
                layer.weight.data, scale = held
                layer.register_buffer("weight_scale", scale, persistent=False)
                layer.forward = partial(_forward, layer)
            yield f"holds {len(layers)} frozen layers as {kind}"
        finally:
            file.seek(0)
            exact = torch.load(file, map_location="cpu", weights_only=True)
            for layer, weight in zip(layers, exact, strict=True):
                layer.weight.data = weight.to(layer.weight.device)
                layer._buffers.pop("weight_scale", None)
                vars(layer).pop("forward", None)


def frozen_layers(model: SegmentationModel) -> list[Any]:
    """Return the backbone's own linear layers in its blocks whose weight is frozen, in float32."""
    inside = {id(part) for block in running_blocks(model) for part in block.modules()}
    return [
        layer
        for name, layer in model.named_modules()
        if id(layer) in inside
        and isinstance(layer, nn.Linear)
        and part_of(f"{name}.weight") == "backbone"
        and not layer.weight.requires_grad
        and layer.weight.dtype == torch.float32
    ]


def why_not_hold(model: SegmentationModel, kind: str) -> str:
    """Say why the frozen weights of a model cannot be held in fewer bytes; empty if they can."""
    if model.method == "dora" and kind == "8bit":
        return "DoRA computes with the frozen weights themselves, so take 'bf16' instead of '8bit'."
    none = f"{kind!r} holds frozen linear layers of blocks, and with {model.method} there are none."
    return "" if frozen_layers(model) else none


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of a weight to whole numbers from -127 to 127 times a factor.

    Args:
        weight: (out, in).

    Returns:
        (out, in) int8, and the factors (out, 1).
    """
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    return (weight / scale).round().to(torch.int8), scale


def _forward(layer: Any, x: Tensor) -> Tensor:
    """Compute y = W x + b, and keep W for the backward pass as it is held, and never in full."""
    kind, weight, scale = x.device.type, layer.weight, layer.weight_scale
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype

    def written_out() -> Tensor:
        return (weight if scale is None else weight * scale).to(dtype)

    def held(full: Tensor) -> tuple[Sequence[int], Sequence[int]]:
        return full.shape, full.stride()  # of W or its transpose, all that a frozen layer keeps

    def in_full(layout: tuple[Sequence[int], Sequence[int]]) -> Tensor:
        return written_out().as_strided(*layout)

    with torch.autograd.graph.saved_tensors_hooks(held, in_full):
        return functional.linear(x, written_out(), layer.bias)
