"""The pixels of somebody's own rasters: headers, windows, no-data, scale, masks on other grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, radians
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.datasets.base import Bounds, centre
from geopeft_nb.errors import GeopeftError
from geopeft_nb.open_files import AT_ONCE, open_raster

#: Mask value of pixels that no mask covers, beside the class numbers of the files.
UNSET = -(2**31)
#: Metres per degree of latitude.
DEGREE = 111_320.0


@dataclass(frozen=True)
class Raster:
    """What the header of a raster says.

    Attributes:
        path: The file.
        crs: Coordinate reference system, or None; then `bounds` and `metres` are None, too.
        transform: From pixels to coordinates.
        shape: Height and width in pixels, of the file or of the grid that it is resampled to.
        count: Number of bands.
        dtype: Data type of the pixels.
        nodata: Value of pixels without data, or None.
        names: Descriptions of the bands, None where there is none.
        gain: (factor, offset) that the file states to get from its numbers to the unit.
        metres: Pixel side in metres; from degrees approximately.
        degrees: True if coordinates are degrees.
        resampled: True if the pixels are to be resampled to this grid.
    """

    path: Path
    crs: str | None
    transform: Any
    shape: tuple[int, int]
    count: int
    dtype: str
    nodata: float | None
    names: tuple[str | None, ...]
    gain: tuple[float, float]
    metres: float | None
    degrees: bool = False
    resampled: bool = False

    @property
    def bounds(self) -> Bounds | None:
        """(left, bottom, right, top) in units of the crs."""
        return self.bounds_of(Box(0, 0, *self.shape))

    def bounds_of(self, box: Box) -> Bounds | None:
        """Return (left, bottom, right, top) of a part, which may stand out over the raster."""
        if self.crs is None:
            return None
        across, down = self.transform.a, self.transform.e  # upright: `read_header` sees to it
        left, top = self.transform.c + across * box.left, self.transform.f + down * box.top
        return left, top + down * box.height, left + across * box.width, top


@dataclass(frozen=True)
class Box:
    """A part of a raster in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def window(self) -> Any:  # noqa: ANN401 - rasterio has no types
        """The same for rasterio."""
        from rasterio.windows import Window

        return Window(self.left, self.top, self.width, self.height)


def read_header(path: Path) -> Raster:
    """Read what a raster says of itself, without its pixels.

    Raises:
        ValueError: It cannot be read, is turned or upside down, or has complex numbers.
    """
    with open_raster(path) as raster:
        crs, transform, shape = raster.crs, raster.transform, raster.shape
        gains = set(zip(raster.scales, raster.offsets, strict=True))
        kinds = sorted(set(raster.dtypes))
        found = Raster(
            path=path, crs=crs.to_string() if crs else None, transform=transform, shape=shape,
            count=raster.count, dtype=kinds[0], nodata=raster.nodata,
            names=tuple(raster.descriptions), gain=next(iter(gains)), metres=None,
        )  # fmt: skip
    if len(kinds) > 1 or kinds[0].startswith("complex") or len(gains) > 1:
        raise GeopeftError(
            f"{path} has bands of different kinds ({', '.join(kinds)}; {len(gains)} scales) or "
            "complex numbers. Write all bands as one real type with one scale."
        )
    if crs is None:
        return found
    if transform.b or transform.d or not (0 < transform.a < np.inf and -np.inf < transform.e < 0):
        raise GeopeftError(
            f"{path} has a grid that is turned or upside down. Warp it upright first, for example "
            "with rio warp or gdalwarp."
        )
    if not crs.is_geographic:
        factor = crs.linear_units_factor[1]
        return replace(found, metres=float((transform.a * -transform.e) ** 0.5 * factor))
    # A degree of longitude shrinks with latitude, so the mean side is that of a square pixel.
    latitude = (found.bounds[1] + found.bounds[3]) / 2 if found.bounds else 0.0
    area = transform.a * -transform.e * cos(radians(latitude))
    return replace(found, metres=float(DEGREE * area**0.5), degrees=True)


def ground_metres(raster: Raster) -> float | None:
    """Return the pixel side on the ground in metres, where Mercator's stretch is taken out."""
    place = centre(raster.crs, raster.bounds) if raster.crs == "EPSG:3857" else None
    return raster.metres if place is None or raster.metres is None else (
        raster.metres * cos(radians(place[0]))
    )  # fmt: skip


def resample(raster: Raster, metres: float) -> Raster:
    """Return the raster on a grid of other pixels over the same ground.

    Args:
        raster: With a pixel size.
        metres: Pixel side that is wanted.
    """
    if raster.metres is None or abs(raster.metres / metres - 1) < 0.01:
        return raster
    factor = metres / raster.metres
    height, width = (max(1, round(side / factor)) for side in raster.shape)
    old = raster.transform
    across, down = old.a * raster.shape[1] / width, old.e * raster.shape[0] / height
    transform = type(old)(across, 0.0, old.c, 0.0, down, old.f)
    return replace(
        raster, transform=transform, shape=(height, width), metres=metres, resampled=True
    )


