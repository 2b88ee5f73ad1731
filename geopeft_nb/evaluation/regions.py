"""Judge a model region by region: at home, and where it has never been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.evaluation.intervals import bootstrap_scores, percentile_interval, sum_by_place
from geopeft_nb.evaluation.trust import check_judged, class_notes
from geopeft_nb.memory.measure import hand_back
from geopeft_nb.models import SegmentationModel, moving_state
from geopeft_nb.pictures.show import COLOURS, escaped, plain, short, table_html, visible
from geopeft_nb.tasks import TASKS
from geopeft_nb.training.run import Run

RunOrModel = Run | SegmentationModel
#: Chips that are read and predicted at once.
AT_ONCE = 8


@dataclass(frozen=True)
class Report:
    """Scores per region.

    Attributes:
        table: One row per region: method, role (home or away), chips, places, the score with the
            ends of its 95 % interval, and more by task. Segmentation: mIoU, pixel accuracy, and the
            IoU of each class. Classification: accuracy, and F1 of each class. Multilabel: F1, its
            mean and of each label. All these 0-1. Regression: R² and RMSE, in the target's unit.
        title: What was judged on what.
        draws: Region -> score of each bootstrap draw, (R,).
        scored: Region -> names of the chips that were scored.
        seed: Seed of the draws; the same seed and chips give the same draws.
        score: Column of the score: ``"mIoU"``, ``"accuracy"``, ``"F1"`` or ``"R²"``.
        limits: Range of the score, in words.
        trained: Seed that the model was trained with, if it was by `fit`.
        notes: What is to be said about the scores.
        counts: Region -> what was counted at each place, (P, ...), which may be added.
        seconds: Wall time of training, if it was a run.
        kept: Bytes of the weights that training changed, which are kept of a model.
    """

    table: pd.DataFrame
    title: str
    draws: dict[str, np.ndarray] = field(default_factory=dict)
    scored: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0
    score: str = "mIoU"
    limits: str = "0-1"
    trained: int | None = None
    notes: tuple[str, ...] = ()
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = np.nan
    kept: int = 0

    def __repr__(self) -> str:
        shown = self.table[["role", "chips", "places", self.score, "low", "high"]].round(3)
        table = shown.to_string(max_rows=9, show_dimensions=False)
        return visible("\n".join([self.title, table, *self.notes]))

    def _repr_html_(self) -> str:
        """Show the table, and what is to be said, in a notebook."""
        said = "".join(f"<p>{escaped(note)}</p>" for note in self.notes)
        return table_html(self.table, self.title) + said

    def compare(self, other: Report) -> pd.DataFrame:
        """Subtract another report from this one, region by region, with a paired interval.

        Both methods are scored on the same draws of places, so what makes a place hard for both
        cancels out. It covers the places, not the luck of training: for that, compare seeds. Where
        the seeds differ, the table's head says so.

        Args:
            other: From `evaluate`, on the same data and with the same seed.

        Returns:
            Per region: difference in score, and `low` and `high`, the ends of its 95 % interval.

        Raises:
            ValueError: The reports are of different chips, seeds or scores, so that their draws do
                not pair.
        """
        if (self.scored, self.seed, self.score) != (other.scored, other.seed, other.score):
            raise GeopeftError(
                f"{self.title!r} and {other.title!r} were not scored on the same chips and draws. "
                "Evaluate both with the same data and seed."
            )
        ends = {x: percentile_interval(y - other.draws[x]) for x, y in self.draws.items()}
        table = pd.DataFrame(ends, ["low", "high"]).T.rename_axis("region")
        table.insert(0, "difference", self.table[self.score] - other.table[self.score])
        table.attrs["note"] = "The intervals cover which places were looked at, not training anew."
        if self.trained != other.trained:
            seeds = f"places, not seeds {self.trained} and {other.trained}"
            table.columns.name = f"interval over {seeds}"
        return table

    def plot(self) -> Figure:
        """Draw the score of each region with its 95 % interval.

        Returns:
            A matplotlib figure.
        """
        return plot_reports([self])


def evaluate(run_or_model: RunOrModel, data: GeoData, seed: int = 0) -> Report:
    """Score a model on the test chips at home and on every held-out region.

    Args:
        run_or_model: From `fit`, or `load_model`.
        data: From `load_data`, with the same task, classes and bands.
        seed: Seed of the bootstrap.

    Returns:
        A report; its 95 % intervals say how much the score depends on which places were looked at.

    Raises:
        ValueError: Another task, other classes or bands than the model's, chips on ground that
            training or validation has seen, pixels of another scale, or nothing to score.
    """
    hand_back()  # what training or timing left free is not to add to what predicting takes
    judged = data.judged
    model: Any = getattr(run_or_model, "model", run_or_model)
    notes = check_judged(model, data, judged)
    names = {region: tuple(chip.name for chip in part.chips) for region, part in judged.items()}
    card, rows, draws, by_place = TASKS[data.task], [], {}, {}
    for region, part in judged.items():
        counts = _counts(model, data, part)
        places = [chip.place for chip in part.chips]
        by_place[region] = sum_by_place(counts, places)
        draws[region] = bootstrap_scores(counts, places, seed=seed, parts=card.parts)
        low, high = percentile_interval(draws[region])
        total = counts.sum(axis=0)
        notes += class_notes(region, card, total, data.classes)
        role = "home" if region in data.regions else "away"
        rows.append({
            "region": region, "method": model.method, "role": role, "chips": len(part),
            "places": len(set(places)), card.title: card.score(total), "low": low, "high": high,
            **card.columns(total, data.classes),
        })  # fmt: skip
    table, trained = pd.DataFrame(rows).set_index("region"), model.trained and model.trained.seed
    title = f"{model.method} on {data.card.title}, trained with seed {trained}"
    return Report(
        table, title, draws, names, seed, card.title, card.limits, trained, tuple(notes), by_place,
        getattr(run_or_model, "seconds", np.nan),
        sum(value.nbytes for value in moving_state(model).values()),
    )  # fmt: skip


def _counts(model: SegmentationModel, data: GeoData, chips: ChipDataset) -> np.ndarray:
    """Predict chips, a few at a time, and count each: (N, ...), as the task's card says."""
    task, counts = TASKS[data.task], []
    for start in range(0, len(chips), AT_ONCE):
        samples = [chips[index] for index in range(start, min(start + AT_ONCE, len(chips)))]
        for sample, predicted in zip(samples, model.predict(samples), strict=True):
            pair = sample[task.target][None], torch.as_tensor(predicted)[None]
            counts.append(task.count(*pair, len(data.classes), data.ignore_index))
    return np.stack(counts)


