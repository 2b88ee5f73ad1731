"""The catalogue of fine-tuning methods, and the one function that attaches them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from geopeft_nb.backbones.load import seeded
from geopeft_nb.errors import GeopeftError, check_name, did_you_mean, expect, whole
from geopeft_nb.models import SegmentationModel, part_of

if TYPE_CHECKING:
    from peft import PeftConfig


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
        config: The function that makes peft's config, or where it stands, ``"module:function"``;
            empty for methods that are not peft's.
        fixed: Arguments of that function that the method fixes.
        fields: Name of peft's config, all of whose fields are options.
        same_layers: Whether all adapters of one model must adapt the same layers, as peft needs it.
    """

    name: str
    title: str
    trains: str
    lr: float
    options: str
    merges: bool
    citation: str
    config: str | Callable[..., Any] = ""
    fixed: dict[str, Any] = field(default_factory=dict)
    fields: str = ""
    same_layers: bool = False


def _kin(kind: str, function: str = "kin_config", **fixed: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"config": f"lora:{function}", "fixed": {"kind": kind, **fixed}, "fields": kind}


_LAYERS = "target_modules=(q, v, fc1, fc2), last=None"
CARDS = {card.name: card for card in (
    MethodCard(
        "linear_probe", "Linear probe", "nothing: the backbone is frozen", 5e-3, "none", False, "-"
    ),
    MethodCard(
        "lora", "LoRA", "low-rank updates beside q, v, fc1 and fc2 of every block", 1e-3,
        "r=16, lora_alpha=r, lora_dropout=0, preset='paper' (or 'q_v', 'all_linear', 'late'), "
        "target_modules=None, last=None", True,
        "Hu et al., arXiv 2106.09685", "lora:lora_config", fields="LoraConfig",
    ),
    MethodCard(
        "dora", "DoRA", "LoRA, and the length of each adapted weight row", 1e-3, "as lora", True,
        "Liu et al., arXiv 2402.09353", "lora:lora_config", {"use_dora": True}, "LoraConfig",
    ),
    MethodCard(
        "vpt", "Visual prompt tuning", "prompt tokens before every block", 5e-3,
        "prompts=100, deep=True (False: only before the first block), dropout=0.1", False,
        "Jia et al., arXiv 2203.12119", "prompts:vpt_config",
    ),
    MethodCard(
        "adapter", "Bottleneck adapter",
        "two small layers beside the MLP (parallel), or after attention and MLP (serial)", 3e-3,
        "kind='parallel' (or 'serial'), width=64, scale=0.1 or 1, dropout=0", False,
        "Chen et al., arXiv 2205.13535; Houlsby et al., arXiv 1902.00751",
        "adapters:adapter_config",
    ),
    MethodCard(
        "vit_adapter", "ViT-Adapter",
        "a convolutional branch that exchanges features with the blocks four times", 1e-3,
        "stem=64 (channels of the first convolutions)", False, "Chen et al., arXiv 2205.08534",
    ),
    MethodCard(
        "ln_tuning", "Layer-norm tuning", "scale and shift of every layer norm", 5e-3, "last=None",
        True, "Zhao et al., arXiv 2312.11420", same_layers=True,
        **_kin("LNTuningConfig", target_modules=("norm1", "norm2")),
    ),
    MethodCard(
        "bitfit", "BitFit",
        "biases of the blocks and the final norm (all, of a convolutional network)", 5e-3, "none",
        True, "Ben Zaken et al., arXiv 2106.10199", "biases:bitfit_config",
    ),
    MethodCard(
        "ia3", "IA³", "one factor per feature of q, k, v and of fc2's input", 2e-2, "last=None",
        True, "Liu et al., arXiv 2205.05638", "lora:ia3_config",
    ),
    MethodCard(
        "vera", "VeRA", "two vectors per layer around shared random matrices", 2e-2,
        f"r=256, vera_dropout=0, {_LAYERS}", True, "Kopiczko et al., arXiv 2310.11454",
        same_layers=True, **_kin("VeraConfig", save_projection=False),
    ),
    MethodCard(
        "loha", "LoHa", "products of two low-rank updates", 3e-3, f"r=8, alpha=r, {_LAYERS}", True,
        "Hyeon-Woo et al., arXiv 2108.06098", **_kin("LoHaConfig", "product_config"),
    ),
    MethodCard(
        "lokr", "LoKr", "Kronecker products of small matrices", 3e-3, f"r=8, alpha=r, {_LAYERS}",
        True, "Yeh et al., arXiv 2309.14859", **_kin("LoKrConfig", "product_config"),
    ),
    MethodCard(
        "oft", "Orthogonal fine-tuning", "block-diagonal rotations of the layers' inputs", 1e-3,
        f"oft_block_size=32, {_LAYERS}", True, "Qiu et al., arXiv 2306.07280", **_kin("OFTConfig"),
    ),
    MethodCard(
        "full", "Full fine-tuning", "every weight of the backbone", 2e-4, "none", False, "-"
    ),
    MethodCard(
        "peft", "A method of peft", "what its config says", 1e-3,
        "a config of peft in place of the name: attach(model, peft.BOFTConfig(...))", True, "peft",
        "lora",
    ),
)}  # fmt: skip

