"""Decoders of the deepest map alone: a linear map of each token or of their average, and FCN."""

from collections.abc import Sequence

from torch import Tensor, nn


class LinearDecoder(nn.Module):
    """A transposed convolution whose kernel and stride are the patch: every token paints its patch.

    With a frozen backbone this is the linear probe of arXiv 2504.17397.

    Args:
        in_channels: Features of each map that the backbone returns; the last map is used.
        classes: Number of classes K.
        kernel: Cells of the output per cell of the map, k; the patch side in pixels.
    """

    #: Index of the map whose ground the output covers.
    covers = -1

    def __init__(self, in_channels: Sequence[int], classes: int, kernel: int) -> None:
        super().__init__()
        self.conv = PaintSquares(in_channels[-1], classes, kernel, stride=kernel)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map a list of (B, D, h, w) to logits (B, K, h * k, w * k)."""
        return self.conv(features[-1])


class PaintSquares(nn.ConvTranspose2d):
    """A transposed convolution whose squares do not overlap, as the one matrix product that it is.

    The values are the same; for wide maps a CPU is faster with it.
    """

    def forward(self, cells: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, D, h, w) to (B, K, h * k, w * k)."""
        painted = cells.movedim(1, -1) @ self.weight.flatten(1)  # (B, h, w, K * k * k)
        squares = painted.unflatten(-1, self.weight.shape[1:])  # (B, h, w, K, k, k)
        image = squares.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return image if self.bias is None else image + self.bias[:, None, None]


class ClassificationHead(nn.Module):
    """The average of the last map, a layer norm and a linear layer.

    The same head serves one label per image and several: only the loss differs.

    Args:
        in_channels: Features of each map that the backbone returns; the last map is used.
        classes: Number of classes K.

    Source: fine-tuning with global pooling in He et al., arXiv 2111.06377.
    """

    def __init__(self, in_channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_channels[-1])
        self.linear = nn.Linear(in_channels[-1], classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map a list of (B, D, h, w) to logits (B, K)."""
        return self.linear(self.norm(features[-1].mean(dim=(2, 3))))


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
