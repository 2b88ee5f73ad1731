"""The published data sets: what holds for each, and what only one of them has.

Sides, samples, bands, cuts, refusals and archives; then days and places, what is not known, classes
and padding of reBEN, places of EuroSAT, chips of GEO-Bench, downloads of Sen1Floods11. The lists
themselves are looked at in test_leakage.py.
"""

import os
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from published_files import (
    CASES,
    EUROSAT,
    HAND,
    PATCH,
    TILE,
    Case,
    halves,
    make_table,
    pairs,
    patch_file,
    write_eurosat,
    write_hdf5,
    write_raster,
)  # fmt: skip

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.classroom.mirror import published_files
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published import common, eurosat, reben
from geopeft_nb.files import FileEntry, cache_folder

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
    monkeypatch.setattr(common, "listed", pairs)


def load(case: Case, root: Path, **arguments: object) -> GeoData:
    return gp.load_data(case.card.name, root=root, **arguments)


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
    monkeypatch.setattr(common, "listed", lambda *asked: [*pairs(*asked), pairs(*asked)[0]])
    with pytest.raises(ValueError, match="lists 1 chips twice"):
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


def test_a_sample_says_when_and_where_as_far_as_its_data_set_does(made: dict[str, Path]) -> None:
    first = {case.card.name: load(case, made[str(case)]).train[0] for case in CASES}
    expected = {
        "sen1floods11": ("Spain", "Spain_1", [2019, 261], None, (38.1, -0.757)),  # 18 September
        "burn_scars": (
            "pacific", "T10SEJ", [2018, 185],
            (500_000, 4_400_000 - 512 * 30, 500_000 + 512 * 30, 4_400_000), (39.68, -122.91),
        ),
        "reben_7k": (
            "finland", "T34VER_04_62", [2017, 164],
            (504_780, 7_024_360, 506_060, 7_025_640), (63.36, 21.11),  # 128 pixels of 10 m
        ),
        "m_cashew_plantation": ("benin", "square-0", [2019, 319], None, None),
        "m_sa_crop_type": ("western_cape", TILE.format(1, 0)[:-2], None, None, None),
    }  # fmt: skip
    for name, (region, place, day, bounds, location) in expected.items():
        sample = first[name]
        assert (sample["region"], sample["place"]) == (region, place)
        assert bounds in (None, sample["bounds"])
        assert ([*sample["temporal"].flatten()] if "temporal" in sample else None) == day
        if location:
            assert sample["location"].tolist() == pytest.approx(location, abs=0.01)
    floods = load(CASES[0], made["sen1floods11"])
    assert floods.train[1]["temporal"].tolist() == [[2018, 216]]  # Mekong is Cambodia


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_what_is_not_known_becomes_zero_band_by_band_and_has_no_label(
    case: Case, made: dict[str, Path], tmp_path: Path
) -> None:
    root = copied(case, made, tmp_path)
    image, mask = np.full((len(case.card.bands), 512, 512), 0.1, np.float32), halves(512)
    image[:, 0, [0, 2]], mask[:, :8, :8] = [np.nan, -9999], -1
    image[case.card.bands.index("NIR_NARROW"), 0, 1] = np.nan
    for file, pixels in zip(case.files, (image, mask), strict=True):
        write_raster(root / file, pixels, 32610, (500_000, 4_400_000), 30)
    sample = load(case, root, bands=["RED", "NIR_NARROW"]).train[0]
    zero = (sample["image"] == 0).nonzero().tolist()
    assert zero == [[0, 0, 0], [0, 0, 2], [1, 0, 0], [1, 0, 1], [1, 0, 2]]
    assert (sample["mask"] == -1).sum() == 64 and sample["image"].isfinite().all()


REBEN = CASES[2]


