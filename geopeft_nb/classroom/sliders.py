"""A figure that sliders redraw in place, and that a saved notebook keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from geopeft_nb.pictures.show import bundle, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sliders(draw: Callable[..., tuple[Figure, str]], /, **controls: object) -> None:
    """Show what a function draws, and controls that have it drawn again.

    The picture is an output of the cell and no widget: its last state stays in a saved notebook.
    The controls need a running kernel.

    Args:
        draw: Takes a value for each control; returns a figure, and what it shows in words.
        **controls: What `ipywidgets.interact` takes for each argument: a widget, a list of choices.
    """
    import ipywidgets
    from IPython.display import display
    from matplotlib import pyplot

    # Not by `interact`: what its function displays would vanish from the notebook with its kernel.
    box = ipywidgets.interactive(lambda **_: None, **controls)
    named = dict(zip(controls, box.kwargs_widgets, strict=True))

    def picture() -> dict[str, str]:
        figure, alt = draw(**{name: control.value for name, control in named.items()})
        pyplot.close(figure)
        return bundle(png(figure), alt)

    shown = display(picture(), raw=True, display_id=True)
    for control in named.values():
        control.observe(lambda _: shown.update(picture(), raw=True), names="value")
    display(box)
