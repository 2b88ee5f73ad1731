"""Methods that peft has and that need no more than the names of the layers.

Each function checks its options and returns peft's config; `attach` does the rest.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from peft import IA3Config, LNTuningConfig, LoHaConfig, LoKrConfig, OFTConfig, VeraConfig
from torch import nn

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.errors import GeopeftError, whole
from geopeft_nb.tuning.lora import FusedLoraConfig, lora_config
from geopeft_nb.tuning.targets import layer_names

TARGETS = ("attn.qkv", "mlp.fc1", "mlp.fc2")


def _scale(r: int, alpha: int | None) -> int:
    """Return alpha, whose ratio to the rank r scales an update; r if it is None."""
    whole("r, the rank,", r)
    if alpha is not None and alpha <= 0:
        raise GeopeftError(f"alpha scales the update and must be above 0, got {alpha!r}.")
    return r if alpha is None else alpha


def dora_config(
    backbone: Backbone,
    preset: str = "paper",
    r: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    last: int | None = None,
) -> FusedLoraConfig:
    """Describe DoRA, whose options are LoRA's; see `lora_config`."""
    return lora_config(backbone, preset, r, alpha, dropout, targets, last, dora=True)


def ln_tuning_config(backbone: Backbone, last: int | None = None) -> LNTuningConfig:
    """Describe layer-norm tuning of the blocks, of the last so many or of all."""
    norms = layer_names(backbone, "ln_tuning", ("norm1", "norm2"), last, nn.LayerNorm)
    return LNTuningConfig(target_modules=norms)


def ia3_config(backbone: Backbone, last: int | None = None) -> IA3Config:
    """Describe IA³. The fused projection is scaled as a whole, so queries are scaled too.

    That adds nothing to scaled keys: attention only sees their products.
    """
    outputs = layer_names(backbone, "ia3", ("attn.qkv",), last)
    inputs = layer_names(backbone, "ia3", ("mlp.fc2",), last)
    return IA3Config(target_modules=[*outputs, *inputs], feedforward_modules=inputs)


def vera_config(
    backbone: Backbone,
    r: int = 256,
    dropout: float = 0.0,
    targets: Sequence[str] = TARGETS,
    last: int | None = None,
) -> VeraConfig:
    """Describe VeRA; ranks are higher than LoRA's, because only vectors are trained.

    The random matrices are drawn again from their seed when an adapter is loaded, so that the file
    stays small.
    """
    whole("r, the rank of VeRA,", r)
    if not 0 <= dropout < 1:
        raise GeopeftError(f"dropout is a share from 0 to below 1, got {dropout!r}.")
    names = layer_names(backbone, "vera", targets, last)
    with warnings.catch_warnings():  # peft warns that another torch might draw other matrices
        warnings.filterwarnings("ignore", "Specified to not save vera_A", UserWarning)
        return VeraConfig(r=r, vera_dropout=dropout, target_modules=names, save_projection=False)


def loha_config(
    backbone: Backbone,
    r: int = 8,
    alpha: int | None = None,
    targets: Sequence[str] = TARGETS,
    last: int | None = None,
) -> LoHaConfig:
    """Describe LoHa: an update of rank up to r²."""
    names = layer_names(backbone, "loha", targets, last)
    return LoHaConfig(r=r, alpha=_scale(r, alpha), target_modules=names)


def lokr_config(
    backbone: Backbone,
    r: int = 8,
    alpha: int | None = None,
    targets: Sequence[str] = TARGETS,
    last: int | None = None,
) -> LoKrConfig:
    """Describe LoKr, the smallest of the low-rank family."""
    names = layer_names(backbone, "lokr", targets, last)
    return LoKrConfig(r=r, alpha=_scale(r, alpha), target_modules=names)


def oft_config(
    backbone: Backbone,
    block_size: int = 32,
    targets: Sequence[str] = TARGETS,
    last: int | None = None,
) -> OFTConfig:
    """Describe orthogonal fine-tuning with blocks of so many features; they must divide D."""
    whole("block_size", block_size)
    names = layer_names(backbone, "oft", targets, last)
    layers: list[Any] = [backbone.get_submodule(name) for name in names]
    widths = {layer.in_features for layer in layers}
    if any(width % block_size for width in widths):
        raise GeopeftError(
            f"block_size must divide the layers' {', '.join(map(str, sorted(widths)))} features, "
            f"got {block_size}."
        )
    return OFTConfig(r=0, oft_block_size=block_size, target_modules=names)
