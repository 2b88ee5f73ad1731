"""The picture of a training run: drawn while it goes on, and left behind when it has ended."""

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # by itself it leaves pyplot's state alone
from matplotlib.patches import Patch

from geopeft_nb.pictures.memory_bars import stacked_bars
from geopeft_nb.pictures.show import in_bytes, plain
from geopeft_nb.widgets.words import State, head, number, process

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GHOSTS = ("#9467BD", "#8C564B", "#7F7F7F")  # of the earlier methods
SMALL: dict[str, Any] = {"fontsize": 8, "frameon": False}
#: Legends stand below the plots: within, they would hide curves.
BELOW = SMALL | {"ncols": 2, "borderaxespad": 0, "columnspacing": 1, "handlelength": 1.5}
#: Places of three plots and of the chips, in a figure with chips: left, bottom, width, height.
PLOTS = ((0.04, 0.5, 0.27, 0.36), (0.36, 0.5, 0.27, 0.36), (0.75, 0.5, 0.23, 0.36))
CHIPS = (0.01, 0.05, 0.98, 0.18)


def draw_run(state: State, earlier: Sequence[State], chips: Mapping[str, Any]) -> Figure:
    """Draw loss, score and memory of a run, beside those of earlier ones, and chips below.

    Its size is always the same, so that no notebook scrolls Stop out of sight, and its parts have
    fixed places: what lays them out in matplotlib takes longer than all else.

    Args:
        state: Of the run, see `Dashboard`.
        earlier: Of runs before it, as many as `GHOSTS` at most.
        chips: What `WatchedChips.shown` returns, or nothing.
    """
    figure = Figure(figsize=(12, 5.7), facecolor="white")
    figure.text(0.01, 0.99, head(state), va="top", fontsize=10)
    loss, score, memory = (figure.add_axes(place) for place in PLOTS)
    column = state["column"]
    names = distinct([*earlier, state])
    for colour, past, name in zip(GHOSTS, earlier, names, strict=False):
        look = {"color": colour, "lw": 1, "alpha": 0.6}
        _curve(loss, past, "train_loss", name, look)
        _curve(score, past, column, f"{number(past, column, best=True)} {name}", look)
    _curve(loss, state, "train_loss", "training", {"color": BLUE})
    _curve(loss, state, "val_loss", "validation", {"color": ORANGE, "ls": "--"})
    _curve(score, state, column, f"{number(state, column)} now", {"color": GREEN})
    for axes, title in ((loss, "loss"), (score, f"validation {state['score']}")):
        axes.set_xlabel("steps", fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.locator_params("x", integer=True)  # steps are whole
        if axes.lines:
            axes.legend(loc="upper left", bbox_to_anchor=(-0.1, -0.23), **BELOW)
    memory.set_title("memory of one step, MiB", fontsize=9)
    memory.set_xlabel(process(state), fontsize=8)
    runs = zip(names[::-1], [state, *earlier[::-1]], strict=True)
    if measured := {name: run["step_memory"] for name, run in runs if run["step_memory"]}:
        bars = pd.DataFrame.from_dict(measured, orient="index")
        stacked_bars(memory, bars, 2**20, [*bars["total"].map(in_bytes)], bars.iloc[0])
        memory.set_ylim(max(4, len(bars)) - 0.4, -0.6)
        memory.margins(x=0.25)
        memory.legend(loc="upper right", bbox_to_anchor=(1.05, -0.23), **BELOW)
    for axes in (loss, score, memory):
        axes.locator_params("x", nbins=5)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    if chips:
        _chips(figure.add_axes(CHIPS), **chips)
    return plain(figure)


def distinct(runs: Sequence[State]) -> list[str]:
    """Return names of runs, as long as a legend has room for; those of one name are counted."""
    names = [shorten(run["name"], 22, placeholder="…") for run in runs]
    return [
        f"{name} ({names[: place + 1].count(name)})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _curve(axes: Axes, state: State, column: str, label: str, look: Mapping[str, Any]) -> None:
    points = [(row["step"], row[column]) for row in state["rows"] if column in row]
    if points:
        marker = "." if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), label=label, marker=marker, **look)


def _chips(axes: Axes, chips: Sequence[Mapping[str, Any]], legend: Sequence[Any]) -> None:
    """Draw chips side by side, in one picture: a plot for each would take longer."""
    high, wide, _ = chips[0]["picture"].shape
    gap = ((0, 0), (0, wide // 8), (0, 0))
    spaced = [np.pad(chip["picture"], gap, constant_values=255) for chip in chips]
    for place, chip in enumerate(chips):
        lines = [shorten(line, 34, placeholder="…") for line in chip["caption"]]
        axes.text(place * (wide + wide // 8), -0.06 * high, "\n".join(lines), fontsize=8)
    axes.imshow(np.concatenate(spaced, axis=1), interpolation="nearest")
    axes.set_anchor("NW")
    axes.axis("off")
    if legend:
        patches = [Patch(facecolor=c, edgecolor="#555555", label=name) for name, c in legend]
        look = SMALL | {"ncols": len(patches), "borderaxespad": 0}
        axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(0, -0.02), **look)
