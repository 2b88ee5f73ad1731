"""LoRA as a peft method: on fused projections as they are, and lean in memory.

Hu et al., arXiv 2106.09685: beside a frozen weight W a thin detour learns, W x + (alpha / r) B A x.
This is peft's LoRA with two additions.

Fused projections. peft adapts whole layers; but vision transformers make queries, keys and values
in one layer, of which arXiv 2504.17397 adapts only queries and values. Here the layer stays whole,
and each part that is adapted has matrices A and B of its own.

Lean memory. A's gradient needs the layer's input, which is what a layer norm or a GELU gave. It
costs almost nothing to compute again from what those keep anyway, so it is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.backbones.vit import FusedQKV, full_weight
from geopeft_nb.errors import GeopeftError, check_name, whole
from geopeft_nb.tuning.registry import register
from geopeft_nb.tuning.targets import block_names, layer_names

aten = torch.ops.aten

#: Preset -> layers that it adapts in every block, and which parts of the fused projection.
PRESETS = {
    "paper": (("attn.qkv", "mlp.fc1", "mlp.fc2"), "qv"),
    "q_v": (("attn.qkv",), "qv"),
    "all_linear": (("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"), "qkv"),
    "late": (("attn.qkv", "mlp.fc1", "mlp.fc2"), "qv"),
}


class LeanLora(Linear):
    """peft's LoRA layer, which can also run together with what comes before it."""

    def forward_after(self, before: nn.Module, x: Tensor) -> Tensor:
        """Apply `before` (a layer norm or a GELU) and then this layer.

        Args:
            before: Is computed again in the backward pass, instead of keeping its output.
            x: (..., in_features).

        Returns:
            (..., out_features); the same numbers as `self(before(x))`, to rounding.
        """
        known = type(before) in (nn.LayerNorm, nn.GELU)
        if not known or not self.is_plain() or any(p.requires_grad for p in before.parameters()):
            return self(before(x))
        name = self.active_adapters[0]
        base, scale = self.get_base_layer(), self.scaling[name]
        down, up, starts = self._matrices(name)
        held = getattr(base, "weight_scale", None)  # of a weight that is held as whole numbers
        return _BeforeAndLora.apply(
            x, down, up, base.weight, base.bias, before, starts, scale, held
        )

    def is_plain(self) -> bool:
        """Say whether exactly one LoRA without dropout or variant acts on a frozen layer."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1:
            return False
        variant = names[0] in getattr(self, "lora_variant", ()) or self.use_dora[names[0]]
        dropped = not isinstance(self.lora_dropout[names[0]], nn.Identity)
        trained = any(p.requires_grad for p in self.get_base_layer().parameters())
        return not (variant or dropped or trained or self.lora_bias[names[0]])

    def _matrices(self, name: str) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Return A (n r, in), B (n, out / n, r) and the first output row of each of the n parts."""
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        return down, up[None], (0,)  # type: ignore[return-value, index]  # torch types any child


class PartsUp(nn.Module):
    """The up-projections B of some of queries, keys and values, as one module.

    Args:
        width: Features D.
        rank: Rank r of each.
        parts: Which are adapted: some of the letters q, k, v.
    """

    def __init__(self, width: int, rank: int, parts: str) -> None:
        super().__init__()
        self.parts = parts
        self.weight = nn.Parameter(torch.zeros(len(parts), width, rank))  # zero: no change yet

    def forward(self, down: Tensor) -> Tensor:
        """Map (..., n r) to (..., 3 D), with zeros for what is not adapted."""
        pieces = dict(zip(self.parts, down.chunk(len(self.parts), dim=-1), strict=True))
        ups = dict(zip(self.parts, self.weight, strict=True))
        nothing = down.new_zeros(*down.shape[:-1], self.weight.shape[1])
        made = [pieces[part] @ ups[part].T if part in pieces else nothing for part in "qkv"]
        return torch.cat(made, dim=-1)


