"""Messages that help: what was given, what is allowed, and the right word for a near miss."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterable
from typing import ParamSpec, TypeVar

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


def whole(name: str, value: object, at_least: int = 1, at_most: float = math.inf) -> int:
    """Return a whole number within bounds.

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
    bound = f"above {at_least - 1}" if at_most == math.inf else f"from {at_least} to {at_most}"
    raise GeopeftError(f"{name} must be a whole number {bound}, got {value!r}.")


def expect(value: object, attribute: str, wanted: str) -> None:
    """Refuse an argument of another kind with words instead of a missing attribute.

    Args:
        value: What was given.
        attribute: An attribute that the right kind of object has.
        wanted: What was meant, for example ``"the model that build_model returned"``.

    Raises:
        GeopeftError: The object lacks the attribute.
    """
    if not hasattr(value, attribute):
        shown = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        raise GeopeftError(f"This wants {wanted}, and got {shown}.")


def name_options(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function answer an unknown option with the right word, instead of Python's TypeError.

    All public functions do, except those that hand options on, which check them on their own.
    """
    known = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return function

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        for option in options:
            check_name(f"option of {function.__name__}", option, known)
        return function(*args, **options)

    return checked
