"""Cut somebody's own images into chips, and lay masks onto them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geopeft_nb.datasets.own.items import Item
from geopeft_nb.datasets.own.labels import Tile
from geopeft_nb.datasets.own.rasters import Grid, Raster, Source, read_header
from geopeft_nb.errors import GeopeftError

#: A strip at the border that is narrower than this share of a chip is left out.
NARROW = 0.25
#: Without a size, images that are all squares of one such side at most are not cut, if so many.
WHOLE, MANY = 256, 10


def choose_size(items: Sequence[Item], grids: Sequence[Grid]) -> int:
    """Choose the chip side: 64 px, less for small images, whole images if many are alike."""
    sides = {side for grid in grids for side in grid.shape}
    largest = max(sides)
    whole = len(grids) >= MANY and len(sides) == 1 and largest % 16 == 0
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

    shapes = [some[0].shape for some in acquired]
    if (most := sum(-(-height // size) * -(-width // size) for height, width in shapes)) > 10**6:
        raise GeopeftError(
            f"These files make {most:,} chips of {size} px, and 1,000,000 are allowed: give a "
            "coarser resolution=, a larger size=, or fewer files."
        )
    headers = {path: read_header(path) for path in {item.mask for item in items} if path}
    tiles, moved = [], 0
    for item, sources in zip(items, acquired, strict=True):
        mask = None
        if item.mask is not None:
            mask = _laid(headers[item.mask], sources[0])
            moved += mask.grid not in (sources[0].grid, sources[0].own)
        elif item.label is None and sources[0].crs is None:
            raise GeopeftError(
                f"{sources[0].raster.path} has no coordinate reference system, so nobody knows "
                "where the polygons lie on it. Add it, or give a mask of the same size."
            )
        height, width = sources[0].shape
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
    """Lay a mask pixel on pixel onto an image of the same size, or check that they overlap."""
    image, grid = source.own, mask.grid
    here, there = image.bounds(), grid.bounds()
    same = grid.shape == image.shape
    if here is None or there is None:
        if not same:
            raise GeopeftError(
                f"{mask.path} has {grid.shape} pixels and {source.raster.path} has {image.shape}; "
                "without coordinates in both they must be of one size. Add the coordinates."
            )
        return replace(mask, grid=image)
    off = np.abs(np.subtract(here, there)).max()
    if same and grid.crs == image.crs and off < 0.1 * image.transform.a:
        return replace(mask, grid=image)
    from rasterio.warp import transform_bounds

    left, bottom, right, top = transform_bounds(grid.crs, image.crs, *there)
    if left < here[2] and right > here[0] and bottom < here[3] and top > here[1]:
        return mask
    raise GeopeftError(
        f"{mask.path} ({grid.crs}, {_shown(there)}) does not cover any of {source.raster.path} "
        f"({image.crs}, {_shown(here)}). Is it the mask of another image?"
    )


def _shown(bounds: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.10g}' for value in bounds)})"
