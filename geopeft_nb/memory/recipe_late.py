"""Train late: adapt only the last quarter of the blocks, and run those before without a graph.

A gradient travels from the loss down to the first weight that is trained, and everything on its
way is kept. If nothing below the last quarter learns, nothing below is kept and nothing below is
run backwards. Features of early blocks are the more general ones (Yosinski et al., arXiv
1411.1792), so they suffer least from being left as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from geopeft_nb.backbones.base import Transformer
from geopeft_nb.errors import GeopeftError
from geopeft_nb.memory.blocks import running_blocks
from geopeft_nb.models import SegmentationModel


@contextmanager
def train_late(model: SegmentationModel) -> Iterator[str]:
    """Freeze what a method trains in and before the first three quarters of the blocks.

    It stays at its neutral start (or where earlier training left it), at which it changes nothing.
    The decoder and the final norm are trained as ever.

    Yields:
        A sentence that says what was frozen.

    Raises:
        ValueError: The method has no late part, see `why_not_late`.
    """
    if reason := why_not_late(model):
        raise GeopeftError(reason)
    blocks = running_blocks(model)
    first = len(blocks) - late_count(blocks)
    stays = {id(p) for block in blocks[first:] for p in block.parameters()}
    stays |= {id(p) for p in model.plain_backbone.norm.parameters()}  # type: ignore[union-attr]
    early = [p for p in model.backbone.parameters() if p.requires_grad and id(p) not in stays]
    idle = [layer for block in blocks[:first] for layer in block.modules() if adds_zero(layer)]
    for layer in idle:  # an update that is zero takes time to compute
        layer.enable_adapters(False)  # type: ignore[operator]
    for parameter in early:
        parameter.requires_grad_(False)
    try:
        count = sum(parameter.numel() for parameter in early)
        yield (
            f"trains blocks {first + 1} to {len(blocks)} of {len(blocks)}; {count:,} weights "
            "before them stay as they are"
        )
    finally:
        for layer in idle:
            layer.enable_adapters(True)  # type: ignore[operator]
        for parameter in early:
            parameter.requires_grad_(True)


def adds_zero(layer: nn.Module) -> bool:
    """Say whether a layer carries LoRA updates that are all zero still, and so change nothing."""
    names = getattr(layer, "active_adapters", ())
    ends = getattr(layer, "lora_B", {})
    # DoRA scales the rows of the weight besides, which is exact only up to rounding.
    plain = ends and not getattr(layer, "lora_magnitude_vector", {})
    weights = [end.weight for name, end in ends.items() if name in names]
    # Without values, on the meta device, a network is planned as it is before training.
    return bool(plain) and all(weight.is_meta or not weight.any() for weight in weights)


def late_count(blocks: list[nn.Module]) -> int:
    """Return how many blocks are late: a quarter, as of LoRA's preset ``"late"``."""
    return max(1, len(blocks) // 4)


def why_not_late(model: SegmentationModel) -> str:
    """Say why a model cannot be trained late; empty if it can."""
    name = model.plain_backbone.card.name
    if not isinstance(model.plain_backbone, Transformer):
        return f"{name} has no transformer blocks, of which 'late' trains the last quarter."
    if model.method == "vpt":
        return (
            "Prompts of early blocks start at random values, not at ones that change nothing, so "
            "'late' cannot leave them as they are. Take another method, such as 'lora'."
        )
    if model.method == "vit_adapter":
        return (
            "The branch of ViT-Adapter reads the image itself and feeds the first block, so it has "
            "no late part. Take another method, such as 'lora'."
        )
    blocks = running_blocks(model)
    if not any(p.requires_grad for b in blocks[-late_count(blocks) :] for p in b.parameters()):
        return (
            f"{model.method} trains nothing in the last {late_count(blocks)} blocks, so 'late' "
            "would train the decoder alone. Attach a method that trains blocks, such as 'lora'."
        )
    return ""
