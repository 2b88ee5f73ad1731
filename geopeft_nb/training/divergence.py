"""Why a loss is no longer a number, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from geopeft_nb.errors import GeopeftError

if TYPE_CHECKING:
    from lightning import Trainer
    from torch import Tensor

    from geopeft_nb.models import SegmentationModel

#: Scaled pixels are about -3 to 3; beyond this no network was meant to see them.
FAR = 1e4
#: Half of the digits of a float32: the square of a larger number overflows.
HUGE = 1e19


class Diverged(GeopeftError):
    """The loss of a batch is infinite or NaN.

    Args:
        kind: ``"training"`` or ``"validation"``.
        loss: The loss.
        rows: The steps before, one row of the history each.
        batch: The batch, with the names of its chips.
        trainer: Lightning's, in its loop.
        task: With the model, which says how pixels are scaled.

    Attributes:
        history: The steps before, one row each.
    """

    def __init__(
        self, kind: str, loss: float, rows: list[dict[str, float]], batch: dict[str, Any],
        trainer: Trainer, task: Any,  # noqa: ANN401 - the Task of fit
    ) -> None:  # fmt: skip
        self.history = pd.DataFrame(rows)
        when = (
            f"step {len(rows) + 1}" if kind == "training" else f"epoch {trainer.current_epoch + 1}"
        )
        names = ", ".join(map(repr, batch["name"][:3])) + ", …" * (len(batch["name"]) > 3)
        usual = "Their numbers are usual, so" if "image" in batch else "Unless they are odd,"
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        super().__init__(
            f"The {kind} loss became {loss} in {when}, on the chips {names}. "
            + (_odd_chip(batch, task.model) or f"{usual} the training overflowed: lower the "
            f"learning rate (it was {lr:g}) or take precision='fp32'.")
            + " The model has its best weights of before, or those that fit was given."
        )  # fmt: skip


def _odd_chip(batch: dict[str, Any], model: SegmentationModel) -> str:
    """Name a chip whose numbers no training could bear; empty if there is none."""
    target: Tensor = batch["target"]
    looked = {"targets": (target.where(target.isfinite(), 0), HUGE)}
    if "image" in batch:  # of cached features only the target is there
        looked = {"scaled pixels": ((batch["image"] - model.mean) / model.std, FAR), **looked}
    for what, (values, limit) in looked.items():
        most = values.double().abs().flatten(1).amax(1) if values.ndim > 1 else values.abs()
        if (odd := (~(most < limit)).nonzero()).numel():
            index = int(odd[0])
            return (
                f"The {what} of {batch['name'][index]!r} reach {float(most[index]):.3g}: check "
                "the scale of its numbers, or leave it out."
            )
    return ""
