"""One answer per image: the average of the last map, and a linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ClassificationHead(nn.Module):
    """The average of the last map, a layer norm and a linear layer.

    The same head serves one label per image and several: only the loss differs.

    Args:
        channels: Features of each map that the backbone returns; the last map is used.
        classes: Number of classes K.

    Source: fine-tuning with global pooling in He et al., arXiv 2111.06377.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels[-1])
        self.linear = nn.Linear(channels[-1], classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map a list of (B, D, h, w) to logits (B, K)."""
        return self.linear(self.norm(features[-1].mean(dim=(2, 3))))
