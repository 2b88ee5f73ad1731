"""Checks of the exercises of lesson 10."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import cache
from numbers import Real
from typing import Any

import numpy as np

from geopeft_nb.classroom.check import Finding, Slip, ask, exercise, slip_of
from geopeft_nb.evaluation.intervals import bootstrap_scores, percentile_interval
from geopeft_nb.tasks import mean_iou

INSIDE = "The ends lie too far inside: between which percentiles do 95 % of a thousand draws lie?"
ASIDE = "The chips are not with their own places there: places[i] is the place of matrices[i]."
VERDICTS = ("better", "worse", "cannot tell")


@exercise("10/neighbours", "a share between 0 and 1", Real)
def neighbours(answer: float) -> Finding:
    """Compare with the share of which not all four neighbours went to the test."""
    slips = {
        "": 15 / 16,
        "That holds for one neighbour. A chip has four, and one in training is enough.": 1 / 2,
        "That is the share without any, or the share where all four are in training.": 1 / 16,
        "That counts corners, too. Above, below, left and right are four.": 1 - 0.5**8,
        "It wants a share from 0 to 1, not per cent.": 15 / 16 * 100,
        "That is one of four. When does a chip have none at all?": 1 / 4,
        "That is for three neighbours.": 7 / 8,
        "That is for two neighbours.": 3 / 4,
    }
    otherwise = "How likely is it that all four neighbours went to the test? All the others count."
    if abs(answer - 15 / 16) < 0.012:
        otherwise = f"Near, as if counted. Now exactly: {otherwise[0].lower()}{otherwise[1:]}"
    if answer > 1:
        otherwise = "Chances of four neighbours do not add up: a share is at most 1."
    return slip_of(answer, slips, otherwise, near=0.003)


@exercise("10/gap", "an array (60, 60) of 1, 0 and -1")
def gap(answer: object) -> Finding:
    """Measure both sides, and how near any square of one comes to any of the other."""
    dealt = ask("Made an array,", np.asarray, answer)
    if dealt.dtype.kind not in "biuf":
        return f"It wants an array of numbers; this is of type {type(answer).__name__}."
    if dealt.shape != (60, 60):
        return f"The shape is {dealt.shape}, and should be (60, 60)."
    if dealt.dtype == bool:
        return "True and False leave nothing out. Write 1, 0 and -1."
    if not np.isin(dealt, (-1, 0, 1)).all():
        return "Some numbers are none of 1, 0 and -1."
    for name, number in (("training", 1), ("test", 0)):
        if (share := float((dealt == number).mean())) < 0.25:
            return f"{share:.0%} of the squares are for {name}, and a quarter is the least."
    if not (dealt == -1).any():
        return "Nothing is left out. What lies between the two sides?"
    train, test = np.argwhere(dealt == 1), np.argwhere(dealt == 0)
    nearest = float(np.sqrt(((train[:, None] - test) ** 2).sum(axis=-1).min()))
    if nearest <= 8:
        return f"Two squares of different sides are {nearest:.3g} apart, and should be more than 8."
    return ""


@exercise(
    "10/leak", "a function of two lists of place names that returns the places in both", Callable
)
def leak(answer: Callable) -> Finding:
    """Ask the function for sides that share places, and for sides that share none."""
    cases = [
        # what is shared stands twice on either side: a list has to name it once all the same
        (["delta-0", "delta-1", "delta-0", "delta-1"], ["delta-1", "hills-9", "delta-1"]),
        (["coast-1", "coast-2", "coast-3"], ["coast-3", "coast-1", "coast-2"]),
        (["delta-1", "delta-2"], ["delta-10", "delta-3", "delta"]),
        (["delta-1"], []),
        ([f"coast-{n}" for n in range(6)], [f"coast-{n}" for n in range(3, 9)]),
    ]
    for train, test in cases:
        words = f"For training places {train} and test places {test}"
        found = ask(words, answer, list(train), list(test))
        if off := _not_these(found, train, test):
            return f"{words} {off}"
    return ""


def _not_these(found: object, train: list[str], test: list[str]) -> Finding:
    """Say what is off with the places that were found on both sides."""
    if isinstance(found, str) or not isinstance(found, Collection):
        return f"it returned {found!r}, which is no collection of names."
    names, right = [str(name) for name in found], set(train) & set(test)
    if set(names) == right:
        if len(names) == len(right):
            return ""
        return "it names a place more than once. Places count here, however many chips they have."
    if set(names) == set(train) | set(test):
        return "it returned the places of either side. Which are on both?"
    if set(names) in (set(train) - right, set(test) - right):
        return "it returned what one side has alone."
    if any(name not in right and name in {*train, *test} for name in names):
        whole = " Two names have to be equal as a whole." * ("delta-10" in test)
        return f"it names a place that is on one side only.{whole}"
    if set(names) - {*train, *test}:
        return f"it names {min(set(names) - {*train, *test})!r}, a place of neither side."
    return f"it misses {min(right - set(names))!r}. Chips have no order: look for it anywhere."


@exercise("10/interval", "a function of matrices and places that returns (low, high)", Callable)
def interval(answer: Callable) -> Finding:
    """Compare with bootstraps over places, and with what the usual slips would give."""
    # of the draws of five places 1 in 12 has the two good ones four times, or more
    good, bad = np.array([[[90, 10], [10, 90]], [[40, 60], [60, 40]]])
    _, top = _two_ends(answer, np.stack([good, good, bad, bad, bad]), list("abcde"))
    if math.isclose(top, mean_iou(2 * good + bad), rel_tol=1e-3):
        return "A place drawn twice counts twice, and as many are drawn as there are places."
    found, cases = [], []
    for count in range(8, 17):
        matrices, places, ends = _case(count)
        low, high = _two_ends(answer, matrices, places)
        if not (math.isfinite(low) and math.isfinite(high)):
            return (
                f"It returned ({low}, {high}), and every draw here has pixels of both classes. "
                "`places` is a list, which equals no name: compare np.asarray(places)."
            )
        if low > high:
            return "The lower end comes first."
        if low > 1 or high > 1:
            return "An mIoU of these lessons runs from 0 to 1."
        found.append((low, high))
        cases.append(ends)
    same = "All draws gave the same score. Draw with replacement, and anew each time."
    if off := _nearest(found, cases, same):
        return off
    if not math.isclose(top, mean_iou(4 * good + bad), rel_tol=1e-3):
        return (
            "With many places it fits, and with five it does not: draw as many as there are, and "
            "take percentiles of the draws."
        )
    return ""


def _two_ends(answer: Callable, *given: Any) -> tuple[float, float]:
    """Ask for an interval of matrices, and say if it is none."""
    *matrices, places = given
    words = f"With {len(places)} matrices (N, 2, 2) of {len(set(places))} places,"
    pair = ask(words, answer, *(each.copy() for each in matrices), list(places))
    try:
        low, high = (float(value) for value in pair)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Slip(f"It returned {pair!r:.80}. Two numbers are wanted, (low, high).") from error
    return low, high


@cache
def _case(count: int) -> tuple[np.ndarray, list[str], dict[str, tuple[float, float]]]:
    """Return matrices, their places, and ends of intervals by what is off, the right ones by ""."""
    matrices, places = _uneven_places(count)
    draws = bootstrap_scores(matrices, places, repeats=5000)
    spread = float(draws.std())
    names, random = sorted(set(places)), np.random.default_rng(1)
    pooled = np.stack([matrices[np.asarray(places) == name].sum(axis=0) for name in names])
    drawn = random.integers(len(names), size=(5000, len(names)))
    sizes = np.array([places.count(name) for name in names])
    scores = mean_iou(matrices)
    sums = np.array([scores[np.asarray(places) == name].sum() for name in names])
    chips = bootstrap_scores(matrices, [str(number) for number in range(len(matrices))], 5000)
    many = pooled[random.integers(len(names), size=(5000, len(places)))].sum(axis=1)
    by_chip = random.choice(np.searchsorted(names, places), size=drawn.shape)
    slips = {
        "Those are draws of single chips. Chips of one place look alike: draw whole places.": chips,
        ASIDE: bootstrap_scores(matrices, sorted(places), 5000),
        "Those are as many draws as there are chips. Draw as many as there are places.": (
            mean_iou(many)
        ),
        "A place of more chips is drawn more often there. Draw from names that stand once.": (
            mean_iou(pooled[by_chip].sum(axis=1))
        ),
        "That takes the mean of a place's chips, or one of them. Add all of them up.": (
            mean_iou((pooled / sizes[:, None, None])[drawn].sum(axis=1))
        ),
        "Those are shares of right pixels. mean_iou scores a matrix.": (
            np.trace(pooled[drawn].sum(axis=1), axis1=1, axis2=2) / pooled[drawn].sum((1, 2, 3))
        ),
        "That averages the scores of the places that were drawn. Add up their counts, and score "
        "the sum once.": mean_iou(pooled)[drawn].mean(axis=1),
        "That averages the scores of chips. Add up their counts, and score the sum once.": (
            sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        ),
    }
    ends = {words: percentile_interval(scores) for words, scores in slips.items()}
    ends[""] = percentile_interval(draws)
    ends[INSIDE] = tuple(np.percentile(draws, [5, 95]))
    ends["np.percentile counts from 0 to 100."] = tuple(np.percentile(draws, [0.025, 0.975]))
    mean, error = draws.mean(), 1.96 * spread / 1000**0.5
    ends["That is how well the mean of the draws is known. Where do 95 % of the draws lie?"] = (
        mean - error, mean + error,
    )  # fmt: skip
    ends["That is one standard deviation to either side. Where do 95 % of the draws lie?"] = (
        mean - spread, mean + spread,
    )  # fmt: skip
    return matrices, places, ends


def _nearest(
    found: list[tuple[float, float]], cases: list[dict[str, tuple[float, float]]], same: str
) -> Finding:
    """Return what is off with intervals, "" if nothing: whose ends are nearest in all cases?

    Of 200 seeds the ends of 1,000 draws were 0.11 standard deviations off, at most 0.17, and those
    of 100 draws 0.29.
    """
    wide = np.array([np.ptp(case[""]) for case in cases])
    share = float(np.mean(np.ptp(found, axis=1) / wide))
    if share < 0.012:
        return same

    def off(words: str) -> float:
        """Return how far the ends are from these, in standard deviations."""
        ends = np.array([case[words] for case in cases])
        scale = np.maximum(wide, np.ptp(ends, axis=1))[:, None] / 4
        return float(np.sqrt(np.mean(((np.array(found) - ends) / scale) ** 2)))

    nearest = min(cases[0], key=off)
    if off(nearest) < (0.45 if nearest else 0.19):
        return nearest
    if share > 1.3:
        return "That is too wide: are those the lowest and the highest of all, or of few draws?"
    return (
        f"The intervals are {share:.2f} times as wide as the middle 95 % of draws, and their ends "
        f"{off(''):.2f} standard deviations off. Draw as many places as there are, with all their "
        "chips, a thousand times."
    )


def _uneven_places(number: int = 16) -> tuple[np.ndarray, list[str]]:
    """Make confusion counts (N, 2, 2) of places that differ in difficulty and in chips."""
    random, matrices, places = np.random.default_rng(number), [], []
    sizes = (3, 1, 2, 4, 1, 3, 1, 4, 2, 3, 1, 4, 2, 1, 3, 2)
    # other names each time: one seed draws other places then, and luck is not the same
    for place, count in zip(random.permutation(number), sizes, strict=False):
        # Chips of a place are hard or easy together, and here large places are the hard ones.
        wrong = (0.02 + 0.07 * count) * random.uniform(0.6, 1.4)
        for _ in range(count):
            labelled = int(4096 * (0.1 + 0.05 * count * count) * random.uniform(0.8, 1))
            water = int(random.uniform(0.1, 0.6) * labelled)
            land, error = labelled - water, wrong * random.uniform(0.9, 1.1)
            missed, alarm = int(water * error), int(land * error)
            matrices.append([[land - alarm, alarm], [missed, water - missed]])
            places.append(f"place-{place}")
    order = random.permutation(len(places))  # chips of a place need not stand together
    return np.asarray(matrices)[order], [places[index] for index in order]


@exercise("10/paired", "a function of two arrays and places that returns (low, high)", Callable)
def paired(answer: Callable) -> Finding:
    """Compare with draws of places that are one and the same for both methods."""
    found, cases = [], []
    for count in range(8, 17):
        *given, ends = _pair(count)
        found.append(_two_ends(answer, *given))
        cases.append(ends)
    same = "All draws gave the same difference. Draw places anew each time."
    turned = any(low > high for low, high in found)
    off = _nearest([(min(pair), max(pair)) for pair in found], cases, same)
    return off or ("The lower end comes first." if turned else "")


@cache
def _pair(count: int) -> tuple[np.ndarray, np.ndarray, list[str], dict[str, tuple[float, float]]]:
    """Return matrices of two methods, their places, and ends of the difference by words."""
    mine, places = _uneven_places(count)
    random = np.random.default_rng(11)
    more = {name: random.uniform(0.9, 1.3) for name in sorted(set(places))}  # of mine's errors
    theirs = mine.copy()
    for matrix, place in zip(theirs, places, strict=True):
        for right, wrong in ((0, 1), (1, 0)):
            moved = int(matrix[right, wrong] * (more[place] - 1))
            matrix[right] += np.array([moved, -moved]) * (1 if right else -1)

    def draws(names: list[str], seeds: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return (
            bootstrap_scores(mine, names, 5000, seeds[0]),
            bootstrap_scores(theirs, names, 5000, seeds[1]),
        )

    one, two = draws(places, (0, 0))
    other, apart = draws(places, (0, 1))
    chips = draws([str(number) for number in range(len(mine))], (0, 0))
    names = np.array(places)
    of_place = np.array([
        np.subtract(*(mean_iou(each[names == name].sum(0)) for each in (mine, theirs)))
        for name in sorted({*places})
    ])  # fmt: skip
    drawn = np.random.default_rng(0).integers(len(of_place), size=(5000, len(of_place)))
    ends_of_one, ends_of_two = percentile_interval(one), percentile_interval(two)
    aside = draws(sorted(places), (0, 0))
    ends = {
        "": percentile_interval(one - two),
        ASIDE: percentile_interval(aside[0] - aside[1]),
        "Each method has draws of its own. What is hard for both cancels only on the same draw.": (
            percentile_interval(other - apart)
        ),
        "That is theirs minus mine.": percentile_interval(two - one),
        "Those are draws of single chips. Draw whole places.": (
            percentile_interval(chips[0] - chips[1])
        ),
        "Those are means of the places' scores. Add up their counts, and score the sum.": (
            percentile_interval(of_place[drawn].mean(axis=1))
        ),
        "Those are ends minus ends. Subtract the scores of each draw, then take the ends.": tuple(
            sorted(a - b for a, b in zip(ends_of_one, ends_of_two, strict=True))
        ),
        "They lie too far inside: ends of 90 %, of few draws, or places that count once?": tuple(
            np.percentile(one - two, [5, 95])
        ),
        "That is the interval of one method. Where is the other?": ends_of_one,
    }
    return mine, theirs, places, ends


@exercise("10/verdict", f"a function of low and high that returns one of {VERDICTS}", Callable)
def verdict(answer: Callable) -> Finding:
    """Ask the function for intervals on either side of zero, across it, and without draws."""
    nan = float("nan")
    cases = [
        (0.01, 0.05, "better", "all draws of places agree"),
        (0.0004, 0.02, "better", "all draws of places agree"),
        (-0.08, -0.02, "worse", "all draws of places agree"),
        (-0.01, 0.06, "cannot tell", "some draws say one thing, some the other"),
        (-0.09, 0.002, "cannot tell", "some draws say one thing, some the other"),
        (0.0, 0.05, "cannot tell", "the interval touches zero"),
        (-0.05, 0.0, "cannot tell", "the interval touches zero"),
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
