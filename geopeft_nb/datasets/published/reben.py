"""reBEN 7k: land cover of ten countries from BigEarthNet v2, with Austria and Ireland held out.

The patches are those that arXiv 2504.17397 chose, about 1.3 % of BigEarthNet v2. A folder holds
`BigEarthNet-S2/<product>/<patch>/<patch>_B02.tif` and so on, one file for each band, the maps
`Reference_Maps/<product>/<patch>/<patch>_reference_map.tif` and the table `metadata.parquet`.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.datasets.base import Reading
from geopeft_nb.datasets.cards import DataCard, Request
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import (
    Found,
    list_entry,
    load_published,
    read_raster,
    split_list,
    unpack,
)
from geopeft_nb.datasets.split import SIDES, Cut
from geopeft_nb.errors import GeopeftError, check_name, unknown_name
from geopeft_nb.files import FileEntry, fetch, find_dataset

#: Class -> its colour, and the codes of CORINE Land Cover that belong to it.
CLASSES: dict[str, tuple[str, tuple[int, ...]]] = {
    "Agro-forestry areas": ("#f2cca6", (244,)),
    "Arable land": ("#ffffa8", (211, 212, 213)),
    "Beaches, dunes, sands": ("#e6e6e6", (331,)),
    "Broad-leaved forest": ("#80ff00", (311,)),
    "Coastal wetlands": ("#ccccff", (421, 422)),
    "Complex cultivation patterns": ("#ffe64d", (242,)),
    "Coniferous forest": ("#00a600", (312,)),
    "Industrial or commercial units": ("#cc4df2", (121,)),
    "Inland waters": ("#80f2e6", (511, 512)),
    "Inland wetlands": ("#a6a6ff", (411, 412)),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "#e6cc4d", (243,)),
    "Marine waters": ("#e6f2ff", (521, 522, 523)),
    "Mixed forest": ("#4dff00", (313,)),
    "Moors, heathland and sclerophyllous vegetation": ("#a6ff80", (322, 323)),
    "Natural grassland and sparsely vegetated areas": ("#ccf24d", (321, 333)),
    "Pastures": ("#e6e64d", (231,)),
    "Permanent crops": ("#e68000", (221, 222, 223, 241)),
    "Transitional woodland, shrub": ("#a6f200", (324,)),
    "Urban fabric": ("#e6004d", (111, 112)),
}  # fmt: skip
#: Codes of CORINE Land Cover that are in none of the classes, and 999 for none at all.
UNLABELLED = (122, 123, 124, 131, 132, 133, 141, 142, 332, 334, 335, 423, 999)

#: Number of a band in the names of the files -> its mean and standard deviation, times 10,000, and
#: its pixel side in metres.
_BANDS = {
    "B01": (361.0767822265625, 575.0687255859375, 60),
    "B02": (438.3720703125, 607.02685546875, 10),
    "B03": (614.0556640625, 603.2968139648438, 10),
    "B04": (588.4096069335938, 684.56884765625, 10),
    "B05": (942.8433227539062, 738.4326782226562, 20),
    "B06": (1769.931640625, 1100.4560546875, 20),
    "B07": (2049.551513671875, 1275.805419921875, 20),
    "B08": (2193.2919921875, 1369.3717041015625, 10),
    "B8A": (2235.556640625, 1356.5440673828125, 20),
    "B09": (2241.455322265625, 1316.393310546875, 60),
    "B11": (1568.226806640625, 1070.1612548828125, 20),
    "B12": (997.7324829101562, 813.5276489257812, 20),
}
_HOME = (
    "belgium", "finland", "kosovo", "lithuania", "luxembourg", "portugal", "serbia", "switzerland",
)  # fmt: skip

CARD = DataCard(
    name="reben_7k",
    title="reBEN 7k (BigEarthNet v2)",
    task="land cover in 19 classes, per pixel",
    classes=tuple(CLASSES),
    colours=tuple(colour for colour, _ in CLASSES.values()),
    bands=tuple(band for band in SENTINEL2_BANDS if band != "CIRRUS"),
    regions=(*_HOME, "austria", "ireland"),
    home=_HOME,
    size=128,
    sizes=(128, 120),  # padded as in the paper, or the bare patch
    scale=10_000,
    compressed=True,
    resolution=10.0,
    labels="CORINE Land Cover 2018, drawn by interpreters with a smallest unit of 25 ha: coarse",
    licence="CDLA-Permissive-1.0; split lists Apache-2.0",
    citation="Clasen et al., reBEN: Refined BigEarthNet, arXiv 2407.03653; subset of "
    "Marti-Escofet, Blumenstiel et al., arXiv 2504.17397",
    homepage="https://bigearth.net",
    default_bands=HLS_BANDS,
    mean=tuple(mean / 10_000 for mean, _, _ in _BANDS.values()),
    std=tuple(std / 10_000 for _, std, _ in _BANDS.values()),
    statistics_source="arXiv 2504.17397: BigEarthNet v2 at 120 x 120 px, nearest neighbour",
    split="published with arXiv 2504.17397: at least 250 chips of each class in train and 50 in "
    "val and test, without Austria and Ireland, which are held out (417 and 390 chips; there "
    "agro-forestry is absent, and beaches and coastal wetlands have 21 and 6 chips)",
    leaks="No ground is on two sides, on another day neither; but 31 of the 946 validation chips "
    "touch a training chip. From training to test it is more than 10 km, to the held-out countries "
    "more than 170 km.",
    download="BigEarthNet v2 as a whole, though 1.3 % of it is used: Sentinel-2 in two parts "
    "(549,488 patches, tens of GB), reference maps and the table; only what is used is unpacked",
)  # fmt: skip

#: Code of CORINE Land Cover -> class; -2 where there is no such code.
_CLASS_OF = np.full(1 << 16, -2, np.int8)
_CLASS_OF[list(UNLABELLED)] = -1
for _index, (_, _codes) in enumerate(CLASSES.values()):
    _CLASS_OF[list(_codes)] = _index
#: Side of a patch in pixels of 10 m.
SIDE = 120
#: Zone of a held-out tile -> its country. Portugal lies in zone 29, too, but is not held out.
_ZONES = {"33": "austria", "29": "ireland"}
LISTS = {side: f"reBEN/reBEN_7k/{side}" for side in SIDES} | {"holdout": "reBEN/reBEN_7k/ood"}
TASKS = {
    "segmentation": CARD,
    "multilabel": replace(CARD, kind="multilabel", task="which of 19 land covers are in the patch"),
}

_URL = (
    "https://huggingface.co/datasets/torchgeo/bigearthnet/resolve/"
    "3cf3a5910a5302d449fdb8e570e5b78de24fe07f/V2"
)


def _entry(name: str, md5: str | None = None, sha256: str | None = None) -> FileEntry:
    url, licence = f"{_URL}/{name}", "CDLA-Permissive-1.0"
    return FileEntry(f"reben_7k/{name}", url=url, licence=licence, md5=md5, sha256=sha256)


TABLE = _entry("metadata.parquet", md5="55687065e77b6d0b0f1ff604a6e7b49c")
#: Folder -> its archive, or the parts of it.
ARCHIVES = {
    "Reference_Maps": [_entry("Reference_Maps.tar.gzaa", md5="b0cd1f0a31b49fcbfd61d80f963e759d")],
    "BigEarthNet-S2": [
        _entry(f"BigEarthNet-S2.tar.gz{part}", sha256=digest)
        for part, digest in (
            ("aa", "a44e4c9d8dde1affd7107640dd0070b811ca848205363f8dd8f75bebccea0ed3"),
            ("ab", "e0bfe57038e07ff09add42e5bff108d221da10a6e45533fd2eb4ac05e6d90dc2"),
        )
    ],
}


def mirror_files() -> list[FileEntry]:
    """List what a mirror has to hold: the split lists, the table and the archives."""
    lists = [list_entry(name) for name in LISTS.values()]
    return [*lists, TABLE, *(part for parts in ARCHIVES.values() for part in parts)]


def load_reben(request: Request, *, task: str = "segmentation") -> GeoData:
    """Load reBEN 7k with its published split; see `load_data`.

    Regions are countries: of the table for training, validation and test chips, by the tile for
    those that the authors held out.

    Args:
        request: What was asked for. Of ``size`` 128 (the default) a patch is padded at the right
            and the bottom as in the paper, its image mirrored and its mask with -1; 120 is the
            bare patch.
        task: ``"segmentation"`` for the land cover of each pixel, or ``"multilabel"`` for the 19
            zeros and ones that BigEarthNet gives each patch.

    Returns:
        Train 4,690, val 946, test 945, and held out Austria 417 and Ireland 390.

    Raises:
        ValueError: A table that is not BigEarthNet's; and see `load_published`.
        ImportError: duckdb, which reads the table, is not installed.

    Source: arXiv 2407.03653 (data), arXiv 2504.17397 (subset, padding and statistics).
    """
    check_name("task of reben_7k", task, TASKS)
    card = TASKS[task]
    return load_published(request, card, partial(_find, maps=card is CARD), _describe, _read)


def _find(request: Request, maps: bool) -> Found:
    sides = {side: split_list(name, request.download) for side, name in LISTS.items()}
    patches = {patch for side in sides.values() for patch in side}
    root = find_dataset(CARD.name, request.root) if request.root else None
    table = root / TABLE.name if root else fetch(TABLE, request.download)
    if not table.is_file():
        raise FileNotFoundError(
            f"{root} is not BigEarthNet v2: it has no {TABLE.name}. Its folder holds "
            "BigEarthNet-S2/, Reference_Maps/ and metadata.parquet, unpacked."
        )
    facts = _table(table, list(patches))
    if absent := patches - facts.keys():
        raise FileNotFoundError(
            f"{table} lacks {len(absent):,} of {len(patches):,} listed chips, for example "
            f"{min(absent)}. Fetch the table again."
        )
    images, notes = _folder("BigEarthNet-S2", request, patches)
    labels, more = _folder("Reference_Maps", request, patches) if maps else (None, ())

    def files(patch: str) -> list[Path]:
        inside = f"{patch.rsplit('_', 2)[0]}/{patch}/{patch}"
        bands = [images / f"{inside}_{number}.tif" for number in _BANDS]
        return bands if labels is None else [*bands, labels / f"{inside}_reference_map.tif"]

    return Found(sides, files, facts, notes + more)


def _folder(name: str, request: Request, patches: Collection[str]) -> tuple[Path, tuple[str, ...]]:
    """Find a folder of the data set, or unpack of its archive what is listed: 1.3 % of it."""
    own = replace(request, root=f"{request.root}/{name}" if request.root else None)
    folder, notes = unpack(
        f"{CARD.name}/{name}", ARCHIVES[name], own,
        lambda file: PurePosixPath(file).parent.name in patches,  # <folder>/<product>/<patch>/…
    )  # fmt: skip
    inside = folder / name  # unpacked, a folder lies in a folder
    return inside if inside.is_dir() else folder, notes


def _table(path: Path, patches: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Return country and labels of each of those patches that the table has."""
    try:
        import duckdb
    except ImportError as error:
        raise ImportError(
            "The table of BigEarthNet's patches needs duckdb: pip install duckdb"
        ) from error
    query = (
        "select patch_id, country, labels from read_parquet(?) where patch_id in (select unnest(?))"
    )
    try:
        with duckdb.connect() as database:
            rows = database.execute(query, [escape(str(path)), patches]).fetchall()
    except duckdb.Error as error:
        raise GeopeftError(
            f"{path} cannot be read ({str(error).partition(chr(10))[0]}). It should be BigEarthNet "
            "v2's table with columns patch_id, country and labels: fetch it again."
        ) from error
    for label in {label for _, _, labels in rows for label in labels} - CLASSES.keys():
        raise unknown_name(f"label in {path}", label, CLASSES)
    return {patch: (country.lower(), labels) for patch, country, labels in rows}


