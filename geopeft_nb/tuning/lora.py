"""LoRA through peft, on the fused projection of timm's attention as it is.

peft adapts whole layers. Prithvi-EO, like all timm transformers, makes queries, keys and values in
one layer, and the paper adapts only queries and values (arXiv 2504.17397). `LoraQV` is peft's LoRA
layer with one low-rank update for the query rows and one for the value rows. peft does not record
which class adapted a layer, so such an adapter is loaded by `gp.load_adapter`, not by peft itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.backbones.vit import FusedQKV

#: Names of the layers that the paper adapts in every block.
PAPER_TARGETS = ("attn.qkv", "mlp.fc1", "mlp.fc2")


class QueryValueUp(nn.Module):
    """The up-projections of queries and values, as one module that writes zeros for the keys.

    Args:
        width: Features D.
        rank: Rank r of each update.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, width, rank))  # B of LoRA: zero, so no change yet

    def forward(self, down: Tensor) -> Tensor:
        """Map (..., 2 r) to (..., 3 D)."""
        query, value = down.chunk(2, dim=-1)
        query, value = query @ self.weight[0].T, value @ self.weight[1].T
        return torch.cat([query, torch.zeros_like(query), value], dim=-1)


class LoraQV(Linear):
    """peft's LoRA layer for a fused query-key-value projection: queries and values are adapted."""

    def update_layer(
        self,
        adapter_name: str,
        r: int,
        *args: Any,  # noqa: ANN401 - as in peft
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Make the matrices of one adapter: A of shape (2 r, D), B of shape (2, D, r)."""
        super().update_layer(adapter_name, r, *args, **kwargs)
        base: nn.Linear = self.get_base_layer()  # type: ignore[assignment]
        down = nn.Linear(base.in_features, 2 * r, bias=False)
        nn.init.kaiming_uniform_(down.weight, a=5**0.5)  # as peft initialises A
        self.lora_A[adapter_name] = down.to(base.weight.device)
        self.lora_B[adapter_name] = QueryValueUp(base.in_features, r).to(base.weight.device)
        self.set_adapter(self.active_adapters)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the change of the fused weight, (3 D, D), for merging."""
        down: Tensor = self.lora_A[adapter].weight  # type: ignore[assignment]
        up: Tensor = self.lora_B[adapter].weight  # type: ignore[assignment]
        (down_query, down_value), (up_query, up_value) = down.chunk(2), up
        query, value = up_query @ down_query, up_value @ down_value
        return torch.cat([query, torch.zeros_like(query), value]) * self.scaling[adapter]


def wrap_lora(
    backbone: Backbone,
    r: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] = PAPER_TARGETS,
) -> PeftModel:
    """Attach LoRA to a backbone; everything else in it is frozen.

    Args:
        backbone: From `load_backbone`.
        r: Rank of each update: higher fits more and costs more; the paper uses 16.
        alpha: Scale, as a multiple of r it is the factor on the update; None means alpha = r.
        dropout: Share of inputs of the update to drop while training.
        targets: Endings of the names of the layers to adapt.

    Returns:
        The backbone inside a `PeftModel`, which forwards calls and attributes to it.

    Raises:
        ValueError: The rank is not a positive whole number, or no layer has such a name.
    """
    if isinstance(targets, str):
        raise ValueError(f"targets must be a list of names, for example [{targets!r}].")
    if alpha is not None and alpha <= 0:
        raise ValueError(f"alpha scales the update and must be above 0, got {alpha!r}.")
    if not isinstance(r, int) or r < 1:
        raise ValueError(f"r, the rank of LoRA, must be a whole number above 0; got {r!r}.")
    names = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    for target in targets:
        if not any(name.endswith(target) for name in names):
            endings = sorted({".".join(name.split(".")[-2:]) for name in names})
            if not endings:
                raise ValueError(
                    f"{backbone.card.name} is a convolutional network: it has no linear layers "
                    "that LoRA could adapt. Attach 'linear_probe' or 'full'."
                )
            raise ValueError(
                f"No layer of {backbone.card.name} ends in {target!r}. Its linear layers end in: "
                f"{', '.join(endings)}."
            )
    config = LoraConfig(
        r=r, lora_alpha=r if alpha is None else alpha, lora_dropout=dropout,
        target_modules=list(targets), bias="none",
    )  # fmt: skip
    config._register_custom_module({FusedQKV: LoraQV})
    return get_peft_model(backbone, config)
