"""Messages that help: what was given, what is allowed, and the right word for a near miss."""

import difflib
import functools
import inspect
import math
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from numbers import Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: Words of other libraries -> ours, where the spelling does not lead there.
SYNONYMS = {
    "accelerator": "device", "accumulate_grad_batches": "accumulate", "alpha": "lora_alpha",
    "block_size": "oft_block_size", "bs": "batch_size", "ckpt_path": "resume",
    "dropout": "lora_dropout vera_dropout", "gpu": "cuda", "gradient_checkpointing": "checkpoint",
    "head": "decoder", "learning_rate": "lr", "lora_alpha": "alpha", "lora_dropout": "dropout",
    "max_epochs": "epochs", "num_epochs": "epochs", "num_frames": "frames", "pretrained": "weights",
    "rank": "r", "targets": "target_modules", "train_batch_size": "batch_size", "weight": "weights",
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
    meant = [other for other in (*SYNONYMS.get(word, "").split(), *near) if other in names]
    return f" Did you mean {names[meant[0]]!r}?" if meant else ""


def unknown_name(kind: str, name: object, known: Iterable[str], listed: str = "") -> GeopeftError:
    """Make the error for a name that is not in a catalogue.

    Args:
        kind: What the name should have named, for example ``"backbone"``.
        name: What was given.
        known: All names that would have worked.
        listed: What to list in their place, where most of them are seldom wanted.

    Returns:
        An error to raise, which suggests the nearest known name and lists all, up to a hundred.

    Example:
        >>> unknown_name("method", "lorra", ["full", "lora"])
        GeopeftError("Unknown method 'lorra'. Did you mean 'lora'? Known: full, lora.")
    """
    hint = did_you_mean(name, names := sorted(known))
    listed = listed or (", ".join(names) if len(names) <= 100 else f"{len(names):,} names")
    return GeopeftError(f"Unknown {kind} {name!r}.{hint} Known: {listed or 'none'}.")


def check_name(kind: str, name: object, known: Collection[str]) -> None:
    """Refuse a name that is not in a catalogue; arguments as in `unknown_name`."""
    check_names(kind, [name], known)


def check_names(kind: str, names: Iterable[object], known: Collection[str]) -> None:
    """Refuse the first of several names that is not in a catalogue."""
    for name in names:
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
    "factor": (-1, 4_096), "gsd": (0.001, 1_000_000), "img_size": (1, 2_048), "kernel": (1, 128),
    "key": (0, 2**32 - 1), "layers": (-4_096, 4_095), "lr": (1e-12, 0.999),
    "nodata": (-math.inf, math.inf),
    "oft_block_size": (0, 4_096), "overlap": (0, 4_096), "prompts": (1, 4_096), "r": (1, 4_096),
    "rank_pattern": (1, 4_096), "scale": (1e-9, 1_000_000_000),
    "seed": (0, 2**32 - 1), "shift": (0, 1), "similarity": (0, 1),
    "size": (1, 16_384), "stem": (1, 512), "temperature": (1e-6, 1e6), "threshold": (1e-6, 1e30),
    "unlabelled": (-math.inf, math.inf), "wavelengths": (0.1, 100), "width": (1, 4_096),
}  # fmt: skip


def _bounds(name: str, kind: str) -> tuple[float, float]:
    usual = (1, 1_000_000) if "int" in kind else (-1e30, 1e30)
    return BOUNDS.get(name) or BOUNDS.get(name.rpartition("_")[2], usual)


def _is_path(value: Any) -> bool:
    """Say whether a value can be a path, also one where nothing is or may be looked at."""
    try:
        Path(value).lstat()
    except (OSError, TypeError, ValueError) as error:  # of other kinds: too long, or no text
        return isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)
    return True


#: Word or sign of an annotation -> what messages call it.
WORDS = {
    "bool": "True or False", "str": "texts", "path": "paths", "Sequence": "lists", "list": "lists",
    "Mapping": "dictionaries", "[": " of ", ", ": " and ", " | ": " or ", "]": "",
}  # fmt: skip
#: Class in an annotation -> an attribute by which its objects are known.
CLASSES = {
    "Backbone": "patch_size", "ChipDataset": "chips", "GeoData": "holdout",
    "PeftConfig": "peft_type", "Report": "table", "Run": "model", "RunOrModel": "predict",
    "Scene": "applicability", "SegmentationModel": "method_options",
}  # fmt: skip


def check_values(values: Mapping[str, object], kinds: Mapping[str, object]) -> None:
    """Refuse values of another kind than their annotations say, or of an absurd size.

    The one place for it: for the arguments of all public functions, and for the options of data
    sets, decoders and methods. What is annotated in words that `WORDS` and `CLASSES` lack passes.

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


def _fits(name: str, value: Any, kind: str) -> bool:
    """Tell whether a value is what an annotation such as "Mapping[str, Run]" says."""
    outer, _, inner = kind.removesuffix("]").partition("[")
    kinds = inner.split(", ")
    match outer:
        case "int" | "float":
            low, high = _bounds(name, outer)
            number = isinstance(value, int if outer == "int" else Real) and type(value) is not bool
            return number and (low <= value <= high or high == math.inf)  # the latter has NaN, too
        case "Sequence" | "list" | "tuple":
            no_list = (str, bytes, Mapping, Set)
            listed = isinstance(value, Collection) and not isinstance(value, no_list)
            right = listed and (outer != "tuple" or len(value) == len(kinds))
            return right and all(_fits(name, one, kinds[0]) for one in value)
        case "Mapping":
            return isinstance(value, Mapping) and all(
                _fits(name, key, kinds[0]) and _fits(name, one, kinds[1])
                for key, one in value.items()
            )
        case "str":
            return isinstance(value, str) and len(value) <= 4_096 and "\0" not in value
        case "path":
            return _is_path(value)
    simple = {"None": type(None), "bool": bool}.get(outer, object)
    return isinstance(value, simple) and hasattr(value, CLASSES.get(outer, "__class__"))


def _unfit(name: str, value: object, kind: str) -> GeopeftError:
    numbers = "numbers from {:,} to {:,}".format(*_bounds(name, kind))
    words = WORDS | {"int": f"whole {numbers}", "float": numbers}
    kind = re.sub(r"tuple\[(\w+).*\]", lambda pair: f"{pair[0].count(',') + 1} {pair[1]}", kind)
    called = re.sub(r"\w+|, | \| |[][]", lambda word: words.get(word[0], word[0]), kind)
    return GeopeftError(f"{name} takes {called}, got {_shown(value)}.")


def _shown(value: object) -> str:
    huge = isinstance(value, int) and abs(value) > 10**99
    plain = type(value).__module__ == "builtins" and not huge
    return reprlib.repr(value) if plain else f"a {type(value).__name__}"


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function answer unknown options and unfit values in words, not by Python's TypeError.

    All public functions do. Options that one hands on are checked where they arrive.
    """
    known = inspect.signature(function).parameters
    kinds = {name: parameter.annotation for name, parameter in known.items()}
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        check_names(f"option of {function.__name__}", () if hands_on else options, known)
        check_values(dict(zip(known, args, strict=False)) | options, kinds)
        return function(*args, **options)

    return checked
