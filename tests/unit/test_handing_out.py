"""What a teacher does: hands out notebooks, collects results, looks who is where."""

import json
from pathlib import Path

import nbformat
import pytest

import geopeft_nb as gp
from geopeft_nb.__main__ import main
from geopeft_nb.classroom import results

SHARED = "00/weights"


def noted(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def ada(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student's file, which is not there yet."""
    results._announce.cache_clear()
    path = tmp_path / "results/ada.jsonl"
    monkeypatch.setenv("GEOPEFT_RESULTS", str(path))
    return path


def test_students_get_notebooks_with_exercises_open(root: Path, tmp_path: Path) -> None:
    assert main(["lessons", str(tmp_path / "course"), "--lessons", "01,04"]) == 0
    names = [path.name for path in sorted((tmp_path / "course").glob("*.ipynb"))]
    assert names == ["01_the_whole_idea.ipynb", "04_lora.ipynb"]
    for name in names:
        copy = nbformat.read(tmp_path / "course" / name, as_version=4)
        solved = nbformat.read(root / "notebooks/solutions" / name, as_version=4)
        code = [[c.source for c in book.cells if c.cell_type == "code"] for book in (copy, solved)]
        assert "# Write your code here." in "\n".join(code[0])
        assert set(code[1]) - set(code[0]), "the solved notebook has cells that the copy lacks"
    for name in ("figures/lesson_01_map.png", "GLOSSARY.md"):
        assert (tmp_path / "course" / name).is_file()


@pytest.mark.parametrize("kind", ["changed", "link to nowhere"])
def test_a_file_of_a_students_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    theirs = tmp_path / "04_lora.ipynb"
    if kind == "changed":
        theirs.write_text("mine", encoding="utf-8")
    else:
        theirs.symlink_to(tmp_path / "gone")
    for state in ("copied", "there already"):
        assert main(["lessons", str(tmp_path), "--lessons", "01,04"]) == 0
        first, second, *_ = capsys.readouterr().out.splitlines()
        assert first.split(maxsplit=1) == ["01_the_whole_idea.ipynb", state]
        assert second.split(maxsplit=1)[1].startswith("kept")
    kept = theirs.read_text("utf-8") == "mine" if kind == "changed" else theirs.is_symlink()
    assert kept
    assert not list(tmp_path.glob(".new*"))


def test_nothing_is_noted_unless_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEOPEFT_RESULTS", raising=False)
    gp.check(SHARED, 1)
    gp.quiz("04", quiz_letters("04", right=False))
    assert list(tmp_path.iterdir()) == []


def quiz_letters(number: str, right: bool = True) -> str:
    """Letters of the right choices, or of wrong ones."""
    from geopeft_nb.classroom.check import lesson_folders
    from geopeft_nb.classroom.quiz import load_questions

    letters = ""
    for question in load_questions(lesson_folders()[number]):
        fits = [choice.get("correct", False) == right for choice in question["choice"]]
        letters += "abcdefgh"[fits.index(True)]
    return letters


def test_attempts_and_answers_are_noted_where_it_is_announced(
    ada: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for answer in (None, 1, 2):
        gp.check(SHARED, answer)
    right = quiz_letters("04")
    assert f"{len(right)} of {len(right)} right" in gp.quiz("04", right).data
    exercises, quiz = noted(ada)[:-1], noted(ada)[-1]
    assert [(e["exercise"], e["passed"]) for e in exercises] == [(SHARED, False)] * 2
    assert (quiz["quiz"], quiz["answers"], quiz["right"]) == ("04", right, len(right))
    assert capsys.readouterr().err.count(str(ada)) == 1


def test_what_is_no_file_of_results_is_refused_and_a_full_disk_keeps_nobody_from_learning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = tmp_path / "lesson.ipynb"
    notebook.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("GEOPEFT_RESULTS", str(notebook))
    with pytest.raises(gp.GeopeftError, match=r"ends in \.jsonl"):
        gp.check(SHARED, 1)
    assert notebook.read_text(encoding="utf-8") == "{}"
    monkeypatch.setenv("GEOPEFT_RESULTS", str(notebook / "ada.jsonl"))
    assert gp.check(SHARED, 1).state == "not yet"
    assert "Nothing could be noted" in capsys.readouterr().err


@pytest.mark.parametrize("answers", ["a", "zzzz", "aaaaaaaaa"])
def test_a_quiz_refuses_letters_that_are_no_choice(answers: str) -> None:
    with pytest.raises(gp.GeopeftError, match="a letter for each of"):
        gp.quiz("04", answers)


DAMAGED = {
    "empty": b"",
    "image": b"\x89PNG\r\n\xff\xfe",
    "prose": b"I did everything.\n",
    "deep": b"[" * 100_000,
    "large": b"\n" * 2_000_001,
    "other": b'{"exercise": "99/none", "passed": true}\n{"quiz": "04", "right": 9, "of": 4}\n',
}


def test_a_class_of_thirty_is_drawn_and_each_damaged_file_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    passed = '{"exercise": "04/directions", "passed": true}\n'
    failed = passed.replace("true", "false")
    quiz = '{"quiz": "04", "right": 3, "of": 4}\n'
    for number in range(22):
        (folder / f"group {number % 2}").mkdir(parents=True, exist_ok=True)
        path = folder / f"group {number % 2}/student {number:02}.jsonl"
        path.write_text(failed * number + passed * (number < 20) + quiz * 2, encoding="utf-8")
    (folder / "<script>alert(1)<!--.jsonl").write_text(passed, encoding="utf-8")
    (folder / "torn.jsonl").write_text(passed + passed[:20], encoding="utf-8")
    for name, content in DAMAGED.items():
        (folder / f"{name}.jsonl").write_bytes(content)
    out = tmp_path / "class.html"
    assert main(["class", str(folder), "--out", str(out)]) == 1
    said = capsys.readouterr()
    errors = said.err.splitlines()
    assert len(errors) == len(DAMAGED) + 1
    for name in [*DAMAGED, "torn"]:
        assert sum(f"geopeft_nb: {name}" in line for line in errors) == 1
    assert "torn: 1 of 2 lines are damaged" in said.err
    page = out.read_text(encoding="utf-8")
    assert page.split("<tbody>")[1].count("<tr><th>") == 24
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;!--" in page
    row = page.split("student 21")[1].split("<tr>")[0]
    assert '<td class="tried">✗ 21' in row and ">3 of 4" in row
    assert page.count('class="passed">✓') == 22
    assert main(["class", str(folder), "--out", str(out)]) == 1, "a page of ours is replaced"


def test_a_page_that_is_not_ours_is_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ada.jsonl").write_text('{"exercise": "00/gib", "passed": true}', encoding="utf-8")
    thesis = tmp_path / "thesis.html"
    thesis.write_text("mine", encoding="utf-8")
    assert main(["class", str(tmp_path), "--out", str(thesis)]) == 1
    assert thesis.read_text(encoding="utf-8") == "mine"
    assert "is no table of a class" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert main(["class", str(tmp_path / "none")]) == 1
    assert "no .jsonl file" in capsys.readouterr().err
