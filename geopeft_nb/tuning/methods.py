"""The catalogue of fine-tuning methods, and the one function that attaches them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pandas as pd
from torch import nn

from geopeft_nb.backbones.load import seeded
from geopeft_nb.errors import GeopeftError, check_name, expect
from geopeft_nb.models import SegmentationModel, part_of

#: Methods that only choose which of the model's own weights are trained.
PLAIN = {"linear_probe": False, "full": True}


@dataclass(frozen=True)
class MethodCard:
    """Facts about a method.

    Attributes:
        name: What `attach` takes.
        title: Full name.
        trains: What is trained besides the decoder, and where.
        lr: Learning rate that `fit` takes unless told otherwise, for backbone and decoder alike.
            Between a few values the best on validation chips of the shipped scenes; not searched
            for each model and data set, as in arXiv 2504.17397.
        options: Options of `attach` with their defaults, in words.
        merges: Whether `merge` can fold it into the backbone's weights.
        citation: Paper.
        config: Where the function stands that makes peft's config, ``"module:function"``; empty for
            methods that are not peft's.
        shared: Options in which all adapters of one model must agree, as peft needs it.
    """

    name: str
    title: str
    trains: str
    lr: float
    options: str
    merges: bool
    citation: str
    config: str = ""
    shared: tuple[str, ...] = ()


CARDS = {
    card.name: card
    for card in [
        MethodCard(
            "linear_probe", "Linear probe", "nothing: the backbone is frozen", 5e-3, "none",
            False, "-",
        ),
        MethodCard(
            "lora", "LoRA", "low-rank updates beside q, v, fc1 and fc2 of every block", 1e-3,
            "r=16, alpha=r, dropout=0, preset='paper' (or 'q_v', 'all_linear', 'late'), "
            "targets=None, last=None, dora=False",
            True, "Hu et al., arXiv 2106.09685", "lora:lora_config",
        ),
        MethodCard(
            "dora", "DoRA", "LoRA, and the length of each adapted weight row", 1e-3,
            "as lora", True, "Liu et al., arXiv 2402.09353", "peft_methods:dora_config",
        ),
        MethodCard(
            "vpt", "Visual prompt tuning", "prompt tokens before every block", 5e-3,
            "prompts=100, deep=True (False: only before the first block), dropout=0.1",
            False, "Jia et al., arXiv 2203.12119", "prompts:vpt_config",
        ),
        MethodCard(
            "adapter", "Bottleneck adapter",
            "two small layers beside the MLP (parallel), or after attention and MLP (serial)",
            3e-3, "kind='parallel' (or 'serial'), width=64, scale=0.1 or 1, dropout=0",
            False, "Chen et al., arXiv 2205.13535; Houlsby et al., arXiv 1902.00751",
            "adapters:adapter_config",
        ),
        MethodCard(
            "vit_adapter", "ViT-Adapter",
            "a convolutional branch that exchanges features with the blocks four times", 1e-3,
            "stem=64 (channels of the first convolutions)", False, "Chen et al., arXiv 2205.08534",
        ),
        MethodCard(
            "ln_tuning", "Layer-norm tuning", "scale and shift of every layer norm", 5e-3,
            "last=None", True, "Zhao et al., arXiv 2312.11420", "peft_methods:ln_tuning_config",
            shared=("last",),
        ),
        MethodCard(
            "bitfit", "BitFit",
            "biases of the blocks and the final norm (all, of a convolutional network)", 5e-3,
            "none", True, "Ben Zaken et al., arXiv 2106.10199", "biases:bitfit_config",
        ),
        MethodCard(
            "ia3", "IA³", "one factor per feature of q, k, v and of fc2's input", 2e-2,
            "last=None", True, "Liu et al., arXiv 2205.05638", "peft_methods:ia3_config",
        ),
        MethodCard(
            "vera", "VeRA", "two vectors per layer around shared random matrices", 2e-2,
            "r=256, dropout=0, targets=(attn.qkv, mlp.fc1, mlp.fc2), last=None", True,
            "Kopiczko et al., arXiv 2310.11454", "peft_methods:vera_config",
            shared=("r", "targets"),
        ),
        MethodCard(
            "loha", "LoHa", "products of two low-rank updates", 3e-3,
            "r=8, alpha=r, targets=(attn.qkv, mlp.fc1, mlp.fc2), last=None", True,
            "Hyeon-Woo et al., arXiv 2108.06098", "peft_methods:loha_config",
        ),
        MethodCard(
            "lokr", "LoKr", "Kronecker products of small matrices", 3e-3,
            "r=8, alpha=r, targets=(attn.qkv, mlp.fc1, mlp.fc2), last=None", True,
            "Yeh et al., arXiv 2309.14859", "peft_methods:lokr_config",
        ),
        MethodCard(
            "oft", "Orthogonal fine-tuning", "block-diagonal rotations of the layers' inputs", 1e-3,
            "block_size=32, targets=(attn.qkv, mlp.fc1, mlp.fc2), last=None", True,
            "Qiu et al., arXiv 2306.07280", "peft_methods:oft_config",
        ),
        MethodCard(
            "full", "Full fine-tuning", "every weight of the backbone", 2e-4, "none", False, "-"
        ),
    ]
}  # fmt: skip


def attach(
    model: SegmentationModel,
    method: str,
    *,
    name: str = "default",
    seed: int = 0,
    **options: Any,  # noqa: ANN401 - each method has its own
) -> SegmentationModel:
    """Choose what is trained, in place.

    A model can carry several adapters of one method, for several regions or tasks: attach the same
    method again under another name. It gets a decoder of its own and becomes the active one;
    `model.use_adapter(name)` switches.

    Args:
        model: From `build_model`.
        method: A name that `gp.list_methods()` lists.
        name: Name of the adapter.
        seed: Seed of the random weights that the method adds.
        **options: Options of the method, see `gp.list_methods()`.

    Returns:
        The same model. The decoder is always trained.

    Raises:
        ValueError: Unknown method or option, a backbone that the method cannot take, or another
            method is attached already.
    """
    expect(model, "method_options", "the model that build_model returned")
    check_name("method", method, CARDS)
    card = CARDS[method]
    _check_free(model, card, name)
    if not name.isidentifier():
        raise GeopeftError(
            f"The name of an adapter is one word of letters and digits, got {name!r}."
        )
    if any(hasattr(container(), name) for container in (nn.ModuleDict, nn.ParameterDict)):
        raise GeopeftError(f"torch keeps the name {name!r} for itself. Try {name + '_1'!r}.")
    make = _maker(card)
    plain = model.plain_backbone
    for option in options:
        check_name(f"option of {method}", option, [*inspect.signature(make).parameters][1:])
    _check_shared(model, card, make, options)
    with seeded(seed):
        made = make(plain, **options)
        if card.config:
            model.options[name] = dict(options)
            _attach_peft(model, made, name, seed)
        else:
            model.backbone = made
    if method == "vit_adapter":
        model.decoder = model.new_decoder(seed)  # for maps of other widths and strides
    model.method, model.method_options = method, dict(options)
    plain.attached = method
    return model.train(model.training)  # also what is new


def _maker(card: MethodCard) -> Callable[..., Any]:
    """Return the function that makes peft's config, or the new backbone, of a method."""
    if card.config:
        module, function = card.config.split(":")
        return getattr(import_module(f"geopeft_nb.tuning.{module}"), function)  # peft on demand
    if card.name == "vit_adapter":
        return import_module("geopeft_nb.tuning.vit_adapter").VitAdapter

    def choose(backbone: Any) -> Any:  # noqa: ANN401
        return backbone.requires_grad_(PLAIN[card.name])

    return choose


