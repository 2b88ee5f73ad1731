"""Somebody's own files: images with masks, polygons or labels, cut into chips, split by place.

`layouts` finds which files belong together, `rasters` reads them, `acquisitions` names their bands
and makes reflectance of their numbers, `labels` finds the task and the classes, and `places` keeps
ground apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np

from geopeft_nb.bands import WAVELENGTHS, band_name, band_names as band_names_of, own_name
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData
from geopeft_nb.datasets.own.acquisitions import name_bands, settle
from geopeft_nb.datasets.own.ask import Ask, listed
from geopeft_nb.datasets.own.cut import Polygons, Tile, choose_size, cut
from geopeft_nb.datasets.own.labels import Labels, find_labels
from geopeft_nb.datasets.own.layouts import Item, find_items
from geopeft_nb.datasets.own.places import split_own
from geopeft_nb.datasets.own.rasters import Source, describe
from geopeft_nb.errors import GeopeftError, check_name, check_names
from geopeft_nb.files import named_path
from geopeft_nb.pictures.show import COLOURS
from geopeft_nb.tasks import TASKS

CARD = DataCard(
    name="folder",
    title="Your own files",
    predicts="what your masks, polygons or labels say",
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
    download="nothing: gp.load_data('folder', root='…') reads images and labels",
)


def load_folder(
    request: DataRequest, *,
    images: str | None = None, masks: str | None = None,
    labels: str | os.PathLike[str] | None = None, table: Any = None, task: str | None = None,
    classes: Sequence[str] | Mapping[int, str] | None = None,
    unlabelled: float | Sequence[float] | None = None, label_field: str | None = None,
    background: str | None = None,
    band_names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    scale: float | Mapping[str, float] | None = None,
    offset: float | Mapping[str, float] | None = None,
    nodata: (
        float | Sequence[float] | Mapping[str, float] | Mapping[str, Sequence[float]] | None
    ) = None,
    frames: int = 1, order: str | None = None, block: int = 2,
) -> GeoData:  # fmt: skip
    """Load somebody's own files; see `load_data`. `data.notes` says what was found and done.

    What a file states holds for that file: GDAL's scale and offset, no-data, masks, alpha, names
    of bands. So does what a known product implies (Sentinel-2, HLS, Landsat Collection 2 level 2,
    Planet SR). All else is asked for: the error shows what was seen, and the whole call to type.
    `band_names`, `scale`, `offset` and `nodata` take one value, or a mapping by region or by
    pattern of file names, such as ``{"2021": 0, "*_2022*.tif": -1000}``.

    Headers are read here, and pixels of a bounded sample; all else when it is asked for. Pixels
    without data get the mean of their chip and count for nothing, as does what pads a chip at a
    border. Chips without any label or data are left out.

    Args:
        request: `root` is a folder, or one image; `size` None takes 64 px, or whole images if at
            least ten are squares of one side up to 256 px that 16 divides, or if each has one
            label. Without regions there is one, ``"all"``.
        images: Pattern of the images' paths below the root, such as
            ``"{split}/{region}/{id}_{date}_{band}.tif"``; None knows a dozen usual layouts.
        masks: Pattern of the masks' paths, such as ``"labels/mask_{id}.png"``.
        labels: A file of polygons, or a raster that covers the images, relative to the root.
        table: CSV or frame with a row an image: image, mask, split, region, date, band, label.
        task: ``"segmentation"``, ``"regression"``, ``"classification"`` or ``"multilabel"`` (labels
            with semicolons between them); None takes what is clear.
        classes: Names of the mask values 0, 1, …; or value -> name, where one name for several
            merges them. None names the values found.
        unlabelled: Mask values to ignore; the no-data value of a mask is, unless this is ``[]``.
            None takes negative values of classes, too.
        label_field: Attribute of the polygons that has the class; None takes one with a usual name.
        background: Name of the class of ground outside the polygons; None leaves it unlabelled.
        band_names: Names of the bands of the files, in their order, also of unknown ones; `bands`
            of the request chooses among them, and None takes those of known wavelength.
        scale: Reflectance 0-1 is (number + offset) / scale.
        offset: In the numbers of the files, for example -1000.
        nodata: Number of pixels without data, beside those that the file says; 0 counts where all
            bands have it, any other where one has. ``float("nan")`` says that there is none.
        frames: Dates that are stacked in each file; `image` is (C, T, H, W) then.
        order: ``"time-band"`` if all bands of the first date come first, or ``"band-time"``.
        block: Side of a place in chips, where one image is cut into places.

    Returns:
        The data, split by place within each region, or as their own split says.

    Raises:
        FileNotFoundError: The root or the labels are not there.
        GeopeftError: Something that is needed is not stated, or does not fit together.
    """
    options = {key: value for key, value in locals().items() if key != "request"}
    if request.root is None:
        raise GeopeftError("Say where your files are: gp.load_data('folder', root='…').")
    check_name("order", order or "time-band", ("time-band", "band-time"))
    check_name("task", task or "segmentation", TASKS)
    root = named_path(request.root, "root")
    items, vector, notes = find_items(root, images, masks, labels, table)
    files = {path: item.region for item in items for date in item.images for path in date}
    ask = Ask('gp.load_data("folder", ', _given(request, options), files)

    acquired = [_sources(item, ask) for item in items]
    flat = [source for some in acquired for source in some]
    _check_alike(items, acquired)
    bands = _choose_bands(request.bands, flat)
    settled = iter(flat := settle(flat, bands, ask))
    acquired = [[next(settled) for _ in some] for some in acquired]
    size = request.size or choose_size(items, [some[0].grid.shape for some in acquired])
    tiles, moved = cut(items, acquired, size)
    notes += [*describe(flat), *moved]
    said = Labels(task or "", unlabelled=None if unlabelled is None else (*listed(unlabelled),))
    if vector is not None:
        if isinstance(classes, Mapping) or unlabelled is not None:
            raise GeopeftError("unlabelled= and numbers in classes= are for masks, not polygons.")
        polygons = Polygons(vector, label_field, classes, background)
        said = replace(said, polygons=polygons)
        notes.append(polygons.note)
    elif label_field is not None or background is not None:
        raise GeopeftError("label_field and background are for polygons, and these have none.")
    tiles, meaning, words = find_labels(tiles, bands, said, classes, ask)
    ask.settle()
    asked = {*(request.train_regions or ()), *(request.holdout_regions or ())}
    for name in sorted(asked - {tile.item.region for tile in tiles}):
        if name in files.values() or any(path.name == name for path in root.rglob("*")):
            ways = "Add masks, or leave the region out; gp.predict_scene maps bare images"
            raise GeopeftError(f"Region {name!r} has no image with a label. {ways}.")

    card = replace(
        CARD, title=f"Your own files in {root.name}", classes=meaning.classes, task=meaning.task,
        # the first is mostly land or background, and orange is ground unlike that of training
        colours=tuple(islice(cycle(("#D9CFB8", *COLOURS[1:])), len(meaning.classes))),
        bands=bands, size=size, resolution=flat[0].grid.metres or float("nan"),
        reflectance={*bands} <= {*WAVELENGTHS} and all(source.reflectance for source in flat),
    )  # fmt: skip
    chips = [_chip(tile, partial(_read, tile, bands, meaning, card), size) for tile in tiles]
    splits = [tile.item.split for tile in tiles]
    data, more = split_own(chips, [tile.ground for tile in tiles], splits, request, card, block)
    titles = sorted({raster.product.title for x in flat for raster in x.rasters if raster.product})
    told = (*notes, *words, *more)
    return replace(data, notes=told, frames=len(acquired[0]), products=tuple(titles))


def _given(request: DataRequest, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `load_data` was given, as it is typed."""
    usual = vars(DataRequest()) | dict.fromkeys(options) | {"frames": 1, "block": 2}
    given = {key: x for key, x in {**vars(request), **options}.items() if x is not usual[key]}
    return {key: str(x) if isinstance(x, os.PathLike) else x for key, x in given.items()}


