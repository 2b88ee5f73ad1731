"""Predictions on the map, region by region: at home, and where the model has never been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError, check_names
from geopeft_nb.evaluation.regions import RunOrModel
from geopeft_nb.evaluation.trust import check_judged
from geopeft_nb.maps import layers
from geopeft_nb.maps.layers import Layer, View, mosaic_grid, sheet_grid
from geopeft_nb.maps.shown import Map, named
from geopeft_nb.memory.measure import hand_back
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.chips import GREY, last_date, picture_of
from geopeft_nb.pictures.show import short, visible
from geopeft_nb.tasks import confusion, mean_iou

#: Chips that a region shows where they cannot be joined.
AT_MOST = 12


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
    models = {name: getattr(run, "model", run) for name, run in given.items()}
    if not models:
        raise GeopeftError("A map shows at least one run of fit, and got none.")
    parts = data.judged
    for model in models.values():
        check_judged(model, data, parts)
    check_names("region", regions, parts)
    views, scores, said = [], [], ["image, label, prediction and where they differ."]
    for region in regions or parts:
        view, found = region_view(region, parts[region], models, data)
        hand_back()  # what predicting left free is not to add to what drawing takes
        views.append(view)
        scores += found
        words = [f"{x['run']}: mIoU {x['miou']:.2f}, {x['wrong']:.1%} wrong." for x in found]
        said.append(" ".join([f"{view.heading}.", *words]))
    names = [f"Prediction: {name}" for name in models]
    sides = (names[0] if len(names) > 1 else "", names[-1])
    title = visible(f"Image, label and prediction: {data.card.title}")
    # two rows of panels for several runs: their differences stand below
    return RegionMap(title, views, min(2, len(models)), sides, said, pd.DataFrame(scores))


def region_view(
    region: str, part: ChipDataset, runs: Mapping[str, SegmentationModel], data: GeoData
) -> tuple[View, list[dict[str, Any]]]:
    """Predict the chips of a region, at home also those of training, and join them on one grid.

    Args:
        region: A home or hold-out region of the data.
        part: Its test or hold-out chips, at least one.
        runs: Run name -> its model.
        data: What `load_data` returned.

    Returns:
        What is shown, and the scores of `part`, a row per run.
    """
    home, scored, around = region in data.regions, list(part), []
    role, why = ("home", "trained here") if home else ("away", "its labels were never seen")
    grid = mosaic_grid(scored)
    if grid is None:  # nothing to join them on
        scored = list(part.spread(AT_MOST))
        grid = sheet_grid(scored)
    elif home:
        # Test chips are scattered over a home region: it is whole with those between them.
        between = [*data.train.in_region(region), *data.val.in_region(region)]
        if wider := mosaic_grid([*between, *scored]):
            grid, around = wider, between

    samples = [*around, *scored]
    images, suffixes = zip(*(last_date(sample["image"].numpy()) for sample in samples), strict=True)
    picture, caption = picture_of(grid.paste(images, np.nan, np.float32), data.bands)
    masks, count = [sample["mask"].numpy() for sample in samples], len(data.classes)
    of_training = [np.full(mask.shape, i < len(around)) for i, mask in enumerate(masks)]
    seen_ground = grid.paste(of_training, False, bool)
    codes = [np.where(mask == data.ignore_index, count, mask) for mask in masks]
    label = grid.paste(codes, layers.GAP, np.uint8)

    unlabelled = {"no label": GREY} if (label == count).any() else {}
    names = [*map(visible, data.classes), "no label"]
    colours = [*data.colours, GREY]
    classes = dict(zip(names[:-1], data.colours, strict=True))
    errors = {"wrong class": layers.MISSED_COLOUR}
    if count == 2:
        first, second = names[:2]
        errors = {
            f"missed: label {second}, predicted {first}": layers.MISSED_COLOUR,
            f"false alarm: label {first}, predicted {second}": layers.FALSE_ALARM_COLOUR,
        }
    meanings = {"right": "#FFFFFF99", "no label": GREY, **errors}  # a veil where it is right
    predicted, differing, rows = [], [], []
    for name, model in runs.items():
        found = grid.paste(model.predict(samples), layers.GAP, np.uint8)
        truth, answers = (x[(label < count) & ~seen_ground].astype(int) for x in (label, found))
        miou = float(mean_iou(confusion(truth, answers, count, layers.GAP)))
        wrong = float((truth != answers).sum() / max(1, truth.size))
        rows.append({"region": region, "role": role, "run": name, "miou": miou, "wrong": wrong})
        above = f"Prediction, {short(name)}: mIoU {miou:.2f}"
        predicted.append(Layer(f"Prediction: {name}", found, classes, colours, names, above))
        above = f"Differences, {short(name)}: {wrong:.1%} wrong"
        differing.append(Layer(
            f"Difference: {name}", layers.difference(label, found, count), errors | unlabelled,
            [*meanings.values()], [*meanings], above,
        ))  # fmt: skip
    truths = [Layer("Label", label, classes | unlabelled, colours, names)]
    shown = [*truths, *predicted] if len(runs) == 1 else [*predicted, *truths]

    # a word on either side of the outline, on the middle chip of those of training and validation
    # and of those of test
    signs, middles = [], (len(around) // 2, (len(around) + len(samples)) // 2)
    for middle, words in zip(middles, ("training", "test") if around else (), strict=False):
        row, column = np.add(grid.corners[middle], np.divide(masks[0].shape, 2))
        signs.append((float(column), float(row), words))
    chips = f"{len(scored)} of {len(part)} {'test' if home else 'hold-out'} chips"
    clear = 255 * picture.any(axis=2).astype(np.uint8)
    view = View(
        visible(region),
        visible(f"{region} ({role}: {why}) · scores of {chips} {grid.extent}"),
        home, grid, [*shown, *differing], np.dstack([picture, clear]), caption + suffixes[0],
        seen_ground, signs,
    )  # fmt: skip
    return view, rows
