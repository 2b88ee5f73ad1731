"""EuroSAT: chips by place and by region, an index of where they lie, and the published split."""

import hashlib
import os
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.datasets import eurosat
from geopeft_nb.datasets.geodata import GeoData, band_statistics
from geopeft_nb.datasets.split import shared_places
from geopeft_nb.files import FileEntry

#: Where torchgeo's archives have the folders of the classes.
INSIDE = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
#: Region -> longitude, and zone of UTM, of chips that lie there.
WHERE = {"west": (-4.1, 30), "centre": (8.1, 32), "east": (20.1, 34)}
#: Four places in each region, with two chips, 5 km apart, in each.
CHIPS = {
    f"{name}_{number}": (region, 47.05 + place, longitude + 0.06 * pair)
    for number, (region, (longitude, _)) in enumerate(WHERE.items(), start=1)
    for place in range(4)
    for pair in range(2)
    for name in [list(eurosat.CLASSES)[2 * place + pair]]
}


def write(
    path: Path,
    region: str,
    latitude: float,
    longitude: float,
    bands: int = 13,
    located: bool = True,
) -> None:
    """Write a chip as EuroSAT has it; band 1 is 100, band 2 is 200, and so on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    crs = CRS.from_epsg(32600 + WHERE[region][1])
    (x,), (y,) = transform("EPSG:4326", crs, [longitude], [latitude])
    corner = {"transform": from_origin(x - 320, y + 320, 10, 10)} if located else {}
    image = np.repeat(np.arange(1, bands + 1, dtype=np.uint16) * 100, 64 * 64)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": bands, "width": 64, "height": 64}
    with rasterio.open(path, "w", **profile, crs=crs, **corner) as raster:
        raster.write(image.reshape(bands, 64, 64))


def path_of(folder: Path, name: str) -> Path:
    return folder / INSIDE / name.rpartition("_")[0] / f"{name}.tif"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A cache of its own for each test, and no mirror but for the tests that are of the mirror."""
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    if not request.node.get_closest_marker("mirror"):
        monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path / "mirror"))
        (tmp_path / "mirror").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of 24 chips, as unpacked."""
    for name, where in CHIPS.items():
        write(path_of(tmp_path / "root", name), *where)
    return tmp_path / "root"


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Published lists of 20 of the chips, in the mirror; some are of .jpg, as torchgeo's are."""
    order = np.random.default_rng(0).permutation(sorted(CHIPS)).tolist()
    sides = {"train": order[:12], "val": order[12:16], "test": order[16:20]}
    entries = {}
    for side, chips in sides.items():
        path = tmp_path / f"mirror/eurosat/eurosat-100-{side}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{chip}.jpg\n" for chip in chips))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entries[side] = replace(eurosat.LISTS["100"][side], sha256=digest)
    monkeypatch.setitem(eurosat.LISTS, "100", entries)
    return sides


