"""A learner watches, pauses and stops a training run from JupyterLab, while its cell is running."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from lab_window import MINUTE, Lab, dark, open_and_run, take
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OUTPUT = ".jp-OutputArea:has(.gp-dashboard)"
NOTE = """\
import time
from geopeft_nb.widgets.controls import Controls
from geopeft_nb.widgets.dashboard import Dashboard

ended, asked, update, ask = [], {}, Dashboard.update, Controls.ask


def note_step(view, **step):
    ended.append(time.perf_counter())
    update(view, **step)


def note_click(controls, what):
    if what:
        asked.setdefault(what, time.perf_counter())
    ask(controls, what)


Dashboard.update, Controls.ask = note_step, note_click
"""
TRAIN = """\
import geopeft_nb as gp

data = gp.load_data("scenes")
backbone = gp.load_backbone("geopeft_tiny", bands=data.bands)
network = gp.attach(gp.build_model(backbone, data, decoder="linear"), "linear_probe")
run = gp.fit(network, data, epochs=1000)
"""
ASK = """\
late = sum(when > asked["stop"] for when in ended)
print(f"{run.state} with best mIoU {run.best['val_miou']:.3f} after {len(run.history)} steps")
print(f"{late} steps after the click, best of all {run.history.val_miou.max():.3f}")
"""


def a_run(lab: Lab, page: Page, name: str, *cells: str) -> Locator:
    """Open a notebook that trains, and return its running view once it has a score."""
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / name)
    open_and_run(page, lab.url(name))
    running = page.locator('.gp-dashboard[data-state="running"]')
    running.get_by_text(re.compile("best validation mIoU")).first.wait_for(timeout=MINUTE)
    return running


def step_of(view: Locator) -> int:
    return int(view.get_attribute("data-step") or -1)


def button(page: Page, name: str) -> Locator:
    return page.locator("button.widget-button", has_text=name)


def test_curves_move_pause_holds_and_stop_keeps_the_best(
    lab: Lab, page: Page, screenshots: Path
) -> None:
    running = a_run(lab, page, "watched.ipynb", NOTE, TRAIN, ASK)

    # The curves move.
    loss = running.locator("svg path[stroke-linejoin]").first
    before, curve = step_of(running), loss.get_attribute("d")
    page.wait_for_function(
        "before => document.querySelector('.gp-dashboard').dataset.step > before + 3", arg=before
    )
    assert loss.get_attribute("d") != curve
    expect(page.locator(".gp-strip img")).to_have_count(4 * 4, timeout=MINUTE)
    take(page, OUTPUT, screenshots / "live_view.png")
    with dark(page):
        take(page, OUTPUT, screenshots / "live_view_dark.png")

    # Paused by keyboard, it stays where it is, and says so.
    button(page, "Pause").focus()
    page.keyboard.press("Enter")
    paused = page.locator('.gp-dashboard[data-state="paused"]')
    paused.wait_for(timeout=MINUTE)
    assert button(page, "Pause").is_disabled()
    assert "Paused" in page.locator('[role="status"][aria-live="polite"]').inner_text()
    held = step_of(paused)
    page.wait_for_timeout(1500)
    assert step_of(paused) == held
    take(page, OUTPUT, screenshots / "live_view_paused.png")
    button(page, "Resume").click()
    running.wait_for(timeout=MINUTE)
    page.wait_for_function(
        "held => document.querySelector('.gp-dashboard').dataset.step > held", arg=held
    )

    # Stopped, it ends after the step under way and keeps the best.
    button(page, "Stop and keep best").click()
    page.locator('.gp-dashboard[data-state="stopped"]').wait_for(timeout=MINUTE)
    expect(button(page, "Pause")).to_have_count(0)
    take(page, OUTPUT, screenshots / "live_view_stopped.png")
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

    # Saved and opened anew, the picture is there without a kernel and without widgets.
    page.keyboard.press("Control+s")
    saved = lab.folder / "watched.ipynb"
    page.wait_for_function("() => !document.querySelector('.jp-mod-dirty')")
    notebook = nbformat.read(saved, 4)
    assert "widgets" not in notebook.metadata
    outputs = [output for output in notebook.cells[1].outputs if "data" in output]
    assert len(json.dumps(outputs)) < 60_000
    page.goto(lab.url("watched.ipynb"))
    still = page.locator('.gp-dashboard[data-state="stopped"]')
    still.wait_for(timeout=MINUTE)
    shown = still.locator("svg, img.gp-fallback")
    assert any(shown.nth(i).is_visible() for i in range(shown.count()))
    expect(page.locator(".gp-strip img")).to_have_count(4 * 4)
    assert page.locator(".gp-strip img").first.evaluate("image => image.naturalWidth") > 0
    take(page, OUTPUT, screenshots / "live_view_reloaded.png")


def test_a_paused_run_can_be_stopped(lab: Lab, page: Page) -> None:
    a_run(lab, page, "paused.ipynb", TRAIN)
    button(page, "Pause").click()
    paused = page.locator('.gp-dashboard[data-state="paused"]')
    paused.wait_for(timeout=MINUTE)
    held = step_of(paused)
    button(page, "Stop and keep best").click()
    stopped = page.locator('.gp-dashboard[data-state="stopped"]')
    stopped.wait_for(timeout=MINUTE)
    assert step_of(stopped) == held
