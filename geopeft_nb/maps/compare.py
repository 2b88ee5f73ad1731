"""Predictions on the map, region by region: at home, and where the model has never been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.evaluation.regions import RunOrModel
from geopeft_nb.evaluation.trust import check_judged
from geopeft_nb.maps.region import region_view
from geopeft_nb.maps.shown import Map, named
from geopeft_nb.memory.measure import hand_back
from geopeft_nb.pictures.show import visible


@dataclass(eq=False, repr=False)
class RegionMap(Map):
    """Maps of predictions.

    Attributes:
        scores: A row per region and run; `miou`, the mean intersection over union of the classes
            that label or prediction hold, and `wrong`, the share of the labelled pixels that got
            another class, both 0-1. At home they count the test chips only.
    """

    scores: pd.DataFrame


def map_regions(
    run_or_runs: RunOrModel | Sequence[RunOrModel] | Mapping[str, RunOrModel],
    data: GeoData,
    regions: Sequence[str] = (),
) -> RegionMap:
    """Show image, label, prediction and where they differ, for home and hold-out regions.

    Chips that lie on one pixel grid are joined into one map: at home those of training and
    validation too, which are outlined. Scores are those of the test chips at home, and of the
    hold-out chips away. Of chips that cannot be joined at most twelve, evenly spread, are laid out
    side by side. Of several dates the last is shown.

    Args:
        run_or_runs: A run of `fit` or a model, a list of them, or a dictionary name -> run.
        data: What `load_data` returned.
        regions: Names of the regions to show; all of them by default.

    Returns:
        A map that a notebook displays; `.figure`, `.scores`, `.widget` and `.save(path)` give its
        parts.

    Raises:
        ValueError: Data for another task than segmentation, no run, a run that `evaluate` would
            not judge on these data, an unknown region, or a region without chips.
    """
    if data.task != "segmentation":
        raise GeopeftError(
            f"A map shows a class for each pixel, and this is for {data.task}: see gp.evaluate."
        )
    given = named(run_or_runs, lambda run: getattr(run, "model", run).method)
    runs = {name: getattr(run, "model", run) for name, run in given.items()}
    if not runs:
        raise GeopeftError("A map shows at least one run of fit, and got none.")
    parts = data.judged
    for model in runs.values():
        check_judged(model, data, parts)
    for region in regions:
        check_name("region", region, parts)
    views, rows, said = [], [], ["image, label, prediction and where they differ."]
    for region in regions or parts:
        view, scores = region_view(region, parts[region], runs, data)
        hand_back()  # what predicting left free is not to add to what drawing takes
        views.append(view)
        rows += scores
        words = [f"{x['run']}: mIoU {x['miou']:.2f}, {x['wrong']:.1%} wrong." for x in scores]
        said.append(" ".join([f"{view.heading}.", *words]))
    names = [f"Prediction: {name}" for name in runs]
    sides = (names[0] if len(names) > 1 else "", names[-1])
    title = visible(f"Image, label and prediction: {data.card.title}")
    return RegionMap(title, views, min(2, len(runs)), sides, said, pd.DataFrame(rows))
