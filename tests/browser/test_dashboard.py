"""A learner watches and stops a training run in JupyterLab at 1440 × 900."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from lab_window import MINUTE, Lab, dark, open_and_run, take
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("dashboard")]

BUILD = """\
import time
import geopeft_nb as gp
from geopeft_nb.widgets import controls
from geopeft_nb.widgets.live import Dashboard

data = gp.load_data("scenes")


def network(method):
    backbone = gp.load_backbone("geopeft_tiny", bands=data.bands)
    return gp.attach(gp.build_model(backbone, data, decoder="linear"), method)


for method in ("linear_probe", "bitfit"):  # to be seen as curves behind the one that is watched
    gp.fit(network(method), data, epochs=2)

ended, pressed, update, look = [], [], Dashboard.update, controls.Panel._look


def note_step(view, rows):
    ended.append(time.perf_counter())
    update(view, rows)


def note_click(panel, frames):
    look(panel, frames)
    if panel.stopped.is_set():
        pressed.append(time.perf_counter())


Dashboard.update, controls.Panel._look = note_step, note_click
"""
TRAIN = "run = gp.fit(network('lora'), data, epochs=1000)"
ASK = """\
late = sum(when > pressed[0] for when in ended)
print(f"{run.state} with best mIoU {run.best['val_miou']:.3f} after {len(run.history)} steps")
print(f"{late} steps after the click, best of all {run.history.val_miou.max():.3f}")
"""


def test_the_view_keeps_its_height_and_stop_keeps_the_best(
    lab: Lab, page: Page, screenshots: Path
) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in (BUILD, TRAIN, ASK)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / "watched.ipynb")
    open_and_run(page, lab.url("watched.ipynb"))
    cell = page.locator(".jp-CodeCell").nth(1)
    view = cell.locator('.gp-dashboard[data-state="running"]')
    view.wait_for(timeout=2 * MINUTE)
    view.scroll_into_view_if_needed()
    stop = view.get_by_role("button", name="Stop and keep best")

    # From step 0 to the fifth validation: the same height, no scrolling, and another picture.
    heights, moved = set(), set()
    picture = view.locator("img")
    for pattern in (r"step ", r"epoch [2-4] ", r"epoch ([5-9]|\d\d) "):
        expect(picture).to_have_attribute("alt", re.compile(pattern), timeout=MINUTE)
        box, place = view.bounding_box(), stop.bounding_box()
        assert box and place
        heights.add(round(box["height"]))
        moved.add(picture.get_attribute("src"))
        assert 0 <= place["y"] and place["y"] + place["height"] <= 900
        assert picture.evaluate("image => image.naturalWidth") > 0
    assert len(heights) == 1 and heights.pop() <= 500
    assert len(moved) == 3
    expect(picture).to_have_attribute("alt", re.compile("held out"))
    page.screenshot(path=screenshots / "live_view.png")
    with dark(page):
        view.scroll_into_view_if_needed()
        page.screenshot(path=screenshots / "live_view_dark.png")

    # Stopped by keyboard, it ends after the step under way, keeps the best and says so.
    stop.focus()
    page.keyboard.press("Enter")
    still = cell.locator('.gp-dashboard[data-state="stopped"]')
    still.wait_for(timeout=MINUTE)
    expect(view).to_have_count(0)
    take(page, ".jp-CodeCell >> nth=1", screenshots / "live_view_stopped.png")
    said = page.locator(".jp-CodeCell").nth(2).locator(".jp-OutputArea-output")
    said.wait_for(timeout=MINUTE)
    told = re.search(
        r"stopped with best mIoU (0\.\d+) after (\d+) steps\s+"
        r"(\d+) steps after the click, best of all (0\.\d+)",
        said.inner_text(),
    )
    assert told
    assert int(told[3]) <= 1
    assert told[1] == told[4]

    # Saved and opened anew, the figure is there without a kernel and without widgets.
    page.keyboard.press("Control+s")
    page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    saved = nbformat.read(lab.folder / "watched.ipynb", 4)
    assert "widgets" not in saved.metadata
    kept = [output for output in saved.cells[1].outputs if "data" in output]
    assert len(kept) == 1 and len(json.dumps(kept)) < 400_000
    page.goto(lab.url("watched.ipynb"))
    picture = page.locator('.gp-dashboard[data-state="stopped"] img')
    picture.wait_for(timeout=MINUTE)
    assert picture.evaluate("image => image.naturalWidth") > 0
    assert "stopped" in (picture.get_attribute("alt") or "")
    take(page, ".jp-CodeCell >> nth=1", screenshots / "live_view_reloaded.png")
