"""How numbers become reflectance: as stated, as the product implies, or as somebody says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import Any, TypeVar

import numpy as np

from geopeft_nb.bands import WAVELENGTHS
from geopeft_nb.datasets.own.ask import Ask, Asked
from geopeft_nb.datasets.own.rasters import Grid, Source
from geopeft_nb.errors import GeopeftError

#: Acquisitions that are looked at, and pixels of each band of all of them together.
AT_MOST, PIXELS = 500, 2**24
#: Share of the pixels that may have one number in all bands.
CONSTANT = 0.01
#: The darkest band's 1st percentile, from where on an offset is likely; Sentinel-2's is 0.1.
FLOOR = 0.095
#: Medians of reflectance that surfaces have.
MEDIANS = -0.05, 1.2
LANDSAT = 36_363.64, -7_272.73


#: Numbers that are no data where they fill a part of a single band.
FILLS = (0, -9999, -32768, 65535, 255)
STATED = "as the file states"
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
    darkest: dict[str, float] = {}
    for source in sources:
        stated = _stated(source, optical, asked)
        if source in looked:
            numbers = look(source, optical or bands, side)
            stated, top = _check(stated, numbers, optical, asked, ask)
            darkest[stated.rule] = max(top, darkest.get(stated.rule, 0.0))
        found.append(stated)
    for source in looked:
        rule = found[sources.index(source)].rule
        if darkest[rule] < 0.03:
            why = f"{rule} leaves no pixel brighter than {darkest[rule]:.3f}: no surface is so dark"
            ask.about(source.raster.path, why, scale=255)
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
) -> tuple[Source, float]:
    """Look at the numbers of an acquisition, and ask about what cannot be right.

    Args:
        source: With its rule, if it states one.
        numbers: (C, N) of its files: of the optical bands, or where there are none of all.
        optical: Bands that are going to be read and are optical.
        asked: What somebody says.
        ask: Takes down questions.

    Returns:
        The acquisition with a rule, and the reflectance of its brightest band (99th percentile).
    """
    raster = source.raster
    about = partial(_about, ask, source)
    numbers, odd = _without_constants(source, numbers, asked)
    if odd:
        share = f"{odd.pop():.1%} of its pixels are {', '.join(f'{x:g}' for x in odd)}: no data?"
        about(share, nodata=odd if len(odd) > 1 else odd[0])
    if not numbers.size:
        return source, np.inf
    low, middle, high = np.percentile(numbers, (1, 50, 99), axis=1)
    shown = {"1 %": low, "50 %": middle, "99 %": high}
    table = {key: " ".join(f"{x:.4g}" for x in values) for key, values in shown.items()}
    ask.seen(raster.path, type=raster.dtype, bands=" ".join(source.bands), **table)
    if not optical:
        return replace(source, reflectance=False), np.inf
    likely = _likely_rule(raster.dtype, float(low.min()), float(high.max()))
    if not source.rule:
        plain = raster.dtype.startswith("float") and likely == (1, 0)
        if not plain:
            what = f"what is the scale of its {raster.dtype} numbers?"
            about(what, scale=likely[0], offset=likely[1])
        new = {x: source.layers[x]._replace(scale=likely[0], offset=likely[1]) for x in optical}
        rule = "taken as reflectance 0-1"
        source = replace(source, layers=source.layers | new, rule=rule, certain=not plain)
    rules = [source.layers[name] for name in optical]
    scales, offsets = np.array([[band.scale, band.offset] for band in rules]).T
    eight = raster.dtype in ("uint8", "int8") and source.rule != STATED
    if eight or 255 in scales:
        return replace(source, reflectance=False), np.inf
    low, middle, high = ((values + offsets) / scales for values in (low, middle, high))
    if not MEDIANS[0] <= min(low.min(), middle.min()) <= middle.max() <= MEDIANS[1]:
        about(
            f"numbers {source.rule} give medians of {middle.min():.3g} to {middle.max():.3g} and "
            f"{low.min():.3g} at the least (1st percentile): no surface has such reflectance",
            scale=likely[0], offset=likely[1],
        )  # fmt: skip
    elif not source.certain and low.min() >= FLOOR:
        about(
            f"no reflectance is below {low.min():.2g}: are its numbers too high, as those of "
            "Sentinel-2 from baseline 04.00 on? offset=0 says that they are not",
            offset=-0.1 * float(scales[0]),
        )  # fmt: skip
    return source, float(high.max())


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


def _likely_rule(dtype: str, low: float, high: float) -> tuple[float, float]:
    """Say which scale and offset are likely, from the lowest and the highest percentile."""
    if dtype in ("uint8", "int8"):
        return 255, 0
    if low > 6_500:  # Landsat Collection 2 has nothing below 7,273
        return LANDSAT
    scale = next((scale for top, scale in ((2, 1), (130, 100), (256, 255)) if high <= top), 10_000)
    return scale, -0.1 * scale if low >= FLOOR * scale and scale > 255 else 0
