"""Which learning rate? Lightning's range test on a model as `fit` would train it."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch.tuner.tuning import Tuner
from torch.utils.data import DataLoader

from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.inputs import collate
from geopeft_nb.models import SegmentationModel
from geopeft_nb.training.preflight import check_fit
from geopeft_nb.training.recorder import BARE, quiet_lightning
from geopeft_nb.training.task import Task

if TYPE_CHECKING:
    from lightning.pytorch.tuner.lr_finder import _LRFinder


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
    chips: DataLoader[Any] = DataLoader(
        data.train,  # type: ignore[arg-type]
        min(batch_size, len(data.train)), shuffle=True, drop_last=True, collate_fn=collate,
    )  # fmt: skip
    training = model.training
    with quiet_lightning(), TemporaryDirectory() as folder:  # for the weights, meanwhile
        trainer = lightning.Trainer(
            accelerator=device, devices=1, max_epochs=-1, logger=False,
            default_root_dir=folder, **BARE,
        )  # fmt: skip
        task = Task(model, data, 1e-3)
        found = Tuner(trainer).lr_find(task, chips, update_attr=False, **options)
    model.to("cpu").train(training).zero_grad(set_to_none=True)
    assert found is not None
    return found
