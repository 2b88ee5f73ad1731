"""Which part of a model a weight, or a tensor kept for the backward pass, belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from geopeft_nb.models import SegmentationModel

#: What runs in no module of its own: resizing the logits, and the loss.
LOSS = "loss"
#: What a method adds outside the backbone that it wraps.
ADAPTER = "adapter"


class Parts:
    """The parts of a model in the order in which they compute, found by its modules.

    A transformer is cut into its blocks; a network with stages into these; a network of neither
    kind into its children. What a method adds inside a block belongs to that block.

    Args:
        model: From `build_model`, with or without a method attached.

    Attributes:
        modules: Part -> the modules whose work it is; a module inside another one wins.
        order: All parts, `ADAPTER` and `LOSS` included.
    """

    def __init__(self, model: SegmentationModel) -> None:
        plain: Any = model.plain_backbone
        self.modules: dict[str, list[nn.Module]] = {}
        if hasattr(plain, "blocks"):
            self.modules["patch embedding"] = [plain]
            used = {f"block {number}": [block] for number, block in enumerate(plain.blocks, 1)}
            self.modules |= self._with_interactions(model.backbone, used)
            self.modules["final norm"] = [plain.norm]
        else:
            self.modules["stem"] = [plain]
            self.modules |= {label: [module] for label, module in _stages(plain)}
        if plain is not model.backbone:
            self.modules[ADAPTER] = [model.backbone]
        pyramid = getattr(model.decoder, "pyramid", None)
        if pyramid is not None:
            self.modules["neck"] = [pyramid]
        self.modules["decoder"] = [model.decoder]
        self.order = [*self.modules, LOSS]
        self._model, self._running = model, [LOSS]

    @staticmethod
    def _with_interactions(
        backbone: Any,  # noqa: ANN401 - ViT-Adapter or any other
        blocks: dict[str, list[nn.Module]],
    ) -> dict[str, list[nn.Module]]:
        """Put ViT-Adapter's convolutions before, and its interactions between the blocks."""
        if not hasattr(backbone, "interactions"):
            return blocks
        ordered = {"spatial prior": [backbone.spm]}
        names = list(blocks)
        for number, interaction in enumerate(backbone.interactions):
            ordered[f"interaction {number + 1}"] = [
                interaction.injector, interaction.extractor, *interaction.extra_extractors
            ]  # fmt: skip
            for name in names[backbone.bounds[number] : backbone.bounds[number + 1]]:
                ordered[name] = blocks[name]
        return ordered

    @property
    def running(self) -> str:
        """The part that computes now, inside `following`."""
        return self._running[-1]

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keep `running` up to date while the model computes."""
        self._running = [LOSS]
        handles: list[RemovableHandle] = []

        def follow(label: str, module: nn.Module) -> None:
            def enter(*_: object) -> None:
                self._running.append(label)

            def leave(*_: object) -> None:
                self._running.pop()

            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))

        try:
            for label, modules in self.modules.items():
                for module in modules:
                    follow(label, module)
            yield
        finally:
            for handle in handles:
                handle.remove()

    def weights(self) -> dict[str, list[Tensor]]:
        """Sort parameters and buffers by part; what several modules share counts once."""
        labels = {id(m): label for label, modules in self.modules.items() for m in modules}
        sorted_by_part: dict[str, list[Tensor]] = {label: [] for label in self.order}
        seen: set[int] = set()

        def sort(module: nn.Module, label: str) -> None:
            label = labels.get(id(module), label)
            for child in module.children():
                sort(child, label)
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            for tensor in own:
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    sorted_by_part[label].append(tensor)

        first = next(iter(self.modules))
        sort(self._model, first)
        return sorted_by_part


def _stages(backbone: Any) -> Iterator[tuple[str, nn.Module]]:  # noqa: ANN401
    """Yield the stages of a timm network, else the children of a network."""
    network = backbone.network
    info = getattr(network, "feature_info", None)
    if info is None:
        yield from ((name, child) for name, child in network.named_children())
        return
    stages = [entry["module"] for entry in info if entry["reduction"] >= 4]
    for number, name in enumerate(stages, 1):
        yield f"stage {number}", network.get_submodule(name)
