"""Cut somebody's own images into chips, and lay masks onto them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geopeft_nb.datasets.own.layouts import Item
from geopeft_nb.datasets.own.rasters import Raster, Source, below, read_header
from geopeft_nb.errors import GeopeftError

#: A strip at the border that is narrower than this share of a chip is left out.
NARROW = 0.25
#: Without a size, images that are all squares of one such side at most are not cut, if so many.
WHOLE, MANY = 256, 10


@dataclass(frozen=True)
class Tile:
    """A chip to be, not read yet.

    Attributes:
        name: Unique name.
        item: What it is cut from.
        sources: One acquisition a date.
        mask: Header of the mask, or None.
        window: Part of the images' grid, without padding.
    """

    name: str
    item: Item
    sources: tuple[Source, ...]
    mask: Raster | None
    window: Any

    def read(self, bands: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels (C, T, H, W), and where all bands of all dates have data (H, W)."""
        parts = [source.read(self.window, bands) for source in self.sources]
        there = np.logical_and.reduce([whole for _, whole in parts])
        return np.stack([part for part, _ in parts], axis=1), there

    @property
    def has_gaps(self) -> bool:
        """Whether its files say which pixels have no data."""
        files = [raster for source in self.sources for raster in source.rasters]
        return any(x.fills or x.masks or x.is_float for x in files)


def choose_size(items: Sequence[Item], shapes: Sequence[tuple[int, int]]) -> int:
    """Choose the chip side: 64 px, less for small images, whole images if many are alike."""
    sides = {side for shape in shapes for side in shape}
    largest = max(sides)
    whole = len(shapes) >= MANY and len(sides) == 1 and largest % 16 == 0
    if largest <= WHOLE and (whole or any(item.label is not None for item in items)):
        return -(-largest // 16) * 16
    return min(64, -(-largest // 16) * 16)


def cut(
    items: Sequence[Item], acquired: Sequence[Sequence[Source]], size: int
) -> tuple[list[Tile], list[str]]:
    """Cut all images, and check that masks can be laid onto them.

    Chips lie side by side; at the right and lower border they are smaller, and strips that are
    narrower than a quarter of a chip are left out, if anything else is there.
    """
    from rasterio.windows import Window

    def starts(side: int) -> list[int]:
        return [at for at in range(0, side, size) if at == 0 or side - at >= NARROW * size]

    shapes = [some[0].grid.shape for some in acquired]
    if (most := sum(-(-height // size) * -(-width // size) for height, width in shapes)) > 10**6:
        raise GeopeftError(
            f"These files make {most:,} chips of {size} px, and 1,000,000 are allowed: give a "
            "larger size=, or fewer files."
        )
    headers = {item.mask: read_header(item.mask) for item in items if item.mask}
    tiles, moved = [], 0
    for item, sources in zip(items, acquired, strict=True):
        mask = None
        if item.mask:
            mask = _laid(headers[item.mask], sources[0])
            moved += not mask.grid.fits(sources[0].grid)
        elif item.label is None and sources[0].grid.crs is None:
            raise GeopeftError(
                f"{sources[0].raster.path} has no coordinate reference system, so nobody knows "
                "where the polygons lie on it. Add it, or give a mask of the same size."
            )
        height, width = sources[0].grid.shape
        corners = [(top, left) for top in starts(height) for left in starts(width)]
        for top, left in corners:
            cell = f"-{top // size:03d}-{left // size:03d}" if len(corners) > 1 else ""
            window = Window(left, top, min(size, width - left), min(size, height - top))
            tiles.append(Tile(item.name + cell, item, tuple(sources), mask, window))
    moved_note = (
        f"{moved} masks lie on another grid than their images and are reprojected onto it, nearest "
        "pixel; what they do not cover is unlabelled."
    )
    return tiles, [moved_note] if moved else []


def _laid(mask: Raster, source: Source) -> Raster:
    """Lay a mask onto an image, pixel on pixel without coordinates; refuse one of other ground."""
    if len(mask.numbers) != 1 or mask.path.suffix.lower() in (".jpg", ".jpeg"):
        raise GeopeftError(
            f"{mask.path} has {len(mask.numbers)} bands, or is a JPEG, whose compression changes "
            "numbers. A mask is one band of them: write it as PNG or GeoTIFF."
        )
    grid, image = mask.grid, source.grid
    if grid.shape == image.shape and None in (grid.crs, image.crs):
        return replace(mask, grid=image)
    if not grid.fits(image) and below(mask, image) is None:
        raise GeopeftError(
            f"{mask.path} ({grid.crs}) does not cover any of {source.raster.path} ({image.crs}). "
            "Is it the mask of another image?"
        )
    return mask
