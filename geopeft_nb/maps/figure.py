"""The static figure: a row of panels per region, laid out in inches so that maps stay large."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.files import data_path
from geopeft_nb.maps import layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from geopeft_nb.maps.compare import RegionMap
    from geopeft_nb.maps.region import RegionView

COMPOSITE_TITLES = {"true_colour": "true colour", "false_colour": "false colour"}

_WIDTH, _MARGIN, _BETWEEN = 11.0, 0.15, 0.12  # inches
_TITLE, _HEADING, _CAPTION = 0.5, 0.5, 0.26  # inches
_LINE, _WORLD = 0.22, 1.15  # inches: height of a line of the legend, and of the world map
_INK, _FRAME = "#222222", "#BBBBBB"


def draw(regions: RegionMap) -> Figure:
    """Draw image, label, predictions and differences of every region.

    Args:
        regions: What to show.

    Returns:
        A figure that belongs to no pyplot state, so a notebook shows it only when asked.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

    blocks = [_panels(view, regions) for view in regions.views]
    columns = len(blocks[0][0])
    width = (_WIDTH - 2 * _MARGIN - (columns - 1) * _BETWEEN) / columns
    heights = [_panel_height(view, width) for view in regions.views]
    rows = len(blocks[0])
    world = _WORLD if any(view.grid.crs for view in regions.views) else 0.0
    foot = 0.35 + max(world, _LINE * min(len(legend_entries(regions)), 5))
    total = _TITLE + foot + sum(_HEADING + rows * (_CAPTION + height) for height in heights)
    figure = Figure(figsize=(_WIDTH, total), facecolor="white")
    FigureCanvasAgg(figure)

    def write(y: float, words: str, size: float) -> Text:
        place = _MARGIN / _WIDTH, 1 - y / total
        return figure.text(*place, words, size=size, weight="bold", va="top", color=_INK)

    write(0.12, f"Image, label and prediction: {regions.title}", 14)
    top = _TITLE
    for view, block, height in zip(regions.views, blocks, heights, strict=True):
        seen = "home: trained here" if view.home else "away: its labels were never seen"
        name = write(top + 0.06, view.region, 12)
        beside = Annotation(f"{seen} · {view.note}", (1, 0), (8, 0), name, "offset points")
        beside.set(size=10, va="bottom", color=_INK, annotation_clip=False)
        figure.add_artist(beside)
        top += _HEADING
        outline = _outline(view)
        for row in block:
            for column, (caption, pictures) in enumerate(row):
                left = _MARGIN + column * (width + _BETWEEN)
                box = (left / _WIDTH, 1 - (top + height) / total, width / _WIDTH, height / total)
                axes = figure.add_axes(box)
                _show(axes, pictures, outline, view)
                axes.set_title(caption, size=9.5, color=_INK, loc="left", pad=3)
                if row is block[0] and column == 0:
                    _scale_bar(axes, view)
            top += height + _CAPTION
    _legend(figure, regions, (foot - 0.2) / total)
    if world:
        _locator(figure, regions, total)
    return figure


def legend_entries(regions: RegionMap) -> list[tuple[str, str]]:
    """List colour and meaning of everything that class and difference layers can show."""
    entries = list(zip(regions.colours, regions.classes, strict=True))
    if len(regions.classes) == 2:
        first, second = regions.classes
        missed = f"missed: label {second}, predicted {first}"
        entries.append((layers.MISSED_COLOUR, missed))
        alarm = f"false alarm: label {first}, predicted {second}"
        entries.append((layers.FALSE_ALARM_COLOUR, alarm))
    else:
        entries.append((layers.MISSED_COLOUR, "wrong class"))
    if any((view.label[view.valid] == regions.ignore_index).any() for view in regions.views):
        entries.append((layers.IGNORED_COLOUR, "no label"))
    return entries


def outlines() -> dict[str, Any]:
    """Read the land outlines and borders that ship with the toolkit, as one GeoJSON object."""
    paths = [data_path(f"maps/{name}.geojson.gz") for name in ("land", "borders")]
    collections = [json.loads(gzip.decompress(path.read_bytes())) for path in paths]
    features = [feature for collection in collections for feature in collection["features"]]
    return {"type": "FeatureCollection", "features": features}


def lines(geojson: dict[str, Any]) -> Iterator[NDArray[np.float64]]:
    """Yield every line or ring of a GeoJSON collection as longitudes and latitudes (N, 2)."""
    depth = {"LineString": 0, "MultiLineString": 1, "Polygon": 1, "MultiPolygon": 2}
    for feature in geojson["features"]:
        parts: list[Any] = [feature["geometry"]["coordinates"]]
        for _ in range(depth[feature["geometry"]["type"]]):
            parts = [part for group in parts for part in group]
        yield from (np.asarray(part, float)[:, :2] for part in parts)


_Panel = tuple[str, list[NDArray[np.uint8]]]


