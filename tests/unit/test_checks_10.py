"""The checks of lesson 10 recognise right answers and name the usual slips."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from geopeft_nb.classroom.check import check
from geopeft_nb.tasks import mean_iou

Places = Sequence[str]
JUDGED = {True: "better", False: "worse"}


@pytest.mark.parametrize(
    ("find", "says"),
    [
        (lambda a, b: len(set(a) & set(b)), "does not say where"),
        (lambda a, b: bool(set(a) & set(b)), "does not say where"),
        (lambda a, b: [name for name in b if name in a], "more than once"),
        (lambda a, b: set(a) | set(b), "either side"),
        (lambda a, b: set(a) ^ set(b), "one side only"),
        (lambda a, b: set(a) - set(b), "alone"),
        (lambda a, b: {p for p, q in zip(a, b, strict=False) if p == q}, "anywhere"),
        (lambda a, b: {q for q in b if any(p in q for p in a)}, "equal as a whole"),
        (lambda a, b: {min(set(a) & set(b))}, "misses 'coast-2'"),
        (lambda a, b: {"somewhere"}, "neither side"),
        (lambda a, b: None, "return"),
        (lambda a, b: "delta-1", "no collection"),
        ({"delta-1"}, "function itself"),
    ],
)
def test_leak_recognises_the_usual_slips(find: object, says: str) -> None:
    result = check("10/leak", find)
    assert not result.passed and says in result.message


@pytest.mark.parametrize("kind", [set, sorted, np.asarray])
def test_leak_takes_any_collection_of_names(kind: Callable[[list[str]], object]) -> None:
    assert check("10/leak", lambda a, b: kind(list(set(a) & set(b)))).passed


def drawn(
    matrices: np.ndarray, places: Places, repeats: int = 1000, seed: int | None = 3
) -> np.ndarray:
    """Score draws of places the way a learner might."""
    names, random = sorted(set(places)), np.random.default_rng(seed)
    sums = {n: matrices[np.asarray(places) == n].sum(axis=0) for n in names}
    draws = random.choice(names, size=(repeats, len(names)))
    return np.array([mean_iou(sum(sums[name] for name in draw)) for draw in draws])


def ends(scores: np.ndarray, share: float = 0.95) -> tuple[float, float]:
    low, high = np.quantile(scores, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def of_places(matrices: np.ndarray, places: Places) -> np.ndarray:
    return np.array(
        [mean_iou(matrices[np.asarray(places) == n].sum(axis=0)) for n in sorted(set(places))]
    )


def of_averages(matrices: np.ndarray, places: Places) -> np.ndarray:
    each = of_places(matrices, places)
    return np.random.default_rng(0).choice(each, (1000, len(each))).mean(axis=1)


def one_deviation(matrices: np.ndarray, places: Places) -> tuple[float, float]:
    scores = drawn(matrices, places)
    return scores.mean() - scores.std(), scores.mean() + scores.std()


@pytest.mark.parametrize(
    ("interval", "says"),
    [
        (lambda m, p: ends(drawn(m, [str(n) for n in range(len(m))])), "single chips"),
        (lambda m, p: ends(drawn(m, p), 0.9), "another share"),
        (lambda m, p: ends(of_averages(m, p)), "Add up their counts"),
        (lambda m, p: ends(of_places(m, p)), "single places spread"),
        (lambda m, p: ends(np.full(1000, mean_iou(m.sum(axis=0)))), "with replacement"),
        (one_deviation, "one standard deviation"),
        (lambda m, p: ends(drawn(m, p))[::-1], "lower end comes first"),
        (lambda m, p: tuple(100 * value for value in ends(drawn(m, p))), "0 to 1"),
        (lambda m, p: (0.0, 1.0), "wide"),
        (lambda m, p: (float("nan"), 0.9), "both classes"),
        (lambda m, p: 0.8, "Two numbers"),
        (lambda m, p: m.reshape(-1, 4, 2, 2), "from one to four chips"),
        ((0.7, 0.8), "function itself"),
    ],
)
def test_interval_recognises_the_usual_slips(interval: object, says: str) -> None:
    result = check("10/interval", interval)
    assert not result.passed and says in result.message


def test_interval_takes_the_draws_of_any_seed() -> None:
    """An end of 1,000 draws varies by 0.09 standard deviations; the check allows 0.35."""
    passed = [
        check("10/interval", lambda m, p, seed=seed: ends(drawn(m, p, seed=seed))).passed
        for seed in range(20)
    ]
    assert all(passed)


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        (lambda low, high: "better" if low + high > 0 else "worse", "Where does zero lie"),
        (lambda low, high: "worse" if low > 0 else "better", "first minus the second"),
        (lambda low, high: "better" if low > 0 else "worse", "Where does zero lie"),
        (lambda low, high: "cannot tell" if low < 0 < high else JUDGED[low > 0], "nothing to draw"),
        (lambda low, high: "yes", "Allowed"),
        (lambda low: "better", "TypeError"),
        ("better", "function itself"),
    ],
)
def test_verdict_recognises_the_usual_slips(judge: object, says: str) -> None:
    result = check("10/verdict", judge)
    assert not result.passed and says in result.message


def test_verdict_passes_where_zero_decides() -> None:
    def judge(low: float, high: float) -> str:
        return "better" if low > 0 else "worse" if high < 0 else "cannot tell"

    assert check("10/verdict", judge).passed
