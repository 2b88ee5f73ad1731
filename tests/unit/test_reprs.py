"""What the last line of a cell shows: a few words, and a table in a notebook."""

from typing import Any

import pytest

import geopeft_nb as gp


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    data = gp.load_data("scenes")
    backbone = gp.load_backbone("geopeft_tiny")
    model = gp.attach(gp.build_model(backbone, data), "lora", r=4)
    plan = gp.memory_plan(model, batch_size=2)
    run = gp.fit(model, data, epochs=1, dashboard=False)
    return {
        "backbone": backbone,
        "data": data,
        "model": model,
        "plan": plan,
        "run": run,
        "report": gp.evaluate(run, data),
        "map": gp.map_regions(run, data),
    }


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("backbone", ["geopeft_tiny", "BLUE, GREEN", "8 px", "192 features", "lora"]),
        ("data", ["64 x 64 px", "land, water", "home (virginia)", "brandenburg", "CC0-1.0"]),
        ("model", ["lora r=4", "decoder linear", "segmentation: land, water", "trainable"]),
        ("plan", ["weights", "activations", "peak"]),
        ("run", ["LoRA on scenes, finished", "val_miou", "peak of memory", "gp.evaluate"]),
        ("report", ["lora on", "virginia", "brandenburg", "mIoU", "low"]),
        ("map", ["virginia (home", "brandenburg (away", "mIoU"]),
    ],
)
def test_what_is_loaded_trained_or_scored_says_what_it_is(
    objects: dict[str, Any], name: str, facts: list[str]
) -> None:
    shown = objects[name]
    text = repr(shown)
    assert len(text.splitlines()) <= 12 and len(text) < 1500
    html = shown._repr_mimebundle_()["text/html"] if name == "map" else shown._repr_html_()
    assert html.startswith("<")
    for fact in facts:
        assert fact in text


@pytest.mark.parametrize("name", ["backbones", "datasets"])
def test_lists_show_what_helps_to_choose_and_the_rest_if_asked(name: str) -> None:
    table, full = (getattr(gp, f"list_{name}")(full=full) for full in (False, True))
    assert 6 <= len(table.columns) <= 8 and len(table.columns) < len(full.columns)
    assert set(table.columns) < set(full.columns) and table.equals(full[table.columns])
