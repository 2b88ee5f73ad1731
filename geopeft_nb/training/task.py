"""What is done with one batch, and how the weights move."""

import sys
from typing import Any, cast

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from geopeft_nb.datasets.augment import turn_and_mirror
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.inputs import collate
from geopeft_nb.memory.features import CachedFeatures
from geopeft_nb.models import SegmentationModel, moving_state
from geopeft_nb.tasks import TASKS
from geopeft_nb.training.losses import ChosenLoss, Loss
from geopeft_nb.training.order import Order


class Task(lightning.LightningModule):
    """The step of training and of validation, and the optimiser.

    Args:
        model: The model to train.
        data: Its data.
        lr: Learning rate to begin with.
        weight_decay: Of AdamW.
        augment: Turn and mirror the training chips at random.
        loss: None is the task's own.

    Attributes:
        counts: What the validation under way has counted, see `TaskCard`.
    """

    def __init__(
        self, model: SegmentationModel, data: GeoData, lr: float, weight_decay: float = 0.01,
        augment: bool = True, loss: ChosenLoss | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.lr, self.weight_decay, self.augment = model, lr, weight_decay, augment
        self.card, self.ignore = TASKS[data.task], data.ignore_index
        self.loss: Loss = loss or (lambda x, y: self.card.loss(x, y, self.ignore))
        self.strict_loading = False  # a checkpoint holds only the weights that training changes
        self.counts: Any = 0

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(*self.look(batch, training=True))

    def look(self, batch: dict[str, Tensor], training: bool) -> tuple[Tensor, Tensor]:
        """Return output and target of a batch, in training turned and mirrored at random."""
        if training and self.augment:
            image, target = turn_and_mirror(batch["image"], batch["target"])
            batch = {**batch, "image": image, "target": target}
        return self(batch), batch["target"]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Call the model on images and what is known of them."""
        return self.model(batch["image"], batch.get("temporal"), batch.get("location"))

    def configure_optimizers(self) -> Any:
        """Let AdamW move what is trained, at half the rate after 5 epochs that were no better."""
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=self.lr, weight_decay=self.weight_decay)
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
        answer = self.card.predict(output.detach())
        self.counts += self.card.count(target, answer, len(self.model.classes), self.ignore)
        return loss

    def on_validation_epoch_end(self) -> None:
        """Score what all devices have counted."""
        counts = torch.as_tensor(self.counts, device=self.device)
        summed = self.trainer.strategy.reduce(counts, reduce_op="sum").cpu().numpy()
        self.log(self.card.column, self.card.score(summed), sync_dist=True)
        self.counts = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep of the weights what training changes."""
        moving = moving_state(self.model).items()
        checkpoint["state_dict"] = {f"model.{name}": value for name, value in moving}

    def loaders(self, data: GeoData, order: Order, size: int) -> list[DataLoader[Any]]:
        """Return the loaders of training and validation."""
        train, val = cast(Any, data.train), cast(Any, data.val)
        return [
            DataLoader(train, size, sampler=order, drop_last=True, collate_fn=collate),
            DataLoader(val, size, collate_fn=collate),
        ]


class CachedTask(Task):
    """The same on features of the frozen part of the model, which are computed once.

    Attributes:
        features: Of training and of validation.
    """

    features: tuple[CachedFeatures, CachedFeatures]

    def loaders(self, data: GeoData, order: Order, size: int) -> list[DataLoader[Any]]:
        """Return the loaders of the features of training and validation."""
        train = CachedFeatures(self.model, data.train, self.augment)
        val = CachedFeatures(self.model, data.val, augment=False)
        self.features = train, val
        return [DataLoader(train, size, sampler=order, drop_last=True), DataLoader(val, size)]

    def on_train_start(self) -> None:
        """Compute the features; now, so that their seconds count."""
        for features in self.features:
            with self.trainer.precision_plugin.forward_context():
                features.fill()

    def look(self, batch: dict[str, Tensor], training: bool) -> tuple[Tensor, Tensor]:
        """Return output and target of a batch of features, in training in views at random."""
        return self.features[0 if training else 1].look(batch)
