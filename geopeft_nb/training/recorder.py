"""What a run remembers: history, memory, the best weights, and how it is told to stop."""

import logging
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import fmean
from typing import Any

import pandas as pd
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.warnings import disable_possible_user_warnings
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from geopeft_nb.errors import GeopeftError
from geopeft_nb.memory.measure import memory_now
from geopeft_nb.models import SegmentationModel, moving_state
from geopeft_nb.tasks import TaskCard
from geopeft_nb.widgets.live import Dashboard

#: What of Lightning's the live view takes the place of.
BARE: dict[str, Any] = {
    "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}  # fmt: skip
#: Of a history; the last one is the validation score of the task, see `TaskCard.column`.
COLUMNS = ("step", "epoch", "seconds", "train_loss", "memory_bytes", "lr", "val_loss")


class Diverged(GeopeftError):
    """The loss of a batch is infinite or NaN.

    Attributes:
        history: The steps before, one row each.
    """

    history: pd.DataFrame


class Recorder(Callback):
    """Records history and memory, feeds the live view, keeps the best weights, ends when told.

    Args:
        view: The live view to feed.
        card: Names the validation score of the task.

    Attributes:
        rows: One dictionary per step, the rows of the history.
        best: Epoch, val_loss and validation score of the weights that are kept.
        kept: The best weights, or until the first validation those from before training.
        failed: Whether an error ended the loop.
    """

    def __init__(self, view: Dashboard, card: TaskCard) -> None:
        self.view, self.card = view, card
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.kept: dict[str, Tensor] = {}
        self.start, self.seconds, self.failed = 0.0, 0.0, False
        self.losses: list[float] = []  # of the batches whose gradients one step adds up

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on must know of its earlier part."""
        return {name: getattr(self, name) for name in ("rows", "best", "kept", "seconds")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what an earlier part of the run has recorded."""
        vars(self).update(state_dict)
        self.view.update(self.rows)

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        """Start the clock, or let it go on, and keep the weights to put back after an error."""
        if not self.kept:
            self.keep(task)
        self.start = time.perf_counter() - self.seconds

    def on_train_batch_end(
        self, trainer: Trainer, task: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Note the step, feed the view, and ask to end when somebody wants it."""
        # Lightning divides the loss by the number of batches whose gradients are added up.
        self.losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        if not math.isfinite(self.losses[-1]):
            raise self.diverged("training", self.losses[-1], batch, trainer)
        if trainer.global_step == len(self.rows):
            return  # more batches belong to this step
        self.seconds = time.perf_counter() - self.start
        self.rows.append({
            "step": trainer.global_step, "epoch": trainer.current_epoch + 1,
            "seconds": self.seconds, "train_loss": fmean(self.losses),
            "memory_bytes": memory_now(task.device),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
        })  # fmt: skip
        self.losses = []
        self.view.update(self.rows)
        if self.view.should_stop:
            trainer.should_stop = True  # Lightning validates once more, then ends the loop

    def on_exception(
        self, trainer: Trainer, task: LightningModule, exception: BaseException
    ) -> None:
        """Take the kernel's interrupt, or Ctrl-C, for the stop button."""
        self.failed = not isinstance(exception, KeyboardInterrupt)
        if not self.failed:
            self.view.stop()

    def on_validation_batch_end(
        self, trainer: Trainer, task: LightningModule, outputs: Any, batch: Any, *_: int
    ) -> None:
        """Refuse a loss that is no number, before it passes for a reason to stop early."""
        if not outputs.isfinite():
            raise self.diverged("validation", float(outputs), batch, trainer)

    def diverged(self, kind: str, loss: float, batch: dict[str, Any], trainer: Trainer) -> Diverged:
        """Make the error for a loss that is no number: where it was, and what to do."""
        error = Diverged(
            f"The {kind} loss became {loss} after {len(self.rows)} steps, in epoch "
            f"{trainer.current_epoch + 1}, on the chips {batch['name']}. Look for odd numbers in "
            "them; if there are none, lower the learning rate (it was "
            f"{trainer.optimizers[0].param_groups[0]['lr']:g}) or take precision='fp32'. The model "
            "has its best weights of before, or those that fit was given."
        )
        error.history = pd.DataFrame(self.rows)
        return error

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        """Note the scores, and keep the weights if they are better than all before.

        What the view then predicts leaves the model in evaluation mode: Lightning switches back.
        """
        column, told = self.card.column, trainer.callback_metrics
        scores = {name: float(told[name]) for name in ("val_loss", column)}
        self.rows[-1].update(scores)
        self.seconds = time.perf_counter() - self.start
        best = self.best.get(column, math.nan)
        if math.isnan(best) or scores[column] > best:
            self.best = {"epoch": trainer.current_epoch + 1, **scores}
            self.keep(task)
        self.view.validation()

    def keep(self, task: LightningModule) -> None:
        """Copy what training changes, to the CPU: it does not count as memory of the GPU."""
        moving = moving_state(task.model)  # type: ignore[arg-type]
        self.kept = {name: value.to("cpu", copy=True) for name, value in moving.items()}

    def restore_best(self, model: SegmentationModel) -> str:
        """Put the best weights back, and say which they are."""
        if self.best or self.failed:
            model.load_state_dict(self.kept, strict=False)
        if not self.best:
            which = "those from before" if self.failed else "the last weights"
            return f"Stopped before the first validation: {which} are kept."
        score = f"{self.card.title} {self.best[self.card.column]:.3f}"
        return f"Kept epoch {self.best['epoch']:.0f}: validation {score}."


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning from printing about hardware and from advising on data workers."""
    logger = logging.getLogger("lightning.pytorch")
    with warnings.catch_warnings(), ExitStack() as after:
        disable_possible_user_warnings()  # about what is so on purpose: frozen parts, no workers
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec")
        after.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        yield
