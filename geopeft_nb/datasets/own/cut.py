"""Cut somebody's own images into chips, and lay masks or polygons onto them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.datasets.base import Bounds
from geopeft_nb.datasets.own.layouts import Item
from geopeft_nb.datasets.own.rasters import Grid, Raster, Source, below, read_header
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.open_files import read_polygons, refuse

#: A strip at the border that is narrower than this share of a chip is left out.
NARROW = 0.25
#: Without a size, images that are all squares of one such side at most are not cut, if so many.
WHOLE, MANY = 256, 10
#: Attributes that are taken for the class, in this order; case does not matter.
CLASS_FIELDS = ("class", "class_name", "label", "landcover", "land_cover", "category", "type")


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
    def ground(self) -> Bounds:
        """(left, bottom, right, top) in its crs, or in pixels of its file, counted upwards."""
        x, y, wide, high = self.window.flatten()
        return self.sources[0].grid.bounds(self.window) or (x, -y - high, x + wide, -y)

    @property
    def has_gaps(self) -> bool:
        """Whether its files say which pixels have no data."""
        files = [raster for source in self.sources for raster in source.rasters]
        return any(x.fills or x.masks or x.is_float for x in files)


def choose_size(items: Sequence[Item], shapes: Sequence[tuple[int, int]]) -> int:
    """Choose the chip side: 64 px, less for small images, whole images if many are alike."""
    sides = {side for shape in shapes for side in shape}
    largest = -(-max(sides) // 16) * 16
    whole = len(shapes) >= MANY and sides == {largest}
    fits = largest <= WHOLE and (whole or any(item.label is not None for item in items))
    return largest if fits else min(64, largest)


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
        raise GeopeftError(f"{most:,} chips of {size} px are above 1,000,000: give a larger size=.")
    headers = {item.mask: read_header(item.mask) for item in items if item.mask}
    tiles, moved = [], 0
    for item, sources in zip(items, acquired, strict=True):
        mask = None
        if item.mask:
            mask = _laid(headers[item.mask], sources[0])
            moved += not mask.grid.fits(sources[0].grid)
        elif item.label is None and sources[0].grid.crs is None:
            raise GeopeftError(f"Add a crs to {item.name}: nobody knows where the polygons lie.")
        height, width = sources[0].grid.shape
        corners = [(top, left) for top in starts(height) for left in starts(width)]
        for top, left in corners:
            cell = f"-{top // size:03d}-{left // size:03d}" if len(corners) > 1 else ""
            window = Window(left, top, min(size, width - left), min(size, height - top))
            tiles.append(Tile(item.name + cell, item, tuple(sources), mask, window))
    note = f"{moved} masks lie on another grid than their image: nearest pixel, unlabelled beyond."
    return tiles, [note] if moved else []


def _laid(mask: Raster, source: Source) -> Raster:
    """Lay a mask onto an image, pixel on pixel without coordinates; refuse one of other ground."""
    if len(mask.numbers) != 1 or mask.path.suffix.lower() in (".jpg", ".jpeg"):
        raise GeopeftError(f"{mask.path} has several bands, or is a JPEG. Write one, as PNG.")
    grid, image = mask.grid, source.grid
    if grid.shape == image.shape and None in (grid.crs, image.crs):
        if len({x for x in (grid.transform, image.transform) if not x.is_identity}) > 1:
            raise GeopeftError(f"{mask.path} lies elsewhere than its image: add its crs.")
        return replace(mask, grid=image)
    if not grid.fits(image) and below(mask, image) is None:
        what = f"{mask.path} ({grid.crs}) does not cover any of {source.raster.path}"
        raise GeopeftError(f"{what}: give its own.")
    return mask


class Polygons:
    """Polygons with a class each, in any coordinate reference system.

    Args:
        path: GeoPackage, GeoJSON, Shapefile or FlatGeobuf.
        field: Attribute with the class; None takes one of `CLASS_FIELDS`, or the only one.
        classes: Class names in the wanted order; None takes the values of the attribute, sorted.
        background: Name of the class of all ground outside the polygons, which becomes the first;
            None leaves it unlabelled.

    Attributes:
        classes: Class names.
        note: What was found.

    Raises:
        GeopeftError: No polygons or no coordinate reference system; no attribute is clearly the
            class; or there are values that are not in the class list.
    """

    def __init__(
        self, path: Path, field: str | None, classes: Sequence[str] | None, background: str | None
    ) -> None:
        frame = read_polygons(path)
        if np.isinf(frame.total_bounds).any():
            raise refuse(path, "it has infinite coordinates")
        if frame.crs is None:
            raise refuse(path, "it has no coordinate reference system", "Set it, or add its .prj")
        field = _class_field(path, frame, field)
        frame = frame.assign(name=frame[field].map(named))
        unnamed, crossed = int(frame.name.isna().sum()), int((~frame.geometry.is_valid).sum())
        frame = frame[frame.name.notna()].explode(ignore_index=True)
        frame = frame[(frame.geometry.geom_type == "Polygon") & ~frame.geometry.is_empty]
        if frame.empty:
            raise refuse(path, "it has no polygon with a class")
        found = sorted({*frame.name}, key=lambda x: (int(x) if x.isdecimal() else np.inf, x))
        known = list(found if classes is None else classes)
        if background is not None and background not in known:
            known = [background, *known]
        if strange := [name for name in found if name not in known]:
            what = f"{path} has {field} {', '.join(strange)}, which the class list lacks"
            raise GeopeftError(f"{what}. Add to it.")
        self.path, self.classes = path, tuple(known)
        self.outside = np.nan if background is None else known.index(background)
        self._frame = frame.assign(code=frame.name.map(known.index)).sort_values("code")
        self._laid: dict[str | None, Any] = {}
        self.note = (
            f"Classes are the values of {field}; {unnamed} polygons without one are left out, and "
            f"{crossed} that cross themselves are filled by the even-odd rule."
        )

    def near(self, grid: Grid, window: Any) -> Any:
        """Return polygons, in the grid's crs, whose bounding box meets a window."""
        if grid.crs not in self._laid:
            self._laid[grid.crs] = self._frame.to_crs(grid.crs)
        frame = self._laid[grid.crs]
        return frame.iloc[np.sort(frame.sindex.intersection(grid.bounds(window)))]

    def burn(self, grid: Grid, window: Any) -> np.ndarray:
        """Return the classes on a window (H, W): a pixel has what its centre lies in.

        Outside all polygons it is the background, or NaN; NaN where classes overlap.
        """
        from rasterio.features import rasterize
        from rasterio.windows import transform

        shape, step = (int(window.height), int(window.width)), transform(window, grid.transform)
        near = self.near(grid, window)
        if near.empty:
            return np.full(shape, float(self.outside))
        shapes = [*zip(near.geometry, near.code, strict=True)]
        # what is burned last stays, so where classes overlap these are the last and the first
        burn = partial(rasterize, out_shape=shape, fill=-1, transform=step, dtype="int32")
        last, first = burn(shapes), burn(shapes[::-1])
        return np.where(last != first, np.nan, np.where(last < 0, self.outside, last))


def _class_field(path: Path, frame: Any, field: str | None) -> str:
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if field is not None:
        check_name(f"attribute of {path.name}", field, columns)
        return field
    by_name = {name.lower(): name for name in columns}
    usual = [by_name[name] for name in CLASS_FIELDS if name in by_name]
    # of one column, that each polygon has another value in it is a number rather than a class
    if usual or (len(columns) == 1 and frame[columns[0]].nunique() < len(frame)):
        return (usual or columns)[0]
    shown = ", ".join(f"{name} ({frame[name].map(named).nunique()} values)" for name in columns)
    raise GeopeftError(f"Choose the class of {path} with label_field=, from {shown or 'none'}.")


def named(value: object) -> str | None:
    """Name a class; 3.0, as a column with gaps has it, is 3; nothing is None."""
    if value is None or value != value or value == "":
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
