"""What somebody's masks, polygons or image labels mean: the task, and its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from geopeft_nb.datasets.own.ask import Ask
from geopeft_nb.datasets.own.items import Item
from geopeft_nb.datasets.own.polygons import Polygons
from geopeft_nb.datasets.own.rasters import Raster, Source, read_numbers
from geopeft_nb.datasets.own.values import spread
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.tasks import TASKS

#: Chips whose labels are read when a folder is opened.
AT_MOST = 1000
#: More numbers than that are no classes, unless they are named.
MANY = 32
#: Numbers of masks that are asked about beside others.
FILLS = (255, 32_767, 65_535)
#: Endings of masks whose numbers may be off.
JPEG = (".jpg", ".jpeg")
#: What separates several labels of an image.
BETWEEN = ";"


@dataclass(frozen=True)
class Tile:
    """A chip to be, not read yet.

    Attributes:
        name: Unique name.
        item: What it is cut from.
        sources: One acquisition a date.
        mask: Header of the mask, or None.
        window: Part of the images' grid, without padding.
    """

    name: str
    item: Item
    sources: tuple[Source, ...]
    mask: Raster | None
    window: Any


@dataclass(frozen=True)
class Labels:
    """What the labels mean.

    Attributes:
        task: Name of the task.
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

    def numbers(self, tile: Tile) -> np.ndarray:
        """Return the numbers of a tile, (H, W) float64, NaN where it is unlabelled."""
        grid, mask = tile.sources[0].grid, tile.mask
        if mask is None:
            assert self.polygons is not None
            return self.polygons.burn(grid, tile.window)
        if len(mask.numbers) != 1:
            raise GeopeftError(
                f"{mask.path} has {len(mask.numbers)} bands, and a mask has one, of numbers. Take "
                "the band out that you mean."
            )
        fills = () if self.unlabelled == () else mask.fills
        (found,) = read_numbers(
            mask, mask.numbers, grid, tile.window, None, fills, np.float64, nearest=True
        )
        if self.task == "regression" and (rule := mask.rules[0]):
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
        if self.task in ("classification", "multilabel"):
            found = [self.codes[label] for label in labels_of(tile.item, self.task)]
            several = np.isin(np.arange(len(self.classes)), found).astype(np.int64)
            return several if self.task == "multilabel" else np.array(found[0], np.int64)
        numbers = self.numbers(tile)
        numbers[~there] = np.nan
        found_map = np.full((size, size), np.nan)
        found_map[: numbers.shape[0], : numbers.shape[1]] = numbers
        if self.task == "regression":
            return found_map[None].astype(np.float32)
        values, where = np.unique(found_map, return_inverse=True)
        if unknown := [x for x in values.tolist() if x == x and x not in self.codes]:
            raise _no_class(tile, unknown, self.codes)
        classes = np.array([self.codes.get(value, -1) for value in values.tolist()], np.int64)
        return classes[where].reshape(size, size)


def labels_of(item: Item, task: str) -> list[str]:
    """Return the labels of an image: one, or of multilabel those between semicolons."""
    label = item.label
    text = f"{label:g}" if isinstance(label, float) else str(label)
    parts = text.split(BETWEEN) if task == "multilabel" else [text]
    return [part.strip() for part in parts if part.strip()]


def _no_class(tile: Tile, numbers: Sequence[float], codes: Mapping[Any, int]) -> GeopeftError:
    source = tile.mask.path if tile.mask is not None else tile.name
    shown = [f"{number:.9g}" for number in numbers[:5]]
    return GeopeftError(
        f"{source} has values {', '.join(shown)}, which the class list lacks "
        f"({', '.join(map(str, codes))}). Name them in classes=, for example "
        f"classes={{{shown[0]}: 'name', …}}, or ignore them with unlabelled=[{shown[0]}]."
    )


