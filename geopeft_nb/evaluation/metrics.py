"""Scores from counts of single chips, and how sure we may be of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def confusion(
    truth: np.ndarray | Tensor, predicted: np.ndarray | Tensor, classes: int, ignore: int
) -> np.ndarray:
    """Count pixels by true class (rows) and predicted class (columns).

    Args:
        truth: Labels, any shape.
        predicted: Predicted classes, same shape and device.
        classes: Number of classes K.
        ignore: Label that is left out.

    Returns:
        (K, K) int64.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    return (
        multiclass_confusion_matrix(
            torch.as_tensor(predicted), torch.as_tensor(truth), classes, ignore_index=ignore
        )
        .cpu()
        .numpy()
    )


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each class, 0-1.

    Args:
        matrix: (..., K, K) confusion counts.

    Returns:
        (..., K); NaN for a class that is neither in the labels nor in the prediction.
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return ratio(hits, matrix.sum(axis=-1) + matrix.sum(axis=-2) - hits)


def mean_iou(matrix: np.ndarray) -> np.ndarray:
    """Return the mean of the classes' intersection over union (mIoU), 0-1.

    Args:
        matrix: (..., K, K) confusion counts.

    Returns:
        (...); the mean over the classes that occur, NaN if there is no pixel.
    """
    return mean_of_known(class_iou(matrix))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; NaN where the whole is not above zero, so that there is nothing to score."""
    empty = np.full(np.shape(part), np.nan)
    return np.divide(part, whole, out=empty, where=np.asarray(whole) > 0)


def mean_of_known(scores: np.ndarray) -> np.ndarray:
    """Return the mean of (..., J) scores over those that are not NaN; NaN if all are."""
    known = np.isfinite(scores)
    return ratio(np.where(known, scores, 0.0).sum(axis=-1), known.sum(axis=-1))


def bootstrap_scores(
    counts: np.ndarray,
    places: Sequence[str],
    repeats: int = 1000,
    seed: int = 0,
    parts: Callable[[np.ndarray], np.ndarray] = class_iou,
) -> np.ndarray:
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
    by_place = np.zeros((len(names), *counts.shape[1:]), dtype=counts.dtype)
    np.add.at(by_place, group, counts)
    drawn = np.random.default_rng(seed).integers(len(names), size=(repeats, len(names)))
    times = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    scores = parts(np.tensordot(times, by_place, axes=1))  # (R, J)
    present = np.isfinite(parts(by_place.sum(axis=0)))
    if not present.any():
        return np.full(repeats, np.nan)
    # A draw that misses a class says nothing about the mean over all of them.
    return scores[:, present].mean(axis=1)


def percentile_interval(scores: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of the draws that have a score, or NaN if none has."""
    if not np.isfinite(scores).any():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(scores, [2.5, 97.5])
    return float(low), float(high)
