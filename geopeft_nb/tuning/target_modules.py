"""Which layers of a backbone a method may take, and what to say when there are none."""

from __future__ import annotations

from collections.abc import Sequence

from geopeft_nb.backbones.base import Backbone, Transformer
from geopeft_nb.errors import GeopeftError, whole

#: What to say of a backbone without transformer blocks.
NO_BLOCKS = (
    "{} is a convolutional network: it has no transformer blocks, which this method needs. Attach "
    "'linear_probe', 'bitfit' or 'full', or load a transformer such as 'geopeft_tiny' or "
    "'prithvi_eo_v2_300'."
)


def block_names(backbone: Backbone) -> list[str]:
    """Return the full names of the transformer blocks that a backbone runs, in order.

    Blocks behind the last chosen layer are left out: nothing there would learn.

    Args:
        backbone: From `load_backbone`.

    Raises:
        ValueError: The backbone has no transformer blocks.
    """
    if not isinstance(backbone, Transformer):
        raise GeopeftError(NO_BLOCKS.format(backbone.card.name))
    named = backbone.named_modules()
    blocks = next(name for name, module in named if module is backbone.blocks)
    return [f"{blocks}.{number}" for number in range(backbone.layers[-1] + 1)]


def layer_names(backbone: Backbone, endings: Sequence[str], last: int | None = None) -> list[str]:
    """Return the full names of the layers in the blocks that a method adapts.

    Args:
        backbone: From `load_backbone`.
        endings: Endings of names within a block, such as ``"q"`` or ``"mlp.fc1"``.
        last: Only the last so many blocks; None means all.

    Raises:
        ValueError: No blocks, a name that no layer has, or more blocks than there are.
    """
    blocks = block_names(backbone)
    if last is not None:
        whole("last, the number of blocks at the end to adapt,", last, 1, len(blocks))
        blocks = blocks[-last:]
    return find_layers(backbone, endings, tuple(f"{block}." for block in blocks))


def find_layers(
    backbone: Backbone, endings: Sequence[str], within: tuple[str, ...] = ("",)
) -> list[str]:
    """Return the names of the layers with weights that end so, of those that begin so.

    Raises:
        ValueError: A name that no layer has; peft passes over it if another is there.
    """
    named = backbone.named_modules()
    layers = [n for n, module in named if n.startswith(within) and hasattr(module, "weight")]
    for ending in endings or [""]:
        if not any(f".{name}".endswith(f".{ending}") for name in layers):
            known = sorted({n.partition("blocks.")[2].partition(".")[2] or n for n in layers})
            raise GeopeftError(
                f"No layer of {backbone.card.name} ends in {ending!r}. target_modules is a list of "
                f"names, of: {', '.join(known)}."
            )
    wanted = tuple(f".{ending}" for ending in endings)
    return [name for name in layers if f".{name}".endswith(wanted)]
