"""BitFit: train the biases, and nothing else.

Ben Zaken et al., arXiv 2106.10199: of a whole transformer only the biases learn, about one weight
in a thousand. Usually one just unfreezes them; here each named adapter holds biases of its own,
which act in place of the layer's. So BitFit can be switched, disabled and saved like LoRA, and
merging copies them into the layer.
"""

from __future__ import annotations

from typing import Any, Self

from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn
from torch.func import functional_call

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.tuning.own_method import OwnConfig, OwnLayer, one_of, register
from geopeft_nb.tuning.target_modules import block_names

#: Layers whose bias is trained, where they have one.
KINDS = (nn.Linear, nn.LayerNorm, nn.Conv2d, nn.Conv3d, nn.BatchNorm2d)


class BitFitConfig(OwnConfig):
    """What defines BitFit, for peft: which layers' bias is trained."""


class BitFitLayer(OwnLayer):
    """A layer whose bias is the active adapter's."""

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

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute what the layer computes."""
        if self.disable_adapters and self.merged:
            self.unmerge()  # which peft refuses: nobody kept the layer's own bias
        name = self.acting
        if name is None:
            return self.base_layer(x, *args, **kwargs)
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
        if isinstance(module, KINDS) and module.bias is not None and f"{name}.".startswith(prefix)
    ]
    return BitFitConfig(target_modules=one_of(names))
