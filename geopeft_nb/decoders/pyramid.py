"""The learned pyramid: four maps of one size become four maps of four sizes."""

from torch import Tensor, nn


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