def _sources(item: Item, ask: Ask) -> list[Source]:
    """Open what is of one id: an acquisition a date, all on the grid of the first."""
    if len(item.images) > 1 and "frames" in ask.given:
        raise GeopeftError(f"frames= is for stacked files, and {item.name} has a file a date.")
    dates = [name_bands(files, ask, item.bands) for files in item.images]
    return [
        # of dates in one file it is not known which is which day
        replace(x, grid=dates[0][0].grid, day=None if date[1:] else day or x.raster.day)
        for date, day in zip(dates, item.dates, strict=True)
        for x in date
    ]


def _check_alike(items: Sequence[Item], acquired: Sequence[Sequence[Source]]) -> None:
    """Refuse files of which some have more dates than others, or larger pixels."""
    if len(dates := {len(some): item.name for item, some in zip(items, acquired, strict=True)}) > 1:
        shown = "; ".join(f"{name} has {count} dates" for count, name in dates.items())
        raise GeopeftError(f"All ids need as many dates: {shown}. Add them, or take some out.")
    sides = sorted((x[0].grid.metres, str(x[0].raster.path)) for x in acquired if x[0].grid.metres)
    if sides and sides[-1][0] > 1.01 * sides[0][0]:
        (finest, one), (coarsest, other) = sides[0], sides[-1]
        what = f"{one} has pixels of {finest:.4g} m and {other} of {coarsest:.4g} m"
        raise GeopeftError(f"{what}: use gdalwarp -tr, of degrees or Mercator with -t_srs, too.")


