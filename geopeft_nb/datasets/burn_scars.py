"""HLS Burn Scars: 804 chips of the contiguous United States, each with the scar of a fire.

The files are GeoTIFFs without compression: a chip reads in about 8 ms. Decoded chips would read
faster, but take as much room again (5.5 GB), so this data set keeps none.
"""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from geopeft_nb.archives import extract
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip, Reading
from geopeft_nb.datasets.cards import DataCard, Request, choose_bands
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import keep_present, list_entry, split_list
from geopeft_nb.datasets.split import cuts, published_split, split_regions
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.files import (
    FileEntry,
    cache_folder,
    check_space,
    fetch,
    find_dataset,
    find_file,
)

#: Region -> its UTM zones, with which the names of the MGRS tiles begin.
ZONES = {"pacific": (10, 11), "mountain": (12, 13), "plains": (14, 15), "east": (16, 17, 18)}

CARD = DataCard(
    name="burn_scars",
    title="HLS Burn Scars",
    task="burn scar or not, per pixel",
    classes=("Not burned", "Burn scar"),
    colours=("#B5BD4C", "#CC3311"),
    bands=HLS_BANDS,
    regions=tuple(ZONES),
    home=tuple(ZONES),
    size=512,
    resolution=30.0,
    labels="fire perimeters of MTBS (mtbs.gov); chips sifted by eye for clouds and missing scars",
    licence="CC-BY-4.0",
    citation="Phillips, Roy et al. (2023), HLS Foundation Burnscars Dataset, doi 10.57967/hf/0956; "
    "split of arXiv 2504.17397",
    homepage="https://huggingface.co/datasets/ibm-nasa-geospatial/hls_burn_scars",
    mean=(0.0525628887, 0.0779808834, 0.0946640745, 0.2139334530, 0.2355762571, 0.1710367799),
    std=(0.0308036711, 0.0375606678, 0.0549106970, 0.0701380521, 0.0910611823, 0.0835518017),
    statistics_source="the repository of arXiv 2504.17397; TerraTorch has others for the same "
    "files (means .0333 .0570 .0589 .2323 .1973 .1194)",
    split="lists of arXiv 2504.17397 (524 / 160 / 120 chips), not the two folders of the archive",
    claims=("holdout",),
    leaks="The published split is not geographic: 28 of the 71 MGRS tiles of test (55 of 120 "
    "chips) and 43 of the 104 of validation (62 of 160) are in training, too, on another day or "
    "in another corner. split='by_tile' keeps tiles apart. Regions share no tile, but tiles "
    "overlap their neighbours by about 10 km, also across a border of regions.",
    download="hls_burn_scars.tar.gz from huggingface.co, 2.6 GB, 5.5 GB more once extracted",
)

ARCHIVE = FileEntry(
    "hls_burn_scars.tar.gz",
    size=2_645_552_531,
    sha256="4e6f99a75cb2c500547b20662a15cbd531dc421376f815e91846ea542798e8e6",
    url="https://huggingface.co/datasets/ibm-nasa-geospatial/hls_burn_scars/resolve/main/"
    "hls_burn_scars.tar.gz",
    licence="CC-BY-4.0",
)
LISTS = {side: f"burn_scars/{side}_data" for side in ("train", "val", "test")}
SPLITS = ("published", "by_tile")

#: Bytes of all files that the archive holds.
EXTRACTED = 5_500_000_000
#: Stands for no data in some files, beside NaN and what their header names.
NO_DATA = -9999.0
_FILE = re.compile(
    r"subsetted_512x512_HLS\.S30\.(T\d\d[A-Z]{3}\.\d{7}\.v1)\.4(_merged|\.mask)\.tif"
)


def load_burn_scars(request: Request, *, split: str = "published") -> GeoData:
    """Load HLS Burn Scars; see `load_data`.

    Args:
        request: What was asked for. Files may lie anywhere below the root: in the archive's
            ``training/`` and ``validation/``, or all in one folder.
        split: ``"published"`` for the lists of the paper, in which sides share tiles;
            ``"by_tile"`` for 60 / 20 / 20 % of each home region by whole MGRS tiles.

    Returns:
        Data whose regions are groups of UTM zones, and whose places are MGRS tiles.

    Raises:
        ValueError: Unknown split, band or region, or a size that does not divide 512.
        FileNotFoundError: The folder has none of the files, or lacks some and none are to be
            skipped; or the archive can neither be found nor downloaded.
        OSError: The disk has too little room for the archive and what is in it.

    Source: Phillips, Roy et al., https://huggingface.co/datasets/ibm-nasa-geospatial/hls_burn_scars
    """
    check_name("split of burn_scars", split, SPLITS)
    indices, names = choose_bands(request.bands, CARD)
    side = request.size or CARD.size
    windows = cuts(CARD.size, side, CARD.name)
    folder, notes = _folder(request)
    files = _scan(folder)
    listed = {name: split_list(entry, request.download) for name, entry in LISTS.items()}
    kept, skipped = keep_present(listed, partial(_missing, files), CARD.title, request)
    sides = {
        name: [_chip(chip, files[chip], indices, *cut) for chip in kept[name] for cut in windows]
        for name in LISTS
    }
    if split == "published":
        data = published_split(sides, request, CARD, names, side)
    else:
        card = replace(
            CARD,
            split="by MGRS tile, 60 / 20 / 20 % of the chips of each home region",
            claims=("val", "test", "holdout"),
            leaks="No tile is on two sides, but tiles overlap their neighbours by about 10 km.",
        )
        everything = [chip for chips in sides.values() for chip in chips]
        data = split_regions(everything, request, card, names, side)
    return replace(data, notes=notes, skipped=skipped)


