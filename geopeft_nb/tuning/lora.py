"""LoRA and its kin, as peft has them: which layers of a backbone, and of how many blocks.

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
import torch
from peft import PeftConfig
from torch import Tensor, nn

from geopeft_nb.backbones.base import Backbone, Transformer, block_names
from geopeft_nb.backbones.vit import run_blocks
from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.errors import GeopeftError, check_name, whole

#: Most chips, and patches of each, that the similarity of blocks is told from.
CHIPS, PATCHES = 128, 16
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
    alpha = r if lora_alpha is None else lora_alpha
    return kin_config(backbone, "LoraConfig", layers, last, r=r, lora_alpha=alpha, **options)


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

    Raises:
        ValueError: No blocks, a name that no layer has, or more blocks than there are.
    """
    blocks = block_names(backbone)
    if last is not None:
        whole("last, the number of blocks at the end to adapt,", last, 1, len(blocks))
        blocks = blocks[-last:]
    names = find_layers(backbone, target_modules, tuple(f"{block}." for block in blocks))
    return getattr(peft, peft_class)(target_modules=names, **options)


def shallow_config(
    backbone: Backbone, depth: int | None = None, chips: ChipDataset | None = None,
    similarity: float = 0.9, preset: str = "paper", r: int = 16, lora_alpha: float | None = None,
    lora_dropout: float = 0.0,
) -> PeftConfig:  # fmt: skip
    """Drop the last blocks of a backbone, in place, and describe LoRA on what is left.

    Every other method leaves the network as deep as it was, or makes it deeper: it saves in
    training, and never when a map is made. After SIMPLER (Barreiro et al., arXiv 2603.19873) the
    depth is chosen before training, on chips without labels: in a pretrained transformer the later
    blocks often change the features little. The network ends with the first block whose features
    are alike enough to those of the last, see `cka`. SIMPLER scores the similarities of all pairs
    of blocks instead, without a threshold.

    Args:
        backbone: From `load_backbone`, with transformer blocks. Maps that it returns are taken at
            the same shares of the new depth; the last block passes the final norm.
        depth: Number of blocks to keep; None means half, or what is found by chips, but no fewer
            than maps are returned.
        chips: Samples to find the depth by, such as `data.train`; labels are not looked at.
        similarity: CKA with the last block's features that is alike enough, 0 to 1.
        preset: As of LoRA.
        r: As of LoRA.
        lora_alpha: As of LoRA.
        lora_dropout: As of LoRA.

    Returns:
        The config, for peft.

    Raises:
        ValueError: Depth and chips; fewer blocks than maps; or a backbone without blocks.
    """
    check_name("preset of lora", preset, PRESETS)
    running = len(block_names(backbone))  # refuses a network without blocks
    assert isinstance(backbone, Transformer)
    if depth is not None and chips is not None:
        raise GeopeftError("shallow takes depth=, or chips= to find it by: leave one out.")
    least = running if backbone.attached else len(backbone.layers)  # other adapters need them all
    if chips is not None:
        found = similarities(backbone, chips)
        depth = next((i for i, x in enumerate(found, 1) if x >= similarity), len(found))
        depth = max(least, depth)
    elif depth is None:
        depth = max(least, running // 2)
    backbone.cut(whole("depth, the number of blocks to keep,", depth, least, running))
    return lora_config(backbone, preset, r, lora_alpha, lora_dropout=lora_dropout)


@torch.no_grad()
def similarities(backbone: Transformer, chips: ChipDataset) -> list[float]:
    """Return the CKA of the features of each block that runs with those of the last, on chips."""
    whole("len(chips)", len(chips))
    running, device = range(backbone.layers[-1] + 1), next(backbone.parameters()).device
    features: list[list[Tensor]] = []
    for sample in chips.spread(CHIPS):
        tokens, grid = backbone.begin(backbone.normalise(sample["image"][None].to(device)))
        outputs = run_blocks(backbone.blocks, nn.Identity(), running, tokens)
        maps = [backbone.to_map(tokens, grid).flatten(2)[0].T for tokens in outputs]
        features.append([patches[:: -(-len(patches) // PATCHES)] for patches in maps])
    blocks = [torch.cat(of_block) for of_block in zip(*features, strict=True)]
    return [cka(block, blocks[-1]) for block in blocks]


def cka(x: Tensor, y: Tensor) -> float:
    """Return the centred kernel alignment of features (N, D) and (N, E): 0 to 1.

    It tells how alike two sets of features are (Kornblith et al., arXiv 1905.00414). With X and Y
    (N, D) the centred features of N patches,

        CKA = |XᵀY|² / (|XᵀX| |YᵀY|),  in Frobenius norms: 1 if they differ by a turn and a factor.
    """
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    return float((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


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
            some = f"target_modules lists some of: {', '.join(known)}."
            raise GeopeftError(f"No layer of {backbone.card.name} ends in {ending!r}. {some}")
    wanted = tuple(f".{ending}" for ending in endings)
    return [name for name in layers if f".{name}".endswith(wanted)]