def find_labels(
    tiles: Sequence[Tile], labels: Labels, task: str | None,
    classes: Sequence[str] | Mapping[int, str] | None, ask: Ask,
) -> tuple[list[Tile], Labels, list[str]]:  # fmt: skip
    """Look at labels, find the task and the classes, and leave out tiles without any label.

    Args:
        tiles: Chips to be.
        labels: What is known before any is read.
        task: What somebody says.
        classes: Names of the values 0, 1, …; or value -> name, one name for several merges them.
        ask: Takes down questions.

    Returns:
        What is left; the labels with their classes; and notes.
    """
    if task is not None:
        check_name("task", task, TASKS)
    if tiles[0].mask is None and labels.polygons is None:
        return _of_images(tiles, labels, task, classes, ask)
    if task in ("classification", "multilabel"):
        raise GeopeftError(
            f"task={task!r} has a label for each image, and these have masks. Give the labels as "
            "images='{label}/{id}.tif', or in a table's column label."
        )
    every = len(tiles)
    if (polygons := labels.polygons) is not None:
        if not np.isfinite(polygons.outside):
            tiles = [x for x in tiles if len(polygons.near(x.sources[0].grid, x.window))]
        if not tiles:
            raise GeopeftError(
                f"{polygons.path} has no polygon on any image. Is its coordinate reference system "
                "right, and that of the images?"
            )
    seen: Counter[float] = Counter()
    inside: dict[str, set[float]] = {}
    total, labels = 0, replace(labels, task=task or "")
    for tile in spread(tiles, AT_MOST):
        with suppress(OSError):  # it is refused, and named, when it is asked for
            numbers = labels.numbers(tile)
            total += numbers.size
            found, counts = np.unique(numbers[np.isfinite(numbers)], return_counts=True)
            inside[tile.name] = {*found.tolist()}
            seen.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    task = _which_task(tiles, labels, sorted(seen), task, classes, ask)
    labels = replace(labels, task=task)
    if task == "segmentation" and labels.unlabelled is None:
        seen = Counter({value: count for value, count in seen.items() if value >= 0})
        inside = {name: {value for value in some if value >= 0} for name, some in inside.items()}
    values = sorted(seen)
    if task == "regression":
        if classes is not None and (isinstance(classes, Mapping) or len(classes) != 1):
            raise GeopeftError("Regression predicts one number: classes=['height'] names it.")
        labels = replace(labels, classes=tuple(classes or ("value",)))
        notes = [f"Regression of {labels.classes[0]}: {values[:1]} to {values[-1:]}."]
    else:
        names = _names(values, labels, classes)
        fills = {fill for x in tiles if x.mask for fill in x.mask.fills}
        lost = [value for value in names if value in fills or value < 0]
        if lost and polygons is None and classes is not None and labels.unlabelled is None:
            ask.about_all(
                f"classes names {lost}, which negative numbers or the masks' no-data tag make "
                f"unlabelled; unlabelled={lost} says that they are, and [] that they are classes",
                unlabelled=[],
            )
        order = list(dict.fromkeys(names.values()))
        codes = {value: order.index(name) for value, name in names.items()}
        labels = replace(labels, classes=tuple(order), codes=codes)
        if unknown := [value for value in values if value not in names]:
            first = next(x for x in tiles if unknown[0] in inside.get(x.name, ()))
            raise _no_class(first, unknown, codes)
        if len(order) < 2:
            raise GeopeftError(
                f"The masks have fewer than two classes: {', '.join(order) or 'none'}. Is "
                "background taken for unlabelled (the masks' no-data value)? Then pass "
                "unlabelled=[]."
            )
        shares: Counter[str] = Counter()
        for value in values:
            shares[names[value]] += seen[value]
        said = ", ".join(f"{name} {shares[name] / max(1, total):.1%}" for name in order)
        notes = [f"Classes: {said}; unlabelled {1 - shares.total() / max(1, total):.1%}."]
    kept = [tile for tile in tiles if inside.get(tile.name, {0})]
    if not kept:
        raise GeopeftError("No chip has a label: all pixels of all masks are unlabelled.")
    if len(kept) < every:
        notes.append(f"{every - len(kept)} chips without any label are left out.")
    return kept, labels, notes


