"""Training: it learns, repeats itself, can be stopped, and refuses what cannot work."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.tasks import TASKS
from geopeft_nb.training.recorder import Recorder
from geopeft_nb.training.run import Run
from geopeft_nb.widgets.live import Dashboard


def chips(count: int, seed: int, region: str = "virginia") -> ChipDataset:
    """Make 16 px chips whose label can be learnt: water is dark in the infrared."""

    def chip(index: int) -> Chip:
        rng = np.random.default_rng([seed, index])
        mask = np.zeros((16, 16), np.int64)
        mask[:, : int(rng.integers(4, 13))] = 1
        image = rng.normal(0.2, 0.02, (6, 16, 16)) - 0.15 * mask
        return Chip(
            f"{region}-{seed}-{index}",
            region,
            f"p{index}",
            lambda: (image.astype(np.float32), mask),
        )

    return ChipDataset([chip(index) for index in range(count)], CARD.classes, -1)


def few(seed: int = 0) -> GeoData:
    """Make data of no held-out region."""
    parts = chips(12, seed), chips(4, 1), chips(4, 2)
    return GeoData(*parts, {}, CARD, CARD.bands, ("virginia",), 16)


@pytest.fixture(scope="module")
def data() -> GeoData:
    away = {"brandenburg": chips(6, 3, "brandenburg")}
    parts = chips(12, 0), chips(6, 1), chips(6, 2)
    return GeoData(*parts, away, CARD, CARD.bands, ("virginia",), 16)


def train(data: GeoData, method: str = "lora", **options: object) -> Run:
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), method)
    return gp.fit(model, data, **{"epochs": 3, "batch_size": 4, "dashboard": False, **options})


@pytest.fixture(scope="module")
def run(data: GeoData) -> Run:
    return train(data)


def test_training_learns_what_can_be_learnt(data: GeoData, run: Run) -> None:
    losses = run.history.train_loss
    assert losses.iloc[-3:].mean() < 0.85 * losses.iloc[:3].mean()  # nine steps in all
    assert run.best["val_miou"] > 0.6


def test_history_has_one_row_per_step_and_scores_at_each_epoch_end(run: Run) -> None:
    assert list(run.history.step) == list(range(1, 10))
    assert run.history.val_miou.notna().tolist() == 3 * [False, False, True]
    assert run.history.seconds.is_monotonic_increasing
    assert (run.history.memory_bytes > 1e8).all()
    assert run.state == "finished" and run.seconds >= run.history.seconds.iloc[-1]


def test_the_weights_that_are_kept_score_as_the_history_says(data: GeoData, run: Run) -> None:
    unasked = copy.copy(run.model)
    unasked.trained = None  # else what chose the weights is not scored
    scored = gp.evaluate(unasked, replace(data, test=data.val, holdout={}))
    assert scored.notes == (
        "What it was trained on is not known: neither ground nor scale could be compared.",
    )
    assert scored.table.loc["virginia", "mIoU"] == pytest.approx(run.best["val_miou"], abs=1e-6)
    assert run.best["val_miou"] == run.history.val_miou.max()


def test_the_same_seed_gives_the_same_run(data: GeoData, run: Run) -> None:
    pd.testing.assert_series_equal(train(data).history.train_loss, run.history.train_loss)
    assert not train(data, seed=1).history.train_loss.equals(run.history.train_loss)


def test_memory_of_a_step_shows_what_each_method_saves(data: GeoData, run: Run) -> None:
    full = train(data, "full", epochs=1).memory
    assert run.memory["gradients"] < 0.15 * full["gradients"]
    assert run.memory["optimiser"] == 2 * run.memory["gradients"]
    # The process grew by this much; Python and PyTorch themselves, a gigabyte, do not count.
    assert 0 < run.memory["peak"] < 0.5e9


def test_run_is_saved_with_its_history(data: GeoData, tmp_path: Path) -> None:
    train(data, "linear_probe", epochs=1, out=tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == [
        "adapter.json", "decoder.safetensors", "history.csv", "reference.safetensors",
        "trained.json",
    ]  # fmt: skip
    assert gp.load_model(tmp_path / "run").method == "linear_probe"


@pytest.fixture
def interruptible() -> Iterator[object]:
    """Python's handler of interrupts, which a program that runs in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_keeps_the_best_weights_and_the_history(
    data: GeoData, interruptible: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Dashboard, rows: list[object]) -> None:
        if len(rows) == 8:  # in the middle of the third epoch
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Dashboard, "update", interrupt)
    run = train(data, epochs=50)
    assert run.state == "stopped"
    assert len(run.history) == 8
    assert run.best["val_miou"] == run.history.val_miou.max()
    assert signal.getsignal(signal.SIGINT) is interruptible
    assert run.predict([data.test[0]])[0].shape == (16, 16)


