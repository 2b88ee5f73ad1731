"""A run that was killed or stopped goes on exactly where it was, or says why it cannot."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from test_fit import few, train

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.tasks import TASKS
from geopeft_nb.training.resume import checkpoint_path
from geopeft_nb.training.run import Run
from geopeft_nb.widgets.live import Dashboard


@pytest.fixture(scope="module")
def data() -> GeoData:
    return few()


@pytest.fixture(scope="module")
def run(data: GeoData) -> Run:
    return train(data)


def curve(history: pd.DataFrame) -> pd.DataFrame:
    """Leave out what a clock and other programs decide."""
    return history.drop(columns=["seconds", "memory_bytes"])


def load(out: Path) -> dict[str, Any]:
    return torch.load(checkpoint_path(out), weights_only=True)


def weights(file: dict[str, Any]) -> dict[str, torch.Tensor]:
    return file["state_dict"]


def kept(file: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the best weights."""
    return file["callbacks"]["Recorder"]["kept"]


def moments(file: dict[str, Any]) -> dict[int, dict[str, torch.Tensor]]:
    """Return what AdamW remembers of each weight."""
    return file["optimizer_states"][0]["state"]


def stop_after(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """Press the stop button in a step."""
    update = Dashboard.update

    def press(self: Dashboard, rows: list[dict[str, float]]) -> None:
        update(self, rows)
        if rows[-1]["step"] == last:
            self.stop()

    monkeypatch.setattr(Dashboard, "update", press)


def cut_off(monkeypatch: pytest.MonkeyPatch, data: GeoData, out: Path, last: int) -> None:
    """Fail in a step, with a checkpoint of the epoch before."""

    def fail(self: Dashboard, rows: list[dict[str, float]]) -> None:
        if rows[-1]["step"] == last:
            raise OSError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(Dashboard, "update", fail)
        with pytest.raises(OSError, match="the power went"):
            train(data, out=out)


@pytest.mark.slow
def test_a_run_killed_at_five_random_steps_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path,
) -> None:
    program = Path(__file__).with_name("killed_run.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed after step") == 5
    files = [load(tmp_path / name) for name in ("broken", "whole")]
    for part in (weights, kept, moments):
        torch.testing.assert_close(*(part(file) for file in files), rtol=0, atol=0)
    curves = [curve(pd.read_csv(tmp_path / name / "history.csv")) for name in ("broken", "whole")]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    assert curves[0].lr.nunique() > 1  # the schedule went on too
    seconds = pd.read_csv(tmp_path / "broken" / "history.csv").seconds
    assert seconds.is_monotonic_increasing


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    data: GeoData, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 5)  # in the middle of the second epoch
        stopped = train(data, out=tmp_path / "run")
    assert stopped.state == "stopped" and len(stopped.history) == 5 and stopped.best
    with pytest.raises(ValueError, match="holds 3 steps of a run that was cut off"):
        train(data, out=tmp_path / "run")
    again = train(data, out=tmp_path / "run", resume=True)
    assert again.state == "finished" and again.best == run.best
    pd.testing.assert_frame_equal(curve(again.history), curve(run.history), check_exact=True)
    assert again.seconds > stopped.seconds


