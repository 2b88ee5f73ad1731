"""Acquisitions, the files of one date: what their bands are, and how numbers become reflectance.

Both as the files state, as their product implies, or as somebody says; else it is asked for.
"""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS, WAVELENGTHS, own_name
from geopeft_nb.datasets.own.ask import CONSTANT, Ask, apart, listed, spread
from geopeft_nb.datasets.own.layouts import BAND
from geopeft_nb.datasets.own.products import RGBN
from geopeft_nb.datasets.own.rasters import BARE, EIGHT, STATED, Band, Raster, Source, read_header
from geopeft_nb.errors import GeopeftError

_BAND = re.compile(rf"(?<![^_.-])(?:{BAND})(?![^_.-])", re.IGNORECASE)
#: Names that are likely for so many bands without any.
USUAL = {
    3: RGBN[2::-1], 4: RGBN, 6: HLS_BANDS, 13: SENTINEL2_BANDS,
    12: tuple(b for b in SENTINEL2_BANDS if b != "CIRRUS"),
}  # fmt: skip
#: Acquisitions that are looked at, and pixels of each band of all of them together.
AT_MOST, PIXELS = 500, 2**24
#: The darkest band's 1st percentile, from where on an offset is likely; Sentinel-2's is 0.1.
FLOOR = 0.085
#: Medians of reflectance that surfaces have, and what the brightest band has at least.
LEAST, MOST, DARK = -0.05, 1.2, 0.005
#: What the brightest band of files with one kind of scale has at least, the darkest at most.
DIM, PALE = 0.03, 0.6
LANDSAT = {"scale": 36_363.64, "offset": -7_272.73}
#: Bands of backscatter, as a power or in decibels.
RADAR = "VV", "VH", "HH", "HV"
#: Numbers that are no data where they fill a part of a single band.
FILLS = (0, -9999, -32768, 65535, 255)
PLAIN, ASKED = "taken as reflectance 0-1", "as asked"


def open_source(files: Sequence[Path], call: str = "", **said: Any) -> Source:
    """Open one acquisition.

    Args:
        files: One stacked file, or one file a band.
        call: What was called, for the error: its beginning, up to what `said` says.
        said: `band_names`, `scale`, `offset` and `nodata`, see `load_folder`.

    Returns:
        The acquisition; no file stays open.

    Raises:
        GeopeftError: Something that is needed is not stated; or a file cannot be read.
    """
    ask = Ask(call, said, dict.fromkeys(files, "all"))
    source, *more = name_bands(files, ask)
    if more:
        raise GeopeftError(f"{files[0]} seems to have several dates: write one file a date.")
    (found,) = settle([source], source.bands, ask)
    ask.settle()
    return found


