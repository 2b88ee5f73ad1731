"""The picture of a training run: a pure function from its state to SVG, text and PNG.

Nothing here needs torch, a kernel or a browser. The live view draws the same picture several times
a second; the last one stays in the notebook, where it needs no widget and no server.
"""

from __future__ import annotations

import base64
import io
import math
from html import escape
from typing import TypedDict

from geopeft_nb.widgets.drawing import (
    BLUE,
    BOTTOM,
    GREEN,
    GREY,
    HEIGHT,
    ORANGE,
    SKY,
    TOP,
    WIDTH,
    Panel,
    Point,
    decimate,
    shorten,
    smooth,
    text_element,
)

GIB = 2**30  # bytes


class State(TypedDict, total=False):
    """What is known about a run; everything but `title` and `state` may be absent."""

    title: str
    score: str  # what the validation score is called; mIoU if absent
    state: str  # "running", "stopped" or "finished"
    message: str
    step: int  # training steps done
    total_steps: int
    epoch: int
    total_epochs: int
    seconds: float  # since the start
    seconds_left: float
    images_per_second: float
    learning_rate: float
    train: list[Point]  # (step, loss)
    validation: list[tuple[float, float, float]]  # (step, loss, score, such as mIoU 0-1)
    memory: dict[str, int]  # bytes, as from training.memory.device_memory


def number(value: float | None) -> str:
    """Write a loss or score with three digits, and say plainly when it is no number."""
    if value is None:
        return "none yet"
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 or value == 0 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def gib(size: float) -> str:
    """Write bytes as GiB with about three digits."""
    value = size / GIB
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} GiB"


def score_name(state: State) -> str:
    """Return what the validation score is called."""
    return state.get("score", "mIoU")


def best(state: State) -> tuple[float, float] | None:
    """Return (step, score) of the best validation so far, or None before the first."""
    scores = [(v[0], v[2]) for v in state.get("validation", ()) if math.isfinite(v[2])]
    return max(scores, key=lambda score: score[1]) if scores else None


def facts(state: State) -> list[str]:
    """Return the header line in parts: progress, speed, time and the best score."""
    done, total = state.get("step", 0), state.get("total_steps", 0)
    parts = [f"step {done:,} of {total:,}" if total else f"step {done:,}"]
    if "epoch" in state:
        epochs = state.get("total_epochs")
        parts.append(f"epoch {state['epoch']} of {epochs}" if epochs else f"epoch {state['epoch']}")
    if speed := state.get("images_per_second"):
        parts.append(f"{speed:.3g} images/s")
    if state["state"] == "running":
        if (left := state.get("seconds_left")) is not None:
            parts.append(f"{duration(left)} left")
    elif "seconds" in state:
        parts.append(f"took {duration(state['seconds'])}")
    if rate := state.get("learning_rate"):
        parts.append(f"learning rate {rate:.2g}")
    if top := best(state):
        parts.append(f"best validation {score_name(state)} {number(top[1])}")
    return parts


def memory_rows(memory: dict[str, int]) -> list[tuple[str, int, int]]:
    """Return the bars of the memory panel: (label, bytes, limit in bytes)."""
    rows = []
    if "total" in memory:
        rows = [(f"GPU {key}", memory[key], memory["total"]) for key in ("allocated", "peak")]
        rows[0] = ("GPU now", *rows[0][1:])
    if "process" in memory:
        limit = memory.get("limit", 0)
        rows.append(("process now" if not rows else "process", memory["process"], limit))
        if len(rows) == 1 and "peak" in memory:
            rows.append(("process peak", memory["peak"], limit))
    return rows


def sentence(state: State) -> str:
    """Say the current numbers in one line, for screen readers and for the alternative text."""
    train = [loss for _, loss in state.get("train", ())]
    validation = state.get("validation", ())
    parts = [f"Training {state['title']}: {state['state']}", *facts(state)]
    parts.append(f"training loss {number(train[-1] if train else None)}")
    parts.append(f"validation loss {number(validation[-1][1] if validation else None)}")
    score = number(validation[-1][2] if validation else None)
    parts.append(f"validation {score_name(state)} {score}")
    for label, size, limit in memory_rows(state.get("memory", {})):
        parts.append(f"{label} {gib(size)}" + (f" of {gib(limit)}" if limit else ""))
    return ", ".join([*parts, *([state["message"]] if state.get("message") else [])]) + "."


