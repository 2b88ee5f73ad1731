"""GEO-Bench's cashew and South African crops: files of its layout with made-up pixels."""

from __future__ import annotations

import datetime
import json
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.classroom.needs import published_files
from geopeft_nb.datasets import geobench
from geopeft_nb.datasets.geobench import CASHEW, NUMBERS, SA_CROP
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.split import shared_places

#: Keys as in the files, here in the order of the card's bands, and the one that is left out.
KEYS = (
    "01 - Coastal aerosol", "02 - Blue", "03 - Green", "04 - Red", "05 - Vegetation Red Edge",
    "06 - Vegetation Red Edge", "07 - Vegetation Red Edge", "08 - NIR",
    "08A - Vegetation Red Edge", "09 - Water vapour", "11 - SWIR", "12 - SWIR",
)  # fmt: skip
CLOUDS = "Cloud Probability"
TILE = "ref_south_africa_crops_competition_v1_train_labels_{:04}_{}"
#: Per data set: its folder in GEO-Bench, and a few chips on each side.
FEW: dict[str, tuple[str, dict[str, list[str]]]] = {
    "m_cashew_plantation": (
        "m-cashew-plant",
        {"train": ["sample_0", "sample_1", "sample_1799"], "valid": ["sample_26"],
         "test": ["sample_700"]},
    ),
    "m_sa_crop_type": (
        "m-SA-crop-type",
        {"train": [TILE.format(1, 0), TILE.format(1, 4), TILE.format(1234, 2)],
         "valid": [TILE.format(7, 0)], "test": [TILE.format(9, 1)]},
    ),
}  # fmt: skip
CARDS = {"m_cashew_plantation": CASHEW, "m_sa_crop_type": SA_CROP}
both = pytest.mark.parametrize("name", FEW)


def write_chip(file: Path, classes: int, day: str = "", **changed: np.ndarray | None) -> None:
    """Write a chip; pixels of band number i are 100 x i plus their row.

    `changed` replaces arrays by key (with _ for what an argument's name cannot have), or leaves
    them out where it is None. Keys are written backwards: HDF5 sorts them anyway.
    """
    kind = np.float32 if day else np.int16
    rows = np.arange(256)[:, None] * np.ones((1, 256), int)
    arrays: dict[str, np.ndarray | None] = {
        key + day: (100 * number + rows).astype(kind) for number, key in enumerate(KEYS, start=1)
    }
    arrays[CLOUDS + day] = np.full((256, 256), 77, kind)
    arrays["label"] = (rows % classes).astype(np.int64 if day else np.int16)
    arrays |= changed
    with h5py.File(file, "w") as opened:
        opened.attrs["pickle"] = "b'not a pickle: opening it would fail'"
        for key, array in reversed(arrays.items()):
            if array is not None:
                opened[key] = array


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as GEO-Bench's own downloader fills it: both data sets in segmentation_v1.0."""
    folder = tmp_path_factory.mktemp("geobench")
    for name, (inside, sides) in FEW.items():
        here = folder / "segmentation_v1.0" / inside
        here.mkdir(parents=True)
        (here / "default_partition.json").write_text(json.dumps(sides))
        (here / "band_stats.json").write_text("{}")
        day = "_2019-11-15" if CARDS[name] is CASHEW else ""
        for chip in [chip for side in sides.values() for chip in side]:
            write_chip(here / f"{chip}.hdf5", len(CARDS[name].classes), day)
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


def names_of(data: GeoData) -> dict[str, list[str]]:
    return {side: [chip.name for chip in part.chips] for side, part in data.parts.items()}


def with_chip(tmp_path: Path, name: str, **changed: np.ndarray | None) -> GeoData:
    """Load a data set of which the first chip of training is changed."""
    sides = {side: chips[:1] for side, chips in FEW[name][1].items()}
    folder = placeholders(tmp_path / "changed", sides)
    day = "_2019-11-15" if CARDS[name] is CASHEW else ""
    chip = folder / f"{sides['train'][0]}.hdf5"
    write_chip(chip, len(CARDS[name].classes), day, **changed)
    return gp.load_data(name, root=folder)


@both
def test_the_partition_file_decides_the_sides_and_no_chip_is_on_two(name: str, top: Path) -> None:
    data = gp.load_data(name, root=top)
    sides = FEW[name][1]
    assert names_of(data) == {
        "train": sides["train"], "val": sides["valid"], "test": sides["test"]
    }  # fmt: skip
    assert data.holdout == {} and data.regions == CARDS[name].regions
    published = "1,350 / 400 / 50" if name == CASHEW.name else "3,000 / 1,000 / 1,000"
    assert any(f"3 / 1 / 1 chips instead of the published {published}" in n for n in data.notes)


