"""From crops to rows of a scene: what a network says of each, blended, in the memory of one row."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geopeft_nb.datasets.base import centre
from geopeft_nb.datasets.own.rasters import Source
from geopeft_nb.errors import GeopeftError
from geopeft_nb.evaluation.unfinished import LAYERS
from geopeft_nb.evaluation.windows import Axis
from geopeft_nb.models import SegmentationModel
from geopeft_nb.training.calibration import cell, deepest, distances


def blended(
    rows: Axis, columns: Axis, depth: int, done: int,
    predict: Callable[[int], Iterator[tuple[int, np.ndarray]]],
) -> Iterator[np.ndarray]:  # fmt: skip
    """Yield what crops say, blended, from the top of a scene to its bottom.

    Numbers are added up in float64, where products of a float32 with the weights lose nothing: what
    all crops say alike comes out as it is.

    Args:
        rows: The scene's height.
        columns: Its width.
        depth: Numbers D for each pixel.
        done: Rows of pixels from the top that are not wanted.
        predict: Takes the start of a row of crops, and yields the start of each in the row and
            (D, crop, crop) float32; one that is left out counts as 0.

    Yields:
        (D, h, W) float64: the next h rows, which hold until the following ones are asked for.
    """
    left, weights = columns.starts[0], np.outer(rows.weights, columns.weights)
    total = np.zeros((depth, rows.crop, columns.starts[-1] - left + columns.crop))
    for top, end in zip(rows.starts, (*rows.starts[1:], rows.length), strict=True):
        if top + rows.crop <= done:
            continue
        for start, said in predict(top):
            total[..., start - left :][..., : columns.crop] += said * weights
        if end > (first := max(top, done)):
            whole = total[:, first - top : end - top, -left:][..., : columns.length]
            whole /= np.outer(rows.total[first:end], columns.total)
            yield whole
        total[:, : top - end] = total[:, end - top :]
        total[:, top - end :] = 0


@dataclass(frozen=True)
class Network:
    """What a model says of crops, and how far they are from its training.

    Attributes:
        model: On its device.
        far: Whether distances are wanted, of a model that knows features of its training.
        views: Whether the mean over the eight turns and mirrorings is taken.
    """

    model: SegmentationModel
    far: bool
    views: bool = False

    @torch.inference_mode()
    def __call__(self, image: Tensor, **more: Tensor) -> np.ndarray:
        """Compute scores, and a distance in units of the threshold where it is wanted.

        Args:
            image: (B, C, H, W) or (B, C, T, H, W) reflectance.
            more: `temporal` and `location`, as the model takes them.

        Returns:
            (B, K, H, W) float32, or K + 1 with the distance last.
        """
        trained: Any = self.model.trained
        image = image.to(self.model.mean.device)
        more = {name: value.to(image.device) for name, value in more.items()}
        ways = list(product(range(4), ((), (-1,)))) if self.views else [(0, ())]
        total: Any = 0
        for turns, dims in ways:
            with deepest(self.model) as seen:
                turned = image.rot90(turns, (-2, -1)).flip(dims)
                said = self.model(turned, **more).float()
            if self.far:
                cells = distances(seen[0].permute(0, 2, 3, 1), trained.reference.to(image.device))
                far = functional.interpolate(cells[:, None], scale_factor=cell(self.model))
                far = far[..., : turned.shape[-2], : turned.shape[-1]] / trained.threshold
                said = torch.cat([said, far], dim=1)
            total = total + said.flip(dims).rot90(-turns, (-2, -1)) / len(ways)
        return np.asarray(total.cpu())


@dataclass(frozen=True)
class Strips:
    """Rows of a scene, from what a network says of its crops.

    Attributes:
        network: Says it.
        frames: The scene on each date.
        days: Day of each, if the network uses it.
        down: Crops along its height.
        across: Crops along its width.
        batch_size: Crops at a time.
    """

    network: Network
    frames: Sequence[Source]
    days: Sequence[date]
    down: Axis
    across: Axis
    batch_size: int

    def layers(self, done: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield the next rows behind `done` ones: all layers, (K, h, W) each as it is stored."""
        model = self.network.model
        depth = len(model.classes) + self.network.far + 1  # the last: whether a pixel is there
        for rows in blended(self.down, self.across, depth, done, self._crops):
            scores, there = rows[: len(model.classes)], (rows[-1] > 0.5) & np.isfinite(rows).all(0)
            found = {"values": scores}
            if model.task != "regression":
                heat = (model.trained and model.trained.temperature) or 1.0
                below = np.subtract(scores, scores.max(0), dtype=np.float32)  # the largest is 0
                sure = 1 / np.exp(below / heat, out=below).sum(0)
                found = {"class": scores.argmax(0)[None], "probability": sure[None]}
            if self.network.far:
                found["applicability"] = rows[-2:-1]
            yield {name: LAYERS[name].stored(part, there) for name, part in found.items()}

    def _crops(self, top: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield what the network says of each crop of a row that has data."""
        from rasterio.windows import Window

        model, crop, starts = self.network.model, self.across.crop, self.across.starts
        rows, above = self.down.inside(top, top + crop)
        fill = model.mean.cpu().numpy()
        # of equal batches: a small one at the end would be slow
        for group in np.array_split(starts, -(-len(starts) // self.batch_size)):
            columns, beside = self.across.inside(group[0], group[-1] + crop)
            window, margins = Window.from_slices(rows, columns), [(0, 0), above, beside]
            read = [
                np.pad(frame.read(window, model.bands)[0], margins, mode="reflect")
                for frame in self.frames
            ]
            there = np.logical_and.reduce(np.isfinite(read), axis=(0, 1))
            # what is missing is at the mean, which is 0 to the network
            images = [x if there.all() else np.where(np.isfinite(x), x, fill) for x in read]
            image = images[0] if len(images) == 1 else np.stack(images, axis=1)
            parts = {start: slice(start - group[0], start - group[0] + crop) for start in group}
            parts = {start: part for start, part in parts.items() if there[:, part].any()}
            if not parts:
                continue
            batch = torch.from_numpy(np.stack([image[..., part] for part in parts.values()]))
            more = self._metadata(rows, [self.across.inside(x, x + crop)[0] for x in parts])
            for (start, part), said in zip(parts.items(), self.network(batch, **more), strict=True):
                yield start, np.concatenate([said, there[None, :, part]])

    def _metadata(self, rows: slice, columns: Sequence[slice]) -> dict[str, Tensor]:
        """Return what the model uses of time and place of crops."""
        from rasterio.windows import Window

        found, used = {}, self.network.model.metadata
        if "time" in used:
            days = [[float(day.year), float(day.timetuple().tm_yday)] for day in self.days]
            found["temporal"] = torch.tensor([days] * len(columns))
        if "location" in used:
            grid = self.frames[0].grid
            where = [centre(grid.crs, grid.bounds(Window.from_slices(rows, x))) for x in columns]
            if None in where:
                raise GeopeftError("The model uses the location, and the scene has no CRS. Add it.")
            found["location"] = torch.tensor(where, dtype=torch.float32)
        return found