def test_a_program_that_wants_to_end_ends(data: GeoData, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(self: Dashboard, rows: list[object]) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(Dashboard, "update", leave)
    with pytest.raises(SystemExit) as left:
        train(data)
    assert left.value.code == 3


def test_stop_button_ends_in_the_first_epoch(
    data: GeoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dashboard, "should_stop", property(lambda self: True))
    run = train(data)
    assert run.state == "stopped" and len(run.history) == 1 and run.best


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs takes whole numbers"),
        ({"batch_size": 1.5}, "batch_size takes whole numbers"),
        ({"lr": 10}, "lr takes numbers"),
        ({"precision": "fp23"}, "Did you mean 'fp32'"),
        ({"device": "tpu"}, r"Unknown device 'tpu'\. Known: auto, cpu, cuda"),
        ({"device": "gpu"}, "Did you mean 'cuda'"),
        ({"max_epochs": 3}, "Did you mean 'epochs'"),
        ({"device": "cpu", "precision": "fp16"}, "needs a GPU"),
        ({"seed": -1}, "seed takes whole numbers from 0"),
        ({"accumulate": 0}, "accumulate takes whole numbers"),
        ({"devices": 13}, "devices must be a whole number from 1 to 12, got 13"),
        ({"strategy": "ddp_spawn"}, "Unknown strategy 'ddp_spawn'"),
    ],
)
def test_bad_settings_are_refused_before_training(
    data: GeoData, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(data, **options)


def test_a_model_without_a_method_is_refused(data: GeoData) -> None:
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data)
    with pytest.raises(ValueError, match=r"Nothing is attached: .* call attach\(model, ") as caught:
        gp.fit(model, data)
    assert all(f"'{name}'" in str(caught.value) for name in gp.list_methods().index)
    assert "'peft'" not in str(caught.value)  # which attach refuses


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 16, 16), np.float32), r"'odd' is \(5, 16, 16\) instead of \(6, 16, 16\)"),
        (np.full((6, 16, 16), np.nan, np.float32), "Chip 'odd' has NaN"),
    ],
)
def test_unfit_chips_of_a_held_out_region_are_refused_before_training(
    data: GeoData, image: np.ndarray, message: str
) -> None:
    def read() -> tuple[np.ndarray, np.ndarray]:
        return image, np.zeros(image.shape[1:], np.int64)

    away = {"brandenburg": ChipDataset([Chip("odd", "brandenburg", "p", read)], CARD.classes, -1)}
    with pytest.raises(ValueError, match=message):
        train(replace(data, holdout=away))


