"""Compare methods that were trained with several seeds: what the scores allow one to claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.evaluation.intervals import SEEDS, Interval, Scored, scored, weigh
from geopeft_nb.evaluation.regions import Report, evaluate, plot_rows
from geopeft_nb.pictures.show import escaped, in_bytes, markdown, table_html, visible
from geopeft_nb.tasks import TASKS

#: A run, a model or a report; or a list of them, each trained with a seed of its own.
Judged = Any

UNKNOWN = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Comparison:
    """Scores of several methods, and what they allow one to claim.

    Attributes:
        table: A row per region and method: role, seeds, places, the mean score with the ends of its
            95 % interval, and what the interval is over; away also the gap, home minus away, with
            its interval; seconds of training and bytes that are kept, both the mean. Several
            regions of a role have a further row for all of them together.
        differences: A row per region and pair of methods: the difference in score, first minus
            second, with the ends of its 95 % interval, and what it is over. Both were scored on the
            same places, so what makes a place hard for both cancels out.
        title: What was compared.
        score: Column of the score.
        limits: Its range, in words.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    title: str
    score: str
    limits: str

    def __repr__(self) -> str:
        tables = [table.round(3).to_string() for table in (self.table, self.differences)]
        return visible("\n\n".join([self.title, *tables, self.sentence()]))

    def _repr_html_(self) -> str:
        """Show both tables, and what may be said, in a notebook."""
        tables = table_html(self.table, self.title) + table_html(self.differences, "Differences")
        return f"{tables}<p>{escaped(self.sentence())}</p>"

    def plot(self) -> Figure:
        """Draw the score of each region and method with its interval."""
        names = self.table.index.unique("method")
        tables = [(str(name), self.table.xs(name, level="method")) for name in names]
        over = "; ".join(sorted(self.table["over"].unique()))
        return plot_rows(tables, self.score, self.limits, over)

    def sentence(self) -> str:
        """Say what the intervals allow one to claim, and no more."""
        few = self.table.index[self.table["seeds"] < SEEDS].unique("method")
        said = [f"{name} has fewer than {SEEDS} seeds: it is not said to differ." for name in few]
        for (region, first, second), row in self.differences.iterrows():
            if {first, second} & {*few}:
                continue
            numbers = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
            if np.isnan(row["low"]):
                claim = f"{first} and {second} cannot be compared: one place, or a class in one"
            elif row["low"] <= 0 <= row["high"]:
                claim = f"{first} and {second} cannot be told apart: {numbers}"
            else:
                more = "more" if row["low"] > 0 else "less"
                claim = f"{first} scores {more} than {second}: {numbers}"
            said.append(f"{region}: {claim}.")
        note = "Each interval is of 95 % by itself: of 20 pairs that are alike one seems to differ."
        return " ".join([*said, note])

    def to_markdown(self) -> str:
        """Write the table of scores for a text in Markdown."""
        shown = self._written()
        rows = [[str(markdown(cell)) for cell in row] for row in [shown, *shown.to_numpy()]]
        rows.insert(1, ["---"] * len(shown.columns))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def to_latex(self) -> str:
        """Write the table of scores for a paper; it needs the LaTeX package booktabs."""
        return str(self._written().to_latex(index=False, escape=True))

    def _written(self) -> pd.DataFrame:
        """Return the table in words: numbers with their intervals, seconds and sizes."""
        table = self.table.reset_index()
        shown = table[["region", "role", "method", "seeds", "over"]].copy()
        for name, ends in ((self.score, ""), ("gap", "gap ")):
            numbers = table[[name, f"{ends}low", f"{ends}high"]].to_numpy()
            shown[name] = ["" if x != x else f"{x:.3f} ({a:.3f} to {b:.3f})" for x, a, b in numbers]
        more = {"seconds": table["seconds"].round(1), "kept": table["kept"].map(in_bytes)}
        return shown.assign(**more).map(visible)


