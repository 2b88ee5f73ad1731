"""Train a model with Lightning while you watch, and keep the best weights whatever happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory
from typing import Any

import lightning
import pandas as pd
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.tuner.lr_finder import _LRFinder
from lightning.pytorch.tuner.tuning import Tuner
from lightning.pytorch.utilities import rank_zero_only

from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.memory import measure
from geopeft_nb.memory.frugal import applied, chosen_recipes
from geopeft_nb.memory.shortage import explain, is_shortage, release
from geopeft_nb.models import SegmentationModel
from geopeft_nb.training.calibration import trained_on
from geopeft_nb.training.losses import Loss, choose_loss
from geopeft_nb.training.preflight import LIGHTNING_NAMES, check_fit, choose_precision
from geopeft_nb.training.recorder import BARE, COLUMNS, Recorder, quiet_lightning
from geopeft_nb.training.resume import Saver, checkpoints
from geopeft_nb.training.run import Run
from geopeft_nb.training.task import CachedTask, Task
from geopeft_nb.tuning.methods import CARDS
from geopeft_nb.widgets.chips import WatchedChips
from geopeft_nb.widgets.live import Dashboard


def fit(
    model: SegmentationModel, data: GeoData, epochs: int = 15, batch_size: int = 8,
    lr: float | None = None, precision: str = "auto", frugal: str | Sequence[str] | None = None,
    seed: int = 0, device: str = "auto", dashboard: bool | str = True,
    resume: bool = False, out: str | os.PathLike[str] | None = None,
    accumulate: int = 1, strategy: str = "auto", devices: int = 1, augment: bool = True,
    weight_decay: float = 0.01, patience: int = 15, loss: str | Loss | None = None,
    class_weights: str | Sequence[float] | None = None, callbacks: Sequence[Callback] = (),
    logger: Logger | Sequence[Logger] | None = None,
) -> Run:  # fmt: skip
    """Train the model on `data.train`, watched on `data.val`.

    AdamW, cross-entropy without the ignored pixels, random turns and mirrorings, the learning rate
    halved after more than 4 epochs without a better validation loss, and an end after 15: the
    protocol of arXiv 2504.17397. The weights with the best validation mIoU are kept, also when
    training is stopped by the button, by the kernel's interrupt or by an error in the loop. Other
    tasks than segmentation have other losses and scores: see `geopeft_nb.tasks`.

    Args:
        model: With a method attached.
        data: From `load_data`.
        epochs: Passes over the training chips.
        batch_size: Chips that each device computes at a time; of fewer training chips all.
        lr: Learning rate to begin with; None takes the method's own.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"``, or ``"auto"``: bf16 on a GPU that has it.
        frugal: Recipes that save memory or time, see `gp.list_recipes()`: a name, a list, or
            ``"all"``.
        seed: Seed of the order of chips, of augmentation and of dropout.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``: a GPU if there is one.
        dashboard: Show the live view; ``"text"`` prints one line an epoch instead.
        resume: Go on, from the end of its last whole epoch, with the run of this `out` that was
            killed or stopped, or begin if there is none. More `epochs` prolong it. On one CPU the
            weights become the very ones that a run without a break has.
        out: Folder to write the adapter and the history to when done. While it trains, checkpoints
            of what changes are written beside it, to `<out>.ckpt`, at the end of every epoch.
        accumulate: Batches whose gradients are added up for one step, as if they were one batch
            of this times `batch_size`, in the memory of one.
        strategy: How several devices share the work, a name of Lightning's: ``"auto"`` or one that
            begins with ``"ddp"``, which needs a script instead of a notebook.
        devices: Number of GPUs, or of processes on a CPU, among which Lightning shares the chips
            out; a step sees batch_size x accumulate x devices of them.
        augment: Turn and mirror the training chips at random.
        weight_decay: Of AdamW.
        patience: Epochs without a better validation loss after which training ends.
        loss: ``"cross_entropy"``, ``"dice"`` or ``"focal"`` of single classes, the latter two of
            segmentation-models-pytorch; or a function of output (B, K, ...) and target (B, ...),
            in which `data.ignore_index`, or NaN of numbers, is what counts for nothing, that
            returns a scalar. None takes the task's own. The validation loss is the same one.
        class_weights: Of the classes in the cross-entropy: a number above 0 for each, or
            ``"balanced"``: labelled pixels of the training chips / (classes that occur × pixels of
            the class). A rare class is found more often then, and falsely more often, too.
        callbacks: Further callbacks of Lightning's.
        logger: Lightning's loggers, which are told validation loss and score.

    Returns:
        The run, with the best weights in `run.model`.

    Raises:
        ValueError: Nothing is attached, an empty data set, a bad setting, a run to go on
            with that was begun otherwise, or an `out` that another process writes to; raised
            before training starts. Or a loss became infinite or NaN; then the model has its best
            weights, or those that it came with, and the error the `history`.
        OutOfMemory: There is not enough memory; the message says what took it and what to change.
    """
    check_fit(model, data, device, strategy, devices)
    function, loss_name, weights = choose_loss(data, loss, class_weights)
    settings: dict[str, Any] = {
        "epochs": epochs,
        # the last batch of an epoch is dropped if it is not whole, and one has to be
        "batch_size": min(batch_size, len(data.train) // devices),
        "lr": CARDS[str(model.method)].lr if lr is None else lr,
        "precision": choose_precision(precision, device),
        "frugal": chosen_recipes(frugal, model) if frugal else (),
        "seed": seed, "accumulate": accumulate, "devices": devices, "augment": augment,
        "weight_decay": weight_decay, "patience": patience,
        "loss": loss_name, "class_weights": weights,
    }  # fmt: skip
    options = BARE | {
        "accelerator": device, "strategy": strategy, "devices": devices, "logger": logger or False,
        "precision": LIGHTNING_NAMES[settings["precision"]], "accumulate_grad_batches": accumulate,
    }  # fmt: skip
    if out is None and resume:
        raise GeopeftError("resume=True needs out, the folder of the run to go on with.")
    try:
        keeping = None if out is None else checkpoints(model, data, settings, out, resume)
        with keeping or nullcontext() as saver:
            run = _train(model, data, function, settings, options, dashboard, callbacks, saver)
            if out is not None and not getattr(rank_zero_only, "rank", 0):
                run.save(out)
        # Trainer and callbacks hold each other, and through each other the batches.
        measure.hand_back(garbage=True)
        return run
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        said = release(error)
    # Only now: an error raised above would hold the one that it handles, and so the memory.
    raise explain(said, model, data.size, settings, device)


def _train(
    model: SegmentationModel, data: GeoData, loss: Loss, settings: dict[str, Any],
    options: dict[str, Any], dashboard: bool | str, callbacks: Sequence[Callback],
    saver: Saver | None,
) -> Run:  # fmt: skip
    """Train what `fit` has checked: task · watchers · a step's memory · the loop · the best.

    All that is large dies with this call, but the model. Callbacks are large too: Lightning lets
    each hold on to the trainer.
    """
    task = (CachedTask if "cached" in settings["frugal"] else Task)(model, data, loss, settings)
    view = _view(task, settings, dashboard)
    recorder = Recorder(view, task.card)
    patient = EarlyStopping("val_loss", patience=settings["patience"])
    watching = [recorder, patient, *callbacks, *([saver] if saver else [])]
    # For what is drawn before the first batch; from then on the task seeds each.
    lightning.seed_everything(settings["seed"], verbose=False)
    recipes = applied(model, settings["frugal"]) if settings["frugal"] else None
    state = "stopped"  # unless the loop comes to its end
    with quiet_lightning(), recipes or nullcontext({}) as done:
        trainer = lightning.Trainer(
            max_epochs=saver.epochs if saver else settings["epochs"], callbacks=watching,
            enable_checkpointing=any(isinstance(each, Checkpoint) for each in watching), **options,
        )  # fmt: skip
        view.show, place = trainer.is_global_zero and dashboard, trainer.strategy.root_device
        try:
            train, val = task.loaders()
            task.to(place)
            with trainer.precision_plugin.forward_context():
                memory = task.step_memory()
            measure.reset_peak(place)
            before = measure.memory_now(place)  # what else is on a GPU; or what the process holds
            view.start(step_memory=memory, device=measure.device_memory(place))
            with _interruptible(view):
                trainer.fit(task, train, val, ckpt_path=saver.source if saver else None)
            state = "stopped" if view.should_stop else "finished"
        finally:
            peak = measure.device_memory(place).get("peak", measure.memory_now(place))
            message = recorder.restore_best(model)
            model.to("cpu").eval().zero_grad(set_to_none=True)  # a kept model keeps no gradients
            view.finish(state, message)
    model.trained = trained_on(model, data, settings["seed"], place)
    model.built_for |= {name: settings[name] for name in ("loss", "class_weights")}
    return Run(
        model=model, method=str(model.method), data_name=data.card.name,
        history=pd.DataFrame(recorder.rows, columns=[*COLUMNS, task.card.column]),
        memory={**memory, "peak": peak - before}, seconds=recorder.seconds, best=recorder.best,
        state=state, settings={**settings, "frugal": done},
    )  # fmt: skip


@contextmanager
def _interruptible(view: Dashboard) -> Iterator[None]:
    """Let an interrupt end Lightning's loop as the button does.

    Lightning turns an interrupt into SystemExit, and ignores further ones. A SystemExit without an
    interrupt is passed on.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not view.should_stop:
            raise
        signal.signal(signal.SIGINT, interrupt)


