"""The blocks of a backbone that a recipe may treat one by one, and how a module is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from geopeft_nb.backbones.base import Transformer
from geopeft_nb.backbones.generic import TimmStages
from geopeft_nb.backbones.unet import UNet
from geopeft_nb.models import SegmentationModel


def running_blocks(model: SegmentationModel) -> list[nn.Module]:
    """Return the blocks that the backbone runs, in order, with what a method wrapped around them.

    Transformer blocks up to the last whose output is used; the residual blocks of a network with
    stages; of the UNet those of its encoder.
    """
    plain: Any = model.plain_backbone
    if isinstance(plain, Transformer):
        count = len(plain.blocks) if model.method == "vit_adapter" else plain.layers[-1] + 1
        return list(plain.blocks[:count])
    if isinstance(plain, TimmStages):
        names = [
            plain.network.feature_info[stage]["module"] for stage in range(plain.taken[-1] + 1)
        ]
        stages = [plain.network.get_submodule(name) for name in names]
    elif isinstance(plain, UNet):
        encoder = plain.network.encoder
        stages = [encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4]
    else:
        return []
    inner = [getattr(stage, "blocks", stage) for stage in stages]
    return [block for stage in inner if isinstance(stage, nn.Sequential) for block in stage]


@contextmanager
def replaced(module: nn.Module, name: str, value: object) -> Iterator[None]:
    """Let an object have another attribute for a while, for example another `forward`."""
    own = vars(module)
    had, before = name in own, own.get(name)
    own[name] = value
    try:
        yield
    finally:
        if had:
            own[name] = before
        else:
            own.pop(name, None)
