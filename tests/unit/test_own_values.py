"""The numbers of somebody's own files: right by what is stated, or asked for by a call that works.

Each kind of input is written here from a known reflectance, loaded without a word, and, where that
is refused, with the call that the error offers. A kind passes if every pixel is right then.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

import geopeft_nb as gp
from geopeft_nb.datasets.own.acquisitions import open_source
from geopeft_nb.datasets.own.ask import Ask

NAMES = ("BLUE", "GREEN", "RED", "NIR_NARROW")
SIDE, COUNT = 32, 6
Pixels = np.ndarray


def truth(number: int) -> tuple[Pixels, Pixels]:
    """Reflectance (4, 32, 32), dark in the infrared over water, and where water is (32, 32)."""
    noise = np.random.default_rng(number)
    water = np.arange(SIDE) < noise.integers(10, 22)
    spectra = np.where(water, [[0.06], [0.06], [0.04], [0.02]], [[0.05], [0.08], [0.09], [0.30]])
    image = spectra[:, None] * (1 + 0.1 * noise.standard_normal((4, SIDE, SIDE)))
    return np.clip(image, 0.001, 1), np.broadcast_to(water, (SIDE, SIDE)).astype(np.uint8)


def write(
    path: Path, pixels: Pixels, number: int, names: Sequence[str] = (), valid: Pixels | None = None,
    rules: Sequence[tuple[float, float]] = (), tags: dict[str, str] | None = None,
    alpha: bool = False, colours: dict[int, Any] | None = None, **options: Any,
) -> None:  # fmt: skip
    """Write a raster at a place of its own for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    place = from_origin(500_000 + number * 5_000, 4_200_000, 10, 10)
    profile = {"driver": "GTiff", "crs": "EPSG:32618", "transform": place} | options
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        path, "w", count=len(pixels), height=SIDE, width=SIDE, dtype=pixels.dtype, **profile
    ) as file:  # fmt: skip
        if alpha:
            file.colorinterp = [*[ColorInterp.undefined] * (len(pixels) - 1), ColorInterp.alpha]
        file.write(pixels)
        file.update_tags(**(tags or {}))
        if colours:
            file.write_colormap(1, colours)
        if names:
            file.descriptions = tuple(names)
        if rules:
            file.scales, file.offsets = zip(*rules, strict=True)
        if valid is not None:
            file.write_mask(valid)


def numbers(reflectance: Pixels, scale: float = 10_000, offset: float = 0) -> Pixels:
    return (reflectance * scale - offset).round()


GONE = np.zeros((SIDE, SIDE), bool)
GONE[:5] = True
TAGGED = {"rules": [(1e-4, 0.0)] * 4}


def stored(
    dtype: str = "uint16", scale: float = 10_000, offset: float = 0, fill: float | None = None,
    fill_bands: Sequence[int] = (0, 1, 2, 3), image: str = "images/c{}.tif",
    mask: str = "masks/c{}.tif", regions: Sequence[str] = ("",), offsets: Sequence[float] = (),
    names: Sequence[str] = NAMES, band_files: Sequence[str] = (), **options: Any,
) -> Callable[[Path], None]:  # fmt: skip
    """Say how images are stored; `fill` stands in the first five rows."""

    def make(root: Path) -> None:
        for number in range(COUNT * len(regions)):
            region = number // COUNT
            reflectance, label = truth(number)
            shift = offsets[region] if offsets else offset
            pixels = numbers(reflectance, scale, shift) if "int" in dtype else (
                reflectance * scale - shift
            )  # fmt: skip
            if fill is not None:
                for band in fill_bands:
                    pixels[band][GONE] = fill
            where, pixels = root / regions[region], pixels.astype(dtype)
            if band_files:
                for band, part in zip(band_files, pixels, strict=True):
                    write(where / image.format(number, band), part, number, **options)
            else:
                write(where / image.format(number), pixels, number, names, **options)
            write(where / mask.format(number), label, number)

    return make


