"""Sen1Floods11, its hand-labelled part: water or not in 446 Sentinel-2 chips of eleven floods.

The chips come one by one, each image with its label. Split as in arXiv 2504.17397; Bolivia is held
out. Source: Bonafilia et al., CVPR workshops 2020, https://github.com/cloudtostreet/Sen1Floods11.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.datasets.base import Bounds, Chip, Reading
from geopeft_nb.datasets.cards import DataCard, Request, choose_bands
from geopeft_nb.datasets.chip_cache import ChipCache
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import keep_present, list_entry, split_list
from geopeft_nb.datasets.split import SIDES, Cut, choose_regions, cuts, published_split
from geopeft_nb.errors import GeopeftError, unknown_name
from geopeft_nb.files import FileEntry, fetch, fetch_many, find_dataset, find_file

EVENTS = (
    "Bolivia", "Ghana", "India", "Mekong", "Nigeria", "Pakistan", "Paraguay", "Somalia", "Spain",
    "Sri-Lanka", "USA",
)  # fmt: skip
CARD = DataCard(
    name="sen1floods11",
    title="Sen1Floods11",
    task="water or not during floods, per pixel",
    classes=("Not water", "Water"),
    colours=("#D9CFB8", "#0072B2"),
    bands=SENTINEL2_BANDS,
    regions=EVENTS,
    home=EVENTS[1:],
    size=512,
    resolution=10.0,
    labels="drawn by hand; -1 where there is no label",
    licence="CC-BY-4.0; contains modified Copernicus Sentinel data",
    citation="Bonafilia, Tellman, Anderson, Issenberg: Sen1Floods11: a georeferenced dataset to "
    "train and test deep learning flood algorithms for Sentinel-1. CVPR Workshops 2020",
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
    download="446 chips one by one from storage.googleapis.com/sen1floods11, about 1 GB (2.3 MB "
    "for the chip that was measured, 7.3 MB uncompressed); subset='mini': 36 chips, about 85 MB",
)  # fmt: skip

#: Side of the published lists.
LISTS = {
    "train": "sen1floods11/train_data", "val": "sen1floods11/valid_data",
    "test": "sen1floods11/test_data", "holdout": "sen1floods11/bolivia_data",
}  # fmt: skip
#: The mini subset takes so many chips from the top of each list, of each of its events. 36 chips
#: of the measured size are 85 MB; with 10 m bands that do not compress at all, 120 MB.
MINI_CHIPS = {"train": 3, "val": 1, "test": 1, "holdout": 6}
_MINI_EVENTS = ("Bolivia", "Ghana", "India", "Paraguay", "Spain", "Sri-Lanka", "USA")
_MINI = replace(
    CARD,
    title="Sen1Floods11 (mini)",
    regions=_MINI_EVENTS,
    home=_MINI_EVENTS[1:],
    split="of the published lists the first 3 training, 1 validation and 1 test chips of each of "
    "six flood events, and the first 6 of Bolivia, held out",
    leaks="each of the six events is in training, validation and test, and chips of one event may "
    "lie side by side. Only held-out regions are other floods.",
)
SUBSETS = {"full": CARD, "mini": _MINI}

#: Side of the files in pixels.
FILE_SIZE = 512
_HAND = "v1.1/data/flood_events/HandLabeled"
_ADDRESS = "https://storage.googleapis.com/sen1floods11"

Files = tuple[Path, Path]


def _entry(path: str) -> FileEntry:
    return FileEntry(f"{CARD.name}/{path}", url=f"{_ADDRESS}/{path}", licence="CC-BY-4.0")


#: Says for each event when Sentinel-2 passed.
METADATA = _entry("v1.1/Sen1Floods11_Metadata.geojson")


def _entries(chip: str) -> list[FileEntry]:
    """Describe image and label of a chip."""
    return [_entry(f"{_HAND}/{part}/{chip}_{part}.tif") for part in ("S2Hand", "LabelHand")]


def load_sen1floods11(request: Request, *, subset: str = "full") -> GeoData:
    """Load Sen1Floods11, cut smaller if asked; see `load_data`.

    Without a root each file is looked for by itself, so that a mirror may have only some chips. The
    others are downloaded; with ``download=False`` and ``unreadable="skip"`` they are left out.

    Args:
        request: What was asked for.
        subset: ``"mini"`` takes 36 chips of seven events, enough to try things out.

    Raises:
        ValueError: Unknown subset, band or region, a size that does not divide 512, or no chips
            for a side.
        FileNotFoundError: Chips are not there, and may not or cannot be downloaded.
    """
    if subset not in [*SUBSETS]:
        raise unknown_name(f"subset of {CARD.name}", subset, SUBSETS)
    card = SUBSETS[subset]
    indices, names = choose_bands(request.bands, card)
    size = request.size or FILE_SIZE
    windows = cuts(FILE_SIZE, size, card.name)
    regions = _wanted_regions(card, request)
    root = _root(request)
    listed = {
        side: _choose(split_list(name, request.download), side, regions, subset)
        for side, name in LISTS.items()
    }
    kept, files, skipped = _find(listed, root, request)
    days, notes = _days(root, request)
    caches = {
        folder: ChipCache(card.name, f"{folder.resolve()} {names} {size}", request.cache)
        for folder in {image.parent for image, _ in files.values()}
    }
    sides = {
        side: [
            _chip(chip, files[chip], indices, cut, caches[files[chip][0].parent], days)
            for chip in chips
            for cut in windows
        ]
        for side, chips in kept.items()
    }
    data = published_split(sides, request, card, names, size)
    return replace(data, notes=notes, skipped=skipped)


def mirror_files() -> list[FileEntry]:
    """Describe all files that a mirror needs: the lists, the days and 446 pairs of files.

    Raises:
        FileNotFoundError: The lists, which name the chips, cannot be had.
    """
    chips = [chip for name in LISTS.values() for chip in split_list(name)]
    lists = [list_entry(name) for name in LISTS.values()]
    return [*lists, METADATA, *(entry for chip in chips for entry in _entries(chip))]


def _event(chip: str) -> str:
    return chip.rpartition("_")[0]


def _wanted_regions(card: DataCard, request: Request) -> set[str]:
    """Return the regions that chips are needed of, so that no others are downloaded."""
    asked = {*(request.train_regions or ()), *(request.holdout_regions or ())}
    if absent := sorted(asked & set(CARD.regions) - set(card.regions)):
        raise GeopeftError(
            f"subset='mini' has no chips of {', '.join(absent)}, only of "
            f"{', '.join(card.regions)}. Take one of these, or subset='full'."
        )
    home, away = choose_regions(card, request)
    if set(home) <= set(card.regions) - set(card.home):
        raise GeopeftError(
            f"{', '.join(home)} was published as held out and has no training chips. Add to "
            f"train_regions some of {', '.join(card.home)}."
        )
    return {*home, *away}


def _root(request: Request) -> Path | None:
    """Return the user's folder, None if each file is to be looked for."""
    if request.root is None:
        return None
    root = find_dataset(CARD.name, request.root)
    if root is None or not (root / _HAND).is_dir():
        raise FileNotFoundError(
            f"root={request.root!r} is not the folder of Sen1Floods11, which has "
            f"{_HAND}/S2Hand/<chip>_S2Hand.tif and {_HAND}/LabelHand/<chip>_LabelHand.tif. Give "
            "the folder that contains v1.1, or leave root out to have the chips downloaded."
        )
    return root


