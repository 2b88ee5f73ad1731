"""What is done with one batch, what it draws at random, and how the weights move.

Which chips a step sees and what it draws are functions of seed, epoch and batch alone. So a run
that goes on in another process does what it would have done without the break, and nothing else
that draws random numbers, such as a live view, changes a run.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from geopeft_nb.datasets.augment import turn_and_mirror
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.inputs import collate
from geopeft_nb.memory.features import CachedFeatures
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.models import SegmentationModel, moving_state
from geopeft_nb.tasks import TASKS
from geopeft_nb.training.losses import Loss


class Task(lightning.LightningModule):
    """The step of training and of validation, and the optimiser.

    Args:
        model: The model to train.
        data: Its data.
        loss: From `choose_loss`.
        settings: Those of `fit`: batch_size, lr, weight_decay, augment and seed among them.

    Attributes:
        order: What the order of the training chips is drawn from.
        counts: What the validation under way has counted, see `TaskCard`.
        sets: What training and validation are computed from.
        join: Makes a batch of what they hold.
    """

    join: Callable[[Any], Any] | None = staticmethod(collate)

    def __init__(
        self, model: SegmentationModel, data: GeoData, loss: Loss, settings: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.model, self.data, self.loss, self.settings = model, data, loss, settings
        self.order = torch.Generator()
        self.card, self.sets = TASKS[data.task], cast(Any, (data.train, data.val))
        self.strict_loading = False  # a checkpoint holds only the weights that training changes
        self.counts: Any = 0

    def on_train_epoch_start(self) -> None:
        """Seed the order of the chips in this epoch."""
        self.order.manual_seed(mix(self.settings["seed"], self.current_epoch, 0))

    def on_train_batch_start(self, batch: dict[str, Tensor], index: int) -> None:
        """Seed what augmentation and dropout draw in this batch."""
        # from 1: a mix ends in zeros or not alike, and the order of chips is drawn from (epoch, 0)
        where = self.current_epoch, 1 + index, self.global_rank
        torch.manual_seed(mix(self.settings["seed"], *where))

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(*self.look(batch, training=True))

    def look(self, batch: dict[str, Tensor], training: bool) -> tuple[Tensor, Tensor]:
        """Return output and target of a batch, in training turned and mirrored at random."""
        if training and self.settings["augment"]:
            image, target = turn_and_mirror(batch["image"], batch["target"])
            batch = {**batch, "image": image, "target": target}
        return self(batch), batch["target"]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Call the model on images and what is known of them."""
        return self.model(batch["image"], batch.get("temporal"), batch.get("location"))

    def step_memory(self) -> dict[str, int]:
        """Measure the bytes of one training step by part; see `training_bytes`."""
        batch = collate([self.data.train[i] for i in range(self.settings["batch_size"])])
        batch = self.transfer_batch_to_device(batch, self.device, 0)
        self.model.train()
        return training_bytes(self.model, lambda: self.loss(self(batch), batch["target"]))

    def configure_optimizers(self) -> Any:
        """Let AdamW move what is trained, at half the rate after 5 epochs that were no better."""
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        lr, decay = self.settings["lr"], self.settings["weight_decay"]
        optimiser = torch.optim.AdamW(trained, lr=lr, weight_decay=decay)
        halve = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=4)
        # Lightning keeps its state, and never calls it by itself: see `on_train_epoch_end`.
        schedule = {"scheduler": halve, "monitor": "val_loss", "frequency": sys.maxsize}
        return {"optimizer": optimiser, "lr_scheduler": schedule}

    def on_train_epoch_end(self) -> None:
        """Let the schedule see the epoch's validation.

        Lightning would do that after the checkpoint of the epoch is written.
        """
        if (loss := self.trainer.callback_metrics.get("val_loss")) is not None:
            self.lr_schedulers().step(loss)  # type: ignore[union-attr, arg-type]

    def validation_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Log and return the loss of a batch, and count what is right and wrong in it."""
        output, target = self.look(batch, training=False)
        loss = self.loss(output, target)
        self.log("val_loss", loss, batch_size=len(output), sync_dist=True)
        answer, kinds = self.card.predict(output.detach()), len(self.data.classes)
        self.counts += self.card.count(target, answer, kinds, self.data.ignore_index)
        return loss

    def on_validation_epoch_end(self) -> None:
        """Score what all devices have counted."""
        counts = torch.as_tensor(self.counts, device=self.device)
        summed = self.trainer.strategy.reduce(counts, reduce_op="sum").cpu().numpy()
        self.log(self.card.column, self.card.score(summed), sync_dist=True)
        self.counts = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep of the weights what training changes."""
        checkpoint["state_dict"] = {f"model.{k}": v for k, v in moving_state(self.model).items()}

    def loaders(self) -> list[DataLoader[Any]]:
        """Return the loaders of training, in an order that is drawn, and of validation."""
        (train, val), size = self.sets, self.settings["batch_size"]
        drawn = RandomSampler(train, generator=self.order)
        return [
            DataLoader(train, size, sampler=drawn, drop_last=True, collate_fn=self.join),
            DataLoader(val, size, collate_fn=self.join),
        ]


class CachedTask(Task):
    """The same on features of the frozen part of the model, which are computed once."""

    join = None

    def loaders(self) -> list[DataLoader[Any]]:
        """Return the loaders of the features of training and of validation."""
        train = CachedFeatures(self.model, self.data.train, self.settings["augment"])
        self.sets = train, CachedFeatures(self.model, self.data.val, augment=False)
        return super().loaders()

    def on_train_start(self) -> None:
        """Compute the features; now, so that their seconds count."""
        for features in self.sets:
            with self.trainer.precision_plugin.forward_context():
                features.fill()

    def look(self, batch: dict[str, Tensor], training: bool) -> tuple[Tensor, Tensor]:
        """Return output and target of a batch of features, in training in views at random."""
        return self.sets[0 if training else 1].look(batch)


def mix(*numbers: int) -> int:
    """Mix whole numbers from 0 into one seed below 2**32: near numbers give unlike seeds.

    Source: numpy's SeedSequence, after M. E. O'Neill, "Developing a seed_seq alternative" (2015).
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
