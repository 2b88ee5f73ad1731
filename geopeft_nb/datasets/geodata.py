"""A loaded data set: training, validation, test, and the regions that are held out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from geopeft_nb.datasets.base import Chip, ChipDataset, Sample
from geopeft_nb.datasets.cards import DataCard, choose_bands
from geopeft_nb.errors import GeopeftError
from geopeft_nb.pictures.facts import Facts
from geopeft_nb.pictures.show import visible

Chips = Mapping[str, Sequence[Chip]]
Names = tuple[str, ...]


@dataclass(frozen=True, repr=False)
class GeoData(Facts):
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
        frames: Dates T of each image: 1 of (C, H, W), more of (C, T, H, W).
        ignore_index: Mask value that counts for nothing.
        task: That of the card: ``"segmentation"``, ``"regression"``, ``"classification"`` or
            ``"multilabel"``.
        notes: What the loader has to say about these files.
        products: What the files are, as far as the loader knows, such as ``"HLS L30"``.
    """

    train: ChipDataset
    val: ChipDataset
    test: ChipDataset
    holdout: Mapping[str, ChipDataset]
    card: DataCard
    bands: Names
    regions: Names
    size: int
    ignore_index: int = -1
    notes: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    frames: int = 1
    task: str = field(init=False)
    classes: tuple[str, ...] = field(init=False)
    colours: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Take task, class names and colours from the card.

        Raises:
            ValueError: A colour is none; they are written into HTML.
        """
        vars(self).update({key: vars(self.card)[key] for key in ("task", "classes", "colours")})
        if odd := [x for x in self.colours if not re.fullmatch("#[0-9A-Fa-f]{6}", str(x))]:
            raise GeopeftError(f"Colours are written #rrggbb, and {self.card.name} has {odd[0]!r}.")

    @property
    def parts(self) -> dict[str, ChipDataset]:
        """All sides by name: train, val, test, and ``holdout:<region>`` for each held-out one."""
        away = {f"holdout:{region}": chips for region, chips in self.holdout.items()}
        return {"train": self.train, "val": self.val, "test": self.test, **away}

    @property
    def judged(self) -> dict[str, ChipDataset]:
        """Region -> its chips that are scored and shown: of the test at home if any, or held out.

        Raises:
            ValueError: A region has none.
        """
        home = self.regions if self.test.chips or not self.holdout else ()
        sides = {**dict.fromkeys(home, self.test), **self.holdout}
        return self.not_empty({region: side.in_region(region) for region, side in sides.items()})

    def not_empty(self, parts: dict[str, ChipDataset]) -> dict[str, ChipDataset]:
        """Return the parts.

        Raises:
            ValueError: One has no chips.
        """
        if empty := [name for name, part in parts.items() if not part.chips]:
            few = f"{empty[0]!r} has no chips of {self.size} px"
            raise GeopeftError(f"{few}. Take other regions, files, size= or (of own files) block=.")
        return parts

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per band, each (C,), in the image's units.

        The published ones where the card has them, else those of at most 512 training chips.
        """
        if self.card.mean:
            indices, _ = choose_bands(self.bands, self.card)
            mean, std = torch.tensor(self.card.mean), torch.tensor(self.card.std)
            return mean[indices], std[indices]
        return band_statistics(self.not_empty({"train": self.train})["train"])

    def words(self, sample: Sample) -> str:
        """Name the class, or the classes, of a sample that has no label map."""
        if self.task == "classification":
            return visible(self.classes[int(sample["label"])])
        there = [name for name, yes in zip(self.classes, sample["label"], strict=True) if yes]
        return visible(", ".join(there)) or "none of the classes"

    @classmethod
    def of(
        cls, sides: Chips, holdout: Chips, card: DataCard, bands: Names, regions: Names, size: int,
        frames: int = 1, allow_empty: bool = False,
    ) -> GeoData:  # fmt: skip
        """Put chips on their sides.

        Args:
            sides: Chips of ``"train"``, ``"val"`` and ``"test"``.
            holdout: Region -> its chips.
            card: Facts about the data set.
            bands: Bands of the chips.
            regions: The home regions.
            size: Chip side in pixels.
            frames: Dates of each image.
            allow_empty: Whether sides may be empty, as those of one's own split may be.

        Raises:
            ValueError: A side has no chips that must have some.
        """
        part = partial(ChipDataset, classes=card.classes, task=card.task)
        train, val, test = map(part, (sides["train"], sides["val"], sides["test"]))
        away = {region: part(chips) for region, chips in holdout.items()}
        data = cls(train, val, test, away, card, bands, regions, size, frames=frames)
        if not allow_empty:
            data.not_empty(data.parts)
        return data

    def facts(self) -> tuple[str, dict[str, object]]:
        """Say in a few lines what is where; see `Facts`."""
        invented = self.card.synthetic and "SYNTHETIC" not in self.card.title
        return f"{'SYNTHETIC ' if invented else ''}{self.card.title}", {
            "chips": f"{self.size} x {self.size} px",
            "bands": ", ".join(self.bands),
            self.task: ", ".join(self.classes),
            f"home ({', '.join(self.regions)})": f"train {len(self.train)}, val {len(self.val)}, "
            f"test {len(self.test)}",
            "held out": ", ".join(f"{name} {len(x)}" for name, x in self.holdout.items()) or "none",
            "labels": self.card.labels,
            "licence": self.card.licence,
            "note": " ".join(self.notes),
        }


def band_statistics(dataset: ChipDataset, at_most: int = 512) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per band over the pixels of a data set, each (C,).

    Args:
        dataset: Chips.
        at_most: From a larger data set so many are read, evenly spread.
    """
    # no stack of all chips, and they may differ in size
    chips = (sample["image"].double().flatten(1) for sample in dataset.spread(at_most))
    sums = [(pixels.shape[1], pixels.sum(1), (pixels**2).sum(1)) for pixels in chips]
    count, total, square = (sum(part) for part in zip(*sums, strict=True))
    mean = total / count
    variance = (square / count - mean**2).clamp(min=0) * count / max(1, count - 1)
    return mean.float(), variance.sqrt().float()
