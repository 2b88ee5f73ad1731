"""HLS Burn Scars: files of the published layout with made-up pixels, and the published lists."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

import geopeft_nb as gp
from geopeft_nb import files as arrival
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.classroom.needs import published_files
from geopeft_nb.datasets import burn_scars
from geopeft_nb.datasets.burn_scars import CARD, LISTS
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import split_list
from geopeft_nb.datasets.split import shared_places
from geopeft_nb.files import FileEntry, fetch

#: Some chips of the published lists: two regions, and one tile on two sides.
FEW = {
    "train": ["T10SEJ.2018185.v1", "T10SFE.2020267.v1", "T17SQU.2018121.v1"],
    "val": ["T10SEJ.2018220.v1", "T17SQD.2020094.v1"],
    "test": ["T10SDH.2020248.v1", "T17SPS.2020039.v1"],
}
EVERY = [name for names in FEW.values() for name in names]


def image_of(name: str) -> str:
    return f"subsetted_512x512_HLS.S30.{name}.4_merged.tif"


def mask_of(name: str) -> str:
    return f"subsetted_512x512_HLS.S30.{name}.4.mask.tif"


def write(path: Path, pixels: np.ndarray, zone: int, nodata: float | None = None) -> None:
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
        crs=f"EPSG:{32600 + zone}", transform=from_origin(500_000, 4_400_000, 30, 30),
        nodata=nodata,
    ) as raster:  # fmt: skip
        raster.write(pixels)


def pixels_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Six bands about 0.1, 0.2 ... 0.6, darker to the east, and a scar in the south-west."""
    levels = np.arange(1, 7, dtype=np.float32)[:, None, None] / 10
    image = levels * np.linspace(1, 0.5, 512, dtype=np.float32) * np.ones((1, 512, 1), np.float32)
    mask = np.zeros((1, 512, 512), np.int16)
    mask[0, 256:, :256] = 1
    mask[0, :4] = -1
    if name == EVERY[0]:
        image[:, 0, 0], image[2, 0, 1], image[:, 0, 2], image[:, 0, 3] = np.nan, np.nan, -9999, -2
    return image, mask


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the archive unpacks to; its own split is another than that of the lists."""
    folder = tmp_path_factory.mktemp("burn_scars")
    for number, name in enumerate(EVERY):
        here = folder / ("validation" if number % 3 == 0 else "training")
        here.mkdir(exist_ok=True)
        (image, mask), zone = pixels_of(name), int(name[1:3])
        write(here / image_of(name), image, zone, nodata=-2 if number == 0 else None)
        write(here / mask_of(name), mask, zone)
    (folder / "__MACOSX").mkdir()  # as the archives of a Mac have it
    (folder / "__MACOSX" / f"._{image_of(EVERY[0])}").touch()
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published lists, cut to a few chips."""
    short = {LISTS[side]: names for side, names in FEW.items()}
    monkeypatch.setattr(burn_scars, "split_list", lambda name, download: short[name])


