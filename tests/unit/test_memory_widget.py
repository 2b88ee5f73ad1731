"""The memory widget draws a plan to scale, says where it fits, and asks for each plan once."""

from typing import Any

import pandas as pd
import pytest

import geopeft_nb as gp
from geopeft_nb.memory import plan as module
from geopeft_nb.memory.plan import DEVICES, MemoryPlan
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.memory_bars import folded, memory_figure
from geopeft_nb.pictures.show import PALETTE

MIB = 2**20


def a_plan(batch_size: int, size: int, trained: bool) -> MemoryPlan:
    """Make two blocks and a decoder whose activations grow with batch and size."""
    block = {"weights": 100 * MIB, "gradients": 100 * MIB * trained}
    block |= {"optimiser": 200 * MIB * trained, "activations": batch_size * size * MIB // 16}
    decoder = {"weights": 20 * MIB, "gradients": 20 * MIB, "optimiser": 40 * MIB}
    table = pd.DataFrame(
        [block, block, {**decoder, "activations": 0}], index=["block 1", "block 2", "decoder"]
    )
    table["total"] = table.sum(axis=1)
    return MemoryPlan(table, int(table["total"].sum()) + MIB, "a fake")


def test_equal_blocks_fold_into_one_row_drawn_to_one_scale() -> None:
    plan = a_plan(8, 224, trained=True)
    ruler, bars = memory_figure(plan.table, plan.peak, "title", DEVICES).axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["blocks 1–2", "decoder"]
    assert [text.get_text().strip() for text in bars.texts] == ["512 MiB each", "80.0 MiB"]
    widths = [bar.get_width() for bar in bars.patches]
    assert widths == [100, 20, 100, 20, 200, 40, 112, 0]
    colours = [bar.get_facecolor() for bar in bars.patches]
    assert colours[::2] == colours[1::2] and len(set(colours)) == len(PALETTE)
    said = [text.get_text() for text in ruler.texts]
    assert said[:2] == ["✓ Binder\n2 GB", "✓ T4\n16 GB"]
    assert ruler.get_xscale() == "log" and "logarithmic scale" in ruler.get_xlabel()
    huge = memory_figure(plan.table, 2e10, "title", DEVICES).axes[0]
    assert [text.get_text()[0] for text in huge.texts] == ["✗", "✗", "✓", "✓"]


def test_blocks_that_differ_stay_apart() -> None:
    names = ["block 1", "block 2", "block 3", "stage 4", "decoder", "loss"]
    rows = folded(pd.DataFrame({"total": [3, 3, 4, 4, 4, 4]}, index=names))
    assert [*rows.index] == ["blocks 1–2", "block 3", "stage 4", "decoder", "loss"]
    assert [*rows["count"]] == [2, 1, 1, 1, 1]


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    backbone = gp.load_backbone("geopeft_tiny", None)
    return gp.attach(gp.build_model(backbone, gp.load_data("scenes"), decoder="linear"), "lora")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what is displayed: the controls, and each picture."""
    things: list[Any] = []

    class Handle:
        def update(self, bundle: dict[str, str], **_: object) -> None:
            things.append(bundle)

    def display(thing: object, **_: object) -> Handle:
        things.append(thing)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    return things


def test_sliders_lie_above_the_picture_redraw_it_and_say_so(
    model: SegmentationModel, shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def plan(*settings: Any) -> MemoryPlan:
        asked.append(settings[1:])
        if settings[-1] == "cached":
            raise gp.GeopeftError("nothing is frozen, so there is nothing to cache.")
        return a_plan(*settings[1:3], trained=settings[-1] is None)

    monkeypatch.setattr(module, "memory_plan", plan)
    gp.memory_widget({"rank 8": model, "rank 16": model}, 2, 64, batches=(8, 1))
    box, first = shown
    *controls, status = box.children
    control = {control.description: control for control in controls}
    assert [*control] == ["method", "batch_size", "size", "precision", "recipe"]
    assert control["batch_size"].options == (1, 2, 8)
    assert not control["batch_size"].continuous_update  # a plan takes up to a second
    assert set(first) == {"text/plain", "text/html", "image/png"}
    assert "rank 8: a fake\n" in first["text/plain"]
    assert "Fits on Binder, T4, A100, H200." in first["text/plain"]
    control["recipe"].value = "checkpoint"
    assert "(before: 896 MiB; now 0.33 times as much)" in status.value
    assert 'role="status"' in status.value and "Fits on" in status.value
    control["recipe"].value = "no recipe"
    assert "now 3 times as much" in shown[-1]["text/plain"]
    control["recipe"].value = "cached"
    assert "nothing is frozen" in status.value
    assert "cached is not possible:\nnothing is frozen" in shown[-1]["text/plain"]
    assert asked == [(2, 64, "fp32", recipe) for recipe in (None, "checkpoint", "cached")]


def test_one_model_is_planned_in_earnest(model: SegmentationModel, shown: list[Any]) -> None:
    gp.memory_widget(model, size=64)
    assert "linear decoder, planned: 8 × 64 × 64 px, fp32\n" in shown[-1]["text/plain"]
    shown[0].children[-2].value = "8bit"
    assert "before:" in shown[-1]["text/plain"]
