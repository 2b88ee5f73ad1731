"""reBEN 7k: land cover of ten countries from BigEarthNet v2, with Austria and Ireland held out.

The patches are those that arXiv 2504.17397 chose, about 1.3 % of BigEarthNet v2. A folder holds
`BigEarthNet-S2/<product>/<patch>/<patch>_B02.tif` and so on, one file for each band, the maps
`Reference_Maps/<product>/<patch>/<patch>_reference_map.tif` and the table `metadata.parquet`.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from geopeft_nb.archives import extract
from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.datasets.base import Bounds, Chip, Reading, centre
from geopeft_nb.datasets.cards import DataCard, Request, choose_bands
from geopeft_nb.datasets.chip_cache import ChipCache
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import keep_present, list_entry, split_list
from geopeft_nb.datasets.split import choose_regions, published_split
from geopeft_nb.errors import GeopeftError, check_name, unknown_name
from geopeft_nb.files import FileEntry, cache_folder, fetch, find_dataset, mirror_folders

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

#: Number of a band in the names of the files -> its mean and standard deviation, times 10,000.
_STATISTICS = {
    "B01": (361.0767822265625, 575.0687255859375), "B02": (438.3720703125, 607.02685546875),
    "B03": (614.0556640625, 603.2968139648438), "B04": (588.4096069335938, 684.56884765625),
    "B05": (942.8433227539062, 738.4326782226562), "B06": (1769.931640625, 1100.4560546875),
    "B07": (2049.551513671875, 1275.805419921875), "B08": (2193.2919921875, 1369.3717041015625),
    "B8A": (2235.556640625, 1356.5440673828125), "B09": (2241.455322265625, 1316.393310546875),
    "B11": (1568.226806640625, 1070.1612548828125), "B12": (997.7324829101562, 813.5276489257812),
}  # fmt: skip
_NUMBERS = tuple(_STATISTICS)
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
    resolution=10.0,
    labels="CORINE Land Cover 2018, drawn by interpreters with a smallest unit of 25 ha: coarse",
    licence="CDLA-Permissive-1.0; split lists Apache-2.0",
    citation="Clasen et al., reBEN: Refined BigEarthNet, arXiv 2407.03653; subset of "
    "Marti-Escofet, Blumenstiel et al., arXiv 2504.17397",
    homepage="https://bigearth.net",
    default_bands=HLS_BANDS,
    mean=tuple(mean / 10_000 for mean, _ in _STATISTICS.values()),
    std=tuple(std / 10_000 for _, std in _STATISTICS.values()),
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

#: Side of a patch in pixels.
SIDE = 120
#: Zone of a held-out tile -> its country. Portugal lies in zone 29, too, but is not held out.
_ZONES = {"33": "austria", "29": "ireland"}
_SIDES = {"train": "train", "val": "val", "test": "test", "holdout": "ood"}
_TASKS = {
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


#: Folder or file of the data set -> what has to be downloaded for it.
FILES = {
    "metadata.parquet": [_entry("metadata.parquet", md5="55687065e77b6d0b0f1ff604a6e7b49c")],
    "Reference_Maps": [_entry("Reference_Maps.tar.gzaa", md5="b0cd1f0a31b49fcbfd61d80f963e759d")],
    "BigEarthNet-S2": [
        _entry(
            "BigEarthNet-S2.tar.gzaa",
            sha256="a44e4c9d8dde1affd7107640dd0070b811ca848205363f8dd8f75bebccea0ed3",
        ),
        _entry(
            "BigEarthNet-S2.tar.gzab",
            sha256="e0bfe57038e07ff09add42e5bff108d221da10a6e45533fd2eb4ac05e6d90dc2",
        ),
    ],
}


def mirror_files() -> list[FileEntry]:
    """List what a mirror has to hold: the split lists, the table and the archives."""
    lists = [list_entry(f"reBEN/reBEN_7k/{name}") for name in _SIDES.values()]
    return [*lists, *(entry for entries in FILES.values() for entry in entries)]


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
        ValueError: Unknown task, size, band or region; a table that is not BigEarthNet's.
        FileNotFoundError: Files are missing and cannot be downloaded.
        ImportError: duckdb, which reads the table, is not installed.

    Source: arXiv 2407.03653 (data), arXiv 2504.17397 (subset, padding and statistics).
    """
    check_name("task of reben_7k", task, _TASKS)
    card = _TASKS[task]
    indices, names = choose_bands(request.bands, card)
    choose_regions(card, request)  # before any download
    side = request.size or card.size
    if side not in (SIDE, card.size):
        raise GeopeftError(
            f"size of reben_7k must be {card.size} (a patch padded as in the paper) or {SIDE} (the "
            f"bare patch), got {side}."
        )
    listed = {
        part: split_list(f"reBEN/reBEN_7k/{name}", request.download)
        for part, name in _SIDES.items()
    }
    patches = {patch for side in listed.values() for patch in side}
    path = _find("metadata.parquet", request)
    table = _table(path, list(patches), task)
    maps = _find("Reference_Maps", request, patches) if task == "segmentation" else None
    images = _find("BigEarthNet-S2", request, patches)
    files = _Files(images, tuple(_NUMBERS[i] for i in indices), maps)
    cache = ChipCache("reben_7k", repr(files.key), request.cache)

    def missing(patch: str) -> str | None:
        return files.missing(patch) if patch in table else f"its row of {path}"

    def chip(patch: str, part: str) -> Chip:
        row = table[patch]
        fields = patch.split("_")
        region = str(row["country"]).lower() if part != "holdout" else _ZONES[fields[5][1:3]]
        label = _label(patch, row["labels"]) if task == "multilabel" else None

        def read() -> Reading:
            source = files.bands(patch)[0]
            image, mask = cache.read(patch, lambda: files.decode(patch), source)
            crs, bounds = _where(source)
            return _pad(image, mask if label is None else label, side, crs, bounds)

        if region not in card.regions:
            raise GeopeftError(
                f"{path} has chip {patch!r} in {region!r}. Countries of BigEarthNet v2: "
                f"{', '.join(card.regions)}. Fetch the table again."
            )
        day = datetime.datetime.strptime(fields[2][:8], "%Y%m%d").date()
        return Chip(patch, region, "_".join(fields[5:]), read, date=day)

    kept, skipped = keep_present(listed, missing, "reben_7k", request)
    chips = {part: [chip(patch, part) for patch in patches] for part, patches in kept.items()}
    data = published_split(chips, request, card, names, side)
    kept_archives = [
        cache_folder() / entry.path
        for name in ("Reference_Maps", "BigEarthNet-S2")
        for entry in FILES[name]
        if (cache_folder() / CARD.name / name).is_dir()
    ]
    notes = [f"{path} is unpacked and may be deleted." for path in kept_archives if path.is_file()]
    return replace(data, skipped=skipped, notes=tuple(notes))


