"""Two segmentation tasks of GEO-Bench 1.0: cashew plantations in Benin, crops in South Africa.

A chip is an HDF5 file with one array per band, and "label". The arrays are not compressed: they
read nearly as fast as they would from a cache of many gigabytes beside them (1.8 and 1.1 ms a
chip), so no decoded chips are kept. Attributes of the files hold pickles, which can run code when
they are opened: they are never read.
"""

from __future__ import annotations

import datetime
import importlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import ModuleType

import numpy as np

from geopeft_nb.archives import extract
from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.datasets.base import Chip, Reading
from geopeft_nb.datasets.cards import DataCard, Request, choose_bands
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import keep_present
from geopeft_nb.datasets.split import cuts, published_split
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import FileEntry, cache_folder, fetch, find_dataset

#: Number at the beginning of a band's key -> the band. "Cloud Probability" is left out.
NUMBERS = dict(
    zip(
        ("01", "02", "03", "04", "05", "06", "07", "08", "08A", "09", "11", "12"),
        (band for band in SENTINEL2_BANDS if band != "CIRRUS"),
        strict=True,
    )
)
_KEY = re.compile(r"(\d\dA?) - [^_]+(?:_(\d{4}-\d\d-\d\d).*)?")
#: Side in the partition file -> ours.
SIDES = {"train": "train", "valid": "val", "test": "test"}
_PARTITION = "default_partition.json"
_HUB = "recursix/geo-bench-1.0"
#: What reflectance was multiplied by in the files of cashew.
SCALE = 10_000
_CITE = "Lacoste et al. (2023), GEO-Bench, arXiv 2306.03831"


def _scaled(*numbers: float) -> tuple[float, ...]:
    return tuple(number / SCALE for number in numbers)


CASHEW = DataCard(
    name="m_cashew_plantation",
    title="GEO-Bench m-cashew-plantation",
    task="cashew plantation and how well it is managed, per pixel",
    classes=(
        "no data", "well-managed plantation", "poorly-managed plantation", "non-plantation",
        "residential", "background", "uncertain",
    ),
    colours=("#FFFFFF", "#117733", "#B5BD4C", "#D9CFB8", "#CC3311", "#88AACC", "#AA4499"),
    bands=tuple(NUMBERS.values()),
    default_bands=HLS_BANDS,
    regions=("benin",),
    home=("benin",),
    size=256,
    resolution=10.0,
    labels="polygons from the ground with GPS, corrected on Airbus Pleiades imagery by TechnoServe",
    licence="CC-BY-SA-4.0 (GEO-Bench), CC-BY-4.0 (the original of TechnoServe)",
    citation=f"{_CITE}; TechnoServe, Cashew Plantations in Benin, doi 10.34911/rdnt.hfv20i",
    homepage=f"https://huggingface.co/datasets/{_HUB}",
    mean=_scaled(
        520.1185, 634.7584, 892.4612, 880.7076, 1380.6410, 2233.4324, 2549.3796, 2643.2480,
        2643.5320, 2852.8745, 2463.9333, 1600.9208,
    ),
    std=_scaled(
        204.2023, 227.2534, 222.3255, 350.4724, 280.6437, 373.7521, 449.9236, 414.6498,
        415.1020, 413.8980, 494.9743, 514.4230,
    ),
    statistics_source="GEO-Bench, as arXiv 2504.17397 uses them, divided by 10,000",
    split="GEO-Bench's default partition (1,350 / 400 / 50 chips)",
    claims=(),
    leaks="By its published converter, GEO-Bench cut one area of 1,122 x 1,186 px into 72 squares "
    "of 256 px that begin every 128 px, and took each on 25 days. A square is on one side on all "
    "days, but neighbouring squares share half of their ground. In 300 simulated splits of this "
    "kind 95 % of the ground of validation and of test lay in training chips, with its labels. "
    "The chips carry no coordinates to check it with.",
    download=f"m-cashew-plant.zip from huggingface.co/datasets/{_HUB}, about 7 GB once extracted; "
    "no checksum is published",
)  # fmt: skip

