"""What holds for each published data set: sides, samples, bands, cuts, refusals, archives."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from published_files import CASES, LISTS, Case, write_hdf5, write_raster

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.classroom.mirror import published_files
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published import common

RASTERS = [case for case in CASES if case.files[0].endswith(".tif")]
MASKS = [case for case in CASES if case.card.task == "segmentation"]
each = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of each case, which no test changes."""
    folders = {}
    for case in CASES:
        folders[str(case)] = tmp_path_factory.mktemp(case.card.name)
        case.make(folders[str(case)])
    return folders


@pytest.fixture(autouse=True)
def short_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lists, a cache of the test's own, and no mirror."""
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    monkeypatch.setattr(common, "split_list", lambda name, download=True: LISTS[name])


def load(case: Case, root: Path, **arguments: object) -> GeoData:
    return gp.load_data(case.card.name, root=root, **case.options, **arguments)


def copied(case: Case, made: dict[str, Path], folder: Path) -> Path:
    return Path(shutil.copytree(made[str(case)], folder / "copy"))


@each
def test_chips_are_on_the_sides_that_were_published(case: Case, made: dict[str, Path]) -> None:
    data = load(case, made[str(case)])
    names = {side: [chip.name for chip in part.chips] for side, part in data.parts.items()}
    if case.sides:
        assert names == case.sides
    assert set(data.regions) == set(case.card.home) and data.card is case.card
    chips = [chip.name for part in data.parts.values() for chip in part.chips]
    assert len(chips) == len(set(chips))


@each
def test_a_sample_has_pixels_of_one_scale_and_says_where_it_is_from(
    case: Case, made: dict[str, Path]
) -> None:
    data = load(case, made[str(case)])
    sample, size = data.train[0], case.card.size
    assert sample["image"].shape == (6, size, size) and sample["image"].dtype == torch.float32
    numbers = [case.card.bands.index(band) + 1 for band in HLS_BANDS]
    expected = torch.tensor(numbers) * case.level
    torch.testing.assert_close(sample["image"][:, 40, 30], expected)
    if case.card.task == "segmentation":
        assert sample["mask"].dtype == torch.int64 and sample["mask"].shape == (size, size)
        assert (sample["mask"][40, 30], sample["mask"][40, 110 if size == 128 else -1]) == (0, 1)
    else:
        assert sample["name"].startswith(data.classes[sample["label"]])
    assert sample["region"] in data.regions and sample["place"]
    assert ("location" in sample) == (case in RASTERS) == (sample["crs"] is not None)


@each
def test_bands_and_their_published_statistics_come_in_the_order_asked_for(
    case: Case, made: dict[str, Path]
) -> None:
    data = load(case, made[str(case)], bands=["B12", "RED"])
    assert data.bands == ("SWIR_2", "RED")
    chosen = [case.card.bands.index(band) for band in data.bands]
    expected = (torch.tensor(chosen) + 1) * case.level
    torch.testing.assert_close(data.val[0]["image"][:, 40, 30], expected)
    for ours, published in zip(data.statistics, (case.card.mean, case.card.std), strict=True):
        assert ours.tolist() == pytest.approx([published[index] for index in chosen])
    assert len(case.card.mean) == len(case.card.std) == len(case.card.bands)


@pytest.mark.parametrize("case", [c for c in MASKS if not c.card.whole], ids=str)
def test_smaller_chips_tile_the_file_and_share_its_place(case: Case, made: dict[str, Path]) -> None:
    root, half = made[str(case)], case.card.size // 2
    whole, data = load(case, root), load(case, root, size=half)
    assert len(data.train) == 4 * len(whole.train)
    corner, first = data.train[3], whole.train[0]
    assert corner["name"] == f"{first['name']}-{half}-{half}"
    assert corner["place"] == first["place"]
    assert torch.equal(corner["image"], first["image"][:, half:, half:])
    assert torch.equal(corner["mask"], first["mask"][half:, half:])
    if case in RASTERS:
        left, bottom, right, top = first["bounds"]
        expected = ((left + right) / 2, bottom, right, (bottom + top) / 2)
        assert corner["bounds"] == pytest.approx(expected)
        assert corner["location"][1] > data.train[2]["location"][1]  # further east


@each
def test_what_cannot_be_is_refused_before_a_file_is_looked_for(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "find_dataset", None)
    for arguments, message in (
        ({"size": 50}, "size"),
        ({"bands": ["TIR"]}, "Unknown band of these data 'TIR'"),
        ({"train_regions": ["atlantis"]}, f"Unknown region of {case.card.name} 'atlantis'"),
        ({"holdout_regions": [case.card.home[0]]}, "trained on and held out"),
        ({"part": "weak"}, "Unknown option of"),
    ):
        with pytest.raises(ValueError, match=message):
            gp.load_data(case.card.name, **arguments)