def read_pixels(
    raster: Raster, box: Box, indices: Sequence[int], nodata: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Read a part of an image as its file has it.

    Args:
        raster: From `read_header` or `resample`.
        box: Part, inside the raster.
        indices: Bands, as indices from 0.
        nodata: Value of pixels without data; None takes what the file says.

    Returns:
        Pixels (C, H, W) float32 in the file's numbers, and (H, W) True where there are data: finite
        numbers in all bands and none of them no-data. A no-data value of 0 counts only if all bands
        have it, because a dark pixel can be 0 in one band.
    """
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    gone = raster.nodata if nodata is None else nodata
    chosen = [index + 1 for index in indices]
    with open_raster(raster.path) as source:
        if raster.resampled:
            # GDAL averages over all pixels below a coarser one, and interpolates to finer ones.
            coarser = raster.transform.a > source.transform.a
            filling = {} if gone is None else {"src_nodata": gone, "nodata": gone}
            with WarpedVRT(
                source, crs=source.crs, transform=raster.transform,
                height=raster.shape[0], width=raster.shape[1],
                resampling=Resampling.average if coarser else Resampling.bilinear, **filling,
            ) as grid:  # fmt: skip
                pixels = grid.read(chosen, window=box.window)
        else:
            pixels = source.read(chosen, window=box.window)
    whole_numbers = np.issubdtype(pixels.dtype, np.integer)
    pixels = pixels.astype(np.float32)
    there = np.full(pixels.shape[1:], True) if whole_numbers else np.isfinite(pixels).all(axis=0)
    if gone is not None and np.isfinite(gone):
        empty = pixels == np.float32(gone)
        there &= ~(empty.all(axis=0) if gone == 0 else empty.any(axis=0))
    return pixels, there


def aligned(mask: Raster, image: Raster) -> bool:
    """Say whether a mask lies pixel on pixel on an image.

    Raises:
        ValueError: It does not, and cannot be laid onto it either.
    """
    if mask.count != 1:
        raise GeopeftError(
            f"{mask.path} has {mask.count} bands; a mask has one, of class numbers. Is it a "
            "picture of the classes?"
        )
    same = mask.shape == image.shape
    if mask.crs is None or image.crs is None:
        if same and not image.resampled:
            return True
        raise GeopeftError(
            f"{mask.path} has {mask.shape} pixels and {image.path} has {image.shape}; without "
            "coordinates in both they must be of one size and one resolution. Add the coordinates."
        )
    assert mask.bounds is not None and image.bounds is not None
    if same and mask.crs == image.crs:
        off = np.abs(np.subtract(mask.bounds, image.bounds)).max()
        if off < 0.1 * image.transform.a:
            return True
    from rasterio.warp import transform_bounds

    left, bottom, right, top = transform_bounds(mask.crs, image.crs, *mask.bounds)
    if left < image.bounds[2] and right > image.bounds[0] and (
        bottom < image.bounds[3] and top > image.bounds[1]
    ):  # fmt: skip
        return False
    raise GeopeftError(
        f"{mask.path} ({mask.crs}, {_shown(mask.bounds)}) does not cover any of {image.path} "
        f"({image.crs}, {_shown(image.bounds)}). Is it the mask of another image?"
    )


def _shown(bounds: Bounds) -> str:
    return f"({', '.join(f'{value:.10g}' for value in bounds)})"


def read_mask(mask: Raster, image: Raster, box: Box, tagged: bool) -> np.ndarray:
    """Read the class numbers on a part of an image.

    Args:
        mask: The mask, on any grid; on another one it is reprojected, nearest pixel.
        image: The image.
        box: Part of the image.
        tagged: Whether the file's own no-data value is unlabelled.

    Returns:
        (H, W) int32 in the file's numbers, `UNSET` where the mask does not reach or has no data.

    Raises:
        ValueError: The numbers are not whole.
    """
    from rasterio.warp import Resampling, reproject, transform_bounds
    from rasterio.windows import Window, from_bounds
    from rasterio.windows import transform as window_transform

    gone = mask.nodata if tagged else None
    with open_raster(mask.path) as source:
        if mask.crs is None or image.crs is None or aligned(mask, image):
            return _whole(source.read(1, window=box.window), mask.path, gone)
        found = np.full((box.height, box.width), UNSET, np.int32)
        bounds = image.bounds_of(box)
        assert bounds is not None
        around = from_bounds(*transform_bounds(image.crs, mask.crs, *bounds), mask.transform)
        top, left = max(0, int(around.row_off) - 2), max(0, int(around.col_off) - 2)
        bottom = min(mask.shape[0], int(around.row_off + around.height) + 3)
        right = min(mask.shape[1], int(around.col_off + around.width) + 3)
        if top >= bottom or left >= right:
            return found
        if (bottom - top) * (right - left) * 8 > AT_ONCE:
            raise GeopeftError(
                f"{mask.path} has {(bottom - top) * (right - left):,} pixels below one chip of "
                f"{image.path}: far too fine for it. Resample the mask first, by the majority."
            )
        window = Window(left, top, right - left, bottom - top)
        values = _whole(source.read(1, window=window), mask.path, gone)
    reproject(
        values, found, src_transform=window_transform(window, mask.transform), src_crs=mask.crs,
        dst_transform=window_transform(box.window, image.transform), dst_crs=image.crs,
        src_nodata=UNSET, dst_nodata=UNSET, resampling=Resampling.nearest,
    )  # fmt: skip
    return found


def _whole(values: np.ndarray, path: Path, gone: float | None) -> np.ndarray:
    """Turn class numbers of any type into int32, without data into `UNSET`."""
    empty = np.zeros(values.shape, bool) if gone is None else values == gone
    if values.dtype.itemsize > 2:  # smaller ones are whole numbers that fit
        empty |= ~np.isfinite(values)
        values = np.where(empty, 0, values)
        odd = (values != np.trunc(values)) | (np.abs(values) > 2**31 - 2)
        if odd.any():
            shown = np.unique(values[odd])[:3].tolist()
            raise GeopeftError(f"{path} has values that are no class numbers, such as {shown}.")
    whole = values.astype(np.int32)
    whole[empty] = UNSET
    return whole