SA_CROP = DataCard(
    name="m_sa_crop_type",
    title="GEO-Bench m-SA-crop-type",
    task="crop type, per pixel",
    classes=(
        "no data", "lucerne/medics", "planted pastures (perennial)", "fallow", "wine grapes",
        "weeds", "small grain grazing", "wheat", "canola", "rooibos",
    ),
    colours=(
        "#FFFFFF", "#117733", "#B5BD4C", "#A08060", "#882255", "#CC3311", "#44AA99", "#E6C229",
        "#EE9A3A", "#0072B2",
    ),
    bands=tuple(NUMBERS.values()),
    default_bands=HLS_BANDS,
    regions=("western_cape",),
    home=("western_cape",),
    size=256,
    resolution=10.0,
    labels="fields surveyed from the air and by car, 2017-2018, Western Cape Department of "
    "Agriculture",
    licence="CC-BY-SA-4.0 (GEO-Bench), CC-BY-4.0 (the original of Radiant Earth)",
    citation=f"{_CITE}; Western Cape Department of Agriculture and Radiant Earth Foundation "
    "(2021), doi 10.34911/rdnt.j0co8q",
    homepage=f"https://huggingface.co/datasets/{_HUB}",
    mean=(
        12.739611, 16.526744, 26.636417, 36.696639, 46.388679, 58.281453, 63.575819, 68.1836,
        69.142591, 69.904566, 83.626811, 65.767679,
    ),
    std=(
        7.492812, 9.329548, 12.674537, 19.421922, 19.487411, 19.959175, 21.538058, 23.050778,
        22.329696, 21.877766, 28.144188, 27.234622,
    ),
    statistics_source="GEO-Bench, as arXiv 2504.17397 uses them",
    reflectance=False,
    split="GEO-Bench's default partition (3,000 / 1,000 / 1,000 chips)",
    claims=(),
    leaks="By its published converter, GEO-Bench took a tile on up to 5 days, all on one side. "
    "Whether neighbouring tiles are on two sides cannot be checked: the chips carry no coordinates "
    "that tell them apart.",
    download=f"m-SA-crop-type.zip from huggingface.co/datasets/{_HUB}, about 9 GB once extracted; "
    "no checksum is published",
)  # fmt: skip

#: How the cashew area was cut: days of each square, squares in a row, pixels from one to the next,
#: and the last ones' top and left, which end with the area.
_DAYS, _COLUMNS, _STEP, _LAST = 25, 8, 128, (1186 - 256, 1122 - 256)


@dataclass(frozen=True)
class _Source:
    """What sets the two apart: their folder in GEO-Bench, and what is in it."""

    card: DataCard
    folder: str
    counts: dict[str, int]
    dated: bool  # whether the keys of the bands end in a day
    place: Callable[[str], str]

    @property
    def archive(self) -> FileEntry:
        path = f"segmentation_v1.0/{self.folder}.zip"
        return FileEntry(
            f"geo-bench-1.0/{path}",
            url=f"https://huggingface.co/datasets/{_HUB}/resolve/main/{path}",
            licence="CC-BY-SA-4.0",
        )


