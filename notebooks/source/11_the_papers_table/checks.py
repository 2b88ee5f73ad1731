"""Checks of the exercises of lesson 11."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from numbers import Real

import numpy as np
import pandas as pd
from scipy import stats

from geopeft_nb.classroom.check import Finding, Slip, ask, ask_number, exercise, slip_of
from geopeft_nb.errors import GeopeftError

CELL = ["model", "method", "data", "side"]
NEAR = 2e-3  # two numbers are the same but for rounding to three digits


@exercise("11/share_above", "a share between 0 and 1", Real)
def share_above(answer: float, scores: pd.Series) -> Finding:
    """Count again, and recognise other ways to count."""
    wide = scores.unstack("method")
    both = wide[["lora", "full"]].dropna()
    above = both["lora"] > both["full"]
    home = above[above.index.get_level_values("side") == "home"]
    slips = {
        "": above.mean(),
        "That is how many. It wants their share.": above.sum(),
        "That is in per cent. It wants a share between 0 and 1.": 100 * above.mean(),
        "That is the share in which LoRA is *not* above.": 1 - above.mean(),
        "It is divided by cells that lack one of the two methods, too.": above.sum() / len(wide),
        "It is divided by all scores. A cell has several of them.": above.sum() / len(scores),
        "That is at home alone. Regions held out are cells as well.": home.mean(),
        "That is one model. Take all that have both methods.": above["Prithvi 2.0 300M"].mean(),
        "Models count alike there. Each cell counts once.": above.groupby("model").mean().mean(),
    }
    every = wide.dropna()
    slips["Cells that lack a third method are dropped, too."] = (every.lora > every.full).mean()
    otherwise = "Bring the methods side by side, drop cells that lack one, compare, count."
    if abs(answer - above.mean()) < 0.006:
        otherwise = "Near. It wants three digits."
    return slip_of(answer, slips, otherwise, NEAR)


@exercise("11/mean_lead", "a function of scores and two methods", Callable)
def mean_lead(answer: Callable) -> Finding:
    """Ask for leads in made-up tables of which cells are lacking."""
    for seed in range(2):
        scores = made_up(seed)
        wide = scores.unstack("method")
        words = "For scores of which cells are lacking"
        found = ask_number(words, answer, scores.copy(), "a", "b")
        both = (wide["a"] - wide["b"]).dropna()
        slips = {
            "": both.mean(),
            "the two means are still over different cells.": wide["a"].mean() - wide["b"].mean(),
            "it is the lead of b over a.": -both.mean(),
            "it is a sum, and the mean is wanted.": both.sum(),
            "it is the median, and the mean is wanted.": both.median(),
            "it is the mean distance. A lead has a sign.": both.abs().mean(),
            "what is lacking counts as 0.": (wide["a"].fillna(0) - wide["b"].fillna(0)).mean(),
            "cells that lack one of the two are counted, too.": both.sum() / len(wide),
            "models count alike. Each cell counts once.": both.groupby("model").mean().mean(),
            "cells that lack a third method are dropped, too.": both[
                wide.notna().all(axis=1)
            ].mean(),
        }
        otherwise = f"it returned {found:.4f}. Subtract within each cell, then take the mean."
        if off := slip_of(found, slips, otherwise, NEAR):
            return f"{words} {off}"
    scores = made_up(2).rename({"a": "x", "b": "a"}, level="method")
    wide = scores.unstack("method")
    one_sided = "it works for some names of methods only: use both arguments."
    try:
        found = ask_number("", answer, scores, "x", "a")
    except Slip:
        return one_sided
    return slip_of(found, {"": (wide["x"] - wide["a"]).mean()}, one_sided, NEAR)


def made_up(seed: int) -> pd.Series:
    """Make scores of three methods, of which a fifth is lacking, some for whole models."""
    draw = np.random.default_rng(seed)
    names = [[f"m{m}" for m in range(4)], [*"abc"], ["d0", "d1", "d2"], ["home", "away"]]
    cells = index = pd.MultiIndex.from_product(names, names=CELL)
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
        try:
            low, high = [float(x) for x in found]
        except (TypeError, ValueError):
            return f"{words} it returned {found!r:.80}, and two ends are wanted, low first."
        if off := _not_the_ends([low, high], *given):
            return f"{words} {off}"
    return ""


def _not_the_ends(found: list[float], a: float, s: float, b: float, z: float, n: int) -> Finding:
    """Say what is off with an interval of a difference."""
    low, high = found
    if low > high:
        return "the low end is above the high one."
    middles = {"": a - b, "it is around b minus a.": b - a}
    if off := slip_of((low + high) / 2, middles, "its middle is not that of a - b.", NEAR):
        return off
    t, spread, root = stats.t.ppf(0.975, 2 * n - 2), math.hypot(s, z), n**0.5
    freedom = "two means have 2n - 2 degrees of freedom"
    slips = {
        "": t * spread / root,
        "`s` is that of single runs: a mean of n is surer.": t * spread,
        "n stands inside the root.": t * spread / n,
        "1.96 is for many runs. With few, t is larger.": 1.96 * spread / root,
        f"{freedom}.": stats.t.ppf(0.975, n - 1) * spread / root,
        f"{freedom}, not 2n.": stats.t.ppf(0.975, 2 * n) * spread / root,
        "2.5 % lie beyond *each* end.": stats.t.ppf(0.95, 2 * n - 2) * spread / root,
        "add the squares of the deviations, not the deviations.": t * (s + z) / root,
        "the root goes over the squares, too.": t * (s**2 + z**2) / root,
        "the second mean is not sure either.": t * s / root,
        "that is one standard error. t is missing.": spread / root,
    }
    return slip_of((high - low) / 2, slips, "the middle is right, and the width is not.", NEAR)


@exercise("11/time_share", "a share of the time of full fine-tuning", Real)
def time_share(answer: float, times: pd.DataFrame) -> Finding:
    """Recompute it, and recognise other times and other means."""
    lora, full = times.loc["lora"], times.loc["full"]
    ratio = lora["total_time"] / full["total_time"]
    epochs = lora["epochs"] / full["epochs"]
    pooled = lora["total_time"].sum() / full["total_time"].sum()
    slips = {
        "": ratio.mean(),
        "That is full fine-tuning as a share of LoRA.": (1 / ratio).mean(),
        "That is one divided by it: full fine-tuning as a share of LoRA.": 1 / ratio.mean(),
        "Each data set counts alike: divide first, then take the mean.": pooled,
        "That is the time of an epoch. It wants that of the whole run.": (ratio / epochs).mean(),
        "Those are epochs, not time.": epochs.mean(),
        "That is what LoRA saves, not what it takes.": 1 - ratio.mean(),
        "That is in per cent. It wants a share.": 100 * ratio.mean(),
        "That is the median. It wants the mean.": ratio.median(),
    }
    otherwise = "Divide total times data set by data set, then take the mean."
    return slip_of(answer, slips, otherwise, NEAR)


GRID = ("data", "data_options", "backbone", "decoder", "method", "seed", "epochs", "batch_size")


@exercise("11/grid", "a pandas table with a row for each run", pd.DataFrame)
def grid(
    answer: pd.DataFrame, data: str, data_options: dict, model: str, methods: list[str],
    seeds: list[int], epochs: int, batch_size: int,
) -> Finding:  # fmt: skip
    """Look at the columns, then at the pairs of method and seed, then at what should be alike."""
    if lacking := [name for name in GRID if name not in answer]:
        return f"It has no column {', '.join(lacking)}."
    if extra := [name for name in answer if name not in (*GRID, "device")]:
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
    for name, value in (right | {"batch_size": batch_size, "data_options": data_options}).items():
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
