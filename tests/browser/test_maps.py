"""A learner moves in a map of a scene: in JupyterLab, and in the file that was saved of it."""

import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import rasterio
from lab_window import MINUTE, Lab, open_and_run, take
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from playwright.sync_api import Browser, FrameLocator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("maps")]

SHOW = """\
from pathlib import Path
import geopeft_nb as gp
from geopeft_nb.evaluation.scene import Scene

def scene(name):
    files = [Path(f"{name}{end}.tif") for end in ("", "_probability", "_applicability")]
    return Scene(*files, ("soil", "<b>crop</b>", "water"), ("#D9CFB8", "#E69F00", "#0072B2"))

gp.map_scene({"LoRA": scene("lora"), "full": scene("full")}, out="map.html")
"""
SIDE = 600


def write_scene(folder: Path, name: str, left: int) -> None:
    """Write a scene: the left half is of one class, the right of water; the top is outside."""
    half = np.arange(SIDE) < SIDE // 2
    classes = np.tile(np.where(half, left, 2), (SIDE, 1)).astype(np.uint8)
    layers = {"": (classes, 1), "_probability": (np.full_like(classes, 150), 1 / 200)}
    far = np.where(np.arange(SIDE)[:, None] < SIDE // 4, 130, 40) + 0 * classes
    layers["_applicability"] = (far.astype(np.uint8), 1 / 100)
    kind = {"count": 1, "dtype": "uint8", "nodata": 255, "crs": "EPSG:32618"}
    place = rasterio.transform.from_origin(435_740, 4_179_460, 10, 10)
    for end, (band, scale) in layers.items():
        path = folder / f"{name}{end}.tif"
        with rasterio.open(path, "w", "GTiff", SIDE, SIDE, transform=place, **kind) as file:
            file.write(band, 1)
            file.scales = (scale,)


def look_around(shown: Page | FrameLocator, height: int, screenshots: Path) -> None:
    """Do with a map what a learner does, and look at what it shows."""
    shown.locator("body[data-ready]").wait_for(timeout=MINUTE)
    pane, said = shown.locator(".pane"), shown.locator("#said")
    box = pane.bounding_box()
    assert box and box["width"] > 600 and box["height"] >= height
    middle, below = box["width"] / 2, 0.6 * box["height"]
    inside = 0.2 * box["height"]  # from the middle to a place that is still on the scene

    pane.click(position={"x": middle + inside, "y": below})
    for words in (
        "Class: LoRA: water",
        "Probability: full: 0.75",
        "Distance from training: LoRA: 0.40",
    ):
        expect(said).to_contain_text(words)
    expect(said).not_to_contain_text("outside")
    pane.click(position={"x": middle - inside, "y": 0.15 * box["height"]})
    expect(said).to_contain_text("Class: full: <b>crop</b>")
    expect(said).to_contain_text("1.30 (outside what training saw)")
    expect(said).to_contain_text(re.compile(r"^37\.7\d+°, -75\.7\d+°"))

    def colour() -> tuple[int, ...]:
        """Look at a place that is on the left of the scene."""
        shot = Image.open(io.BytesIO(pane.screenshot())).convert("RGB")
        found = shot.getpixel((int(middle - 0.5 * inside), int(below)))
        assert isinstance(found, tuple)
        return found

    assert colour() == (0xD9, 0xCF, 0xB8), "soil of LoRA, left of the bar"
    shown.get_by_label("Swipe").fill("0.1")
    assert colour() == (0xE6, 0x9F, 0), "crop of full, right of the bar"
    shown.get_by_label("Opacity").fill("0")
    assert colour() not in ((0xD9, 0xCF, 0xB8), (0xE6, 0x9F, 0))
    shown.get_by_label("Opacity").fill("1")
    shown.get_by_label("Right").select_option("Probability: full")
    assert colour() == (0x21, 0x91, 0x8C), "probability 70 to 90 %"
    expect(shown.get_by_label("Legend")).to_contain_text("70 to 90 %")
    shown.get_by_label("Right").select_option("Nothing")
    expect(shown.get_by_label("Legend")).to_have_text(
        "soil<b>crop</b>wateroutside what training saw"
    )
    shown.get_by_label("Right").select_option("Class: full")

    # The bar is dragged, the map magnified and moved, and its middle is asked for by a key.
    shown.get_by_label("Swipe").fill("0.5")
    pane.drag_to(pane, source_position={"x": middle, "y": below},
                 target_position={"x": middle + inside, "y": below})  # fmt: skip
    assert float(shown.get_by_label("Swipe").input_value()) > 0.55
    pane.press("+")
    pane.press("+")
    pane.drag_to(pane, source_position={"x": middle + 2 * inside, "y": below},
                 target_position={"x": middle, "y": below})  # fmt: skip
    pane.press("Enter")
    expect(said).to_contain_text("Class: LoRA: water")
    pane.screenshot(path=screenshots / f"scene_magnified_{height}.png")
    shown.get_by_title("Show all").click()
    assert pane.evaluate("pane => pane.scrollWidth <= pane.clientWidth")
    shown.get_by_label("Swipe").fill("0.5")


def test_a_scene_is_explored_in_jupyterlab_and_as_a_file_without_network(
    lab: Lab, page: Page, browser: Browser, screenshots: Path
) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    write_scene(lab.folder, "lora", 0)
    write_scene(lab.folder, "full", 1)
    notebook = new_notebook(cells=[new_code_cell(SHOW)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / "scene.ipynb")
    open_and_run(page, lab.url("scene.ipynb"))
    frame = page.locator(".jp-OutputArea-output iframe")
    frame.wait_for(timeout=2 * MINUTE)
    frame.scroll_into_view_if_needed()
    inside = page.frame_locator(".jp-OutputArea-output iframe")
    look_around(inside, 430, screenshots)
    box, bottom = frame.bounding_box(), inside.locator("#said").bounding_box()
    assert box and bottom and box["height"] <= 620
    assert bottom["y"] + bottom["height"] <= box["y"] + box["height"], "nothing is cut off"
    page.screenshot(path=screenshots / "scene_lab.png")
    take(page, ".jp-OutputArea-output img", screenshots / "scene_figure.png")

    saved = lab.folder / "map.html"
    assert saved.stat().st_size < 5_000_000
    alone = browser.new_page(viewport={"width": 1440, "height": 900})
    asked: list[str] = []
    alone.on("request", lambda request: asked.append(request.url))
    alone.context.set_offline(True)
    alone.goto(saved.as_uri())
    look_around(alone, 500, screenshots)
    alone.screenshot(path=screenshots / "scene_file.png")
    assert [url for url in asked if not url.startswith("data:")] == [saved.as_uri()]
    assert alone.evaluate("document.documentElement.scrollHeight") <= 900
    alone.close()
