"""The ground of the sandbox planet: terrain, rivers, fields, and what covers the land."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.datasets.sandbox.climates import Array, Climate

#: What can cover a pixel; the crops come last, and all of them are cropland.
COVERS = (
    "water", "forest", "grassland", "bare ground", "built-up",
    "cereal", "maize", "rice", "pasture", "fallow",
)  # fmt: skip
#: Index of the first crop in `COVERS`.
FIRST_CROP = 5
#: Noise with longer waves than this many pixels is not stronger: chips differ, but not completely.
LONGEST = 48


@dataclass(frozen=True)
class Ground:
    """A square of ground, side x side pixels.

    Attributes:
        slopes: Tangents of the slope to the south and to the east, (2, side, side).
        drainage: Height above the nearest river, as its share of lower ground: 0 river, 1 ridge.
        fields: Number of the field of each pixel.
        cover: Index into `COVERS`.
    """

    slopes: Array
    drainage: Array
    fields: NDArray[np.int64]
    cover: NDArray[np.int64]


def smooth_noise(rng: np.random.Generator, side: int, exponent: float, count: int = 1) -> Array:
    """Draw fractal noise with mean 0 and standard deviation 1, (count, side, side).

    Args:
        rng: Source of chance.
        side: Pixels a side.
        exponent: Power falls with spatial frequency to this exponent; more is smoother.
        count: Number of independent fields.
    """
    down, along = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    amplitude = (down**2 + along**2 + LONGEST**-2.0) ** (-exponent / 4)
    amplitude[0, 0] = 0
    noise = np.fft.irfft2(np.fft.rfft2(rng.random((count, side, side))) * amplitude, (side, side))
    return np.asarray(noise / noise.std(axis=(1, 2), keepdims=True))


def make_ground(rng: np.random.Generator, climate: Climate, side: int, farmed: bool) -> Ground:
    """Make the ground of a place.

    Rivers follow the line on which a smooth noise is zero: such a line never ends inside the
    scene, winds, and meets others, and the land rises on both sides of it.

    Args:
        rng: Source of chance.
        climate: Relief, fields and shares of the covers.
        side: Pixels a side.
        farmed: Fields everywhere but in the river, each of one crop.
    """
    valley = np.abs(smooth_noise(rng, side, 4.5)[0])
    hills = smooth_noise(rng, side, climate.roughness)[0]
    slopes = np.stack(np.gradient(valley + 0.35 * hills))
    slopes *= climate.relief / slopes.std()
    drainage = _rank(valley + 0.25 * hills)
    fields, crop = _fields(rng, side, climate)
    cover = crop
    if not farmed:
        flat = 1 - np.hypot(*slopes) / (0.05 + 1.5 * climate.relief)
        scores = smooth_noise(rng, side, 3.6, 5)
        scores += 0.7 * rng.standard_normal((5, 1, 1))
        scores[0] += climate.wooded - 0.4 * flat
        scores[2] += climate.barren + 0.6 * (drainage - 0.5)
        scores[3] += 0.5 * flat - 0.5
        scores[4] += climate.farmed + 0.5 * flat + 0.4 * (0.5 - drainage)
        cover = np.argmax(scores, axis=0) + 1
        cover = np.where(cover == FIRST_CROP, crop, cover)
    return Ground(slopes, drainage, fields, np.where(drainage < rng.uniform(0.03, 0.12), 0, cover))


def _rank(values: Array) -> Array:
    """Replace each value by the share of values below it."""
    ranks = np.argsort(np.argsort(values, axis=None, kind="stable"))
    return np.asarray(ranks.reshape(values.shape) / values.size)


def _fields(
    rng: np.random.Generator, side: int, climate: Climate
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the ground into fields, in strips that lie at an angle; crooked where climate says so.

    Returns:
        Number of the field, 0-1023, and its crop as an index into `COVERS`, both (side, side).
    """
    down, along = np.mgrid[:side, :side].astype(float)
    angle, width = rng.uniform(0, np.pi), climate.field_size * rng.uniform(0.8, 1.25)
    bent = smooth_noise(rng, side, 3.5, 2) * climate.irregular * width * 0.4
    across = down * np.cos(angle) - along * np.sin(angle) + bent[0]
    length = down * np.sin(angle) + along * np.cos(angle) + bent[1]
    # Each strip of fields begins elsewhere and has fields of its own length.
    begin, longer = rng.uniform(0, 4, 1024), rng.uniform(0.8, 2.2, 1024)
    strip = np.floor(across / width).astype(np.int64) % 1024
    number = np.floor(length / (width * longer[strip]) + begin[strip]).astype(np.int64)
    fields = (strip * 331 + number * 57) % 1024
    # Neighbours often grow the same; each crop is drawn, none is common to all.
    return fields, FIRST_CROP + rng.integers(0, len(COVERS) - FIRST_CROP, 1024)[fields]
