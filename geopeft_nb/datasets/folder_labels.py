"""What the numbers in somebody's own masks mean, found by looking at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from geopeft_nb.datasets.folder_images import Tile, spread
from geopeft_nb.datasets.folder_polygons import OVERLAP, Polygons
from geopeft_nb.datasets.folder_rasters import UNSET, read_mask
from geopeft_nb.errors import GeopeftError

#: Chips whose masks are read when a folder is opened.
AT_MOST = 1000
#: More values than that are no classes, unless they are named.
MANY = 64


@dataclass(frozen=True)
class Labels:
    """What the numbers in the masks mean.

    Attributes:
        polygons: What is burned instead of masks, or None.
        unlabelled: Numbers that mean unlabelled.
        usual: Whether negative numbers and each file's no-data value mean it, too.
        codes: Number -> class; empty as long as it is not known.
    """

    polygons: Polygons | None
    unlabelled: tuple[int, ...] = ()
    usual: bool = True
    codes: Mapping[int, int] = field(default_factory=dict)

    def numbers(self, tile: Tile) -> np.ndarray:
        """Return the numbers of a tile, (H, W) int32."""
        if tile.mask is None:
            assert self.polygons is not None
            return self.polygons.burn(tile.image, tile.box)
        return read_mask(tile.mask, tile.image, tile.box, self.usual)

    def ignored(self, numbers: np.ndarray) -> np.ndarray:
        """Say which numbers are unlabelled."""
        found = numbers < 0 if self.usual else numbers == UNSET
        for number in self.unlabelled:
            found |= numbers == number
        return found

    def classes(self, tile: Tile) -> np.ndarray:
        """Return the classes of a tile, (H, W) int64, -1 where it is unlabelled.

        Raises:
            ValueError: A number is no class.
        """
        numbers = self.numbers(tile)
        found = np.full(numbers.shape, -1, np.int64)
        unknown = ~self.ignored(numbers)
        for number, index in self.codes.items():
            here = (numbers == number) & unknown
            found[here] = index
            unknown &= ~here
        if unknown.any():
            refuse_numbers(tile, np.unique(numbers[unknown]).tolist(), self.codes)
        return found


def refuse_numbers(tile: Tile, numbers: Sequence[int], codes: Mapping[int, int]) -> None:
    """Raise the error for numbers in a mask that are no class."""
    source = tile.mask.path if tile.mask is not None else tile.name
    raise GeopeftError(
        f"{source} has values {', '.join(map(str, numbers[:5]))}, which the class list lacks "
        f"({', '.join(map(str, codes))}). Name them in classes=, for example "
        f"classes={{{numbers[0]}: 'name', …}}, or ignore them with unlabelled=[{numbers[0]}]."
    )


@dataclass
class Survey:
    """What the masks hold.

    Attributes:
        pixels: Number in the masks -> count of pixels.
        first: Number -> the first tile with it.
        inside: Tile -> numbers that it has.
        overlaps: Pixels in polygons of different classes.
        unread: Names of tiles that could not be read.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    first: dict[int, Tile] = field(default_factory=dict)
    inside: dict[str, set[int]] = field(default_factory=dict)
    overlaps: int = 0
    unread: list[str] = field(default_factory=list)


def survey_labels(tiles: Sequence[Tile], labels: Labels) -> Survey:
    """Read masks, or burn polygons, and count what they hold.

    Args:
        tiles: What to look at.
        labels: With or without codes.

    Returns:
        The counts. Tiles that cannot be read are named there, and refused when they are asked for.
    """
    found = Survey()
    for tile in tiles:
        try:
            numbers = labels.numbers(tile)
        except OSError:
            found.unread.append(tile.name)
            continue
        found.overlaps += int((numbers == OVERLAP).sum()) if labels.polygons is not None else 0
        known = numbers[~labels.ignored(numbers)]
        values, counts = np.unique(known, return_counts=True)
        found.inside[tile.name] = set(values.tolist())
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            found.pixels[value] += count
            found.first.setdefault(value, tile)
        found.pixels[UNSET] += numbers.size - known.size
    return found


def start_labels(polygons: Polygons | None, unlabelled: int | Sequence[int] | None) -> Labels:
    """Take down what is known of the labels before any is read."""
    if unlabelled is None:
        return Labels(polygons)
    if polygons is not None:
        raise GeopeftError("unlabelled is for masks; polygons say nothing of the ground outside.")
    values = (unlabelled,) if isinstance(unlabelled, int) else tuple(unlabelled)
    return Labels(None, values, usual=False)