class FusedLora(LeanLora):
    """LoRA for a fused projection: A (n r, D) and B (n, D, r) for the n parts that are adapted."""

    def update_layer(  # type: ignore[override]  # of peft's config it needs ours
        self,
        adapter_name: str,
        r: int,
        lora_alpha: int,
        config: FusedLoraConfig,
        **kwargs: Any,  # noqa: ANN401 - as in peft
    ) -> None:
        """Make the matrices of one adapter."""
        super().update_layer(adapter_name, r, lora_alpha, config, **kwargs)
        parts = config.qkv_parts
        base: nn.Linear = self.get_base_layer()  # type: ignore[assignment]
        down = nn.Linear(base.in_features, len(parts) * r, bias=False)
        nn.init.kaiming_uniform_(down.weight, a=5**0.5)  # as peft initialises A
        self.lora_A[adapter_name] = down.to(base.weight)
        self.lora_B[adapter_name] = PartsUp(base.in_features, r, parts).to(base.weight)
        self.set_adapter(self.active_adapters)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the change of the fused weight, (3 D, D), for merging."""
        down: Tensor = self.lora_A[adapter].weight  # type: ignore[assignment]
        return self.lora_B[adapter](down.T).T * self.scaling[adapter]

    def _matrices(self, name: str) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        up: PartsUp = self.lora_B[name]  # type: ignore[assignment]
        starts = tuple("qkv".index(part) * up.weight.shape[1] for part in up.parts)
        return self.lora_A[name].weight, up.weight, starts  # type: ignore[return-value]


class _BeforeAndLora(torch.autograd.Function):
    """y = W h + b + scale * B A h with h = before(x); keeps x and A h, and never h."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        down: Tensor,
        up: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        before: nn.Module,
        starts: tuple[int, ...],
        scale: float,
        held: Tensor | None,
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        h = before(x).to(dtype)
        with torch.autocast(kind, enabled=False):
            full = full_weight(weight, held, dtype)
            y = functional.linear(h, full, None if bias is None else bias.to(dtype))
            low = functional.linear(h, down.to(dtype))  # (..., n r)
            flat, rows = low.flatten(0, -2), y.flatten(0, -2)
            pieces = zip(up.to(dtype), flat.chunk(len(up), 1), starts, strict=True)
            for part, piece, start in pieces:
                rows[:, start : start + len(part)].addmm_(piece, part.T, alpha=scale)
        ctx.save_for_backward(x, low, down, up, weight, held)
        ctx.before, ctx.starts, ctx.scale = before, starts, scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, low, down, up, weight, held = ctx.saved_tensors
        rows, flat = gradient.flatten(0, -2), low.flatten(0, -2)
        pieces = list(zip(up.to(rows.dtype), flat.chunk(len(up), 1), ctx.starts, strict=True))
        outputs = [rows[:, start : start + len(part)] for part, _, start in pieces]
        pairs = list(zip(outputs, pieces, strict=True))
        d_up = torch.stack([own.T @ piece for own, (_, piece, _) in pairs])
        d_low = torch.cat([own @ part for own, (part, _, _) in pairs], dim=1).mul_(ctx.scale)
        h, backward = _again(ctx.before, x)
        d_x, h = None, h.flatten(0, -2).to(rows.dtype)
        d_down = d_low.T @ h
        if ctx.needs_input_grad[0]:
            # h has served: its memory takes its own gradient, and the GELU's takes its place.
            full = full_weight(weight, held, rows.dtype)
            d_h = torch.mm(rows, full, out=h).addmm_(d_low, down.to(rows.dtype))
            d_x = backward(d_h.view(x.shape).to(x.dtype))
        d_up = d_up.mul_(ctx.scale).to(up.dtype)
        return d_x, d_down.to(down.dtype), d_up, None, None, None, None, None, None


def _again(before: nn.Module, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Compute what `before` gave, and how to turn its gradient, which is lost, into that of x."""
    if isinstance(before, nn.GELU):
        kind = before.approximate

        def through_gelu(d_h: Tensor) -> Tensor:
            return aten.gelu_backward(d_h, x, approximate=kind, grad_input=d_h)

        return functional.gelu(x, approximate=kind), through_gelu
    norm: Any = before
    values = (norm.normalized_shape, norm.weight, norm.bias)
    h, mean, deviation = torch.native_layer_norm(x, *values, norm.eps)

    def through_norm(d_h: Tensor) -> Tensor:
        shape, weight, bias = values
        mask = [True, False, False]
        gradients = aten.native_layer_norm_backward(
            d_h, x, shape, mean, deviation, weight, bias, mask
        )
        return gradients[0]

    return h, through_norm


@dataclass
class FusedLoraConfig(LoraConfig):
    """peft's `LoraConfig`, and which parts of a fused projection are adapted.

    Args:
        qkv_parts: Some of the letters q, k, v.
    """

    qkv_parts: str = field(default="qv", metadata={"help": "Some of the letters q, k, v."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = FUSED_LORA

        self._register_custom_module({FusedQKV: FusedLora, nn.Linear: LeanLora})


class FusedLoraModel(LoraModel):
    """peft's LoRA model; the layers are chosen by the config."""

    prefix = "lora_"


FUSED_LORA = register("fused_lora", FusedLoraConfig, FusedLoraModel, "lora_")


def lora_config(
    backbone: Backbone,
    preset: str = "paper",
    r: int = 16,
    alpha: int | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    last: int | None = None,
    dora: bool = False,
) -> FusedLoraConfig:
    """Describe LoRA on a backbone.

    Args:
        backbone: From `load_backbone`.
        preset: ``"paper"`` adapts queries, values and both feed-forward layers of every block, as
            arXiv 2504.17397; ``"q_v"`` only queries and values, which keeps a third less for the
            backward pass; ``"all_linear"`` also keys and the attention's output; ``"late"`` as the
            paper, but only in the last quarter of the blocks, so that no gradient flows below.
        r: Rank of each update: higher fits more and costs more; the paper uses 16.
        alpha: Scale, as a multiple of r it is the factor on the update; None means alpha = r.
        dropout: Share of inputs of the update to drop while training; above 0 costs memory.
        targets: Endings of the names of layers to adapt, in place of the preset's.
        last: Adapt only the last so many blocks; None means all, or what the preset says.
        dora: Learn the length of each weight row beside its direction (DoRA, arXiv 2402.09353).

    Returns:
        The config, for peft.

    Raises:
        ValueError: An option is out of range, or no layer has such a name.
    """
    check_name("preset of lora", preset, PRESETS)
    whole("r, the rank of LoRA,", r)
    if alpha is not None and alpha <= 0:
        raise GeopeftError(f"alpha scales the update and must be above 0, got {alpha!r}.")
    if not 0 <= dropout < 1:
        raise GeopeftError(f"dropout is a share from 0 to below 1, got {dropout!r}.")
    layers, parts = PRESETS[preset]
    if preset == "late" and last is None:
        last = max(1, len(block_names(backbone, "lora")) // 4)
    if targets is None:
        names = layer_names(backbone, "lora", layers, last)
    else:
        names = layer_names(backbone, "lora", targets, last, anywhere=True)
    return FusedLoraConfig(
        r=r, lora_alpha=r if alpha is None else alpha, lora_dropout=dropout, use_dora=dora,
        target_modules=names, bias="none", qkv_parts=parts,
    )  # fmt: skip
