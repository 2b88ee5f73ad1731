"""One card a task: what is predicted, its loss, what is counted of a chip, and the score of counts.

| task | loss, the mean over what is known | score: the mean over what occurs of |
|---|---|---|
| segmentation | cross-entropy of each pixel | each class' intersection over union |
| classification | cross-entropy of each image | the share of right images, one number |
| multilabel | binary cross-entropy of each label | each label's F1 |
| regression | squared error of each pixel | each target's R² |

Counts of single chips add up: the score of many chips is that of the sum of their counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class TaskCard:
    """What one task differs in from the others; a higher score is better.

    K is the number of classes, labels or targets, and `ignore` the class that counts for nothing.

    Attributes:
        target: Key of the target in a sample: ``"mask"`` has pixels, ``"label"`` has none.
        dtype: Type of the target.
        shape: K, (H, W) -> shape of the target of one chip.
        loss: Output (B, K, ...), target (B, ...), ignore -> the mean loss over what is known, a
            scalar; 0 if nothing is.
        predict: Output -> answer, as it is counted.
        count: Target and answer (B, ...), K, ignore -> counts, an array that may be added.
        parts: Counts (..., *shape) -> (..., J) scores, NaN for what does not occur.
        columns: Counts, names of the K -> what a table says besides the score, by column.
        title: What the score is called, and its column in a table.
        column: Its name in a history.
        limits: Its range, in words.
        losses: Names that `fit` takes for the loss, the one above first.
        labelled: Counts -> (K,) how often each class is in the labels.
        allowed: Values of a target and what they mean; none are the numbers of the classes.
    """

    target: str
    dtype: torch.dtype
    shape: Callable[[int, tuple[int, ...]], tuple[int, ...]]
    loss: Callable[[Tensor, Tensor, int], Tensor]
    predict: Callable[[Tensor], Tensor]
    count: Callable[[Tensor, Tensor, int, int], np.ndarray]
    parts: Callable[[np.ndarray], np.ndarray]
    columns: Callable[[np.ndarray, Sequence[str]], dict[str, float]]
    title: str
    column: str
    losses: tuple[str, ...] = ("cross_entropy", "dice", "focal")
    limits: str = "0-1"
    allowed: Mapping[int, str] = field(default_factory=dict)
    labelled: Callable[[np.ndarray], np.ndarray] = lambda counts: counts[..., :0]

    def known(self, target: Tensor, ignore: int) -> Tensor:
        """Return which of a target count, bool of its shape; of numbers NaN is not known."""
        return target.isfinite() if self.dtype.is_floating_point else target != ignore

    def score(self, counts: np.ndarray) -> float:
        """Return the mean of the parts that occur; NaN if there is nothing to score."""
        return float(mean_of_known(self.parts(counts)))


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

    truth, predicted = torch.as_tensor(truth), torch.as_tensor(predicted)
    return multiclass_confusion_matrix(predicted, truth, classes, ignore_index=ignore).cpu().numpy()


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
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def mean_of_known(scores: np.ndarray) -> np.ndarray:
    """Return the mean of (..., J) scores over those that are not NaN; NaN if all are."""
    known = np.isfinite(scores)
    return ratio(np.where(known, scores, 0.0).sum(axis=-1), known.sum(axis=-1))


def _by_name(word: str, scores: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    return {f"{word} {name}": s for name, s in zip(names, scores.tolist(), strict=True)}


def _cross_entropy(output: Tensor, target: Tensor, ignore: int) -> Tensor:
    total = functional.cross_entropy(output.float(), target, ignore_index=ignore, reduction="sum")
    return total / (target != ignore).sum().clamp(min=1)


def _squared_error(output: Tensor, target: Tensor, ignore: int) -> Tensor:
    target = target.view_as(output)
    known = target.isfinite()
    # Not by picking: what is kept for the backward pass must not depend on the values.
    return torch.where(known, output.float() - target, 0).square().sum() / known.sum().clamp(min=1)


def _accuracy(matrix: np.ndarray) -> np.ndarray:
    return ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))[..., None]


def _hits(truth: Tensor, predicted: Tensor, labels: int, ignore: int) -> np.ndarray:
    """Count (K, 3): hits, labels that are there plus predicted ones, and those that are there."""
    truth, predicted = truth.bool(), predicted.bool()
    there = truth.sum(dim=0)
    counted = [(truth & predicted).sum(dim=0), there + predicted.sum(dim=0), there]
    return torch.stack(counted, dim=1).cpu().numpy()


def _f1(hits: np.ndarray) -> np.ndarray:
    return ratio(2 * hits[..., 0], hits[..., 1])


def _sums(truth: Tensor, predicted: Tensor, targets: int, ignore: int) -> np.ndarray:
    """Add up (K, 4) of what is known: number, truth, its square, and squared error."""
    truth, predicted = (x.reshape(len(x), targets, -1).double() for x in (truth, predicted))
    known = truth.isfinite()
    truth = truth.where(known, 0.0)
    error = (predicted - truth).where(known, 0.0)
    sums = known.double(), truth, truth**2, error**2
    return torch.stack([values.sum(dim=(0, 2)) for values in sums], dim=1).cpu().numpy()


def _r2(sums: np.ndarray) -> np.ndarray:
    number, total, squares, error = np.moveaxis(sums, -1, 0)
    return 1 - ratio(error, squares - total**2 / np.maximum(number, 1))


def _number_columns(sums: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    errors = np.sqrt(ratio(sums[:, 3], sums[:, 0]))
    if len(names) == 1:
        return {"RMSE": float(errors[0])}
    return _by_name("R²", _r2(sums), names) | _by_name("RMSE", errors, names)


TASKS = {
    "segmentation": TaskCard(
        "mask", torch.int64, lambda classes, size: size,
        loss=_cross_entropy,
        predict=lambda output: output.argmax(dim=1),
        count=confusion, parts=class_iou,
        columns=lambda matrix, names: {
            "accuracy": _accuracy(matrix).item(), **_by_name("IoU", class_iou(matrix), names)
        },
        title="mIoU", column="val_miou", labelled=lambda matrix: matrix.sum(axis=1),
    ),
    "classification": TaskCard(
        "label", torch.int64, lambda classes, size: (),
        loss=_cross_entropy,
        predict=lambda output: output.argmax(dim=1),
        count=confusion, parts=_accuracy,
        columns=lambda matrix, names: _by_name(
            "F1", ratio(2 * np.diagonal(matrix), matrix.sum(axis=0) + matrix.sum(axis=1)), names
        ),
        title="accuracy", column="val_accuracy", labelled=lambda matrix: matrix.sum(axis=1),
    ),
    "multilabel": TaskCard(
        "label", torch.int64, lambda labels, size: (labels,),
        loss=lambda output, target, ignore: functional.binary_cross_entropy_with_logits(
            output.float(), target.float()
        ),
        predict=lambda output: output > 0,
        count=_hits, parts=_f1, columns=lambda hits, names: _by_name("F1", _f1(hits), names),
        title="F1", column="val_f1", losses=("binary_cross_entropy",),
        allowed={0: "absent", 1: "there"},
        labelled=lambda hits: hits[:, 2],
    ),
    "regression": TaskCard(
        "mask", torch.float32, lambda targets, size: (targets, *size),
        loss=_squared_error,
        predict=lambda output: output.float(),
        count=_sums, parts=_r2, columns=_number_columns,
        title="R²", column="val_r2", losses=("squared_error",), limits="1 at best",
        labelled=lambda sums: sums[:, 0],
    ),
}  # fmt: skip
