"""reBEN 7k: patches of BigEarthNet's own layout with made-up pixels, and the published lists."""

from __future__ import annotations

import datetime
import sys
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.classroom.needs import published_files
from geopeft_nb.datasets import reben
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import split_list
from geopeft_nb.datasets.split import shared_places

FINLAND = "S2A_MSIL2A_20170613T101031_N9999_R022_T34VER"
AUSTRIA = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_28_55"
IRELAND = "S2A_MSIL2A_20170617T113321_N9999_R080_T29UPU_24_24"
#: Patches of the published lists, and the country that the table has for each.
LISTED = {
    "train": [f"{FINLAND}_04_62", f"{FINLAND}_04_69"],
    "val": [f"{FINLAND}_15_55"],
    "test": [f"{FINLAND}_25_49"],
    "ood": [AUSTRIA, IRELAND],
}
PATCHES = [patch for patches in LISTED.values() for patch in patches]
COUNTRIES = dict.fromkeys(PATCHES, "Finland") | {AUSTRIA: "Austria", IRELAND: "Ireland"}
#: Side of a file in pixels; its value is that of the band's position, so that each is known again.
SIDES = {
    "B01": 20, "B02": 120, "B03": 120, "B04": 120, "B05": 60, "B06": 60, "B07": 60, "B08": 120,
    "B8A": 60, "B09": 20, "B11": 60, "B12": 60,
}  # fmt: skip
TRAIN = PATCHES[0]
LISTS = "peft_geofm_splits/reBEN/reBEN_7k"


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    zone, (height, width) = path.name.split("_T")[1][:2], pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=height, width=width, dtype=pixels.dtype,
        crs=f"EPSG:326{zone}",
        transform=from_origin(504_780, 7_025_640, 1200 / width, 1200 / height),
    ) as raster:  # fmt: skip
        raster.write(pixels, 1)


def folder_of(root: Path, patch: str, kind: str = "BigEarthNet-S2") -> Path:
    return root / kind / patch.rsplit("_", 2)[0] / patch


def put_band(root: Path, patch: str, number: str, pixels: np.ndarray) -> None:
    write(folder_of(root, patch) / f"{patch}_{number}.tif", pixels.astype(np.uint16))


def put_map(root: Path, patch: str, codes: np.ndarray) -> None:
    file = folder_of(root, patch, "Reference_Maps") / f"{patch}_reference_map.tif"
    write(file, codes.astype(np.uint16))


def put_table(root: Path, countries: dict[str, str], labels: list[str]) -> None:
    """Write the table with the columns that it is published with."""
    file = root / "metadata.parquet"
    file.unlink(missing_ok=True)
    with duckdb.connect() as database:
        database.execute(
            "copy (select unnest(?) patch_id, ?::varchar[] labels, 'train' split, "
            "unnest(?) country, '' s1_name, '' s2v1_name, false contains_seasonal_snow, "
            f"false contains_cloud_or_shadow) to '{file}' (format parquet)",
            [list(countries), labels, list(countries.values())],
        )


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patches: water in the west and a burnt area, which is no class, in the east."""
    root = tmp_path_factory.mktemp("reben")
    put_table(root, COUNTRIES, ["Inland waters", "Pastures"])
    for patch in PATCHES:
        for position, (number, side) in enumerate(SIDES.items()):
            ramp = np.arange(side * side).reshape(side, side) % 50
            put_band(root, patch, number, 1000 * (position + 1) + ramp)
        put_map(root, patch, np.repeat([[512] * 60 + [334] * 60], 120, axis=0))
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of six patches."""
    monkeypatch.setattr(reben, "split_list", lambda name, download: LISTED[name.split("/")[-1]])


def load(root: Path, **arguments: Any) -> GeoData:  # noqa: ANN401 - those of load_data
    return gp.load_data("reben_7k", root=root, **arguments)


def read_list(mirror: Path, name: str) -> list[str]:
    return (mirror / LISTS / f"{name}.txt").read_text().split()


@pytest.mark.mirror
def test_the_lists_hold_out_austria_and_ireland_which_their_tiles_tell_apart(mirror: Path) -> None:
    austria, ireland = read_list(mirror, "Austria"), read_list(mirror, "Ireland")
    held_out = split_list("reBEN/reBEN_7k/ood")
    assert {name.split("_")[5][:3] for name in austria} == {"T33"}
    assert {name.split("_")[5][:4] for name in ireland} == {"T29U"}
    assert (len(set(held_out) & set(austria)), len(set(held_out) & set(ireland))) == (417, 390)
    at_home = {p for side in ("train", "val", "test") for p in split_list(f"reBEN/reBEN_7k/{side}")}
    assert not at_home & {*austria, *ireland}


