"""Where the chips of a region lie: joined on one pixel grid, or side by side on a contact sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A mosaic that is mostly empty (chips scattered over a country) would show specks: below this
# covered share, and above this many pixels, a contact sheet says more.
_LEAST_COVERED, _MOST_PIXELS = 0.05, 16_000_000
_SHEET_GAP = 4  # pixels between the chips of a contact sheet


@dataclass(frozen=True)
class Grid:
    """Where each chip lies in the raster of its region.

    Attributes:
        corners: Row and column of the upper left pixel of each chip.
        height: Rows of the raster.
        width: Columns of the raster.
        crs: Coordinate reference system, or None for a contact sheet.
        origin: x of the left and y of the top edge, in CRS units.
        pixel: Width and height of a pixel, in CRS units.
    """

    corners: Sequence[Sequence[int]]
    height: int
    width: int
    crs: str | None = None
    origin: tuple[float, float] = (0.0, 0.0)
    pixel: tuple[float, float] = (1.0, 1.0)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top edge in CRS units."""
        left, top = self.origin
        return left, top - self.height * self.pixel[1], left + self.width * self.pixel[0], top

    @property
    def metres(self) -> tuple[float, float] | None:
        """Width and height of a pixel on the ground in metres, or None without a CRS."""
        if self.crs is None:
            return None
        from rasterio.crs import CRS

        crs = CRS.from_user_input(self.crs)
        if crs.is_geographic:
            latitude = math.radians((self.bounds[1] + self.bounds[3]) / 2)
            return self.pixel[0] * 111_320 * math.cos(latitude), self.pixel[1] * 111_320
        factor = crs.linear_units_factor[1]
        return self.pixel[0] * factor, self.pixel[1] * factor

    @property
    def extent(self) -> str:
        """Size of the raster and of its pixels on the ground, in words."""
        if self.metres is None:
            return "side by side"
        across, down = (side / 1000 for side in self.metres)
        size = f"{self.width * across:.1f} x {self.height * down:.1f} km"
        return f"in {size} of {1000 * down:.0f} m pixels"

    def paste(self, tiles: Sequence[NDArray[Any]], nothing: float, kind: Any) -> NDArray[Any]:
        """Put one tile per chip into the region's raster.

        Args:
            tiles: Arrays (..., h, w) of the first chips, in the order of the chips.
            nothing: Value where no chip lies.
            kind: Type of the raster.

        Returns:
            Array (..., height, width).
        """
        raster = np.full((*tiles[0].shape[:-2], self.height, self.width), nothing, kind)
        for (row, column), tile in zip(self.corners, tiles, strict=False):
            raster[..., row : row + tile.shape[-2], column : column + tile.shape[-1]] = tile
        return raster


def mosaic_grid(samples: Sequence[dict[str, Any]]) -> Grid | None:
    """Find the common pixel grid of georeferenced chips.

    Args:
        samples: Chips with `mask` (H, W) of one size, `crs`, and `bounds` (left, bottom, right,
            top).

    Returns:
        The grid, or None if the chips lack coordinates, differ in CRS or pixel size, are shifted
        by parts of a pixel, or are scattered so widely that a mosaic would show only specks.
    """
    if any(sample["crs"] is None or sample["bounds"] is None for sample in samples):
        return None
    edges = np.array([sample["bounds"] for sample in samples], dtype=float)
    height, width = samples[0]["mask"].shape
    pixels = (edges[:, 2:] - edges[:, :2]) / (width, height)
    (across, down), left, top = pixels[0].tolist(), edges[:, 0].min(), edges[:, 3].max()
    exact = np.stack([(top - edges[:, 3]) / down, (edges[:, 0] - left) / across], axis=1)
    corners = np.rint(exact).astype(int)
    rows, columns = np.add(corners.max(axis=0), (height, width)).tolist()
    alike = np.allclose(pixels, pixels[0], rtol=1e-4, atol=0)
    alike &= len({str(sample["crs"]) for sample in samples}) == 1
    covered = len(samples) * height * width / (rows * columns)
    shifted = np.abs(corners - exact).max() > 0.05
    if not alike or shifted or covered < _LEAST_COVERED or rows * columns > _MOST_PIXELS:
        return None
    origin = float(left), float(top)
    return Grid(corners.tolist(), rows, columns, str(samples[0]["crs"]), origin, (across, down))


def sheet_grid(samples: Sequence[dict[str, Any]]) -> Grid:
    """Lay chips out in rows, a little wider than high, with a gap between them."""
    shapes = [sample["mask"].shape[-2:] for sample in samples]
    step_down, step_right = (max(sides) + _SHEET_GAP for sides in zip(*shapes, strict=True))
    columns = math.ceil(math.sqrt(1.2 * len(samples)))
    rows = math.ceil(len(samples) / columns)
    corners = [[i // columns * step_down, i % columns * step_right] for i in range(len(samples))]
    width = min(columns, len(samples)) * step_right - _SHEET_GAP
    return Grid(corners, rows * step_down - _SHEET_GAP, width)
