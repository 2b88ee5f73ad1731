"""How numbers become reflectance: as stated, as the product implies, or as somebody says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from geopeft_nb.bands import WAVELENGTHS
from geopeft_nb.datasets.base import centre
from geopeft_nb.datasets.own.ask import Ask, Asked
from geopeft_nb.datasets.own.items import Item
from geopeft_nb.datasets.own.rasters import Grid, Source
from geopeft_nb.errors import GeopeftError

#: Acquisitions that are looked at, and pixels of each band of all of them together.
AT_MOST, PIXELS = 500, 2**24
#: Share of the pixels that may have one number in all bands.
CONSTANT = 0.01
#: The darkest band's 1st percentile, from where on an offset is likely; Sentinel-2's is 0.1.
FLOOR = 0.095
#: Medians of reflectance that surfaces have, and what the brightest band has at least.
MEDIANS, DARK = (-0.05, 1.2), 0.005
LANDSAT = 36_363.64, -7_272.73


#: Numbers that are no data where they fill a part of a single band.
FILLS = (0, -9999, -32768, 65535, 255)
STATED, PLAIN = "as the file states", "taken as reflectance 0-1"
T = TypeVar("T")


def spread(things: Sequence[T], at_most: int) -> list[T]:
    """Return at most so many things, evenly spread."""
    chosen = np.linspace(0, len(things) - 1, min(at_most, len(things))).round().astype(int)
    return [things[index] for index in chosen]


def windows(grid: Grid, side: int, whole: int = 1024) -> list[tuple[Any, tuple[int, int]]]:
    """Return windows that sample a grid, and the shape to read each at.

    Args:
        grid: The grid.
        side: Pixels a side that are wanted.
        whole: Up to this side it is read as a whole; else in sixteen parts.
    """
    from rasterio.windows import Window

    height, width = grid.shape
    if max(height, width) <= whole:
        return [(Window(0, 0, width, height), (min(height, side), min(width, side)))]
    high, wide = min(height, side // 4), min(width, side // 4)
    tops, lefts = np.linspace(0, height - high, 4), np.linspace(0, width - wide, 4)
    return [
        (Window(left, top, wide, high), (high, wide))
        for top in dict.fromkeys(tops.astype(int).tolist())
        for left in dict.fromkeys(lefts.astype(int).tolist())
    ]


def look(source: Source, bands: Sequence[str], side: int) -> np.ndarray:
    """Return (C, N) numbers as the files have them, of pixels with data."""
    plain = {name: band._replace(scale=1.0, offset=0.0) for name, band in source.layers.items()}
    bare = replace(source, layers=plain)
    quick = all(raster.overviews for raster in source.rasters)
    sampled = windows(source.grid, side, 2**20 if quick else 1024)
    parts = [bare.read(window, bands, shape) for window, shape in sampled]
    return np.concatenate([pixels[:, there] for pixels, there in parts], axis=1)


def settle(sources: Sequence[Source], bands: Sequence[str], asked: Asked, ask: Ask) -> list[Source]:
    """Find how numbers become reflectance, and check what comes out.

    Args:
        sources: All acquisitions; at most `AT_MOST` are looked at.
        bands: Bands that are going to be read.
        asked: What somebody says of them.
        ask: Takes down what is not known.

    Returns:
        The acquisitions with their rules.
    """
    looked = spread(sources, AT_MOST)
    side = min(512, max(64, isqrt(PIXELS // len(looked))))
    optical = [band for band in bands if band in WAVELENGTHS]
    ask.files = {raster.path: x.region for x in looked for raster in x.rasters}
    found: list[Source] = []
    ends: dict[str, tuple[float, float]] = {}
    chosen = {*looked}
    for source in sources:
        stated = _stated(source, optical, asked)
        whole = not source.raster.dtype.startswith("float")
        if source in chosen or (whole and not stated.rule):
            try:
                numbers = look(source, optical or bands, side)
            except OSError:  # it is refused, and named, when it is asked for
                numbers = np.empty((len(optical or bands), 0))
            stated, low, high = _check(stated, numbers, optical, asked, ask)
            least, most = ends.get(stated.rule, (np.inf, -np.inf))
            ends[stated.rule] = min(least, low), max(most, high)
        found.append(stated if stated.rule else replace(stated, rule=PLAIN))
    for rule, (least, most) in ends.items():
        if 0.6 < least < np.inf or -np.inf < most < 0.03:
            for source in (x for x in found if x.rule == rule):
                _about(
                    ask, source, f"numbers {rule} are all between {least:.3g} and {most:.3g}: no "
                    "ground is so dark or so bright", **_likely(source, optical, side),
                )  # fmt: skip
    return found


def _stated(source: Source, optical: Sequence[str], asked: Asked) -> Source:
    """Apply what was said, else what each file states, else what its product implies."""
    layers, words, certain = dict(source.layers), "", True
    for name in optical or source.bands:
        band = source.layers[name]
        raster, product = band.raster, band.raster.product
        scale, offset = (asked.of(what, raster.path, source.region) for what in ("scale", "offset"))
        rule = raster.rules[raster.numbers.index(band.number)]
        words, sure = STATED, True
        if rule is None and product and not raster.dtype.startswith("float"):
            if product.refused and scale is None:
                raise GeopeftError(f"{raster.path} is {product.title}: {product.refused}.")
            rule, words = (product.scale, product.offset), f"as {product.title} implies"
            sure = bool(product.offset) or not product.since
        if scale is not None or not optical:
            rule, words, sure = (scale or 1.0, 0.0), "as asked" if scale else "as they are", False
        if offset is not None and rule:
            rule, words, sure = (rule[0], offset), "as asked", True
        if rule is None:
            return source
        certain &= sure
        layers[name] = band._replace(scale=rule[0], offset=rule[1])
    return replace(source, layers=layers, rule=words, certain=certain)


def _check(
    source: Source, numbers: np.ndarray, optical: Sequence[str], asked: Asked, ask: Ask
) -> tuple[Source, float, float]:
    """Look at the numbers of an acquisition, and ask about what cannot be right.

    Args:
        source: With its rule, if it states one.
        numbers: (C, N) of its files: of the optical bands, or where there are none of all.
        optical: Bands that are going to be read and are optical.
        asked: What somebody says.
        ask: Takes down questions.

    Returns:
        The acquisition with a rule, and the reflectance of its darkest band (1st percentile) and
        of its brightest (99th).
    """
    raster = source.raster
    about = partial(_about, ask, source)
    numbers, odd = _without_constants(source, numbers, asked)
    if odd:
        share, which = f"{odd.pop():.1%}", ", ".join(f"{x:g}" for x in odd)
        about(f"many of its pixels are {which}: no data?", nodata=odd if odd[1:] else odd[0])
        ask.seen(raster.path, constant=f"{which}: {share}")
    if not numbers.size:
        return source, np.inf, -np.inf
    low, middle, high = np.percentile(numbers, (1, 50, 99), axis=1)
    shown = {"1 %": low, "50 %": middle, "99 %": high}
    table = {key: " ".join(f"{x:.4g}" for x in values) for key, values in shown.items()}
    ask.seen(raster.path, type=raster.dtype, bands=" ".join(source.bands), **table)
    if not optical:
        return replace(source, reflectance=False), np.inf, -np.inf
    likely = _likely_rule(raster.dtype, float(low.min()), float(high.max()))
    if not source.rule:
        plain = raster.dtype.startswith("float") and likely == (1, 0)
        if not plain:
            what = f"what is the scale of its {raster.dtype} numbers?"
            about(what, scale=likely[0], offset=likely[1])
        new = {x: source.layers[x]._replace(scale=likely[0], offset=likely[1]) for x in optical}
        source = replace(source, layers=source.layers | new, rule=PLAIN, certain=not plain)
    rules = [source.layers[name] for name in optical]
    scales, offsets = np.array([[band.scale, band.offset] for band in rules]).T
    eight = raster.dtype in ("uint8", "int8") and source.rule != STATED
    if eight or 255 in scales:
        return replace(source, reflectance=False), np.inf, -np.inf
    low, middle, high = ((values + offsets) / scales for values in (low, middle, high))
    if (
        high.max() < DARK
        or not MEDIANS[0] <= min(low.min(), middle.min()) <= middle.max() <= MEDIANS[1]
    ):
        about(
            f"numbers {source.rule} give medians, or a darkest or brightest band, that no surface "
            "has",
            scale=likely[0], offset=likely[1],
        )  # fmt: skip
    elif not source.certain and low.min() >= FLOOR:
        about(
            "no reflectance is below 0.095: are the numbers too high, as those of Sentinel-2 from "
            "baseline 04.00 on? offset=0 says that they are not",
            scale=float(scales[0]), offset=-0.1 * float(scales[0]),
        )  # fmt: skip
    return source, float(low.min()), float(high.max())


def _about(ask: Ask, source: Source, why: str, **likely: object) -> None:
    for raster in source.rasters:
        ask.about(raster.path, why, **likely)


def _without_constants(
    source: Source, numbers: np.ndarray, asked: Asked
) -> tuple[np.ndarray, list[float]]:
    """Find numbers that are likely no data, and were not said to be.

    Returns:
        The other numbers (C, N), and what was found, its share of the pixels last.
    """
    said = np.ravel(asked.of("nodata", source.raster.path, source.region) or [])
    if np.isnan(said.astype(float)).any():  # which says that all others are data
        return numbers, []
    same = (numbers == numbers[:1]).all(0)
    values, counts = np.unique(numbers[0, same], return_counts=True)
    often = counts > CONSTANT * numbers.shape[1]
    if len(numbers) == 1:
        often &= np.isin(values, FILLS)
    never = numbers[(numbers <= -9999) | (numbers >= 65_535)]
    odd = [x for x, _ in Counter([*values[often].tolist(), *never[:99].tolist()]).most_common(3)]
    gone = np.isin(numbers, odd)
    return numbers[:, ~(gone.any(0))], [*odd, float(gone.any(0).mean())] if odd else []


def _likely(source: Source, optical: Sequence[str], side: int) -> dict[str, float]:
    numbers = look(source, optical, side)
    low, high = np.percentile(numbers, (1, 99)) if numbers.size else (0, 1)
    scale, offset = _likely_rule(source.raster.dtype, float(low), float(high))
    return {"scale": scale, "offset": offset}


def _likely_rule(dtype: str, low: float, high: float) -> tuple[float, float]:
    """Say which scale and offset are likely, from the lowest and the highest percentile."""
    if dtype in ("uint8", "int8"):
        return 255, 0
    if low > 6_500:  # Landsat Collection 2 has nothing below 7,273
        return LANDSAT
    scale = next((scale for top, scale in ((2, 1), (130, 100), (256, 255)) if high <= top), 10_000)
    return scale, -0.1 * scale if low >= FLOOR * scale and scale > 255 else 0


def describe(
    items: Sequence[Item], vector: Path | None, sources: Sequence[Source], resolution: float | None
) -> list[str]:
    """Say what was found: files, coordinates, pixels, bands, and how numbers become reflectance."""
    grids = [source.grid for source in sources]
    sides = Counter(f"{grid.shape[1]} x {grid.shape[0]} px" for grid in grids)
    what = f"polygons of {vector.name}" if vector else "a mask each" if items[0].mask else "labels"
    first = sources[0]
    notes = [
        f"Files: {len(items)} images with {what}, {', '.join(x for x, _ in sides.most_common(3))}.",
        f"Bands: {', '.join(first.bands)}.",
    ]
    if extra := [x for x in first.bands if x not in WAVELENGTHS]:
        notes.append(
            f"{', '.join(extra)}: no known wavelength, so their numbers stay as they are, and "
            "bands= has to name them."
        )
    metres = sorted((grid.metres, str(source.raster.path)) for grid, source in
                    zip(grids, sources, strict=True) if grid.metres)  # fmt: skip
    if metres:
        (finest, one), (coarsest, other) = metres[0], metres[-1]
        if coarsest > 1.01 * finest:
            raise GeopeftError(
                f"{one} has pixels of {finest:.4g} m and {other} of {coarsest:.4g} m. Pass "
                "resolution= in metres to resample all to one size, or load them apart."
            )
        systems = Counter(str(grid.crs) for grid in grids if grid.crs)
        listed = ", ".join(f"{name} ({count})" for name, count in systems.most_common(4))
        notes.append(f"Coordinates: {listed}; pixels of {finest:.4g} m.")
    place = centre(grids[0].crs, grids[0].bounds()) if grids[0].crs == "EPSG:3857" else None
    if place and grids[0].metres:
        ground = grids[0].metres * np.cos(np.radians(place[0]))
        notes.append(f"EPSG:3857 stretches: on the ground a pixel is about {ground:.3g} m.")
    if bare := sum(grid.crs is None for grid in grids):
        notes.append(f"{bare} images have no coordinates: no map, and overlap goes unnoticed.")
    if resolution is not None:
        notes.append(f"Images are resampled to {resolution:g} m where they have other pixels.")
    rules = Counter(_rule(source) for source in sources)
    return [*notes, *(f"Numbers of {count} images: {rule}." for rule, count in rules.items())]


def _rule(source: Source) -> str:
    rules = {(x.scale, x.offset) for x in source.layers.values() if x.name in WAVELENGTHS}
    words = " or ".join(
        (f"(number {offset:+,.7g})" if offset else "number") + f" / {scale:,.7g}"
        for scale, offset in sorted(rules)
    )
    return f"{source.rule}: {words}" if words else "as they are"
