"""Chips, splits and cards: what every data set looks like to the rest of the toolkit.

A sample is a torchgeo dictionary: `image` (C, H, W) float32 reflectance 0-1, `mask` (H, W) int64 or
`label`, `crs`, `bounds` (left, bottom, right, top), `region`, `place` and `name`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Sample = dict[str, Any]

#: Kind of data -> key of the target in a sample, and its type. Masks are (H, W), for regression
#: also (K, H, W), and NaN where unknown; a label is one class, or (K,) zeros and ones.
TARGETS = {
    "segmentation": ("mask", torch.int64),
    "regression": ("mask", torch.float32),
    "classification": ("label", torch.int64),
    "multilabel": ("label", torch.int64),
}


@dataclass(frozen=True)
class DataCard:
    """Facts about a data set.

    Attributes:
        name: What `load_data` takes.
        title: Full name.
        task: What is predicted, in words.
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
        kind: What a target is: ``"segmentation"`` (a class per pixel), ``"regression"`` (numbers
            per pixel; `classes` name them), ``"classification"`` (a class per image) or
            ``"multilabel"`` (any number of labels per image).
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
    kind: str = "segmentation"


@dataclass(frozen=True)
class Chip:
    """One square of imagery that has not been read yet.

    Attributes:
        name: Unique name within the data set.
        region: The region it lies in.
        place: Chips of one place share ground, or lie side by side: splits keep them together.
        read: Returns image (C, H, W) float32 and its target: a mask (H, W) int64, or of another
            kind of data (see `TARGETS`). It is called in every epoch, so a slow one keeps what it
            has read.
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
        kind: What a target is, see `DataCard`.
    """

    def __init__(
        self,
        chips: Sequence[Chip],
        classes: Sequence[str],
        ignore_index: int,
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
            image, target = chip.read()
        except (OSError, IndexError) as error:  # rasterio's errors, and a file without the band
            raise ValueError(
                f"Chip {chip.name!r} cannot be read ({error}). Restore its file, or take the "
                "chip out of the data set."
            ) from error
        check_chip(chip.name, image, target, self.classes, self.ignore_index, self.kind)
        return {
            "image": torch.from_numpy(image),
            TARGETS[self.kind][0]: torch.from_numpy(np.asarray(target)),
            "crs": chip.crs,
            "bounds": chip.bounds,
            "region": chip.region,
            "place": chip.place,
            "name": chip.name,
        }


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
        raise ValueError(
            f"Chip {name!r} has {bad} NaN or infinite values. Fill them, or leave the chip out and "
            f"set the mask there to {ignore_index}."
        )
    word, shape, pixels = TARGETS[kind][0], np.shape(target), image.shape[1:]
    wanted: dict[str, tuple[int, ...]] = {
        "segmentation": pixels, "regression": (len(classes), *pixels),
        "classification": (), "multilabel": (len(classes),),
    }  # fmt: skip
    if shape != wanted[kind] and not (kind == "regression" and (1, *shape) == wanted[kind]):
        raise ValueError(
            f"Chip {name!r} has an image of {pixels} pixels and a {word} of {shape} instead of "
            f"{wanted[kind]}."
        )
    if kind == "regression":  # any number goes, and NaN is one that is not known
        return
    values = set(np.unique(target).tolist())
    if kind == "multilabel":
        if values <= {0, 1}:
            return
        raise ValueError(
            f"The label of chip {name!r} has {sorted(values)}. Allowed: 1 for what is there and 0 "
            f"for what is not, of {', '.join(classes)}."
        )
    if unknown := values - set(range(len(classes))) - {ignore_index}:
        allowed = ", ".join(f"{index} {label}" for index, label in enumerate(classes))
        raise ValueError(
            f"The {word} of chip {name!r} has unknown classes {sorted(unknown)}. Allowed: "
            f"{allowed}, and {ignore_index} for what to ignore."
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
        task: The kind of the card: ``"segmentation"``, ``"regression"``, ``"classification"`` or
            ``"multilabel"``.
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
    task: str = field(init=False)
    classes: tuple[str, ...] = field(init=False)
    colours: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Take task, class names and colours from the card."""
        object.__setattr__(self, "task", self.card.kind)
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
