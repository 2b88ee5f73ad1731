"""Two segmentation tasks of GEO-Bench 1.0: cashew plantations in Benin, crops in South Africa.

A chip is an HDF5 file with one array per band, and "label". The arrays are not compressed, so no
decoded chips are kept. Attributes of the files hold pickles, which can run code when they are
opened: they are never read.
"""

import datetime
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS
from geopeft_nb.datasets.base import Chip, Reading
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData
from geopeft_nb.datasets.published import common
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import FileEntry
from geopeft_nb.open_files import AT_ONCE, read_text, refuse, regular_file

#: Numbers at the beginning of the bands' keys. 10 is in no chip, "Cloud Probability" is left out.
NUMBERS = ("01", "02", "03", "04", "05", "06", "07", "08", "08A", "09", "11", "12")
_KEY = re.compile(r"(\d\dA?) - [^_]+(?:_(\d{4}-\d\d-\d\d).*)?")
#: Side in the partition file -> ours.
SIDES = {"train": "train", "valid": "val", "test": "test"}
_HUB = "recursix/geo-bench-1.0"
_CITE = "Lacoste et al. (2023), GEO-Bench, arXiv 2306.03831"
_ALL_COUNT = "all classes count in scores, 'no data' too, as in arXiv 2504.17397"

CASHEW = DataCard(
    name="m_cashew_plantation",
    title="GEO-Bench m-cashew-plantation",
    predicts="cashew plantation and how well it is managed, per pixel",
    classes=(
        "no data", "well-managed plantation", "poorly-managed plantation", "non-plantation",
        "residential", "background", "uncertain",
    ),
    colours=("#FFFFFF", "#117733", "#B5BD4C", "#D9CFB8", "#CC3311", "#88AACC", "#AA4499"),
    bands=tuple(band for band in SENTINEL2_BANDS if band != "CIRRUS"),
    default_bands=HLS_BANDS,
    regions=("benin",),
    home=("benin",),
    size=256,
    resolution=10.0,
    labels=f"polygons from the ground, corrected on Pleiades images; {_ALL_COUNT}",
    licence="CC-BY-SA-4.0 (GEO-Bench), CC-BY-4.0 (the original of TechnoServe)",
    citation=f"{_CITE}; TechnoServe, Cashew Plantations in Benin, doi 10.34911/rdnt.hfv20i",
    homepage=f"https://huggingface.co/datasets/{_HUB}",
    scale=10_000,
    mean=(
        0.05201185, 0.06347584, 0.08924612, 0.08807076, 0.1380641, 0.22334324,
        0.25493796, 0.2643248, 0.2643532, 0.28528745, 0.24639333, 0.16009208,
    ),
    std=(
        0.02042023, 0.02272534, 0.02223255, 0.03504724, 0.02806437, 0.03737521,
        0.04499236, 0.04146498, 0.0415102, 0.0413898, 0.04949743, 0.0514423,
    ),
    statistics_source="GEO-Bench, as arXiv 2504.17397 uses them, divided by 10,000",
    split="GEO-Bench's default partition (1,350 / 400 / 50 chips)",
    claims=(),
    leaks="By its converter one area was cut into squares of 256 px that begin every 128 px, each "
    "on 25 days. A square is on one side on all days, but neighbours share half of their ground: "
    "in 300 simulated splits 95 % of that of validation and test lay in training chips. The chips "
    "carry no coordinates to check it with.",
    download=f"m-cashew-plant.zip from {_HUB}, about 7 GB extracted; no checksum is published",
)  # fmt: skip

SA_CROP = replace(
    CASHEW,
    name="m_sa_crop_type",
    title="GEO-Bench m-SA-crop-type",
    predicts="crop type, per pixel",
    classes=(
        "no data", "lucerne/medics", "planted pastures (perennial)", "fallow", "wine grapes",
        "weeds", "small grain grazing", "wheat", "canola", "rooibos",
    ),
    colours=(
        "#FFFFFF", "#117733", "#B5BD4C", "#A08060", "#882255", "#CC3311", "#44AA99", "#E6C229",
        "#EE9A3A", "#0072B2",
    ),
    regions=("western_cape",),
    home=("western_cape",),
    labels=f"fields surveyed from the air and by car, 2017-2018; {_ALL_COUNT}",
    licence="CC-BY-SA-4.0 (GEO-Bench), CC-BY-4.0 (the original of Radiant Earth)",
    citation=f"{_CITE}; Western Cape Department of Agriculture and Radiant Earth Foundation "
    "(2021), doi 10.34911/rdnt.j0co8q",
    scale=1,
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
    leaks="A tile on up to 5 days is on one side. Whether neighbouring tiles are on two cannot be "
    "checked: the chips carry no coordinates that tell them apart.",
    download=f"m-SA-crop-type.zip from {_HUB}, about 9 GB extracted; no checksum is published",
)  # fmt: skip

