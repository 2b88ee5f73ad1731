"""How numbers become reflectance: as stated, as the product implies, or as somebody says."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isqrt
from typing import Any, TypeVar

import numpy as np
import pandas as pd

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
#: Medians of reflectance that surfaces have, and what the brightest band has at least.
MEDIANS, DARK = (-0.05, 1.2), 0.005
LANDSAT = {"scale": 36_363.64, "offset": -7_272.73}
EIGHT = "uint8", "int8"
#: Numbers that are no data where they fill a part of a single band.
FILLS = (0, -9999, -32768, 65535, 255)
STATED, PLAIN, ASKED = "as the file states", "taken as reflectance 0-1", "as asked"
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
        sources: All acquisitions; `AT_MOST` are looked at, and whole numbers that nothing is
            known of.
        bands: Bands that are going to be read.
        asked: What somebody says of them.
        ask: Takes down what is not known.

    Returns:
        The acquisitions with their rules.
    """
    chosen = {*spread(sources, AT_MOST)}
    side = min(512, max(64, isqrt(PIXELS // len(chosen))))
    optical = [band for band in bands if band in WAVELENGTHS]
    ask.files = {raster.path: x.region for x in sources for raster in x.rasters}
    found: list[Source] = []
    ends: dict[str, list[tuple[float, float, Source, dict[str, Any]]]] = defaultdict(list)
    for source in sources:
        stated = _stated(source, optical, asked)
        if source in chosen or not (stated.rule or stated.is_float):
            try:
                numbers = look(source, optical or bands, side)
            except OSError:  # it is refused, and named, when it is asked for
                numbers = np.empty((len(optical or bands), 0))
            numbers, odd, why = _without_constants(source, numbers, asked)
            if odd:
                _about(ask, source, "many of its pixels have one number: no data?", nodata=odd)
            if numbers.size:
                percentiles = np.percentile(numbers, (1, 50, 99), axis=1)
                _show(ask, source, optical or bands, percentiles, why)
                likely = _likely_rule(source, percentiles)
                if optical:
                    stated, low, high = _check(stated, percentiles, likely, optical, ask)
                    ends[stated.rule].append((low, high, stated, likely))
        found.append(stated if stated.rule else replace(stated, rule=PLAIN))
    for rule, some in ends.items():
        lows, highs, *_ = zip(*some, strict=True)
        if 0.6 < min(lows) < np.inf or max(highs) < 0.03:
            for _, _, source, likely in some:
                _about(ask, source, f"numbers {rule}: no ground is so dark, or bright", **likely)
    return [x if optical else replace(x, reflectance=False) for x in found]


def _stated(source: Source, optical: Sequence[str], asked: Asked) -> Source:
    """Apply what was said, else what each file states, else what its product implies."""
    layers, words, certain = dict(source.layers), "", True
    for name in optical or source.bands:
        band = source.layers[name]
        raster, product = band.raster, band.raster.product
        scale, offset = (asked.of(what, raster.path, source.region) for what in ("scale", "offset"))
        rule = own = raster.rules[raster.numbers.index(band.number)]
        words, sure = STATED, True
        if rule is None and product and not source.is_float:
            if product.refused and scale is None:
                raise GeopeftError(f"{raster.path} is {product.title}: {product.refused}.")
            rule, words = (product.scale, product.offset), f"as {product.title} implies"
            sure = bool(product.offset) or not product.since
        if scale is not None or not optical:
            rule, words, sure = (scale or 1.0, 0.0), ASKED if scale else "as they are", False
        if offset is not None and rule:
            rule, words, sure = (rule[0], offset), ASKED, True
        if rule is None:
            return source
        if words == ASKED and own and not np.allclose(rule, own):
            words = f"{ASKED}, against what the file states"
        certain &= sure
        layers[name] = band._replace(scale=rule[0], offset=rule[1])
    return replace(source, layers=layers, rule=words, certain=certain)


def _check(
    source: Source, percentiles: np.ndarray, likely: Mapping[str, Any], optical: Sequence[str],
    ask: Ask,
) -> tuple[Source, float, float]:  # fmt: skip
    """Ask about numbers without a rule, and about what no surface has.

    Args:
        source: With its rule, if it has one.
        percentiles: (3, C) of its numbers: 1st, 50th and 99th of each optical band.
        likely: Scale and offset that are likely.
        optical: Bands that are going to be read and are optical.
        ask: Takes down questions.

    Returns:
        The acquisition with a rule, and the reflectance of its darkest band and of its brightest.
    """
    if not source.rule:
        plain = source.is_float and likely == {"scale": 1, "offset": 0}
        if not plain:
            what = f"what is the scale of its {source.raster.dtype} numbers?"
            _about(ask, source, what, **likely)
        new = {name: source.layers[name]._replace(**likely) for name in optical}
        source = replace(source, layers=source.layers | new, rule=PLAIN, certain=not plain)
    scales, offsets = np.array([source.layers[name][3:] for name in optical]).T
    if 255 in scales or (source.raster.dtype in EIGHT and source.rule != STATED):
        return replace(source, reflectance=False), np.inf, np.inf
    low, middle, high = (percentiles + offsets) / scales
    least, most = MEDIANS
    if high.max() < DARK or min(low.min(), middle.min()) < least or middle.max() > most:
        _about(ask, source, f"numbers {source.rule} give medians, or a darkest or brightest band, "
               "that no surface has", **likely)  # fmt: skip
    elif not source.certain and low.min() >= FLOOR:
        why = "no reflectance is below 0.095, as of Sentinel-2 from baseline 04.00 on: an offset?"
        _about(ask, source, f"{why} offset=0 says that there is none",
               scale=float(scales[0]), offset=-0.1 * float(scales[0]))  # fmt: skip
    return source, float(low.min()), float(high.max())


def _about(ask: Ask, source: Source, why: str, **likely: object) -> None:
    for raster in source.rasters:
        ask.about(raster.path, why, **likely)


def _show(
    ask: Ask, source: Source, bands: Sequence[str], percentiles: np.ndarray, constant: str
) -> None:
    shown = [[f"{number:.5g}" for number in some] for some in percentiles]
    table = pd.DataFrame(
        {"type": source.raster.dtype, "band": bands}
        | dict(zip(("1 %", "50 %", "99 %"), shown, strict=True))
        | {"constant": constant}
    )
    for raster in source.rasters:
        mine = [source.layers[name].raster is raster for name in bands]
        ask.tables[raster.path] = table[mine]


def _without_constants(
    source: Source, numbers: np.ndarray, asked: Asked
) -> tuple[np.ndarray, list[float], str]:
    """Find numbers that are likely no data, and were not said to be.

    Returns:
        The other numbers (C, N), what was found, and that with its share of the pixels.
    """
    said = np.ravel(asked.of("nodata", source.raster.path, source.region) or [])
    if np.isnan(said.astype(float)).any():  # which says that all others are data
        return numbers, [], ""
    same = (numbers == numbers[:1]).all(0)
    values, counts = np.unique(numbers[0, same], return_counts=True)
    often = counts > CONSTANT * numbers.shape[1]
    if len(numbers) == 1:
        often &= np.isin(values, FILLS)
    never = numbers[(numbers <= -9999) | (numbers >= 65_535)]
    found = [*values[often].tolist(), *never[:99].tolist()]
    for band in numbers if numbers.size else ():
        low = float(band.min())
        others = band[band > low]  # far above it, if that is no data in this band alone
        far = others.size and low <= (-1 if source.is_float else -2) and others.min() > low / 2
        if far and others.size < (1 - CONSTANT) * band.size:
            found.append(low)
    odd = [x for x, _ in Counter(found).most_common(3)]
    gone = np.isin(numbers, odd).any(0)
    shown = f"{', '.join(f'{x:g}' for x in odd)}: {gone.mean():.1%}" if odd else ""
    return numbers[:, ~gone], odd, shown


def _likely_rule(source: Source, percentiles: np.ndarray) -> dict[str, Any]:
    """Say which scale and offset are likely, from the lowest and the highest percentile."""
    low, high = percentiles[0].min(), percentiles[2].max()
    if source.raster.dtype in EIGHT:
        return {"scale": 255, "offset": 0}
    if low > 6_500:  # Landsat Collection 2 has nothing below 7,273
        return LANDSAT
    tops = ((2, 1), (130, 100), (256, 255), (np.inf, 10_000))
    scale = next(scale for top, scale in tops if high <= top)
    high_by_a_tenth = low >= FLOOR * scale and scale > 255
    return {"scale": scale, "offset": -0.1 * scale if high_by_a_tenth else 0}


def describe(sources: Sequence[Source], resolution: float | None) -> list[str]:
    """Say what was found: bands, coordinates, pixels, and how numbers become reflectance."""
    first = sources[0]
    notes = [f"Bands: {', '.join(first.bands)}."]
    if extra := [x for x in first.bands if x not in WAVELENGTHS]:
        notes.append(
            f"{', '.join(extra)}: no known wavelength, so their numbers stay as they are, and "
            "bands= has to name them."
        )
    metres = sorted((x.grid.metres, str(x.raster.path)) for x in sources if x.grid.metres)
    if metres:
        (finest, one), (coarsest, other) = metres[0], metres[-1]
        if coarsest > 1.01 * finest:
            raise GeopeftError(
                f"{one} has pixels of {finest:.4g} m and {other} of {coarsest:.4g} m. Pass "
                "resolution= in metres to resample all to one size, or load them apart."
            )
        systems = Counter(x.grid.crs or "none" for x in sources)
        listed = ", ".join(f"{name} ({count})" for name, count in systems.most_common(4))
        resampled = f", resampled to {resolution:g} m where they had others" if resolution else ""
        notes.append(f"Coordinates: {listed}; pixels of {finest:.4g} m{resampled}.")
    rules = Counter(_rule(source) for source in sources)
    return [*notes, *(f"Numbers of {count} images: {rule}." for rule, count in rules.items())]


def _rule(source: Source) -> str:
    rules = {(x.scale, x.offset) for x in source.layers.values() if x.name in WAVELENGTHS}
    words = " or ".join(
        (f"(number {offset:+,.7g})" if offset else "number") + f" / {scale:,.7g}"
        for scale, offset in sorted(rules)
    )
    return f"{source.rule}: {words}" if words else "as they are"
