"""Regions: published splits, leave-one-region-out, and places on two sides."""

import datetime
from dataclasses import replace

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets import scenes
from geopeft_nb.datasets.base import Chip, Reading
from geopeft_nb.datasets.geodata import DataRequest, GeoData
from geopeft_nb.datasets.split import published_split, split_regions

CARD = replace(
    scenes.CARD, name="toy", regions=("north", "south", "far"), home=("north", "south"), size=8
)
IMAGE, MASK = np.full((6, 8, 8), 0.1, np.float32), np.zeros((8, 8), np.int64)


def chip(name: str, region: str, place: str | None = None) -> Chip:
    return Chip(name, region, place or name, lambda: (IMAGE, MASK))


SIDES = {
    "train": [chip("n1", "north"), chip("n2", "north"), chip("s1", "south")],
    "val": [chip("n3", "north"), chip("s2", "south")],
    "test": [chip("n4", "north"), chip("s3", "south")],
    "holdout": [chip("f1", "far"), chip("f2", "far")],
}


def names(data: GeoData) -> dict[str, list[str]]:
    return {side: [chip.name for chip in part.chips] for side, part in data.parts.items()}


def test_a_published_split_stays_as_published() -> None:
    assert names(published_split(SIDES, DataRequest(), CARD, HLS_BANDS, 8)) == {
        "train": ["n1", "n2", "s1"], "val": ["n3", "s2"], "test": ["n4", "s3"],
        "holdout:far": ["f1", "f2"],
    }  # fmt: skip


def test_a_published_split_can_hold_out_a_region_of_its_own() -> None:
    data = published_split(SIDES, DataRequest(train_regions=["north"]), CARD, HLS_BANDS, 8)
    assert names(data) == {
        "train": ["n1", "n2"], "val": ["n3"], "test": ["n4"],
        "holdout:south": ["s1", "s2", "s3"], "holdout:far": ["f1", "f2"],
    }  # fmt: skip
    assert data.regions == ("north",)


def test_a_region_without_published_chips_for_training_is_no_home() -> None:
    with pytest.raises(ValueError, match="'train' has no chips of 8 px"):
        published_split(SIDES, DataRequest(train_regions=["far"]), CARD, HLS_BANDS, 8)


def test_a_place_on_two_sides_is_refused_where_the_card_claims_there_is_none() -> None:
    leaking = SIDES | {"test": [chip("n4", "north", place="n1"), chip("s3", "south")]}
    with pytest.raises(ValueError, match="1 places of toy are in training and in test, 'n1'"):
        published_split(leaking, DataRequest(), CARD, HLS_BANDS, 8)
    honest = replace(CARD, claims=("val", "holdout"))
    table = gp.shared_places(published_split(leaking, DataRequest(), honest, HLS_BANDS, 8))
    assert table.loc["test", ["shared_places", "shared_chips", "claims"]].tolist() == [1, 1, False]
    assert table.loc["val", ["shared_places", "claims"]].tolist() == [0, True]


def test_leaving_one_region_out_goes_through_all_of_them() -> None:
    seen = dict(gp.leave_one_region_out("scenes"))
    assert list(seen) == ["virginia", "brandenburg"]
    assert seen["virginia"].regions == ("brandenburg",)
    for away, data in seen.items():
        home = {chip.region for part in (data.train, data.val, data.test) for chip in part.chips}
        assert home == set(seen) - {away}
        assert {chip.region for chip in data.holdout[away].chips} == {away}
    sizes = [(len(data.train), len(data.holdout[away])) for away, data in seen.items()]
    assert sizes == [(44, 225), (136, 72)]
    with pytest.raises(ValueError, match="one has to be home"):
        next(gp.leave_one_region_out("m_cashew_plantation"))


def test_blocks_keep_neighbouring_chips_of_a_scene_together() -> None:
    data = gp.load_data("scenes")
    chips = [chip for part in data.parts.values() for chip in part.chips]
    places = {chip.name: chip.place for chip in chips}
    corner = {places[f"virginia-{row:02d}-{column:02d}"] for row in (0, 1) for column in (0, 1)}
    assert corner == {"virginia-0-0"} and places["virginia-02-00"] == "virginia-1-0"
    assert len({place for place in places.values() if "virginia" in place}) == 8 * 8  # of 15 x 15


def test_a_sample_says_when_and_where_as_far_as_that_is_known() -> None:
    data = gp.load_data("scenes")
    home, away = data.train[0], data.holdout["brandenburg"][0]
    assert "temporal" not in home  # nobody knows the day of the scene of Virginia
    assert away["temporal"].tolist() == [[2017.0, 47.0]]  # 16 February
    latitude, longitude = home["location"].tolist()
    assert 37.5 < latitude < 37.8 and -75.8 < longitude < -75.5


def test_what_reading_finds_goes_before_what_the_chip_states() -> None:
    found = Reading(
        IMAGE, MASK, "EPSG:32633", (0.0, 0.0, 1.0, 1.0), (12.5, -7.25), datetime.date(2020, 12, 31)
    )
    chips = [replace(chip(f"c{i}", "north"), read=lambda: found) for i in range(3)]
    request = DataRequest(train_regions=["north"], holdout_regions=[])
    sample = split_regions(chips, request, CARD, HLS_BANDS, 8).train[0]
    assert sample["temporal"].tolist() == [[2020.0, 366.0]]
    assert sample["location"].tolist() == [12.5, -7.25] and sample["crs"] == "EPSG:32633"


def test_statistics_are_those_of_the_training_pixels_or_the_published_ones() -> None:
    data = gp.load_data("scenes", bands=["RED", "BLUE"])
    pixels = torch.stack([data.train[i]["image"] for i in range(len(data.train))]).double()
    mean, std = data.statistics
    torch.testing.assert_close(mean, pixels.mean(dim=(0, 2, 3)).float())
    torch.testing.assert_close(std, pixels.std(dim=(0, 2, 3)).float())
    published = replace(data.card, mean=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), std=(1, 2, 3, 4, 5, 6))
    mean, std = replace(data, card=published).statistics
    assert mean.tolist() == pytest.approx([0.3, 0.1]) and std.tolist() == [3, 1]


def test_a_data_card_counts_classes_and_places_chips() -> None:
    sheet = gp.data_card("scenes")
    assert sheet.balance is not None and sheet.places is not None
    shares = sheet.balance[["land", "water"]]
    assert np.allclose(shares.sum(axis=1), 1)
    # The card of the scenes says 6.6 % of all pixels, the ignored ones included.
    assert 0.05 < shares.loc["holdout:brandenburg", "water"] < 0.09
    away = sheet.places[sheet.places["region"] == "brandenburg"]
    assert away["latitude"].between(52.4, 52.6).all() and (away["side"] == "holdout").all()
    figure = sheet.map()
    assert figure is not None and "chips lie" in figure.axes[0].get_title(loc="left")
    html = sheet._repr_html_()
    assert "CC0-1.0" in html and "<img alt=" in html
    with pytest.raises(ValueError, match="Did you mean 'scenes'"):
        gp.data_card("scene")
