"""Judge a model region by region: at home, and where it has never been."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import expect
from geopeft_nb.evaluation.metrics import (
    bootstrap_scores,
    class_iou,
    confusion,
    mean_iou,
    percentile_interval,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geopeft_nb.training.fit import Run


@dataclass(frozen=True)
class Report:
    """Scores per region.

    Attributes:
        table: One row per region: method, role (home or away), chips, places, mIoU with the ends of
            its 95 % interval, pixel accuracy, and the IoU of each class; all 0-1.
        title: What was judged on what.
        draws: Region -> mIoU of each bootstrap draw, (R,).
        scored: Region -> names of the chips that were scored.
        seed: Seed of the draws; the same seed and chips give the same draws.
    """

    table: pd.DataFrame
    title: str
    draws: dict[str, np.ndarray] = field(default_factory=dict)
    scored: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        shown = self.table.style.format(precision=3).set_caption(self.title)
        return str(shown.to_html())

    def compare(self, other: Report) -> pd.DataFrame:
        """Subtract another report from this one, region by region, with a paired interval.

        Both methods are scored on the same draws of places, so what makes a place hard for both
        cancels out. It covers the places, not the luck of training: for that, compare seeds.

        Args:
            other: From `evaluate`, on the same data and with the same seed.

        Returns:
            Per region: difference in mIoU, and `low` and `high`, the ends of its 95 % interval.

        Raises:
            ValueError: The reports are of different chips or seeds, so their draws do not pair.
        """
        if (self.scored, self.seed) != (other.scored, other.seed):
            raise ValueError(
                f"{self.title!r} and {other.title!r} were not scored on the same chips and draws. "
                "Evaluate both with the same data and seed."
            )
        rows = {}
        for region, draws in self.draws.items():
            low, high = percentile_interval(draws - other.draws[region])
            difference = self.table.loc[region, "mIoU"] - other.table.loc[region, "mIoU"]
            rows[region] = {"difference": difference, "low": low, "high": high}
        return pd.DataFrame(rows).T.rename_axis("region")

    def plot(self) -> Figure:
        """Draw the mIoU of each region with its 95 % interval.

        Returns:
            A matplotlib figure.
        """
        return plot_reports([self])


def evaluate(run: Run, data: GeoData, seed: int = 0) -> Report:
    """Score a run on the test chips at home and on every held-out region.

    Args:
        run: From `fit`.
        data: From `load_data`, with the same classes and bands.
        seed: Seed of the bootstrap.

    Returns:
        A report; its 95 % intervals say how much the score depends on which places were looked at.

    Raises:
        ValueError: Other classes or bands than the model's, chips that the run was trained on, or
            nothing to score.
    """
    expect(run, "history", "the run that fit returned")
    expect(data, "holdout", "the data that load_data returned")
    if data.task != "segmentation":
        raise ValueError(
            f"evaluate scores segmentations, and {data.card.title} is for {data.task}. Its "
            "validation score is in run.history and run.best."
        )
    if run.model.classes != data.classes or run.model.bands != tuple(data.bands):
        raise ValueError(
            f"The model knows classes {run.model.classes} and bands {run.model.bands}; the data "
            f"have {data.classes} and {tuple(data.bands)}."
        )
    scored = [data.test, *data.holdout.values()]
    if known := run.seen & {chip.name for part in scored for chip in part.chips}:
        raise ValueError(
            f"{len(known)} of these chips, {min(known)!r} among them, were trained on. Evaluate "
            "with the data that fit was given."
        )
    groups = [("home", name, data.test) for name in data.regions]
    groups += [("away", name, chips) for name, chips in data.holdout.items()]
    draws: dict[str, np.ndarray] = {}
    rows = []
    for role, name, chips in groups:
        row, draws[name] = _score(run, data, role, name, chips, seed)
        rows.append(row)
    table = pd.DataFrame(rows).set_index("region")
    names = {
        name: tuple(chip.name for chip in chips.chips if chip.region == name)
        for _, name, chips in groups
    }
    return Report(table, f"{run.method} on {data.card.title}", draws, names, seed)


def _score(
    run: Run, data: GeoData, role: str, region: str, chips: ChipDataset, seed: int
) -> tuple[dict[str, object], np.ndarray]:
    samples = [chips[index] for index in range(len(chips)) if chips.chips[index].region == region]
    if not samples:
        raise ValueError(f"Region {region!r} has no chips to score.")
    matrices = np.stack(
        [
            confusion(sample["mask"].numpy(), predicted, len(data.classes), data.ignore_index)
            for sample, predicted in zip(samples, run.predict(samples), strict=True)
        ]
    )  # (N, K, K)
    places = [sample["place"] for sample in samples]
    total = matrices.sum(axis=0)
    draws = bootstrap_scores(matrices, places, seed=seed)
    low, high = percentile_interval(draws)
    row = {
        "region": region,
        "method": run.method,
        "role": role,
        "chips": len(samples),
        "places": len(set(places)),
        "mIoU": float(mean_iou(total)),
        "low": low,
        "high": high,
        "accuracy": float(np.trace(total) / max(1, total.sum())),
        **{
            f"IoU {label}": float(score)
            for label, score in zip(data.classes, class_iou(total), strict=True)
        },
    }
    return row, draws


def plot_reports(reports: list[Report]) -> Figure:
    """Draw the mIoU of several runs side by side, one row per region.

    Args:
        reports: From `evaluate`, on the same data.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    regions = list(reports[0].table.index)
    colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"]
    figure = Figure(figsize=(7, 0.9 + 0.55 * len(regions) * max(2, len(reports)) ** 0.5))
    axes = figure.add_subplot()
    for number, report in enumerate(reports):
        table = report.table.loc[regions]
        shift = (number - (len(reports) - 1) / 2) * 0.22
        rows = np.arange(len(regions)) + shift
        middle = table["mIoU"].to_numpy()
        ends = np.stack([middle - table["low"], table["high"] - middle]).clip(min=0)
        axes.errorbar(
            middle, rows, xerr=ends, fmt="o", capsize=3, color=colours[number % len(colours)],
            label=table["method"].iloc[0],
        )  # fmt: skip
    names = [f"{name} ({reports[0].table.loc[name, 'role']})" for name in regions]
    axes.set_yticks(np.arange(len(regions)), names)
    axes.invert_yaxis()
    axes.set_xlabel("mIoU (0-1), bars: 95 % interval over places")
    axes.grid(axis="x", alpha=0.3)
    axes.set_title("Scores region by region")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.set_layout_engine("constrained")
    return figure
