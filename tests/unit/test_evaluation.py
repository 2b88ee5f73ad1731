"""Scores: confusion, mIoU and intervals against values worked out by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score, r2_score

import geopeft_nb as gp
from geopeft_nb.evaluation.intervals import bootstrap_scores, percentile_interval
from geopeft_nb.evaluation.regions import Report
from geopeft_nb.tasks import TASKS, class_iou, confusion, mean_iou


def bootstrap_interval(matrices: np.ndarray, places: list[str]) -> tuple[float, float]:
    return percentile_interval(bootstrap_scores(matrices, places))


def test_scores_equal_scikit_learn_without_the_ignored_pixels() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(-1, 3, 5000), rng.integers(0, 3, 5000)
    matrix = confusion(truth, predicted, 3, -1)
    valid = truth >= 0
    assert np.array_equal(matrix, confusion_matrix(truth[valid], predicted[valid]))
    expected = jaccard_score(truth[valid], predicted[valid], average=None)
    assert class_iou(matrix) == pytest.approx(expected)
    assert mean_iou(matrix) == pytest.approx(expected.mean())


def test_a_class_that_never_occurs_is_left_out_of_the_mean() -> None:
    matrix = np.array([[6, 2, 0], [0, 2, 0], [0, 0, 0]])
    assert class_iou(matrix)[:2] == pytest.approx([0.75, 0.5])
    assert np.isnan(class_iou(matrix)[2])
    assert mean_iou(matrix) == pytest.approx(0.625)
    nothing = np.zeros((2, 2))
    assert np.isnan(
        [mean_iou(nothing), *TASKS["segmentation"].columns(nothing, "ab").values()]
    ).all()


def test_interval_holds_the_score_and_draws_whole_places() -> None:
    rng = np.random.default_rng(1)
    matrices = rng.integers(1, 50, (40, 2, 2))
    matrices[:20, 0, 0] += 200  # the first half of the chips is much better
    low, high = bootstrap_interval(matrices, [f"p{i}" for i in range(40)])
    assert low < mean_iou(matrices.sum(axis=0)) < high
    wide_low, wide_high = bootstrap_interval(matrices, [f"p{i // 10}" for i in range(40)])
    assert wide_high - wide_low > high - low  # four places tell less than forty


def test_draws_without_a_class_do_not_stretch_the_interval() -> None:
    land, both = np.array([[50, 0], [0, 0]]), np.array([[40, 5], [5, 20]])
    matrices = np.array([land] * 10 + [both] * 2)
    low, high = bootstrap_interval(matrices, [f"p{i}" for i in range(12)])
    assert low <= mean_iou(matrices.sum(axis=0)) <= high < 0.9  # not 1.0, the score of land alone


def test_one_place_gives_no_interval() -> None:
    assert np.isnan(bootstrap_interval(np.ones((3, 2, 2), int), ["here"] * 3)).all()


def report(method: str, home: float) -> Report:
    rows = {"method": method, "role": ["home", "away"], "mIoU": [home, 0.5]}
    rows |= {"low": [home - 0.1, np.nan], "high": [home + 0.1, np.nan]}
    return Report(pd.DataFrame(rows, index=["here", "there"]), method)


def test_reports_are_drawn_together_with_regions_roles_and_methods() -> None:
    ours, other = report("lora", 0.8), report("full", 0.7)
    (axes,) = gp.plot_reports([ours, other]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["here (home)", "there (away)"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["lora", "full"]
    assert axes.get_xlabel() == "mIoU (0-1), bars: 95 % interval over places"
    table = other.table.rename(columns={"mIoU": "accuracy"})
    other = replace(other, table=table, score="accuracy")
    with pytest.raises(ValueError, match="One figure shows one score, and these have accuracy, mI"):
        gp.plot_reports([ours, other])
    with pytest.raises(ValueError, match="not scored on the same chips and draws"):
        ours.compare(other)


def test_a_paired_difference_is_surer_than_its_two_scores() -> None:
    rng = np.random.default_rng(2)
    hard = rng.integers(0, 60, 30)  # errors differ much between places, little between methods
    ours = np.array([[[100, h], [h, 100]] for h in hard])
    theirs = np.array([[[100, h + 3], [h + 3, 100]] for h in hard])
    places = [f"p{i}" for i in range(30)]

    def scored(matrices: np.ndarray) -> Report:
        draws = bootstrap_scores(matrices, places)
        low, high = percentile_interval(draws)
        row = {"chips": 30, "places": 30, "mIoU": mean_iou(matrices.sum(axis=0))}
        table = pd.DataFrame([{**row, "low": low, "high": high}], index=["here"])
        return Report(table, "report", {"here": draws}, {"here": tuple(places)})

    a, b = scored(ours), scored(theirs)
    difference = a.compare(b).loc["here"]
    assert a.table.loc["here", "low"] < b.table.loc["here", "high"]  # the bars overlap
    assert 0 < difference["low"] < difference["difference"] < difference["high"] < 0.05
    others = {"here": tuple(reversed(places))}  # as many chips and places, but not the same
    for unpaired in (replace(b, scored=others), replace(b, seed=1)):
        with pytest.raises(ValueError, match="not scored on the same chips and draws"):
            a.compare(unpaired)


def answers(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Make truth and prediction of 60 chips, the prediction right more often than not."""
    rng = np.random.default_rng(3)
    if task == "regression":
        truth = rng.normal(40, 10, (60, 2, 3, 3))
        guess = truth + rng.normal(1, 5, truth.shape)
        truth[rng.random(truth.shape) < 0.1] = np.nan
        return truth, guess
    classes, shape = (2, (60, 3)) if task == "multilabel" else (3, (60,))
    truth = rng.integers(0, classes, shape)
    return truth, np.where(rng.random(shape) < 0.7, truth, rng.integers(0, classes, shape))


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_counts_of_single_chips_add_up_to_the_score_of_all(task: str) -> None:
    truth, guess = answers(task)
    outputs, card = 2 if task == "regression" else 3, TASKS[task]

    def count(which: object) -> np.ndarray:
        pair = torch.as_tensor(truth[which]), torch.as_tensor(guess[which])
        return card.count(*pair, outputs, -1)

    assert np.isnan(card.score(0 * count([0])))
    counts = np.stack([count([i]) for i in range(60)])
    assert np.allclose(counts.sum(axis=0), count(slice(None)))
    # The interval is that of drawing places and scoring them anew, here by hand.
    places = [f"p{i // 2:02d}" for i in range(60)]
    draws = bootstrap_scores(counts, places, repeats=50, seed=7, parts=card.parts)
    picks = np.random.default_rng(7).integers(30, size=(50, 30))
    by_hand = [
        card.score(count(index))
        for index in (np.concatenate([[2 * p, 2 * p + 1] for p in row]) for row in picks)
    ]
    assert draws == pytest.approx(by_hand)


def test_an_image_without_a_known_class_counts_for_nothing() -> None:
    card = TASKS["classification"]
    assert card.score(card.count(torch.tensor([-1, 1]), torch.tensor([0, 1]), 2, -1)) == 1.0


def test_targets_are_scored_apart_and_one_that_never_changes_has_no_share_to_explain() -> None:
    truth, guess = answers("regression")
    truth[:, 1] = 5
    card = TASKS["regression"]
    counts = card.count(torch.as_tensor(truth), torch.as_tensor(guess), 2, -1)
    known = np.isfinite(truth[:, 0])
    share = r2_score(truth[:, 0][known], guess[:, 0][known])
    assert card.columns(counts, "ab")["R² a"] == pytest.approx(share)
    assert np.isnan(card.parts(counts)[1]) and card.score(counts) == pytest.approx(share)
