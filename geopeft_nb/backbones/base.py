"""What every backbone offers: its card, its bands, its grid and a list of feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from geopeft_nb.backbones.catalog import BackboneCard


class Backbone(nn.Module):
    """Base class of all backbones.

    Attributes:
        card: Published facts.
        bands: Input bands, in order.
        patch_size: Patch side p in pixels.
        layers: Indices of the blocks whose output is returned, ascending.
        frames: Time steps of an image.
        channels: Features D of each returned map.
        trained_grid: Rows and columns of patches that the position codes are made for.
        attached: Name of the method that `attach` put on it, or None.
        provenance: Where the weights came from: file, sha256, what was adapted.
    """

    card: BackboneCard
    bands: tuple[str, ...]
    patch_size: int
    layers: tuple[int, ...]
    channels: tuple[int, ...]
    trained_grid: int
    frames: int
    attached: str | None = None
    provenance: dict[str, Any]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of the feature maps of an image of that size in pixels."""
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def check_input(self, image: Tensor) -> Tensor:
        """Return the image as (B, C, T, H, W).

        Args:
            image: (B, C, H, W) or (B, C, T, H, W).

        Raises:
            ValueError: Another number of dimensions, bands or frames.
        """
        if image.ndim == 4:
            image = image[:, :, None]
        if image.ndim != 5:
            raise ValueError(
                f"image must be (B, C, H, W) or (B, C, T, H, W), got shape {tuple(image.shape)}."
            )
        if image.shape[1] != len(self.bands):
            raise ValueError(
                f"image has {image.shape[1]} bands but {self.card.name} was loaded for "
                f"{len(self.bands)}: {', '.join(self.bands)}. Choose them with "
                "load_backbone(..., bands=[...]) or load_data(..., bands=[...])."
            )
        if image.shape[2] != self.frames:
            raise ValueError(
                f"image has {image.shape[2]} frames but {self.card.name} was loaded for "
                f"{self.frames}. Choose them with load_backbone(..., frames=...)."
            )
        return image

    def forward(
        self, image: Tensor, temporal: Tensor | None = None, location: Tensor | None = None
    ) -> list[Tensor]:
        """Compute feature maps.

        Args:
            image: (B, C, H, W) or (B, C, T, H, W), normalised.
            temporal: (B, T, 2) year and day of year, for models that take time.
            location: (B, 2) latitude and longitude in degrees, for models that take location.

        Returns:
            One (B, D, h, w) map per chosen block, shallow to deep.
        """
        raise NotImplementedError


def choose_layers(layers: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Return the chosen blocks as ascending indices from 0.

    Args:
        layers: Indices, negative ones count from the end; None means the last block.
        depth: Number of blocks.

    Raises:
        ValueError: An index is outside the network, or given twice.
    """
    chosen = [depth - 1] if layers is None else [i + depth if i < 0 else i for i in layers]
    if not chosen or len(set(chosen)) != len(chosen) or not all(0 <= i < depth for i in chosen):
        raise ValueError(
            f"layers must be different indices between 0 and {depth - 1} (or -{depth} and -1), "
            f"got {layers!r}."
        )
    return tuple(sorted(chosen))
