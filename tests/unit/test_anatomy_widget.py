"""The memory widget draws a plan to scale, says where it fits, and asks for each plan once."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest

import geopeft_nb as gp
from geopeft_nb.memory.plan import DEVICES
from geopeft_nb.widgets import anatomy as module
from geopeft_nb.widgets.anatomy import MemoryAnatomy

MIB = 2**20


@dataclass(frozen=True)
class FakePlan:
    """What `gp.memory_plan` returns, with made-up numbers."""

    table: pd.DataFrame
    batch_size: int
    size: tuple[int, int]
    precision: str
    frugal: tuple[str, ...]
    title: str
    peak: int

    def __getattr__(self, name: str) -> int:
        if name not in self.table:
            raise AttributeError(name)
        return int(self.table[name].sum())

    def fits(self, limit_bytes: float) -> bool:
        return self.peak <= limit_bytes


def fake_plan(method: str, batch: int, size: int, precision: str, recipe: str) -> FakePlan:
    """Make two parts whose activations grow with batch and size."""
    if recipe == "cached" and method == "full":
        raise ValueError("nothing is frozen, so there is nothing to cache.")
    trained = 1 if method == "full" else 0
    table = pd.DataFrame(
        {
            "weights": [100 * MIB, 20 * MIB],
            "gradients": [100 * MIB * trained, 20 * MIB],
            "optimiser": [200 * MIB * trained, 40 * MIB],
            "activations": [batch * size * MIB // 16, batch * size * MIB // 8],
        },
        index=["block 1", "decoder"],
    )
    table["total"] = table.sum(axis=1)
    recipes = () if recipe == "none" else (recipe,)
    total = int(table["total"].sum())
    title = f"{method} of a fake"
    return FakePlan(table, batch, (size, size), precision, recipes, title, total + MIB)


@pytest.fixture
def anatomy() -> MemoryAnatomy:
    return MemoryAnatomy(fake_plan, ["full", "lora"], recipes=["none", "checkpoint", "cached"])


def drawing(html: str) -> ElementTree.Element:
    drawn = re.search("<svg.*?</svg>", html)
    assert drawn
    return ElementTree.fromstring(drawn.group())


def words(svg: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in svg.iter() if element.tag.endswith("text")]


def test_bars_are_stacked_to_one_scale(anatomy: MemoryAnatomy) -> None:
    anatomy.choose(batch_size=8, size=64)
    svg = drawing(anatomy.bundle()["text/html"])
    bars = [e for e in svg.iter() if e.get("class") == "gp-band"]
    widths = [float(e.get("width", 0)) for e in bars]
    expected = [100, 100, 200, 32, 20, 20, 40, 64]  # MiB
    assert [w / widths[0] for w in widths] == pytest.approx([e / 100 for e in expected], rel=1e-3)
    for left, right in pairwise(bars[:4]):  # each begins where the last ended
        end = float(left.get("x", 0)) + float(left.get("width", 0))
        assert float(right.get("x", 0)) == pytest.approx(end, abs=0.011)  # rounded
    assert {"block 1", "decoder", "432 MiB", "144 MiB", "activations 96.0 MiB"} <= {*words(svg)}


def test_the_ruler_says_where_it_fits_by_the_peak(anatomy: MemoryAnatomy) -> None:
    anatomy.choose(batch_size=32, size=512)
    plan = anatomy.compute()
    assert 2e9 < plan.peak < 16e9
    said = words(drawing(anatomy.bundle()["text/html"]))
    marks = {text.split()[1]: text[0] for text in said if text[0] in "✓✗"}
    assert marks == {"Binder": "✗", "T4": "✓", "A100": "✓", "H200": "✓"}
    assert "Fits on T4, A100, H200." in anatomy.bundle()["text/plain"]
    for name, limit in DEVICES.items():
        assert f"{limit / 1e9:g} GB" in next(text for text in said if f" {name} " in text)


def test_a_change_is_compared_with_what_was_shown_before(anatomy: MemoryAnatomy) -> None:
    anatomy.choose(batch_size=8, size=64)
    assert "before:" not in anatomy.bundle()["text/html"]
    anatomy.choose(method="lora")
    said = " ".join(words(drawing(anatomy.bundle()["text/html"])))
    assert "276 MiB kept in one training step (before: 576 MiB; now 0.48 times as much)" in said
    assert said == " ".join(words(drawing(anatomy.bundle()["text/html"])))  # drawn again


def test_each_plan_is_computed_once(anatomy: MemoryAnatomy) -> None:
    asked: list[tuple[Any, ...]] = []

    def plan(*settings: Any) -> FakePlan:  # noqa: ANN401
        asked.append(settings)
        return fake_plan(*settings)

    anatomy.plan = plan
    for size in (64, 128, 64, 128):
        anatomy.choose(size=size)
        anatomy.bundle()
    assert [settings[2] for settings in asked] == [64, 128]


def test_settings_that_do_not_go_together_are_explained(anatomy: MemoryAnatomy) -> None:
    anatomy.choose(recipe="cached")
    bundle = anatomy.bundle()
    assert 'data-state="refused"' in bundle["text/html"]
    assert (
        "full · 1 · 64 · fp32 · cached is not possible: nothing is frozen" in bundle["text/plain"]
    )
    anatomy.choose(method="lora")
    assert 'data-state="ready"' in anatomy.bundle()["text/html"]


def test_other_errors_are_not_swallowed(anatomy: MemoryAnatomy) -> None:
    def broken(*_: object) -> FakePlan:
        raise KeyError("a bug")

    anatomy.plan = broken
    with pytest.raises(KeyError):
        anatomy.bundle()


def test_unknown_choices_are_refused(anatomy: MemoryAnatomy) -> None:
    with pytest.raises(ValueError, match=r"size 65 is not one of 64, 96"):
        anatomy.choose(size=65)
    with pytest.raises(ValueError, match="setting"):
        anatomy.choose(colour="red")
    with pytest.raises(ValueError, match="There is no method to choose from"):
        MemoryAnatomy(fake_plan, [])


def test_it_stays_in_a_saved_notebook_as_picture_and_table(anatomy: MemoryAnatomy) -> None:
    anatomy.choose(size=64)
    bundle = anatomy.bundle()
    html = bundle["text/html"]
    image = re.search(r'<img class="gp-fallback" alt="([^"]*)"[^>]*svg\+xml,([^"]*)"', html)
    assert image and "full of a fake" in image[1]
    assert words(ElementTree.fromstring(unquote(image[2]))) == words(drawing(bundle["text/html"]))
    rows = bundle["text/plain"].splitlines()
    assert rows[1].split() == ["weights", "gradients", "optimiser", "activations", "total"]
    assert rows[-1].split()[:3] == ["all", "120", "MiB"]
    assert sum(map(len, bundle.values())) < 60_000
    assert not any("widget" in key for key in bundle)


def test_sliders_redraw_it_and_say_so(
    anatomy: MemoryAnatomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ipywidgets

    shown: list[Any] = []

    class Handle:
        def update(self, bundle: dict[str, str], **_: object) -> None:
            shown.append(bundle["text/plain"])

    def display(thing: object, **_: object) -> Handle:
        shown.append(thing)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    anatomy.show()
    box = shown[1]
    assert isinstance(box, ipywidgets.VBox)
    controls = {control.description: control for control in box.children[0].children}
    assert [*controls] == ["Method:", "Batch:", "Chip size:", "Precision:", "Recipe:"]
    assert not controls["Batch:"].continuous_update  # a plan takes up to a second
    controls["Batch:"].value = 16
    controls["Method:"].value = "lora"
    assert "lora of a fake; batch 16" in shown[-1]
    assert 'role="status"' in box.children[1].value and "batch 16" in box.children[1].value
    controls["Method:"].value = "full"
    controls["Recipe:"].value = "cached"
    assert "not possible" in box.children[1].value


class Model:
    """Stands for a model; all that is asked of it is its method."""

    def __init__(self, method: str | None) -> None:
        self.method = method


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put modules in place of the planner and the recipes, and return what is asked of them."""
    asked: list[dict[str, Any]] = []

    def memory_plan(model: Model, **options: Any) -> FakePlan:  # noqa: ANN401
        asked.append({"model": model, **options})
        method, batch, size = str(model.method), options["batch_size"], options["size"]
        return fake_plan(method, batch, size, options["precision"], "none")

    class Planning:
        RECIPES = {"late": 1, "checkpoint": 2}  # noqa: RUF012

    Planning.memory_plan = staticmethod(memory_plan)  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "import_module", lambda name: Planning)
    return asked


