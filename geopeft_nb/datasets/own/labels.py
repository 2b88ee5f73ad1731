"""What somebody's masks, polygons or image labels mean: the task, and its classes."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from geopeft_nb.datasets.own.ask import Ask, apart, spread
from geopeft_nb.datasets.own.cut import Polygons, Tile, named
from geopeft_nb.datasets.own.rasters import read_numbers
from geopeft_nb.errors import GeopeftError

#: Chips whose labels are read when a folder is opened.
AT_MOST = 1000
#: More numbers are no classes, unless they are named; or where most neighbours differ by 1 or 2.
MANY = 32, 15
#: Numbers of masks that are asked about beside others.
FILLS = (254, 255, 32_767, 65_535)
#: What to do where the labels are too few.
BACKGROUND = "Pass unlabelled=[] if no-data is a class, background='…' if all outside polygons is."
#: What separates several labels of an image.
BETWEEN = ";"
#: Tasks with a label for each image.
OF_IMAGES = ("classification", "multilabel")
Classes = Sequence[str] | Mapping[int, str] | None


@dataclass(frozen=True)
class Labels:
    """What the labels mean.

    Attributes:
        task: Name of the task, or "" as long as that is not known.
        classes: Their names; of regression the target's.
        codes: Number of the masks, or label of the images -> class.
        polygons: What is burned instead of masks, or None.
        unlabelled: Numbers that mean unlabelled; None for negative ones and each mask's no-data.
    """

    task: str
    classes: tuple[str, ...] = ()
    codes: Mapping[Any, int] = field(default_factory=dict)
    polygons: Polygons | None = None
    unlabelled: tuple[float, ...] | None = None

    def values(self, tile: Tile) -> np.ndarray:
        """Return what labels a tile: (H, W) float64, NaN without a label; or (N,) texts."""
        grid, mask, label = tile.sources[0].grid, tile.mask, tile.item.label
        if self.task in OF_IMAGES:
            text = named(label) or ""
            parts = text.split(BETWEEN) if self.task == "multilabel" else [text]
            return np.array([part.strip() for part in parts if part.strip()])
        if self.polygons is not None:
            return self.polygons.burn(grid, tile.window)
        assert mask is not None
        mask = replace(mask, fills=()) if self.unlabelled == () else mask
        (found,) = read_numbers(mask, mask.numbers, grid, tile.window, nearest=True)
        if self.task == "regression" and (rule := mask.rules.get(mask.numbers[0])):
            found = (found + rule[1]) / rule[0]
        odd = np.isin(found, self.unlabelled or ())
        if self.unlabelled is None and self.task == "segmentation":
            odd |= found < 0
        found[odd] = np.nan
        return found

    def target(self, tile: Tile, there: np.ndarray, size: int) -> np.ndarray:
        """Return the target of a chip, see `TaskCard`.

        Args:
            tile: The chip to be.
            there: (H, W) True where the image has data; all else is not known.
            size: Chip side in pixels.

        Raises:
            GeopeftError: A number is no class.
        """
        found = self.values(tile)
        if self.task == "classification":
            return np.array(self.codes[found.item()], np.int64)
        if self.task == "multilabel":
            return np.isin(range(len(self.classes)), [self.codes[x] for x in found]).astype("int64")
        padded = np.full((size, size), np.nan)
        padded[: there.shape[0], : there.shape[1]] = np.where(there, found, np.nan)
        if self.task == "regression":
            return padded[None].astype(np.float32)
        values = pd.Series(padded.ravel())
        classes = values.map(self.codes)
        if unknown := sorted({*values[classes.isna()].dropna()}):
            raise _no_class(tile, unknown, self.codes)
        return classes.fillna(-1).to_numpy(np.int64, copy=True).reshape(size, size)


def _no_class(tile: Tile, unknown: Sequence[Any], codes: Mapping[Any, int]) -> GeopeftError:
    shown = [f"{x:.9g}" if isinstance(x, float) else repr(x) for x in unknown[:5]]
    return GeopeftError(
        f"{tile.mask.path if tile.mask else tile.name} has values {', '.join(shown)}, which the "
        f"class list lacks ({', '.join(map(str, codes))}). Name them in classes=, or ignore them "
        f"with unlabelled=[{shown[0]}]."
    )


def find_labels(
    tiles: Sequence[Tile], bands: Sequence[str], labels: Labels, classes: Classes, ask: Ask
) -> tuple[list[Tile], Labels, list[str]]:
    """Look at labels, find the task and the classes, and leave out tiles without label or data.

    Args:
        tiles: Chips to be.
        bands: What a pixel with data has.
        labels: What is known before any is read: polygons, and what somebody says.
        classes: Names of the values 0, 1, …; or value -> name, one name for several merges them.
        ask: Takes down questions.

    Returns:
        What is left; the labels with their classes; and notes.
    """
    every = len(tiles)
    tiles, labels = _with_labels(tiles, labels, ask)
    counts, total, steps = {"": pd.Series(dtype=int)}, 0, np.zeros(2)
    for tile in spread(tiles, AT_MOST):
        with suppress(OSError):  # it is refused, and named, when it is asked for
            found = labels.values(tile)
            total += found.size
            if found.ndim > 1:
                steps += np.histogram(np.abs(np.diff(found, axis=0)), (1, 2.5, np.inf))[0]
            if tile.has_gaps:
                there = tile.read(bands)[1]
                found = found[there if found.ndim > 1 else [there.any()] * len(found)]
            counts[tile.name] = pd.Series(found.ravel()).value_counts()  # without NaN
    seen = pd.concat(counts, names=["tile", "value"])
    if len(seen) and tiles[0].mask:
        counted = seen.groupby("value").sum()  # sorted
        labels = _of_masks(tiles, counted, labels, classes, ask, MANY[bool(steps[0] > steps[1])])
    if labels.task == "segmentation" and labels.unlabelled is None:
        seen = seen[seen.index.get_level_values("value") >= 0]
    without = {*counts} - {*seen.index.get_level_values("tile")}
    tiles = [tile for tile in tiles if tile.name not in without]
    values = sorted(seen.index.unique("value"))
    if not values or not tiles:
        raise GeopeftError(f"No chip has a label, or all have no data. {BACKGROUND}")
    if labels.task == "regression":
        if classes is not None and (isinstance(classes, Mapping) or len(classes) != 1):
            raise GeopeftError("Regression predicts one number: classes=['height'] names it.")
        labels = replace(labels, classes=tuple(classes or ("value",)))
        note = f"Regression of {labels.classes[0]}: {values[0]:g} to {values[-1]:g}."
    else:
        if tiles[0].mask and isinstance(classes, Sequence) and values[0] >= 1 and (
            values[-1] == len(classes) or 0 not in (labels.unlabelled or tiles[0].mask.fills)
        ):  # fmt: skip
            classes = dict(enumerate(classes, 1))
            why = "the masks have no 0, which a list of classes begins with: do they begin with 1?"
            ask.about((), why, classes=classes)
        names = _names(values, labels, classes)
        order = list(dict.fromkeys(names.values()))
        if len({name.casefold() for name in order}) < len(order):
            raise GeopeftError(f"Classes differ in case only: {', '.join(order)}. Write one way.")
        codes = {value: order.index(name) for value, name in names.items()}
        labels = replace(labels, classes=tuple(order), codes=codes)
        if unknown := [value for value in values if value not in codes]:
            first = seen.xs(unknown[0], level="value").index[0]
            raise _no_class(next(x for x in tiles if x.name == first), unknown, codes)
        if len(order) < 2:
            raise GeopeftError(f"The labels have fewer than two classes: {order[0]}. {BACKGROUND}")
        shares = seen.groupby(seen.index.get_level_values("value").map(names)).sum() / total
        said = ", ".join(f"{name} {shares.get(name, 0):.1%}" for name in order)
        note = f"Classes: {said}; unlabelled {1 - shares.sum():.1%}."
    gone = f"{every - len(tiles)} chips without any label or data are left out."
    filled = f"Pixels without data get the mean of their chip in each band, and no label. {gone}"
    return list(tiles), labels, [note, filled]


def _with_labels(tiles: Sequence[Tile], labels: Labels, ask: Ask) -> tuple[Sequence[Tile], Labels]:
    """Leave out tiles that nothing labels, and find which task labels of images are for."""
    polygons, task = labels.polygons, labels.task
    of_images = polygons is None and not any(tile.mask for tile in tiles)
    if task and (task in OF_IMAGES) != of_images:
        raise GeopeftError(
            f"task={task!r} has a label for each {'pixel' if of_images else 'image'}, and these do "
            "not. Pixels have masks or polygons, images '{label}/{id}.tif' or a table's label."
        )
    if polygons is not None:
        if not np.isfinite(polygons.outside):
            tiles = [x for x in tiles if len(polygons.near(x.sources[0].grid, x.window))]
        if not tiles:
            raise GeopeftError(f"{polygons.path} has no polygon on any image. Check its crs.")
        return tiles, replace(labels, task=task or "segmentation")
    if not of_images:
        return [tile for tile in tiles if tile.mask], labels
    tiles = [tile for tile in tiles if tile.item.label is not None]
    given = pd.Series([tile.item.label for tile in tiles], dtype=str)
    odd = given[given.str.contains("[,;|]") | (pd.to_numeric(given, errors="coerce") % 1 > 0)]
    likely = OF_IMAGES[int(given.str.contains(BETWEEN).any())]
    if len(odd) and not task:
        why = f"labels such as {min(odd)!r}: one class, or several, with a {BETWEEN!r} between?"
        ask.about((), why, task=likely)
    return tiles, replace(labels, task=task or likely)


def _of_masks(
    tiles: Sequence[Tile], counted: pd.Series, labels: Labels, classes: Classes, ask: Ask, most: int
) -> Labels:
    """Say which task the numbers of masks are for, and ask where that, or a fill, is not clear."""
    values: list[float] = counted.index.tolist()
    ends = ", ".join(f"{value:g}" for value in [*values[:3], *values[3:][-3:]])
    whole = all(value == np.trunc(value) for value in values)
    many = 2 if tiles[0].mask and tiles[0].mask.is_float else most
    if not labels.task and classes is None and (not whole or len(values) > many):
        why = f"the masks have {len(values)} different numbers ({ends}): classes, or heights?"
        ask.about((), why, task="regression")
        labels = replace(labels, task="regression")
    elif labels.task != "regression" and not whole:
        raise GeopeftError(f"The masks have values that are no class numbers: {ends}.")
    labels = replace(labels, task=labels.task or "segmentation")
    if labels.unlabelled is not None:
        return labels
    fills = {fill for x in tiles if x.mask for fill in x.mask.fills}
    odd: list[float] = [x for x in FILLS if x in values] if {*values} - {0, *FILLS} else []
    if labels.task == "regression":
        odd = apart(np.array(values), counted.to_numpy(), (-999, -99, 9999, *FILLS))
        if values[1:] and values[0] < 0 <= values[1] and values[0] == np.trunc(values[0]):
            odd = [*{values[0], *odd}]  # the only one below 0
    elif classes is not None:
        if lost := [x for x in _names(values, labels, classes) if x in fills or x < 0]:
            why = f"negative numbers or the masks' no-data, {lost}, are in classes="
            ask.about((), f"{why}; unlabelled={lost} ignores them all the same", unlabelled=[])
        return labels
    elif counted.loc[1:254].sum() < 0.2 * counted.reindex([0, 255], fill_value=0).min():
        # what a drawing program leaves between black and white
        odd = [x for x in values if 0 < x < 255] if any(32 < x < 224 for x in values) else odd
    if odd := [*dict.fromkeys([*odd, *fills.intersection(values)])]:  # no data in other masks
        why = f"the masks have {ends}: do {odd[:3]} mean unlabelled? unlabelled=[] says no"
        ask.about((), why, unlabelled=odd if odd[1:] else odd[0])
    return labels


def _names(values: Sequence[Any], labels: Labels, given: Classes) -> dict[Any, str]:
    """Return value -> name, in the order of the classes."""
    of_images = labels.task in OF_IMAGES
    if labels.polygons is not None:
        return dict(enumerate(labels.polygons.classes))
    if given is None:
        return {value: value if of_images else f"class {value:.10g}" for value in values}
    if isinstance(given, Mapping):
        return {str(x) if of_images else float(x): str(name) for x, name in given.items()}
    if len(set(given)) < len(given):
        raise GeopeftError(f"classes has a name twice: {', '.join(given)}.")
    return {name: name for name in given} if of_images else dict(enumerate(given))
