"""No place on two sides, where a data set claims it; where a published split leaks, by how much.

Every data set of `gp.list_datasets()` is here. Loading opens no chip, so that files of the large
ones are empty; their names, and so their places, are those of the published lists.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from published_files import HAND, burn_files, make_eurosat, make_table, write_raster

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.load import LOADERS
from geopeft_nb.datasets.published import burn_scars, common, geobench, reben, sen1floods11
from geopeft_nb.datasets.published.common import split_list
from geopeft_nb.datasets.sandbox.load import TASKS
from geopeft_nb.datasets.split import shared_places


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))


def listed(lists: Iterable[str]) -> list[str]:
    return [chip for name in lists for chip in split_list(name)]


def flood_files(folder: Path) -> None:
    for chip in listed(sen1floods11.LISTS.values()):
        for part in ("S2Hand", "LabelHand"):
            file = folder / HAND / part / f"{chip}_{part}.tif"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def empty_burns(folder: Path) -> None:
    for chip in listed(burn_scars.LISTS.values()):
        for name in burn_files(chip):
            (folder / name).touch()


def reben_files(folder: Path) -> None:
    for name in ("BigEarthNet-S2", "Reference_Maps"):
        (folder / name).mkdir()
    make_table(folder, dict.fromkeys(listed(reben.LISTS.values()), "Finland"), [])


def geobench_files(folder: Path, names: dict[str, list[str]]) -> None:
    (folder / "default_partition.json").write_text(json.dumps(names))
    for chip in [chip for chips in names.values() for chip in chips]:
        (folder / f"{chip}.hdf5").touch()


def cashew_files(folder: Path) -> None:
    """Number the chips as the published converter does; GEO-Bench's own split is not known here."""
    squares = np.random.default_rng(0).permutation(72)
    sides = {"train": squares[:54], "valid": squares[54:70], "test": squares[70:]}
    names = {
        side: [f"sample_{square * 25 + day}" for square in chosen for day in range(25)]
        for side, chosen in sides.items()
    }
    geobench_files(folder, names)


def crop_files(folder: Path) -> None:
    names = {
        side: [f"tile_{tile:04d}_{day}" for tile in range(first, first + 3) for day in range(2)]
        for side, first in (("train", 0), ("valid", 10), ("test", 20))
    }
    geobench_files(folder, names)


def own_files(folder: Path) -> None:
    for number in range(12):
        where = 32632, (500_000 + 5_000 * number, 5_000_000), 10
        for name, bands, value in (("images", 6, 1000), ("masks", 1, number % 2)):
            pixels = np.random.default_rng(number).integers(value // 2, value + 1, (bands, 16, 16))
            pixels = pixels.astype(np.uint16)
            write_raster(folder / name / f"chip_{number}.tif", pixels, *where)


#: What makes the files of a data set that is not on every machine.
FILES: dict[str, Callable[[Path], None]] = {
    "folder": own_files, "sen1floods11": flood_files, "burn_scars": empty_burns,
    "reben_7k": reben_files, "eurosat": make_eurosat,
    "m_cashew_plantation": cashew_files, "m_sa_crop_type": crop_files,
}  # fmt: skip
#: A data set's own tasks and splits; what is not here is loaded as it comes.
VARIANTS: dict[str, list[dict[str, object]]] = {
    "sandbox": [{"task": task} for task in TASKS],
    "folder": [{"band_names": list(HLS_BANDS), "scale": 10_000}],
    "burn_scars": [{}, {"split": "by_tile"}],
}


def load(name: str, folder: Path, **options: object) -> GeoData:
    if name in FILES:
        folder.mkdir()
        FILES[name](folder)
        options["root"] = folder
    return gp.load_data(name, **options)


@pytest.mark.parametrize(
    ("name", "options"), [(name, more) for name in LOADERS for more in VARIANTS.get(name, [{}])]
)
def test_no_place_is_on_two_sides_where_the_data_set_claims_it(
    name: str, options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "check_complete", lambda *_: None)  # reben's files are not there
    try:
        data = load(name, tmp_path / "files", **options)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    table = shared_places(data)
    assert set(table.index) == {"val", "test", *(f"holdout:{region}" for region in data.holdout)}
    claimed = table[table["claims"].astype(bool)]
    assert claimed["shared_places"].sum() == 0 and (table["chips"] > 0).all()
    assert {side.partition(":")[0] for side in claimed.index} == {
        side for side in data.card.claims if side != "holdout" or data.holdout
    }
    if {"val", "test"} <= set(data.card.claims):
        assert not {chip.place for chip in data.val.chips} & {c.place for c in data.test.chips}
    if set(data.card.claims) < {"val", "test", "holdout"}:
        assert len(data.card.leaks) > 40  # what is not claimed is explained


@pytest.mark.mirror
def test_how_far_the_published_splits_leak(tmp_path: Path) -> None:
    burn = shared_places(load("burn_scars", tmp_path / "burn"))
    columns = ["places", "shared_places", "chips", "shared_chips"]
    assert burn.loc["val", columns].tolist() == [104, 43, 160, 62]
    assert burn.loc["test", columns].tolist() == [71, 28, 120, 55]

    floods = load("sen1floods11", tmp_path / "floods")
    events = {chip.region for chip in floods.train.chips}
    for part, number in ((floods.val, 89), (floods.test, 90)):
        assert sum(chip.region in events for chip in part.chips) == len(part) == number
    assert not events & {chip.region for chip in floods.holdout["Bolivia"].chips}


def test_how_far_a_split_of_cashew_as_it_was_cut_leaks(tmp_path: Path) -> None:
    data = load("m_cashew_plantation", tmp_path / "cashew")
    assert (shared_places(data)["shared_places"] == 0).all()  # of squares; but these overlap
    corners = {
        side: np.array([geobench._corner(chip.name) for chip in part.chips])
        for side, part in data.parts.items()
    }
    for side in ("val", "test"):
        apart = abs(corners[side][:, None] - corners["train"])  # top and left, in pixels
        assert (apart < 256).all(axis=2).any(axis=1).all()


@pytest.mark.mirror
def test_a_region_that_is_held_out_shares_no_tile_with_the_others(tmp_path: Path) -> None:
    empty_burns(tmp_path)
    for away, data in gp.leave_one_region_out("burn_scars", root=tmp_path):
        table = shared_places(data)
        assert table.loc[f"holdout:{away}", "shared_places"] == 0