def test_models_are_made_when_they_are_looked_at(planned: list[dict[str, Any]]) -> None:
    made: list[str] = []

    def make(method: str) -> Any:  # noqa: ANN401 - stands for a model
        made.append(method)
        return Model(method)

    anatomy = gp.memory_widget(make, methods=["full", "lora"])
    assert anatomy.choices["recipe"] == ["none", "late", "checkpoint", "all"]
    assert not made
    anatomy.compute()
    assert made == ["full"]
    anatomy.choose(size=64, recipe="checkpoint")
    anatomy.compute()
    assert made == ["full"]
    assert planned[0] | {"model": None} == {
        "model": None, "batch_size": 8, "size": 224, "precision": "fp32", "frugal": None,
    }  # fmt: skip
    assert (planned[1]["size"], planned[1]["frugal"]) == (64, ["checkpoint"])


def test_one_model_or_a_dictionary_of_models_will_do(planned: list[dict[str, Any]]) -> None:
    model: Any = Model("lora")
    assert gp.memory_widget(model).chosen["method"] == "lora"
    anatomy = gp.memory_widget({"plain": Model("full"), "rank 4": model}, recipes=["late+8bit"])
    anatomy.choose(method="rank 4")
    anatomy.compute()
    assert planned[-1]["model"] is model
    assert planned[-1]["frugal"] == ["late", "8bit"]
    with pytest.raises(ValueError, match=r"Call gp\.attach"):
        gp.memory_widget(Model(None))  # type: ignore[arg-type]
