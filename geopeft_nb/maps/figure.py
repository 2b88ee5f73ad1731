"""The static figure: rows of panels for each view, and where on Earth the views lie."""

import gzip
from functools import cache
from typing import Any

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from geopeft_nb.datasets.base import centre
from geopeft_nb.files import data_folder
from geopeft_nb.maps.layers import OUTLINE, STRIPES, View, Views, outline
from geopeft_nb.pictures.chips import GREY
from geopeft_nb.pictures.show import plain

_WIDTH, _WORLD = 11.0, 1.3  # inches
_INK, _FRAME = "#222222", "#BBBBBB"


def draw(shown: Views) -> Figure:
    """Draw picture and layers of every view.

    Args:
        shown: What to show.

    Returns:
        A figure that belongs to no pyplot state, so a notebook shows it only when asked.
    """
    blocks = [_panels(view) for view in shown.views]
    columns = -(-len(blocks[0]) // shown.rows)
    heights = [0.4 + shown.rows * (0.2 + _tall(view, _WIDTH / columns)) for view in shown.views]
    heights.append(max(_WORLD, 0.3 + 0.2 * -(-len(shown.legend) // 2)))
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(shown.title, x=0.01, ha="left", size=14, weight="bold")
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    for view, block, part in zip(shown.views, blocks, parts, strict=False):
        part.suptitle(view.heading, x=0.01, ha="left", size=11, color=_INK)
        panels = part.subplots(shown.rows, columns, squeeze=False)
        lines = outline(view.trained)
        for axes, (caption, pictures) in zip(panels.flat, block, strict=False):
            _show(axes, pictures, lines, view)
            axes.set_title(caption, size=9.5, color=_INK, loc="left", pad=3)
        for axes in panels.flat[len(block) :]:
            axes.set_axis_off()
        _scale_bar(panels.flat[0], view)
    _foot(parts[-1], shown)
    return plain(figure)


@cache
def land_lines() -> list[NDArray[np.float64]]:
    """Read the outlines of land and borders that ship, each (N, 2) longitudes and latitudes."""
    paths = [data_folder() / f"maps/{name}.geojson.gz" for name in ("land", "borders")]
    land, borders = shapely.from_geojson([gzip.decompress(path.read_bytes()) for path in paths])
    lines = [*shapely.get_rings([*land.geoms]), *shapely.get_parts([*borders.geoms])]
    return [shapely.get_coordinates(line) for line in lines]


def draw_land(axes: Axes) -> None:
    """Draw land and borders in degrees, without names."""
    axes.add_collection(LineCollection(land_lines(), colors=GREY, linewidths=0.5))


def _panels(view: View) -> list[tuple[str, list[NDArray[np.uint8]]]]:
    """List caption and pictures that lie over each other of each panel."""
    panels, below = [], []
    if view.picture is not None:
        # Layers stand on a pale grey image, which shows where in the region they lie.
        grey = (60 + 0.75 * view.picture[..., :3].mean(axis=2)).astype(np.uint8)
        below = [np.dstack([grey, grey, grey, view.picture[..., 3]])]
        panels = [(f"Image, {view.caption}", [view.picture])]
    return panels + [(x.caption or x.name, [*below, x.painted()]) for x in view.layers]


def _tall(view: View, width: float) -> float:
    """Return the height in inches of the panels of a view, in its true proportions."""
    across, down = view.grid.metres or (1.0, 1.0)
    return width * min(max(view.grid.height * down / (view.grid.width * across), 0.35), 1.3)


def _show(
    axes: Axes, pictures: list[NDArray[np.uint8]], lines: list[NDArray[np.float64]], view: View
) -> None:
    """Draw the pictures of a panel over each other."""
    across, down = view.grid.metres or (1.0, 1.0)
    for layer, picture in enumerate(pictures):
        # Classes and errors keep their colour where the panel has fewer pixels than the region:
        # averaged with what surrounds them, single wrong pixels would fade away.
        smooth = "nearest" if layer or view.picture is None else "antialiased"
        axes.imshow(picture, interpolation=smooth, aspect=down / across)
    for colour, linewidth in (("white", 2.0), (_INK, 0.8)):  # reads on dark and light ground
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=linewidth))
    for x, y, words in view.signs:
        box = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1}
        axes.text(x, y, words, size=7, ha="center", va="center", bbox=box)
    axes.set(xticks=[], yticks=[], facecolor="#F4F4F4", anchor="NW")
    axes.spines[:].set(color=_FRAME, linewidth=0.6)


def _scale_bar(axes: Axes, view: View) -> None:
    """Draw a scale bar of a round length and mark north, which is up."""
    # Laid out by matplotlib, in a corner and at a size that suit panels of any shape.
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    if view.grid.metres is None:
        return
    across = view.grid.metres[0]
    # the first tick behind 0 is at a round length
    metres = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, view.grid.width * across)[1]
    length, name = metres / across, f"{metres / 1000:g} km, N ↑"
    corner = AnchoredSizeBar(axes.transData, length, name, "lower left", 0.3, 0.4, label_top=True)
    corner.patch.set(alpha=0.8, edgecolor="none")
    axes.add_artist(corner)


def _foot(foot: SubFigure, shown: Views) -> None:
    """Draw the legend, and a small world that shows where the views lie."""
    looks: dict[str, Any] = {STRIPES: {"facecolor": "white", "hatch": "////", "ec": GREY}}
    looks[OUTLINE] = {"facecolor": "white", "ec": _INK, "lw": 1.5}
    patches = [
        Patch(label=words, **looks.get(colour, {"facecolor": colour, "ec": "#777777"}))
        for words, colour in shown.legend.items()
    ]
    columns = 1 + (len(patches) > 5)
    foot.legend(handles=patches, loc="upper left", ncols=columns, fontsize=10, frameon=False)
    where = ((view, centre(view.grid.crs, view.grid.bounds)) for view in shown.views)
    places = [(view, place[::-1]) for view, place in where if place]
    if not places:
        return
    axes = foot.add_axes((0.68, 0.02, 0.31, 0.96))
    draw_land(axes)
    for view, place in places:
        axes.plot(*place, "o" if view.home else "^", color=_INK, markersize=5)
        # Home names stand below their mark and away names above, so that neighbours both read.
        axes.annotate(
            view.name, place, (0, -6 if view.home else 6), color=_INK, size=8,
            textcoords="offset points", ha="center", va="top" if view.home else "bottom",
        )  # fmt: skip
    axes.set(xlim=(-180, 180), ylim=(-60, 85), xticks=[], yticks=[], aspect="equal", anchor="E")
    axes.spines[:].set(color=_FRAME, linewidth=0.6)
