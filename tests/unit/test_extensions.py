"""What CONTRIBUTING shows: a data set, a backbone, a method and a task from outside."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.backbones.catalog import CARDS as BACKBONES
from geopeft_nb.datasets.load import LOADERS
from geopeft_nb.tasks import TASKS
from geopeft_nb.tuning.methods import CARDS as METHODS


@pytest.fixture(autouse=True, scope="module")
def shown(root: Path) -> Iterator[dict[str, Any]]:
    """Run the code blocks, one after the other as a reader would; take what they add out again."""
    blocks = re.findall(r"```python\n(.*?)```", (root / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    tables = (BACKBONES, LOADERS, METHODS, TASKS)
    before: list[dict[str, Any]] = [dict(table) for table in tables]
    names: dict[str, Any] = {"__name__": "contributing"}
    for block in blocks:
        exec(block, names)
    yield names
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)  # type: ignore[arg-type]


def test_an_own_data_set_keeps_licence_and_citation(tmp_path: Path) -> None:
    data = gp.load_data("my_fields", bands=["RED", "GREEN"])
    assert data.train[0]["image"].shape == (2, 32, 32) and list(data.holdout) == ["south"]
    assert gp.list_datasets().loc["my_fields", "licence"] == "CC-BY-4.0"
    assert gp.data_card(data).facts.loc["citation"].item() == "You et al., 2025"
    backbone = gp.load_backbone("stripes", bands=data.bands)
    model = gp.attach(gp.build_model(backbone, data), "linear_probe")
    card = gp.save_adapter(model, tmp_path / "adapter") / "model_card.md"
    assert "CC-BY-4.0. You et al., 2025" in card.read_text()


def test_an_own_backbone_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    data = gp.load_data("my_fields")
    backbone = gp.load_backbone("stripes", bands=data.bands)
    assert (backbone.channels, backbone.strides, backbone.patch_size) == ((16, 32), (4, 8), 8)
    assert len(gp.load_backbone("stripes", layers=[0])(torch.zeros(1, 3, 32, 32))) == 1
    model = gp.attach(gp.build_model(backbone, data), "full")
    run = gp.fit(model, data, epochs=25, lr=1e-2, dashboard=False)
    report = gp.evaluate(run, data)
    assert set(report.table["role"]) == {"home", "away"} and report.table["mIoU"].min() > 0.7
    again = gp.load_model(gp.save_adapter(run, tmp_path / "adapter", report))
    image = data.test[0]["image"][None]
    with torch.no_grad():
        assert torch.equal(again(image), run.model(image))


def test_weights_of_an_own_backbone_come_from_a_file(shown: dict[str, Any], tmp_path: Path) -> None:
    network = shown["Stripes"](3)
    torch.save(network.state_dict(), tmp_path / "stripes.pt")
    backbone = gp.load_backbone("stripes", tmp_path / "stripes.pt")
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(backbone(image)[-1], network(image)[-1])


def test_an_own_method_takes_its_options_and_is_saved(tmp_path: Path) -> None:
    data = gp.load_data("scenes")
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data)
    gp.attach(model, "hra", r=4)
    assert "hra" in gp.list_methods().index and model.method_options == {"r": 4}
    assert 0 < gp.parameter_table(model).loc["adapter", "trainable"]
    again = gp.load_model(gp.save_adapter(model, tmp_path / "adapter"))
    assert again.method == "hra"
    with pytest.raises(ValueError, match="Unknown option of hra 'rank'"):
        gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "hra", rank=8)


def test_an_own_task_is_trained_and_scored() -> None:
    fields = gp.load_data("my_fields")
    card = replace(fields.card, task="robust_regression", classes=("height",), colours=("#117733",))

    def parts(chips: Any) -> Any:
        read = [replace(c, read=lambda c=c: (c.read()[0], c.read()[1].astype(np.float32)))
                for c in chips.chips]  # fmt: skip
        return type(chips)(read, card.classes, task=card.task)

    data = replace(
        fields, card=card, train=parts(fields.train), val=parts(fields.val),
        test=parts(fields.test), holdout={k: parts(v) for k, v in fields.holdout.items()},
    )  # fmt: skip
    model = gp.build_model(gp.load_backbone("stripes", bands=data.bands), data)
    run = gp.fit(gp.attach(model, "full"), data, 2, dashboard=False)
    assert gp.evaluate(run, data).score == "R²" and "val_r2" in run.history
