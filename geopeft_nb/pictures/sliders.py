"""A figure that sliders redraw in place, and that a saved notebook keeps."""

from collections.abc import Callable

from matplotlib.figure import Figure

from geopeft_nb.pictures.show import bundle, escaped, png


def sliders(draw: Callable[..., tuple[Figure, str]], /, **controls: object) -> None:
    """Show controls, and below them what a function draws, which they have drawn again.

    The picture is an output of the cell and no widget: its last state stays in a saved notebook.
    The controls need a running kernel.

    Args:
        draw: Takes a value for each control; returns a figure, and what it shows in words. Of
            several lines the last is also written beside the controls.
        **controls: What `ipywidgets.interact` takes for each argument: a widget, a list of choices.
    """
    import ipywidgets
    from IPython.display import display
    from matplotlib import pyplot

    # Not by `interact`: what its function displays would vanish from the notebook with its kernel.
    made = ipywidgets.interactive(lambda **_: None, **controls).kwargs_widgets
    said = ipywidgets.HTML()

    def picture() -> dict[str, str]:
        said.value = "computing …"
        figure, alt = draw(**{name: x.value for name, x in zip(controls, made, strict=True)})
        pyplot.close(figure)
        line = escaped("".join(alt.splitlines()[1:][-1:]))
        said.value = f'<span role="status" aria-live="polite">{line}</span>'
        return bundle(png(figure, 90), alt)

    display(ipywidgets.HBox([*made, said], layout=ipywidgets.Layout(flex_flow="row wrap")))
    shown = display(picture(), raw=True, display_id=True)
    for control in made:
        control.observe(lambda _: shown.update(picture(), raw=True), names="value")
