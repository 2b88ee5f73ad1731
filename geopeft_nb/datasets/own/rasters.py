"""Somebody's own rasters: what a file states of itself, and its pixels on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from math import cos, radians
from os.path import lexists
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from geopeft_nb.bands import WAVELENGTHS
from geopeft_nb.datasets.base import Bounds
from geopeft_nb.datasets.own.products import Product, find_product
from geopeft_nb.errors import GeopeftError
from geopeft_nb.open_files import AT_ONCE, open_raster

#: Metres per degree of latitude.
DEGREE = 111_320.0


@dataclass(frozen=True)
class Grid:
    """Where pixels lie.

    Attributes:
        crs: Coordinate reference system, or None; then `metres` is None, too.
        transform: From pixels to coordinates, upright.
        shape: Height and width in pixels.
        metres: Pixel side in metres; from degrees approximately.
    """

    crs: str | None
    transform: Any
    shape: tuple[int, int]
    metres: float | None

    def bounds(self, window: Any = None) -> Bounds | None:  # noqa: ANN401 - rasterio's
        """Return (left, bottom, right, top) in units of the crs, of all or of a window."""
        from rasterio.windows import Window
        from rasterio.windows import bounds as window_bounds

        whole = Window(0, 0, *self.shape[::-1])
        found: Bounds = window_bounds(window or whole, self.transform)
        return found if self.crs else None

    def resampled(self, metres: float | None) -> Grid:
        """Return the grid with other pixels, if a side in metres is wanted and it has another."""
        if self.metres is None or metres is None or abs(self.metres / metres - 1) < 0.01:
            return self
        height, width = (max(1, round(side * self.metres / metres)) for side in self.shape)
        finer = self.transform.scale(self.shape[1] / width, self.shape[0] / height)
        return Grid(self.crs, self.transform @ finer, (height, width), metres)


@dataclass(frozen=True, eq=False)
class Raster:
    """What a file says of itself.

    Attributes:
        path: The file.
        grid: Where its pixels lie.
        dtype: Type of its numbers.
        numbers: Its bands, counted from 1, without an alpha band.
        names: Their descriptions.
        rules: Their (scale, offset), of GDAL's tags; None where it states none.
        fills: Numbers of pixels without data.
        masked: Whether it has a mask of its own.
        alpha: Its alpha bands, which GDAL takes for a mask only beside one or three others.
        beside: A mask beside it.
        product: What known product it is of.
        day: When it was taken.
        tiles: Its block shape.
        overviews: Whether it can be read at a lower resolution without reading all.
    """

    path: Path
    grid: Grid
    dtype: str
    numbers: tuple[int, ...]
    names: tuple[str | None, ...]
    rules: tuple[tuple[float, float] | None, ...]
    fills: tuple[float, ...]
    masked: bool
    alpha: tuple[int, ...]
    beside: Path | None
    product: Product | None
    day: date | None
    tiles: tuple[int, int]
    overviews: bool


def read_header(path: Path, named: int = 0) -> Raster:
    """Read what a raster says of itself, without its pixels.

    Args:
        path: The file.
        named: Number of its bands that somebody named. If these are all, none is alpha: GDAL takes
            the fourth of four bands of 8 bits for alpha, also where it is near infrared.

    Raises:
        GeopeftError: It cannot be read, is turned or upside down, or has complex numbers.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    with open_raster(path) as file:
        alpha = {
            n for n, kind in enumerate(file.colorinterp, 1)
            if kind == ColorInterp.alpha and named != file.count
            and str(file.descriptions[n - 1] or "alpha").lower() == "alpha"
        }  # fmt: skip
        numbers = [n for n in range(1, file.count + 1) if n not in alpha]
        kinds = {file.dtypes[n - 1] for n in numbers}
        if len(kinds) != 1 or "complex" in (dtype := kinds.pop()):
            raise GeopeftError(
                f"{path} has complex numbers, or bands of different types. Write all bands as one "
                "real type."
            )
        rules = [(file.scales[n - 1], file.offsets[n - 1]) for n in numbers]
        stated = any(rule != (1, 0) for rule in rules)
        product, day = find_product(path, file.tags())
        beside = path.with_name(f"{path.name}.msk")
        flags = file.mask_flag_enums[numbers[0] - 1]
        masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        return Raster(
            path, _grid(path, file), dtype, tuple(numbers),
            tuple(file.descriptions[n - 1] for n in numbers),
            tuple((1 / scale, offset / scale) if stated else None for scale, offset in rules),
            tuple({x for x in file.nodatavals if x is not None and x == x}),
            masked, tuple(alpha), beside if lexists(beside) else None, product, day,
            file.block_shapes[0], bool(file.overviews(1)),
        )  # fmt: skip


