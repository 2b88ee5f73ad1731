"""Which of somebody's own files belong together; no pixel is read, so the files here are empty."""

import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from geopeft_nb.datasets.own.layouts import Item, find_items


def made(root: Path, *names: str) -> Path:
    """Make files; images are larger than masks, as far as their names tell."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (10 if re.search("mask|label|gt|ann|cls|drawn", name) else 100))
    return root


def seen(items: Iterable[Item], root: Path) -> dict[str, tuple[str, str]]:
    """Name -> image and mask, relative to the root."""
    return {
        item.name: (
            item.images[0][0].relative_to(root).as_posix(),
            item.mask.relative_to(root).as_posix() if item.mask else "",
        )
        for item in items
    }


USUAL: list[tuple[str, str, str, str, str | None]] = [
    # image, mask, name, region, split
    ("images/c{}.tif", "masks/c{}.tif", "c{}", "all", None),
    ("img/c{}.jpg", "gt/c{}.png", "c{}", "all", None),
    ("images/c{}.JP2", "annotations/c{}.PNG", "c{}", "all", None),
    ("img_dir/train/{}.tif", "ann_dir/train/{}.png", "train/{}", "all", "train"),
    ("images/{}.tif", "ground_truth/{}.tif", "{}", "all", None),
    ("image_00{}.tif", "mask_00{}.tif", "00{}", "all", None),
    ("{}_sat.jpg", "{}_mask.png", "{}", "all", None),
    ("c{}_img.tif", "c{}_lbl.tif", "c{}", "all", None),
    ("c{}.tif", "c{}_label.tif", "c{}", "all", None),
    ("hls/HLS.S30.T10SDH.202024{}.v1.4_merged.tif", "hls/HLS.S30.T10SDH.202024{}.v1.4.mask.tif",
     "hls/HLS.S30.T10SDH.202024{}.v1.4", "hls", None),
    ("S2Hand/Ghana_{}_S2Hand.tif", "LabelHand/Ghana_{}_LabelHand.tif", "Ghana_{}", "all", None),
    ("validation/images/{}.tif", "validation/masks/{}.tif", "val/{}", "all", "val"),
    ("train_images/{}.tif", "train_labels/{}.tif", "train/{}", "all", "train"),
    ("kenya/images/{}.tif", "kenya/masks/{}.tif", "kenya/{}", "kenya", None),
    ("images/kenya/{}.tif", "labels/kenya/{}.tif", "kenya/{}", "kenya", None),
    ("kenya/{}.tif", "kenya/{}_gt.tif", "kenya/{}", "kenya", None),
    ("train/kenya/images/{}.tif", "train/kenya/masks/{}.tif", "train/kenya/{}", "kenya", "train"),
    ("images/kenya/k{}.tif", "labels/k{}.tif", "kenya/k{}", "kenya", None),
    ("site{}/image.tif", "site{}/mask.tif", "site{}", "all", None),
    ("Train/Rural/images_png/{}.png", "Train/Rural/masks_png/{}.png", "train/Rural/{}", "Rural",
     "train"),
    ("top_2_{}_RGB.tif", "top_2_{}_label.tif", "top_2_{}", "all", None),
    ("images/target_{}.tif", "masks/target_{}.tif", "target_{}", "all", None),
    ("images/HLS.L30.T18SUH.202100{}.v2.0.tif", "masks/HLS.L30.T18SUH.202100{}.v2.0.tif",
     "HLS.L30.T18SUH.202100{}.v2.0", "all", None),
    ("images/c{}_B02.tif", "masks/c{}_B02.tif", "c{}_B02", "all", None),
    ("train_set/images/{}.tif", "train_set/masks/{}.tif", "train/{}", "all", "train"),
    ("images/test_{}.tif", "masks/test_{}.tif", "test/{}", "all", "test"),
    ("images_val/{}.tif", "masks_val/{}.tif", "val/{}", "all", "val"),
    ("train/{}.tif", "train_masks/{}.tif", "train/{}", "all", "train"),
    ("images/tile_2048_10{}4.tif", "masks/tile_2048_10{}4.tif", "tile_2048_10{}4", "all", None),
]  # fmt: skip


@pytest.mark.parametrize(("image", "mask", "name", "region", "split"), USUAL)
def test_usual_layouts_need_no_pattern(
    tmp_path: Path, image: str, mask: str, name: str, region: str, split: str | None
) -> None:
    made(tmp_path, *(text.format(n) for text in (image, mask) for n in range(1, 4)))
    items, polygons, notes = find_items(tmp_path)
    wanted = {name.format(n): (image.format(n), mask.format(n)) for n in range(1, 4)}
    assert seen(items, tmp_path) == wanted and polygons is None and not notes
    assert {(item.region, item.split, item.label) for item in items} == {(region, split, None)}


@pytest.mark.parametrize(
    ("files", "bands", "day"),
    [
        (("s0_20210601_{}.tif",), ("B02", "B03", "B8A", "B11"), date(2021, 6, 1)),
        (("s0/{}.tif",), ("B2", "B3", "B10"), None),
        (("chip_20240199_{}.tif",), ("B02", "B03"), None),
        (("s0_2021-06-01_{}.tif",), ("BLUE", "GREEN", "NIR"), date(2021, 6, 1)),
        (("HLS.L30.T18SUH.2021152T153911.v2.0.{}.tif",), ("B02", "B05", "FMASK"),
         date(2021, 6, 1)),
        (("LC08_L2SP_033030_20210601_20210611_02_T1_{}.TIF",),
         ("QA_PIXEL", "SR_B4", "SR_B5", "ST_B10"), date(2021, 6, 1)),
        (("S2B_MSIL2A_20210601T101559_N0300_R065_T32UQD_20210601T130000.SAFE/GRANULE/"
          "L2A_T32UQD/IMG_DATA/R10m/T32UQD_20210601T101559_{}_10m.jp2",),
         ("B02", "B03", "B04"), date(2021, 6, 1)),
    ],
)  # fmt: skip
def test_one_file_a_band_is_stacked(
    tmp_path: Path, files: tuple[str, ...], bands: tuple[str, ...], day: date | None
) -> None:
    (name,) = files
    made(tmp_path, *(name.format(band) for band in bands[::-1]), "p.geojson")
    (item,), polygons, _ = find_items(tmp_path)
    assert item.bands == bands and item.dates == (day,) and polygons == tmp_path / "p.geojson"
    assert item.images == (tuple(tmp_path / name.format(band) for band in bands),)


def test_of_a_sentinel_product_the_finest_of_each_band_is_taken(tmp_path: Path) -> None:
    safe = "S2A_MSIL2A_20220101T000000_N0400_R001_T32UQD_20220101T000000.SAFE/GRANULE/L2A"
    data = f"{safe}/IMG_DATA/R{{0}}m/T32UQD_20220101T000000_{{1}}_{{0}}m.jp2"
    wanted = [data.format(10, "B02"), data.format(20, "B8A"), data.format(20, "SCL")]
    others = [data.format(20, "B02"), data.format(60, "B8A"), data.format(10, "TCI"),
              f"{safe}/QI_DATA/MSK_CLDPRB_20m.jp2", "T32UQD_20220101_mask.tif"]  # fmt: skip
    made(tmp_path, *wanted, *others)
    (item,), _, _ = find_items(tmp_path)
    for inside in (safe.partition("/")[0], f"{safe}/IMG_DATA"):
        made(tmp_path, f"{inside}/p.geojson", f"{inside}/T32UQD-ql.jpg")
        (same,), _, _ = find_items(tmp_path / inside)
        assert (same.images, same.region) == (item.images, "all")
    assert item.images == (tuple(tmp_path / name for name in wanted),)
    assert item.bands == ("B02", "B8A", "SCL") and item.mask == tmp_path / others[-1]


def test_dates_without_masks_of_their_own_become_frames(tmp_path: Path) -> None:
    days = ("20210901", "2021152", "20210701T101112")
    made(tmp_path, *(f"images/a_{day}.tif" for day in days), "masks/a.tif")
    (item,), _, _ = find_items(tmp_path)
    assert item.dates == (date(2021, 6, 1), date(2021, 7, 1), date(2021, 9, 1))
    assert [path.name for (path,) in item.images] == [
        "a_2021152.tif", "a_20210701T101112.tif", "a_20210901.tif",
    ]  # fmt: skip


def test_masks_may_lack_the_time_of_day(tmp_path: Path) -> None:
    names = [f"T32_202206{day}T101559_{band}.jp2" for day in (10, 11) for band in ("B02", "B03")]
    made(tmp_path, *names, "T32_20220610_mask.tif", "T32_2022-06-11_mask.tif")
    items, _, _ = find_items(tmp_path)
    assert seen(items, tmp_path) == {
        "T32_2022-06-10": ("T32_20220610T101559_B02.jp2", "T32_20220610_mask.tif"),
        "T32_2022-06-11": ("T32_20220611T101559_B02.jp2", "T32_2022-06-11_mask.tif"),
    }


def test_folders_of_classes_are_asked_for_and_taken_by_a_pattern(tmp_path: Path) -> None:
    made(tmp_path, "Forest/1.jpg", "Forest/2.jpg", "River/1.jpg")
    with pytest.raises(ValueError, match=r"images='\{label\}/\{id\}\.tif' if folders are classes"):
        find_items(tmp_path)
    items, _, _ = find_items(tmp_path, "{label}/{id}.jpg")
    assert [(x.name, x.label, x.region) for x in items] == [
        ("Forest/1", "Forest", "all"), ("Forest/2", "Forest", "all"), ("River/1", "River", "all"),
    ]  # fmt: skip


def test_polygons_or_one_raster_label_all_images(tmp_path: Path) -> None:
    made(tmp_path, "north/a.tif", "south/b.tif", "fields.gpkg")
    items, polygons, _ = find_items(tmp_path)
    assert polygons == tmp_path / "fields.gpkg" and [x.region for x in items] == ["north", "south"]
    made(tmp_path, "cover.tif")
    items, polygons, _ = find_items(tmp_path, labels="cover.tif")
    assert [x.name for x in items] == ["north/a", "south/b"] and polygons is None
    assert {x.mask for x in items} == {tmp_path / "cover.tif"}
    (item,), _, _ = find_items(tmp_path / "north" / "a.tif", labels="../cover.tif")
    assert (item.name, item.mask) == ("a", tmp_path / "north" / "../cover.tif")
    made(tmp_path, "more.geojson")
    with pytest.raises(ValueError, match=r"several files of polygons: .*Choose with labels="):
        find_items(made(tmp_path / "north", "a.geojson", "b.geojson"))
    with pytest.raises(FileNotFoundError, match=r"none\.tif"):
        find_items(tmp_path, labels="none.tif")
    with pytest.raises(ValueError, match="no regular file"):
        find_items(tmp_path, labels="north")


def test_what_has_no_partner_is_left_out_and_told(tmp_path: Path) -> None:
    made(tmp_path, "images/a.tif", "images/b.tif", "masks/b.tif", "masks/c.tif", "p.geojson")
    items, _, notes = find_items(tmp_path)
    assert [item.name for item in items] == ["b"]
    assert notes == ["Left out, without a partner: 3 (a.tif, c.tif, p.geojson)."]


# Patterns and tables.


def test_a_pattern_names_split_region_date_and_band(tmp_path: Path) -> None:
    made(tmp_path, *(
        f"data/{split}/{region}/{region}1_{day}_{band}.TIF"
        for split in ("train", "VAL") for region in ("kenya", "peru")
        for day in ("2021-07-01", "2021-06-01") for band in ("red", "nir")
    ), *(f"drawn/{split}_{region}_{region}1.png" for split in ("train", "val")
         for region in ("kenya", "peru")), "data/readme.tif")  # fmt: skip
    items, _, notes = find_items(
        tmp_path, "data/{split}/{region}/{id}_{date}_{band}.tif", "drawn/{split}_{region}_{id}.png"
    )
    assert len(items) == 4 and notes == ["Left out, without a partner: 1 (readme.tif)."]
    item = items[1]
    assert (item.name, item.split, item.region) == ("train/peru/peru1", "train", "peru")
    assert item.bands == ("nir", "red") and item.dates == (date(2021, 6, 1), date(2021, 7, 1))
    assert item.images[1][0] == tmp_path / "data/train/peru/peru1_2021-07-01_nir.TIF"
    assert item.mask == tmp_path / "drawn/train_peru_peru1.png"


def test_masks_with_dates_make_an_item_of_each_date(tmp_path: Path) -> None:
    made(tmp_path, *(f"{kind}_a_{day}.tif" for kind in "xy" for day in ("20210601", "20210701")))
    items, _, _ = find_items(tmp_path, "x_{id}_{date}.tif", "y_{id}_{date}.tif")
    assert seen(items, tmp_path) == {
        f"a_2021-0{n}-01": (f"x_a_20210{n}01.tif", f"y_a_20210{n}01.tif") for n in (6, 7)
    }


def test_a_pattern_may_say_the_label(tmp_path: Path) -> None:
    made(tmp_path, "crop-1.tif", "crop-2.tif", "water-1.tif")
    items, _, _ = find_items(tmp_path, "{label}-{id}.tif")
    assert [(item.name, item.label) for item in items] == [
        ("crop/1", "crop"), ("crop/2", "crop"), ("water/1", "water"),
    ]  # fmt: skip


def test_a_table_may_have_numbers_and_times(tmp_path: Path) -> None:
    made(tmp_path, "1.tif", "2.tif")
    days = pd.to_datetime(["2021-07-01", "2021-06-01"])
    table = pd.DataFrame(
        {"image": ["1.tif", "2.tif"], "id": 7, "region": 3, "date": days, "label": 1.5}
    )
    (item,), _, _ = find_items(tmp_path, table=table)
    assert (item.name, item.region, item.label) == ("3/7", "3", 1.5)
    assert item.dates == (date(2021, 6, 1), date(2021, 7, 1))


@pytest.mark.parametrize("kind", ["file", "frame", "geoframe"])
def test_a_table_says_it_all(tmp_path: Path, kind: str) -> None:
    made(tmp_path, "x/1.tif", "x/2.tif", "x/3.tif", "y/a.tif", "y/b.tif")
    table: Any = pd.DataFrame({
        "image": ["x/1.tif", "x/2.tif", "x/3.tif"], "id": ["a", "a", "b"],
        "mask": ["y/a.tif", "y/a.tif", "y/b.tif"], " Split": ["train", "train", "valid"],
        "Region": "here", "date": ["2021/7/1", "20210601", None], "label": [3, 3, 0],
    })  # fmt: skip
    if kind == "geoframe":
        geopandas = pytest.importorskip("geopandas", reason="a GeoDataFrame needs geopandas")
        table = geopandas.GeoDataFrame(table, geometry=[None] * 3)
    if kind == "file":
        table.to_csv(tmp_path / "t.csv", index=False)
        table = "t.csv"
    one, two = find_items(tmp_path, table=table)[0]
    assert (one.split, one.region, one.label, one.mask) == (
        "train",
        "here",
        "3" if kind == "file" else 3,
        tmp_path / "y/a.tif",
    )
    assert one.images == ((tmp_path / "x/2.tif",), (tmp_path / "x/1.tif",))
    assert one.dates == (date(2021, 6, 1), date(2021, 7, 1))
    assert (two.split, two.label, two.dates) == ("val", type(one.label)(0), (None,))


# What is refused.


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("images/{name}.tif", None, "Unknown field of the pattern .* 'name'.*Known: band, date"),
        ("pictures/{id}.tif", None, r"by images='pictures.*Seen: 1 images/\{id\}\.tif"),
        ("../{id}.tif", None, "No image .* has a mask"),
        ("/images/{id}.tif", None, "No image .* has a mask"),
        ("images/a.(tif|.*)", None, "No image .* has a mask"),
        ("images/{id}.tif", "mask/{id}.tif", "masks='mask/{id}.tif'. Seen"),
        ("images/{id}.tif", "masks/b.tif", "No image .* has a mask"),
        (None, "masks/{id}.tif", "needs images="),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused(
    tmp_path: Path, images: str | None, masks: str | None, message: str
) -> None:
    made(tmp_path, "images/a.tif", "masks/b.tif")
    with pytest.raises(ValueError, match=message):
        find_items(tmp_path, images, masks)


def test_a_pattern_takes_little_time_whatever_the_name(tmp_path: Path) -> None:
    made(tmp_path, "a_" * 120 + ".tif")
    with pytest.raises(ValueError, match=r"No image .* has a mask"):
        find_items(tmp_path, "{id}_{region}_{band}_{label}_{date}.tif")


def test_files_that_could_both_be_meant_are_refused(tmp_path: Path) -> None:
    for names in (("images/a.tif", "images/a.tiff", "masks/a.tif"),
                  ("images/a/0.tif", "images/b/0.tif", "masks/0.tif"),
                  ("images/a.tif", "masks/a.tif", "masks/a.png")):  # fmt: skip
        root = made(tmp_path / str(len(list(tmp_path.iterdir()))), *names)
        with pytest.raises(ValueError, match=r"have the same name|of several regions"):
            find_items(root)


def test_bands_that_a_date_lacks_are_told(tmp_path: Path) -> None:
    made(tmp_path, *(f"a_20210601_B0{n}.tif" for n in (2, 3)), "a_20210701_B02.tif", "a_mask.tif")
    with pytest.raises(
        ValueError, match="'a' has the bands B02, B03 on 2021-06-01, and on another date B02"
    ):
        find_items(tmp_path)


@pytest.mark.parametrize("cell", ["../secret.tif", "/etc/hostname", "link.tif"])
def test_a_table_leads_nowhere_else(tmp_path: Path, cell: str) -> None:
    made(tmp_path, "secret.tif", "root/a.tif")
    (tmp_path / "root" / "link.tif").symlink_to(tmp_path / "secret.tif")
    for row in ({"image": cell, "label": 1}, {"image": "a.tif", "mask": cell}):
        with pytest.raises(ValueError, match="outside"):
            find_items(tmp_path / "root", table=pd.DataFrame([row]))


@pytest.mark.parametrize(("columns", "rows", "said"), [
    (["image", "image"], [["a.tif", "a.tif"]], "has a column twice"),
    (["image", "label"], [["a.tif", "x"], ["a.tif", "x"]], "a.tif have the same .*keep one row"),
    (["image", "label"], [["", "x"]], "is no regular file"),
    (["image", "id", "label"], [["a.tif", "s1", "x"], ["a.tif", "S1", "x"]], "differs in case"),
    (["image", "id", "label"], [["a.tif", "\xe9", "x"], ["a.tif", "e\u0301", "x"]], "of accents"),
    (["image", "date"], [["a.tif", "2023366"]], "date '2023366'"),
])  # fmt: skip
def test_a_table_with_what_cannot_be_is_refused(
    tmp_path: Path, columns: list[str], rows: list[list[str]], said: str
) -> None:
    made(tmp_path, "a.tif")
    with pytest.raises(ValueError, match=said):
        find_items(tmp_path, table=pd.DataFrame(rows, columns=columns))


def test_links_out_of_the_folder_are_refused_and_hidden_files_left_alone(tmp_path: Path) -> None:
    made(tmp_path, "secret.tif")
    root = made(tmp_path / "root", "images/a.tif", "masks/a.tif", "images/.b.tif", ".git/c.tif")
    assert len(find_items(root)[0]) == 1
    (root / "images" / "d.tif").symlink_to(tmp_path / "secret.tif")
    with pytest.raises(ValueError, match="outside"):
        find_items(root)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("photos/c{}.tif", "drawn/c{}.tif"),
        ("photos/c{}.jpg", "drawn/c{}_ann_v.png"),
        ("c{}.tif", "c{}_cls.tif"),
        ("rgb-{}.tif", "drawn-{}.tif"),
        ("kenya/photos/{}.tif", "kenya/drawn/{}.tif"),
        ("a/train/{}.tif", "drawn/train/{}.tif"),
    ],
)
def test_the_error_has_a_call_that_works_when_typed(tmp_path: Path, image: str, mask: str) -> None:
    made(tmp_path, *(text.format(n) for text in (image, mask) for n in range(10, 14)))
    with pytest.raises(ValueError, match=r"No image .* has a mask") as error:
        find_items(tmp_path)
    call = re.search(r"gp\.load_data\(.*?\)", str(error.value))
    assert call
    given: dict[str, Any] = {}
    gp = type("gp", (), {"load_data": staticmethod(lambda name, **options: given.update(options))})
    eval(call[0], {"gp": gp})  # as a reader types it
    items, _, _ = find_items(Path(given["root"]), given["images"], given["masks"])
    assert "{region}" not in given["images"]
    assert {(i, m) for i, m in seen(items, tmp_path).values()} == {
        (image.format(n), mask.format(n)) for n in range(10, 14)
    }