def compare(runs: Mapping[str, Judged], data: GeoData | None = None) -> Comparison:
    """Compare methods over places and seeds, region by region.

    Args:
        runs: Name of a method -> its runs, each trained with a seed of its own: a list, or one. A
            model or a report of `evaluate` stands for a run, too.
        data: From `load_data`; None if all are reports.

    Returns:
        A comparison: `.table`, `.differences`, `.plot()`, `.sentence()`, `.to_markdown()` and
        `.to_latex()`.

    Raises:
        ValueError: No runs, a seed twice under one name, reports of other chips or scores, or what
            `evaluate` refuses.

    Example:
        >>> gp.compare({"LoRA": [run_0, run_1, run_2], "full": [other_0, other_1, other_2]}, data)
    """
    reports = {str(name): _reports(str(name), given, data) for name, given in runs.items()}
    every = [report for several in reports.values() for report in several]
    chips = {(repr(report.scored), report.score) for report in every}
    if len(chips) != 1 or not all(reports.values()):
        raise GeopeftError(
            "Methods are compared on the same chips and score, and these are not, or there are "
            "none. Evaluate all with the same data."
        )
    first, sides = every[0], _sides(every[0])
    parts = next(card.parts for card in TASKS.values() if card.title == first.score)
    cells = {}
    for region, (_, regions) in sides.items():
        for name, several in reports.items():
            counts = [np.concatenate([one.counts[part] for part in regions]) for one in several]
            cells[region, name] = scored(name, region, np.stack(counts), parts)
    home = [region for region, (role, _) in sides.items() if role == "home"]
    rows, differences = [], []
    for (region, name), cell in cells.items():
        role, gap = sides[region][0], UNKNOWN
        if role == "away" and home:  # from all of home, which comes last
            gap = weigh([(1, cells[home[-1], name]), (-1, cell)])
        ends = np.clip(weigh([(1, cell)]), 0 if first.limits == "0-1" else None, 1)
        rows.append({
            "region": region, "method": name, "role": role, "seeds": len(cell.seeds),
            "places": cell.values.shape[1],
            **dict(zip((first.score, "low", "high"), ends.tolist(), strict=True)),
            "over": _over(cell), "gap": gap.value, "gap low": gap.low, "gap high": gap.high,
            "seconds": np.mean([report.seconds for report in reports[name]]),
            "kept": np.mean([report.kept for report in reports[name]]),
        })  # fmt: skip
    pairs = ["region", "first", "second", "difference", "low", "high", "over"]
    for region in sides:
        for a, b in combinations(reports, 2):
            one, other = cells[region, a], cells[region, b]
            differences.append((region, a, b, *weigh([(1, one), (-1, other)]), _over(one, other)))
    return Comparison(
        pd.DataFrame(rows).set_index(["region", "method"]),
        pd.DataFrame(differences, columns=pairs).set_index(pairs[:3]),
        f"{first.score} of {', '.join(reports)}", first.score, first.limits,
    )  # fmt: skip


def _reports(name: str, given: Judged, data: GeoData | None) -> list[Report]:
    """Return the reports of one method, each of a seed of its own."""
    several = given if isinstance(given, list | tuple) else [given]
    reports = [
        one if isinstance(one, Report) or data is None else evaluate(one, data) for one in several
    ]
    if other := [one for one in reports if not isinstance(one, Report)]:
        raise GeopeftError(f"compare needs data to judge a {type(other[0]).__name__}: give both.")
    seeds = [report.trained for report in reports if report.trained is not None]
    if len(set(seeds)) < len(seeds):
        raise GeopeftError(
            f"{name} has runs of one seed, {seeds}: twice the same tells nothing of training anew. "
            "Give each a seed of its own: fit(..., seed=1)."
        )
    return reports


def _sides(report: Report) -> dict[str, tuple[str, list[str]]]:
    """Return region -> its role and itself; and all of a role, if it has several."""
    sides: dict[str, tuple[str, list[str]]] = {}
    for role, regions in report.table.groupby("role", sort=False).groups.items():
        sides |= {str(region): (str(role), [region]) for region in regions}
        if len(regions) > 1:
            sides[f"all {role}"] = (str(role), list(regions))
    return sides


def _over(*cells: Scored) -> str:
    """Say what an interval is over."""
    return "places and seeds" if min(len(cell.seeds) for cell in cells) >= SEEDS else "places"
