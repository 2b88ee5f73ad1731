"""How sure we may be of a score: draws of places, and the ends of an interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from geopeft_nb.tasks import class_iou, mean_of_known


def bootstrap_scores(
    counts: np.ndarray, places: Sequence[str], repeats: int = 1000, seed: int = 0,
    parts: Callable[[np.ndarray], np.ndarray] = class_iou,
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
    names, group = np.unique(np.asarray(places, dtype=str), return_inverse=True)
    if len(names) < 2:
        return np.full(repeats, np.nan)
    by_place = np.stack([counts[group == place].sum(axis=0) for place in range(len(names))])
    drawn = np.random.default_rng(seed).integers(len(names), size=(repeats, len(names)))
    times = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    scores = parts(np.tensordot(times, by_place, axes=1))  # (R, J)
    # A draw that misses a class says nothing about the mean over all of them.
    missed = np.isnan(scores) & np.isfinite(parts(by_place.sum(axis=0)))
    return np.where(missed.any(axis=1), np.nan, mean_of_known(scores))


def percentile_interval(scores: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of the draws that have a score, or NaN if none has."""
    low, high = pd.Series(scores).quantile([0.025, 0.975])
    return float(low), float(high)
