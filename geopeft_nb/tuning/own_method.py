"""How a PEFT method that peft does not have becomes one of its own.

A peft method has three parts: a config, which is saved as JSON; a layer, which stands in for a
module of the backbone and holds what each named adapter adds to it; and a model, which puts the
layers in place. A method of ours is an `OwnConfig` and an `OwnLayer`. `register` makes the model
and tells peft: from then on it attaches, saves, loads, switches and disables by the calls of LoRA.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import nn

from geopeft_nb.errors import GeopeftError


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

    target_modules: str | None = field(default=None)
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

    @property
    def acting(self) -> str | None:
        """The adapter that acts on this layer now; None if disabled, merged or not its own."""
        names = [name for name in self.active_adapters if name in self.configs]
        if self.disable_adapters or self.merged or not names:
            return None
        if len(names) > 1:
            raise GeopeftError(f"Adapters {names} are active; only one can act: set_adapter(name).")
        return names[0]


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
