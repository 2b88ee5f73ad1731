"""What is shown: regions with label and predictions on one grid each, and their scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.errors import GeopeftError
from geopeft_nb.maps import layers
from geopeft_nb.maps.grid import Grid, choose_chips, mosaic_grid, sheet_grid
from geopeft_nb.pictures.chips import picture_of
from geopeft_nb.tasks import confusion, mean_iou

if TYPE_CHECKING:
    import pandas as pd

#: Chips that a region shows where they cannot be joined.
AT_MOST = 12


@dataclass(frozen=True)
class RegionView:
    """What is shown of one region, on one grid.

    Attributes:
        region: Name of the region.
        role: ``"home"`` where the model was trained nearby, ``"away"`` for a hold-out region.
        note: What of the region is shown, in words.
        grid: The pixel grid of all layers.
        picture: Picture (3, H, W) uint8. At home it also shows the training and validation chips
            between the test chips.
        bands: What the picture shows, in words.
        valid: Where there is a chip that was predicted (H, W).
        label: Class map (H, W) int64.
        predictions: Run name -> class map (H, W) int64.
    """

    region: str
    role: str
    note: str
    grid: Grid
    picture: NDArray[np.uint8]
    bands: str
    valid: NDArray[np.bool_]
    label: NDArray[np.int64]
    predictions: dict[str, NDArray[np.int64]]


@dataclass
class Regions:
    """All regions that a figure or an interactive map shows, and how the classes look.

    Attributes:
        views: One per region.
        data: What `load_data` returned, with classes and their colours.
    """

    views: tuple[RegionView, ...]
    data: Any

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Scores of the shown pixels: a row per region and run.

        `miou` is the mean intersection over union of the classes that label or prediction hold.
        With two classes, `missed` is the share of the second class that was not found, and
        `false_alarm` the share of the first class that was taken for the second; NaN where there
        are no labelled pixels.
        """
        import pandas as pd

        rows, count, ignore = [], len(self.data.classes), self.data.ignore_index
        for view in self.views:
            scored = np.where(view.valid, view.label, ignore)
            for name, prediction in view.predictions.items():
                counts = confusion(scored, prediction, count, ignore)
                truth, found = counts.sum(axis=1), np.diag(counts)
                row: dict[str, Any] = {"region": view.region, "role": view.role, "run": name}
                row["miou"] = float(mean_iou(counts))
                with np.errstate(invalid="ignore"):  # a class without labelled pixels gives NaN
                    row["wrong"] = 1 - found.sum() / truth.sum()
                    if count == 2:
                        row["false_alarm"], row["missed"] = 1 - found / truth
                rows.append(row)
        return pd.DataFrame(rows)

    @property
    def legend(self) -> dict[str, str]:
        """Meaning -> colour of everything that class and difference layers can show."""
        classes, ignore = self.data.classes, self.data.ignore_index
        entries = dict(zip(classes, self.data.colours, strict=True))
        if len(classes) == 2:
            first, second = classes
            entries[f"missed: label {second}, predicted {first}"] = layers.MISSED_COLOUR
            entries[f"false alarm: label {first}, predicted {second}"] = layers.FALSE_ALARM_COLOUR
        else:
            entries["wrong class"] = layers.MISSED_COLOUR
        if any((view.label[view.valid] == ignore).any() for view in self.views):
            entries["no label"] = layers.IGNORED_COLOUR
        return entries

    def painted(self, view: RegionView) -> dict[str, tuple[NDArray[np.uint8], tuple[str, ...]]]:
        """Return the label, predictions and differences of a view: name -> codes and colours."""
        count, ignore = len(self.data.classes), self.data.ignore_index
        colours = (*self.data.colours, layers.IGNORED_COLOUR)
        maps = {"Label": view.label}
        maps |= {f"Prediction: {name}": found for name, found in view.predictions.items()}
        return {
            name: (layers.class_codes(classes, view.valid, count, ignore), colours)
            for name, classes in maps.items()
        } | {
            f"Difference: {name}": (
                layers.difference(view.label, found, view.valid, count, ignore),
                layers.DIFFERENCE_COLOURS,
            )
            for name, found in view.predictions.items()
        }


def region_view(region: str, runs: dict[str, Any], data: Any) -> RegionView:  # noqa: ANN401
    """Collect the chips of one region, predict them and join them on one grid.

    Args:
        region: A home or hold-out region of the data.
        runs: Run name -> run with `predict(samples)`.
        data: What `load_data` returned.

    Returns:
        The region's layers.

    Raises:
        ValueError: The region has no chips.
    """
    home = region in data.regions
    kind = "test" if home else "hold-out"
    samples = _members(data.test if home else data.holdout[region], region)
    if not samples:
        raise GeopeftError(
            f"Region {region!r} has no {kind} chips to show. Leave it out of regions, or load the "
            "data with a different split."
        )
    grid, around = mosaic_grid(samples), []
    if home and grid:
        # Test chips are scattered over a home region: those between them show where they lie.
        around = [*_members(data.train, region), *_members(data.val, region)]
        joined = mosaic_grid([*samples, *around])
        grid, around = (joined, around) if joined else (grid, [])
    note = f"{len(samples)} {kind} chip{'s' * (len(samples) > 1)}"
    if grid is None:
        masks = [_array(sample["mask"], np.int64) for sample in samples]
        picks = choose_chips(masks, AT_MOST, data.ignore_index)
        if len(picks) < len(samples):
            note = f"{len(picks)} of {note}, evenly chosen"
        samples = [samples[pick] for pick in picks]
        grid = sheet_grid(samples)
    if grid.metres:
        across, down = grid.metres
        size = f"{grid.width * across / 1000:.1f} x {grid.height * down / 1000:.1f} km"
        note = f"{note} in {size} of {down:.0f} m pixels"

    image = grid.paste([_array(chip["image"], np.float32) for chip in [*samples, *around]], np.nan)
    masks = [_array(chip["mask"], np.int64) for chip in samples]
    picture, bands = picture_of(image, data.bands)
    return RegionView(
        region=region,
        role="home" if home else "away",
        note=note,
        grid=grid,
        picture=picture.transpose(2, 0, 1).copy(),
        bands=bands,
        valid=grid.paste([np.ones(mask.shape, bool) for mask in masks], False),
        label=grid.paste(masks, data.ignore_index),
        predictions={name: grid.paste(run.predict(samples), 0) for name, run in runs.items()},
    )


def _members(dataset: Any, region: str) -> list[dict[str, Any]]:  # noqa: ANN401
    """Read the samples of a data set that lie in a region."""
    samples = (dataset[index] for index in range(len(dataset)))
    return [sample for sample in samples if sample["region"] == region]


def _array(values: Any, kind: Any) -> NDArray[Any]:  # noqa: ANN401 (tensor or array)
    return np.asarray(values).astype(kind, copy=False)
