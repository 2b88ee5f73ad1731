"""Rebuild the small land outlines under the maps from the npm package world-atlas.

    python data/build_coastlines.py                          # asks npm for the package
    python data/build_coastlines.py --package world-atlas-2.0.2.tgz
    python data/build_coastlines.py --check                  # compare with data/maps/

The world is drawn at 1:110 million. Around each scene that ships, a window of it is
replaced by the same land at 1:10 million, so that the coast is still right at close zoom.
Needs shapely, which nothing but this script does.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from shapely import line_merge, make_valid, set_precision
from shapely.affinity import translate
from shapely.geometry import Polygon, box, mapping, shape
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

MAPS = Path(__file__).resolve().parent / "maps"
PACKAGE = "world-atlas@2.0.2"
SHA256 = "032e7765f2ce00edaeafec23ff22bc3b77e42987c257da944cc585b452c05b97"
# West, south, east, north in degrees: about 3 degrees to each side of a scene, or
# more where that keeps an estuary whole.
WINDOWS = {"virginia": (-79.0, 34.5, -72.5, 41.0), "brandenburg": (7.0, 49.5, 16.0, 55.9)}
# Web Mercator cannot show the pole, and no scene lies in Antarctica.
WORLD = (-180.0, -60.0, 180.0, 84.0)
TURNS = (-360.0, 0.0, 360.0)  # degrees
STEP = 0.001  # degrees, about 100 m; the source is cut to steps of 0.0036 by 0.0017


def read_package(archive: Path) -> dict[str, Any]:
    """Read the topologies that are needed out of the package.

    Args:
        archive: the .tgz file of world-atlas 2.0.2.

    Returns:
        TopoJSON objects by file name without ending.

    Raises:
        ValueError: the archive is another one.
    """
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{archive} has sha256 {digest}; expected {SHA256}, that of {PACKAGE}.")
    topologies = {}
    with tarfile.open(archive) as package:
        for name in ("land-110m", "land-10m", "countries-10m"):
            stream = package.extractfile(f"package/{name}.json")
            if stream is None:
                raise ValueError(f"{archive} holds no file package/{name}.json.")
            topologies[name] = json.load(stream)
    return topologies


def decode_arcs(topology: dict[str, Any]) -> list[list[tuple[float, float]]]:
    """Turn quantised differences into longitudes and latitudes.

    A topology stores each shared line once, as steps of a grid from point to point.

    Source: the TopoJSON format specification, sections 2.1.2 and 2.1.3.
    """
    (scale_x, scale_y), (left, bottom) = (
        topology["transform"]["scale"],
        topology["transform"]["translate"],
    )
    arcs = []
    for steps in topology["arcs"]:
        x = y = 0
        arc = []
        for step_x, step_y in steps:
            x, y = x + step_x, y + step_y
            arc.append((left + x * scale_x, bottom + y * scale_y))
        arcs.append(arc)
    return arcs


def join_arcs(
    indices: list[int], arcs: list[list[tuple[float, float]]]
) -> list[tuple[float, float]]:
    """Join arcs into one line; index ~i stands for arc i walked backwards."""
    line: list[tuple[float, float]] = []
    for index in indices:
        arc = arcs[index] if index >= 0 else arcs[~index][::-1]
        line += arc[1:] if line else arc
    return line


def land_of(topology: dict[str, Any]) -> BaseGeometry:
    """Assemble all land of a topology into one valid geometry."""
    arcs = decode_arcs(topology)
    polygons = []
    for part in topology["objects"]["land"]["geometries"]:
        shapes = part["arcs"] if part["type"] == "MultiPolygon" else [part["arcs"]]
        for rings in shapes:
            outer, *holes = [unwrap(join_arcs(ring, arcs)) for ring in rings]
            polygon = make_valid(Polygon(outer, holes))
            # What reaches past the antimeridian comes back in on the other side of the map.
            polygons += [translate(polygon, turn).intersection(box(*WORLD)) for turn in TURNS]
    return unary_union(polygons)


def unwrap(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Let longitudes run past 180 degrees instead of jumping to the other side of the map."""
    turn = 0.0
    unwrapped = line[:1]
    for (before, _), (longitude, latitude) in pairwise(line):
        if abs(longitude - before) > 180:
            turn += 360.0 if longitude < before else -360.0
        unwrapped.append((longitude + turn, latitude))
    return unwrapped


