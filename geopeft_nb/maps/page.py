"""The interactive map: one page of HTML with its pixels, which asks nobody for anything."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.maps.grid import Grid
from geopeft_nb.maps.layers import Layer
from geopeft_nb.maps.views import OUTLINE, TRAINED, View, Views, outline
from geopeft_nb.pictures.show import data_address

#: Bytes of a page at most.
MOST = 5_000_000


def write_page(shown: Views) -> str:
    """Write a map as HTML: `page.html` with what is shown, thinned out until it fits into 5 MB."""
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    for step in count(1):
        content = {
            "title": shown.title,
            "sides": shown.sides,
            "names": [layer.name for layer in shown.views[0].layers],
            "views": [_view(view, step) for view in shown.views],
            "legend": [(words, OUTLINE) for words in shown.legend if words == TRAINED],
        }
        # so that no name ends the element that it stands in
        page = template.replace("CONTENT", json.dumps(content).replace("<", "\\u003c"))
        if len(page) <= MOST:  # JSON and template are ASCII
            break
    return page


def _view(view: View, step: int) -> dict[str, Any]:
    """Send every n-th pixel of a view; its lines and signs in pixels of the whole."""
    grid, thin = view.grid, np.s_[::step, ::step]
    return {
        "heading": view.heading,
        "size": [grid.width, grid.height],
        "pixel": grid.metres,
        "places": _places(grid),
        "picture": None if view.picture is None else _address(view.picture[thin], quality=85),
        "layers": [_layer(layer, step) for layer in view.layers],
        "outline": [(line + 0.5).round(1).tolist() for line in outline(view.trained)],
        "signs": view.signs,
    }


def _layer(layer: Layer, step: int) -> dict[str, Any]:
    """Send codes as a picture's red and stripes as its green: the page paints them."""
    codes = np.dstack([layer.codes, layer.stripes.astype(np.uint8), layer.codes])
    return {
        "source": _address(codes[::step, ::step], lossless=True),
        "colours": [*layer.colours],
        "words": [*layer.words],
        "legend": [*layer.legend.items()],
    }


def _places(grid: Grid) -> list[Any] | None:
    """Return latitude and longitude of 9 x 9 points, from which the page finds those between."""
    if grid.crs is None:
        return None
    from rasterio.warp import transform

    left, bottom, right, top = grid.bounds
    points = np.meshgrid(np.linspace(left, right, 9), np.linspace(top, bottom, 9))
    longitude, latitude = transform(grid.crs, "EPSG:4326", *(axis.ravel() for axis in points))
    places: list[Any] = np.stack([latitude, longitude], axis=1).reshape(9, 9, 2).round(6).tolist()
    return places


def _address(pixels: NDArray[np.uint8], **options: Any) -> str:
    """Encode pixels (H, W, B) as a data address in WebP, which is small."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return data_address(picture, "webp", **options)
