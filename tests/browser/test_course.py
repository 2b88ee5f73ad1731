"""A learner goes through a lesson in JupyterLab, cell by cell: `make course`."""

from pathlib import Path

import nbformat
import nbval_reference
import pytest
from lab_window import MINUTE, Lab
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.course]

NEXT = "() => window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')"
RICH = ".gp-dashboard, .widget-box, .jupyter-widgets, iframe, img, table"
# A table may be wider than the page if it can be scrolled; a picture or a widget may not.
CUT = """(output) => [...output.querySelectorAll('img, iframe, .gp-dashboard')]
  .filter((shown) => shown.offsetWidth > output.closest('.jp-OutputArea').clientWidth + 1)
  .map((shown) => shown.outerHTML.slice(0, 200))"""
EMPTY = """(output) => [...output.querySelectorAll('img')]
  .filter((image) => !image.complete || image.naturalWidth <= 8 || !image.alt.trim())
  .map((image) => image.outerHTML.slice(0, 200))"""


LESSONS = sorted((Path(__file__).resolve().parents[2] / "notebooks/solutions").glob("*.ipynb"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_cell_shows_what_it_should(
    lesson: Path, lab: Lab, page: Page, screenshots: Path
) -> None:
    """No error, no widget that cannot be drawn, no map that stays empty, nothing cut off."""
    notebook = nbval_reference.load_notebook_node(str(lesson))
    notebook = nbval_reference.fast(notebook, lab.folder / "out")
    nbformat.write(notebook, lab.folder / lesson.name)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.set_default_timeout(5 * MINUTE)
    page.goto(lab.url(lesson.name))
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()
    folder = screenshots / "course" / lesson.stem
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()

    cells = page.locator(".jp-Notebook .jp-Cell")
    for number, cell in enumerate(notebook.cells):
        page.evaluate(NEXT)
        shown = cells.nth(number).locator(".jp-OutputArea-output")
        errors = cells.nth(number).locator('[data-mime-type="application/vnd.jupyter.error"]')
        assert errors.all_inner_texts() == [], cell.source[:200]
        if not shown.locator(RICH).count():
            continue
        for index in range(cells.nth(number).locator("iframe").count()):
            frame = cells.nth(number).frame_locator("iframe").nth(index)
            expect(frame.locator("body[data-ready]")).to_be_attached()
        page.wait_for_timeout(500)  # until widgets are laid out
        assert "Error displaying widget" not in "".join(shown.all_inner_texts())
        assert [shown.nth(i).evaluate(x) for i in range(shown.count()) for x in (CUT, EMPTY)] == (
            [[]] * 2 * shown.count()
        ), cell.source[:200]
        shown.first.scroll_into_view_if_needed()
        page.screenshot(path=folder / f"{number:02d}.png")
