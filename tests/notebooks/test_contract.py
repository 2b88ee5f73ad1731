"""Every lesson keeps to one shape, so that learners and teachers know what to expect."""

import ast
import re
import shutil
from pathlib import Path

import build
import nbformat
import nbval_reference
import pytest
from build import PROMPT
from nbformat import NotebookNode
from nbval_reference import LESSONS

from geopeft_nb.classroom.check import load_checks
from geopeft_nb.classroom.quiz import load_questions

PARAMETERS = {*"model data method epochs batch_size seed device out_dir FAST".split()}
FOOT = [
    "What we have seen",
    "What to try next",
    "How this differs at full scale",
    "References",
    "Glossary",
]


@pytest.fixture(scope="session")
def begun(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lesson just begun from the template, which has to keep to the contract, too."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copy(root / "pyproject.toml", checkout)
    build.main(["--root", str(checkout), "--new", "99_begun"])
    return checkout / "notebooks/99_begun.ipynb"


@pytest.fixture(params=[*LESSONS, None], ids=lambda path: path.stem if path else "begun")
def lesson(request: pytest.FixtureRequest, begun: Path) -> Path:
    return request.param or begun


@pytest.fixture
def source(lesson: Path) -> Path:
    return lesson.parent / "source" / lesson.stem


@pytest.fixture
def notebook(lesson: Path) -> NotebookNode:
    return nbformat.read(lesson, as_version=4)


@pytest.fixture
def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook: NotebookNode, tag: str | None = None) -> list[str]:
    """Sources of the code cells, or of those with a tag."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if tag is None or tag in cell.metadata.get("tags", [])]


def section(prose: str, heading: str) -> str:
    """Text below a heading, up to the next one."""
    found = re.search(rf"^##+ {re.escape(heading)}.*?\n(.*?)(?=^##? |\Z)", prose, re.M | re.S)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def test_there_is_a_first_lesson(root: Path) -> None:
    assert list(root.glob("notebooks/01_*.ipynb"))


def test_notebook_is_small_and_carries_no_outputs(lesson: Path, notebook: NotebookNode) -> None:
    assert lesson.stat().st_size <= 200_000  # bytes
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_there_is_more_to_do_than_to_read(notebook: NotebookNode, prose: str) -> None:
    assert len(notebook.cells) <= 70
    assert len(prose.split()) <= 1800


def test_notebook_asks_colab_for_a_gpu(notebook: NotebookNode) -> None:
    assert notebook.metadata.accelerator == "GPU"
    assert notebook.metadata.kernelspec.name == "python3"


def test_head_has_a_title_and_a_promise(notebook: NotebookNode) -> None:
    title, *rest = notebook.cells[0].source.split("\n")
    assert re.match(r"# \S", title)
    assert next((line for line in rest if line.strip()), "").strip(), "a one-line promise follows"


@pytest.mark.parametrize("repository", [None, "https://github.com/someone/geopeft_nb"])
def test_badges_and_a_line_that_installs_are_there_once_the_address_is(
    source: Path, repository: str | None
) -> None:
    notebook = nbformat.reads(build.build_lesson(source, repository, solution=False), 4)
    (setup,) = code(notebook, "setup")
    text = "\n".join(cell.source for cell in notebook.cells)
    head = "\n".join(cell.source for cell in notebook.cells[:3])
    for words, where in (("colab-badge", head), ("mybinder.org/badge", head), ("git+https", setup)):
        assert (words in where) == bool(repository)
    assert ("On Colab and Kaggle it installs" in text) == bool(repository)
    assert "geopeft_nb" in setup and "OWNER" not in text
    moves = r"install[^\n]*(--upgrade|-U\b|\btorch\b|\bnumpy\b)"
    assert not re.search(moves, setup), "what Colab has stays as it is"


def test_head_says_what_is_learnt_how_long_and_what_is_needed(prose: str) -> None:
    bullets = re.findall(r"^[-*] \S", section(prose, "What you will be able to do"), re.M)
    assert 3 <= len(bullets) <= 5
    time = section(prose, "Time to learn")
    assert "CPU" in time and "GPU" in time and re.search(r"\d+ ?min", time)
    needed = section(prose, "What you need to know")
    assert re.search(r"^\| *Concept *\| *Importance *\| *Where *\|", needed, re.M)


def test_one_parameters_cell_with_fast_mode_off(notebook: NotebookNode) -> None:
    (parameters,) = code(notebook, "parameters")
    assigned = {
        target.id: node.value
        for node in ast.parse(parameters).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert set(assigned) >= PARAMETERS
    assert ast.literal_eval(assigned["FAST"]) is False


def test_learner_commits_to_a_guess(prose: str) -> None:
    assert re.search(r"\bpredict|\bguess", prose, re.I)


def test_a_guess_left_open_reads_as_a_question_mark(notebook: NotebookNode) -> None:
    guesses = [cell for cell in code(notebook) if cell.startswith("my_guess = ")]
    assert guesses
    assert all('"?"' in guess and "..." not in guess for guess in guesses)


def test_at_least_six_exercises_each_with_a_check(source: Path, notebook: NotebookNode) -> None:
    text = "\n".join(code(notebook))
    checks = set(re.findall(r'gp\.check\(\s*"([^"]+)"', text))
    assert len(checks) >= (2 if source.stem == "99_begun" else 6)
    assert checks == load_checks(source).keys()
    assert all(task.wants for task in load_checks(source).values())
    assert text.count(PROMPT) >= len(checks)


def test_solutions_answer_what_the_exercises_leave_open(lesson: Path) -> None:
    solution = nbformat.read(lesson.parent / "solutions" / lesson.name, as_version=4)
    assert PROMPT not in "\n".join(code(solution))


def test_quiz_has_four_to_six_questions_and_explains_every_choice(
    source: Path, notebook: NotebookNode
) -> None:
    assert f'gp.quiz("{source.name[:2]}")' in code(notebook)
    questions = load_questions(source)
    assert (3 if source.stem == "99_begun" else 4) <= len(questions) <= 6
    for question in questions:
        assert question["ask"].strip() and 2 <= len(question["choice"]) <= 8
        assert sum(choice.get("correct", False) for choice in question["choice"]) == 1
        assert all(c["text"].strip() and c["why"].strip() for c in question["choice"])
        assert all(choice.keys() <= {"text", "why", "correct"} for choice in question["choice"])


def test_the_longest_choice_of_a_quiz_is_no_hint(source: Path) -> None:
    telling = 0
    for question in load_questions(source):
        *_, second, longest = sorted(question["choice"], key=lambda choice: len(choice["text"]))
        alone = len(second["text"]) < len(longest["text"])
        telling += alone and longest.get("correct", False)
    assert telling <= 2


def test_some_outputs_are_checked(notebook: NotebookNode) -> None:
    assert code(notebook, "nbval-check-output"), "tag a deterministic cell nbval-check-output"


@pytest.mark.parametrize("name", [path.stem for path in LESSONS])
def test_each_checked_cell_has_its_stored_output(root: Path, tmp_path: Path, name: str) -> None:
    notebook = nbval_reference.with_reference(root / f"notebooks/{name}.ipynb", tmp_path)
    assert all(cell.outputs for cell in nbval_reference.checked_cells(notebook))


def test_pictures_in_the_prose_have_alternative_text(prose: str) -> None:
    assert not re.findall(r"!\[\s*\]\(", prose)
    for image in re.findall(r"<img\b[^>]*>", prose):
        assert re.search(r'\balt="[^"]+"', image), image


def test_foot_has_its_five_parts(prose: str) -> None:
    for heading in FOOT:
        assert section(prose, heading).strip()


def test_glossary_and_neighbours_are_linked_and_there(lesson: Path, prose: str) -> None:
    """Links are made by the build: each leads to a file, and back again."""
    linked = {name for name in re.findall(r"\]\(([\w./]+\.(?:ipynb|md))\)", prose)}
    if lesson in LESSONS:
        assert all((lesson.parent / name).is_file() for name in linked)
        place = LESSONS.index(lesson)
        for arrow, other in (("← ", LESSONS[:place][-1:]), (" →", LESSONS[place + 1 :][:1])):
            links = re.findall(rf"\[(?=[^\]]*{arrow})[^\]]+\]\((\w+\.ipynb)\)", prose)
            assert links == 2 * [path.name for path in other]  # at head and foot
    assert "GLOSSARY.md" in linked and prose.count("## Glossary") == 1
    assert prose.count("(#Map-of-the-course)") == 2 and section(prose, "Map of the course")


def test_map_of_the_course_has_every_lesson_with_its_minutes(root: Path, prose: str) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    for name, (title, minutes) in build.course(root / "notebooks/source").items():
        assert minutes
        assert re.search(rf"\(notebooks/{name}\.ipynb\) .*\({minutes} min, the computer", readme)
        if "99" not in prose[:9]:
            assert re.search(rf"\| .*{re.escape(title)}.* \| {minutes} \|", prose)


def test_cells_are_short(notebook: NotebookNode) -> None:
    """A cell is one idea. Imports do not count, nor does setup, which nobody has to read."""
    lengths = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", []):
            lines = [line for line in cell.source.splitlines() if line.strip()]
            lengths.append(sum(not re.match(r"(import|from) ", line) for line in lines))
            assert lengths[-1] <= 20, cell.source
    assert sorted(lengths)[len(lengths) * 9 // 10] <= 15


def test_teachers_are_told_the_minutes_that_the_heads_of_the_lessons_give(root: Path) -> None:
    guide = (root / "notebooks/TEACHING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[\d\d\]\((\w+)\.ipynb\) \| (\d+) \| (\d+) \|", guide, re.M)
    assert len(rows) > 10
    for name, minutes, computer in rows:
        text = (root / f"notebooks/source/{name}/lesson.py").read_text(encoding="utf-8")
        found = re.search(r"About (\d+) min, of which the computer needs about (\d+) min", text)
        assert found and found.groups() == (minutes, computer), name


def test_teachers_are_told_of_exercises_that_there_are(root: Path) -> None:
    guide = (root / "notebooks/TEACHING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) \| (`[^|]+`) \|", guide, re.M)
    assert len(rows) > 20
    for number, named in rows:
        (folder,) = root.glob(f"notebooks/source/{number}_*")
        for name in re.findall(r"`(\w+)`", named):
            assert f"{number}/{name}" in load_checks(folder)
