"""Chips, splits and cards: what every data set looks like to the rest of the toolkit.

A sample is a torchgeo dictionary: `image` (C, H, W) float32 reflectance 0-1, `mask` (H, W) int64,
`crs`, `bounds` (left, bottom, right, top), `region`, `place` and `name`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Sample = dict[str, Any]


@dataclass(frozen=True)
class DataCard:
    """Facts about a data set.

    Attributes:
        name: What `load_data` takes.
        title: Full name.
        task: What is predicted.
        classes: Class names; the index is the value in the mask.
        colours: One #rrggbb colour per class, the same in figures and maps.
        bands: All bands of the files, in their order.
        regions: All region names.
        home: Regions that are trained on unless others are asked for.
        size: Default chip side in pixels.
        resolution: Pixel side in metres.
        labels: How the labels were made.
        licence: Licence of imagery and labels.
        citation: What to cite.
        synthetic: True if the pixels are simulated.
    """

    name: str
    title: str
    task: str
    classes: tuple[str, ...]
    colours: tuple[str, ...]
    bands: tuple[str, ...]
    regions: tuple[str, ...]
    home: tuple[str, ...]
    size: int
    resolution: float
    labels: str
    licence: str
    citation: str
    synthetic: bool = False


@dataclass(frozen=True)
class Chip:
    """One square of imagery that has not been read yet.

    Attributes:
        name: Unique name within the data set.
        region: The region it lies in.
        place: Chips of one place share ground, or lie side by side: splits keep them together.
        read: Returns image (C, H, W) float32 and mask (H, W) int64. It is called in every epoch,
            so a slow one keeps what it has read.
        crs: Coordinate reference system, for example ``"EPSG:32618"``, or None.
        bounds: (left, bottom, right, top) in units of the crs, or None.
    """

    name: str
    region: str
    place: str
    read: Callable[[], tuple[np.ndarray, np.ndarray]]
    crs: str | None = None
    bounds: tuple[float, float, float, float] | None = None


class ChipDataset:
    """A map-style data set of chips; each is read and checked when it is asked for.

    Args:
        chips: What it holds.
        classes: Class names, to check the masks against.
        ignore_index: Mask value of pixels that count for nothing.
    """

    def __init__(self, chips: Sequence[Chip], classes: Sequence[str], ignore_index: int) -> None:
        self.chips = list(chips)
        self.classes, self.ignore_index = tuple(classes), ignore_index

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
            image, mask = chip.read()
        except (OSError, IndexError) as error:  # rasterio's errors, and a file without the band
            raise ValueError(
                f"Chip {chip.name!r} cannot be read ({error}). Restore its file, or take the "
                "chip out of the data set."
            ) from error
        check_chip(chip.name, image, mask, self.classes, self.ignore_index)
        return {
            "image": torch.from_numpy(image),
            "mask": torch.from_numpy(mask),
            "crs": chip.crs,
            "bounds": chip.bounds,
            "region": chip.region,
            "place": chip.place,
            "name": chip.name,
        }


def check_chip(
    name: str, image: np.ndarray, mask: np.ndarray, classes: Sequence[str], ignore_index: int
) -> None:
    """Refuse a chip that would spoil training.

    Raises:
        ValueError: NaN or infinite pixels, image and mask of different size, or unknown classes.
    """
    if bad := int((~np.isfinite(image)).sum()):
        raise ValueError(
            f"Chip {name!r} has {bad} NaN or infinite values. Fill them, or leave the chip out and "
            f"set the mask there to {ignore_index}."
        )
    if image.shape[1:] != mask.shape:
        raise ValueError(
            f"Chip {name!r} has an image of {image.shape[1:]} and a mask of {mask.shape} pixels."
        )
    unknown = set(np.unique(mask).tolist()) - set(range(len(classes))) - {ignore_index}
    if unknown:
        allowed = ", ".join(f"{index} {label}" for index, label in enumerate(classes))
        raise ValueError(
            f"The mask of chip {name!r} has unknown classes {sorted(unknown)}. Allowed: {allowed}, "
            f"and {ignore_index} for pixels to ignore."
        )


@dataclass(frozen=True)
class GeoData:
    """A data set, split by place within the home regions, with whole regions held out.

    Attributes:
        train: Training chips.
        val: Validation chips, from other places of the same regions.
        test: Test chips at home, from other places again.
        holdout: Region -> chips of a region that training never sees.
        card: Facts about the data set.
        bands: Bands of the images, in order.
        regions: The home regions.
        size: Chip side in pixels.
        ignore_index: Mask value that counts for nothing.
    """

    train: ChipDataset
    val: ChipDataset
    test: ChipDataset
    holdout: Mapping[str, ChipDataset]
    card: DataCard
    bands: tuple[str, ...]
    regions: tuple[str, ...]
    size: int
    ignore_index: int = -1
    classes: tuple[str, ...] = field(init=False)
    colours: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Take class names and colours from the card."""
        object.__setattr__(self, "classes", self.card.classes)
        object.__setattr__(self, "colours", self.card.colours)

    def __repr__(self) -> str:
        """Say in a few lines what is where."""
        away = ", ".join(f"{name} {len(chips)}" for name, chips in self.holdout.items()) or "none"
        kind = "SYNTHETIC " if self.card.synthetic else ""
        return (
            f"{kind}{self.card.title}: {self.size} x {self.size} px chips of {len(self.bands)} "
            f"bands, classes {', '.join(self.classes)}\n"
            f"  home ({', '.join(self.regions)}): train {len(self.train)}, val {len(self.val)}, "
            f"test {len(self.test)}\n  held out: {away}\n  labels: {self.card.labels}"
        )
