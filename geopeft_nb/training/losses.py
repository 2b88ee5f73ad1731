"""What each task is trained for and judged by: a loss for the gradient, a score for the reader.

| task | loss | validation score |
|---|---|---|
| segmentation | cross-entropy over the pixels that count | mIoU |
| classification | cross-entropy over the images that count | accuracy |
| multilabel | binary cross-entropy of each label | F1, the mean over labels that occur |
| regression | mean squared error over the known pixels | R², the mean over targets |
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor
from torch.nn import functional

from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.evaluation.metrics import confusion, mean_iou


class Objective(ABC):
    """Loss and validation score of one task; a higher score is better.

    Args:
        outputs: Classes, labels or targets K.
        ignore_index: Class that counts for nothing.

    Attributes:
        title: What the score is called.
        column: Its name in the history.
        counts: What the validation has counted so far; one row per class, label or target.
    """

    title: str
    column: str

    def __init__(self, outputs: int, ignore_index: int) -> None:
        self.outputs, self.ignore_index = outputs, ignore_index
        self.counts = self.zeros()

    @abstractmethod
    def zeros(self) -> np.ndarray:
        """Return empty counts."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss over what counts, a scalar; 0 if nothing does."""

    @abstractmethod
    def count(self, output: Tensor, target: Tensor) -> None:
        """Add a validation batch to the counts."""

    @abstractmethod
    def score(self) -> float:
        """Score the counts; NaN if there is nothing to score."""


class Segmentation(Objective):
    """One class for each pixel: output (B, K, H, W), target (B, H, W)."""

    title, column = "mIoU", "val_miou"

    def zeros(self) -> np.ndarray:
        """Return empty (K, K) confusion counts."""
        return np.zeros((self.outputs, self.outputs), dtype=np.int64)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy; see `Objective.loss`."""
        total = functional.cross_entropy(
            output.float(), target, ignore_index=self.ignore_index, reduction="sum"
        )
        return total / (target != self.ignore_index).sum().clamp(min=1)

    def count(self, output: Tensor, target: Tensor) -> None:
        """Count by true class (rows) and predicted class (columns)."""
        guess = predicted(output, "segmentation").cpu().numpy()
        self.counts += confusion(target.cpu().numpy(), guess, self.outputs, self.ignore_index)

    def score(self) -> float:
        """Return the mean intersection over union, 0-1."""
        return float(mean_iou(self.counts))


class Classification(Segmentation):
    """One class for each image: output (B, K), target (B,)."""

    title, column = "accuracy", "val_accuracy"

    def score(self) -> float:
        """Return the share of images whose class is right, 0-1."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")


class Multilabel(Objective):
    """Any number of labels for each image: output (B, K), target (B, K) of zeros and ones."""

    title, column = "F1", "val_f1"

    def zeros(self) -> np.ndarray:
        """Return empty counts (K, 2) of hits, and of labels that are there plus predicted ones."""
        return np.zeros((self.outputs, 2), dtype=np.int64)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean binary cross-entropy; see `Objective.loss`."""
        return functional.binary_cross_entropy_with_logits(output.float(), target.float())

    def count(self, output: Tensor, target: Tensor) -> None:
        """Count hits, and labels that are there plus predicted ones."""
        guess, truth = predicted(output, "multilabel"), target.bool()
        self.counts[:, 0] += (guess & truth).sum(dim=0).cpu().numpy()
        self.counts[:, 1] += (guess.sum(dim=0) + truth.sum(dim=0)).cpu().numpy()

    def score(self) -> float:
        """Return F1, the harmonic mean of precision and recall, 0-1, averaged over the labels."""
        hits, total = self.counts[self.counts[:, 1] > 0].T
        return float((2 * hits / total).mean()) if len(total) else float("nan")


class Regression(Objective):
    """Numbers for each pixel: output (B, K, H, W), target alike or (B, H, W); NaN is unknown."""

    title, column = "R²", "val_r2"

    def zeros(self) -> np.ndarray:
        """Return empty counts (K, 4): number, sum and squares of the truth, squared error."""
        return np.zeros((self.outputs, 4))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error; see `Objective.loss`."""
        target = target.view_as(output)
        known = target.isfinite()
        return (output.float()[known] - target[known]).square().sum() / known.sum().clamp(min=1)

    def count(self, output: Tensor, target: Tensor) -> None:
        """Add up what R² needs, in float64."""
        guess, truth = (
            part.detach().cpu().double().transpose(0, 1).flatten(1)
            for part in (output, target.view_as(output))
        )  # (K, B * H * W)
        known = truth.isfinite()
        truth = truth.where(known, 0.0)
        error = (guess - truth).where(known, 0.0)
        parts = known, truth, truth.square(), error.square()
        self.counts += np.stack([part.sum(dim=1).numpy() for part in parts], axis=1)

    def score(self) -> float:
        """Return the share of the variance that is explained, 1 at best, averaged over targets."""
        number, total, squares, error = self.counts.T
        spread = squares - total**2 / np.maximum(number, 1)
        known = spread > 0
        return float((1 - error[known] / spread[known]).mean()) if known.any() else float("nan")


OBJECTIVES: dict[str, type[Objective]] = {
    "segmentation": Segmentation,
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": Regression,
}


def make_objective(data: GeoData) -> Objective:
    """Return loss and score for the task of some data."""
    return OBJECTIVES[data.task](len(data.classes), data.ignore_index)


def predicted(output: Tensor, task: str) -> Tensor:
    """Turn the output of a model into its answer.

    Args:
        output: (B, K) or (B, K, H, W).
        task: A task of `OBJECTIVES`.

    Returns:
        The class of each image or pixel, (B,) or (B, H, W) int64; of a multi-label task which
        labels are more likely than not, (B, K) bool; of a regression the output as it is.
    """
    if task == "regression":
        return output.float()
    return output > 0 if task == "multilabel" else output.argmax(dim=1)
