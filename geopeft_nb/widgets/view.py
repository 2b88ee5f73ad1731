"""What a training run shows: curves, memory and words, from its numbers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from geopeft_nb.pictures.show import PALETTE, in_bytes

POINTS = 100  # drawn per curve, at most
BLUE, SKY, ORANGE, GREEN = "#0072B2", "#56B4E9", "#D55E00", "#009E73"
GHOSTS = ("#9467BD", "#8C564B", "#7F7F7F")  # of the earlier methods

Point = Sequence[float]
State = Mapping[str, Any]
Line = dict[str, Any]


def describe(state: State, earlier: Sequence[State]) -> dict[str, Any]:
    """Describe a run beside earlier ones, for `live.js` and for the figure at the end."""
    running = state["state"] == "running"
    end = _axis_end(state) if running else max(1, state["step"])
    loss: list[Line] = []
    score: list[Line] = []
    for colour, ghost in zip(GHOSTS, earlier, strict=False):
        name, look = ghost["name"], {"colour": colour, "style": "ghost"}
        past = _thinned([point for point in ghost["train"] if point[0] <= end])
        loss.append({"name": name, "points": _smoothed(past), **look})
        best = _best(ghost["validation"])
        scores = [(v[0], v[2]) for v in ghost["validation"] if v[0] <= end]
        score.append({"name": f"{best} {name}", "points": _thinned(scores), **look})
    train = _thinned(state["train"])
    if len(train) > 20:  # the raw curve stays visible behind its running mean
        loss.append({"name": "", "points": train, "colour": SKY, "style": "faint"})
        train = _smoothed(train)
    loss.append({"name": "training", "points": train, "colour": BLUE, "style": ""})
    losses = _thinned([v[:2] for v in state["validation"]])
    loss.append({"name": "validation", "points": losses, "colour": ORANGE, "style": "dashed"})
    scores = [(v[0], v[2]) for v in state["validation"]]
    now = f"{number(scores[-1][1])} now" if scores else ""
    score.append({"name": now, "points": _thinned(scores), "colour": GREEN, "style": ""})
    trace = [(step, (size - state["trace"][0][1]) / 2**20) for step, size in state["trace"]]
    steps = [{"name": g["name"], "parts": g["step_memory"]} for g in (state, *earlier[::-1])]
    return {
        **{key: state[key] for key in ("title", "state", "message", "step")},
        "facts": facts(state),
        "done": min(1.0, state["step"] / max(1, state["total_steps"])),
        "end": end,
        "panels": [
            {"title": "loss", "lines": loss},
            {"title": f"validation {state['score']}", "lines": score},
        ],
        "palette": PALETTE,
        "memory": [
            {**row, "words": in_bytes(sum(row["parts"].get(p, 0) for p in PALETTE))}
            for row in steps
            if row["parts"]
        ],
        "sizes": {p: in_bytes(state["step_memory"].get(p, 0)) for p in PALETTE},
        "process": _process(state["memory"]),
        "trace": {
            "title": "growth since the start, MiB",
            "lines": [{"name": "", "points": _thinned(trace), "colour": GREEN, "style": ""}],
        },
    }


def facts(state: State) -> list[str]:
    """Return progress, speed, time and the best score."""
    said = [f"step {state['step']:,} of {state['total_steps']:,}"]
    said.append(f"epoch {state['epoch']} of {state['total_epochs']}")
    if pace := state.get("steps_per_second"):
        said.append(f"{pace:.3g} steps/s" if pace >= 1 else f"{1 / pace:.3g} s a step")
        said.append(f"{state['images_per_second']:.3g} images/s")
    if state["state"] != "running":
        said.append(f"took {duration(state['seconds'])}")
    elif "seconds_left" in state:
        said.append(f"{duration(state['seconds_left'])} left")
    if rate := state.get("learning_rate"):
        said.append(f"learning rate {rate:.2g}")
    if state["validation"]:
        said.append(f"best validation {state['score']} {_best(state['validation'])}")
    return said


def number(value: float) -> str:
    """Write a loss or score with three digits, and say plainly when it is no number."""
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 or value == 0 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write seconds as m:ss or h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def words(view: Mapping[str, Any], chips: Mapping[str, Any]) -> str:
    """Say in words what a view shows, for screen readers and where pictures are not shown."""
    lines = [f"{view['title']}: {view['state']}. {view['message']}", " · ".join(view["facts"])]
    for panel in view["panels"]:
        ends = [(line["name"], line["points"][-1][1]) for line in panel["lines"] if line["points"]]
        said = [f"{name}: {number(y)}" for name, y in ends if name and y is not None]
        lines.append(f"{panel['title']}: {', '.join(said) or 'none yet'}.")
    for row in view["memory"]:
        parts = [f"{part} {in_bytes(row['parts'].get(part, 0))}" for part in view["palette"]]
        lines.append(f"A step of {row['name']} keeps {row['words']}: {', '.join(parts)}.")
    return "\n".join([*lines, view["process"], *(c["words"] for c in chips.get("chips", ()))])


def _best(validation: Sequence[Point]) -> str:
    scores = [v[2] for v in validation if math.isfinite(v[2])]
    return number(max(scores)) if scores else "none yet"


def _process(memory: Mapping[str, int]) -> str:
    """Say in one line what the device and the process take in all."""
    said = []
    if "total" in memory:
        said.append(f"GPU {in_bytes(memory['allocated'])} of {in_bytes(memory['total'])}")
    if "process" in memory:
        limit = memory.get("limit")
        of = f" of {in_bytes(limit)}" if limit else ""
        said.append(f"process {in_bytes(memory['process'])}{of}")
        if limit and memory["process"] > 0.9 * limit:
            said.append("▲ near the limit")
    return ", ".join(said)


def _axis_end(state: Mapping[str, Any]) -> int:
    """Return the planned end, or so small a part of it that the curves have room to be seen."""
    done, end = max(5, state["step"]), max(1, state["total_steps"])
    while end >= 4 * done:
        end /= 2
    return max(state["step"], round(end))


def _thinned(points: Sequence[Point]) -> list[list[float | None]]:
    """Thin a curve, each point the mean of its finite neighbours; None is a gap."""
    size = max(1, -(-len(points) // POINTS))
    thin: list[list[float | None]] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        finite = [point[1] for point in part if math.isfinite(point[1])]
        thin.append([part[-1][0], sum(finite) / len(finite) if finite else None])
    return thin


def _smoothed(points: list[list[float | None]]) -> list[list[float | None]]:
    """Return running means over a tenth of the curve; looking back alone, they would lag."""
    reach, ys = max(1, len(points) // 20), [y for _, y in points]
    means: list[list[float | None]] = []
    for index, (x, _) in enumerate(points):
        near = [y for y in ys[max(0, index - reach) : index + reach + 1] if y is not None]
        means.append([x, sum(near) / len(near) if near else None])
    return means
