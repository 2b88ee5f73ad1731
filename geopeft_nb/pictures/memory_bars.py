"""Where the memory of a training step goes: a ruler of devices, and a bar for each part below."""

import re
from collections.abc import Mapping
from itertools import groupby

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geopeft_nb.pictures.show import PALETTE, in_bytes, plain, short

RULER = (1e8, 3e11)  # bytes at its two ends


def memory_figure(
    table: pd.DataFrame, peak: float, title: str, devices: Mapping[str, float]
) -> Figure:
    """Draw a plan of memory.

    Args:
        table: One row per part; columns weights, gradients, optimiser, activations, total in bytes.
        peak: Most bytes that are alive at once.
        title: Lines above the picture.
        devices: Name -> bytes of memory.

    Returns:
        A figure that belongs to no pyplot state, so a notebook shows it only when asked.
    """
    rows = folded(table)
    tall = 0.7 + 0.26 * len(rows)
    figure = Figure(figsize=(10, 1.9 + tall), layout="constrained")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    ruler, bars = figure.subplots(2, 1, height_ratios=(0.7, tall))
    _ruler(ruler, peak, devices)
    _bars(bars, rows, table)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return plain(figure)


def folded(table: pd.DataFrame) -> list[tuple[str, Mapping[str, float], int]]:
    """Return (name, bytes, count) of each part, equal numbered neighbours as one of `count`.

    Example:
        >>> import pandas as pd
        >>> parts = pd.DataFrame({"total": [3, 3, 5]}, index=["block 1", "block 2", "decoder"])
        >>> [(name, count) for name, _, count in folded(parts)]
        [('blocks 1–2', 2), ('decoder', 1)]
    """
    rows = [(str(part), row.to_dict()) for part, row in table.iterrows()]
    found = []
    for _, group in groupby(rows, lambda row: (re.sub(r"\d+$", "", row[0]), row[1])):
        names, sizes = zip(*group, strict=True)
        kind, _, first = names[0].rpartition(" ")
        several = f"{kind}s {first}–{names[-1].rpartition(' ')[2]}"
        found.append((several if len(names) > 1 else names[0], sizes[0], len(names)))
    return found


def _ruler(axes: Axes, peak: float, devices: Mapping[str, float]) -> None:
    axes.set_xscale("log")
    axes.set(xlim=(min(RULER[0], peak / 2), max(RULER[1], 2 * peak)), ylim=(0, 1), yticks=[])
    for name, limit in devices.items():
        fits = peak <= limit
        words = f"{'✓' if fits else '✗'} {name}\n{limit / 1e9:g} GB"
        axes.plot([limit, limit], [0, 0.3], color="black", lw=1)
        axes.text(limit, 0.34, words, ha="center", fontsize=8, alpha=1 if fits else 0.6)
    axes.plot(peak, 0.13, "v", color=PALETTE["activations"], ms=9)
    axes.set_xticks([1e8, 1e9, 1e10, 1e11], ["0.1 GB", "1 GB", "10 GB", "100 GB"], fontsize=8)
    axes.minorticks_off()
    scale = "logarithmic scale: each mark is ten times the last"
    axes.set_xlabel(f"▼ at most {in_bytes(peak)} at once ({scale})", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _bars(
    axes: Axes, rows: list[tuple[str, Mapping[str, float], int]], table: pd.DataFrame
) -> None:
    most = max(sizes["total"] for _, sizes, _ in rows)
    name, unit = ("GiB", 2**30) if most >= 2**30 else ("MiB", 2**20)
    totals = {part: table[part].sum() for part in PALETTE}
    for row, (_, sizes, count) in enumerate(rows):
        words = in_bytes(sizes["total"]) + (" each" if count > 1 else "")
        stacked_bar(axes, row, sizes, unit, words, {} if row else totals)
    axes.set_yticks(range(len(rows)), [short(name) for name, _, _ in rows], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    axes.set_xlabel(f"memory ({name})", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def stacked_bar(
    axes: Axes, row: int, sizes: Mapping[str, float], unit: float, words: str,
    labels: Mapping[str, float],
) -> None:  # fmt: skip
    """Draw the parts of a step's memory beside each other.

    Args:
        axes: To draw on.
        row: Where the bar lies.
        sizes: Bytes of each part.
        unit: Bytes of one unit of the axis.
        words: What stands at its end.
        labels: Bytes of each part that the legend names, if it does.
    """
    left = 0.0
    for part, colour in PALETTE.items():
        size = sizes.get(part, 0) / unit
        label = f"{part} {in_bytes(labels.get(part, 0))}" if labels else "_"
        axes.barh(row, size, left=left, color=colour, label=label, height=0.7)
        left += size
    axes.text(left, row, f" {words}", size=8, va="center")
