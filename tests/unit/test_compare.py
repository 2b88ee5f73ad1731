"""Methods compared over places and seeds: how often intervals hold the truth, and what is said."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer

import geopeft_nb as gp
from geopeft_nb.evaluation.compare import Comparison
from geopeft_nb.evaluation.intervals import scored, weigh
from geopeft_nb.evaluation.regions import Report
from geopeft_nb.tasks import mean_iou

#: Standard deviations of what makes an error likelier, in logits: seed, place, and both.
SPREAD = (0.3, 0.6, 0.3)
Places = tuple[np.ndarray, np.ndarray, np.ndarray]


def places(rng: np.random.Generator, count: int) -> Places:
    """Draw size, share of water and difficulty of some places."""
    size, water = rng.lognormal(0, 0.5, count), rng.beta(2, 3, count)
    return size, water, rng.normal(0, SPREAD[1], count)


def trained(rng: np.random.Generator, seeds: int, where: Places, shift: float = 0) -> np.ndarray:
    """Return counts (S, P, 2, 2) of a method that errs the more the greater its shift."""
    size, water, hard = where
    luck = rng.normal(0, SPREAD[0], (seeds, 1)) + rng.normal(0, SPREAD[2], (seeds, len(size)))
    missed, false = (1 / (1 + np.exp(2 + x - shift - hard - luck)) for x in (0.0, 0.5))
    rows = (1 - water) * (1 - false), (1 - water) * false, water * missed, water * (1 - missed)
    return 1000 * (size * np.stack(rows)).transpose(1, 2, 0).reshape(seeds, len(size), 2, 2)


def truth(shift: float) -> float:
    """Return the score of all seeds on all places there are, nearly."""
    rng = np.random.default_rng(99)
    draws = [trained(rng, 300, places(rng, 3000), shift).sum(axis=1) for _ in range(4)]
    return float(np.mean([mean_iou(counts) for counts in draws]))


@pytest.mark.slow
def test_intervals_hold_the_truth_in_about_95_of_100_trials() -> None:
    ours, theirs, found = truth(0), truth(0.3), {}
    for seeds in (3, 5, 10):
        for count in (8, 20, 60):
            rng, held = np.random.default_rng(100 * seeds + count), np.zeros(2)
            for _ in range(500):
                where = places(rng, count)
                a = scored("a", "here", trained(rng, seeds, where))
                b = scored("b", "here", trained(rng, seeds, where, 0.3))
                _, low, high = weigh([(1, a)])
                _, under, over = weigh([(1, a), (-1, b)])
                held += low <= ours <= high, under <= ours - theirs <= over
            found[seeds, count] = held / 500
    table = pd.DataFrame(found, ["score", "difference"]).T
    print(table)
    assert table.to_numpy().min() >= 0.92 and table.to_numpy().max() <= 0.98


def report(counts: np.ndarray, away: np.ndarray, seed: int | None, method: str = "lora") -> Report:
    """Make the report of one seed, at home and in one or two regions away."""
    regions = {"home": counts} | {f"away {n}": part for n, part in enumerate(away)}
    role = ["home", *["away"] * len(away)]
    table = pd.DataFrame({"method": method, "role": role}, pd.Index(regions, name="region"))
    names = {region: tuple(f"{region} {n}" for n in range(len(x))) for region, x in regions.items()}
    return Report(table, method, {}, names, trained=seed, counts=regions, seconds=2.0, kept=4096)


def comparison(shifts: dict[str, float], seeds: int = 4, away: int = 1) -> Comparison:
    rng = np.random.default_rng(5)
    where = [places(rng, 20) for _ in range(1 + away)]
    runs: dict[str, Sequence[Report]] = {}
    for name, shift in shifts.items():
        home, *others = (trained(rng, seeds, place, shift + n) for n, place in enumerate(where))
        runs[name] = [report(home[s], [x[s] for x in others], s, name) for s in range(seeds)]
    return gp.compare(runs)


def test_a_clear_difference_is_said_and_a_small_one_is_not() -> None:
    found = comparison({"LoRA": 0, "full": 2, "twin": 0.01})
    said = found.sentence()
    assert "home: LoRA scores more than full: +0." in said
    assert "home: full scores less than twin: -0." in said
    assert "home: LoRA and twin cannot be told apart" in said
    row = found.differences.loc["home", "LoRA", "full"]
    scores = found.table["mIoU"]
    assert row["difference"] == pytest.approx(scores["home", "LoRA"] - scores["home", "full"])
    assert 0 < row["low"] < row["difference"] < row["high"]
    gap = found.table.loc[("away 0", "LoRA")]
    assert gap["gap"] == pytest.approx(scores["home", "LoRA"] - scores["away 0", "LoRA"])
    assert gap["gap low"] < gap["gap"] < gap["gap high"]
    assert found.table["over"].unique().tolist() == ["places and seeds"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_fewer_than_three_seeds_nothing_is_said_to_differ(seeds: int) -> None:
    found = comparison({"LoRA": 0, "full": 3}, seeds)
    assert found.table["over"].unique().tolist() == ["places"]
    assert "LoRA has fewer than 3 seeds: it is not said to differ." in found.sentence()
    assert "scores more" not in found.sentence()
    assert found.table["low"].notna().all()


def test_all_regions_of_a_role_have_a_row_together() -> None:
    found = comparison({"LoRA": 0}, away=2)
    assert [*found.table.index.unique("region")] == ["home", "away 0", "away 1", "all away"]
    assert found.table.loc[("all away", "LoRA"), "places"] == 40
    assert found.differences.empty and "nan" not in found.to_markdown()


def test_one_place_or_a_class_in_one_place_gives_no_interval() -> None:
    counts = np.array([[[50, 0], [0, 0]]] * 5 + [[[40, 5], [5, 20]]])
    alone = gp.compare({"LoRA": [report(counts, [counts[:1]], s) for s in range(3)]}).table
    assert alone[["low", "high"]].isna().all(axis=None)
    both = gp.compare({"LoRA": [report(counts[[0, 5, 5]], [], s) for s in range(3)]}).table
    assert both[["low", "high"]].notna().all(axis=None)


def test_the_same_seed_twice_and_other_chips_are_refused() -> None:
    counts = np.array([[[50, 5], [5, 50]]] * 4)
    twice = [report(counts, [], 0), report(counts, [], 0)]
    with pytest.raises(ValueError, match=r"LoRA has runs of one seed, \[0, 0\]"):
        gp.compare({"LoRA": twice})
    with pytest.raises(ValueError, match="compared on the same chips"):
        gp.compare({"LoRA": twice[:1], "full": report(counts[:3], [], 1)})
    with pytest.raises(ValueError, match="compare needs data"):
        gp.compare({"LoRA": object()})


def test_rows_of_a_region_stay_apart_from_those_of_the_next() -> None:
    (axes,) = comparison({f"method {n}": n / 10 for n in range(9)}).plot().axes
    bars = [x for x in axes.containers if isinstance(x, ErrorbarContainer)]
    rows = np.array([bar[0].get_ydata() for bar in bars])  # (methods, regions)
    assert rows.shape == (9, 2)
    between = rows[:, 1].min() - rows[:, 0].max()
    assert between > 1.5 * np.diff(rows[:, 0]).max() > 0


def test_tables_are_written_for_papers_without_markup_in_names() -> None:
    found = comparison({"LoRA_r|16": 0, "full & all": 1})
    head, line, first, *_ = found.to_markdown().split("\n")
    assert head.count("|") == line.count("|") == first.count("|") - first.count(r"\|")
    assert r"LoRA\_r" in found.to_latex() and r"full \& all" in found.to_latex()
    assert "4.00 KiB" in first and " (0." in first


def test_runs_of_three_seeds_are_judged_and_compared() -> None:
    data = gp.load_data("scenes", size=32)
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "linear_probe")
    found = gp.compare({"untrained": model}, data)
    one = gp.evaluate(model, data)
    for region, row in one.table.iterrows():
        here = found.table.loc[(region, "untrained")]
        assert here["mIoU"] == pytest.approx(row["mIoU"]) and here["places"] == row["places"]
    kept = sum(w.numel() * 4 for w in model.parameters() if w.requires_grad)
    assert found.table["kept"].unique().tolist() == [kept]
