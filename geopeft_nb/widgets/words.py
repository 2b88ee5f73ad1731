"""What is said of a training run, from its numbers alone."""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from geopeft_nb.pictures.show import PALETTE, in_bytes

#: Of a step, as `Run.history` has them.
Row = Mapping[str, float]
#: Of a run, as `Dashboard` keeps it.
State = Mapping[str, Any]


def head(state: State) -> str:
    """Write what is trained, how far it is and what became of it, in two lines."""
    return f"{state['title']}: {state['state']}. {state['message']}\n{' · '.join(facts(state))}"


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
    best = f"best validation {state['score']} {best_of(state)}"
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


def best_of(state: State) -> str:
    """Write the highest score."""
    scores = [row.get(state["column"], math.nan) for row in state["rows"]]
    return number(max(found)) if (found := [*filter(math.isfinite, scores)]) else "none yet"


def latest(state: State, column: str) -> str:
    """Write the last loss or score."""
    found = [row[column] for row in state["rows"] if math.isfinite(row.get(column, math.nan))]
    return number(found[-1]) if found else "none yet"


def kept(parts: Mapping[str, int]) -> str:
    """Write what a step keeps in all."""
    return in_bytes(sum(parts.get(part, 0) for part in PALETTE))


def process(state: State) -> str:
    """Say in one line what the device or the process holds in all."""
    device, rows = state["device"], state["rows"]
    if not (device and rows):
        return ""
    name, limit = ("GPU", device["total"]) if "total" in device else ("process", device["limit"])
    now = rows[-1]["memory_bytes"]
    said = f"{name} {in_bytes(now)} of {in_bytes(limit)}"
    return f"{said}, ▲ near the limit" if now > 0.9 * limit else said


def words(state: State, chips: Sequence[Mapping[str, Any]] = ()) -> str:
    """Say in words what the picture of a run shows, for those who cannot see it."""
    losses = latest(state, "train_loss"), latest(state, "val_loss")
    lines = [head(state), "Training loss {}, validation loss {}.".format(*losses)]
    lines.append(f"Validation {state['score']} {latest(state, state['column'])}.")
    if parts := state["step_memory"]:
        each = ", ".join(f"{part} {in_bytes(parts.get(part, 0))}" for part in PALETTE)
        lines.append(f"A step keeps {kept(parts)}: {each}.")
    return "\n".join([*lines, process(state), *(f"{', '.join(c['caption'])}." for c in chips)])
