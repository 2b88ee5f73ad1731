"""Checks for exercises: say what is off, never what the answer is.

A check is a small function in `checks.py` of a lesson's folder. It looks at properties of an answer
(a shape, what is frozen, a number within a tolerance) and returns what is off, or "" when all is
well. No server, no grading: `gp.check("01/adapter_share", answer, model=model)` runs it; `results`
tells what a teacher may collect.
"""

import json
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from inspect import getsource, signature
from itertools import pairwise
from numbers import Real
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np

from geopeft_nb.classroom.results import note
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.files import data_folder
from geopeft_nb.pictures.show import escaped, visible

#: A check's finding: what is off in one or two sentences, or "" when the answer is right.
Finding = str
#: State of an answer -> sign and colour; the colour only repeats what sign and words say.
_LOOKS = {"passed": ("✓", "#009E73"), "not yet": ("✗", "#D55E00"), "not answered": ("…", "#9A9A9A")}


class Slip(Exception):
    """What is off, from a helper of a check."""


def ask(words: str, function: Callable[..., Any], *given: object) -> Any:
    """Call a learner's function; whatever it raises is the finding, behind the given words.

    So is that it changes arrays, tensors, lists or dictionaries that it is given.
    """
    before = _content(given)
    try:
        found = function(*given)
    except Exception as error:
        raise Slip(
            f"{words} it raised {type(error).__name__}: {str(error).rstrip('.')}."
        ) from error
    if _content(given) != before:
        raise Slip(f"{words} it changes what it is given. Leave that as it is: make something new.")
    return found


def _content(given: Sequence[Any]) -> bytes:
    """Return what arrays, tensors, lists and dictionaries hold, as far as it can be written."""
    with suppress(Exception):  # of what is in them
        return pickle.dumps([x for x in given if isinstance(x, dict | list) or hasattr(x, "ndim")])
    return b""


def ask_number(words: str, function: Callable[..., Any], *given: object) -> float:
    """Call a learner's function that should return a number."""
    found = _plain(ask(words, function, *given))
    if isinstance(found, bool) or not isinstance(found, Real):
        raise Slip(f"{words} it returned {found!r:.80}, which is no number.")
    return float(found)


def _plain(answer: Any) -> Any:
    """Make a number of an array or tensor without dimensions; leave anything else as it is."""
    return answer.item() if getattr(answer, "ndim", None) == 0 else answer


def slip_of(found: Any, slips: dict[str, Any], otherwise: str, near: float = 1e-6) -> Finding:
    """Return the words of the first value that was found, "" if right; or else `otherwise`.

    Args:
        found: A number, several, or an array.
        slips: Words -> value, the right one first.
        otherwise: Words if it is none of them.
        near: How far it may lie from a value, as a share of the value's largest number.

    Example:
        >>> slip_of(25.0, {"": 0.25, "It wants a share.": 25}, "Divide.")
        'It wants a share.'
    """
    for words, value in slips.items():
        if np.shape(found) == np.shape(value) and np.allclose(
            found, value, rtol=0, atol=near * np.abs(np.asarray(value)).max()
        ):
            return words
    return otherwise


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
        return visible(f"{_LOOKS[self.state][0]} {self.name}: {self.message}")

    def _repr_html_(self) -> str:
        """Show the finding in a notebook."""
        style = f"border-left:4px solid {_LOOKS[self.state][1]};padding:.4em .8em"
        start = f'<div class="gp-check" data-state="{self.state}" style="{style}">'
        return f"{start}{escaped(self)}</div>"


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
    types: type | tuple[type, ...]
    find: Callable[..., Finding]

    def check(self, answer: Any, **given: Any) -> Result:
        """Check an answer; `check` of this module says how."""
        if not _answered(answer):
            return Result(self.name, "not answered", f"not answered yet. It wants {self.wants}.")
        answer = _plain(answer)
        try:
            off = f"It wants {self.wants}; this is of type {type(answer).__name__}."
            if isinstance(answer, self.types):
                off = self.find(answer, **given)
        except Slip as slip:
            off = str(slip)
        except Exception as error:  # parts of an answer may be of any kind
            off = f"Not to be read ({type(error).__name__}: {error!s:.99}). It wants {self.wants}."
        return Result(self.name, *(("not yet", off) if off else ("passed", "that's right.")))


def exercise(
    name: str, wants: str, types: type | tuple[type, ...] = object
) -> Callable[[Callable[..., Finding]], Exercise]:
    """Make a function the check of an exercise.

    Args:
        name: Lesson and exercise, for example ``"01/adapter_share"``.
        wants: What the answer should be, in words.
        types: Types that an answer may have; another type is reported before the check runs.
    """
    return partial(Exercise, name, wants, types)


def lesson_folders() -> dict[str, Path]:
    """Return number -> folder of each lesson: in a checkout, or inside the installed package."""
    lessons = sorted(data_folder("notebooks").glob("source/[0-9][0-9]_*"))
    return {path.name[:2]: path for path in lessons}


@cache
def load_checks(folder: Path) -> dict[str, Exercise]:
    """Run `checks.py` of a lesson's folder, and return its exercises by name."""
    made = run_path(str(folder / "checks.py"), run_name=f"checks_of_{folder.name}")
    return {task.name: task for task in made.values() if isinstance(task, Exercise)}


def check(name: str, answer: Any, **given: Any) -> Result:
    """Check the answer to an exercise.

    Args:
        name: Lesson and exercise, for example ``"01/adapter_share"``.
        answer: What you found; None, ``...`` and a broken line that nobody has mended count as
            not answered yet.
        **given: What the exercise needs beside the answer, for example the model; the lesson's
            cell passes it.

    Returns:
        The finding, which the notebook shows; `passed` is True when the answer is right.

    Raises:
        GeopeftError: Unknown exercise; the message names the nearest one. Or what it needs beside
            the answer is not there.
    """
    number, lessons = name.split("/")[0], lesson_folders()
    check_name("lesson", number, lessons)
    known = load_checks(lessons[number])
    check_name("exercise", name, known)
    _, *needed = signature(known[name].find).parameters
    if given.keys() != {*needed}:
        beside = ", ".join(f"{x}=…" for x in needed) or "nothing"
        raise GeopeftError(
            f'gp.check("{name}", answer) takes {beside} beside the answer. Run the cell that the '
            "lesson has for it."
        )
    shipped = _as_shipped(name, answer, lessons[number])
    result = known[name].check(None if shipped else answer, **given)
    if result.state != "not answered":
        note(exercise=name, passed=result.passed)
    return result


def _as_shipped(name: str, answer: Any, folder: Path) -> bool:
    """Say whether a function stands as it is in the open exercise, the cell before its check."""
    try:
        source = getsource(answer).strip()
    except (OSError, TypeError):  # no function, or typed where nothing is kept
        return False
    lesson = json.loads((folder.parents[1] / f"{folder.name}.ipynb").read_text("utf-8"))
    cells = pairwise("".join(cell["source"]) for cell in lesson["cells"])
    return any(source in cell and f'"{name}"' in check for cell, check in cells)


def _answered(answer: Any, within: bool = False) -> bool:
    """Say whether anything was filled in, also in a list or dict; within, that may be empty."""
    parts = [*answer.values()] if isinstance(answer, dict) else answer
    if isinstance(parts, tuple | list):
        return bool(parts or within) and all(_answered(part, True) for part in parts)
    return answer is not None and answer is not ...
