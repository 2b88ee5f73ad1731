"""Data of your own: torch datasets that you have, with a card that says what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from geopeft_nb.datasets.base import Chip, Reading
from geopeft_nb.datasets.cards import DataCard
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.tasks import TASKS


class Samples(Protocol):
    """A map-style data set of torchgeo's dictionaries, as torch has it."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Return a sample."""


def own_data(
    card: DataCard,
    train: Samples,
    val: Samples,
    test: Samples,
    holdout: Mapping[str, Samples] | None = None,
    places: Mapping[str, Sequence[str]] | None = None,
) -> GeoData:
    """Take your own torch datasets as they are split, for training, maps and model cards alike.

    A sample is a dictionary: `image` (C, H, W) float32 in the bands of the card, `mask` or `label`
    as the card's kind asks (see `geopeft_nb.tasks`), and where known `crs`, `bounds`, `location`
    (latitude and longitude) and `date`. It is read when it is asked for.

    Args:
        card: What the data are; its licence and citation go into every model card. It has one home
            region, and the regions that are held out.
        train: Chips for training.
        val: Chips to choose weights by.
        test: Chips at home to judge by.
        holdout: Region -> chips that training never sees; None for none.
        places: Side (``"train"``, ``"val"``, ``"test"`` or a region) -> the place of each chip, to
            be checked against what the card claims. None claims nothing: you split the chips.

    Returns:
        The data, as `load_data` gives them.

    Raises:
        GeopeftError: Regions or colours that do not fit the card, samples that are not of its bands
            and size, or a place on two sides that the card claims to keep apart.

    Example:
        `tests/unit/test_own_data.py` trains on a torch `Dataset` of a few lines.
    """
    away = dict(holdout or {})
    if len(card.home) != 1 or set(card.regions) != {*card.home, *away}:
        raise GeopeftError(
            f"The card has home {card.home} and regions {card.regions}; it needs one home, and "
            f"besides it the regions that are held out: {tuple(away) or 'none'}."
        )
    if len(card.colours) != len(card.classes):
        raise GeopeftError(f"{len(card.classes)} classes need as many colours on the card.")
    chips = {}
    for side, samples in {"train": train, "val": val, "test": test, **away}.items():
        region = side if side in away else card.home[0]
        names = [f"{side}-{index}" for index in range(len(samples))]
        where = names if places is None else places[side]
        chips[side] = [
            Chip(name, region, place, partial(_read, samples, index, card, name))
            for index, (name, place) in enumerate(zip(names, where, strict=True))
        ]
    if places is None:
        card = replace(card, claims=())
    held_out = {region: chips.pop(region) for region in away}
    return GeoData.of(chips, held_out, card, card.bands, card.home, card.size)


def _read(samples: Samples, index: int, card: DataCard, name: str) -> Reading:
    sample = samples[index]
    image = np.asarray(sample["image"])
    if image.shape != (len(card.bands), card.size, card.size):
        raise GeopeftError(
            f"The image of chip {name!r} is {image.shape}, and the card has {len(card.bands)} "
            f"bands of {card.size} x {card.size} px."
        )
    known = {key: sample.get(key) for key in ("crs", "bounds", "location", "date")}
    return Reading(image, np.asarray(sample[TASKS[card.kind].target]), **known)