@pytest.mark.mirror
def test_31_validation_chips_and_no_test_chip_touch_a_training_chip() -> None:
    def cells(side: str) -> list[tuple[str, int, int]]:
        fields = [name.split("_") for name in split_list(f"reBEN/reBEN_7k/{side}")]
        return [(tile, int(x), int(y)) for *_, tile, x, y in fields]

    trained = set(cells("train"))
    around = {
        (tile, x + i, y + j) for tile, x, y in trained for i in (-1, 0, 1) for j in (-1, 0, 1)
    }
    touching = {
        side: sum(cell in around for cell in cells(side)) for side in ("val", "test", "ood")
    }
    assert touching == {"val": 31, "test": 0, "ood": 0}
    assert "31 of the 946 validation chips touch a training chip" in reben.CARD.leaks


@pytest.mark.mirror
def test_the_whole_subset_loads_as_published_without_opening_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {side: split_list(f"reBEN/reBEN_7k/{side}") for side in LISTED}
    every = [patch for patches in listed.values() for patch in patches]
    for folder in ("BigEarthNet-S2", "Reference_Maps"):  # empty: nothing is there to be opened
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(reben._Files, "missing", lambda self, patch: None)
    put_table(tmp_path, {p: "Portugal" if "_T29S" in p else "Finland" for p in every}, [])
    data = load(tmp_path)
    assert {side: len(part) for side, part in data.parts.items()} == {
        "train": 4690, "val": 946, "test": 945, "holdout:austria": 417, "holdout:ireland": 390,
    }  # fmt: skip
    for side in ("train", "val", "test"):
        assert [chip.name for chip in data.parts[side].chips] == listed[side]
    assert Counter(chip.region for chip in data.train.chips) == {"finland": 3066, "portugal": 1624}
    table = shared_places(data)
    assert table["shared_places"].tolist() == [0, 0, 0, 0] and table["claims"].all()


@pytest.mark.usefixtures("few")
def test_bands_come_as_reflectance_in_the_order_that_is_asked_for(complete: Path) -> None:
    image = load(complete).train[0]["image"]
    assert image.shape == (6, 128, 128) and image.dtype == torch.float32
    first = {band: (position + 1) / 10 for position, band in enumerate(reben.CARD.bands)}
    assert image[:, 0, 0].tolist() == pytest.approx([first[band] for band in HLS_BANDS])
    reverse = load(complete, bands=["SWIR_2", "B8A", "B01"])
    assert reverse.train[0]["image"][:, 0, 0].tolist() == pytest.approx([1.2, 0.9, 0.1])
    every = load(complete, bands=reben.CARD.bands).train[0]["image"]
    assert every[:, 0, 0].tolist() == pytest.approx(list(first.values()))


@pytest.mark.usefixtures("few")
def test_coarse_bands_are_repeated_and_nothing_is_blended(complete: Path) -> None:
    blue, red_edge, aerosol = load(complete, bands=["B02", "B05", "B01"], size=120).train[0][
        "image"
    ]
    for band, times in ((blue, 1), (red_edge, 2), (aerosol, 6)):
        coarse = band[::times, ::times]
        assert torch.equal(band, coarse.repeat_interleave(times, 0).repeat_interleave(times, 1))
        assert len(coarse.unique()) == 50


@pytest.mark.usefixtures("few")
def test_padding_mirrors_the_image_right_and_below_and_labels_nothing_there(complete: Path) -> None:
    padded, bare = load(complete).train[0], load(complete, size=120).train[0]
    assert bare["image"].shape == (6, 120, 120) and bare["mask"].shape == (120, 120)
    assert torch.equal(padded["image"][:, :120, :120], bare["image"])
    assert torch.equal(padded["image"][:, :, 120:], padded["image"][:, :, 111:119].flip(2))
    assert torch.equal(padded["image"][:, 120:], padded["image"][:, 111:119].flip(1))
    assert (padded["mask"][120:] == -1).all() and (padded["mask"][:, 120:] == -1).all()
    assert torch.equal(padded["mask"][:120, :120], bare["mask"])


