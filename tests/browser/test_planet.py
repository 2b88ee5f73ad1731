"""A learner turns up the shift of the sandbox planet in JupyterLab and sees it redrawn."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from lab_window import MINUTE, Lab, open_and_run, take
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHOW = """\
from geopeft_nb.widgets.planet import Planet

Planet(task="flood", shift=0.0)
"""


def test_sliders_redraw_the_planet_in_place_by_keyboard(
    lab: Lab, page: Page, screenshots: Path
) -> None:
    notebook = new_notebook(cells=[new_code_cell(SHOW)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / "planet.ipynb")
    open_and_run(page, lab.url("planet.ipynb"))

    picture = page.locator("img.gp-planet")
    expect(picture).to_have_attribute("alt", re.compile("SYNTHETIC.*shift 0.00"), timeout=MINUTE)
    shift, chip = (page.locator(".widget-slider .noUi-handle").nth(index) for index in (0, 1))
    shift.focus(timeout=MINUTE)
    shift.press("End")
    expect(picture).to_have_attribute("alt", re.compile("shift 1.00"), timeout=MINUTE)
    shift.press("ArrowLeft")
    expect(picture).to_have_attribute("alt", re.compile("shift 0.95"), timeout=MINUTE)
    chip.focus()
    chip.press("ArrowRight")
    expect(picture).to_have_attribute("alt", re.compile("chip 1"), timeout=MINUTE)
    page.locator(".widget-dropdown select").select_option("crops")
    expect(picture).to_have_attribute("alt", re.compile("task crops"), timeout=MINUTE)
    expect(picture).to_have_count(1)
    take(page, ".jp-CodeCell", screenshots / "planet.png")
