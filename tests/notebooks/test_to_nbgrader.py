"""A lesson becomes an assignment of nbgrader that loses nothing and fails where a check does.

nbgrader itself is not needed here.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import build
import nbformat
import pytest
import to_nbgrader

from geopeft_nb.classroom.check import Result, load_checks

SOLUTION = re.compile("### BEGIN SOLUTION.*### END SOLUTION", re.DOTALL)


def test_an_assignment_is_the_lesson_with_a_graded_test_for_each_check(lesson: Path) -> None:
    solved = nbformat.read(lesson.parent / "solutions" / lesson.name, as_version=4)
    assignment = to_nbgrader.convert(solved)
    nbformat.validate(assignment)
    about = {cell.id: cell.metadata.get("nbgrader") for cell in assignment.cells}
    marked = [entry for entry in about.values() if entry]
    names = [entry["grade_id"] for entry in marked]
    assert len({*names}) == len(names) and all(re.fullmatch(r"[\w-]+", name) for name in names)
    graded = {entry["grade_id"] for entry in marked if entry["grade"]}
    checks = load_checks(lesson.parent / "source" / lesson.stem)
    assert graded == {name.replace("/", "-") for name in checks}
    assert all(entry["points"] == 1 and entry["locked"] for entry in marked if entry["grade"])
    handed_out = [SOLUTION.sub(build.PROMPT, cell.source).rstrip() for cell in assignment.cells]
    exercises = [cell.source.rstrip() for cell in nbformat.read(lesson, as_version=4).cells]
    differing = set(handed_out) - set(exercises)
    for source in differing:
        assert "assert finding.passed, finding" in source or "FAST = True" in source, source
    assert len(differing) == len(graded) + 1


@pytest.mark.parametrize("state", ["passed", "not yet", "not answered"])
@pytest.mark.parametrize("cell", ["gp.check(\n    'it', 1\n)", "mine = gp.check('it', 1)\nmine"])
def test_a_test_fails_unless_its_check_is_passed(state: str, cell: str) -> None:
    shown: list[Result] = []
    gp = SimpleNamespace(check=lambda name, _: Result(name, state, "so it is."))
    code = to_nbgrader.asserting(cell)
    if state == "passed":
        exec(code, {"gp": gp, "display": shown.append})
    else:
        with pytest.raises(AssertionError, match=r"it: so it is\."):
            exec(code, {"gp": gp, "display": shown.append})
    assert [result.name for result in shown] == ["it"]


def test_a_course_that_a_teacher_has_changed_is_not_overwritten(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--lessons", "04"]
    to_nbgrader.main(arguments)
    to_nbgrader.main(arguments)
    mine = tmp_path / "source/04_lora/04_lora.ipynb"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(SystemExit, match="is there and differs"):
        to_nbgrader.main(arguments)
    assert mine.read_text(encoding="utf-8") == "mine"
