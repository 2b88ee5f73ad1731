"""Regions and places: what is home, what is away, and no place on two sides of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geopeft_nb.datasets.base import Chip, ChipDataset, DataCard, GeoData
from geopeft_nb.errors import unknown_name

#: Shares of the chips at home that are for training, validation and test.
SHARES = (0.6, 0.2, 0.2)


def split_places(places: Sequence[str], seed: int) -> list[int]:
    """Assign each chip to train (0), validation (1) or test (2), whole places at a time.

    Places are shuffled, large ones first, and each goes to the side that lacks the most chips.

    Args:
        places: The place of each chip.
        seed: Seed of the shuffle.

    Returns:
        One side per chip.

    Raises:
        ValueError: Fewer than three places, so that a side would stay empty.
    """
    names, counts = np.unique(np.asarray(places, dtype=str), return_counts=True)
    if len(names) < len(SHARES):
        raise ValueError(
            f"{len(places)} chips lie in {len(names)} place(s); at least {len(SHARES)} places are "
            "needed to split into train, validation and test without sharing ground."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order], kind="stable")]
    filled = np.zeros(len(SHARES))
    side_of: dict[str, int] = {}
    for index in order:
        lacking = np.array(SHARES) * len(places) - filled
        if (filled == 0).sum() == len(names) - len(side_of):
            lacking[filled > 0] = -np.inf  # as many places left as empty sides: no side stays empty
        side = int(np.argmax(lacking))
        side_of[str(names[index])] = side
        filled[side] += counts[index]
    return [side_of[str(place)] for place in places]


def split_regions(
    chips: Sequence[Chip],
    card: DataCard,
    bands: tuple[str, ...],
    size: int,
    train_regions: Sequence[str] | None,
    holdout_regions: Sequence[str] | None,
    seed: int,
    ignore_index: int = -1,
) -> GeoData:
    """Put chips into train, validation, test and held-out regions.

    Args:
        chips: All chips of the data set.
        card: Its card.
        bands: Bands of the chips.
        size: Chip side in pixels.
        train_regions: Home regions; None takes the card's.
        holdout_regions: Regions to keep away from training; None takes all others.
        seed: Seed of the split of the home chips by place.
        ignore_index: Mask value that counts for nothing.

    Returns:
        The split data. A chip of a held-out region that shares its place with home is left out.

    Raises:
        ValueError: Unknown region, a region on both sides, or one without chips.
    """
    home = tuple(train_regions) if train_regions is not None else card.home
    others = tuple(region for region in card.regions if region not in home)
    away = tuple(holdout_regions) if holdout_regions is not None else others
    for region in (*home, *away):
        if region not in card.regions:
            raise unknown_name(f"region of {card.name}", region, card.regions)
    if both := set(home) & set(away):
        raise ValueError(
            f"Region {', '.join(sorted(both))} cannot be trained on and held out. Home is "
            f"{', '.join(home)}; choose another with train_regions=[...]."
        )
    if not home:
        raise ValueError(f"train_regions is empty; choose from {', '.join(card.regions)}.")
    members = {name: [c for c in chips if c.region == name] for name in (*home, *away)}
    if empty := [name for name, inside in members.items() if not inside]:
        raise ValueError(f"Region {', '.join(empty)} of {card.name} has no chips of {size} px.")

    def dataset(selected: Sequence[Chip]) -> ChipDataset:
        return ChipDataset(selected, card.classes, ignore_index, card.kind)

    sides: tuple[list[Chip], list[Chip], list[Chip]] = ([], [], [])
    for name in home:  # region by region, so that each is in train, validation and test
        assigned = split_places([chip.place for chip in members[name]], seed)
        for chip, side in zip(members[name], assigned, strict=True):
            sides[side].append(chip)
    train, val, test = (dataset(side) for side in sides)
    at_home = {chip.place for name in home for chip in members[name]}
    holdout = {
        name: dataset([chip for chip in members[name] if chip.place not in at_home])
        for name in away
    }
    return GeoData(train, val, test, holdout, card, bands, home, size, ignore_index)
