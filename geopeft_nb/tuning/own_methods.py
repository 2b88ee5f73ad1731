"""How a PEFT method that peft does not have becomes one of its own: prompts, adapters, biases.

A peft method has three parts: a config, which is saved as JSON; a layer, which stands in for a
module of the backbone and holds what each named adapter adds to it; and a model, which puts the
layers in place. A method of ours is an `OwnConfig` and an `OwnLayer`. `register` makes the model
and tells peft: from then on it attaches, saves, loads, switches and disables by the calls of LoRA.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import PeftType, register_peft_method
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from geopeft_nb.backbones.base import Backbone, block_names
from geopeft_nb.errors import GeopeftError, check_name


def one_of(names: Sequence[str]) -> str:
    """Return the regular expression for `target_modules` that matches exactly these names.

    peft matches a list of names by their endings: "norm" would also find "blocks.0.attn.norm".
    """
    return "|".join(re.escape(name) for name in names)


@dataclass
class OwnConfig(PeftConfig):
    """What defines a method of ours, for peft.

    Args:
        target_modules: Names of the modules that get a layer, as a regular expression.
    """

    target_modules: str | None = None
    own_type: ClassVar[PeftType]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = self.own_type


class OwnLayer(nn.Module, BaseTunerLayer):
    """A module of the backbone, wrapped: the attributes that hold weights are keyed by adapter.

    Args:
        base_layer: The wrapped module, frozen.
    """

    base_layer: Any
    other_param_names = ("configs",)
    container: type[nn.ModuleDict] | type[nn.ParameterDict] = nn.ModuleDict

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer, self.training = base_layer, base_layer.training
        self.merged_adapters: list[str] = []
        self.configs: dict[str, Any] = {}
        for name in self.adapter_layer_names:
            setattr(self, name, self.container())

    @abstractmethod
    def add(self, adapter_name: str) -> None:
        """Make the weights of one adapter, as `self.configs[adapter_name]` says."""

    @property
    def width(self) -> int:
        """Features D per token, which the first weight of an attention, MLP or block reads."""
        return next(self.base_layer.parameters()).shape[-1]

    @abstractmethod
    def adapted(self, name: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute what the module computes, changed by one adapter."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Let the active adapter act, unless it is disabled, merged or not of this layer."""
        if self.disable_adapters and self.merged:
            self.unmerge()  # which peft refuses: nobody kept what was there before
        names = [name for name in self.active_adapters if name in self.configs]
        if self.disable_adapters or self.merged or not names:
            return self.base_layer(x, *args, **kwargs)
        if len(names) > 1:
            raise GeopeftError(f"Adapters {names} are active; only one can act: set_adapter(name).")
        return self.adapted(names[0], x, *args, **kwargs)


class OwnModel(BaseTuner):
    """Wraps the modules that a config names in the layers of a method."""

    tuner_layer_cls: type[OwnLayer]
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - no defaults: a config names all

    def _create_and_replace(
        self, peft_config: PeftConfig, adapter_name: str, target: nn.Module, target_name: str,
        parent: nn.Module, current_key: str, parameter_name: str | None = None,
    ) -> None:  # fmt: skip
        wrap = self.tuner_layer_cls
        layer = target if isinstance(target, wrap) else wrap(target)
        layer.configs[adapter_name] = peft_config
        with next(layer.base_layer.parameters()).device:
            layer.add(adapter_name)
        setattr(parent, target_name, layer)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        setattr(parent, child_name, new_module)  # peft's also moves weights, which blocks have not


def register(
    name: str, config_cls: type[OwnConfig], layer_cls: type[OwnLayer], prefix: str
) -> None:
    """Make a method known to peft; doing it twice is harmless.

    Args:
        name: Lower case; in capitals it is the `peft_type` in a saved `adapter_config.json`.
        config_cls: What defines it.
        layer_cls: What stands in for the modules that the config names.
        prefix: How the names of all its parameters begin.
    """
    value = name.upper()
    if value not in PeftType.__members__:
        # peft asks for a member of its enumeration, and Python has no public way to add one.
        member = str.__new__(PeftType, value)
        member._name_ = member._value_ = value
        setattr(PeftType, value, member)
        PeftType._member_names_.append(value)
        PeftType._member_map_[value] = PeftType._value2member_map_[value] = member
        model_cls = type(name, (OwnModel,), {"prefix": prefix, "tuner_layer_cls": layer_cls})
        register_peft_method(name=name, config_cls=config_cls, model_cls=model_cls, prefix=prefix)
    config_cls.own_type = PeftType[value]


