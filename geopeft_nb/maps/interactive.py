"""The interactive maps: swipe and opacity without a tile server and without the internet."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from geopeft_nb.maps import layers
from geopeft_nb.maps.figure import COMPOSITE_TITLES, legend_entries, outlines

if TYPE_CHECKING:
    from geopeft_nb.maps.compare import RegionMap
    from geopeft_nb.maps.region import RegionView

NOTHING = "Image only"
# SplitMapControl clips whole panes, so each side needs its own; they lie above the image's.
_PANES = {
    "land": {"zIndex": 380},
    "image": {"zIndex": 400},
    "left": {"zIndex": 450},
    "right": {"zIndex": 450},
}
_SNAP = 0.1  # zoom levels are multiples of this
_HEIGHT = 420  # pixels
_FIT = 380  # pixels: side of the square that a region is fitted into


def build(regions: RegionMap) -> Any:  # noqa: ANN401 (ipywidgets is imported only here)
    """Make one map per region, with common controls for all of them.

    Args:
        regions: What to show.

    Returns:
        An ipywidgets box: choice of the two sides, opacity, legend, maps side by side.
    """
    import ipywidgets as widgets

    addresses = [_addresses(view, regions) for view in regions.views]
    names = list(addresses[0])
    short = {"description_width": "initial"}
    left = widgets.Dropdown(options=names, value=NOTHING, description="Left:", style=short)
    last = f"Prediction: {list(regions.views[0].predictions)[-1]}"
    right = widgets.Dropdown(options=names, value=last, description="Right:", style=short)
    opacity = widgets.FloatSlider(
        value=0.7, max=1, step=0.05, description="Opacity:", style=short, readout_format=".0%"
    )
    land = _land() if any(view.grid.crs for view in regions.views) else None
    maps = [
        _region(view, choices, left, right, opacity, land)
        for view, choices in zip(regions.views, addresses, strict=True)
    ]
    wrap = widgets.Layout(flex_flow="row wrap")
    controls = widgets.HBox([left, right, opacity], layout=wrap)
    legend = widgets.HTML(_legend_html(regions))
    return widgets.VBox([controls, legend, widgets.HBox(maps, layout=wrap)])


def _land() -> Any:  # noqa: ANN401
    """Make the layer of land outlines that all maps share."""
    import ipyleaflet

    style = {"color": "#8a8a8a", "weight": 1, "fillColor": "#f4f1ea", "fillOpacity": 1}
    return ipyleaflet.GeoJSON(data=outlines(), style=style, pane="land")


def _addresses(view: RegionView, regions: RegionMap) -> dict[str, str]:
    """Return layer name -> data address of everything that a side of the map can show."""
    count, ignore = len(regions.classes), regions.ignore_index
    colours = [*regions.colours, layers.IGNORED_COLOUR]

    def classes(codes: Any, palette: Any) -> str:  # noqa: ANN401
        return layers.codes_address(layers.warp(codes, view.grid)[0], palette)

    empty = np.full((1, 1), layers.GAP, np.uint8)
    addresses = {NOTHING: layers.codes_address(empty, [])}
    for composite, picture in list(view.pictures.items())[1:]:
        name = f"Image: {COMPOSITE_TITLES[composite]}"
        addresses[name] = layers.picture_address(layers.warp(picture, view.grid)[0])
    codes = layers.class_codes(view.label, view.valid, count, ignore)
    addresses["Label"] = classes(codes, colours)
    for name, prediction in view.predictions.items():
        codes = layers.class_codes(prediction, view.valid, count, ignore)
        addresses[f"Prediction: {name}"] = classes(codes, colours)
    for name, prediction in view.predictions.items():
        codes = layers.difference(view.label, prediction, view.valid, count, ignore)
        addresses[f"Difference: {name}"] = classes(codes, layers.DIFFERENCE_COLOURS)
    return addresses


def _region(
    view: RegionView,
    addresses: dict[str, str],
    left: Any,  # noqa: ANN401
    right: Any,  # noqa: ANN401
    opacity: Any,  # noqa: ANN401
    land: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Make the map of one region, and connect it to the common controls."""
    import ipyleaflet
    import ipywidgets as widgets

    picture, bounds = layers.warp(next(iter(view.pictures.values())), view.grid)
    under = [
        ipyleaflet.ImageOverlay(url=layers.picture_address(picture), bounds=bounds, pane="image")
    ]
    centre, zoom = _fit(bounds, view.grid.crs)
    if view.grid.crs:
        # The dot lies under the image: it marks the region once that is too small to see.
        dot = {"radius": 5, "color": "#222222", "weight": 1, "fill_color": "#222222"}
        under += [land, ipyleaflet.CircleMarker(location=centre, pane="land", **dot)]
    sides = {}
    for side, choice in (("left", left), ("right", right)):
        overlay = ipyleaflet.ImageOverlay(
            url=addresses[choice.value], bounds=bounds, pane=side, opacity=opacity.value
        )
        # Linked in the browser: the slider works without the kernel, even while it trains.
        widgets.jslink((opacity, "value"), (overlay, "opacity"))
        choice.observe(
            lambda change, overlay=overlay: setattr(overlay, "url", addresses[change["new"]]),
            names="value",
        )
        sides[f"{side}_layer"] = overlay

    crs = ipyleaflet.projections.EPSG3857 if view.grid.crs else ipyleaflet.projections.Simple
    world = ipyleaflet.Map(
        layers=under,
        panes=_PANES,
        crs=crs,
        center=centre,
        zoom=zoom,
        min_zoom=0 if view.grid.crs else -2,
        zoom_snap=_SNAP,
        interpolation="nearest",
        attribution_control=False,
        layout=widgets.Layout(height=f"{_HEIGHT}px", width="100%"),
    )
    world.add(ipyleaflet.SplitMapControl(**sides))
    world.add(ipyleaflet.FullScreenControl(position="bottomright"))
    if view.grid.crs:
        world.add(ipyleaflet.ScaleControl(position="bottomleft", imperial=False))

    def back(_: Any) -> None:  # noqa: ANN401
        world.center, world.zoom = list(centre), zoom

    fixed = widgets.Layout(width="auto", flex="0 0 auto")
    button = widgets.Button(description="Zoom to region", icon="crosshairs", layout=fixed)
    button.on_click(back)
    heading = widgets.HTML(f"<b>{html.escape(view.region)}</b> · {view.role}")
    head = widgets.HBox([heading, button], layout=widgets.Layout(justify_content="space-between"))
    frame = widgets.Layout(flex="1 1 400px", min_width="320px", padding="0 8px 8px 0")
    return widgets.VBox([head, world], layout=frame)


