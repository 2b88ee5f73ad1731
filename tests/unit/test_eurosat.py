"""EuroSAT: chips by place and by region; see also test_published.py."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from published_files import EUROSAT, eurosat_file, make_eurosat, write_eurosat

import geopeft_nb as gp
from geopeft_nb.bands import SENTINEL2_BANDS
from geopeft_nb.datasets.geodata import band_statistics
from geopeft_nb.datasets.published import common, eurosat
from geopeft_nb.datasets.split import shared_places
from geopeft_nb.files import FileEntry, find_dataset


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A cache of its own for each test, and no mirror but for the tests that are of the mirror."""
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    if not request.node.get_closest_marker("mirror"):
        monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path / "mirror"))
        (tmp_path / "mirror").mkdir()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_eurosat(tmp_path / "root")
    return tmp_path / "root"


def test_chips_of_a_place_stay_together_and_the_east_is_held_out(root: Path) -> None:
    data = gp.load_data("eurosat", root=root)
    assert data.regions == ("west", "centre") and list(data.holdout) == ["east"]
    assert len(data.holdout["east"]) == 8
    assert sum(len(part) for part in (data.train, data.val, data.test)) == 16
    chips = {chip.name: chip for part in data.parts.values() for chip in part.chips}
    assert {name: chip.region for name, chip in chips.items()} == {
        name: region for name, (region, _, _) in EUROSAT.items()
    }
    assert all(count == 2 for count in Counter(chip.place for chip in chips.values()).values())
    assert chips["AnnualCrop_1"].place == chips["Forest_1"].place == "lat47.00-lon-4.25"
    table = shared_places(data)
    assert table["claims"].all() and not table["shared_places"].any()


@pytest.mark.parametrize(
    ("longitude", "region", "west"),
    [(2.9999, "west", "2.75"), (3.0, "centre", "3.00"), (12.999, "centre", "12.75"),
     (13.0, "east", "13.00")],
)  # fmt: skip
def test_no_place_crosses_the_border_of_a_region(longitude: float, region: str, west: str) -> None:
    assert eurosat.region_of(longitude) == region
    assert eurosat.place_of(47.0, longitude) == f"lat47.00-lon{west}"


def test_a_sample_lies_where_its_header_says_and_has_its_folders_label(root: Path) -> None:
    sample = gp.load_data("eurosat", root=root).holdout["east"][0]
    assert sample["label"].dtype == torch.int64 and sample["label"].shape == ()
    _, latitude, longitude = EUROSAT[sample["name"]]
    assert sample["location"].tolist() == pytest.approx([latitude, longitude], abs=1e-5)
    left, bottom, right, top = sample["bounds"]
    assert (right - left, top - bottom, sample["crs"]) == (640, 640, "EPSG:32634")
    assert "temporal" not in sample  # EuroSAT does not say when


def test_all_thirteen_bands_can_be_asked_for_in_the_order_of_the_products(root: Path) -> None:
    data = gp.load_data("eurosat", root=root, bands=SENTINEL2_BANDS)
    order = [1, 2, 3, 4, 5, 6, 7, 8, 13, 9, 10, 11, 12]  # B8A is the last of the file
    assert data.train[0]["image"][:, 5, 5].tolist() == pytest.approx([n / 10 for n in order])
    mean, _ = data.statistics
    assert mean[[0, 8, 10]].tolist() == pytest.approx([0.1354405, 0.2594141, 0.0012113])


def test_two_copies_of_a_chip_are_refused(root: Path) -> None:
    write_eurosat(root / "copy/Forest/Forest_1.tif", "west", 47, -4)
    with pytest.raises(ValueError, match="lists 1 chips twice, 'Forest_1'"):
        gp.load_data("eurosat", root=root)


def test_a_chip_that_does_not_say_where_it_lies_is_named(root: Path) -> None:
    path = root / eurosat_file("Forest_1")
    with rasterio.open(path) as raster:
        profile = raster.profile | {"crs": None}
    rasterio.open(path, "w", **profile).close()
    with pytest.raises(ValueError, match=r"Forest_1.tif does not say where it lies"):
        gp.load_data("eurosat", root=root)


def test_a_subset_is_downloaded_from_its_pinned_address(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FileEntry] = []
    monkeypatch.setattr(common, "fetch", lambda entry, _: asked.append(entry) or root)
    monkeypatch.setattr(common, "extract", lambda *_: root)
    gp.load_data("eurosat")
    gp.load_data("eurosat", subset="full")
    assert [Path(entry.path).name for entry in asked] == ["EuroSAT100.zip", "EuroSATallBands.zip"]
    assert all("/torchgeo/eurosat/resolve/1ce6f1bfb56db63fd91b" in entry.url for entry in asked)


@pytest.fixture
def sample() -> Path:
    """200 chips from all over Europe, which only a mirror has."""
    if not (folder := find_dataset("eurosat_ms")):
        pytest.skip("eurosat_ms is in no folder of GEOPEFT_MIRROR")
    return folder


@pytest.mark.mirror
def test_the_sample_of_the_mirror_is_split_into_three_regions(sample: Path) -> None:
    folds = dict(gp.leave_one_region_out("eurosat", root=sample))
    assert {name: len(data.holdout[name]) for name, data in folds.items()} == {
        "west": 57, "centre": 83, "east": 60
    }  # fmt: skip
    for data in folds.values():
        assert sum(map(len, data.parts.values())) == 200
        assert not shared_places(data)["shared_places"].any()
    home = folds["east"]  # as by default
    assert {int(home.train[i]["label"]) for i in range(len(home.train))} == set(range(10))


@pytest.mark.mirror
def test_published_statistics_fit_the_pixels_of_the_sample(sample: Path) -> None:
    data = gp.load_data("eurosat", root=sample, bands=eurosat.CARD.bands)
    mean, std = band_statistics(data.train)
    wanted_mean, wanted_std = data.statistics
    # 84 chips of 27,000; a wrong order of the bands would be off by half and more.
    assert (mean / wanted_mean - 1).abs().max() < 0.15
    assert (std / wanted_std - 1).abs().max() < 0.25


@pytest.mark.mirror
def test_a_random_split_of_the_sample_leaves_neighbours_on_both_sides(sample: Path) -> None:
    data = gp.load_data("eurosat", root=sample)
    places = np.array([chip.place for part in data.parts.values() for chip in part.chips])
    shared = []
    for seed in range(500):
        order = np.random.default_rng(seed).permutation(200)
        shared.append(np.isin(places[order[120:]], places[order[:120]]).sum())
    assert min(shared) > 0 and np.mean(shared) == pytest.approx(14, abs=0.5)
    assert "14 of 80" in " ".join(str(eurosat.__doc__).split())


@pytest.mark.mirror
def test_a_linear_probe_learns_from_the_sample_and_is_judged_region_by_region(sample: Path) -> None:
    data = gp.load_data("eurosat", root=sample)
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder="classify")
    run = gp.fit(gp.attach(model, "linear_probe"), data, epochs=2, dashboard=False)
    table = gp.evaluate(run, data).table
    assert table["role"].to_dict() == {"west": "home", "centre": "home", "east": "away"}
    assert table.loc["east", "chips"] == 60 and table.loc["east", "places"] == 52
    assert (table["accuracy"] > 0.25).all()  # chance is 0.1; seen: 0.73, 0.88, 0.63
