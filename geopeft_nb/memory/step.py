"""One training step, watched: real tensors of a measurement and fake ones of a plan alike."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from geopeft_nb.memory.frugal import applied
from geopeft_nb.memory.measure import KeptTensors, LiveBytes, unmoved
from geopeft_nb.memory.parts import Parts
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tasks import TASKS

#: Precision -> what most of the computing is done in.
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Step(nn.Module):
    """Forward and backward pass of one batch, watched.

    Attributes:
        weights: Parameters and buffers by part of the model.
        kept: Bytes kept for the backward pass, by part.
        forward_most: The most bytes alive in the forward pass, batch included, weights not.
        backward_most: The same in the backward pass, with the gradients that it makes.
    """

    def __init__(
        self, model: SegmentationModel, batch_size: int, size: tuple[int, int], precision: str
    ) -> None:
        super().__init__()
        self.model, self.batch_size, self.size, self.precision = model, batch_size, size, precision
        self.parts = Parts(model)
        self.weights = self.parts.weights()
        self.kept: dict[str, int] = {}
        self.forward_most = self.backward_most = 0

    def forward(self) -> None:
        """Run the step; `fit` holds the batch as it was loaded and as it was turned."""
        own = [*self.model.parameters(), *self.model.buffers()]  # fake ones in a plan
        tensors = KeptTensors(own, lambda: self.parts.running)
        with LiveBytes(own) as live:
            batch = self.batch(own[0].device)
            loaded = {name: tensor.clone() for name, tensor in batch.items()}
            with tensors.watching(), self.parts.following():
                loss = self.loss(batch)
            self.forward_most = live.most
            self.kept = tensors.count()
            live.most = live.now
            loss.backward()
            self.backward_most = live.most
        del loaded

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Compute the loss of a batch in the precision."""
        model, dtype = self.model, AUTOCAST[self.precision]
        target, place = batch["target"], batch["image"].device.type
        more = {key: value for key, value in batch.items() if key != "target"}
        # Lightning keeps no cast weights from one layer to the next, either.
        with torch.autocast(place, dtype, enabled=dtype is not None, cache_enabled=False):
            return TASKS[model.task].loss(model(**more), target, -1)

    def batch(self, device: torch.device) -> dict[str, Tensor]:
        """Make a random batch with the targets that the task has."""
        model, count, task = self.model, self.batch_size, TASKS[self.model.task]
        shape = task.shape(len(model.classes), self.size)
        dates = [model.frames] * (model.frames > 1)
        batch = {
            "image": torch.rand(count, len(model.bands), *dates, *self.size, device=device),
            "target": torch.zeros(count, *shape, dtype=task.dtype, device=device),
        }
        if "time" in model.metadata:
            batch["temporal"] = torch.ones(count, model.frames, 2, device=device)
        if "location" in model.metadata:
            batch["location"] = torch.zeros(count, 2, device=device)
        return batch


@contextmanager
def as_trained(
    model: SegmentationModel, frugal: str | Sequence[str] | None, park: str
) -> Iterator[tuple[str, ...]]:
    """Set training mode and apply recipes, and undo both; yields the recipes' names."""
    with applied(model, frugal, park) as done, unmoved(model):
        model.train()
        yield tuple(done)


def fake_like(mode: Any, tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape on the CPU that has no numbers."""
    with mode:
        return torch.empty_like(tensor, device="cpu", requires_grad=tensor.requires_grad)
