"""One training step, watched: real tensors of a measurement and fake ones of a plan alike.

`parts` tells which part of a model a weight, or a tensor kept for the backward pass, belongs to.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from geopeft_nb.backbones.base import Transformer
from geopeft_nb.memory.measure import LiveBytes, saved_bytes
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tasks import TASKS

#: Precision -> what most of the computing is done in.
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
#: What runs in no module of its own: resizing the logits, and the loss.
LOSS = "loss"
#: What a method adds around the backbone, such as the branch of ViT-Adapter.
ADAPTER = "adapter"


def parts(model: SegmentationModel) -> dict[nn.Module, str]:
    """Return the modules that are parts of a model, in the order in which they compute."""
    plain: Any = model.plain_backbone
    if isinstance(plain, Transformer):
        blocks = {block: f"block {i}" for i, block in enumerate(plain.blocks, 1)}
        labels = {plain: "patch embedding", **blocks, plain.norm: "final norm"}
    else:
        labels = {plain: "stem", **_stages(plain.network)}
    if plain is not model.backbone:
        labels[model.backbone] = ADAPTER
    if isinstance(pyramid := getattr(model.decoder, "pyramid", None), nn.Module):
        labels[pyramid] = "neck"
    return {**labels, model.decoder: "decoder"}


@contextmanager
def running(labels: dict[nn.Module, str]) -> Iterator[list[str]]:
    """Yield a list whose last entry is always the part that computes."""
    stack = [LOSS]

    def enter(module: nn.Module, _: object) -> None:
        stack.append(labels.get(module, stack[-1]))

    def leave(*_: object) -> None:
        stack.pop()

    with (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ):
        yield stack


def running_blocks(model: SegmentationModel) -> list[nn.Module]:
    """Return the blocks that run, in order, with what a method wrapped around them.

    Transformer blocks up to the last chosen one; the residual blocks of a network with stages.
    """
    plain: Any = model.plain_backbone
    if isinstance(plain, Transformer):
        return list(plain.blocks[: None if model.method == "vit_adapter" else plain.layers[-1] + 1])
    stages = [getattr(stage, "blocks", stage) for stage in _stages(plain.network)]
    return [block for stage in stages if isinstance(stage, nn.Sequential) for block in stage]


def _stages(network: Any) -> dict[nn.Module, str]:
    """Return the stages of a timm network, else the children of a network, with their names."""
    if not hasattr(network, "feature_info"):
        return {child: name for name, child in network.named_children()}
    names = [entry["module"] for entry in network.feature_info if entry["reduction"] >= 4]
    return {network.get_submodule(name): f"stage {i}" for i, name in enumerate(names, 1)}


class Step(nn.Module):
    """Forward and backward pass of one batch, watched.

    A transformer is cut into its blocks; a network with stages into these; a network of neither
    kind into its children. What a method adds inside a block belongs to that block.

    Args:
        model: From `build_model`, with or without a method attached.
        batch_size: Chips of the batch.
        size: Their height and width in pixels.
        precision: One of `AUTOCAST`.

    Attributes:
        labels: Module -> the part whose work it is; a module inside another one wins.
        weights: Parameters and buffers by part, in the order in which the parts compute; what
            several modules share counts once.
        kept: Bytes kept for the backward pass, by part.
        forward_most: The most bytes alive in the forward pass, batch included, weights not.
        backward_most: The same in the backward pass, with the gradients that it makes.
    """

    def __init__(
        self, model: SegmentationModel, batch_size: int, size: tuple[int, int], precision: str
    ) -> None:
        super().__init__()
        self.model, self.batch_size, self.size, self.precision = model, batch_size, size, precision
        self.labels = parts(model)
        self.kept = Counter[str]()
        self.forward_most = self.backward_most = 0
        owner: dict[int, str] = {}
        for module in model.modules():  # what lies inside another module comes later
            if module in self.labels:
                of_it = (*module.parameters(), *module.buffers())
                owner |= {id(tensor): self.labels[module] for tensor in of_it}
        self.weights: dict[str, list[Tensor]] = {part: [] for part in [*self.labels.values(), LOSS]}
        for tensor in (*model.parameters(), *model.buffers()):
            self.weights[owner.get(id(tensor), next(iter(self.weights)))].append(tensor)

    def forward(self) -> None:
        """Run the step; `fit` holds the batch as it was loaded and as it was turned."""
        own = [*self.model.parameters(), *self.model.buffers()]  # fake ones in a plan
        with LiveBytes(own) as live, running(self.labels) as stack:
            batch = self.batch(own[0].device)
            loaded = {name: tensor.clone() for name, tensor in batch.items()}
            with saved_bytes(own, lambda: stack[-1]) as self.kept:
                loss = self.loss(batch)
            self.forward_most = live.most
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