def static_text(state: State) -> str:
    """Return the state as a small table in plain text: one row per validation, at most ten."""
    lines = [f"{state['title']}: {state['state']}. {' · '.join(facts(state))}"]
    if state.get("message"):
        lines.append(state["message"])
    for label, size, limit in memory_rows(state.get("memory", {})):
        lines.append(f"{label:<13}{gib(size):>10}" + (f" of {gib(limit)}" if limit else ""))
    if train := state.get("train"):
        lines.append(f"training loss {number(train[-1][1]):>9}")
    if validation := state.get("validation"):
        lines.append(f"{'step':>8} {'val. loss':>10} {f'val. {score_name(state)}':>10}")
        for step, loss, score in validation[-10:]:
            lines.append(f"{step:>8,.0f} {number(loss):>10} {number(score):>10}")
    return "\n".join(lines)


def _loss_panel(state: State, steps: float) -> str:
    train = decimate(state.get("train", []))
    validation = decimate([(v[0], v[1]) for v in state.get("validation", [])])
    panel = Panel("loss", 44, 274, steps, [p[1] for p in (*train, *validation)])
    if len(train) > 20:  # the raw curve stays visible behind its running mean
        panel.curve(train, SKY, style='opacity=".6"')
        train = smooth(train)
    panel.curve(train, BLUE, "training")
    panel.curve(validation, ORANGE, "validation", 'stroke-dasharray="5 3"')
    if not state.get("train"):
        panel.note("waiting for the first step")
    elif bad := next((p for p in state["train"] if not math.isfinite(p[1])), None):
        panel.note(f"loss is {bad[1]} at step {bad[0]:,.0f}")
    return panel.svg()


def _score_panel(state: State, steps: float) -> str:
    scores = [(v[0], v[2]) for v in state.get("validation", [])]
    top = best(state)
    span = [score[1] for score in scores]
    if top:  # a span of 0.1 at least: noise in the third digit should not look like learning
        span += [max(0.0, top[1] - 0.1), min(1.0, top[1] + 0.02)]
    panel = Panel(f"validation {score_name(state)}", 400, 590, steps, span)
    last = number(scores[-1][1]) if scores else ""
    if top and top[0] != scores[-1][0]:
        x, y = panel.x(top[0]), panel.y(top[1])
        panel.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{GREEN}"/>')
        if panel.x(scores[-1][0]) - x > 60:
            panel.parts.append(
                text_element(x, y - 7, f"best {number(top[1])}", 11, 'text-anchor="middle"')
            )
        else:  # no room for a label of its own
            last += f", best {number(top[1])}"
    panel.curve(decimate(scores), GREEN, last)
    if top is None:
        panel.note("no validation yet" if not scores else "no finite score yet")
    return panel.svg()


def _memory_panel(state: State) -> str:
    left, right = 686.0, 884.0
    rows = memory_rows(state.get("memory", {}))
    parts = [text_element(left, TOP - 14, "memory", 12, 'font-weight="600"')]
    if not rows:
        parts.append(text_element(left, TOP + 16, "not measured yet", 11, 'font-style="italic"'))
    for index, (label, size, limit) in enumerate(rows):
        y = TOP + 6 + 38 * index
        share = min(1.0, size / limit) if limit else 0.0
        of = f"{gib(size)} of {gib(limit)}" if limit else gib(size)
        parts.append(text_element(left, y, label))
        parts.append(text_element(right, y, of, 11, 'text-anchor="end"'))
        bar = f'x="{left}" y="{y + 6:.1f}" height="9" rx="2"'
        parts.append(f'<rect {bar} width="{right - left}" fill="currentColor" opacity=".13"/>')
        colour = ORANGE if share > 0.9 else BLUE
        parts.append(f'<rect {bar} width="{max(2, share * (right - left)):.1f}" fill="{colour}"/>')
    if any(limit and size > 0.9 * limit for _, size, limit in rows):
        parts.append(text_element(left, BOTTOM + 15, "▲ near the limit", 11, f'fill="{ORANGE}"'))
    return "".join(parts)


