"""Keep ground apart: which chips touch, the places that they make, and the sides of the split."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from geopeft_nb.datasets.base import Bounds, Chip
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData, Names
from geopeft_nb.datasets.split import SIDES, choose_regions, split_places

#: Ground that holds together is one place, unless it is more than this share of its region.
MOSAIC = 0.2
EDGES = ["left", "bottom", "right", "top"]
#: Sides as numbers, in the order in which they give way to each other; -1 is none of them.
TRAIN, VAL, TEST, HELD = range(4)


def split_own(
    chips: Sequence[Chip], grounds: Sequence[Bounds], splits: Sequence[str | None],
    request: DataRequest, card: DataCard, block: int,
) -> tuple[GeoData, list[str]]:  # fmt: skip
    """Split somebody's own chips so that no ground is on two sides; or keep their own split.

    Chips that touch, also those of several files, are one place and go to one side. Where that
    leaves too little to deal, as in one large scene, squares of `block` chips a side are the
    places, and a strip of chips between two sides is left out.

    Args:
        chips: All chips; `place` is the file that each is from.
        grounds: (left, bottom, right, top) of each without padding, in its crs, or without one in
            pixels of its file, counted upwards.
        splits: The user's own side of each chip, or all None.
        request: Regions, and the seed.
        card: Card of the data set; its regions are set here.
        block: Side of a square in chips.

    Returns:
        The data, and notes. Sides that a split of one's own lacks are empty.

    Raises:
        ValueError: An unknown region, or too few places.
    """
    from rasterio.crs import CRS

    frame = pd.DataFrame(grounds, columns=EDGES, dtype=float)
    frame[["crs", "place", "region"]] = [(chip.crs, chip.place, chip.region) for chip in chips]
    for crs, some in frame.groupby("crs").groups.items():
        if CRS.from_user_input(crs).is_geographic:
            frame.loc[some, EDGES] = unwrapped(frame.loc[some, EDGES].to_numpy())
    pairs = touching(frame, card.size)
    frame["place"] = name_places(frame, pairs, block)
    regions = tuple(frame.region.unique())
    card = replace(card, regions=regions, home=regions)
    home, away = choose_regions(card, request)
    sides = np.where(frame.region.isin(away), HELD, -1)
    if any(splits):
        own = [SIDES.index(side) if side else -1 for side in splits]
        sides = np.where(frame.region.isin(home), own, sides)
        shared = int(giving_way(sides, pairs).sum())
        card, notes = replace(card, claims=() if shared else card.claims), _kept(sides, shared)
    else:
        sides, notes = _deal(sides, frame, home, pairs, request.seed)
    at_home = {*frame.place[(sides >= 0) & (sides < HELD)]}
    parts: dict[str, list[Chip]] = {name: [] for name in (*SIDES, *away)}
    for chip, side, place in zip(chips, sides, frame.place, strict=True):
        if side == HELD:
            # a strip lies between what is held out and home, where both are of one place
            own_place = f"{chip.region}: {place}" if place in at_home else place
            parts[chip.region].append(replace(chip, place=own_place))
        elif side >= 0:
            parts[SIDES[side]].append(replace(chip, place=place))
    held = {name: parts.pop(name) for name in away}
    data = GeoData.of(parts, held, card, card.bands, home, card.size, allow_empty=any(splits))
    places = {side: {chip.place for chip in part.chips} for side, part in data.parts.items()}
    counted = [f"{side} {len(data.parts[side])} in {len(some)}" for side, some in places.items()]
    return data, [f"Chips, and the places that they lie in: {', '.join(counted)}.", *notes]


def _kept(sides: np.ndarray, shared: int) -> list[str]:
    """Say what there is to say of the user's own sides."""
    stray, blind = (sides < 0).sum(), (sides == TRAIN).any() and not (sides == VAL).any()
    notes = {
        "Your own split is kept.": True,
        f"{stray} chips are on none of its sides, and are left out.": stray,
        "It has no validation: add one, or let {split} be one of three.": blind,
        f"{shared} of its chips overlap or touch ground of a side that is judged later, "
        "so scores there are too good to be true of new ground.": shared,
    }
    return [note for note, holds in notes.items() if holds]