@pytest.mark.usefixtures("few")
def test_a_patch_knows_its_day_its_place_and_its_pixels_stay_10_m(complete: Path) -> None:
    chip, data = load(complete, size=120).train[0], load(complete)
    padded = data.train[0]
    assert (chip["name"], chip["region"], chip["place"]) == (TRAIN, "finland", "T34VER_04_62")
    assert chip["temporal"].tolist() == [[2017, 164]]
    assert datetime.date(2017, 6, 13).timetuple().tm_yday == 164
    assert chip["crs"] == "EPSG:32634" and chip["bounds"] == (
        504_780,
        7_024_440,
        505_980,
        7_025_640,
    )
    assert padded["bounds"] == (504_780, 7_024_360, 506_060, 7_025_640)  # 128 pixels
    assert chip["location"].tolist() == pytest.approx([63.36, 21.11], abs=0.01)
    assert torch.equal(padded["location"], chip["location"])


def test_statistics_are_the_papers_as_reflectance_in_the_order_of_the_bands() -> None:
    facts = dict(
        zip(reben.CARD.bands, zip(reben.CARD.mean, reben.CARD.std, strict=True), strict=True)
    )
    assert facts["BLUE"] == pytest.approx((0.04384, 0.06070), abs=1e-5)
    assert facts["NIR_NARROW"] == pytest.approx((0.22356, 0.13566), abs=1e-5)
    assert facts["WATER_VAPOR"] == pytest.approx((0.22415, 0.13164), abs=1e-5)
    assert facts["SWIR_2"] == pytest.approx((0.09977, 0.08135), abs=1e-5)


def test_codes_of_corine_become_classes_in_alphabetical_order(
    complete: Path, tmp_path: Path
) -> None:
    assert list(reben.CARD.classes) == sorted(reben.CARD.classes) and len(reben.CARD.classes) == 19
    expected = {
        244: 0, 211: 1, 213: 1, 331: 2, 311: 3, 421: 4, 242: 5, 312: 6, 121: 7, 512: 8, 412: 9,
        243: 10, 523: 11, 313: 12, 322: 13, 321: 14, 333: 14, 231: 15, 241: 16, 324: 17, 112: 18,
        142: -1, 335: -1, 999: -1,
    }  # fmt: skip
    put_map(tmp_path, TRAIN, np.resize(list(expected), (120, 120)))
    files = reben._Files(complete / "BigEarthNet-S2", ("B02",), tmp_path / "Reference_Maps")
    _, mask = files.decode(TRAIN)
    assert mask.ravel()[: len(expected)].tolist() == list(expected.values())


@pytest.mark.slow
def test_codes_colours_and_addresses_are_those_of_torchgeo() -> None:
    torchgeo = pytest.importorskip("torchgeo.datasets.bigearthnet", reason="needs torchgeo")
    published = torchgeo.BigEarthNetV2
    theirs = {code: published.class_set[index] for code, index in published.clc_codes.items()}
    assert {c: name for name, (_, codes) in reben.CLASSES.items() for c in codes} == theirs
    assert {name: colour for name, (colour, _) in reben.CLASSES.items()} == published.clc_colors
    sums: dict[str, str] = {}
    for kind in ("s2", "maps", "metadata"):
        sums |= published.metadata_locs[kind]["files"]
    entries = {entry.name: entry for entry in reben.mirror_files() if entry.name in sums}
    assert len(entries) == len(sums) == 4
    for name, published_sum in sums.items():  # torchgeo 0.10 has sha256 for some, older ones md5
        ours = {32: entries[name].md5, 64: entries[name].sha256}[len(published_sum)]
        assert ours in (published_sum, None)
        assert entries[name].md5 or entries[name].sha256
    for name, entry in entries.items():  # hf.co is short for huggingface.co
        assert (
            entry.url.partition("/datasets/")[2]
            == (published.url.format(name).partition("/datasets/")[2])
        )


@pytest.mark.usefixtures("few")
def test_multilabel_takes_the_labels_of_the_table_and_needs_no_maps(
    complete: Path, tmp_path: Path
) -> None:
    for name in ("BigEarthNet-S2", "metadata.parquet"):
        (tmp_path / name).symlink_to(complete / name)
    data = load(tmp_path, task="multilabel")
    sample = data.train[0]
    assert data.task == "multilabel" and data.card.kind == "multilabel"
    there = [name for name, yes in zip(data.classes, sample["label"], strict=True) if yes]
    assert there == ["Inland waters", "Pastures"] and "mask" not in sample
    assert sample["image"].shape == (6, 128, 128)
    assert "Pastures" in data.plot(sample).get_suptitle()