@both
def test_a_root_may_be_the_folder_itself_or_one_around_it(name: str, top: Path) -> None:
    inside = top / "segmentation_v1.0" / FEW[name][0]
    for root in (inside, inside.parent, top):
        assert len(gp.load_data(name, root=root).train) == 3


def test_the_complete_partitions_load_without_opening_a_chip(tmp_path: Path) -> None:
    data = gp.load_data("m_cashew_plantation", root=placeholders(tmp_path / "a", cashew_split()))
    assert [len(part) for part in data.parts.values()] == [1350, 400, 50]
    assert not any("instead of" in note for note in data.notes)
    sizes = {"train": 3000, "valid": 1000, "test": 1000}
    starts = {"train": 0, "valid": 1000, "test": 2000}
    crops = {
        side: [TILE.format(starts[side] + n // 5, n % 5) for n in range(size)]
        for side, size in sizes.items()
    }
    data = gp.load_data("m_sa_crop_type", root=placeholders(tmp_path / "b", crops))
    assert [len(part) for part in data.parts.values()] == [3000, 1000, 1000]
    assert not any("instead of" in note for note in data.notes)
    ids = [chip.name for part in data.parts.values() for chip in part.chips]
    assert len(ids) == len(set(ids))


def test_bands_are_found_by_their_number_and_scaled_to_reflectance(top: Path) -> None:
    data = gp.load_data("m_cashew_plantation", root=top, bands=list(CASHEW.bands))
    sample = data.train[0]
    assert sample["image"].dtype == torch.float32 and sample["image"].shape == (12, 256, 256)
    expected = torch.arange(1, 13) * 100 / 10_000
    torch.testing.assert_close(sample["image"][:, 0, 0], expected)
    torch.testing.assert_close(sample["image"][:, 50, 9], expected + 50 / 10_000)
    assert sample["mask"].dtype == torch.int64
    assert torch.equal(sample["mask"][:, 3], torch.arange(256) % 7)
    assert dict(zip(NUMBERS, CASHEW.bands, strict=True))["08A"] == "NIR_NARROW"
    assert gp.load_data("m_cashew_plantation", root=top).bands == HLS_BANDS
    few = gp.load_data("m_cashew_plantation", root=top, bands=["B12", "RED"])
    torch.testing.assert_close(few.train[0]["image"][:, 0, 0], torch.tensor([0.12, 0.04]))


def test_numbers_of_south_africa_stay_as_they_are(top: Path) -> None:
    sample = gp.load_data("m_sa_crop_type", root=top).train[0]
    assert sample["image"].dtype == torch.float32
    assert sample["image"][:, 0, 0].tolist() == [200, 300, 400, 900, 1100, 1200]
    assert sample["mask"].dtype == torch.int64 and sample["mask"].unique().tolist() == [*range(10)]


def test_cashew_states_its_day_and_south_africa_does_not(top: Path) -> None:
    cashew = gp.load_data("m_cashew_plantation", root=top).train[0]
    day = datetime.date(2019, 11, 15).timetuple().tm_yday
    assert cashew["temporal"].tolist() == [[2019.0, float(day)]]
    crops = gp.load_data("m_sa_crop_type", root=top)
    assert "temporal" not in crops.train[0] and "nor on which day" in " ".join(crops.notes)
    for sample in (cashew, crops.train[0]):
        assert "location" not in sample and sample["crs"] is None


@both
def test_all_classes_count_and_none_is_ignored(name: str, top: Path) -> None:
    data = gp.load_data(name, root=top)
    assert data.classes[0] == "no data" and data.ignore_index == -1
    assert (
        len(data.classes) == len(set(data.colours)) == {"m": 7, "s": 10}[name[2].replace("c", "m")]
    )
    assert f"All {len(data.classes)} classes count" in data.notes[0]
    assert not (data.train[0]["mask"] == data.ignore_index).any()


def test_statistics_are_the_published_ones_in_the_units_of_the_image(top: Path) -> None:
    mean, std = gp.load_data("m_cashew_plantation", root=top).statistics
    assert mean.tolist() == pytest.approx(
        [0.06347584, 0.08924612, 0.08807076, 0.26435320, 0.24639333, 0.16009208], rel=1e-6
    )
    assert std.tolist() == pytest.approx(
        [0.02272534, 0.02223255, 0.03504724, 0.04151020, 0.04949743, 0.05144230], rel=1e-5
    )
    mean, std = gp.load_data("m_sa_crop_type", root=top, bands=["B1", "B9"]).statistics
    assert mean.tolist() == pytest.approx([12.739611, 69.904566])
    assert std.tolist() == pytest.approx([7.492811526, 21.877766438], rel=1e-6)


@both
def test_a_place_is_the_same_ground_on_other_days(name: str, top: Path) -> None:
    first, second, third = gp.load_data(name, root=top).train.chips
    assert first.place == second.place != third.place
    assert CARDS[name].claims == () and "coordinates" in CARDS[name].leaks


def test_squares_of_cashew_are_counted_where_they_overlap_training(tmp_path: Path) -> None:
    folder = placeholders(tmp_path, cashew_split())
    data = gp.load_data("m_cashew_plantation", root=folder)
    assert shared_places(data)["shared_places"].tolist() == [0, 0]
    # Validation has squares 1 to 16: the first two rows of eight, without the corner, and the first
    # of the third row, whose others are in training. The first row only touches that one.
    note = next(note for note in data.notes if "share ground" in note)
    assert "225 of 400 validation and 25 of 50 test chips" in note
    assert [geobench._corner(f"sample_{25 * square}") for square in (0, 7, 8, 71)] == [
        (0, 0), (0, 866), (128, 0), (930, 866)
    ]  # fmt: skip
    renamed = {"train": ["a"], "valid": ["b"], "test": ["c"]}
    other = gp.load_data("m_cashew_plantation", root=placeholders(tmp_path / "other", renamed))
    assert not any("share ground" in note for note in other.notes)
    assert other.train.chips[0].place == "a"


def test_smaller_chips_are_the_corners_of_the_file(top: Path) -> None:
    whole = gp.load_data("m_cashew_plantation", root=top)
    quarters = gp.load_data("m_cashew_plantation", root=top, size=128)
    assert len(quarters.train) == 12 and quarters.train.chips[3].name == "sample_0-128-128"
    assert torch.equal(quarters.train[3]["image"], whole.train[0]["image"][:, 128:, 128:])
    assert torch.equal(quarters.train[3]["mask"], whole.train[0]["mask"][128:, 128:])
    with pytest.raises(ValueError, match="size must divide 256"):
        gp.load_data("m_cashew_plantation", root=top, size=100)


@both
def test_a_model_gets_numbers_of_about_one(name: str, top: Path) -> None:
    data = gp.load_data(name, root=top, size=64)
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder="linear")
    mean, std = data.statistics
    assert model.built_for["normalise"] == ("pretraining" if data.card.reflectance else "dataset")
    if not data.card.reflectance:  # what a chip of ordinary pixels becomes: mean 0, one std is 1
        torch.testing.assert_close(model.mean.flatten(), mean)
        torch.testing.assert_close(model.std.flatten(), std)
    assert ((mean[:, None, None] - model.mean) / model.std).abs().max() < 1.5
    batch = torch.stack([data.train[index]["image"] for index in range(2)])
    assert model(batch).shape == (2, len(data.classes), 64, 64)


def test_what_is_not_reflectance_is_not_scaled_as_if_it_were(top: Path) -> None:
    data = gp.load_data("m_sa_crop_type", root=top)
    backbone = gp.load_backbone("geopeft_tiny")
    with pytest.raises(ValueError, match="are not reflectance"):
        gp.build_model(backbone, data, normalise="pretraining")


@both
def test_a_sample_is_drawn_and_the_card_is_known_without_files(
    name: str, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = gp.load_data(name, root=top)
    figure = data.plot(data.train[0])
    assert [axes.get_title(loc="left") for axes in figure.axes][1:] == ["label"]
    sheet = gp.data_card(data)
    assert sheet.balance is not None and sheet.balance.loc["train", "no data"] > 0.05
    assert "coordinates" in sheet.facts.loc["known leaks", ""]
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path))
    empty = gp.data_card(name)
    assert empty.balance is None and "not loaded" in empty.facts.index
    monkeypatch.setenv("GEOPEFT_MIRROR", str(top))
    assert gp.data_card(name).balance is not None
    assert name in gp.list_datasets().index