def _find(name: str, request: Request, patches: Collection[str] = ()) -> Path:
    """Return a folder or file of the data set, downloaded and unpacked if it is nowhere.

    Of the archives only these patches are unpacked, some 100,000 files instead of seven million.
    """
    root = find_dataset(CARD.name, request.root) if request.root else None
    shared = [folder / CARD.name for folder in (*mirror_folders(), cache_folder())]
    for place in [root] if root else shared:
        for path in (place / name / name, place / name):  # unpacked, a folder lies in a folder
            if path.exists():
                return path
    if root:
        raise FileNotFoundError(
            f"{root} is not BigEarthNet v2: it has no {name}. Its folder holds BigEarthNet-S2/, "
            "Reference_Maps/ and metadata.parquet, unpacked."
        )
    parts = [fetch(entry, request.download) for entry in FILES[name]]
    if name == "metadata.parquet":
        return parts[0]
    return (
        extract(parts, cache_folder() / CARD.name / name, lambda file: _patch(file) in patches)
        / name
    )


def _patch(file: str) -> str:
    """Return the patch of a file of the archives, <folder>/<product>/<patch>/<file>."""
    return PurePosixPath(file).parent.name


def _table(path: Path, patches: Sequence[str], task: str) -> dict[str, dict[str, Any]]:
    """Return country, and for multilabel labels, of each of those patches that the table has."""
    try:
        import duckdb
    except ImportError as error:
        raise ImportError(
            "The table of BigEarthNet's patches needs duckdb: pip install duckdb"
        ) from error
    columns = ["patch_id", "country", *(["labels"] if task == "multilabel" else [])]
    query = f"select {', '.join(columns)} from read_parquet(?) where patch_id in (select unnest(?))"
    try:
        with duckdb.connect() as database:
            rows = database.execute(query, [escape(str(path)), patches]).fetchall()
    except duckdb.Error as error:
        reason = str(error).partition("\n")[0]
        raise GeopeftError(
            f"{path} cannot be read ({reason}). It should be BigEarthNet v2's table with columns "
            f"{', '.join(columns)}: fetch it again."
        ) from error
    return {row[0]: dict(zip(columns, row, strict=True)) for row in rows}


