"""Checkpoints of what training changes, so that a killed run goes on exactly where it was.

A run with `out` has beside it a folder `<out>.checkpoint` with one folder `step-…` of four files:

| file | holds |
|---|---|
| `weights.safetensors` | trainable weights and running batch statistics: all that changes |
| `best.safetensors` | the same of the best validation, if there was one |
| `state.pt` | optimiser, learning-rate schedule, early stopping, history, and how far the run was |
| `about.json` | what the run was told, to refuse to go on with another model or other data |

A checkpoint is written under another name and renamed when it is whole; only then the one before is
removed. Random numbers need no place in it: see `geopeft_nb.training.order`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from safetensors.torch import load_file, save_file
from torch import Tensor

from geopeft_nb.errors import GeopeftError
from geopeft_nb.models import SegmentationModel, moving_state
from geopeft_nb.training.order import Order
from geopeft_nb.tuning.identity import identity

if TYPE_CHECKING:
    from geopeft_nb.datasets.geodata import GeoData
    from geopeft_nb.training.recorder import Recorder

#: Of the whole time at most this share is spent on checkpoints within an epoch.
SHARE = 0.05


class Checkpoints(Callback):
    """Writes a checkpoint at the end of every epoch, every so often in between, and at a stop.

    Args:
        folder: Where checkpoints are written; None writes none.
        about: What the run was told, from `describe`.
        seconds: Time between two checkpoints within an epoch; more where writing takes long.
        found: The checkpoint to go on from, from `read`, or None.
    """

    order: Order
    recorder: Recorder
    stopper: EarlyStopping

    def __init__(
        self, folder: Path | None, about: dict[str, Any], seconds: float,
        found: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.about, self.seconds, self.found = folder, about, seconds, found
        self.written = (0, 0)  # epoch and batch of the last one
        self.closed = False
        self.due = monotonic() + seconds

    def follow(self, order: Order, recorder: Recorder, stopper: EarlyStopping) -> None:
        """Take note of what knows how far the run is, its history and its early stopping."""
        self.order, self.recorder, self.stopper = order, recorder, stopper

    def restore(self, model: SegmentationModel, epochs: int) -> str:
        """Put the weights back, and set order and recorder to where the run was; or begin anew.

        Args:
            model: The model, as it is trained.
            epochs: How many the run is to have.

        Returns:
            How the run ended if nothing is left to do, else an empty string.

        Raises:
            ValueError: The weights are not those that the model trains.
        """
        if (found := self.found) is None:
            _clear(self.folder)
            return ""
        own = moving_state(model).keys()
        if odd := sorted(own ^ found["weights"].keys()):
            raise GeopeftError(
                f"The checkpoint does not fit what the model trains: {len(odd)} names differ, "
                f"{', '.join(odd[:3])} among them."
            )
        model.load_state_dict(found["weights"], strict=False)
        self.order.epoch, self.order.batch = self.written = found["epoch"], found["batch"]
        self.recorder.go_on(found["history"], found["best"], found["best_weights"])
        self.recorder.epochs_before = self.order.epoch
        return (found["end"] or "finished") if found["early"] or self.order.epoch >= epochs else ""

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        """Hand back what optimiser, schedule and early stopping remember."""
        if self.found is not None:
            trainer.optimizers[0].load_state_dict(self.found["optimiser"])
            trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.found["schedule"])
            trainer.precision_plugin.load_state_dict(self.found["scaler"])
            self.stopper.load_state_dict(self.found["stopper"])
            self.found = None  # twice the weights' memory would stay

    def on_train_batch_end(
        self, trainer: lightning.Trainer, task: lightning.LightningModule,
        outputs: Any, batch: Any, index: int,  # noqa: ANN401 - Lightning's type
    ) -> None:  # fmt: skip
        """Write one if it is time, or if somebody stops here.

        Not in the middle of accumulating gradients, which are not kept; and not at the end of an
        epoch, before its validation.
        """
        done = self.order.batch
        if done % trainer.accumulate_grad_batches or done == self.order.batches:
            return
        # A stop validates once more than the run would have: what is kept comes before that.
        if trainer.should_stop:
            self.write(trainer, "stopped")
            self.closed = True
        elif monotonic() >= self.due:
            self.write(trainer)

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, task: lightning.LightningModule
    ) -> None:
        """Write one of the epoch that is over: only now the schedule has seen its validation."""
        self.write(trainer)

    def on_train_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        """Write the last one."""
        self.write(trainer, "stopped" if self.recorder.stopping else "finished")

    def write(self, trainer: lightning.Trainer, end: str = "") -> None:
        """Write a checkpoint, unless this one is there; `end` says how the run ended, if it did."""
        at = self.order.epoch, self.order.batch
        if self.folder is None or self.closed or not trainer.is_global_zero:
            return
        if at == self.written and not end:
            return
        began = monotonic()
        state = {
            "epoch": self.order.epoch,
            "batch": self.order.batch,
            "history": self.recorder.rows,
            "best": self.recorder.best,
            "optimiser": trainer.optimizers[0].state_dict(),
            "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "scaler": trainer.precision_plugin.state_dict(),
            "stopper": self.stopper.state_dict(),
            "end": end,
            # More epochs change nothing about a run that no longer got better.
            "early": self.stopper.wait_count >= self.stopper.patience,
        }
        name = f"step-{trainer.global_step + self.recorder.steps_before:07d}-{at[0]}-{at[1]}"
        part = self.folder / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _save(moving_state(self.recorder.model), part / "weights.safetensors")
        _save(self.recorder.kept, part / "best.safetensors")
        torch.save(state, part / "state.pt")
        (part / "about.json").write_text(json.dumps(self.about, indent=1) + "\n")
        target = self.folder / (f"{name}-{end}" if end else name)
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
        _clear(self.folder, target)
        self.written = at
        took = monotonic() - began
        self.due = monotonic() + max(self.seconds, took / SHARE if self.seconds else 0)


def prepare(
    model: SegmentationModel, data: GeoData, settings: dict[str, Any],
    out: str | os.PathLike[str] | None, resume: bool | str | os.PathLike[str] | None,
    seconds: float,
) -> Checkpoints:  # fmt: skip
    """Read what there is to go on from, and prepare what writes checkpoints.

    Args:
        model: The model before training.
        data: Its data.
        settings: Settings of the run.
        out: As in `fit`; where there is a run to go on with, not None.
        resume: As in `fit`.
        seconds: As `save_seconds` in `fit`.

    Returns:
        The callback.

    Raises:
        ValueError: There is nothing to go on with, or what there is differs; or beginning anew
            would lose a run that was cut off.
    """
    if resume is True and out is None:
        raise GeopeftError("resume=True needs out, the folder of the run to go on with.")
    if out is None:
        return Checkpoints(None, {}, seconds)
    about, target, found = describe(model, data, settings), checkpoint_folder(out), None
    source = None
    if resume is not None and resume is not False:
        source = target if resume is True else checkpoint_folder(resume)
        found = read(source, about)
    if found is None and source is not None and resume is not True:
        raise GeopeftError(
            f"{source} holds no checkpoint. resume is the out of an earlier run; resume=True, with "
            "out, begins where there is none."
        )
    if found is None or target != source:
        check_unfinished(target)
    return Checkpoints(target, about, seconds, found)


def checkpoint_folder(out: str | os.PathLike[str]) -> Path:
    """Return where the checkpoints of a run with this `out` are: beside it, not to be shared."""
    target = Path(out).expanduser().resolve()
    return target.with_name(target.name + ".checkpoint")


def latest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in a folder, or None."""
    whole = [path for path in folder.glob("step-*") if path.suffix != ".part"]
    return max(whole, key=lambda path: _place(path.name), default=None)


