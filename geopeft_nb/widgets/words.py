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
    rows = state["rows"]
    last = rows[-1] if rows else {"step": 0, "epoch": 0}
    said = [f"step {last['step']:,} of {state['total_steps']:,}"]
    said.append(f"epoch {last['epoch']} of {state['total_epochs']}")
    if not rows:
        return said
    recent = rows[-50:]
    if (elapsed := last["seconds"] - recent[0]["seconds"]) > 0:
        pace = (len(recent) - 1) / elapsed
        said += [f"{pace:.3g} steps/s", f"{pace * state['images']:.3g} images/s"]
    running = state["state"] == "running"
    said.append(f"{left(state)} left" if running else f"took {duration(last['seconds'])}")
    best = f"best validation {state['score']} {number(state, state['column'], best=True)}"
    return [*said, f"learning rate {last['lr']:.2g}", best]


def left(state: State) -> str:
    """Write the time that the planned steps still take, at the pace of those that are done."""
    last = state["rows"][-1]
    return duration(last["seconds"] / last["step"] * max(0, state["total_steps"] - last["step"]))


def duration(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def number(state: State, column: str, best: bool = False) -> str:
    """Write the last loss or score, or the highest, with three digits."""
    found = [row[column] for row in state["rows"] if math.isfinite(row.get(column, math.nan))]
    if not found:
        return "none yet"
    value = max(found) if best else found[-1]
    return f"{value:.3f}" if 0.001 <= abs(value) < 10 or value == 0 else f"{value:.3g}"


def latest(state: State) -> list[str]:
    """Write the last losses and the last score."""
    columns = {"training loss": "train_loss", "validation loss": "val_loss"}
    columns[state["score"]] = state["column"]
    return [f"{name} {number(state, column)}" for name, column in columns.items()]


def process(state: State) -> str:
    """Say in one line what the device or the process holds in all."""
    device, rows = state["device"], state["rows"]
    if not (device and rows):
        return ""
    name, limit = ("GPU", device["total"]) if "total" in device else ("process", device["limit"])
    now = rows[-1]["memory_bytes"]
    near = ", ▲ near the limit" if now > 0.9 * limit else ""
    return f"{name} {in_bytes(now)} of {in_bytes(limit)}{near}"


def words(state: State, chips: Sequence[Mapping[str, Any]] = ()) -> str:
    """Say in words what the picture of a run shows, for those who cannot see it."""
    lines = [head(state), f"Last {', '.join(latest(state))}."]
    if parts := state["step_memory"]:
        each = ", ".join(f"{part} {in_bytes(parts[part])}" for part in PALETTE)
        lines.append(f"A step keeps {in_bytes(parts['total'])}: {each}.")
    return "\n".join([*lines, process(state), *(f"{', '.join(c['caption'])}." for c in chips)])
