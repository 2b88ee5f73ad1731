"""Quizzes: a few questions whose every choice opens its own explanation.

The choices are HTML disclosure elements. They open in JupyterLab, Colab, a saved notebook, an
nbconvert page and on GitHub alike, with mouse or keyboard, and need no kernel, script or widget.
The questions stand in `quiz.toml` of a lesson's folder, so that its cell does not show the answers.
"""

import tomllib
from pathlib import Path
from typing import Any

from IPython.display import HTML

from geopeft_nb.classroom.check import lesson_folders
from geopeft_nb.classroom.results import note
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.pictures.show import filled


def quiz(number: str, answers: str = "") -> HTML:
    """Return a lesson's quiz for the notebook to show.

    Args:
        number: Number of the lesson, for example ``"01"``.
        answers: A letter for each question, for example ``"bacd"``, to be told a score.

    Returns:
        What a notebook shows: each choice is a line that opens its explanation.

    Raises:
        GeopeftError: There is no such lesson, or no such choice.
    """
    lessons = lesson_folders()
    check_name("quiz", number, lessons)
    questions = load_questions(lessons[number])
    page = write(number, questions)
    if not answers:
        sample = ("ab" * len(questions))[: len(questions)]
        how = f'A score, before you open any: <code>gp.quiz("{number}", "{sample}")</code>'
        return HTML(f"{page}<p>{how}, with the letters of your choices.</p>")
    known = [dict(zip("abcdefgh", question["choice"], strict=False)) for question in questions]
    pairs = [*zip(answers := answers.lower().replace(" ", ""), known, strict=False)]
    if len(answers) != len(known) or any(answer not in choices for answer, choices in pairs):
        raise GeopeftError(
            f"answers takes a letter for each of {len(known)} questions, of "
            f"{', '.join(map(''.join, known))}; got {answers!r}."
        )
    signs = ["✓" if choices[answer].get("correct") else "✗" for answer, choices in pairs]
    right = signs.count("✓")
    note(quiz=number, answers=answers, right=right, of=len(signs))
    return HTML(f"<p><b>{right} of {len(signs)} right: {' '.join(signs)}</b></p>{page}")


def write(quiz: str, questions: list[dict[str, Any]]) -> str:
    """Write the questions of a quiz as HTML.

    Args:
        quiz: Number of the lesson, for example ``"01"``.
        questions: A table each, with `ask` and a list `choice` of tables with `text`, `why` and,
            where it is the right one, `correct`.
    """
    return filled(Path(__file__).with_name("quiz.jinja"), quiz=quiz, questions=questions)


def load_questions(folder: Path, what: str = "question") -> list[Any]:
    """Return the questions in `quiz.toml` of a lesson's folder, or what it ``"needs"``."""
    return tomllib.loads((folder / "quiz.toml").read_text(encoding="utf-8"))[what]