#: Name -> its folder in GEO-Bench, and what its chips are called: <tile of four digits>_<number of
#: the picture>, or a number alone.
FOLDERS = {
    CASHEW.name: ("m-cashew-plant", r"sample_\d+"),
    SA_CROP.name: ("m-SA-crop-type", r".*_\d{4}_\d+"),
}
#: Days of each square of the cashew area, whose chips are numbered square by square.
_DAYS = 25


def load_cashew(request: DataRequest) -> GeoData:
    """Load GEO-Bench's m-cashew-plant, in reflectance; see `load_data`.

    Its places are squares of ground on up to 25 days. The root may be GEO-Bench's folder itself or
    one that has it.

    Raises:
        ValueError: A partition file that is none, and as `load_published` does.
        ImportError: h5py is not installed.

    Source: GEO-Bench, https://arxiv.org/abs/2306.03831
    """
    return common.load_published(request, CASHEW, partial(_find, CASHEW))


def load_sa_crop(request: DataRequest) -> GeoData:
    """Load GEO-Bench's m-SA-crop-type, in numbers of about 0-255; its places are tiles.

    Otherwise as `load_cashew`.
    """
    return common.load_published(request, SA_CROP, partial(_find, SA_CROP))


def mirror_files(name: str) -> list[FileEntry]:
    """Return the files that a mirror needs: the archive of one of the data sets."""
    path = f"segmentation_v1.0/{FOLDERS[name][0]}.zip"
    url = f"https://huggingface.co/datasets/{_HUB}/resolve/main/{path}"
    return [FileEntry(f"geo-bench-1.0/{path}", url=url, licence="CC-BY-SA-4.0")]


def _find(card: DataCard, request: DataRequest) -> Iterator[tuple[str, Chip]]:
    import h5py  # noqa: F401 - refused here, and not when the first chip is read

    own, called = FOLDERS[card.name]
    folder = common.unpack(card.name, mirror_files(card.name), request)
    partitions = common.files_in(folder, "**/default_partition.json", card)
    file = min(partitions, key=lambda path: path.parent.name != own)
    listed: list[tuple[str, str]] = read_text(
        file,
        lambda text: [
            (side, str(name)) for key, side in SIDES.items() for name in json.loads(text)[key]
        ],
    )
    for side, name in listed:
        if not re.fullmatch(called, name):
            raise GeopeftError(f"{file} lists {name!r}. Is this the folder of another data set?")
        tile, _, number = name.rpartition("_")
        place = f"square-{int(number) // _DAYS}" if tile == "sample" else tile
        files = [file.with_name(f"{name}.hdf5")]
        yield side, Chip(name, card.regions[0], place, _read, files=files)


def _read(files: Sequence[Path], indices: list[int], window: common.Window) -> Reading:
    import h5py

    with h5py.File(regular_file(files[0]), "r") as file:
        keys = {f"band {match[1]}": match for key in file if (match := _KEY.fullmatch(key))}
        bands = [keys[f"band {NUMBERS[index]}"] for index in indices]
        image = np.stack([_own(file, band[0])[window] for band in bands])
        label, day = _own(file, "label")[window], bands[0][2]
    return Reading(image, label, date=datetime.date.fromisoformat(day) if day else None)


def _own(file: Any, name: str) -> Any:
    """Return an array of an HDF5 file that lies in the file itself.

    Raises:
        GeopeftError: It is a link, its values are those of other files, or they are too many.
        KeyError: There is none of that name.
    """
    linked = hasattr(file.get(name, getlink=True), "path")  # as those have that lead elsewhere
    array: Any = None if linked else file[name]
    if getattr(array, "external", True) or array.is_virtual or (
        max(array.nbytes, np.prod(array.chunks or 1) * 8) > AT_ONCE
    ):  # fmt: skip
        raise refuse(Path(file.filename), f"{name!r} is no array in the file, or far too large")
    return array