def _check_free(model: SegmentationModel, card: MethodCard, name: str) -> None:
    """Refuse a second method, or a second adapter of the same name."""
    if model.method is None:
        if attached := getattr(model.backbone, "attached", None):
            raise GeopeftError(
                f"This backbone already serves a model with {attached}. Load a fresh one with "
                "load_backbone for each model."
            )
        return
    if model.method not in CARDS:
        raise GeopeftError(
            f"This is a {model.method} model. Build a new one to attach {card.name!r}."
        )
    names = ", ".join(repr(known) for known in model.adapters) or "none"
    if model.method != card.name or not card.config:
        also = " or attach it again under another name=" if CARDS[model.method].config else ""
        raise GeopeftError(
            f"{model.method!r} is attached already. Build a new model to attach {card.name!r}"
            f"{also}."
        )
    if name in model.adapters:
        raise GeopeftError(
            f"{card.name!r} is attached already under the name {name!r} (names in use: {names}). "
            "Choose another with attach(..., name=...), or switch with model.use_adapter(name)."
        )


def _check_shared(
    model: SegmentationModel, card: MethodCard, make: Callable[..., Any], options: dict[str, Any]
) -> None:
    """Refuse a further adapter that differs from the first where it may not."""
    if not model.adapters:
        return
    known = inspect.signature(make).parameters
    first: dict[str, Any] = model.options[model.adapters[0]]
    for option in card.shared:
        one, other = (given.get(option, known[option].default) for given in (first, options))
        if one != other and not (option == "targets" and set(one) == set(other)):
            raise GeopeftError(
                f"All {card.name} adapters of one model have the same {option}, which is {one!r}; "
                f"got {other!r}. Take that, or build a new model."
            )


def _attach_peft(model: SegmentationModel, config: Any, name: str, seed: int) -> None:  # noqa: ANN401
    """Wrap the backbone by peft, or add a named adapter to the one that is wrapped already."""
    from peft import get_peft_model

    first = not model.adapters
    with warnings.catch_warnings():  # peft's layer-norm tuning warns that it adapts a layer norm
        warnings.filterwarnings("ignore", "Unsupported layer type .*LayerNorm", UserWarning)
        if first:
            model.backbone = get_peft_model(model.backbone, config, adapter_name=name)
        else:
            model.backbone.add_adapter(name, config)
    if first:
        model.adapter = name
        return
    model.shelf[name] = model.new_decoder(seed)
    model.use_adapter(name)


def list_methods(full: bool = False) -> pd.DataFrame:
    """List the methods that `attach` knows, one row each.

    Args:
        full: Show all columns, not only those that help to choose.
    """
    table = pd.DataFrame([vars(card) for card in CARDS.values()]).set_index("name")
    return table if full else table[["title", "trains", "lr", "options", "merges", "citation"]]


def parameter_table(model: SegmentationModel) -> pd.DataFrame:
    """Count trainable and frozen weights per part.

    Args:
        model: With or without a method attached.

    Returns:
        Rows backbone, adapter (if there is one), decoder and total; columns trainable, frozen and
        the trainable share of the row in percent.
    """
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        row = counts.setdefault(part_of(name), [0, 0])
        row[0 if parameter.requires_grad else 1] += parameter.numel()
    order = [part for part in ("backbone", "adapter", "decoder") if part in counts]
    table = pd.DataFrame([counts[part] for part in order], order, ["trainable", "frozen"])
    table.loc["total"] = table.sum()
    table["trainable %"] = (100 * table["trainable"] / table.sum(axis=1)).round(2)
    return table.rename_axis("part")
