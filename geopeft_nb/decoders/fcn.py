"""FCN: the last map, doubled in size step by step by learned convolutions."""

from collections.abc import Sequence

from torch import Tensor, nn


class FCNDecoder(nn.Module):
    """Doublings of the last map, each a transposed and a 3×3 convolution, a layer norm and a GELU.

    It uses one map only, so fine detail must be invented from coarse tokens; and its last steps run
    at full resolution with all channels, which takes more memory than most backbones.

    Args:
        in_channels: Features of each map that the backbone returns; the last map is used.
        channels: Features of every step, W.
        convs: Number of doublings n.

    Source: Long et al., arXiv 1411.4038, as it is used in arXiv 2504.17397.
    """

    covers = -1

    def __init__(self, in_channels: Sequence[int], channels: int, convs: int) -> None:
        super().__init__()
        from timm.layers.norm import LayerNorm2d  # here: only this decoder needs timm

        self.out_channels = channels
        widths = [in_channels[-1], *[channels] * convs]
        self.convs = nn.Sequential(
            *[
                nn.Sequential(
                    nn.ConvTranspose2d(before, channels, 2, stride=2),
                    nn.Conv2d(channels, channels, 3, padding=1),
                    LayerNorm2d(channels),
                    nn.GELU(),
                )
                for before in widths[:-1]
            ]
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map a list of (B, D, h, w) to (B, W, h * 2^n, w * 2^n)."""
        return self.convs(features[-1])
