"""Show a figure together with words for those who cannot see it."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from geopeft_nb.errors import GeopeftError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    pyplot.close(figure)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    style = "max-width:100%;height:auto;background:white;border-radius:4px"
    words = escape(alt, quote=True)
    image = f'<img alt="{words}" style="{style}" src="data:image/png;base64,{encoded}">'
    display({"text/plain": alt, "text/html": image, "image/png": encoded}, raw=True)
