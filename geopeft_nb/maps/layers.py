"""What a map shows, before it is drawn: ground with its layers, what a prediction gets wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.maps.grid import Grid
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
    lines = contour_generator(z=padded).lines(0.5)
    return [np.asarray(line) - 1 for line in lines]
