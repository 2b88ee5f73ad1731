"""Networks that nobody pretrained: your own, any `nn.Module` that makes maps, and the baseline."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geopeft_nb.backbones.base import BackboneRequest, Stages
from geopeft_nb.backbones.catalog import BackboneCard


class OwnBackbone(Stages):
    """What a card of the family ``"own"`` describes; it is built by ``card.extra["build"]``.

    Args:
        card: Its ``build`` takes the number of bands and makes the network, which takes
            (B, C, H, W) and returns a list of maps (B, D, h, w), fine to coarse.
        request: See `Backbone`.
    """

    any_name = True

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__(card, request)
        self.network: Any = card.extra["build"](len(self.bands)).eval()
        size = card.img_size
        with torch.no_grad():  # one image is tried, to learn the sizes of its maps
            maps = self.network(torch.zeros(1, len(self.bands), size, size))
        self.stages = [(one.shape[1], size // one.shape[-1]) for one in maps]
        self.reach = self.stages[-1][1]
        self.choose(request.layers)
        self.train()

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the network's own `state_dict`."""
        return {f"network.{key}": value for key, value in state.items()}

    def maps(self, image: Tensor) -> Sequence[Tensor]:
        """Compute the chosen maps; see `Stages.maps`."""
        maps = self.network(image)
        return [maps[layer] for layer in self.layers]


class UNet(Stages):
    """segmentation-models-pytorch's UNet without its last layer, as one map at full resolution.

    Of the image it makes (B, 16, H, W), so that a linear decoder on it is a 1×1 convolution to the
    classes (the library's own last layer is 3×3). All weights are random.
    """

    any_name = True
    stages = ((16, 1),)
    reach = 32  # pixels per cell of the encoder's deepest map

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__(card, request)
        # Here, because it takes seconds to import and only this network needs it.
        import segmentation_models_pytorch as smp

        self.network = smp.Unet("resnet50", encoder_weights=None, in_channels=len(self.bands))
        self.network.segmentation_head = nn.Identity()
        # The library makes its first layer on the CPU, also under `torch.device("meta")`.
        self.network.to(torch.empty(0).device)
        self.choose(request.layers)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors as they are: nothing is published, so files are this class's own."""
        return state

    def maps(self, image: Tensor) -> Sequence[Tensor]:
        """Compute one (B, 16, H, W) map; see `Stages.maps`."""
        return [self.network(image)]
