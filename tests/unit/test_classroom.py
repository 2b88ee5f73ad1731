"""Lessons are built from their source, checks explain what is off, quizzes explain every choice."""

import linecache
import re
from itertools import pairwise
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import build
import ipywidgets
import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook, new_output
from run import find_lesson, page

from geopeft_nb.classroom.check import check, exercise, lesson_folders
from geopeft_nb.classroom.quiz import load_questions, quiz, write
from geopeft_nb.errors import GeopeftError
from geopeft_nb.pictures.sliders import sliders

SOURCE = """\
# %% [markdown]
# # A lesson
# {{ badges }}

# %% tags=["parameters"]
FAST = False

# %%
share = None
# solution
share = 0.1

# %% tags=["solution"]
print("only in the solution")

# %% [markdown] tags=["solution"]
# Why it is so.

# %%
share
"""
CHECKS = """\
from geopeft_nb.classroom.check import exercise

@exercise("01/tiny_share", "a share")
def tiny_share(answer: float) -> str:
    return ""
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one tiny lesson."""
    folder = tmp_path / "notebooks/source/01_tiny"
    folder.mkdir(parents=True)
    (folder / "lesson.py").write_text(SOURCE)
    (folder / "checks.py").write_text(CHECKS)
    address = "https://github.com/someone/somewhere"
    (tmp_path / "pyproject.toml").write_text(f'[project]\nurls = {{ Repository = "{address}" }}\n')
    return tmp_path


def read(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


# Building lessons


def test_exercise_loses_its_solution_and_keeps_a_prompt(checkout: Path) -> None:
    build.main(["--root", str(checkout)])
    sources = [cell.source for cell in read(checkout / "notebooks/01_tiny.ipynb")]
    assert "share = None\n# Write your code here." in sources and len(sources) == 5
    assert not any("0.1" in source or "Why it is so" in source for source in sources)


def test_solution_keeps_everything_and_its_badges_point_to_the_one_address(checkout: Path) -> None:
    build.main(["--root", str(checkout)])
    sources = [cell.source for cell in read(checkout / "notebooks/solutions/01_tiny.ipynb")]
    assert "Why it is so." in sources and len(sources) == 7
    assert any("share = 0.1" in source for source in sources)
    head = sources[0]
    assert "someone/somewhere/blob/main/notebooks/solutions/01_tiny.ipynb" in head
    assert "gh/someone/somewhere/main?urlpath=lab/tree/notebooks/solutions/01_tiny.ipynb" in head


def test_one_call_sets_the_address_everywhere_and_refuses_what_is_none(checkout: Path) -> None:
    project, citation = checkout / "pyproject.toml", checkout / "CITATION.cff"
    unset = "https://github.com/OWNER/geopeft_nb"
    project.write_text(project.read_text().replace("https://github.com/someone/somewhere", unset))
    citation.write_text(f"repository-code: {unset}\n")
    build.main(["--root", str(checkout)])
    head = read(checkout / "notebooks/01_tiny.ipynb")[0].source
    assert head.startswith("# A lesson\n") and "Colab" not in head
    for address in ("", "OWNER", "https://gitlab.com/me/it", "https://github.com/me/it.git"):
        with pytest.raises(ValueError, match="Give an address"):
            build.main(["--root", str(checkout), "--repository", address])
    assert unset in project.read_text() and unset in citation.read_text()
    build.main(["--root", str(checkout), "--repository", "https://github.com/me/it"])
    head = read(checkout / "notebooks/01_tiny.ipynb")[0].source
    assert "github/me/it/blob/main/notebooks/01_tiny.ipynb" in head
    assert "https://github.com/me/it" in citation.read_text() and unset not in project.read_text()


def test_check_mode_names_what_differs_and_writes_nothing(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main(["--root", str(checkout)]) == 0
    assert build.main(["--root", str(checkout), "--check"]) == 0
    edited = checkout / "notebooks/01_tiny.ipynb"
    edited.write_text(edited.read_text().replace("A lesson", "Another"))
    (checkout / "notebooks/solutions/01_tiny.ipynb").unlink()
    (checkout / "notebooks/02_stray.ipynb").write_text("{}")
    capsys.readouterr()
    assert build.main(["--root", str(checkout), "--check"]) == 1
    said = capsys.readouterr().out
    assert "notebooks/01_tiny.ipynb differs" in said
    assert "notebooks/solutions/01_tiny.ipynb is missing" in said
    assert "notebooks/02_stray.ipynb has no source" in said
    assert "Another" in edited.read_text()


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("# {{ bagdes }}", "badges"),
        ('gp.check("01/tiny_shares", 1)', "01/tiny_share"),
        ('gp.quiz("011")', "01"),
    ],
)
def test_a_misspelt_name_in_a_lesson_stops_the_build(checkout: Path, line: str, near: str) -> None:
    source = checkout / "notebooks/source/01_tiny/lesson.py"
    source.write_text(f"{SOURCE}\n# %%\n{line}\n")
    with pytest.raises(ValueError, match=f"Did you mean '{near}'"):
        build.build_all(checkout)