def placeholders(folder: Path, names: Iterable[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / image_of(name)).touch()
        (folder / mask_of(name)).touch()
    return folder


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 804 names of the published lists, as empty files: loading opens none."""
    names = [name for entry in LISTS.values() for name in split_list(entry)]
    return placeholders(tmp_path_factory.mktemp("complete"), names)


def names_of(data: GeoData) -> dict[str, list[str]]:
    return {side: [chip.name for chip in part.chips] for side, part in data.parts.items()}


@pytest.mark.mirror
def test_the_published_split_is_that_of_the_lists(complete: Path) -> None:
    data = gp.load_data("burn_scars", root=complete)
    assert [len(part) for part in data.parts.values()] == [524, 160, 120]
    assert names_of(data) == {side: split_list(entry) for side, entry in LISTS.items()}
    assert all(set(FEW[side]) <= set(names) for side, names in names_of(data).items())
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
@pytest.mark.parametrize(
    ("home", "sides"),
    [("pacific", [187, 46, 40]), ("mountain", [147, 47, 42]), ("plains", [91, 43, 16]),
     ("east", [99, 24, 22])],
)  # fmt: skip
def test_a_held_out_region_shares_no_tile_with_training(
    complete: Path, home: str, sides: list[int]
) -> None:
    data = gp.load_data("burn_scars", root=complete, train_regions=[home])
    assert [len(data.train), len(data.val), len(data.test)] == sides
    assert sum(map(len, data.parts.values())) == 804 and home not in data.holdout
    table = shared_places(data)
    away = table.loc[[side for side in table.index if side.startswith("holdout")]]
    assert len(away) == 3 and away["claims"].all() and not away["shared_places"].any()


@pytest.mark.mirror
def test_tiles_can_be_kept_apart_instead(complete: Path) -> None:
    data = gp.load_data("burn_scars", root=complete, split="by_tile")
    shares = np.array([len(part) for part in data.parts.values()]) / 804
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    table = shared_places(data)
    assert table["claims"].all() and not table["shared_places"].any()
    for part in data.parts.values():
        assert {chip.region for chip in part.chips} == set(CARD.regions)
    other = gp.load_data("burn_scars", root=complete, split="by_tile", seed=1)
    assert names_of(other)["test"] != names_of(data)["test"]
    away = gp.load_data("burn_scars", root=complete, split="by_tile", train_regions=["plains"])
    assert set(away.holdout) == {"pacific", "mountain", "east"}


def test_files_are_found_in_any_folder_and_none_is_opened_by_loading(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placeholders(tmp_path / "training", EVERY[:4])
    placeholders(tmp_path / "deep" / "validation", EVERY[4:])
    monkeypatch.setattr(rasterio, "open", lambda *_: pytest.fail("a raster was opened"))
    assert names_of(gp.load_data("burn_scars", root=tmp_path)) == FEW


def test_a_sample_has_reflectance_classes_day_and_place(files: Path, few: None) -> None:
    sample = gp.load_data("burn_scars", root=files).train[0]
    image, mask = sample["image"], sample["mask"]
    assert image.shape == (6, 512, 512) and image.dtype == torch.float32
    assert image[:, 100, 0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert image[0, :, -1].unique().item() == pytest.approx(0.05)
    # NaN, -9999 and what the header names became 0, band by band; the mask is as published.
    assert not image[:, 0, [0, 2, 3]].any()
    assert (image[:, 0, 1] == 0).tolist() == [False, False, True, False, False, False]
    assert mask.dtype == torch.int64 and mask.unique(return_counts=True)[1].tolist() == [
        4 * 512, 512 * 512 - 4 * 512 - 256 * 256, 256 * 256
    ]  # fmt: skip
    assert sample["temporal"].tolist() == [[2018.0, 185.0]]
    assert (sample["place"], sample["region"]) == ("T10SEJ", "pacific")
    assert sample["crs"] == "EPSG:32610"
    assert sample["bounds"] == (500_000, 4_400_000 - 512 * 30, 500_000 + 512 * 30, 4_400_000)
    latitude, longitude = sample["location"].tolist()
    assert latitude == pytest.approx(39.68, abs=0.01)
    assert longitude == pytest.approx(-122.91, abs=0.01)  # zone 10: -123 degrees in its middle


def test_each_chip_has_its_own_utm_zone_and_day(files: Path, few: None) -> None:
    data = gp.load_data("burn_scars", root=files)
    assert [chip.date for chip in data.test.chips] == [
        datetime.date(2020, 9, 4), datetime.date(2020, 2, 8)
    ]  # fmt: skip
    assert [sample["crs"] for sample in data.test] == ["EPSG:32610", "EPSG:32617"]
    assert data.test[1]["location"][1] == pytest.approx(-80.91, abs=0.01)


def test_bands_come_in_the_order_asked_for_with_their_published_statistics(
    files: Path, few: None
) -> None:
    data = gp.load_data("burn_scars", root=files, bands=["B12", "RED"])
    assert data.bands == ("SWIR_2", "RED")
    assert data.val[0]["image"][:, 100, 0].tolist() == pytest.approx([0.6, 0.3])
    mean, std = data.statistics
    assert mean.tolist() == pytest.approx([0.1710367799, 0.0946640745])
    assert std.tolist() == pytest.approx([0.0835518017, 0.0549106970])
    assert gp.load_data("burn_scars", root=files).bands == HLS_BANDS


def test_chips_can_be_cut_smaller_where_they_lie(files: Path, few: None) -> None:
    whole = gp.load_data("burn_scars", root=files).val[0]
    data = gp.load_data("burn_scars", root=files, size=256)
    assert [len(part) for part in data.parts.values()] == [12, 8, 8]
    parts = [data.val[index] for index in range(4)]
    assert parts[2]["name"] == "T10SEJ.2018220.v1-256-0" and parts[2]["place"] == "T10SEJ"
    assert torch.equal(parts[2]["image"], whole["image"][:, 256:, :256])
    assert torch.equal(parts[1]["mask"], whole["mask"][:256, 256:])
    left, bottom, right, top = parts[3]["bounds"]
    assert (right, bottom) == (whole["bounds"][2], whole["bounds"][1])
    assert (right - left, top - bottom) == (256 * 30, 256 * 30)
    assert parts[3]["location"][1] > parts[2]["location"][1]  # further east


def test_a_model_runs_and_the_card_and_a_sample_are_shown(
    files: Path, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = gp.load_data("burn_scars", root=files, size=128)
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder="fcn")
    batch = torch.stack([data.train[index]["image"] for index in (0, 5)])
    assert model(batch).shape == (2, 2, 128, 128)
    figure = data.plot(data.train[8])
    assert figure.axes[-1].get_legend().texts[0].get_text() == "Not burned"
    monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path))
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    assert "not loaded" in gp.data_card("burn_scars").facts.index
    (tmp_path / "burn_scars").symlink_to(files)
    sheet = gp.data_card("burn_scars")
    assert sheet.balance is not None and "not loaded" not in sheet.facts.index
    assert sheet.balance.loc["val", "Burn scar"] == pytest.approx(256 * 256 / (508 * 512))


def archive_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pack placeholders as the archive does, and have that one expected."""
    placeholders(folder / "training", EVERY[:3])
    placeholders(folder / "validation", EVERY[3:])
    archive = folder / "hls_burn_scars.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        for part in ("training", "validation"):
            packed.add(folder / part, part)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    entry = replace(burn_scars.ARCHIVE, size=archive.stat().st_size, sha256=digest)
    monkeypatch.setattr(burn_scars, "ARCHIVE", entry)
    return archive


def test_the_archive_of_a_mirror_is_extracted_into_the_cache(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(tmp_path / "mirror", monkeypatch)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(archive.parent))
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    data = gp.load_data("burn_scars", download=False)
    assert names_of(data) == FEW
    assert (tmp_path / "cache" / "burn_scars" / "training" / image_of(EVERY[0])).is_file()
    assert gp.load_data("burn_scars", download=False).notes == ()


def test_a_downloaded_archive_may_be_deleted_afterwards(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(tmp_path / "server", monkeypatch)
    cache, asked = tmp_path / "cache", []
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    monkeypatch.setenv("GEOPEFT_CACHE", str(cache))

    def download(entry: FileEntry) -> Path:
        asked.append(entry.url)
        return archive

    monkeypatch.setattr(arrival, "_from_hub", download)
    data = gp.load_data("burn_scars")
    assert f"{archive} was extracted into {cache}" in data.notes[0]
    archive.unlink()
    assert names_of(gp.load_data("burn_scars")) == FEW and asked == [burn_scars.ARCHIVE.url]


def test_a_disk_too_small_for_archive_and_files_is_noticed_before_the_download(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path))
    monkeypatch.setattr(arrival, "_from_hub", lambda _: pytest.fail("it was downloaded"))
    usage = SimpleNamespace(free=3_000_000_000)  # enough for the archive alone
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"takes 8,146 MB .* where 3,000 MB are free"):
        gp.load_data("burn_scars")
    with pytest.raises(FileNotFoundError, match="download=False"):
        gp.load_data("burn_scars", download=False)


