"""Somebody's own images: bands, grids, and how they are cut into chips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geopeft_nb.bands import SENTINEL2_BANDS, band_name
from geopeft_nb.datasets.folder_files import Pair
from geopeft_nb.datasets.folder_rasters import Box, Raster, ground_metres, read_pixels, resample
from geopeft_nb.errors import GeopeftError

#: A strip at the border that is narrower than this share of a chip is left out.
NARROW = 0.25
#: Without a size, images that are all squares of one such side at most are not cut, if so many.
WHOLE, MANY = 256, 10


@dataclass(frozen=True)
class Tile:
    """A chip to be, not read yet.

    Attributes:
        name: Unique name.
        region: Its region.
        image: Header of the image, on the grid that it is cut from.
        mask: Header of the mask, or None for polygons.
        box: Part of the image that the chip covers.
    """

    name: str
    region: str
    image: Raster
    mask: Raster | None
    box: Box


def spread(tiles: Sequence[Tile], at_most: int) -> list[Tile]:
    """Return at most so many tiles, evenly spread."""
    chosen = np.linspace(0, len(tiles) - 1, min(at_most, len(tiles))).round().astype(int)
    return [tiles[index] for index in chosen]


def name_bands(
    images: Sequence[Raster], given: Sequence[str] | None
) -> tuple[tuple[str, ...], str]:
    """Find the names of the bands, the same in all files.

    Args:
        images: Headers.
        given: What the user said, or None.

    Returns:
        Names of the toolkit, and a note on where they are from.

    Raises:
        ValueError: Files of different bands, or names that are missing, unknown or doubled.
    """
    first = images[0]
    for image in images:
        if image.count != first.count or (given is None and image.names != first.names):
            raise GeopeftError(
                f"{first.path} has {first.count} bands {_shown(first)}, and {image.path} has "
                f"{image.count} {_shown(image)}. All images need the same bands in the same order."
            )
    how = (
        "Pass band_names= with one name per band in the order of the file, for example "
        "band_names=['BLUE', 'GREEN', 'RED', 'NIR']."
    )
    if given is not None:
        if len(given) != first.count:
            raise GeopeftError(
                f"{first.path} has {first.count} bands, and band_names {len(given)}."
            )
        wanted, source = list(given), "as given"
    elif any(first.names):
        wanted, source = [name or "?" for name in first.names], "from the files' descriptions"
    elif first.count in (12, 13):
        level = "L2A" if first.count == 12 else "L1C"
        wanted = [band for band in SENTINEL2_BANDS if first.count == 13 or band != "CIRRUS"]
        source = (
            f"GUESSED: the files name none, and {first.count} is how many Sentinel-2 {level} has; "
            "band_names= says otherwise"
        )
    else:
        raise GeopeftError(f"{first.path} has {first.count} bands without names. {how}")
    try:
        names = tuple(band_name(name) for name in wanted)
    except ValueError as error:
        raise GeopeftError(f"Bands of {first.path} {_shown(first)}: {error} {how}") from error
    if doubles := [name for name, count in Counter(names).items() if count > 1]:
        raise GeopeftError(f"Bands of {first.path}: {', '.join(doubles)} occurs twice. {how}")
    return names, f"Bands ({source}): {', '.join(names)}."


def _shown(image: Raster) -> str:
    return f"({', '.join(name or 'no name' for name in image.names)})"


def one_resolution(
    headers: Mapping[Path, Raster], wanted: float | None
) -> tuple[dict[Path, Raster], list[str]]:
    """Bring images to one pixel size, or refuse those that differ by more than 1 %.

    Args:
        headers: Image -> its header.
        wanted: Pixel side in metres to resample to, or None.

    Returns:
        Image -> its header, or the grid that it is resampled to; and notes.

    Raises:
        ValueError: Different pixel sizes and none wanted.
    """
    known = {path: image.metres for path, image in headers.items() if image.metres is not None}
    if wanted is not None:
        images = {path: resample(image, wanted) for path, image in headers.items()}
        changed = sum(image.resampled for image in images.values())
        notes = [f"{changed} images are resampled to {wanted:g} m."]
        if unknown := len(headers) - len(known):
            notes.append(f"{unknown} images without coordinates are taken as they are.")
        return images, notes
    if known:
        finest, coarsest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        if known[coarsest] > 1.01 * known[finest]:
            raise GeopeftError(
                f"{finest} has pixels of {known[finest]:.4g} m and {coarsest} of "
                f"{known[coarsest]:.4g} m. Pass resolution= in metres to resample all to one size, "
                "or load them apart."
            )
    return dict(headers), []


def describe(pairs: Sequence[Pair], vector: Path | None, images: Sequence[Raster]) -> list[str]:
    """Say what was found: files, sizes, coordinate reference systems, pixels."""
    with_what = f"labelled by polygons of {vector.name}" if vector else "with a mask each"
    sides = Counter(image.shape for image in images)
    shown = ", ".join(f"{shape[1]} x {shape[0]} px" for shape, _ in sides.most_common(3))
    notes = [
        f"Files: {len(pairs)} images {with_what}, {shown}"
        f"{' and other sizes' if len(sides) > 3 else ''}."
    ]
    systems = Counter(image.crs for image in images if image.crs is not None)
    without = [image for image in images if image.crs is None]
    if systems:
        metres = sorted(image.metres for image in images if image.metres is not None)
        about = "about " if any(image.degrees for image in images) else ""
        listed = ", ".join(f"{name} ({count})" for name, count in systems.most_common(4))
        notes.append(f"Coordinates: {listed}; pixels of {about}{metres[0]:.4g} m.")
    ground = ground_metres(images[0])
    if ground != images[0].metres and ground is not None:
        notes.append(f"EPSG:3857 stretches: on the ground a pixel is about {ground:.3g} m.")
    if without:
        notes.append(
            f"{len(without)} images have no coordinates ({without[0].path.name}, …): no map, no "
            "location, and overlapping ground cannot be noticed."
        )
    return notes


def choose_size(images: Sequence[Raster]) -> int:
    """Choose the chip side: 64 px, less for small images, whole images if many are alike."""
    sides = {side for image in images for side in image.shape}
    largest = max(sides)
    if len(images) >= MANY and len(sides) == 1 and largest <= WHOLE and largest % 16 == 0:
        return largest
    return min(64, -(-largest // 16) * 16)


def cut(image: Raster, size: int) -> list[Box]:
    """Cut an image into squares side by side; at the right and lower border they are smaller.

    Strips that are narrower than a quarter of a chip are left out, if anything else is there.
    """
    height, width = image.shape

    def starts(side: int) -> list[int]:
        return [at for at in range(0, side, size) if at == 0 or side - at >= NARROW * size]

    return [
        Box(top, left, min(size, height - top), min(size, width - left))
        for top in starts(height)
        for left in starts(width)
    ]


def leave_out_empty(
    tiles: Sequence[Tile], indices: Sequence[int], nodata: float | None, at_most: int
) -> tuple[list[Tile], list[str]]:
    """Leave out tiles without data, where files say what that is.

    Args:
        tiles: Chips to be.
        indices: Bands, as indices from 0.
        nodata: Value of pixels without data; None takes what each file says.
        at_most: So many are looked at.

    Returns:
        What is left, and notes.

    Raises:
        ValueError: Nothing is left.
    """
    values = {tile.image.nodata if nodata is None else nodata for tile in tiles} - {None}
    if not values:
        return list(tiles), []
    looked = [tile for tile in spread(tiles, at_most) if tile.image.nodata is not None or (
        nodata is not None)]  # fmt: skip
    empty = {tile.name for tile in looked if _is_empty(tile, indices, nodata)}
    shown = ", ".join(sorted(f"{value:g}" for value in values if value is not None))
    notes = [
        f"No-data ({shown}): such pixels get the mean of their chip in each band, and are ignored "
        f"in the mask. {len(empty)} chips without any data are left out."
    ]
    if len(tiles) > at_most:
        notes.append(f"Only {at_most} of {len(tiles)} chips were looked at for that.")
    if len(empty) == len(tiles):
        raise GeopeftError(f"No chip has any data: all pixels are {shown}. Is nodata= right?")
    return [tile for tile in tiles if tile.name not in empty], notes


def _is_empty(tile: Tile, indices: Sequence[int], nodata: float | None) -> bool:
    """Say whether a tile has no pixel with data; one band says no for nearly all of them."""
    try:
        if read_pixels(tile.image, tile.box, indices[:1], nodata)[1].any():
            return False
        return not read_pixels(tile.image, tile.box, indices, nodata)[1].any()
    except OSError:  # it is refused, and named, when it is asked for
        return False
