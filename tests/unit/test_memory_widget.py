"""The memory widget draws a plan to scale, says where it fits, and asks for each plan once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

import geopeft_nb as gp
from geopeft_nb.memory import sliders as module
from geopeft_nb.memory.plan import DEVICES, MemoryPlan
from geopeft_nb.memory.sliders import MemorySliders
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.memory_bars import folded, memory_figure
from geopeft_nb.pictures.show import PALETTE

MIB = 2**20
CHOICES = {
    "method": ["full", "lora"], "batch_size": [1, 8, 16], "size": [64, 224],
    "precision": ["fp32", "bf16"], "recipe": ["none", "checkpoint", "cached"],
}  # fmt: skip


def a_plan(method: str, batch_size: int, size: int, precision: str, recipe: str) -> MemoryPlan:
    """Make two blocks and a decoder whose activations grow with batch and size."""
    if recipe == "cached" and method == "full":
        raise ValueError("nothing is frozen, so there is nothing to cache.")
    trained = method == "full"
    block = {"weights": 100 * MIB, "gradients": 100 * MIB * trained}
    block |= {"optimiser": 200 * MIB * trained, "activations": batch_size * size * MIB // 16}
    decoder = {"weights": 20 * MIB, "gradients": 20 * MIB, "optimiser": 40 * MIB}
    table = pd.DataFrame(
        [block, block, {**decoder, "activations": 0}], index=["block 1", "block 2", "decoder"]
    )
    table["total"] = table.sum(axis=1)
    peak, frugal = int(table["total"].sum()) + MIB, () if recipe == "none" else (recipe,)
    return MemoryPlan(
        table, peak, batch_size, (size, size), precision, frugal, f"{method} of a fake"
    )


def test_equal_blocks_fold_into_one_row_drawn_to_one_scale() -> None:
    plan = a_plan("full", 8, 224, "fp32", "none")
    ruler, bars = memory_figure(plan.table, plan.peak, "title", DEVICES).axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["blocks 1–2", "decoder"]
    assert [text.get_text() for text in bars.texts] == ["512 MiB each", "80.0 MiB"]
    widths = [bar.get_width() for bar in bars.patches]
    assert widths == [100, 100, 200, 112, 20, 20, 40, 0]
    colours = [bar.get_facecolor() for bar in bars.patches]
    assert colours[:4] == colours[4:] and len(set(colours)) == len(PALETTE)
    said = [text.get_text() for text in ruler.texts]
    assert said[:2] == ["✓ Binder\n2 GB", "✓ T4\n16 GB"]
    assert ruler.get_xscale() == "log" and "logarithmic scale" in ruler.get_xlabel()
    huge = memory_figure(plan.table, 2e10, "title", DEVICES).axes[0]
    assert [text.get_text()[0] for text in huge.texts] == ["✗", "✗", "✓", "✓"]


def test_blocks_that_differ_stay_apart() -> None:
    names = ["block 1", "block 2", "block 3", "stage 4", "decoder", "loss"]
    rows = folded(pd.DataFrame({"total": [3, 3, 4, 4, 4, 4]}, index=names))
    assert [(name, count) for name, _, count in rows] == [
        ("blocks 1–2", 2), ("block 3", 1), ("stage 4", 1), ("decoder", 1), ("loss", 1)
    ]  # fmt: skip


def test_a_change_is_compared_and_each_plan_is_computed_once() -> None:
    asked: list[str] = []

    def plan(**settings: Any) -> MemoryPlan:  # noqa: ANN401
        asked.append(settings["method"])
        return a_plan(**settings)

    sliders = MemorySliders(plan, CHOICES)
    first = sliders.bundle()
    assert set(first) == {"text/plain", "text/html", "image/png"}
    assert (
        "full of a fake; full · batch 1 · 64 × 64 pixels · fp32 · no recipe" in first["text/plain"]
    )
    assert "Fits on Binder, T4, A100, H200." in first["text/plain"]
    sliders.choose(method="lora")
    assert "(before: 888 MiB; now 0.32 times as much)" in sliders.bundle()["text/plain"]
    sliders.choose(method="full")
    assert "now 3.1 times as much" in sliders.bundle()["text/plain"]
    assert asked == ["full", "lora"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"batch_size": 3}, "batch_size 3 is not one of 1, 8, 16"),
        ({"batch": 8}, "Unknown setting 'batch'"),
    ],
)
def test_unknown_choices_are_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemorySliders(a_plan, CHOICES).choose(**wanted)


def test_sliders_lie_above_the_picture_redraw_it_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Any] = []

    class Handle:
        def update(self, bundle: dict[str, str], **_: object) -> None:
            shown.append(bundle)

    def display(thing: object, **_: object) -> Handle:
        shown.append(thing)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    MemorySliders(a_plan, CHOICES)._ipython_display_()
    box, picture = shown
    row, status = box.children
    assert "image/png" in picture
    controls = {control.description: control for control in row.children}
    assert [*controls] == ["Method:", "Batch:", "Chip size:", "Precision:", "Recipe:"]
    assert not controls["Batch:"].continuous_update  # a plan takes up to a second
    controls["Batch:"].value = 16
    assert "full · batch 16 · 64 ×" in shown[-1]["text/plain"]
    assert 'role="status"' in status.value and "Fits on" in status.value
    controls["Recipe:"].value = "cached"
    assert "is not possible: nothing is frozen" in status.value
    assert "image/png" not in shown[-1]


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    data = gp.load_data("scenes")
    backbone = gp.load_backbone("geopeft_tiny", None, bands=data.bands)
    return gp.attach(gp.build_model(backbone, data, decoder="linear"), "lora")


def test_settings_are_those_of_the_plan_and_planned_when_looked_at(
    model: SegmentationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[tuple[Any, ...]] = []

    def plan(*settings: Any) -> MemoryPlan:  # noqa: ANN401
        planned.append(settings)
        return replace(a_plan("lora", 8, 64, "fp32", "none"), title="made")

    monkeypatch.setattr(module, "memory_plan", plan)
    sliders = gp.memory_widget(model)
    assert sliders.choices["recipe"][0] == "none" and "checkpoint" in sliders.choices["recipe"]
    assert not planned
    sliders.bundle()
    sliders.choose(size=64, recipe="checkpoint")
    sliders.bundle()
    assert planned == [(model, 8, 224, "fp32", None), (model, 8, 64, "fp32", "checkpoint")]


def test_one_model_or_a_dictionary_of_models_will_do(model: SegmentationModel) -> None:
    assert gp.memory_widget(model, size=64, batches=[1, 8]).chosen["method"] == "lora"
    sliders = gp.memory_widget({"rank 8": model}, batch_size=2, size=64)
    sliders.choose(recipe="8bit")
    assert "rank 8 · batch 2 · 64 × 64 pixels · fp32 · 8bit" in sliders.bundle()["text/plain"]
    with pytest.raises(ValueError, match=r"Call gp\.attach"):
        bare = gp.build_model(gp.load_backbone("geopeft_tiny", None), gp.load_data("scenes"))
        gp.memory_widget(bare)
