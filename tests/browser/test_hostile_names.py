"""JupyterLab shows data, runs and models under hostile names, and their scripts do not run."""

from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from lab_window import MINUTE, Lab, open_and_run, take
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("hostile_names")]

START = """\
import sys
sys.path.insert(0, {folder!r})
from hostile_words import *
from IPython.display import HTML, Markdown, display
name = NAMES[{name!r}]
run, data = run_named(name)
"""
SHOW = [
    "display(data, run, run.model, gp.data_card(data), report_named(name), plan_named(name))",
    "display(Result('01/x', 'not yet', name), HTML(quiz(name)), gp.list_datasets())",
    "report_named(name).compare(report_named(name))",
    "map_named(name)",
    "Markdown(model_card(name, Path('hostile')).split('---', 2)[2])",
    "gp.memory_widget({name: run.model})",
    """\
view = Dashboard("LoRA", 2, data=name, chips=lambda: WatchedChips(data, run.predict))
view.start()
view.update([{"step": 1, "epoch": 1, "seconds": 1.0, "lr": 1, "train_loss": 1, "memory_bytes": 1}])
view.chips.look()
view._due = 0.0  # of the next picture
view._tell()
""",
    "raise gp.GeopeftError(f'{name} is unknown')",
]
LAST = ".jp-Notebook .jp-CodeCell:has-text('is unknown')"
INJECTED = ".jp-OutputArea :is([onerror], [onload], [onmouseover], [onfocus], [href^=javascript])"


@pytest.mark.parametrize("name", ["script", "image", "attribute", "cell", "formula", "link"])
def test_names_are_words_in_the_browser(
    name: str, lab: Lab, browser: Browser, screenshots: Path, root: Path
) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    start = START.format(folder=str(root / "tests/unit"), name=name)
    notebook = new_notebook(cells=[new_code_cell(source) for source in (start, *SHOW)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / f"{name}.ipynb")
    asked: list[str] = []
    opened: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (opened.append(dialog.message), dialog.dismiss()))
    open_and_run(page, lab.url(f"{name}.ipynb"))
    error = page.locator(f"{LAST} .jp-OutputArea").get_by_text("Traceback")
    error.wait_for(timeout=2 * MINUTE)
    page.wait_for_timeout(2000)  # pictures, and maps after them
    take(page, ".jp-Notebook", screenshots / f"names_{name}.png")
    assert page.locator(".jp-OutputArea").get_by_text("Traceback").count() == 1
    assert page.locator(".jp-OutputArea .gp-dashboard").count() == 1
    for element in page.locator(".jp-OutputArea :is(th, td, summary, .gp-check)").all()[:40]:
        element.dispatch_event("mouseover")
    assert page.evaluate("() => window.owned") is None
    assert page.locator(INJECTED).count() == 0
    assert opened == []
    assert {urlsplit(url).hostname for url in asked} <= {"127.0.0.1", None}
    page.close()
