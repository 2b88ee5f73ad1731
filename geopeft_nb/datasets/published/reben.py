"""reBEN 7k: land cover of ten countries from BigEarthNet v2, with Austria and Ireland held out.

The patches are those that arXiv 2504.17397 chose, about 1.3 % of BigEarthNet v2. A folder holds
`BigEarthNet-S2/<product>/<patch>/<patch>_B02.tif` and so on, one file for each band, the maps
`Reference_Maps/<product>/<patch>/<patch>_reference_map.tif` and the table `metadata.parquet`.
"""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.datasets.base import Chip, Reading
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData
from geopeft_nb.datasets.published import common
from geopeft_nb.errors import check_name, check_names
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
    predicts="land cover in 19 classes, per pixel",
    classes=tuple(CLASSES),
    colours=tuple(colour for colour, _ in CLASSES.values()),
    bands=tuple(band for band in SENTINEL2_BANDS if band != "CIRRUS"),
    regions=(*_HOME, "austria", "ireland"),
    home=_HOME,
    size=128,
    whole=True,  # a patch of 120 pixels, padded as in the paper
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
    "val and test; Austria and Ireland, where agro-forestry is absent, are held out",
    leaks="No ground is on two sides, on another day neither; but 31 of the 946 validation chips "
    "touch a training chip. From training to test it is more than 10 km, to the held-out countries "
    "more than 170 km.",
    download="BigEarthNet v2 as a whole, tens of GB, though only 1.3 % of it is used and unpacked",
)  # fmt: skip

#: Code of CORINE Land Cover -> class; -2, which no mask may have, where there is no such code.
_CLASS_OF = np.full(1 << 16, -2, np.int8)
_CLASS_OF[list(UNLABELLED)] = -1
for _index, (_, _codes) in enumerate(CLASSES.values()):
    _CLASS_OF[list(_codes)] = _index
#: Side of a patch in pixels of 10 m, and what is added to it.
SIDE, PAD = 120, 8
#: Zone of a held-out tile -> its country. Portugal lies in zone 29, too, but is not held out.
_ZONES = {"33": "austria", "29": "ireland"}
TASKS = {
    "segmentation": CARD,
    "multilabel": replace(CARD, task="multilabel", predicts="which of 19 land covers are there"),
}
_COMMIT = "3cf3a5910a5302d449fdb8e570e5b78de24fe07f"
_URL = f"https://huggingface.co/datasets/torchgeo/bigearthnet/resolve/{_COMMIT}/V2"
#: Files of the mirror, by name.
FILES = {
    name: FileEntry(
        f"reben_7k/{name}", url=f"{_URL}/{name}", licence="CDLA-Permissive-1.0", md5=md5, sha256=sha
    )
    for name, md5, sha in (
        ("metadata.parquet", "55687065e77b6d0b0f1ff604a6e7b49c", None),
        ("Reference_Maps.tar.gzaa", "b0cd1f0a31b49fcbfd61d80f963e759d", None),
        ("BigEarthNet-S2.tar.gzaa", None,
         "a44e4c9d8dde1affd7107640dd0070b811ca848205363f8dd8f75bebccea0ed3"),
        ("BigEarthNet-S2.tar.gzab", None,
         "e0bfe57038e07ff09add42e5bff108d221da10a6e45533fd2eb4ac05e6d90dc2"),
    )
}  # fmt: skip
TABLE = "metadata.parquet"


def mirror_files(name: str) -> list[FileEntry]:
    """List what a mirror has to hold: the split lists, the table and the archives."""
    return [*common.list_entries("reBEN"), *FILES.values()]


