"""What the sandbox planet is made of: reflectance spectra, and six climates that differ.

Their numbers, and the sources of the spectra, stand in `climates.toml`.
"""

import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NUMBERS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
#: Material -> reflectance 0-1 in BLUE, GREEN, RED, NIR_NARROW, SWIR_1, SWIR_2.
SPECTRA: dict[str, list[float]] = _NUMBERS["spectra"]
#: What climates differ in -> its value in each of `REGIONS`.
_TABLE: dict[str, list[float]] = _NUMBERS["climates"]
#: Names of the regions, home first.
REGIONS = ("temperate", "boreal", "mediterranean", "savanna", "monsoon", "desert")


class Climate(SimpleNamespace):
    """A climate: an attribute for each row of `climates.toml`, all of them floats."""

    def greenness(self, day: float) -> float:
        """Return the green share of natural vegetation on a day of year, 0-1."""
        season = 0.5 * (1 + np.cos(2 * np.pi * (day - self.peak_day) / 365))
        return float(self.low_green + (self.high_green - self.low_green) * season)

    def snow_cover(self, day: float) -> float:
        """Return the share of land under snow on a day of year, 0-1: most in early February.

        A climate with little snow has none: the mean of six climates, one of them white, is not
        white.
        """
        season = 0.5 + np.cos(2 * np.pi * (day - 35) / 365)
        return float(np.clip(1.4 * self.snow - 0.28, 0, 1) * np.clip(season, 0, 1))


def climate_of(region: str, shift: float) -> Climate:
    """Return a climate between the mean of all six and the region's own.

    Args:
        region: One of `REGIONS`.
        shift: 0 for the mean, the same for every region; 1 for the region's own.
    """
    column = REGIONS.index(region)
    means = {name: float(np.mean(values)) for name, values in _TABLE.items()}
    return Climate(**{name: m + shift * (_TABLE[name][column] - m) for name, m in means.items()})


def sun_elevation(latitude: float, day: float) -> float:
    """Return the height of the sun at half past ten in radians, when the satellites pass.

    Source: Cooper 1969, Solar Energy 12, 333-346, for the declination.
    """
    declination = np.radians(23.45) * np.sin(2 * np.pi * (284 + day) / 365)
    latitude, hour = np.radians(latitude), np.radians(-22.5)
    sine = np.sin(latitude) * np.sin(declination)
    sine += np.cos(latitude) * np.cos(declination) * np.cos(hour)
    return float(np.arcsin(np.clip(sine, 0.15, 1)))