def _panels(view: RegionView, regions: RegionMap) -> list[list[_Panel]]:
    """List the panels of a region by rows: caption and the pictures (H, W, 3 or 4) in it."""
    count, ignore = len(regions.classes), regions.ignore_index
    colours = [*regions.colours, layers.IGNORED_COLOUR]

    def class_layers(classes: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        codes = layers.class_codes(classes, view.valid, count, ignore)
        return [pale, layers.paint(codes, colours)]

    composite, picture = next(iter(view.pictures.items()))
    alpha = np.where(picture.any(axis=0), 255, 0).astype(np.uint8)
    seen = np.dstack([*picture, alpha])
    # Classes and errors stand on a pale grey image, which shows where in the region they lie.
    # Where predictions are scored it is darker, since the veil of a difference layer lightens it.
    bright = picture.mean(axis=0)
    grey = np.where(view.valid, 60 + 0.75 * bright, 210 + 0.15 * bright).astype(np.uint8)
    pale = np.dstack([grey, grey, grey, alpha])
    image = (f"Image, {COMPOSITE_TITLES[composite]}", [seen])
    label = ("Label", class_layers(view.label))
    scores = regions.scores[regions.scores["region"] == view.region].set_index("run")
    predicted, differing = [], []
    for name, prediction in view.predictions.items():
        codes = layers.difference(view.label, prediction, view.valid, count, ignore)
        caption = f"Prediction, {name}: mIoU {scores['miou'][name]:.2f}"
        predicted.append((caption, class_layers(prediction)))
        caption = f"Differences, {name}: {scores['wrong'][name]:.1%} wrong"
        differing.append((caption, [pale, layers.paint(codes, layers.DIFFERENCE_COLOURS)]))
    if len(predicted) == 1:
        return [[image, label, *predicted, *differing]]
    return [[image, *predicted], [label, *differing]]


def _panel_height(view: RegionView, width: float) -> float:
    """Return the height in inches of the panels of a region, in its true proportions."""
    across, down = view.grid.metres or (1.0, 1.0)
    ratio = view.grid.height * down / (view.grid.width * across)
    return width * min(max(ratio, 0.35), 1.3)


def _outline(view: RegionView) -> list[NDArray[np.float64]]:
    """Return the lines around the chips that were predicted, if there are others between them."""
    from contourpy import contour_generator

    if view.grid.crs is None or view.valid.all():
        return []
    # Traced once and drawn as plain lines: a contour set in every panel would keep the grid.
    traced: Any = contour_generator(z=view.valid.astype(np.float32)).lines(0.5)
    return list(traced)


def _show(
    axes: Axes,
    pictures: Sequence[NDArray[np.uint8]],
    outline: Sequence[NDArray[np.float64]],
    view: RegionView,
) -> None:
    """Draw the pictures of a panel over each other."""
    from matplotlib.collections import LineCollection

    across, down = view.grid.metres or (1.0, 1.0)
    for layer, picture in enumerate(pictures):
        # Classes and errors keep their colour where the panel has fewer pixels than the region:
        # averaged with what surrounds them, single wrong pixels would fade away.
        smooth = "nearest" if layer else "antialiased"
        axes.imshow(picture, interpolation=smooth, aspect=down / across)
    for colour, linewidth in (("white", 2.0), (_INK, 0.8)):  # reads on dark and light ground
        axes.add_collection(LineCollection(outline, colors=colour, linewidths=linewidth))
    axes.set(xticks=[], yticks=[], facecolor="#F4F4F4", anchor="W")
    for spine in axes.spines.values():
        spine.set(color=_FRAME, linewidth=0.6)


def _scale_bar(axes: Axes, view: RegionView) -> None:
    """Draw a scale bar of a round length and mark north, which is up."""
    # Laid out by matplotlib, in a corner and at a size that suit panels of any shape.
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    if view.grid.metres is None:
        return
    across = view.grid.metres[0]
    limit = view.grid.width * across / 3
    power = 10 ** math.floor(math.log10(limit))
    metres = max(step * power for step in (1, 2, 5) if step * power <= limit)
    length = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    name = f"{length}, N ↑"
    corner = AnchoredSizeBar(
        axes.transData, metres / across, name, "lower left", 0.3, 0.4, label_top=True
    )
    corner.size_bar.get_children()[0].set_linewidth(2)
    corner.patch.set(alpha=0.8, edgecolor="none")
    axes.add_artist(corner)


def _legend(figure: Figure, regions: RegionMap, top: float) -> None:
    from matplotlib.patches import Patch

    entries = legend_entries(regions)
    patches = [Patch(facecolor=colour, edgecolor="#777777", linewidth=0.5) for colour, _ in entries]
    names = [name for _, name in entries]
    figure.legend(
        patches,
        names,
        loc="upper left",
        bbox_to_anchor=(_MARGIN / _WIDTH, top),
        ncols=2 if len(names) > 5 else 1,
        fontsize=10,
        labelcolor=_INK,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
    )


def _locator(figure: Figure, regions: RegionMap, total: float) -> None:
    """Draw a small world that shows where the regions lie."""
    from matplotlib.collections import LineCollection
    from matplotlib.text import Annotation

    places = [(view, view.grid.centre) for view in regions.views if view.grid.crs]
    width = _WORLD * 360 / 145
    left = _WIDTH - _MARGIN - width
    box = (left / _WIDTH, 0.08 / total, width / _WIDTH, _WORLD / total)
    axes = figure.add_axes(box)
    drawn = list(lines(outlines()))
    axes.add_collection(LineCollection(drawn, colors="#9A9A9A", linewidths=0.5))
    for view, (longitude, latitude) in places:
        marker = "o" if view.home else "^"
        axes.plot(longitude, latitude, marker, color=_INK, markersize=5)
        # Home names stand below their mark and away names above, so that neighbours both read.
        label = Annotation(
            f"{view.region} ({view.role})",
            (longitude, latitude),
            (0, -6 if view.home else 6),
            textcoords="offset points",
        )
        label.set(ha="center", va="top" if view.home else "bottom", size=8, color=_INK)
        axes.add_artist(label)
    axes.set(xlim=(-180, 180), ylim=(-60, 85), xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set(color=_FRAME, linewidth=0.6)
