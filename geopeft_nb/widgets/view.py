"""What a training run shows: curves, memory and words, from its numbers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from geopeft_nb.pictures.show import PALETTE, in_bytes

POINTS = 100  # drawn per curve, at most
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GHOSTS = ("#9467BD", "#8C564B", "#7F7F7F")  # of the earlier methods

#: Of a step, as `Run.history` has them.
Row = Mapping[str, float]
State = Mapping[str, Any]


def describe(state: State, earlier: Sequence[State]) -> dict[str, Any]:
    """Describe a run beside earlier ones, for `live.js` and for the figure at the end."""
    rows, column = state["rows"], state["column"]
    step = int(rows[-1]["step"]) if rows else 0
    end = _axis_end(step, state["total_steps"]) if state["state"] == "running" else max(1, step)
    loss, score = [], []
    for colour, ghost in zip(GHOSTS, earlier, strict=False):
        past = [row for row in ghost["rows"] if row["step"] <= end]
        best = f"{best_of(ghost['rows'], column)} {ghost['name']}"
        loss.append(_line(ghost["name"], past, "train_loss", colour, "ghost"))
        score.append(_line(best, past, column, colour, "ghost"))
    loss.append(_line("training", rows, "train_loss", BLUE))
    loss.append(_line("validation", rows, "val_loss", ORANGE, "dashed"))
    scores = [row[column] for row in rows if column in row]
    now = f"{number(scores[-1])} now" if scores else ""
    score.append(_line(now, rows, column, GREEN))
    grown = [
        {"step": row["step"], "MiB": (row["memory_bytes"] - rows[0]["memory_bytes"]) / 2**20}
        for row in rows
    ]
    steps = [{"name": g["name"], "parts": g["step_memory"]} for g in (state, *earlier[::-1])]
    return {
        **{key: state[key] for key in ("title", "state", "message")},
        "step": step,
        "facts": facts(state),
        "done": min(1.0, step / max(1, state["total_steps"])),
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
        "process": _process(state),
        "trace": {
            "title": "growth since the start, MiB",
            "lines": [_line("", grown, "MiB", GREEN)],
        },
    }


def facts(state: State) -> list[str]:
    """Return progress, speed, time and the best score."""
    rows, total = state["rows"], state["total_steps"]
    if not rows:
        return [f"step 0 of {total:,}", f"epoch 0 of {state['total_epochs']}"]
    last, recent = rows[-1], rows[-50:]
    epoch = f"epoch {last['epoch']} of {state['total_epochs']}"
    said = [f"step {last['step']:,} of {total:,}", epoch]
    if (elapsed := last["seconds"] - recent[0]["seconds"]) > 0:
        pace = (len(recent) - 1) / elapsed
        said.append(f"{pace:.3g} steps/s" if pace >= 1 else f"{1 / pace:.3g} s a step")
        said.append(f"{pace * state['images']:.3g} images/s")
    running = state["state"] == "running"
    said.append(f"{left(state)} left" if running else f"took {duration(last['seconds'])}")
    best = f"best validation {state['score']} {best_of(rows, state['column'])}"
    return [*said, f"learning rate {last['lr']:.2g}", best]


def left(state: State) -> str:
    """Write the time that the planned steps still take, at the pace of those that are done."""
    last = state["rows"][-1]
    to_go = max(0, state["total_steps"] - last["step"])
    return duration(last["seconds"] / last["step"] * to_go)


def number(value: float) -> str:
    """Write a loss or score with three digits, and say plainly when it is no number."""
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 or value == 0 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


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


def best_of(rows: Sequence[Row], column: str) -> str:
    """Write the highest score."""
    scores = [row[column] for row in rows if math.isfinite(row.get(column, math.nan))]
    return number(max(scores)) if scores else "none yet"


def _process(state: State) -> str:
    """Say in one line what the device or the process holds in all."""
    device, rows = state["device"], state["rows"]
    if not (device and rows):
        return ""
    name, limit = ("GPU", device["total"]) if "total" in device else ("process", device["limit"])
    now = rows[-1]["memory_bytes"]
    said = f"{name} {in_bytes(now)} of {in_bytes(limit)}"
    return f"{said}, ▲ near the limit" if now > 0.9 * limit else said


def _axis_end(step: int, total: int) -> int:
    """Return the planned end, or so small a part of it that the curves have room to be seen."""
    end: float = max(1, total)
    while end >= 4 * max(5, step):
        end /= 2
    return max(step, round(end))


def _line(name: str, rows: Sequence[Row], key: str, colour: str, style: str = "") -> dict[str, Any]:
    """Make a curve, each point the mean of its finite neighbours; None is a gap."""
    points = [(row["step"], row[key]) for row in rows if key in row]
    size = max(1, -(-len(points) // POINTS))
    thin: list[list[float | None]] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        finite = [y for _, y in part if math.isfinite(y)]
        thin.append([part[-1][0], sum(finite) / len(finite) if finite else None])
    return {"name": name, "points": thin, "colour": colour, "style": style}
