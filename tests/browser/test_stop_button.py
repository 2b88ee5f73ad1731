"""A learner stops a training run from JupyterLab, while its cell is still running."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from lab_window import MINUTE, Lab, open_and_run, take
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TRAIN = """\
import geopeft_nb as gp

data = gp.load_data("scenes")
backbone = gp.load_backbone("geopeft_tiny", bands=data.bands)
network = gp.attach(gp.build_model(backbone, data, decoder="linear"), "linear_probe")
run = gp.fit(network, data, epochs=1000)
"""
ASK = """\
print(f"{run.state} with best mIoU {run.best['val_miou']:.3f} after {len(run.history)} steps")
"""


def test_stop_button_ends_the_run_and_keeps_the_best_weights(
    lab: Lab, page: Page, screenshots: Path
) -> None:
    notebook = new_notebook(cells=[new_code_cell(TRAIN), new_code_cell(ASK)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / "stop.ipynb")
    open_and_run(page, lab.url("stop.ipynb"))

    # After a first validation there is a best score to keep.
    running = page.locator('.gp-dashboard[data-state="running"]')
    running.get_by_text(re.compile("best validation mIoU")).first.wait_for(timeout=MINUTE)
    page.get_by_role("button", name="Stop and keep best").click()
    page.locator('.gp-dashboard[data-state="stopped"]').wait_for(timeout=MINUTE)
    take(page, ".gp-dashboard", screenshots / "live_view_stopped.png")

    said = page.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea-output")
    said.wait_for(timeout=MINUTE)
    assert re.search(r"stopped with best mIoU 0\.\d+ after \d+ steps", said.inner_text())
