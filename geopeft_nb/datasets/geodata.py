"""What is known of a data set, what was asked of it, and what was loaded: its sides and regions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from geopeft_nb.bands import band_indices
from geopeft_nb.datasets.base import Chip, ChipDataset, Sample
from geopeft_nb.errors import GeopeftError
from geopeft_nb.pictures.facts import Facts
from geopeft_nb.pictures.show import visible

Chips = Mapping[str, Sequence[Chip]]
Names = tuple[str, ...]


@dataclass(frozen=True)
class DataCard:
    """Facts about a data set.

    Attributes:
        name: What `load_data` takes.
        title: Full name.
        predicts: What is predicted, in words.
        classes: Class names; the index is the value in the mask.
        colours: One #rrggbb colour per class, the same in figures and maps.
        bands: All bands of the files, in their order.
        regions: All region names.
        home: Regions that are trained on unless others are asked for.
        size: Default chip side in pixels.
        resolution: Pixel side in metres, NaN if it is not known.
        labels: How the labels were made.
        licence: Licence of imagery and labels.
        citation: What to cite.
        synthetic: True if the pixels are simulated.
        task: What a target is: ``"segmentation"`` (a class per pixel), ``"regression"`` (numbers
            per pixel; `classes` name them), ``"classification"`` (a class per image) or
            ``"multilabel"`` (any number of labels per image).
        homepage: Where the data set is described.
        default_bands: Bands that `load_data` gives unless others are asked for; None for all.
        mean: Published mean per band of `bands`, in the image's units; empty if there is none.
        std: Published standard deviation per band, likewise.
        statistics_source: Where mean and std come from.
        reflectance: False where the numbers are not reflectance, so that only statistics of the
            data set itself can scale them.
        split: How train, validation and test came about.
        claims: Which of ``"val"``, ``"test"`` and ``"holdout"`` share no place with training.
        leaks: What is known to stand on two sides all the same, with numbers.
        download: What would be downloaded, and how large it is.
        scale: What the numbers of the files are divided by.
        whole: Whether chips cannot be cut into smaller ones.
        compressed: Whether chips take so long to decode that they are kept decoded.
    """

    name: str
    title: str
    predicts: str
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
    task: str = "segmentation"
    homepage: str = ""
    default_bands: tuple[str, ...] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    statistics_source: str = ""
    reflectance: bool = True
    split: str = "by place, 60 / 20 / 20 % of the chips of each home region"
    claims: tuple[str, ...] = ("val", "test", "holdout")
    leaks: str = ""
    download: str = ""
    scale: float = 1
    whole: bool = False
    compressed: bool = False


@dataclass(frozen=True)
class DataRequest:
    """What `load_data` was asked for, as loaders get it.

    Attributes:
        root: Folder of the files, or None to look for it.
        bands: Bands to keep, in this order; None for the data set's own choice.
        size: Chip side in pixels; None for the data set's own.
        train_regions: Home regions; None for the data set's own.
        holdout_regions: Regions that training never sees; None for all others.
        download: Whether files may be downloaded.
        seed: Seed of the split by place, or of a generator.
        cache: Whether decoded chips are kept on disk.
    """

    root: str | None = None
    bands: Sequence[str] | None = None
    size: int | None = None
    train_regions: Sequence[str] | None = None
    holdout_regions: Sequence[str] | None = None
    download: bool = True
    seed: int = 0
    cache: bool = True


def choose_bands(wanted: Sequence[str] | None, card: DataCard) -> tuple[list[int], tuple[str, ...]]:
    """Find the wanted bands in a data set's files.

    Args:
        wanted: Band names; None takes the card's own choice.
        card: Card of the data set.

    Returns:
        Indices into the bands of the files, and the names of the bands as the card has them.

    Raises:
        ValueError: A band is unknown, asked for twice, or not in the files.
    """
    usual = card.default_bands or card.bands
    indices = band_indices(usual if wanted is None else wanted, card.bands)
    return indices, tuple(card.bands[index] for index in indices)


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
            ValueError: Something is no colour; they are written into HTML.
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
        """Region -> its chips that are scored: at home of the test, if there is one, and held out.

        Raises:
            ValueError: A region has none.
        """
        # with neither, `not_empty` refuses
        home = self.regions if self.test.chips or not self.holdout else ()
        sides = {**dict.fromkeys(home, self.test), **self.holdout}
        return self.not_empty({region: side.in_region(region) for region, side in sides.items()})

    def not_empty(self, parts: dict[str, ChipDataset]) -> dict[str, ChipDataset]:
        """Return the parts.

        Raises:
            ValueError: One has no chips.
        """
        if empty := [name for name, part in parts.items() if not part.chips]:
            few = f"{empty[0]!r} has no chips of {self.size} px. Home: {', '.join(self.regions)}"
            there = ", ".join(f"{name} {len(part)}" for name, part in self.parts.items())
            ways = "Take other regions, files, split, size= or (of own files) block="
            raise GeopeftError(f"{few}. Chips: {there}. {ways}.")
        return parts

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per band, each (C,), in the image's units.

        The published ones where the card has them, else those of at most 512 training chips.
        """
        if self.card.mean:
            indices, _ = choose_bands(self.bands, self.card)
            return torch.tensor(self.card.mean)[indices], torch.tensor(self.card.std)[indices]
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
        """Make data of chips whose sides are known.

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
