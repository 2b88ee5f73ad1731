"""Which layers of a backbone a method may take, and what to say when there are none."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.errors import GeopeftError, whole


def block_names(backbone: Backbone, method: str) -> list[str]:
    """Return the full names of the transformer blocks that a backbone runs, in order.

    Blocks behind the last chosen layer are left out: nothing there would learn.

    Args:
        backbone: From `load_backbone`.
        method: Name of the method that asks, for the message.

    Raises:
        ValueError: The backbone has no transformer blocks.
    """
    blocks = getattr(backbone, "blocks", None)
    for name, module in backbone.named_modules():
        if module is blocks:
            return [f"{name}.{number}" for number in range(backbone.layers[-1] + 1)]
    raise _without_blocks(backbone, method)


def layer_names(
    backbone: Backbone,
    method: str,
    endings: Sequence[str],
    last: int | None = None,
    kind: type[nn.Module] | tuple[type[nn.Module], ...] = nn.Linear,
    anywhere: bool = False,
) -> list[str]:
    """Return the full names of the layers in the blocks that a method adapts.

    Args:
        backbone: From `load_backbone`.
        method: Name of the method that asks, for the message.
        endings: Endings of names within a block, such as ``"attn.qkv"`` or ``"fc1"``.
        last: Only the last so many blocks; None means all.
        kind: Class of the layers.
        anywhere: Look in the whole network if it has no blocks.

    Raises:
        ValueError: No blocks, no layer with such a name, or more blocks than there are.
    """
    if isinstance(endings, str) or not endings:
        example = [endings] if endings else ["attn.qkv"]
        raise GeopeftError(f"targets must be a list of names, for example {example!r}.")
    stages = anywhere and not hasattr(backbone, "blocks")
    blocks = [] if stages else block_names(backbone, method)
    if last is not None:
        whole("last, the number of blocks at the end to adapt,", last, 1, len(blocks))
    chosen = tuple(f"{block}." for block in (blocks if last is None else blocks[-last:]))
    candidates: list[str] = []
    for name, module in backbone.named_modules():
        # A layer that carries an adapter already counts as the layer that it wraps.
        base = module.get_base_layer() if hasattr(module, "get_base_layer") else module
        inside = stages or name.startswith(chosen)
        wrapped = candidates and name.startswith(f"{candidates[-1]}.")
        if inside and not wrapped and isinstance(base, kind):
            candidates.append(name)
    if not candidates:
        raise _without_blocks(backbone, method)
    for ending in endings:
        if not any(f".{name}".endswith(f".{ending}") for name in candidates):
            known = sorted({name.split(".blocks.")[-1].split(".", 2)[-1] for name in candidates})
            raise GeopeftError(
                f"No layer of {backbone.card.name} ends in {ending!r}. In its blocks there are: "
                f"{', '.join(known)}."
            )
    return [n for n in candidates if any(f".{n}".endswith(f".{ending}") for ending in endings)]


def _without_blocks(backbone: Backbone, method: str) -> ValueError:
    return GeopeftError(
        f"{backbone.card.name} is a convolutional network: it has no transformer blocks, which "
        f"{method} needs. Attach 'linear_probe', 'bitfit' or 'full', or load a transformer such as "
        "'geopeft_tiny' or 'prithvi_eo_v2_300'."
    )
