"""UPerNet: the coarsest map sees the whole image, then all maps are joined at the finest size."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.vit import widened
from geopeft_nb.errors import GeopeftError

#: Sides, in cells, of the grids that the coarsest map is averaged to.
POOLS = (1, 2, 3, 6)


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
            raise GeopeftError(
                "UPerNet averages the coarsest map to one cell, and batch norm cannot learn from a "
                "single one. Train with a batch_size of 2 or more, or take decoder='unet'."
            )
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
