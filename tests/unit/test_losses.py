"""The loss of one's choice: what it leaves out, how it weighs, and what a rare class gains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_divergence import build, make
from torch import Tensor, nn
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.training.losses import balanced, choose_loss
from geopeft_nb.tuning.identity import read_description


def labelled(*masks: list[list[int]]) -> ChipDataset:
    image = np.zeros((6, 2, 2), np.float32)
    chips = [
        Chip(f"c{i}", "virginia", f"c{i}", lambda m=mask: (image, np.array(m)))
        for i, mask in enumerate(masks)
    ]
    return ChipDataset(chips, ("a", "b", "never"), -1)


def test_balanced_classes_count_the_same_and_what_is_not_labelled_counts_nothing() -> None:
    # 6 labelled pixels of 2 classes that occur: 6 / (2 × 5) and 6 / (2 × 1)
    weights = balanced(labelled([[0, 0], [0, 1]], [[-1, -1], [0, 0]]))
    assert weights == pytest.approx([0.6, 3.0, 1.0])


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "focal"])
def test_pixels_without_a_label_change_no_loss(name: str) -> None:
    loss, *_ = choose_loss(make(), name, [1, 9] if name == "cross_entropy" else None)
    output = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    target[:, :2], target[0, 3] = 1, -1
    other = output + 5 * (target == -1)[:, None] * torch.tensor([1.0, -1.0])[:, None, None]
    assert loss(output, target).item() == loss(other, target).item() > 0.05
    output.requires_grad_()
    nothing = loss(output, torch.full_like(target, -1))
    nothing.backward()
    assert nothing == 0 and output.grad is not None and not output.grad.any()


def test_weights_are_those_of_the_cross_entropy() -> None:
    output, target = torch.randn(1, 2, 4, 4), torch.arange(16).view(1, 4, 4) % 2
    expected = functional.cross_entropy(output, target, torch.tensor([1.0, 9.0]))
    loss, *_ = choose_loss(make(), None, [1, 9])
    assert loss(output, target) == expected


@pytest.mark.parametrize(("task", "options", "said"), [
    ("segmentation", {"loss": "dise"}, "Unknown loss for segmentation 'dise'. Did you mean 'dice'"),
    ("regression", {"loss": "dice"}, "loss for regression 'dice'.*Known: squared_error"),
    ("multilabel", {"loss": "focal"}, "loss for multilabel"),
    ("regression", {"class_weights": "balanced"}, "the loss of this regression is 'squared_error'"),
    ("multilabel", {"class_weights": [1, 2]}, "class_weights belong to loss='cross_entropy'"),
    ("segmentation", {"class_weights": [1, 2], "loss": "dice"}, "and the loss .* is 'dice'"),
    ("segmentation", {"class_weights": "balance"}, "Did you mean 'balanced'"),
    ("segmentation", {"class_weights": [1]}, "a number above 0 for each of"),
    ("segmentation", {"class_weights": [0, 1]}, "a number above 0 for each of"),
    ("segmentation", {"class_weights": [1, "2"]}, "class_weights takes texts or lists of numbers"),
    ("segmentation", {"loss": 3}, "Unknown loss for segmentation 3"),
    ("segmentation", {"loss": nn.CrossEntropyLoss(reduction="none")}, "CrossEntropyLoss is to ret"),
    ("segmentation", {"loss": lambda output, target: 1.0}, "scalar tensor, and returned 1.0"),
])  # fmt: skip
def test_what_means_nothing_is_refused_before_training(
    task: str, options: dict[str, object], said: str
) -> None:
    data = make(task)
    with pytest.raises(gp.GeopeftError, match=said):
        gp.fit(build(data, "linear_probe"), data, dashboard=False, batch_size=4, **options)


def test_a_loss_of_ones_own_trains_and_is_remembered(tmp_path: Path) -> None:
    def absolute(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs().mean()

    data = make("regression")
    run = gp.fit(
        build(data),
        data,
        epochs=1,
        batch_size=4,
        dashboard=False,
        loss=absolute,
        out=tmp_path / "a",
    )
    about = read_description(tmp_path / "a")["built_for"]
    assert run.settings["loss"] == about["loss"] and about["loss"].endswith("absolute")
    # targets are standard normal numbers, whose mean distance from 0 is 0.80 and mean square 1
    assert run.best["val_loss"] == pytest.approx(0.8, abs=0.1)


@pytest.fixture(scope="module")
def line() -> GeoData:
    """Make data with a diagonal one pixel wide as a class, 31 of 4,096 pixels, not to be seen."""
    mask = (np.add.outer(np.arange(64), np.arange(64)) % 97 == 0).astype(np.int64)

    def chip(side: str, index: int) -> Chip:
        rng = np.random.default_rng([len(side), index])
        image = rng.uniform(0.03, 0.3, (6, 1, 1)) + rng.normal(0, 0.01, (6, 64, 64))
        pair = image.astype(np.float32), mask
        return Chip(f"{side}-{index}", "virginia", f"{side}{index}", lambda: pair)

    parts = [
        ChipDataset([chip(side, index) for index in range(count)], ("land", "line"))
        for side, count in (("train", 12), ("val", 2), ("test", 2))
    ]
    card = replace(CARD, classes=("land", "line"))
    return GeoData(*parts, {}, card, CARD.bands, ("virginia",), 64)


def scores(data: GeoData, **options: object) -> pd.Series:
    model = build(data)
    run = gp.fit(model, data, 15, 4, augment=False, dashboard=False, **options)
    return gp.evaluate(run, data).table.loc["virginia"]


def test_a_class_in_one_percent_of_the_pixels_is_only_found_if_it_weighs_more(
    line: GeoData,
) -> None:
    usual = scores(line)
    assert usual["IoU line"] < 0.01 and usual["IoU land"] > 0.98
    for options in ({"class_weights": "balanced"}, {"loss": "dice"}):
        found = scores(line, **options)
        # 0.054 and 0.046 were found; what they are paid with is land that is called line
        assert found["IoU line"] > 0.03 and 0.7 < found["IoU land"] < usual["IoU land"]
