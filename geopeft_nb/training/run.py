"""A run: what training leaves behind, and what its model predicts."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geopeft_nb.datasets.base import Sample
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.facts import Facts
from geopeft_nb.pictures.show import in_bytes
from geopeft_nb.tuning.adapter_files import save
from geopeft_nb.tuning.methods import CARDS


@dataclass(repr=False)
class Run(Facts):
    """A finished, or stopped, training run.

    Attributes:
        model: The model with its best weights, on the CPU, in evaluation mode.
        method: Name of the attached method.
        data_name: Name of the data set.
        history: One row per step: step, epoch, seconds, train_loss, memory_bytes, and at the end of
            an epoch val_loss and the validation score: val_miou (0-1) of a segmentation,
            val_accuracy (0-1), val_f1 (0-1) or val_r2 of the other tasks.
        memory: Bytes of one training step by part (see `training_bytes`), and the measured `peak`:
            the most that tensors took on a GPU, or that the process grew by on a CPU.
        seconds: Wall time of the training loop.
        best: Epoch, val_loss and validation score of the weights that were kept.
        state: ``"finished"`` or ``"stopped"``.
        settings: What `fit` was told.

    A second `fit` of the same model goes on from its weights and changes them for both runs.
    """

    model: SegmentationModel
    method: str
    data_name: str
    history: pd.DataFrame
    memory: dict[str, int]
    seconds: float
    best: dict[str, float]
    state: str
    settings: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> tuple[str, dict[str, object]]:
        """Say how the run went; see `Facts`."""
        best = ", ".join(f"{name} {value:.4g}" for name, value in self.best.items())
        return f"{CARDS[self.method].title} on {self.data_name}, {self.state}", {
            "best": best or "no epoch was validated",
            "steps": f"{len(self.history)} in {self.seconds:.1f} s",
            "peak of memory": in_bytes(self.memory["peak"]) if "peak" in self.memory else "",
            "settings": ", ".join(f"{name}={value!r}" for name, value in self.settings.items()),
            "in no training chip": ", ".join(getattr(self.model.trained, "absent", ())),
            "next": "run.history, gp.evaluate(run, data), gp.save_adapter(run, folder)",
        }

    def predict(self, samples: list[Sample], batch_size: int = 16) -> list[np.ndarray]:
        """Return what is predicted for each sample; see `SegmentationModel.predict`."""
        return self.model.predict(samples, batch_size)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write adapter, decoder and history to a folder, which `gp.load_model` reads."""
        return save(self.model, folder, self.best, self.history)