def then(make: Callable[[Path], None], change: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(root: Path) -> None:
        make(root)
        change(root)

    return both


def each(pattern: str, change: Callable[[Path, Pixels, dict[str, Any]], None]) -> Any:
    """Write each raster that fits a pattern again."""

    def all_of_them(root: Path) -> None:
        for path in sorted(root.glob(pattern)):
            with rasterio.open(path) as file:
                pixels, profile = file.read(), {"crs": file.crs, "transform": file.transform}
                names = file.descriptions
            change(path, pixels, profile | {"names": names})

    return all_of_them


def with_alpha(path: Path, pixels: Pixels, where: dict[str, Any]) -> None:
    alpha = np.where(GONE, 0, 65_535).astype(np.uint16)[None]
    names = [*where.pop("names"), "ALPHA"]
    rules = [(1e-4, 0.0)] * 4 + [(1.0, 0.0)]
    write(path, np.concatenate([pixels, alpha]), 0, names, rules=rules, alpha=True, **where)


def with_msk(path: Path, pixels: Pixels, where: dict[str, Any]) -> None:
    beside = np.where(GONE, 0, 255).astype(np.uint8)
    del where["names"]
    write(path.with_name(path.name + ".msk"), beside, 0, **where)


def as_jpeg(path: Path, pixels: Pixels, where: dict[str, Any]) -> None:
    path.unlink()
    exif = Image.Exif()
    exif[274] = 6 if path.parent.name == "images" else 1
    Image.fromarray(pixels[0].astype("uint8")).save(path.with_suffix(".jpg"), exif=exif)


def extra_bands(path: Path, pixels: Pixels, where: dict[str, Any]) -> None:
    names = [where["names"][0], "NDVI", *where["names"][1:], "QA_PIXEL"]
    more = [pixels[:1], pixels[:1] * 0, pixels[1:], pixels[:1] * 0 + 21_824]
    write(path, np.concatenate(more), 0, **where | {"names": names})


def two_fills(path: Path, pixels: Pixels, where: dict[str, Any]) -> None:
    pixels[:, :2], pixels[:, 2:5] = 0, -9999
    write(path, pixels, 0, rules=[(1e-4, 0.0)] * 4, **where)


S2 = "images/S2A_MSIL2A_20220601T100559_{}_R022_T33UUU_20220601T1{{:05d}}.tif"
L1 = "images/{}_L1TP_014032_2021060{{{{}}}}.tif"
BROWSER = "2023-06-01-00:00_2023-06-01-23:59_Sentinel-2_L2A_{}_(Raw).tiff"
HLS = "images/HLS.{}.T18SUH.20211{{:02d}}T100000.v2.0.tif"


def named(name: str, kind: str, infrared: str, **options: Any) -> Callable[[Path], None]:
    """Say how a product is stored that is known by its name."""
    image, mask = name.format(kind), "masks" + name[6:].format(kind)
    return stored(image=image, mask=mask, names=("B02", "B03", "B04", infrared), **options)


S2_TAGS = {"PRODUCT_TYPE": "S2MSI2A", "PROCESSING_BASELINE": "05.09"}
#: Kind -> how it is stored; what the error asks for, or nothing where it is right without a word;
#: and whether the first five rows have no data.
KINDS: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    # numbers
    "uint16": (stored(), "scale=10000", False),
    "float32 0-1": (stored("float32", 1), "", False),
    "per cent": (stored("float32", 100), "scale=100,", False),
    "floats of 10,000": (stored("float32"), "scale=10000", False),
    "numbers of Landsat": (stored("uint16", 1 / 2.75e-5, -0.2 / 2.75e-5), "scale=36363", False),
    "1,000 too high": (stored(offset=-1_000), "offset=-1000", False),
    "floats 0.1 too high": (stored("float32", 1, -0.1), "offset=-0.1", False),
    "tags": (stored(**TAGGED), "", False),
    "tags with an offset": (stored(offset=-1_000, rules=[(1e-4, -0.1)] * 4), "", False),
    "tags of 8 bits": (stored("uint8", 400, rules=[(1 / 400, 0.0)] * 4), "", False),
    "two baselines": (stored(regions=("new", "old"), offsets=(-1_000, 0)), "'new': -1000", False),
    # no data
    "zeros": (stored(fill=0, **TAGGED), "nodata=0", True),
    "zeros and no scale": (stored(fill=0), "nodata=0", True),
    "-9999": (stored("int16", fill=-9999, **TAGGED), "nodata=-9999", True),
    "-9999 in one band": (stored("int16", fill=-9999, fill_bands=[2], **TAGGED), "-9999", True),
    "65535": (stored(fill=65_535, **TAGGED), "nodata=65535", True),
    "1e20": (stored("float32", 1, fill=1e20), "nodata=1", True),
    "30000 in one band": (stored(fill=30_000, fill_bands=[1], **TAGGED), "nodata=30000", True),
    "NaN": (stored("float32", 1, fill=np.nan), "", True),
    "NaN in one band": (stored("float32", 1, fill=np.nan, fill_bands=[1]), "", True),
    "-1 in one band": (stored("float32", 1, fill=-1, fill_bands=[1]), "nodata=-1", True),
    "a tag of 0": (stored(fill=0, nodata=0, **TAGGED), "", True),
    "a tag in one band": (
        stored("int16", fill=-9999, fill_bands=[3], nodata=-9999, **TAGGED), "", True,
    ),
    "two fills": (
        then(stored("int16"), each("images/*", two_fills)), "nodata=[-9999.0, 0.0]", True,
    ),
    "a mask inside": (stored(fill=7, valid=~GONE, **TAGGED), "", True),
    "a mask beside": (then(stored(fill=7, **TAGGED), each("images/*", with_msk)), "", True),
    "alpha": (then(stored(fill=7), each("images/*", with_alpha)), "", True),
    "0 in the file of one band": (
        stored(image="c{}_{}.tif", mask="c{}_mask.tif", band_files=("B02", "B03", "B04", "B8A"),
               rules=[(1e-4, 0.0)], fill=0, fill_bands=[2]), "nodata=0", True,
    ),
    # products
    "Sentinel-2 N0400": (named(S2, "N0400", "B8A", offset=-1_000), "", False),
    "Sentinel-2 N0400, its scale alone": (
        named(S2, "N0400", "B8A", offset=-1_000, **TAGGED), "offset=-1000", False,
    ),
    "Sentinel-2 N0301": (named(S2, "N0301", "B8A"), "", False),
    "Sentinel-2 tags": (stored(offset=-1_000, tags=S2_TAGS, names=("B2", "B3", "B4", "B8A")),
                        "", False),
    "HLS L30": (named(HLS, "L30", "B05", dtype="int16", fill=-9999), "", True),
    "HLS S30": (named(HLS, "S30", "B8A", dtype="int16", fill=-9999), "", True),
    "Sentinel-2 granules": (stored(offset=-1_000, image="T3{}UUU_20220601T101559_{}_10m.tif",
                                   mask="T3{}UUU_20220601T101559_label.tif",
                                   band_files=("B02", "B03", "B04", "B8A")), "", False),
    "Landsat 8": (stored(scale=1 / 2.75e-5, offset=-0.2 / 2.75e-5,
                         image="LC08_L2SP_01403{}_20210601_20210610_02_T1_SR_{}.TIF",
                         mask="LC08_L2SP_01403{}_20210601_20210610_02_T1_label.TIF",
                         band_files=("B2", "B3", "B4", "B5")), "", False),
    "Landsat 5": (stored(scale=1 / 2.75e-5, offset=-0.2 / 2.75e-5,
                         image="LT05_L2SP_01403{}_20210601_20210610_02_T1_SR_{}.TIF",
                         mask="LT05_L2SP_01403{}_20210601_20210610_02_T1_label.TIF",
                         band_files=("B1", "B2", "B3", "B4")), "", False),
    "Planet": (stored(image="images/20210601_10000{}_1047_3B_AnalyticMS_SR.tif",
                      mask="masks/20210601_10000{}_1047_3B_AnalyticMS_SR.tif",
                      names=()), "", False),
    "Copernicus Browser": (stored(image=f"s{{}}/{BROWSER}", mask="s{}/mask.tif", rules=[(1e-4, 0)],
                                  band_files=("B02", "B03", "B04", "B08")), "", False),
    # bands
    "numbers of no sensor": (stored(names=("B2", "B3", "B4", "B5"), **TAGGED), "Landsat 8", False),
    "numbers with B8": (stored(names=("B2", "B3", "B4", "B8"), **TAGGED), "Sentinel-2 w", False),
    "numbers with B8A": (stored(names=("B2", "B3", "B4", "B8A"), **TAGGED), "", False),
    "no names": (stored(names=(), **TAGGED), "band_names=['BLUE'", False),
    "described": (stored(names=("B2 (Blue)", "Band 2: Green", "Red band", "NIR"), **TAGGED), "", 0),
    "other spellings": (stored(names=("blue", "Green", "red", "nir08"), **TAGGED), "", False),
    "other bands": (then(stored(), each("images/*", extra_bands)), "scale=10000", False),
    "a file a band": (stored(image="c{}_{}.tif", mask="c{}_mask.tif",
                             band_files=("B02", "B03", "B04", "B8A"), rules=[(1e-4, 0.0)]),
                      "", False),
}  # fmt: skip