def test_no_folder_with_other_files_is_overwritten(data: GeoData, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files, and nothing that was saved"):
        train(data, out=tmp_path)
    with pytest.raises(ValueError, match=r"thesis\.txt is a file"):
        train(data, out=tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_an_empty_part_is_refused(data: GeoData) -> None:
    with pytest.raises(ValueError, match="'train' has no chips of 16 px"):
        train(replace(data, train=chips(0, 0)))


def test_chips_of_another_size_are_not_padded_unasked(data: GeoData) -> None:
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "lora")
    with pytest.raises(ValueError, match="Chips of 15 px are not divisible by the patch"):
        gp.fit(model, replace(data, size=15), dashboard=False)


@pytest.mark.gpu
def test_training_on_a_gpu_counts_the_memory_of_the_gpu(data: GeoData) -> None:
    run = train(data, device="cuda")
    assert run.memory["activations"] < run.memory["peak"] < 0.5e9
    assert run.best["val_miou"] > 0.5 and next(run.model.parameters()).device.type == "cpu"


def test_accumulated_gradients_are_those_of_the_larger_batch(
    data: GeoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without turning, which is drawn anew for each batch.
    monkeypatch.setattr("geopeft_nb.training.task.turn_and_mirror", lambda *pair: pair)
    whole = train(data, batch_size=4)
    parts = train(data, batch_size=2, accumulate=2)
    assert list(parts.history.step) == list(whole.history.step)
    for column in ("train_loss", "val_loss"):
        # AdamW's first steps divide gradients by themselves, which enlarges their last digits.
        np.testing.assert_allclose(parts.history[column], whole.history[column], rtol=1e-3)
    assert parts.settings["accumulate"] == 2


def test_the_loss_of_a_step_is_the_mean_of_its_batches(
    data: GeoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = replace(TASKS["segmentation"], loss=lambda output, *_: output.mean() * 0 + 3)
    monkeypatch.setitem(TASKS, "segmentation", three)
    run = train(data, epochs=1, batch_size=1, accumulate=5)  # 12 batches: 5, 5 and 2
    np.testing.assert_allclose(run.history.train_loss, [3, 3, 3], rtol=1e-6)  # float32


def test_what_else_draws_random_numbers_does_not_change_a_run(
    data: GeoData, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dashboard, "update", lambda self, rows: torch.rand(7))
    pd.testing.assert_series_equal(train(data).history.train_loss, run.history.train_loss)


def test_every_epoch_has_each_chip_once_and_another_order(data: GeoData) -> None:
    class Names(Callback):
        seen: list[str]

        def on_train_start(self, *_: object) -> None:
            self.seen = []

        def on_train_batch_start(self, _: object, task: object, batch: dict, index: int) -> None:
            self.seen += batch["name"]

    names, orders = Names(), []
    for _ in range(2):
        train(data, epochs=2, callbacks=[names])
        orders.append(names.seen)
    first, second = names.seen[:12], names.seen[12:]
    assert sorted(first) == sorted(second) == sorted(chip.name for chip in data.train.chips)
    assert first != second and orders[0] == orders[1]


def test_further_callbacks_and_loggers_of_lightning_are_told(data: GeoData, tmp_path: Path) -> None:
    class Count(Callback):
        steps = 0

        def on_train_batch_end(self, *_: object) -> None:
            self.steps += 1

    count, logger = Count(), CSVLogger(tmp_path)
    run = train(data, callbacks=[count], logger=logger)
    assert count.steps == 9
    logged = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    assert logged.val_miou.dropna().tolist() == run.history.val_miou.dropna().tolist()


def test_chips_stay_as_they_are_without_augmentation(data: GeoData, run: Run) -> None:
    torch.manual_seed(0)
    plain = train(data, augment=False, epochs=1, batch_size=12, precision="fp32")
    turned = train(data, epochs=1, batch_size=12)
    assert plain.history.train_loss[0] != turned.history.train_loss[0]
    chips = [data.train[index] for index in range(12)]
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "lora")
    image, mask = (torch.stack([chip[key] for chip in chips]) for key in ("image", "mask"))
    with torch.no_grad():  # whatever the order, one batch of all chips has one loss
        loss = TASKS["segmentation"].loss(model.eval()(image), mask, -1)
    assert plain.history.train_loss[0] == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.slow
def test_two_processes_train_together(data: GeoData, tmp_path: Path) -> None:
    program = Path(__file__).with_name("two_processes.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ends = [json.loads((tmp_path / f"{rank}.json").read_bytes()) for rank in (0, 1)]
    assert ends[0]["weights"] == ends[1]["weights"]
    assert {end["steps"] for end in ends} == {6}  # 12 chips, two for each of two, two epochs
    assert (tmp_path / "run" / "adapter.json").is_file()


def test_a_score_that_is_known_is_better_than_one_that_is_not(data: GeoData) -> None:
    recorder = Recorder(Dashboard("LoRA", 2, show=False), TASKS["segmentation"])
    task = SimpleNamespace(model=gp.build_model(gp.load_backbone("geopeft_tiny"), data))
    for epoch, score in enumerate((math.nan, 0.2, math.nan)):
        recorder.rows.append({})
        metrics = {"val_loss": torch.tensor(1.0), "val_miou": torch.tensor(score)}
        trainer = SimpleNamespace(callback_metrics=metrics, current_epoch=epoch)
        recorder.on_validation_end(trainer, task)  # type: ignore[arg-type]
    assert recorder.best["epoch"] == 2
