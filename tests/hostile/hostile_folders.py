"""Folders of images and labels that point elsewhere, lie about their size, or never end."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from hostile_fork import NOISE, Input, Room
from rasterio.transform import from_origin

import geopeft_nb as gp

Write = Callable[[Path, Room], object]
#: What the images do not say of their numbers; the two bands are alike, and their pixels data.
STATED = {"scale": 10_000, "offset": 0, "nodata": float("nan")}
IMAGE, MASK, LABELS, NEW = "images/chip0.tif", "masks/chip0.tif", "labels.geojson", "images/new.tif"


def write_raster(path: Path, values: Any, left: int = 0, side: int = 32, **options: Any) -> None:
    """Write a GeoTIFF of one value, or of an array; of nothing, for None."""
    profile = {"count": 2 if path.parent.name == "images" else 1, "dtype": "uint16"}
    profile |= {"crs": "EPSG:32633", "transform": from_origin(500_000 + left, 5_000_000, 10, 10)}
    profile |= {"driver": "GTiff", "height": side, "width": side} | options
    with rasterio.open(path, "w", **profile) as raster:
        if values is not None:
            shape = (profile["count"], side, side)
            raster.write(np.broadcast_to(values, shape).astype(profile["dtype"]))
        for number, name in enumerate(("RED", "NIR")[: profile["count"]], start=1):
            raster.set_band_description(number, name)


def write_pairs(root: Path) -> None:
    """Write eight images with masks, 20 km apart."""
    noise = np.random.default_rng(0).integers(100, 4000, (32, 32))
    for kind, values in (("images", noise), ("masks", np.arange(32) > 15)):
        (root / kind).mkdir(parents=True)
        for number in range(8):
            write_raster(root / kind / f"chip{number}.tif", values, 20_000 * number)


def features(**change: Any) -> dict[str, Any]:
    """Make a square of each class over each image, and change the first."""
    made = []
    for x in range(500_000, 660_000, 20_000):
        for label, left in (("land", x), ("water", x + 160)):
            ring = [[left, 5e6], [left, 4_999_680], [left + 160, 4_999_680], [left + 160, 5e6]]
            shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
            made.append({"type": "Feature", "properties": {"class": label}, "geometry": shape})
    made[0] |= change
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    return {"type": "FeatureCollection", "crs": crs, "features": made}


def words(text: str) -> Write:
    """Write a text; see texts.txt."""
    if text.startswith("@{"):
        text = json.dumps(features() | json.loads(text[1:]))
    if text.startswith("@1{"):
        text = json.dumps(features(**json.loads(text[2:])))
    for mark, end, names in (("@(", ")", ["RED"]), ("@[", "]", ["RED", "NIR"])):
        if text.startswith(mark):
            source = f"<SourceFilename>{text[2:].removesuffix(end)}</SourceFilename>"
            source = f"<SimpleSource>{source}<SourceBand>1</SourceBand></SimpleSource>"
            text = '<VRTDataset rasterXSize="32" rasterYSize="32"><SRS>EPSG:32633</SRS>'
            text += "<GeoTransform>500000,10,0,5000000,0,-10</GeoTransform><Metadata>"
            text += '<MDI key="INTERNAL_MASK_FLAGS_1">2</MDI>'
            text += '<MDI key="INTERNAL_MASK_FLAGS_2">2</MDI></Metadata>'
            for number, name in enumerate(names, start=1):
                text += f'<VRTRasterBand dataType="UInt16" band="{number}">'
                text += f"<Description>{name}</Description>{source}</VRTRasterBand>"
            text += "</VRTDataset>"
    return made(
        lambda path, room: path.write_text(
            text.replace("{out}", str(room.outside)).replace("{url}", room.warm.url)
        )
    )


def first(**change: Any) -> Write:
    return words(json.dumps(features(**change)))


def raster(values: Any = None, **options: Any) -> Write:
    return made(lambda path, room: write_raster(path, values, **options))


def made(make: Callable[[Path, Room], object]) -> Write:
    return lambda path, room: (path.unlink(missing_ok=True), make(path, room))


def cut(share: float) -> Write:
    return lambda path, room: os.truncate(path, int(share * path.stat().st_size))


def raw(content: bytes) -> Write:
    return made(lambda path, room: path.write_bytes(content))


def link(target: str) -> Write:
    return made(lambda path, room: path.symlink_to(room.outside / target))


def bound(path: Path, room: Room) -> None:
    socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))


def away(path: Path, room: Room) -> None:
    shutil.move(path, room.outside / "moved")
    path.symlink_to(room.outside / "moved")


def both(path: Path, room: Room) -> None:
    """Write an image and its mask."""
    shutil.copyfile(room.warm.pairs / IMAGE, path)
    shutil.copyfile(room.warm.pairs / MASK, path.parents[1] / "masks" / path.name)


def many(count: int, named: str = "") -> Write:
    square = json.dumps(features()["features"][0])
    squares = (square.replace('"land"', f'"{named}{n}"') if named else square for n in range(count))
    new = '"features": [' + ",".join(squares) + ","
    return made(lambda p, room: p.write_text(json.dumps(features()).replace('"features": [', new)))


def tagged(path: Path, room: Room, scale: float = 1, **tags: str) -> None:
    with rasterio.open(path, "r+") as raster:
        raster.scales, _ = [scale] * raster.count, raster.update_tags(**tags)


RING = (np.random.default_rng(0).random((1_000, 2)) * 320 + (5e5, 4_999_680)).tolist()
CROSSED = {"type": "Polygon", "coordinates": [[*RING, RING[0]]]}
NOWHERE: list[dict[str, Any]] = [
    {"crs": "EPSG:5773"}, {"crs": 'LOCAL_CS["x",UNIT["metre",1]]'}, {"crs": "EPSG:4326"},
    *({"transform": from_origin(x, 0, 10, 10)} for x in (1e300, 1e8, np.nan)),
]  # fmt: skip
SPARSE: dict[str, Any] = {"sparse_ok": True, "tiled": True, "BIGTIFF": "YES"}
TILES = SPARSE | {"blockxsize": 256, "blockysize": 256, "side": 200_000}
BLOCK = SPARSE | {"blockxsize": 16_384, "blockysize": 16_384, "side": 64, "dtype": "float64"}
NAMES = (
    "<script>1<", "$\\frac{$", "a\nb", "\u202etxt", "\udc80", "n" * 250, "-", "%s{0}", "vsicurl_x",
    "a?b#c",
)  # fmt: skip

#: Input, what is expected, and what is written over a file or beside it; the file says the kind.
FILES: list[tuple[str, str, str, Write]] = [
    ("sparse_200000", "refused", IMAGE, raster(**TILES)),
    ("60000_bands", "refused", MASK, raster(count=60_000, sparse_ok=True)),
    ("sparse_200000_mask", "refused", MASK, raster(**TILES)),
    ("block_of_4_GB", "refused", IMAGE, raster(interleave="pixel", **BLOCK)),
    ("block_of_2_GB_mask", "refused", MASK, raster(**BLOCK)),
    ("complex", "refused", IMAGE, raster(1, dtype="complex64")),
    ("nan_pixels", "either", IMAGE, raster(np.nan, dtype="float32")),
    ("mask_of_1e9", "either", MASK, raster(10**9, dtype="uint32")),
    ("two_bands_mask", "refused", MASK, raster(999, count=2)),
    ("noise", "refused", IMAGE, raw(b"II*\0" + NOISE)),
    *((f"cut_at_{share:.0%}_{file[:-10]}", "refused", file, cut(share))
      for file in (IMAGE, MASK) for share in (0, 0.05, 0.5)),
    *((f"name_{n}", "either", f"images/{name}.tif", both) for n, name in enumerate(NAMES)),
    ("deep_PAM_beside", "either", IMAGE + ".aux.xml", words("<a>" * 100_000)),
    *((f"nowhere_{n}", "refused", IMAGE, raster(1, **to)) for n, to in enumerate(NOWHERE)),
    ("scale_0", "refused", IMAGE, partial(tagged, scale=0)),
    ("long_tag", "either", IMAGE, partial(tagged, note="PRODUCT_TYPE=S2MSI" * 16_000)),
    ("infinite", "refused", LABELS, words(json.dumps(features()).replace("500160", "1e400", 1))),
    ("crossing_itself", "either", LABELS, first(geometry=CROSSED)),
    ("link_outside_mask", "refused", MASK, link("secret.tif")),
    ("folder_outside", "refused", "images", away),
    ("link_in_circle", "either", "images/new", made(lambda p, r: p.symlink_to(p.parent))),
    ("endless", "either", NEW, made(lambda p, r: p.symlink_to("/dev/zero"))),
    ("fifo", "either", NEW, made(lambda p, r: os.mkfifo(p))), ("socket", "either", NEW, bound),
    ("fifo_mask", "either", MASK, made(lambda p, r: os.mkfifo(p))),
    ("folder", "either", NEW, made(lambda p, r: p.mkdir())),
    ("link_labels", "refused", LABELS, link("secret.geojson")),
    ("deep", "refused", LABELS, words("[" * 100_000)),
    ("deep_shape", "either", LABELS, first(geometry={"a": json.loads("[" * 900 + "]" * 900)})),
    ("latin_1", "refused", LABELS, raw(json.dumps(features()).encode().replace(b"wat", b"\xe9"))),
    ("nul", "refused", LABELS, raw(bytes(5000))), ("cut", "refused", LABELS, cut(0.7)),
    ("million", "either", LABELS, many(10**6)),
    ("10000_classes", "either", LABELS, many(10_000, "c")),
    ("sparse_1e12", "refused", LABELS, made(lambda p, r: (p.touch(), os.truncate(p, 10**12)))),
    ("fifo_labels", "refused", LABELS, made(lambda p, r: os.mkfifo(p))),
    ("folder_labels", "refused", LABELS, made(lambda p, r: p.mkdir())),
]  # fmt: skip


def texts() -> list[tuple[str, str, str, Write]]:
    table = Path(__file__).with_name("texts.txt").read_text(encoding="utf-8").splitlines()
    rows = [[part.strip() for part in line.split("|", 2)] for line in table[3:]]
    return [(n.rstrip("?"), "either" if "?" in n else "refused", f, words(t)) for n, f, t in rows]


def folder(name: str, expected: str, file: str, write: Write) -> Input:
    def make(room: Room) -> Callable[[], object]:
        root = room.inside / "root"
        shutil.copytree(room.warm.pairs, root)
        if file.startswith("labels"):
            shutil.rmtree(root / "masks")
            shutil.move(root / "images", root / "north")
            if file == LABELS:
                first()(root / LABELS, room)
        write(root / file, room)

        def call() -> str:
            data = gp.load_data("folder", root=root, **STATED)
            pixels = [f"{s['image'].max():.4f}" for part in data.parts.values() for s in part]
            return f"{data.notes} {data.classes} {pixels}".replace("0.4321", "SECRET")

        return call

    return Input(f"folder {name}", expected, make)


INPUTS = [folder(*row) for row in (*FILES, *texts())]