def name_bands(files: Sequence[Path], ask: Ask, said: Sequence[str] = ()) -> list[Source]:
    """Read the headers of an acquisition, and find what its bands are.

    Args:
        files: One stacked file, or one file a band.
        ask: Knows what somebody says, and takes down what is not known.
        said: What the name of each file says of its band.

    Returns:
        An acquisition for each of the dates that are stacked.
    """
    given = [ask.of("band_names", file) for file in files]
    rasters = [_header(*pair, ask) for pair in zip(files, given, strict=True)]
    layers = [Band(raster, n) for raster in rasters for n in raster.numbers]
    first, frames, order = rasters[0], ask.given.get("frames") or 1, ask.given.get("order")
    if len(odd := {raster.grid.crs for raster in rasters}) > 1:
        raise GeopeftError(f"The files of {first.path} have several coordinate systems: {odd}.")
    raw = [name or "" for raster in rasters for name in raster.names]
    if None not in given:
        each = given if len({*map(tuple, given)}) > 1 else given[:1]
        raw = [str(name) for names in each for name in names]
    elif len(said) == len(layers):
        raw = list(said)
    elif len(rasters) == len(layers) > 1 and not all(raw):
        raw = [(_BAND.findall(raster.path.stem) or [""])[-1] for raster in rasters]
    elif first.product and len(first.product.bands) == len(layers) and not any(raw):
        raw = list(first.product.bands)
    why = "the order of dates and bands"
    if frames == 1 and not any(raw) and len(layers) > 13 and len(layers) % 6 == 0:
        frames, raw = len(layers) // 6, list(HLS_BANDS)
        why = f"{len(layers)} bands without names: how many dates, in which order, of which bands?"
        ask.about((), why, frames=frames, band_names=raw)
    count = len(layers) // frames
    if count * frames != len(layers):
        raise GeopeftError(f"{first.path} has {len(layers)} bands, not of {frames} dates alike.")
    if frames > 1 and order is None:
        order = _likely_order(layers, frames)
        ask.about((), why, order=order)
    if frames > 1 and len({*raw}) == count:  # named alike for each date
        raw = list(dict.fromkeys(raw))
    sensors = {raster.product.sensor for raster in rasters if raster.product} - {""}
    only = any(name.upper() == "B8A" for name in raw)  # of Sentinel-2; Copernicus Browser names it
    if not sensors and (only or "Sentinel-2_L" in first.path.name):
        sensors = {"S2:"}
    names = [own_name(name or "0", *sensors) if len(sensors) < 2 else None for name in raw]
    if None in names or len({*names}) < count or len(names) != count:
        if None not in names and any(len(raster.numbers) > 1 for raster in rasters[1:]):
            raise GeopeftError(f"{rasters[1].path} has bands of the same names: map one by one.")
        names = _ask_names(ask, rasters, raw, count)
    by_band = order == "band-time"
    dates = [layers[n::frames] if by_band else layers[n * count :][:count] for n in range(frames)]
    grid = min((raster.grid for raster in rasters), key=lambda grid: grid.metres or 0)
    return [Source(dict(zip(map(str, names), x, strict=True)), grid, first.day) for x in dates]


def _header(file: Path, names: Sequence[str] | None, ask: Ask) -> Raster:
    """Read what a raster says of itself, with the no-data numbers of its product, and as asked."""
    raster = read_header(file, len(names or ()))
    fills = {*raster.fills, *listed(ask.of("nodata", file))}
    if raster.product and not raster.is_float:
        fills.add(raster.product.fill)
    return replace(raster, fills=tuple(fill for fill in fills if fill == fill))


def _ask_names(ask: Ask, rasters: list[Raster], raw: Sequence[str], count: int) -> list[str | None]:
    """Ask for the names of bands; numbers are likely Landsat's unless it has no such band."""
    other = any(own_name(name or "0", "L8:") not in WAVELENGTHS for name in raw)
    sensor, whose = ("S2:", "Sentinel-2") if other else ("L8:", "Landsat 8")
    if re.search("L[ET]0[4-7]_", rasters[0].path.name):
        sensor, whose = "L5:", "Landsat 4-7"
    likely = [own_name(name or "0", sensor) for name in raw]
    why = f"numbers say nothing without their sensor; those of {whose} would be"
    if not len(raw) == len({*likely} & {*WAVELENGTHS}) == count:
        eight = count == 4 and rasters[0].dtype in EIGHT  # NAIP has red first
        known = USUAL[3] + RGBN[3:] if eight else USUAL.get(count, ())
        names = [own_name(name or "0") for name in (*raw, *[""] * count)][:count]
        others: list[str | None] = [
            x if x in WAVELENGTHS and x not in names[:n] else f"OTHER_{n + 1}"
            for n, x in enumerate(names)
        ]
        likely = others if {*others} & {*WAVELENGTHS} else [*known] or others
        why = f"{count} different names are needed, for example"
    shown = ", ".join(name or "no name" for name in raw)
    why = f"bands {shown}: {why} {', '.join(map(str, likely))}"
    ask.about([raster.path for raster in rasters], why, band_names=likely)
    return likely


def _likely_order(layers: Sequence[Band], frames: int) -> str:
    """Tell how dates are stacked: bands of one wavelength are alike."""
    named = {str(n): band for n, band in enumerate(layers)}
    means = Source(named, layers[0].raster.grid).sample([*named], 256).mean(1)
    by_time, by_band = means.reshape(frames, -1).std(0), means.reshape(-1, frames).std(1)
    return "time-band" if by_time.sum() <= by_band.sum() else "band-time"