# Checking answers


@exercise("test/half", "one half, as a number", (int, float))
def half(answer: float, scale: float) -> str:
    return "" if answer == 0.5 * scale else "Not half."


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (0.5, "passed", ""),
        (0.4, "not yet", "Not half."),
        ("<b>", "not yet", "It wants one half, as a number; this is of type str."),
        *((blank, "not answered", "not answered yet. It wants one half, as a number.")
          for blank in (None, ..., (1, None), [], {"a": ...})),
    ],
)  # fmt: skip
def test_an_answer_is_judged_and_what_is_off_explained(answer: Any, state: str, words: str) -> None:
    result = half.check(answer, scale=1)
    assert (result.state, result.passed) == (state, state == "passed")
    assert words in result.message and result.message in repr(result)
    shown = result._repr_html_()
    assert f'class="gp-check" data-state="{state}"' in shown and "<b>" not in shown


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("01/trainable_shar", r"01/trainable_shar'.*Did you mean '01/trainable_share'"),
        ("1/trainable_share", r"Unknown lesson '1'.*Known: 00, 01, "),
    ],
)
def test_unknown_exercise_suggests_the_nearest(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(name, 1)


def test_a_broken_line_is_not_judged_before_it_is_mended(tmp_path: Path) -> None:
    for folder in lesson_folders().values():
        notebook = nbformat.read(folder.parents[1] / f"{folder.name}.ipynb", 4)
        for cell, after in pairwise(notebook.cells):
            if "# mend this line" in cell.source:
                name = re.search(r'check\("(.*?)", (\w+)', after.source)
                for mended, state in (("", "not answered"), ("!", "not yet")):
                    (path := tmp_path / f"{folder.name}.py").write_text(
                        f"import torch, numpy as np\n{cell.source}".replace("line", f"line{mended}")
                    )
                    linecache.clearcache()
                    answer = run_path(str(path))[name[2]]
                    assert check(name[1], answer).state == state


def test_a_function_of_another_cell_is_an_answer_of_the_wrong_kind(tmp_path: Path) -> None:
    """Such as the helper that makes a network, given in place of one."""
    lesson = (lesson_folders()["01"] / "lesson.py").read_text("utf-8")
    source = re.search(r"^def make_network\(.*?return .*?$", lesson, re.MULTILINE | re.DOTALL)
    (path := tmp_path / "helper.py").write_text(f"import torch\n{source[0]}")
    helper = run_path(str(path))["make_network"]
    assert "this is of type function" in check("01/frozen_backbone", helper, limit=1).message


# Quizzes


def test_a_check_says_what_it_needs_beside_the_answer() -> None:
    with pytest.raises(GeopeftError, match=r"takes model=… beside the answer"):
        check("01/trainable_share", 0.1)


def test_a_quiz_explains_each_choice_when_it_is_opened_and_not_before() -> None:
    own, questions = quiz("01"), load_questions(lesson_folders()["01"])
    shown, choices = own.data, [c for q in questions for c in q["choice"]]
    assert shown.count("<details") == shown.count("<summary") == len(choices)
    assert shown.count("✓ Right.") == len(questions)
    assert not any(choice["why"] in repr(own) for choice in choices)
    odd = {"ask": "1 < 2?", "choice": [{"text": "yes", "why": "<i>", "correct": True}]}
    assert "<i>" not in write("own", [odd])


def test_unknown_quiz_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean '01'"):
        quiz("001")


# Sliders


def test_sliders_redraw_the_one_picture_that_a_saved_notebook_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Any] = []

    def display(what: object, raw: bool = False, **_: object) -> SimpleNamespace:
        if raw:
            shown.append(what)
        return SimpleNamespace(update=display)

    monkeypatch.setattr("IPython.display.display", display)
    share = ipywidgets.FloatSlider(0.5, min=0, max=1)

    def draw(draw: float) -> tuple[Figure, str]:
        return Figure(), f"<{draw:.2f}>"

    sliders(draw, draw=share)
    share.value = 0.75
    assert [bundle["text/plain"] for bundle in shown] == ["<0.50>", "<0.75>"]
    assert 'alt="&lt;0.75&gt;"' in shown[-1]["text/html"]
    assert shown[-1]["image/png"] in shown[-1]["text/html"]


# Running lessons from the command line


def test_unknown_lesson_lists_what_there_is() -> None:
    with pytest.raises(SystemExit, match=r"no lesson '99'.*01_"):
        find_lesson("99")


def test_page_replaces_widgets_by_a_note_and_loads_no_widget_script() -> None:
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "Map()"}
    picture = {"text/html": '<img alt="a map" src="data:,">', **widget}
    cell = new_code_cell(outputs=[new_output("display_data", d) for d in (widget, picture)])
    state = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    html = page(new_notebook(cells=[cell], metadata={"widgets": state}), "title")
    assert "when you run the notebook" in html and 'alt="a map"' in html
    assert "html-manager" not in html and "require.min.js" not in html
