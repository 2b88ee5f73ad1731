r"""Does loading data hold training up? Share of training that waits for it, and chips per second.

    OMP_NUM_THREADS=2 python tests/benchmarks/loading.py            # scenes, and made GeoTIFFs
    OMP_NUM_THREADS=2 python tests/benchmarks/loading.py hls_water  # a data set of the mirror

LoRA on geopeft_tiny at batch 8, the fastest training there is here, with the loaders that `fit`
makes: the share is the time in which the loop waits for the next batch, training and validation.
GeoTIFFs are 224 × 224, uint16, deflate with differencing, made of noise on a slope and of 13 bands;
they are read with rasterio, or kept decoded by `ChipCache`. They lie in the page cache of the
system: a slow disk is not part of this.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import dataloader

import geopeft_nb as gp
from geopeft_nb.bands import SENTINEL2_BANDS
from geopeft_nb.datasets.base import Chip, ChipDataset, Reading
from geopeft_nb.datasets.chip_cache import ChipCache
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD

SIDE, BATCH, SECONDS = 224, 8, 4.0
#: More chips than this are not timed, so that all fit the page cache.
CHIPS = 64


def make_files(folder: Path) -> None:
    """Write chips and masks of 13 bands."""
    import rasterio

    rng = np.random.default_rng(0)
    slope = np.linspace(500, 3000, SIDE)[None, :, None]
    options = {"driver": "GTiff", "height": SIDE, "width": SIDE, "compress": "deflate"}
    options |= {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5e6)}
    for index in range(CHIPS):
        bands = slope + rng.normal(0, 60, (len(SENTINEL2_BANDS), SIDE, SIDE))
        image = {"count": len(bands), "dtype": "uint16", "predictor": 2}
        with rasterio.open(folder / f"{index}.tif", "w", **options, **image) as file:
            file.write(bands.astype(np.uint16))
        mask = (bands[0] > 1500).astype(np.uint8)
        with rasterio.open(
            folder / f"{index}_mask.tif", "w", **options, count=1, dtype="uint8"
        ) as f:
            f.write(mask, 1)


def made(folder: Path, bands: tuple[str, ...], keep: bool) -> GeoData:
    """Load the made files, with some of their bands."""
    import rasterio

    numbers = [SENTINEL2_BANDS.index(band) + 1 for band in bands]
    cache = ChipCache("benchmark", f"{bands}", enabled=keep)

    def chip(index: int) -> Chip:
        def decode() -> Reading:
            with rasterio.open(folder / f"{index}.tif") as image:
                pixels = image.read(numbers)
            with rasterio.open(folder / f"{index}_mask.tif") as mask:
                return Reading(pixels, mask.read(1))

        def read() -> tuple[np.ndarray, np.ndarray]:
            pixels, mask, *_ = cache.read(str(index), decode)
            return pixels.astype(np.float32) / 10_000, mask.astype(np.int64)

        return Chip(f"chip-{index}", "virginia", f"p{index}", read)

    parts = [
        ChipDataset([chip(index) for index in range(*span)], CARD.classes, -1)
        for span in ((0, 48), (48, 56), (56, CHIPS))
    ]
    return GeoData(*parts, {}, replace(CARD, bands=bands), bands, ("virginia",), SIDE)


def waiting(data: GeoData, epochs: int) -> tuple[float, float]:
    """Train, and return the seconds spent waiting for a batch and those of the whole loop."""
    waited = [0.0]
    original = dataloader._BaseDataLoaderIter.__next__

    def timed(self: Any) -> Any:  # noqa: ANN401 - whatever the loader gives
        start = time.perf_counter()
        try:
            return original(self)
        finally:
            waited[0] += time.perf_counter() - start

    backbone = gp.load_backbone("geopeft_tiny", bands=data.bands)
    model = gp.attach(gp.build_model(backbone, data, pad=True), "lora")
    dataloader._BaseDataLoaderIter.__next__ = timed  # type: ignore[method-assign]
    try:
        run = gp.fit(model, data, epochs=epochs, batch_size=BATCH, dashboard=False)
    finally:
        dataloader._BaseDataLoaderIter.__next__ = original  # type: ignore[method-assign]
    return waited[0], run.seconds


def chips_per_second(data: GeoData) -> float:
    """Return how many training chips a second are read and checked, in one thread."""
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        data.train[count % len(data.train)]
        count += 1
    return count / spent


def report(label: str, data: GeoData, epochs: int = 3) -> None:
    """Print one line."""
    waited, total = waiting(data, epochs)
    shape = f"{data.size} x {data.size} x {len(data.bands)}"
    print(
        f"{label:24s} {shape:14s} waits {waited / total:6.1%} of {total:5.1f} s, reads "
        f"{chips_per_second(data):6.0f} chips/s",
        flush=True,
    )


def main() -> None:
    """Print a line for each data set that is named, or for the scenes and for made GeoTIFFs."""
    print(f"{torch.get_num_threads()} threads for PyTorch, batch {BATCH}")
    if len(sys.argv) > 1:
        for name in sys.argv[1:]:
            report(name, gp.load_data(name))
        return
    report("scenes", gp.load_data("scenes"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GEOPEFT_CACHE"] = folder
        make_files(Path(folder))
        for bands in (CARD.bands, SENTINEL2_BANDS):
            for keep in (False, True):
                label = "GeoTIFF, kept decoded" if keep else "GeoTIFF, decoded anew"
                report(label, made(Path(folder), tuple(bands), keep), 2)


if __name__ == "__main__":
    main()
