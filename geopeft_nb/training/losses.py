"""Other losses than a task's own: of segmentation-models-pytorch, or yours; weights of classes."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor
from torch.nn import functional

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.tasks import TASKS

#: Output (B, K, ...), target (B, ...) -> the mean loss over what is known, a scalar.
Loss = Callable[[Tensor, Tensor], Tensor]


def choose_loss(
    data: GeoData, loss: str | Loss | None = None,
    class_weights: str | Sequence[float] | None = None,
) -> tuple[Loss, str, list[float] | None]:  # fmt: skip
    """Return the loss that is meant, its name, and the weight of each class or None.

    Args:
        data: Says of which task.
        loss: As in `fit`.
        class_weights: As in `fit`.

    Raises:
        ValueError: A loss that the task has not, weights that mean nothing to it, or unfit ones.
    """
    card, ignore = TASKS[data.task], data.ignore_index
    if callable(loss):
        name = getattr(loss, "__qualname__", type(loss).__name__)
    else:
        check_name(f"loss for {data.task}", name := loss or card.losses[0], card.losses)
    weights = None if class_weights is None else _weights(data, class_weights, name)
    if not callable(loss):
        if name == card.losses[0] and weights is None:
            return lambda output, target: card.loss(output, target, ignore), name, None
        loss = _named(name, weights, ignore)
    return partial(_checked, loss, name, ignore), name, weights


def _checked(function: Loss, name: str, ignore: int, output: Tensor, target: Tensor) -> Tensor:
    """Return a loss, 0 where a batch has no label; refuse what somebody's function makes of it."""
    if not target.is_floating_point() and (target == ignore).all():
        return output.sum() * 0
    loss = function(output.float(), target)
    if getattr(loss, "shape", None) != ():
        raise GeopeftError(f"{name} is to return a scalar tensor, and returned {loss!r}.")
    return loss


def _weights(data: GeoData, given: str | Sequence[float], loss: str) -> list[float]:
    if loss != "cross_entropy":
        raise GeopeftError(
            f"class_weights belong to loss='cross_entropy', and the loss of this {data.task} is "
            f"{loss!r}. Leave one of the two out."
        )
    if isinstance(given, str):
        check_name("class_weights", given, ("balanced",))
        return balanced(data.train)
    if len(given) != len(data.classes) or not min(given) > 0:
        raise GeopeftError(
            f"class_weights takes 'balanced', or a number above 0 for each of {data.classes}, got "
            f"{given!r}."
        )
    return [float(weight) for weight in given]


def balanced(chips: ChipDataset) -> list[float]:
    """Weigh classes so that each counts the same in all: pixels / (classes × pixels of the class).

    All labels are read and counted. A class of no pixel has weight 1, and is none of the classes.
    """
    counts = np.zeros(len(chips.classes), np.int64)
    for sample in chips:
        target = sample[TASKS[chips.task].target].numpy()
        counts += np.bincount(target[target != chips.ignore_index], minlength=len(counts))
    there = counts > 0
    return np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 1.0).tolist()


def _named(name: str, weights: Sequence[float] | None, ignore: int) -> Loss:
    if weights:
        return lambda output, target: functional.cross_entropy(
            output, target, output.new_tensor(weights), ignore_index=ignore
        )
    from segmentation_models_pytorch import losses

    found = {"dice": losses.DiceLoss, "focal": losses.FocalLoss}[name]
    return found("multiclass", ignore_index=ignore)
