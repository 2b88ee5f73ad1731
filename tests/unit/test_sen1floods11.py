"""Sen1Floods11: files in the official layout with invented pixels, and the one real chip."""

from __future__ import annotations

import datetime
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

import geopeft_nb as gp
from geopeft_nb import files
from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.datasets import sen1floods11
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import split_list
from geopeft_nb.datasets.split import shared_places
from geopeft_nb.files import FileEntry, cache_folder

HAND = "v1.1/data/flood_events/HandLabeled"
REAL = "Spain_7370579"
#: What stands in for the published lists: side -> chips.
SHORT = {
    "train_data": ["Spain_1", "Mekong_1", "Sri-Lanka_1038087"],
    "valid_data": ["Spain_2", "Mekong_2"],
    "test_data": ["Spain_3", "Mekong_3"],
    "bolivia_data": ["Bolivia_1"],
}
CHIPS = [chip for chips in SHORT.values() for chip in chips]


def paths(root: Path, chip: str) -> tuple[Path, Path]:
    image, label = (root / HAND / p / f"{chip}_{p}.tif" for p in ("S2Hand", "LabelHand"))
    return image, label


def write(path: Path, pixels: np.ndarray, nodata: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
        crs="EPSG:4326", transform=from_origin(-0.78, 38.12, 9e-5, 9e-5), nodata=nodata,
        compress="deflate", blockysize=height,
    ) as raster:  # fmt: skip
        raster.write(pixels)


def bands() -> np.ndarray:
    """Band number b, from 1, is 1000 b everywhere; a corner has no data."""
    pixels = np.broadcast_to(np.arange(1, 14, dtype=np.int16)[:, None, None] * 1000, (13, 512, 512))
    pixels = pixels.copy()
    pixels[:, :8, :8] = 0
    return pixels


def label() -> np.ndarray:
    """Land, water in the right half, and no label where there is no data."""
    mask = np.zeros((1, 512, 512), np.int16)
    mask[:, :, 256:] = 1
    mask[:, :8, :8] = -1
    return mask


