"""The picture of a training run as a PNG, for viewers that show neither HTML nor SVG."""

from __future__ import annotations

import io

from geopeft_nb.pictures.show import in_bytes
from geopeft_nb.widgets.drawing import BLUE, GREEN, GREY, ORANGE, decimate
from geopeft_nb.widgets.memory_panel import COLOURS, bands, memory_rows
from geopeft_nb.widgets.static import State, facts, score_name
from geopeft_nb.widgets.words import GIB


def static_png(state: State) -> bytes:
    """Return the state as a PNG on white, for viewers that show neither HTML nor SVG."""
    from matplotlib.figure import Figure  # a Figure by itself leaves pyplot's state alone
    from PIL import Image

    figure = Figure(figsize=(9, 2.4), dpi=80, layout="constrained", facecolor="white")
    loss, score, memory = figure.subplots(1, 3)
    figure.suptitle(f"{state['title']}: {state['state']}\n{' · '.join(facts(state))}", fontsize=8)
    train, validation = decimate(state.get("train", [])), state.get("validation", [])
    for run in state.get("earlier", ()):
        faint = {"color": GREY, "alpha": 0.5, "lw": 1}
        for axes, curve in (
            (loss, run["train"]),
            (score, [(v[0], v[2]) for v in run["validation"]]),
        ):
            if curve:
                axes.plot(*zip(*curve, strict=True), **faint)
    for points, style, label in (
        (train, {"color": BLUE}, "training"),
        ([v[:2] for v in validation], {"color": ORANGE, "ls": "--", "marker": "."}, "validation"),
    ):
        if points:
            loss.plot(*zip(*points, strict=True), label=label, **style)
    if validation:
        steps, _, scores = zip(*validation, strict=True)
        score.plot(steps, scores, color=GREEN, marker=".")
    rows = memory_rows(state.get("memory", {}))[::-1]
    split = bands(state.get("memory", {}), state.get("step_memory", {}))
    for index, (label, size, limit) in enumerate(rows):
        memory.barh(index, (limit or size) / GIB, color="0.9")
        if label.endswith("peak") and split:
            start = 0.0
            for name, part in split:
                memory.barh(index, part / GIB, left=start, color=COLOURS[name], label=name)
                start += part / GIB
            memory.legend(
                fontsize=6, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.1)
            )
        else:
            memory.barh(index, size / GIB, color=BLUE)
    memory.set_yticks(range(len(rows)), [f"{label}\n{in_bytes(size)}" for label, size, _ in rows])
    if loss.lines:
        loss.legend(fontsize=7, frameon=False)
    titles = ("loss", f"validation {score_name(state)}", "memory (GiB)")
    for axes, title, unit in zip((loss, score, memory), titles, ("step", "step", ""), strict=True):
        axes.set_title(title, fontsize=8)
        axes.set_xlabel(unit, fontsize=7)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    # few colours: 32 of them make the picture a fifth of the size
    Image.open(full).convert("RGB").quantize(32).save(small, "png", optimize=True)
    return small.getvalue()
