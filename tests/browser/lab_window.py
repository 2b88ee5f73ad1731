"""A window of JupyterLab, and what a learner does in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Error, Page

MINUTE = 60_000  # milliseconds
TRIES = 10


class Lab(NamedTuple):
    """A running JupyterLab."""

    folder: Path  # what it serves
    address: str
    token: str

    def url(self, name: str) -> str:
        """Address of a notebook in a workspace of its own."""
        return f"{self.address}/lab/workspaces/test/tree/{name}?token={self.token}&reset"


def open_and_run(page: Page, url: str) -> None:
    """Open a notebook, wait for its kernel, and run all cells from the menu."""
    page.goto(url)
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=MINUTE)
    # The notebook's own indicator says idle before there is a kernel; the status bar does not.
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=MINUTE)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def take(page: Page, selector: str, target: Path) -> None:
    """Keep a picture of the first element that matches, if there is one.

    A live view that is redrawn meanwhile is another element, of which the picture is taken anew.
    """
    element = page.locator(selector).first
    for left in reversed(range(TRIES)):
        if not element.count():
            return
        try:
            element.scroll_into_view_if_needed()
            element.screenshot(path=target)
        except Error as error:
            if not left or "not attached" not in error.message:
                raise
        else:
            return


@contextmanager
def dark(page: Page) -> Iterator[None]:
    """Show JupyterLab in its dark theme for a while."""
    _choose_theme(page, "JupyterLab Dark")
    try:
        yield
    finally:
        _choose_theme(page, "JupyterLab Light")


def _choose_theme(page: Page, name: str) -> None:
    page.keyboard.press("Control+Shift+c")  # the command palette
    page.keyboard.type(f"Theme: {name}")
    entry = page.locator(".lm-CommandPalette-item.lm-mod-active")
    entry.get_by_text(name.removeprefix("JupyterLab ")).wait_for(timeout=MINUTE)
    page.keyboard.press("Enter")
    light = str(name.endswith("Light")).lower()
    page.locator(f'body[data-jp-theme-light="{light}"]').wait_for(state="attached", timeout=MINUTE)
    page.wait_for_timeout(500)  # until the style sheet has arrived
