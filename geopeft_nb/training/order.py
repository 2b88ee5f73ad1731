"""Which chips a step sees and what it draws at random: functions of seed, epoch and batch alone.

So a run that goes on in another process does what it would have done without the break, and nothing
else that draws random numbers, such as a live view, changes a run.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import Sampler


class Order(Callback, Sampler[int]):
    """Yields the chips of an epoch, and seeds the numbers of each batch.

    Sampler and callback in one, so that what Lightning saves of callbacks is where the sampler is.

    Args:
        count: Number of chips.
        seed: Seed of the run.

    Attributes:
        epoch: Epochs done.

    Example:
        >>> sorted(Order(count=4, seed=0))
        [0, 1, 2, 3]
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        """Return the number of chips of an epoch."""
        return self.count

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of the chips."""
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, 0))
        yield from torch.randperm(self.count, generator=generator).tolist()

    def state_dict(self) -> dict[str, Any]:
        """Return how far the run is."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch = state_dict["epoch"]

    def on_train_batch_start(
        self, trainer: Trainer, task: LightningModule, batch: object, index: int
    ) -> None:
        """Seed what augmentation and dropout draw in this batch."""
        torch.manual_seed(mix(self.seed, self.epoch, 1 + index, trainer.global_rank))

    def on_train_epoch_end(self, *_: object, **__: object) -> None:
        """Count the epoch."""
        self.epoch += 1


def mix(*numbers: int) -> int:
    """Mix whole numbers from 0 into one seed below 2**32: near numbers give unlike seeds.

    Source: numpy's SeedSequence, after M. E. O'Neill, "Developing a seed_seq alternative" (2015).
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
