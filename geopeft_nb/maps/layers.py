"""Layers of a map: what a prediction gets wrong, colours, web mercator, data addresses.

A class layer is uint8 with a code per pixel: its class, the number of classes for "no label", and
`GAP` where no chip lies. Painted it is (H, W, 4) uint8 and clear there, as pictures are.
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


def difference(
    label: NDArray[np.uint8], prediction: NDArray[np.uint8], count: int
) -> NDArray[np.uint8]:
    """Code where a prediction differs from the label.

    Args:
        label: Class layer (H, W).
        prediction: Class layer (H, W).
        count: Number of classes. With two, the second one can be missed or a false alarm.

    Returns:
        Codes (H, W): CORRECT, MISSED, FALSE_ALARM, UNLABELLED or GAP.
    """
    codes = np.where(label == prediction, CORRECT, MISSED)
    if count == 2:
        codes[(label == 0) & (prediction == 1)] = FALSE_ALARM
    codes[label == count] = UNLABELLED
    codes[label == GAP] = GAP
    return codes.astype(np.uint8)


def paint(codes: NDArray[np.uint8], colours: Sequence[str]) -> NDArray[np.uint8]:
    """Paint codes (H, W) in #rrggbb or #rrggbbaa, (H, W, 4); codes without colour are clear."""
    values = bytes.fromhex("".join(colour[1:].ljust(8, "f") for colour in colours))
    return np.frombuffer(values.ljust(4 * 256, b"\0"), np.uint8).reshape(256, 4)[codes]


def warp(layer: NDArray[np.uint8], grid: Grid) -> tuple[NDArray[np.uint8], _Bounds]:
    """Bring a layer to web mercator, between whose corners Leaflet stretches a picture.

    Nearest neighbour throughout: colours of classes must not be mixed, and the image then shows
    exactly the pixels that were classified.

    Args:
        layer: Colours (H, W, 4).
        grid: The region's grid. A contact sheet is returned as it is, in pixel coordinates.

    Returns:
        The layer on the new grid, and its ((south, west), (north, east)) in degrees.
    """
    if grid.crs is None:
        return layer, ((0.0, 0.0), (float(grid.height), float(grid.width)))
    from rasterio.transform import array_bounds, from_bounds, from_origin
    from rasterio.warp import calculate_default_transform, reproject, transform

    target, width, height = calculate_default_transform(
        grid.crs, "EPSG:3857", grid.width, grid.height, *grid.bounds
    )
    west, south, east, north = array_bounds(height, width, target)
    shrink = min(1.0, _WEB_SIDE / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    warped, _ = reproject(
        layer.transpose(2, 0, 1),
        np.zeros((4, height, width), np.uint8),
        src_transform=from_origin(*grid.origin, *grid.pixel),
        src_crs=grid.crs,
        dst_transform=from_bounds(west, south, east, north, width, height),
        dst_crs="EPSG:3857",
    )
    longitudes, latitudes = transform("EPSG:3857", "EPSG:4326", [west, east], [south, north])
    bounds = (latitudes[0], longitudes[0]), (latitudes[1], longitudes[1])
    return warped.transpose(1, 2, 0), bounds


def address(layer: NDArray[np.uint8], **options: Any) -> str:  # noqa: ANN401 (of Pillow)
    """Encode a layer (H, W, 4) as a data address: WebP is small and keeps gaps transparent."""
    from PIL import Image

    return data_address(Image.fromarray(np.ascontiguousarray(layer)), "webp", **options)