def _label(patch: str, there: Iterable[str]) -> np.ndarray:
    """Return (19,) zeros and ones."""
    there = list(there)
    for name in there:
        if name not in CLASSES:
            raise GeopeftError(f"Chip {patch!r}: {unknown_name('label', name, CLASSES)}")
    return np.array([name in there for name in CLASSES], np.int64)


class _Files:
    """Finds and decodes the files of patches.

    Args:
        images: The folder BigEarthNet-S2.
        numbers: Bands to read, as in the names of the files.
        maps: The folder Reference_Maps; None reads no maps.
    """

    def __init__(self, images: Path, numbers: tuple[str, ...], maps: Path | None) -> None:
        self.images, self.numbers, self.maps = images, numbers, maps
        self.key = (str(images), numbers, str(maps))
        self.table = np.full(1 << 16, -2, np.int8)
        self.table[list(UNLABELLED)] = -1
        for index, (_, codes) in enumerate(CLASSES.values()):
            self.table[list(codes)] = index

    def bands(self, patch: str) -> list[Path]:
        folder = _folder(self.images, patch)
        return [folder / f"{patch}_{number}.tif" for number in self.numbers]

    def missing(self, patch: str) -> str | None:
        wanted = self.bands(patch)
        if self.maps:
            wanted.append(_folder(self.maps, patch) / f"{patch}_reference_map.tif")
        # Two folders are listed instead of seven files looked for: it counts on a shared drive.
        there = {folder: _listing(folder) for folder in {path.parent for path in wanted}}
        return next((str(path) for path in wanted if path.name not in there[path.parent]), None)

    def decode(self, patch: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the image (C, 120, 120) as in the files, and classes (120, 120) if there are maps.

        Raises:
            ValueError: A file of another size, or a code that CORINE Land Cover does not have.
        """
        image = np.stack([_square(path) for path in self.bands(patch)])
        if self.maps is None:
            return image, np.zeros(0, np.int8)
        codes = _square(_folder(self.maps, patch) / f"{patch}_reference_map.tif", (SIDE,))
        mask = self.table[codes.astype(np.uint16)]
        if (mask == -2).any():
            unknown = ", ".join(map(str, np.unique(codes[mask == -2])))
            raise GeopeftError(
                f"The reference map of chip {patch!r} has {unknown}, which is no code of CORINE "
                "Land Cover. Restore its file, or take the chip out of the data set."
            )
        return image, mask


def _folder(base: Path, patch: str) -> Path:
    return base / patch.rsplit("_", 2)[0] / patch


def _listing(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _square(path: Path, sides: tuple[int, ...] = (SIDE, SIDE // 2, SIDE // 6)) -> np.ndarray:
    """Read a file, and repeat its pixels if they are larger than 10 m."""
    import rasterio

    with rasterio.open(path) as raster:
        band = raster.read(1)
    if band.shape not in [(side, side) for side in sides]:
        raise GeopeftError(
            f"{path} has {' x '.join(map(str, band.shape))} px instead of "
            f"{' or '.join(map(str, sides))} a side. Restore it, or take the chip out of the data "
            "set."
        )
    times = SIDE // len(band)
    return band.repeat(times, axis=0).repeat(times, axis=1)


@lru_cache(maxsize=20_000)
def _where(path: Path) -> tuple[str | None, Bounds | None]:
    """Return reference system and bounds of a patch, once: opening the file takes a while."""
    import rasterio

    with rasterio.open(path) as raster:
        return (raster.crs.to_string(), tuple(raster.bounds)) if raster.crs else (None, None)


def _pad(
    image: np.ndarray, target: np.ndarray, side: int, crs: str | None, bounds: Bounds | None
) -> Reading:
    """Turn to reflectance and pad; the location stays that of the patch itself."""
    location = centre(crs, bounds)
    extra = side - SIDE
    image = np.pad(image, ((0, 0), (0, extra), (0, extra)), mode="reflect")
    if target.ndim == 2:
        target = np.pad(target, (0, extra), constant_values=-1)
    if bounds is not None:
        left, bottom, right, top = bounds
        metres = extra * (right - left) / SIDE
        bounds = (left, bottom - metres, right + metres, top)
    return Reading(
        image.astype(np.float32) / 10_000, target.astype(np.int64), crs, bounds, location
    )
