"""Sen1Floods11, its hand-labelled part: water or not in 446 Sentinel-2 chips of eleven floods.

The chips come one by one, each image with its label. Split as in arXiv 2504.17397; Bolivia is held
out. Source: Bonafilia et al., CVPR workshops 2020, https://github.com/cloudtostreet/Sen1Floods11.
"""

from collections.abc import Iterator
from datetime import date
from itertools import chain

from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData
from geopeft_nb.datasets.published import common
from geopeft_nb.datasets.split import choose_regions
from geopeft_nb.files import FileEntry, fetch_many, find_dataset

#: Event -> when Sentinel-2 passed, by the data set's Sen1Floods11_Metadata.geojson, in which Mekong
#: is Cambodia.
DAYS = {
    "Bolivia": date(2018, 2, 15), "Ghana": date(2018, 9, 19), "India": date(2016, 8, 12),
    "Mekong": date(2018, 8, 4), "Nigeria": date(2018, 9, 20), "Pakistan": date(2017, 6, 28),
    "Paraguay": date(2018, 10, 31), "Somalia": date(2018, 5, 5), "Spain": date(2019, 9, 18),
    "Sri-Lanka": date(2017, 5, 28), "USA": date(2019, 5, 22),
}  # fmt: skip
EVENTS = tuple(DAYS)
CARD = DataCard(
    name="sen1floods11",
    title="Sen1Floods11",
    predicts="water or not during floods, per pixel",
    classes=("Not water", "Water"),
    colours=("#D9CFB8", "#0072B2"),
    bands=SENTINEL2_BANDS,
    regions=EVENTS,
    home=EVENTS[1:],
    size=512,
    scale=10_000,
    compressed=True,
    resolution=10.0,
    labels="drawn by hand; -1 where there is no label",
    licence="CC-BY-4.0; contains modified Copernicus Sentinel data",
    citation="Bonafilia, Tellman, Anderson, Issenberg: Sen1Floods11. CVPR Workshops 2020",
    homepage="https://github.com/cloudtostreet/Sen1Floods11",
    default_bands=HLS_BANDS,
    mean=(
        0.16450718, 0.1412956, 0.13795798, 0.12353792, 0.1481099, 0.23991728, 0.28587557,
        0.26345379, 0.30902815, 0.04911151, 0.00652506, 0.2044958, 0.11912015,
    ),
    std=(
        0.06977374, 0.07406382, 0.07370365, 0.08692279, 0.07778555, 0.09105416, 0.10690993,
        0.10096586, 0.11798815, 0.03380113, 0.01463465, 0.09772074, 0.07659938,
    ),
    statistics_source="published with arXiv 2504.17397, divided by 10,000",
    split="published lists: 252 / 89 / 90 chips of ten flood events (regions, named as in the "
    "chips; Mekong is Cambodia), and the 15 of Bolivia held out",
    claims=("holdout",),
    leaks="each of the ten events is in training, validation and test: all 89 validation and all "
    "90 test chips show the same flood as 10 to 41 training chips, and may lie side by side with "
    "them. Only held-out regions are other floods.",
    download="446 chips one by one from storage.googleapis.com/sen1floods11, about 1 GB; with "
    "train_regions= and holdout_regions= those of these floods only",
)  # fmt: skip

_HAND = "v1.1/data/flood_events/HandLabeled"


def load_sen1floods11(request: DataRequest) -> GeoData:
    """Load Sen1Floods11, cut smaller if asked; see `load_data`.

    Without a root each file is looked for by itself, so that a mirror may have only some chips. The
    others are downloaded, if they are of the regions that were asked for.
    """
    return common.load_published(request, CARD, _find)


def mirror_files(name: str) -> list[FileEntry]:
    """Describe all files that a mirror needs: the lists and 446 pairs of files."""
    pairs = [_pair(chip) for _, chip in common.listed(CARD.name)]
    return [*common.list_entries(CARD.name), *chain(*pairs)]


def _pair(chip: str) -> list[FileEntry]:
    """Describe image and label of a chip."""
    paths = [f"{_HAND}/{part}/{chip}_{part}.tif" for part in ("S2Hand", "LabelHand")]
    site = "https://storage.googleapis.com"
    return [
        FileEntry(f"{CARD.name}/{path}", url=f"{site}/{CARD.name}/{path}", licence="CC-BY-4.0")
        for path in paths
    ]


def _find(request: DataRequest) -> Iterator[tuple[str, Chip]]:
    root = find_dataset(CARD.name, request.root) if request.root else None
    asked = {*chain(*choose_regions(CARD, request))}  # of no other event anything is downloaded
    chips = [
        (side, name)
        for side, name in common.listed(CARD.name, request.download)
        if name.rpartition("_")[0] in asked
    ]
    entries = [entry for _, name in chips for entry in _pair(name)]
    if root:
        paths = [root / entry.path.removeprefix(f"{CARD.name}/") for entry in entries]
    else:
        paths = fetch_many(entries, f"the chips of {CARD.title}", request.download)
    for (side, name), *files in zip(chips, paths[::2], paths[1::2], strict=True):
        event, read = name.rpartition("_")[0], common.read_chip
        yield side, Chip(name, event, name, read, date=DAYS[event], files=files)
