"""Cached features: what the frozen beginning of a model makes of a chip is computed only once.

Whatever stands before the first weight that is trained gives the same answer in every epoch: of a
linear probe that is the whole backbone, of late LoRA three quarters of it. So its answer is kept,
for each of the eight views in which augmentation may show a chip, and epochs start from there.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from mmap import mmap
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from geopeft_nb.backbones.base import More, Transformer
from geopeft_nb.backbones.vit import run_blocks
from geopeft_nb.datasets.augment import all_views, draw_views, turned
from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.decoders.load import CARDS as DECODERS
from geopeft_nb.files import cache_folder, check_space
from geopeft_nb.inputs import stack_metadata
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tasks import TASKS
from geopeft_nb.writing import refusals

#: What the frozen part gives: tokens or maps, each (B, ...), from which the trained part goes on.
State = list[Tensor]


class Split:
    """A model in two: the frozen part before the first trained weight, and all the rest.

    Args:
        model: With a method attached, in the mode in which it will be trained; see `why_not_split`.

    Attributes:
        first: Index of the first block that is trained, or None if the whole backbone is frozen.
    """

    def __init__(self, model: SegmentationModel) -> None:
        self.model, self.first = model, first_trained(model)
        self.last_only = DECODERS[model.decoder_name].maps == 1
        self.grid: tuple[int, ...] = ()

    @torch.no_grad()
    def prefix(self, image: Tensor, temporal: More = None, location: More = None) -> State:
        """Run the frozen part; arguments as in `SegmentationModel.forward`.

        Returns:
            Of a backbone that is frozen as a whole the maps that the decoder reads; else the tokens
            (B, N, D) for the first trained block, and of chosen blocks before it theirs.
        """
        scaled, more = self.model.scale(image, temporal, location)
        if self.first is None:
            if self.model.method == "side":
                return self.model.backbone.read(scaled, **more)
            maps: list[Tensor] = self.model.backbone(scaled, **more)
            return maps[-1:] if self.last_only else maps
        backbone: Any = self.model.plain_backbone
        tokens, self.grid = backbone.begin(scaled, **more)
        kept = []
        for index in range(self.first):
            tokens = backbone.blocks[index](tokens)
            if index in backbone.layers and not self.last_only:
                kept.append(tokens)
        return [tokens, *kept]

    def suffix(self, state: State, size: Sequence[int]) -> Tensor:
        """Run the rest of the model.

        Args:
            state: What `prefix` returned.
            size: Height and width of the image.

        Returns:
            What the model returns for that image.
        """
        if self.first is None:
            maps = self.model.backbone.climb(state) if self.model.method == "side" else state
            return self.model.decode(maps, size)
        plain: Any = self.model.plain_backbone
        tokens, *kept = state
        kept += run_blocks(plain.blocks, plain.norm, plain.layers, tokens, self.first)
        return self.model.decode([plain.to_map(x, self.grid) for x in kept], size)


def first_trained(model: SegmentationModel) -> int | None:
    """Return the index of the first block with a trained weight; None if none in the backbone is.

    A trained final norm counts to the last block; a weight before the blocks, and any weight of a
    backbone without blocks, to block 0.
    """
    trained = {id(p) for p in model.backbone.parameters() if p.requires_grad}
    if not trained or model.method == "side":  # it trains beside the blocks
        return None
    plain: Any = model.plain_backbone
    if not isinstance(plain, Transformer) or model.method == "vit_adapter":
        return 0
    owner = {id(p): plain.layers[-1] for p in plain.norm.parameters()}
    for index, block in enumerate(plain.blocks):
        owner |= {id(p): index for p in block.parameters()}
    return min(owner.get(key, 0) for key in trained)


def why_not_split(model: SegmentationModel) -> str:
    """Say why features cannot be cached; empty if they can."""
    first = first_trained(model)
    if first is None:
        return ""  # a backbone that is frozen as a whole is in evaluation mode
    if first == 0:
        return (
            f"{model.method} trains from the first block, and 'cached' keeps what comes before. "
            "Take frugal=['late', 'cached'], or attach 'linear_probe'."
        )
    plain: Any = model.plain_backbone
    rates = [0.0]  # frozen dropout still draws at random in training
    for part in plain.blocks[:first].modules():
        configs = getattr(part, "configs", {}).values()
        rates += [getattr(config, "dropout", 0.0) for config in configs]
        rates += [part.p if isinstance(part, nn.Dropout) else getattr(part, "drop_prob", 0.0)]
    reason = f"a dropout of {max(rates):g} is active in the frozen part: attach it with dropout=0."
    return f"'cached' needs the same features in every epoch, and {reason}" if any(rates) else ""


class CachedFeatures(Dataset[dict[str, Any]]):
    """Chips of which the frozen part of a model is computed once per view, and kept in files.

    As a data set it gives for each chip its index and its target, once `fill` has computed them;
    `look` turns a batch of these into the model's output.

    Args:
        model: As it will be trained, see `Split`.
        chips: All of one size.
        augment: Whether chips are shown in eight views, drawn as `turn_and_mirror` draws them; else
            as they are.

    Attributes:
        nbytes: Bytes that they take, known after the first chip.
    """

    def __init__(self, model: SegmentationModel, chips: ChipDataset, augment: bool = True) -> None:
        self.split, self.chips, self.augment = Split(model), chips, augment
        self.size: tuple[int, int] = chips[0]["image"].shape[-2:]
        self.square = self.size[0] == self.size[1]
        self.views = all_views(self.square) if augment else all_views()[:1]
        self.nbytes = 0
        self.store: State = []
        self.targets: list[Tensor] = []

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.chips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `index`, `name` and `target` of a chip."""
        return {"index": index, "name": self.chips.chips[index].name, "target": self.targets[index]}

    def fill(self) -> None:
        """Compute the features of all chips in all views.

        They are written to files of the cache folder without a name, so that not even a killed
        process leaves them behind, and mapped when whole: the system keeps in memory what has room.

        Raises:
            NotWrittenError: The disk has too little room for them.
        """
        device, folder = next(self.split.model.parameters()).device, cache_folder()
        what = f"A cache of the features of {len(self)} chips in {len(self.views)} views"
        with ExitStack() as stack:
            for index in range(len(self)):
                sample = self.chips[index]
                self.targets.append(sample[TASKS[self.chips.task].target])
                image = torch.stack([turned(sample["image"], view) for view in self.views])
                more = stack_metadata([sample] * len(image))
                more = {name: x.to(device) for name, x in more.items()}
                state = self.split.prefix(image.to(device), **more)
                if index == 0:
                    self.nbytes = len(self) * sum(part.nbytes for part in state)
                    check_space(folder, self.nbytes, what)
                    files: list[Any] = [
                        stack.enter_context(TemporaryFile(dir=folder)) for _ in state
                    ]
                with refusals(folder):
                    for file, part in zip(files, state, strict=True):
                        file.write(part.cpu().contiguous().view(torch.uint8).numpy())
                        file.flush()
            self.store = [
                torch.frombuffer(mmap(file.fileno(), 0), dtype=x.dtype).view(len(self), *x.shape)
                for file, x in zip(files, state, strict=True)
            ]

    def look(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Score a batch, each chip in a view that is drawn at random if they are augmented.

        Args:
            batch: `index` (B,) and `target` (B, ...), as the data set gives them, on any device.

        Returns:
            The model's output and the targets in the same views, on the model's device.
        """
        indices = batch["index"].cpu()
        drawn = draw_views(len(indices), self.square) if self.augment else self.views * len(indices)
        places = torch.tensor([self.views.index(view) for view in drawn])
        device = next(self.split.model.parameters()).device
        state = [kept[indices, places].to(device, non_blocking=True) for kept in self.store]
        pairs = zip(batch["target"], drawn, strict=True)
        target = torch.stack([turned(one, view) for one, view in pairs])
        return self.split.suffix(state, self.size), target.to(device)
