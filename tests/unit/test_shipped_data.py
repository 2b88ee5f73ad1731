"""What ships in data/: scenes, water masks and land outlines are what their cards say."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

REGIONS = {"virginia": ("EPSG:32618", (973, 966)), "brandenburg": ("EPSG:32633", (384, 768))}
BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
every_region = pytest.mark.parametrize("region", REGIONS)


@pytest.fixture(scope="module")
def scenes(root: Path) -> Path:
    return root / "data" / "scenes"


@pytest.fixture(scope="module")
def described(scenes: Path) -> dict[str, Any]:
    return json.loads((scenes / "scenes.json").read_text())


@pytest.fixture(scope="module")
def land(root: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress((root / "data/maps/land.geojson.gz").read_bytes()))


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_the_files_are_those_of_scenes_json(scenes: Path, described: dict[str, Any]) -> None:
    sums = {
        name: x for scene in described["scenes"].values() for name, x in scene["sha256"].items()
    }
    assert len(sums) == 2 * len(REGIONS)
    assert {path.name for path in scenes.iterdir()} == {*sums, "scenes.json", "README.md"}
    for name, expected in sums.items():
        assert hashlib.sha256((scenes / name).read_bytes()).hexdigest() == expected, name


@every_region
def test_image_and_mask_share_a_grid_and_say_where_they_come_from(
    scenes: Path, described: dict[str, Any], region: str
) -> None:
    scene, (code, shape) = described["scenes"][region], REGIONS[region]
    image, mask = (rasterio.open(scenes / f"{region}{end}.tif") for end in ("", "_water"))
    with image, mask:
        assert image.crs == CRS.from_string(code) and image.shape == shape
        assert image.descriptions == BANDS and set(image.dtypes) == {"uint16"}
        # Sentinel-2 tiles start at multiples of 20 m: no half-pixel shift crept in.
        assert image.res == (20.0, 20.0)
        assert image.bounds.left % 20 == 0 and image.bounds.top % 20 == 0
        assert (mask.crs, mask.transform, mask.shape) == (image.crs, image.transform, image.shape)
        assert mask.dtypes == ("uint8",) and mask.nodata == 255
        assert mask.colormap(1)[1] == (0, 114, 178, 255)
        for file in (image, mask):
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.overviews(1)
            tags = file.tags()
            assert (tags["LICENCE"], tags["DATE"]) == (scene["licence"], scene["date"])
            assert scene["source"]["package"] in tags["SOURCE"]
            assert "Copernicus Sentinel data" in tags["ATTRIBUTION"]


@every_region
def test_reflectance_is_that_of_the_top_of_the_atmosphere(scenes: Path, region: str) -> None:
    image = read(scenes / f"{region}.tif") / 10_000
    blue, green, red, *_ = (np.median(band) for band in image)
    # Air scatters blue light most: at this level it is the brightest of the three in the median,
    # which it would not be if bands were swapped.
    assert 0.10 < blue < 0.16 and red < green * 1.1 and green < blue
    assert np.percentile(image, 99.9) < 0.8, "reflectance is not scaled by 10,000"
    assert (image == 0).mean() < 1e-5, "there are pixels without data"


@every_region
def test_fractions_are_as_described(scenes: Path, described: dict[str, Any], region: str) -> None:
    mask, scene = read(scenes / f"{region}_water.tif"), described["scenes"][region]
    assert set(np.unique(mask)) == {0, 1, 255}
    water, ignored = (mask == 1).mean(), (mask == 255).mean()
    assert water == pytest.approx(scene["water_fraction"], abs=1e-4)
    assert ignored == pytest.approx(scene["ignored_fraction"], abs=1e-4)


@every_region
def test_water_is_dark_in_shortwave_infrared(scenes: Path, region: str) -> None:
    shortwave = read(scenes / f"{region}.tif")[4].astype(float)
    mask = read(scenes / f"{region}_water.tif")[0]
    assert np.median(shortwave[mask == 1]) * 5 < np.median(shortwave[mask == 0])
    # A mask shifted by a few pixels would put fields into the water.
    assert np.percentile(shortwave[mask == 1], 95) < np.percentile(shortwave[mask == 0], 25)


@pytest.mark.parametrize(
    ("region", "place", "easting", "northing", "expected"),
    [
        ("virginia", "the open Atlantic", 453_000, 4_168_000, 1),
        ("virginia", "breakers at the inlet", 449_300, 4_172_100, 1),
        ("virginia", "the turbid lagoon in the north", 449_000, 4_176_500, 1),
        ("virginia", "the beach of a barrier island", 447_800, 4_170_700, 0),
        ("virginia", "fields inland", 437_300, 4_175_250, 0),
        ("virginia", "a shoal awash", 442_150, 4_163_800, 255),
        ("brandenburg", "ice on the largest lake", 335_000, 5_816_800, 1),
        ("brandenburg", "open water in the ice", 335_000, 5_816_300, 1),
        ("brandenburg", "the river between two lakes", 340_450, 5_817_340, 1),
        ("brandenburg", "a bright frozen gravel pit", 330_100, 5_818_600, 1),
        ("brandenburg", "a town in the shadow of a cloud", 335_150, 5_817_300, 0),
        ("brandenburg", "the shadow of a forest edge", 332_480, 5_819_820, 0),
        ("brandenburg", "an island in the lake", 341_400, 5_818_650, 0),
        ("brandenburg", "the thickest cloud", 339_200, 5_820_300, 255),
    ],
)
def test_places_that_were_looked_at_have_the_right_label(
    scenes: Path, region: str, place: str, easting: float, northing: float, expected: int
) -> None:
    with rasterio.open(scenes / f"{region}_water.tif") as mask:
        row, column = mask.index(easting, northing)
        window = mask.read(1)[row - 1 : row + 2, column - 1 : column + 2]
    assert np.median(window) == expected, place


def test_masks_match_one_threshold_as_well_as_the_card_says(scenes: Path) -> None:
    card = (scenes / "README.md").read_text()
    for region in REGIONS:
        _, green, _, _, shortwave, _ = read(scenes / f"{region}.tif").astype(np.float32)
        mask = read(scenes / f"{region}_water.tif")[0]
        index = (green - shortwave) / (green + shortwave)
        for threshold in (0.00, 0.34):
            water, over = mask == 1, (index > threshold) & (mask != 255)
            share = (over & water).sum() / (over | water).sum()
            rows = [row for row in card.splitlines() if f"`{region}`, {threshold:.2f}" in row]
            assert len(rows) == 1 and f"| {share:.3f} |" in rows[0]


def rings(collection: dict[str, Any]) -> Iterator[np.ndarray]:
    for feature in collection["features"]:
        assert feature["geometry"]["type"] == "Polygon"
        for ring in feature["geometry"]["coordinates"]:
            yield np.asarray(ring, float)


def test_land_is_valid_geojson_and_small(root: Path, land: dict[str, Any]) -> None:
    maps = root / "data" / "maps"
    assert sum(path.stat().st_size for path in maps.iterdir()) <= 300_000
    assert land["type"] == "FeatureCollection"
    assert {feature["properties"]["kind"] for feature in land["features"]} == {"land"}
    for ring in rings(land):
        assert ring.ndim == 2 and ring.shape[1] == 2 and len(ring) >= 4
        assert (ring[0] == ring[-1]).all(), "a ring is open"
        assert (np.abs(ring) <= (180, 90)).all()
        # One that jumps across the antimeridian draws a line through the whole map.
        assert np.abs(np.diff(ring[:, 0])).max() < 60


def test_land_covers_the_share_of_the_globe_that_it_should(land: dict[str, Any]) -> None:
    area = 0.0
    for feature in land["features"]:
        for number, ring in enumerate(feature["geometry"]["coordinates"]):
            longitude, latitude = np.radians(np.asarray(ring)).T
            # Cylindrical equal-area coordinates, then the shoelace formula; whole sphere: 4 pi.
            x, y = longitude, np.sin(latitude)
            enclosed = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
            area += -enclosed if number else enclosed
    # 26.4 % of the Earth is land outside Antarctica (134.9 of 510.1 million km2).
    assert area / (4 * np.pi) == pytest.approx(0.264, abs=0.01)


@every_region
def test_coast_is_detailed_near_the_scenes(scenes: Path, land: dict[str, Any], region: str) -> None:
    with rasterio.open(scenes / f"{region}.tif") as image:
        west, south, east, north = transform_bounds(image.crs, "EPSG:4326", *image.bounds)
    points = np.concatenate(list(rings(land)))
    # Each window reaches about 3 degrees beyond its scene; 1:110 million has a dozen points there.
    near = (np.abs(points - ((west + east) / 2, (south + north) / 2)) < 3).all(axis=1)
    assert near.sum() > 150


def test_borders_are_lines_near_brandenburg(root: Path) -> None:
    content = (root / "data/maps/borders.geojson.gz").read_bytes()
    (feature,) = json.loads(gzip.decompress(content))["features"]
    assert feature["properties"]["region"] == "brandenburg"
    assert feature["geometry"]["type"] == "MultiLineString"
    points = np.concatenate([np.asarray(line) for line in feature["geometry"]["coordinates"]])
    assert (np.abs(points[:, 0] - 11.5) <= 4.5).all()
    # The Oder between Germany and Poland.
    assert (np.hypot(*(points - (14.6, 52.6)).T) < 0.2).any()
