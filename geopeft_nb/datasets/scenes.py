"""The real scenes that ship: Virginia's Eastern Shore and the Havel lakes, water or land.

Two Sentinel-2 L1C scenes at 20 m with derived water masks; see `data/scenes/README.md`.
"""

from __future__ import annotations

import datetime
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.cards import DataCard, Request, choose_bands
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.split import block_places, split_regions
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import data_folder

CARD = DataCard(
    name="scenes",
    title="Shipped Sentinel-2 scenes",
    task="water or land, per pixel",
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


def load_scenes(request: Request) -> GeoData:
    """Load the shipped scenes; see `load_data`."""
    folder = Path(request.root) if request.root is not None else data_folder() / "scenes"
    indices, names = choose_bands(request.bands, CARD)
    side = request.size or CARD.size
    chips = [
        chip
        for region in CARD.regions
        for chip in scene_chips(folder / f"{region}.tif", region, side, tuple(indices))
    ]
    return split_regions(chips, request, CARD, names, side)


def scene_chips(path: Path, region: str, size: int, indices: tuple[int, ...]) -> list[Chip]:
    """List the chips of a scene, side by side without overlap; a border that fits none is left out.

    Args:
        path: GeoTIFF with a mask `<name>_water.tif` beside it.
        region: Name of the scene's region.
        size: Chip side in pixels.
        indices: Bands to keep, as indices from 0.

    Returns:
        One chip for each full square, in rows.

    Raises:
        FileNotFoundError: Scene or mask is not there.
        ValueError: The scene lacks bands or a coordinate reference system.
    """
    import rasterio
    from rasterio.windows import Window
    from rasterio.windows import bounds as window_bounds

    mask_path = path.with_name(f"{path.stem}_water.tif")
    for file in (path, mask_path):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is not there; a scene needs its image and its mask.")
    with rasterio.open(path) as raster:
        count, (height, width), transform = raster.count, raster.shape, raster.transform
        crs = raster.crs.to_string() if raster.crs else None
    if count != len(CARD.bands) or crs is None:
        raise GeopeftError(
            f"{path} has {count} bands and {crs or 'no reference system'}; a scene needs "
            f"{', '.join(CARD.bands)} and a coordinate reference system."
        )

    def read(top: int, left: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = _read_scene(path, mask_path)
        window = np.s_[top : top + size, left : left + size]
        labels = mask[window].astype(np.int64)
        labels[labels == 255] = -1
        return image[(list(indices), *window)].astype(np.float32) / 10_000, labels

    rows, columns = height // size, width // size
    places = block_places(region, rows, columns, BLOCK)
    chips = []
    for (row, column), place in zip(np.ndindex(rows, columns), places, strict=True):
        top, left = row * size, column * size
        bounds = window_bounds(Window(left, top, size, size), transform)
        name = f"{region}-{row:02d}-{column:02d}"
        reader = partial(read, top, left)
        chips.append(Chip(name, region, place, reader, crs, bounds, DATES.get(region)))
    return chips


@lru_cache(maxsize=4)
def _read_scene(path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray]:
    import rasterio

    with rasterio.open(path) as raster, rasterio.open(mask_path) as labels:
        return raster.read(), labels.read(1)
