"""A learner moves the slider of the masked reconstruction in JupyterLab and sees it redrawn."""

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
import geopeft_nb as gp
from geopeft_nb.backbones.masked_autoencoder import load_autoencoder
from geopeft_nb.widgets.reconstruction import Reconstructions

chips = gp.load_data("scenes").test
Reconstructions(load_autoencoder("geopeft_tiny").eval(), [chips[0], chips[1]])
"""


def test_slider_redraws_the_reconstruction_in_place(
    lab: Lab, page: Page, screenshots: Path
) -> None:
    notebook = new_notebook(cells=[new_code_cell(SHOW)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / "reconstruction.ipynb")
    open_and_run(page, lab.url("reconstruction.ipynb"))

    picture = page.locator("img.gp-reconstruction")
    expect(picture).to_have_attribute("alt", re.compile("75% of the pixels"), timeout=MINUTE)
    slider = page.locator(".widget-slider .noUi-handle").first
    slider.focus(timeout=MINUTE)
    slider.press("End")
    expect(picture).to_have_attribute("alt", re.compile("95% of the pixels"), timeout=MINUTE)
    expect(picture).to_have_count(1)
    page.locator(".widget-dropdown select").select_option(index=1)
    name = page.locator(".widget-dropdown select option").nth(1).inner_text()
    expect(picture).to_have_attribute("alt", re.compile(name), timeout=MINUTE)
    take(page, ".jp-CodeCell", screenshots / "reconstruction.png")