@pytest.mark.parametrize(
    ("name", "option"), [("eurosat", "subset"), ("burn_scars", "split"), ("reben_7k", "task")]
)
def test_a_variant_that_there_is_not_is_refused(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown {option} of {name} 'other'"):
        gp.load_data(name, **{option: "other"})


@pytest.mark.parametrize("case", MASKS, ids=str)
@pytest.mark.parametrize("which", [0, -1])
def test_files_that_are_not_there_are_named(
    case: Case, which: int, made: dict[str, Path], tmp_path: Path
) -> None:
    root = copied(case, made, tmp_path)
    gone = root / case.files[which]
    gone.unlink()
    message = rf"chips, and 1 of their files are not there.*{gone.name}"
    with pytest.raises(FileNotFoundError, match=message):
        load(case, root)


@pytest.mark.parametrize("case", MASKS[:3], ids=str)
def test_a_chip_on_two_sides_is_refused(
    case: Case, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {name: [*chips, *chips[:1]] for name, chips in LISTS.items()}
    monkeypatch.setattr(common, "split_list", lambda name, download: both[name])
    with pytest.raises(ValueError, match=r"lists \d chips twice"):
        load(case, made[str(case)])


@each
def test_another_folder_is_told_from_the_data_set(case: Case, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(case, tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load(case, tmp_path / "nowhere")


@each
def test_a_damaged_file_is_named_when_its_chip_is_asked_for(
    case: Case, made: dict[str, Path], tmp_path: Path
) -> None:
    root = copied(case, made, tmp_path)
    file = root / case.files[0]
    name = case.sides.get("train", ["AnnualCrop_1"])[0]
    file.write_bytes(file.read_bytes()[: -file.stat().st_size // 3])
    with pytest.raises(ValueError, match=name):
        data = load(case, root, cache=False)
        [part[index] for part in data.parts.values() for index in range(len(part))]


@pytest.mark.parametrize("case", MASKS, ids=str)
def test_a_file_of_another_shape_or_class_is_named(
    case: Case, made: dict[str, Path], tmp_path: Path
) -> None:
    root = copied(case, made, tmp_path)
    side = 120 if case.card.name == "reben_7k" else case.card.size  # which pads it
    for shape, value, message in (
        ((side // 2, side), 0, "instead of"),
        ((side, side), 99, "unknown values"),
    ):
        pixels = np.full(shape, value, np.int16)
        if case in RASTERS:
            write_raster(root / case.files[-1], pixels[None], 32632, (0, 0), 10)
        else:
            write_hdf5(root / case.files[0], case.card.name, label=pixels)
        with pytest.raises(ValueError, match=message):
            load(case, root, cache=False).train[0]


@pytest.mark.parametrize("case", [c for c in CASES if c.card.compressed], ids=str)
def test_decoded_chips_are_kept_until_a_file_changes(
    case: Case, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied(case, made, tmp_path)
    before = load(case, root).train[0]
    reads = []
    read = common.read_raster
    monkeypatch.setattr(common, "read_raster", lambda *a: reads.append(a) or read(*a))
    again = load(case, root).train[0]
    assert not reads and torch.equal(again["image"], before["image"])
    assert torch.equal(again["mask"], before["mask"])
    assert (again["bounds"], again["crs"]) == (before["bounds"], before["crs"])
    assert load(case, root, bands=["RED"]).train[0]["image"].shape[0] == 1
    reads.clear()
    file = root / case.files[-1]
    file.write_bytes(file.read_bytes() + b"\0")  # TIFF readers pass over what follows
    os.utime(file, (1e9, 1e9))  # as a copy that keeps an older file's time
    assert load(case, root).train[0]["name"] == before["name"] and reads


def pack(source: Path, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in sorted(source.rglob("*.*")):
                packed.write(file, file.relative_to(source))
    else:
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(source, "")


@each
def test_nothing_is_downloaded_unasked(case: Case) -> None:
    with pytest.raises(FileNotFoundError, match="download=False"):
        gp.load_data(case.card.name, download=False)


ONE_ARCHIVE = [case for case in CASES if case.card.name not in ("sen1floods11", "reben_7k")]


@pytest.mark.parametrize("case", ONE_ARCHIVE, ids=str)
def test_an_archive_of_a_mirror_is_extracted_once_into_the_cache(
    case: Case, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geopeft_nb.files.check_file", lambda path, _: path)
    entry = published_files(case.card.name)[0]
    pack(made[str(case)], tmp_path / "mirror" / entry.path)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path / "mirror"))
    data = gp.load_data(case.card.name, download=False)
    assert data.train[0]["image"].shape[0] == 6
    (tmp_path / "mirror" / entry.path).unlink()
    assert len(gp.load_data(case.card.name, download=False).train) == len(data.train)


@each
def test_a_mirror_is_told_every_file_with_its_address_and_licence(case: Case) -> None:
    entries = published_files(case.card.name)
    assert entries and all(entry.url.startswith("https://") for entry in entries)
    assert all(entry.licence for entry in entries)
    assert len({entry.path for entry in entries}) == len(entries)


@each
def test_a_model_and_the_data_card_take_the_data(case: Case, made: dict[str, Path]) -> None:
    data = load(case, made[str(case)])
    decoder = "linear" if case.card.task == "segmentation" else "classify"
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder=decoder).eval()
    with torch.no_grad():
        output = model(data.train[0]["image"][None])
    assert output.shape[:2] == (1, len(data.classes))
    sheet = gp.data_card(data)
    assert sheet.balance is not None and sheet.card.licence == case.card.licence
    bare = gp.data_card(case.card.name)
    assert bare.balance is None and "need the files" in bare.facts.loc["notes", ""]
