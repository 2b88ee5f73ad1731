"""The picture of a training run: drawn while it goes on, and left behind when it has ended."""

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # by itself it leaves pyplot's state alone
from matplotlib.patches import Patch

from geopeft_nb.pictures.memory_bars import stacked_bar
from geopeft_nb.pictures.show import plain
from geopeft_nb.widgets.words import State, best_of, head, kept, latest, process

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
        _curve(score, past, column, f"{best_of(past)} {name}", look)
    _curve(loss, state, "train_loss", "training", {"color": BLUE})
    _curve(loss, state, "val_loss", "validation", {"color": ORANGE, "ls": "--"})
    _curve(score, state, column, f"{latest(state, column)} now", {"color": GREEN})
    for axes, title in ((loss, "loss"), (score, f"validation {state['score']}")):
        axes.set_xlabel("steps", fontsize=8)
        axes.set_title(title, fontsize=9)
        if axes.lines:
            axes.legend(loc="upper left", bbox_to_anchor=(-0.1, -0.23), **BELOW)
            axes.locator_params("x", integer=True)  # steps are whole
        else:
            axes.set(xticks=[], yticks=[])
    _bars(memory, [state, *earlier[::-1]], names[::-1])
    memory.set_xlabel(process(state), fontsize=8)
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


def _bars(axes: Axes, runs: Sequence[State], names: Sequence[str]) -> None:
    """Draw what a step keeps, one bar for each method, to one scale."""
    named = zip(names, runs, strict=True)
    measured = [(name, run["step_memory"]) for name, run in named if run["step_memory"]]
    for row, (_, parts) in enumerate(measured):
        stacked_bar(axes, row, parts, 2**20, kept(parts), {} if row else parts)
    axes.set_yticks(range(len(measured)), [name for name, _ in measured])
    axes.set_ylim(max(4, len(measured)) - 0.4, -0.6)
    axes.margins(x=0.25)
    axes.set_title("memory of one step, MiB", fontsize=9)
    if measured:
        axes.legend(loc="upper right", bbox_to_anchor=(1.05, -0.23), **BELOW)


def _chips(axes: Axes, chips: Sequence[Mapping[str, Any]], legend: Sequence[Any]) -> None:
    """Draw chips side by side, in one picture: a plot for each would take longer."""
    high, wide, _ = np.max([chip["picture"].shape for chip in chips], axis=0)
    wide += wide // 8
    sheet = np.full((high, wide * len(chips), 3), 255, np.uint8)
    for number, chip in enumerate(chips):
        picture, left = chip["picture"], number * wide
        sheet[: len(picture), left : left + picture.shape[1]] = picture
        lines = [shorten(line, 34, placeholder="…") for line in chip["caption"]]
        axes.text(left, -0.06 * high, "\n".join(lines), fontsize=8)
    axes.imshow(sheet, interpolation="nearest")
    axes.set_anchor("NW")
    axes.axis("off")
    patches = [Patch(facecolor=c, edgecolor="#555555", label=name) for name, c in legend]
    if patches:
        place = {"loc": "upper left", "bbox_to_anchor": (0, -0.02), "ncols": len(patches)}
        axes.legend(handles=patches, borderaxespad=0, **place, **SMALL)