@pytest.mark.mirror
def test_a_mirror_gets_the_archive_and_the_lists() -> None:
    archive, *lists = published_files("burn_scars")
    assert archive.size == 2_645_552_531 and archive.source.endswith(archive.path)
    assert sum(len(fetch(entry).read_text().split()) for entry in lists) == 804


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "by_tiles"}, "Did you mean 'by_tile'.*published"),
        ({"size": 200}, "size must divide 512 .*256"),
        ({"bands": ["B5"]}, "RED_EDGE_1 is not available here; choose from BLUE"),
        ({"train_regions": ["west"]}, "east, mountain, pacific, plains"),
        ({"train_regions": ["plains"]}, "no train and no val and no test chips of region plains"),
        ({"tile": "T10SEJ"}, "Known: .*split"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: dict[str, object], message: str, few: None, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        gp.load_data("burn_scars", root=placeholders(tmp_path, EVERY), **arguments)


def test_missing_files_are_named_or_skipped(few: None, files: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"_merged.tif .*extract hls_burn_scars.tar.gz"):
        gp.load_data("burn_scars", root=tmp_path)
    shutil.copytree(files, tmp_path / "some")
    next((tmp_path / "some").rglob(mask_of("T17SQU.2018121.v1"))).unlink()
    with pytest.raises(FileNotFoundError, match=r"name 7 chips.* of 1 of them.*T17SQU.*mask.tif"):
        gp.load_data("burn_scars", root=tmp_path)
    data = gp.load_data("burn_scars", root=tmp_path, unreadable="skip")
    assert data.skipped == {"T17SQU.2018121.v1": f"{mask_of('T17SQU.2018121.v1')} is not there"}
    assert names_of(data)["train"] == FEW["train"][:2]


def test_damaged_and_foreign_files_are_refused_by_name(
    few: None, files: Path, tmp_path: Path
) -> None:
    placeholders(tmp_path, EVERY)
    image, mask = pixels_of(EVERY[1])
    write(tmp_path / image_of(EVERY[0]), image, 10)
    write(tmp_path / mask_of(EVERY[0]), mask[:, :256], 10)
    whole = next(files.rglob(image_of(EVERY[1]))).read_bytes()
    (tmp_path / image_of(EVERY[1])).write_bytes(whole[:3_000_000])
    write(tmp_path / mask_of(EVERY[1]), mask, 10)
    write(tmp_path / image_of(EVERY[2]), image, 17)
    write(tmp_path / mask_of(EVERY[2]), mask + 1, 17)
    write(tmp_path / image_of(EVERY[3]), image[:3], 10)
    write(tmp_path / mask_of(EVERY[3]), mask, 10)
    data = gp.load_data("burn_scars", root=tmp_path)
    with pytest.raises(ValueError, match=r"mask.tif has 1 band\(s\) of 256 x 512 px instead of 1"):
        data.train[0]
    with pytest.raises(ValueError, match=r"'T10SFE.2020267.v1' cannot be read"):
        data.train[1]
    with pytest.raises(ValueError, match=r"unknown classes \[2\].*0 Not burned, 1 Burn scar"):
        data.train[2]
    with pytest.raises(ValueError, match=r"has 3 band\(s\).*instead of 6"):
        data.val[0]
    with pytest.raises(ValueError, match=r"'T17SQD.2020094.v1' cannot be read"):  # an empty file
        data.val[1]
