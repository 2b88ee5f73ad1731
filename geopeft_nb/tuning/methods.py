"""The catalogue of fine-tuning methods, and the one function that attaches them."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib import import_module
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.backbones.load import seeded
from geopeft_nb.errors import GeopeftError, check_arguments, check_name, check_values, unknown_name
from geopeft_nb.models import OWN, SegmentationModel, part_of
from geopeft_nb.pictures.listing import Listing

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
        merges: Whether `merge` can fold it into the backbone's weights.
        citation: Paper.
        make: Makes peft's config for a backbone or, of a method that is not peft's, the new
            backbone: a function, or where one stands, ``"module:function"``. Its arguments are
            options of `attach`.
        fixed: Arguments of that function that the method fixes.
        peft_class: Name of peft's config, all of whose fields are options.
        remember: Returns what to remember of the options that the attached method was given.
    """

    name: str
    title: str
    trains: str
    lr: float
    merges: bool
    citation: str
    make: str | Callable[..., Any]
    fixed: dict[str, Any] = field(default_factory=dict)
    peft_class: str = ""
    remember: Callable[[dict[str, Any], Backbone], dict[str, Any]] = lambda options, _: options


def _kin(name: str, **fixed: Any) -> dict[str, Any]:
    return {"make": "lora:kin_config", "fixed": {"peft_class": name, **fixed}, "peft_class": name}


CARDS = {card.name: card for card in (
    MethodCard(
        "linear_probe", "Linear probe", "nothing: the backbone is frozen", 5e-3, False, "-",
        lambda backbone: backbone.requires_grad_(False),
    ),
    MethodCard(
        "lora", "LoRA", "low-rank updates beside q, v, fc1 and fc2 of every block", 1e-3,
        True, "Hu et al., arXiv 2106.09685", "lora:lora_config", peft_class="LoraConfig",
    ),
    MethodCard(
        "shallow", "Shallow backbone with LoRA",
        "as lora, in the first blocks; those behind, which change the features little, are dropped",
        5e-3, True, "after Barreiro et al., arXiv 2603.19873", "lora:shallow_config",
        remember=lambda options, backbone: {  # what was found, not by what
            k: v for k, v in options.items() if k not in ("chips", "similarity")
        } | {"depth": backbone.layers[-1] + 1},
    ),
    MethodCard(
        "dora", "DoRA", "LoRA, and the length of each adapted weight row", 1e-3, True,
        "Liu et al., arXiv 2402.09353", "lora:lora_config", {"use_dora": True}, "LoraConfig",
    ),
    MethodCard(
        "vpt", "Visual prompt tuning", "prompt tokens before every block", 5e-3, False,
        "Jia et al., arXiv 2203.12119", "own_methods:vpt_config",
    ),
    MethodCard(
        "adapter", "Bottleneck adapter",
        "two small layers beside the MLP (parallel), or after attention and MLP (serial)", 3e-3,
        False, "Chen et al., arXiv 2205.13535; Houlsby et al., arXiv 1902.00751",
        "own_methods:adapter_config",
    ),
    MethodCard(
        "vit_adapter", "ViT-Adapter",
        "a convolutional branch that exchanges features with the blocks four times", 1e-3,
        False, "Chen et al., arXiv 2205.08534", "beside:VitAdapter",
    ),
    MethodCard(
        "side", "Ladder side-tuning",
        "a small network beside the blocks, through which alone gradients flow", 5e-3,
        False, "Sung et al., arXiv 2206.06522", "beside:Side",
    ),
    MethodCard(
        "ln_tuning", "Layer-norm tuning", "scale and shift of every layer norm", 5e-3, True,
        "Zhao et al., arXiv 2312.11420",
        **_kin("LNTuningConfig", target_modules=("norm1", "norm2")),
    ),
    MethodCard(
        "bitfit", "BitFit",
        "biases of the blocks and the final norm (all, of a convolutional network)", 5e-3, True,
        "Ben Zaken et al., arXiv 2106.10199", "own_methods:bitfit_config",
    ),
    MethodCard(
        "ia3", "IA³", "one factor per feature of q, k, v and of fc2's input", 2e-2, True,
        "Liu et al., arXiv 2205.05638",
        **_kin("IA3Config", target_modules=("q", "k", "v", "fc2"), feedforward_modules=r".*\.fc2"),
    ),
    MethodCard(
        "vera", "VeRA", "two vectors per layer around shared random matrices", 2e-2,
        True, "Kopiczko et al., arXiv 2310.11454",
        **_kin("VeraConfig", save_projection=False),
    ),
    MethodCard(
        "loha", "LoHa", "products of two low-rank updates", 3e-3, True,
        "Hyeon-Woo et al., arXiv 2108.06098", **_kin("LoHaConfig"),
    ),
    MethodCard(
        "lokr", "LoKr", "Kronecker products of small matrices", 3e-3, True,
        "Yeh et al., arXiv 2309.14859", **_kin("LoKrConfig"),
    ),
    MethodCard(
        "oft", "Orthogonal fine-tuning", "block-diagonal rotations of the layers' inputs", 1e-3,
        True, "Qiu et al., arXiv 2306.07280", **_kin("OFTConfig"),
    ),
    MethodCard(
        "full", "Full fine-tuning", "every weight of the backbone", 2e-4, False, "-",
        lambda backbone: backbone.requires_grad_(True),
    ),
    MethodCard(
        "peft", "A method of peft", "what its config says", 1e-3, True, "peft", "lora:kin_config",
    ),
)}  # fmt: skip

