"""Decoders of four maps, UNet and UPerNet, and the pyramid that makes them of maps of one size."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.vit import widened
from geopeft_nb.errors import GeopeftError

#: Sides, in cells, of the grids that the coarsest map is averaged to.
POOLS = (1, 2, 3, 6)


class LearnedPyramid(nn.Module):
    """Makes of a plain transformer's maps what a decoder expects of a network with stages.

    The shallowest map becomes four times finer, the second twice, the third stays, and the deepest
    becomes twice coarser. A last row or column of its own is kept, so that odd grids lose nothing.

    Args:
        width: Features D of each of the four maps; a multiple of 4.

    Attributes:
        channels: Features of each map that it returns: D/4, D/2, D and D.

    Source: the segmentation network of BEiT, arXiv 2106.08254; used in arXiv 2504.17397.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = (width // 4, width // 2, width, width)
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 2, stride=2),
            nn.BatchNorm2d(width // 2),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2),
        )
        self.fpn2 = nn.Sequential(nn.ConvTranspose2d(width, width // 2, 2, stride=2))
        self.fpn4 = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map four (B, D, h, w) to maps of 4 h, 2 h, h and h / 2 rows (rounded up)."""
        first, second, third, fourth = features
        return [self.fpn1(first), self.fpn2(second), third, self.fpn4(fourth)]


class UNetDecoder(nn.Module):
    """The blocks of segmentation-models-pytorch's UNet, each brought to the size of its map.

    From the coarsest map upwards, joined at each step by the map of that size.

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


class UperNetDecoder(nn.Module):
    """A pooling pyramid on the coarsest map and a feature pyramid over all of them.

    Args:
        in_channels: Features of each map, fine to coarse.
        channels: Features of every layer, W.

    Source: Xiao et al., arXiv 1807.10221; the pooling pyramid: Zhao et al., arXiv 1612.01105.
    """

    covers = 0

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.out_channels = channels
        *finer, coarsest = in_channels
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), conv(coarsest, channels, 1)) for side in POOLS
        )
        self.bottleneck = conv(coarsest + len(POOLS) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(conv(features, channels, 1) for features in finer)
        self.fpn_convs = nn.ModuleList(conv(channels, channels, 3) for _ in finer)
        self.fpn_bottleneck = conv(len(in_channels) * channels, channels, 3)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map maps (B, D_i, h_i, w_i), fine to coarse, to (B, W, h_0, w_0).

        Raises:
            ValueError: One image in training: averaged to one cell, it leaves batch norm one value.
        """
        *finer, coarsest = features
        if self.training and len(coarsest) == 1:
            raise GeopeftError("upernet needs a batch_size of 2 or more, or take decoder='unet'.")
        pooled = [resize(pool(coarsest), coarsest) for pool in self.psp_modules]
        x = self.bottleneck(torch.cat([coarsest, *pooled], dim=1))
        outputs = [x]
        for features_i, lateral, smooth in zip(
            reversed(finer), reversed(self.lateral_convs), reversed(self.fpn_convs), strict=True
        ):
            x = lateral(features_i) + resize(x, features_i)
            outputs.insert(0, smooth(x))
        return self.fpn_bottleneck(torch.cat([resize(x, finer[0]) for x in outputs], dim=1))


def conv(before: int, after: int, kernel: int) -> nn.Sequential:
    """Make a convolution that keeps the size, a batch norm and a ReLU."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False),
            norm=nn.BatchNorm2d(after),
            relu=nn.ReLU(),
        )
    )


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Resize (B, D, h, w) bilinearly to the height and width of `like`."""
    size = like.shape[-2:]
    return functional.interpolate(widened(x), size=size, mode="bilinear", align_corners=True)
