"""Checkpoints beside a run, so that one that was killed goes on as if it had not been.

`<out>.ckpt` is Lightning's checkpoint: optimiser, progress, and what the callbacks remember. Of the
weights it holds only those that training changes, and besides what the run was told, to refuse to
go on with another model or other data. Random numbers need no place in it: see
`geopeft_nb.training.task`. Exact on one device; several go on with chips in another order.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from geopeft_nb.backbones.load import unpickled
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import named_path
from geopeft_nb.models import SegmentationModel, moving_state
from geopeft_nb.tuning.adapter_files import check_folder
from geopeft_nb.tuning.identity import identity
from geopeft_nb.writing import held, written_beside

#: What a checkpoint holds -> its type; the first two are ours, the others Lightning's.
PARTS: dict[str, type] = {
    "about": dict, "ended": bool, "epoch": int, "global_step": int, "callbacks": dict,
    "state_dict": dict, "optimizer_states": list, "lr_schedulers": list, "loops": dict,
}  # fmt: skip


class Saver(Checkpoint):
    """Writes a checkpoint at the end of every epoch.

    Args:
        path: Where to write.
        about: What the run was told, from `describe`.
        epochs: The epoch to end with.

    Attributes:
        source: The checkpoint to go on from, or None.
    """

    def __init__(self, path: Path, about: dict[str, Any], epochs: int) -> None:
        self.path, self.about, self.epochs = path, about, epochs
        self.source: Path | None = None

    def on_train_epoch_end(self, trainer: Trainer, task: LightningModule) -> None:
        """Write one under another name, and rename it when it is whole.

        An epoch that somebody stopped begins anew: it was validated as the run would not have been.
        """
        if trainer.is_last_batch:
            with written_beside(self.path) as part:  # the first of several processes writes
                trainer.save_checkpoint(part)

    def on_save_checkpoint(
        self, trainer: Trainer, task: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what the run was told, and whether it is over."""
        ended = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        checkpoint |= {"about": self.about, "ended": ended}


def checkpoint_path(out: str | os.PathLike[str]) -> Path:
    """Return where the checkpoint of a run with this `out` is: beside it, not to be shared."""
    target = named_path(out, "out").resolve()
    return target.with_name(target.name + ".ckpt")


@contextmanager
def checkpoints(
    model: SegmentationModel, data: GeoData, settings: dict[str, Any],
    out: str | os.PathLike[str], resume: bool,
) -> Iterator[Saver]:  # fmt: skip
    """Hold the folder of a run and its checkpoint, from before training to the end.

    Args:
        model: The model before training.
        data: Its data.
        settings: Settings of the run.
        out: As in `fit`.
        resume: As in `fit`.

    Yields:
        The callback that writes checkpoints and knows from which one to go on.

    Raises:
        ValueError: Another process has the folder, or it holds something else; what there is to go
            on with differs; or beginning anew would lose a run that was cut off.
    """
    path = checkpoint_path(out)
    with ExitStack() as stack:
        if not getattr(rank_zero_only, "rank", 0):  # the first process holds for all
            stack.enter_context(held(check_folder(out)))
            stack.enter_context(held(path))
        saver = Saver(path, describe(model, data, settings), settings["epochs"])
        found = read(path) if path.exists() else {}
        then, now = found.get("about", {}), saver.about
        if resume and found and (odd := [key for key in now if then.get(key) != now[key]]):
            said = "; ".join(f"{key} was {then.get(key)!r} and is {now[key]!r}" for key in odd)
            raise GeopeftError(
                f"The run in {path} cannot be gone on with like this, because it differs: {said}. "
                "Use what it was begun with, or name another out to begin anew."
            )
        if found and not (resume or found["ended"]):
            raise GeopeftError(
                f"{path} holds {found['global_step']} steps of a run that was cut off. Go on with "
                "fit(..., resume=True), or delete it to begin anew."
            )
        if resume and found:
            saver.source, saver.epochs = path, last_epoch(found, settings)
        else:
            path.unlink(missing_ok=True)
        yield saver


def last_epoch(found: dict[str, Any], settings: dict[str, Any]) -> int:
    """Return the epoch to end with: none before the one that a checkpoint has reached.

    More epochs change nothing about a run that no longer got better.

    Args:
        found: What the checkpoint holds.
        settings: Settings of the run.
    """
    stopping = [x for name, x in found["callbacks"].items() if name.startswith("EarlyStopping")]
    done: int = found["epoch"] + 1
    over = stopping[0]["wait_count"] >= settings["patience"]
    return done if over else max(done, settings["epochs"])


def read(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds.

    Raises:
        ValueError: It is damaged.
    """
    try:
        with ZipFile(path) as archive:
            if changed := archive.testzip():  # which PyTorch would not notice
                raise ValueError(f"the checksum of {changed} differs")
        found = unpickled(path)
        if odd := [key for key, kind in PARTS.items() if not isinstance(found[key], kind)]:
            raise TypeError(f"its {', '.join(odd)} cannot be that")
        last_epoch(found, {"epochs": 0, "patience": 0})
        return {key: found[key] for key in PARTS}
    except Exception as error:  # a damaged file has many errors
        raise GeopeftError(
            f"The checkpoint {path} is damaged: {error}. Delete it and begin anew, or name another."
        ) from error


def describe(model: SegmentationModel, data: GeoData, settings: dict[str, Any]) -> dict[str, Any]:
    """Say what must be the same for a run to be gone on with; `epochs` may differ.

    Args:
        model: The model before training.
        data: Its data.
        settings: Settings of `fit`.

    Returns:
        Name -> something that JSON can hold.
    """
    names = [[chip.name for chip in part.chips] for part in (data.train, data.val)]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]
    kept, state = moving_state(model), model.state_dict()
    frozen = sum(state[name].sum(dtype=torch.float64).item() for name in state if name not in kept)
    about = {
        "method": model.method,
        **{f"model {name}": value for name, value in identity(model).items()},
        **{f"option {name}": value for name, value in model.method_options.items()},
        "frozen weights": f"{frozen:.9g}",  # their sum, which may round differently elsewhere
        "data": f"{data.card.name}, {data.size} px, {len(names[0])} training and {len(names[1])} "
        f"validation chips ({digest})",
        **{name: value for name, value in settings.items() if name != "epochs"},
    }
    return dict(json.loads(json.dumps(about)))  # tuples become lists
