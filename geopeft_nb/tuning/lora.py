"""LoRA and its kin, as peft has them: which layers of a backbone, and with which defaults.

Hu et al., arXiv 2106.09685: beside a frozen weight W a thin detour learns,

    W x + (lora_alpha / r) B A x,

with A (r, in) random and B (out, r) zero at first, so that it starts as the pretrained network.
Attention has a layer each for queries, keys and values (`SelfAttention`), so that peft reaches them
by name, and what is saved is a plain adapter of peft.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import peft
from peft import LoraConfig, PeftConfig

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.errors import check_name
from geopeft_nb.tuning.target_modules import block_names, layer_names

#: Preset -> layers that it adapts in every block.
PRESETS = {
    "paper": ("q", "v", "fc1", "fc2"),
    "q_v": ("q", "v"),
    "fc1": ("fc1",),
    "all_linear": ("q", "k", "v", "proj", "fc1", "fc2"),
    "late": ("q", "v", "fc1", "fc2"),
}


def lora_config(
    backbone: Backbone, preset: str = "paper", r: int = 16, lora_alpha: float | None = None,
    target_modules: Sequence[str] | None = None, last: int | None = None,
    **options: Any,
) -> PeftConfig:  # fmt: skip
    """Describe LoRA on a backbone.

    Args:
        backbone: From `load_backbone`.
        preset: ``"paper"`` adapts queries, values and both feed-forward layers of every block, as
            arXiv 2504.17397; ``"q_v"`` only queries and values; ``"fc1"`` only the first
            feed-forward layer, for the least memory; ``"all_linear"`` also keys and the
            attention's output; ``"late"`` as the paper, but only in the last quarter of the blocks,
            so that no gradient flows below.
        r: Rank of each update: higher fits more and costs more; the paper uses 16.
        lora_alpha: Scale, as a multiple of r it is the factor on the update; None means r.
        target_modules: Names of the layers in a block, in place of the preset's.
        last: Adapt only the last so many blocks; None means all, or what the preset says.
        **options: Any other field of peft's `LoraConfig`, such as `lora_dropout` or `use_dora`.

    Returns:
        The config, for peft.

    Raises:
        ValueError: An unknown preset, or no layer has such a name.
    """
    check_name("preset of lora", preset, PRESETS)
    if preset == "late" and last is None:
        last = max(1, len(block_names(backbone)) // 4)
    layers = PRESETS[preset] if target_modules is None else target_modules
    names = layer_names(backbone, layers, last)
    alpha: Any = r if lora_alpha is None else lora_alpha  # peft takes any number
    return LoraConfig(target_modules=names, r=r, lora_alpha=alpha, **options)


def kin_config(
    backbone: Backbone, peft_class: str, target_modules: Sequence[str] = PRESETS["paper"],
    last: int | None = None,
    **options: Any,
) -> PeftConfig:  # fmt: skip
    """Describe another method of peft that adapts layers by their names.

    Args:
        backbone: From `load_backbone`.
        peft_class: Name of a config of peft, such as ``"VeraConfig"``.
        target_modules: Names of the layers in a block.
        last: Adapt only the last so many blocks; None means all.
        **options: Fields of that config.
    """
    names = layer_names(backbone, target_modules, last)
    return getattr(peft, peft_class)(target_modules=names, **options)


def ia3_config(backbone: Backbone, last: int | None = None, **options: Any) -> PeftConfig:
    """Describe IA³: a factor per feature of queries, keys, values and of fc2's input."""
    names = layer_names(backbone, ("q", "k", "v", "fc2"), last)
    inputs = [name for name in names if name.endswith("fc2")]
    return peft.IA3Config(target_modules=names, feedforward_modules=inputs, **options)
