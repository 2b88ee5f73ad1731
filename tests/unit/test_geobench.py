"""GEO-Bench's cashew and South African crops: keys, numbers, partitions; see test_published.py."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from published_files import PARTITIONS, make_geobench, write_hdf5

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published import geobench
from geopeft_nb.datasets.published.geobench import CASHEW, SA_CROP

CARDS = {card.name: card for card in (CASHEW, SA_CROP)}
both = pytest.mark.parametrize("name", CARDS)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as GEO-Bench's own downloader fills it: both data sets in segmentation_v1.0."""
    folder = tmp_path_factory.mktemp("geobench")
    for name in CARDS:
        make_geobench(folder, name)
    return folder


def placeholders(folder: Path, sides: dict[str, list[str]]) -> Path:
    """Write a partition and empty files for its chips."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "default_partition.json").write_text(json.dumps(sides))
    for chip in [chip for side in sides.values() for chip in side]:
        (folder / f"{chip}.hdf5").touch()
    return folder


def cashew_split(test: Sequence[int] = (0, 71)) -> dict[str, list[str]]:
    """All 72 squares on 25 days each: two squares for test, 16 for validation, 54 for training."""
    others = [square for square in range(72) if square not in test]
    squares = {"train": others[16:], "valid": others[:16], "test": test}
    return {
        side: [f"sample_{25 * square + day}" for square in chosen for day in range(25)]
        for side, chosen in squares.items()
    }


def with_chip(tmp_path: Path, name: str, **changed: np.ndarray | None) -> GeoData:
    """Load a data set of which the first chip of training is changed."""
    folder = placeholders(tmp_path / "changed", PARTITIONS[name])
    write_hdf5(folder / f"{PARTITIONS[name]['train'][0]}.hdf5", name, **changed)
    return gp.load_data(name, root=folder)


@both
def test_a_root_may_be_the_folder_itself_or_one_around_it(name: str, top: Path) -> None:
    inside = top / "segmentation_v1.0" / geobench.FOLDERS[name][0]
    for root in (inside, inside.parent, top):
        assert len(gp.load_data(name, root=root).train) == 3


def test_cashew_states_its_day_and_south_africa_does_not(top: Path) -> None:
    cashew = gp.load_data("m_cashew_plantation", root=top).train[0]
    day = datetime.date(2019, 11, 15).timetuple().tm_yday
    assert cashew["temporal"].tolist() == [[2019.0, float(day)]]
    assert "temporal" not in gp.load_data("m_sa_crop_type", root=top).train[0]


@both
def test_all_classes_count_and_none_is_ignored(name: str, top: Path) -> None:
    data = gp.load_data(name, root=top)
    assert data.classes[0] == "no data" and data.ignore_index == -1
    assert len(data.classes) == len(set(data.colours)) == (7 if data.card is CASHEW else 10)
    assert "all classes count in scores" in data.card.labels
    assert not (data.train[0]["mask"] == data.ignore_index).any()


def test_statistics_are_the_published_ones_in_the_units_of_the_image(top: Path) -> None:
    mean, std = gp.load_data("m_cashew_plantation", root=top).statistics
    assert mean.tolist() == pytest.approx(
        [0.06347584, 0.08924612, 0.08807076, 0.26435320, 0.24639333, 0.16009208], rel=1e-6
    )
    assert std[0].item() == pytest.approx(0.02272534, rel=1e-5)
    mean, std = gp.load_data("m_sa_crop_type", root=top, bands=["B1", "B9"]).statistics
    assert mean.tolist() == pytest.approx([12.739611, 69.904566])
    assert std.tolist() == pytest.approx([7.492811526, 21.877766438], rel=1e-6)


@both
def test_a_place_is_the_same_ground_on_other_days(name: str, top: Path) -> None:
    first, second, third = gp.load_data(name, root=top).train.chips
    assert first.place == second.place != third.place
    assert CARDS[name].claims == () and "coordinates" in CARDS[name].leaks


def test_a_square_of_cashew_is_told_from_its_number() -> None:
    assert [geobench._corner(f"sample_{25 * square}") for square in (0, 7, 8, 71)] == [
        (0, 0), (0, 866), (128, 0), (930, 866)
    ]  # fmt: skip


LABEL = np.zeros((256, 256), np.int64)
BLUE = "02 - Blue_2019-11-15"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({BLUE: None}, r"'sample_0' cannot be read .*band 02"),
        ({"label": None}, r"'sample_0' cannot be read .*label"),
        ({BLUE: np.full((256, 256), np.nan, np.float32)}, "'sample_0' has NaN"),
        ({"label": LABEL + 0.5}, "'sample_0' are not the published ones.*not whole numbers"),
        ({"label": LABEL + np.nan}, "'sample_0' are not the published ones.*not whole numbers"),
    ],
)
def test_unfit_chips_are_refused_by_name(
    changed: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        with_chip(tmp_path, "m_cashew_plantation", **changed).train[0]


@both
def test_chips_of_one_are_not_taken_for_the_other(name: str, top: Path) -> None:
    other = next(own for key, (own, _) in geobench.FOLDERS.items() if key != name)
    with pytest.raises(ValueError, match="Is this the folder of another data set"):
        gp.load_data(name, root=top / "segmentation_v1.0" / other)
