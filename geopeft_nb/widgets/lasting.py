"""A drawing that outlives its kernel: HTML that a saved notebook shows, trusted or not."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from urllib.parse import quote

from geopeft_nb.widgets.drawing import GREY, WIDTH


def lasting_html(root: str, name: str, draw: Callable[[str], str], words: str, table: str) -> str:
    """Return a drawing as HTML with one root element, a picture in reserve, and a table in words.

    Viewers that do not trust a notebook remove inline SVG but leave its words behind: they are
    therefore invisible (size 0), and the same picture appears as an image. Where the SVG survives,
    a style rule that such viewers also remove hides the image.

    Args:
        root: Attributes of the root element, among them `class` with `name`, and `data-state`.
        name: Class of the root element.
        draw: Returns the SVG for a text colour.
        words: What the drawing shows, in one line.
        table: The same as a table in plain text.
    """
    # percent-encoded: a quarter smaller than base64, because nearly all of it is plain text
    picture = quote(draw(GREY).replace('"', "'"), safe=" '=/:;,.()-")
    return (
        f"<style>.{name}[data-state] .gp-fallback{{display:none}}</style>"
        f'<div {root}><div style="font-size:0">{draw("currentColor")}</div>'
        f'<img class="gp-fallback" alt="{escape(words)}" width="{WIDTH}"'
        f' src="data:image/svg+xml,{picture}"/>'
        '<details style="font-size:12px"><summary>The same in words and numbers</summary>'
        f"<pre>{escape(table)}</pre></details></div>"
    )


def svg_open(words: str, height: float, colour: str) -> str:
    """Return the opening tag of a drawing in the page's font, width and the given text colour."""
    return (
        f'<svg role="img" aria-label="{escape(words)}" viewBox="0 0 {WIDTH} {height:.0f}"'
        ' xmlns="http://www.w3.org/2000/svg" width="100%" fill="currentColor"'
        ' font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif"'
        f' style="color:{colour};min-width:600px;max-width:1080px;display:block">'
    )
