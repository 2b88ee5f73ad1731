"""Checks of the exercises of lesson 11."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np
import pandas as pd
from scipy import stats

from geopeft_nb.classroom.check import Finding, Slip, ask, ask_number, exercise
from geopeft_nb.errors import GeopeftError

CELL = ["model", "method", "data", "side"]


def near(answer: float, right: float) -> bool:
    """Say whether two numbers are the same but for rounding to three digits."""
    return math.isclose(answer, right, rel_tol=2e-3, abs_tol=1e-9)


@exercise("11/share_above", "a share between 0 and 1", Real)
def share_above(answer: float, scores: pd.Series) -> Finding:
    """Count again, and recognise other ways to count."""
    wide = scores.unstack("method")
    both = wide[["lora", "full"]].dropna()
    above = both["lora"] > both["full"]
    if near(answer, above.mean()):
        return ""
    home = above[above.index.get_level_values("side") == "home"]
    slips = {
        float(above.sum()): "That is how many. It wants their share.",
        100 * above.mean(): "That is in per cent. It wants a share between 0 and 1.",
        1 - above.mean(): "That is the share in which LoRA is *not* above.",
        above.sum() / len(wide): "It is divided by cells that lack one of the two methods, too.",
        above.sum() / len(scores): "It is divided by all scores. A cell has several of them.",
        home.mean(): "That is at home alone. Regions held out are cells as well.",
        above["Prithvi 2.0 300M"].mean(): "That is one model. Take all that have both methods.",
        above.groupby("model").mean().mean(): "Models count alike there. Each cell counts once.",
    }
    for value, words in slips.items():
        if near(answer, value):
            return words
    return "Bring the methods side by side, drop cells that lack one, compare, count."


@exercise("11/mean_lead", "a function of scores and two methods", Callable)
def mean_lead(answer: Callable) -> Finding:
    """Ask for leads in made-up tables of which cells are lacking."""
    for seed in range(2):
        scores = made_up(seed)
        wide = scores.unstack("method")
        words = "For scores of which cells are lacking"
        found = ask_number(words, answer, scores.copy(), "a", "b")
        both = (wide["a"] - wide["b"]).dropna()
        if near(found, both.mean()):
            continue
        slips = {
            wide["a"].mean() - wide["b"].mean(): "the two means are still over different cells.",
            -both.mean(): "it is the lead of b over a.",
            both.sum(): "it is a sum, and the mean is wanted.",
            both.median(): "it is the median, and the mean is wanted.",
            both.abs().mean(): "it is the mean distance. A lead has a sign.",
            (wide["a"].fillna(0) - wide["b"].fillna(0)).mean(): "what is lacking counts as 0.",
            both.sum() / len(wide): "cells that lack one of the two are counted, too.",
            both.groupby("model").mean().mean(): "models count alike. Each cell counts once.",
        }
        for value, off in slips.items():
            if near(found, value):
                return f"{words} {off}"
        return f"{words} it returned {found:.4f}. Subtract within each cell, then take the mean."
    scores = made_up(2).rename({"a": "x", "b": "a"}, level="method")
    wide = scores.unstack("method")
    try:
        works = near(ask_number("", answer, scores, "x", "a"), (wide["x"] - wide["a"]).mean())
    except Slip:
        works = False
    return "" if works else "it works for some names of methods only: use both arguments."


def made_up(seed: int) -> pd.Series:
    """Make scores of three methods, of which a fifth is lacking, some for whole models."""
    draw = np.random.default_rng(seed)
    cells = [(f"m{m}", how, f"d{d}", "home") for m in range(4) for how in "abc" for d in range(5)]
    index = pd.MultiIndex.from_tuples(cells, names=CELL)
    scores = pd.Series(draw.uniform(0.2, 0.9, len(cells)), index)
    gone = (scores.index.get_level_values("model") == "m0") & (
        scores.index.get_level_values("method") == "b"
    )
    return scores[~gone & (draw.uniform(size=len(cells)) > 0.15)]


@exercise("11/interval", "a function of two means, two deviations and n", Callable)
def interval(answer: Callable) -> Finding:
    """Ask for intervals of few runs and of many, of which the first mean is higher and lower."""
    for given in ((80.0, 1.5, 78.0, 2.0, 5), (0.5, 0.02, 0.6, 0.01, 3)):
        words = f"For {', '.join(f'{x:g}' for x in given)}"
        found = ask(words, answer, *given)
        if found is None:
            return f"{words} it returned nothing. Is there a return?"
        if not isinstance(found, Sequence | np.ndarray) or len(found) != 2:
            return f"{words} it returned {found!r}, and two ends are wanted, low first."
        if off := _not_the_ends([float(x) for x in found], *given):
            return f"{words} {off}"
    return ""


def _not_the_ends(found: list[float], a: float, s: float, b: float, z: float, n: int) -> Finding:
    """Say what is off with an interval of a difference."""
    middle, spread = a - b, math.hypot(s, z)
    t, low, high = stats.t.ppf(0.975, 2 * n - 2), *found
    half = t * spread / n**0.5
    if near(low, middle - half) and near(high, middle + half):
        return ""
    if low > high:
        return "the low end is above the high one."
    if not near((low + high) / 2, middle):
        other = near((low + high) / 2, -middle)
        return "it is around b minus a." if other else "its middle is not the difference of means."
    width = (high - low) / 2
    slips = {
        t * spread: "`s` is that of single runs: a mean of n is surer.",
        t * spread / n: "n stands inside the root.",
        1.96 * spread / n**0.5: "1.96 is for many runs. With few, t is larger.",
        stats.norm.ppf(0.975) * spread / n**0.5: "1.96 is for many runs. With few, t is larger.",
        stats.t.ppf(0.975, n - 1) * spread / n**0.5: "two means have 2n - 2 degrees of freedom.",
        stats.t.ppf(0.975, 2 * n) * spread / n**0.5: "two means have 2n - 2 degrees of freedom.",
        stats.t.ppf(0.95, 2 * n - 2) * spread / n**0.5: "2.5 % lie beyond *each* end.",
        t * (s + z) / n**0.5: "add the squares of the deviations, not the deviations.",
        t * (s**2 + z**2) / n**0.5: "the root goes over the squares, too.",
        t * s / n**0.5: "the second mean is not sure either.",
        spread / n**0.5: "that is one standard error. t is missing.",
    }
    for value, words in slips.items():
        if near(width, value):
            return words
    return "the middle is right, and the width is not."


@exercise("11/time_share", "a share of the time of full fine-tuning", Real)
def time_share(answer: float, times: pd.DataFrame) -> Finding:
    """Recompute it, and recognise other times and other means."""
    lora, full = times.loc["lora"], times.loc["full"]
    ratio = lora["total_time"] / full["total_time"]
    if near(answer, ratio.mean()):
        return ""
    epochs = lora["epochs"] / full["epochs"]
    slips = {
        (1 / ratio).mean(): "That is full fine-tuning as a share of LoRA.",
        1 / ratio.mean(): "That is full fine-tuning as a share of LoRA.",
        lora["total_time"].sum() / full["total_time"].sum(): "Each data set counts alike: divide "
        "first, then take the mean.",
        (ratio / epochs).mean(): "That is the time of an epoch. It wants that of the whole run.",
        epochs.mean(): "Those are epochs, not time.",
        1 - ratio.mean(): "That is what LoRA saves, not what it takes.",
        100 * ratio.mean(): "That is in per cent. It wants a share.",
        ratio.median(): "That is the median. It wants the mean.",
    }
    for value, words in slips.items():
        if near(answer, value):
            return words
    return "Divide total times data set by data set, then take the mean."


GRID = ("data", "data_options", "backbone", "decoder", "method", "seed", "epochs", "batch_size")


@exercise("11/grid", "a pandas table with a row for each run", pd.DataFrame)
def grid(
    answer: pd.DataFrame, data: str, model: str, methods: list[str], seeds: list[int], epochs: int,
    batch_size: int,
) -> Finding:  # fmt: skip
    """Look at the columns, then at the pairs of method and seed, then at what should be alike."""
    if lacking := [name for name in GRID if name not in answer]:
        return f"It has no column {', '.join(lacking)}."
    if "device" not in answer and (extra := [c for c in answer if c not in GRID]):
        return f"It has a column too many: {', '.join(map(str, extra))}."
    pairs = [*zip(answer["method"], answer["seed"], strict=True)]
    wanted = {(name, one) for name in methods for one in seeds}
    if len(pairs) == len(methods) and len(seeds) > 1 and {*answer["method"]} == {*methods}:
        return "Each method has one seed. Pair each method with each seed."
    if missing := wanted - {*pairs}:
        name, one = min(missing)
        return f"No row has {name} with seed {one}."
    if strange := {*pairs} - wanted:
        name, one = min(strange)
        return f"A row has {name} with seed {one}, which this lesson does not compare."
    if len(pairs) > len(wanted):
        return "A run stands in it twice. The same run again tells nothing new."
    for name in ("data_options", "epochs", "batch_size", "decoder", "data", "backbone"):
        if len({json.dumps(x, default=str) for x in answer[name]}) > 1:
            return f"{name} differs between rows. Only method and seed may."
    right = {"data": data, "backbone": model, "decoder": "linear", "epochs": epochs}
    for name, value in (right | {"batch_size": batch_size}).items():
        if answer[name].iloc[0] != value:
            return f"{name} is {answer[name].iloc[0]}, and should be {value}."
    return _refused(answer)


@exercise("11/question", "a pandas table with a row for each run", pd.DataFrame)
def question(answer: pd.DataFrame) -> Finding:
    """Look for one column that differs, for seeds of each of its values, and build all cells."""
    if not 6 <= len(answer) <= 24:
        return f"It has {len(answer)} rows. Two values with three seeds are 6, and 24 are allowed."
    if "seed" not in answer:
        return "It has no column seed."
    told = answer.map(lambda x: json.dumps(x, sort_keys=True, default=str))
    differ = [name for name in told if name != "seed" and told[name].nunique() > 1]
    if not differ:
        return "Only the seed differs: what is the question?"
    if len(differ) > 1:
        return f"{' and '.join(map(str, differ))} differ, and nobody can tell which of them did it."
    seeds = answer["seed"].groupby(told[differ[0]]).agg(lambda x: tuple(sorted(x)))
    if seeds.map(lambda x: len({*x})).min() < 3:
        return "A value has fewer than three seeds."
    if seeds.map(lambda x: len(x) - len({*x})).max():
        return "A run stands in it twice."
    if seeds.nunique() > 1:
        return "The values have different seeds. Give each the same ones."
    return _refused(answer)


def _refused(table: pd.DataFrame) -> Finding:
    """Build each kind of cell without weights, and say what is refused."""
    from geopeft_nb.benchmark.run import run_benchmark

    try:
        run_benchmark(table.drop_duplicates("method").reset_index(drop=True)
                      if table["method"].nunique() > 1 else table, dry_run=True)  # fmt: skip
    except (GeopeftError, KeyError, TypeError) as error:
        raise Slip(f"run_benchmark refuses it: {error}") from error
    return ""
