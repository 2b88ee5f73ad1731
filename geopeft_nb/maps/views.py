"""What a map shows, before it is drawn: ground with its layers, and what is said about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.maps.grid import Grid
from geopeft_nb.maps.layers import Layer

#: What a legend has for outlined ground, and what it says of it.
OUTLINE, TRAINED = "outline", "ground of training and validation, which no score counts"


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


def outline(covered: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return lines (N, 2) of x and y in pixels around what is covered."""
    from contourpy import contour_generator

    padded = np.pad(covered, 1).astype(np.float32)  # lines close at the edge, too
    lines = contour_generator(z=padded).lines(0.5)
    return [np.asarray(line) - 1 for line in lines]
