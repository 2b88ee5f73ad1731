"""Somebody's own rasters: what a file states of itself, and its pixels on any grid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from math import cos, radians
from os.path import lexists
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from geopeft_nb.bands import WAVELENGTHS
from geopeft_nb.datasets.base import Bounds, centre
from geopeft_nb.datasets.own.products import Product, find_product
from geopeft_nb.errors import GeopeftError
from geopeft_nb.open_files import AT_ONCE, open_raster, refuse

#: The rule of numbers that nothing is said of, and that need none.
BARE, STATED = "as they are", "as the file states"
#: Types of numbers that are pictures, unless their file states a scale.
EIGHT = "uint8", "int8"
#: Metres per degree of latitude.
DEGREE = 111_320.0
#: Pixels a side up to which a grid is sampled as a whole.
WHOLE = 1024


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

    def bounds(self, window: Any = None) -> Bounds | None:
        """Return (left, bottom, right, top) in units of the crs, of all or of a window."""
        from rasterio.windows import Window, bounds as window_bounds

        found: Bounds = window_bounds(window or Window(0, 0, *self.shape[::-1]), self.transform)
        return found if self.crs else None

    def fits(self, other: Grid) -> bool:
        """Say whether its pixels are those of another grid, to a tenth of one."""
        here, there = self.bounds() or (0,), other.bounds() or (0,)
        near = np.abs(np.subtract(here, there)).max() <= 0.1 * abs(self.transform.a)
        return bool((self.shape, self.crs) == (other.shape, other.crs) and near)


@dataclass(frozen=True, eq=False)
class Raster:
    """What a file says of itself.

    Attributes:
        path: The file.
        grid: Where its pixels lie.
        dtype: Type of its numbers.
        numbers: Its bands, counted from 1, without an alpha band.
        names: Their descriptions.
        rules: Number of a band -> its (scale, offset), of GDAL's tags; empty if it states none.
        fills: Numbers of pixels without data: 0 where all optical bands have it, because a dark
            pixel can be 0 in one band; any other where one has it.
        masks: File and band of what is 0 where there are no data: a mask beside it, an alpha band,
            or 0 for GDAL's own mask, which knows alpha only beside one or three bands.
        product: What known product it is of.
        day: When it was taken.
        tiles: Its block shape.
        stamp: Its size in bytes, and when it was written.
    """

    path: Path
    grid: Grid
    dtype: str
    numbers: tuple[int, ...]
    names: tuple[str | None, ...]
    rules: dict[int, tuple[float, float]]
    fills: tuple[float, ...]
    masks: tuple[tuple[Path, int], ...]
    product: Product | None
    day: date | None
    tiles: tuple[int, int]
    stamp: tuple[int, int]

    @property
    def is_float(self) -> bool:
        """Whether its numbers are not whole."""
        return self.dtype.startswith("float")


def read_header(path: Path, named: int = 0) -> Raster:
    """Read what a raster says of itself, without its pixels.

    Args:
        path: The file.
        named: Number of its bands that somebody named. If these are all, none is alpha: GDAL takes
            the fourth of four bands of 8 bits for alpha, also where it is near infrared. If these
            are none, alpha is what has two numbers only, but for one pixel in ten, at a soft edge.

    Raises:
        GeopeftError: It cannot be read, is turned or upside down, or has complex numbers.
    """
    from rasterio.enums import ColorInterp, MaskFlags

    with open_raster(path) as file:
        alpha = {
            n for n, kind in enumerate(file.colorinterp, 1)
            if kind == ColorInterp.alpha and named != file.count
            and str(file.descriptions[n - 1] or "alpha").lower() == "alpha"
            and (named or _two_numbers(file.read(n, out_shape=(256, 256))))
        }  # fmt: skip
        numbers = [n for n in range(1, file.count + 1) if n not in alpha]
        kinds = {file.dtypes[n - 1] for n in numbers}
        if len(kinds) != 1 or "complex" in (dtype := kinds.pop()):
            raise refuse(path, "numbers are complex, or bands of several types", "Write one type")
        rules = {n: (file.scales[n - 1], file.offsets[n - 1]) for n in numbers}
        said = [*rules.values()]
        if not np.isfinite(said).all() or any(scale == 0 for scale, _ in said):
            raise refuse(path, f"its scales and offsets are {said[:3]}", "State what holds")
        if {*said} == {(1, 0)}:
            rules = {}
        if (tags := file.tags()).get("EXIF_Orientation", "1") != "1":
            raise refuse(path, "its EXIF turns what is shown", "Turn its pixels, to fit its mask")
        product, day = find_product(path, tags)
        flags = file.mask_flag_enums[numbers[0] - 1]
        masks = [(path, n) for n in alpha]
        if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
            masks.append((path, 0))
        found = Raster(
            path, _grid(path, file), dtype, tuple(numbers),
            tuple(file.descriptions[n - 1] for n in numbers),
            {n: (1 / scale, offset / scale) for n, (scale, offset) in rules.items()},
            tuple({x for x in file.nodatavals if x is not None and x == x}), tuple(masks), product,
            day, file.block_shapes[0], stamp(path),
        )  # fmt: skip
    if not lexists(beside := path.with_name(f"{path.name}.msk")):
        return found
    with open_raster(beside) as file:
        if file.shape != found.grid.shape:
            raise refuse(beside, f"it has {file.shape} pixels, its image {found.grid.shape}")
    return replace(found, masks=(*found.masks, (beside, 1)))


def _two_numbers(seen: np.ndarray) -> bool:
    return bool(np.isin(seen, (0, seen.max())).mean() >= 0.9)


def _grid(path: Path, file: Any) -> Grid:
    crs, step = file.crs, file.transform
    found = Grid(crs.to_string() if crs else None, step, file.shape, None)
    if not crs:
        return found
    if step.b or step.d or not (0 < step.a < np.inf and -np.inf < step.e < 0):
        raise GeopeftError(f"{path} has a grid that is turned or upside down: use gdalwarp.")
    try:
        latitude, longitude = centre(found.crs, found.bounds()) or (np.nan, np.nan)
        if not (abs(latitude) <= 90 and abs(longitude) <= 360):
            raise ValueError(f"latitude {latitude:g}, longitude {longitude:g}")
        # a degree of longitude shrinks with latitude: the mean side is that of a square pixel
        degree = DEGREE * cos(radians(latitude)) ** 0.5
        unit = degree if crs.is_geographic else crs.linear_units_factor[1]
        if '"Mercator' in crs.to_wkt():  # whose metres are those of the equator
            unit *= cos(radians(latitude))
    except Exception as error:  # PROJ's are of several kinds
        raise refuse(path, f"it lies nowhere on the ground ({error!s:.99})") from error
    return replace(found, metres=float(unit * (step.a * -step.e) ** 0.5))


def stamp(path: Path) -> tuple[int, int]:
    """Return the size of a file, and when it was written."""
    known = path.stat()
    return known.st_size, known.st_mtime_ns


def read_numbers(
    raster: Raster, numbers: Sequence[int], grid: Grid, window: Any,
    shape: tuple[int, int] | None = None, nearest: bool = False,
) -> np.ndarray:  # fmt: skip
    """Read the numbers of a file on a window of any grid.

    Args:
        raster: The file.
        numbers: Bands, counted from 1.
        grid: Where the window lies; on another one than the file's, pixels are averaged to coarser
            and interpolated to finer ones, over what has data.
        window: Part of the grid.
        shape: Height and width to read it at; None takes the window's.
        nearest: Take the nearest pixel instead.

    Returns:
        (C, H, W) float32, or of the nearest pixels float64; NaN where there are no data.
    """
    from rasterio.warp import Resampling, reproject
    from rasterio.windows import transform as window_transform

    out = shape or (int(window.height), int(window.width))
    kind = np.float64 if nearest else np.float32
    same = raster.grid.fits(grid)
    source = window if same else below(raster, grid, window)
    if source is None:
        return np.full((len(numbers), *out), np.nan, kind)
    size = out if same else (int(source.height), int(source.width))
    if stamp(raster.path) != raster.stamp:
        raise refuse(raster.path, "it has changed since it was looked at", "Load the data again")
    with open_raster(raster.path) as file:
        pixels = file.read([*numbers], window=source, out_shape=(len(numbers), *size))
    there = np.ones(size, bool)
    for path, band in raster.masks:
        with open_raster(path) as file:
            read = partial(file.read, band) if band else file.dataset_mask
            there &= read(window=source, out_shape=size) > 0
    for fill in raster.fills:
        empty = pixels == fill
        there &= ~(empty.all(0) if fill == 0 else empty.any(0))
    found = pixels.astype(kind)
    found[:, ~there] = np.nan
    if same:
        return found
    laid = np.full((len(numbers), *out), np.nan, kind)
    step = window_transform(window, grid.transform)
    step @= step.scale(window.width / out[1], window.height / out[0])
    method = Resampling.average if step.a > raster.grid.transform.a else Resampling.bilinear
    reproject(
        found, laid, src_transform=window_transform(source, raster.grid.transform),
        src_crs=raster.grid.crs, dst_transform=step, dst_crs=grid.crs, src_nodata=np.nan,
        dst_nodata=np.nan, resampling=Resampling.nearest if nearest else method,
    )  # fmt: skip
    return laid


def below(raster: Raster, grid: Grid, window: Any = None) -> Any:
    """Return the window of a file that lies below one of a grid, and a little more; or None.

    Raises:
        GeopeftError: One of them has no coordinates, or the file has far finer pixels.
    """
    from rasterio.warp import transform_bounds
    from rasterio.windows import Window, from_bounds

    bounds = grid.bounds(window)
    if bounds is None or raster.grid.crs is None:
        sizes = f"{raster.path} has {raster.grid.shape} pixels and belongs to {grid.shape}"
        raise GeopeftError(f"{sizes}, without coordinates in both: add them, or take one size.")
    bounds = transform_bounds(grid.crs, raster.grid.crs, *bounds)
    around = from_bounds(*bounds, raster.grid.transform)
    high, wide = raster.grid.shape
    top, bottom = np.clip([around.row_off - 2, around.row_off + around.height + 3], 0, high)
    left, right = np.clip([around.col_off - 2, around.col_off + around.width + 3], 0, wide)
    found = Window.from_slices((int(top), int(bottom)), (int(left), int(right)))
    if window and found.height * found.width * 8 > AT_ONCE:
        raise refuse(raster.path, "it is far too fine for one chip", "Resample it first")
    return found if found.height and found.width else None


#: Bands whose numbers are codes or bits, of which no mean means anything.
CODES = re.compile(r"SCL|FMASK|CLD|(?:S[RT]_)?QA\w*|BQA", re.IGNORECASE)


class Band(NamedTuple):
    """A band of a file: reflectance is (number + offset) / scale."""

    raster: Raster
    number: int
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, eq=False)
class Source:
    """One acquisition: one stacked file, or one file a band, with its rule.

    Attributes:
        layers: Name -> band.
        grid: That of the finest file.
        day: When it was taken, None where that is not known.
        rule: Where scale and offset are from, for the notes; empty as long as that is not known.
        certain: Whether the offset is stated, or known not to be needed.
    """

    layers: dict[str, Band]
    grid: Grid
    day: date | None = None
    rule: str = ""
    certain: bool = False

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in their order."""
        return tuple(self.layers)

    @property
    def rasters(self) -> list[Raster]:
        """The files."""
        return list(dict.fromkeys(band.raster for band in self.layers.values()))

    @property
    def raster(self) -> Raster:
        """The first file, which names the acquisition."""
        return self.rasters[0]

    @property
    def reflectance(self) -> bool:
        """Whether its optical bands become reflectance 0-1, which pictures of 8 bits have not."""
        scales = {band.scale for name, band in self.layers.items() if name in WAVELENGTHS}
        picture = self.raster.dtype in EIGHT and self.rule != STATED
        return bool(scales) and 255 not in scales and not picture

    @property
    def paths(self) -> list[Path]:
        """Where its files are."""
        return [raster.path for raster in self.rasters]

    def read(
        self, window: Any, bands: Sequence[str], shape: tuple[int, int] | None = None
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
        parts = dict[str, np.ndarray]()
        for raster in {self.layers[name].raster for name in bands}:
            # it takes all optical bands to tell a fill of 0 from dark pixels
            wanted = {*bands, *(WAVELENGTHS if 0 in raster.fills else ())}
            names = [x for x in self.layers if self.layers[x].raster is raster and x in wanted]
            numbers = [self.layers[name].number for name in names]
            codes = all(map(CODES.fullmatch, names))
            pixels = read_numbers(raster, numbers, self.grid, window, shape, nearest=codes)
            parts |= zip(names, pixels, strict=True)
        rules = [self.layers[name][2:] for name in bands]
        scales, offsets = np.array(rules, np.float32).T[..., None, None]
        found: np.ndarray = np.stack(
            [parts[name] for name in bands], dtype=np.float32, casting="same_kind"
        )
        found += offsets  # in place, as scenes are wide
        found /= scales
        return found, np.isfinite(found).all(0)

    def sample(self, bands: Sequence[str], side: int) -> np.ndarray:
        """Return (C, N) of what `read` gives, of pixels with data from all over the grid.

        Args:
            bands: Names of bands.
            side: At most so many pixels a side are read, in sixteen parts where the grid is large.
        """
        from rasterio.windows import Window

        height, width = self.grid.shape
        count = 1 if max(height, width) <= WHOLE else 4
        size = min(height, side // count), min(width, side // count)
        high, wide = (height, width) if count == 1 else size
        tops, lefts = np.linspace(0, height - high, count), np.linspace(0, width - wide, count)
        corners = {(int(top), int(left)) for top in tops for left in lefts}
        parts = [self.read(Window(x, y, wide, high), bands, size) for y, x in sorted(corners)]
        return np.concatenate([pixels[:, there] for pixels, there in parts], axis=1)


def describe(sources: Sequence[Source]) -> list[str]:
    """Say what was found: bands, coordinates, pixels, and how numbers become reflectance."""
    bands = sources[0].bands
    extra = ", ".join(band for band in bands if band not in WAVELENGTHS)
    note = f" {extra}: no known wavelength, so numbers as they are, or as files state."
    grids = Counter((x.grid.metres or np.nan, x.grid.crs or "none") for x in sources)
    listed = "; ".join(f"{x[1]} of {x[0]:.4g} m ({count})" for x, count in grids.most_common(4))
    rules = Counter(map(_rule, sources))
    numbers = (f"Numbers of {count} images: {rule}." for rule, count in rules.items())
    notes = [f"Bands: {', '.join(bands)}.{note * bool(extra)}"]
    return [*notes, f"Coordinates, and pixels: {listed}.", *numbers]


def _rule(source: Source) -> str:
    optical = [band for name, band in source.layers.items() if name in WAVELENGTHS]
    rules = {band[2:] for band in optical or source.layers.values()}
    words = " or ".join(f"(number {x:+,.7g}) / {scale:,.7g}" for scale, x in sorted(rules))
    return source.rule + f": {words.replace('(number +0)', 'number')}" * (source.rule != BARE)