def _grid(path: Path, file: Any) -> Grid:  # noqa: ANN401 - rasterio's
    crs, step = file.crs, file.transform
    found = Grid(crs.to_string() if crs else None, step, file.shape, None)
    if not crs:
        return found
    if step.b or step.d or not (0 < step.a < np.inf and -np.inf < step.e < 0):
        raise GeopeftError(
            f"{path} has a grid that is turned or upside down. Warp it upright first, for example "
            "with rio warp or gdalwarp."
        )
    side = (step.a * -step.e) ** 0.5
    if not crs.is_geographic:
        return replace(found, metres=float(side * crs.linear_units_factor[1]))
    # A degree of longitude shrinks with latitude, so the mean side is that of a square pixel.
    latitude = step.f + step.e * file.height / 2
    return replace(found, metres=float(DEGREE * side * cos(radians(latitude)) ** 0.5))


def read_numbers(
    raster: Raster, numbers: Sequence[int], grid: Grid, window: Any,  # noqa: ANN401 - rasterio's
    shape: tuple[int, int] | None = None, fills: Sequence[float] = (),
    dtype: type[np.floating[Any]] = np.float32, nearest: bool = False,
) -> np.ndarray:  # fmt: skip
    """Read the numbers of a file on a window of any grid.

    Args:
        raster: The file.
        numbers: Bands, counted from 1.
        grid: Where the window lies; on another one than the file's, pixels are averaged to coarser
            and interpolated to finer ones, over what has data.
        window: Part of the grid.
        shape: Height and width to read it at; None takes the window's.
        fills: Numbers of pixels without data: 0 where all bands have it, because a dark pixel can
            be 0 in one band; any other where one has it.
        dtype: Of what is returned.
        nearest: Take the nearest pixel instead.

    Returns:
        (C, H, W), NaN where there are no data.
    """
    from rasterio.warp import Resampling, reproject
    from rasterio.windows import transform as window_transform

    out = shape or (int(window.height), int(window.width))
    same = raster.grid == grid
    source = window if same else _below(raster, grid, window)
    if source is None:
        return np.full((len(numbers), *out), np.nan, dtype)
    size = out if same else (int(source.height), int(source.width))
    with open_raster(raster.path) as file:
        pixels = file.read(list(numbers), window=source, out_shape=(len(numbers), *size))
        there = np.ones(size, bool)
        if raster.masked:
            there = file.dataset_mask(window=source, out_shape=size) > 0
        for band in raster.alpha:
            there &= file.read(band, window=source, out_shape=size) > 0
    if raster.beside is not None:
        with open_raster(raster.beside) as file:
            if file.shape != raster.grid.shape:
                raise GeopeftError(
                    f"{raster.beside} has {file.shape} pixels and its image {raster.grid.shape}. "
                    "Make it anew, or take it out."
                )
            there &= file.read(1, window=source, out_shape=size) > 0
    for fill in fills:
        empty = pixels == fill
        there &= ~(empty.all(0) if fill == 0 else empty.any(0))
    found = pixels.astype(dtype)
    found[:, ~there] = np.nan
    if same:
        return found
    laid = np.full((len(numbers), *out), np.nan, dtype)
    step = window_transform(window, grid.transform)
    step @= step.scale(window.width / out[1], window.height / out[0])
    coarser = step.a > raster.grid.transform.a
    method = Resampling.average if coarser else Resampling.bilinear
    reproject(
        found, laid, src_transform=window_transform(source, raster.grid.transform),
        src_crs=raster.grid.crs, dst_transform=step, dst_crs=grid.crs, src_nodata=np.nan,
        dst_nodata=np.nan, resampling=Resampling.nearest if nearest else method,
    )  # fmt: skip
    return laid