def test_coarse_bands_of_reben_are_repeated_and_padding_mirrors_and_labels_nothing(
    made: dict[str, Path], tmp_path: Path
) -> None:
    root = copied(REBEN, made, tmp_path)
    for number, side in (("B02", 120), ("B05", 60), ("B01", 20)):
        ramp = np.arange(side * side, dtype=np.uint16).reshape(1, side, side)
        file = root / patch_file("BigEarthNet-S2", PATCH.format("04_62"), number)
        write_raster(file, ramp, 32634, (504_780, 7_025_640), 1200 / side)
    sample = load(REBEN, root, bands=["B02", "B05", "B01"]).train[0]
    image, mask = sample["image"], sample["mask"]
    for band, times in zip(image[:, :120, :120], (1, 2, 6), strict=True):
        coarse = band[::times, ::times]
        assert torch.equal(band, coarse.repeat_interleave(times, 0).repeat_interleave(times, 1))
        assert len(coarse.unique()) == coarse.numel()
    assert torch.equal(image[:, :, 120:], image[:, :, 111:119].flip(2))
    assert torch.equal(image[:, 120:], image[:, 111:119].flip(1))
    assert (mask[120:] == -1).all() and (mask[:, 120:] == -1).all()
    assert (mask[:120, :120] >= 0).all()


def test_codes_of_corine_become_classes_in_alphabetical_order(
    made: dict[str, Path], tmp_path: Path
) -> None:
    classes = REBEN.card.classes
    assert list(classes) == sorted(classes) and len(classes) == 19
    expected = {
        244: 0, 211: 1, 213: 1, 331: 2, 311: 3, 421: 4, 242: 5, 312: 6, 121: 7, 512: 8, 412: 9,
        243: 10, 523: 11, 313: 12, 322: 13, 321: 14, 333: 14, 231: 15, 241: 16, 324: 17, 112: 18,
        142: -1, 335: -1, 999: -1,
    }  # fmt: skip
    root = copied(REBEN, made, tmp_path)
    codes = np.resize(np.array(list(expected), np.uint16), (1, 120, 120))
    write_raster(root / REBEN.files[-1], codes, 32634, (504_780, 7_025_640), 10)
    mask = load(REBEN, root).train[0]["mask"][:120, :120]
    assert mask.flatten()[: len(expected)].tolist() == list(expected.values())


@pytest.mark.slow
def test_codes_colours_and_addresses_of_reben_are_those_of_torchgeo() -> None:
    torchgeo = pytest.importorskip("torchgeo.datasets.bigearthnet", reason="needs torchgeo")
    published = torchgeo.BigEarthNetV2
    theirs = {code: published.class_set[index] for code, index in published.clc_codes.items()}
    assert {c: name for name, (_, codes) in reben.CLASSES.items() for c in codes} == theirs
    assert {name: colour for name, (colour, _) in reben.CLASSES.items()} == published.clc_colors
    sums: dict[str, str] = {}
    for kind in ("s2", "maps", "metadata"):
        sums |= published.metadata_locs[kind]["files"]
    assert sums.keys() == reben.FILES.keys()
    for name, published_sum in sums.items():  # torchgeo 0.10 has sha256 for some, older ones md5
        entry = reben.FILES[name]
        ours = {32: entry.md5, 64: entry.sha256}[len(published_sum)]
        assert ours in (published_sum, None) and (entry.md5 or entry.sha256)
        address = published.url.format(name)
        assert address.split("/datasets/")[1] == entry.url.split("/datasets/")[1]


def test_multilabel_takes_the_labels_of_the_table_and_needs_no_maps(
    made: dict[str, Path], tmp_path: Path
) -> None:
    root = copied(REBEN, made, tmp_path)
    shutil.rmtree(root / "Reference_Maps")
    data = load(REBEN, root, task="multilabel")
    sample = data.train[0]
    assert data.task == data.card.task == "multilabel" and "mask" not in sample
    assert data.words(sample) == "Agro-forestry areas, Pastures"


PATCHES = [patch for _, patch in pairs("reBEN")]


