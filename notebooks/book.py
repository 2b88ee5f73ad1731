"""Make a site of the executed lessons that can be read without a network.

    python notebooks/book.py --out out/book
    python notebooks/book.py --out out/book --lessons 01 04 -p FAST True

Exercises stay open in it, and widgets give way to their figures, as in the page of `run.py`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import build
import yaml
from nbformat.v4 import new_markdown_cell, new_notebook
from run import find_lesson, page, run_lesson

NOTEBOOKS = Path(__file__).resolve().parent
HEAD = """# geopeft_nb
Learn parameter-efficient fine-tuning of geospatial foundation models by doing: what the lessons
show when they are run. The notebooks have the exercises. [Glossary](GLOSSARY.md)

"""


def linked(html: str) -> str:
    """Let links to notebooks and to Markdown lead to the pages that are made of them.

    Example:
        >>> linked('<a href="04_lora.ipynb#Set-up">')
        '<a href="04_lora.html#Set-up">'
    """
    return re.sub(r'href="(\w+)\.(?:ipynb|md)(["#])', r'href="\1.html\2', html)


def pages(lessons: list[Path], parameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Run lessons, one after the other, and give the name and content of each page."""
    words = (NOTEBOOKS / "GLOSSARY.md").read_text(encoding="utf-8")
    contents = HEAD + build.course_map(build.course(NOTEBOOKS / "source"), "")
    for name, text in (("index", contents), ("GLOSSARY", words)):
        yield name, linked(page(new_notebook(cells=[new_markdown_cell(text)]), name))
    for lesson in lessons:
        with TemporaryDirectory() as folder:
            html = run_lesson(lesson, Path(folder), parameters).read_text(encoding="utf-8")
        yield lesson.stem, linked(html)


def main(arguments: list[str] | None = None) -> None:
    """Write the site, a page as soon as its lesson has run."""
    parser = argparse.ArgumentParser(prog="python notebooks/book.py")
    parser.add_argument("--out", type=Path, default=Path("out/book"), help="folder to write to")
    parser.add_argument("--lessons", nargs="+", metavar="04", help="default: all")
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters",
        help="value for the lessons' parameters cells",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    named = [find_lesson(lesson) for lesson in options.lessons or []]
    lessons = named or sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    options.out.mkdir(parents=True, exist_ok=True)
    parameters = {name: yaml.safe_load(value) for name, value in options.parameters}
    for name, content in pages(lessons, parameters):
        (options.out / f"{name}.html").write_text(content, encoding="utf-8")
        print(options.out / f"{name}.html", flush=True)


if __name__ == "__main__":
    main()
