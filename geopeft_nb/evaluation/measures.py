"""How each task is scored: from counts of single chips that add up.

| task | counts of a chip | score: the mean over what occurs of |
|---|---|---|
| segmentation | pixels by true and predicted class | each class' intersection over union |
| classification | images by true and predicted class | the share of right images, one number |
| multilabel | hits, and labels there plus predicted | each label's F1 |
| regression | sums of the truth, its squares, squared error | each target's R² |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from geopeft_nb.evaluation.metrics import class_iou, confusion, mean_of_known, ratio


class Measure(ABC):
    """The score of one task; higher is better.

    Args:
        outputs: Classes, labels or targets K.
        ignore_index: Class that counts for nothing.

    Attributes:
        title: What the score is called, and its column in a table.
        limits: Its range, in words.
    """

    title: str
    limits: str = "0-1"

    def __init__(self, outputs: int, ignore_index: int) -> None:
        self.outputs, self.ignore_index = outputs, ignore_index

    @abstractmethod
    def zeros(self) -> np.ndarray:
        """Return empty counts."""

    @abstractmethod
    def count(self, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Count some chips; both arrays have them along the first axis. Counts may be added."""

    @abstractmethod
    def parts(self, counts: np.ndarray) -> np.ndarray:
        """Score counts (..., *shape): (..., J) numbers, NaN for what does not occur."""

    @abstractmethod
    def columns(self, counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """Return what a table says besides the score, by column.

        Args:
            counts: As `zeros` has them.
            names: Names of the K classes, labels or targets.
        """

    def score(self, counts: np.ndarray) -> float:
        """Return the mean of the parts that occur; NaN if there is nothing to score."""
        return float(mean_of_known(self.parts(counts)))


class Segmentation(Measure):
    """One class for each pixel: mIoU."""

    title = "mIoU"

    def zeros(self) -> np.ndarray:
        """Return empty (K, K) counts by true class (rows) and predicted class (columns)."""
        return np.zeros((self.outputs, self.outputs), dtype=np.int64)

    def count(self, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Count by true class (rows) and predicted class (columns)."""
        return confusion(truth, predicted, self.outputs, self.ignore_index)

    def parts(self, counts: np.ndarray) -> np.ndarray:
        """Return each class' intersection over union, (..., K)."""
        return class_iou(counts)

    def columns(self, counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """Return pixel accuracy, and IoU by class."""
        each = zip(names, class_iou(counts).tolist(), strict=True)
        return {
            "accuracy": float(np.trace(counts) / max(1, counts.sum())),
            **{f"IoU {name}": score for name, score in each},
        }


class Classification(Segmentation):
    """One class for each image: accuracy."""

    title = "accuracy"

    def parts(self, counts: np.ndarray) -> np.ndarray:
        """Return the share of images whose class is right, (..., 1)."""
        hits = np.trace(counts, axis1=-2, axis2=-1)
        return ratio(hits, counts.sum(axis=(-2, -1)))[..., None]

    def columns(self, counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """Return F1 by class."""
        hits = np.diagonal(counts)
        scores = ratio(2 * hits, counts.sum(axis=0) + counts.sum(axis=1))
        return {f"F1 {name}": float(score) for name, score in zip(names, scores, strict=True)}


class Multilabel(Measure):
    """Any number of labels for each image: F1, the harmonic mean of precision and recall."""

    title = "F1"

    def zeros(self) -> np.ndarray:
        """Return empty counts (K, 2) of hits, and of labels that are there plus predicted ones."""
        return np.zeros((self.outputs, 2), dtype=np.int64)

    def count(self, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Count hits, and labels that are there plus predicted ones, of (B, K) each."""
        truth, predicted = truth.astype(bool), predicted.astype(bool)
        hits = (truth & predicted).sum(axis=0)
        return np.stack([hits, truth.sum(axis=0) + predicted.sum(axis=0)], axis=1)

    def parts(self, counts: np.ndarray) -> np.ndarray:
        """Return each label's F1, (..., K)."""
        return ratio(2 * counts[..., 0], counts[..., 1])

    def columns(self, counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """Return F1 by label."""
        each = zip(names, self.parts(counts).tolist(), strict=True)
        return {f"F1 {name}": score for name, score in each}


class Regression(Measure):
    """Numbers for each pixel, NaN where not known: R², the share of the variance explained."""

    title, limits = "R²", "1 at best"

    def zeros(self) -> np.ndarray:
        """Return empty counts (K, 4): number, sum and squares of the truth, squared error."""
        return np.zeros((self.outputs, 4))

    def count(self, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Add up what R² needs, in float64, of (B, K, H, W) each; for one target also (B, H, W)."""
        truth, predicted = (
            np.moveaxis(values.reshape(len(values), self.outputs, -1), 1, 0).astype(np.float64)
            for values in (truth, predicted)
        )  # (K, B, H * W)
        known = np.isfinite(truth)
        truth = np.where(known, truth, 0.0)
        error = np.where(known, predicted - truth, 0.0)
        sums = known, truth, truth**2, error**2
        return np.stack([values.sum(axis=(1, 2)) for values in sums], axis=1).astype(np.float64)

    def parts(self, counts: np.ndarray) -> np.ndarray:
        """Return each target's R², (..., K)."""
        number, total, squares, error = np.moveaxis(counts, -1, 0)
        return 1 - ratio(error, squares - total**2 / np.maximum(number, 1))

    def columns(self, counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """Return the root of the mean squared error, in the target's unit, and R² by target."""
        errors = np.sqrt(ratio(counts[:, 3], counts[:, 0])).tolist()
        if len(names) == 1:
            return {"RMSE": errors[0]}
        scores = self.parts(counts).tolist()
        return {f"R² {name}": score for name, score in zip(names, scores, strict=True)} | {
            f"RMSE {name}": error for name, error in zip(names, errors, strict=True)
        }


#: Task -> how it is scored.
MEASURES: dict[str, type[Measure]] = {
    "segmentation": Segmentation,
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": Regression,
}
