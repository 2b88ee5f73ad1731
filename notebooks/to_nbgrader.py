"""Make a course of nbgrader out of the lessons: checks become tests that give a point each.

    python notebooks/to_nbgrader.py out/nbgrader --lessons 01 04
    cd out/nbgrader
    nbgrader generate_assignment 04_lora     # writes release/, with exercises open
    nbgrader autograde 04_lora               # runs and scores what is in submitted/

What `# solution` cuts is a solution for nbgrader, a cell with `gp.check` a test that fails unless
the check is passed. Tests and parameters are locked: nbgrader puts the teacher's in their place.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

import build
import nbformat
from nbformat import NotebookNode
from run import find_lesson

CONFIG = f"""c = get_config()
c.CourseDirectory.course_id = "geopeft_nb"
c.ClearSolutions.code_stub = {{"python": "{build.PROMPT}"}}
c.Execute.timeout = 600  # seconds for a cell
"""
FAST = "FAST = False"


def asserting(source: str) -> str:
    r"""Let a cell that shows the finding of a check fail unless it is passed.

    Example:
        >>> asserting('gp.check("04/directions", 3)').splitlines()[-1]
        'assert finding.passed, finding'
    """
    last, lines = ast.parse(source).body[-1], source.splitlines()
    if not isinstance(last, ast.Expr):
        raise ValueError(f"A cell with a check must end with the finding:\n{source}")
    lines[last.lineno - 1] = f"finding = {lines[last.lineno - 1]}"
    return "\n".join([*lines, "display(finding)", "assert finding.passed, finding"])


def convert(solved: NotebookNode, fast: bool = True) -> NotebookNode:
    """Turn a solved lesson into the source of an assignment.

    Args:
        solved: The built notebook of `solutions/`; it is changed.
        fast: Lock the parameters in fast mode, so that grading takes seconds.

    Raises:
        ValueError: A cell has several checks, a check beside a solution, or does not end with it.
    """
    for number, cell in enumerate(solved.cells):
        cell.source = cell.source.replace("notebooks/solutions/", "notebooks/")  # of badges
        cell.source = cell.source.replace("(../GLOSSARY", "(GLOSSARY")
        if cell.cell_type != "code":
            continue
        tags, checks = cell.metadata.get("tags", []), build._CHECK.findall(cell.source)
        solution = "solution" in tags or build._MARKER.search(cell.source)
        if len(checks) + bool(solution) > 1:
            raise ValueError(f"One check or one solution in a cell:\n{cell.source}")
        if "solution" in tags:
            cell.source = f"# solution\n{cell.source}"
        about: dict[str, object] = {
            "schema_version": 3,
            "grade": False,
            "solution": False,
            "task": False,
        }
        about |= {"locked": False, "grade_id": f"cell-{number}"}
        if solution:
            cell.source = (
                build._MARKER.sub("### BEGIN SOLUTION", cell.source) + "\n### END SOLUTION"
            )
            about["solution"] = True
        elif checks:
            cell.source = asserting(cell.source)
            name = checks[0].replace("/", "-")
            about |= {"grade": True, "locked": True, "points": 1, "grade_id": name}
        elif "parameters" in tags:
            cell.source = cell.source.replace(FAST, FAST.replace("False", str(fast)))
            about["locked"] = True
        else:
            continue
        cell.metadata.nbgrader = NotebookNode(about)
    return solved


def main(arguments: list[str] | None = None) -> None:
    """Write sources and settings; what is there and differs is refused."""
    parser = argparse.ArgumentParser(prog="python notebooks/to_nbgrader.py")
    parser.add_argument("course", type=Path, help="folder of the course")
    parser.add_argument("--lessons", nargs="+", metavar="04", help="default: all")
    parser.add_argument("--full", action="store_true", help="grade without fast mode")
    options = parser.parse_args(arguments)
    every = sorted(path.stem for path in Path(__file__).parent.glob("solutions/*.ipynb"))
    files = {"nbgrader_config.py": CONFIG}
    glossary = Path(__file__).with_name("GLOSSARY.md").read_text(encoding="utf-8")
    for name in [find_lesson(lesson).stem for lesson in options.lessons or []] or every:
        solved = nbformat.read(Path(__file__).parent / "solutions" / f"{name}.ipynb", 4)
        files[f"source/{name}/{name}.ipynb"] = nbformat.writes(convert(solved, not options.full))
        files[f"source/{name}/GLOSSARY.md"] = glossary
    for name, content in files.items():
        path = options.course / name
        if path.exists() and path.read_text(encoding="utf-8") != content:
            sys.exit(f"{path} is there and differs. Move it away, or name another folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
