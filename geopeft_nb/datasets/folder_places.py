"""Places of somebody's own chips: squares of ground, and no ground on two sides of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import floor

import numpy as np

from geopeft_nb.datasets.base import Chip, ChipDataset, centre
from geopeft_nb.datasets.cards import DataCard, DataRequest
from geopeft_nb.datasets.folder_images import Tile
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.split import choose_regions
from geopeft_nb.errors import GeopeftError, unknown_name

#: Regions of files that are in no subfolders, for those who ask for them.
QUARTERS = ("north-west", "north-east", "south-west", "south-east")


def name_places(tiles: Sequence[Tile], size: int, block: int) -> list[str]:
    """Name the place of each tile.

    With coordinates it is the square of `block` chips a side that its middle lies in, in its own
    coordinate reference system, whatever file it is from. Without, it is the file; where a region
    has fewer than three files, squares of them.

    Args:
        tiles: Chips to be.
        size: Chip side in pixels.
        block: Side of a square in chips.

    Returns:
        One name per tile.
    """
    sides: dict[str, tuple[float, float]] = {}
    files: dict[str, set[str]] = {}
    for tile in tiles:
        files.setdefault(tile.region, set()).add(str(tile.image.path))
    names = []
    for tile in tiles:
        image, box = tile.image, tile.box
        bounds = image.bounds_of(replace(box, height=size, width=size))
        if bounds is not None and image.crs is not None:
            steps = (image.transform.a * size * block, -image.transform.e * size * block)
            across, down = sides.setdefault(image.crs, steps)
            column = floor((bounds[0] + bounds[2]) / 2 / across)
            row = floor((bounds[1] + bounds[3]) / 2 / down)
            names.append(f"{image.crs}/{column}/{row}")
        elif len(files[tile.region]) >= 3:
            names.append(str(image.path))
        else:
            side = size * block
            names.append(f"{image.path}/{box.top // side}/{box.left // side}")
    return names


def quarters(tiles: Sequence[Tile], places: Sequence[str]) -> list[str]:
    """Divide tiles into four regions by where their places lie, half of the places on each side.

    Args:
        tiles: Chips to be, with coordinates.
        places: The place of each.

    Returns:
        One of `QUARTERS` per tile.

    Raises:
        ValueError: A tile has no coordinates.
    """
    positions: dict[str, list[tuple[float, float]]] = {}
    for tile, place in zip(tiles, places, strict=True):
        where = centre(tile.image.crs, tile.image.bounds_of(tile.box))
        if where is None:
            asked = ", ".join(QUARTERS)
            raise GeopeftError(
                f"{tile.image.path} has no coordinates, so it has no {asked}. Put the files of "
                "each region into a subfolder with its name."
            )
        positions.setdefault(place, []).append(where)
    middle = {place: np.mean(where, axis=0) for place, where in positions.items()}
    latitude, longitude = np.median(list(middle.values()), axis=0)
    names = {
        place: f"{'north' if y >= latitude else 'south'}-{'east' if x >= longitude else 'west'}"
        for place, (y, x) in middle.items()
    }
    return [names[place] for place in places]


def own_regions(
    tiles: list[Tile], places: Sequence[str], request: DataRequest
) -> tuple[list[Tile], tuple[str, ...]]:
    """Take subfolders for regions, or quarters if one is asked for.

    Args:
        tiles: Chips to be.
        places: The place of each.
        request: With the regions that are asked for.

    Returns:
        The tiles with their regions, and the names of all regions.

    Raises:
        ValueError: A region is neither a subfolder nor a quarter.
    """
    known = tuple(dict.fromkeys(tile.region for tile in tiles))
    asked = (*(request.train_regions or ()), *(request.holdout_regions or ()))
    for region in asked:
        if region not in known and region not in QUARTERS:
            raise unknown_name("region", region, {*known, *QUARTERS})
    if not set(asked) - set(known):
        return tiles, known
    names = quarters(tiles, places)
    tiles = [replace(tile, region=name) for tile, name in zip(tiles, names, strict=True)]
    return tiles, tuple(name for name in QUARTERS if name in names)


def enough_places(
    chips: Sequence[Chip], card: DataCard, request: DataRequest, size: int, block: int
) -> None:
    """Refuse a home region that cannot be split, before the general error does.

    Raises:
        ValueError: A home region has fewer than three places.
    """
    home, _ = choose_regions(card, request)
    for region in home:
        inside = [chip for chip in chips if chip.region == region]
        places = {chip.place for chip in inside}
        if len(places) < 3:
            raise GeopeftError(
                f"Region {region!r} has {len(inside)} chips of {size} px in {len(places)} "
                f"place(s) of {block} chips a side; training, validation and test need at least "
                "three. Take a smaller size= or block=, put regions together, or hold this one out "
                "with holdout_regions=."
            )


def keep_apart(data: GeoData, tiles: Mapping[str, Tile]) -> tuple[GeoData, int]:
    """Leave out chips of training and validation that share ground with a side that is judged.

    Squares of ground keep the middles of chips apart; chips of files that overlap can still reach
    over a border.

    Args:
        data: Split by place.
        tiles: Name of each chip -> its tile.

    Returns:
        The data, and the number of chips that were left out.

    Raises:
        ValueError: No chip is left for training or for validation.
    """
    if len({tile.image.path for tile in tiles.values()}) < 2:
        return data, 0
    away = [chip for part in data.holdout.values() for chip in part.chips]
    judged = [tiles[chip.name] for chip in (*data.test.chips, *away)]
    kept, left_out = {}, 0
    for side, part in (("val", data.val), ("train", data.train)):
        shared = _overlap([tiles[chip.name] for chip in part.chips], judged)
        chips = [chip for chip, both in zip(part.chips, shared, strict=True) if not both]
        if not chips:
            raise GeopeftError(
                f"The files overlap so much that every chip of {side} shares ground with a chip "
                "that is judged. Take a larger block=, or files that overlap less."
            )
        left_out += len(part) - len(chips)
        kept[side] = ChipDataset(chips, part.classes, part.ignore_index, part.task)
        judged += [tiles[chip.name] for chip in chips]
    return replace(data, train=kept["train"], val=kept["val"]), left_out


def _overlap(tiles: Sequence[Tile], others: Sequence[Tile]) -> np.ndarray:
    """Say for each tile whether it shares more than a border with one of the others."""
    shared = np.zeros(len(tiles), bool)
    systems = {tile.image.crs for tile in (*tiles, *others)} - {None}
    for system in systems:
        mine = [number for number, tile in enumerate(tiles) if tile.image.crs == system]
        same = [tile for tile in others if tile.image.crs == system]
        foreign = [tile for tile in others if tile.image.crs not in (system, None)]
        for group, native in ((same, True), (foreign, False)):
            if not mine or not group:
                continue
            here = np.array([_footprint(tiles[number], native) for number in mine])
            for left, bottom, right, top in (_footprint(tile, native) for tile in group):
                shared[mine] |= (
                    (here[:, 0] < right) & (here[:, 2] > left)
                    & (here[:, 1] < top) & (here[:, 3] > bottom)
                )  # fmt: skip
    return shared


def _footprint(tile: Tile, native: bool) -> tuple[float, float, float, float]:
    """Return the ground of a tile, half a pixel less on all sides, in its own system or degrees."""
    from rasterio.warp import transform_bounds

    bounds = tile.image.bounds_of(tile.box)
    assert bounds is not None
    inset = tile.image.transform.a / 2
    left, bottom, right, top = bounds
    box = (left + inset, bottom + inset, right - inset, top - inset)
    if native:
        return box
    found: tuple[float, float, float, float] = transform_bounds(tile.image.crs, "EPSG:4326", *box)
    return found
