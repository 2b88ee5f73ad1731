"""Bottleneck adapters: small two-layer networks beside or behind the layers of a frozen block.

An adapter projects the D features of a token down to a few, applies a nonlinearity, and projects
up again; what it gives is added. The upward weights start at zero, so before training nothing has
changed. Two ways to place it:

serial (Houlsby et al., arXiv 1902.00751): behind the attention and behind the MLP of each block,
before the residual sum. It corrects what these give.

parallel (AdaptFormer, Chen et al., arXiv 2205.13535): beside the MLP, on the same normalised
input, scaled by 0.1. It adds what the MLP lacks, at half the weights of the serial one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.errors import check_name
from geopeft_nb.tuning.own_method import OwnConfig, OwnLayer, one_of, register
from geopeft_nb.tuning.target_modules import block_names

#: Kind -> the parts of a block that get an adapter, and the factor on what it adds.
KINDS = {"serial": (("attn", "mlp"), 1.0), "parallel": (("mlp",), 0.1)}


@dataclass
class AdapterConfig(OwnConfig):
    """What defines bottleneck adapters, for peft.

    Args:
        kind: ``"serial"`` or ``"parallel"``.
        width: Features w of the bottleneck.
        scale: Factor on what the adapter adds.
        dropout: Share of the bottleneck's values that is set to zero in training.
    """

    kind: str = field(default="parallel")
    width: int = field(default=64)
    scale: float = field(default=0.1)
    dropout: float = field(default=0.0)


class AdapterLayer(OwnLayer):
    """An attention or MLP with an adapter behind or beside it: D -> w -> D per token."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    bottleneck_down: nn.ModuleDict
    bottleneck_up: nn.ModuleDict

    def add(self, adapter_name: str) -> None:
        """Make the two projections of one adapter."""
        width = self.configs[adapter_name].width
        down, up = nn.Linear(self.width, width), nn.Linear(width, self.width)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        name, result = self.acting, self.base_layer(x, **kwargs)
        if name is None:
            return result
        config, down, up = self.configs[name], self.bottleneck_down[name], self.bottleneck_up[name]
        # The nonlinearities are those of the two papers.
        parallel = config.kind == "parallel"
        read, bend = (x, functional.relu) if parallel else (result, functional.gelu)
        low = bend(down(read.to(next(down.parameters()).dtype)))  # (B, N, w)
        low = functional.dropout(low, config.dropout, self.training)
        return result + (config.scale * up(low)).to(read.dtype)


register("bottleneck_adapter", AdapterConfig, AdapterLayer, prefix="bottleneck_")


def adapter_config(
    backbone: Backbone, kind: str = "parallel", width: int = 64, scale: float | None = None,
    dropout: float = 0.0,
) -> AdapterConfig:  # fmt: skip
    """Describe bottleneck adapters for a backbone.

    Args:
        backbone: From `load_backbone`, with transformer blocks.
        kind: ``"parallel"`` beside each MLP, or ``"serial"`` behind each attention and MLP.
        width: Features w of the bottleneck: an adapter has about 2 w D weights.
        scale: Factor on what the adapter adds; None means 0.1 (parallel) or 1 (serial).
        dropout: Share of the bottleneck's values that is set to zero in training, 0 to below 1.

    Returns:
        The config for `peft.get_peft_model`.

    Raises:
        ValueError: An unknown kind, or the backbone has no blocks.
    """
    check_name("kind of adapter", kind, KINDS)
    parts, usual = KINDS[kind]
    names = [f"{block}.{part}" for block in block_names(backbone) for part in parts]
    return AdapterConfig(
        target_modules=one_of(names), kind=kind, width=width,
        scale=usual if scale is None else scale, dropout=dropout,
    )  # fmt: skip