#: Options that are whole numbers.
WHOLE = ("r", "last", "prompts", "width", "stem", "oft_block_size")


def attach(
    model: SegmentationModel,
    method: str | PeftConfig,
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
        method: A name that `gp.list_methods()` lists; or any config of peft, such as
            ``LoraConfig(r=8, target_modules=["q", "v"])``, whose names of layers must exist.
        name: Name of the adapter.
        seed: Seed of the random weights that the method adds.
        **options: Options of the method, see `gp.list_methods()`, in the words of peft.

    Returns:
        The same model. The decoder is always trained.

    Raises:
        ValueError: Unknown method, option or layer, a backbone that the method cannot take, or
            another method is attached already.
    """
    expect(model, "method_options", "the model that build_model returned")
    card = _card(method)
    _check_free(model, card, name)
    plain, make = model.plain_backbone, _maker(card)
    if isinstance(method, str):
        _check_options(card, make, options)
    elif options:
        raise GeopeftError(f"A config says all options itself; got {', '.join(options)} besides.")
    with seeded(seed):
        made = make(plain, **card.fixed | options) if isinstance(method, str) else method
        options = options if isinstance(method, str) else _told(method)
        if card.config:
            _attach_peft(model, card, made, name, seed, options)
        else:
            model.backbone = made
    if card.name == "vit_adapter":
        model.decoder = model.new_decoder(seed)  # for maps of other widths and strides
    model.method, model.method_options = card.name, options
    plain.attached = card.name
    return model.train(model.training)  # also what is new


def _card(method: Any) -> MethodCard:  # noqa: ANN401 - a name, or a config of peft
    """Return the card of a name, or of the method that a config of peft is of."""
    if isinstance(method, str):
        check_name("method", method, [name for name in CARDS if name != "peft"])
        return CARDS[method]
    expect(method, "peft_type", "the name of a method or a config of peft")
    if method.is_prompt_learning:
        raise GeopeftError(
            f"{type(method).__name__} needs a language model. For images take attach(model, 'vpt')."
        )
    kind = "dora" if getattr(method, "use_dora", False) else str(method.peft_type.value).lower()
    own = {"visual_prompts": "vpt", "bottleneck_adapter": "adapter"}
    return CARDS.get(own.get(kind, kind), CARDS["peft"])


def _maker(card: MethodCard) -> Callable[..., Any]:
    """Return the function that makes peft's config, or the new backbone, of a method."""
    if callable(card.config):
        return card.config
    if card.config:
        module, function = card.config.split(":")
        return getattr(import_module(f"geopeft_nb.tuning.{module}"), function)  # peft on demand
    if card.name == "vit_adapter":
        return import_module("geopeft_nb.tuning.vit_adapter").VitAdapter
    return lambda backbone: backbone.requires_grad_(card.name == "full")


def _check_options(card: MethodCard, make: Callable[..., Any], options: dict[str, Any]) -> None:
    """Refuse options that the method does not take, or a value that cannot be."""
    parameters = inspect.signature(make).parameters.values()
    known = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"backbone", "vit"}
    if card.fields:
        import peft

        known |= {entry.name for entry in fields(getattr(peft, card.fields))}
    known -= set(card.fixed)
    for name, value in options.items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise GeopeftError(
                f"Unknown option of {card.name} {name!r}.{hint} Options: {card.options}."
            )
        if name in WHOLE and value is not None:
            whole(name, value)
        if name.endswith("dropout") and not 0 <= value < 1:
            raise GeopeftError(f"{name} is a share from 0 to below 1, got {value!r}.")
        if name in ("alpha", "lora_alpha", "scale") and value is not None and not value > 0:
            raise GeopeftError(f"{name} is a factor and must be above 0, got {value!r}.")


