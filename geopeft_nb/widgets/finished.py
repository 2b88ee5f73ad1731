"""The figure that takes the place of the live view when a run has ended."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from geopeft_nb.pictures.show import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

STYLES: dict[str, dict[str, Any]] = {
    "ghost": {"alpha": 0.6, "lw": 1}, "dashed": {"ls": "--"},
}  # fmt: skip
LEGEND: dict[str, Any] = {"fontsize": 8, "frameon": False}


def finished_figure(view: Mapping[str, Any], chips: Mapping[str, Any]) -> Figure:
    """Draw a view as `describe` returns it, and chips as `WatchedChips.shown` does."""
    from matplotlib.figure import Figure  # a Figure by itself leaves pyplot's state alone

    figure = Figure(figsize=(12, 5.2 if chips else 3.6), layout="constrained", facecolor="white")
    title = f"{view['title']}: {view['state']}. {view['message']}\n{' · '.join(view['facts'])}"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    shares = [2, 1] if chips else [1]
    top, *below = figure.subfigures(len(shares), 1, squeeze=False, height_ratios=shares)[:, 0]
    loss, score, memory = top.subplots(1, 3, width_ratios=(1, 1, 0.9))
    for axes, panel in zip((loss, score), view["panels"], strict=True):
        _curves(axes, panel)
    _bars(memory, view)
    for axes in (loss, score, memory):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for strip in below:
        _chips(strip, chips)
    return plain(figure)


def _curves(axes: Axes, panel: Mapping[str, Any]) -> None:
    for line in panel["lines"]:
        points = [(x, float("nan") if y is None else y) for x, y in line["points"]]
        if points:
            look = {"marker": "." if len(points) == 1 else None, **STYLES.get(line["style"], {})}
            label = line["name"] or "_"
            axes.plot(*zip(*points, strict=True), color=line["colour"], label=label, **look)
    axes.set_title(panel["title"], fontsize=9)
    axes.set_xlabel("steps", fontsize=8)
    if axes.lines:
        axes.legend(**LEGEND)


def _bars(axes: Axes, view: Mapping[str, Any]) -> None:
    """Draw what a step keeps, one bar for each method; the process is a line of words."""
    for row, method in enumerate(view["memory"]):
        left = 0.0
        for part, colour in view["palette"].items():
            size = method["parts"].get(part, 0) / 2**20
            label = "_" if row else f"{part} {view['sizes'][part]}"
            axes.barh(row, size, left=left, color=colour, label=label, height=0.6)
            left += size
        at: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(method["words"], (left, row), size=8, **at)
    names = [shorten(row["name"], 22, placeholder="…") for row in view["memory"]]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(3.5, len(names) + 0.5), -0.6)
    axes.margins(x=0.25)
    axes.set_title("memory of one step, MiB", fontsize=9)
    axes.set_xlabel(view["process"], fontsize=8)
    if names:
        axes.legend(loc="lower right", ncols=2, fontsize=7, frameon=False)


def _chips(strip: SubFigure, chips: Mapping[str, Any]) -> None:
    from matplotlib.patches import Patch

    panels = strip.subplots(1, len(chips["chips"]), squeeze=False)[0]
    for axes, chip in zip(panels, chips["chips"], strict=True):
        axes.imshow(chip["picture"], interpolation="nearest")
        lines = [shorten(line, 34, placeholder="…") for line in chip["caption"]]
        axes.set_title("\n".join(lines), fontsize=8)
        axes.axis("off")
    patches = [Patch(facecolor=c, edgecolor="#555555", label=name) for name, c in chips["legend"]]
    if patches:
        strip.legend(handles=patches, loc="lower center", ncols=len(patches), **LEGEND)
