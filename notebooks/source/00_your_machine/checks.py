"""Checks of the exercises of lesson 00."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from types import SimpleNamespace
from typing import TYPE_CHECKING

from geopeft_nb.classroom.check import Finding, ask, ask_number, exercise, slip_of

if TYPE_CHECKING:
    from geopeft_nb.memory.plan import MemoryPlan


@exercise("00/gib", "a function of bytes", Callable)
def gib(answer: Callable) -> Finding:
    """Ask for a whole number of GiB and for a GPU as it is sold."""
    for size, words in ((3 * 2**30, "For 3 x 2**30 bytes"), (16e9, "For 16e9 bytes, a T4,")):
        found, right = ask_number(words, answer, size), size / 2**30
        if math.isclose(found, right, rel_tol=1e-3):
            continue
        if math.isclose(found, size / 1e9, rel_tol=1e-6):
            return f"{words} that is in GB, of 10⁹ bytes."
        if math.isclose(found, size / 2**20, rel_tol=1e-3):
            return f"{words} that is in MiB, of 2²⁰ bytes."
        if math.isclose(found, size * 8 / 2**30, rel_tol=1e-3):
            return f"{words} those are bits."
        if found == math.floor(right) or found == round(right):
            return f"{words} it is rounded to a whole number: a part of the memory is gone."
        if math.isclose(found * size, 2**30, rel_tol=1e-3):
            return f"{words} it is upside down."
        return f"{words} it returned {found:.4g}. How many bytes has a GiB?"
    return ""


@exercise("00/limit", "a function of the machine's bytes and a container's text", Callable)
def limit(answer: Callable) -> Finding:
    """Try a container that is smaller, one that is larger, and none."""
    cases = [
        ("max\n", 16 * 10**9, "Where there is no limit"),
        ("max\n", 8 * 10**9, "Where there is no limit, on a machine of 8 GB,"),
        ("2000000000\n", 2 * 10**9, "In a container of 2 GB on a machine of 16 GB"),
        ("9223372036854771712\n", 16 * 10**9, "Where the limit is above all that there is"),
    ]
    for text, right, words in cases:
        machine = 8 * 10**9 if "8 GB" in words else 16 * 10**9
        found = ask_number(words, answer, machine, text)
        if found == right:
            continue
        if found == machine:
            return f"{words} it gives the machine's memory. Who would be killed?"
        if found > machine:
            return f"{words} it promises more than there is."
        return f"{words} it returned {found:,.0f}."
    return ""


@exercise("00/weights", "a number of bytes", Real)
def weights(answer: float) -> Finding:
    """Compare with four bytes for each weight."""
    count = 303_886_336
    slips = {
        "": 4 * count,
        "That is the number of weights. How many bytes has a float of 32 bits?": count,
        "Those are bits.": 32 * count,
        "Those would be 64-bit floats.": 8 * count,
        "Those would be 16-bit floats.": 2 * count,
        "That is training in full: gradient and optimiser come on top later.": 16 * count,
    }
    units = (answer * unit / 4 / count for unit in (1e6, 1e9, 2**20, 2**30))
    if any(abs(share - 1) < 0.03 for share in units):
        return "The size is right. It wants bytes."
    return slip_of(answer, slips, "Weights times bytes of each.", near=0.02)


@exercise("00/fitting", "a function of plans and a budget", Callable)
def fitting(answer: Callable) -> Finding:
    """Try plans of which one keeps less than the budget and peaks above it."""
    large, small, steep = (("model", how) for how in ("large", "small", "steep"))
    plans = {
        large: SimpleNamespace(total=20, peak=21, fits=lambda limit: limit >= 21),
        small: SimpleNamespace(total=2, peak=3, fits=lambda limit: limit >= 3),
        steep: SimpleNamespace(total=8, peak=12, fits=lambda limit: limit >= 12),
    }
    for budget, right in ((10, {small}), (1, set()), (30, {*plans}), (12, {small, steep})):
        words = f"For peaks of 3, 12 and 21 and a budget of {budget}"
        found = ask(words, answer, dict(plans), budget)
        if not isinstance(found, list | tuple | set):
            return f"{words} it returned {type(found).__name__}. A list of names is wanted."
        if any(name not in [*plans] for name in found):
            return f"{words} it lists {[*found]!r:.80}. Their names are wanted."
        if {*found} == right:
            continue
        if {*found} == {*plans} - right:
            return f"{words} it lists those that do not fit."
        if steep in found and steep not in right:
            return f"{words} it lists one that keeps 8 and peaks at 12. At which would it fail?"
        return f"{words} it lists {', '.join(how for _, how in found) or 'none'}."
    return ""


@exercise("00/eight", "a number of bytes", Real)
def eight(answer: float, one: int, two: int, planned: int) -> Finding:
    """Compare with the plan for eight chips; a thousandth is close enough."""
    chip = two - one
    slips = {
        "": planned,
        "That pays for the weights eight times. Are they there once?": 8 * one,
        "That pays for the weights four times. Are they there once?": 4 * two,
        "That is one chip too many: the first is in the first number.": one + 8 * chip,
        "That is one chip too many: two are in the second number.": two + 7 * chip,
        "That is what eight chips add. What is there without any?": 8 * chip,
        "That is what seven chips add. To what?": 7 * chip,
    }
    otherwise = "How much does a chip add? And how many are added to the first?"
    return slip_of(answer, slips, otherwise, near=1e-3)


@exercise("00/challenge", "a dictionary of method, precision and frugal", dict)
def challenge(answer: dict, plan: Callable[..., MemoryPlan], limit: float) -> Finding:
    """Plan what was chosen, and compare its peak."""
    known = {"method", "precision", "frugal"}
    if unknown := {*answer} - known:
        return f"It knows {', '.join(sorted(known))}, and not {', '.join(map(str, unknown))}."
    if answer.get("method", "lora") == "linear_probe":
        return "A linear probe trains nothing of the backbone."
    peak = ask("When that is planned,", lambda: plan(**answer)).peak
    if peak <= limit:
        return ""
    more = "" if answer.get("frugal") else " No recipe is among it yet."
    return f"The peak is {peak / limit:.2f} times what is allowed.{more}"
