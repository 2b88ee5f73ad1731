"""What `save_adapter` writes is all that it takes: to predict, to judge and to go on training."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_trust import make, part

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.models import SegmentationModel, Trained
from geopeft_nb.training.run import Run
from geopeft_nb.tuning.adapter_files import save

IN_A_NEW_PROCESS = """
import sys
import torch
import geopeft_nb as gp

folder = sys.argv[1]
images = torch.load(folder + "/images.pt", weights_only=True)
for name in sys.argv[2:]:
    with torch.no_grad():
        torch.save(gp.load_model(f"{folder}/{name}")(images), f"{folder}/{name}.pt")
"""


@pytest.fixture(scope="module")
def data() -> GeoData:
    """Chips whose own mean and standard deviation are the data set's, as of one's own files."""
    found = make()
    return replace(found, card=replace(found.card, mean=(), std=()), products=("HLS L30",))


def train(data: GeoData, method: str = "lora", normalise: str | None = None) -> Run:
    backbone = gp.load_backbone("geopeft_tiny")
    model = gp.attach(gp.build_model(backbone, data, normalise=normalise), method)
    return gp.fit(model, data, epochs=1, batch_size=4, lr=0.01, dashboard=False)


@pytest.fixture(scope="module")
def run(data: GeoData) -> Run:
    return train(data, normalise="dataset")


def logits(model: SegmentationModel, data: GeoData) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.stack([sample["image"] for sample in data.test]))


@pytest.mark.slow
def test_every_method_predicts_the_same_in_a_new_process(data: GeoData, tmp_path: Path) -> None:
    methods, expected = list(gp.list_methods().index), {}
    for method in methods:
        run = train(data, method, "dataset")
        gp.save_adapter(run, tmp_path / method)
        expected[method] = logits(run.model, data)
    torch.save(torch.stack([sample["image"] for sample in data.test]), tmp_path / "images.pt")
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, tmp_path, *methods], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for method, output in expected.items():
        found = torch.load(tmp_path / f"{method}.pt", weights_only=True)
        assert (found - output).abs().max() <= 1e-6, method


def test_an_adapter_fits_data_that_have_grown_and_brings_its_own_scaling(
    data: GeoData, run: Run, tmp_path: Path
) -> None:
    folder, expected = gp.save_adapter(run, tmp_path / "adapter"), logits(run.model, data)
    grown = replace(data, train=part("train", 0, count=9))
    assert not torch.allclose(grown.statistics[0], data.statistics[0], rtol=1e-6)
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), grown, normalise="dataset")
    with pytest.warns(UserWarning, match="scaled by the mean and std of the adapter"):
        gp.load_adapter(model, folder)
    assert torch.equal(logits(model, data), expected)
    plain = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "lora", name="other")
    other = logits(plain, data)
    with pytest.warns(UserWarning, match="scaled by the mean and std of the adapter"):
        gp.load_adapter(plain, folder)
    assert torch.equal(logits(plain, data), expected)
    assert torch.equal(logits(plain.use_adapter("other"), data), other)  # with its own again
    assert plain.trained is None
    assert same(plain.use_adapter("default").trained, run.model.trained)


def same(one: Trained | None, other: Trained | None) -> bool:
    assert one and other
    plain = [replace(x, pixels=(), reference=None) for x in (one, other)]  # type: ignore[arg-type]
    pairs = [*zip(one.pixels, other.pixels, strict=True)]
    if one.reference is not None and other.reference is not None:
        pairs.append((one.reference, other.reference))
    kinds = (one.reference is None) == (other.reference is None)
    return plain[0] == plain[1] and kinds and all(torch.equal(*pair) for pair in pairs)


def test_a_loaded_model_is_judged_and_mapped_as_its_run(
    data: GeoData, run: Run, tmp_path: Path
) -> None:
    model = gp.load_model(gp.save_adapter(run, tmp_path / "adapter"))
    assert same(model.trained, run.model.trained) and model.trained.products == ("HLS L30",)
    reports = [gp.evaluate(judged, data) for judged in (run, model)]
    assert reports[0].table.equals(reports[1].table)
    assert (reports[0].title, reports[0].notes) == (reports[1].title, reports[1].notes)
    assert gp.map_regions(model, data).scores.equals(gp.map_regions(run, data).scores)
    with pytest.raises(GeopeftError, match="lie on ground of training"):
        gp.evaluate(model, replace(data, test=data.train))
    bright = replace(data.test, chips=[_brighter(chip) for chip in data.test.chips])
    with pytest.raises(GeopeftError, match="of another scale"):
        gp.evaluate(model, replace(data, test=bright))


def _brighter(chip: object) -> object:
    def read() -> tuple[object, object]:
        image, target = chip.read()
        return image * 10_000, target

    return replace(chip, read=read)


def test_a_loaded_model_goes_on_training_and_remembers_all_its_ground(
    data: GeoData, run: Run, tmp_path: Path
) -> None:
    model = gp.load_model(gp.save_adapter(run, tmp_path / "adapter"))
    before = logits(model, data)
    elsewhere = replace(
        data, train=part("new", 5), val=part("new val", 6), test=part("new test", 7), holdout={}
    )
    more = gp.fit(model, elsewhere, epochs=1, batch_size=4, lr=0.01, dashboard=False)
    assert not torch.equal(logits(more.model, data), before)
    for side in (data.train, elsewhere.train):
        with pytest.raises(GeopeftError, match="lie on ground of training"):
            gp.evaluate(more, replace(elsewhere, test=side))


def test_an_adapter_without_what_it_was_trained_on_loads_and_says_so(
    data: GeoData, tmp_path: Path
) -> None:
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "lora")
    again = gp.load_model(gp.save_adapter(model, tmp_path / "adapter"))
    assert again.trained is None
    assert "What it was trained on is not known" in gp.evaluate(again, data).notes[0]


def test_calibration_is_kept_with_the_adapter(run: Run, tmp_path: Path) -> None:
    assert run.model.trained
    facts = {"temperature": 1.5, "reference": torch.rand(5, 192), "threshold": 0.25}
    model = gp.load_model(gp.save_adapter(run, tmp_path / "adapter"))
    model.trained = replace(run.model.trained, **facts)
    assert same(gp.load_model(save(model, tmp_path / "again")).trained, model.trained)


#: What is put in the place of fields of trained.json.
DAMAGE: list[tuple[str, object]] = [
    *((field, value) for value in (7.5, [[None]], {"a": 1})
      for field in ("data", "seed", "size", "pixels", "seen", "absent", "products")),
    ("temperature", 0), ("temperature", float("nan")), ("temperature", "1"), ("threshold", -1.0),
    ("size", 10**9), ("seed", -1), ("pixels", [[0.1] * 5] * 2),
    ("pixels", [[float("nan")] * 6] * 2),
    ("seen", [["a", "EPSG:32633", [0, 0, 1, 1]]]), ("seen", [["a", "/etc/passwd", None, None]]),
    ("seen", [["a", "https://x.y/z", None, None]]), ("seen", [["a", None, [0, 0, 1], None]]),
    ("seen", [["a", None, [0, 0, 1, float("inf")], None]]), ("seen", [["a", None, None, "soon"]]),
    ("seen", [[1, None, None, None]]), ("more", 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter without checksums, which an attacker would write anew."""
    folder = gp.save_adapter(run, tmp_path_factory.mktemp("saved") / "adapter")
    about = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    about["files"] = {}
    (folder / "adapter.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("field", "value"), DAMAGE)
def test_what_nothing_can_have_been_trained_on_is_refused(
    field: str, value: object, saved: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "adapter"))
    file = folder / "trained.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {field: value}))
    with pytest.raises(GeopeftError, match="This adapter is damaged"):
        gp.load_model(folder)