def load_reben(request: DataRequest, *, task: str = "segmentation") -> GeoData:
    """Load reBEN 7k with its published split; see `load_data`.

    Regions are countries: of the table for training, validation and test chips, by the tile for
    those that the authors held out.

    Args:
        request: What was asked for. A patch is padded to 128 pixels at the right and the bottom as
            in the paper, its image mirrored and its mask with -1.
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
    return common.load_published(request, TASKS[task], partial(_find, maps=task == "segmentation"))


def _find(request: DataRequest, maps: bool) -> Iterator[tuple[str, Chip]]:
    listed = [*common.listed("reBEN", request.download)]
    patches = [patch for _, patch in listed]
    root = find_dataset(CARD.name, request.root) if request.root else None
    table = common.files_in(root, TABLE, CARD)[0] if root else fetch(FILES[TABLE], request.download)
    facts = _table(table, patches)
    images = _folder("BigEarthNet-S2", request, patches)
    codes = _folder("Reference_Maps", request, patches) if maps else None
    for side, patch in listed:
        product, column, row = patch.rsplit("_", 2)
        *_, day, _, _, tile = product.split("_")
        country, labels = facts.get(patch, (None, []))  # of a patch that the table lacks
        country = _ZONES[tile[1:3]] if side == "holdout" else country
        check_name(f"country of chip {patch!r}", country, CARD.regions)
        inside = f"{product}/{patch}/{patch}"
        files = [images / f"{inside}_{number}.tif" for number in _BANDS]
        files += [codes / f"{inside}_reference_map.tif"] if codes else []
        read = partial(_read, labels=None if codes else labels)
        date = datetime.datetime.strptime(day[:8], "%Y%m%d").date()
        yield side, Chip(patch, country, f"{tile}_{column}_{row}", read, date=date, files=files)


def _folder(name: str, request: DataRequest, patches: Sequence[str]) -> Path:
    """Find a folder of the data set, or unpack of its archive what is listed: 1.3 % of it."""
    own = replace(request, root=request.root and f"{request.root}/{name}")
    parts, listed = [entry for file, entry in FILES.items() if file.startswith(name)], {*patches}
    folder = common.unpack(
        f"{CARD.name}/{name}", parts, own,
        lambda file: PurePosixPath(file).parent.name in listed,  # <folder>/<product>/<patch>/…
    )  # fmt: skip
    inside = folder / name  # unpacked, a folder lies in a folder
    return inside if inside.is_dir() else folder


def _table(path: Path, patches: Sequence[str]) -> dict[str, tuple[Any, list[str]]]:
    """Return country and labels of each of those patches that the table has."""
    import duckdb

    query = (
        "select patch_id, country, labels from read_parquet(?) where patch_id in (select unnest(?))"
    )
    with duckdb.connect() as database:
        rows = database.execute(query, [escape(str(path)), patches]).fetchall()
    check_names(f"label in {path}", {label for _, _, labels in rows for label in labels}, CLASSES)
    return {patch: (country.lower(), labels) for patch, country, labels in rows}


def _read(
    files: Sequence[Path], indices: list[int], window: common.Window, labels: list[str] | None
) -> Reading:
    """Read a patch, repeat the pixels of coarser bands, and pad it."""
    squares = []
    for index in indices:
        times = list(_BANDS.values())[index][2] // 10
        coarse = np.s_[0 : SIDE // times, 0 : SIDE // times]
        pixels, crs, bounds = common.read_raster(files[index], [0], coarse)
        pixels = pixels[0].repeat(times, axis=0).repeat(times, axis=1)
        squares.append(np.pad(pixels, (0, PAD), mode="reflect"))
    if bounds:
        left, bottom, right, top = bounds
        bounds = (left, bottom - 10 * PAD, right + 10 * PAD, top)
    if labels is None:
        codes, *_ = common.read_raster(files[-1], [0], np.s_[0:SIDE, 0:SIDE])
        target = np.pad(_CLASS_OF[codes[0].astype(np.uint16)], (0, PAD), constant_values=-1)
    else:
        target = np.isin(list(CLASSES), labels)
    return Reading(np.stack(squares), target, crs, bounds)
