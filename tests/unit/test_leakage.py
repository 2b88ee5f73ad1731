"""No place on two sides, where a data set claims it; where a published split leaks, by how much.

Every data set of `gp.list_datasets()` is here. Loading opens no chip, so that files of the large
ones are empty; their names, and so their places, are those of the published lists.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from published_files import LISTS, burn_files, make_eurosat, make_table, write_raster

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.classroom.mirror import published_files
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.load import LOADERS
from geopeft_nb.datasets.published import common
from geopeft_nb.datasets.sandbox.load import TASKS


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(common, "check_complete", lambda *_: None)  # reben's files are not there


def chips_of(folder: str) -> list[str]:
    return [chip for _, chip in common.listed(folder)]


def nothing(folder: Path) -> None:
    """The files of Sen1Floods11, which is not asked whether they are there."""


def empty_burns(folder: Path) -> None:
    for chip in chips_of("burn_scars"):
        for name in burn_files(chip):
            (folder / name).touch()


def reben_files(folder: Path) -> None:
    for name in ("BigEarthNet-S2", "Reference_Maps"):
        (folder / name).mkdir()
    patches = chips_of("reBEN")
    make_table(folder, {p: "Portugal" if "_T29S" in p else "Finland" for p in patches}, [])


def cashew_files(folder: Path) -> None:
    """Number the chips as the published converter does; GEO-Bench's own split is not known here."""
    squares = np.random.default_rng(0).permutation(72)
    sides = {"train": squares[:54], "valid": squares[54:70], "test": squares[70:]}
    names = {
        side: [f"sample_{square * 25 + day}" for square in chosen for day in range(25)]
        for side, chosen in sides.items()
    }
    (folder / "default_partition.json").write_text(json.dumps(names))


def crop_files(folder: Path) -> None:
    names = {
        side: [f"tile_{tile:04d}_{day}" for tile in range(first, first + 3) for day in range(2)]
        for side, first in (("train", 0), ("valid", 10), ("test", 20))
    }
    (folder / "default_partition.json").write_text(json.dumps(names))