METADATA = json.dumps(
    {
        "type": "FeatureCollection",
        "features": [
            {"properties": {"location": event, "s1_date": "2001/01/01", "s2_date": day}}
            for event, day in (
                ("Spain", "2019/09/18"), ("Cambodia", "2018/08/04"), ("Bolivia", "2018/02/15"),
                ("Colombia", "2018/08/23"),
            )
        ],
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the chips of the short lists and their days."""
    root = tmp_path_factory.mktemp("official")
    write(paths(root, CHIPS[0])[0], bands(), nodata=0)
    write(paths(root, CHIPS[0])[1], label())
    for chip in CHIPS[1:]:
        for source, target in zip(paths(root, CHIPS[0]), paths(root, chip), strict=True):
            shutil.copyfile(source, target)
    (root / "v1.1/Sen1Floods11_Metadata.geojson").write_text(METADATA)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path, short_lists: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may spoil, and no other place to find anything."""
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    return Path(shutil.copytree(written, tmp_path / "sen1floods11"))


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(name: str, download: bool = True) -> list[str]:
        return SHORT[name.removeprefix("sen1floods11/")]

    monkeypatch.setattr(sen1floods11, "split_list", short)


@pytest.fixture
def placeholders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty files for all 446 chips of the published lists, which reading would choke on."""
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    for part in ("S2Hand", "LabelHand"):
        (tmp_path / "all" / HAND / part).mkdir(parents=True)
    for name in sen1floods11.LISTS.values():
        for chip in split_list(name, download=False):
            for path in paths(tmp_path / "all", chip):
                path.touch()
    return tmp_path / "all"


def load(root: Path | None = None, **arguments: Any) -> GeoData:  # noqa: ANN401 - of load_data
    return gp.load_data("sen1floods11", root=root, **{"download": False, **arguments})


def counts(data: GeoData) -> dict[str, int]:
    return {side: len(part) for side, part in data.parts.items()}


@pytest.mark.mirror
def test_the_published_split_is_complete_and_nothing_is_read_for_it(placeholders: Path) -> None:
    data = load(placeholders)
    assert counts(data) == {"train": 252, "val": 89, "test": 90, "holdout:Bolivia": 15}
    lists = [split_list(name) for name in sen1floods11.LISTS.values()]
    assert [[chip.name for chip in part.chips] for part in data.parts.values()] == lists
    assert set(data.card.regions) == {chip.rpartition("_")[0] for names in lists for chip in names}
    assert data.regions == data.card.home == tuple(sorted(set(data.card.regions) - {"Bolivia"}))


@pytest.mark.mirror
def test_the_leaks_that_the_card_states_are_those_of_the_lists(placeholders: Path) -> None:
    data = load(placeholders)
    train, val, test, away = (Counter(c.region for c in p.chips) for p in data.parts.values())
    assert set(train) == set(val) == set(test) and not set(train) & set(away)
    words = "all {} validation and all {} test chips show the same flood as {} to {} training chips"
    numbers = (val.total(), test.total(), min(train.values()), max(train.values()))
    assert words.format(*numbers) in data.card.leaks
    assert len(train) == 10 and "each of the ten events" in data.card.leaks
    assert data.card.claims == ("holdout",)
    assert shared_places(data)["shared_chips"].tolist() == [0, 0, 0]


@pytest.mark.mirror
def test_other_regions_can_be_home_and_away(placeholders: Path) -> None:
    data = load(placeholders, train_regions=["Spain", "Mekong"], holdout_regions=["Sri-Lanka"])
    assert counts(data) == {"train": 36, "val": 12, "test": 12, "holdout:Sri-Lanka": 42}
    everywhere = dict(gp.leave_one_region_out("sen1floods11", root=placeholders, download=False))
    assert len(everywhere) == 11 and len(everywhere["USA"].holdout["USA"]) == 69


@pytest.mark.mirror
def test_the_mini_subset_is_small_and_keeps_the_published_sides(placeholders: Path) -> None:
    data = load(placeholders, subset="mini")
    assert counts(data) == {"train": 18, "val": 6, "test": 6, "holdout:Bolivia": 6}
    full = load(placeholders)
    for side, part in data.parts.items():
        chips = {chip.name: chip.region for chip in part.chips}
        assert chips.keys() <= {chip.name for chip in full.parts[side].chips}
        each = {"train": 3, "val": 1, "test": 1}.get(side)
        events = dict.fromkeys(data.regions, each) if each else {"Bolivia": 6}
        assert Counter(chips.values()) == events
    assert len(data.regions) == 6 and data.card.regions == ("Bolivia", *data.regions)
    real = sum(path.stat().st_size for path in paths(mirror_root(), REAL))
    assert sum(counts(data).values()) * real < 90e6


def mirror_root() -> Path:
    from geopeft_nb.files import mirror_folders

    return next(f for f in mirror_folders() if (f / "sen1floods11").is_dir()) / "sen1floods11"


@pytest.mark.mirror
def test_a_real_chip_goes_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    for chip in (REAL, "Spain_8565131", "Bolivia_103757"):
        for source, target in zip(paths(mirror_root(), REAL), paths(tmp_path, chip), strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    lists = {name: split_list(name) for name in sen1floods11.LISTS.values()}
    lists["sen1floods11/train_data"] = ["Spain_8565131"]
    lists["sen1floods11/valid_data"] = ["Spain_8565131"]
    monkeypatch.setattr(sen1floods11, "split_list", lambda name, download: lists[name])
    data = load(tmp_path, unreadable="skip")
    assert counts(data) == {"train": 1, "val": 1, "test": 1, "holdout:Bolivia": 1}
    assert len(data.skipped) == 89 + 14
    sample = data.test[0]
    assert sample["name"] == REAL and sample["image"].shape == (6, 512, 512)
    assert 0 < sample["image"].min() and sample["image"].max() < 0.7
    blue, nir = sample["image"][0].mean(), sample["image"][3].mean()
    assert (blue, nir) == (pytest.approx(0.12704, abs=1e-4), pytest.approx(0.21297, abs=1e-4))
    values, number = sample["mask"].unique(return_counts=True)
    assert dict(zip(values.tolist(), number.tolist(), strict=True)) == {
        -1: 99, 0: 192_010, 1: 70_035
    }  # fmt: skip
    latitude, longitude = sample["location"].tolist()
    assert (latitude, longitude) == (
        pytest.approx(38.106, abs=1e-3),
        pytest.approx(-0.759, abs=1e-3),
    )
    assert sample["crs"] == "EPSG:4326"
    assert len(data.plot(sample).axes) == 2


def test_bands_come_in_the_order_that_was_asked_for_as_reflectance(root: Path) -> None:
    data = load(root)
    assert data.bands == HLS_BANDS
    assert data.train[0]["image"][:, 100, 100].tolist() == pytest.approx(
        [0.2, 0.3, 0.4, 0.9, 1.2, 1.3]
    )
    few = load(root, bands=["B12", "B8A", "B01", "CIRRUS"])
    assert few.train[0]["image"][:, 100, 100].tolist() == pytest.approx([1.3, 0.9, 0.1, 1.1])
    assert load(root, bands=SENTINEL2_BANDS).train[0]["image"].shape == (13, 512, 512)


def test_published_statistics_go_with_the_bands(root: Path) -> None:
    mean, std = load(root, bands=["SWIR_2", "B10", "BLUE"]).statistics
    assert mean.tolist() == pytest.approx([0.11912015, 0.00652506, 0.1412956])
    assert std.tolist() == pytest.approx([0.07659938, 0.01463465, 0.07406382])
    assert len(sen1floods11.CARD.mean) == len(sen1floods11.CARD.std) == 13


def test_pixels_without_data_are_zero_and_without_label(root: Path) -> None:
    sample = load(root).train[0]
    assert sample["image"][:, :8, :8].max() == 0 and sample["image"][:, 8:, 8:].min() > 0
    assert sample["mask"].dtype == torch.int64 and sample["mask"].unique().tolist() == [-1, 0, 1]
    assert (sample["mask"][:8, :8] == -1).all() and int((sample["mask"] == -1).sum()) == 64


def test_nan_pixels_become_zero(root: Path) -> None:
    pixels = bands().astype(np.float32)
    pixels[:, 20, 20] = np.nan
    write(paths(root, "Spain_1")[0], pixels)
    image = load(root).train[0]["image"]
    assert image[:, 20, 20].tolist() == [0] * 6 and image.isfinite().all()


def test_days_are_those_of_sentinel_2_and_mekong_is_cambodia(root: Path) -> None:
    data = load(root)
    days = {chip.region: chip.date for part in data.parts.values() for chip in part.chips}
    assert days == {
        "Spain": datetime.date(2019, 9, 18), "Mekong": datetime.date(2018, 8, 4),
        "Bolivia": datetime.date(2018, 2, 15), "Sri-Lanka": None,
    }  # fmt: skip
    assert data.train[0]["temporal"].tolist() == [[2019, 261]]  # 18 September, counted from 1
    assert "not known of Ghana" in data.notes[0] and "Sri-Lanka" in data.notes[0]


def test_without_the_file_of_days_there_are_none_and_a_note(root: Path) -> None:
    (root / "v1.1/Sen1Floods11_Metadata.geojson").unlink()
    data = load(root)
    assert "temporal" not in data.train[0]
    assert "v1.1/Sen1Floods11_Metadata.geojson is not there" in data.notes[0]


@pytest.mark.parametrize("text", ["<html>", "{}", '{"features": [{"properties": {"a": 1}}]}'])
def test_a_file_of_days_that_is_none_is_named(root: Path, text: str) -> None:
    (root / "v1.1/Sen1Floods11_Metadata.geojson").write_text(text)
    with pytest.raises(ValueError, match=r"Metadata\.geojson does not say when.*Delete it"):
        load(root)


def test_smaller_chips_tile_the_file_and_share_its_place(root: Path) -> None:
    data = load(root, size=256)
    assert counts(data) == {"train": 12, "val": 8, "test": 8, "holdout:Bolivia": 4}
    first, right = data.train[0], data.train[1]
    assert (first["name"], right["name"]) == ("Spain_1-0-0", "Spain_1-0-256")
    assert first["place"] == right["place"] == "Spain_1"
    assert first["mask"].max() == 0 and right["mask"].min() == 1
    assert first["bounds"][2] == pytest.approx(right["bounds"][0]) == pytest.approx(-0.78 + 0.02304)
    latitude, longitude = first["location"].tolist()
    assert (latitude, longitude) == (pytest.approx(38.12 - 0.01152), pytest.approx(-0.78 + 0.01152))


def test_decoded_chips_are_kept_and_a_corrected_label_is_seen(root: Path) -> None:
    before = load(root).train[0]
    kept = list((root.parent / "cache/chips").rglob("*.npy"))
    assert len(kept) == 2 and sum(path.stat().st_size for path in kept) < 7 * 2 * 512**2 + 1000
    again = load(root).train[0]
    assert torch.equal(again["image"], before["image"]) and again["bounds"] == before["bounds"]
    assert load(root, bands=["RED"]).train[0]["image"].shape == (1, 512, 512)
    time.sleep(0.02)  # a later time of change, also on file systems that count in ticks
    write(paths(root, "Spain_1")[1], np.ones((1, 512, 512), np.int16))
    assert load(root).train[0]["mask"].unique().tolist() == [1]


def test_listed_chips_that_are_absent_are_refused_or_skipped(root: Path) -> None:
    paths(root, "Mekong_1")[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"name 8 chips, and the files of 1 .*Mekong_1"):
        load(root)
    data = load(root, unreadable="skip")
    assert [chip.name for chip in data.train.chips] == ["Spain_1", "Sri-Lanka_1038087"]
    assert data.skipped.keys() == {"Mekong_1"} and "LabelHand" in data.skipped["Mekong_1"]
    for chip in SHORT["valid_data"]:
        paths(root, chip)[0].unlink()
    with pytest.raises(FileNotFoundError, match="3 are not there, among them all for val"):
        load(root, unreadable="skip")


def spoil(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "html":
        path.write_text("<html>")
    elif how == "small":
        write(path, np.zeros((13 if "S2Hand" in path.name else 1, 256, 256), np.int16))
    elif how == "twelve bands":
        write(path, np.ones((12, 512, 512), np.int16))
    else:
        write(path, np.full((1, 512, 512), 2, np.int16))


@pytest.mark.parametrize(
    ("part", "how", "message"),
    [
        (0, "truncated", r"'Spain_1-0-0' cannot be read"),
        (1, "html", r"'Spain_1-0-0' cannot be read"),
        (0, "small", r"Spain_1_S2Hand\.tif has 13 bands of \(256, 256\) pixels instead of 13"),
        (1, "small", r"Spain_1_LabelHand\.tif has 1 bands of \(256, 256\) pixels"),
        (0, "twelve bands", r"has 12 bands of .* instead of 13"),
        (1, "class 2", r"unknown classes \[2\].*0 Not water, 1 Water, and -1"),
    ],
)
def test_an_unfit_chip_is_refused_by_name_or_skipped(
    root: Path, part: int, how: str, message: str
) -> None:
    spoil(paths(root, "Spain_1")[part], how)
    data = load(root, size=256)
    with pytest.raises(ValueError, match=message):
        data.train[0]
    skipped = load(root, unreadable="skip")
    assert counts(skipped)["train"] == 2 and skipped.skipped.keys() == {"Spain_1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": "mni"}, "Did you mean 'mini'"),
        ({"subset": ["mini"]}, "Known: full, mini"),
        ({"subset": "mini", "train_regions": ["Nigeria"]}, "'mini' has no chips of Nigeria"),
        ({"train_regions": ["Bolivia"]}, "Bolivia was published as held out.*Ghana"),
        ({"train_regions": ["Cambodia"]}, "Unknown region of sen1floods11 'Cambodia'"),
        ({"size": 224}, r"size must divide 512 for sen1floods11 \(512, 256, "),
        ({"bands": ["TIR"]}, "Unknown band 'TIR'"),
        ({"part": "weak"}, "Known: .*subset"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_fetched(
    short_lists: None, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    def fetched(*_: object) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr(sen1floods11, "fetch_many", fetched)
    with pytest.raises(ValueError, match=message):
        load(download=True, **arguments)


def test_another_folder_is_told_from_the_data_set(root: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"is not the folder of Sen1Floods11.*contains v1\.1"
    ):
        load(root / "v1.1")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load(root / "nowhere")


@pytest.fixture
def served(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A server with all files; what was asked of it."""
    asked: list[str] = []
    server = root.rename(root.parent / "server")

    def download(entry: FileEntry) -> Path:
        assert entry.url.startswith("https://storage.googleapis.com/sen1floods11/v1.1/")
        asked.append(entry.url.partition("/sen1floods11/")[2])
        target = cache_folder() / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(server / asked[-1], target))

    monkeypatch.setattr(files, "_from_url", download)
    return asked


def test_what_a_mirror_lacks_is_downloaded_once(
    served: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    for source, target in zip(
        paths(tmp_path / "server", "Spain_2"),
        paths(mirror / "sen1floods11", "Spain_2"),
        strict=True,
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(mirror))
    with pytest.raises(FileNotFoundError, match="14 of the 16 files of 8 chips of Sen1Floods11"):
        load()
    assert not served
    data = load(download=True)
    assert len(served) == len(set(served)) == 14 + 1 and not any("Spain_2" in u for u in served)
    assert {data.train[0]["name"], data.val[0]["name"]} == {"Spain_1", "Spain_2"}
    assert data.train[0]["temporal"].tolist() == [[2019, 261]]
    served.clear()
    load(download=True)
    assert not served


def test_only_chips_of_the_wanted_regions_are_downloaded(served: list[str]) -> None:
    data = load(download=True, train_regions=["Spain"], holdout_regions=["Sri-Lanka"])
    assert counts(data) == {"train": 1, "val": 1, "test": 1, "holdout:Sri-Lanka": 1}
    assert len(served) == 2 * 4 + 1


def test_days_that_cannot_be_downloaded_stop_nothing(served: list[str], tmp_path: Path) -> None:
    (tmp_path / "server/v1.1/Sen1Floods11_Metadata.geojson").unlink()
    data = load(download=True)
    assert data.train[0]["name"] == "Spain_1" and "is not there" in data.notes[0]


@pytest.mark.mirror
def test_a_mirror_needs_every_chip_with_its_label_the_lists_and_the_days() -> None:
    entries = sen1floods11.mirror_files()
    names = [entry.path for entry in entries]
    assert len(names) == len(set(names)) == 2 * 446 + 4 + 1
    assert f"sen1floods11/{HAND}/LabelHand/Sri-Lanka_1038087_LabelHand.tif" in names
    assert f"https://storage.googleapis.com/sen1floods11/{HAND}/S2Hand/{REAL}_S2Hand.tif" in {
        entry.source for entry in entries
    }
    assert {entry.licence for entry in entries} == {"CC-BY-4.0", "Apache-2.0"}


def test_data_card_model_and_figure_take_the_data(root: Path) -> None:
    data = load(root, size=256)
    backbone = gp.load_backbone("geopeft_tiny", bands=data.bands)
    model = gp.build_model(backbone, data, decoder="linear").eval()
    images = torch.stack([data.train[i]["image"] for i in range(2)])
    with torch.no_grad():
        assert model(images).shape == (2, 2, 256, 256)
    assert data.plot(data.train[0]).axes
    sheet = gp.data_card(data)
    assert sheet.balance is not None and sheet.balance.loc["train", "Water"] == pytest.approx(
        0.5, abs=0.01
    )
    assert "Mekong is Cambodia" in sheet.facts.loc["split"].item()


def test_data_card_needs_no_files(root: Path, short_lists: None) -> None:
    sheet = gp.data_card("sen1floods11")
    assert "16 of the 16 files" in sheet.facts.loc["not loaded"].item()
    assert sheet.balance is None and sheet.card.licence.startswith("CC-BY-4.0")
    assert "sen1floods11" in gp.list_datasets().index