@pytest.fixture
def archive(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """EuroSAT100.zip in the mirror, with the 24 chips in it."""
    path = tmp_path / "mirror/eurosat/EuroSAT100.zip"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(root.rglob("*.tif")):
            packed.write(file, file.relative_to(root))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(eurosat.ARCHIVES, "100", replace(eurosat.ARCHIVES["100"], sha256=digest))
    return path


def names(data: GeoData) -> dict[str, list[str]]:
    return {side: sorted(chip.name for chip in part.chips) for side, part in data.parts.items()}


def no_raster(*_: object, **__: object) -> None:
    raise AssertionError("a raster was opened")


def test_chips_of_a_place_stay_together_and_the_east_is_held_out(root: Path) -> None:
    data = gp.load_data("eurosat", root=root)
    assert data.regions == ("west", "centre") and list(data.holdout) == ["east"]
    assert len(data.holdout["east"]) == 8
    assert sum(len(part) for part in (data.train, data.val, data.test)) == 16
    chips = {chip.name: chip for part in data.parts.values() for chip in part.chips}
    assert {name: chip.region for name, chip in chips.items()} == {
        name: region for name, (region, _, _) in CHIPS.items()
    }
    assert all(count == 2 for count in Counter(chip.place for chip in chips.values()).values())
    assert chips["AnnualCrop_1"].place == chips["Forest_1"].place == "lat47.00-lon-4.25"
    assert chips["Pasture_2"].place == "lat49.00-lon8.00"
    table = shared_places(data)
    assert table["claims"].all() and not table["shared_places"].any()


@pytest.mark.parametrize(
    ("longitude", "region", "west"),
    [(2.9999, "west", "2.75"), (3.0, "centre", "3.00"), (12.999, "centre", "12.75"),
     (13.0, "east", "13.00")],
)  # fmt: skip
def test_no_place_crosses_the_border_of_a_region(longitude: float, region: str, west: str) -> None:
    spot = eurosat.Spot("EPSG:4326", (0, 0, 1, 1), 47.0, longitude)
    assert (spot.region, spot.place) == (region, f"lat47.00-lon{west}")


def test_a_sample_is_reflectance_with_label_and_location(root: Path) -> None:
    data = gp.load_data("eurosat", root=root)
    assert data.bands == HLS_BANDS
    sample = data.holdout["east"][0]
    assert sample["image"].dtype == torch.float32 and sample["image"].shape == (6, 64, 64)
    # B2, B3, B4, B8A, B11, B12; B8A is the last of the file.
    assert sample["image"][:, 0, 0].tolist() == pytest.approx([0.02, 0.03, 0.04, 0.13, 0.11, 0.12])
    assert sample["label"].dtype == torch.int64 and sample["label"].shape == ()
    assert data.classes[sample["label"]] == sample["name"].rpartition("_")[0]
    _, latitude, longitude = CHIPS[sample["name"]]
    assert sample["location"].tolist() == pytest.approx([latitude, longitude], abs=1e-5)
    left, bottom, right, top = sample["bounds"]
    assert (right - left, top - bottom, sample["crs"]) == (640, 640, "EPSG:32634")
    assert "temporal" not in sample  # EuroSAT does not say when


def test_all_thirteen_bands_can_be_asked_for_in_the_order_of_the_products(root: Path) -> None:
    data = gp.load_data("eurosat", root=root, bands=SENTINEL2_BANDS)
    order = [1, 2, 3, 4, 5, 6, 7, 8, 13, 9, 10, 11, 12]
    assert data.train[0]["image"][:, 5, 5].tolist() == pytest.approx([n / 100 for n in order])
    mean, std = data.statistics
    assert mean[[0, 8, 10]].tolist() == pytest.approx([0.1354405, 0.2594141, 0.0012113])
    assert std[8] == pytest.approx(0.1231586)


def test_a_second_load_opens_no_raster(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gp.load_data("eurosat", root=root)
    monkeypatch.setattr(rasterio, "open", no_raster)
    second = gp.load_data("eurosat", root=root)
    assert names(second) == names(first)
    chip = second.train.chips[0]
    assert chip == replace(first.train.chips[0], read=chip.read)
    with pytest.raises(AssertionError, match="a raster was opened"):
        second.train[0]


def test_a_changed_file_is_looked_at_again(root: Path) -> None:
    gp.load_data("eurosat", root=root)
    write(path_of(root, "Forest_1"), "centre", 41.1, 9.1)
    data = gp.load_data("eurosat", root=root, train_regions=["centre"])
    moved = {chip.name: chip.place for part in data.parts.values() for chip in part.chips}
    assert moved["Forest_1"] == "lat41.00-lon9.00"


@pytest.mark.parametrize("damage", ["", "[]", '{"state": 1}', '{"state": "', "\0" * 50])
def test_a_damaged_index_is_made_anew(root: Path, cache: Path, damage: str) -> None:
    whole = names(gp.load_data("eurosat", root=root))
    (index,) = cache.glob("eurosat/*")
    good = index.read_text()
    index.write_text(damage)
    assert names(gp.load_data("eurosat", root=root)) == whole
    assert index.read_text() == good and list(cache.glob("eurosat/*")) == [index]


def test_without_a_cache_to_write_to_loading_works_and_says_what_it_costs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "file"))  # nothing can be below a file
    with pytest.warns(UserWarning, match="reads the header of every file. Set GEOPEFT_CACHE"):
        assert len(gp.load_data("eurosat", root=root).holdout["east"]) == 8


def test_nothing_is_kept_if_the_cache_is_not_wanted(root: Path, cache: Path) -> None:
    gp.load_data("eurosat", root=root, cache=False)
    assert not cache.exists()


def test_the_published_split_is_kept_and_claims_no_places(
    root: Path, lists: dict[str, list[str]]
) -> None:
    data = gp.load_data("eurosat", root=root, split="published")
    assert names(data) == {side: sorted(chips) for side, chips in lists.items()}
    assert data.regions == ("west", "centre", "east")
    assert data.card.claims == ("holdout",) and "random" in data.card.leaks
    assert shared_places(data)["shared_chips"].sum() > 0
    folds = dict(gp.leave_one_region_out("eurosat", root=root, split="published"))
    listed = {chip for side in lists.values() for chip in side}
    assert len(listed) == 20
    for region, fold in folds.items():
        away = [name for name in sorted(listed) if CHIPS[name][0] == region]
        assert names(fold)[f"holdout:{region}"] == away
        assert sum(map(len, fold.parts.values())) == 20


