"""A figure that sliders redraw in place.

It is a picture and no widget, so its last state stays in a saved notebook; the sliders below it
need a running kernel.
"""

from __future__ import annotations

import base64
import io
from abc import ABC, abstractmethod
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Redrawn(ABC):
    """What draws itself from its attributes, and offers controls for some of them.

    Attributes:
        style: Class of the image in HTML.
        dpi: Pixels per inch of the figure.
    """

    style: ClassVar[str]
    dpi: ClassVar[int] = 100

    @abstractmethod
    def draw(self) -> tuple[Figure, str]:
        """Return the figure and what it shows in words."""

    @abstractmethod
    def controls(self, **look: Any) -> dict[str, Any]:  # noqa: ANN401 - ipywidgets has no types
        """Return attribute -> the control that sets it; `look` is for each of them."""

    def show(self) -> None:
        """Display the figure, and the controls that redraw it."""
        import ipywidgets as widgets
        from IPython.display import display

        handle = display(self._bundle(), raw=True, display_id=True)
        controls = self.controls(
            style={"description_width": "initial"}, layout=widgets.Layout(width="320px")
        )

        def redraw(_: object) -> None:
            for name, control in controls.items():
                setattr(self, name, control.value)
            handle.update(self._bundle(), raw=True)

        for control in controls.values():
            control.observe(redraw, names="value")
        display(widgets.HBox([*controls.values()], layout=widgets.Layout(flex_flow="row wrap")))

    def _ipython_display_(self) -> None:
        self.show()

    def _bundle(self) -> dict[str, str]:
        figure, alt = self.draw()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=self.dpi)
        png = base64.b64encode(buffer.getvalue()).decode()
        style = "max-width:100%;height:auto;background:white;border-radius:4px"
        image = f'<img class="{self.style}" alt="{escape(alt, quote=True)}" style="{style}"'
        html = f'{image} src="data:image/png;base64,{png}">'
        return {"text/plain": alt, "text/html": html, "image/png": png}
