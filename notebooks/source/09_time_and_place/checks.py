"""Checks of the exercises of lesson 09."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geopeft_nb.backbones.vit import sincos_1d
from geopeft_nb.classroom.check import Finding, ask, exercise, slip_of


@exercise("09/sincos", "a function of a tensor of numbers and a width", Callable)
def sincos(answer: Callable) -> Finding:
    """Compare with Prithvi's code, and recognise other orders and frequencies."""
    values = torch.tensor([0.0, 1.5, -62.0, 179.0])
    for width in (8, 12):
        words = f"For {len(values)} numbers and a width of {width}"
        found = ask(words, answer, values.clone(), width)
        if not isinstance(found, Tensor):
            return f"{words} it returned {type(found).__name__}, and a tensor is wanted."
        if found.shape != (len(values), width):
            return f"{words} the shape is {(*found.shape,)}, and should be {(len(values), width)}."
        if off := _not_the_code(found.double(), values.double(), width):
            return f"{words} {off}"
    return ""


def _not_the_code(found: Tensor, values: Tensor, width: int) -> Finding:
    """Say what is off with a code."""
    right = sincos_1d(values, width).double()
    sines, cosines = right.chunk(2, dim=1)
    steps = torch.arange(width // 2, dtype=torch.float64)

    def code(powers: Tensor) -> Tensor:
        angles = values[:, None] * 10_000.0**powers
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    slips = {
        "": right,
        "cosines stand before sines.": torch.cat([cosines, sines], dim=1),
        "sines and cosines alternate. All sines come first.": torch.stack(
            [sines, cosines], dim=2
        ).flatten(1),
        "j is divided by the width, and should be by half of it.": code(-steps / width),
        "the angles grow with j: divide by the power, do not multiply.": code(steps / (width / 2)),
        "the last period is 10000 itself, so j is divided by one less than half the width.": code(
            -steps / (width // 2 - 1)
        ),
        "the sines stand there twice. Where are the cosines?": torch.cat([sines, sines], dim=1),
    }
    otherwise = "the numbers are others. Try v = 0: what are its sines and cosines?"
    if torch.allclose(found[0], right[0]):
        otherwise = "v = 0 is right, and others are not. Look at the angles of v = 1.5."
    return slip_of(found, slips, otherwise, near=1e-3)


@exercise("09/added", "a number of weights", Real)
def added(answer: float) -> Finding:
    """One scale for each of two codes."""
    slips = {
        2.0: "",
        1.0: "There are two codes, of time and of place.",
        4.0: "Two numbers share one code, and one scale.",
        192.0: "The features of a code are computed, not learned.",
        384.0: "The features of a code are computed, not learned.",
        0.0: "Nothing would say how much the codes count. One number of each does.",
        96.0: "Frequencies are fixed. What of a code is learned?",
    }
    return slips.get(float(answer), "Look at the sentence on what scales a code. How many codes?")


@exercise("09/lie", "a function of samples and places", Callable)
def lie(answer: Callable) -> Finding:
    """Lie to seven samples with three places, and look whether the given ones stay."""
    own = [torch.tensor([float(n), 0.0]) for n in range(7)]
    samples = [{"name": f"chip {n}", "mask": n, "location": at} for n, at in enumerate(own)]
    places = [torch.tensor([50.0, 1.0]), torch.tensor([-9.0, 2.0]), torch.tensor([0.0, 3.0])]
    found = ask("For seven samples and three places", answer, samples, list(places))
    if found is None:
        return "it returned nothing. Is there a return?"
    if not isinstance(found, list | tuple) or not all(_is_sample(one) for one in found):
        return f"it returned {found!r:.60}, and a list of samples is wanted."
    if len(found) != 7:
        return f"of seven samples it returned {len(found)}."
    if any(torch.equal(s["location"], place) for s, place in zip(found, own, strict=True)):
        return "a sample still has its own coordinates."
    if any(s | {"location": 0} != k | {"location": 0} for s, k in zip(found, samples, strict=True)):
        return "what else a sample has should stay: its name, for example."
    for number, sample in enumerate(found):
        if not torch.equal(sample["location"], places[number % 3]):
            return f"sample {number} should get place {number % 3}: they are taken in turn."
    return ""


def _is_sample(found: object) -> bool:
    return isinstance(found, dict) and isinstance(found.get("location"), Tensor)


@exercise("09/uses_place", "a function of two lists and a tolerance", Callable)
def uses_place(answer: Callable) -> Finding:
    """Try lies that hurt, help, do nothing, and cancel out."""
    cases = [
        ([0.9, 0.8], [0.1, 0.2], 0.05, True, "A lie that turns both scores over was not noticed."),
        ([0.9, 0.8], [0.9, 0.8], 0.05, False, "Nothing changed, and it says that something did."),
        ([0.9, 0.8], [0.89, 0.81], 0.05, False, "Within the tolerance is no change."),
        ([0.5, 0.5], [0.8, 0.5], 0.05, True, "A lie that *helps* shows that the place is used."),
        ([0.9, 0.5], [0.5, 0.9], 0.05, True, "Two changes cancel out in a mean."),
        ([0.9, 0.8], [0.9, 0.2], 0.05, True, "One region is enough."),
        ([0.9, 0.8], [0.7, 0.8], 0.3, False, "The tolerance that is given was not used."),
        ([0.2, 0.8], [0.18, 0.8], 0.05, False, "A change is a plain difference of scores."),
        ([0.9, 0.8], [0.86, 0.76], 0.05, False, "Look at each region by itself."),
        ([0.9, 0.8], [0.9, 0.74], 0.05, True, "One region is enough."),
    ]  # fmt: skip
    for true, lied, tolerance, right, words in cases:
        given = f"For {true}, lied to {lied}, tolerance {tolerance}"
        found = ask(given, answer, list(true), list(lied), tolerance)
        if found not in (True, False):
            return f"{given} it returned {found!r}. Say True or False."
        if bool(found) != right:
            return f"{given}: {words}"
    return ""


@exercise("09/nearest_home", "a function of a place, homes and a code", Callable)
def nearest_home(answer: Callable) -> Finding:
    """Ask with a made-up code in which length, distance and the first place mislead."""
    homes = {
        "north": torch.tensor([[1.0, 0.0], [1.0, 0.4]]),
        "south": torch.tensor([[0.0, 9.0], [6.0, 9.0]]),
    }
    cases = [
        (torch.tensor([3.0, 9.5]), "south"),  # by any measure
        (torch.tensor([0.5, 0.1]), "north"),
        (torch.tensor([0.1, 0.2]), "south"),  # the north is nearer
        (torch.tensor([9.0, 4.0]), "north"),
        (torch.tensor([10.5, 10.0]), "south"),  # not by the first place of each
    ]
    for number, (place, right) in enumerate(cases):
        words = f"For place {[round(x, 1) for x in place.tolist()]}"
        found = ask(words, answer, place.clone(), dict(homes), lambda places: places.clone())
        if found not in homes:
            return f"{words} it returned {found!r}, which is the name of no home."
        if found != right and number == 0:
            return f"{words} it takes the home whose code is *least* alike."
        if found != right:
            return f"{words} {_why_other(found, place, homes)}"
    moved = torch.tensor([2.0, 0.0])
    other = ask("For another code", answer, torch.tensor([2.5, 0.1]), homes, lambda x: x - moved)
    if other != "south":
        return "it compares places themselves. Compare what `code` makes of them."
    place, north = torch.tensor([3.0, 2.0]), torch.tensor([[6.0, 5.0], [5.0, 3.0]])
    homes = {"north": north, "south": torch.tensor([[7.0, 1.0], [4.0, 5.0], [6.0, 4.0]])}
    words = "For a code that bends"
    found = ask(words, answer, place, homes, lambda at: torch.cat([at.sin(), 2 * at.cos()], 1))
    if found != "north":
        return f"{words} it takes another: the mean of the *codes* of a home's places counts."
    return ""


def _why_other(found: str, place: Tensor, homes: dict[str, Tensor]) -> Finding:
    """Say by which other measure a home would be the nearest."""
    means = {name: places.mean(dim=0) for name, places in homes.items()}
    measures = {
        "it takes the nearest in distance. Cosine similarity does not know lengths.": {
            name: -float((place - mean).norm()) for name, mean in means.items()
        },
        "a dot product grows with the length of the codes. Divide by the lengths.": {
            name: float(place @ mean) for name, mean in means.items()
        },
    }
    for words, measure in measures.items():
        if max(measure, key=lambda name: measure[name]) == found:
            return words
    return "another home is more alike. Take the mean code of all places of a home."


@exercise("09/doubt", "a function of sample, places, share and rng", Callable)
def doubt(answer: Callable) -> Finding:
    """Draw many times, with shares of 0, 1 and between."""
    own, places = torch.tensor([1.0, 2.0]), [torch.tensor([float(n), 9.0]) for n in range(4)]
    sample: dict[str, Any] = {"name": "a chip", "location": own}
    drawn: dict[float, list[Tensor]] = {}
    for share in (0.0, 1.0, 0.25):
        rng = np.random.default_rng(0)
        words = f"With share {share:g}"
        found = [ask(words, answer, sample, list(places), share, rng) for _ in range(1000)]
        if any(not isinstance(one, dict) or "location" not in one for one in found):
            return f"{words} it returned something else than a sample."
        if not all(_is_sample(one) for one in found):
            return f"{words} a place is no tensor any more. Draw its number with rng.integers."
        if any(one.get("name") != "a chip" for one in found):
            return "what else a sample has should stay: its name, for example."
        drawn[share] = [one["location"] for one in found]
    false = {share: [not torch.equal(x, own) for x in some] for share, some in drawn.items()}
    if any(false[0.0]):
        return "With share 0 it lies."
    if not all(false[1.0]):
        return "With share 1 it does not always lie."
    part = np.mean(false[0.25])
    if abs(part - 0.75) < 0.06:
        return f"With share 0.25 it lies in {part:.0%} of the cases: the other way round."
    if abs(part - 0.25) > 0.06:
        return f"With share 0.25 it lies in {part:.0%} of the cases."
    for share in (1.0, 0.25):
        used = [sum(torch.equal(x, place) for x in drawn[share]) for place in places]
        if min(used) < 0.15 * sum(used) or sum(used) < sum(false[share]):
            return f"With share {share:g} the four places are drawn {used} times. Draw them alike."
    again = [answer(sample, list(places), 1.0, np.random.default_rng(1)) for _ in range(20)]
    if len({tuple(one["location"].tolist()) for one in again}) > 1:
        return "The same rng gives something else each time: draw with `rng` alone."
    return ""