def load(root: Path, **options: Any) -> tuple[Any, str]:
    """Load a folder, by the call of the error where there is one; and return that error."""
    try:
        return gp.load_data("folder", root=root, **options), ""
    except gp.GeopeftError as error:
        call = str(error).splitlines()[-1]
        assert call.startswith("gp.load_data("), error
        return eval(call, {"gp": gp}), str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_right_or_asks_with_a_call_that_works(tmp_path: Path, kind: str) -> None:
    make, asks, gone = KINDS[kind]
    make(tmp_path)
    data, asked = load(tmp_path)
    assert (asks in asked) if asks else not asked, asked
    names = [name if name in data.bands else "NIR_BROAD" for name in NAMES]  # of Landsat 5
    assert {*data.bands} == {*names}
    assert data.card.reflectance
    samples = [sample for part in data.parts.values() for sample in part]
    assert len(samples) >= COUNT - 1
    there = ~GONE if gone else np.ones((SIDE, SIDE), bool)
    order = [data.bands.index(name) for name in names]
    for sample in samples:
        image, label = truth(round((sample["bounds"][0] - 500_000) / 5_000))
        mask = sample["mask"].numpy()
        assert np.array_equal(mask, np.where(there, label.astype(int), -1))
        # numbers are rounded to 1e-4 of reflectance at most, of 8 bits to a four-hundredth
        near = 2e-3 if "8 bits" in kind else 1e-4
        assert np.abs(sample["image"].numpy()[order] - image)[:, there].max() < near
        assert sample["image"].isfinite().all()


