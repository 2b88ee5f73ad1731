"""Items: the images of one id, one file a band and date, and what labels them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import pandas as pd

from geopeft_nb.errors import GeopeftError

DATE = r"(?:19|20)\d\d(?:[-_]?[01]\d[-_]?[0-3]\d|[0-3]\d\d)(?:T\d{6}Z?)?"
#: What is known of a file.
COLUMNS = ("image", "mask", "id", "split", "region", "date", "band", "label", "metres")


@dataclass(frozen=True)
class Item:
    """One id: what becomes one or more chips.

    Attributes:
        name: Unique name.
        images: One entry a date, in time order: one stacked file, or one file a band.
        bands: What the names say of each file of a date, in that order, the same for all dates.
        dates: Day of each entry, None where it is not known.
        mask: File of labels, or None.
        label: Class or number of the whole image, from a table's column or its folder.
        region: Region, ``"all"`` without any.
        split: ``"train"``, ``"val"`` or ``"test"`` where the user has said so.
    """

    name: str
    images: tuple[tuple[Path, ...], ...]
    bands: tuple[str, ...] = ()
    dates: tuple[date | None, ...] = (None,)
    mask: Path | None = None
    label: str | float | None = None
    region: str = "all"
    split: str | None = None


def make_items(files: pd.DataFrame) -> list[Item]:
    """Make items of files: those of one id belong together, by date and band.

    Args:
        files: A row an image, with the columns `COLUMNS`; "" is what is not known.

    Raises:
        ValueError: Two files say the same, or a date lacks a band.
    """
    key, order = ["split", "region", "id"], ["split", "region", "id", "date", "band"]
    files = files.sort_values(
        [*order, "metres"],  # B2 before B10, and of a band the finest first, which stays
        key=lambda column: column.str.replace(r"\d+", lambda text: text[0].zfill(9), regex=True),
    )
    if (same := files.duplicated([*order, "metres"], keep=False)).any():
        two = files[same].drop_duplicates("image")
        raise alike(*(two["image"] if len(two) > 1 else files[same]["mask"])[:2])
    files = files.drop_duplicates(order)
    days = files.groupby([*key, "date"], as_index=False).agg(
        {"image": tuple, "band": tuple, "mask": set, "label": set}
    )
    items = []
    for (split, region, name), some in days.groupby(key):
        dates, (bands, *_) = [*some["date"]], some["band"]
        if odd := {*some["band"]} - {bands}:
            raise GeopeftError(
                f"{name!r} has the bands {', '.join(bands)} on {dates[0]}, and on another date "
                f"{', '.join(odd.pop())}. Add what is missing."
            )
        (mask, *more), (label, *_) = set().union(*some["mask"]), set().union(*some["label"])
        if more:
            raise alike(mask, *more[:1])
        images = tuple(some["image"])
        items.append(
            Item(
                "/".join(filter(None, (split, region, name))) or images[0][0].stem,
                images,
                bands if any(bands) else (),
                tuple(day(date or "".join(re.findall(DATE, name)[:1])) for date in dates),
                mask or None,
                None if label == "" else label,
                region or "all",
                split or None,
            )
        )
    return items


def alike(one: Path, two: Path) -> GeopeftError:
    """Make the error for two files of one name."""
    return GeopeftError(
        f"{one} and {two} have the same name, so it is not clear what belongs together. Rename "
        "one, take one out, or say what tells them apart: images='…{id}…', masks='…{id}…'."
    )


def day(text: object) -> date | None:
    """Read 20210601, 2021-06-01, 2021152 or 20210601T101559; None for anything else."""
    digits = re.sub(r"\D", "", str(text)[:10].partition("T")[0])
    try:
        return datetime.strptime(digits, "%Y%m%d" if len(digits) == 8 else "%Y%j").date()
    except ValueError:
        return None
