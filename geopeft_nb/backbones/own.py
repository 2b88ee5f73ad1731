"""Your own network as a backbone: any `nn.Module` that turns an image into feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from geopeft_nb.backbones.base import Backbone, Request, choose_layers
from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.backbones.vit import pad_to_patches


class OwnBackbone(Backbone):
    """What a card of the family ``"own"`` describes; it is built by ``card.extra["build"]``.

    Args:
        network: Takes (B, C, H, W) and returns a list of maps (B, D, h, w), fine to coarse.
        channels: Input bands C.
        size: Side in pixels of an image that it is tried on, to learn the sizes of its maps.
    """

    def __init__(self, network: nn.Module, channels: int, size: int) -> None:
        super().__init__()
        self.network: Any = network
        with torch.no_grad():
            maps = network.eval()(torch.zeros(1, channels, size, size))
        self.all_channels = tuple(one.shape[1] for one in maps)
        self.all_strides = tuple(size // one.shape[-1] for one in maps)
        self.train()

    @classmethod
    def from_card(cls, card: BackboneCard, request: Request) -> Self:
        """Build the untrained network; see `Backbone.from_card`."""
        bands = len(request.bands)
        backbone = cls(card.extra["build"](bands), bands, card.img_size)
        backbone.choose(request.layers)
        return backbone

    def choose(self, layers: Sequence[int] | None) -> None:
        """Choose which maps are returned, None all; see `Backbone.choose`."""
        count = len(self.all_channels)
        self.layers = choose_layers(range(count) if layers is None else layers, count)
        self.channels = tuple(self.all_channels[layer] for layer in self.layers)
        self.strides = tuple(self.all_strides[layer] for layer in self.layers)
        self.patch_size = self.strides[-1]

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the network's own `state_dict`."""
        return {f"network.{key}": value for key, value in state.items()}

    def forward(
        self, image: Tensor, temporal: Tensor | None = None, location: Tensor | None = None
    ) -> list[Tensor]:
        """Compute the chosen maps; see `Backbone.forward`."""
        image = self.check_input(image)
        self.check_metadata(image, temporal, location)
        maps = self.network(pad_to_patches(image, self.all_strides[-1])[:, :, 0])
        return [maps[layer] for layer in self.layers]
