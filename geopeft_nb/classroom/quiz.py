"""Quizzes: a few questions whose every choice opens its own explanation.

The choices are HTML disclosure elements. They open in JupyterLab, Colab, a saved notebook, an
nbconvert page and on GitHub alike, with mouse or keyboard, and need no kernel, script or widget.
The questions live in `quizzes/NN.toml`, so that a lesson's cell does not show the answers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from geopeft_nb.errors import GeopeftError, unknown_name

FOLDER = Path(__file__).parent / "quizzes"


@dataclass(frozen=True)
class Choice:
    """One possible answer.

    Attributes:
        text: What it says.
        why: Why it is right or wrong.
        correct: Whether it is the right one.
    """

    text: str
    why: str
    correct: bool = False


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        ask: The question.
        choices: Two or more, one of them correct.
    """

    ask: str
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not self.ask.strip():
            raise GeopeftError("A question needs text in `ask`.")
        if len(self.choices) < 2 or sum(choice.correct for choice in self.choices) != 1:
            raise GeopeftError(
                f"Question {self.ask!r} needs two or more choices, one of them right."
            )
        for choice in self.choices:
            if not choice.why.strip():
                raise GeopeftError(f"Choice {choice.text!r} of {self.ask!r} needs a `why`.")


@dataclass(frozen=True)
class Quiz:
    """Some questions, shown where a notebook displays the object.

    Attributes:
        name: Name of the quiz, for example ``"01"``.
        questions: The questions in order.
    """

    name: str
    questions: tuple[Question, ...]

    def __repr__(self) -> str:
        lines = [f"Quiz {self.name}"]
        for number, question in enumerate(self.questions, start=1):
            lines.append(f"{number}. {question.ask}")
            lines += [f"   {letter}) {c.text}" for letter, c in _lettered(question)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show each choice as a line that opens its explanation."""
        parts = ['<div class="gp-quiz" role="group" aria-label="Quiz">']
        for number, question in enumerate(self.questions, start=1):
            parts.append(f"<p><b>{number}. {escape(question.ask)}</b></p>")
            for letter, choice in _lettered(question):
                verdict = "✓ Right." if choice.correct else "✗ Not this one."
                # Elements of one name form a group in which opening one closes the others.
                group = escape(f"gp-quiz-{self.name}-{number}", quote=True)
                parts.append(
                    f'<details name="{group}" style="margin:.2em 0 .2em 1.5em">'
                    f'<summary style="cursor:pointer">{letter}) {escape(choice.text)}</summary>'
                    f'<p style="margin:.2em 0 .6em 1.5em">{verdict} {escape(choice.why)}</p>'
                    "</details>"
                )
        return "".join([*parts, "</div>"])


def quiz(name: str, questions: Sequence[Question] | None = None) -> Quiz:
    """Return a quiz for the notebook to show.

    Args:
        name: Name of a quiz that ships, for example ``"01"``, or of your own.
        questions: Your own questions; None takes those that ship under the name.

    Returns:
        The quiz.

    Raises:
        ValueError: Unknown name, or a question without a right choice or with a choice that nothing
            explains.
    """
    if questions is not None:
        return Quiz(name, tuple(questions))
    if name not in quiz_names():
        raise unknown_name("quiz", name, quiz_names())
    content = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    return Quiz(name, tuple(_question(entry) for entry in content["question"]))


def quiz_names() -> list[str]:
    """Return the names of the quizzes that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _question(entry: dict[str, object]) -> Question:
    choices = entry.get("choice")
    if not isinstance(choices, list):
        raise GeopeftError(f"Question {entry.get('ask')!r} has no [[question.choice]] entries.")
    return Question(str(entry.get("ask", "")), tuple(Choice(**choice) for choice in choices))


def _lettered(question: Question) -> list[tuple[str, Choice]]:
    return list(zip("abcdefgh", question.choices, strict=False))