def mirror_files() -> list[FileEntry]:
    """Return the files that a mirror needs: the archive and the lists of the split."""
    return [ARCHIVE, *map(list_entry, LISTS.values())]


def _folder(request: Request) -> tuple[Path, tuple[str, ...]]:
    """Find the files, or download and extract the archive into the cache; say so in a note."""
    if folder := find_dataset(CARD.name, request.root):
        return folder, ()
    cache = cache_folder()
    if find_file(ARCHIVE) is None and request.download:
        check_space(cache, (ARCHIVE.size or 0) + EXTRACTED, CARD.title)
    archive = fetch(ARCHIVE, download=request.download)
    folder = extract(archive, cache / CARD.name)
    return folder, (f"{archive} was extracted into {folder}, and is not needed there any more.",)


def _scan(folder: Path) -> dict[str, dict[str, Path]]:
    """Look through a folder once: name of each chip -> ``_merged`` and ``.mask`` -> file."""
    found: dict[str, dict[str, Path]] = {}
    for here, below, names in os.walk(folder):
        below.sort()
        for name in names:
            if match := _FILE.fullmatch(name):
                found.setdefault(match[1], {}).setdefault(match[2], Path(here, name))
    if not found:
        raise FileNotFoundError(
            f"{folder} has no file of {CARD.title}, neither itself nor in the folders below. "
            "Expected are names such as subsetted_512x512_HLS.S30.T10SEJ.2018185.v1.4_merged.tif "
            f"and ….v1.4.mask.tif: extract {ARCHIVE.name} there, or give another root=..."
        )
    return found


def _missing(files: dict[str, dict[str, Path]], chip: str) -> str | None:
    """Name the file that a chip lacks, if it lacks one."""
    present = files.get(chip, {})
    lacking = [kind for kind in ("_merged", ".mask") if kind not in present]
    return f"subsetted_512x512_HLS.S30.{chip}.4{lacking[0]}.tif" if lacking else None


def _chip(
    name: str, files: dict[str, Path], indices: list[int],
    suffix: str, top: int, left: int, side: int,
) -> Chip:  # fmt: skip
    tile, day, _ = name.split(".")  # T10SEJ, 2018185: the 185th day of 2018
    region = next(region for region, zones in ZONES.items() if int(tile[1:3]) in zones)
    date = datetime.datetime.strptime(day, "%Y%j").date()
    read = partial(_read, files["_merged"], files[".mask"], tuple(indices), side, top, left)
    return Chip(f"{name}{suffix}", region, tile, read, date=date)


def _read(
    image_file: Path, mask_file: Path, indices: tuple[int, ...], side: int, top: int, left: int
) -> Reading:
    """Read a square of an image (C, side, side), reflectance 0-1, and of its mask."""
    import rasterio
    from rasterio.windows import Window

    window = Window(left, top, side, side)
    with rasterio.open(image_file) as raster, rasterio.open(mask_file) as labels:
        for file, count in ((raster, len(CARD.bands)), (labels, 1)):
            if (file.count, *file.shape) != (count, CARD.size, CARD.size):
                raise GeopeftError(
                    f"{file.name} has {file.count} band(s) of {file.height} x {file.width} px "
                    f"instead of {count} of {CARD.size} x {CARD.size}. Restore the published file."
                )
        image = raster.read([index + 1 for index in indices], window=window)
        mask = labels.read(1, window=window)
        unknown = np.isnan(image) | (image == NO_DATA)
        if raster.nodata is not None:
            unknown |= image == raster.nodata
        crs = raster.crs.to_string() if raster.crs else None
        bounds = raster.window_bounds(window) if raster.crs else None
    image[unknown] = 0
    return Reading(image.astype(np.float32, copy=False), mask.astype(np.int64), crs, bounds)
