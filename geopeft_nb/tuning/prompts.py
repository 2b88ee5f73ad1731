"""Visual prompt tuning: learned tokens that a frozen transformer attends to.

Jia et al., arXiv 2203.12119: instead of changing weights, put n new tokens, the prompts, beside
the tokens of the image. Attention lets every patch read them, so training them steers what the
frozen blocks compute. Shallow: the prompts enter before the first block and travel through all.
Deep: every block gets prompts of its own, and those of the block before are dropped.

The paper puts prompts between class token and patches; here they stand at the end. To attention
the order of tokens means nothing, as positions are part of the tokens, so the result is the same,
and to remove the prompts one cuts off the end. (In a network whose attention adds positions by
itself, as Swin or rotary codes do, it would not be so.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.tuning.own_method import OwnConfig, OwnLayer, one_of, register
from geopeft_nb.tuning.target_modules import block_names


@dataclass
class VptConfig(OwnConfig):
    """What defines visual prompts, for peft.

    Args:
        prompts: Number of prompts n per block.
        deep: Whether prompts leave after their block; else they travel on.
        dropout: Share of the prompts' values that is set to zero in training.
        patch_size: Patch side in pixels, which the paper starts the prompts' size from.
    """

    prompts: int = field(default=100)
    deep: bool = field(default=True)
    dropout: float = field(default=0.1)
    patch_size: int = field(default=16)


class VptLayer(OwnLayer):
    """A transformer block that also sees prompts, (1, n, D) per adapter."""

    adapter_layer_names = ("vpt_prompts",)
    container = nn.ParameterDict
    vpt_prompts: nn.ParameterDict

    def add(self, adapter_name: str) -> None:
        """Make prompts, uniform in ±v with v² = 6 / (3 p² + D), as the paper does."""
        config = self.configs[adapter_name]
        bound = math.sqrt(6 / (3 * config.patch_size**2 + self.width))
        prompts = torch.empty(1, config.prompts, self.width).uniform_(-bound, bound)
        self.vpt_prompts[adapter_name] = nn.Parameter(prompts)

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Refine (B, N, D) to (B, N, D), or to (B, N + n, D) if the prompts travel on."""
        name = self.acting
        if name is None:
            return self.base_layer(tokens, *args, **kwargs)
        config = self.configs[name]
        prompts = functional.dropout(self.vpt_prompts[name], config.dropout, self.training)
        prompts = prompts.to(tokens.dtype).expand(tokens.shape[0], -1, -1)  # (B, n, D)
        refined = self.base_layer(torch.cat([tokens, prompts], dim=1), *args, **kwargs)
        return refined[:, : tokens.shape[1]] if config.deep else refined


register("visual_prompts", VptConfig, VptLayer, prefix="vpt_")


def vpt_config(
    backbone: Backbone, prompts: int = 100, deep: bool = True, dropout: float = 0.1
) -> VptConfig:
    """Describe visual prompts for a backbone.

    Args:
        backbone: From `load_backbone`, with transformer blocks.
        prompts: Number of prompts n: each costs D weights per block, and attention over n more
            tokens. The paper of this toolkit (arXiv 2504.17397) takes 100.
        deep: New prompts before every block; otherwise only before the first.
        dropout: Share of the prompts' values that is set to zero in training, 0 to below 1.

    Returns:
        The config for `peft.get_peft_model`.

    Raises:
        ValueError: The backbone has no transformer blocks.
    """
    names = block_names(backbone)
    return VptConfig(
        target_modules=one_of(names if deep else names[:1]),
        prompts=prompts, deep=deep, dropout=dropout, patch_size=backbone.patch_size,
    )  # fmt: skip
