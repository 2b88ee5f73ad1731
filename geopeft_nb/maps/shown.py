"""A map in a notebook: a static figure first, then a page to move in; and both as files."""

import io
import json
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from geopeft_nb.errors import GeopeftError
from geopeft_nb.maps.layers import OUTLINE, TRAINED, Grid, Layer, View, Views, outline
from geopeft_nb.pictures.show import bundle, data_address, escaped, png, visible
from geopeft_nb.writing import written_beside

#: Bytes of a page at most.
MOST = 5_000_000


class Map(Views):
    """What a notebook shows as a static figure first, then as an interactive map."""

    @cached_property
    def figure(self) -> Figure:
        """The static matplotlib figure."""
        from geopeft_nb.maps.figure import draw

        return draw(self)

    @cached_property
    def page(self) -> str:
        """The interactive map as HTML that needs neither network nor kernel."""
        template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        for step in count(1):  # every n-th pixel, until it fits
            content = {
                "title": self.title,
                "sides": self.sides,
                "names": [layer.name for layer in self.views[0].layers],
                "views": [_view(view, step) for view in self.views],
                "legend": [(words, OUTLINE) for words in self.legend if words == TRAINED],
            }
            # so that no name ends the element that it stands in
            page = template.replace("CONTENT", json.dumps(content).replace("<", "\\u003c"))
            if len(page) <= MOST:  # JSON and template are ASCII
                break
        return page

    @property
    def widget(self) -> Any:
        """The interactive map as an ipywidgets box, which a saved notebook does not keep."""
        import ipywidgets

        words, height = escaped(self.title), 560 * len(self.views)  # until the page says its own
        style = f"width:100%;height:{height}px;border:0"
        frame = f'<iframe title="{words}" style="{style}" srcdoc="{escaped(self.page)}"></iframe>'
        return ipywidgets.HTML(frame, layout=ipywidgets.Layout(width="100%"))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the figure as a PNG file, or the interactive map as one of HTML.

        The page has all it needs in it, at most 5 MB, and opens without network.

        Args:
            path: A name that ends in ``.png`` or ``.html``.

        Returns:
            The path.

        Raises:
            ValueError: Another ending, or the file cannot be written.
        """
        target = Path(path)
        if target.suffix not in (".png", ".html"):
            raise GeopeftError(f"{target} ends in neither .png nor .html: a map is saved as these.")
        content = png(self.figure, 100) if target.suffix == ".png" else self.page.encode()
        with written_beside(target) as file:
            file.write_bytes(content)
        return target

    def leafmap(self, **options: Any) -> Any:
        """Lay everything on a map of leafmap, where its tools and other layers can join.

        Args:
            **options: Of `leafmap.Map`, such as ``basemap=``, which is asked of the network.

        Returns:
            A `leafmap.Map` with one overlay for each layer of each view.

        Raises:
            ValueError: Ground without coordinates.
        """
        from ipyleaflet import ImageOverlay
        from leafmap.leafmap import Map as LeafMap
        from rasterio.transform import array_bounds, from_bounds
        from rasterio.warp import reproject, transform_bounds

        shown = LeafMap(**options)
        for view in self.views:
            grid = view.grid
            if grid.crs is None:
                raise GeopeftError(f"{view.heading}: without coordinates it lies on no map.")
            place = from_bounds(*grid.bounds, grid.width, grid.height)
            for layer in view.layers:
                colours = layer.painted().transpose(2, 0, 1)
                bands, there = reproject(
                    colours, src_crs=grid.crs, src_transform=place, dst_crs="EPSG:3857"
                )
                edges = array_bounds(*bands.shape[1:], there)
                west, south, east, north = transform_bounds("EPSG:3857", "EPSG:4326", *edges)
                shown.add(ImageOverlay(
                    url=_address(bands.transpose(1, 2, 0), "png"),
                    bounds=((south, west), (north, east)),
                    name=escaped(f"{view.name}: {layer.name}"),  # a control shows it as HTML
                ))  # fmt: skip
                shown.fit_bounds([[south, west], [north, east]])
        return shown

    def __repr__(self) -> str:
        """Say what the figure shows, in words, also for those who cannot see it."""
        lines = [f"{self.title}: {self.said[0]}", *self.said[1:]]
        return visible("\n".join([*lines[:11], *["…"] * (len(lines) > 11)]))

    def _ipython_display_(self) -> None:
        """Display the static figure, then the interactive map below it."""
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)
        display(self.widget)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the static figure for a saved notebook: HTML with alt text, PNG and text."""
        return bundle(png(self.figure, 100), repr(self))


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
    return np.stack([latitude, longitude], axis=1).reshape(9, 9, 2).round(6).tolist()


def _address(pixels: NDArray[np.uint8], kind: str = "webp", **options: Any) -> str:
    """Encode pixels (H, W, B) as a data address; WebP is small."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return data_address(buffer.getvalue(), kind)


def named(given: Any, name: Callable[[Any], str]) -> dict[str, Any]:
    """Return name -> what has it: of a dictionary its own, else `name`, and of a list a number."""
    if isinstance(given, Mapping):
        return {visible(key): value for key, value in given.items()}
    if not isinstance(given, list | tuple):
        return {visible(name(given)): given}
    return {visible(f"{name(one)} {number}"): one for number, one in enumerate(given, 1)}