@pytest.mark.parametrize(
    ("patches", "country", "labels", "message"),
    [
        (PATCHES[1:], "Finland", [], f"Unknown country of chip '{PATCHES[0]}' None"),
        (PATCHES, "Atlantis", [], "Unknown country of chip.*'atlantis'"),
        (PATCHES, "Finland", ["Pasture"], "Did you mean 'Pastures'"),
    ],
)
def test_a_table_that_is_not_bigearthnets_is_refused(
    patches: list[str], country: str, labels: list[str], message: str,
    made: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    root = copied(REBEN, made, tmp_path)
    make_table(root, dict.fromkeys(patches, country), labels)
    with pytest.raises(ValueError, match=message):
        load(REBEN, root)


def test_of_the_archives_of_reben_only_what_is_listed_is_unpacked(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, mirror = made[str(REBEN)], tmp_path / "mirror/reben_7k"
    mirror.mkdir(parents=True)
    shutil.copy(source / "metadata.parquet", mirror)
    for name, parts in (("Reference_Maps", 1), ("BigEarthNet-S2", 2)):
        with tarfile.open(tmp_path / "whole", "w:gz") as archive:
            archive.add(source / name, name)
            archive.add(__file__, f"{name}/product/an_unlisted_patch/an_unlisted_patch_B02.tif")
        whole = (tmp_path / "whole").read_bytes()
        cut = len(whole) // parts + 1
        for index, ending in enumerate("ab"[:parts]):
            part = whole[index * cut : (index + 1) * cut]
            (mirror / f"{name}.tar.gza{ending}").write_bytes(part)
    monkeypatch.setattr("geopeft_nb.files.check_file", lambda path, _: path)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(mirror.parent))
    assert gp.load_data("reben_7k", download=False).train[0]["image"].shape == (6, 128, 128)
    assert len([*mirror.iterdir()]) == 4
    cached = tmp_path / "cache/reben_7k/BigEarthNet-S2"
    assert (cached / REBEN.files[0]).is_file()
    assert not (cached / "BigEarthNet-S2/product").exists()


CASHEW, CROPS, EUROSAT_CASE = CASES[3:]


@pytest.mark.parametrize("case", [CASHEW, CROPS], ids=str)
def test_a_chip_of_geobench_has_a_place_and_classes_and_is_not_of_the_other(
    case: Case, made: dict[str, Path]
) -> None:
    inside = made[str(case)] / Path(case.files[0]).parent
    for root in (inside, inside.parent, made[str(case)]):
        data = load(case, root)
    first, second, third = data.train.chips
    assert first.place == second.place != third.place  # the same ground on other days
    assert data.classes[0] == "no data" and data.ignore_index == -1
    assert len(data.classes) == len(set(data.colours)) == (7 if case is CASHEW else 10)
    other = CROPS if case is CASHEW else CASHEW
    with pytest.raises(ValueError, match="Is this the folder of another data set"):
        load(case, made[str(other)] / Path(other.files[0]).parent)


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
def test_unfit_chips_of_geobench_are_refused_by_name(
    changed: dict[str, np.ndarray | None], message: str, made: dict[str, Path], tmp_path: Path
) -> None:
    root = copied(CASHEW, made, tmp_path)
    write_hdf5(root / CASHEW.files[0], CASHEW.card.name, **changed)
    with pytest.raises(ValueError, match=message):
        load(CASHEW, root).train[0]


def test_places_of_eurosat_stay_together_and_the_east_is_held_out(made: dict[str, Path]) -> None:
    data = load(EUROSAT_CASE, made["eurosat"], bands=SENTINEL2_BANDS)
    assert data.regions == ("west", "centre") and list(data.holdout) == ["east"]
    chips = {chip.name: chip for part in data.parts.values() for chip in part.chips}
    assert {name: chip.region for name, chip in chips.items()} == {
        name: region for name, (region, _, _) in EUROSAT.items()
    }
    assert all(count == 2 for count in Counter(chip.place for chip in chips.values()).values())
    assert chips["AnnualCrop_1"].place == chips["Forest_1"].place == "lat47.00-lon-4.25"
    sample = data.holdout["east"][0]
    assert sample["location"].tolist() == pytest.approx(EUROSAT[sample["name"]][1:], abs=1e-5)
    assert sample["crs"] == "EPSG:32634" and "temporal" not in sample  # it does not say when
    order = [1, 2, 3, 4, 5, 6, 7, 8, 13, 9, 10, 11, 12]  # B8A is the last of the file
    assert sample["image"][:, 5, 5].tolist() == pytest.approx([n / 10 for n in order])


@pytest.mark.parametrize(
    ("longitude", "region", "west"),
    [(2.9999, "west", "2.75"), (3.0, "centre", "3.00"), (12.999, "centre", "12.75"),
     (13.0, "east", "13.00")],
)  # fmt: skip
def test_no_place_crosses_the_border_of_a_region(longitude: float, region: str, west: str) -> None:
    assert eurosat.region_of(longitude) == region
    assert eurosat.place_of(47.0, longitude) == f"lat47.00-lon{west}"


def test_a_chip_of_eurosat_that_comes_twice_or_lies_nowhere_is_named(
    made: dict[str, Path], tmp_path: Path
) -> None:
    root = copied(EUROSAT_CASE, made, tmp_path)
    write_eurosat(root / "copy/Forest/Forest_1.tif", "west", 47, -4)
    with pytest.raises(ValueError, match="lists 1 chips twice, 'Forest_1'"):
        load(EUROSAT_CASE, root)
    with rasterio.open(root / "copy/Forest/Forest_1.tif") as raster:
        profile = raster.profile | {"crs": None}
    rasterio.open(root / "copy/Forest/Forest_1.tif", "w", **profile).close()
    with pytest.raises(ValueError, match=r"Forest_1.tif does not say where it lies"):
        load(EUROSAT_CASE, root)


def test_a_subset_of_eurosat_is_downloaded_from_its_pinned_address(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FileEntry] = []
    monkeypatch.setattr(common, "fetch", lambda entry, _: asked.append(entry))
    monkeypatch.setattr(common, "extract", lambda *_: made["eurosat"])
    gp.load_data("eurosat")
    gp.load_data("eurosat", subset="full")
    assert [Path(entry.path).name for entry in asked] == ["EuroSAT100.zip", "EuroSATallBands.zip"]
    assert all("/torchgeo/eurosat/resolve/1ce6f1bfb56db63fd91b" in entry.url for entry in asked)


def test_what_a_mirror_lacks_of_sen1floods11_is_downloaded_once_for_the_wanted_regions(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    site = "https://storage.googleapis.com/sen1floods11/"

    def download(entry: FileEntry) -> Path:
        name = entry.url.removeprefix(site)
        asked.append(name)  # four threads ask: the last one asked for need not be this one
        target = cache_folder() / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(made["sen1floods11"] / name, target))

    monkeypatch.setattr("geopeft_nb.files._from_url", download)
    for part in ("S2Hand", "LabelHand"):
        name = f"{HAND}/{part}/Spain_2_{part}.tif"
        (copy := tmp_path / "mirror/sen1floods11" / name).parent.mkdir(parents=True)
        shutil.copyfile(made["sen1floods11"] / name, copy)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path / "mirror"))
    some = {"train_regions": ["Spain"], "holdout_regions": ["Sri-Lanka"]}
    data = gp.load_data("sen1floods11", **some)
    assert [len(part) for part in data.parts.values()] == [1, 1, 1, 1] and len(asked) == 2 * 3
    gp.load_data("sen1floods11")
    assert len(asked) == len(set(asked)) == 14 and not any("Spain_2" in name for name in asked)
    gp.load_data("sen1floods11", download=False)
    assert len(asked) == 14


@pytest.mark.mirror
def test_a_real_chip_goes_end_to_end(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _, chip in pairs("sen1floods11"):
        for part in ("S2Hand", "LabelHand"):
            target = tmp_path / HAND / part / f"{chip}_{part}.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(mirror / f"sen1floods11/{HAND}/{part}/Spain_7370579_{part}.tif")
    sample = gp.load_data("sen1floods11", root=tmp_path).test[0]
    assert 0 < sample["image"].min() and sample["image"].max() < 0.7
    blue, nir = sample["image"][0].mean(), sample["image"][3].mean()
    assert (blue, nir) == (pytest.approx(0.12704, abs=1e-4), pytest.approx(0.21297, abs=1e-4))
    values, number = sample["mask"].unique(return_counts=True)
    assert (values.tolist(), number.tolist()) == ([-1, 0, 1], [99, 192_010, 70_035])
    assert sample["location"].tolist() == pytest.approx([38.106, -0.759], abs=1e-3)
    assert sample["crs"] == "EPSG:4326"
