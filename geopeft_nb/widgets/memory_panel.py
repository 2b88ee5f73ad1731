"""Where the memory of a run goes: bands of what a step keeps, against what the device has."""

from __future__ import annotations

from collections.abc import Mapping

from geopeft_nb.pictures.show import in_bytes
from geopeft_nb.widgets.drawing import (
    AMBER,
    BLUE,
    BOTTOM,
    GREY,
    GRID,
    ORANGE,
    SKY,
    TOP,
    text_element,
)

#: What a training step keeps, in the order of the bands, and the colour of each.
PARTS = {"weights": BLUE, "gradients": SKY, "optimiser": AMBER, "activations": ORANGE}
OTHER = "other"  # on a CPU mostly Python, libraries and data; on a GPU workspace
COLOURS = {**PARTS, OTHER: GREY}
LEFT, RIGHT = 686.0, 884.0  # of the panel

Row = tuple[str, int, int]  # label, bytes, limit in bytes


def memory_rows(memory: Mapping[str, int]) -> list[Row]:
    """Return what was measured, as from `memory.measure.device_memory`: the device's own first."""
    rows: list[Row] = []
    if "total" in memory:
        rows = [(f"GPU {key}", memory[key], memory["total"]) for key in ("allocated", "peak")]
        rows[0] = ("GPU now", *rows[0][1:])
    if "process" in memory:
        limit = memory.get("limit", 0)
        rows.append(("process now" if not rows else "process", memory["process"], limit))
        if len(rows) == 1 and "peak" in memory:
            rows.append(("process peak", memory["peak"], limit))
    return rows


def bands(memory: Mapping[str, int], step: Mapping[str, int]) -> list[tuple[str, int]]:
    """Split the measured peak into what a step keeps, and the rest.

    The rest is 0 where the peak lies below the sum: gradients arrive while activations go, so
    that the parts of a step are not all there at the same moment.

    Args:
        memory: Measured bytes; `peak` is the one that is split.
        step: Bytes of one step under `weights`, `gradients`, `optimiser` and `activations`, as
            from `memory.measure.training_bytes`. Empty if they are not known.

    Returns:
        (name, bytes) of each band; empty if `step` is.
    """
    if not step:
        return []
    kept = [(name, int(step.get(name, 0))) for name in PARTS]
    rest = memory.get("peak", 0) - sum(size for _, size in kept)
    return [*kept, (OTHER, max(0, rest))]


def memory_panel(memory: Mapping[str, int], step: Mapping[str, int]) -> str:
    """Draw the memory of a run as SVG: plain bars, or bands where the parts of a step are known."""
    rows, split = memory_rows(memory), bands(memory, step)
    parts = [text_element(LEFT, TOP - 14, "memory", 12, 'font-weight="600"')]
    if split:
        peak = next((row for row in rows if row[0].endswith("peak")), ("one step", 0, 0))
        parts += _stacked(peak, rows[0] if rows else None, split)
    elif rows:
        for index, row in enumerate(rows):
            parts += _bar(row, TOP + 6 + 38 * index)
    else:
        parts.append(text_element(LEFT, TOP + 16, "not measured yet", 11, 'font-style="italic"'))
    if any(limit and size > 0.9 * limit for _, size, limit in rows):
        parts.append(text_element(LEFT, BOTTOM + 19, "▲ near the limit", 11, f'fill="{ORANGE}"'))
    return "".join(parts)


def _caption(row: Row, y: float) -> list[str]:
    label, size, limit = row
    of = f"{in_bytes(size)} of {in_bytes(limit)}" if limit else in_bytes(size)
    return [
        text_element(LEFT, y, label),
        text_element(RIGHT, y, of, 11, 'text-anchor="end"'),
        f'<rect x="{LEFT}" y="{y + 6:.1f}" height="9" rx="2" width="{RIGHT - LEFT}"'
        ' fill="currentColor" opacity=".13"/>',
    ]


def _bar(row: Row, y: float) -> list[str]:
    _, size, limit = row
    share = min(1.0, size / limit) if limit else 0.0
    colour, width = ORANGE if share > 0.9 else BLUE, max(2, share * (RIGHT - LEFT))
    bar = (
        f'<rect x="{LEFT}" y="{y + 6:.1f}" height="9" rx="2" width="{width:.1f}" fill="{colour}"/>'
    )
    return [*_caption(row, y), bar]


def _stacked(peak: Row, now: Row | None, split: list[tuple[str, int]]) -> list[str]:
    """Draw the bands twice, beside the limit and enlarged, with their names and bytes below."""
    whole, limit = sum(size for _, size in split), peak[2]
    label = peak if peak[1] else (peak[0], whole, limit)
    parts = _caption(label, TOP + 2)
    end = LEFT + (RIGHT - LEFT) * (min(1.0, whole / limit) if limit else 1.0)
    parts += _strip(split, TOP + 8, end)
    if now and limit:
        x = LEFT + (RIGHT - LEFT) * min(1.0, now[1] / limit)
        parts.append(f'<path d="M{x:.1f} {TOP + 5}v15" stroke="currentColor" stroke-width="1.5"/>')
    if end < LEFT + 0.7 * (RIGHT - LEFT):  # lines from the small bands to the enlarged ones
        parts.append(f'<path d="M{LEFT} {TOP + 17}V{TOP + 27}M{end:.1f} {TOP + 17}')
        parts[-1] += f'L{RIGHT} {TOP + 27}" fill="none" {GRID}/>'
        parts += _strip(split, TOP + 27, RIGHT)
    for index, (name, size) in enumerate(split):
        y = TOP + 52 + 13 * index
        parts.append(f'<rect x="{LEFT}" y="{y - 8:.1f}" width="9" height="9" rx="1.5"')
        parts[-1] += f' fill="{COLOURS[name]}"/>'
        parts.append(text_element(LEFT + 15, y, name, 10.5))
        parts.append(text_element(RIGHT, y, in_bytes(size), 10.5, 'text-anchor="end"'))
    return parts


def _strip(split: list[tuple[str, int]], y: float, right: float) -> list[str]:
    whole, x, parts = sum(size for _, size in split) or 1, LEFT, []
    for name, size in split:
        width = (right - LEFT) * size / whole
        if width > 0:
            parts.append(
                f'<rect class="gp-band" x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="9"'
                f' fill="{COLOURS[name]}"><title>{name} {in_bytes(size)}</title></rect>'
            )
        x += width
    return parts
