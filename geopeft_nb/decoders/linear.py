"""The plainest decoder: one linear map from each token to the classes of its patch's pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class LinearDecoder(nn.Module):
    """A transposed convolution whose kernel and stride are the patch: every token paints its patch.

    With a frozen backbone this is the linear probe of arXiv 2504.17397.

    Args:
        channels: Features of each map that the backbone returns; the last map is used.
        classes: Number of classes K.
        patch_size: Patch side p in pixels.
    """

    def __init__(self, channels: Sequence[int], classes: int, patch_size: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels[-1], classes, patch_size, stride=patch_size)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map a list of (B, D, h, w) to logits (B, K, h * p, w * p)."""
        return self.conv(features[-1])
