"""EuroSAT's sample of 200 chips from all over Europe, which only a mirror has."""

from pathlib import Path

import numpy as np
import pytest

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import band_statistics
from geopeft_nb.datasets.published import eurosat
from geopeft_nb.files import find_dataset

pytestmark = pytest.mark.mirror


@pytest.fixture
def sample() -> Path:
    if not (folder := find_dataset("eurosat_ms")):
        pytest.skip("eurosat_ms is in no folder of GEOPEFT_MIRROR")
    return folder


def test_the_sample_is_split_into_three_regions(sample: Path) -> None:
    folds = dict(gp.leave_one_region_out("eurosat", root=sample))
    assert {name: len(data.holdout[name]) for name, data in folds.items()} == {
        "west": 57, "centre": 83, "east": 60
    }  # fmt: skip
    for data in folds.values():
        assert sum(map(len, data.parts.values())) == 200
        assert not gp.shared_places(data)["shared_places"].any()
    home = folds["east"]  # as by default
    assert {int(sample["label"]) for sample in home.train} == set(range(10))


def test_published_statistics_fit_the_pixels_of_the_sample(sample: Path) -> None:
    data = gp.load_data("eurosat", root=sample, bands=eurosat.CARD.bands)
    mean, std = band_statistics(data.train)
    wanted_mean, wanted_std = data.statistics
    # 84 chips of 27,000; a wrong order of the bands would be off by half and more.
    assert (mean / wanted_mean - 1).abs().max() < 0.15
    assert (std / wanted_std - 1).abs().max() < 0.25


def test_a_random_split_of_the_sample_leaves_neighbours_on_both_sides(sample: Path) -> None:
    data = gp.load_data("eurosat", root=sample)
    places = np.array([chip.place for part in data.parts.values() for chip in part.chips])
    shared = []
    for seed in range(500):
        order = np.random.default_rng(seed).permutation(200)
        shared.append(np.isin(places[order[120:]], places[order[:120]]).sum())
    assert min(shared) > 0 and np.mean(shared) == pytest.approx(14, abs=0.5)
    assert "14 of 80" in " ".join(str(eurosat.__doc__).split())


def test_a_linear_probe_learns_from_the_sample_and_is_judged_region_by_region(sample: Path) -> None:
    data = gp.load_data("eurosat", root=sample)
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder="classify")
    run = gp.fit(gp.attach(model, "linear_probe"), data, epochs=2, dashboard=False)
    table = gp.evaluate(run, data).table
    assert table["role"].to_dict() == {"west": "home", "centre": "home", "east": "away"}
    assert table.loc["east", "chips"] == 60 and table.loc["east", "places"] == 52
    assert (table["accuracy"] > 0.25).all()  # chance is 0.1; seen: 0.73, 0.88, 0.63