def borders_of(topology: dict[str, Any]) -> BaseGeometry:
    """Collect the arcs that two countries share, which are the borders on land."""
    users: dict[int, set[str]] = {}
    for country in topology["objects"]["countries"]["geometries"]:
        shapes = country.get("arcs", [])
        shapes = shapes if country["type"] == "MultiPolygon" else [shapes]
        for index in (index for rings in shapes for ring in rings for index in ring):
            arc = index if index >= 0 else ~index
            users.setdefault(arc, set()).add(country["properties"]["name"])
    arcs = decode_arcs(topology)
    shared = [
        shape({"type": "LineString", "coordinates": arcs[arc]})
        for arc, names in sorted(users.items())
        if len(names) > 1
    ]
    return unary_union(shared)


def build(topologies: dict[str, Any]) -> dict[str, bytes]:
    """Make the files that ship.

    Args:
        topologies: as returned by `read_package`.

    Returns:
        Compressed GeoJSON in longitude and latitude (WGS 84), by file name.
    """
    windows = {name: box(*corners) for name, corners in WINDOWS.items()}
    fine_land, fine_borders = (
        land_of(topologies["land-10m"]),
        borders_of(topologies["countries-10m"]),
    )
    everywhere = unary_union(list(windows.values()))
    coarse = land_of(topologies["land-110m"]).difference(everywhere)
    # Merged, so that no line is drawn where coarse and fine land meet inland.
    land = set_precision(unary_union([coarse, fine_land.intersection(everywhere)]), STEP)
    # Repairing and cutting leave stray points and lines behind.
    parts = [part for part in getattr(land, "geoms", [land]) if isinstance(part, Polygon)]
    polygons = [(part, {"kind": "land"}) for part in parts]
    borders = []
    for name, window in windows.items():
        lines = set_precision(line_merge(fine_borders.intersection(window)), STEP)
        if not lines.is_empty:
            borders.append((lines, {"kind": "border", "region": name}))
    return {"land.geojson.gz": compress(polygons), "borders.geojson.gz": compress(borders)}


def compress(features: list[tuple[BaseGeometry, dict[str, str]]]) -> bytes:
    """Write features as GeoJSON with three decimals and compress it without a date."""

    def rounded(geometry: BaseGeometry) -> list[Any]:
        text = json.dumps(mapping(geometry)["coordinates"])
        return json.loads(text, parse_float=lambda number: round(float(number), 3))

    collection = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": properties,
                "geometry": {
                    "type": geometry.geom_type,
                    "coordinates": rounded(geometry),
                },
            }
            for geometry, properties in features
        ],
    }
    text = json.dumps(collection, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def main() -> None:
    """Read the arguments, build, then write or compare."""
    parser = argparse.ArgumentParser(description="Rebuild data/maps/ from world-atlas 2.0.2.")
    parser.add_argument("--package", type=Path, help="the .tgz file, if it is already here")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        archive = arguments.package
        if archive is None:
            command = ["npm", "pack", PACKAGE, "--pack-destination", temporary]
            subprocess.run(command, check=True, capture_output=True)
            archive = next(Path(temporary).glob("*.tgz"))
        files = build(read_package(archive))
    MAPS.mkdir(exist_ok=True)
    for name, content in files.items():
        path = MAPS / name
        if arguments.check:
            same = gzip.decompress(path.read_bytes()) == gzip.decompress(content)
            print(f"{name}: {'the same' if same else 'DIFFERENT'}")
            if not same:
                raise SystemExit(1)
            continue
        temporary_path = path.with_name(f".{name}")
        temporary_path.write_bytes(content)
        os.replace(temporary_path, path)
        print(f"{name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
