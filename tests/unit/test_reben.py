"""reBEN 7k: its lists, classes, padding, table and archives; see also test_published.py."""

import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import LISTS, make_patches, make_table, patch_file, write_raster

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published import common, reben
from geopeft_nb.datasets.published.common import split_list
from geopeft_nb.datasets.split import shared_places

SIDES = ("train", "val", "test", "ood")
PATCHES = [patch for side in SIDES for patch in LISTS[f"reBEN/reBEN_7k/{side}"]]
TRAIN = PATCHES[0]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reben")
    make_patches(root)
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of six patches."""
    monkeypatch.setattr(common, "split_list", lambda name, download: LISTS[name])


def load(root: Path, **arguments: Any) -> GeoData:
    return gp.load_data("reben_7k", root=root, **arguments)


def linked(complete: Path, root: Path, *folders: str) -> Path:
    """Lay links to some of the files into a folder."""
    for name in folders or ("BigEarthNet-S2", "Reference_Maps"):
        (root / name).symlink_to(complete / name)
    return root


def read_list(mirror: Path, name: str) -> list[str]:
    file = mirror / f"peft_geofm_splits/reBEN/reBEN_7k/{name}.txt"
    return file.read_text().split()


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
    listed = {side: split_list(f"reBEN/reBEN_7k/{side}") for side in SIDES}
    every = [patch for patches in listed.values() for patch in patches]
    for folder in ("BigEarthNet-S2", "Reference_Maps"):  # empty: nothing is there to be opened
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(common, "check_complete", lambda *_: None)
    make_table(tmp_path, {p: "Portugal" if "_T29S" in p else "Finland" for p in every}, [])
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
def test_coarse_bands_are_repeated_and_nothing_is_blended(complete: Path, tmp_path: Path) -> None:
    make_patches(tmp_path)
    for number, side in (("B02", 120), ("B05", 60), ("B01", 20)):
        ramp = np.arange(side * side, dtype=np.uint16).reshape(1, side, side)
        file = tmp_path / patch_file("BigEarthNet-S2", TRAIN, number)
        write_raster(file, ramp, 32634, (504_780, 7_025_640), 1200 / side)
    image = load(tmp_path, bands=["B02", "B05", "B01"]).train[0]["image"][:, :120, :120]
    for band, times in zip(image, (1, 2, 6), strict=True):
        coarse = band[::times, ::times]
        assert torch.equal(band, coarse.repeat_interleave(times, 0).repeat_interleave(times, 1))
        assert len(coarse.unique()) == coarse.numel()


@pytest.mark.usefixtures("few")
def test_padding_mirrors_the_image_right_and_below_and_labels_nothing_there(
    complete: Path, tmp_path: Path
) -> None:
    root = linked(complete, tmp_path, "BigEarthNet-S2", "Reference_Maps", "metadata.parquet")
    padded = load(root).train[0]
    assert padded["image"].shape == (6, 128, 128) and padded["mask"].shape == (128, 128)
    assert torch.equal(padded["image"][:, :, 120:], padded["image"][:, :, 111:119].flip(2))
    assert torch.equal(padded["image"][:, 120:], padded["image"][:, 111:119].flip(1))
    assert (padded["mask"][120:] == -1).all() and (padded["mask"][:, 120:] == -1).all()
    assert (padded["mask"][:120, :120] >= 0).all()
    assert (padded["name"], padded["region"], padded["place"]) == (TRAIN, "finland", "T34VER_04_62")
    assert padded["temporal"].tolist() == [[2017, 164]]  # 13 June
    assert padded["bounds"] == (504_780, 7_024_360, 506_060, 7_025_640)  # 128 pixels of 10 m
    assert padded["location"].tolist() == pytest.approx([63.36, 21.11], abs=0.01)


@pytest.mark.usefixtures("few")
def test_codes_of_corine_become_classes_in_alphabetical_order(
    complete: Path, tmp_path: Path
) -> None:
    assert list(reben.CARD.classes) == sorted(reben.CARD.classes) and len(reben.CARD.classes) == 19
    expected = {
        244: 0, 211: 1, 213: 1, 331: 2, 311: 3, 421: 4, 242: 5, 312: 6, 121: 7, 512: 8, 412: 9,
        243: 10, 523: 11, 313: 12, 322: 13, 321: 14, 333: 14, 231: 15, 241: 16, 324: 17, 112: 18,
        142: -1, 335: -1, 999: -1,
    }  # fmt: skip
    make_patches(tmp_path)
    codes = np.resize(np.array(list(expected), np.uint16), (1, 120, 120))
    file = tmp_path / patch_file("Reference_Maps", TRAIN, "reference_map")
    write_raster(file, codes, 32634, (504_780, 7_025_640), 10)
    mask = load(tmp_path).train[0]["mask"][:120, :120]
    assert mask.flatten()[: len(expected)].tolist() == list(expected.values())


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
    entries = {Path(entry.path).name: entry for entry in reben.mirror_files("reben_7k")}
    assert len(sums) == 4
    for name, published_sum in sums.items():  # torchgeo 0.10 has sha256 for some, older ones md5
        ours = {32: entries[name].md5, 64: entries[name].sha256}[len(published_sum)]
        assert ours in (published_sum, None)
        assert entries[name].md5 or entries[name].sha256
        address, own = published.url.format(name), entries[name].url
        assert address.split("/datasets/")[1] == own.split("/datasets/")[1]  # of hf.co and ours


@pytest.mark.usefixtures("few")
def test_multilabel_takes_the_labels_of_the_table_and_needs_no_maps(
    complete: Path, tmp_path: Path
) -> None:
    data = load(linked(complete, tmp_path, "BigEarthNet-S2", "metadata.parquet"), task="multilabel")
    sample = data.train[0]
    assert data.task == "multilabel" and data.card.task == "multilabel"
    there = [name for name, yes in zip(data.classes, sample["label"], strict=True) if yes]
    assert there == ["Agro-forestry areas", "Pastures"] and "mask" not in sample
    assert sample["image"].shape == (6, 128, 128)
    assert data.words(sample) == "Agro-forestry areas, Pastures"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("countries", "labels", "message"),
    [
        (dict.fromkeys(PATCHES[1:], "Finland"), [], f"Unknown country of chip '{TRAIN}' None"),
        (dict.fromkeys(PATCHES, "Atlantis"), [], "Unknown country of chip.*'atlantis'"),
        (dict.fromkeys(PATCHES, "Finland"), ["Pasture"], "Did you mean 'Pastures'"),
    ],
)
def test_a_table_that_is_not_bigearthnets_is_refused(
    countries: dict[str, str], labels: list[str], message: str, complete: Path, tmp_path: Path
) -> None:
    make_table(linked(complete, tmp_path), countries, labels)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


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
    monkeypatch.setattr("geopeft_nb.files.check_file", lambda path, _: path)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(mirror.parent))
    data = gp.load_data("reben_7k", download=False)
    assert data.train[0]["image"].shape == (6, 128, 128)
    assert sorted(mirror.iterdir()) == before
    cached = tmp_path / "cache/reben_7k/BigEarthNet-S2"
    assert (cached / patch_file("BigEarthNet-S2", TRAIN, "B02")).is_file()
    assert not (cached / "BigEarthNet-S2/product").exists()  # what no list names stays packed
