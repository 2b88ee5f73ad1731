"""EuroSAT: land use of 27,000 places in Europe, one class per Sentinel-2 chip.

The chips say where they lie, so that they can be split by place and by region instead of at random,
as EuroSAT mostly is. A place is a cell of a quarter of a degree, a region a range of longitudes.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from math import floor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geopeft_nb.archives import extract
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Bounds, Chip, centre
from geopeft_nb.datasets.cards import DataCard, Request, choose_bands
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import keep_present
from geopeft_nb.datasets.split import SIDES, choose_regions, published_split, split_regions
from geopeft_nb.errors import GeopeftError, check_name, unknown_name
from geopeft_nb.files import (
    FileEntry,
    cache_folder,
    check_file,
    fetch,
    find_dataset,
    find_folder,
)

#: Folder name -> colour; the place in this list is the label.
CLASSES = {
    "AnnualCrop": "#E69F00", "Forest": "#117733", "HerbaceousVegetation": "#999933",
    "Highway": "#555555", "Industrial": "#882255", "Pasture": "#44AA99",
    "PermanentCrop": "#D55E00", "Residential": "#CC79A7", "River": "#56B4E9",
    "SeaLake": "#0072B2",
}  # fmt: skip

CARD = DataCard(
    name="eurosat",
    title="EuroSAT (Sentinel-2)",
    task="land use or land cover, one class per chip",
    classes=tuple(CLASSES),
    colours=tuple(CLASSES.values()),
    bands=(  # ordered by number, but for B8A, which is last
        "COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3",
        "NIR_BROAD", "WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2", "NIR_NARROW",
    ),
    regions=("west", "centre", "east"),
    home=("west", "centre"),
    size=64,
    resolution=10.0,
    labels="from the European Urban Atlas, looked through by the authors; one for a whole chip",
    licence="MIT; contains modified Copernicus Sentinel data",
    citation="Helber et al. 2019, EuroSAT (doi:10.1109/JSTARS.2019.2918242)",
    kind="classification",
    homepage="https://github.com/phelber/EuroSAT",
    default_bands=HLS_BANDS,
    mean=(
        0.1354405, 0.1118244, 0.1042930, 0.0947626, 0.1199473, 0.1999791, 0.2369223, 0.2296826,
        0.0732083, 0.0012113, 0.1819010, 0.1118924, 0.2594141,
    ),
    std=(
        0.0245718, 0.0333008, 0.0395092, 0.0593751, 0.0566417, 0.0861184, 0.1086631, 0.1117982,
        0.0404920, 0.0004776, 0.1002588, 0.0761303, 0.1231586,
    ),
    statistics_source=(
        "torchgeo's EuroSATDataModule (MIT), divided by 10,000. Level 1C: reflectance at the top "
        "of the atmosphere, haze included, not of the surface as in HLS"
    ),
    split=(
        "by place, cells of 0.25 degrees of latitude and longitude: 60 / 20 / 20 % of the chips "
        "of each home region; regions west of 3 degrees east, from 13 degrees on, and between"
    ),
    leaks=(
        "none within a cell; chips on two sides of a cell's border may lie close to each other. "
        "geopeft_tiny was pretrained on the images, not the labels, of the sample, of all regions"
    ),
    download="EuroSAT100.zip, about 10 MB; with subset='full' EuroSATallBands.zip, about 2 GB",
)  # fmt: skip

#: How the card differs for the split that was published.
PUBLISHED = {
    "split": "published with torchgeo: 60 / 20 / 20 %, drawn at random (arXiv 1911.06721)",
    "claims": ("holdout",),
    "leaks": (
        "the split is random, so neighbours are on all sides. Even of 200 chips from all over "
        "Europe, a random split leaves 14 of 80 validation and test chips, on average, in a cell "
        "of 0.25 degrees with a training chip; the 27,000 lie far denser"
    ),
    "home": CARD.regions,
}

_SOURCE = (
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
    "1ce6f1bfb56db63fd91b6ecc466ea67f2509774c"
)


def _entry(name: str, sha256: str) -> FileEntry:
    return FileEntry(f"eurosat/{name}", url=f"{_SOURCE}/{name}", licence="MIT", sha256=sha256)


#: Subset -> its archive. The sample of 200 chips is in mirrors only.
ARCHIVES: dict[str, FileEntry] = {
    "full": _entry(
        "EuroSATallBands.zip", "751f070f9bffa2eed48b24ca2dd0b02959280c08837e8c9a5532a67ba611df59"
    ),
    "100": _entry(
        "EuroSAT100.zip", "2ed4bb4a6808004c98691f64b366827f7783c76a49151e7c2b70423eb77a5b76"
    ),
}
#: Subset -> side -> list of its chips.
LISTS: dict[str, dict[str, FileEntry]] = {
    "full": {
        "train": _entry(
            "eurosat-train.txt", "1c1d2e855f95deee605a3d992f914d113fddbecf422ec61648057d029a37d695"
        ),
        "val": _entry(
            "eurosat-val.txt", "b385741f31daa9f1250cf1e1fe03adfab394e1172e0693df40141af004f60330"
        ),
        "test": _entry(
            "eurosat-test.txt", "cf37948894c12bd953930ff54ee9b7abf0b31478abb8d25fd2c6c721db74c592"
        ),
    },
    "100": {
        "train": _entry(
            "eurosat-100-train.txt",
            "7f2416377fc379d43197512ef2f7582e87f62c7b2b63ac576bd5c18f110e0a20",
        ),
        "val": _entry(
            "eurosat-100-val.txt",
            "09e4744d15299c0e5b39a5bb211ce245b8dbaeafc5353ce3372f5db69f6e59d8",
        ),
        "test": _entry(
            "eurosat-100-test.txt",
            "576738254dffa4fd3cdefed1763ecbd9f6e2b4de0f5ec8a9aa4ff301a6d8e00e",
        ),
    },
}
#: Subset -> where its chips lie below a mirror or the cache.
FOLDERS = {"full": "eurosat/EuroSATallBands", "100": "eurosat/EuroSAT100", "sample": "eurosat_ms"}


class Spot(NamedTuple):
    """Where a chip lies: bounds in units of its crs, and its centre in degrees."""

    crs: str
    bounds: Bounds
    latitude: float
    longitude: float

    @property
    def region(self) -> str:
        """West of 3 degrees east, from 13 on east, and centre between."""
        return CARD.regions[(self.longitude >= 3) + (self.longitude >= 13)]

    @property
    def place(self) -> str:
        """The south-western corner of its cell of a quarter of a degree; 3 and 13 are borders."""
        south, west = floor(self.latitude * 4) / 4, floor(self.longitude * 4) / 4
        return f"lat{south:.2f}-lon{west:.2f}"


def load_eurosat(request: Request, *, subset: str = "100", split: str = "places") -> GeoData:
    """Load EuroSAT, its 100-chip subset, or the mirror's sample; see `load_data`.

    Home is west and centre: one region alone would leave some 30 of 100 chips for ten classes. The
    first time, the header of every file is read to find out where it lies (27,000 take a minute or
    two); that is kept in the cache folder, and later loads take seconds.

    Args:
        request: What `load_data` was asked for. With a root, its chips are those of any folders
            ``<Class>`` in it, at any depth.
        subset: ``"100"``: torchgeo's EuroSAT100, ten chips of each class; the default, because it
            arrives in seconds and trains in a minute on a laptop. A score on its 20 test chips
            says little; ``"full"`` (2 GB) is for results, ``"sample"`` the 200 chips of a mirror.
        split: ``"places"`` keeps the chips of a place on one side and holds regions out;
            ``"published"`` is torchgeo's random split, for comparison with published scores: of
            all regions, unless `train_regions` are given.

    Raises:
        ValueError: Unknown subset, split, region or size, a file that is no chip of EuroSAT, or a
            published split of the sample, which has none.
        FileNotFoundError: The chips are not there, or some that the published lists name.
    """
    check_name("subset of eurosat", subset, FOLDERS)
    if split not in ("places", "published"):
        raise unknown_name("split of eurosat", split, ("places", "published"))
    if split == "published" and subset not in LISTS:
        raise GeopeftError(
            f"subset={subset!r} has no published split, its chips were chosen for this toolkit. "
            "Take split='places', or subset='100' or 'full'."
        )
    if request.size not in (None, CARD.size):
        raise GeopeftError(
            f"size must be {CARD.size} for eurosat, got {request.size}: a chip has one label, "
            "which need not hold for a part of it."
        )
    card = replace(CARD, **PUBLISHED) if split == "published" else CARD  # type: ignore[arg-type]
    choose_regions(card, request)
    indices, bands = choose_bands(request.bands, card)
    listed = _lists(subset, request) if split == "published" else None
    folder = _folder(subset, request)
    files = _scan(folder)
    spots = _index(folder, files, keep=request.cache)
    wanted = {name for names in listed.values() for name in names} if listed else set(files)
    bad = {name: spot for name in wanted if isinstance(spot := spots.get(name), str)}
    if bad and request.unreadable != "skip":
        raise GeopeftError(
            f"{len(bad):,} of {len(wanted):,} chips are unfit, for example {min(bad)!r}: "
            f"{bad[min(bad)]}. Restore the files, or load the others with unreadable='skip', which "
            "names these in data.skipped."
        )
    chips = {
        name: _chip(name, files[name], spot, indices)
        for name, spot in spots.items()
        if isinstance(spot, Spot)
    }
    if listed is None:
        data = split_regions(list(chips.values()), request, card, bands, CARD.size)
        return replace(data, skipped=bad)
    fit = {side: [name for name in names if name not in bad] for side, names in listed.items()}
    kept, skipped = keep_present(
        fit, lambda name: None if name in chips else f"{name}.tif", "eurosat", request
    )
    sides = {side: [chips[name] for name in names] for side, names in kept.items()}
    data = published_split(sides, request, card, bands, CARD.size)
    return replace(data, skipped=bad | skipped)


def mirror_files() -> list[FileEntry]:
    """Return what a classroom's mirror needs: the subset of 100 chips and its lists."""
    return [ARCHIVES["100"], *LISTS["100"].values()]