def _view(task: Task, settings: dict[str, Any], dashboard: bool | str) -> Dashboard:
    """Return the live view, which knows how many steps are to come."""
    data, model, size = task.data, task.model, settings["batch_size"]
    together, accumulate = size * settings["devices"], settings["accumulate"]
    steps = settings["epochs"] * -(-(len(data.train) // together) // accumulate)
    title = CARDS[str(model.method)].title
    return Dashboard(
        title if model.decoder_name == "linear" else f"{title}, {model.decoder_name}",
        steps, settings["epochs"], data.card.title, task.card.title, task.card.column,
        images=together * accumulate, show=dashboard,
        chips=lambda: WatchedChips(data, lambda chips: model.predict(chips, size)),
    )  # fmt: skip


def find_lr(
    model: SegmentationModel, data: GeoData, batch_size: int = 8, seed: int = 0,
    device: str = "auto", **options: Any,
) -> _LRFinder:  # fmt: skip
    """Let the learning rate grow step by step, and see where the loss falls and where it explodes.

    A hint for the order of magnitude in the time of a short training; only validation decides.

    Args:
        model: With a method attached; its weights are left as they were.
        data: From `load_data`.
        batch_size: Chips per step.
        seed: Seed of the order of chips and of augmentation.
        device: As in `fit`.
        **options: Of Lightning's `Tuner.lr_find`: min_lr, max_lr, num_training (steps) and others.

    Returns:
        Lightning's finder: `plot(suggest=True)` is a figure, `results` the rates and smoothed
        losses, and `suggestion()` where the loss falls most: rather low, if it is flat at first.

    Raises:
        ValueError: What `fit` refuses.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv 1506.01186.
    """
    check_fit(model, data, device)
    lightning.seed_everything(seed, verbose=False)
    settings = {"seed": seed, "lr": 1e-3, "weight_decay": 0.01, "augment": True}
    settings["batch_size"] = min(batch_size, len(data.train))
    training, task = model.training, Task(model, data, choose_loss(data)[0], settings)
    with quiet_lightning(), TemporaryDirectory() as folder:  # for the weights, meanwhile
        trainer = lightning.Trainer(
            accelerator=device, devices=1, max_epochs=-1, logger=False,
            default_root_dir=folder, **BARE,
        )  # fmt: skip
        found: Any = Tuner(trainer).lr_find(task, task.loaders()[0], update_attr=False, **options)
    model.to("cpu").train(training).zero_grad(set_to_none=True)
    return found
