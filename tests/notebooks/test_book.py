"""The site of the lessons: formulas need no script, and links lead to its own pages."""

import base64
import re
import shutil
from pathlib import Path

import book
import nbformat
from course import write_minutes
from nbformat.v4 import new_markdown_cell, new_notebook
from run import page

PICTURE = re.compile(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]+)"')


def pictures(html: str) -> list[str]:
    """Alternative texts of the formulas on a page, each of which has to be a picture."""
    found = PICTURE.findall(html)
    assert all(b"<path" in base64.b64decode(picture) for _, picture in found)
    return [words for words, _ in found]


def test_formulas_are_pictures_and_code_stays() -> None:
    text = "Type `$x$`.\n\n```\necho $y$\n```\n\n$$\\frac{a}{b}$$\n\n| a | $|z|$ |\n|---|---|\n"
    html = page(new_notebook(cells=[new_markdown_cell(text)]), "title")
    assert pictures(html) == [r"\frac{a}{b}", "|z|"]
    assert "<code>$x$</code>" in html and "<th>a</th>" in html


def test_every_formula_of_a_lesson_is_drawn(lesson: Path) -> None:
    notebook = nbformat.read(lesson, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    prose = "\n".join(re.sub(r"```.*?```|`[^`]*`", "", c.source, flags=re.DOTALL) for c in cells)
    html = page(new_notebook(cells=cells), lesson.stem)
    wanted = prose.replace("$$", "$").count("$")
    assert 2 * len(pictures(html)) == wanted


def test_links_lead_to_pages_of_the_site(root: Path) -> None:
    index, glossary = (content for _, content in book.pages([], {}))
    names = {path.stem for path in root.glob("notebooks/[0-9]*.ipynb")} | {"GLOSSARY"}
    for content in (index, glossary):
        links = re.findall(r'href="([^":#]+)', content)
        assert {Path(link).stem for link in links} <= names
        assert all(link.endswith(".html") for link in links)
    assert all(f'href="{name}.html"' in index for name in names)


def test_minutes_of_a_run_are_written_wherever_they_stand(root: Path, tmp_path: Path) -> None:
    lesson = "04_lora"
    places = "README.md", "notebooks/TEACHING.md", f"notebooks/source/{lesson}/lesson.py"
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / place, tmp_path / place)
    write_minutes(tmp_path, lesson, 7776 * 60 + 1)
    said = [(tmp_path / place).read_text(encoding="utf-8") for place in places]
    assert [len(re.findall(r"\b7777\b", text)) for text in said] == [1, 1, 1]