@pytest.mark.usefixtures("few")
def test_countries_can_be_chosen_as_regions(complete: Path, tmp_path: Path) -> None:
    (tmp_path / "BigEarthNet-S2").symlink_to(complete / "BigEarthNet-S2")
    (tmp_path / "Reference_Maps").symlink_to(complete / "Reference_Maps")
    put_table(tmp_path, COUNTRIES | {PATCHES[1]: "Serbia"}, [])
    data = load(tmp_path, train_regions=["finland"], holdout_regions=["serbia", "ireland"])
    assert {side: [chip.name for chip in part.chips] for side, part in data.parts.items()} == {
        "train": [TRAIN], "val": LISTED["val"], "test": LISTED["test"],
        "holdout:serbia": [PATCHES[1]], "holdout:ireland": [IRELAND],
    }  # fmt: skip
    with pytest.raises(ValueError, match="no train and no val and no test chips of region ireland"):
        load(tmp_path, train_regions=["ireland"])


@pytest.mark.usefixtures("few")
def test_patches_that_are_not_there_are_refused_or_left_out(complete: Path, tmp_path: Path) -> None:
    (tmp_path / "Reference_Maps").symlink_to(complete / "Reference_Maps")
    for patch in PATCHES:
        folder_of(tmp_path, patch).parent.mkdir(parents=True, exist_ok=True)
        folder_of(tmp_path, patch).symlink_to(folder_of(complete, patch))
    folder_of(tmp_path, IRELAND).unlink()
    put_table(tmp_path, {p: c for p, c in COUNTRIES.items() if p != PATCHES[1]}, [])
    with pytest.raises(
        FileNotFoundError, match="name 6 chips, and the files of 2 of them"
    ) as error:
        load(tmp_path)
    assert f"{PATCHES[1]!r}: its row of {tmp_path / 'metadata.parquet'}" in str(error.value)
    data = load(tmp_path, unreadable="skip")
    assert list(data.holdout) == ["austria"]
    assert set(data.skipped) == {PATCHES[1], IRELAND} and len(data.train) == 1
    assert data.skipped[IRELAND].endswith(f"{IRELAND}_B02.tif is not there")


@pytest.mark.usefixtures("few")
def test_a_damaged_patch_is_named_when_it_is_asked_for(complete: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.parquet").symlink_to(complete / "metadata.parquet")
    for patch in PATCHES:
        put_band(tmp_path, patch, "B02", np.full((120, 120), 500))
        put_map(tmp_path, patch, np.full((120, 120), 231))
    data = load(tmp_path, bands=["BLUE"], cache=False)
    assert data.train[0]["mask"][0, 0] == reben.CARD.classes.index("Pastures")
    put_map(tmp_path, TRAIN, np.full((120, 120), 777))
    with pytest.raises(ValueError, match=f"chip '{TRAIN}' has 777, which is no code of CORINE"):
        data.train[0]
    put_map(tmp_path, TRAIN, np.full((60, 60), 231))
    with pytest.raises(
        ValueError, match=r"_reference_map.tif has 60 x 60 px instead of 120 a side"
    ):
        data.train[0]
    put_band(tmp_path, TRAIN, "B02", np.full((100, 120), 500))
    with pytest.raises(ValueError, match="100 x 120 px instead of 120 or 60 or 20 a side"):
        data.train[0]
    file = folder_of(tmp_path, TRAIN) / f"{TRAIN}_B02.tif"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match=f"Chip '{TRAIN}' cannot be read"):
        data.train[0]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "multi-label"}, "Did you mean 'multilabel'"),
        ({"size": 64}, r"must be 128 \(a patch padded as in the paper\) or 120"),
        ({"bands": ["CIRRUS"]}, "Band CIRRUS is not available here"),
        ({"train_regions": ["Finnland"]}, "Did you mean 'finland'"),
        ({"split": "random"}, "Known: .*task"),
    ],
)
def test_odd_requests_are_refused_before_a_file_is_looked_for(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **arguments)


@pytest.mark.usefixtures("few")
def test_a_folder_or_table_that_is_not_bigearthnets_is_refused(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"has no metadata.parquet. Its folder holds BigEar"
    ):
        load(tmp_path)
    (tmp_path / "metadata.parquet").write_text("patch_id,country")
    with pytest.raises(ValueError, match="table with columns patch_id, country: fetch it again"):
        load(tmp_path)
    put_table(tmp_path, COUNTRIES, [])
    with pytest.raises(FileNotFoundError, match="has no Reference_Maps"):
        load(tmp_path)
    for name in ("BigEarthNet-S2", "Reference_Maps"):
        (tmp_path / name).symlink_to(complete / name)
    put_table(tmp_path, COUNTRIES | {TRAIN: "Atlantis"}, ["Pasture"])
    with pytest.raises(ValueError, match=f"chip '{TRAIN}' in 'atlantis'. Countries of BigEarthNet"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"Unknown label 'Pasture'. Did you mean 'Pastures'"):
        load(tmp_path, task="multilabel")

    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ImportError, match="needs duckdb: pip install duckdb"):
        load(tmp_path)


