"""The package stays thin: ceilings on its lines of code, which only sink."""

import ast
from collections import Counter
from pathlib import Path

import pytest

#: Lines of code and statements of the package, and lines of the tests.
PACKAGE, STATEMENTS, TESTS = 11_610, 8_850, 17_320
#: Lines of a file, but for tables of cards, and files of a folder, without its `__init__.py`.
FILE, FOLDER, TABLES = 250, 11, ("catalog.py",)
#: Endings of what is drawn from, which counts, too.
KINDS = "js", "css", "html", "jinja", "pyi"


def code_lines(source: str) -> int:
    """Count lines that are neither blank, nor a comment, nor a docstring."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                documented |= set(range(first.lineno, (first.end_lineno or 0) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(source.splitlines(), 1)
    )


def statements(source: str) -> int:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    said = [n for n in nodes if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    return len(nodes) - len(said)


@pytest.fixture(scope="module")
def sources(root: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in (root / "geopeft_nb").rglob("*.py")}


def test_counting_leaves_out_docstrings_comments_and_blank_lines() -> None:
    source = '"""Doc\n\nof a module."""\n\n# why\nx = 1\n\ndef f():\n    """Doc."""\n    return x\n'
    assert (code_lines(source), statements(source)) == (3, 3)


def test_the_package_is_within_its_budget(root: Path, sources: dict[Path, str]) -> None:
    drawn = [p for kind in KINDS for p in (root / "geopeft_nb").rglob(f"*.{kind}")]
    lines = sum(map(code_lines, sources.values()))
    lines += sum(bool(line.strip()) for p in drawn for line in p.read_text().splitlines())
    assert lines <= PACKAGE
    assert sum(map(statements, sources.values())) <= STATEMENTS


def test_no_file_is_long_and_no_folder_full(sources: dict[Path, str]) -> None:
    lines = {p.name: code_lines(text) for p, text in sources.items() if p.name not in TABLES}
    assert {name: count for name, count in lines.items() if count > FILE} == {}
    folders = Counter(path.parent.name for path in sources if path.name != "__init__.py")
    assert {name: count for name, count in folders.items() if count > FOLDER} == {}


def test_tests_are_within_their_budget(root: Path) -> None:
    assert sum(code_lines(path.read_text()) for path in (root / "tests").rglob("*.py")) <= TESTS
