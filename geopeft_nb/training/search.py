"""Which learning rate? A quick test of a range, and a small search that trains for real."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.models import SegmentationModel, moving_state
from geopeft_nb.training.fit import Run, _collate, _Task, fit
from geopeft_nb.training.losses import make_objective
from geopeft_nb.training.order import Order
from geopeft_nb.training.preflight import LIGHTNING_NAMES, check_fit
from geopeft_nb.training.recorder import Diverged, quiet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The range in which arXiv 2504.17397 searched.
PAPER_RANGE = (1e-5, 1e-3)


@dataclass(frozen=True)
class RangeTest:
    """How the loss goes while the learning rate grows.

    Attributes:
        table: One row per step: lr, and the loss, smoothed.
        suggestion: Where the loss falls most steeply.
    """

    table: pd.DataFrame
    suggestion: float

    def plot(self) -> Figure:
        """Draw the loss over the learning rate, and the suggestion."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.table["lr"], self.table["loss"])
        axes.axvline(self.suggestion, color="C1", label=f"suggestion {self.suggestion:.1e}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed")
        axes.legend()
        return figure


@dataclass(frozen=True)
class Search:
    """What each learning rate came to.

    Attributes:
        table: One row per trial, the best first: lr, val_loss (the lowest), the validation score
            and the epoch of the weights that were kept, and seconds; NaN where training diverged.
        best: Learning rate of the lowest validation loss.
        run: The run of that learning rate.
    """

    table: pd.DataFrame
    best: float
    run: Run

    def plot(self) -> Figure:
        """Draw the lowest validation loss over the learning rate."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 3), layout="constrained")
        axes, rows = figure.subplots(), self.table.sort_values("lr")
        axes.plot(rows["lr"], rows["val_loss"], marker="o")
        axes.axvline(self.best, color="C1", label=f"best {self.best:.1e}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="lowest validation loss")
        axes.legend()
        return figure


def find_lr(
    model: SegmentationModel,
    data: GeoData,
    low: float = 1e-6,
    high: float = 0.5,
    steps: int = 100,
    batch_size: int = 8,
    precision: str = "fp32",
    seed: int = 0,
    device: str = "auto",
) -> RangeTest:
    """Let the learning rate grow step by step, and see where the loss falls and where it explodes.

    A hint for the order of magnitude in the time of one short training. `search_lr` trains for real
    and decides by the validation loss.

    Args:
        model: With a method attached; it is left as it was.
        data: From `load_data`.
        low: Learning rate of the first step.
        high: Learning rate of the last step; the test ends before if the loss grows fourfold.
        steps: Steps of the test, at least 20.
        batch_size: Chips per step.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        seed: Seed of the order of chips and of augmentation.
        device: ``"cpu"``, ``"gpu"`` or ``"auto"``: a GPU if there is one.

    Returns:
        Losses and a suggestion.

    Raises:
        ValueError: What `fit` refuses, a bad range or too few steps; or the loss exploded too soon
            to say anything.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv 1506.01186.
    """
    check_fit(model, data, 1, batch_size, low, precision, device, seed=seed)
    _check_range(low, high)
    if not isinstance(steps, int) or steps < 20:
        raise GeopeftError(f"steps must be a whole number from 20, got {steps!r}.")
    if precision == "auto":
        raise GeopeftError("precision='auto' is not known here. Use 'fp32', 'bf16' or 'fp16'.")
    rates = np.geomspace(low, high, steps)
    ramp, order = _Ramp(rates), Order(len(data.train), min(batch_size, len(data.train)), seed)
    before = {name: value.cpu().clone() for name, value in moving_state(model).items()}
    training = model.training
    with quiet():
        trainer = lightning.Trainer(
            max_epochs=-1,
            max_steps=steps,
            precision=LIGHTNING_NAMES[precision],  # type: ignore[arg-type]
            accelerator=device,
            devices=1,
            limit_val_batches=0,
            callbacks=[ramp, order],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        chips: DataLoader[Any] = DataLoader(
            data.train,  # type: ignore[arg-type]
            batch_sampler=order, collate_fn=_collate,
        )  # fmt: skip
        try:
            # Lightning wants validation chips, of which it then looks at none.
            trainer.fit(_Probe(model, low, make_objective(data)), chips, chips)
        finally:
            model.to("cpu").train(training).zero_grad(set_to_none=True)
            model.load_state_dict(before, strict=False)
    losses = np.array(ramp.losses)
    if len(losses) < 20:
        raise GeopeftError(
            f"The loss exploded in step {len(losses)}, at lr={rates[len(losses) - 1]:g}, too soon "
            "to say anything. Use a smaller low, or more steps."
        )
    table = pd.DataFrame({"lr": rates[: len(losses)], "loss": losses})
    return RangeTest(table, steepest(table))


def steepest(table: pd.DataFrame) -> float:
    """Return the rate where the smoothed loss falls most steeply on a logarithmic scale.

    Args:
        table: Columns lr and loss, one row per step. The first tenth does not count: there the mean
            is still of few steps.
    """
    first = len(table) // 10
    slope = np.gradient(table["loss"], np.log10(table["lr"]))
    return float(table["lr"].iloc[first + int(np.argmin(slope[first:]))])


class _Probe(_Task):
    """The task of `fit` without its schedule."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return super().configure_optimizers()["optimizer"]


