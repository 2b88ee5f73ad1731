"""Build the lessons from their one source: exercises open, and solutions beside them.

    python notebooks/build.py                # write the notebooks and their solutions
    python notebooks/build.py --check        # only say which differ from the source
    python notebooks/build.py --new NN_name  # begin a lesson: a folder that keeps to the contract
    python notebooks/build.py --repository https://github.com/you/geopeft_nb  # set its address

A lesson is a folder, `notebooks/source/NN_name/`. Its `lesson.py` is a jupytext percent script that
holds the solutions. Two rules cut the exercise from it (as in scikit-learn-mooc): `# solution` on a
line of its own cuts the rest of its cell and leaves a prompt, and a cell tagged `solution` is
dropped. `checks.py` has the checks of its exercises, `quiz.toml` its questions. Ways to the other
lessons, the map of the course and the glossary are added here.
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
from nbformat.v4 import new_markdown_cell

from geopeft_nb.classroom.check import load_checks
from geopeft_nb.errors import GeopeftError, check_name

TEMPLATE = Path(__file__).resolve().parent / "source" / "NN_name"

BRANCH = "main"
PROMPT = "# Write your code here."
_MARKER = re.compile(r"^# solution\s*$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\{\{ ?(\w+) ?\}\}")
_CHECK = re.compile(r'\bcheck\(\s*"([^"]+)"')
_QUIZ = re.compile(r'\bquiz\(\s*"([^"]+)"')
_ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+(?<!\.git)")
#: Owner in an address that nobody has set: badges and a line that installs from it could not work.
UNSET = "OWNER"
_INSTALLS = (
    " On Colab and Kaggle it installs what is missing, and leaves torch and numpy as they are."
)
_SET_UP = """\
import importlib.util

