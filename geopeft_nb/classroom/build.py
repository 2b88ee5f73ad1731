"""Build the lessons from their one source: exercises open, and solutions beside them.

    python -m geopeft_nb.classroom.build            # write the notebooks and their solutions
    python -m geopeft_nb.classroom.build --check    # only say which differ from the source

`notebooks/source/NN_name.py` is a jupytext percent script that holds the solutions. Two rules cut
the exercise from it (as in scikit-learn-mooc): `# solution` on a line of its own cuts the rest of
its cell and leaves a prompt, and a cell tagged `solution` is dropped.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import jupytext
import nbformat
from nbformat import NotebookNode

from geopeft_nb.classroom.check import exercises
from geopeft_nb.classroom.quiz import quiz
from geopeft_nb.errors import unknown_name

BRANCH = "main"
PROMPT = "# Write your code here."
_MARKER = re.compile(r"^# solution\s*$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{\{ ?(\w+) ?\}\}")
_CHECK = re.compile(r'\bcheck\(\s*"([^"]+)"')
_QUIZ = re.compile(r'\bquiz\(\s*"([^"]+)"')


def open_exercise(source: str) -> str:
    r"""Cut the rest of a cell after `# solution` and leave a prompt.

    Example:
        >>> open_exercise("share = None\n# solution\nshare = 0.1")
        'share = None\n# Write your code here.'
    """
    found = _MARKER.search(source)
    return source[: found.start()] + PROMPT if found else source


def badges(repository: str, path: str) -> str:
    """Return the Colab and Binder buttons of a notebook as Markdown.

    Args:
        repository: Address of the repository, https://host/owner/name.
        path: The notebook's path inside it.
    """
    slug = urlsplit(repository).path.strip("/")
    colab, binder = "https://colab.research.google.com", "https://mybinder.org"
    return (
        f"[![Open in Colab]({colab}/assets/colab-badge.svg)]"
        f"({colab}/github/{slug}/blob/{BRANCH}/{path}) "
        f"[![Open on Binder]({binder}/badge_logo.svg)]"
        f"({binder}/v2/gh/{slug}/{BRANCH}?urlpath=lab/tree/{path})"
    )


def build_lesson(source: Path, repository: str, solution: bool) -> str:
    """Build one notebook.

    Args:
        source: The percent script.
        repository: Address of the repository, for badges and install lines.
        solution: Keep the solutions, or cut them.

    Returns:
        The notebook's file content: no outputs, and the same to the byte each time.

    Raises:
        ValueError: Unknown placeholder, exercise or quiz; the message names it and the nearest one.
    """
    text = source.read_text(encoding="utf-8")
    for name in _CHECK.findall(text):
        if name not in exercises():
            raise unknown_name(f"exercise in {source.name}", name, exercises())
    for name in _QUIZ.findall(text):
        quiz(name)

    folder = "notebooks/solutions" if solution else "notebooks"
    words = {
        "badges": badges(repository, f"{folder}/{source.stem}.ipynb"),
        "repository": repository,
    }

    def fill(found: re.Match[str]) -> str:
        if found[1] not in words:
            raise unknown_name(f"placeholder in {source.name}", found[1], words)
        return words[found[1]]

    notebook = jupytext.reads(text, fmt="py:percent")
    cells: list[NotebookNode] = []
    seen: set[str] = set()
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags and not solution:
            continue
        cell.source = _PLACEHOLDER.sub(fill, cell.source)
        if not solution:
            cell.source = open_exercise(cell.source)
        cell.id = _cell_id(cell, seen)
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        cells.append(cell)
    notebook.cells = cells
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = NotebookNode(
        {
            "accelerator": "GPU",  # Colab offers one; the lesson also runs without
            "colab": {"name": f"{source.stem}.ipynb", "provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def _cell_id(cell: NotebookNode, seen: set[str]) -> str:
    """Name a cell after its content, so that an inserted cell does not rename all that follow."""
    number = 0
    while True:
        key = f"{cell.cell_type}\n{number}\n{cell.source}"
        name = hashlib.sha256(key.encode()).hexdigest()[:8]
        if name not in seen:
            seen.add(name)
            return name
        number += 1


def build_all(root: Path) -> dict[Path, str]:
    """Build every lesson of a checkout, without writing.

    Args:
        root: The checkout's folder.

    Returns:
        Path -> content of each notebook that should exist.

    Raises:
        FileNotFoundError: No checkout, or no source in it.
    """
    folder = root / "notebooks"
    sources = sorted((folder / "source").glob("[0-9][0-9]_*.py"))
    if not sources:
        raise FileNotFoundError(
            f"No lessons in {folder / 'source'}. Run this in a checkout of the repository."
        )
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project["urls"]["Repository"]
    built = {}
    for source in sources:
        name = f"{source.stem}.ipynb"
        built[folder / name] = build_lesson(source, repository, solution=False)
        built[folder / "solutions" / name] = build_lesson(source, repository, solution=True)
    return built


def differences(root: Path) -> list[str]:
    """Say which notebooks are missing, differ from their source, or have none.

    Args:
        root: The checkout's folder.

    Returns:
        One line for each; empty when all is up to date.
    """
    built = build_all(root)
    lines = []
    for path, content in built.items():
        name = path.relative_to(root).as_posix()
        if not path.is_file():
            lines.append(f"{name} is missing")
        elif path.read_text(encoding="utf-8") != content:
            lines.append(f"{name} differs from its source")
    there = [*root.glob("notebooks/*.ipynb"), *root.glob("notebooks/solutions/*.ipynb")]
    lines += [f"{p.relative_to(root).as_posix()} has no source" for p in there if p not in built]
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks, or with `--check` compare them; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m geopeft_nb.classroom.build")
    parser.add_argument("--check", action="store_true", help="only compare with the source")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: here)")
    options = parser.parse_args(arguments)
    if options.check:
        lines = differences(options.root)
        for line in lines:
            print(line)
        if lines:
            print("Edit notebooks/source, then run `make notebooks`.")
        return min(1, len(lines))
    for path, content in build_all(options.root).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(content, encoding="utf-8")
        partial.replace(path)
        print(f"{path}: {len(content) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
