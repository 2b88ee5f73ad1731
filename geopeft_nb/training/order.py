"""Which chips a step sees and what it draws at random: functions of seed, epoch and batch alone.

So a run that goes on in another process does what it would have done without the break, and nothing
else that draws random numbers, such as a live view, changes a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import Sampler


class Order(Callback, Sampler[int]):
    """Yields the chips of an epoch that are still to come, and seeds the numbers of each batch.

    Sampler and callback in one, so that what Lightning saves of callbacks is where the sampler is.

    Args:
        count: Number of chips.
        size: Chips per batch; chips that do not fill a batch wait for another epoch.
        seed: Seed of the run.

    Attributes:
        epoch: Epochs done.
        batch: Batches done in the epoch under way.

    Example:
        >>> order = Order(count=4, size=2, seed=0)
        >>> order.batch = 1  # the first batch was seen before a break
        >>> len(list(order))
        2
    """

    def __init__(self, count: int, size: int, seed: int) -> None:
        self.count, self.size, self.seed = count, size, seed
        self.epoch = self.batch = 0

    def __len__(self) -> int:
        """Return the number of chips of a whole epoch."""
        return self.count

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of the chips that the epoch still has."""
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, 0))
        shuffled = torch.randperm(self.count, generator=generator).tolist()
        yield from shuffled[self.batch * self.size :]

    def state_dict(self) -> dict[str, Any]:
        """Return how far the run is."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch, self.batch = state_dict["epoch"], state_dict["batch"]

    def on_train_batch_start(
        self, trainer: Trainer, task: LightningModule, batch: object, index: int
    ) -> None:
        """Seed what augmentation and dropout draw in this batch."""
        torch.manual_seed(mix(self.seed, self.epoch, 1 + self.batch, trainer.global_rank))

    def on_train_batch_end(self, *_: object, **__: object) -> None:
        """Count the batch."""
        self.batch += 1

    def on_train_epoch_end(self, *_: object, **__: object) -> None:
        """Count the epoch."""
        self.epoch, self.batch = self.epoch + 1, 0


def mix(*numbers: int) -> int:
    """Mix whole numbers from 0 into one seed below 2**32: near numbers give unlike seeds.

    Source: numpy's SeedSequence, after M. E. O'Neill, "Developing a seed_seq alternative" (2015).
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
