"""Somebody's own files: three odd inputs end to end, and what is handled or refused, and why."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

import geopeft_nb as gp
from geopeft_nb.bands import SENTINEL2_BANDS
from geopeft_nb.datasets.geodata import GeoData

RGB_NIR = ("BLUE", "GREEN", "RED", "NIR")
L2A = tuple(band for band in SENTINEL2_BANDS if band != "CIRRUS")
UTM = "EPSG:32633"


def write(
    path: Path,
    pixels: np.ndarray,
    crs: str | None = UTM,
    origin: tuple[float, float] = (500_000.0, 5_000_000.0),
    step: float = 10.0,
    names: tuple[str, ...] = (),
    **options: Any,
) -> Path:
    """Write a GeoTIFF; pixels (C, H, W) or (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    count, height, width = pixels.shape
    where = {"crs": crs, "transform": from_origin(*origin, step, step)} if crs else {}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width,
        dtype=pixels.dtype, **where, **options,
    ) as raster:  # fmt: skip
        raster.write(pixels)
        for number, name in enumerate(names, start=1):
            raster.set_band_description(number, name)
    return path


def edit(
    path: Path,
    change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels,
    names: tuple[str | None, ...] | None = None,
    **profile: Any,
) -> None:
    """Write a raster again, with other pixels, names or profile."""
    with rasterio.open(path) as raster:
        pixels, old, known = change(raster.read()), raster.profile, raster.descriptions
    profile = old | {"count": len(pixels), "dtype": pixels.dtype} | profile
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(pixels)
        if names or len(pixels) == len(known):
            raster.descriptions = names or known


