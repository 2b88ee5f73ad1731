"""HLS chips with water masks, from the offline mirror: one river system and many other places."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.cards import DataCard, Request, choose_bands
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.split import split_regions
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import find_folder

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
    resolution=30.0,
    labels="drawn by one author, somewhat blobby",
    licence="imagery NASA HLS (open); masks without a stated licence: for testing only",
    citation="NASA HLS v2.0; masks of shahed137003/Water-Segmentation-project",
)

#: Chip side of the files in pixels.
FILE_SIZE = 128


def load_hls_water(request: Request) -> GeoData:
    """Load the HLS water chips, cut smaller if asked; see `load_data`."""
    if request.root is not None:
        folder = Path(request.root)
    else:
        folder = find_folder("hls_water", "The HLS water data set")
    index_file = folder / "index.csv"
    if not index_file.is_file():
        raise FileNotFoundError(f"{index_file} is not there; is {folder} the hls_water folder?")
    index = pd.read_csv(index_file, dtype={"chip": str, "place": str})
    indices, names = choose_bands(request.bands, CARD)
    side = request.size or CARD.size
    if FILE_SIZE % side:
        raise GeopeftError(
            f"size must divide {FILE_SIZE} for hls_water (128, 64 or 32), got {side}."
        )
    offsets = [
        (top, left) for top in range(0, FILE_SIZE, side) for left in range(0, FILE_SIZE, side)
    ]
    chips = [
        _chip(folder, row.chip, str(row.region), f"place-{row.place}", indices, side, *offset)
        for row in index.itertuples()
        for offset in offsets
    ]
    return split_regions(chips, request, CARD, names, side)


def _chip(
    folder: Path, file: str, region: str, place: str,
    indices: list[int], side: int, top: int, left: int,
) -> Chip:  # fmt: skip
    def read() -> tuple[np.ndarray, np.ndarray]:
        window = np.s_[top : top + side, left : left + side]
        image = _read(folder / "chips" / f"{file}.tif")[(indices, *window)]
        mask = _read(folder / "water" / f"{file}.png")[(0, *window)]
        # A few dark pixels are below zero after atmospheric correction.
        return np.clip(image, 0, None).astype(np.float32) / 10_000, mask.astype(np.int64)

    name = file if side == FILE_SIZE else f"{file}-{top}-{left}"
    return Chip(name, region, place, read)


@cache
def _read(path: Path) -> np.ndarray:
    """Read a file once, as it is: all of them together take about 60 MB."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        # The files carry no coordinates, and the card says so.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as raster:
            return raster.read()
