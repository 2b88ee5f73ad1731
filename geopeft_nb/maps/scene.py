"""A predicted scene on the map: classes, how sure they are, and where not to believe them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.errors import GeopeftError
from geopeft_nb.evaluation.scene import Scene
from geopeft_nb.maps.layers import GAP, STRIPES, Grid, Layer, View
from geopeft_nb.maps.shown import Map, named
from geopeft_nb.open_files import open_raster
from geopeft_nb.pictures.show import visible

Steps = Sequence[tuple[float, str, str]]
#: Pixels of the longer side at most: of a larger scene every n-th pixel is read.
SIDE = 1400
OUTSIDE = "outside what training saw"
#: Upper ends of steps, their meaning and their colour, from light to dark.
SURE: Steps = (
    (0.5, "probability below 50 %", "#FDE725"), (0.7, "probability 50 to 70 %", "#5EC962"),
    (0.9, "probability 70 to 90 %", "#21918C"), (np.inf, "probability over 90 %", "#3B528B"),
)  # fmt: skip
FAR: Steps = (
    (0.5, "distance up to half the threshold", "#2166AC"),
    (1.0, "distance up to the threshold, as 95 % of training", "#92C5DE"),
    (2.0, f"{OUTSIDE}: up to twice the threshold", "#FDAE61"),
    (np.inf, f"{OUTSIDE}: further", "#D7301F"),
)


def map_scene(
    result: Scene | Sequence[Scene] | Mapping[str, Scene], out: str | os.PathLike[str] | None = None
) -> Map:
    """Show a predicted scene: classes, their probability, and where they are not to be believed.

    Ground outside of what training saw is striped in the class map. Of a scene with more than
    1,400 pixels a side every n-th pixel is shown.

    Args:
        result: What `predict_scene` returned; or several on the same ground and with the same
            classes, a list or a dictionary name -> result, to swipe between.
        out: Where to save the interactive map, a name that ends in ``.html``; it has all in it, at
            most 5 MB, and opens without network.

    Returns:
        A map that a notebook displays: a figure, and below it an interactive map. A click shows
        what is known of the pixel. `.figure`, `.page` and `.save(path)` give its parts.

    Raises:
        ValueError: No result, a scene of numbers, other ground or classes than the first one's,
            or files that cannot be read.
    """
    scenes: dict[str, Scene] = named(result, lambda scene: scene.path.stem)
    if not scenes:
        raise GeopeftError("A map shows at least one result of predict_scene, and got none.")
    views = [_view(name * (len(scenes) > 1), scene) for name, scene in scenes.items()]
    first = next(iter(scenes.values()))
    for view, scene in zip(views, scenes.values(), strict=True):
        if (view.grid, scene.classes) != (views[0].grid, first.classes):
            raise GeopeftError(
                f"{scene.path} has other pixels or classes than {first.path}. Swiped are maps of "
                "one scene: show others each for itself."
            )
    layers = [layer for view in views for layer in view.layers]
    sides = (layers[0].name, layers[-1].name if len(views) == 1 else views[-1].layers[0].name)
    said = [f"{', '.join(layer.name for layer in layers)}.", views[0].heading]
    said += [note for scene in scenes.values() for note in scene.notes]
    title = visible(f"Map of {first.path.stem}")
    shown = Map(title, [replace(views[0], layers=layers)], len(views), sides, said)
    if out is not None:
        shown.save(out)
    return shown


def _view(name: str, scene: Scene) -> View:
    """Read the layers of one result."""
    codes, _, grid, step = _read(scene.path)
    if codes.dtype != np.uint8:
        raise GeopeftError(f"{scene.path} has numbers: a map shows a class for each pixel.")
    end = f": {name}" if name else ""
    classes = dict(zip(map(visible, scene.classes), scene.colours, strict=True))
    layers, striped = [], None
    if scene.probability:
        layers.append(_graded(f"Probability{end}", scene.probability, 1.0, SURE))
    if scene.applicability:
        far = _graded(f"Distance from training{end}", scene.applicability, scene.threshold, FAR)
        striped = np.array([OUTSIDE in words for words in far.words] + [False])[far.codes]
        layers.append(far)
    legend = classes if striped is None else classes | {OUTSIDE: STRIPES}
    names = [*map(visible, scene.classes)]
    layers.insert(0, Layer(f"Class{end}", codes, legend, scene.colours, names, striped=striped))
    place = visible(scene.path.stem)
    thinned = f", one of {step} × {step} that the file has" if step > 1 else ""
    heading = f"{place} {grid.extent}{thinned}"
    return View(place, heading, False, grid, layers, None, "", np.zeros(codes.shape, bool))


def _read(path: Path) -> tuple[NDArray[Any], float, Grid, int]:
    """Read a band, thinned out if need be: pixels, factor of the stored values, grid, thinning."""
    with open_raster(path) as source:
        step = -(-max(source.shape) // SIDE)
        height, width = (-(-side // step) for side in source.shape)
        pixels = source.read(1, out_shape=(height, width))  # from an overview, if it has one
        crs = source.crs.to_string() if source.crs else None
        return pixels, source.scales[0], Grid((), height, width, crs, tuple(source.bounds)), step


def _graded(name: str, path: Path, unit: float, steps: Steps) -> Layer:
    """Read a layer of numbers, and give it a few steps of colour."""
    codes, scale, _, _ = _read(path)
    values = scale * np.arange(GAP) / unit
    chosen = [steps[i] for i in np.searchsorted([end for end, _, _ in steps], values)]
    colours = [colour for _, _, colour in chosen]
    notes = [f" ({OUTSIDE})" if OUTSIDE in said else "" for _, said, _ in chosen]
    words = [f"{value:.2f}{note}" for value, note in zip(values, notes, strict=True)]
    return Layer(name, codes, {said: colour for _, said, colour in steps}, colours, words)
