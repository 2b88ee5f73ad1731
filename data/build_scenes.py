"""Rebuild the Sentinel-2 scenes that ship with the course from two Python packages.

    python data/build_scenes.py            # write data/scenes/
    python data/build_scenes.py --check    # rebuild elsewhere and compare with data/scenes/

Each scene becomes a cloud-optimised GeoTIFF with six bands at 20 m, with a water mask
beside it that is made by `water_masks.py`. Bands that Sentinel-2 measures at 10 m are
averaged onto the 20 m grid of the others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine, array_bounds
from rasterio.warp import Resampling, reproject
from rasterio.windows import from_bounds
from scene_sources import BANDS, SOURCES, Source, fetch
from water_masks import IGNORED, LAND, WATER, make_mask

SCENES = Path(__file__).resolve().parent / "scenes"
RESOLUTION = 20.0  # metres
LEVEL = "L1C, top-of-atmosphere reflectance x 10,000"
# The colours of the course's figures and maps, so that a mask looks the same in any viewer.
COLOURS = {LAND: (217, 207, 184, 255), WATER: (0, 114, 178, 255), IGNORED: (154, 154, 154, 255)}


def grid_of(paths: dict[str, Path]) -> tuple[Affine, int, int]:
    """Find the 20 m grid on which every band has full data.

    The 10 m files of one scene start half a 20 m pixel further east than the
    20 m files. Pixels that the 10 m files cover only in part are left out.

    Args:
        paths: band files by satellite name; B02 stands for those at 10 m, B11 for the others.

    Returns:
        Transform, height and width in pixels of 20 m.
    """
    with rasterio.open(paths["B11"]) as coarse:
        transform, outer = coarse.transform, coarse.bounds
    with rasterio.open(paths["B02"]) as fine:
        inner = fine.bounds
    column = int(np.ceil(max(0.0, inner.left - outer.left) / RESOLUTION))
    row = int(np.ceil(max(0.0, outer.top - inner.top) / RESOLUTION))
    left, top = outer.left + column * RESOLUTION, outer.top - row * RESOLUTION
    width = int((min(outer.right, inner.right) - left) // RESOLUTION)
    height = int((top - max(outer.bottom, inner.bottom)) // RESOLUTION)
    return Affine(transform.a, 0.0, left, 0.0, transform.e, top), height, width


def read_at_20_metres(path: Path, transform: Affine, height: int, width: int) -> NDArray[np.uint16]:
    """Read one band on the common grid, averaging 2 x 2 pixels where it is finer.

    Args:
        path: file of one band.
        transform: of the common grid.
        height: of the common grid, pixels.
        width: of the common grid, pixels.

    Returns:
        Reflectance x 10,000, shape (height, width).
    """
    with rasterio.open(path) as band:
        if band.res == (RESOLUTION, RESOLUTION):
            bounds = array_bounds(height, width, transform)
            values = band.read(1, window=from_bounds(*bounds, transform=band.transform))
            return values.astype(np.uint16)
        averaged = np.empty((height, width), np.float32)
        reproject(
            rasterio.band(band, 1),
            averaged,
            dst_transform=transform,
            dst_crs=band.crs,
            resampling=Resampling.average,
        )
    return np.rint(averaged).astype(np.uint16)


def write_geotiff(
    path: Path,
    values: NDArray[np.generic],
    names: list[str],
    tags: dict[str, str],
    crs: CRS,
    transform: Affine,
) -> None:
    """Write a cloud-optimised GeoTIFF under a temporary name, then rename it.

    Args:
        path: of the GeoTIFF.
        values: shape (bands, height, width); a mask if it is of type uint8.
        names: of the bands.
        tags: of the file.
        crs: coordinate reference system.
        transform: from pixels to metres.
    """
    is_mask = values.dtype == np.uint8
    temporary = path.with_name(f".{path.name}")
    with rasterio.open(
        temporary,
        "w",
        driver="COG",
        dtype=values.dtype,
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        crs=crs,
        transform=transform,
        nodata=IGNORED if is_mask else None,
        compress="deflate",
        level=9,
        predictor="NO" if is_mask else "STANDARD",
        blocksize=256,
        # The mean of two classes is no class.
        overview_resampling="mode" if is_mask else "average",
    ) as file:
        file.write(values)
        file.descriptions = names
        file.update_tags(**tags)
        if is_mask:
            file.write_colormap(1, COLOURS)
    os.replace(temporary, path)


def build_scene(source: Source, into: Path, archives: Path | None) -> dict[str, object]:
    """Write image and mask of one scene.

    Args:
        source: the scene.
        into: an existing folder.
        archives: a folder that holds the packages already; None asks pip.

    Returns:
        What `scenes.json` says about the scene.
    """
    with tempfile.TemporaryDirectory() as temporary:
        paths = fetch(source, Path(temporary), archives)
        transform, height, width = grid_of(paths)
        with rasterio.open(paths["B11"]) as band:
            crs = band.crs
        image = np.stack(
            [read_at_20_metres(paths[band], transform, height, width) for band in BANDS.values()]
        )
        mask = make_mask(source.region, paths, image, transform)
    tags = {
        "REGION": source.region,
        "DATE": source.date,
        "SENSOR": source.sensor,
        "LEVEL": LEVEL,
        "SOURCE": f"Python package {source.package} {source.version}",
        "LICENCE": source.licence,
        "ATTRIBUTION": source.attribution,
    }
    files = {"image": f"{source.region}.tif", "mask": f"{source.region}_water.tif"}
    write_geotiff(into / files["image"], image, list(BANDS), tags, crs, transform)
    tags["LEVEL"] = "0 land, 1 water, 255 ignored; derived by data/water_masks.py"
    write_geotiff(into / files["mask"], mask[None], ["WATER"], tags, crs, transform)
    return {
        "name": source.region,
        "title": source.title,
        "region": source.region,
        "crs": crs.to_string(),
        "bounds": list(array_bounds(height, width, transform)),
        "height": height,
        "width": width,
        "resolution_m": RESOLUTION,
        "date": source.date,
        "sensor": source.sensor,
        "level": LEVEL,
        "bands": list(BANDS),
        "source": {
            "package": source.package,
            "version": source.version,
            "sha256": source.sha256,
        },
        "licence": source.licence,
        "attribution": source.attribution,
        "files": files,
        "sha256": {
            name: hashlib.sha256((into / name).read_bytes()).hexdigest() for name in files.values()
        },
        "water_fraction": round(float((mask == WATER).mean()), 4),
        "ignored_fraction": round(float((mask == IGNORED).mean()), 4),
    }


def build(into: Path, archives: Path | None) -> None:
    """Write all scenes and `scenes.json` into a folder."""
    into.mkdir(parents=True, exist_ok=True)
    scenes = {source.region: build_scene(source, into, archives) for source in SOURCES}
    classes = {"land": LAND, "water": WATER, "ignored": IGNORED}
    temporary = into / ".scenes.json"
    temporary.write_text(
        json.dumps({"classes": classes, "scenes": scenes}, indent=2) + "\n", encoding="utf-8"
    )
    os.replace(temporary, into / "scenes.json")


def compare(rebuilt: Path, shipped: Path) -> list[str]:
    """Compare two folders of scenes, pixel by pixel.

    Bytes may differ where another version of GDAL compresses otherwise; values may not.

    Returns:
        One line per difference.
    """
    differences = []
    descriptions = [
        json.loads((folder / "scenes.json").read_text(encoding="utf-8"))["scenes"]
        for folder in (rebuilt, shipped)
    ]
    for source in SOURCES:
        new, old = (scenes[source.region] for scenes in descriptions)
        for key in sorted(new.keys() | old.keys()):
            if key != "sha256" and new.get(key) != old.get(key):
                differences.append(f"scenes.json, {source.region}: {key}")
        for name in new["files"].values():
            with rasterio.open(rebuilt / name) as a, rasterio.open(shipped / name) as b:
                pairs = {
                    "grid": ((a.crs, a.transform), (b.crs, b.transform)),
                    "band names": (a.descriptions, b.descriptions),
                    "tags": (a.tags(), b.tags()),
                }
                differences += [f"{name}: {what}" for what, (x, y) in pairs.items() if x != y]
                if not np.array_equal(a.read(), b.read()):
                    differences.append(f"{name}: pixels")
            same = (rebuilt / name).read_bytes() == (shipped / name).read_bytes()
            print(f"{name}: {'same bytes' if same else 'other bytes'}")
    return differences


def main() -> None:
    """Read the arguments, build, then keep or compare."""
    parser = argparse.ArgumentParser(description="Rebuild data/scenes/ from two Python packages.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--archives", type=Path, help="a folder that holds the packages already")
    arguments = parser.parse_args()
    if not arguments.check:
        build(SCENES, arguments.archives)
        return
    with tempfile.TemporaryDirectory() as temporary:
        build(Path(temporary), arguments.archives)
        differences = compare(Path(temporary), SCENES)
    if differences:
        raise SystemExit("\n".join(["What was rebuilt differs from data/scenes/:", *differences]))
    print("data/scenes/ is what the packages give.")


if __name__ == "__main__":
    main()