def settle(sources: Sequence[Source], bands: Sequence[str], ask: Ask) -> list[Source]:
    """Find how numbers become reflectance, and check what comes out.

    Args:
        sources: All acquisitions; `AT_MOST` are looked at, and whole numbers that nothing is
            known of.
        bands: Bands that are going to be read.
        ask: Knows what somebody says, and takes down what is not known.

    Returns:
        The acquisitions with their rules.
    """
    chosen = {*spread(sources, AT_MOST)}
    side = min(512, max(64, isqrt(PIXELS // len(chosen))))
    optical = [band for band in bands if band in WAVELENGTHS]
    radar = [band.upper().endswith(RADAR) for band in bands]
    found, looked, units = [], [], dict[bool, list[Path]]()
    for source in sources:
        stated = _stated(source, optical, ask)
        if source in chosen or not (stated.rule or source.raster.is_float):
            with suppress(OSError):  # it is refused, and named, when it is asked for
                percentiles = _with_data(source, bands, side, ask)
                if percentiles.size and optical:
                    percentiles = percentiles[:, [band in WAVELENGTHS for band in bands]]
                    likely = _likely_rule(source, percentiles)
                    stated, *ends = _check(stated, percentiles, likely, optical, ask)
                    looked.append((stated.rule, *ends, source, likely))
                elif percentiles.size and stated.rule != ASKED:
                    for below in percentiles[1, radar] < 0:
                        units.setdefault(bool(below), []).extend(source.paths)
        found.append(stated if stated.rule else replace(stated, rule=PLAIN))
    # One file may be all water or snow, and not all of those that got their scale in one way.
    table = pd.DataFrame(looked, columns=["rule", "low", "high", "source", "likely"])
    for rule, some in table.groupby("rule"):
        if some.high.max() < DIM or some.low.min() > PALE:
            for source, likely in zip(some.source, some.likely, strict=True):
                why = f"numbers {rule}: no ground is so dark, or bright"
                ask.about(source.paths, why, **likely)
    if len(units) > 1:
        why = "radar in decibels (below 0) and as power: write one; scale=1 says that it is one"
        ask.about(units[True] + units[False], why, scale=1)
    return found


def _stated(source: Source, optical: Sequence[str], ask: Ask) -> Source:
    """Apply what was said, else what each file states, else what its product implies."""
    layers, words, certain, known = dict(source.layers), "", True, True
    for name, band in source.layers.items():
        raster, product = band.raster, band.raster.product
        scale, offset = ask.of("scale", raster.path), ask.of("offset", raster.path)
        own = raster.rules.get(band.number)
        rule, told = own or (None if optical else (1.0, 0.0)), STATED if own else BARE
        layers[name] = Band(raster, band.number, *(own or ()))
        if name not in (optical or source.bands):
            continue
        # tools that write a scale forget the offset
        certain &= not (own and not own[1] and product and product.offset)
        if own is None and product and not raster.is_float:
            if product.refused and scale is None:
                raise GeopeftError(f"{raster.path} is {product.title}: {product.refused}.")
            if optical:
                rule, told = (product.scale, product.offset), f"as {product.title} implies"
            certain &= bool(product.offset) or not product.since
        if scale is not None:
            rule, told = (scale, 0.0), ASKED
        if offset and abs(offset) < 1 and rule and rule[0] >= 100:
            raise GeopeftError(
                f"offset={offset} is in numbers of the files: say {offset * rule[0]:g}."
            )
        if rule and offset is not None:
            rule, told = (rule[0], offset), ASKED
        if rule and told == ASKED and own and not np.allclose(rule, own):
            told = f"{ASKED}, against what the file states"
        certain = offset is not None or (certain and scale is None)
        known, words = known and rule is not None, told
        layers[name] = Band(raster, band.number, *(rule or ()))
    return replace(source, layers=layers, rule=words if known else "", certain=certain and known)


def _check(
    source: Source, percentiles: np.ndarray, likely: dict[str, Any], optical: Sequence[str],
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
        The acquisition with a rule, and the reflectance of its darkest band and its brightest, NaN
        where it is none.
    """
    if not source.rule:
        plain = source.raster.is_float and likely == {"scale": 1, "offset": 0}
        if not plain:
            what = f"what is the scale of its {source.raster.dtype} numbers?"
            ask.about(source.paths, what, **likely)
        new = {name: source.layers[name]._replace(**likely) for name in optical}
        source = replace(source, layers=source.layers | new, rule=PLAIN, certain=not plain)
    if not source.reflectance:
        return source, np.nan, np.nan
    scales, offsets = np.array([source.layers[name][2:] for name in optical]).T
    low, middle, high = (percentiles + offsets) / scales
    dark = high.max() < DARK or high.min() < DARK / 50  # all bands, or one of another unit
    if dark or min(low.min(), middle.min()) < LEAST or middle.max() > MOST:
        why = f"numbers {source.rule} give what no surface has, at the median or at an end"
        ask.about(source.paths, why, **likely)
    elif not source.certain and low.min() >= FLOOR:
        why = "no reflectance is below 0.085, as of Sentinel-2 from baseline 04.00 on: an offset?"
        missing = {"scale": float(scales[0]), "offset": -0.1 * float(scales[0])}
        ask.about(source.paths, f"{why} offset=0 says that there is none", **missing)
    return source, float(low.min()), float(high.max())


def _with_data(source: Source, bands: Sequence[str], side: int, ask: Ask) -> np.ndarray:
    """Return percentiles (3, C) of pixels with data, if any; ask about what may be none."""
    numbers = source.sample(bands, side)
    # NaN says that all other numbers are data
    sure = any(x != x for x in listed(ask.of("nodata", source.raster.path)))
    odd = [] if sure else _unlikely(source, numbers, [band in WAVELENGTHS for band in bands])
    gone = np.isin(numbers, odd).any(0)
    if odd:
        ask.about(source.paths, "many of its pixels have one number: no data?", nodata=odd)
    if gone.all():
        return np.empty(0)
    percentiles = np.percentile(numbers[:, ~gone], (1, 50, 99), axis=1)
    table = pd.DataFrame({"type": source.raster.dtype, "band": bands})
    table[["1 %", "50 %", "99 %"]] = [[f"{x:.5g}" for x in some] for some in percentiles.T]
    table["constant"] = f"{', '.join(f'{x:g}' for x in odd)}: {gone.mean():.1%}" if odd else ""
    for raster in source.rasters:
        ask.tables[raster.path] = table[[source.layers[x].raster is raster for x in bands]]
    return percentiles


def _unlikely(source: Source, numbers: np.ndarray, optical: list[bool]) -> list[float]:
    """Return at most three numbers that are likely no data; optical bands have one together."""
    one, *_ = some = numbers[optical] if any(optical) else numbers
    values, counts = np.unique(one[(some == one).all(0)], return_counts=True)
    often = (counts > CONSTANT * one.size) & (np.isin(values, FILLS) | (len(some) > 1))
    found = values[often].tolist()
    for band in numbers:
        found += apart(*np.unique(band, return_counts=True))
    if len(source.rasters) == len(source.layers) > 1:  # where 0 means no data in this band
        found += [0.0 for band in numbers[optical] if (band == 0).sum() > CONSTANT * band.size]
    return [x for x, _ in Counter(found).most_common(3)]


def _likely_rule(source: Source, percentiles: np.ndarray) -> dict[str, Any]:
    """Say which scale and offset are likely, from the lowest and the highest percentile."""
    low, high = percentiles[0].min(), percentiles[2].max()
    if source.raster.dtype in EIGHT:
        return {"scale": 255, "offset": 0}
    if low > 6_500:  # Landsat Collection 2 has nothing below 7,273
        return LANDSAT
    tops = ((2, 1), (130, 100), (256, 255), (np.inf, 10_000))
    scale = next(scale for top, scale in tops if high <= top)
    return {"scale": scale, "offset": -0.1 * scale if low >= FLOOR * scale > FLOOR * 255 else 0}
