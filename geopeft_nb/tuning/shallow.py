"""A shallow backbone: drop the blocks that change its features little, and train LoRA on the rest.

Every other method leaves the network as deep as it was, or makes it deeper: it saves in training,
and never when a map is made. After SIMPLER (Barreiro et al., arXiv 2603.19873) the depth is chosen
before training, on chips without labels: in a pretrained transformer the later blocks often change
the features little. How alike two sets of features are is told by centred kernel alignment, CKA
(Kornblith et al., arXiv 1905.00414). With X and Y (N, D) the centred features of N patches,

    CKA = |XᵀY|² / (|XᵀX| |YᵀY|),    in Frobenius norms: 1 if they differ by a turn and a factor.

The network ends with the first block whose features are alike enough to those of the last. SIMPLER
scores the similarities of all pairs of blocks instead, without a threshold.
"""

from __future__ import annotations

import torch
from peft import PeftConfig
from torch import Tensor, nn

from geopeft_nb.backbones.base import Backbone, Transformer
from geopeft_nb.backbones.vit import run_blocks
from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.errors import GeopeftError, check_name, whole
from geopeft_nb.tuning.lora import PRESETS, lora_config
from geopeft_nb.tuning.target_modules import block_names

#: Most chips, and patches of each, that the similarity is told from.
CHIPS, PATCHES = 128, 16


def shallow_config(
    backbone: Backbone, depth: int | None = None, chips: ChipDataset | None = None,
    similarity: float = 0.9, preset: str = "paper", r: int = 16, lora_alpha: float | None = None,
    lora_dropout: float = 0.0,
) -> PeftConfig:  # fmt: skip
    """Drop the last blocks of a backbone, in place, and describe LoRA on what is left.

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
    every = -(-len(chips) // CHIPS)
    features: list[list[Tensor]] = []
    for index in range(0, len(chips), every):
        image = chips[index]["image"][None].to(next(backbone.parameters()).device)
        tokens, grid = backbone.begin(backbone.normalise(image))
        outputs = run_blocks(
            backbone.blocks, nn.Identity(), range(backbone.layers[-1] + 1), tokens
        )  # fmt: skip
        maps = [backbone.to_map(tokens, grid).flatten(2)[0].T for tokens in outputs]
        features.append([patches[:: -(-len(patches) // PATCHES)] for patches in maps])
    blocks = [torch.cat(of_block) for of_block in zip(*features, strict=True)]
    return [cka(block, blocks[-1]) for block in blocks]


def cka(x: Tensor, y: Tensor) -> float:
    """Return the centred kernel alignment of features (N, D) and (N, E): 0 to 1."""
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    return float((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))