def test_listed_chips_that_are_not_there_are_refused_or_skipped(
    root: Path, lists: dict[str, list[str]]
) -> None:
    gone, broken = lists["train"][3], lists["val"][0]
    path_of(root, gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"name 20 chips, .* 1 of them.*{gone}.tif"):
        gp.load_data("eurosat", root=root, split="published")
    path_of(root, broken).write_bytes(b"")
    data = gp.load_data("eurosat", root=root, split="published", unreadable="skip")
    assert [len(part) for part in data.parts.values()] == [11, 3, 4]
    assert data.skipped.keys() == {gone, broken}
    assert "is not there" in data.skipped[gone] and "cannot be read" in data.skipped[broken]


def test_lists_beside_the_chips_are_taken_if_they_are_the_published_ones(
    root: Path, tmp_path: Path, lists: dict[str, list[str]]
) -> None:
    for file in (tmp_path / "mirror/eurosat").glob("*.txt"):
        file.rename(root / file.name)
    data = gp.load_data("eurosat", root=root, split="published", download=False)
    assert [chip.name for chip in data.val.chips] == lists["val"]
    with (root / "eurosat-100-val.txt").open("a") as file:
        file.write("River_1.jpg\n")
    with pytest.raises(ValueError, match=r"eurosat-100-val.txt is corrupt: its sha256"):
        gp.load_data("eurosat", root=root, split="published")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": "50"}, "subset of eurosat '50'.*Known: 100, full, sample"),
        ({"split": "random"}, "split of eurosat 'random'.*Known: places, published"),
        ({"subset": "sample", "split": "published"}, "no published split"),
        ({"size": 32}, "size must be 64 for eurosat, got 32"),
        ({"train_regions": ["center"]}, "Did you mean 'centre'"),
        ({"bands": ["B8", "B14"]}, "band 'B14'"),
    ],
)
def test_bad_options_are_refused_before_any_file_is_looked_for(
    arguments: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eurosat, "fetch", no_raster)
    with pytest.raises(ValueError, match=message):
        gp.load_data("eurosat", **arguments)


def test_what_is_no_folder_of_eurosat_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other/Forest").mkdir(parents=True)
    (tmp_path / "other/Forest/Forest_1.jpg").touch()
    with pytest.raises(FileNotFoundError, match=r"no GeoTIFF such as .*\.jpg\) lack ten"):
        gp.load_data("eurosat", root=tmp_path / "other")
    write(root / "copy/Forest/Forest_1.tif", "west", 47, -4)
    with pytest.raises(ValueError, match="two files of chip 'Forest_1'"):
        gp.load_data("eurosat", root=root)


def test_unfit_chips_are_named_or_skipped(root: Path) -> None:
    unfit = {
        "River_4": "cannot be read",
        "River_5": r"\(3, 64, 64\) instead of \(13, 64, 64\)",
        "River_6": "does not say where it lies",
    }
    write(path_of(root, "River_4"), "west", 47, -4)
    path_of(root, "River_4").write_bytes(path_of(root, "River_4").read_bytes()[:100])
    write(path_of(root, "River_5"), "west", 47, -4, bands=3)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write(path_of(root, "River_6"), "west", 47, -4, located=False)
    with pytest.raises(ValueError, match=r"3 of 27 chips are unfit, for example 'River_4'.*'skip'"):
        gp.load_data("eurosat", root=root)
    for _ in range(2):  # from the headers, and from the index
        data = gp.load_data("eurosat", root=root, unreadable="skip")
        assert data.skipped.keys() == unfit.keys()
        for name, reason in unfit.items():
            with pytest.raises(ValueError, match=reason):
                raise ValueError(data.skipped[name])


def test_a_chip_that_ends_early_is_named_when_it_is_read(root: Path) -> None:
    path = path_of(root, "Forest_3")
    os.truncate(path, path.stat().st_size - 50_000)
    data = gp.load_data("eurosat", root=root)
    index = [chip.name for chip in data.holdout["east"].chips].index("Forest_3")
    with pytest.raises(ValueError, match="Chip 'Forest_3' cannot be read"):
        data.holdout["east"][index]


def test_an_archive_of_the_mirror_is_extracted_once_into_the_cache(
    archive: Path, cache: Path
) -> None:
    data = gp.load_data("eurosat", download=False)
    assert sum(map(len, data.parts.values())) == 24
    assert path_of(cache / "eurosat/EuroSAT100", "Forest_1").is_file()
    archive.unlink()
    assert names(gp.load_data("eurosat", download=False)) == names(data)


