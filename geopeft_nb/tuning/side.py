"""Ladder side-tuning (Sung et al., arXiv 2206.06522): a small network beside a frozen transformer.

LoRA and adapters change few weights, but the gradient travels to them through all that lies above,
and all on its way is kept. Here nothing travels: a thin network beside the backbone reads what some
of its blocks give, and only that network learns. It climbs from rung to rung,

    s ← s + down(norm(x)),    s ← s + mix(gelu(depthwise(s))),

with x (D, h, w) what the rung's block gives and s (r, h, w) the state of the ladder; `depthwise`
looks at the 3 × 3 neighbours, at which a linear probe never looks. At the maps that the backbone
returns up(s) is added. `up` starts at zero, so that at first this is a linear probe.

The paper's side network is a thin transformer, started from pruned weights, with gates for sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.base import Backbone, More, Transformer
from geopeft_nb.backbones.vit import run_blocks
from geopeft_nb.errors import GeopeftError, whole
from geopeft_nb.tuning.target_modules import block_names


class Rung(nn.Module):
    """One rung of the ladder: it reads features of the backbone into a state, and mixes that.

    Args:
        width: Features D that it reads.
        r: Features of the state.
    """

    def __init__(self, width: int, r: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, r)
        self.depthwise = nn.Conv2d(r, r, 3, padding=1, groups=r)
        self.mix = nn.Conv2d(r, r, 1)

    def forward(self, state: Tensor | float, features: Tensor) -> Tensor:
        """Bring the state (B, r, h, w) up to date with features (B, D, h, w)."""
        tokens = features.movedim(1, -1)
        read = self.down(functional.layer_norm(tokens, tokens.shape[-1:])).movedim(-1, 1)
        state = state + read
        return state + self.mix(functional.gelu(self.depthwise(state)))


class Side(Backbone):
    """A frozen transformer with a ladder beside it, in place of the backbone that it wraps.

    Args:
        vit: A backbone with transformer blocks, which is frozen.
        r: Features of the ladder's state: more fit more, and cost 2 D weights each a rung.
        layers: Number of blocks that it reads, spread evenly over those that run; None means 6, or
            all of a network with fewer. Blocks whose maps are returned are read as well.

    Attributes:
        rungs: Indices of the blocks that are read.

    Raises:
        ValueError: A network without transformer blocks, or more layers than blocks.
    """

    def __init__(self, vit: Backbone, r: int = 16, layers: int | None = None) -> None:
        super().__init__(vit.card, vit.request)
        depth = len(block_names(vit))  # refuses a network without blocks
        assert isinstance(vit, Transformer)
        count = min(6, depth) if layers is None else whole("layers", layers, 1, depth)
        even = {depth * (rung + 1) // count - 1 for rung in range(count)}
        self.rungs = sorted(even | set(vit.layers))
        self.patch_size, self.layers = vit.patch_size, vit.layers
        self.strides, self.channels, self.provenance = vit.strides, vit.channels, vit.provenance
        self.vit, width = vit.requires_grad_(False).eval(), vit.channels[-1]
        self.side = nn.ModuleDict({str(rung): Rung(width, r) for rung in self.rungs})
        self.up = nn.ModuleDict({str(layer): nn.Conv2d(r, width, 1) for layer in vit.layers})
        for weight in self.up.parameters():
            nn.init.zeros_(weight)

    def train(self, mode: bool = True) -> Self:
        """Set training mode of the ladder; the transformer gives the same features always."""
        super().train(mode)
        self.vit.eval()
        return self

    def choose(self, layers: Sequence[int] | None) -> None:
        """Refuse a choice of layers; see `Backbone.choose`."""
        raise GeopeftError("side returns the maps that the backbone returned: choose them before.")

    @torch.no_grad()
    def read(self, image: Tensor, temporal: More = None, location: More = None) -> list[Tensor]:
        """Run the frozen transformer: one map (B, D, h, w) per rung. Arguments as in `forward`."""
        tokens, grid = self.vit.begin(image, temporal, location)
        kept = run_blocks(self.vit.blocks, self.vit.norm, self.rungs, tokens)
        return [self.vit.to_map(x, grid) for x in kept]

    def climb(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Turn what `read` gives into the backbone's maps, each with what the ladder adds."""
        state, maps = torch.zeros((), device=features[0].device), []
        for rung, x in zip(self.side, features, strict=True):
            state = self.side[rung](state, x)
            if rung in self.up:
                maps.append(x + self.up[rung](state))
        return maps

    def forward(self, image: Tensor, temporal: More = None, location: More = None) -> list[Tensor]:
        """Compute the maps; see `Backbone.forward`."""
        return self.climb(self.read(image, temporal, location))
