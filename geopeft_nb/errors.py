"""Messages that help: what was given, what is allowed, and the right word for a near miss."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import os
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from functools import partial
from numbers import Real
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: Words of other libraries -> ours, where the spelling does not lead there.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "accumulate_grad_batches": ("accumulate",), "alpha": ("lora_alpha",), "bs": ("batch_size",),
    "dropout": ("lora_dropout", "vera_dropout"), "gpu": ("cuda",),
    "gradient_checkpointing": ("checkpoint",), "head": ("decoder",),
    "accelerator": ("device",), "ckpt_path": ("resume",),
    "learning_rate": ("lr",), "lora_alpha": ("alpha",),
    "lora_dropout": ("dropout",), "max_epochs": ("epochs",), "num_epochs": ("epochs",),
    "num_frames": ("frames",), "pretrained": ("weights",), "rank": ("r",),
    "block_size": ("oft_block_size",), "targets": ("target_modules",),
    "train_batch_size": ("batch_size",), "weight": ("weights",),
}  # fmt: skip


class GeopeftError(ValueError):
    """What we refuse: the message says what was given, what is allowed and what to do."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Ask whether another word was meant: ours for another library's, or for a typo; else ``""``.

    Args:
        name: What was given.
        known: All names that would have worked.
    """
    names = {other.lower(): other for other in known}
    word = str(name).lower()
    # Of three letters one other makes another word: "cpu" is not what "tpu" meant.
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6 if len(word) > 3 else 0.7)
    meant = [other for other in (*SYNONYMS.get(word, ()), *near) if other in names]
    return f" Did you mean {names[meant[0]]!r}?" if meant else ""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> GeopeftError:
    """Make the error for a name that is not in a catalogue.

    Args:
        kind: What the name should have named, for example ``"backbone"``.
        name: What was given.
        known: All names that would have worked.

    Returns:
        An error to raise, which suggests the nearest known name and lists all of them.

    Example:
        >>> unknown_name("method", "lorra", ["full", "lora"])
        GeopeftError("Unknown method 'lorra'. Did you mean 'lora'? Known: full, lora.")
    """
    names = sorted(known)
    hint = did_you_mean(name, names)
    return GeopeftError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}.")


def check_name(kind: str, name: object, known: Collection[str]) -> None:
    """Refuse a name that is not in a catalogue; arguments as in `unknown_name`."""
    if name not in known:
        raise unknown_name(kind, name, known)


def whole(name: str, value: object, at_least: int = 1, at_most: int = 1_000_000) -> int:
    """Return a whole number within bounds that depend on other arguments.

    Args:
        name: Of the argument, for the message.
        value: What was given; True and False are no numbers.
        at_least: The smallest that is allowed.
        at_most: The largest.

    Raises:
        GeopeftError: It is no whole number, or out of bounds.
    """
    if type(value) is int and at_least <= value <= at_most:
        return value
    raise GeopeftError(
        f"{name} must be a whole number from {at_least:,} to {at_most:,}, got {_shown(value)}."
    )


#: Argument, or the last word of its name -> its smallest and largest number.
BOUNDS: dict[str, tuple[float, float]] = {
    "alpha": (1e-6, 40_960_000), "alpha_pattern": (1e-6, 40_960_000), "channels": (1, 2_048),
    "classes": (-(2**31), 2**32), "convs": (1, 10), "decay": (0, 1_000), "dropout": (0, 0.999),
    "factor": (-1, 4_096), "gsd": (0.001, 1_000_000), "kernel": (1, 128), "key": (0, 2**32 - 1),
    "layers": (-4_096, 4_095), "lr": (1e-12, 0.999), "nodata": (-math.inf, math.inf),
    "oft_block_size": (0, 4_096), "overlap": (0, 4_096), "prompts": (1, 4_096), "r": (1, 4_096),
    "rank_pattern": (1, 4_096), "resolution": (0.001, 1_000_000), "scale": (1e-9, 1_000_000_000),
    "seed": (0, 2**32 - 1), "shift": (0, 1), "size": (1, 16_384), "stem": (1, 512),
    "temperature": (1e-6, 1e6), "unlabelled": (-(2**31), 2**32), "wavelengths": (0.1, 100),
    "width": (1, 4_096),
}  # fmt: skip


def _bounds(name: str, whole: bool) -> tuple[float, float]:
    usual = (1, 1_000_000) if whole else (-1e30, 1e30)
    return BOUNDS.get(name) or BOUNDS.get(name.rpartition("_")[2], usual)


def _is_number(name: str, value: Any, whole: bool = False) -> bool:  # noqa: ANN401
    low, high = _bounds(name, whole)
    number = type(value) is int or (isinstance(value, Real) and not whole and value is not True)
    return number and (low <= value <= high or high == math.inf)  # the latter has NaN, too


def _is_path(value: Any) -> bool:  # noqa: ANN401
    try:
        raw = b"\0" if isinstance(value, bytes) else os.fsencode(value)
    except (TypeError, UnicodeError):
        return False
    # So long are names in a folder, and paths, at most.
    return len(raw) <= 4_096 and bool(re.fullmatch(rb"[^/\0]{,255}(/[^/\0]{,255})*", raw))


def _are(name: str, values: Any, *kinds: str) -> bool:  # noqa: ANN401
    listed = isinstance(values, Collection) and not isinstance(values, str | bytes | Mapping | Set)
    return listed and all(_fits(name, value, kinds[0]) for value in values)


def _has(attribute: str) -> Callable[..., bool]:
    return lambda _, value: hasattr(value, attribute)


#: Word of an annotation -> what such values are called, and whether one is such.
KINDS: dict[str, tuple[str, Callable[..., bool]]] = {
    "None": ("None", lambda _, value: value is None),
    "bool": ("True or False", lambda _, value: isinstance(value, bool)),
    "int": ("whole numbers", partial(_is_number, whole=True)),
    "float": ("numbers", _is_number),
    "str": ("texts", lambda _, value: (
        isinstance(value, str) and len(value) <= 4_096 and "\0" not in value)),
    "path": ("paths", lambda _, value: _is_path(value)),
    "Sequence": ("lists", _are), "list": ("lists", _are),
    "tuple": ("", lambda name, value, *kinds: (
        _are(name, value, *kinds) and len(value) == len(kinds))),
    "Mapping": ("dictionaries", lambda name, value, *kinds: (
        isinstance(value, Mapping) and _are(name, [*value], kinds[0])
        and _are(name, [*value.values()], kinds[1]))),
    "Backbone": ("backbones that load_backbone returned", _has("patch_size")),
    "GeoData": ("data that load_data returned", _has("holdout")),
    "PeftConfig": ("configs of peft", _has("peft_type")),
    "Report": ("reports that evaluate returned", _has("table")),
    "Run": ("runs that fit returned", _has("model")),
    "RunOrModel": ("runs of fit or models", _has("predict")),
    "Scene": ("results that predict_scene returned", _has("applicability")),
    "SegmentationModel": ("models that build_model returned", _has("method_options")),
}  # fmt: skip


def check_values(values: Mapping[str, object], kinds: Mapping[str, object]) -> None:
    """Refuse values of another kind than their annotations say, or of an absurd size.

    The one place for it: for the arguments of all public functions, and for the options of data
    sets, decoders and methods. What is annotated in words that `KINDS` lacks passes.

    Args:
        values: Argument -> what was given.
        kinds: Argument -> its annotation.

    Raises:
        GeopeftError: A value is refused; the message says what is allowed.
    """
    for name, value in values.items():
        text = inspect.formatannotation(kinds.get(name, Any)).strip("'\"")
        kind = text.replace("str | os.PathLike[str]", "path")
        if not any(_fits(name, value, word) for word in kind.split(" | ")):
            raise _unfit(name, value, kind)


def _fits(name: str, value: object, kind: str) -> bool:
    """Tell whether a value is what an annotation such as "Mapping[str, Run]" says."""
    outer, _, inner = kind.removesuffix("]").partition("[")
    return outer not in KINDS or KINDS[outer][1](name, value, *filter(None, inner.split(", ")))


def _unfit(name: str, value: object, kind: str) -> GeopeftError:
    low, high = _bounds(name, "int" in kind)
    kind = re.sub(r"tuple\[(\w+).*\]", lambda pair: f"{pair[0].count(',') + 1} {pair[1]}", kind)
    called = re.sub(r"\w+", lambda word: KINDS[word[0]][0] if word[0] in KINDS else word[0], kind)
    span = ("numbers", f"numbers from {low:,} to {high:,}")
    for sign, word in (("[", " of "), (", ", " and "), (" | ", " or "), ("]", ""), span):
        called = called.replace(sign, word)
    return GeopeftError(f"{name} takes {called}, got {_shown(value)}.")


def _shown(value: object) -> str:
    plain = type(value).__module__ == "builtins" and not (
        isinstance(value, int) and abs(value) > 10**99
    )
    return reprlib.repr(value) if plain else f"a {type(value).__name__}"


def name_options(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function answer unknown options and unfit values in words, not by Python's TypeError.

    All public functions do. Options that one hands on are checked where they arrive.
    """
    known = inspect.signature(function).parameters
    kinds = {name: parameter.annotation for name, parameter in known.items()}
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        for option in () if hands_on else options:
            check_name(f"option of {function.__name__}", option, known)
        check_values(dict(zip(known, args, strict=False)) | options, kinds)
        return function(*args, **options)

    return checked