#: What somebody says wrongly, or what no rule is known for -> what the error says.
WRONG: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "10,000 for Landsat": (stored("uint16", 1 / 2.75e-5, -0.2 / 2.75e-5),
                           {"scale": 10_000, "offset": 0}, "scale=36363"),
    "100 for 10,000": (stored(), {"scale": 100, "offset": 0}, "scale=10000"),
    "10,000 for floats 0-1": (stored("float32", 1), {"scale": 10_000}, "scale=1"),
    "10,000 for 8 bits in floats": (stored("float32", 255), {"scale": 10_000}, "scale="),
    "10,000 for 8 bits in 16": (stored("uint16", 400), {"scale": 10_000}, "no ground"),
    "an offset too much": (stored(), {"scale": 10_000, "offset": -1_000}, "offset=0"),
    "an offset for all": (stored(regions=("a", "b"), offsets=(-1_000, 0)),
                          {"scale": 10_000, "offset": -1_000}, "'b': 0"),
    "no offset": (stored(offset=-700), {"scale": 10_000}, "offset=-1000"),
    "an offset of reflectance": (stored(), {"scale": 10_000, "offset": -0.1}, "say -1000"),
    "tags that are wrong": (stored(rules=[(1e-2, 0.0)] * 4), {}, "no surface"),
    "tags that are wrong, beside floats": (then(
        stored(rules=[(5e-6, 0.0)] * 4, regions=("tags", "floats")),
        each("floats/images/*", lambda path, pixels, where: write(
            path, (pixels / 10_000).astype("float32"), 0, **where))), {}, "so dark"),
    "a region that there is not": (stored(), {"scale": {"north": 10_000}}, "no region"),
    "harmonised, named as not": (named(S2, "N0400", "B8A"), {}, "no surface"),
    "Landsat 8 level 1": (named(L1.format("LC08"), "", "B5"), {}, "the sun's elevation"),
    "Landsat 5 level 1": (named(L1.format("LT05"), "", "B5"), {}, "MTL file. Take level 2"),
    "radiance": (stored(image="images/20210601_10000{}_1047_3B_AnalyticMS.tif", names=(),
                        mask="masks/20210601_10000{}_1047_3B_AnalyticMS.tif"),
                 {"band_names": list(NAMES)}, "AnalyticMS_SR"),
    "a turned picture": (then(stored(**TAGGED), each("images/*", as_jpeg)), {}, "its EXIF turns"),
    "masks of JPEG": (then(stored(**TAGGED), each("masks/*", as_jpeg)), {}, "JPEG. Write one, as"),
    "frames that do not divide": (stored(**TAGGED), {"frames": 3}, "not of 3 dates"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_no_surface_has_is_refused_whoever_said_so(tmp_path: Path, kind: str) -> None:
    make, options, words = WRONG[kind]
    make(tmp_path)
    with pytest.raises(gp.GeopeftError, match=re.escape(words)):
        gp.load_data("folder", root=tmp_path, **options)


def test_rules_against_tags_are_told(tmp_path: Path) -> None:
    stored(**TAGGED)(tmp_path)
    told = gp.load_data("folder", root=tmp_path, scale=10_000, offset=100)
    assert any("as asked, against what the file states" in note for note in told.notes)


def test_files_of_one_name_in_two_folders_have_each_their_own_scale(tmp_path: Path) -> None:
    for number in range(2 * COUNT):
        where, scale = tmp_path / ("a", "b")[number % 2], (10_000, 100)[number % 4 // 2]
        image = numbers(truth(number)[0], scale).astype(np.float32)
        write(where / f"images/c{number // 4}{number // 2 % 2}.tif", image, number, NAMES)
        write(where / f"masks/c{number // 4}{number // 2 % 2}.tif", truth(number)[1], number)
    data, asked = load(tmp_path)
    assert "'b/images/c01.tif': 100" in asked and "'*': 10000}" in asked
    for part in data.parts.values():
        for sample in part:
            image = truth(round((sample["bounds"][0] - 500_000) / 5_000))[0]
            assert np.abs(sample["image"].numpy() - image).max() < 6e-3  # per cent, rounded


def test_no_data_of_one_region_is_asked_for_by_a_call_that_works(tmp_path: Path) -> None:
    stored("int16", fill=-9999, regions=("a", "b"), **TAGGED)(tmp_path)
    data, asked = load(tmp_path, nodata={"a": -1})
    assert "nodata={'a': [-9999.0, -1], 'b': [-9999.0]}" in asked
    assert all((sample["mask"][:5] == -1).all() for sample in data.train)


def test_numbers_that_are_data_are_kept_if_somebody_says_so(tmp_path: Path) -> None:
    stored(fill=0, **TAGGED)(tmp_path)
    data = gp.load_data("folder", root=tmp_path, nodata=float("nan"))
    assert (data.train[0]["mask"] >= 0).all() and data.train[0]["image"][:, :5].max() == 0


def test_bands_without_a_wavelength_are_carried_when_they_are_chosen(tmp_path: Path) -> None:
    then(stored(), each("images/*", extra_bands))(tmp_path)
    data = gp.load_data("folder", root=tmp_path, scale=10_000, offset=0, bands=["QA_PIXEL", "RED"])
    assert data.bands == ("QA_PIXEL", "RED") and not data.card.reflectance
    image = data.train[0]["image"]
    assert (image[0] == 21_824).all() and 0 < image[1].max() < 1


def test_eight_bit_pictures_are_no_reflectance(tmp_path: Path) -> None:
    stored("uint8", 255)(tmp_path)
    data, asked = load(tmp_path)
    assert "scale=255" in asked and not data.card.reflectance


@pytest.mark.parametrize("order", ["time-band", "band-time"])
def test_three_dates_in_a_file_ask_for_frames_and_their_order(tmp_path: Path, order: str) -> None:
    for number in range(COUNT):
        image = np.concatenate([truth(number)[0], truth(number)[0][2:]])
        dates = np.stack([numbers(image * f) for f in (0.9, 1.0, 1.1)])  # (T, C, H, W)
        stacked = dates if order == "time-band" else dates.swapaxes(0, 1)
        pixels = stacked.reshape(18, SIDE, SIDE).astype(np.uint16)
        write(tmp_path / f"images/c{number}.tif", pixels, number)
        write(tmp_path / f"masks/c{number}.tif", truth(number)[1], number)
    data, asked = load(tmp_path)
    assert "frames=3" in asked and f"order='{order}'" in asked
    assert data.frames == 3 and data.train[0]["image"].shape == (6, 3, SIDE, SIDE)
    means = data.train[0]["image"].mean(dim=(2, 3))
    assert np.allclose(means[:, 0] / means[:, 1], 0.9, atol=0.01)  # rounded to 1e-4 of 0.02
    assert np.allclose(means[:, 2] / means[:, 1], 1.1, atol=0.01)


def relabelled(change: Callable[[Pixels], Pixels], **options: Any) -> Callable[[Path], None]:
    """Change the masks of well-stated images."""

    def again(path: Path, pixels: Pixels, where: dict[str, Any]) -> None:
        del where["names"]
        write(path, change(pixels[0]), 0, **where | options)

    return then(stored(**TAGGED), each("masks/*", again))


ROWS = np.arange(SIDE)[:, None]
MASKS: dict[str, tuple[Callable[[Path], None], dict[str, Any], str, str, tuple[str, ...]]] = {
    "0 and 255": (relabelled(lambda x: x * 255), {}, "", "segmentation", ("class 0", "class 255")),
    "255 beside 1": (relabelled(lambda x: np.where(ROWS < 5, 255, x).astype("uint8")), {},
                     "unlabelled=255", "segmentation", ("class 0", "class 1")),
    "65535 beside 1": (relabelled(lambda x: np.where(ROWS < 5, 65_535, x.astype("uint16"))),
                       {}, "unlabelled=65535", "segmentation", ("class 0", "class 1")),
    "a tag of 0 that is named": (relabelled(lambda x: x, nodata=0), {"classes": ["land", "water"]},
                                 "unlabelled=[]", "segmentation", ("land", "water")),
    "-1 that is named": (relabelled(lambda x: x.astype("int16") - 1),
                         {"classes": {-1: "land", 0: "water"}}, "unlabelled=[]", "segmentation",
                         ("land", "water")),
    "1 that is named": (relabelled(lambda x: x + 1), {"classes": ["land", "water"]},
                        "classes={1: 'land'", "segmentation", ("land", "water")),
    "soft edges": (relabelled(lambda x: np.where(ROWS == 9, 128, x * 255).astype("uint8")), {},
                   "unlabelled=128", "segmentation", ("class 0", "class 255")),
    "255 named": (relabelled(lambda x: np.where(ROWS < 5, 255, x).astype("uint8")),
                  {"classes": {0: "land", 1: "water", 255: "cloud"}}, "", "segmentation",
                  ("land", "water", "cloud")),
    "merged": (relabelled(lambda x: np.where(x, 111, 1 + 4 * (ROWS % 2)).astype("uint8")),
               {"classes": {1: "crop", 5: "crop", 111: "water"}}, "", "segmentation",
               ("crop", "water")),
    "a tag of 0": (relabelled(lambda x: np.where(ROWS < 9, 0, x + 1).astype("uint8"), nodata=0),
                   {}, "", "segmentation", ("class 1", "class 2")),
    "a palette": (relabelled(lambda x: x, colours={0: (1, 2, 3), 1: (4, 5, 6)}), {}, "",
                  "segmentation", ("class 0", "class 1")),
    "heights": (relabelled(lambda x: (ROWS // 2 + 8 * x + 1).astype("uint8")), {}, "regression'",
                "regression", ("value",)),
    "floats": (relabelled(lambda x: (ROWS / 7 + x).astype("float32")), {}, "task='regression'",
               "regression", ("value",)),
    "heights with -1": (relabelled(lambda x: np.where(ROWS < 5, -1, ROWS / 7).astype("f4") + 0 * x),
                        {}, "unlabelled=-1", "regression", ("value",)),
    "heights with a fill": (relabelled(lambda x: np.where(ROWS < 5, -9999, ROWS / 7).astype("f4")
                                       + 0 * x), {}, "unlabelled=", "regression", ("value",)),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKS)
def test_masks_become_the_task_that_they_are_for(tmp_path: Path, kind: str) -> None:
    make, options, asks, task, classes = MASKS[kind]
    make(tmp_path)
    data, asked = load(tmp_path, **options)
    assert (asks in asked) if asks else not asked, asked
    assert (data.task, data.classes) == (task, classes)
    target = data.train[0]["mask"]
    with rasterio.open(tmp_path / "masks" / f"{data.train[0]['name']}.tif") as file:
        stored_mask = file.read(1)
    if task == "regression":
        known = target[0].isfinite().numpy()
        assert np.array_equal(known, stored_mask >= 0)
        assert np.allclose(target[0].numpy()[known], stored_mask[known])
    elif not options and kind != "a tag of 0":
        codes = {0: 0, 1: 1, 255: -1 if "beside" in kind else 1, 65_535: -1, 128: -1}
        assert np.array_equal(target.numpy(), np.vectorize(codes.get)(stored_mask))
    elif kind.endswith("that is named"):
        assert np.array_equal(target.numpy(), stored_mask - stored_mask.min())
    else:
        assert {*target.unique().tolist()} - {-1} == {*range(len(classes))}
        assert ((target == -1).numpy() == (stored_mask == 0)).all() or "tag" not in kind


@pytest.mark.parametrize(("task", "labels", "classes"), [
    ("classification", ["None", "NA", "None", "NA", "None", "NA"], ("NA", "None")),
    ("classification", ["01", "1", "01", "1", "01", "1"], ("01", "1")),
    ("multilabel", ["crop;water", "water", "crop", "water", "crop", "water"], ("crop", "water")),
])  # fmt: skip
def test_a_table_of_labels_becomes_one_or_several_for_an_image(
    tmp_path: Path, task: str, labels: list[str], classes: tuple[str, ...]
) -> None:
    stored(**TAGGED)(tmp_path)
    rows = [f"images/c{number}.tif,{label}" for number, label in enumerate(labels)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *rows]))
    data, asked = load(tmp_path, table="labels.csv")
    assert (asked == "") == (task == "classification") and data.task == task
    assert data.classes == classes
    for sample in data.train:
        label = labels[int(sample["name"][-1])]
        if task == "classification":
            assert classes[int(sample["label"])] == label
        else:
            assert [classes[n] for n in sample["label"].nonzero().flatten()] == label.split(";")


def test_a_coarser_band_is_interpolated_onto_the_finest_but_not_over_gaps(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5  # centres in pixels of the finer band
    slope = 500 + 10 * rows + 20 * columns
    write(tmp_path / "s_B02.tif", slope.astype("float32"), 0)
    coarse = 300 + 2 * slope.reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3))
    coarse[:3] = -9999
    where = {"crs": "EPSG:32618", "transform": from_origin(500_000, 4_200_000, 20, 20)}
    with rasterio.open(
        tmp_path / "s_B11.tif", "w", count=1, height=16, width=16, dtype="float32", nodata=-9999,
        **where,
    ) as file:  # fmt: skip
        file.write(coarse.astype("float32"), 1)
    said = {"band_names": {"*_B02.tif": ["BLUE"], "*_B11.tif": ["SWIR_1"]}, "scale": 10_000}
    source = open_source([*sorted(tmp_path.glob("*.tif"))], **said, offset=0)
    assert source.grid.shape == (SIDE, SIDE)
    image, there = source.read(rasterio.windows.Window(0, 0, SIDE, SIDE), ["BLUE", "SWIR_1"])
    assert not there[:6].any() and there[6:].all()
    inside = np.s_[7:-1, 1:-1]  # at the rim there is nothing to interpolate with
    assert np.abs(image[1] * 10_000 - 2 * slope - 300)[inside].max() < 0.01
    assert np.abs(image[0] * 10_000 - slope).max() < 0.01
    said["band_names"]["*_B11.tif"] = ["SCL"]  # codes, between which there is nothing
    source = open_source([*sorted(tmp_path.glob("*.tif"))], **said, offset=0)
    codes, there = source.read(rasterio.windows.Window(0, 0, SIDE, SIDE), ["SCL"])
    assert {*codes[0][there]} <= {*coarse.astype("f4").flat}


def test_a_source_is_read_in_windows_by_its_own_rule(tmp_path: Path) -> None:
    stored(fill=0, nodata=0, **TAGGED)(tmp_path)
    path = tmp_path / "images/c0.tif"
    source = open_source([path])
    assert source.bands == NAMES and source.grid.shape == (SIDE, SIDE)
    assert source.grid.crs == "EPSG:32618"
    window = rasterio.windows.Window(3, 2, 8, 6)
    image, there = source.read(window, ["NIR_NARROW", "RED"])
    assert image.shape == (2, 6, 8) and image.dtype == np.float32
    assert np.abs(image[:, there] - truth(0)[0][[3, 2], 2:8, 3:11][:, there]).max() < 1e-4
    assert np.array_equal(there, ~GONE[2:8, 3:11])
    with rasterio.open(path) as file:
        whole = source.read(rasterio.windows.Window(0, 0, SIDE, SIDE), NAMES)[1]
        assert np.array_equal(whole, file.dataset_mask() > 0)
    write(path, truth(0)[0].astype(np.float32), 0, NAMES[::-1])
    with pytest.raises(gp.GeopeftError, match=r"c0\.tif .*has changed since"):
        source.read(window, ["RED"])


def test_patterns_fit_names_and_not_folders_above(tmp_path: Path) -> None:
    for key in ("new*.tif", ""):
        with pytest.raises(gp.GeopeftError, match="fits no file"):
            Ask("", {"scale": {key: 1}}, {tmp_path / "new_data/old.tif": "all"})


def dealt(
    root: Path, image: Callable[[Pixels, int], Pixels], names: Sequence[str],
    mask: Callable[[Pixels, int], Pixels] = lambda label, number: label, **header: Any,
) -> None:  # fmt: skip
    """Write images and masks; `header` is that of every other mask."""
    for number in range(COUNT):
        reflectance, label = truth(number)
        write(root / f"images/c{number}.tif", image(reflectance, number), number, names)
        more = header if number % 2 else {}
        write(root / f"masks/c{number}.tif", mask(label, number), number, **more)


def metres(label: Pixels, number: int) -> Pixels:
    return np.where(label, 0, np.random.default_rng(number).integers(5, 26, label.shape))


def floats(reflectance: Pixels, number: int) -> Pixels:
    return reflectance.astype(np.float32)


def above_sea(reflectance: Pixels, number: int) -> Pixels:
    return np.concatenate([reflectance, np.where(GONE, -9999, 250)[None]]).astype(np.float32)


@pytest.mark.parametrize(("image", "mask", "header", "said", "asks"), [
    (floats, lambda x, n: np.where(GONE, 254 + ROWS % 2, metres(x, n)).astype("uint8"), {},
     {"task": "regression"}, r"do \[254\.0, 255\.0\] mean unlabelled"),
    (lambda x, n: np.where(GONE, -3000, 2e4 * x[3:] - 2200).astype("i2"), lambda x, n: x, {},
     {"band_names": ["NDVI"]}, "pixels have one number"),
    (floats, lambda x, n: np.where(GONE, 32767, metres(x, n)).astype("int16"), {},
     {"task": "regression"}, r"do \[32767\.0\] mean unlabelled"),
    (floats, lambda x, n: metres(x, n).astype("float32"), {}, {}, "classes, or heights"),
    (floats, lambda x, n: x + 1 - GONE, {"nodata": 0}, {}, r"do \[0\.0\] mean unlabelled"),
    (above_sea, lambda x, n: x, {}, {"bands": [*NAMES, "DEM"]}, "pixels have one number"),
    (lambda x, n: np.stack([x[0], -10 - x[1]]).astype("f4"), lambda x, n: x, {},
     {"band_names": ["VV", "VH"]}, "radar in decibels"),
])  # fmt: skip
def test_numbers_that_may_be_fill_heights_or_a_class_are_asked_about(
    tmp_path: Path, image: Any, mask: Any, header: dict[str, Any], said: Any, asks: str
) -> None:
    dealt(tmp_path, image, [*NAMES, "DEM"][: len(image(*truth(0)))], mask, **header)
    with pytest.raises(gp.GeopeftError, match=asks):
        gp.load_data("folder", root=tmp_path, **said)


def test_what_a_file_states_holds_for_bands_without_a_wavelength(tmp_path: Path) -> None:
    dealt(tmp_path, lambda x, n: 10 * x[:2].astype(np.float32) - 20, ("VV", "VH"))
    for number in range(0, COUNT, 2):
        image = (1_000 * truth(number)[0][:2] - 2_000).round().astype(np.int16)
        write(
            tmp_path / f"images/c{number}.tif", image, number, ("VV", "VH"), rules=[(0.01, 0)] * 2
        )
    data = gp.load_data("folder", root=tmp_path)
    assert all(-20 < s["image"].min() and s["image"].max() < -9 for s in data.train)


def test_near_infrared_of_bytes_that_was_named_is_no_mask(tmp_path: Path) -> None:
    dealt(tmp_path, lambda x, n: (x * 255).astype(np.uint8), (), lambda x, n: x)
    data = gp.load_data("folder", root=tmp_path, band_names=NAMES, scale=255, offset=0, nodata=[])
    assert data.bands == NAMES and not any((s["mask"] < 0).any() for s in data.train)
    alpha = 255 * (np.minimum(ROWS, 9) - 6).clip(0) / 3 + np.zeros(SIDE)  # with a soft edge
    dealt(tmp_path, lambda x, n: np.append(x[:3] * 255, alpha[None], 0).astype(np.uint8), ())
    with pytest.raises(gp.GeopeftError, match="3 different names are needed"):
        gp.load_data("folder", root=tmp_path)


def test_labels_of_ten_digits_stay_two_and_dates_are_not_sorted_as_texts(tmp_path: Path) -> None:
    dealt(tmp_path, floats, NAMES, lambda x, n: x.astype(np.uint32) + 1_234_567_890)
    data = gp.load_data("folder", root=tmp_path)
    assert data.classes == ("class 1234567890", "class 1234567891")
    rows = [f"images/c{n}.tif,masks/c0.tif,s,{n + 1}/01/2021" for n in range(2)]
    (tmp_path / "t.csv").write_text("\n".join(["image,mask,id,date", *rows]))
    with pytest.raises(gp.GeopeftError, match=r"date .1/01/2021.. Write days as 2021-06-01"):
        gp.load_data("folder", root=tmp_path, table="t.csv")
