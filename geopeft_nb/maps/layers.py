"""From rasters to map layers: contrast, colours, web mercator, data addresses.

All layers are uint8: pictures hold 1-255 and 0 for "nothing here", class layers hold a code per
pixel and `GAP` for "nothing here", so that one warp and one palette serve them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.maps.grid import Grid
from geopeft_nb.pictures.show import data_address

#: Colours of what a prediction gets wrong (Okabe-Ito, told apart with any colour vision).
MISSED_COLOUR, FALSE_ALARM_COLOUR, IGNORED_COLOUR = "#D55E00", "#CC79A7", "#9A9A9A"
#: Codes of a difference layer. With more than two classes every error is MISSED ("wrong class").
CORRECT, MISSED, FALSE_ALARM, UNLABELLED = 0, 1, 2, 3
#: Code of pixels that no chip covers, in class and difference layers.
GAP = 255
#: Colour per code of a difference layer. A veil over what is right lets single errors stand out.
DIFFERENCE_COLOURS = ("#FFFFFF99", MISSED_COLOUR, FALSE_ALARM_COLOUR, IGNORED_COLOUR)

_Bounds = tuple[tuple[float, float], tuple[float, float]]
_WEB_SIDE = 1400  # longest side in pixels of a layer in the interactive map


def class_codes(
    classes: NDArray[Any], valid: NDArray[np.bool_], count: int, ignore_index: int = -1
) -> NDArray[np.uint8]:
    """Code a class map: 0 … count-1 for classes, `count` for "no label", GAP outside the chips."""
    codes = np.where(classes == ignore_index, count, classes)
    return np.where(valid, codes, GAP).astype(np.uint8)


def difference(
    label: NDArray[Any],
    prediction: NDArray[Any],
    valid: NDArray[np.bool_],
    count: int,
    ignore_index: int = -1,
) -> NDArray[np.uint8]:
    """Code where a prediction differs from the label.

    Args:
        label: Class map (H, W).
        prediction: Class map (H, W).
        valid: Where there is a chip (H, W).
        count: Number of classes. With two, the second one can be missed or a false alarm.
        ignore_index: Label value that means "no label".

    Returns:
        Codes (H, W): CORRECT, MISSED, FALSE_ALARM, UNLABELLED or GAP.
    """
    codes = np.where(label == prediction, CORRECT, MISSED)
    if count == 2:
        codes[(label == 0) & (prediction == 1)] = FALSE_ALARM
    codes[label == ignore_index] = UNLABELLED
    return np.where(valid, codes, GAP).astype(np.uint8)


def paint(codes: NDArray[np.uint8], colours: Sequence[str]) -> NDArray[np.uint8]:
    """Colour a class or difference layer (H, W) as (H, W, 4); codes without colour are clear."""
    return _table(colours)[codes]


def warp(layer: NDArray[np.uint8], grid: Grid) -> tuple[NDArray[np.uint8], _Bounds]:
    """Bring a layer to web mercator, between whose corners Leaflet stretches a picture.

    Nearest neighbour throughout: class codes must not be mixed, and the image then shows exactly
    the pixels that were classified.

    Args:
        layer: Picture (3, H, W) or codes (H, W).
        grid: The region's grid. A contact sheet is returned as it is, in pixel coordinates.

    Returns:
        The layer on the new grid, and its ((south, west), (north, east)) in degrees.
    """
    if grid.crs is None:
        return layer, ((0.0, 0.0), (float(grid.height), float(grid.width)))
    from rasterio.transform import array_bounds, from_bounds, from_origin
    from rasterio.warp import calculate_default_transform, reproject, transform

    source = from_origin(*grid.origin, *grid.pixel)
    target, width, height = calculate_default_transform(
        grid.crs, "EPSG:3857", grid.width, grid.height, *grid.bounds
    )
    west, south, east, north = array_bounds(height, width, target)
    shrink = min(1.0, _WEB_SIDE / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    nothing = 0 if layer.ndim == 3 else GAP
    warped = np.full((*layer.shape[:-2], height, width), nothing, np.uint8)
    reproject(
        layer,
        warped,
        src_transform=source,
        src_crs=grid.crs,
        src_nodata=nothing,
        dst_transform=from_bounds(west, south, east, north, width, height),
        dst_crs="EPSG:3857",
        dst_nodata=nothing,
    )
    longitudes, latitudes = transform("EPSG:3857", "EPSG:4326", [west, east], [south, north])
    return warped, ((latitudes[0], longitudes[0]), (latitudes[1], longitudes[1]))


def picture_address(picture: NDArray[np.uint8]) -> str:
    """Encode a picture (3, H, W) as a data address; 0 becomes transparent."""
    from PIL import Image

    alpha = np.where(picture.any(axis=0), 255, 0).astype(np.uint8)
    encoded = Image.fromarray(np.dstack([*picture, alpha]))
    # WebP is a tenth of PNG and, unlike JPEG, keeps the gaps between chips transparent.
    return data_address(encoded, "webp", quality=85)


def codes_address(codes: NDArray[np.uint8], colours: Sequence[str]) -> str:
    """Encode a class or difference layer (H, W) as the data address of a small palette PNG."""
    from PIL import Image

    table = _table(colours)
    encoded = Image.fromarray(codes)
    encoded.putpalette(table[:, :3].tobytes())
    return data_address(encoded, transparency=table[:, 3].tobytes())


def _table(colours: Sequence[str]) -> NDArray[np.uint8]:
    """Return red, green, blue and alpha per code of ``"#rrggbb"`` or ``"#rrggbbaa"``, (256, 4)."""
    values = bytes.fromhex("".join(colour[1:].ljust(8, "f") for colour in colours))
    return np.frombuffer(values.ljust(4 * 256, b"\0"), np.uint8).reshape(256, 4)