def _corner(name: str) -> tuple[int, int] | None:
    """Return top and left of a cashew chip in its area, by its number; None if it has none."""
    match = re.fullmatch(r"sample_(\d+)", name)
    if match is None:
        return None
    row, column = divmod(int(match[1]) // _DAYS, _COLUMNS)
    return min(row * _STEP, _LAST[0]), min(column * _STEP, _LAST[1])


def _square(name: str) -> str:
    """Name the square of a cashew chip: the same ground on all days."""
    corner = _corner(name)
    return f"square-{corner[0]}-{corner[1]}" if corner else name


def _tile(name: str) -> str:
    """Name the tile of a South African chip, ``<tile of four digits>_<number of the picture>``."""
    return re.sub(r"(?<=_\d{4})_\d+$", "", name)


_SOURCES = {
    source.card.name: source
    for source in (
        _Source(CASHEW, "m-cashew-plant", {"train": 1350, "val": 400, "test": 50}, True, _square),
        _Source(
            SA_CROP, "m-SA-crop-type", {"train": 3000, "val": 1000, "test": 1000}, False, _tile
        ),
    )
}


def load_cashew_plantation(request: Request) -> GeoData:
    """Load GEO-Bench m-cashew-plantation; see `load_data`.

    Args:
        request: What was asked for. The root may be m-cashew-plant itself or a folder that has it.

    Returns:
        Data of region benin, in reflectance; a place is a square of ground, on up to 25 days.

    Raises:
        ValueError: Unknown band or region, a size that does not divide 256, or a partition file
            that is none, or names a chip twice.
        FileNotFoundError: The folder lacks the partition file or chips, or nothing is there and
            it cannot be downloaded.
        ImportError: h5py is not installed.

    Source: GEO-Bench, https://arxiv.org/abs/2306.03831
    """
    return _load(request, _SOURCES[CASHEW.name])


def load_sa_crop_type(request: Request) -> GeoData:
    """Load GEO-Bench m-SA-crop-type; see `load_data`.

    Args:
        request: What was asked for. The root may be m-SA-crop-type itself or a folder that has it.

    Returns:
        Data of region western_cape, in numbers of about 0-255; a place is a tile.

    Raises:
        ValueError: As `load_cashew_plantation`.
        FileNotFoundError: As `load_cashew_plantation`.
        ImportError: h5py is not installed.

    Source: GEO-Bench, https://arxiv.org/abs/2306.03831
    """
    return _load(request, _SOURCES[SA_CROP.name])


def mirror_files(name: str | None = None) -> list[FileEntry]:
    """Return the files that a mirror needs: the archive of one of the data sets, or of both."""
    return [source.archive for key, source in _SOURCES.items() if name in (None, key)]


def _load(request: Request, source: _Source) -> GeoData:
    card = source.card
    indices, names = choose_bands(request.bands, card)
    side = request.size or card.size
    windows = cuts(card.size, side, card.name)
    folder = _folder(request, source)
    _h5py()  # now, and not only when the first chip is read
    listed = _partition(folder / _PARTITION)
    present = {path.name for path in folder.iterdir()}

    def missing(chip: str) -> str | None:
        return None if f"{chip}.hdf5" in present else f"{chip}.hdf5"

    kept, skipped = keep_present(listed, missing, card.title, request)
    region, numbers = card.home[0], [list(NUMBERS)[index] for index in indices]
    sides = {
        name: [
            Chip(
                f"{chip}{suffix}", region, source.place(chip),
                partial(_read, folder / f"{chip}.hdf5", card.name, numbers, side, top, left),
            )
            for chip in chips
            for suffix, top, left, side in windows
        ]
        for name, chips in kept.items()
    }  # fmt: skip
    data = published_split(sides, request, card, names, side)
    return replace(data, notes=_notes(source, listed), skipped=skipped)


def _h5py() -> ModuleType:
    """Import h5py, which only these data sets need."""
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(
            "The chips of GEO-Bench are HDF5 files, and h5py is not installed: pip install h5py"
        ) from error


def _folder(request: Request, source: _Source) -> Path:
    """Find the folder with the partition file, or download and extract the archive."""
    inside = [f"{top}{source.folder}" for top in ("", "segmentation_v1.0/")]
    name = source.card.name
    for place in (name, *inside, f"geo-bench-1.0/{inside[-1]}"):
        if found := find_dataset(place, request.root):
            break
    else:
        found = extract(fetch(source.archive, request.download), cache_folder() / name)
    for folder in (found, *(found / below for below in inside)):
        if (folder / _PARTITION).is_file():
            return folder
    raise FileNotFoundError(
        f"{found} is not {source.card.title}: it has no {_PARTITION}, and neither has "
        f"{' or '.join(inside)} in it. Expected are that file and one <chip>.hdf5 per chip: "
        f"extract {source.folder}.zip there, or give another root=..."
    )


def _partition(file: Path) -> dict[str, list[str]]:
    """Read which chips are on which side.

    Raises:
        ValueError: It is no such file, or a chip is there twice.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        listed = {ours: [str(chip) for chip in content[side]] for side, ours in SIDES.items()}
    except (ValueError, KeyError, TypeError) as error:  # no JSON, no such side, no list
        raise GeopeftError(
            f"{file} is not a partition of GEO-Bench ({type(error).__name__}: {error}). Expected "
            'is {"train": [...], "valid": [...], "test": [...]} with names of chips.'
        ) from error
    if twice := [chip for chip, n in Counter(chain(*listed.values())).items() if n > 1]:
        raise GeopeftError(
            f"{file} names {len(twice)} chips twice, {twice[0]!r} among them: a score on chips "
            "that were trained on says nothing. Restore the published file."
        )
    return listed


def _notes(source: _Source, listed: Mapping[str, list[str]]) -> tuple[str, ...]:
    notes = [
        f"All {len(source.card.classes)} classes count in scores, 'no data' too, as in arXiv "
        "2504.17397: no pixel is ignored.",
        "The chips do not say where they were taken"
        + ("." if source.dated else ", nor on which day."),
    ]
    found = {side: len(chips) for side, chips in listed.items()}
    if found != source.counts:
        here, published = (
            " / ".join(f"{number:,}" for number in counts.values())
            for counts in (found, source.counts)
        )
        notes.append(f"The partition file has {here} chips instead of the published {published}.")
    if source.dated and (shared := _overlapping(listed)):
        notes.append(
            f"By the numbers in their names, {shared['val']:,} of {found['val']:,} validation and "
            f"{shared['test']:,} of {found['test']:,} test chips share ground with training."
        )
    return tuple(notes)


def _overlapping(listed: Mapping[str, list[str]]) -> dict[str, int] | None:
    """Count the cashew chips that overlap one of training; None if a name has no number."""
    corners = {side: [_corner(chip) for chip in chips] for side, chips in listed.items()}
    if None in chain(*corners.values()):
        return None
    trained = np.array(list(set(corners["train"])))
    return {
        side: sum(bool((abs(trained - corner) < 256).all(axis=1).any()) for corner in places)
        for side, places in corners.items()
    }


def _read(path: Path, name: str, numbers: list[str], side: int, top: int, left: int) -> Reading:
    """Read a square of the bands with these numbers, (C, side, side), and of the label."""
    source, window = _SOURCES[name], np.s_[top : top + side, left : left + side]
    try:
        with _h5py().File(path, "r") as file:
            chosen, date = _choose(path, list(file), numbers, source)
            *bands, label = arrays = [file[key] for key in (*chosen, "label")]
            for key, array in zip((*chosen, "label"), arrays, strict=True):
                if (shape := getattr(array, "shape", None)) != (source.card.size,) * 2:
                    raise GeopeftError(
                        f"Array {key!r} of {path} is {shape} instead of "
                        f"{(source.card.size,) * 2}. Restore the published file."
                    )
            image = np.stack([band[window] for band in bands]).astype(np.float32, copy=False)
            labels = label[window]
    except RuntimeError as error:  # what h5py makes of damage inside a file
        raise OSError(str(error)) from error
    if (labels != np.round(labels)).any():
        raise GeopeftError(f"The label of {path} has other than whole numbers. Restore the file.")
    if source.card.reflectance:
        image /= SCALE
    return Reading(image, labels.astype(np.int64, copy=False), date=date)


def _choose(
    path: Path, keys: list[str], numbers: list[str], source: _Source
) -> tuple[list[str], datetime.date | None]:
    """Find the keys of the bands by their numbers, and the day that they state."""
    matches = [match for key in keys if (match := _KEY.fullmatch(key))]
    found = {match[1]: match[0] for match in matches}
    days = {match[2] for match in matches}
    lacking = [f"{number} ({NUMBERS[number]})" for number in numbers if number not in found]
    if lacking or "label" not in keys:
        raise GeopeftError(
            f"{path} lacks {', '.join(lacking) or 'label'}. It has "
            f"{', '.join(keys) or 'nothing'}. Restore the published file."
        )
    if len(days) > 1 or (days != {None}) != source.dated:
        stated = ", ".join(sorted(str(day) for day in days - {None})) or "no day"
        wanted = "one day" if source.dated else "no day"
        raise GeopeftError(
            f"The bands of {path} state {stated}, and those of {source.card.name} {wanted}. Is "
            "this the folder of another data set?"
        )
    date = datetime.date.fromisoformat(days.pop()) if source.dated else None
    return [found[number] for number in numbers], date
