"""The real scenes that ship: Virginia's Eastern Shore and the Havel lakes, water or land.

Two Sentinel-2 L1C scenes at 20 m with derived water masks; see `data/scenes/README.md`.
"""

import datetime
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData, choose_bands
from geopeft_nb.datasets.split import split_regions
from geopeft_nb.files import data_folder
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

    Raises:
        OSError: The folder lacks one of them.
    """
    folder = Path(request.root or data_folder() / "scenes")
    indices, bands = choose_bands(request.bands, CARD)
    size = request.size or CARD.size
    scenes = [scene_chips(folder / f"{region}.tif", size, indices) for region in CARD.regions]
    return split_regions([*chain(*scenes)], request, CARD, bands, size)


def scene_chips(path: Path, size: int, indices: list[int]) -> list[Chip]:
    """List the chips of a scene, side by side without overlap; a border that fits none is left out.

    Args:
        path: GeoTIFF, named like its region, with a mask `<name>_water.tif` beside it.
        size: Chip side in pixels.
        indices: Bands to keep, as indices from 0.

    Returns:
        One chip for each full square, in rows.
    """
    from rasterio.windows import Window

    region, chips = path.stem, []
    with open_raster(path) as raster:
        rows, columns, crs = raster.height // size, raster.width // size, raster.crs.to_string()
        for row, column in np.ndindex(rows, columns):
            window = Window(column * size, row * size, size, size)
            bounds, read = raster.window_bounds(window), partial(_read, path, indices, window)
            name = f"{region}-{row:02d}-{column:02d}"
            place = f"{region}-{row // BLOCK}-{column // BLOCK}"
            chips.append(Chip(name, region, place, read, crs, bounds, DATES.get(region)))
    return chips


def _read(path: Path, indices: list[int], window: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return image (C, H, W), reflectance 0-1, and mask (H, W), -1 where there is no label."""
    (image, mask), (rows, columns) = _scene(path), window.toslices()
    reflectance = image[indices, rows, columns].astype(np.float32) / 10_000
    return reflectance, mask[rows, columns].astype(np.int64)


@lru_cache(maxsize=2)
def _scene(path: Path) -> tuple[np.ndarray, np.ndarray]:
    water = path.with_name(f"{path.stem}_water.tif")
    with open_raster(path, whole=True) as raster, open_raster(water, whole=True) as labels:
        return raster.read(), labels.read(1).view(np.int8)  # 255, no label, is -1
