"""Checks for exercises: say what is off, never what the answer is.

A check is a small function in `checks_NN.py` of the lesson NN. It looks at properties of an answer
(a shape, what is frozen, a number within a tolerance) and returns what is off, or "" when all is
well. No server, no grading: `gp.check("01/adapter_share", answer, model=model)` runs it.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any

from geopeft_nb.errors import GeopeftError, unknown_name

#: A check's finding: what is off in one or two sentences, or "" when the answer is right.
Finding = str


@dataclass(frozen=True)
class Exercise:
    """One named check.

    Attributes:
        name: Lesson and exercise, for example ``"01/adapter_share"``.
        wants: What the answer should be, in words, for example ``"a share between 0 and 1"``.
        types: Types that an answer may have.
        find: Takes the answer and what the lesson passes beside it; returns what is off.
    """

    name: str
    wants: str
    types: tuple[type, ...]
    find: Callable[..., Finding]


@dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
        name: The exercise.
        state: ``"passed"``, ``"not yet"`` or ``"not answered"``.
        message: One or two sentences for the learner.
    """

    name: str
    state: str
    message: str

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.state == "passed"

    def __repr__(self) -> str:
        sign = {"passed": "✓", "not yet": "✗"}.get(self.state, "…")
        return f"{sign} {self.name}: {self.message}"

    def _repr_html_(self) -> str:
        """Show the finding in a notebook; colour only repeats what the sign and the words say."""
        colour = {"passed": "#009E73", "not yet": "#D55E00"}.get(self.state, "#9A9A9A")
        style = f"border-left:4px solid {colour};padding:.4em .8em"
        root = f'class="gp-check" data-state="{self.state}" style="{style}"'
        return f"<div {root}>{escape(repr(self))}</div>"


_EXERCISES: dict[str, Exercise] = {}


def exercise(
    name: str, wants: str, types: type | tuple[type, ...] = object
) -> Callable[[Callable[..., Finding]], Callable[..., Finding]]:
    """Register a function as the check of an exercise.

    Args:
        name: Lesson and exercise, for example ``"01/adapter_share"``.
        wants: What the answer should be, in words.
        types: Types that an answer may have; another type is reported before the check runs.

    Returns:
        A decorator that leaves the function as it is.
    """
    allowed = types if isinstance(types, tuple) else (types,)

    def register(find: Callable[..., Finding]) -> Callable[..., Finding]:
        _EXERCISES[name] = Exercise(name, wants, allowed, find)
        return find

    return register


def exercises() -> dict[str, Exercise]:
    """Return all exercises by name, from the files `checks_NN.py` beside this one."""
    package = import_module("geopeft_nb.classroom")
    for module in pkgutil.iter_modules(package.__path__, "geopeft_nb.classroom."):
        if module.name.rpartition(".")[2].startswith("checks_"):
            import_module(module.name)
    return dict(sorted(_EXERCISES.items()))


def check(name: str, answer: Any, **given: Any) -> Result:  # noqa: ANN401 - answers are anything
    """Check the answer to an exercise.

    Args:
        name: Lesson and exercise, for example ``"01/adapter_share"``.
        answer: What you found; None or ``...`` counts as not answered yet.
        **given: What the exercise needs beside the answer, for example the model; the lesson's
            cell passes it.

    Returns:
        The finding, which the notebook shows; `passed` is True when the answer is right.

    Raises:
        ValueError: Unknown exercise, or something that it needs is missing from `given`.
    """
    known = exercises()
    if name not in known:
        raise unknown_name("exercise", name, known)
    task = known[name]
    needed = list(inspect.signature(task.find).parameters)[1:]
    if set(needed) != set(given):
        raise GeopeftError(
            f"Exercise {name!r} takes {_arguments(['answer', *needed])}, and got "
            f"{_arguments(['answer', *given])}."
        )
    if not _answered(answer):
        return Result(name, "not answered", f"not answered yet. It wants {task.wants}.")
    if not isinstance(answer, task.types):
        kind = type(answer).__name__
        return Result(name, "not yet", f"It wants {task.wants}, and this is of type {kind}.")
    if off := task.find(answer, **given):
        return Result(name, "not yet", off)
    return Result(name, "passed", "that's right.")


def _arguments(names: list[str]) -> str:
    return f"({', '.join([names[0], *(f'{name}=…' for name in names[1:])])})"


def _answered(answer: Any) -> bool:  # noqa: ANN401
    """Say whether anything was filled in, also in a tuple, list or dict of parts."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, tuple | list):
        return bool(answer) and all(_answered(part) for part in answer)
    return answer is not None and answer is not ...