def read_config(folder: Path, method: str) -> PeftConfig:
    """Read the config of a saved adapter, for `attach`."""
    from peft import PeftConfig

    _maker(CARDS[method])  # whose module makes our own configs known to peft
    with warnings.catch_warnings():  # VeRA's config warns about what was chosen when attaching
        warnings.filterwarnings("ignore", "Specified to not save vera_A", UserWarning)
        config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = False
    return config


def _told(config: PeftConfig) -> dict[str, Any]:
    """Return the fields of a config that differ from their defaults, as JSON can hold them."""
    default = {entry.name: entry.default for entry in fields(config)}
    return {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in config.to_dict().items()
        if value and value != default.get(key) and key not in ("peft_type", "peft_version")
    }


def _check_free(model: SegmentationModel, card: MethodCard, name: str) -> None:
    """Refuse a name that no adapter can have, and what is attached already."""
    if not name.isidentifier():
        raise GeopeftError(
            f"The name of an adapter is one word of letters and digits, got {name!r}."
        )
    if any(hasattr(container(), name) for container in (nn.ModuleDict, nn.ParameterDict)):
        raise GeopeftError(f"torch keeps the name {name!r} for itself. Try {name + '_1'!r}.")
    if model.method is None:
        if attached := getattr(model.backbone, "attached", None):
            raise GeopeftError(
                f"This backbone already serves a model with {attached}. Load a fresh one with "
                "load_backbone for each model."
            )
        return
    if model.method != card.name or not card.config:
        again = model.method in CARDS and CARDS[model.method].config
        also = " or attach it again under another name=" if again else ""
        raise GeopeftError(
            f"{model.method!r} is attached already. Build a new model to attach {card.name!r}"
            f"{also}."
        )
    if name in model.adapters:
        names = ", ".join(repr(known) for known in model.adapters)
        raise GeopeftError(
            f"{card.name!r} is attached already under the name {name!r} (names in use: {names}). "
            "Choose another with attach(..., name=...), or switch with model.use_adapter(name)."
        )


def _attach_peft(
    model: SegmentationModel, card: MethodCard, config: PeftConfig, name: str, seed: int,
    options: dict[str, Any],
) -> None:  # fmt: skip
    """Wrap the backbone by peft, or add a named adapter to the one that is wrapped already."""
    from peft import get_peft_model

    from geopeft_nb.tuning.target_modules import check_same_layers, check_targets

    layers = check_targets(model.plain_backbone, config)
    first = not model.adapters
    if card.same_layers and not first:
        check_same_layers(model, config, layers)
    model.options[name] = options
    with warnings.catch_warnings():  # peft's layer-norm tuning warns that it adapts a layer norm
        warnings.filterwarnings("ignore", "Unsupported layer type .*LayerNorm", UserWarning)
        if first:
            model.backbone = get_peft_model(model.backbone, config, adapter_name=name)
            model.adapter = name
            return
        model.backbone.add_adapter(name, config)
    model.shelf[name] = model.new_decoder(seed)
    model.use_adapter(name)


def list_methods(full: bool = False) -> pd.DataFrame:
    """List the methods that `attach` knows, one row each.

    Args:
        full: Show all columns, not only those that help to choose.
    """
    rows = [vars(card) for card in CARDS.values() if card.name != "peft"]
    table = pd.DataFrame(rows).set_index("name")
    return table if full else table[["title", "trains", "lr", "options", "merges", "citation"]]


def parameter_table(model: SegmentationModel) -> pd.DataFrame:
    """Count trainable and frozen weights per part.

    Args:
        model: With or without a method attached.

    Returns:
        Rows backbone, adapter (if there is one), decoder and total; columns trainable, frozen and
        the trainable share of the row in percent.
    """
    table = pd.DataFrame(0, ["backbone", "adapter", "decoder"], ["trainable", "frozen"])
    for name, parameter in model.named_parameters():
        moves = "trainable" if parameter.requires_grad else "frozen"
        table.loc[part_of(name), moves] += parameter.numel()
    table = table[table.any(axis=1)]
    table.loc["total"] = table.sum()
    table["trainable %"] = (100 * table["trainable"] / table.sum(axis=1)).round(2)
    return table.rename_axis("part")
