"""EuroSAT: land use of 27,000 places in Europe, one class per Sentinel-2 chip.

The chips say where they lie, so that they can be split by place and by region instead of at random,
as EuroSAT mostly is. A place is a cell of a quarter of a degree, a region a range of longitudes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Reading, centre
from geopeft_nb.datasets.cards import DataCard, Request
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import (
    Found,
    load_published,
    read_raster,
    unpack,
)
from geopeft_nb.datasets.split import SIDES, Cut
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.files import FileEntry, check_file, fetch, find_folder

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
    sizes=(64,),  # a label need not hold for a part of its chip
    scale=10_000,
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

#: Split -> its card.
SPLITS = {
    "places": CARD,
    "published": replace(
        CARD,
        split="published with torchgeo: 60 / 20 / 20 %, drawn at random (arXiv 1911.06721)",
        claims=("holdout",),
        leaks="the split is random, so neighbours are on all sides. Even of 200 chips from all "
        "over Europe, a random split leaves 14 of 80 validation and test chips, on average, in a "
        "cell of 0.25 degrees with a training chip; the 27,000 lie far denser",
        home=CARD.regions,
    ),
}
#: Subset -> where its chips lie below a mirror or the cache, its archive, and how the names of its
#: lists begin. The sample of 200 chips is in mirrors only, and has no published lists.
SUBSETS = {
    "100": ("eurosat/EuroSAT100", "EuroSAT100.zip", "eurosat-100"),
    "full": ("eurosat/EuroSATallBands", "EuroSATallBands.zip", "eurosat"),
    "sample": ("eurosat_ms", "", ""),
}
#: File -> its sha256.
FILES = {
    "EuroSATallBands.zip": "751f070f9bffa2eed48b24ca2dd0b02959280c08837e8c9a5532a67ba611df59",
    "eurosat-train.txt": "1c1d2e855f95deee605a3d992f914d113fddbecf422ec61648057d029a37d695",
    "eurosat-val.txt": "b385741f31daa9f1250cf1e1fe03adfab394e1172e0693df40141af004f60330",
    "eurosat-test.txt": "cf37948894c12bd953930ff54ee9b7abf0b31478abb8d25fd2c6c721db74c592",
    "EuroSAT100.zip": "2ed4bb4a6808004c98691f64b366827f7783c76a49151e7c2b70423eb77a5b76",
    "eurosat-100-train.txt": "7f2416377fc379d43197512ef2f7582e87f62c7b2b63ac576bd5c18f110e0a20",
    "eurosat-100-val.txt": "09e4744d15299c0e5b39a5bb211ce245b8dbaeafc5353ce3372f5db69f6e59d8",
    "eurosat-100-test.txt": "576738254dffa4fd3cdefed1763ecbd9f6e2b4de0f5ec8a9aa4ff301a6d8e00e",
}
_SOURCE = (
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
    "1ce6f1bfb56db63fd91b6ecc466ea67f2509774c"
)


def load_eurosat(request: Request, *, subset: str = "100", split: str = "places") -> GeoData:
    """Load EuroSAT, its 100-chip subset, or the mirror's sample; see `load_data`.

    Home is west and centre: one region alone would leave some 30 of 100 chips for ten classes.
    Loading reads the header of every file to find out where it lies: 27,000 take a minute or two.

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
        ValueError: A file that is no chip of EuroSAT, or a published split of the sample, which
            has none; and see `load_published`.
    """
    check_name("split of eurosat", split, SPLITS)
    card = SPLITS[split]
    check_name("subset of eurosat", subset, SUBSETS)
    folder, archive, lists = SUBSETS[subset]
    if split == "published" and not lists:
        raise GeopeftError(
            f"subset={subset!r} has no published split, its chips were chosen for this toolkit. "
            "Take split='places', or subset='100' or 'full'."
        )
    prefix = lists if split == "published" else ""
    find = partial(_find, folder=folder, archive=archive, prefix=prefix)
    return load_published(request, card, find, _describe, _read)


def mirror_files() -> list[FileEntry]:
    """Return what a classroom's mirror needs: the subset of 100 chips and its lists."""
    return [_entry(name) for name in FILES if "100" in name]


def _entry(name: str) -> FileEntry:
    url = f"{_SOURCE}/{name}"
    return FileEntry(f"eurosat/{name}", url=url, licence="MIT", sha256=FILES[name])


def _find(request: Request, folder: str, archive: str, prefix: str) -> Found:
    if archive or request.root:
        root, notes = unpack(folder, [_entry(archive)] if archive else [], request)
    else:
        root, notes = find_folder(folder, "The sample of EuroSAT"), ()
    files: dict[str, Path] = {}
    for path in sorted(root.rglob("*.tif")):
        if path.parent.name in CLASSES and not path.name.startswith("."):
            if other := files.get(path.stem):
                raise GeopeftError(
                    f"{root} holds two files of chip {path.stem!r}: {other} and {path}. Give the "
                    "folder of one copy with root=..."
                )
            files[path.stem] = path
    if not files:
        raise FileNotFoundError(
            f"{root} is no folder of EuroSAT: it has no GeoTIFF such as AnnualCrop/"
            f"AnnualCrop_1.tif, at any depth. The folders are {', '.join(CLASSES)}; the coloured "
            "pictures (.jpg) lack ten of the bands."
        )
    sides = {"all": list(files)}
    if prefix:
        sides = {side: _list(f"{prefix}-{side}.txt", request) for side in SIDES}
    return Found(sides, lambda name: [files.get(name, root / f"{name}.tif")], notes=notes)


def _list(name: str, request: Request) -> list[str]:
    """Return the chips of a side; a root may hold the lists, as torchgeo leaves them."""
    own, entry = Path(request.root or "").expanduser() / name, _entry(name)
    if request.root and own.is_file():
        path = check_file(own, entry)
    else:
        path = fetch(entry, request.download)
    # They are those of the coloured pictures, .jpg, of the same names.
    return [Path(line).stem for line in path.read_text(encoding="utf-8").split()]


def _describe(name: str, found: Found) -> Mapping[str, Any]:
    """Read from a file's header where it lies."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    (path,) = found.files(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", NotGeoreferencedWarning)
            with rasterio.open(path) as raster:
                crs, bounds = raster.crs and raster.crs.to_string(), tuple(raster.bounds)
    except (RasterioError, NotGeoreferencedWarning) as error:
        raise GeopeftError(f"{path} does not say where it lies ({error}). Restore it.") from error
    if (location := centre(crs, bounds)) is None:
        raise GeopeftError(f"{path} does not say where it lies. Restore it.")
    return {
        "region": region_of(location[1]), "place": place_of(*location),
        "crs": crs, "bounds": bounds, "location": location,
    }  # fmt: skip


def region_of(longitude: float) -> str:
    """Return the region: west of 3 degrees east, from 13 on east, and centre between."""
    return CARD.regions[(longitude >= 3) + (longitude >= 13)]


def place_of(latitude: float, longitude: float) -> str:
    """Name the cell of a quarter of a degree by its south-western corner; 3 and 13 are borders."""
    return f"lat{floor(latitude * 4) / 4:.2f}-lon{floor(longitude * 4) / 4:.2f}"


def _read(name: str, found: Found, indices: list[int], cut: Cut) -> Reading:
    (path,) = found.files(name)
    shape = (len(CARD.bands), CARD.size, CARD.size)
    image, crs, bounds = read_raster(path, indices, cut, shape)
    return Reading(image, np.array(list(CLASSES).index(path.parent.name)), crs, bounds)
