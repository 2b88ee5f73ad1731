"""Folds by kNNDM: every place is test once, as far from training as where the model will go."""

import numpy as np
import pytest

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.folds import knndm_folds
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD


def clustered(clusters: int = 12, each: int = 8) -> GeoData:
    """Two chips at each place; places within 10 km of the middle of a cluster, these far apart."""
    rng = np.random.default_rng(0)
    middles = np.stack([rng.uniform(30, 50, clusters), rng.uniform(-20, 20, clusters)], 1)
    pixels = np.zeros((6, 8, 8), np.float32), np.zeros((8, 8), np.int64)
    chips = [
        Chip(f"{c}-{p}-{n}", "virginia", f"place {c}-{p}", lambda: pixels, location=tuple(here))
        for c, middle in enumerate(middles)
        for p, here in enumerate(middle + rng.uniform(-0.1, 0.1, (each, 2)))
        for n in range(2)
    ]
    third = len(chips) // 3 // 2 * 2
    sides = {"train": chips[:third], "val": chips[third : 2 * third], "test": chips[2 * third :]}
    return GeoData.of(sides, {}, CARD, CARD.bands, ("virginia",), 8)


def distances(fold: GeoData) -> np.ndarray:
    test = np.array([chip.location for chip in fold.test.chips])
    rest = np.array([chip.location for side in (fold.train, fold.val) for chip in side.chips])
    return np.linalg.norm(test[:, None] - rest, axis=-1).min(1)


@pytest.fixture(scope="module")
def data() -> GeoData:
    return clustered()


def target(data: GeoData, away: float) -> np.ndarray:
    """Places so many degrees from those of the data."""
    chips = [*data.train.chips, *data.val.chips, *data.test.chips]
    here = np.array([chip.location for chip in chips])
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, len(here))
    return here + away * np.stack([np.sin(angle), np.cos(angle)], 1)


def test_each_place_is_tested_once_and_is_on_one_side(data: GeoData) -> None:
    folds = [*knndm_folds(data, 4, target(data, 1.0))]
    every = [chip.name for part in (data.train, data.val, data.test) for chip in part.chips]
    tested = [chip.name for fold in folds for chip in fold.test.chips]
    assert sorted(tested) == sorted(every)
    for fold in folds:
        train, val, test = (
            {chip.place for chip in side.chips} for side in (fold.train, fold.val, fold.test)
        )
        assert train and val and test
        assert not (train & val or train & test or val & test)
        assert "Fold" in fold.notes[-1] and "km of training" in fold.notes[-1]
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) <= len(every) / 2


def test_folds_are_random_for_a_target_nearby_and_clusters_for_one_far_away(data: GeoData) -> None:
    near, far = (
        np.concatenate([distances(fold) for fold in knndm_folds(data, 4, target(data, away))])
        for away in (0.03, 5.0)
    )
    assert np.median(near) < 0.1  # within a cluster
    assert np.median(far) > 1  # other clusters
    assert np.median(far) < 10


def test_the_held_out_regions_are_where_it_goes_unless_somebody_says_otherwise() -> None:
    scenes = gp.load_data("scenes")
    folds = [*gp.knndm_folds(scenes, 3)]
    assert len(folds) == 3 and all(fold.holdout is scenes.holdout for fold in folds)
    assert ",0" not in folds[0].notes[-1].split("within")[1]  # Virginia's are some km apart
    again = [*gp.knndm_folds(scenes, 3)]
    assert [[c.name for c in f.val.chips] for f in folds] == [
        [c.name for c in f.val.chips] for f in again
    ]


@pytest.mark.parametrize(("options", "words"), [({}, "No region is held out")])
def test_what_cannot_be_is_refused(data: GeoData, options: dict, words: str) -> None:
    with pytest.raises(gp.GeopeftError, match=words):
        next(knndm_folds(data, **options))
