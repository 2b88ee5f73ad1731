"""Open an acquisition, the files of one date, and find what its bands are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS, WAVELENGTHS, own_name
from geopeft_nb.datasets.own.ask import Ask, Asked
from geopeft_nb.datasets.own.layouts import BAND
from geopeft_nb.datasets.own.products import RGBN
from geopeft_nb.datasets.own.rasters import Band, Raster, Source, read_header, read_numbers
from geopeft_nb.datasets.own.values import settle, windows
from geopeft_nb.errors import GeopeftError

_BAND = re.compile(rf"(?<![^_.-])(?:{BAND})(?![^_.-])", re.IGNORECASE)
#: Names that are likely for so many bands without any.
USUAL = {
    3: RGBN[2::-1], 4: RGBN, 6: HLS_BANDS,
    10: tuple(b for b in SENTINEL2_BANDS if b not in ("COASTAL_AEROSOL", "WATER_VAPOR", "CIRRUS")),
    12: tuple(b for b in SENTINEL2_BANDS if b != "CIRRUS"), 13: SENTINEL2_BANDS,
}  # fmt: skip


def open_source(files: Sequence[Path], asked: Asked, call: str = "Asked(") -> Source:
    """Open one acquisition.

    Args:
        files: One stacked file, or one file a band.
        asked: What somebody says of it.
        call: What was called, for the error: its beginning, up to what `asked` says.

    Returns:
        The acquisition; no file stays open.

    Raises:
        GeopeftError: Something that is needed is not stated; or a file cannot be read.
    """
    ask = Ask(call, asked.given, asked, [(Path(file), "all") for file in files])
    source = name_bands([Path(file) for file in files], asked, ask)
    if ask.common:
        raise GeopeftError(
            f"{source.raster.path} seems to have several dates stacked, and a file of a scene has "
            "one. Write each date to a file of its own; a model of as many dates takes their list."
        )
    (found,) = settle([source], source.bands, asked, ask)
    ask.settle()
    return found


def name_bands(
    files: Sequence[Path], asked: Asked, ask: Ask, region: str = "all",
    said: Sequence[str] = (), frame: int = 0, resolution: float | None = None,
) -> Source:  # fmt: skip
    """Read the headers of an acquisition, and find what its bands are.

    Args:
        files: One stacked file, or one file a band.
        asked: What somebody says of it.
        ask: Takes down what is not known.
        region: Its region.
        said: What the name of each file says of its band.
        frame: Which of the dates that are stacked in the file.
        resolution: Pixel side in metres to resample to.
    """
    given = [asked.of("band_names", file, region) for file in files]
    rasters = [
        _with_fills(read_header(file, len(names or ())), asked, region)
        for file, names in zip(files, given, strict=True)
    ]
    layers = [Band("", raster, n) for raster in rasters for n in raster.numbers]
    first, frames, order = rasters[0], asked.frames, asked.order
    if len(odd := {raster.grid.crs for raster in rasters}) > 1:
        raise GeopeftError(f"The files of {first.path} have several coordinate systems: {odd}.")
    raw = [name or "" for raster in rasters for name in raster.names]
    if None not in given:
        several = isinstance(asked.band_names, Mapping)
        raw = [str(name) for names in (given if several else given[:1]) for name in names]
    elif len(said) == len(layers):
        raw = list(said)
    elif len(rasters) == len(layers) > 1 and not all(raw):
        raw = [(_BAND.findall(raster.path.stem) or [""])[-1] for raster in rasters]
    elif first.product and len(first.product.bands) == len(layers) and not any(raw):
        raw = list(first.product.bands)
    if frames == 1 and not any(raw) and len(layers) > 13 and len(layers) % 6 == 0:
        frames, raw = len(layers) // 6, list(HLS_BANDS)
        order = _likely_order(first, frames)
        why = f"{len(layers)} bands without names: how many dates, in which order, of which bands?"
        ask.about_all(why, frames=frames, order=order, band_names=raw)
    elif frames > 1 and order is None:
        order = _likely_order(first, frames)
        ask.about_all("the order of dates and bands", order=order)
    count = len(layers) // frames
    if count * frames != len(layers):
        raise GeopeftError(f"{first.path} has {len(layers)} bands, not of {frames} dates alike.")
    if frames > 1 and len({*raw}) == count:  # named alike for each date
        raw = list(dict.fromkeys(raw))
    sensors = {raster.product.sensor for raster in rasters if raster.product} - {""}
    if not sensors and any(name.upper() == "B8A" for name in raw):
        sensors = {"S2:"}  # which alone has a band of this name
    names: list[str | None] = (
        [own_name(name or "0", *sensors) for name in raw] if len(sensors) < 2 else []
    )
    several = len(rasters) > 1 and min(len(raster.numbers) for raster in rasters) > 1
    if several and None not in names and len({*names}) < len(names):
        raise GeopeftError(
            f"{first.path} and {rasters[1].path} have bands of the same names, and files of one "
            "date have different ones. Take scenes one by one, and dates with a model of as many."
        )
    if None in names or len({*names}) < count or len(names) * frames != len(layers):
        names = [*_ask_names(ask, first, raw, count)]
    layers = layers[frame::frames] if order == "band-time" else layers[frame * count :][:count]
    named = {str(n): x._replace(name=str(n)) for n, x in zip(names, layers, strict=True)}
    grid = min((raster.grid for raster in rasters), key=lambda grid: grid.metres or 0)
    return Source(named, grid.resampled(resolution), region)


def _with_fills(raster: Raster, asked: Asked, region: str) -> Raster:
    """Add the no-data number of a product, and what somebody said."""
    said = asked.of("nodata", raster.path, region)
    fills = {*raster.fills, *np.ravel([] if said is None else said).tolist()}
    if raster.product and not raster.dtype.startswith("float"):
        fills.add(raster.product.fill)
    return replace(raster, fills=tuple(fill for fill in fills if fill == fill))


def _ask_names(ask: Ask, raster: Raster, raw: Sequence[str], count: int) -> Sequence[str]:
    """Ask for the names of bands; numbers are likely Landsat's where they could be Sentinel-2's."""
    shown = ", ".join(name or "no name" for name in raw)
    landsat = [own_name(name or "0", "L8:") for name in raw]
    if len(raw) == len({*landsat} & {*WAVELENGTHS}) == count:
        likely = [str(name) for name in landsat]
        why = (
            f"bands {shown}: numbers say nothing without their sensor; those of Landsat 8 would be"
        )
    else:
        likely = list(USUAL.get(count) or [f"OTHER_{n}" for n in range(1, count + 1)])
        why = f"bands {shown}: {count} different names are needed, for example"
    ask.about(raster.path, f"{why} {', '.join(likely)}", band_names=likely)
    return likely


def _likely_order(raster: Raster, frames: int) -> str:
    """Tell how dates are stacked: bands of one wavelength are alike."""
    window, shape = windows(raster.grid, 256)[0]
    numbers = read_numbers(raster, raster.numbers, raster.grid, window, shape)
    means = np.nanmean(numbers[: len(numbers) // frames * frames], axis=(1, 2))
    by_time, by_band = means.reshape(frames, -1).std(0), means.reshape(-1, frames).std(1)
    return "time-band" if by_time.sum() <= by_band.sum() else "band-time"