#: Arguments of a card's `make` that `attach` and the card give.
_GIVEN = ("backbone", "vit", "options")
#: Options that peft annotates as dictionaries only, or as whole numbers though it takes any.
LOOSE = {
    "rank_pattern": "Mapping[str, int] | None", "alpha_pattern": "Mapping[str, float] | None",
    "alpha": "float | None", "lora_alpha": "float | None",
}  # fmt: skip


def names() -> list[str]:
    """Return the methods that `attach` takes by name, your own too; others it takes as a config."""
    return [name for name in CARDS if name != "peft"]


@check_arguments
def attach(
    model: SegmentationModel, method: str | PeftConfig, *, name: str = "default", seed: int = 0,
    **options: Any,
) -> SegmentationModel:  # fmt: skip
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
    if isinstance(method, str):
        check_name("method", method, names())
    card = CARDS[method] if isinstance(method, str) else card_of(method)
    backbone = model.plain_backbone
    if backbone.attached or name != "default":
        _check_further(model, card, name)
    with seeded(seed), quiet_peft():
        if isinstance(method, str):
            kinds = option_kinds(card)
            known = kinds.keys() - {*_GIVEN, *card.fixed} | {"name", "seed"}
            if odd := [option for option in options if option not in known]:
                raise unknown_name(f"option of {method}", odd[0], known, options_in_words(card))
            check_values(options, kinds | LOOSE)  # what peft and torch would let through
            made = maker(card)(backbone, **card.fixed | options)
        else:
            made, options = method, _told(backbone, method, options)
        if getattr(made, "layers_to_transform", None) is not None and hasattr(backbone, "blocks"):
            raise GeopeftError(  # peft looks for what holds the blocks within something else
                f"layers_to_transform={made.layers_to_transform!r} finds no block. Say last=2, "
                "or name layers of each block: target_modules=['4.attn.q', '5.attn.q']."
            )
        if isinstance(made, nn.Module):  # not peft's: the new backbone itself
            model.backbone = made
            if made.channels != backbone.channels or made.strides != backbone.strides:
                model.decoder = model.new_decoder(seed)
        elif model.adapters:
            model.backbone.add_adapter(name, made)
            fresh = {"decoder": model.new_decoder(seed), "trained": None}
            model.shelf[name] = {part: getattr(model, part) for part in OWN} | fresh
            model.use_adapter(name)
        else:
            from peft import get_peft_model

            # peft freezes all weights of the backbone but those that it adds
            model.backbone, model.adapter = get_peft_model(model.backbone, made, name), name
    model.method = backbone.attached = card.name
    model.method_options = card.remember(options, backbone)
    return model.train(model.training)  # also what is new


