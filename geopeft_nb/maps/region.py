"""What is shown of one region: its chips joined on one grid, with label and predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.datasets.pictures import composites_of, stretch
from geopeft_nb.errors import GeopeftError
from geopeft_nb.maps.grid import Grid, choose_chips, mosaic_grid, sheet_grid


@dataclass(frozen=True)
class RegionView:
    """What is shown of one region, on one grid.

    Attributes:
        region: Name of the region.
        home: True where the model was trained nearby, False for a hold-out region.
        note: What of the region is shown, in words.
        grid: The pixel grid of all layers.
        pictures: Composite name -> picture (3, H, W) uint8, the preferred composite first. At home
            it also holds the training and validation chips between the test chips.
        valid: Where there is a chip that was predicted (H, W).
        label: Class map (H, W) int64.
        predictions: Run name -> class map (H, W) int64.
    """

    region: str
    home: bool
    note: str
    grid: Grid
    pictures: dict[str, NDArray[np.uint8]]
    valid: NDArray[np.bool_]
    label: NDArray[np.int64]
    predictions: dict[str, NDArray[np.int64]]

    @property
    def role(self) -> str:
        """Where the region stands in the comparison, ``"home"`` or ``"away"``."""
        return "home" if self.home else "away"


def region_view(
    region: str,
    runs: dict[str, Any],
    data: Any,  # noqa: ANN401 (GeoData)
    chips: int,
    composite: str,
) -> RegionView:
    """Collect the chips of one region, predict them and join them on one grid.

    Args:
        region: A home or hold-out region of the data.
        runs: Run name -> run with `predict(samples)`.
        data: What `load_data` returned.
        chips: Show at most this many chips if they cannot be joined.
        composite: The composite to show first.

    Returns:
        The region's layers.

    Raises:
        ValueError: No chips, missing bands, or predictions that do not fit the data.
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
        places = [str(sample.get("place", number)) for number, sample in enumerate(samples)]
        picks = choose_chips(masks, places, chips, data.ignore_index)
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
    available = composites_of(data.bands)
    names = [composite, *(name for name in available if name != composite)]
    return RegionView(
        region=region,
        home=home,
        note=note,
        grid=grid,
        pictures={name: stretch(image, data.bands, name) for name in names},
        valid=grid.paste([np.ones(mask.shape, bool) for mask in masks], False),
        label=grid.paste(masks, data.ignore_index),
        predictions={
            name: grid.paste(_predict(name, run, samples, len(data.classes)), 0)
            for name, run in runs.items()
        },
    )


def _members(dataset: Any, region: str) -> list[dict[str, Any]]:  # noqa: ANN401
    """Read the samples of a data set that lie in a region."""
    samples = (dataset[index] for index in range(len(dataset)))
    return [sample for sample in samples if sample["region"] == region]


def _array(values: Any, kind: Any) -> NDArray[Any]:  # noqa: ANN401 (tensor or array)
    return np.asarray(values).astype(kind, copy=False)


def _predict(name: str, run: Any, samples: list[Any], count: int) -> list[NDArray[np.int64]]:  # noqa: ANN401
    """Predict chips and check that the class maps fit the data."""
    maps = [np.asarray(chip, np.int64) for chip in run.predict(samples)]
    shapes = [np.shape(sample["mask"]) for sample in samples]
    if [chip.shape for chip in maps] != shapes:
        raise GeopeftError(
            f"Run {name!r} must predict one (H, W) class map per chip; got shapes "
            f"{sorted({chip.shape for chip in maps})} for chips of {sorted(set(shapes))}."
        )
    found = {int(value) for chip in maps for value in np.unique(chip)}
    if not found <= set(range(count)):
        raise GeopeftError(
            f"Run {name!r} predicts the classes {sorted(found)}, but the data has only 0 to "
            f"{count - 1}. Load the data the run was trained on."
        )
    return maps
