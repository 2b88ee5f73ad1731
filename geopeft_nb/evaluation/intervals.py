"""How sure we may be of a score: draws of places, and the ends of an interval."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from geopeft_nb.tasks import class_iou, mean_of_known

#: With fewer seeds nothing is said about training anew: two cannot tell how far a third may fall.
SEEDS = 3
Parts = Callable[[np.ndarray], np.ndarray]


class Interval(NamedTuple):
    """A value with the ends of its 95 % interval, which are NaN where nothing can be said."""

    value: float
    low: float
    high: float


def bootstrap_scores(
    counts: np.ndarray, places: Sequence[str], repeats: int = 1000, seed: int = 0,
    parts: Parts = class_iou,
) -> np.ndarray:  # fmt: skip
    """Score many draws of places with replacement.

    Chips of one place look alike, so whole places are drawn: drawing single chips would make an
    interval too narrow. It covers which places were looked at, not the randomness of training.

    Args:
        counts: (N, ...) counts per chip, such as (N, K, K) confusion counts; they may be added.
        places: The place of each chip.
        repeats: Number of draws R.
        seed: Seed of the draws; the same seed and places give the same draws.
        parts: Turns counts (R, ...) into scores (R, J), whose mean is the score of a draw.

    Returns:
        (R,) score of each draw; NaN for a draw that misses a class, and with fewer than two places.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993).
    """
    sums = sum_by_place(counts, places)
    if len(sums) < 2:
        return np.full(repeats, np.nan)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(repeats, len(sums)))
    times = np.stack([np.bincount(row, minlength=len(sums)) for row in drawn])
    return _scores_of_some(np.tensordot(times, sums, axes=1), sums.sum(axis=0), parts)


def sum_by_place(counts: np.ndarray, places: Sequence[str]) -> np.ndarray:
    """Add up (N, ...) counts per chip to (P, ...) per place, in the order of the places' names."""
    names, group = np.unique(np.asarray(places, dtype=str), return_inverse=True)
    return np.stack([counts[group == place].sum(axis=0) for place in range(len(names))])


def _scores_of_some(counts: np.ndarray, whole: np.ndarray, parts: Parts) -> np.ndarray:
    """Score counts of some places; NaN where these lack a class that all places together have."""
    scores = parts(counts)
    missed = np.isnan(scores) & np.isfinite(parts(whole))
    return np.where(missed.any(axis=-1), np.nan, mean_of_known(scores))


def percentile_interval(scores: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of the draws that have a score, or NaN if none has."""
    low, high = pd.Series(scores).quantile([0.025, 0.975])
    return float(low), float(high)


class Scored(NamedTuple):
    """The scores of one method in one region.

    Attributes:
        method: Its name; terms of one method share their seeds.
        region: Its name; terms of one region share their places.
        seeds: (S,) score of each seed on all places.
        values: (S, P) what each place adds: pseudo-values, whose mean is about the score.
    """

    method: str
    region: str
    seeds: np.ndarray
    values: np.ndarray


def scored(method: str, region: str, counts: np.ndarray, parts: Parts = class_iou) -> Scored:
    """Score each seed, and say what each place adds to it, by leaving it out (the jackknife).

    Args:
        method: Name of the method.
        region: Name of the region.
        counts: (S, P, ...) counts of each seed and place, which may be added over places.
        parts: Turns counts (..., *shape) into scores (..., J), whose mean is the score.

    Source: Miller, The jackknife: a review. Biometrika 61 (1974).
    """
    whole, places = counts.sum(axis=1, keepdims=True), counts.shape[1]
    scores = mean_of_known(parts(whole))  # (S, 1)
    without = _scores_of_some(whole - counts, whole, parts)  # (S, P)
    return Scored(method, region, scores[:, 0], scores + (places - 1) * (scores - without))


def weigh(terms: Iterable[tuple[float, Scored]]) -> Interval:
    """Add up weighted mean scores, with a 95 % interval over places and seeds.

    One term of weight 1 is a score; two methods of weights 1 and -1 in one region are a paired
    difference; one method in two regions is a gap. Each of the two sources has its own variance and
    Student's t, which is wide for few seeds or places; what both variances hold, the interaction of
    seed and place, is taken off once. With fewer than `SEEDS` seeds it covers the places alone.

    Returns:
        The sum, and its interval: NaN with one place, or where a class is in one place only.

    Source: Satterthwaite, Biometrics Bulletin 2 (1946); Searle, Casella and McCulloch, Variance
    Components (1992), chapter 4, for two crossed factors.
    """
    value, both = 0.0, 0.0
    by_place: dict[str, Any] = defaultdict(float)  # region -> (P,)
    by_seed: dict[str, Any] = defaultdict(float)  # method -> (S,)
    for weight, one in terms:
        value += weight * float(one.seeds.mean())
        by_place[one.region] += weight * one.values.mean(axis=0)
        by_seed[one.method] += weight * one.seeds
        both += weight**2 * _interaction(one.values)
    places, half = _spread(by_place.values())
    if min(map(len, by_seed.values())) >= SEEDS:
        seeds, more = _spread(by_seed.values())
        once = max(places, seeds, places + seeds - both) / max(places + seeds, 1e-300)
        half = once * (half + more)
    return Interval(value, value - half**0.5, value + half**0.5)


def _spread(samples: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return the variance of a sum of independent means, and (t × standard error)²."""
    from scipy.stats import t as student

    samples = list(samples)
    if min(map(len, samples)) < 2:
        return np.nan, np.nan
    variances = np.array([sample.var(ddof=1) / len(sample) for sample in samples])
    free = np.array([len(sample) - 1 for sample in samples])
    total = float(variances.sum())
    if not total > 0:  # all alike, or not known
        return total, total
    return total, total * float(student.ppf(0.975, total**2 / (variances**2 / free).sum())) ** 2


def _interaction(values: np.ndarray) -> float:
    """Return the variance of a mean of (S, P) that is due neither to seeds nor to places alone."""
    seeds, places = values.shape
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    return float((rest**2).sum()) / max(1, (seeds - 1) * (places - 1)) / (seeds * places)
