"""Sen1Floods11: its lists, days and downloads, and the one real chip; see test_published.py."""

import datetime
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_files import HAND, LISTS, halves, levels, make_floods, write_raster

import geopeft_nb as gp
from geopeft_nb import files
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published import common, sen1floods11
from geopeft_nb.datasets.published.common import split_list
from geopeft_nb.datasets.split import shared_places
from geopeft_nb.files import FileEntry, cache_folder, mirror_folders

REAL = "Spain_7370579"


def paths(root: Path, chip: str) -> tuple[Path, Path]:
    image, label = (root / HAND / p / f"{chip}_{p}.tif" for p in ("S2Hand", "LabelHand"))
    return image, label


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("official")
    make_floods(root)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may spoil, short lists, and no other place to find anything."""
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    monkeypatch.setattr(common, "split_list", lambda name, download=True: LISTS[name])
    return Path(shutil.copytree(written, tmp_path / "sen1floods11"))


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


def load(root: Path | None = None, **arguments: Any) -> GeoData:
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


def mirror_root() -> Path:
    return next(f for f in mirror_folders() if (f / "sen1floods11").is_dir()) / "sen1floods11"


@pytest.mark.mirror
def test_a_real_chip_goes_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    chips = ("Spain_1", "Spain_2", REAL, "Bolivia_1")
    lists = {name: [chip] for name, chip in zip(sen1floods11.LISTS.values(), chips, strict=True)}
    for chip in chips:
        for source, target in zip(paths(mirror_root(), REAL), paths(tmp_path, chip), strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    monkeypatch.setattr(common, "split_list", lambda name, download: lists[name])
    data = load(tmp_path)
    assert counts(data) == {"train": 1, "val": 1, "test": 1, "holdout:Bolivia": 1}
    sample = data.test[0]
    assert sample["name"] == REAL and sample["image"].shape == (6, 512, 512)
    assert 0 < sample["image"].min() and sample["image"].max() < 0.7
    blue, nir = sample["image"][0].mean(), sample["image"][3].mean()
    assert (blue, nir) == (pytest.approx(0.12704, abs=1e-4), pytest.approx(0.21297, abs=1e-4))
    values, number = sample["mask"].unique(return_counts=True)
    assert dict(zip(values.tolist(), number.tolist(), strict=True)) == {
        -1: 99, 0: 192_010, 1: 70_035
    }  # fmt: skip
    assert sample["location"].tolist() == pytest.approx([38.106, -0.759], abs=1e-3)
    assert sample["crs"] == "EPSG:4326"


def test_pixels_without_data_are_zero_and_without_label(root: Path) -> None:
    image, mask = levels(13, 512, 1000, np.float32), halves(512)
    image[:, :8, :8], mask[:, :8, :8], image[:, 20, 20] = 0, -1, np.nan
    for path, pixels in zip(paths(root, "Spain_1"), (image, mask), strict=True):
        write_raster(path, pixels, 4326, (-0.78, 38.12), 9e-5)
    sample = load(root).train[0]
    assert sample["image"][:, :8, :8].max() == 0 and sample["image"][:, 20, 20].max() == 0
    assert sample["image"].isfinite().all() and sample["mask"].unique().tolist() == [-1, 0, 1]
    assert int((sample["mask"] == -1).sum()) == 64


def test_days_are_those_of_sentinel_2_and_mekong_is_cambodia(root: Path) -> None:
    data = load(root)
    days = {chip.region: chip.date for part in data.parts.values() for chip in part.chips}
    assert days == {
        "Spain": datetime.date(2019, 9, 18), "Mekong": datetime.date(2018, 8, 4),
        "Bolivia": datetime.date(2018, 2, 15), "Sri-Lanka": datetime.date(2017, 5, 28),
    }  # fmt: skip
    assert data.train[0]["temporal"].tolist() == [[2019, 261]]  # 18 September, counted from 1


@pytest.fixture
def served(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A server with all files; what was asked of it."""
    asked: list[str] = []
    server = root.rename(root.parent / "server")

    def download(entry: FileEntry) -> Path:
        assert entry.url.startswith("https://storage.googleapis.com/sen1floods11/v1.1/")
        name = entry.url.partition("/sen1floods11/")[2]
        asked.append(name)  # four threads ask: the last one asked for need not be this one
        target = cache_folder() / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(server / name, target))

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
    with pytest.raises(FileNotFoundError, match="is not on this machine, and download=False"):
        load()
    assert not served
    data = load(download=True)
    assert len(served) == len(set(served)) == 14 and not any("Spain_2" in u for u in served)
    assert {data.train[0]["name"], data.val[0]["name"]} == {"Spain_1", "Spain_2"}
    assert data.train[0]["temporal"].tolist() == [[2019, 261]]
    served.clear()
    load(download=True)
    assert not served


def test_only_chips_of_the_wanted_regions_are_downloaded(served: list[str]) -> None:
    data = load(download=True, train_regions=["Spain"], holdout_regions=["Sri-Lanka"])
    assert counts(data) == {"train": 1, "val": 1, "test": 1, "holdout:Sri-Lanka": 1}
    assert len(served) == 2 * 4


@pytest.mark.mirror
def test_a_mirror_needs_every_chip_with_its_label_and_the_lists() -> None:
    entries = sen1floods11.mirror_files("sen1floods11")
    names = [entry.path for entry in entries]
    assert len(names) == len(set(names)) == 2 * 446 + 4
    assert f"sen1floods11/{HAND}/LabelHand/Sri-Lanka_1038087_LabelHand.tif" in names
    assert f"https://storage.googleapis.com/sen1floods11/{HAND}/S2Hand/{REAL}_S2Hand.tif" in {
        entry.url for entry in entries
    }
    assert {entry.licence for entry in entries} == {"CC-BY-4.0", "Apache-2.0"}
