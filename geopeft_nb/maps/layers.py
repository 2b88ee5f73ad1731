"""What a map shows, before it is drawn: ground, layers on it, and what a prediction gets wrong.

The chips of a region are joined on one pixel grid, or lie side by side on a contact sheet.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.pictures.chips import GREY, painted

#: Colours of what a prediction gets wrong (Okabe-Ito, told apart with any colour vision).
MISSED_COLOUR, FALSE_ALARM_COLOUR = "#D55E00", "#CC79A7"
#: What a legend has for pixels that are striped in grey.
STRIPES = "stripes"
#: Codes of a difference layer. With more than two classes every error is MISSED ("wrong class").
CORRECT, UNLABELLED, MISSED, FALSE_ALARM = 0, 1, 2, 3
#: Code of pixels of which nothing is known; it is clear.
GAP = 255
#: What a legend has for outlined ground, and what it says of it.
OUTLINE, TRAINED = "outline", "ground of training and validation, which no score counts"

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
        bounds: Left, bottom, right and top edge in CRS units, if there is one.
    """

    corners: Sequence[Sequence[int]]
    height: int
    width: int
    crs: str | None = None
    bounds: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def metres(self) -> tuple[float, float] | None:
        """Width and height of a pixel on the ground in metres, or None without a CRS."""
        if self.crs is None:
            return None
        from rasterio.crs import CRS

        crs, (left, bottom, right, top) = CRS.from_user_input(self.crs), self.bounds
        unit = 111_320 if crs.is_geographic else crs.linear_units_factor[1]
        shrunk = math.cos(math.radians((bottom + top) / 2)) if crs.is_geographic else 1
        return shrunk * unit * (right - left) / self.width, unit * (top - bottom) / self.height

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
        return self.striped & ((row + column) // max(1, max(self.codes.shape) // 100) % 2 == 0)

    def painted(self) -> NDArray[np.uint8]:
        """Return its colours (H, W, 4)."""
        stripe = painted(np.zeros((1, 1), np.uint8), [GREY])
        return np.where(self.stripes[..., None], stripe, painted(self.codes, self.colours))


@dataclass(frozen=True)
class View:
    """A region or a scene.

    Attributes:
        name: What it is called.
        heading: The name, and what there is to know.
        home: Whether the model was trained nearby.
        grid: The pixel grid of picture and layers.
        layers: What can be laid over the picture; the same names in all views.
        picture: (H, W, 4) uint8, clear where nothing is known, or None.
        caption: What the picture shows.
        trained: (H, W) bool, the ground of training and validation, which is outlined.
        signs: x and y in pixels and a word that stands there.
    """

    name: str
    heading: str
    home: bool
    grid: Grid
    layers: Sequence[Layer]
    picture: NDArray[np.uint8] | None
    caption: str
    trained: NDArray[np.bool_]
    signs: Sequence[tuple[float, float, str]] = ()


@dataclass(eq=False)
class Views:
    """Views that are drawn together.

    Attributes:
        title: What is shown.
        views: One or more.
        rows: Rows of panels of each view in the figure.
        sides: Names of the layers on the left and on the right at first; "" is none.
        said: What the map shows, in lines of words.
    """

    title: str
    views: Sequence[View]
    rows: int
    sides: tuple[str, str]
    said: Sequence[str]

    @property
    def legend(self) -> dict[str, str]:
        """Meaning -> colour of everything that the layers can show."""
        layers = [layer for view in self.views for layer in view.layers]
        outlined = {TRAINED: OUTLINE} if any(view.trained.any() for view in self.views) else {}
        return {words: x for layer in layers for words, x in layer.legend.items()} | outlined


def difference(
    label: NDArray[np.uint8], prediction: NDArray[np.uint8], count: int
) -> NDArray[np.uint8]:
    """Code where a prediction differs from the label.

    Args:
        label: Classes (H, W); `count` is no label, `GAP` no chip.
        prediction: Classes (H, W).
        count: Number of classes. With two, the second one can be missed or a false alarm.

    Returns:
        Codes (H, W): CORRECT, UNLABELLED, MISSED, FALSE_ALARM or GAP.
    """
    codes = np.where(label == prediction, CORRECT, MISSED)
    if count == 2:
        codes[(label == 0) & (prediction == 1)] = FALSE_ALARM
    codes[label == count] = UNLABELLED
    codes[label == GAP] = GAP
    return codes.astype(np.uint8)


def outline(covered: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return lines (N, 2) of x and y in pixels around what is covered."""
    from contourpy import contour_generator

    padded = np.pad(covered, 1).astype(np.float32)  # lines close at the edge, too
    return [np.asarray(line) - 1 for line in contour_generator(z=padded).lines(0.5)]


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
    across, down = pixels[0].tolist()
    left, top = edges[:, 0].min().item(), edges[:, 3].max().item()
    exact = np.stack([(top - edges[:, 3]) / down, (edges[:, 0] - left) / across], axis=1)
    corners = np.rint(exact).astype(int)
    rows, columns = np.add(corners.max(axis=0), (height, width)).tolist()
    one = len({str(sample["crs"]) for sample in samples}) == 1
    covered = len(samples) * height * width / (rows * columns)
    shifted = np.abs(corners - exact).max() > 0.05
    alike = one and np.allclose(pixels, pixels[0], rtol=1e-4, atol=0)
    if not alike or shifted or covered < _LEAST_COVERED or rows * columns > _MOST_PIXELS:
        return None
    bounds = left, top - rows * down, left + columns * across, top
    return Grid(corners.tolist(), rows, columns, str(samples[0]["crs"]), bounds)


def sheet_grid(samples: Sequence[dict[str, Any]]) -> Grid:
    """Lay chips out in rows, a little wider than high, with a gap between them."""
    shapes = [sample["mask"].shape[-2:] for sample in samples]
    step_down, step_right = (max(sides) + _SHEET_GAP for sides in zip(*shapes, strict=True))
    columns = math.ceil(math.sqrt(1.2 * len(samples)))
    rows = math.ceil(len(samples) / columns)
    corners = [[i // columns * step_down, i % columns * step_right] for i in range(len(samples))]
    width = min(columns, len(samples)) * step_right - _SHEET_GAP
    return Grid(corners, rows * step_down - _SHEET_GAP, width)