def reflectance(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(200, 4000, shape).astype(np.uint16)


def two_classes(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (height, width)).astype(np.uint8)


def write_pairs(
    root: Path, count: int = 8, side: int = 32, bands: int = 4,
    names: tuple[str, ...] = RGB_NIR, apart: float = 20_000.0, word: str = "chip",
    origin: tuple[float, float] = (500_000.0, 5_000_000.0), **where: Any,
) -> Path:  # fmt: skip
    """Write images/ and masks/ of chips, each so far east of the one before."""
    for number in range(count):
        where["origin"] = origin[0] + apart * number, origin[1]
        image, mask = reflectance((bands, side, side), number), two_classes(side, side, number)
        write(root / "images" / f"{word}{number}.tif", image, names=names, **where)
        write(root / "masks" / f"{word}{number}.tif", mask, **where)
    return root


def write_scene(root: Path, side: int, mask: bool = True) -> Path:
    """Write a scene of 10-metre pixels, and its mask."""
    write(root / "s.tif", reflectance((4, side, side)), names=RGB_NIR)
    if mask:
        write(root / "s_mask.tif", two_classes(side, side))
    return root


def load(root: Path, **options: Any) -> GeoData:
    """Load files whose numbers are reflectance times 10,000, unless they are said to be others."""
    return gp.load_data("folder", root=root, **{"scale": 10_000, "offset": 0} | options)


#: Options of files that state how their numbers become reflectance.
STATED = {"scale": None, "offset": None}


def chips_of(data: GeoData) -> dict[str, Any]:
    """All samples by name."""
    parts = data.parts.values()
    return {sample["name"]: sample for part in parts for sample in part.spread(len(part))}


def places_of(data: GeoData) -> dict[str, set[str]]:
    return {name: {chip.place for chip in part.chips} for name, part in data.parts.items()}


def noted(data: GeoData, words: str) -> bool:
    return any(words in note for note in data.notes)


def train_once(data: GeoData, normalise: str) -> float:
    """Go all the way and return the mean mIoU at home."""
    backbone = gp.load_backbone("geopeft_tiny", bands=data.bands)
    model = gp.build_model(backbone, data, normalise=normalise)
    gp.attach(model, "lora")
    run = gp.fit(model, data, epochs=1, batch_size=4, device="cpu", dashboard=False)
    assert run.state == "finished" and np.isfinite(run.history["train_loss"]).all()
    table = gp.evaluate(run, data).table
    assert table.loc[list(data.regions), "chips"].sum() == len(data.test)
    return float(table["mIoU"].mean())


# One 4-band 3-metre scene in EPSG:3857 with a GeoPackage of polygons.

SCENE_ORIGIN = (1_500_000.0, 6_900_000.0)
POND = (1_500_300.0, 6_899_100.0, 1_500_600.0, 6_899_700.0)  # left, bottom, right, top


def planet_scene(root: Path) -> tuple[Path, np.ndarray]:
    """A scene of 400 x 400 pixels: grass, a pond and a forest, whose polygons are in degrees."""
    geopandas = pytest.importorskip("geopandas", reason="polygons need geopandas")
    from shapely.geometry import box

    pixels = reflectance((4, 400, 400))
    write(root / "scene.tif", pixels, "EPSG:3857", SCENE_ORIGIN, 3.0, tiled=True,
          blockxsize=128, blockysize=128)  # fmt: skip
    whole = (SCENE_ORIGIN[0], SCENE_ORIGIN[1] - 1200, SCENE_ORIGIN[0] + 1200, SCENE_ORIGIN[1])
    forest = box(SCENE_ORIGIN[0] + 600, whole[1], whole[2], whole[3])
    pond = box(*POND)
    shapes = {"forest": forest, "grass": box(*whole).difference(forest).difference(pond)}
    frame = geopandas.GeoDataFrame(
        {"landcover": [*shapes, "pond"], "area": [1.0, 2.0, 3.0]},
        geometry=[*shapes.values(), pond], crs="EPSG:3857",
    )  # fmt: skip
    frame.to_crs("EPSG:4326").to_file(root / "fields.gpkg")
    return root, pixels


def test_a_planet_scene_with_polygons_trains_and_is_judged(tmp_path: Path) -> None:
    root, _ = planet_scene(tmp_path)
    data = load(root, band_names=RGB_NIR)
    assert data.classes == ("forest", "grass", "pond")
    assert data.bands == ("BLUE", "GREEN", "RED", "NIR_NARROW")
    assert (data.size, round(data.card.resolution, 2)) == (64, 1.82)  # of ground, at 53 degrees
    for words in (
        "EPSG:3857 of 1.824 m (1)", "number / 10,000", "Classes are the values of landcover",
    ):  # fmt: skip
        assert noted(data, words), words
    assert 0 <= train_once(data, "pretraining") <= 1


def test_windows_of_a_scene_are_its_pixels_and_polygons_lie_where_they_lie(tmp_path: Path) -> None:
    root, pixels = planet_scene(tmp_path)
    samples = chips_of(load(root, band_names=RGB_NIR, bands=["NIR", "RED"]))
    assert len(samples) >= 28  # of 7 x 7, but for a strip between the sides
    for name, sample in samples.items():
        row, column = (int(part) for part in name.split("-")[1:])
        top, left = 64 * row, 64 * column
        window = pixels[[3, 2], top : top + 64, left : left + 64].astype(np.float32) / 10_000
        height, width = window.shape[1:]
        assert torch.equal(sample["image"][:, :height, :width], torch.from_numpy(window))
        assert sample["crs"] == "EPSG:3857"
        assert sample["bounds"] == (
            SCENE_ORIGIN[0] + 3 * left, SCENE_ORIGIN[1] - 3 * (top + 64),
            SCENE_ORIGIN[0] + 3 * (left + 64), SCENE_ORIGIN[1] - 3 * top,
        )  # fmt: skip
        truth = np.ones((64, 64), np.int64)
        x = sample["bounds"][0] + 3 * (np.arange(64) + 0.5)
        y = sample["bounds"][3] - 3 * (np.arange(64) + 0.5)
        truth[:, x > SCENE_ORIGIN[0] + 600] = 0
        inside = ((y > POND[1]) & (y < POND[3]))[:, None] & ((x > POND[0]) & (x < POND[2]))
        truth[inside] = 2
        truth[height:], truth[:, width:] = -1, -1
        assert np.array_equal(sample["mask"].numpy(), truth), name
        if height < 64:
            padding = sample["image"][:, height:].mean(dim=(1, 2))
            assert np.allclose(padding, window.mean(axis=(1, 2)), atol=1e-5)  # float32 sums


# Chips of different sizes with a -9999 no-data.


def uneven_chips(root: Path) -> Path:
    """Float chips beside their masks; a corner of one, and the whole of another, has no data."""
    heights, widths = [40, 64, 100, 64, 20, 70, 64, 33, 64], [56, 64, 30, 64, 20, 70, 48, 64, 64]
    for number, (height, width) in enumerate(zip(heights, widths, strict=True)):
        image = reflectance((6, height, width), number).astype(np.float32) / 10_000
        if number == 3:
            image[2, :10, :20] = -9999
        if number == 8:
            image[:] = -9999
        origin = (400_000.0 + 5_000 * number, 4_000_000.0)
        names = ("B02", "B03", "B04", "B8A", "B11", "B12")
        write(root / f"site{number}.tif", image, origin=origin, names=names, nodata=-9999)
        write(root / f"site{number}_mask.tif", two_classes(height, width, number), origin=origin)
    return root


def test_uneven_chips_with_no_data_train_and_are_judged(tmp_path: Path) -> None:
    data = load(uneven_chips(tmp_path), classes=["land", "water"], **STATED)
    for words in (
        "1 chips without any label or data are left out", "taken as reflectance 0-1: number",
    ):  # fmt: skip
        assert noted(data, words), words
    assert data.bands == ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
    samples = chips_of(data)
    assert {tuple(sample["image"].shape) for sample in samples.values()} == {(6, 64, 64)}
    assert not any("site8" in name for name in samples)
    sample, mask = samples["site3"], two_classes(64, 64, 3)
    assert (sample["mask"][:10, :20] == -1).all()
    assert np.array_equal(sample["mask"].numpy()[10:], mask[10:])
    valid = sample["image"][:, sample["mask"] != -1]
    assert torch.allclose(sample["image"][:, 4, 4], valid.mean(dim=1), atol=1e-5)  # float32 sums
    assert 0 < sample["image"].min() and sample["image"].max() < 0.5
    assert 0 <= train_once(data, "dataset") <= 1


def test_zero_is_no_data_in_all_bands_and_nan_in_any(tmp_path: Path) -> None:
    path = write_pairs(tmp_path) / "images" / "chip0.tif"

    def dark(pixels: np.ndarray) -> np.ndarray:
        pixels[0, 0, 0], pixels[:, 0, 1] = 0, 0
        return pixels

    edit(path, dark)
    mask = chips_of(load(tmp_path, nodata=0))["chip0"]["mask"]
    assert mask[0, 0] >= 0 and mask[0, 1] == -1
    for path in (tmp_path / "images").iterdir():
        edit(path, lambda pixels: np.where(np.arange(32) == 5, np.nan, pixels / 1e4))
    sample = chips_of(load(tmp_path, **STATED))["chip0"]
    assert (sample["mask"][:, 5] == -1).all() and (sample["mask"][:, 6] >= 0).all()
    assert sample["image"].isfinite().all()


# 12-band Sentinel-2 chips without statistics.


def test_sentinel2_chips_without_statistics_train_and_are_judged(tmp_path: Path) -> None:
    data = load(write_pairs(tmp_path, 10, 32, 12, names=L2A))
    assert data.bands == L2A and data.size == 32 and not data.card.mean
    mean, std = data.statistics
    pixels = torch.cat([sample["image"].flatten(1) for sample in data.train.spread(10)], 1)
    assert torch.allclose(mean, pixels.mean(dim=1), atol=1e-5)
    assert torch.allclose(std, pixels.std(dim=1), atol=1e-5)
    with pytest.warns(UserWarning, match="never saw COASTAL_AEROSOL"):
        assert 0 <= train_once(data, "dataset") <= 1


# Reading is lazy.


def test_opening_a_scene_reads_a_few_chips_of_the_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene(tmp_path, 960)
    read, original = [], rasterio.io.DatasetReader.read

    def count(raster: Any, *arguments: Any, **options: Any) -> Any:
        read.append(raster.name)
        return original(raster, *arguments, **options)

    monkeypatch.setattr(rasterio.io.DatasetReader, "read", count)
    data = load(tmp_path, size=32)
    chips = len(chips_of(data))
    opening = read[: len(read) - 2 * chips]  # each sample read its image and its mask
    assert sum(name.endswith("s.tif") for name in opening) <= 49 < 900
    assert sum(name.endswith("s_mask.tif") for name in opening) == 900
    assert noted(data, "Chips, and the places")


# Masks.


def test_a_mask_in_another_reference_system_is_laid_onto_its_image(tmp_path: Path) -> None:
    write_scene(tmp_path, 256, mask=False)
    left, bottom, right, top = rasterio.warp.transform_bounds(
        UTM, "EPSG:4326", 500_000, 4_997_440, 502_560, 5_000_000
    )
    step = (right - left) / 1000
    mask = np.zeros((int((top - bottom) / step) + 1, 900), np.uint8)
    mask[:, 500:] = 1  # the east; the last tenth is not covered
    write(tmp_path / "s_mask.tif", mask, "EPSG:4326", (left, top), step)
    data = load(tmp_path, size=64, block=1)
    assert noted(data, "1 masks lie on another grid")
    masks = {name: sample["mask"].numpy() for name, sample in chips_of(data).items()}
    assert len(masks) >= 8  # of 16, but for a strip between the sides
    x, y = np.meshgrid(500_005 + 10 * np.arange(256), 4_999_995 - 10 * np.arange(256))
    flat, _ = rasterio.warp.transform(UTM, "EPSG:4326", x.ravel(), y.ravel())
    longitude = np.reshape(flat, x.shape)
    truth = np.select([longitude < left + 500 * step, longitude < left + 900 * step], [0, 1], -1)
    for name, found in masks.items():
        row, column = (64 * int(part) for part in name.split("-")[1:])
        here = truth[row : row + 64, column : column + 64]
        # GDAL's reprojection is exact to an eighth of a pixel
        assert (found != here).mean() < 0.008


def test_chips_without_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    for number in (1, 2):
        edit(tmp_path / "masks" / f"chip{number}.tif", lambda pixels: 0 * pixels + 7)
    data = load(tmp_path, unlabelled=7)
    assert noted(data, "2 chips without any label or data are left out")
    assert set(chips_of(data)) == {f"chip{number}" for number in (0, 3, 4, 5, 6, 7)}


def test_a_raster_or_a_folder_of_labels_can_be_named(tmp_path: Path) -> None:
    mask = write_scene(tmp_path, 256) / "s_mask.tif"
    mask.rename(tmp_path / "cover.tif")
    by_folder, by_file = (
        chips_of(load(root, labels="cover.tif", block=1)) for root in (tmp_path, tmp_path / "s.tif")
    )
    assert set(by_folder) == set(by_file) and len(by_file) >= 8


# Polygons.


def test_folders_may_be_classes(tmp_path: Path) -> None:
    for number in range(6):
        origin, where = (500_000.0 + 9_000 * number, 5_000_000.0), ("crop", "wood")[number % 2]
        write(
            tmp_path / where / f"{number}.tif",
            reflectance((4, 32, 32)),
            origin=origin,
            names=RGB_NIR,
        )
    with pytest.raises(ValueError, match="if folders are classes"):
        load(tmp_path)
    data = load(tmp_path, images="{label}/{id}.tif", task="classification")
    assert data.classes == ("crop", "wood") and data.regions == ("all",)
    assert {s["name"][:4]: int(s["label"]) for s in chips_of(data).values()} == {
        "crop": 0,
        "wood": 1,
    }


def polygons(root: Path, shapes: list[Any], names: list[Any]) -> Path:
    geopandas = pytest.importorskip("geopandas", reason="polygons need geopandas")
    frame = geopandas.GeoDataFrame({"label": names}, geometry=shapes, crs=UTM)
    frame.to_file(root / "p.geojson")
    return write_scene(root, 256, mask=False)


def square(left: float, top: float, side: float) -> Any:
    """A square in pixels of a scene."""
    from shapely.geometry import box

    x, y = 500_000 + 10 * left, 5_000_000 - 10 * top
    return box(x, y - 10 * side, x + 10 * side, y)


def test_ground_outside_polygons_is_unlabelled_or_a_class(tmp_path: Path) -> None:
    shapes = [square(column, row, 20) for row in (10, 140) for column in (10, 140)]
    root = polygons(tmp_path, shapes, ["lake", "wood", "wood", "lake"])
    inside = load(root, block=1)
    assert inside.classes == ("lake", "wood") and noted(inside, "12 chips without any label")
    mask = chips_of(inside)["s-000-000"]["mask"]
    assert (mask[10:30, 10:30] == 0).all() and (mask == -1).sum() == 64 * 64 - 400
    around = load(root, block=1, background="land")
    assert around.classes == ("land", "lake", "wood") and len(chips_of(around)) >= 8
    drawn = {f"s-00{row}-00{column}" for row in (0, 2) for column in (0, 2)}
    for name, sample in chips_of(around).items():
        assert (sample["mask"] == 0).sum() == 64 * 64 - 400 * (name in drawn), name


def test_crossed_and_overlapping_polygons_are_counted(tmp_path: Path) -> None:
    polygon = pytest.importorskip("shapely.geometry").Polygon
    x, y = 500_000, 5_000_000
    bow = polygon([(x, y), (x + 640, y - 640), (x + 640, y), (x, y - 640)])
    shapes = [square(64, 64, 192), square(100, 100, 20), bow, square(0, 70, 20)]
    root = polygons(tmp_path, shapes, ["wood", "lake", "lake", None])
    data = load(root, block=1)
    assert noted(data, "1 polygons without one are left out, and 1 that cross themselves")
    samples = chips_of(data)
    assert (samples["s-001-001"]["mask"][36:56, 36:56] == -1).all()
    assert (samples["s-001-001"]["mask"] == 1).sum() == 64 * 64 - 400
    # Both wings of the bow are there, and what it leaves open is not.
    bow_mask = samples["s-000-000"]["mask"]
    assert bow_mask[32, 5] == 0 and bow_mask[32, 58] == 0 and bow_mask[5, 32] == -1


@pytest.mark.parametrize(
    ("left", "names", "message", "options"),
    [
        (5_000, "ab", "no polygon on any image", {}),
        (10, "a", "fewer than two classes: a.*background=", {}),
        (10, "ab", "label b, which the class list lacks", {"classes": ["a", "c"]}),
        (10, "ab", "Did you mean 'label'", {"label_field": "labl"}),
        (10, "ab", "are for masks", {"unlabelled": 0}),
    ],
)
def test_polygons_that_cannot_be_used_are_refused(
    tmp_path: Path, left: int, names: str, message: str, options: dict[str, Any]
) -> None:
    root = polygons(tmp_path, [square(left, 10, 100) for _ in names], list(names))
    with pytest.raises(ValueError, match=message):
        load(root, block=1, **options)


def test_polygons_need_shapes_a_class_and_a_reference_system(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas", reason="polygons need geopandas")
    root = write_scene(tmp_path, 256, mask=False)
    shapes = [square(corner, corner, 100) for corner in (10, 120)]
    frame = geopandas.GeoDataFrame({"one": [1, 2], "two": [3, 3]}, geometry=shapes, crs=UTM)

    def refused(message: str, **options: object) -> None:
        with pytest.raises(ValueError, match=message):
            load(root, block=1, **options)

    (root / "p.gpkg").write_text("{}")
    refused(r"p\.gpkg cannot be read")
    frame.set_geometry(frame.centroid).to_file(root / "p.gpkg")
    refused("no polygon with a class", label_field="one")
    frame.to_file(root / "p.gpkg")
    refused(r"label_field=, from one \(2 values\), two \(1 values\)")
    assert load(root, block=1, label_field="one").classes == ("1", "2")
    edit(root / "s.tif", crs=None)
    refused("nobody knows where the polygons lie", label_field="one")
    (root / "p.gpkg").unlink()
    frame.set_crs(None, allow_override=True).to_file(root / "p.shp")
    edit(root / "s.tif", crs=UTM)
    refused("no coordinate reference system. Set it, or add its .prj", label_field="one")


# What is refused, and why.


CHIP, MASK = "images/chip3.tif", "masks/chip3.tif"
HERE = (560_000.0, 5_000_000.0)  # where the fourth chip lies
TURNED = from_origin(*HERE, 10, 10) @ rasterio.Affine.rotation(20)


def spoil(pattern: str, **changes: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for path in sorted(root.glob(pattern)):
            edit(path, **changes)

    return change


def without(pattern: str) -> Callable[[Path], object]:
    return lambda root: [path.unlink() for path in root.glob(pattern)]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (spoil(CHIP, transform=from_origin(*HERE, 20, 20)), {},
         r"chip0\.tif has pixels of 10 m and .*chip3\.tif of 20 m.*gdalwarp"),
        (spoil(CHIP, change=lambda x: x.astype(np.float32) / 1e4), {},
         r"no surface has[\s\S]*chip3\.tif[\s\S]*scale=\{'chip3\.tif': 1, '\*': 10000\}"),
        (spoil(CHIP, transform=TURNED), {}, r"chip3\.tif has a grid that is turned"),
        (spoil(CHIP, change=lambda x: x[[0, 1, 2, 3, 3]], names=(*RGB_NIR, "B11")), {},
         "Sentinel-2 would be BLUE, GREEN, RED, NIR_NARROW, SWIR_1"),
        (spoil("images/*", names=(None,) * 4), {},
         r"4 different names are needed[\s\S]*band_names=\['BLUE'"),
        (lambda root: (root / CHIP).write_bytes(b"II*\0 and no more"), {},
         r"chip3\.tif cannot be read"),
        (lambda root: (root / "images/chip3.tiff").write_bytes((root / CHIP).read_bytes()), {},
         r"chip3\.tif and .*chip3\.tiff have the same name"),
        (spoil(MASK, transform=from_origin(0, 0, 10, 10)), {},
         r"masks/chip3\.tif .* does not cover any of .*images/chip3\.tif"),
        (lambda root: write(root / MASK, two_classes(20, 20), crs=None), {},
         r"\(20, 20\) pixels.*without coordinates in both"),
        (spoil(MASK, change=lambda x: np.float32(0.5) + 0 * x), {},
         r"different numbers \(0, 0\.5, 1\)"),
        (spoil("masks/*", change=np.ones_like), {}, "fewer than two classes: class 1"),
        (spoil("masks/*", change=np.zeros_like, nodata=0), {}, "No chip has a label.*no-data"),
        (spoil("none"), {"classes": ["a"]}, r"has values 1, which the class list lacks \(0\)"),
        (spoil("none"), {"classes": ["a", "a"]}, "a name twice"),
        (spoil("none"), {"classes": "ab"}, "classes takes lists of texts"),
        (spoil("none"), {"band_names": ["RED"]}, "4 different names are needed"),
        (spoil("none"), {"bands": ["SWIR_1"]}, "band of these data 'SWIR_1'.* Known: BLUE"),
        (spoil("none"), {"scale": 0}, "scale takes numbers"),
        (lambda root: (root / "north").mkdir(), {"holdout_regions": ["north"]},
         "Region 'north' has no image with a label"),
        (spoil("none"), {"holdout_regions": ["all"]}, r"\['all'\] as none are given, holdout"),
        (spoil("none"), {"background": "land"}, "are for polygons, and these have none"),
        (spoil("none"), {"colour": "red"}, "Unknown option of folder 'colour'.*label_field"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, change: Callable[[Path], object], options: dict[str, Any], message: str
) -> None:
    change(write_pairs(tmp_path))
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **options)


def test_pixels_in_degrees_are_told_in_metres(tmp_path: Path) -> None:
    degrees = {"crs": "EPSG:4326", "origin": (10.0, 60.0), "step": 0.0001, "apart": 1.0}
    data = load(write_pairs(tmp_path, 4, **degrees))
    # 11.13 m from south to north, 5.57 m from west to east: as large as 7.87 m squared.
    assert data.card.resolution == pytest.approx(7.87, abs=0.01)
    assert noted(data, "EPSG:4326 of 7.87")


def test_a_damaged_chip_is_named(tmp_path: Path) -> None:
    root = write_pairs(tmp_path, 8, names=())
    path = root / "images" / "chip3.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3000])  # the header is whole, the last rows are gone
    with pytest.raises(ValueError, match=r"'chip3' cannot .*images/chip3\.tif.* IReadBlock"):
        chips_of(load(root, band_names=RGB_NIR))
    path.write_bytes(whole)
    path = root / "masks" / "chip6.tif"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"Chip 'chip6' cannot be read"):
        chips_of(load(root, band_names=RGB_NIR))
    (root / "masks" / "chip5.tif").write_bytes(b"no header")
    with pytest.raises(ValueError, match=r"masks/chip5\.tif cannot be read"):
        load(root, band_names=RGB_NIR)


def test_polygons_without_geopandas_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (write_scene(tmp_path, 256, mask=False) / "p.geojson").write_text("{}")
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(ImportError, match="geopandas"):
        load(tmp_path)


def test_folder_is_listed_and_says_what_it_wants() -> None:
    assert "folder" in gp.list_datasets().index
    with pytest.raises(ValueError, match="root='…'"):
        gp.load_data("folder")
    with pytest.raises(FileNotFoundError, match="not there"):
        load(Path("nowhere"))
    with pytest.raises(ValueError, match="root cannot be '~nobody_at_all/x'"):
        load(Path("~nobody_at_all/x"))
