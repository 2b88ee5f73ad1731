"""Show a figure with words: what a saved notebook keeps of it, bytes in words, one palette."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

from geopeft_nb.errors import GeopeftError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What a training step keeps -> its colour, everywhere. Okabe-Ito: apart for the colour-blind too.
PALETTE = {
    "weights": "#0072B2",
    "gradients": "#56B4E9",
    "optimiser": "#E69F00",
    "activations": "#D55E00",
}
STYLE = "max-width:100%;height:auto;background:white;border-radius:4px"
UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def in_bytes(size: float) -> str:
    """Write bytes in the unit that suits them, with about three digits."""
    for name, unit in UNITS:
        if size >= (1000 * unit / 1024 if unit > 1024 else unit):  # 1000 MiB are nearly 1 GiB
            value = size / unit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {name}"
    return f"{size:.0f} B"


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Return a figure as a PNG file, cut to what is drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    return buffer.getvalue()


def data_address(image: Any, kind: str = "png", **options: Any) -> str:  # noqa: ANN401 (PIL is lazy)
    """Return an image of Pillow, or a file's bytes, as an address that contains it.

    Args:
        image: The image, or the content of its file.
        kind: ``"png"`` or ``"webp"``.
        **options: How Pillow writes it.
    """
    if not isinstance(image, bytes):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        image = buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def image_html(image: bytes, words: str) -> str:
    """Return a PNG file as an HTML element with alternative text."""
    return f'<img alt="{escape(words)}" style="{STYLE}" src="{data_address(image)}">'


def bundle(image: bytes, words: str) -> dict[str, str]:
    """Return a PNG file in every form that a notebook keeps: HTML with words, text and PNG."""
    encoded = base64.b64encode(image).decode()
    return {"text/plain": words, "text/html": image_html(image, words), "image/png": encoded}


def show(figure: Figure, alt: str) -> None:
    """Display a matplotlib figure with alternative text, in a notebook and in a page made of it.

    Args:
        figure: The figure; it is closed afterwards, so that it is shown once.
        alt: What it shows, in one or two sentences.

    Raises:
        ValueError: The alternative text is empty.
    """
    if not alt.strip():
        raise GeopeftError("alt must say what the figure shows.")
    from IPython.display import display
    from matplotlib import pyplot

    pyplot.close(figure)
    display(bundle(png(figure), alt), raw=True)