def _below(raster: Raster, grid: Grid, window: Any) -> Any:  # noqa: ANN401 - rasterio's
    """Return the window of a file that lies below one of a grid, and a little more; or None."""
    from rasterio.warp import transform_bounds
    from rasterio.windows import Window, from_bounds

    bounds = grid.bounds(window)
    if bounds is None or raster.grid.crs is None:
        raise GeopeftError(
            f"{raster.path} has {raster.grid.shape} pixels and belongs to {grid.shape}; without "
            "coordinates in both they must be of one size and resolution. Add the coordinates."
        )
    if raster.grid.crs != grid.crs:
        bounds = transform_bounds(grid.crs, raster.grid.crs, *bounds)
    around = from_bounds(*bounds, raster.grid.transform)
    top, left = max(0, int(around.row_off) - 2), max(0, int(around.col_off) - 2)
    bottom = min(raster.grid.shape[0], int(around.row_off + around.height) + 3)
    right = min(raster.grid.shape[1], int(around.col_off + around.width) + 3)
    if (bottom - top) * (right - left) * 8 > AT_ONCE:
        raise GeopeftError(
            f"{raster.path} has {(bottom - top) * (right - left):,} pixels below one chip: far too "
            "fine for it. Resample it first."
        )
    return Window(left, top, right - left, bottom - top) if top < bottom and left < right else None


class Band(NamedTuple):
    """A band of a file: reflectance is (number + offset) / scale."""

    name: str
    raster: Raster
    number: int
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, eq=False)
class Source:
    """One acquisition: one stacked file, or one file a band, with its rule.

    Attributes:
        layers: Name -> band.
        grid: That of the finest file, or what it is resampled to.
        region: Its region.
        rule: Where scale and offset are from, for the notes; empty as long as that is not known.
        certain: Whether the offset is stated, or known not to be needed.
        reflectance: Whether its optical bands become reflectance 0-1.
    """

    layers: dict[str, Band]
    grid: Grid
    region: str = "all"
    rule: str = ""
    certain: bool = False
    reflectance: bool = True

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in their order."""
        return tuple(self.layers)

    @property
    def raster(self) -> Raster:
        """The first file, which names the acquisition."""
        return next(iter(self.layers.values())).raster

    @property
    def is_float(self) -> bool:
        """Whether its numbers are not whole."""
        return self.raster.dtype.startswith("float")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.grid.shape

    @property
    def crs(self) -> str | None:
        """Coordinate reference system."""
        return self.grid.crs

    @property
    def transform(self) -> Any:  # noqa: ANN401 - rasterio has no types
        """From pixels to coordinates."""
        return self.grid.transform

    @property
    def own(self) -> Grid:
        """The grid of its finest file, before it is resampled."""
        return max((raster.grid for raster in self.rasters), key=lambda grid: grid.shape)

    @property
    def has_gaps(self) -> bool:
        """Whether its files say which pixels have no data."""
        return any(
            x.fills or x.masked or x.alpha or x.beside or x.dtype.startswith("float")
            for x in self.rasters
        )

    @property
    def rasters(self) -> list[Raster]:
        """The files."""
        return list(dict.fromkeys(band.raster for band in self.layers.values()))

    def read(
        self,
        window: Any,  # noqa: ANN401 - rasterio has no types
        bands: Sequence[str],
        shape: tuple[int, int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read a part.

        Args:
            window: A window of rasterio, inside the grid.
            bands: Names of bands, in the order that is wanted.
            shape: Height and width to read it at; None takes the window's.

        Returns:
            (C, H, W) float32 reflectance, NaN where there are no data, and (H, W) bool: where all
            bands have data.
        """
        chosen = [self.layers[name] for name in bands]
        parts: list[Any] = [None] * len(chosen)
        for raster in {band.raster for band in chosen}:
            mine = [n for n, band in enumerate(chosen) if band.raster is raster]
            fills, numbers = raster.fills, [chosen[n].number for n in mine]
            if 0 in fills:  # which takes all optical bands to tell from dark pixels
                same = (band for band in self.layers.values() if band.raster is raster)
                more = [band.number for band in same if band.name in WAVELENGTHS]
                numbers += [number for number in more if number not in numbers]
            pixels = read_numbers(raster, numbers, self.grid, window, shape, fills)
            for n, part in zip(mine, pixels, strict=False):
                parts[n] = part
        scales, offsets = np.array([band[3:] for band in chosen], np.float32).T[..., None, None]
        found = (np.stack(parts) + offsets) / scales
        return found, np.isfinite(found).all(0)
