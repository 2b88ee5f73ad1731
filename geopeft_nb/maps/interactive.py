"""The interactive maps: swipe and opacity without a tile server and without the internet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from geopeft_nb.maps.figure import land_outlines
from geopeft_nb.maps.layers import address, warp
from geopeft_nb.pictures.show import escaped

if TYPE_CHECKING:
    from geopeft_nb.maps.region import Regions, RegionView

NOTHING = "Image only"
# SplitMapControl clips whole panes, so each side needs its own; they lie above the image's.
_PANES = {
    name: {"zIndex": height}
    for name, height in (("land", 380), ("image", 400), ("left", 450), ("right", 450))
}
_SNAP = 0.1  # zoom levels are multiples of this
_HEIGHT = 420  # pixels
_FIT = 380  # pixels: side of the square that a region is fitted into


def build(regions: Regions) -> Any:  # noqa: ANN401 (ipywidgets is imported only here)
    """Make one map per region, with common controls for all of them.

    Args:
        regions: What to show.

    Returns:
        An ipywidgets box: choice of the two sides, opacity, legend, maps side by side.
    """
    import ipyleaflet
    import ipywidgets as widgets

    names = [NOTHING, *regions.painted(regions.views[0])]
    last = [name for name in names if name.startswith("Prediction")][-1]
    short = {"description_width": "initial"}
    left, right = (
        widgets.Dropdown(options=names, value=value, description=f"{side}:", style=short)
        for side, value in (("Left", NOTHING), ("Right", last))
    )
    opacity = widgets.FloatSlider(
        value=0.7, max=1, step=0.05, description="Opacity:", style=short, readout_format=".0%"
    )
    style = {"color": "#8a8a8a", "weight": 1, "fillColor": "#f4f1ea", "fillOpacity": 1}
    land = ipyleaflet.GeoJSON(data=land_outlines(), style=style, pane="land")
    sides = {"left": left, "right": right}
    maps = [_region(view, regions, sides, opacity, land) for view in regions.views]
    wrap = widgets.Layout(flex_flow="row wrap")
    controls = widgets.HBox([left, right, opacity], layout=wrap)
    return widgets.VBox([controls, _legend(regions), widgets.HBox(maps, layout=wrap)])


def _addresses(view: RegionView, regions: Regions) -> dict[str, str]:
    """Return layer name -> data address of everything that a side of the map can show."""
    shown = {NOTHING: np.zeros((1, 1, 4), np.uint8)} | {
        name: warp(layer, view.grid)[0] for name, layer in regions.painted(view).items()
    }
    return {name: address(layer, lossless=True, exact=True) for name, layer in shown.items()}


def _region(
    view: RegionView,
    regions: Regions,
    choices: dict[str, Any],
    opacity: Any,  # noqa: ANN401
    land: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Make the map of one region, and connect it to the common controls."""
    import ipyleaflet
    import ipywidgets as widgets

    addresses = _addresses(view, regions)
    picture, bounds = warp(view.picture, view.grid)
    url = address(picture, quality=85)
    under = [ipyleaflet.ImageOverlay(url=url, bounds=bounds, pane="image")]
    centre, zoom = _fit(bounds, picture.shape, view.grid.crs)
    if view.grid.crs:
        # The dot lies under the image: it marks the region once that is too small to see.
        dot = {"radius": 5, "color": "#222222", "weight": 1, "fill_color": "#222222"}
        under += [land, ipyleaflet.CircleMarker(location=centre, pane="land", **dot)]
    sides = {}
    for side, choice in choices.items():
        overlay = ipyleaflet.ImageOverlay(bounds=bounds, pane=side, opacity=opacity.value)
        widgets.dlink((choice, "value"), (overlay, "url"), addresses.__getitem__)
        # Linked in the browser: the slider works without the kernel, even while it trains.
        widgets.jslink((opacity, "value"), (overlay, "opacity"))
        sides[f"{side}_layer"] = overlay
    projections = ipyleaflet.projections
    world = ipyleaflet.Map(
        layers=under, panes=_PANES, center=centre, zoom=zoom, zoom_snap=_SNAP,
        crs=projections.EPSG3857 if view.grid.crs else projections.Simple,
        min_zoom=0 if view.grid.crs else -2, interpolation="nearest", attribution_control=False,
        layout=widgets.Layout(height=f"{_HEIGHT}px", width="100%"),
    )  # fmt: skip
    world.add(ipyleaflet.SplitMapControl(**sides))
    world.add(ipyleaflet.FullScreenControl(position="bottomright"))
    if view.grid.crs:
        world.add(ipyleaflet.ScaleControl(position="bottomleft", imperial=False))
    heading = widgets.HTML(f"<b>{escaped(view.region)}</b> · {view.role}")
    frame = widgets.Layout(flex="1 1 400px", min_width="320px", padding="0 8px 8px 0")
    return widgets.VBox([heading, world], layout=frame)


def _fit(bounds: Any, shape: tuple[int, ...], crs: str | None) -> tuple[list[float], float]:  # noqa: ANN401
    """Return the centre (latitude, longitude) and the zoom at which the bounds fit a map.

    Computed here because ipyleaflet's `fit_bounds` searches for it with the browser's help.
    """
    (south, west), (north, east) = bounds
    # Sides of the region in pixels at zoom 0, where the world is 256 pixels wide.
    across = (east - west) * (256 / 360 if crs else 1)
    zoom = math.log2(_FIT / max(across, across * shape[0] / shape[1]))
    return [(south + north) / 2, (west + east) / 2], math.floor(zoom / _SNAP) * _SNAP


def _legend(regions: Regions) -> Any:  # noqa: ANN401
    """Make the legend; the full-screen symbol is black and would vanish on a dark button."""
    import ipywidgets as widgets

    entries = "&emsp; ".join(
        f'<span style="background:{colour};border:1px solid #777">&emsp;</span> {escaped(name)}'
        for name, colour in regions.legend.items()
    )
    return widgets.HTML(
        "<style>.leaflet-control-fullscreen a{background-color:#fff !important}</style>"
        f'<div role="note" aria-label="Legend">{entries}</div>'
    )
