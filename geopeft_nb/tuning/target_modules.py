"""Which layers of a backbone a method may take, and what to say when there are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from torch import nn

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.errors import GeopeftError, whole

if TYPE_CHECKING:
    from geopeft_nb.models import SegmentationModel


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
    raise GeopeftError(
        f"{backbone.card.name} is a convolutional network: it has no transformer blocks, which "
        f"{method} needs. Attach 'linear_probe', 'bitfit' or 'full', or load a transformer such as "
        "'geopeft_tiny' or 'prithvi_eo_v2_300'."
    )


def layer_names(
    backbone: Backbone, method: str, endings: Sequence[str], last: int | None = None
) -> list[str]:
    """Return the full names of the layers in the blocks that a method adapts.

    Args:
        backbone: From `load_backbone`.
        method: Name of the method that asks, for the message.
        endings: Endings of names within a block, such as ``"q"`` or ``"mlp.fc1"``.
        last: Only the last so many blocks; None means all.

    Raises:
        ValueError: No blocks, a name that no layer has, or more blocks than there are.
    """
    if isinstance(endings, str):
        raise GeopeftError(f"target_modules must be a list of names, such as {[endings]!r}.")
    blocks = block_names(backbone, method)
    if last is not None:
        whole("last, the number of blocks at the end to adapt,", last, 1, len(blocks))
    chosen = tuple(f"{block}." for block in (blocks if last is None else blocks[-last:]))
    names = [name for name in _layers(backbone) if name.startswith(chosen)]
    _check_endings(backbone, endings, names)
    return [name for name in names if _matches(name, endings)]


def check_targets(backbone: Backbone, config: PeftConfig) -> set[str]:
    """Return the layers that a config adapts; peft itself would pass over a name without layer.

    Raises:
        ValueError: A name in `target_modules` that no layer has.
    """
    names = _layers(backbone)
    wanted = getattr(config, "target_modules", None)
    if wanted is not None and not isinstance(wanted, str):
        _check_endings(backbone, sorted(wanted), names)
    return {name for name in names if wanted and check_target_module_exists(config, name)}


def adapted_layers(backbone: Backbone) -> set[str]:
    """Return the names of the layers that carry an adapter."""
    named = backbone.named_modules()
    return {name for name, module in named if isinstance(module, BaseTunerLayer)}


def check_same_layers(model: SegmentationModel, config: PeftConfig, layers: set[str]) -> None:
    """Refuse another choice of layers where peft would mix the adapters up.

    Raises:
        ValueError: Other layers, or another r, than those of the model's first adapter.
    """
    first = model.adapters[0]
    rank = getattr(model.backbone.peft_config[first], "r", None)
    if layers != adapted_layers(model.plain_backbone) or getattr(config, "r", None) != rank:
        raise GeopeftError(
            f"All {model.method} adapters of one model have the same layers and the same r. Take "
            f"the options of {first!r}, {model.options[first]}, or build a new model."
        )


def _layers(backbone: Backbone) -> list[str]:
    """Return the names of all layers with weights; one with an adapter counts as one."""
    wrapped: tuple[str, ...] = ()
    names = []
    for name, module in backbone.named_modules():
        if name.startswith(wrapped):
            continue
        if isinstance(module, BaseTunerLayer):
            wrapped += (f"{name}.",)
            names.append(name)
        elif isinstance(getattr(module, "weight", None), nn.Parameter):
            names.append(name)
    return names


def _matches(name: str, endings: Sequence[str]) -> bool:
    return any(f".{name}".endswith(f".{ending}") for ending in endings)


def _check_endings(backbone: Backbone, endings: Sequence[str], names: Sequence[str]) -> None:
    for ending in endings:
        if not any(_matches(name, [ending]) for name in names):
            known = sorted(
                {name.partition("blocks.")[2].partition(".")[2] or name for name in names}
            )
            raise GeopeftError(
                f"No layer of {backbone.card.name} ends in {ending!r}. There are: "
                f"{', '.join(known)}."
            )