def _choose(chips: list[str], side: str, regions: set[str], subset: str) -> list[str]:
    """Keep the chips of a list that are of these regions, in its order."""
    chips = [chip for chip in chips if _event(chip) in regions]
    if subset == "full":
        return chips
    return [
        chip
        for number, chip in enumerate(chips)
        if sum(_event(other) == _event(chip) for other in chips[:number]) < MINI_CHIPS[side]
    ]


def _locate(entry: FileEntry, root: Path | None) -> Path | None:
    if root is None:
        return find_file(entry)
    path = root / entry.path.removeprefix(f"{CARD.name}/")
    return path if path.is_file() else None


def _find(
    listed: Mapping[str, list[str]], root: Path | None, request: Request
) -> tuple[dict[str, list[str]], dict[str, Files], dict[str, str]]:
    """Find or download image and label of every listed chip.

    Returns:
        The lists without the chips that are left out; image and label of each chip that is not;
        and the others with the reason.
    """
    entries = {chip: _entries(chip) for chips in listed.values() for chip in chips}
    if root is None and (request.download or request.unreadable != "skip"):
        everything = [entry for pair in entries.values() for entry in pair]
        fetch_many(everything, f"{len(entries)} chips of {CARD.title}", request.download)
    found = {chip: [_locate(entry, root) for entry in pair] for chip, pair in entries.items()}

    def missing(chip: str) -> str | None:
        absent = (e.path for e, path in zip(entries[chip], found[chip], strict=True) if not path)
        return next(absent, None)

    kept, skipped = keep_present(listed, missing, CARD.name, request)
    if empty := [side for side in SIDES if listed[side] and not kept[side]]:
        raise FileNotFoundError(
            f"Of the {len(entries)} listed chips of {CARD.title}, {len(skipped)} are not there, "
            f"among them all for {' and '.join(empty)}. Complete the folder, or let the others be "
            "downloaded: without root=, and with download=True."
        )
    files = {
        chip: (image, label)
        for chip, (image, label) in found.items()
        if image is not None and label is not None
    }
    return kept, files, skipped


