"""Data: splits by place, samples in torchgeo's form, and chips that are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.split import split_places
from geopeft_nb.files import mirror_folders


def test_chips_do_not_overlap_and_lie_where_the_scene_lies() -> None:
    data = gp.load_data("scenes")
    chips = [*data.train.chips, *data.val.chips, *data.test.chips]
    corners = {chip.bounds[:2] for chip in chips if chip.bounds}
    assert len(corners) == len(chips) == 15 * 15
    bounds = np.array([chip.bounds for chip in chips])
    left, bottom, right, top = (*bounds.min(axis=0)[:2], *bounds.max(axis=0)[2:])
    assert (right - left, top - bottom) == (15 * 64 * 20.0, 15 * 64 * 20.0)
    assert chips[0].crs == "EPSG:32618"


def test_a_sample_is_a_torchgeo_dictionary() -> None:
    sample = gp.load_data("scenes").train[0]
    assert sample["image"].dtype == torch.float32 and sample["image"].shape == (6, 64, 64)
    assert 0 <= sample["image"].min() and sample["image"].max() < 2  # reflectance, clouds above 1
    assert sample["mask"].dtype == torch.int64 and sample["mask"].shape == (64, 64)
    assert set(sample["mask"].unique().tolist()) <= {-1, 0, 1}


def test_torchgeo_collates_our_samples() -> None:
    utils = pytest.importorskip("torchgeo.datasets.utils", reason="torchgeo is not installed")
    data = gp.load_data("scenes")
    kept = [{k: data.train[i][k] for k in ("image", "mask")} for i in range(2)]
    assert utils.stack_samples(kept)["image"].shape == (2, 6, 64, 64)


def test_image_and_mask_of_a_band_subset_come_in_the_wanted_order() -> None:
    full = gp.load_data("scenes").train[3]["image"]
    few = gp.load_data("scenes", bands=["SWIR_1", "BLUE"])
    assert few.bands == ("SWIR_1", "BLUE")
    assert torch.equal(few.train[3]["image"], full[[4, 0]])


def test_split_gives_each_side_its_share_and_follows_the_seed() -> None:
    places = [f"p{i // 4}" for i in range(200)]
    sides = np.array(split_places(places, seed=1))
    shares = [(sides == side).mean() for side in range(3)]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.03)
    assert split_places(places, seed=1) == list(sides) != split_places(places, seed=2)


@pytest.mark.parametrize("counts", [(1, 1, 1), (5, 5, 4), (9, 1, 1)])
def test_no_side_stays_empty_with_few_places(counts: tuple[int, ...]) -> None:
    places = [f"p{place}" for place, count in enumerate(counts) for _ in range(count)]
    assert set(split_places(places, seed=0)) == {0, 1, 2}


def test_split_needs_three_places() -> None:
    with pytest.raises(ValueError, match="at least 3 places"):
        split_places(["a", "a", "b"], seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "scene"}, "Did you mean 'scenes'"),
        ({"train_regions": ["virgina"]}, "Did you mean 'virginia'"),
        ({"train_regions": "virginia"}, "takes lists of texts"),
        ({"holdout_regions": ["virginia"]}, "trained on and held out"),
        ({"train_regions": ["virginia", "virginia"]}, "named twice"),
        ({"train_regions": []}, r"train_regions=\[\].* one has to be home"),
        ({"bands": ["CIRRUS"]}, "Unknown band of these data 'CIRRUS'"),
        ({"bands": "RED"}, "takes lists of texts"),
        ({"size": 0}, "size takes whole numbers"),
        ({"size": 5000}, r"0 chips in 0 place\(s\).*smaller chips"),
    ],
)
def test_bad_requests_say_what_would_work(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gp.load_data(**{"name": "scenes", **arguments})


def test_missing_data_say_where_they_were_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="GEOPEFT_MIRROR"):
        gp.load_data("hls_water")
    with pytest.raises(OSError, match=r"virginia\.tif"):
        gp.load_data("scenes", root=tmp_path)


@pytest.mark.parametrize(
    ("value", "label", "message"),
    [
        (np.nan, 0, "'odd' has NaN"),
        (np.inf, 0, "'odd' has NaN or infinite"),
        (0.1, 7, r"unknown values \[7\], not .*0: 'land', 1: 'water'"),
    ],
)
def test_unfit_pixels_are_refused_by_name(value: float, label: int, message: str) -> None:
    image, mask = np.full((6, 8, 8), 0.1, np.float32), np.zeros((8, 8), np.int64)
    image[0, 0, 0], mask[0, 0] = value, label
    chip = Chip("odd", "here", "spot", lambda: (image, mask))
    with pytest.raises(ValueError, match=message):
        ChipDataset([chip], ["land", "water"])[0]


@pytest.mark.mirror
def test_hls_water_has_its_chips_and_can_be_cut_smaller() -> None:
    if not any((folder / "hls_water").is_dir() for folder in mirror_folders()):
        pytest.skip("hls_water is in no folder of GEOPEFT_MIRROR")
    data = gp.load_data("hls_water", train_regions=["river"], holdout_regions=["elsewhere"])
    assert len(data.train) + len(data.val) + len(data.test) == 148
    assert len(data.holdout["elsewhere"]) == 117  # of 119: two share their place with the river
    assert data.train[0]["image"].shape == (6, 128, 128)
    quarter = gp.load_data("hls_water", size=64)
    assert len(quarter.holdout["elsewhere"]) == 4 * 117
    whole = data.holdout["elsewhere"][0]["image"]
    assert torch.equal(quarter.holdout["elsewhere"][3]["image"], whole[:, 64:, 64:])
