"""Earlier runs, to be drawn as faint curves behind the one that is under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, TypedDict

from geopeft_nb.widgets.drawing import Point, decimate, smooth

Validation = tuple[float, float, float]  # step, loss, score
Group = tuple[str, str]  # what makes runs comparable: the data set's name, and the score

POINTS = 40  # drawn per curve


class Earlier(TypedDict):
    """The curves of an earlier run."""

    title: str
    train: list[Point]  # (step, loss), thinned and smoothed
    validation: list[Validation]


#: The last three runs that were watched in this kernel: curves alone, which keep no model alive.
_watched: dict[Group, deque[Earlier]] = {}


def earlier_run(title: str, train: Sequence[Point], validation: Sequence[Validation]) -> Earlier:
    """Prepare the curves of a run to be drawn behind a later one."""
    loss = decimate(train, POINTS)
    loss = smooth(loss) if len(train) > 20 else loss
    return {"title": title, "train": loss, "validation": list(validation)}


def remember(group: Group | None, run: Earlier) -> None:
    """Keep the curves of a run for the next ones of its group; a run without steps leaves none."""
    if group is not None and run["train"]:
        _watched.setdefault(group, deque(maxlen=3)).append(run)


def recall(group: Group | None) -> list[Earlier]:
    """Return the remembered runs of a group, the oldest first."""
    return list(_watched.get(group, ())) if group is not None else []


def curves(history: Any) -> tuple[list[Point], list[Validation]]:  # noqa: ANN401 - pandas is lazy
    """Return the curves of a history: (step, loss) of training, (step, loss, score) of validation.

    Args:
        history: A table as in `Run.history`, whose last column is the validation score.
    """
    done = history[history["val_loss"].notna()]
    scores = zip(done["step"], done["val_loss"], done[history.columns[-1]], strict=True)
    train = zip(history["step"], history["train_loss"], strict=True)
    return (
        [(int(step), float(loss)) for step, loss in train],
        [(int(step), float(loss), float(score)) for step, loss, score in scores],
    )