@pytest.mark.usefixtures("few")
def test_decoded_patches_are_kept_apart_by_bands_and_not_decoded_again(
    complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(complete).train[0]
    other = load(complete, bands=["B12"]).train[0]["image"]
    assert other[0, 0, 0] == pytest.approx(1.2)
    monkeypatch.setattr(reben, "_square", None)
    again = load(complete).train[0]
    assert torch.equal(again["image"], first["image"]) and torch.equal(again["mask"], first["mask"])
    assert (again["crs"], again["bounds"]) == (first["crs"], first["bounds"])


@pytest.mark.usefixtures("few")
def test_archives_of_a_mirror_are_unpacked_into_the_cache(
    complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror" / "reben_7k"
    mirror.mkdir(parents=True)
    (mirror / "metadata.parquet").write_bytes((complete / "metadata.parquet").read_bytes())
    for name, parts in (("Reference_Maps", 1), ("BigEarthNet-S2", 2)):
        with tarfile.open(tmp_path / "whole", "w:gz") as archive:
            archive.add(complete / name, name)
            archive.add(__file__, f"{name}/product/an_unlisted_patch/an_unlisted_patch_B02.tif")
        whole = (tmp_path / "whole").read_bytes()
        cut = len(whole) // parts + 1
        for index, ending in enumerate("ab"[:parts]):
            part = whole[index * cut : (index + 1) * cut]
            (mirror / f"{name}.tar.gza{ending}").write_bytes(part)
    before = sorted(mirror.iterdir())
    plain = {
        name: [replace(e, md5=None, sha256=None) for e in files]
        for name, files in reben.FILES.items()
    }
    monkeypatch.setattr(reben, "FILES", plain)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(mirror.parent))
    data = gp.load_data("reben_7k", download=False)
    assert data.train[0]["image"].shape == (6, 128, 128) and data.notes == ()
    assert sorted(mirror.iterdir()) == before
    cached = tmp_path / "cache" / "reben_7k" / "BigEarthNet-S2" / "BigEarthNet-S2"
    assert folder_of(cached.parent, TRAIN).is_dir()
    assert not (cached / "product").exists()  # what no list names stays in the archive
    for file in mirror.glob("*.tar*"):  # in the cache they are in the way, and the note says so
        file.rename(tmp_path / "cache" / "reben_7k" / file.name)
    notes = gp.load_data("reben_7k", download=False).notes
    assert len(notes) == 3 and "BigEarthNet-S2.tar.gzab is unpacked and may be deleted" in notes[-1]


@pytest.mark.usefixtures("few")
def test_nothing_is_downloaded_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    with pytest.raises(FileNotFoundError, match=r"'reben_7k/metadata.parquet'.*download=False"):
        gp.load_data("reben_7k", download=False)


def test_a_mirror_is_told_every_list_and_archive_with_its_checksum() -> None:
    entries = published_files("reben_7k")
    assert {entry.path for entry in entries} == {
        *(f"{LISTS}/{side}.txt" for side in LISTED), "reben_7k/metadata.parquet",
        "reben_7k/Reference_Maps.tar.gzaa", "reben_7k/BigEarthNet-S2.tar.gzaa",
        "reben_7k/BigEarthNet-S2.tar.gzab",
    }  # fmt: skip
    assert all(entry.sha256 or entry.md5 for entry in entries)
    assert all(entry.url.startswith("https://") for entry in entries)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("task", "decoder", "shape"),
    [("segmentation", "linear", (2, 19, 128, 128)), ("multilabel", "classify", (2, 19))],
)
def test_a_model_takes_a_batch(
    complete: Path, task: str, decoder: str, shape: tuple[int, ...]
) -> None:
    data = load(complete, task=task)
    model = gp.build_model(gp.load_backbone("geopeft_tiny", weights=None), data, decoder=decoder)
    batch = torch.stack([data.train[0]["image"], data.train[1]["image"]])
    with torch.no_grad():
        assert tuple(model(batch).shape) == shape
    assert data.plot(data.train[0]).axes


@pytest.mark.usefixtures("few")
def test_the_data_card_is_there_without_files_and_counts_with_them(
    complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    bare = gp.data_card("reben_7k")
    assert "not loaded" in bare.facts.index and bare.balance is None
    sheet = gp.data_card(load(complete))
    assert sheet.balance.loc["train", "Inland waters"] == 1  # the burnt half has no class
    assert sheet.places["latitude"].notna().all()