class _Ramp(Callback):
    """Sets the learning rate of each step, and ends when the loss explodes."""

    def __init__(self, rates: np.ndarray, memory: float = 0.9) -> None:
        self.rates, self.memory, self.mean = rates, memory, 0.0
        self.losses: list[float] = []

    def on_train_batch_start(
        self, trainer: lightning.Trainer, task: lightning.LightningModule,
        batch: dict[str, Tensor], index: int,
    ) -> None:  # fmt: skip
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.rates[len(self.losses)]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, task: lightning.LightningModule,
        outputs: Any, batch: dict[str, Tensor], index: int,  # noqa: ANN401 - Lightning's type
    ) -> None:  # fmt: skip
        loss = float(outputs["loss"])
        self.mean = self.memory * self.mean + (1 - self.memory) * loss
        smooth = self.mean / (1 - self.memory ** (len(self.losses) + 1))
        if not math.isfinite(loss) or smooth > 4 * min(self.losses, default=smooth):
            trainer.should_stop = True
        if math.isfinite(loss):
            self.losses.append(smooth)


def search_lr(
    make_model: Callable[[], SegmentationModel],
    data: GeoData,
    lrs: Sequence[float] | tuple[float, float] = PAPER_RANGE,
    trials: int = 5,
    epochs: int = 15,
    seed: int = 0,
    **settings: object,
) -> Search:
    """Train once with each learning rate, and choose by the lowest validation loss.

    Every trial has the same seed, so that only the learning rate differs.

    Args:
        make_model: Called for each trial; returns a new model with a method attached.
        data: From `load_data`; its test chips and held-out regions are not looked at.
        lrs: A list of learning rates, or a pair (low, high) to draw from, evenly on a logarithmic
            scale; the range of arXiv 2504.17397 if nothing is given.
        trials: How many to draw from a pair.
        epochs: Passes over the training chips in each trial.
        seed: Seed of what is drawn, and of every training.
        **settings: Further ones of `fit`.

    Returns:
        A table, the best learning rate and its run.

    Raises:
        ValueError: A bad learning rate or number of trials, `make_model` returned the same model
            twice, what `fit` refuses, or training diverged with all of them.

    Example:
        >>> search = gp.search_lr(make_network, data, [1e-4, 1e-3])  # doctest: +SKIP
        >>> search.table, search.best  # doctest: +SKIP
    """
    rates = choose_lrs(lrs, trials, seed)
    if "out" in settings or "resume" in settings:
        raise GeopeftError(
            "The trials would share one out. Save the best: search.run.save(folder)."
        )
    rows, best, lowest, before = [], None, np.inf, None
    for rate in rates:
        model = make_model()
        if model is before:
            raise GeopeftError(
                "make_model returned the same model twice; build a new one each time."
            )
        before = model
        try:
            run = fit(
                model, data, epochs=epochs, lr=rate, seed=seed,
                **{"dashboard": False, **settings},  # type: ignore[arg-type]
            )  # fmt: skip
        except Diverged:
            rows.append({"lr": rate})
            continue
        loss = float(run.history["val_loss"].min())
        score = {name: value for name, value in run.best.items() if name != "val_loss"}
        rows.append({"lr": rate, "val_loss": loss, **score, "seconds": run.seconds})
        if best is None or loss < lowest:
            best, lowest = run, loss
        if run.state == "stopped":
            break
    if best is None:
        raise GeopeftError(f"Training diverged with {', '.join(f'{rate:g}' for rate in rates)}.")
    table = pd.DataFrame(rows).sort_values("val_loss", ignore_index=True)
    return Search(table, float(best.settings["lr"]), best)


def choose_lrs(
    lrs: Sequence[float] | tuple[float, float], trials: int = 5, seed: int = 0
) -> list[float]:
    """Return the learning rates to try; arguments as in `search_lr`."""
    if not isinstance(lrs, tuple):
        if not len(lrs) or not all(0 < rate < 1 for rate in lrs):
            raise GeopeftError(f"Learning rates must lie between 0 and 1, got {lrs!r}.")
        return [float(rate) for rate in lrs]
    if len(lrs) != 2:
        raise GeopeftError(f"A pair (low, high) is drawn from, a [list] is tried; got {lrs!r}.")
    if not isinstance(trials, int) or trials < 1:
        raise GeopeftError(f"trials must be a whole number above 0, got {trials!r}.")
    _check_range(*lrs)
    drawn = np.random.default_rng(seed).uniform(math.log10(lrs[0]), math.log10(lrs[1]), trials)
    return [float(rate) for rate in 10.0**drawn]


def _check_range(low: float, high: float) -> None:
    if not 0 < low < high < 1:
        raise GeopeftError(f"A range needs 0 < low < high < 1, got {low!r} and {high!r}.")
