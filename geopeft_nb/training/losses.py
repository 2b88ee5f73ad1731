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

import torch
from torch import Tensor
from torch.nn import functional

from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.evaluation.measures import MEASURES
from geopeft_nb.evaluation.metrics import confusion


class Objective(ABC):
    """Loss and validation score of one task; a higher score is better.

    Args:
        outputs: Classes, labels or targets K.
        ignore_index: Class that counts for nothing.

    Attributes:
        task: A key of `MEASURES`, whose score it is.
        title: What the score is called.
        column: Its name in the history.
        counts: What the validation has counted so far.
    """

    task: str
    title: str
    column: str

    def __init__(self, outputs: int, ignore_index: int) -> None:
        self.ignore_index = ignore_index
        self.measure = MEASURES[self.task](outputs, ignore_index)
        self.counts = self.measure.zeros()

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss over what counts, a scalar; 0 if nothing does."""

    def count(self, output: Tensor, target: Tensor) -> None:
        """Add a validation batch to the counts."""
        answer = predicted(output.detach(), self.task).cpu().numpy()
        self.counts += self.measure.count(target.cpu().numpy(), answer)

    def score(self) -> float:
        """Score the counts; NaN if there is nothing to score."""
        return self.measure.score(self.counts)


class Segmentation(Objective):
    """One class for each pixel: output (B, K, H, W), target (B, H, W)."""

    task, title = "segmentation", MEASURES["segmentation"].title
    column = "val_miou"

    def count(self, output: Tensor, target: Tensor) -> None:
        """Count where the output is, so that a GPU sends K x K numbers instead of all pixels."""
        answer = predicted(output.detach(), self.task)
        self.counts += confusion(target, answer, self.measure.outputs, self.ignore_index)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy; see `Objective.loss`."""
        total = functional.cross_entropy(
            output.float(), target, ignore_index=self.ignore_index, reduction="sum"
        )
        return total / (target != self.ignore_index).sum().clamp(min=1)


class Classification(Segmentation):
    """One class for each image: output (B, K), target (B,)."""

    task, title = "classification", MEASURES["classification"].title
    column = "val_accuracy"


class Multilabel(Objective):
    """Any number of labels for each image: output (B, K), target (B, K) of zeros and ones."""

    task, title = "multilabel", MEASURES["multilabel"].title
    column = "val_f1"

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean binary cross-entropy; see `Objective.loss`."""
        return functional.binary_cross_entropy_with_logits(output.float(), target.float())


class Regression(Objective):
    """Numbers for each pixel: output (B, K, H, W), target alike or (B, H, W); NaN is unknown."""

    task, title = "regression", MEASURES["regression"].title
    column = "val_r2"

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error; see `Objective.loss`."""
        target = target.view_as(output)
        known = target.isfinite()
        # Not by picking: what is kept for the backward pass must not depend on the values.
        error = torch.where(known, output.float() - target, 0)
        return error.square().sum() / known.sum().clamp(min=1)


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
