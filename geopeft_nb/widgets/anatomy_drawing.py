"""The picture of a memory plan: where it fits, and a bar for each part of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from geopeft_nb.pictures.show import PALETTE, in_bytes
from geopeft_nb.widgets.drawing import GRID, ORANGE, WIDTH, shorten, text_element, ticks
from geopeft_nb.widgets.lasting import lasting_html, svg_open
from geopeft_nb.widgets.words import GIB, MIB

if TYPE_CHECKING:
    from geopeft_nb.widgets.anatomy import Plan

RULER = (1e8, 3e11)  # bytes at its two ends
LEFT, RIGHT, ROW = 170.0, 790.0, 16.0  # of the bars, and the height of a row
AXIS = 158.0  # where the bars begin
NAME = "gp-anatomy"


def plan_words(plan: Plan, devices: Mapping[str, float]) -> str:
    """Say in one line what a plan needs and where it fits."""
    parts = ", ".join(f"{name} {in_bytes(getattr(plan, name))}" for name in PALETTE)
    return (
        f"Memory of one training step: {plan.title}; {settings(plan)}. {in_bytes(plan.total)} "
        f"kept ({parts}), at most {in_bytes(plan.peak)} at once. "
        f"{fits_words(plan, devices)}"
    )


def fits_words(plan: Plan, devices: Mapping[str, float]) -> str:
    """Name the devices on which a plan fits."""
    fits = [name for name, limit in devices.items() if plan.fits(limit)]
    return f"Fits on {', '.join(fits)}." if fits else f"Fits on none of {', '.join(devices)}."


def settings(plan: Plan) -> str:
    """Name batch, size, precision and recipes of a plan."""
    height, width = plan.size if isinstance(plan.size, tuple) else (plan.size, plan.size)
    parts = [f"batch {plan.batch_size}", f"{height} × {width} pixels", plan.precision]
    return " · ".join([*parts, " + ".join(plan.frugal) or "no recipe"])


def plan_text(plan: Plan, devices: Mapping[str, float]) -> str:
    """Return the plan as a table in plain text, one row per part."""
    names = [*PALETTE, "total"]
    lines = [plan_words(plan, devices), f"{'':<22}" + "".join(f"{name:>13}" for name in names)]
    for part, row in plan.table.iterrows():
        cells = "".join(f"{in_bytes(row[name]):>13}" for name in names)
        lines.append(f"{str(part)[:21]:<22}{cells}")
    cells = "".join(f"{in_bytes(getattr(plan, name)):>13}" for name in names)
    return "\n".join([*lines, f"{'all':<22}{cells}"])


def plan_svg(
    plan: Plan,
    devices: Mapping[str, float],
    before: Plan | None = None,
    colour: str = "currentColor",
) -> str:
    """Draw a plan; `before` is the one to compare its sum with."""
    rows = [(str(part), row) for part, row in plan.table.iterrows()]
    height = AXIS + ROW * len(rows) + 26
    total = f"{in_bytes(plan.total)} kept in one training step"
    if before is not None and before.total != plan.total:
        times = plan.total / before.total
        total += f" (before: {in_bytes(before.total)}; now {times:.2g} times as much)"
    return "".join(
        [
            svg_open(plan_words(plan, devices), height, colour),
            text_element(10, 18, shorten(plan.title, 870, 14), 14, 'font-weight="600"'),
            text_element(WIDTH - 16, 40, settings(plan), 12, 'text-anchor="end"'),
            text_element(10, 40, total, 13),
            *_ruler(plan, devices),
            *_legend(plan),
            *_bars(rows, height),
            "</svg>",
        ]
    )


def plan_html(
    plan: Plan, devices: Mapping[str, float], before: Plan | None = None, state: str = "ready"
) -> str:
    """Return the picture as HTML with one root element of class `gp-anatomy`."""
    root = f'class="{NAME}" data-state="{state}" data-total="{plan.total}" style="overflow-x:auto"'
    return lasting_html(
        root,
        NAME,
        lambda colour: plan_svg(plan, devices, before, colour),
        plan_words(plan, devices),
        plan_text(plan, devices),
    )


def _ruler(plan: Plan, devices: Mapping[str, float]) -> list[str]:
    """Draw the peak on a logarithmic scale between the devices."""
    low, high = (math.log10(end) for end in RULER)

    def x(size: float) -> float:
        share = (math.log10(max(size, 1)) - low) / (high - low)
        return 10 + (WIDTH - 26) * min(1.0, max(0.0, share))

    y, need = 92.0, x(plan.peak)
    parts = [f'<path d="M10 {y}H{WIDTH - 16}" stroke="currentColor" opacity=".6"/>']
    for name, limit in devices.items():
        fits = plan.fits(limit)
        words = f"{'✓' if fits else '✗'} {name} {limit / 1e9:g} GB"
        style = 'text-anchor="middle"' + (' font-weight="600"' if fits else ' opacity=".7"')
        parts.append(f'<path d="M{x(limit):.1f} {y - 6}v12" stroke="currentColor"/>')
        parts.append(text_element(x(limit), y + 20, words, 11.5, style))
    anchor = "start" if need < 120 else "end" if need > WIDTH - 120 else "middle"
    words = f"at most {in_bytes(plan.peak)} at once"
    parts.append(text_element(need, y - 16, words, 11.5, f'text-anchor="{anchor}"'))
    tip = f"M{need:.1f} {y - 1}l-6 -10h12z"
    return [*parts, f'<path d="{tip}" fill="{ORANGE}"/>']


def _legend(plan: Plan) -> list[str]:
    parts, x = [], LEFT
    for name, colour in PALETTE.items():
        parts.append(f'<rect x="{x}" y="128" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(text_element(x + 15, 137, f"{name} {in_bytes(getattr(plan, name))}", 11.5))
        x += 168
    return parts


def _bars(rows: list[tuple[str, Mapping[str, float]]], height: float) -> list[str]:
    """Draw one stacked bar for each part, to a common scale."""
    most = max((float(row["total"]) for _, row in rows), default=0.0)
    unit, name = (GIB, "GiB") if most >= GIB else (MIB, "MiB")
    marks = ticks(0, max(most / unit, 1e-6))
    scale = (RIGHT - LEFT) / (marks[-1] * unit)
    digits = max(0, -math.floor(math.log10(marks[1]) + 1e-9))
    parts = []
    for mark in marks:
        x, last = LEFT + mark * unit * scale, mark == marks[-1]
        parts.append(f'<path d="M{x:.1f} {AXIS - 6}V{height - 20:.1f}" {GRID}/>')
        label = f"{mark:.{digits}f}" + (f" {name}" if last else "")
        style = 'text-anchor="middle" opacity=".75"'
        parts.append(text_element(x, height - 6, label, 10, style))
    for index, (part, row) in enumerate(rows):
        y, x = AXIS + ROW * index, LEFT
        label = shorten(part, LEFT - 20, 11)
        parts.append(text_element(LEFT - 8, y + 10, label, 11, 'text-anchor="end"'))
        for band, colour in PALETTE.items():
            width = float(row[band]) * scale
            if width > 0:
                parts.append(
                    f'<rect class="gp-band" x="{x:.2f}" y="{y:.1f}" width="{width:.2f}"'
                    f' height="{ROW - 4}" fill="{colour}"/>'
                )
            x += width
        parts.append(text_element(x + 5, y + 10, in_bytes(float(row["total"])), 10.5))
    return parts
