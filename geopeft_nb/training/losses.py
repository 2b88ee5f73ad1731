"""Other losses than a task's own: of segmentation-models-pytorch, or yours; weights of classes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.tasks import TASKS

#: Output (B, K, ...), target (B, ...) -> the mean loss over what is known, a scalar.
Loss = Callable[[Tensor, Tensor], Tensor]


class ChosenLoss(nn.Module):
    """A loss of one's choice; arguments as in `fit`.

    Attributes:
        name: Of the loss, or of the function.
        weights: Of each class, or None.

    Raises:
        ValueError: A loss that the task has not, weights that mean nothing to it, or unfit ones.
    """

    def __init__(
        self, data: GeoData, loss: str | Loss | None, class_weights: str | Sequence[float] | None
    ) -> None:
        super().__init__()
        self.ignore, self.weights = data.ignore_index, None
        if callable(loss):
            self.loss = loss
            self.name = getattr(loss, "__qualname__", type(loss).__name__)
        else:
            names = TASKS[data.task].losses
            self.name = loss or names[0]
            check_name(f"loss for {data.task}", self.name, names)
        if class_weights is not None:
            self.weights = _weights(data, class_weights, self.name)
        if not callable(loss):
            self.loss = _named(self.name, self.weights, self.ignore)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar; 0 where a batch has no label.

        Raises:
            GeopeftError: Somebody's function returned something else.
        """
        if not target.is_floating_point() and (target == self.ignore).all():
            return output.sum() * 0
        loss = self.loss(output.float(), target)
        if getattr(loss, "shape", None) != ():
            raise GeopeftError(f"{self.name} is to return a scalar tensor, and returned {loss!r}.")
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


def _named(name: str, weights: Sequence[float] | None, ignore: int) -> nn.Module:
    if name == "cross_entropy":
        weight = None if weights is None else torch.tensor(weights)
        return nn.CrossEntropyLoss(weight, ignore_index=ignore)
    from segmentation_models_pytorch import losses

    return {"dice": losses.DiceLoss, "focal": losses.FocalLoss}[name](
        "multiclass", ignore_index=ignore
    )
