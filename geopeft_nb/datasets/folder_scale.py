"""How the numbers in somebody's own images become reflectance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geopeft_nb.datasets.folder_images import Tile, spread
from geopeft_nb.datasets.folder_rasters import read_pixels
from geopeft_nb.errors import GeopeftError

#: Chips whose images are read to find the scale.
AT_MOST = 48


@dataclass(frozen=True)
class Scale:
    """How the numbers in the files become reflectance: (number + offset) / divisor.

    Attributes:
        divisor: What to divide by.
        offset: What to add first.
        reflectance: False if the result is not reflectance 0-1.
        words: What was found, for the notes.
    """

    divisor: float
    offset: float
    reflectance: bool
    words: str


def find_scale(
    tiles: Sequence[Tile], indices: Sequence[int], nodata: float | None,
    divisor: float | None, offset: float,
) -> Scale:  # fmt: skip
    """Find how numbers become reflectance, from the types of the files and some of their pixels.

    Args:
        tiles: All of them; at most `AT_MOST` are read, of each file with another type one.
        indices: Bands, as indices from 0.
        nodata: Value of pixels without data; None takes what each file says.
        divisor: What the user said; None looks.
        offset: What the user said, in the numbers of the files.

    Returns:
        The scale of all files.

    Raises:
        ValueError: Numbers of 8 bits, of mixed scales, or of a scale that is not clear.
    """
    files = {tile.image.path: tile for tile in tiles}
    types = {tile.image.dtype: tile for tile in files.values()}
    eight = [tile.image.path for tile in files.values() if tile.image.dtype in ("uint8", "int8")]
    if eight and divisor is None:
        raise GeopeftError(
            f"{eight[0]} has 8-bit numbers: a picture, not reflectance. Use the product that it "
            "was made from; or go on with scale=255 and build_model(..., normalise='dataset')."
        )
    gains = {tile.image.gain: tile.image.path for tile in files.values()}
    if divisor is None and len(gains) > 1:
        shown = "; ".join(
            f"{path.name} factor {g[0]:g}, offset {g[1]:g}" for g, path in gains.items()
        )
        raise GeopeftError(f"The files state different scales: {shown}. Give them one, or scale=.")
    highest, numbers = _look(
        {t.name: t for t in (*types.values(), *spread(tiles, AT_MOST))}, indices, nodata
    )
    low, high = (float(np.percentile(numbers, share)) for share in (1, 99))
    kinds = ", ".join(sorted(types))
    span = f"{kinds}, 1st to 99th percentile {low:,.4g} to {high:,.4g} in {len(highest)} files"
    if divisor is not None:
        top = (high + offset) / divisor
        reflectance = not eight and top <= 2
        told = "" if reflectance else "; that is not reflectance, so normalise='dataset' is needed"
        return Scale(
            divisor, offset, reflectance, f"{span}; as asked: {_rule(divisor, offset)}{told}."
        )
    ((factor, shift),) = gains
    if (factor, shift) != (1.0, 0.0):
        divisor, offset = 1 / factor, shift / factor + offset
        if not -1 <= (low + offset) / divisor <= (high + offset) / divisor <= 2:
            raise GeopeftError(
                f"The scale that the files state ({factor:g}, {shift:g}) gives no reflectance 0-1: "
                f"{span}. Pass scale= (and offset=)."
            )
        return Scale(
            divisor, offset, True, f"{span}; as the files state: {_rule(divisor, offset)}."
        )
    guesses = {name: _guess(top, tile_type) for name, (top, tile_type) in highest.items()}
    units = {guess: name for name, guess in guesses.items() if guess is not None}
    if len(units) > 1:
        shown = " and ".join(f"{name} up to {highest[name][0]:,.4g}" for name in units.values())
        raise GeopeftError(
            f"The files have mixed scales: {shown} (99th percentile). Bring them to one scale, or "
            "load them apart."
        )
    guess = next(iter(units), None)
    if guess is None or (guess == 10_000 and low > 6_500):
        landsat = (
            " Landsat Collection 2 surface reflectance needs scale=36364, offset=-7273."
            if low > 6_500 else ""
        )  # fmt: skip
        raise GeopeftError(
            f"The scale of the numbers is not clear: {span}. Reflectance = (number + offset) / "
            f"scale; pass scale= (and offset=), for example scale=100 for per cent.{landsat}"
        )
    words = f"{span}; guessed from that: {_rule(guess, offset)}."
    if guess == 10_000 and offset == 0:
        words += (
            " Sentinel-2 products of processing baseline 04.00 and later are 1,000 too high: "
            "offset=-1000, unless that was done already."
        )
    return Scale(guess, offset, True, words)


def _look(
    tiles: Mapping[str, Tile], indices: Sequence[int], nodata: float | None
) -> tuple[dict[str, tuple[float, str]], np.ndarray]:
    """Return the 99th percentile and type of each file that was looked at, and all its numbers."""
    numbers: dict[str, list[np.ndarray]] = {}
    types = {tile.image.path.name: tile.image.dtype for tile in tiles.values()}
    for tile in tiles.values():
        try:
            pixels, there = read_pixels(tile.image, tile.box, indices, nodata)
        except OSError:  # it is refused, and named, when it is asked for
            continue
        if there.any():
            numbers.setdefault(tile.image.path.name, []).append(pixels[:, there].ravel())
    if not numbers:
        names = ", ".join(sorted(types)[:3])
        raise GeopeftError(f"No pixel with data was found in {names}. Is nodata= right?")
    highest = {
        name: (float(np.percentile(np.concatenate(parts), 99)), types[name])
        for name, parts in numbers.items()
    }
    return highest, np.concatenate([part for parts in numbers.values() for part in parts])


def _guess(high: float, dtype: str) -> float | None:
    """Guess the divisor from the 99th percentile; None if it could be anything."""
    if dtype.startswith("float") and high <= 2:
        return 1.0
    return 10_000.0 if 100 < high <= 20_000 else None


def _rule(divisor: float, offset: float) -> str:
    number = f"(number {offset:+,g})" if offset else "number"
    return f"reflectance = {number}" + (f" / {divisor:,g}" if divisor != 1 else "")
