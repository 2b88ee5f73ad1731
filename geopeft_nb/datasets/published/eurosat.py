"""EuroSAT: land use of 27,000 places in Europe, one class per Sentinel-2 chip.

The chips say where they lie, so that they can be split by place and by region instead of at random,
as EuroSAT mostly is: of 200 chips from all over Europe, a random split leaves 14 of 80 validation
and test chips, on average, in one cell with a training chip. A place is a cell of a quarter of a
degree, a region a range of longitudes.
"""

from collections.abc import Iterator
from functools import partial
from math import floor

import numpy as np

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip, centre
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData
from geopeft_nb.datasets.published import common
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.files import FileEntry
from geopeft_nb.open_files import open_raster

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
    predicts="land use or land cover, one class per chip",
    classes=tuple(CLASSES),
    colours=tuple(CLASSES.values()),
    bands=(  # ordered by number, but for B8A, which is last
        "COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3",
        "NIR_BROAD", "WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2", "NIR_NARROW",
    ),
    regions=("west", "centre", "east"),
    home=("west", "centre"),
    size=64,
    whole=True,  # a label need not hold for a part of its chip
    scale=10_000,
    resolution=10.0,
    labels="from the European Urban Atlas, looked through by the authors; one for a whole chip",
    licence="MIT; contains modified Copernicus Sentinel data",
    citation="Helber et al. 2019, EuroSAT (doi:10.1109/JSTARS.2019.2918242)",
    task="classification",
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
    statistics_source="torchgeo's EuroSATDataModule, divided by 10,000. Level 1C: reflectance at "
    "the top of the atmosphere, haze included, not of the surface as in HLS",
    split="by place, cells of 0.25 degrees: 60 / 20 / 20 % of the chips of each home region, which "
    "lie west of 3 degrees east, from 13 degrees on, and between",
    leaks="none within a cell; chips on two sides of a cell's border may lie close to each other. "
    "geopeft_tiny was pretrained on the images, not the labels, of 200 chips of all regions",
    download="EuroSAT100.zip, about 10 MB; with subset='full' EuroSATallBands.zip, about 2 GB",
)  # fmt: skip

_COMMIT = "1ce6f1bfb56db63fd91b6ecc466ea67f2509774c"
_SOURCE = f"https://huggingface.co/datasets/torchgeo/eurosat/resolve/{_COMMIT}"
#: Subset -> the name of its archive, and its sha256.
SUBSETS = {
    "100": ("EuroSAT100", "2ed4bb4a6808004c98691f64b366827f7783c76a49151e7c2b70423eb77a5b76"),
    "full": ("EuroSATallBands", "751f070f9bffa2eed48b24ca2dd0b02959280c08837e8c9a5532a67ba611df59"),
}


def load_eurosat(request: DataRequest, *, subset: str = "100") -> GeoData:
    """Load EuroSAT or its 100-chip subset; see `load_data`.

    Home is west and centre: one region alone would leave some 30 of 100 chips for ten classes.

    Args:
        request: What `load_data` was asked for. With a root, its chips are those of any folders
            ``<Class>`` in it, at any depth.
        subset: ``"100"``: torchgeo's EuroSAT100, ten chips of each class; the default, because it
            arrives in seconds and trains in a minute on a laptop. A score on its 20 test chips
            says little; ``"full"`` (2 GB) is for results.

    Raises:
        ValueError: A file that is no chip of EuroSAT; and see `load_published`.
    """
    check_name("subset of eurosat", subset, SUBSETS)
    return common.load_published(request, CARD, partial(_find, subset=subset))


def mirror_files(name: str) -> list[FileEntry]:
    """Return what a classroom's mirror needs: the subset of 100 chips."""
    return [_archive("100")]


def _archive(subset: str) -> FileEntry:
    name, digest = SUBSETS[subset]
    url = f"{_SOURCE}/{name}.zip"
    return FileEntry(f"eurosat/{name}.zip", url=url, licence="MIT", sha256=digest)


def _find(request: DataRequest, subset: str) -> Iterator[tuple[str, Chip]]:
    archive = _archive(subset)
    folder = common.unpack(archive.path.removesuffix(".zip"), [archive], request)
    for path in common.files_in(folder, "**/[!.]*.tif", CARD):
        if (name := path.parent.name) in CLASSES:
            with open_raster(path) as raster:
                crs, bounds = raster.crs and raster.crs.to_string(), tuple(raster.bounds)
            if not (where := centre(crs, bounds)):
                raise GeopeftError(f"{path} does not say where it lies. Restore it.")
            read = partial(common.read_chip, target=np.array(CARD.classes.index(name)))
            place = region_of(where[1]), place_of(*where)
            yield "all", Chip(path.stem, *place, read, crs, bounds, files=[path])


def region_of(longitude: float) -> str:
    """Return the region: west of 3 degrees east, from 13 on east, and centre between."""
    return CARD.regions[(longitude >= 3) + (longitude >= 13)]


def place_of(latitude: float, longitude: float) -> str:
    """Name the cell of a quarter of a degree by its south-western corner; 3 and 13 are borders."""
    return f"lat{floor(latitude * 4) / 4:.2f}-lon{floor(longitude * 4) / 4:.2f}"
