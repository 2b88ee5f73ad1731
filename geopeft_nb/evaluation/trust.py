"""What a score can be trusted with: ground that training has not seen, and pixels of its scale."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from geopeft_nb.datasets.base import ChipDataset, Ground
from geopeft_nb.datasets.geodata import GeoData, band_statistics
from geopeft_nb.errors import GeopeftError
from geopeft_nb.models import SegmentationModel, Trained
from geopeft_nb.tasks import TaskCard, mean_of_known
from geopeft_nb.training.preflight import READ, check_same

Pair = tuple[str, Ground, Ground]

#: The middles of five strips of a chip: what reaches less than a tenth of a side into another chip
#: does not count, such as what pads it.
MIDDLES = (np.arange(5) + 0.5) / 5
#: Pixels are of another scale than those of training if the median over bands of their ratio, or of
#: their shift in standard deviations, is beyond it, or any band's ratio beyond five times it.
#: Between any two regions of scenes, sandbox and hls_water the median ratio is 3 at most, the
#: median shift 5, and the ratio of a band 6.
FACTOR = 10
#: A class with less than this share of the labels is rare.
RARE = 0.001


def check_judged(
    model: SegmentationModel, data: GeoData, parts: Mapping[str, ChipDataset]
) -> list[str]:
    """Refuse to judge a model by data of another kind or scale, or by ground that it has seen.

    Ground is compared where both sides know it, whatever the chips are called and however large
    they are; names where one does not.

    Args:
        model: That is judged.
        data: From `load_data`.
        parts: Region -> its chips, see `GeoData.judged`.

    Returns:
        What is to be said about the scores all the same.

    Raises:
        ValueError: The message says what was found, and what to do.
    """
    check_same(model, data)
    if (trained := model.trained) is None:
        return ["What it was trained on is not known: neither ground nor scale could be compared."]
    judged = {region: part.grounds() for region, part in parts.items()}
    for region, part in parts.items():
        check_scale(region, data.bands, trained.pixels, band_statistics(part, READ))
    pairs = [(region, *pair) for region in parts for pair in shared(judged[region], trained.seen)]
    known = all(ground.known for part in (*judged.values(), trained.seen) for ground in part)
    notes = [f"No training chip shows {name}: nothing was learnt of it." for name in trained.absent]
    if pairs or not known:
        pairs += _namesakes(judged, trained.seen)
        notes = _weigh(trained, data, pairs, known) + notes
    return notes


def shared(ours: Sequence[Ground], theirs: Sequence[Ground]) -> Iterator[tuple[Ground, Ground]]:
    """Yield pairs that share ground, as far as both say where they lie."""
    yield from _reaching(ours, theirs)
    yield from ((one, other) for other, one in _reaching(theirs, ours))


def _reaching(ours: Sequence[Ground], theirs: Sequence[Ground]) -> Iterator[tuple[Ground, Ground]]:
    """Yield pairs of which the second covers one of 25 points of the first."""
    from rasterio.warp import transform

    for crs in {ground.crs for ground in theirs if ground.known}:
        squares = [ground for ground in theirs if ground.known and ground.crs == crs]
        left, bottom, right, top = np.array([ground.bounds for ground in squares]).T
        for one in filter(lambda ground: ground.known, ours):
            low, high = np.array(one.bounds).reshape(2, 2, 1)
            points = [axis.ravel() for axis in np.meshgrid(*(low + MIDDLES * (high - low)))]
            try:
                moved = points if one.crs == crs else transform(one.crs, crs, *points)
            except Exception as error:  # rasterio's have no kind in common
                raise GeopeftError(f"Chips lie in {crs} and {one.crs}: {error}.") from error
            x, y = np.array(moved)[..., None]
            inside = (left < x) & (x < right) & (bottom < y) & (y < top)
            yield from ((one, squares[index]) for index in np.flatnonzero(inside.any(axis=0)))


def _namesakes(ours: Mapping[str, Sequence[Ground]], theirs: Sequence[Ground]) -> Iterator[Pair]:
    """Yield pairs of one name, where one of them does not say where it lies."""
    names = {ground.name: ground for ground in theirs}
    for region, grounds in ours.items():
        for one in grounds:
            if (other := names.get(one.name)) and not (one.known and other.known):
                yield region, one, other


def _weigh(trained: Trained, data: GeoData, pairs: Sequence[Pair], known: bool) -> list[str]:
    """Refuse ground that was seen, unless on another day or as published: that is only noted.

    One chip under its own name is never fair: it is the very one that was trained on.
    """
    same_data = trained.data == data.card.name
    if same_data and trained.size != data.size and not known:
        raise GeopeftError(
            f"Trained on chips of {trained.size} px: chips of {data.size} px may lie on the same "
            f"ground. Evaluate with data of size={trained.size}."
        )

    def fair(region: str, mine: Ground, other: Ground) -> bool:
        side = "test" if region in data.regions else "holdout"
        published = same_data and trained.size == data.size and side not in data.card.claims
        other_day = None not in (mine.date, other.date) and mine.date != other.date
        return other_day or (published and mine.name != other.name)

    if again := [pair for pair in pairs if not fair(*pair)]:
        raise GeopeftError(
            f"{len({mine.name for _, mine, _ in again})} of these chips, {again[0][1].name!r} "
            f"among them, lie on ground of training or validation, here that of "
            f"{again[0][2].name!r}. Evaluate with the data that fit was given."
        )
    notes = []
    if count := len({mine.name for _, mine, _ in pairs}):
        notes.append(f"{count} chips lie on ground of training, on another day or as published.")
    if not known:
        notes.append(
            "Not all chips say where they lie: they were compared with those of training by name, "
            "and overlap could not be checked."
        )
    return notes


def check_scale(
    region: str, bands: Sequence[str], then: Sequence[Tensor], now: Sequence[Tensor]
) -> None:
    """Refuse pixels of another scale than those of training.

    Args:
        region: Where the pixels are from.
        bands: Names of the bands.
        then: Mean and standard deviation per band in training, each (C,).
        now: The same of the region.

    Raises:
        ValueError: See `FACTOR`.
    """
    table = np.stack([*then, *now]).astype(float)
    # how large the numbers are, whatever their sign: the root of their mean square
    size, other = (np.hypot(*pair) + 1e-9 for pair in (table[:2], table[2:]))
    times, away = np.exp(abs(np.log(other / size))), abs(table[2] - table[0]) / (table[1] + 1e-9)
    # a comparison that NaN fails, too
    if not max(np.median(times), times.max() / 5, np.median(away)) <= FACTOR:
        raise _other_scale(region, bands, table)


def _other_scale(region: str, bands: Sequence[str], table: np.ndarray) -> GeopeftError:
    """Make the error for pixels of another scale, with both statistics band by band."""
    heads = ["mean in training", "std", f"mean in {region}", "std"]
    return GeopeftError(
        f"The pixels of {region!r} are of another scale than those of training: more than "
        f"{FACTOR} times as large or small, or {FACTOR} standard deviations away. Which scale= "
        "and offset= do they need?\n"
        f"{pd.DataFrame(table.T, bands, heads).to_string()}"
    )


def class_notes(
    region: str, task: TaskCard, counts: np.ndarray, classes: Sequence[str]
) -> Iterator[str]:
    """Say which classes the labels of a region lack, and when rare ones take the mean down.

    Args:
        region: What was scored.
        task: Its card.
        counts: Of all its chips.
        classes: Names of the K classes, labels or targets.
    """
    labelled, scores = task.labelled(counts), task.parts(counts)
    absent, rare = labelled == 0, labelled < RARE * labelled.sum()
    if not rare.any():
        return
    per_class = len(scores) == len(classes)  # else the score is no mean over classes
    scored = np.isfinite(scores) & per_class
    for how, chosen in (("left out of", ~scored), ("predicted all the same, 0 in", scored)):
        if names := ", ".join(np.array(classes)[absent & chosen]):
            yield f"No label of {region} shows {names}" + f" ({how} the mean)" * per_class + "."
    if per_class and (without := mean_of_known(scores[~rare])) - mean_of_known(scores) > 0.01:
        names = ", ".join(np.array(classes)[rare & scored])
        yield (
            f"{names}: less than {RARE:.1%} of the labels of {region}. Without, {task.title} is "
            f"{without:.3f} instead of {mean_of_known(scores):.3f}."
        )