@dataclass
class VptConfig(OwnConfig):
    """What defines visual prompts, for peft.

    Args:
        prompts: Number of prompts n per block.
        deep: Whether prompts leave after their block; else they travel on.
        dropout: Share of the prompts' values that is set to zero in training.
        patch_size: Patch side in pixels, which the paper starts the prompts' size from.
    """

    prompts: int = 100
    deep: bool = True
    dropout: float = 0.1
    patch_size: int = 16


class VptLayer(OwnLayer):
    """A transformer block that also sees prompts, (1, n, D) per adapter.

    Jia et al., arXiv 2203.12119: instead of changing weights, put n new tokens, the prompts, beside
    the tokens of the image. Attention lets every patch read them, so training them steers what the
    frozen blocks compute. Shallow: the prompts enter before the first block and travel through all.
    Deep: every block gets prompts of its own, and those of the block before are dropped.

    The paper puts prompts between class token and patches; here they stand at the end. To attention
    the order of tokens means nothing, as positions are part of the tokens, so the result is the
    same, and to remove the prompts one cuts off the end. (In a network whose attention adds
    positions by itself, as Swin or rotary codes do, it would not be so.)
    """

    adapter_layer_names = ("vpt_prompts",)
    container = nn.ParameterDict
    vpt_prompts: nn.ParameterDict

    def add(self, adapter_name: str) -> None:
        """Make prompts, uniform in ±v with v² = 6 / (3 p² + D), as the paper does."""
        config = self.configs[adapter_name]
        bound = math.sqrt(6 / (3 * config.patch_size**2 + self.width))
        prompts = torch.empty(1, config.prompts, self.width).uniform_(-bound, bound)
        self.vpt_prompts[adapter_name] = nn.Parameter(prompts)

    def adapted(self, name: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Refine tokens (B, N, D) to (B, N, D), or to (B, N + n, D) if the prompts travel on."""
        config = self.configs[name]
        prompts = functional.dropout(self.vpt_prompts[name], config.dropout, self.training)
        prompts = prompts.to(x.dtype).expand(x.shape[0], -1, -1)  # (B, n, D)
        refined = self.base_layer(torch.cat([x, prompts], dim=1), *args, **kwargs)
        return refined[:, : x.shape[1]] if config.deep else refined


register("visual_prompts", VptConfig, VptLayer, prefix="vpt_")


def vpt_config(
    backbone: Backbone, prompts: int = 100, deep: bool = True, dropout: float = 0.1
) -> VptConfig:
    """Describe visual prompts for a backbone.

    Args:
        backbone: From `load_backbone`, with transformer blocks.
        prompts: Number of prompts n: each costs D weights per block, and attention over n more
            tokens. The paper of this toolkit (arXiv 2504.17397) takes 100.
        deep: New prompts before every block; otherwise only before the first.
        dropout: Share of the prompts' values that is set to zero in training, 0 to below 1.

    Returns:
        The config for `peft.get_peft_model`.

    Raises:
        ValueError: The backbone has no transformer blocks.
    """
    names = block_names(backbone)
    return VptConfig(
        target_modules=one_of(names if deep else names[:1]),
        prompts=prompts, deep=deep, dropout=dropout, patch_size=backbone.patch_size,
    )  # fmt: skip


#: Kind -> the parts of a block that get an adapter, and the factor on what it adds.
KINDS = {"serial": (("attn", "mlp"), 1.0), "parallel": (("mlp",), 0.1)}


@dataclass
class AdapterConfig(OwnConfig):
    """What defines bottleneck adapters, for peft.

    Args:
        kind: ``"serial"`` or ``"parallel"``.
        width: Features w of the bottleneck.
        scale: Factor on what the adapter adds.
        dropout: Share of the bottleneck's values that is set to zero in training.
    """

    kind: str = "parallel"
    width: int = 64
    scale: float = 0.1
    dropout: float = 0.0


class AdapterLayer(OwnLayer):
    """An attention or MLP with a bottleneck adapter behind or beside it: D -> w -> D per token.

    It projects the D features of a token down to a few, applies a nonlinearity, and projects up
    again; what it gives is added. The upward weights start at zero, so before training nothing has
    changed. Two ways to place it:

    serial (Houlsby et al., arXiv 1902.00751): behind the attention and behind the MLP of each
    block, before the residual sum. It corrects what these give.

    parallel (AdaptFormer, Chen et al., arXiv 2205.13535): beside the MLP, on the same normalised
    input, scaled by 0.1. It adds what the MLP lacks, at half the weights of the serial one.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    bottleneck_down: nn.ModuleDict
    bottleneck_up: nn.ModuleDict

    def add(self, adapter_name: str) -> None:
        """Make the two projections of one adapter."""
        width = self.configs[adapter_name].width
        down, up = nn.Linear(self.width, width), nn.Linear(width, self.width)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up

    def adapted(self, name: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map (B, N, D) to (B, N, D)."""
        result = self.base_layer(x, *args, **kwargs)
        config, down, up = self.configs[name], self.bottleneck_down[name], self.bottleneck_up[name]
        # The nonlinearities are those of the two papers.
        parallel = config.kind == "parallel"
        read, bend = (x, functional.relu) if parallel else (result, functional.gelu)
        low = bend(down(read.to(next(down.parameters()).dtype)))  # (B, N, w)
        low = functional.dropout(low, config.dropout, self.training)
        return result + (config.scale * up(low)).to(read.dtype)


register("bottleneck_adapter", AdapterConfig, AdapterLayer, prefix="bottleneck_")


def adapter_config(
    backbone: Backbone, kind: str = "parallel", width: int = 64, scale: float | None = None,
    dropout: float = 0.0,
) -> AdapterConfig:  # fmt: skip
    """Describe bottleneck adapters for a backbone.

    Args:
        backbone: From `load_backbone`, with transformer blocks.
        kind: ``"parallel"`` beside each MLP, or ``"serial"`` behind each attention and MLP.
        width: Features w of the bottleneck: an adapter has about 2 w D weights.
        scale: Factor on what the adapter adds; None means 0.1 (parallel) or 1 (serial).
        dropout: Share of the bottleneck's values that is set to zero in training, 0 to below 1.

    Returns:
        The config for `peft.get_peft_model`.

    Raises:
        ValueError: An unknown kind, or the backbone has no blocks.
    """
    check_name("kind of adapter", kind, KINDS)
    parts, usual = KINDS[kind]
    names = [f"{block}.{part}" for block in block_names(backbone) for part in parts]
    return AdapterConfig(
        target_modules=one_of(names), kind=kind, width=width,
        scale=usual if scale is None else scale, dropout=dropout,
    )  # fmt: skip


#: Layers whose bias is trained, where they have one.
BIASED = (nn.Linear, nn.LayerNorm, nn.Conv2d, nn.Conv3d, nn.BatchNorm2d)


class BitFitConfig(OwnConfig):
    """What defines BitFit, for peft: which layers' bias is trained."""


class BitFitLayer(OwnLayer):
    """A layer whose bias is the active adapter's.

    BitFit (Ben Zaken et al., arXiv 2106.10199): of a whole transformer only the biases learn, about
    one weight in a thousand. Usually one just unfreezes them; here each named adapter holds biases
    of its own, which act in place of the layer's. So BitFit can be switched, disabled and saved
    like LoRA, and merging copies them into the layer.
    """

    adapter_layer_names = ("bitfit_bias",)
    container = nn.ParameterDict
    bitfit_bias: nn.ParameterDict

    def add(self, adapter_name: str) -> None:
        """Start from the layer's own bias."""
        self.bitfit_bias[adapter_name] = nn.Parameter(self.base_layer.bias.detach().clone())

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except in a batch norm, whose running statistics stay as they are."""
        super().train(mode)
        self.base_layer.eval()
        return self

    def adapted(self, name: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute what the layer computes with another bias."""
        bias = self.bitfit_bias[name].to(self.base_layer.bias.dtype)
        return functional_call(self.base_layer, {"bias": bias}, (x, *args), kwargs)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the bias of the active or named adapter in place of the layer's."""
        for name in check_adapters_to_merge(self, adapter_names):
            self.base_layer.bias.data = self.bitfit_bias[name].data
            self.merged_adapters.append(name)


register("bitfit", BitFitConfig, BitFitLayer, prefix="bitfit_")


def bitfit_config(backbone: Backbone) -> BitFitConfig:
    """Describe BitFit for a backbone.

    Args:
        backbone: From `load_backbone`. Of a transformer the biases of all blocks and of the final
            norm are trained, where there are any: Clay's attention has none. The embedding of
            patches stays as it is. Of a convolutional network all biases are trained; mostly they
            are in its batch norms.

    Returns:
        The config for `peft.get_peft_model`.
    """
    prefix: tuple[str, ...] = ("",)
    if hasattr(backbone, "blocks"):
        final = [name for name, module in backbone.named_modules() if module is backbone.norm]
        prefix = tuple(f"{part}." for part in [*block_names(backbone), *final])
    names = [
        name.removesuffix(".base_layer")  # of a layer that has an adapter already
        for name, module in backbone.named_modules()
        if isinstance(module, BIASED) and module.bias is not None and f"{name}.".startswith(prefix)
    ]
    return BitFitConfig(target_modules=one_of(names))
