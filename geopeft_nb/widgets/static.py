"""The picture of a training run: a pure function from its state to SVG, text and PNG.

Nothing here needs torch, a kernel or a browser. The live view draws the same picture several times
a second; the last one stays in the notebook, where it needs no widget and no server.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from typing import TypedDict

from geopeft_nb.pictures.show import in_bytes
from geopeft_nb.widgets.drawing import (
    BLUE,
    GREEN,
    GREY,
    HEIGHT,
    ORANGE,
    SKY,
    WIDTH,
    Panel,
    Point,
    decimate,
    shorten,
    smooth,
    text_element,
)
from geopeft_nb.widgets.earlier import POINTS, Earlier, Validation
from geopeft_nb.widgets.lasting import lasting_html, svg_open
from geopeft_nb.widgets.memory_panel import bands, memory_panel, memory_rows
from geopeft_nb.widgets.words import duration, number


class State(TypedDict, total=False):
    """What is known about a run; everything but `title` and `state` may be absent."""

    title: str
    score: str  # what the validation score is called; mIoU if absent
    state: str  # "running", "paused", "stopped" or "finished"
    message: str
    step: int  # training steps done
    total_steps: int
    epoch: int
    total_epochs: int
    seconds: float  # since the start
    seconds_left: float
    steps_per_second: float
    images_per_second: float
    learning_rate: float
    train: list[Point]  # (step, loss)
    validation: list[Validation]  # (step, loss, score, such as mIoU 0-1)
    memory: dict[str, int]  # bytes, as from memory.measure.device_memory
    step_memory: dict[str, int]  # bytes of one step, as from memory.measure.training_bytes
    earlier: list[Earlier]


def score_name(state: State) -> str:
    """Return what the validation score is called."""
    return state.get("score", "mIoU")


def best(state: State | Earlier) -> tuple[float, float] | None:
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
    if pace := state.get("steps_per_second"):
        parts.append(f"{pace:.3g} steps/s" if pace >= 1 else f"{1 / pace:.3g} s a step")
    if speed := state.get("images_per_second"):
        parts.append(f"{speed:.3g} images/s")
    if state["state"] in ("running", "paused"):
        if (left := state.get("seconds_left")) is not None:
            parts.append(f"{duration(left)} left")
    elif "seconds" in state:
        parts.append(f"took {duration(state['seconds'])}")
    if rate := state.get("learning_rate"):
        parts.append(f"learning rate {rate:.2g}")
    if top := best(state):
        parts.append(f"best validation {score_name(state)} {number(top[1])}")
    return parts


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
        parts.append(f"{label} {in_bytes(size)}" + (f" of {in_bytes(limit)}" if limit else ""))
    for name, size in bands(state.get("memory", {}), state.get("step_memory", {})):
        parts.append(f"{name} {in_bytes(size)}")
    parts += [f"earlier run {line}" for line in earlier_lines(state)]
    return ", ".join([*parts, *([state["message"]] if state.get("message") else [])]) + "."


def earlier_lines(state: State) -> list[str]:
    """Name each earlier run as its curves are labelled: number, title and best score."""
    lines = []
    for index, run in enumerate(state.get("earlier", ()), start=1):
        top = best(run)
        score = f", best {score_name(state)} {number(top[1])}" if top else ""
        lines.append(f"{index} {run['title']}{score}")
    return lines


def static_text(state: State) -> str:
    """Return the state as a small table in plain text: one row per validation, at most ten."""
    lines = [f"{state['title']}: {state['state']}. {' · '.join(facts(state))}"]
    if state.get("message"):
        lines.append(state["message"])
    for label, size, limit in memory_rows(state.get("memory", {})):
        lines.append(
            f"{label:<13}{in_bytes(size):>10}" + (f" of {in_bytes(limit)}" if limit else "")
        )
    for name, size in bands(state.get("memory", {}), state.get("step_memory", {})):
        lines.append(f"  {name:<11}{in_bytes(size):>10}")
    if train := state.get("train"):
        lines.append(f"training loss {number(train[-1][1]):>9}")
    if validation := state.get("validation"):
        lines.append(f"{'step':>8} {'val. loss':>10} {f'val. {score_name(state)}':>10}")
        for step, loss, score in validation[-10:]:
            lines.append(f"{step:>8,.0f} {number(loss):>10} {number(score):>10}")
    lines += [f"earlier run {line}" for line in earlier_lines(state)]
    return "\n".join(lines)


def axis_end(state: State) -> float:
    """Return the step at which the axes end.

    A run that has ended fills them. While it goes on they reach to its planned end, or to as small
    a part of that (half, a quarter, …) as leaves the curves a quarter of the width.
    """
    done, end = max(1, state.get("step", 0)), float(max(1, state.get("total_steps", 0)))
    if state["state"] in ("stopped", "finished"):
        return float(done)
    while end >= 8 * max(done, 5):
        end /= 2
    return float(max(done, round(end)))


def _earlier(
    state: State, steps: float, choose: Callable[[Earlier], Sequence[Point]]
) -> list[list[Point]]:
    """Return one thinned curve per earlier run, as far as this run will go."""
    curves = ([p for p in choose(run) if p[0] <= steps] for run in state.get("earlier", ()))
    return [decimate(curve, POINTS) for curve in curves]


def _draw_earlier(panel: Panel, curves: list[list[Point]]) -> None:
    for index, curve in enumerate(curves, start=1):
        panel.curve(curve, GREY, str(index), 'class="gp-earlier" opacity=".55"')


def _loss_panel(state: State, steps: float) -> str:
    train = decimate(state.get("train", []))
    validation = decimate([(v[0], v[1]) for v in state.get("validation", [])])
    earlier = _earlier(state, steps, lambda run: run["train"])
    shown = (*train, *validation, *(point for curve in earlier for point in curve))
    panel = Panel("loss", 44, 274, steps, [p[1] for p in shown])
    _draw_earlier(panel, earlier)
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
    earlier = _earlier(state, steps, lambda run: [(v[0], v[2]) for v in run["validation"]])
    span += [point[1] for curve in earlier for point in curve]
    panel = Panel(f"validation {score_name(state)}", 400, 590, steps, span)
    _draw_earlier(panel, earlier)
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


def static_svg(state: State, colour: str = "currentColor") -> str:
    """Return the state as one SVG element that takes on the page's text colour and width."""
    done, total = state.get("step", 0), state.get("total_steps", 0)
    steps = axis_end(state)
    sign = {"running": "●", "paused": "‖", "stopped": "■", "finished": "✓"}.get(state["state"], "")
    status = shorten(f"{sign} {state.get('message') or state['state']}", 400, 12)
    title = shorten(state["title"], 470, 14)
    bar = 'x="10" y="47" height="3" rx="1.5"'
    caption = shorten("earlier runs: " + " · ".join(earlier_lines(state)), 880, 11)
    height = HEIGHT + (16 if state.get("earlier") else 0)
    return "".join(
        [
            svg_open(sentence(state), height, colour),
            text_element(10, 18, title, 14, 'font-weight="600"'),
            text_element(WIDTH - 16, 18, status, 12, 'text-anchor="end"'),
            text_element(10, 38, shorten(" · ".join(facts(state)), 880, 12), 12),
            f'<rect {bar} width="874" opacity=".15"/>',
            f'<rect {bar} width="{874 * min(1.0, done / max(1, done, total)):.1f}" fill="{BLUE}"/>',
            _loss_panel(state, steps),
            _score_panel(state, steps),
            memory_panel(state.get("memory", {}), state.get("step_memory", {})),
            text_element(10, HEIGHT + 8, caption, 11, 'opacity=".8"') if height > HEIGHT else "",
            "</svg>",
        ]
    )


def static_html(state: State, last: bool = False) -> str:
    """Return the state as HTML with one root element of class `gp-dashboard`.

    Args:
        state: What to show.
        last: Make it such that it can stay in a saved notebook; see `lasting_html`.
    """
    root = f'class="gp-dashboard" data-step="{state.get("step", 0)}" data-state="{state["state"]}"'
    root += ' style="overflow-x:auto"'  # in a narrow window it scrolls rather than become tiny
    if not last:
        return f"<div {root}>{static_svg(state)}</div>"
    return lasting_html(
        root,
        "gp-dashboard",
        lambda colour: static_svg(state, colour),
        sentence(state),
        static_text(state),
    )


def static_bundle(state: State) -> dict[str, str]:
    """Return the picture in every form a notebook can keep: HTML, plain text and PNG (base64)."""
    from geopeft_nb.widgets.static_png import static_png  # which is made of the parts above

    return {
        "text/html": static_html(state, last=True),
        "text/plain": static_text(state),
        "image/png": base64.b64encode(static_png(state)).decode(),
    }