def _describe(name: str, found: Found) -> Mapping[str, Any]:
    *_, day, _, _, tile, column, row = name.split("_")
    country = _ZONES.get(tile[1:3]) if name in found.sides["holdout"] else found.facts[name][0]
    if country not in CARD.regions:
        raise unknown_name(f"country of chip {name!r}", country, CARD.regions)
    return {
        "region": country, "place": f"{tile}_{column}_{row}",
        "date": datetime.datetime.strptime(day[:8], "%Y%m%d").date(),
    }  # fmt: skip


def _read(name: str, found: Found, indices: list[int], cut: Cut) -> Reading:
    """Read a patch, repeat the pixels of coarser bands, and pad it."""
    files, extra = found.files(name), cut.side - SIDE
    squares = []
    for index in indices:
        times = list(_BANDS.values())[index][2] // 10
        side = SIDE // times
        pixels, crs, bounds = read_raster(files[index], [0], Cut("", 0, 0, side), (1, side, side))
        pixels = pixels[0].repeat(times, axis=0).repeat(times, axis=1)
        squares.append(np.pad(pixels, (0, extra), mode="reflect"))
    if bounds:
        left, bottom, right, top = bounds
        bounds = (left, bottom - 10 * extra, right + 10 * extra, top)
    if len(files) == len(_BANDS):
        there = np.array([label in found.facts[name][1] for label in CLASSES])
        return Reading(np.stack(squares), there, crs, bounds)
    codes, *_ = read_raster(files[-1], [0], Cut("", 0, 0, SIDE), (1, SIDE, SIDE))
    mask = _CLASS_OF[codes[0].astype(np.uint16)]
    if (mask == -2).any():
        raise GeopeftError(
            f"{files[-1]} has {np.unique(codes[0][mask == -2])}, which is no code of CORINE Land "
            "Cover. Restore the file."
        )
    return Reading(np.stack(squares), np.pad(mask, (0, extra), constant_values=-1), crs, bounds)
