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
from geopeft_nb.evaluation.windows import Axis, span
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
        predict: Takes a row of crops, and yields of each column (D, crop, crop) float32; one that
            is left out counts as 0.

    Yields:
        (D, h, W) float64: the next h rows, which hold until the following ones are asked for.
    """
    parts = [rows.part(index) for index in range(len(rows.starts))]
    across = [columns.part(index) for index in range(len(columns.starts))]
    counts = [columns.weights(index) for index in range(len(columns.starts))]
    every = np.zeros((depth, max(part.stop - part.start for part in parts), columns.length))
    for index, part in enumerate(parts):
        if part.stop <= done:
            continue
        total = every[:, : part.stop - part.start]
        down = slice(part.start - rows.starts[index], part.stop - rows.starts[index])
        for column, said in predict(index):
            start = columns.starts[column]
            inside = said[:, down, across[column].start - start : across[column].stop - start]
            total[:, :, across[column]] += inside * np.outer(rows.weights(index), counts[column])
        end = parts[index + 1].start if index + 1 < len(parts) else rows.length
        yield total[:, max(done - part.start, 0) : end - part.start]
        every[:, : part.stop - end] = total[:, end - part.start :]
        every[:, part.stop - end :] = 0


@dataclass(frozen=True)
class Network:
    """What a model says of crops, and how far they are from its training.

    Attributes:
        model: On its device.
        far: Whether distances are wanted.
        views: Whether the mean over the eight turns and mirrorings is taken.
    """

    model: SegmentationModel
    far: bool
    views: bool = False

    def __call__(self, image: Tensor, **more: Tensor) -> np.ndarray:
        """Compute scores, and a distance in units of the threshold where it is wanted.

        Args:
            image: (B, C, H, W) or (B, C, T, H, W) reflectance.
            more: `temporal` and `location`, as the model takes them.

        Returns:
            (B, K, H, W) float32, or K + 1 with the distance last.
        """
        image = image.to(self.model.mean.device)
        more = {name: value.to(image.device) for name, value in more.items()}
        ways = list(product(range(4), ((), (-1,)))) if self.views else [(0, ())]
        total: Any = 0
        for turns, dims in ways:
            said = self._one(image.rot90(turns, (-2, -1)).flip(dims), more)
            total = total + said.flip(dims).rot90(-turns, (-2, -1)) / len(ways)
        return np.asarray(total.cpu())

    def _one(self, image: Tensor, more: dict[str, Tensor]) -> Tensor:
        trained = self.model.trained
        with torch.inference_mode(), deepest(self.model) as seen:
            scores = self.model(image, **more).float()
            if self.far and trained and trained.reference is not None and trained.threshold:
                cells = distances(seen[0].permute(0, 2, 3, 1), trained.reference.to(image.device))
                far = functional.interpolate(cells[:, None], scale_factor=cell(self.model))
                far = far[..., : image.shape[-2], : image.shape[-1]] / trained.threshold
                scores = torch.cat([scores, far], dim=1)
            return scores


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

    def rows(self, done: int) -> Iterator[np.ndarray]:
        """Yield the next rows of what the network says, and last how much of a pixel is there."""
        depth = len(self.network.model.classes) + self.network.far + 1
        return blended(self.down, self.across, depth, done, self._crops)

    def _crops(self, row: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield what the network says of each crop of a row that has data."""
        from rasterio.windows import Window

        model, crop, starts = self.network.model, self.across.crop, self.across.starts
        down, fill = self.down.pixels(row), model.mean.cpu().numpy()
        rows, batches = span(down), -(-len(starts) // self.batch_size)
        # of equal batches: a small one at the end would be slow
        for group in np.array_split(np.arange(len(starts)), batches):
            across = self.across.pixels(group[0], group[-1])
            columns = span(across)
            window = Window.from_slices(rows, columns)
            read = [frame.read(window, model.bands) for frame in self.frames]
            there = np.logical_and.reduce([known for _, known in read])
            # what is missing is at the mean, which is 0 to the network
            images = [x if there.all() else np.where(np.isfinite(x), x, fill) for x, _ in read]
            image = images[0] if len(images) == 1 else np.stack(images, axis=1)
            for axis, pixels, inside in ((-2, down, rows), (-1, across, columns)):
                places = pixels - inside.start
                if not np.array_equal(places, np.arange(len(places))):  # mirrored at an end
                    image, there = image.take(places, axis), there.take(places, axis)
            lefts = [starts[n] - starts[group[0]] for n in group]
            parts = {
                n: slice(left, left + crop)
                for n, left in zip(group, lefts, strict=True)
                if there[:, left : left + crop].any()
            }
            if not parts:
                continue
            batch = torch.from_numpy(np.stack([image[..., part] for part in parts.values()]))
            more = self._metadata(rows, [span(self.across.pixels(n)) for n in parts])
            for (n, part), said in zip(parts.items(), self.network(batch, **more), strict=True):
                yield n, np.concatenate([said, there[None, :, part]])

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

    def numbers(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return all layers, (K, h, W) each as it is stored, of rows that `rows` gave."""
        model = self.network.model
        scores, there = rows[: len(model.classes)], (rows[-1] > 0.5) & np.isfinite(rows).all(0)
        found = {"values": scores}
        if model.task != "regression":
            heat = (model.trained and model.trained.temperature) or 1.0
            below = np.subtract(scores, scores.max(0), dtype=np.float32)  # the largest is 0
            sure = 1 / np.exp(below / heat, out=below).sum(0)
            found = {"class": scores.argmax(0)[None], "probability": sure[None]}
        if self.network.far:
            found["applicability"] = rows[-2:-1]
        return {name: LAYERS[name].stored(part, there) for name, part in found.items()}
