"""Show figures, tables and words: what a saved notebook keeps of them, bytes in words, one palette.

Words that are not ours (names, titles, notes) are made harmless here, once for each medium.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geopeft_nb.errors import GeopeftError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: What a training step keeps -> its colour, everywhere. Okabe-Ito: apart for the colour-blind too.
PALETTE = {
    "weights": "#0072B2",
    "gradients": "#56B4E9",
    "optimiser": "#E69F00",
    "activations": "#D55E00",
}
#: Of things without a colour of their own, in turn; the first seven are Okabe and Ito's, too.
COLOURS = (
    "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F7F7F",
    "#8C564B", "#17BECF", "#BCBD22", "#9467BD", "#AEC7E8", "#98DF8A", "#FF9896", "#C49C94",
)  # fmt: skip
STYLE = "max-width:100%;height:auto;background:white;border-radius:4px"
UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
#: Control characters, what turns the direction of text or has no width, and halves of characters.
_HIDDEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\uffff\U000e0000-\U000e0fff]"
)
#: What Markdown takes for more than text: marks, and addresses, which become links.
_MARKUP = re.compile(r"[\\`*\[\]|~#$@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)


def in_bytes(size: float) -> str:
    """Write bytes in the unit that suits them, with about three digits."""
    for name, unit in UNITS:
        if size >= (1000 * unit / 1024 if unit > 1024 else unit):  # 1000 MiB are nearly 1 GiB
            value = size / unit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {name}"
    return f"{size:.0f} B"


def png(figure: Figure, dpi: int = 110, cut: bool = True) -> bytes:
    """Return a figure as a PNG file, cut to what is drawn unless it is to keep its size."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight" if cut else None)
    return buffer.getvalue()


def data_address(image: bytes, kind: str = "png") -> str:
    """Return the bytes of an image file, ``"png"`` or ``"webp"``, as an address that has them."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def image_html(image: bytes, words: str) -> str:
    """Return a PNG file as an HTML element with alternative text."""
    return f'<img alt="{escaped(words)}" style="{STYLE}" src="{data_address(image)}">'


def bundle(image: bytes, words: str) -> dict[str, str]:
    """Return a PNG file in every form that a notebook keeps: HTML with words, text and PNG."""
    return {
        "text/plain": visible(words),
        "text/html": image_html(image, words),
        "image/png": base64.b64encode(image).decode(),
    }


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


def visible(words: object) -> str:
    r"""Write characters that nobody sees, and halves of characters, as Python does.

    Example:
        >>> visible("gpj.\u202eexe")
        'gpj.\\u202eexe'
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(words))


def escaped(words: object) -> str:
    """Write words for HTML, also within a quoted attribute."""
    return escape(visible(words))


def markdown(words: object) -> object:
    """Write words as one line of Markdown: no HTML, heading, link, formula or cell of a table.

    What a template marks as safe stays as it is.
    """
    line = escape(" ".join(visible(words).split()), quote=False)
    return words if hasattr(words, "__html__") else _MARKUP.sub(r"\\\g<0>", line)


def filled(template: Path, **values: object) -> str:
    """Fill in a template of HTML, in which words are `escaped`."""
    from jinja2 import Environment

    made = Environment(autoescape=True, finalize=visible)
    return made.from_string(template.read_text(encoding="utf-8")).render(values)


def table_html(
    frame: pd.DataFrame, caption: str, numbers: Callable[[Any], str] | None = None
) -> str:
    """Write a table for a notebook, with three decimals or as `numbers` says."""
    shown = frame.style.format(numbers, precision=3, escape="html").set_caption(escaped(caption))
    return str(shown.format_index(escaped).format_index(escaped, axis=1).to_html())


def short(name: object, letters: int = 40) -> str:
    """Write a name for a figure in one line, the middle of a long one left out."""
    line = visible(name).replace("\n", " ")
    return line if len(line) <= letters else f"{line[: letters // 2]} … {line[3 - letters // 2 :]}"


def plain(figure: Figure) -> Figure:
    """Take all words of a figure as they are, no formula among them, and shorten long ones."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        lines = [short(line, 120 if text.axes else 240) for line in text.get_text().split("\n")]
        text.set(parse_math=False, text="\n".join(lines[:4]))
    return figure
