"""HLS chips with water masks, from the offline mirror: one river system and many other places."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip, Reading
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData
from geopeft_nb.datasets.published.common import Window, load_published, read_chip
from geopeft_nb.files import FileEntry, fetch, find_dataset
from geopeft_nb.open_files import read_text

CARD = DataCard(
    name="hls_water",
    title="HLS water chips",
    predicts="water or land, per pixel",
    classes=("land", "water"),
    colours=("#D9CFB8", "#0072B2"),
    bands=HLS_BANDS,
    regions=("river", "elsewhere"),
    home=("river",),
    size=128,
    scale=10_000,
    compressed=True,
    resolution=30.0,
    labels="drawn by one author, somewhat blobby",
    licence="imagery NASA HLS (open); masks without a stated licence: for testing only",
    citation="NASA HLS v2.0; masks of shahed137003/Water-Segmentation-project",
)


def load_hls_water(request: DataRequest) -> GeoData:
    """Load the HLS water chips, cut smaller if asked; see `load_data`."""
    return load_published(request, CARD, _find)


def _find(request: DataRequest) -> Iterator[tuple[str, Chip]]:
    folder = find_dataset(CARD.name, request.root) or fetch(FileEntry(CARD.name))
    for name, region, place in read_text(folder / "index.csv", _rows):
        files = [folder / "chips" / f"{name}.tif", folder / "water" / f"{name}.png"]
        yield "all", Chip(name, region, f"place-{place}", _read, files=files)


def _rows(text: str) -> list[tuple[str, str, str]]:
    rows = [(x["chip"], x["region"], x["place"]) for x in csv.DictReader(text.splitlines())]
    if strange := [name for name, *_ in rows if not re.fullmatch(r"[\w-]+", name)]:
        raise ValueError(f"{strange[0]!r} is no name of a chip")
    return rows


def _read(files: Sequence[Path], indices: list[int], window: Window) -> Reading:
    reading = read_chip(files, indices, window)
    # A few dark pixels are below zero after atmospheric correction.
    return reading._replace(image=np.clip(reading.image, 0, None))
