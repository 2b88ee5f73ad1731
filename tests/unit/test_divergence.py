"""A loss that is no number: what happened, where, and weights that are as good as before."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.models import SegmentationModel
from geopeft_nb.training.recorder import Diverged

DECODERS = {"classification": "classify", "multilabel": "classify"}


def part(side: str, count: int, task: str, odd: int | None = None) -> ChipDataset:
    """Make chips of 16 px, one of which holds numbers that no training bears."""

    def chip(index: int) -> Chip:
        rng = np.random.default_rng(index)
        image = rng.uniform(0, 0.4, (6, 16, 16)).astype(np.float32)
        target = {
            "segmentation": rng.integers(0, 2, (16, 16)),
            "classification": np.array(rng.integers(0, 2)),
            "multilabel": rng.integers(0, 2, 2),
            "regression": rng.normal(size=(2, 16, 16)).astype(np.float32),
        }[task]
        if index == odd:
            image = image + np.float32(3e38)
        return Chip(f"{side}-{index}", "virginia", f"{side}{index}", lambda: (image, target))

    return ChipDataset([chip(index) for index in range(count)], CARD.classes, -1, task)


def make(task: str = "segmentation", **odd: int) -> GeoData:
    sides = [part(side, 8, task, odd.get(side)) for side in ("train", "val", "test")]
    return GeoData(*sides, {}, replace(CARD, task=task), CARD.bands, ("virginia",), 16)


def build(data: GeoData, method: str = "lora") -> SegmentationModel:
    decoder = DECODERS.get(data.task, "linear")
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder)
    return gp.attach(model, method)


def state(model: SegmentationModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: SegmentationModel, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Spoil(Callback):
    """Put NaN into a weight once so many steps are done, as a gradient that overflowed does."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: object, task: object, *_: object) -> None:
        if trainer.global_step == self.steps:  # type: ignore[attr-defined]
            torch.nn.init.constant_(next(iter(task.model.decoder.parameters())), float("nan"))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("side", "task", "method", "options"), [
    ("train", "segmentation", "lora", {}), ("val", "segmentation", "lora", {}),
    ("train", "classification", "linear_probe", {"frugal": "cached"}),
    ("val", "multilabel", "full", {"precision": "bf16"}),
    ("train", "regression", "linear_probe", {}),
])  # fmt: skip
def test_a_chip_that_spoils_the_loss_is_named_and_the_weights_are_put_back(
    side: str, task: str, method: str, options: dict[str, str]
) -> None:
    data = make(task, **{side: 5})
    model = build(data, method)
    before = state(model)
    kind = {"train": "training", "val": "validation"}[side]
    with pytest.raises(Diverged, match=f"The {kind} loss became (nan|inf)") as caught:
        gp.fit(model, data, epochs=2, batch_size=4, dashboard=False, **options)
    assert same(model, before)
    assert len(caught.value.history) == 2 or side == "train"
    assert f"'{side}-5'" in str(caught.value)
    assert gp.fit(model, make(task), epochs=1, batch_size=4, dashboard=False).best["val_loss"] > 0


@pytest.mark.parametrize(("steps", "kind", "epoch", "kept"), [
    (1, "training", 1, 0),  # in the middle of the first epoch
    (2, "validation", 1, 0),  # after its last step
    (3, "training", 2, 1),
    (6, "validation", 3, 2),  # the last one of the run
])  # fmt: skip
def test_weights_that_overflow_are_those_of_the_best_epoch_again(
    steps: int, kind: str, epoch: int, kept: int
) -> None:
    data = make()
    model, options = build(data), {"batch_size": 4, "dashboard": False}
    expected = state(model)
    if kept:
        twin = build(data)
        expected = state(gp.fit(twin, data, epochs=kept, **options).model)
    when = f"after {steps} steps, in epoch {epoch}"
    said = rf"The {kind} loss became nan {when}, .*learning rate \(it was 0\.\d+\)"
    with pytest.raises(Diverged, match=said) as caught:
        gp.fit(model, data, epochs=3, callbacks=[Spoil(steps)], **options)
    assert len(caught.value.history) == steps and same(model, expected)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["decoder.conv.bias", "backbone.blocks", "mean"])
def test_a_model_with_odd_weights_is_refused_at_the_door(number: float, name: str) -> None:
    data = make()
    model = build(data, "linear_probe")
    weight = next(value for key, value in model.state_dict().items() if key.startswith(name))
    weight.view(-1)[0] = number
    with pytest.raises(ValueError, match=f"1 weights of the model are infinite or NaN.*{name}"):
        gp.fit(model, data, dashboard=False)
