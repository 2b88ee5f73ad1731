"""Regions and places: what is home, what is away, and no place on two sides of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.cards import DataCard
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError, unknown_name

SIDES = ("train", "val", "test")
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
        raise GeopeftError(
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
    home, away = choose_regions(card, train_regions, holdout_regions)
    members = {name: [c for c in chips if c.region == name] for name in (*home, *away)}
    if empty := [name for name, inside in members.items() if not inside]:
        raise GeopeftError(f"Region {', '.join(empty)} of {card.name} has no chips of {size} px.")
    sides: dict[str, list[Chip]] = {"train": [], "val": [], "test": []}
    for name in home:  # region by region, so that each is in train, validation and test
        assigned = split_places([chip.place for chip in members[name]], seed)
        for chip, side in zip(members[name], assigned, strict=True):
            sides[SIDES[side]].append(chip)
    at_home = {chip.place for name in home for chip in members[name]}
    holdout = {name: [c for c in members[name] if c.place not in at_home] for name in away}
    return _gather(sides, holdout, card, bands, home, size, ignore_index)


def published_split(
    sides: Mapping[str, Sequence[Chip]],
    card: DataCard,
    bands: tuple[str, ...],
    size: int,
    train_regions: Sequence[str] | None = None,
    holdout_regions: Sequence[str] | None = None,
    ignore_index: int = -1,
) -> GeoData:
    """Keep the sides that a data set was published with, within the home regions.

    Args:
        sides: Chips of ``"train"``, ``"val"``, ``"test"`` and, where there is one, ``"holdout"``.
        card: Its card.
        bands: Bands of the chips.
        size: Chip side in pixels.
        train_regions: Home regions; None takes the card's. Of these the published training,
            validation and test chips are taken; chips that were published as held out join no side.
        holdout_regions: Regions to hold out. None: as published if the home regions are the card's,
            else all others. A region that was published at home is held out with all its chips.
        ignore_index: Mask value that counts for nothing.

    Returns:
        The split data.

    Raises:
        ValueError: Unknown region, a region on both sides, or a side without chips.
    """
    published = {chip.region for chip in sides.get("holdout", ())}
    at_home = train_regions is None or set(train_regions) == set(card.home)
    if holdout_regions is None and at_home:
        holdout_regions = [region for region in card.regions if region in published]
    home, away = choose_regions(card, train_regions, holdout_regions)
    chosen = {side: [chip for chip in sides[side] if chip.region in home] for side in SIDES}
    if empty := [side for side, chips in chosen.items() if not chips]:
        raise GeopeftError(
            f"The published split of {card.name} has no {' and no '.join(empty)} chips of region "
            f"{', '.join(home)}. Add another region to train_regions."
        )
    everything = [chip for side in (*SIDES, "holdout") for chip in sides.get(side, ())]
    holdout = {name: [chip for chip in everything if chip.region == name] for name in away}
    if missing := [name for name, chips in holdout.items() if not chips]:
        raise GeopeftError(f"Region {', '.join(missing)} of {card.name} has no chips.")
    return _gather(chosen, holdout, card, bands, home, size, ignore_index)


def choose_regions(
    card: DataCard, train_regions: Sequence[str] | None, holdout_regions: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the home regions and those that are held out.

    Args:
        card: Card of the data set.
        train_regions: Home regions; None takes the card's.
        holdout_regions: Regions to hold out; None takes all others.

    Raises:
        ValueError: Unknown region, one on both sides or named twice, or no home.
    """
    home = tuple(train_regions) if train_regions is not None else card.home
    others = tuple(region for region in card.regions if region not in home)
    away = tuple(holdout_regions) if holdout_regions is not None else others
    for region in (*home, *away):
        if region not in card.regions:
            raise unknown_name(f"region of {card.name}", region, card.regions)
    for argument, names in (("train", home), ("holdout", away)):
        if len(set(names)) < len(names):
            raise GeopeftError(f"{argument}_regions names a region twice: {', '.join(names)}.")
    if both := set(home) & set(away):
        raise GeopeftError(
            f"Region {', '.join(sorted(both))} cannot be trained on and held out. Home is "
            f"{', '.join(home)}; choose another with train_regions=[...]."
        )
    if not home:
        raise GeopeftError(f"train_regions is empty; choose from {', '.join(card.regions)}.")
    return home, away


def _gather(
    sides: Mapping[str, Sequence[Chip]], holdout: Mapping[str, Sequence[Chip]], card: DataCard,
    bands: tuple[str, ...], home: tuple[str, ...], size: int, ignore_index: int,
) -> GeoData:  # fmt: skip
    train, val, test, *away = (
        ChipDataset(chips, card.classes, ignore_index, card.kind)
        for chips in (*(sides[side] for side in SIDES), *holdout.values())
    )
    data = GeoData(
        train, val, test, dict(zip(holdout, away, strict=True)), card, bands, home, size,
        ignore_index,
    )  # fmt: skip
    data.check_apart()
    return data


def block_places(region: str, rows: int, columns: int, block: int) -> list[str]:
    """Name the place of each chip of a scene: squares of chips, so that neighbours stay together.

    Chips side by side look alike, so a random split of a single scene flatters every score.

    Args:
        region: Name to begin with.
        rows: Rows of chips.
        columns: Columns of chips.
        block: Side of a square in chips.

    Returns:
        rows x columns names, row by row.

    Example:
        >>> block_places("delta", 1, 3, 2)
        ['delta-0-0', 'delta-0-0', 'delta-0-1']
    """
    return [
        f"{region}-{row // block}-{column // block}"
        for row in range(rows)
        for column in range(columns)
    ]


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
    for name, part in data.parts.items():
        places = [chip.place for chip in part.chips]
        rows[name] = {
            "chips": len(places),
            "places": len(set(places)),
            "shared_places": len(set(places) & trained),
            "shared_chips": sum(place in trained for place in places),
            "claims": name.partition(":")[0] in data.card.claims,
        }
    del rows["train"]
    return pd.DataFrame(rows).T.rename_axis("side")
