"""A learner opens lesson 01 in JupyterLab, runs all cells and sees it happen."""

import re
from pathlib import Path
from typing import NamedTuple

import nbformat
import nbval_reference
import pytest
from lab_window import MINUTE, Lab, open_and_run, take
from playwright.sync_api import Page, TimeoutError, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("lab")]

# Notes every state of each live view that the page shows, before the first cell runs: looking from
# outside could miss a run that takes a few seconds.
WATCH = """
window.liveViews = {};
const note = () => document.querySelectorAll('.jp-Notebook .jp-Cell').forEach((cell, index) => {
  cell.querySelectorAll('.gp-dashboard').forEach((view) => {
    const seen = (window.liveViews[index] ??= []);
    const state = [view.dataset.state, Number(view.dataset.step)];
    if (String(seen.at(-1)) !== String(state)) seen.push(state);
  });
});
new MutationObserver(note).observe(document, {
  subtree: true, childList: true, attributes: true, attributeFilter: ['data-step', 'data-state'],
});
"""
# Every code cell has a number, or one has failed and JupyterLab has dropped the rest.
DONE = """() => {
  const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]
    .filter((cell) => cell.querySelector('.cm-content').innerText.trim());
  const number = (cell) => cell.querySelector('.jp-InputArea-prompt').innerText;
  const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
  return failed || (cells.length && cells.every((cell) => /\\[\\d+\\]/.test(number(cell))));
}"""
MOVING = "() => Object.values(window.liveViews).some((seen) => seen.length > 2)"


class Seen(NamedTuple):
    """What a learner saw of lesson 01."""

    page: Page
    views: dict[str, list[tuple[str, int]]]  # states and steps of each live view, in order
    screenshots: Path


def fast_copy(lesson: Path, folder: Path) -> str:
    """Write the lesson in fast mode into the folder that JupyterLab serves; return its name."""
    notebook = nbval_reference.fast(nbval_reference.load_notebook_node(str(lesson)), folder / "out")
    nbformat.write(notebook, folder / lesson.name)
    return lesson.name


@pytest.fixture(scope="module")
def seen(root: Path, lab: Lab, page: Page, screenshots: Path) -> Seen:
    """Lesson 01 after all cells have run."""
    (lesson,) = root.glob("notebooks/01_*.ipynb")
    name = fast_copy(lesson, lab.folder)
    page.add_init_script(WATCH)
    try:
        open_and_run(page, lab.url(name))
        page.wait_for_function(f"() => ({MOVING})() || ({DONE})()", timeout=2 * MINUTE)
        take(page, ".gp-dashboard", screenshots / "live_view_running.png")
        page.wait_for_function(DONE, timeout=3 * MINUTE)
    except TimeoutError:
        page.screenshot(path=screenshots / "timeout.png")
        raise
    page.wait_for_timeout(1000)  # maps are drawn after their cell has its number
    return Seen(page, page.evaluate("() => window.liveViews"), screenshots)


def test_no_cell_shows_an_error(seen: Seen) -> None:
    seen.page.screenshot(path=seen.screenshots / "lab.png")
    errors = seen.page.locator('.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]')
    assert errors.all_inner_texts() == []
    said = seen.page.locator('.jp-Notebook [data-mime-type="application/vnd.jupyter.stderr"]')
    assert [text for text in said.all_inner_texts() if "Traceback" in text] == []
    shown = seen.page.locator(".jp-Notebook .jp-OutputArea-output").all_inner_texts()
    assert [text for text in shown if "Error displaying widget" in text] == []
    assert [text for text in shown if "Error creating widget" in text] == []


def test_live_view_changes_while_training(seen: Seen) -> None:
    for states in seen.views.values():
        running = [step for state, step in states if state == "running"]
        assert running == sorted(running) and len(set(running)) >= 2, states
        assert states[-1][0] == "finished" and states[-1][1] >= running[-1]


def test_live_view_ends_in_a_picture_with_words_for_screen_readers(seen: Seen) -> None:
    views = seen.page.locator(".gp-dashboard")
    take(seen.page, ".gp-dashboard", seen.screenshots / "live_view_finished.png")
    for index in range(views.count()):
        picture = views.nth(index).locator("img")
        assert picture.bounding_box()
        assert "finished" in (picture.get_attribute("alt") or "")


def test_map_shows_image_and_prediction_and_tells_of_a_pixel(seen: Seen) -> None:
    inside = seen.page.frame_locator(".jp-OutputArea-output iframe")
    inside.locator("body[data-ready]").wait_for(timeout=MINUTE)
    maps = inside.locator(".pane")
    assert maps.count() == 1  # of the region away, in fast mode
    for pane in maps.all():
        box = pane.bounding_box()
        assert box and box["width"] > 300 and box["height"] > 300
        pane.click(position={"x": box["width"] / 2.2, "y": box["height"] / 2})
        expect(inside.locator("#said")).to_contain_text(re.compile("Prediction: .*Label: "))
    take(seen.page, ".jp-OutputArea-output:has(iframe)", seen.screenshots / "map.png")


def test_pictures_in_outputs_are_drawn_and_have_alternative_text(seen: Seen) -> None:
    pictures = seen.page.locator(".jp-OutputArea-output img")
    shown = [p for p in pictures.all() if p.is_visible()]
    assert shown
    for number, picture in enumerate(shown):
        assert (picture.get_attribute("alt") or "").strip()
        assert picture.evaluate("(image) => image.complete && image.naturalWidth > 8")
        picture.scroll_into_view_if_needed()
        picture.screenshot(path=seen.screenshots / f"figure_{number}.png")


def test_choice_of_the_quiz_opens_its_explanation(seen: Seen) -> None:
    choice = seen.page.locator(".gp-quiz details").first
    assert not choice.locator("p").is_visible()
    choice.locator("summary").click()
    assert choice.locator("p").is_visible()
    take(seen.page, ".gp-quiz", seen.screenshots / "quiz.png")


def test_notebook_can_be_saved_with_the_last_state_of_the_live_view(seen: Seen, lab: Lab) -> None:
    seen.page.keyboard.press("Control+s")
    (saved,) = lab.folder.glob("01_*.ipynb")
    seen.page.wait_for_function(
        "() => !document.querySelector('.jp-mod-current.jp-mod-dirty')", timeout=MINUTE
    )
    outputs = [o for cell in nbformat.read(saved, 4).cells for o in cell.get("outputs", [])]
    kept = [o.get("data", {}).get("text/html", "") for o in outputs]
    assert any('class="gp-dashboard"' in str(html) for html in kept)
