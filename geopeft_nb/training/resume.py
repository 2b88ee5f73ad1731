"""Checkpoints beside a run, so that one that was killed goes on as if it had not been.

`<out>.ckpt` is Lightning's checkpoint: optimiser, progress, and what the callbacks remember. Of the
weights it holds only those that training changes, and besides what the run was told, to refuse to
go on with another model or other data. Random numbers need no place in it: see
`geopeft_nb.training.order`. Exact on one device; several go on with chips in another order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from geopeft_nb.backbones.load import unpickled
from geopeft_nb.errors import GeopeftError
from geopeft_nb.models import SegmentationModel, moving_state
from geopeft_nb.tuning.adapter_files import check_folder
from geopeft_nb.tuning.identity import identity
from geopeft_nb.writing import held, written_beside

if TYPE_CHECKING:
    from geopeft_nb.datasets.geodata import GeoData

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
        self.ended = False

    def on_train_epoch_end(self, trainer: Trainer, task: LightningModule) -> None:
        """Write one under another name, and rename it when it is whole.

        An epoch that somebody stopped begins anew: it was validated as the run would not have been.
        """
        if not trainer.is_last_batch:
            return
        self.ended = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        with written_beside(self.path) as part:  # the first of several processes writes
            trainer.save_checkpoint(part)

    def on_save_checkpoint(
        self, trainer: Trainer, task: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what the run was told, and whether it is over."""
        checkpoint |= {"about": self.about, "ended": self.ended}


def checkpoint_path(out: str | os.PathLike[str]) -> Path:
    """Return where the checkpoint of a run with this `out` is: beside it, not to be shared."""
    target = Path(out).expanduser().resolve()
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
        if resume and found:
            check_same(path, found["about"], saver.about)
            saver.source, saver.epochs = path, last_epoch(found["callbacks"], settings)
        elif found and not found["ended"]:
            raise GeopeftError(
                f"{path} holds {found['global_step']} steps of a run that was cut off. Go on with "
                "fit(..., resume=True), or delete it to begin anew."
            )
        else:
            path.unlink(missing_ok=True)
        yield saver


def last_epoch(callbacks: dict[str, dict[str, Any]], settings: dict[str, Any]) -> int:
    """Return the epoch to end with: none before the one that a checkpoint has reached.

    More epochs change nothing about a run that no longer got better.

    Args:
        callbacks: What they remember.
        settings: Settings of the run.
    """
    remembered = {name.split("{")[0]: state for name, state in callbacks.items()}
    done: int = remembered["Order"]["epoch"]
    over = remembered["EarlyStopping"]["wait_count"] >= settings["patience"]
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
        last_epoch(found["callbacks"], {"epochs": 0, "patience": 0})
        return {key: found[key] for key in PARTS}
    except Exception as error:  # a damaged file has many errors
        raise GeopeftError(
            f"The checkpoint {path} is damaged: {error}. Delete it and begin anew, or name another."
        ) from error


def check_same(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a run that was told something else, and say what.

    Raises:
        ValueError: Another model, other data or other settings.
    """
    differing = [key for key in now if then.get(key) != now[key]]
    if differing:
        said = "; ".join(f"{key} was {then.get(key)!r} and is {now[key]!r}" for key in differing)
        raise GeopeftError(
            f"The run in {path} cannot be gone on with like this, because it differs: {said}. "
            "Use what it was begun with, or name another out to begin anew."
        )


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
    kept, state = moving_state(model), model.state_dict()
    frozen = sum(state[name].sum(dtype=torch.float64).item() for name in state if name not in kept)
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]
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
