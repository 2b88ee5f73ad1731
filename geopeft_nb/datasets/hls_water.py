"""HLS chips with water masks, from the offline mirror: one river system and many other places."""

import csv
import re
from pathlib import Path

import numpy as np

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Reading
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData
from geopeft_nb.datasets.published.common import Cut, Found, load_published, read_pair
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
    return load_published(request, CARD, _find, lambda chip, found: found.facts[chip], _read)


def _find(request: DataRequest) -> Found:
    folder = find_dataset(CARD.name, request.root) or fetch(FileEntry(CARD.name))
    facts = read_text(folder / "index.csv", _facts)

    def files(chip: str) -> list[Path]:
        return [folder / "chips" / f"{chip}.tif", folder / "water" / f"{chip}.png"]

    return Found({"all": list(facts)}, files, facts)


def _facts(text: str) -> dict[str, dict[str, str]]:
    rows = [*csv.DictReader(text.splitlines())]
    if strange := [row["chip"] for row in rows if not re.fullmatch(r"[\w-]+", row["chip"])]:
        raise ValueError(f"{strange[0]!r} is no name of a chip")
    return {x["chip"]: {"region": x["region"], "place": f"place-{x['place']}"} for x in rows}


def _read(name: str, found: Found, indices: list[int], cut: Cut) -> Reading:
    reading = read_pair(name, found, indices, cut)
    # A few dark pixels are below zero after atmospheric correction.
    return reading._replace(image=np.clip(reading.image, 0, None))