def _check_further(model: SegmentationModel, card: MethodCard, name: str) -> None:
    """Refuse a name that no adapter can have or one has, and a second method on a backbone."""
    if not name.isidentifier() or hasattr(nn.ParameterDict(), name):
        allowed = "one word which torch does not keep for itself"
        raise GeopeftError(f"The name of an adapter is {allowed}, got {name!r}.")
    attached, adapters = model.plain_backbone.attached, model.adapters
    # one that is not peft's can be attached only once: its model has no adapters
    if attached and (model.method != card.name or name in (adapters or [name])):
        raise GeopeftError(
            f"{attached!r} is attached already, with adapters {adapters}. Load a fresh backbone "
            "for each model; or, of a method of peft, attach(..., name=...), or load under another "
            "name=."
        )


def card_of(config: Any) -> MethodCard:
    """Return the card of what a config of peft describes."""
    if config.is_prompt_learning:
        raise GeopeftError(
            f"{type(config).__name__} needs a language model. For images take attach(model, 'vpt')."
        )
    kind = "dora" if getattr(config, "use_dora", False) else config.peft_type.lower()
    own = {"visual_prompts": "vpt", "bottleneck_adapter": "adapter"}
    return CARDS.get(own.get(kind, kind), CARDS["peft"])


def maker(card: MethodCard) -> Callable[..., Any]:
    """Return a card's `make`, imported if it is named by where it stands."""
    # peft on demand
    return card.make if callable(card.make) else resolve_name(f"geopeft_nb.tuning.{card.make}")


def option_kinds(card: MethodCard) -> dict[str, Any]:
    """Return the annotations of what a method's function and config take: option -> annotation."""
    own = inspect.signature(maker(card)).parameters
    kinds = {name: parameter.annotation for name, parameter in own.items()}
    if card.peft_class:
        config = getattr(import_module("peft"), card.peft_class)
        kinds = {entry.name: entry.type for entry in fields(config)} | kinds
    return kinds


def options_in_words(card: MethodCard) -> str:
    """List the options of a method with their defaults."""
    own, hidden = inspect.signature(maker(card)).parameters.values(), {*_GIVEN, *card.fixed}
    told = [str(one.replace(annotation=one.empty)) for one in own if one.name not in hidden]
    more = [f"any field of peft's {card.peft_class}"] * bool(card.peft_class)
    return ", ".join(told + more) or "none"


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep what peft warns of from the learner where it was chosen here."""
    with warnings.catch_warnings():
        for said in ("Specified to not .* vera_A", "Unsupported layer type .*LayerNorm"):
            warnings.filterwarnings("ignore", said, UserWarning)
        yield


def _told(backbone: Backbone, config: PeftConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Return what a config says beyond its defaults, as JSON can hold it, once it is checked."""
    if options:
        raise GeopeftError(f"A config says all options itself; got {', '.join(options)} besides.")
    wanted = getattr(config, "target_modules", None)
    if isinstance(wanted, set | list):  # a string is a regular expression
        from geopeft_nb.tuning.lora import find_layers  # with peft

        find_layers(backbone, sorted(wanted))
    check_patterns(config.to_dict().values())
    usual = type(config)().to_dict()
    told = {key: value for key, value in config.to_dict().items() if value != usual[key]}
    check_values(told, {entry.name: entry.type for entry in fields(config)} | LOOSE)
    return {k: sorted(v) if isinstance(v, set) else v for k, v in told.items() if v}


def check_patterns(values: Iterable[Any]) -> None:
    """Refuse regular expressions of names that might run for ever: peft takes them from files.

    Raises:
        GeopeftError: There are too many, or one repeats a group or has more than three of *+?{(.
    """
    lists = [[value] if isinstance(value, str) else value for value in values]
    texts = [t for some in lists if isinstance(some, list | set | dict) for t in some]
    texts = [text for text in texts if isinstance(text, str)]
    slow = [t for t in texts if re.search(r"\)[*+?{]", t) or len(re.findall(r"[*+?{(]", t)) > 3]
    if slow or len(texts) > 5_000:
        raise GeopeftError(f"Names of layers must be plain or short expressions: {slow!s:.200}.")


def list_methods() -> pd.DataFrame:
    """List the methods that `attach` knows, one row each."""
    rows = [vars(CARDS[name]) | {"options": options_in_words(CARDS[name])} for name in names()]
    shown = ["title", "trains", "lr", "options", "merges", "citation"]
    return Listing(pd.DataFrame(rows).set_index("name")[shown])


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
