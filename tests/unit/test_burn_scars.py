"""HLS Burn Scars: its lists, tiles and no-data values; see also test_published.py."""

from pathlib import Path

import numpy as np
import pytest
from published_files import LISTS as SHORT, burn_files, make_burns, write_raster

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published import common
from geopeft_nb.datasets.published.burn_scars import CARD, LISTS
from geopeft_nb.datasets.published.common import split_list
from geopeft_nb.datasets.split import shared_places


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 804 names of the published lists, as empty files: loading opens none."""
    folder = tmp_path_factory.mktemp("complete")
    for name in [name for entry in LISTS.values() for name in split_list(entry)]:
        for file in burn_files(name):
            (folder / file).touch()
    return folder


def names_of(data: GeoData) -> dict[str, list[str]]:
    return {side: [chip.name for chip in part.chips] for side, part in data.parts.items()}


@pytest.mark.mirror
def test_the_published_split_is_that_of_the_lists(complete: Path) -> None:
    data = gp.load_data("burn_scars", root=complete)
    assert [len(part) for part in data.parts.values()] == [524, 160, 120]
    assert names_of(data) == {side: split_list(entry) for side, entry in LISTS.items()}
    assert all(set(SHORT[LISTS[side]]) <= set(names) for side, names in names_of(data).items())
    assert data.holdout == {} and data.regions == ("pacific", "mountain", "plains", "east")
    small = gp.load_data("burn_scars", root=complete, size=128)
    assert [len(part) for part in small.parts.values()] == [524 * 16, 160 * 16, 120 * 16]


@pytest.mark.mirror
def test_the_card_states_how_many_tiles_the_published_sides_share(complete: Path) -> None:
    data = gp.load_data("burn_scars", root=complete)
    table = shared_places(data)
    test, val = (
        table.loc[side, ["places", "shared_places", "chips", "shared_chips"]].tolist()
        for side in ("test", "val")
    )
    assert "{1} of the {0} MGRS tiles of test ({3} of {2} chips)".format(*test) in CARD.leaks
    assert "{1} of the {0} of validation ({3} of {2})".format(*val) in CARD.leaks
    assert not table["claims"].any()


@pytest.mark.mirror
def test_tiles_can_be_kept_apart_instead(complete: Path) -> None:
    data = gp.load_data("burn_scars", root=complete, split="by_tile")
    shares = np.array([len(part) for part in data.parts.values()]) / 804
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    table = shared_places(data)
    assert table["claims"].all() and not table["shared_places"].any()
    away = gp.load_data("burn_scars", root=complete, split="by_tile", train_regions=["plains"])
    assert set(away.holdout) == {"pacific", "mountain", "east"}


def test_what_is_not_known_becomes_zero_band_by_band_and_a_chip_has_its_day_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_burns(tmp_path)
    image = np.full((6, 512, 512), 0.1, np.float32)
    image[:, 0, 0], image[2, 0, 1], image[:, 0, 2] = np.nan, np.nan, -9999
    first = tmp_path / "training" / burn_files("T10SEJ.2018185.v1")[0]
    write_raster(first, image, 32610, (500_000, 4_400_000), 30)
    monkeypatch.setattr(common, "split_list", lambda name, _: SHORT[name])
    sample = gp.load_data("burn_scars", root=tmp_path).train[0]
    assert not sample["image"][:, 0, [0, 2]].any()
    assert (sample["image"][:, 0, 1] == 0).tolist() == [False, False, True, False, False, False]
    assert sample["temporal"].tolist() == [[2018.0, 185.0]]
    assert (sample["place"], sample["region"]) == ("T10SEJ", "pacific")
    assert sample["bounds"] == (500_000, 4_400_000 - 512 * 30, 500_000 + 512 * 30, 4_400_000)
    # Zone 10 has -123 degrees in its middle.
    assert sample["location"].tolist() == pytest.approx([39.68, -122.91], abs=0.01)