def _days(root: Path | None, request: Request) -> tuple[dict[str, datetime.date], tuple[str, ...]]:
    """Return the day of each event, and notes; without their file the data go without days."""
    path = _locate(METADATA, root)
    if path is None and root is None:
        try:
            path = fetch(METADATA, request.download)
        except FileNotFoundError:
            pass  # the note says it
    if path is None:
        place = METADATA.path.removeprefix(f"{CARD.name}/")
        return {}, (f"days of acquisition are not known, because {place} is not there.",)
    try:
        facts = [feature["properties"] for feature in json.loads(path.read_bytes())["features"]]
        days = {fact["location"]: _day(fact["s2_date"]) for fact in facts if fact["s2_date"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GeopeftError(
            f"{path} does not say when the events were ({type(error).__name__}: {error}). Delete "
            "it to have it fetched again, or to go without days."
        ) from error
    if "Cambodia" in days:  # as that file calls it
        days["Mekong"] = days["Cambodia"]
    unknown = [event for event in EVENTS if event not in days]
    words = f"days of acquisition are not known of {', '.join(unknown)}."
    return days, (words,) if unknown else ()


def _day(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text[:10].replace("/", "-"))


def _chip(
    chip: str, files: Files, indices: list[int], cut: Cut,
    cache: ChipCache, days: Mapping[str, datetime.date],
) -> Chip:  # fmt: skip
    suffix, top, left, size = cut
    name = f"{chip}{suffix}"

    def decode() -> tuple[np.ndarray, np.ndarray]:
        image = _read(files[0], len(CARD.bands), top, left, size, indices)
        if image.dtype.kind == "f":
            image[np.isnan(image)] = 0
        return image, _read(files[1], 1, top, left, size, [0])[0]

    def read() -> Reading:
        newest = max(files, key=lambda path: path.stat().st_mtime)  # a corrected label counts, too
        image, mask = cache.read(name, decode, source=newest)
        reflectance = image.astype(np.float32)
        reflectance /= 10_000
        return Reading(reflectance, mask.astype(np.int64), *_where(files[0], top, left, size))

    return Chip(name, _event(chip), chip, read, date=days.get(_event(chip)))


def _read(path: Path, count: int, top: int, left: int, size: int, indices: list[int]) -> np.ndarray:
    """Read a window of some bands, (bands, size, size), in the file's own type."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(path) as raster:
        if (raster.count, *raster.shape) != (count, FILE_SIZE, FILE_SIZE):
            raise GeopeftError(
                f"{path} has {raster.count} bands of {raster.shape} pixels instead of {count} of "
                f"{(FILE_SIZE, FILE_SIZE)}. Fetch the published file again."
            )
        return raster.read([i + 1 for i in indices], window=Window(left, top, size, size))


@lru_cache(maxsize=10_000)
def _where(path: Path, top: int, left: int, size: int) -> tuple[str | None, Bounds | None]:
    """Return reference system and bounds of a window; a chip from the cache opens no file twice."""
    import rasterio
    from rasterio.windows import Window, bounds

    with rasterio.open(path) as raster:
        if raster.crs is None:
            return None, None
        return raster.crs.to_string(), bounds(Window(left, top, size, size), raster.transform)