def _choose_bands(wanted: Sequence[str] | None, sources: Sequence[Source]) -> tuple[str, ...]:
    """Choose bands that all files have, as they or the toolkit call them."""
    first = sources[0]
    bands = tuple(name for name in first.bands if name in WAVELENGTHS) or first.bands
    if wanted is not None:
        sensor = first.raster.product.sensor if first.raster.product else ""
        listed = [x if x in first.bands else own_name(x, sensor) or band_name(x) for x in wanted]
        bands = band_names_of(listed)
        check_names("band of these data", bands, first.bands)
    for source in sources:
        if {*bands} - {*source.bands}:
            one, other = (f"{x.raster.path} has {', '.join(x.bands)}" for x in (first, source))
            raise GeopeftError(f"{one}, and {other}. Choose bands= that all have.")
    return bands


def _chip(tile: Tile, read: Any, size: int) -> Chip:
    grid, (left, top, *_) = tile.sources[0].grid, tile.window.flatten()
    whole = type(tile.window)(left, top, size, size)  # with what pads it
    days = tuple(source.day for source in tile.sources if source.day)
    known = days if len(days) == len(tile.sources) else ()
    return Chip(
        tile.name, tile.item.region, str(tile.sources[0].raster.path), read, grid.crs,
        grid.bounds(whole), known if known[1:] else next(iter(known), None),
        filled=grid.bounds(tile.window),
    )  # fmt: skip


def _read(
    tile: Tile, bands: Sequence[str], labels: Labels, card: DataCard
) -> tuple[np.ndarray, np.ndarray]:
    """Read a tile as a chip: image (C, size, size) or (C, T, size, size), and its target."""
    pixels, there = tile.read(bands)
    known = pixels[..., there]
    means = known.mean(axis=2) if known.size else np.zeros(pixels.shape[:2], np.float32)
    if card.reflectance and known.size and not -0.2 <= means.mean() <= 2:
        raise GeopeftError(f"{tile.name} has a mean of {means.mean():.4g}: say its scale=.")
    image = np.empty((*pixels.shape[:2], card.size, card.size), np.float32)
    image[:] = means[..., None, None]
    image[..., : there.shape[0], : there.shape[1]][..., there] = known
    return image if len(tile.sources) > 1 else image[:, 0], labels.target(tile, there, card.size)
