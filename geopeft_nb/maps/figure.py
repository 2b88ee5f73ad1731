"""The static figure: a row of panels per region, and where on Earth the regions lie."""

from __future__ import annotations

import gzip
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.datasets.base import centre
from geopeft_nb.files import data_folder
from geopeft_nb.maps.layers import GAP
from geopeft_nb.pictures.show import plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from geopeft_nb.maps.region import Regions, RegionView

#: Caption and the pictures (H, W, 3 or 4) that lie over each other in a panel.
Panel = tuple[str, list[NDArray[np.uint8]]]
_WIDTH, _WORLD = 11.0, 1.3  # inches
_INK, _FRAME = "#222222", "#BBBBBB"


def draw(regions: Regions) -> Figure:
    """Draw image, label, predictions and differences of every region.

    Args:
        regions: What to show.

    Returns:
        A figure that belongs to no pyplot state, so a notebook shows it only when asked.
    """
    from matplotlib.figure import Figure

    blocks = [_panels(view, regions) for view in regions.views]
    rows = 1 if len(blocks[0]) == 4 else 2
    columns = len(blocks[0]) // rows
    heights = [0.4 + rows * (0.2 + _panel_height(v, _WIDTH / columns)) for v in regions.views]
    figure = Figure(figsize=(_WIDTH, sum(heights) + _WORLD + 0.5), layout="constrained")
    title = f"Image, label and prediction: {regions.data.card.title}"
    figure.suptitle(title, x=0.01, ha="left", size=14, weight="bold")
    parts: Any = figure.subfigures(len(blocks) + 1, 1, height_ratios=[*heights, _WORLD])
    for view, block, part in zip(regions.views, blocks, parts, strict=False):
        seen = "home: trained here" if view.role == "home" else "away: its labels were never seen"
        heading = f"{view.region} ({seen}) · {view.chips} {view.grid.extent}"
        part.suptitle(heading, x=0.01, ha="left", size=11, color=_INK)
        panels = part.subplots(rows, columns, squeeze=False)
        outline = _outline(view)
        for axes, (caption, pictures) in zip(panels.flat, block, strict=True):
            _show(axes, pictures, outline, view)
            axes.set_title(caption, size=9.5, color=_INK, loc="left", pad=3)
        _scale_bar(panels.flat[0], view)
    _foot(parts[-1], regions)
    return plain(figure)


def land_outlines() -> dict[str, Any]:
    """Read the land outlines and borders that ship with the toolkit, as one GeoJSON object."""
    paths = [data_folder() / f"maps/{name}.geojson.gz" for name in ("land", "borders")]
    collections = [json.loads(gzip.decompress(path.read_bytes())) for path in paths]
    features = [feature for collection in collections for feature in collection["features"]]
    return {"type": "FeatureCollection", "features": features}


def draw_land(axes: Axes) -> None:
    """Draw land and borders in degrees, without names."""
    from matplotlib.collections import LineCollection

    def lines(part: Any) -> list[Any]:  # noqa: ANN401 (points, or lists of points of any depth)
        if np.ndim(part[0]) == 1:
            return [np.asarray(part, float)[:, :2]]
        return [line for inner in part for line in lines(inner)]

    features = land_outlines()["features"]
    outlines = [line for feature in features for line in lines(feature["geometry"]["coordinates"])]
    axes.add_collection(LineCollection(outlines, colors="#9A9A9A", linewidths=0.5))


def _panels(view: RegionView, regions: Regions) -> list[Panel]:
    """List the panels of a region: one row for one run, two for several."""
    # Classes and errors stand on a pale grey image, which shows where in the region they lie.
    # Where predictions are scored it is darker, since the veil of a difference layer lightens it.
    bright = view.picture[..., :3].mean(axis=2)
    grey = np.where(view.label != GAP, 60 + 0.75 * bright, 210 + 0.15 * bright).astype(np.uint8)
    pale = np.dstack([grey, grey, grey, view.picture[..., 3]])
    painted = {name: [pale, layer] for name, layer in regions.painted(view).items()}
    image = (f"Image, {view.bands}", [view.picture])
    label, predicted, differing = ("Label", painted["Label"]), [], []
    for row in regions.scores[regions.scores["region"] == view.region].itertuples():
        caption = f"Prediction, {short(row.run)}: mIoU {row.miou:.2f}"
        predicted.append((caption, painted[f"Prediction: {row.run}"]))
        caption = f"Differences, {short(row.run)}: {row.wrong:.1%} wrong"
        differing.append((caption, painted[f"Difference: {row.run}"]))
    if len(predicted) == 1:
        return [image, label, *predicted, *differing]
    return [image, *predicted, label, *differing]


def _panel_height(view: RegionView, width: float) -> float:
    """Return the height in inches of the panels of a region, in its true proportions."""
    across, down = view.grid.metres or (1.0, 1.0)
    return width * min(max(view.grid.height * down / (view.grid.width * across), 0.35), 1.3)


def _outline(view: RegionView) -> list[NDArray[np.float64]]:
    """Return the lines around the chips that were predicted, if there are others between them."""
    from contourpy import contour_generator

    covered = view.label != GAP
    if view.grid.crs is None or covered.all():
        return []
    # Traced once and drawn as plain lines: a contour set in every panel would keep the grid.
    return list(contour_generator(z=covered.astype(np.float32)).lines(0.5))  # type: ignore[arg-type]


def _show(
    axes: Axes,
    pictures: list[NDArray[np.uint8]],
    outline: list[NDArray[np.float64]],
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
    axes.set(xticks=[], yticks=[], facecolor="#F4F4F4", anchor="NW")
    axes.spines[:].set(color=_FRAME, linewidth=0.6)


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
    length, name = metres / across, f"{metres / 1000:g} km, N ↑"
    corner = AnchoredSizeBar(axes.transData, length, name, "lower left", 0.3, 0.4, label_top=True)
    corner.patch.set(alpha=0.8, edgecolor="none")
    axes.add_artist(corner)


def _foot(foot: SubFigure, regions: Regions) -> None:
    """Draw the legend, and a small world that shows where the regions lie."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=c, edgecolor="#777777", label=w) for w, c in regions.legend.items()]
    foot.legend(
        handles=patches, loc="upper left", ncols=1 + (len(patches) > 5), fontsize=10, frameon=False
    )
    where = ((view, centre(view.grid.crs, view.grid.bounds)) for view in regions.views)
    places = [(view, place[::-1]) for view, place in where if place]
    if not places:
        return
    axes = foot.add_axes((0.68, 0.02, 0.31, 0.96))
    draw_land(axes)
    for view, place in places:
        home = view.role == "home"
        axes.plot(*place, "o" if home else "^", color=_INK, markersize=5)
        # Home names stand below their mark and away names above, so that neighbours both read.
        axes.annotate(
            f"{view.region} ({view.role})", place, (0, -6 if home else 6), color=_INK, size=8,
            textcoords="offset points", ha="center", va="top" if home else "bottom",
        )  # fmt: skip
    axes.set(xlim=(-180, 180), ylim=(-60, 85), xticks=[], yticks=[], aspect="equal", anchor="E")
    axes.spines[:].set(color=_FRAME, linewidth=0.6)
