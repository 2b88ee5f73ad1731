"""A learner moves a slider of a lesson in JupyterLab and sees its picture redrawn."""

import re
from pathlib import Path

import nbformat
import pytest
from lab_window import MINUTE, Lab, open_and_run, take
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("sliders")]


def test_slider_of_the_planet_redraws_it_in_place(
    lab: Lab, page: Page, screenshots: Path, root: Path
) -> None:
    notebook = nbformat.read(root / "notebooks/10_somewhere_new.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    needed = r"^(seed =|import |COLOURS|def draw_c|sliders\()"
    notebook.cells = [cell for cell in code if re.search(needed, cell.source, re.MULTILINE)]
    nbformat.write(notebook, lab.folder / "planet.ipynb")
    open_and_run(page, lab.url("planet.ipynb"))

    picture = page.locator('img[alt^="SYNTHETIC"]')
    expect(picture).to_have_attribute("alt", re.compile("SYNTHETIC: shift 0.00"), timeout=MINUTE)
    shift = page.locator(".widget-slider .noUi-handle").first
    shift.focus(timeout=MINUTE)
    shift.press("End")
    expect(picture).to_have_attribute("alt", re.compile("shift 1.00"), timeout=MINUTE)
    page.locator(".widget-dropdown select").select_option("crops")
    expect(picture).to_have_attribute("alt", re.compile("task crops"), timeout=MINUTE)
    expect(picture).to_have_count(1)
    take(page, ".jp-CodeCell", screenshots / "planet.png")
