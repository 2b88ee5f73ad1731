"""Where the memory of a training step goes: a ruler of devices, and a bar for each part below."""

from collections.abc import Mapping, Sequence
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
    name, unit = ("GiB", 2**30) if rows["total"].max() >= 2**30 else ("MiB", 2**20)
    each = (rows["count"] > 1).map({True: " each", False: ""})
    stacked_bars(bars, rows, unit, [*(rows["total"].map(in_bytes) + each)], table.sum())
    bars.invert_yaxis()
    bars.margins(x=0.12, y=0.02)
    bars.set_xlabel(f"memory ({name})", fontsize=9)
    bars.tick_params(labelsize=8)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return plain(figure)


def folded(table: pd.DataFrame) -> pd.DataFrame:
    """Return the parts, equal numbered neighbours as one, with the `count` of each.

    Example:
        >>> import pandas as pd
        >>> parts = pd.DataFrame({"total": [3, 3, 5]}, index=["block 1", "block 2", "decoder"])
        >>> folded(parts)["count"].to_dict()
        {'blocks 1–2': 2, 'decoder': 1}
    """
    kinds = table.index.str.replace(r"\d+$", "", regex=True)
    rows = {}
    for _, alike in groupby(range(len(table)), lambda row: (kinds[row], *table.iloc[row])):
        first, *more = alike
        name = table.index[first]
        if more:
            name = f"{kinds[first].strip()}s {name.split()[-1]}–{table.index[more[-1]].split()[-1]}"
        rows[name] = {**table.iloc[first], "count": 1 + len(more)}
    return pd.DataFrame.from_dict(rows, orient="index")


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


def stacked_bars(
    axes: Axes, rows: pd.DataFrame, unit: float, words: Sequence[str], totals: Mapping[str, float]
) -> None:
    """Draw the parts of a step's memory beside each other.

    Args:
        axes: To draw on.
        rows: Name of each bar -> bytes of each part.
        unit: Bytes of one unit of the axis.
        words: What stands at the end of each bar.
        totals: Bytes of each part that the legend names.
    """
    sizes = rows[[*PALETTE]] / unit
    left = sizes.cumsum(axis=1) - sizes
    for part, colour in PALETTE.items():
        label = f"{part} {in_bytes(totals[part])}"
        bars = axes.barh(range(len(rows)), sizes[part], 0.7, left[part], color=colour, label=label)
    axes.bar_label(bars, words, padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), map(short, rows.index))
    axes.spines[["top", "right"]].set_visible(False)
