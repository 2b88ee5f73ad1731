"""Chips: what every data set looks like to the rest of the toolkit.

A sample is a torchgeo dictionary: `image` (C, H, W) float32 reflectance 0-1, `mask` (H, W) int64 or
`label`, `crs`, `bounds` (left, bottom, right, top), `region`, `place` and `name`. Where they are
known it also has `temporal` (1, 2) float32, year and day of year counted from 1, and `location`
(2,) float32, latitude and longitude in degrees.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from geopeft_nb.errors import GeopeftError
from geopeft_nb.tasks import TASKS

Sample = dict[str, Any]
Bounds = tuple[float, float, float, float]


class Reading(NamedTuple):
    """What reading a chip gave; what is not None goes before what the chip itself states.

    Attributes:
        image: (C, H, W) float32.
        target: A mask (H, W) int64, or as its `TaskCard` says.
        crs: Coordinate reference system.
        bounds: (left, bottom, right, top) in units of the crs.
        location: Latitude and longitude in degrees.
        date: Day of acquisition.
    """

    image: np.ndarray
    target: np.ndarray
    crs: str | None = None
    bounds: Bounds | None = None
    location: tuple[float, float] | None = None
    date: datetime.date | None = None


@dataclass(frozen=True)
class Chip:
    """One square of imagery that has not been read yet.

    Attributes:
        name: Unique name within the data set.
        region: The region it lies in.
        place: Chips of one place share ground, or lie side by side: splits keep them together.
        read: Returns image (C, H, W) float32 and its target: a mask (H, W) int64, or of another
            kind of data (see `geopeft_nb.tasks`); or a `Reading`, which also says where and when.
            It is called in every epoch, so a slow one keeps what it has read.
        crs: Coordinate reference system, for example ``"EPSG:32618"``, or None.
        bounds: (left, bottom, right, top) in units of the crs, or None.
        date: Day of acquisition, or None.
        location: Latitude and longitude of the centre in degrees; None takes it from the bounds.
    """

    name: str
    region: str
    place: str
    read: Callable[[], tuple[np.ndarray, np.ndarray] | Reading]
    crs: str | None = None
    bounds: Bounds | None = None
    date: datetime.date | None = None
    location: tuple[float, float] | None = None


class ChipDataset:
    """A map-style data set of chips; each is read and checked when it is asked for.

    Args:
        chips: What it holds.
        classes: Class names, to check the masks against.
        ignore_index: Mask value of pixels that count for nothing.
        kind: What a target is, see `DataCard`.
    """

    def __init__(
        self,
        chips: Sequence[Chip],
        classes: Sequence[str],
        ignore_index: int = -1,
        kind: str = "segmentation",
    ) -> None:
        self.chips = list(chips)
        self.classes, self.ignore_index, self.kind = tuple(classes), ignore_index, kind

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.chips)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample.

        Raises:
            ValueError: The chip has NaN pixels, or its mask a class that is not in the list.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"chip {index} of {len(self)}")
        chip = self.chips[index]
        try:
            found = Reading(*chip.read())
        except (OSError, IndexError, KeyError, RuntimeError) as error:  # rasterio's and h5py's
            raise GeopeftError(
                f"Chip {chip.name!r} cannot be read ({error}). Restore its file, or take the "
                "chip out of the data set."
            ) from error
        image, target = found.image, np.asarray(found.target)
        check_chip(chip.name, image, target, self.classes, self.ignore_index, self.kind)
        crs, bounds = found.crs or chip.crs, found.bounds or chip.bounds
        sample = {
            "image": torch.from_numpy(image),
            TASKS[self.kind].target: torch.from_numpy(target),
            "crs": crs,
            "bounds": bounds,
            "region": chip.region,
            "place": chip.place,
            "name": chip.name,
        }
        if date := found.date or chip.date:
            day = date.timetuple().tm_yday
            sample["temporal"] = torch.tensor([[float(date.year), float(day)]])
        if location := found.location or chip.location or centre(crs, bounds):
            sample["location"] = torch.tensor(location, dtype=torch.float32)
        return sample

    def in_region(self, region: str) -> ChipDataset:
        """Return the chips that lie in a region."""
        part = copy(self)
        part.chips = [chip for chip in self.chips if chip.region == region]
        return part

    def spread(self, at_most: int) -> Iterator[Sample]:
        """Read at most so many chips, evenly spread."""
        chosen = np.linspace(0, len(self) - 1, min(at_most, len(self))).round().astype(int)
        return (self[int(index)] for index in chosen)


@lru_cache(maxsize=100_000)
def centre(crs: str | None, bounds: Bounds | None) -> tuple[float, float] | None:
    """Return latitude and longitude of the middle of the bounds in degrees, None if not known."""
    if crs is None or bounds is None:
        return None
    from rasterio.warp import transform

    x, y = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    (longitude,), (latitude,) = transform(crs, "EPSG:4326", [x], [y])
    return latitude, longitude


def check_chip(
    name: str, image: np.ndarray, target: np.ndarray, classes: Sequence[str], ignore_index: int,
    kind: str = "segmentation",
) -> None:  # fmt: skip
    """Refuse a chip that would spoil training.

    Raises:
        ValueError: NaN or infinite pixels, image and mask of different size, a label of another
            shape, or unknown classes.
    """
    if bad := int((~np.isfinite(image)).sum()):
        raise GeopeftError(
            f"Chip {name!r} has {bad} NaN or infinite values. Fill them, or leave the chip out and "
            f"set the mask there to {ignore_index}."
        )
    task, shape, pixels = TASKS[kind], target.shape, image.shape[1:]
    wanted = task.shape(len(classes), pixels)
    if wanted not in (shape, (1, *shape)):
        raise GeopeftError(
            f"Chip {name!r} has an image of {pixels} pixels and a {task.target} of {shape} instead "
            f"of {wanted}."
        )
    kinds = str(image.dtype), str(target.dtype)
    if kinds != ("float32", str(task.dtype).removeprefix("torch.")):
        raise GeopeftError(
            f"Chip {name!r} has an image of {kinds[0]} and a {task.target} of {kinds[1]}; float32 "
            f"and {str(task.dtype).removeprefix('torch.')} are needed."
        )
    if task.dtype.is_floating_point:  # any number goes, and NaN is one that is not known
        return
    values = _values(target)
    if kind == "multilabel":
        if values <= {0, 1}:
            return
        raise GeopeftError(
            f"The label of chip {name!r} has {sorted(values)}. Allowed: 1 for what is there and 0 "
            f"for what is not, of {', '.join(classes)}."
        )
    if unknown := values - set(range(len(classes))) - {ignore_index}:
        allowed = ", ".join(f"{index} {label}" for index, label in enumerate(classes))
        raise GeopeftError(
            f"The {task.target} of chip {name!r} has unknown classes {sorted(unknown)}. Allowed: "
            f"{allowed}, and {ignore_index} for what to ignore."
        )


def _values(target: np.ndarray) -> set[int]:
    """Return the values of an array of labels; counting is ten times faster than sorting."""
    low, high = int(target.min()), int(target.max())
    if high - low > 100_000:  # nonsense, or codes: too far apart to count
        return set(np.unique(target).tolist())
    return set((np.flatnonzero(np.bincount((target - low).ravel())) + low).tolist())
