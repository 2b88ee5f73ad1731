"""Messages that help: an unknown name comes with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GeopeftError(ValueError):
    """What we refuse: the message says what was given, what is allowed and what to do."""


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
    near = difflib.get_close_matches(
        str(name).lower(), [known.lower() for known in names], n=1, cutoff=0.5
    )
    nearest = {known.lower(): known for known in names}
    hint = f" Did you mean {nearest[near[0]]!r}?" if near else ""
    return GeopeftError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")


def expect(value: object, attribute: str, wanted: str) -> None:
    """Refuse an argument of another kind with words instead of a missing attribute.

    Args:
        value: What was given.
        attribute: An attribute that the right kind of object has.
        wanted: What was meant, for example ``"the model that build_model returned"``.

    Raises:
        ValueError: The object lacks the attribute.
    """
    if not hasattr(value, attribute):
        shown = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        raise GeopeftError(f"This wants {wanted}, and got {shown}.")
