"""A loss that is no longer a number, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from geopeft_nb.errors import GeopeftError

if TYPE_CHECKING:
    from lightning import Trainer


class Diverged(GeopeftError):
    """The loss of a batch is infinite or NaN.

    Args:
        kind: ``"training"`` or ``"validation"``.
        loss: The loss.
        rows: The steps before, one row of the history each.
        batch: The batch, with the names of its chips.
        trainer: Lightning's, in its loop.

    Attributes:
        history: The steps before, one row each.
    """

    def __init__(
        self, kind: str, loss: float, rows: list[dict[str, float]], batch: dict[str, Any],
        trainer: Trainer,
    ) -> None:  # fmt: skip
        self.history = pd.DataFrame(rows)
        when = (
            f"step {len(rows) + 1}" if kind == "training" else f"epoch {trainer.current_epoch + 1}"
        )
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        super().__init__(
            f"The {kind} loss became {loss} in {when}, on the chips {batch['name']}. Look for odd "
            f"numbers in them; if there are none, lower the learning rate (it was {lr:g}) or take "
            "precision='fp32'. The model has its best weights of before, or those that fit was "
            "given."
        )
