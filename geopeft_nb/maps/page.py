"""The interactive map: one page of HTML with its pixels, which asks nobody for anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.maps.figure import land_lines
from geopeft_nb.maps.grid import Grid
from geopeft_nb.maps.layers import GAP, Layer, warp
from geopeft_nb.maps.views import OUTLINE, TRAINED, View, Views, outline
from geopeft_nb.pictures.show import data_address

#: Bytes of a page at most, and pixels of a layer's longer side that are tried in turn.
MOST, SIDES = 5_000_000, (1400, 1000, 700, 500, 350, 250)


def write_page(shown: Views) -> str:
    """Write a map as HTML: `page.html` with what is shown, as large as fits into 5 MB."""
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    for side in SIDES:
        content = {
            "title": shown.title,
            "sides": shown.sides,
            "names": [layer.name for layer in shown.views[0].layers],
            "views": [_view(view, side) for view in shown.views],
            "legend": [(words, OUTLINE) for words in shown.legend if words == TRAINED],
            "land": [line.round(2).tolist() for line in land_lines()],
        }
        # so that no name ends the element that it stands in
        page = template.replace("CONTENT", json.dumps(content).replace("<", "\\u003c"))
        if len(page) <= MOST:  # JSON and template are ASCII
            break
    return page


def _view(view: View, side: int) -> dict[str, Any]:
    trained, box = warp(view.trained[None].astype(np.uint8), view.grid, GAP, side)
    shape = trained.shape[:0:-1]
    sides = view.grid.width, view.grid.height
    lines = [(line + 0.5) / shape for line in outline(trained[0] == 1)]
    picture = None
    if view.picture is not None:
        picture = _address(warp(view.picture.transpose(2, 0, 1), view.grid, 0, side)[0], quality=85)
    return {
        "heading": view.heading,
        "box": box,
        "ground": view.grid.crs is not None,
        "picture": picture,
        "layers": [_layer(layer, view.grid, side) for layer in view.layers],
        "outline": [line.round(4).tolist() for line in lines],
        "signs": [(x / sides[0], y / sides[1], words) for x, y, words in view.signs],
    }


def _layer(layer: Layer, grid: Grid, side: int) -> dict[str, Any]:
    """Send codes as a picture's red and stripes as its green: the page paints them."""
    bands = np.stack([layer.codes, layer.stripes.astype(np.uint8), layer.codes])
    codes, _ = warp(bands, grid, GAP, side)
    return {
        "source": _address(codes, lossless=True),
        "colours": [*layer.colours],
        "words": [*layer.words],
        "legend": [*layer.legend.items()],
    }


def _address(bands: NDArray[np.uint8], **options: Any) -> str:  # noqa: ANN401 (of Pillow)
    """Encode bands (B, H, W) as a data address in WebP, which is small."""
    from PIL import Image

    pixels = np.ascontiguousarray(bands.transpose(1, 2, 0))
    return data_address(Image.fromarray(pixels), "webp", **options)
