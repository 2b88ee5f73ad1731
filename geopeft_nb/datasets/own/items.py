"""Items: the images of one id, one file a band and date, and what labels them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from geopeft_nb.errors import GeopeftError


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


@dataclass(frozen=True)
class File:
    """A file and what its name says."""

    path: Path
    names: tuple[str, ...]  # four: the name, without band, time of day, and date: the id
    split: str | None = None
    folders: tuple[str, ...] = ()  # the first is the region
    date: str = ""
    band: str = ""
    label: str | float | None = None
    metres: int = 0  # as the names of Sentinel-2 say
    is_mask: bool = False


def _item(files: Iterable[File], level: int, mask: Path | None = None) -> Item:
    """Make one item of the files of an id: dates in order, bands in order."""
    dates: dict[str, dict[str, File]] = defaultdict(dict)
    for file in sorted(files, key=lambda file: -file.metres):  # the finest comes last, and stays
        other = dates[file.date].get(file.band)
        if other is not None and other.metres == file.metres:
            raise alike(other.path, file.path)
        dates[file.date][file.band] = file
    days = sorted(dates, key=lambda text: (day(text) or date.min, text))
    bands = sorted(dates[days[0]], key=lambda band: [
        int(part) if part.isdigit() else part for part in re.split(r"(\d+)", band)
    ])  # fmt: skip
    if odd := [when for when in days if {*dates[when]} != {*bands}]:
        raise GeopeftError(
            f"{file.names[-1]!r} has the bands {', '.join(bands)} on {days[0]}, and "
            f"{', '.join(sorted(dates[odd[0]]))} on {odd[0]}. Add what is missing."
        )
    name = "/".join(filter(None, (file.split, *file.folders, file.names[level].strip("/"))))
    return Item(
        name or file.path.stem,
        tuple(tuple(dates[when][band].path for band in bands) for when in days),
        tuple(bands) if any(bands) else (), tuple(map(day, days)), mask, file.label,
        "all" if file.folders in ((), (file.label,)) else file.folders[0], file.split,
    )  # fmt: skip


def group(files: Sequence[File], notes: list[str]) -> list[Item]:
    """Match masks to images: by names with less and less in them, or alone in a folder."""
    sides = [[file for file in files if file.is_mask == is_mask] for is_mask in (False, True)]
    if not sides[1]:  # bands belong together, and dates if a pattern says so
        alone: dict[Hashable, list[File]] = defaultdict(list)
        for file in files:
            alone[file.split, file.folders, file.label, file.names[1]].append(file)
        return [_item(some, 1) for some in alone.values()]
    both = [x for x in ("split", "folders") if all(any(getattr(f, x) for f in s) for s in sides)]
    items, used = [], set()
    for level in range(5):
        groups: dict[Hashable, tuple[list[File], list[File]]] = defaultdict(lambda: ([], []))
        for file in files:
            if file.path not in used:
                key = [getattr(file, name) for name in both]
                groups[(*key, file.names[level]) if level < 4 else file.path.parent][
                    file.is_mask].append(file)  # fmt: skip
        for some, drawn in groups.values():
            if not some or not drawn:
                continue
            fits = len({(file.split, file.folders, file.names[-1]) for file in some}) == 1
            if fits and len(drawn) == 1:
                items.append(_item(some, min(level, 3), drawn[0].path))
                used |= {drawn[0].path, *(file.path for file in some)}
            elif level < 4:
                raise alike(*[file.path for file in (drawn if drawn[1:] else some)[:2]])
    for side, kind, other in zip(sides, ("image", "mask"), ("mask", "image"), strict=True):
        if left := [file.path.name for file in side if file.path not in used]:
            shown = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
            notes.append(f"Left out, {kind} without {other}: {len(left)} ({shown}).")
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
