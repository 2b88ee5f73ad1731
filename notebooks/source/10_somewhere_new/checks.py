"""Checks of the exercises of lesson 10."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real

import numpy as np

from geopeft_nb.classroom.check import Finding, ask, exercise
from geopeft_nb.evaluation.intervals import bootstrap_scores, percentile_interval
from geopeft_nb.tasks import mean_iou

VERDICTS = ("better", "worse", "cannot tell")


@exercise(
    "10/leak", "a function of two lists of place names that returns the places in both", Callable
)
def leak(answer: Callable) -> Finding:
    """Ask the function for sides that share places, and for sides that share none."""
    cases = [
        (["delta-0", "delta-0", "delta-1", "hills-4"], ["delta-1", "delta-1", "hills-9"]),
        (["coast-1", "coast-2", "coast-3"], ["coast-3", "coast-1", "coast-2"]),
        (["delta-1", "delta-2"], ["delta-10", "delta-3", "delta"]),
        (["delta-1"], []),
    ]
    for train, test in cases:
        words = f"For training places {train} and test places {test}"
        found = ask(words, answer, list(train), list(test))
        if off := _not_these(found, train, test):
            return f"{words} {off}"
    return ""


def _not_these(found: object, train: list[str], test: list[str]) -> Finding:
    """Say what is off with the places that were found on both sides."""
    if found is None:
        return "it returned nothing. Is there a return?"
    if isinstance(found, bool | np.bool_ | Real):
        return f"it returned {found!r}. Name the places: a number does not say where to look."
    if isinstance(found, str) or not isinstance(found, Iterable):
        return f"it returned {found!r}, which is no collection of names."
    names, right = [str(name) for name in found], set(train) & set(test)
    if set(names) == right:
        if len(names) == len(right):
            return ""
        return "it names a place more than once. Places count here, however many chips they have."
    if set(names) == set(train) | set(test):
        return "it returned the places of either side. Which are on both?"
    if names and set(names) == set(train) ^ set(test):
        return "it returned the places that are on one side only."
    if set(names) in (set(train) - right, set(test) - right):
        return "it returned what one side has alone."
    if any(name not in right and name in {*train, *test} for name in names):
        return "it names a place that is on one side only. Two names have to be equal as a whole."
    if set(names) - {*train, *test}:
        return f"it names {min(set(names) - {*train, *test})!r}, a place of neither side."
    return f"it misses {min(right - set(names))!r}. Chips have no order: look for it anywhere."


@exercise("10/interval", "a function of matrices and places that returns (low, high)", Callable)
def interval(answer: Callable) -> Finding:
    """Compare with the bootstrap over places, and with what the usual slips would give."""
    matrices, places = _uneven_places()
    words = (
        f"With {len(matrices)} matrices (N, 2, 2) of {len(set(places))} places, one to four each,"
    )
    pair = ask(words, answer, matrices.copy(), list(places))
    try:
        low, high = (float(value) for value in pair)
    except (TypeError, ValueError):
        return f"It returned {pair!r}. Two numbers are wanted, (low, high)."
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"It returned ({low}, {high}). Every draw here has pixels of both classes."
    if low > high:
        return "The lower end comes first."
    if low > 1 or high > 1:
        return "An mIoU of these lessons runs from 0 to 1."
    return _which_interval(low, high, matrices, places)


def _which_interval(low: float, high: float, matrices: np.ndarray, places: list[str]) -> Finding:
    draws = bootstrap_scores(matrices, places, repeats=5000)
    spread = float(draws.std())

    def off(ends: tuple[float, float]) -> float:
        """Return how far the farther end is from the given ones, in standard deviations."""
        return max(abs(low - ends[0]), abs(high - ends[1])) / spread

    right = off(percentile_interval(draws))
    if high - low < 0.05 * spread:
        return "All draws gave the same score. Draw with replacement, and anew each time."
    names = sorted(set(places))
    pooled = np.stack([matrices[np.asarray(places) == name].sum(axis=0) for name in names])
    each = mean_iou(pooled)
    drawn = np.random.default_rng(1).integers(len(names), size=(5000, len(names)))
    chips = bootstrap_scores(matrices, [str(number) for number in range(len(matrices))], 5000)
    slips = {
        "Those are draws of single chips. Chips of one place look alike: draw whole places.": (
            percentile_interval(chips)
        ),
        "The draws look right, but the ends are those of another share. Between which percentiles "
        "do 95 % of the draws lie?": tuple(np.percentile(draws, [5, 95])),
        "That averages the scores of the places that were drawn. Add up their counts, and score "
        "the sum once.": percentile_interval(each[drawn].mean(axis=1)),
        "That is how the scores of single places spread. How does the score of a whole draw, of as "
        "many places as there are, spread?": percentile_interval(each),
        "That is one standard deviation to each side. It covers about two draws of three.": (
            float(draws.mean() - spread), float(draws.mean() + spread),
        ),
    }  # fmt: skip
    # A thousand draws place an end to within 0.09 standard deviations.
    nearest = min(slips, key=lambda words: off(slips[words]))
    if right < min(0.35, off(slips[nearest])):
        return ""
    if off(slips[nearest]) < 0.35:
        return nearest
    if right < 0.7:
        return "That is close, but not within the luck of 1,000 draws. How many did you take?"
    return (
        f"The interval is {high - low:.3f} wide, and drawing places gives {np.ptp(draws):.3f} from "
        "the lowest to the highest draw. Draw as many places as there are, with all their chips."
    )


def _uneven_places() -> tuple[np.ndarray, list[str]]:
    """Make confusion counts (N, 2, 2) of places that differ in difficulty and in chips."""
    random = np.random.default_rng(7)
    matrices, places = [], []
    for place, count in enumerate((3, 1, 2, 4, 1, 3, 1, 4, 2, 3, 1, 4, 2, 1, 3, 2)):
        # Chips of a place are hard or easy together, and here large places are the hard ones.
        wrong = (0.02 + 0.07 * count) * random.uniform(0.6, 1.4)
        for _ in range(count):
            water = int(random.uniform(0.1, 0.6) * 4096)
            land, error = 4096 - water, wrong * random.uniform(0.9, 1.1)
            missed, alarm = int(water * error), int(land * error)
            matrices.append([[land - alarm, alarm], [missed, water - missed]])
            places.append(f"place-{place}")
    order = random.permutation(len(places))  # chips of a place need not stand together
    return np.asarray(matrices)[order], [places[index] for index in order]


@exercise("10/verdict", f"a function of low and high that returns one of {VERDICTS}", Callable)
def verdict(answer: Callable) -> Finding:
    """Ask the function for intervals on either side of zero, across it, and without draws."""
    nan = float("nan")
    cases = [
        (0.01, 0.05, "better", "all draws of places agree"),
        (-0.08, -0.02, "worse", "all draws of places agree"),
        (-0.01, 0.06, "cannot tell", "some draws say one thing, some the other"),
        (-0.09, 0.002, "cannot tell", "some draws say one thing, some the other"),
        (nan, nan, "cannot tell", "there was nothing to draw from"),
    ]
    for low, high, right, why in cases:
        words = f"For an interval from {low} to {high}"
        found = ask(words, answer, low, high)
        if found not in VERDICTS:
            return f"{words} it returned {found!r}. Allowed: {', '.join(VERDICTS)}."
        if found != right:
            if {found, right} == {"better", "worse"}:
                return f"{words} it says {found!r}. The difference is the first minus the second."
            return f"{words} it says {found!r}, but {why}. Where does zero lie?"
    return ""
