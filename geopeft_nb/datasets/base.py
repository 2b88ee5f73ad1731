"""Chips: what every data set looks like to the rest of the toolkit.

A sample is a torchgeo dictionary: `image` (C, H, W) float32 reflectance 0-1, or (C, T, H, W) of
several dates, `mask` (H, W) int64 or `label`, `crs`, `bounds` (left, bottom, right, top), `region`,
`place` and `name`. Where they are known it also has `temporal` (T, 2) float32, year and day of year
counted from 1, and `location` (2,) float32, latitude and longitude in degrees.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from geopeft_nb.errors import GeopeftError
from geopeft_nb.tasks import TASKS

Sample = dict[str, Any]
Bounds = tuple[float, float, float, float]
Days = datetime.date | tuple[datetime.date, ...]


class Reading(NamedTuple):
    """What reading a chip gave; what is not None goes before what the chip itself states.

    Attributes:
        image: (C, H, W) or (C, T, H, W) float32.
        target: A mask (H, W) int64, or as its `TaskCard` says.
        crs: Coordinate reference system.
        bounds: (left, bottom, right, top) in units of the crs.
        location: Latitude and longitude in degrees.
        date: Day of acquisition, or those of T dates.
    """

    image: np.ndarray
    target: np.ndarray
    crs: str | None = None
    bounds: Bounds | None = None
    location: tuple[float, float] | None = None
    date: Days | None = None


class Ground(NamedTuple):
    """What of the Earth a chip shows, as far as it is known; of dates the first.

    Fields as of `Chip`.
    """

    name: str
    crs: str | None
    bounds: Bounds | None
    date: datetime.date | None

    @property
    def known(self) -> bool:
        """Whether it can be told from other ground."""
        return None not in (self.crs, self.bounds)


@dataclass(frozen=True)
class Chip:
    """One square of imagery that has not been read yet.

    Attributes:
        name: Unique name within the data set.
        region: The region it lies in.
        place: Chips of one place share ground, or lie side by side: splits keep them together.
        read: Returns image (C, H, W) or (C, T, H, W) float32 and its target: a mask (H, W) int64,
            or of another task (see `geopeft_nb.tasks`); or a `Reading`, which also says where and
            when.
            It is called in every epoch, so a slow one keeps what it has read.
        crs: Coordinate reference system, for example ``"EPSG:32618"``, or None.
        bounds: (left, bottom, right, top) in units of the crs, or None.
        date: Day of acquisition, or those of T dates, or None.
        location: Latitude and longitude of the centre in degrees; None takes it from the bounds.
        filled: Bounds of what is not padding, or None if there is none.
        files: What it is read from, of a published data set.
    """

    name: str
    region: str
    place: str
    read: Callable[..., Any]
    crs: str | None = None
    bounds: Bounds | None = None
    date: Days | None = None
    location: tuple[float, float] | None = None
    filled: Bounds | None = None
    files: Sequence[Path] = ()


@dataclass(eq=False, repr=False)
class ChipDataset:
    """A map-style data set of chips; each is read and checked when it is asked for.

    Args:
        chips: What it holds.
        classes: Class names, to check the masks against.
        ignore_index: Mask value of pixels that count for nothing.
        task: What a target is, see `DataCard`.

    Attributes:
        noted: Index -> ground of the chips that have been read.
    """

    chips: Sequence[Chip]
    classes: Sequence[str]
    ignore_index: int = -1
    task: str = "segmentation"
    noted: dict[int, Ground] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.chips)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample.

        Raises:
            ValueError: The chip cannot be read, or would spoil training, see `check`.
        """
        chip = self.chips[index]
        try:
            found = Reading(*chip.read())
        except (OSError, IndexError, KeyError, RuntimeError) as error:  # rasterio's and h5py's
            raise GeopeftError(f"Chip {chip.name!r} cannot be read ({error}).") from error
        # what reading has found goes before what the chip states
        known = vars(chip) | {key: x for key, x in found._asdict().items() if x is not None}
        image, target = torch.from_numpy(found.image), torch.from_numpy(np.asarray(found.target))
        self.check(chip.name, image, target)
        where = chip.filled or known["bounds"]
        self.noted[index] = Ground(chip.name, known["crs"], where, first_day(known["date"]))
        sample = {key: known[key] for key in ("name", "region", "place", "crs", "bounds")}
        sample |= {"image": image, TASKS[self.task].target: target}
        if days := known["date"]:
            days = days if isinstance(days, tuple) else (days,)
            pairs = [(float(day.year), float(day.timetuple().tm_yday)) for day in days]
            sample["temporal"] = torch.tensor(pairs)
        if location := known["location"] or centre(known["crs"], known["bounds"]):
            sample["location"] = torch.tensor(location, dtype=torch.float32)
        return sample

    def __iter__(self) -> Iterator[Sample]:
        """Read one chip after the other."""
        return map(self.__getitem__, range(len(self)))

    def in_region(self, region: str) -> ChipDataset:
        """Return the chips that lie in a region."""
        return replace(self, chips=[chip for chip in self.chips if chip.region == region])

    def grounds(self) -> list[Ground]:
        """Say what ground each chip shows; those that do not state it are read, if they were not.

        Raises:
            ValueError: A chip cannot be read.
        """
        for index, chip in enumerate(self.chips):
            if None in (chip.crs, chip.bounds) and index not in self.noted:
                self[index]  # which notes it
        return [
            self.noted.get(i) or Ground(x.name, x.crs, x.filled or x.bounds, first_day(x.date))
            for i, x in enumerate(self.chips)
        ]

    def absent(self) -> list[str]:
        """Name the classes that no chip shows; chips are read until all classes have been seen."""
        missing = set() if self.task == "regression" else {*range(len(self.classes))}
        samples = iter(self)
        while missing and (sample := next(samples, None)):
            target = sample[TASKS[self.task].target]
            there = target.nonzero() if self.task == "multilabel" else target
            missing -= {*there.unique().tolist()}
        return [self.classes[index] for index in sorted(missing)]

    def check(self, name: str, image: Tensor, target: Tensor) -> None:
        """Refuse a chip that would spoil training.

        Raises:
            ValueError: NaN or infinite pixels, a target of another shape or type, or unknown
                classes.
        """
        task = TASKS[self.task]
        if not np.isfinite(image.numpy()).all():  # faster than torch's
            raise GeopeftError(f"Chip {name!r} has NaN or infinite values: fill or leave it out.")
        shape, types = task.shape(len(self.classes), image.shape[-2:]), (torch.float32, task.dtype)
        # a map of one target may lack the axis of targets
        if shape not in (target.shape, (1, *target.shape)) or (image.dtype, target.dtype) != types:
            raise GeopeftError(
                f"Chip {name!r} has a {task.target} of {tuple(target.shape)} instead of "
                f"{tuple(shape)}, or {image.dtype} and {target.dtype} instead of {types}."
            )
        allowed = task.allowed or {self.ignore_index: "no label"} | dict(enumerate(self.classes))
        # as a number any goes, and NaN is one that is not known
        if not (task.dtype.is_floating_point or np.isin(target.numpy(), [*allowed]).all()):
            unknown = f"unknown values {sorted({*target.unique().tolist()} - allowed.keys())}"
            raise GeopeftError(f"The {task.target} of chip {name!r} has {unknown}, not {allowed}.")

    def spread(self, at_most: int) -> Iterator[Sample]:
        """Read at most so many chips, evenly spread."""
        chosen = np.linspace(0, len(self) - 1, min(at_most, len(self))).round().astype(int)
        return (self[int(index)] for index in chosen)


def first_day(days: Days | None) -> datetime.date | None:
    """Return the first of several dates, or the one that there is."""
    return days[0] if isinstance(days, tuple) else days


@lru_cache(maxsize=100_000)
def centre(crs: str | None, bounds: Bounds | None) -> tuple[float, float] | None:
    """Return latitude and longitude of the middle of the bounds in degrees, None if not known."""
    if crs is None or bounds is None:
        return None
    from rasterio.warp import transform

    x, y = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    (longitude,), (latitude,) = transform(crs, "EPSG:4326", [x], [y])
    return latitude, longitude