def _lists(subset: str, request: Request) -> dict[str, list[str]]:
    """Return the chips of each side; a root may hold the lists, as torchgeo leaves them."""
    found = {}
    for side in SIDES:
        entry = LISTS[subset][side]
        own = Path(request.root or "").expanduser() / entry.name
        if request.root is not None and own.is_file():
            path = check_file(own, entry)
        else:
            path = fetch(entry, download=request.download)
        # They are those of the coloured pictures, .jpg, of the same names.
        found[side] = [Path(line).stem for line in path.read_text(encoding="utf-8").split()]
    return found


def _folder(subset: str, request: Request) -> Path:
    """Return the folder of the chips, which is downloaded and extracted if need be."""
    name = FOLDERS[subset]
    if found := find_dataset(name, request.root):
        return found
    if subset not in ARCHIVES:
        return find_folder(name, "The sample of EuroSAT")  # which says why it cannot be had
    return extract(fetch(ARCHIVES[subset], download=request.download), cache_folder() / name)


def _scan(folder: Path) -> dict[str, Path]:
    """Find the chips, by name.

    Raises:
        FileNotFoundError: There are none.
        ValueError: Two have the same name.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.tif")):
        if path.parent.name not in CLASSES or path.name.startswith("."):
            continue
        if other := files.get(path.stem):
            raise GeopeftError(
                f"{folder} holds two files of chip {path.stem!r}: {other} and {path}. Give the "
                "folder of one copy with root=..."
            )
        files[path.stem] = path
    if not files:
        raise FileNotFoundError(
            f"{folder} is no folder of EuroSAT: it has no GeoTIFF such as AnnualCrop/"
            f"AnnualCrop_1.tif, at any depth. The folders are {', '.join(CLASSES)}; the coloured "
            "pictures (.jpg) lack ten of the bands."
        )
    return files


def _index(folder: Path, files: Mapping[str, Path], keep: bool) -> dict[str, Spot | str]:
    """Say where each chip lies, or why it is unfit: as found earlier, if the files are the same."""
    state = hashlib.sha256()
    for path in files.values():
        about = path.stat()
        state.update(f"{path.relative_to(folder)} {about.st_size} {about.st_mtime_ns}\n".encode())
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    index = cache_folder() / "eurosat" / f"index-{key}.json"
    if keep:
        try:
            saved = json.loads(index.read_text(encoding="utf-8"))
            if saved["state"] == state.hexdigest():
                return {
                    name: row if isinstance(row, str) else Spot(row[0], tuple(row[1]), *row[2:])
                    for name, row in saved["spots"].items()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # not there yet, or damaged
    spots = _headers(files)
    if keep:
        _write(index, json.dumps({"state": state.hexdigest(), "spots": spots}))
    return spots


def _headers(files: Mapping[str, Path]) -> dict[str, Spot | str]:
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        # Files without coordinates are named as unfit instead.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return {name: _header(path) for name, path in files.items()}


def _header(path: Path) -> Spot | str:
    import rasterio

    wanted = (len(CARD.bands), CARD.size, CARD.size)
    try:
        with rasterio.open(path) as raster:
            shape, crs, bounds = (raster.count, *raster.shape), raster.crs, tuple(raster.bounds)
            located = crs is not None and not raster.transform.is_identity
        if shape != wanted:
            return f"{path} has (bands, rows, columns) {shape} instead of {wanted}"
        here = centre(crs.to_string(), bounds) if located else None
    except Exception as error:  # not only rasterio's own: those of GDAL below it are private
        return f"{path} cannot be read ({error})"
    if here is None or not np.isfinite(here).all():
        return f"{path} does not say where it lies"
    return Spot(crs.to_string(), bounds, *here)


def _write(index: Path, text: str) -> None:
    """Keep the index: under another name first, so that nobody reads half of it."""
    temporary = index.with_name(f"{index.name}.{os.getpid()}.tmp")
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(index)
    except OSError as error:
        warnings.warn(
            f"Where the chips of EuroSAT lie is not kept in {index.parent} ({error}): each load "
            "reads the header of every file. Set GEOPEFT_CACHE to a folder that can be written to.",
            stacklevel=2,
        )


def _chip(name: str, path: Path, spot: Spot, indices: list[int]) -> Chip:
    label = np.array(list(CLASSES).index(path.parent.name), np.int64)

    def read() -> tuple[np.ndarray, np.ndarray]:
        import rasterio

        # The files are not compressed: to keep decoded copies of them would gain nothing.
        with rasterio.open(path) as raster:
            image = raster.read([index + 1 for index in indices])
        return image.astype(np.float32) / 10_000, label

    return Chip(
        name, spot.region, spot.place, read, spot.crs, spot.bounds,
        location=(spot.latitude, spot.longitude),
    )  # fmt: skip
