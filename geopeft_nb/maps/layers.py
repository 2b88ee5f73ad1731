"""Layers of a map: codes and what they mean, what a prediction gets wrong, web mercator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.maps.grid import Grid

#: Colours of what a prediction gets wrong (Okabe-Ito, told apart with any colour vision).
MISSED_COLOUR, FALSE_ALARM_COLOUR, GREY = "#D55E00", "#CC79A7", "#9A9A9A"
#: What a legend has for pixels that are striped in grey.
STRIPES = "stripes"
#: Codes of a difference layer. With more than two classes every error is MISSED ("wrong class").
CORRECT, MISSED, FALSE_ALARM, UNLABELLED = 0, 1, 2, 3
#: Code of pixels of which nothing is known; it is clear.
GAP = 255


@dataclass(frozen=True)
class Layer:
    """A code for each pixel, and how it is shown.

    Attributes:
        name: Its name in the controls.
        codes: (H, W) uint8, `GAP` where nothing is known.
        legend: Meaning -> ``"#rrggbb"``, or `STRIPES`.
        colours: Code -> ``"#rrggbb"`` or ``"#rrggbbaa"``; codes beyond are clear.
        words: Code -> what a click says.
        caption: What stands above it in the figure; its name by default.
        striped: (H, W) bool, True where the ground is striped in grey, or None.
    """

    name: str
    codes: NDArray[np.uint8]
    legend: Mapping[str, str]
    colours: Sequence[str]
    words: Sequence[str]
    caption: str = ""
    striped: NDArray[np.bool_] | None = None

    @property
    def stripes(self) -> NDArray[np.bool_]:
        """Where a grey stripe lies: some 50 diagonal ones over a layer."""
        if self.striped is None:
            return np.zeros(self.codes.shape, bool)
        row, column = np.indices(self.codes.shape)
        width = max(1, max(self.codes.shape) // 100)
        return self.striped & ((row + column) // width % 2 == 0)

    def painted(self) -> NDArray[np.uint8]:
        """Return its colours (H, W, 4)."""
        values = bytes.fromhex("".join(colour[1:].ljust(8, "f") for colour in self.colours))
        table = np.frombuffer(values.ljust(4 * 256, b"\0"), np.uint8).reshape(256, 4)
        grey = np.array([*bytes.fromhex(GREY[1:]), 255], np.uint8)
        return np.where(self.stripes[..., None], grey, table[self.codes])


def difference(
    label: NDArray[np.uint8], prediction: NDArray[np.uint8], count: int
) -> NDArray[np.uint8]:
    """Code where a prediction differs from the label.

    Args:
        label: Classes (H, W); `count` is no label, `GAP` no chip.
        prediction: Classes (H, W).
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


def warp(
    bands: NDArray[np.uint8], grid: Grid, nothing: int, side: int
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """Bring pixels to web mercator, between whose corners a page stretches a picture.

    Nearest neighbour throughout: colours of classes must not be mixed, and the image then shows
    exactly the pixels that were classified.

    Args:
        bands: Colours or codes (B, H, W).
        grid: Their grid. Pixels of a contact sheet stay where they are.
        nothing: Value of pixels of which nothing is known.
        side: Pixels of the longest side at most.

    Returns:
        Pixels (B, h, w), and their left, top, right and bottom edge: in metres, with y growing to
        the south, or in pixels.
    """
    if grid.crs is None:
        step = -(-max(grid.height, grid.width) // side)
        return bands[:, ::step, ::step], (0.0, 0.0, float(grid.width), float(grid.height))
    from rasterio.transform import array_bounds, from_bounds, from_origin
    from rasterio.warp import calculate_default_transform, reproject

    target, width, height = calculate_default_transform(
        grid.crs, "EPSG:3857", grid.width, grid.height, *grid.bounds
    )
    west, south, east, north = array_bounds(height, width, target)
    shrink = min(1.0, side / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    warped, _ = reproject(
        bands, np.full((len(bands), height, width), nothing, np.uint8),
        src_transform=from_origin(*grid.origin, *grid.pixel), src_crs=grid.crs,
        dst_transform=from_bounds(west, south, east, north, width, height), dst_crs="EPSG:3857",
        src_nodata=nothing, dst_nodata=nothing,
    )  # fmt: skip
    return warped, (west, -north, east, -south)
