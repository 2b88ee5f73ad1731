"""What is shown: regions with label and predictions on one grid each, and their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.maps import layers
from geopeft_nb.maps.grid import Grid, mosaic_grid, sheet_grid
from geopeft_nb.pictures.chips import picture_of
from geopeft_nb.tasks import confusion, mean_iou

if TYPE_CHECKING:
    import pandas as pd

    from geopeft_nb.datasets.base import ChipDataset
    from geopeft_nb.datasets.geodata import GeoData
    from geopeft_nb.models import SegmentationModel

#: Chips that a region shows where they cannot be joined.
AT_MOST = 12


@dataclass(frozen=True)
class RegionView:
    """What is shown of one region, on one grid.

    Attributes:
        region: Name of the region.
        role: ``"home"`` where the model was trained nearby, ``"away"`` for a hold-out region.
        chips: Which chips of the region are shown, in words.
        grid: The pixel grid of all layers.
        picture: Picture (H, W, 4) uint8, clear where there is no chip. At home it also shows the
            training and validation chips between the test chips.
        bands: What the picture shows, in words.
        label: Class layer (H, W), see `geopeft_nb.maps.layers`.
        predictions: Run name -> class layer (H, W).
    """

    region: str
    role: str
    chips: str
    grid: Grid
    picture: NDArray[np.uint8]
    bands: str
    label: NDArray[np.uint8]
    predictions: dict[str, NDArray[np.uint8]]


@dataclass
class Regions:
    """All regions that a figure or an interactive map shows, and how the classes look.

    Attributes:
        views: One per region.
        data: What `load_data` returned, with classes and their colours.
    """

    views: tuple[RegionView, ...]
    data: GeoData

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Scores of the shown pixels: a row per region and run, and as columns ...

        `miou`, the mean intersection over union of the classes that label or prediction hold, and
        `wrong`, the share of the labelled pixels that got another class, both 0-1.
        """
        import pandas as pd

        rows, count = [], len(self.data.classes)
        for view in self.views:
            known = view.label < count
            for name, prediction in view.predictions.items():
                truth, found = view.label[known].astype(int), prediction[known].astype(int)
                miou = float(mean_iou(confusion(truth, found, count, layers.GAP)))
                row = {"region": view.region, "role": view.role, "run": name, "miou": miou}
                rows.append(row | {"wrong": float((truth != found).sum() / max(1, truth.size))})
        return pd.DataFrame(rows)

    @property
    def legend(self) -> dict[str, str]:
        """Meaning -> colour of everything that class and difference layers can show."""
        classes = self.data.classes
        entries = dict(zip(classes, self.data.colours, strict=True))
        if len(classes) == 2:
            first, second = classes
            entries[f"missed: label {second}, predicted {first}"] = layers.MISSED_COLOUR
            entries[f"false alarm: label {first}, predicted {second}"] = layers.FALSE_ALARM_COLOUR
        else:
            entries["wrong class"] = layers.MISSED_COLOUR
        if any((view.label == len(classes)).any() for view in self.views):
            entries["no label"] = layers.IGNORED_COLOUR
        return entries

    def painted(self, view: RegionView) -> dict[str, NDArray[np.uint8]]:
        """Return label, predictions and differences of a view: name -> colours (H, W, 4)."""
        count, colours = len(self.data.classes), (*self.data.colours, layers.IGNORED_COLOUR)
        painted = {"Label": layers.paint(view.label, colours)}
        for name, found in view.predictions.items():
            wrong = layers.difference(view.label, found, count)
            painted[f"Prediction: {name}"] = layers.paint(found, colours)
            painted[f"Difference: {name}"] = layers.paint(wrong, layers.DIFFERENCE_COLOURS)
        return painted


def region_view(
    region: str, part: ChipDataset, runs: Mapping[str, SegmentationModel], data: GeoData
) -> RegionView:
    """Collect the chips of one region, predict them and join them on one grid.

    Args:
        region: A home or hold-out region of the data.
        part: Its chips, at least one.
        runs: Run name -> its model.
        data: What `load_data` returned.

    Returns:
        The region's layers.
    """
    home, samples, around = region in data.regions, list(part), []
    grid = mosaic_grid(samples)
    if grid is None:  # nothing to join them on
        samples = list(part.spread(AT_MOST))
        grid = sheet_grid(samples)
    elif home:
        # Test chips are scattered over a home region: those between them show where they lie.
        between = [*data.train.in_region(region), *data.val.in_region(region)]
        if wider := mosaic_grid([*samples, *between]):
            grid, around = wider, between

    images = [sample["image"].numpy() for sample in [*samples, *around]]
    picture, bands = picture_of(grid.paste(images, np.nan, np.float32), data.bands)
    masks = [sample["mask"].numpy() for sample in samples]
    codes = [np.where(mask == data.ignore_index, len(data.classes), mask) for mask in masks]
    return RegionView(
        region=region,
        role="home" if home else "away",
        chips=f"{len(samples)} of {len(part)} {'test' if home else 'hold-out'} chips",
        grid=grid,
        picture=np.dstack([picture, 255 * picture.any(axis=2).astype(np.uint8)]),
        bands=bands,
        label=grid.paste(codes, layers.GAP, np.uint8),
        predictions={
            name: grid.paste(model.predict(samples), layers.GAP, np.uint8)
            for name, model in runs.items()
        },
    )
