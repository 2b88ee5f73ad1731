"""Hold frozen weights in two bytes or one instead of four.

A frozen weight is only read, so it need not have the precision that training needs. It is held in
bfloat16, or as whole numbers from -127 to 127 with one factor per row (Dettmers et al., arXiv
2208.07339), and written out in full for the moment in which its layer computes. The backward pass
does that a second time, so that no full copy is kept between the two.

Libraries quantise weights too, but made for inference they let autograd keep the full copy that
they compute with (torchao 0.18 does), which is just what is to be saved here.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.vit import full_weight
from geopeft_nb.files import cache_folder
from geopeft_nb.memory.parts import running_blocks
from geopeft_nb.models import SegmentationModel, part_of


@contextmanager
def hold(model: SegmentationModel, kind: str, park: str = "disk") -> Iterator[str]:
    """Hold the frozen linear layers of the blocks in fewer bytes, and restore them bit by bit.

    Args:
        model: Its weights are changed in place; norms, biases and what is trained stay as they are.
        kind: ``"bf16"`` or ``"8bit"``.
        park: Where the originals are meanwhile: ``"disk"`` in a file of the cache folder that has
            no name, so that nothing of it can be left behind; ``"memory"`` for a look without
            training, which saves no memory.

    Yields:
        A sentence that says what was done.
    """
    layers = frozen_layers(model)
    originals = [layer.weight.data for layer in layers]
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_folder()) as file:
        if park == "disk":
            torch.save([weight.cpu() for weight in originals], file)
            originals.clear()
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
            exact = originals or torch.load(file, weights_only=True)
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

    def held(full: Tensor) -> tuple[Sequence[int], Sequence[int]]:
        return full.shape, full.stride()  # of W or its transpose, all that a frozen layer keeps

    def in_full(layout: tuple[Sequence[int], Sequence[int]]) -> Tensor:
        return full_weight(weight, scale, dtype).as_strided(*layout)

    with torch.autograd.graph.saved_tensors_hooks(held, in_full):
        return functional.linear(x, full_weight(weight, scale, dtype), layer.bias)