def static_svg(state: State, colour: str = "currentColor") -> str:
    """Return the state as one SVG element that takes on the page's text colour and width."""
    done, total = state.get("step", 0), state.get("total_steps", 0)
    steps = float(max(1, done, total))
    sign = {"running": "●", "stopped": "■", "finished": "✓"}.get(state["state"], "")
    status = shorten(f"{sign} {state.get('message') or state['state']}", 400, 12)
    title = shorten(state["title"], 470, 14)
    bar = 'x="10" y="47" height="3" rx="1.5"'
    return "".join(
        [
            f'<svg role="img" aria-label="{escape(sentence(state))}" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' xmlns="http://www.w3.org/2000/svg" width="100%" fill="currentColor"'
            ' font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif"'
            f' style="color:{colour};min-width:600px;max-width:1080px;display:block">',
            text_element(10, 18, title, 14, 'font-weight="600"'),
            text_element(WIDTH - 16, 18, status, 12, 'text-anchor="end"'),
            text_element(10, 38, shorten(" · ".join(facts(state)), 880, 12), 12),
            f'<rect {bar} width="874" opacity=".15"/>',
            f'<rect {bar} width="{874 * min(1.0, done / steps):.1f}" fill="{BLUE}"/>',
            _loss_panel(state, steps),
            _score_panel(state, steps),
            _memory_panel(state),
            "</svg>",
        ]
    )


def static_html(state: State, last: bool = False) -> str:
    """Return the state as HTML with one root element of class `gp-dashboard`.

    Viewers that do not trust a notebook remove inline SVG but leave its words behind. With `last`,
    the words are then invisible (size 0) and the same picture appears as an image; where the SVG
    survives, a style rule that such viewers also remove hides the image.
    """
    root = f'class="gp-dashboard" data-step="{state.get("step", 0)}" data-state="{state["state"]}"'
    root += ' style="overflow-x:auto"'  # in a narrow window it scrolls rather than become tiny
    if not last:
        return f"<div {root}>{static_svg(state)}</div>"
    picture = base64.b64encode(static_svg(state, GREY).encode()).decode()
    return (
        "<style>.gp-dashboard[data-state] .gp-fallback{display:none}</style>"
        f'<div {root}><div style="font-size:0">{static_svg(state)}</div>'
        f'<img class="gp-fallback" alt="{escape(sentence(state))}" width="{WIDTH}"'
        f' src="data:image/svg+xml;base64,{picture}"/></div>'
    )


def static_png(state: State) -> bytes:
    """Return the state as a PNG on white, for viewers that show neither HTML nor SVG."""
    from matplotlib.figure import Figure  # a Figure by itself leaves pyplot's state alone
    from PIL import Image

    figure = Figure(figsize=(9, 2.4), dpi=100, layout="constrained", facecolor="white")
    loss, score, memory = figure.subplots(1, 3)
    figure.suptitle(f"{state['title']}: {state['state']}\n{' · '.join(facts(state))}", fontsize=8)
    train, validation = decimate(state.get("train", [])), state.get("validation", [])
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
    for index, (_, size, limit) in enumerate(rows):
        memory.barh(index, (limit or size) / GIB, color="0.9")
        memory.barh(index, size / GIB, color=BLUE)
    memory.set_yticks(range(len(rows)), [f"{label}\n{gib(size)}" for label, size, _ in rows])
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
    # few colours: 64 of them make the picture a third of the size
    Image.open(full).convert("RGB").quantize(64).save(small, "png", optimize=True)
    return small.getvalue()


def static_bundle(state: State) -> dict[str, str]:
    """Return the picture in every form a notebook can keep: HTML, plain text and PNG (base64)."""
    return {
        "text/html": static_html(state, last=True),
        "text/plain": static_text(state),
        "image/png": base64.b64encode(static_png(state)).decode(),
    }