def own_files(folder: Path) -> None:
    for number in range(12):
        where = 32632, (500_000 + 5_000 * number, 5_000_000), 10
        for name, bands, value in (("images", 6, 1000), ("masks", 1, number % 2)):
            pixels = np.random.default_rng(number).integers(value // 2, value + 1, (bands, 16, 16))
            pixels = pixels.astype(np.uint16)
            write_raster(folder / name / f"chip_{number}.tif", pixels, *where)


#: What makes the files of a data set that is not on every machine.
FILES: dict[str, Callable[[Path], None]] = {
    "folder": own_files, "sen1floods11": nothing, "burn_scars": empty_burns,
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
    name: str, options: dict[str, object], tmp_path: Path
) -> None:
    try:
        data = load(name, tmp_path / "files", **options)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    table, claims = gp.shared_places(data), data.card.claims
    assert (table["chips"] > 0).all()
    assert table["claims"].tolist() == [x.partition(":")[0] in claims for x in table.index]
    assert not table.loc[table["claims"], "shared_places"].any()
    if {"val", "test"} <= set(claims):
        assert not {chip.place for chip in data.val.chips} & {c.place for c in data.test.chips}
    if set(claims) < {"val", "test", "holdout"}:
        assert len(data.card.leaks) > 40  # what is not claimed is explained


#: Name -> its folder of lists, and the published number of chips of each side.
PUBLISHED = {
    "sen1floods11": ("sen1floods11", [252, 89, 90, 15]),
    "burn_scars": ("burn_scars", [524, 160, 120]),
    "reben_7k": ("reBEN", [4690, 946, 945, 417, 390]),
}


@pytest.mark.mirror
@pytest.mark.parametrize("name", PUBLISHED)
def test_sides_are_the_published_lists_and_nothing_is_read_for_it(
    name: str, tmp_path: Path
) -> None:
    folder, counts = PUBLISHED[name]
    data, listed = load(name, tmp_path / "files"), [*common.listed(folder)]
    assert [len(part) for part in data.parts.values()] == counts and sum(counts) == len(listed)
    for side in ("train", "val", "test"):
        names = [chip for where, chip in listed if where == side]
        assert [chip.name for chip in data.parts[side].chips] == names
        assert name != "burn_scars" or set(LISTS[folder][side]) <= set(names)
    held = {chip.name for part in data.holdout.values() for chip in part.chips}
    assert held == {chip for side, chip in listed if side == "holdout"}
    assert len(published_files(name)) == {"sen1floods11": 2 * 446 + 4, "burn_scars": 4}.get(name, 8)


@pytest.mark.mirror
def test_the_leaks_of_burn_scars_are_those_its_card_states(tmp_path: Path) -> None:
    data = load("burn_scars", tmp_path / "files")
    assert data.holdout == {} and data.regions == ("pacific", "mountain", "plains", "east")
    table = gp.shared_places(data)
    assert table.loc["val"].tolist() == [160, 104, 43, 62, False]
    assert table.loc["test"].tolist() == [120, 71, 28, 55, False]
    for words in ("28 of the 71 MGRS tiles of test (55 of 120", "43 of the 104 of validation (62 "):
        assert words in data.card.leaks
    root = {"root": tmp_path / "files"}
    by_tile = gp.load_data("burn_scars", split="by_tile", **root)
    shares = np.array([len(part) for part in by_tile.parts.values()]) / 804
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    for away, fold in gp.leave_one_region_out("burn_scars", **root):
        assert gp.shared_places(fold).loc[f"holdout:{away}", "shared_places"] == 0


@pytest.mark.mirror
def test_the_leaks_of_sen1floods11_are_those_its_card_states(tmp_path: Path) -> None:
    data = load("sen1floods11", tmp_path / "files")
    train, val, test, away = (Counter(c.region for c in p.chips) for p in data.parts.values())
    assert set(train) == set(val) == set(test) == set(data.card.home) and set(away) == {"Bolivia"}
    words = "all {} validation and all {} test chips show the same flood as {} to {} training chips"
    numbers = (val.total(), test.total(), min(train.values()), max(train.values()))
    assert words.format(*numbers) in data.card.leaks
    assert len(train) == 10 and "each of the ten events" in data.card.leaks


@pytest.mark.mirror
def test_of_reben_31_validation_chips_touch_a_training_chip_and_no_tile_lies_astray(
    mirror: Path, tmp_path: Path
) -> None:
    data = load("reben_7k", tmp_path / "files")
    cells = {
        side: [(tile, int(x), int(y)) for tile, x, y in (c.place.split("_") for c in part.chips)]
        for side, part in data.parts.items()
    }
    near = {(t, x + i, y + j) for t, x, y in cells["train"] for i in (-1, 0, 1) for j in (-1, 0, 1)}
    touching = [sum(cell in near for cell in found) for found in cells.values()]
    assert touching[1:] == [31, 0, 0, 0]
    assert "31 of the 946 validation chips touch a training chip" in data.card.leaks
    assert Counter(chip.region for chip in data.train.chips) == {"finland": 3066, "portugal": 1624}
    for country, part in data.holdout.items():  # told by their tiles, as the authors' lists have it
        file = mirror / f"peft_geofm_splits/reBEN/reBEN_7k/{country.title()}.txt"
        assert {chip.name for chip in part.chips} <= set(file.read_text().split())


def test_how_far_a_split_of_cashew_as_it_was_cut_leaks(tmp_path: Path) -> None:
    data = load("m_cashew_plantation", tmp_path / "cashew")
    assert (gp.shared_places(data)["shared_places"] == 0).all()  # of squares; but these overlap

    def corners(side: str) -> np.ndarray:
        """Top and left of each chip in an area of 1186 x 1122 pixels, cut every 128."""
        squares = np.array([int(chip.place.rpartition("-")[2]) for chip in data.parts[side].chips])
        return np.minimum(128 * np.stack(np.divmod(squares, 8), 1), (1186 - 256, 1122 - 256))

    for side in ("val", "test"):
        apart = abs(corners(side)[:, None] - corners("train"))
        assert (apart < 256).all(axis=2).any(axis=1).all()
