"""A learner moves the sliders of the memory widget in JupyterLab and sees the bars redrawn."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from lab_window import MINUTE, Lab, dark, open_and_run, take
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHOW = """\
import time
from types import SimpleNamespace
import pandas as pd
from geopeft_nb.widgets.anatomy import MemoryAnatomy

MIB = 2**20


def plan(method, batch_size, size, precision, recipe):
    time.sleep(0.5)
    blocks = [f"block {number}" for number in range(1, 13)]
    parts = ["patch embedding", *blocks, "decoder"]
    trained = [0 if method == "lora" else 1] * 13 + [1]
    table = pd.DataFrame({"weights": [30 * MIB] * 14}, index=parts)
    table["gradients"] = table.weights * trained
    table["optimiser"] = 2 * table.gradients
    table["activations"] = batch_size * size**2 * 40 * (2 if precision == "fp32" else 1)
    table["total"] = table.sum(axis=1)
    sums = {name: int(table[name].sum()) for name in table}
    return SimpleNamespace(
        table=table, **sums, peak=sums["total"], batch_size=batch_size, size=(size, size),
        precision=precision, frugal=(), title=f"A network with {method}",
        fits=lambda limit: sums["total"] <= limit,
    )


anatomy = MemoryAnatomy(plan, ["full", "lora"])
anatomy.choose(batch_size=8, size=224)
anatomy
"""


def test_sliders_redraw_the_bars_and_the_picture_stays(
    lab: Lab, page: Page, screenshots: Path
) -> None:
    notebook = new_notebook(cells=[new_code_cell(SHOW)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / "anatomy.ipynb")
    open_and_run(page, lab.url("anatomy.ipynb"))

    picture = page.locator(".gp-anatomy svg")
    expect(picture).to_have_attribute("aria-label", re.compile("batch 8 · 224"), timeout=MINUTE)
    bar = page.locator(".gp-anatomy svg .gp-band").last
    before = bar.get_attribute("width")
    batch = page.locator(".widget-hslider .noUi-handle").first
    batch.focus(timeout=MINUTE)
    batch.press("ArrowRight")
    expect(picture).to_have_attribute("aria-label", re.compile("batch 16 · 224"), timeout=MINUTE)
    assert bar.get_attribute("width") != before
    status = page.locator('[role="status"][aria-live="polite"]')
    expect(status).to_have_text(re.compile("batch 16"), timeout=MINUTE)
    page.locator(".widget-dropdown select").first.select_option("lora")
    expect(picture).to_have_attribute("aria-label", re.compile("with lora"), timeout=MINUTE)
    expect(picture.get_by_text(re.compile("before: "))).to_have_count(1)
    expect(picture).to_have_count(1)
    take(page, ".jp-OutputArea:has(.gp-anatomy)", screenshots / "anatomy.png")
    with dark(page):
        take(page, ".jp-OutputArea:has(.gp-anatomy)", screenshots / "anatomy_dark.png")

    page.keyboard.press("Control+s")
    page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    page.goto(lab.url("anatomy.ipynb"))
    still = page.locator(".gp-anatomy")
    still.wait_for(timeout=MINUTE)
    shown = still.locator("svg, img.gp-fallback")
    assert any(shown.nth(i).is_visible() for i in range(shown.count()))
    assert "widgets" not in nbformat.read(lab.folder / "anatomy.ipynb", 4).metadata
