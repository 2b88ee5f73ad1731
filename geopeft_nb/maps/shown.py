"""A map in a notebook: a static figure first, then a page to move in; and both as files."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geopeft_nb.errors import GeopeftError
from geopeft_nb.maps.page import write_page
from geopeft_nb.maps.views import Views
from geopeft_nb.pictures.show import bundle, data_address, escaped, png, visible
from geopeft_nb.writing import written_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        return write_page(self)

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
        from PIL import Image
        from rasterio.transform import array_bounds, from_origin
        from rasterio.warp import reproject, transform_bounds

        shown = LeafMap(**options)
        for view in self.views:
            grid = view.grid
            if grid.crs is None:
                raise GeopeftError(f"{view.heading}: without coordinates it lies on no map.")
            laid = {"src_crs": grid.crs, "src_transform": from_origin(*grid.origin, *grid.pixel)}
            for layer in view.layers:
                colours = layer.painted().transpose(2, 0, 1)
                bands, place = reproject(colours, dst_crs="EPSG:3857", **laid)
                edges = array_bounds(*bands.shape[1:], place)
                west, south, east, north = transform_bounds("EPSG:3857", "EPSG:4326", *edges)
                picture = Image.fromarray(np.ascontiguousarray(bands.transpose(1, 2, 0)))
                shown.add(ImageOverlay(
                    url=data_address(picture, "png"), bounds=((south, west), (north, east)),
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