def plot_reports(reports: list[Report]) -> Figure:
    """Draw the scores of several runs side by side, one row per region.

    Args:
        reports: From `evaluate`, on the same data.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: The reports are of different scores.
    """
    if len(scores := {report.score for report in reports}) != 1:
        raise GeopeftError(
            f"One figure shows one score, and these have {', '.join(sorted(scores))}."
        )
    tables = [(str(report.table["method"].iloc[0]), report.table) for report in reports]
    return plot_rows(tables, reports[0].score, reports[0].limits, "places")


def plot_rows(
    tables: Sequence[tuple[str, pd.DataFrame]], score: str, limits: str, over: str
) -> Figure:
    """Draw scores with their intervals: a band of rows for each region, one row in it for each run.

    Args:
        tables: Name of a run and its table: region -> role, score, low and high.
        score: Column of the score.
        limits: Its range, in words.
        over: What the intervals are over.
    """
    first, step = tables[0][1], min(0.22, 0.8 / len(tables))  # the next region is one row away
    height = 0.9 + len(first) * max(0.55 * max(2, len(tables)) ** 0.5, 0.2 / step)
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=COLOURS[:8], marker=["o", "s", "D", "^", "v", "P", "X", "*"])
    for number, (name, table) in enumerate(tables):
        table = table.loc[first.index]
        rows = np.arange(len(table)) + (number - (len(tables) - 1) / 2) * step
        ends = np.clip([table[score] - table["low"], table["high"] - table[score]], 0, None)
        axes.errorbar(table[score], rows, xerr=ends, ls="", capsize=3, label=name)
    names = [f"{short(name)} ({role})" for name, role in first["role"].items()]
    axes.set_yticks(np.arange(len(first)), names)
    axes.set_ylim(len(first) - 0.5, -0.5)  # the first on top, off the frame
    label = f"{score} ({limits}), bars: 95 % interval over {over}"
    axes.set(xlabel=label, title="Scores region by region")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return plain(figure)
