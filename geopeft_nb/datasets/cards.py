"""Cards: the facts about a data set, and what `load_data` was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from geopeft_nb.bands import band_indices


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
        resolution: Pixel side in metres.
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
