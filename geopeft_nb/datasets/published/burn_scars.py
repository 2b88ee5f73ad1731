"""HLS Burn Scars: 804 chips of the contiguous United States, each with the scar of a fire."""

import datetime
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData
from geopeft_nb.datasets.published import common
from geopeft_nb.errors import check_name
from geopeft_nb.files import FileEntry

#: Region -> its UTM zones, with which the names of the MGRS tiles begin.
ZONES = {"pacific": (10, 11), "mountain": (12, 13), "plains": (14, 15), "east": (16, 17, 18)}

CARD = DataCard(
    name="burn_scars",
    title="HLS Burn Scars",
    predicts="burn scar or not, per pixel",
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
    statistics_source="the repository of arXiv 2504.17397; TerraTorch has others for these files",
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
#: Split -> its card.
SPLITS = {
    "published": CARD,
    "by_tile": replace(
        CARD,
        split="by MGRS tile, 60 / 20 / 20 % of the chips of each home region",
        claims=("val", "test", "holdout"),
        leaks="No tile is on two sides, but tiles overlap their neighbours by about 10 km.",
    ),
}


def load_burn_scars(request: DataRequest, *, split: str = "published") -> GeoData:
    """Load HLS Burn Scars; see `load_data`.

    Args:
        request: What was asked for. Files may lie anywhere below the root: in the archive's
            ``training/`` and ``validation/``, or all in one folder.
        split: ``"published"`` for the lists of the paper, in which sides share tiles;
            ``"by_tile"`` for 60 / 20 / 20 % of each home region by whole MGRS tiles.

    Returns:
        Data whose regions are groups of UTM zones, and whose places are MGRS tiles.

    Source: Phillips, Roy et al., https://huggingface.co/datasets/ibm-nasa-geospatial/hls_burn_scars
    """
    check_name("split of burn_scars", split, SPLITS)
    return common.load_published(request, SPLITS[split], partial(_find, by_tile=split == "by_tile"))


def mirror_files(name: str) -> list[FileEntry]:
    """Return the files that a mirror needs: the archive and the lists of the split."""
    return [ARCHIVE, *common.list_entries(name)]


def _find(request: DataRequest, by_tile: bool) -> Iterator[tuple[str, Chip]]:
    folder = common.unpack(CARD.name, [ARCHIVE], request)
    pattern = "**/subsetted_512x512_HLS.S30.*.tif"
    found = {path.name: path for path in common.files_in(folder, pattern, CARD)}
    for side, name in common.listed(CARD.name, request.download):
        tile, day, _ = name.split(".")  # T10SEJ, 2018185: the 185th day of 2018
        region = next(region for region, zones in ZONES.items() if int(tile[1:3]) in zones)
        date = datetime.datetime.strptime(day, "%Y%j").date()
        files = [f"subsetted_512x512_HLS.S30.{name}.4{end}" for end in ("_merged.tif", ".mask.tif")]
        paths = [found.get(file, folder / file) for file in files]
        chip = Chip(name, region, tile, common.read_chip, date=date, files=paths)
        yield "all" if by_tile else side, chip
