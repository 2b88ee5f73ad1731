"""Who is home, who is away, and no place on two sides of a split.

Chips side by side look alike, so a random split of chips flatters every score (Roberts et al. 2017,
doi:10.1111/ecog.02881). So whole places go to training, validation or test, and whole regions are
held out.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.geodata import Chips, DataCard, DataRequest, GeoData, Names
from geopeft_nb.errors import GeopeftError, check_names

SIDES = ("train", "val", "test")
#: Shares of the chips at home that are for training, validation and test.
SHARES = (0.6, 0.2, 0.2)


def deal(
    sizes: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal places to sides: shuffled, large ones first, each to the side that lacks the most.

    Args:
        sizes: Chips of each place.
        shares: Share of the chips that each side is to have.
        rng: Of the shuffle.

    Returns:
        The side of each place; none stays empty if there are enough places.
    """
    shuffled = rng.permutation(len(sizes))
    side_of, filled = np.zeros(len(sizes), int), np.zeros(len(shares))
    for done, place in enumerate(shuffled[np.argsort(-sizes[shuffled], kind="stable")]):
        lacking = np.array(shares) * sizes.sum() - filled
        if (filled == 0).sum() == len(sizes) - done:
            lacking[filled > 0] = -np.inf  # as many places left as empty sides
        side_of[place] = side = lacking.argmax()
        filled[side] += sizes[place]
    return side_of


def split_places(places: Sequence[str], seed: int) -> list[int]:
    """Assign each chip to train (0), validation (1) or test (2), whole places at a time.

    Args:
        places: The place of each chip.
        seed: Seed of the shuffle.

    Returns:
        One side per chip.

    Raises:
        ValueError: Fewer than three places, so that a side would stay empty.
    """
    names, place_of, counts = np.unique(places, return_inverse=True, return_counts=True)
    if len(names) < len(SIDES):
        few = f"{len(places)} chips in {len(names)} place(s), and a split needs at least 3 places"
        raise GeopeftError(f"{few}. Take smaller chips (size=, of own files also block=).")
    return list(deal(counts, SHARES, np.random.default_rng(seed))[place_of])


def split_regions(
    chips: Sequence[Chip], request: DataRequest, card: DataCard, bands: Names, size: int
) -> GeoData:
    """Split the chips of the home regions by place, and hold the other regions out.

    Args:
        chips: All chips of the data set.
        request: Regions, home and held out, and the seed of the split.
        card: Card of the data set.
        bands: Bands of the chips.
        size: Chip side in pixels.

    Returns:
        The split data. A chip of a held-out region that shares its place with home is left out.

    Raises:
        ValueError: Unknown region, a region on both sides, or too few places.
    """
    home, away = choose_regions(card, request)
    sides: dict[str, list[Chip]] = {side: [] for side in SIDES}
    for name in home:  # region by region, so that each is in train, validation and test
        inside = [chip for chip in chips if chip.region == name]
        assigned = split_places([chip.place for chip in inside], request.seed)
        for chip, side in zip(inside, assigned, strict=True):
            sides[SIDES[side]].append(chip)
    at_home = {chip.place for chip in chips if chip.region in home}
    elsewhere = [chip for chip in chips if chip.place not in at_home]
    return claimed(GeoData.of(sides, _by_region(elsewhere, away), card, bands, home, size))


def published_split(
    sides: Chips, request: DataRequest, card: DataCard, bands: Names, size: int
) -> GeoData:
    """Keep the sides that a data set was published with, within the home regions.

    Args:
        sides: Chips of ``"train"``, ``"val"``, ``"test"`` and, where there is one, ``"holdout"``.
        request: Regions. Of those at home the published training, validation and test chips are
            taken; chips that were published as held out join no side. Without a word about what is
            held out: as published if the home regions are the card's, else all others. A region
            that was published at home is held out with all its chips.
        card: Card of the data set.
        bands: Bands of the chips.
        size: Chip side in pixels.

    Returns:
        The split data.

    Raises:
        ValueError: Unknown region, a region on both sides, or a side without chips.
    """
    home, away = choose_regions(card, request)
    if request.holdout_regions is None and set(home) == set(card.home):
        published = {chip.region for chip in sides.get("holdout", ())}
        away = tuple(region for region in away if region in published)
    chosen = {side: [chip for chip in sides[side] if chip.region in home] for side in SIDES}
    everything = [chip for side in (*SIDES, "holdout") for chip in sides.get(side, ())]
    return claimed(GeoData.of(chosen, _by_region(everything, away), card, bands, home, size))


def claimed(data: GeoData) -> GeoData:
    """Return data of which no side shares a place with training, unless the card says it does.

    Raises:
        ValueError: One does that is claimed not to.
    """
    trained = {chip.place for chip in data.train.chips}
    for side, found in data.parts.items():
        both = trained & {chip.place for chip in found.chips}
        if both and side.partition(":")[0] in data.card.claims:  # training is not among them
            shared = f"{len(both)} places of {data.card.name} are in training and in {side}"
            raise GeopeftError(f"{shared}, {min(both)!r} among them. Give each to one side only.")
    return data


def choose_regions(card: DataCard, request: DataRequest) -> tuple[Names, Names]:
    """Return the home regions and those that are held out.

    Args:
        card: Card of the data set; its home is home, and all else held out, unless asked otherwise.
        request: With `train_regions` and `holdout_regions`.

    Raises:
        ValueError: Unknown region, one on both sides or named twice, or no home.
    """
    home = card.home if request.train_regions is None else tuple(request.train_regions)
    others = tuple(region for region in card.regions if region not in home)
    away = others if request.holdout_regions is None else tuple(request.holdout_regions)
    check_names(f"region of {card.name}", (*home, *away), card.regions)
    if not home or len({*home, *away}) < len(home) + len(away):
        told = "" if request.train_regions else " as none are given"
        given = f"train_regions={[*home]}{told}, holdout_regions={[*away]}: one has to be home"
        raise GeopeftError(f"{given}, and none can be trained on and held out, or named twice.")
    return home, away


def _by_region(chips: Sequence[Chip], regions: Names) -> dict[str, list[Chip]]:
    return {name: [chip for chip in chips if chip.region == name] for name in regions}


def shared_places(data: GeoData) -> pd.DataFrame:
    """Count the places that training shares with each other side.

    Args:
        data: From `load_data`.

    Returns:
        One row per side (val, test, ``holdout:<region>``): its `chips` and `places`, the number of
        `shared_places`, and of `shared_chips` in them; and whether the card `claims` that there
        are none.
    """
    trained = {chip.place for chip in data.train.chips}
    rows = {}
    for side, part in data.parts.items():
        places = [chip.place for chip in part.chips]
        shared = [place for place in places if place in trained]
        claimed = side.partition(":")[0] in data.card.claims
        rows[side] = len(places), len(set(places)), len(set(shared)), len(shared), claimed
    columns = ["chips", "places", "shared_places", "shared_chips", "claims"]
    return pd.DataFrame.from_dict(rows, "index", columns=columns).drop("train").rename_axis("side")