def _which_task(
    tiles: Sequence[Tile], labels: Labels, values: Sequence[float], task: str | None,
    classes: Sequence[str] | Mapping[int, str] | None, ask: Ask,
) -> str:  # fmt: skip
    """Say which task the numbers of masks are for, and ask where that, or 255, is not clear."""
    if labels.polygons is not None:
        return task or "segmentation"
    ends = ", ".join(f"{value:g}" for value in [*values[:3], *values[3:][-3:]])
    whole = all(value == np.trunc(value) for value in values)
    lossy = [x.mask.path for x in tiles if x.mask and x.mask.path.suffix.lower() in JPEG]
    if lossy and task != "regression" and len(values) > 2:
        raise GeopeftError(
            f"{lossy[0]} is a JPEG, whose compression changes the numbers of classes: {ends}. Make "
            "the masks anew as PNG or GeoTIFF."
        )
    if task is None and classes is None and (not whole or len(values) > MANY):
        ask.about_all(
            f"the masks have {len(values)} different numbers ({ends}): classes, or heights and the "
            "like? task='regression' trains on numbers, classes={value: 'name', …} on classes",
            task="regression",
        )  # fmt: skip
        task = "regression"
    elif task != "regression" and not whole:
        raise GeopeftError(f"The masks have values that are no class numbers: {ends}.")
    if task == "regression":
        odd = [value for value in values if value <= -9999 or value >= 65_535]
        if values[1:] and values[0] < 0 <= values[1] and values[0] == np.trunc(values[0]):
            odd = [*{values[0], *odd}]  # the only one below 0
    else:
        odd = [value for value in FILLS if classes is None and value in values]
        odd = odd if {*values} - {0, *FILLS} else []
    if odd and labels.unlabelled is None:
        ask.about_all(
            f"the masks have {ends}: do {odd[:3]} mean unlabelled? unlabelled=[] says no",
            unlabelled=odd if odd[1:] else odd[0],
        )
    return task or "segmentation"


def _names(
    values: Sequence[float], labels: Labels,
    given: Sequence[str] | Mapping[int, str] | None,
) -> dict[float, str]:  # fmt: skip
    """Return value -> name, in the order of the classes."""
    if labels.polygons is not None:
        return dict(enumerate(labels.polygons.classes))
    if given is None:
        return {value: f"class {value:.10g}" for value in values}
    if isinstance(given, Mapping):
        return {float(value): str(name) for value, name in given.items()}
    if len(set(given)) < len(given):
        raise GeopeftError(f"classes has a name twice: {', '.join(given)}.")
    return dict(enumerate(given))


def _of_images(
    tiles: Sequence[Tile], labels: Labels, task: str | None,
    classes: Sequence[str] | Mapping[int, str] | None, ask: Ask,
) -> tuple[list[Tile], Labels, list[str]]:  # fmt: skip
    """Find the classes of images with a label each."""
    kept = [tile for tile in tiles if tile.item.label is not None]
    if task not in (None, "classification", "multilabel"):
        raise GeopeftError(f"task={task!r} needs masks, and these images have a label each.")
    several = any(BETWEEN in str(tile.item.label) for tile in kept)
    if task is None and several:
        ask.about_all(f"labels such as {kept[0].item.label!r}: one, or several?", task="multilabel")
    task = task or ("multilabel" if several else "classification")
    found = sorted({label for tile in kept for label in labels_of(tile.item, task)})
    if isinstance(classes, Mapping):
        names = {str(value): name for value, name in classes.items()}
    else:
        names = {name: name for name in classes or found}
    order = list(dict.fromkeys(names.values()))
    if (odd := [name for name in found if name not in names]) or len(order) < 2:
        raise GeopeftError(
            f"The images have the labels {', '.join(found[:9])}, and classes are "
            f"{', '.join(order)}. {'Add ' + odd[0] if odd else 'Name two at least'} in classes=."
        )
    codes = {label: order.index(name) for label, name in names.items()}
    counts = Counter(name for tile in kept for name in labels_of(tile.item, task))
    notes = [f"Labels: {', '.join(f'{name} {counts[name]}' for name in found)}."]
    return kept, replace(labels, task=task, classes=tuple(order), codes=codes), notes