def find_classes(
    tiles: Sequence[Tile], labels: Labels, given: Sequence[str] | Mapping[int, str] | None
) -> tuple[list[Tile], Labels, tuple[str, ...], list[str]]:
    """Look at the masks, find the classes, and leave out tiles without any label.

    Args:
        tiles: Chips to be.
        labels: From `start_labels`.
        given: Names of the values 0, 1, …; or value -> name; or None.

    Returns:
        What is left; labels with codes; class names; and notes.

    Raises:
        ValueError: Values that are not in the class list, fewer than two classes, no labels, or
            polygons that lie elsewhere.
    """
    notes: list[str] = []
    polygons = labels.polygons
    if polygons is not None:
        touched = [tile for tile in tiles if polygons.touch(tile.image, tile.box)]
        if not touched:
            raise GeopeftError(f"{polygons.path} {_elsewhere(polygons, tiles)}")
        if polygons.outside == UNSET:
            if out := len(tiles) - len(touched):
                notes.append(f"{out} chips that no polygon touches are left out.")
            tiles = touched
        given = polygons.classes
        notes += [f"Classes are the values of {polygons.field}.", *polygons.notes]
    looked = spread(tiles, AT_MOST)
    seen = survey_labels(looked, labels)
    values = sorted(value for value in seen.pixels if value != UNSET)
    if given is None and labels.usual and 255 in values and len(values) > 2:
        labels = replace(labels, unlabelled=(255,))
        notes.append("255 is taken for unlabelled; unlabelled=[] makes it a class.")
        seen.pixels[UNSET] += seen.pixels.pop(255)
        values.remove(255)
    names = _names(values, given, len(looked) < len(tiles))
    labels = replace(labels, codes={value: index for index, value in enumerate(names)})
    if unknown := [value for value in values if value not in names]:
        refuse_numbers(seen.first[unknown[0]], unknown, labels.codes)
    if len(names) < 2:
        only = ", ".join(names.values()) or "none"
        raise GeopeftError(
            f"The masks have fewer than two classes: {only}. Is background taken for unlabelled "
            "(the masks' no-data value)? Then pass unlabelled=[]."
        )
    empty = {name for name, inside in seen.inside.items() if not inside & set(names)}
    kept = [tile for tile in tiles if tile.name not in empty]
    if not kept:
        raise GeopeftError("No chip has a label: all pixels of all masks are unlabelled.")
    return kept, labels, tuple(names.values()), notes + _counted(seen, names, tiles, looked, empty)


def _names(
    values: Sequence[int], given: Sequence[str] | Mapping[int, str] | None, more: bool
) -> dict[int, str]:
    """Return value -> name, in the order of the classes."""
    if given is None:
        if len(values) > MANY:
            raise GeopeftError(
                f"The masks have {len(values)} different values ({values[0]} to {values[-1]}). Are "
                "they masks of classes? If so, name them: classes={value: 'name', …}."
            )
        return {value: f"class {value}" for value in values}
    names = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    if len(set(names.values())) < len(names):
        raise GeopeftError(f"classes has a name twice: {', '.join(names.values())}.")
    return {int(value): str(name) for value, name in names.items()}


def _counted(
    seen: Survey, names: Mapping[int, str], tiles: Sequence[Tile], looked: Sequence[Tile],
    empty: set[str],
) -> list[str]:  # fmt: skip
    """Say which share each class has, and what was left out."""
    everything = max(1, sum(seen.pixels.values()))
    shares = [f"{name} {seen.pixels[value] / everything:.1%}" for value, name in names.items()]
    notes = [f"Classes: {', '.join(shares)}; unlabelled {seen.pixels[UNSET] / everything:.1%}."]
    if len(looked) < len(tiles):
        notes.append(
            f"Only {len(looked)} of {len(tiles)} masks were looked at; an unknown value in another "
            "stops at its chip."
        )
    if seen.overlaps:
        notes.append(
            f"{seen.overlaps:,} pixels lie in polygons of different classes and are ignored."
        )
    if empty:
        notes.append(f"{len(empty)} chips without any label are left out.")
    if seen.unread:
        notes.append(
            f"{len(seen.unread)} masks cannot be read ({seen.unread[0]}, …): restore them, or take "
            "them out of the folder."
        )
    return notes


def _elsewhere(polygons: Polygons, tiles: Sequence[Tile]) -> str:
    """Say where the polygons lie, and where the first image lies."""
    image = tiles[0].image
    left, bottom, right, top = polygons.frame.to_crs(image.crs).total_bounds
    here = ", ".join(f"{value:.8g}" for value in image.bounds or ())
    return (
        f"has no polygon on any image: the polygons lie in ({left:.8g}, {bottom:.8g}, {right:.8g}, "
        f"{top:.8g}), {image.path.name} in ({here}), {image.crs}. Is its coordinate reference "
        "system right?"
    )
