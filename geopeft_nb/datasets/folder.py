"""Somebody's own files: images with masks, or with polygons, cut into chips and split by place.

Which files belong together is found by `folder_files`, how images are cut by `folder_images`, what
masks mean by `folder_labels` and `folder_polygons`, the scale of the numbers by `folder_scale`;
`folder_rasters` reads pixels, and `folder_places` keeps ground apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from geopeft_nb.datasets import folder_labels
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.cards import DataCard, DataRequest, choose_bands
from geopeft_nb.datasets.folder_files import Pair, find_pairs
from geopeft_nb.datasets.folder_images import (
    Tile,
    choose_size,
    cut,
    describe,
    leave_out_empty,
    name_bands,
    one_resolution,
)
from geopeft_nb.datasets.folder_labels import Labels, find_classes, start_labels
from geopeft_nb.datasets.folder_places import (
    enough_places,
    keep_apart,
    name_places,
    own_regions,
)
from geopeft_nb.datasets.folder_polygons import Polygons
from geopeft_nb.datasets.folder_rasters import Raster, aligned, read_header, read_pixels
from geopeft_nb.datasets.folder_scale import Scale, find_scale
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.split import split_regions
from geopeft_nb.errors import GeopeftError

CARD = DataCard(
    name="folder",
    title="Your own files",
    predicts="what your masks or polygons say, per pixel",
    classes=(),
    colours=(),
    bands=(),
    regions=(),
    home=(),
    size=64,
    resolution=float("nan"),
    labels="yours",
    licence="yours",
    citation="yours",
    download="nothing: gp.load_data('folder', root='…') reads GeoTIFFs with masks or with polygons",
)
#: Colours of the classes in turn: those that Okabe and Ito made for colour-blind readers, and more.
COLOURS = (
    "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F7F7F",
    "#8C564B", "#17BECF", "#BCBD22", "#9467BD", "#AEC7E8", "#98DF8A", "#FF9896", "#C49C94",
)  # fmt: skip


def load_folder(
    request: DataRequest,
    *,
    labels: str | os.PathLike[str] | None = None,
    label_field: str | None = None,
    background: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    unlabelled: int | Sequence[int] | None = None,
    band_names: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float = 0.0,
    nodata: float | None = None,
    resolution: float | None = None,
    block: int = 2,
) -> GeoData:
    """Load somebody's own files; see `load_data`. `data.notes` says what was found and done.

    At most 1,000 masks and 48 images are looked at here, and where the files have a no-data value
    also one band of at most 1,000 chips; all else is read when it is asked for. Pixels without data
    get the mean of their chip and count for nothing, as does what pads a chip at a border. Chips
    without any label or data are left out.

    Args:
        request: `root` is a folder, or one image; `size` None takes 64 px, or whole images if at
            least ten are squares of one side up to 256 px that 16 divides. Regions are the
            subfolders. Without any there is one, ``"all"``; asking for ``"north-west"``,
            ``"north-east"``, ``"south-west"`` or ``"south-east"`` divides it.
        labels: What labels the images: a file of polygons, a raster that covers them, or a folder
            of masks, relative to the root. None looks for it.
        label_field: Attribute of the polygons that has the class; None takes one with a usual name.
        background: Name of the class of ground outside the polygons; None leaves it unlabelled.
        classes: Names of the mask values 0, 1, …; or value -> name. None names the values found;
            for polygons the values of the attribute.
        unlabelled: Mask values to ignore. None takes negative values and the no-data value of each
            mask, and 255 if at least two other values occur and no classes are given.
        band_names: Names of the bands of the files, in their order; None takes the descriptions of
            the bands, or for 12 and 13 bands without any those of Sentinel-2 L2A and L1C.
        scale: Reflectance 0-1 is (number + offset) / scale. None takes what the files state, else
            guesses 1 or 10,000 from type and values, else refuses.
        offset: Added to the numbers of the files before the division, for example -1000.
        nodata: Value of pixels without data; None takes what each file says. NaN always is.
        resolution: Pixel side in metres to resample to; None takes files of one resolution only.
        block: Side of a place in chips: larger places keep training and test further apart.

    Returns:
        The data, split by place within each region.

    Raises:
        FileNotFoundError: The root or the labels are not there.
        ValueError: What was found does not fit together; the message names the files.
    """
    if request.root is None:
        raise GeopeftError(
            "Say where your files are: gp.load_data('folder', root='…'), a folder of GeoTIFFs with "
            "masks beside them or with a file of polygons."
        )
    root = Path(request.root).expanduser()
    pairs, vector, notes = find_pairs(root, labels)
    headers = _headers(pairs)
    images, more = one_resolution({pair.image: headers[pair.image] for pair in pairs}, resolution)
    grids = list(images.values())
    names, source = name_bands(grids, band_names)
    notes = [*describe(pairs, vector, grids), *notes, *more, source]
    indices, bands = choose_bands(request.bands, replace(CARD, bands=names))
    size = request.size or choose_size(grids)
    most = sum(-(-grid.shape[0] // size) * -(-grid.shape[1] // size) for grid in grids)
    if most > 1_000_000:
        raise GeopeftError(
            f"These files make {most:,} chips of {size} px, and 1,000,000 are allowed: give a "
            "coarser resolution=, a larger size=, or fewer files."
        )
    polygons = None
    if vector is not None:
        if isinstance(classes, Mapping):
            raise GeopeftError("classes is a list of names for polygons, which have names already.")
        polygons = Polygons(vector, label_field, classes, background)
    elif label_field is not None or background is not None:
        raise GeopeftError("label_field and background are for polygons, and these are masks.")
    masks = {pair.mask: headers[pair.mask] for pair in pairs if pair.mask is not None}
    tiles, more = _tiles(pairs, images, masks, size)
    tiles, meaning, class_names, words = find_classes(
        tiles, start_labels(polygons, unlabelled), classes
    )
    notes += [*more, *words]
    tiles, more = leave_out_empty(tiles, indices, nodata, folder_labels.AT_MOST)
    found = find_scale(tiles, indices, nodata, scale, offset)
    notes += [*more, f"Numbers: {found.words}"]

    places = name_places(tiles, size, block)
    tiles, regions = own_regions(tiles, places, request)
    card = replace(
        CARD, title=f"Your own files in {root.name}", classes=class_names,
        colours=tuple(COLOURS[index % len(COLOURS)] for index in range(len(class_names))),
        bands=names, regions=regions, home=regions, size=size,
        resolution=next((grid.metres for grid in grids if grid.metres), float("nan")),
        reflectance=found.reflectance,
    )  # fmt: skip
    how = _How(tuple(indices), found, meaning, nodata, size)
    chips = [
        Chip(
            tile.name, tile.region, place, partial(_read, tile, how), tile.image.crs,
            tile.image.bounds_of(replace(tile.box, height=size, width=size)),
            filled=tile.image.bounds_of(tile.box),
        )
        for tile, place in zip(tiles, places, strict=True)
    ]  # fmt: skip
    enough_places(chips, card, request, size, block)
    data = split_regions(chips, request, card, bands, size)
    data, overlapping = keep_apart(data, {tile.name: tile for tile in tiles})
    notes += _counted(data, tiles, overlapping, block)
    return replace(data, notes=tuple(notes))


def _headers(pairs: Sequence[Pair]) -> dict[Path, Raster]:
    """Read the headers of all images and masks."""
    paths = dict.fromkeys(path for pair in pairs for path in (pair.image, pair.mask) if path)
    return {path: read_header(path) for path in paths}


def _tiles(
    pairs: Sequence[Pair], images: Mapping[Path, Raster], masks: Mapping[Path, Raster], size: int
) -> tuple[list[Tile], list[str]]:
    """Cut all images, and check that masks can be laid onto them."""
    tiles, moved, bare = [], 0, 0
    for pair in pairs:
        image, mask = images[pair.image], masks[pair.mask] if pair.mask is not None else None
        if mask is not None:
            moved += not aligned(mask, image)
            bare += (mask.crs is None) != (image.crs is None)
        elif image.crs is None:
            raise GeopeftError(
                f"{image.path} has no coordinate reference system, so nobody knows where the "
                "polygons lie on it. Add it, or give a mask of the same size."
            )
        boxes = cut(image, size)
        for box in boxes:
            cell = f"-{box.top // size:03d}-{box.left // size:03d}" if len(boxes) > 1 else ""
            tiles.append(Tile(pair.name + cell, pair.region, image, mask, box))
    notes = []
    if moved:
        notes.append(
            f"{moved} masks lie on another grid than their images and are reprojected onto it, "
            "nearest pixel; what they do not cover is unlabelled."
        )
    if bare:
        notes.append(
            f"{bare} masks or their images have no coordinates and the same size: they are taken "
            "to lie pixel on pixel."
        )
    if padded := sum(min(tile.box.height, tile.box.width) < size for tile in tiles):
        notes.append(
            f"{padded} chips are smaller than {size} px and are padded with ignored pixels; strips "
            f"narrower than a quarter of {size} px are left out."
        )
    return tiles, notes


@dataclass(frozen=True)
class _How:
    """How all tiles are read."""

    indices: tuple[int, ...]
    scale: Scale
    labels: Labels
    nodata: float | None
    size: int


def _read(tile: Tile, how: _How) -> tuple[np.ndarray, np.ndarray]:
    """Read a tile as a chip: image (C, size, size) float32, mask (size, size) int64."""
    pixels, there = read_pixels(tile.image, tile.box, how.indices, how.nodata)
    classes = how.labels.classes(tile)
    if how.scale.offset:
        pixels += np.float32(how.scale.offset)
    if how.scale.divisor != 1:
        pixels /= np.float32(how.scale.divisor)
    whole = bool(there.all())
    known = pixels if whole else pixels[:, there]
    if how.scale.reflectance and known.size and (mean := float(known.mean())) > 5:
        raise GeopeftError(
            f"{tile.image.path} has a mean of {mean:.4g} after division by "
            f"{how.scale.divisor:g}: it seems to have another scale than the other files. Bring it "
            "to theirs, or take it out."
        )
    height, width = there.shape
    if whole and height == width == how.size:
        return pixels, classes
    filling = np.zeros(len(pixels), np.float32)
    if known.size:
        filling = known.reshape(len(pixels), -1).mean(axis=1)
    image = np.empty((len(pixels), how.size, how.size), np.float32)
    image[:] = filling[:, None, None]
    image[:, :height, :width][:, there] = known.reshape(len(pixels), -1)
    mask = np.full((how.size, how.size), -1, np.int64)
    mask[:height, :width][there] = classes[there]
    return image, mask


def _counted(data: GeoData, tiles: Sequence[Tile], overlapping: int, block: int) -> list[str]:
    """Say how the chips were split, and what can be held out."""
    sides = ", ".join(
        f"{name} {len(part)} in {len({chip.place for chip in part.chips})}"
        for name, part in data.parts.items()
    )
    notes = [
        f"Chips, and the places that they lie in (squares of {block} chips of {data.size} px; a "
        f"file without coordinates is a place itself): {sides}."
    ]
    if overlapping:
        notes.append(
            f"{overlapping} chips of training or validation overlap with a chip of another side "
            "and are left out."
        )
    held = sum(len(part) for part in data.holdout.values())
    wanted = sum(tile.region in data.holdout for tile in tiles)
    if wanted > held:
        notes.append(f"{wanted - held} held-out chips share a place with home and are left out.")
    if not data.holdout and len(data.card.regions) > 1:
        notes.append(
            f"Regions are the subfolders {', '.join(data.card.regions)}. None is held out: "
            f"holdout_regions=[{data.card.regions[-1]!r}] with the others as train_regions does it."
        )
    elif not data.holdout:
        notes.append(
            "No region is held out. Subfolders with the files of a region each make regions, or "
            "with coordinates train_regions=['north-west', 'south-west'], "
            "holdout_regions=['north-east', 'south-east']."
        )
    return notes