def test_a_damaged_archive_is_refused(archive: Path) -> None:
    with archive.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"EuroSAT100\.zip is corrupt: its sha256"):
        gp.load_data("eurosat")


def test_a_subset_is_downloaded_from_its_pinned_address(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FileEntry] = []

    def fetch(entry: FileEntry, download: bool = True) -> Path:
        asked.append(entry)
        return archive

    monkeypatch.setattr(eurosat, "fetch", fetch)
    gp.load_data("eurosat")
    gp.load_data("eurosat", subset="full")
    assert [entry.url.rpartition("/")[2] for entry in asked] == [
        "EuroSAT100.zip", "EuroSATallBands.zip"
    ]  # fmt: skip
    assert all("/torchgeo/eurosat/resolve/1ce6f1bfb56db63fd91b" in entry.url for entry in asked)


def test_the_sample_cannot_be_downloaded_and_says_so() -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot be downloaded.*contains 'eurosat_ms'"):
        gp.load_data("eurosat", subset="sample")


def test_a_mirror_needs_the_small_subset_and_its_lists() -> None:
    files = eurosat.mirror_files()
    assert [entry.name for entry in files] == [
        "EuroSAT100.zip", "eurosat-100-train.txt", "eurosat-100-val.txt", "eurosat-100-test.txt",
    ]  # fmt: skip
    assert all(entry.sha256 and entry.source for entry in files)


def test_the_card_can_be_read_with_and_without_files(archive: Path, cache: Path) -> None:
    with_files = gp.data_card("eurosat")
    assert with_files.balance.loc["train", "chips"] > 0
    assert with_files.places["longitude"].between(-5, 21).all() and with_files.map()
    archive.unlink()
    shutil.rmtree(cache)
    without = gp.data_card("eurosat")
    assert without.balance is None and "EuroSAT100.zip" in without.facts.loc["not loaded", ""]


def test_a_model_classifies_and_a_sample_is_drawn(root: Path) -> None:
    data = gp.load_data("eurosat", root=root)
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder="classify").eval()
    batch = torch.stack([data.train[index]["image"] for index in range(3)])
    with torch.no_grad():
        assert model(batch).shape == (3, 10)
    figure = data.plot(data.train[0])
    label = data.classes[data.train[0]["label"]]
    assert label in figure.get_suptitle() and "true colour" in figure.axes[0].get_title(loc="left")


@pytest.mark.mirror
def test_the_sample_of_the_mirror_is_split_into_three_regions() -> None:
    folds = dict(gp.leave_one_region_out("eurosat", subset="sample"))
    assert {name: len(data.holdout[name]) for name, data in folds.items()} == {
        "west": 57, "centre": 83, "east": 60
    }  # fmt: skip
    for data in folds.values():
        assert sum(map(len, data.parts.values())) == 200
        assert not shared_places(data)["shared_places"].any()
    home = folds["east"]  # as by default
    assert {int(home.train[i]["label"]) for i in range(len(home.train))} == set(range(10))


@pytest.mark.mirror
def test_published_statistics_fit_the_pixels_of_the_sample() -> None:
    data = gp.load_data("eurosat", subset="sample", bands=eurosat.CARD.bands)
    mean, std = band_statistics(data.train)
    wanted_mean, wanted_std = data.statistics
    # 84 chips of 27,000; a wrong order of the bands would be off by half and more.
    assert (mean / wanted_mean - 1).abs().max() < 0.15
    assert (std / wanted_std - 1).abs().max() < 0.25


@pytest.mark.mirror
def test_a_random_split_of_the_sample_leaves_neighbours_on_both_sides() -> None:
    data = gp.load_data("eurosat", subset="sample")
    places = np.array([chip.place for part in data.parts.values() for chip in part.chips])
    shared = []
    for seed in range(500):
        order = np.random.default_rng(seed).permutation(200)
        shared.append(np.isin(places[order[120:]], places[order[:120]]).sum())
    assert min(shared) > 0 and np.mean(shared) == pytest.approx(14, abs=0.5)
    assert "14 of 80" in str(eurosat.PUBLISHED["leaks"])


@pytest.mark.mirror
def test_a_linear_probe_learns_from_the_sample_and_is_judged_region_by_region() -> None:
    data = gp.load_data("eurosat", subset="sample")
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder="classify")
    run = gp.fit(gp.attach(model, "linear_probe"), data, epochs=2, dashboard=False)
    table = gp.evaluate(run, data).table
    assert table["role"].to_dict() == {"west": "home", "centre": "home", "east": "away"}
    assert table.loc["east", "chips"] == 60 and table.loc["east", "places"] == 52
    assert (table["accuracy"] > 0.25).all()  # chance is 0.1; seen: 0.73, 0.88, 0.63
