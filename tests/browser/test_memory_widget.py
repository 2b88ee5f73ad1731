"""A learner moves the sliders of the memory widget in JupyterLab and sees the bars redrawn."""

import re
from pathlib import Path

import nbformat
import pytest
from lab_window import MINUTE, Lab, dark, open_and_run, take
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("memory_widget")]

SHOW = """\
import torch
import geopeft_nb as gp

data = gp.load_data("scenes")


def network(method):
    with torch.device("meta"):
        backbone = gp.load_backbone("prithvi_eo_v2_300", weights=None)
        return gp.attach(gp.build_model(backbone, data, decoder="unet"), method)


gp.memory_widget({name: network(name) for name in ("full", "linear_probe", "lora")})
"""


def test_sliders_above_the_ruler_redraw_it_and_the_picture_stays(
    lab: Lab, page: Page, screenshots: Path
) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    notebook = new_notebook(cells=[new_code_cell(SHOW)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / "anatomy.ipynb")
    open_and_run(page, lab.url("anatomy.ipynb"))

    picture = page.locator(".jp-OutputArea-output img")
    expect(picture).to_have_attribute("alt", re.compile("full: .*8 × 224 × 224 px"), timeout=MINUTE)
    batch = page.locator(".widget-hslider .noUi-handle").first
    batch.focus(timeout=MINUTE)
    above, below = batch.bounding_box(), picture.bounding_box()
    assert above and below
    assert above["y"] < below["y"] < 500 and below["y"] + below["height"] <= 900  # all in view
    batch.press("ArrowRight")
    expect(picture).to_have_attribute("alt", re.compile("16 × 224 × 224 px"), timeout=MINUTE)
    status = page.locator('[role="status"][aria-live="polite"]')
    expect(status).to_have_text(re.compile("before: .* Fits on"), timeout=MINUTE)
    page.locator(".widget-dropdown select").first.select_option("lora")
    expect(picture).to_have_attribute(
        "alt", re.compile("lora: .*16 × 224 × 224 px"), timeout=MINUTE
    )
    expect(picture).to_have_count(1)
    page.screenshot(path=screenshots / "anatomy.png")
    with dark(page):
        page.screenshot(path=screenshots / "anatomy_dark.png")

    page.keyboard.press("Control+s")
    page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    page.goto(lab.url("anatomy.ipynb"))
    picture.wait_for(timeout=MINUTE)
    assert picture.evaluate("image => image.naturalWidth") > 0
    take(page, ".jp-CodeCell", screenshots / "anatomy_reloaded.png")
    assert "widgets" not in nbformat.read(lab.folder / "anatomy.ipynb", 4).metadata