def check_unfinished(folder: Path) -> None:
    """Refuse to begin anew where a run waits to be gone on with.

    Raises:
        ValueError: The folder holds the checkpoint of a run that was cut off.
    """
    found = latest(folder)
    if found is not None and not found.name.endswith(("-finished", "-stopped")):
        step, epoch, _ = _place(found.name)
        raise GeopeftError(
            f"{folder} holds a run that was cut off after {step} steps, in epoch {epoch + 1}. Go "
            "on with fit(..., resume=True); or name another out, or delete that folder, to begin "
            "anew."
        )


def read(folder: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Read the newest checkpoint of a folder, if it is of the same run.

    Args:
        folder: From `checkpoint_folder`.
        about: What this run is told, from `describe`.

    Returns:
        The contents of `state.pt`, and tensors by name under `weights` and `best_weights`; None if
        there is no checkpoint.

    Raises:
        ValueError: The checkpoint is of another model, method or data, or the run was told other
            things; the message names what differs. Or a file is missing or damaged.
    """
    if (source := latest(folder)) is None:
        return None
    try:
        then = json.loads((source / "about.json").read_text())
        state = torch.load(source / "state.pt", map_location="cpu", weights_only=True)
        state["weights"] = load_file(source / "weights.safetensors")
        state["best_weights"] = load_file(source / "best.safetensors")
    except Exception as error:  # each of the four formats has errors of its own
        raise GeopeftError(
            f"The checkpoint {source} is damaged: {error}. Delete {folder} and begin anew."
        ) from error
    differing = [key for key in about if then.get(key) != json.loads(json.dumps(about[key]))]
    if differing:
        said = "; ".join(_difference(key, then.get(key), about[key]) for key in differing)
        raise GeopeftError(
            f"The run in {folder} cannot be gone on with like this, because it differs: {said}. "
            "Use what it was begun with, or name another out to begin anew."
        )
    return dict(state)


def describe(model: SegmentationModel, data: GeoData, settings: dict[str, Any]) -> dict[str, Any]:
    """Say what must be the same for a run to be gone on with.

    Args:
        model: The model before training.
        data: Its data.
        settings: Settings of `fit`; `epochs` may change, so that a run can be prolonged.

    Returns:
        Name -> something that JSON can hold.
    """
    chips = [(part.chips) for part in (data.train, data.val)]
    names = json.dumps([[chip.name for chip in part] for part in chips])
    kept = moving_state(model)
    frozen = {name: t for name, t in model.state_dict().items() if name not in kept}
    return {
        "model": identity(model),
        "frozen weights": _sample_digest(frozen),
        "method": model.method,
        "options": model.method_options,
        "trained weights": sorted((name, list(value.shape)) for name, value in kept.items()),
        "data": f"{data.card.name}, {data.size} px, {len(chips[0])} training and {len(chips[1])} "
        f"validation chips ({hashlib.sha256(names.encode()).hexdigest()[:12]})",
        **{key: value for key, value in settings.items() if key != "epochs"},
    }


def _difference(key: str, then: Any, now: Any) -> str:  # noqa: ANN401 - any value of JSON
    """Say how one thing differs; of dictionaries, only where they do."""
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = {name: (then.get(name), now.get(name)) for name in {**then, **now}}
        differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        return "; ".join(_difference(f"{key} {name}", *pair) for name, pair in differing.items())
    if isinstance(now, list) and len(now) > 8:
        return f"{key} are others"
    return f"{key} was {then!r} and is {now!r}"


def _sample_digest(tensors: dict[str, Tensor], values: int = 256) -> str:
    """Return a digest of some values of each tensor: all of them would take seconds."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // values)].cpu().float().numpy()
        digest.update(name.encode() + np.ascontiguousarray(some).tobytes())
    return digest.hexdigest()[:16]


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    # Copies, because a file holds no two names of one tensor, and no views.
    save_file({name: t.detach().cpu().clone() for name, t in tensors.items()}, path)


def _clear(folder: Path | None, but: Path | None = None) -> None:
    """Remove all checkpoints in a folder but one."""
    for path in folder.glob("step-*") if folder else ():
        if path != but:
            shutil.rmtree(path, ignore_errors=True)


def _place(name: str) -> tuple[int, int, int]:
    """Read step, epoch and batch from the name of a checkpoint."""
    step, epoch, batch = name.split("-")[1:4]
    return int(step), int(epoch), int(batch)
