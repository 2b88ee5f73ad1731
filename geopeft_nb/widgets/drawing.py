"""Small plots as SVG text: round ticks, thinned curves, labels that do not cover each other.

Writing the SVG by hand costs a third of a millisecond per picture, where matplotlib takes 65, so
that a live view can afford it during training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

# Okabe-Ito: apart for the colour-blind too
BLUE, SKY, ORANGE, GREEN, AMBER = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#E69F00"
GREY = "#7F7F7F"  # readable on white and on black alike
WIDTH, HEIGHT = 900, 220  # of the drawing, in its own units; on the page it takes the width it gets
TOP, BOTTOM = 84, 192  # of the plots
POINTS = 100  # most points drawn per curve
GRID = 'stroke="currentColor" stroke-width=".6" opacity=".25"'
LINE = 'fill="none" stroke-width="1.8" stroke-linejoin="round"'


Point = tuple[float, float]


def decimate(points: Sequence[Point], limit: int = POINTS) -> list[Point]:
    """Thin a curve to at most `limit` points, each the mean of its neighbours.

    A point that is not finite is left out of its mean; where nothing finite remains, the point
    stays as NaN, so that the drawn line has a gap there.
    """
    size = max(1, math.ceil(len(points) / limit))
    thin = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        finite = [p for p in part if math.isfinite(p[1])]
        value = sum(p[1] for p in finite) / len(finite) if finite else math.nan
        thin.append((part[-1][0] if size > 1 else part[0][0], value))
    return thin


def smooth(points: Sequence[Point]) -> list[Point]:
    """Return the mean of each point and its neighbours within a twentieth of the curve.

    The window looks both ways: a mean of the past alone would lag behind a falling loss.
    """
    reach = max(1, len(points) // 20)
    mean = []
    for index, (x, y) in enumerate(points):
        near = [v for _, v in points[max(0, index - reach) : index + reach + 1] if math.isfinite(v)]
        mean.append((x, sum(near) / len(near) if math.isfinite(y) else math.nan))
    return mean


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers that cover `low` to `high`."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / max(1, count - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def text_element(x: float, y: float, text: str, size: float = 11, more: str = "") -> str:
    """Return one line of text; `more` are further attributes of the element."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {more}>{escape(text)}</text>'


def shorten(text: str, width: float, size: float) -> str:
    """Cut a text that would be wider than `width`, by the mean width of a letter."""
    room = int(width / (0.54 * size))
    return text if len(text) <= room else text[: room - 1].rstrip() + "…"


class Panel:
    """One small plot: a frame of round numbers, and curves that are labelled at their end."""

    def __init__(
        self, title: str, left: float, right: float, steps: float, values: Iterable[float]
    ) -> None:
        """Lay out axes from 0 to `steps` and around the finite ones of `values`."""
        finite = [v for v in values if math.isfinite(v)]
        marks = ticks(min(finite), max(finite)) if finite else []
        self.left, self.right, self.steps = left, right, steps
        self.low, self.high = (marks[0], marks[-1]) if marks else (0.0, 1.0)
        self.ends: list[tuple[float, float, str, str]] = []
        self.parts = [text_element(left, TOP - 14, title, 12, 'font-weight="600"')]
        digits = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9)) if marks else 0
        for mark in marks:
            y = self.y(mark)
            self.parts.append(f'<path d="M{left} {y:.1f}H{right}" {GRID}/>')
            label = f"{mark:.{digits}f}" if abs(mark) < 1e4 else f"{mark:.0e}"
            self.parts.append(
                text_element(left - 6, y + 3.5, label, 10, 'text-anchor="end" opacity=".75"')
            )
        across = [0, steps // 2, steps] if steps >= 2 else [0, steps]
        for mark in across:
            label = f"{mark:,.0f}" + (" steps" if mark == steps else "")
            attributes = 'text-anchor="middle" opacity=".75"'
            self.parts.append(text_element(self.x(mark), BOTTOM + 15, label, 10, attributes))
        if not marks:
            self.parts.append(f'<path d="M{left} {BOTTOM}H{right}" {GRID}/>')

    def x(self, step: float) -> float:
        """Return where a step lies, in units of the drawing."""
        return self.left + (self.right - self.left) * step / self.steps

    def y(self, value: float) -> float:
        """Return where a value lies, in units of the drawing."""
        return BOTTOM - (BOTTOM - TOP) * (value - self.low) / (self.high - self.low)

    def note(self, text: str) -> None:
        """Write a remark in the middle of an empty panel, at the top of one with curves."""
        middle, y = (self.left + self.right) / 2, TOP + 9 if self.ends else (TOP + BOTTOM) / 2 + 4
        style = 'text-anchor="middle" font-style="italic" opacity=".85"'
        self.parts.append(text_element(middle, y, text, 11, style))

    def curve(self, points: Sequence[Point], colour: str, label: str = "", style: str = "") -> None:
        """Draw a line with a gap at every value that is not finite, and a dot at its end."""
        drawn, path, down = None, "", False
        for step, value in points:
            if not math.isfinite(value):
                down = False
                continue
            x, y = round(self.x(step), 1), round(self.y(value), 1)
            # steps from point to point are written in half as many letters as places
            path += f"l{x - drawn[0]:.4g} {y - drawn[1]:.4g}" if down and drawn else f"M{x} {y}"
            drawn, down = (x, y), True
        if drawn is None:
            return
        self.parts.append(f'<path d="{path}" stroke="{colour}" {LINE} {style}/>')
        if label:
            self.ends.append((*drawn, colour, label))

    def svg(self) -> str:
        """Return the panel, with the labels beside the longest curve and none over another."""
        right = max((end[0] for end in self.ends), default=0.0)
        ends = sorted(self.ends, key=lambda end: end[1])
        heights: list[float] = []
        for _, y, _, _ in ends:
            heights.append(max(y + 4, heights[-1] + 13 if heights else -math.inf))
        overflow = max(0.0, heights[-1] - BOTTOM + 2) if heights else 0.0
        for (x, y, colour, label), height in zip(ends, heights, strict=True):
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            beside = right + 7
            if right - x > 12:  # the label is far from its curve: repeat the colour
                y = height - overflow - 4
                self.parts.append(f'<circle cx="{beside}" cy="{y:.1f}" r="3" fill="{colour}"/>')
                beside += 7
            self.parts.append(text_element(beside, height - overflow, label))
        return "".join(self.parts)