def test_a_run_with_every_recipe_goes_on_exactly_too(
    data: GeoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(data, frugal="all")
    assert {"late", "cached"} <= set(whole.settings["frugal"])
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        train(data, frugal="all", out=tmp_path / "run")
    again = train(data, frugal="all", out=tmp_path / "run", resume=True)
    pd.testing.assert_frame_equal(curve(again.history), curve(whole.history), check_exact=True)
    weights = zip(again.model.parameters(), whole.model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in weights)


def test_the_live_view_shows_the_whole_curve(
    data: GeoData, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(data, out=tmp_path / "run", epochs=2)
    views: list[Dashboard] = []
    start = Dashboard.start
    monkeypatch.setattr(Dashboard, "start", lambda self, **_: (views.append(self), start(self)))
    train(data, out=tmp_path / "run", resume=True)
    shown = pd.DataFrame(views[0].state["rows"], columns=run.history.columns)
    pd.testing.assert_frame_equal(curve(shown), curve(run.history), check_exact=True)


def test_a_finished_run_is_prolonged_by_more_epochs(
    data: GeoData, run: Run, tmp_path: Path
) -> None:
    short = train(data, out=tmp_path / "run", epochs=2)
    assert len(short.history) == 6
    for epochs in (2, 1):  # nothing is left to do
        assert train(data, out=tmp_path / "run", resume=True, epochs=epochs).best == short.best
    longer = train(data, out=tmp_path / "run", resume=True)
    pd.testing.assert_frame_equal(curve(longer.history), curve(run.history), check_exact=True)


def test_a_run_that_no_longer_got_better_is_not_prolonged(
    data: GeoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = replace(TASKS["segmentation"], loss=lambda output, *_: output.mean() * 0 + 3)
    monkeypatch.setitem(TASKS, "segmentation", flat)
    first = train(data, out=tmp_path / "run", epochs=9, patience=1)
    assert len(first.history) == 6 and first.state == "finished"
    again = train(data, out=tmp_path / "run", resume=True, epochs=9, patience=1)
    pd.testing.assert_frame_equal(again.history, first.history)
    weights = zip(first.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in weights)


def test_a_checkpoint_holds_what_is_trained_and_no_more(data: GeoData, tmp_path: Path) -> None:
    run = train(data, out=tmp_path / "run", epochs=1)
    trained = {name for name, weight in run.model.named_parameters() if weight.requires_grad}
    file = load(tmp_path / "run")
    assert set(kept(file)) == trained and len(moments(file)) == len(trained)
    assert set(weights(file)) == {f"model.{name}" for name in trained}
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["run", "run.ckpt"]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("lora", {"seed": 1}, "seed was 0 and is 1"),
        ("lora", {"batch_size": 2}, "batch_size was 4 and is 2"),
        ("lora", {"precision": "bf16"}, "precision was 'fp32' and is 'bf16'"),
        ("lora", {"lr": 0.5}, "lr was 0.001 and is 0.5"),
        ("lora", {"accumulate": 2}, "accumulate was 1 and is 2"),
        ("lora", {"loss": "dice"}, "loss was 'cross_entropy' and is 'dice'"),
        ("lora", {"class_weights": [1, 2]}, r"class_weights was None and is \[1.0, 2.0\]"),
        ("vpt", {"lr": 0.001}, "method was 'lora' and is 'vpt'"),
    ],
)
def test_a_run_is_not_gone_on_with_under_other_settings(
    data: GeoData, finished: Path, method: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        train(data, method, out=finished, resume=True, **options)
    assert "name another out to begin anew" in str(refused.value)


@pytest.fixture(scope="module")
def finished(data: GeoData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train(data, out=out, epochs=1)
    return out


def test_a_run_is_not_gone_on_with_on_other_chips_or_another_model(
    data: GeoData, finished: Path
) -> None:
    with pytest.raises(ValueError, match="data was 'scenes, 16 px, 12 training and 4 validation"):
        train(few(5), out=finished, resume=True)
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder="fcn")
    with pytest.raises(ValueError, match="model decoder was 'linear' and is 'fcn'"):
        gp.fit(
            gp.attach(model, "lora"), data, batch_size=4, dashboard=False, out=finished, resume=True
        )
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "lora")
    with torch.no_grad():
        model.plain_backbone.norm.weight.mul_(1.01)
    with pytest.raises(ValueError, match="frozen weights was"):
        gp.fit(model, data, batch_size=4, out=finished, resume=True)


def test_a_run_that_was_cut_off_is_not_overwritten_unasked(
    data: GeoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(monkeypatch, data, tmp_path / "run", 5)
    with pytest.raises(
        ValueError, match=r"holds 3 steps of a run that was cut off\. Go on with fit"
    ):
        train(data, out=tmp_path / "run")
    assert train(data, out=tmp_path / "run", resume=True).state == "finished"
    assert train(data, out=tmp_path / "run").state == "finished"  # finished ones are replaced


def test_what_cannot_be_gone_on_with_is_said_before_training(
    data: GeoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="resume=True needs out"):
        train(data, resume=True)
    assert train(data, resume=True, out=tmp_path / "new", epochs=1).state == "finished"
    cut_off(monkeypatch, data, tmp_path / "run", 5)
    checkpoint_path(tmp_path / "run").write_bytes(b"")
    with pytest.raises(ValueError, match=r"run\.ckpt is damaged: .*Delete it and begin anew"):
        train(data, out=tmp_path / "run", resume=True)


def test_without_out_nothing_is_written(
    data: GeoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(data, epochs=1)
    assert not list(tmp_path.iterdir())
