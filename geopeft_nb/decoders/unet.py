"""UNet: from the coarsest map upwards, joined at each step by the map of that size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.vit import widened


class UNetDecoder(nn.Module):
    """The blocks of segmentation-models-pytorch's UNet, each brought to the size of its map.

    The library's own forward doubles the size in each block up to release 0.4 and takes the sizes
    of the maps from 0.5 on. Here they are always those of the maps, so that odd sizes work and all
    releases agree. The last block has no map to join, and stays at the size of the finest one.

    Args:
        in_channels: Features of each map, fine to coarse.
        channels: Features of each block, coarse to fine; as many as there are maps.

    Source: Ronneberger et al., arXiv 1505.04597.
    """

    covers = 0

    def __init__(self, in_channels: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        # Here, because it takes seconds to import and only this decoder needs it.
        from segmentation_models_pytorch.base.initialization import initialize_decoder
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        self.out_channels = channels[-1]
        # The library leaves the first of the encoder's maps, its input, out.
        self.decoder = UnetDecoder([0, *in_channels], list(channels), n_blocks=len(channels))
        initialize_decoder(self.decoder)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map maps (B, D_i, h_i, w_i), fine to coarse, to (B, channels[-1], h_0, w_0)."""
        *skips, x = features
        for block in self.decoder.blocks:
            if skips:
                skip = skips.pop()
                x = functional.interpolate(widened(x), size=skip.shape[-2:], mode="nearest")
                x = torch.cat([x, skip], dim=1)
            x = block.conv2(block.conv1(x))
        return x
