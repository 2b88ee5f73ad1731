"""The real scenes that ship: Virginia's Eastern Shore and the Havel lakes, water or land.

Two Sentinel-2 L1C scenes at 20 m with derived water masks; see `data/scenes/README.md`.
"""

import datetime
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData, choose_bands
from geopeft_nb.datasets.split import split_regions
from geopeft_nb.files import data_folder, named_path
from geopeft_nb.open_files import open_raster

CARD = DataCard(
    name="scenes",
    title="Shipped Sentinel-2 scenes",
    predicts="water or land, per pixel",
    classes=("land", "water"),
    colours=("#D9CFB8", "#0072B2"),
    bands=HLS_BANDS,
    regions=("virginia", "brandenburg"),
    home=("virginia",),
    size=64,
    resolution=20.0,
    labels="derived from the same imagery by a stated rule, then corrected; no field survey",
    licence="CC0-1.0 (virginia), MIT (brandenburg); contains modified Copernicus Sentinel data",
    citation="data/scenes/README.md of this toolkit",
)

#: Days of acquisition; that of Virginia is not known.
DATES = {"brandenburg": datetime.date(2017, 2, 16)}
#: Chips within one square of this many chips a side share a place.
BLOCK = 2


def load_scenes(request: DataRequest) -> GeoData:
    """Load the shipped scenes; see `load_data`.

    Chips lie side by side without overlap; a border that fits none is left out.

    Raises:
        OSError: The folder lacks one of them.
    """
    folder = named_path(request.root or data_folder() / "scenes", "root")
    indices, bands = choose_bands(request.bands, CARD)
    size, chips = request.size or CARD.size, []
    for region in CARD.regions:
        path = folder / f"{region}.tif"
        with open_raster(path) as raster:
            for row, column in np.ndindex(raster.height // size, raster.width // size):
                top, left = row * size, column * size
                window = np.s_[top : top + size, left : left + size]
                where = raster.crs.to_string(), raster.window_bounds(window), DATES.get(region)
                name = f"{region}-{row:02d}-{column:02d}"
                place = f"{region}-{row // BLOCK}-{column // BLOCK}"
                read = partial(_read, path, indices, window)
                chips.append(Chip(name, region, place, read, *where))
    return split_regions(chips, request, CARD, bands, size)


def _read(
    path: Path, indices: list[int], window: tuple[slice, slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Return image (C, H, W), reflectance 0-1, and mask (H, W), -1 where there is no label."""
    image, mask = _scene(path)
    return image[indices, *window].astype(np.float32) / 10_000, mask[window].astype(np.int64)


@lru_cache(maxsize=2)
def _scene(path: Path) -> tuple[np.ndarray, np.ndarray]:
    water = path.with_name(f"{path.stem}_water.tif")
    with open_raster(path, whole=True) as raster, open_raster(water, whole=True) as labels:
        return raster.read(), labels.read(1).view(np.int8)  # 255, no label, is -1