if importlib.util.find_spec("geopeft_nb") is None:
    raise ModuleNotFoundError(
        "The toolkit is not here. Open the lesson with `make lab`, or install the wheel that your "
        "teacher has (`make wheel` makes it): %pip install geopeft_nb-….whl"
    )"""
GLOSSARY = """\
## Glossary
[Words of this course]({folder}GLOSSARY.md), for those who come from machine learning and for \
those who come from remote sensing. Beyond it, [torchgeo's glossary]\
(https://torchgeo.readthedocs.io/en/stable/user/glossary.html) explains the terms of Earth \
observation, and [Glosario](https://glosario.carpentries.org/en/) those of data science in many \
languages."""


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


def course(sources: Path) -> dict[str, tuple[str, str]]:
    """Return folder name -> title and minutes of each lesson, read off its head."""
    lessons = {}
    for path in sorted(sources.glob("[0-9][0-9]_*/lesson.py")):
        text = path.read_text(encoding="utf-8")
        title = re.search(r"^# # (.+)$", text, re.MULTILINE)
        minutes = re.search(r"About (\d+) min", text)
        lessons[path.parent.name] = (title[1] if title else "", minutes[1] if minutes else "")
    return lessons


def ways(lessons: dict[str, tuple[str, str]], name: str) -> str:
    """Return links to the lesson before, the one behind and the map of the course as Markdown.

    Example:
        >>> ways({"01_a": ("01 · A", "45"), "04_b": ("04 · B", "60")}, "01_a")
        '[Map of the course](#Map-of-the-course) · [04 · B →](04_b.ipynb)'
    """
    names = [*lessons]
    place = names.index(name)
    short = {other: title.split(":")[0] for other, (title, _) in lessons.items()}
    links = [f"[← {short[other]}]({other}.ipynb)" for other in names[:place][-1:]]
    links += ["[Map of the course](#Map-of-the-course)"]
    links += [f"[{short[other]} →]({other}.ipynb)" for other in names[place + 1 :][:1]]
    return " · ".join(links)


def course_map(lessons: dict[str, tuple[str, str]], name: str) -> str:
    """Return a table of the lessons and their minutes as Markdown; the one of this name is bold."""
    rows = ["## Map of the course", "| Lesson | Minutes |", "|---|---|"]
    for other, (title, minutes) in lessons.items():
        link = f"[{title}]({other}.ipynb)"
        rows.append(f"| {f'**{title}** (here)' if other == name else link} | {minutes} |")
    return "\n".join(rows)


def build_lesson(source: Path, repository: str | None, solution: bool) -> str:
    """Build one notebook.

    Args:
        source: The lesson's folder.
        repository: Address of the repository, for badges and install lines; None leaves them out.
        solution: Keep the solutions, or cut them.

    Returns:
        The notebook's file content: no outputs, and the same to the byte each time.

    Raises:
        GeopeftError: Unknown placeholder, exercise or quiz; the message names it and the nearest.
    """
    text = (source / "lesson.py").read_text(encoding="utf-8")
    known = {*load_checks(source), source.name[:2]}
    for name in [*_CHECK.findall(text), *_QUIZ.findall(text)]:
        check_name(f"exercise or quiz in {source.name}", name, known)

    folder = "notebooks/solutions" if solution else "notebooks"
    path = f"{folder}/{source.name}.ipynb"
    words = {
        "badges": badges(repository, path) if repository else "",
        "repository": repository or "",
    }

    def fill(found: re.Match[str]) -> str:
        check_name(f"placeholder in {source.name}", found[1], words)
        return words[found[1]]

    notebook = jupytext.reads(text, fmt="py:percent")
    lessons = course(source.parent)
    way = ways(lessons, source.name)
    notebook.cells[0].source += f"\n\n{way}"
    glossary = GLOSSARY.format(folder="../" if solution else "")
    foot = [glossary, course_map(lessons, source.name), way]
    notebook.cells.append(new_markdown_cell("\n\n".join(foot)))
    cells: list[NotebookNode] = []
    seen: set[str] = set()
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "solution" in tags and not solution:
            continue
        cell.source = _PLACEHOLDER.sub(fill, cell.source).rstrip()
        if not repository:
            cell.source = _SET_UP if "setup" in tags else cell.source.replace(_INSTALLS, "")
        if not solution:
            cell.source = open_exercise(cell.source)
        cell.id = _cell_id(cell, seen)
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
        if "hide-input" in tags:  # Jupyter Book's word; JupyterLab's is another
            cell.metadata.jupyter = {"source_hidden": True}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        cells.append(cell)
    notebook.cells = cells
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = NotebookNode(
        {
            "accelerator": "GPU",  # Colab offers one; the lesson also runs without
            "colab": {"name": f"{source.name}.ipynb", "provenance": []},
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
    sources = sorted((folder / "source").glob("[0-9][0-9]_*"))
    if not sources:
        raise FileNotFoundError(
            f"No lessons in {folder / 'source'}. Run this in a checkout of the repository."
        )
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project["urls"]["Repository"]
    repository = None if f"/{UNSET}/" in address else address
    built = {}
    for source in sources:
        name = f"{source.name}.ipynb"
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


def set_repository(root: Path, address: str) -> None:
    """Put the repository's address where it stands: in pyproject.toml and CITATION.cff.

    Raises:
        GeopeftError: It is no address of GitHub, from which alone Colab and Binder's badges open.
    """
    if not _ADDRESS.fullmatch(address):
        raise GeopeftError(
            f"Give an address as https://github.com/you/geopeft_nb; got {address!r}."
        )
    paths = [root / "pyproject.toml", root / "CITATION.cff"]
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    before = tomllib.loads(texts[paths[0]])["project"]["urls"]["Repository"]
    for path, text in texts.items():
        path.write_text(text.replace(before, address), encoding="utf-8")


def begin_lesson(root: Path, name: str) -> Path:
    """Copy the template to a new lesson's folder.

    Args:
        root: The checkout's folder.
        name: Number and name, for example ``"08_decoders"``.

    Returns:
        The new folder.

    Raises:
        GeopeftError: The name has another form, or the number is taken.
    """
    sources = root / "notebooks" / "source"
    if not re.fullmatch(r"[0-9]{2}_[a-z0-9_]+", name):
        raise GeopeftError(
            f"Name a lesson by two digits and words, such as 08_decoders; got {name}."
        )
    if taken := list(sources.glob(f"{name[:2]}_*")):
        raise GeopeftError(f"Number {name[:2]} is taken by {taken[0].name}; choose another.")
    for path in TEMPLATE.iterdir():
        text = path.read_text(encoding="utf-8").replace("NN", name[:2])
        (sources / name).mkdir(parents=True, exist_ok=True)
        (sources / name / path.name).write_text(text, encoding="utf-8")
    return sources / name


def main(arguments: list[str] | None = None) -> int:
    """Write the notebooks, compare them or begin a lesson; return the exit status."""
    parser = argparse.ArgumentParser(prog="python notebooks/build.py")
    parser.add_argument("--check", action="store_true", help="only compare with the source")
    parser.add_argument("--new", metavar="NN_name", help="begin a lesson, and build it")
    parser.add_argument("--repository", metavar="ADDRESS", help="set the repository's address")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: here)")
    options = parser.parse_args(arguments)
    if options.check:
        lines = differences(options.root)
        for line in lines:
            print(line)
        if lines:
            print("Edit notebooks/source, then run `make notebooks`.")
        return min(1, len(lines))
    if options.repository is not None:
        set_repository(options.root, options.repository)
    if options.new:
        print(f"{begin_lesson(options.root, options.new)}: write the lesson there")
    for path, content in build_all(options.root).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(f"{path}: {len(content) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