def _fit(bounds: Any, crs: str | None) -> tuple[tuple[float, float], float]:  # noqa: ANN401
    """Return the centre (latitude, longitude) and the zoom at which the bounds fit a map.

    Computed here because ipyleaflet's `fit_bounds` searches for it with the browser's help.
    """
    (south, west), (north, east) = bounds

    def northing(latitude: float) -> float:
        return math.log(math.tan(math.pi / 4 + math.radians(latitude) / 2)) * 128 / math.pi

    # Sides of the region in pixels at zoom 0, where the world is 256 pixels wide.
    across, down = (east - west) * 256 / 360, northing(north) - northing(south)
    if crs is None:
        across, down = east - west, north - south
    zoom = math.log2(_FIT / max(across, down))
    return ((south + north) / 2, (west + east) / 2), math.floor(zoom / _SNAP) * _SNAP


def _legend_html(regions: RegionMap) -> str:
    swatch = (
        "display:inline-block;width:14px;height:14px;margin:0 5px 0 0;vertical-align:-2px;"
        "border:1px solid #777;border-radius:2px;background:"
    )
    entries = "".join(
        f'<span style="margin-right:18px;white-space:nowrap"><span style="{swatch}{colour}"></span>'
        f"{html.escape(name)}</span>"
        for colour, name in legend_entries(regions)
    )
    colour = "color:var(--jp-ui-font-color1, inherit)"
    # The full-screen symbol is black and would vanish on the dark theme's dark button.
    button = "<style>.leaflet-control-fullscreen a{background-color:#fff !important}</style>"
    legend = f'<div role="note" aria-label="Legend" style="line-height:1.7;{colour}">'
    return f"{button}{legend}{entries}</div>"
