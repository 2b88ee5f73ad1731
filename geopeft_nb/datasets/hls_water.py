"""HLS chips with water masks, from the offline mirror: one river system and many other places."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Reading
from geopeft_nb.datasets.cards import DataCard, Request
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.published.common import Found, load_published
from geopeft_nb.datasets.split import Cut
from geopeft_nb.files import find_dataset, find_folder

CARD = DataCard(
    name="hls_water",
    title="HLS water chips",
    task="water or land, per pixel",
    classes=("land", "water"),
    colours=("#D9CFB8", "#0072B2"),
    bands=HLS_BANDS,
    regions=("river", "elsewhere"),
    home=("river",),
    size=128,
    scale=10_000,
    resolution=30.0,
    labels="drawn by one author, somewhat blobby",
    licence="imagery NASA HLS (open); masks without a stated licence: for testing only",
    citation="NASA HLS v2.0; masks of shahed137003/Water-Segmentation-project",
)


def load_hls_water(request: Request) -> GeoData:
    """Load the HLS water chips, cut smaller if asked; see `load_data`."""
    return load_published(request, CARD, _find, lambda chip, found: found.facts[chip], _read)


def _find(request: Request) -> Found:
    folder = find_dataset("hls_water", request.root) or find_folder("hls_water", CARD.title)
    index = folder / "index.csv"
    if not index.is_file():
        raise FileNotFoundError(f"{index} is not there; is {folder} the hls_water folder?")
    table = pd.read_csv(index, dtype={"chip": str, "place": str, "region": str})
    facts = {
        row.chip: {"region": row.region, "place": f"place-{row.place}"}
        for row in table.itertuples()
    }
    return Found(
        {"all": list(facts)},
        lambda chip: [folder / "chips" / f"{chip}.tif", folder / "water" / f"{chip}.png"],
        facts,
    )


def _read(name: str, found: Found, indices: list[int], cut: Cut) -> Reading:
    window = np.s_[cut.top : cut.top + cut.side, cut.left : cut.left + cut.side]
    image, mask = (_pixels(path) for path in found.files(name))
    # A few dark pixels are below zero after atmospheric correction.
    return Reading(np.clip(image[(indices, *window)], 0, None), mask[(0, *window)])


@cache
def _pixels(path: Path) -> np.ndarray:
    """Read a file once, as it is: all of them together take about 60 MB."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        # The files carry no coordinates, and the card says so.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as raster:
            return raster.read()