@both
def test_what_is_not_there_is_fetched_and_extracted_into_the_cache(
    name: str, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mirror").mkdir()
    with pytest.raises(FileNotFoundError, match=r"\.zip.*download=False"):
        gp.load_data(name, download=False)
    (entry,) = published_files(name)
    folder = FEW[name][0]
    assert entry.url == (
        "https://huggingface.co/datasets/recursix/geo-bench-1.0/resolve/main/"
        f"segmentation_v1.0/{folder}.zip"
    )
    archive = tmp_path / "mirror" / entry.path
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for file in (top / "segmentation_v1.0" / folder).iterdir():
            packed.write(file, f"{folder}/{file.name}")
    assert len(gp.load_data(name, download=False).train) == 3
    archive.unlink()
    data = gp.load_data(name, download=False)
    assert data.train[0]["mask"].shape == (256, 256)
    assert (tmp_path / "cache" / name / folder / "default_partition.json").is_file()


@both
def test_absent_chips_are_named_or_skipped(name: str, top: Path, tmp_path: Path) -> None:
    inside, sides = FEW[name]
    folder = shutil.copytree(top / "segmentation_v1.0" / inside, tmp_path / inside)
    gone = sides["train"][1]
    (folder / f"{gone}.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match=f"name 5 chips.*'{gone}'.*unreadable='skip'"):
        gp.load_data(name, root=folder)
    data = gp.load_data(name, root=folder, unreadable="skip")
    assert len(data.train) == 2 and list(data.skipped) == [gone]


def test_damaged_files_are_named(top: Path, tmp_path: Path) -> None:
    data = with_chip(tmp_path, "m_cashew_plantation")
    file = tmp_path / "changed" / "sample_0.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"'sample_0' cannot be read \(.*truncated"):
        data.train[0]
    with pytest.raises(ValueError, match="'sample_26' cannot be read"):  # an empty file
        data.val[0]
    rng = np.random.default_rng(0)
    for _ in range(20):  # damage of the index, which is at the beginning
        spoilt = bytearray(content)
        for place in rng.integers(100, 8000, 200):
            spoilt[place] ^= 0xFF
        file.write_bytes(spoilt)
        try:
            data.train[0]
        except ValueError as error:
            assert "sample_0" in str(error)


LABEL = np.zeros((256, 256), np.int64)
BLUE = "02 - Blue_2019-11-15"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({BLUE: None}, r"sample_0\.hdf5 lacks 02 \(BLUE\)\. It has 01 - Coastal aerosol_2019"),
        ({"label": None}, r"sample_0\.hdf5 lacks label\. It has 01 - Coastal aerosol_2019"),
        ({BLUE: np.zeros((256, 255), np.float32)}, r"'02 - Blue.*\(256, 255\) instead of \(256, 2"),
        ({"label": LABEL[:10]}, r"'label' of .*sample_0.* is \(10, 256\) instead of \(256, 256\)"),
        ({BLUE: np.full((256, 256), np.nan, np.float32)}, "'sample_0' has 65536 NaN"),
        ({"label": LABEL + 7}, r"'sample_0' has unknown classes \[7\].*6 uncertain"),
        ({"label": LABEL + 0.5}, "label of .*sample_0.* other than whole numbers"),
        ({"label": LABEL + np.nan}, "label of .*sample_0.* other than whole numbers"),
        (
            {BLUE: None, "02 - Blue_2020-01-04": LABEL},
            "sample_0.*2019-11-15, 2020-01-04, and .*one",
        ),
    ],
)
def test_unfit_chips_are_refused_by_name(
    changed: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        with_chip(tmp_path, "m_cashew_plantation", **changed).train[0]


def test_chips_of_one_are_not_taken_for_the_other(top: Path) -> None:
    crops = gp.load_data("m_sa_crop_type", root=top / "segmentation_v1.0/m-cashew-plant")
    with pytest.raises(ValueError, match=r"2019-11-15, and those of m_sa_crop_type no day\. Is"):
        crops.train[0]
    cashew = gp.load_data("m_cashew_plantation", root=top / "segmentation_v1.0/m-SA-crop-type")
    with pytest.raises(ValueError, match=r"no day, and those of m_cashew_plantation one day\. Is"):
        cashew.train[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": ["a"], "valid": ["b"], "test": ["c", "a"]}', "names 1 chips twice, 'a'"),
        ('{"train": ["a"], "test": ["c"]}', "not a partition of GEO-Bench.*KeyError: 'valid'"),
        ("[1, 2]", "not a partition of GEO-Bench"),
        ("{", "not a partition of GEO-Bench"),
        ('{"train": ["a"], "valid": ["b"], "test": []}', "has no test chips of region benin"),
    ],
)
def test_partitions_that_cannot_be_are_refused(content: str, message: str, tmp_path: Path) -> None:
    placeholders(tmp_path, {"train": ["a"], "valid": ["b"], "test": ["c"]})
    (tmp_path / "default_partition.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        gp.load_data("m_cashew_plantation", root=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"holdout_regions": ["benin"]}, "trained on and held out"),
        ({"holdout_regions": ["togo"]}, "Unknown region"),
        ({"bands": ["CIRRUS"]}, "CIRRUS is not available"),
        ({"partition": "default"}, "Unknown option of .* 'partition'"),
    ],
)
def test_bad_requests_say_what_would_work(
    arguments: dict[str, object], message: str, top: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        gp.load_data("m_cashew_plantation", root=top, **arguments)


def test_another_folder_and_a_missing_h5py_are_explained(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no default_partition\.json.*m-SA-crop-type\.zip"):
        gp.load_data("m_sa_crop_type", root=tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        gp.load_data("m_sa_crop_type", root=top)