def _deal(
    held: np.ndarray, frame: pd.DataFrame, home: Names, pairs: np.ndarray, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Deal the places of each home region, and leave out the strip of chips between sides."""
    sides, dealt = held.copy(), dict[str, int]()
    for region in home:  # places that regions share are dealt once
        places = frame.place[frame.region == region]
        new = [place for place in places if place not in dealt]
        if len({*new}) >= len(SIDES) or len(new) == len(places):
            dealt |= dict(zip(new, split_places(new, seed), strict=True))
        sides[places.index] = [dealt.get(place, TRAIN) for place in places]
    out = giving_way(sides, pairs)
    sides[out] = -1
    what = "chips that touch ground of another side are left out; larger block=: fewer."
    return sides, [f"{out.sum()} {what}"] if out.any() else []


def giving_way(sides: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Say which chips touch one that stays on a later side."""
    out = np.zeros(len(sides), bool)
    for side in (TEST, VAL, TRAIN):
        for one, two in (pairs, pairs[::-1]):
            out[one[(sides[one] == side) & (sides[two] > side) & ~out[two]]] = True
    return out


def touching(frame: pd.DataFrame, size: int) -> np.ndarray:
    """Return pairs of chips (2, n) whose ground overlaps or shares an edge; a corner is none.

    Of several coordinate reference systems boxes of degrees are compared, which are larger than the
    ground: rather too much touches than too little.
    """
    boxes = frame[EDGES].to_numpy(copy=True)
    if len(systems := frame.groupby("crs").indices) > 1:
        from rasterio.warp import transform

        for crs, some in systems.items():
            x, y = boxes[some][:, [0, 0, 2, 2]], boxes[some][:, [1, 3, 1, 3]]
            x, y = (np.reshape(z, x.shape) for z in transform(crs, "EPSG:4326", x.flat, y.flat)[:2])
            x += 360 * (x < x.max(1, keepdims=True) - 180)  # of one that lies across 180 degrees
            boxes[some] = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)
        boxes = unwrapped(boxes)
    apart = frame.place.where(frame.crs.isna(), "")  # files without coordinates lie nowhere
    return np.concatenate([_near(boxes, x, size) for x in frame.groupby(apart).indices.values()], 1)


def unwrapped(boxes: np.ndarray) -> np.ndarray:
    """Return boxes of degrees (N, 4) turned so that none is cut off from its neighbours at 180."""
    starts = np.sort(boxes[:, 0] % 360)
    gaps = np.diff(starts, append=starts[0] + 360)
    seam = starts[gaps.argmax()] + gaps.max() / 2
    return boxes - 360 * ((boxes[:, :1] - seam) // 360) * [1, 0, 1, 0]


def _near(boxes: np.ndarray, some: np.ndarray, size: int) -> np.ndarray:
    """Return pairs (2, n) of some boxes that overlap or share an edge, to half a pixel."""
    from shapely import STRtree, box

    left, bottom, right, top = boxes[some].T
    half = (right - left).max() / size / 2
    grown = box(left - half, bottom - half, right + half, top + half)
    one, two = STRtree(grown).query(grown)
    one, two = one[one < two], two[one < two]
    across = np.minimum(right[one], right[two]) - np.maximum(left[one], left[two])
    along = np.minimum(top[one], top[two]) - np.maximum(bottom[one], bottom[two])
    edge = (np.minimum(across, along) > -half) & (np.maximum(across, along) > half)
    return np.stack([some[one[edge]], some[two[edge]]])


def name_places(frame: pd.DataFrame, pairs: np.ndarray, block: int) -> pd.Series:
    """Name the place of each chip: ground that holds together, or a square of a large one."""
    first = np.arange(len(frame))  # of the chips that hold together
    while ((ends := np.sort(first[pairs], axis=0))[0] < ends[1]).any():
        np.minimum.at(first, ends[1], ends[0])
        first = first[first]
    places, crs = frame.place.to_numpy()[first], frame.crs.fillna("")
    size = frame.groupby([places, "region"]).region.transform("size")
    large = size > MOSAIC * frame.groupby("region").region.transform("size")
    large = large.groupby(places).transform("any")
    ground = frame.groupby([places, crs])
    step = block * (frame.right - frame.left).groupby(crs).transform("max")
    column = ((frame.left + frame.right) / 2 - ground.left.transform("min")) // step
    row = (ground.top.transform("max") - (frame.bottom + frame.top) / 2) // step
    cells = row.map(" {:.0f}".format) + column.map("/{:.0f}".format)
    return (places + " " + crs + cells).where(large, places)
