"""Which chips a step sees and what it draws at random: functions of seed, epoch and batch alone.

So a run that goes on in another process does what it would have done without the break, and nothing
else that draws random numbers, such as a live view, changes a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback


class Order(Callback):
    """Yields the chips of each batch that is still to come, and seeds the random numbers of each.

    It has no length on purpose: that of a first epoch depends on where a run goes on.

    Args:
        count: Number of chips.
        size: Chips per batch and process; chips that do not fill a batch wait for another epoch.
        seed: Seed of the run.
        rank: Number of this process, from 0; each takes other chips.
        world: Number of processes.

    Attributes:
        epoch: Epochs done.
        batch: Batches done in the epoch under way.

    Example:
        >>> order = Order(count=4, size=2, seed=0)
        >>> order.batch = 1  # the first batch was seen before a break
        >>> len(list(order))
        1
    """

    def __init__(self, count: int, size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.count, self.size, self.seed, self.rank, self.world = count, size, seed, rank, world
        self.epoch = self.batch = 0

    @property
    def batches(self) -> int:
        """Batches of a whole epoch in each process."""
        return self.count // (self.size * self.world)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the positions of the chips of each batch that the epoch still has."""
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, 0))
        shuffled = torch.randperm(self.count, generator=generator).tolist()
        for batch in range(self.batch, self.batches):
            start = (batch * self.world + self.rank) * self.size
            yield shuffled[start : start + self.size]

    def on_train_batch_start(
        self, trainer: lightning.Trainer, task: lightning.LightningModule,
        batch: Any, index: int,  # noqa: ANN401 - Lightning's type
    ) -> None:  # fmt: skip
        """Seed what augmentation and dropout draw in this batch."""
        torch.manual_seed(mix(self.seed, self.epoch, 1 + self.batch, self.rank))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, task: lightning.LightningModule,
        outputs: Any, batch: Any, index: int,  # noqa: ANN401 - Lightning's type
    ) -> None:  # fmt: skip
        """Count the batch."""
        self.batch += 1

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, task: lightning.LightningModule
    ) -> None:
        """Count the epoch."""
        self.epoch, self.batch = self.epoch + 1, 0


def mix(*numbers: int) -> int:
    """Mix whole numbers from 0 into one seed below 2**32: near numbers give unlike seeds.

    Source: numpy's SeedSequence, after M. E. O'Neill, "Developing a seed_seq alternative" (2015).
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
