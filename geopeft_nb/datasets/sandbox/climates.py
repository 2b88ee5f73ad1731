"""What the sandbox planet is made of: reflectance spectra, and six climates that differ.

Spectra are reflectance 0-1 in the bands of HLS, whose centres lie at 482, 561, 655, 865, 1609 and
2201 nm. Those of splib07a are measured values at these wavelengths. Those marked "rounded" were set
by hand, to the shape and magnitude that the named source describes: fit to learn with, not to
measure with. So are the numbers of the climates.

    Kokaly et al. 2017: USGS Spectral Library Version 7, Data Series 1035, doi:10.3133/ds1035
    Souza et al. 2005: Remote Sensing of Environment 98, 329-343 (forest fractions from Landsat)
    Meerdink et al. 2019: ECOSTRESS spectral library, Remote Sensing of Environment 230, 111196
    Stoner & Baumgardner 1981: Soil Science Society of America Journal 45, 1161-1165 (soil curves)
    Lobell & Asner 2002: Soil Science Society of America Journal 66, 722-727 (wet soils are darker)
    Marinho et al. 2021: ISPRS International Journal of Geo-Information 10, 86 (black water)
    Yepez et al. 2018: Comptes Rendus Geoscience 350, 20-30 (sediment, Landsat 8, Orinoco)
    Doxaran et al. 2002: Remote Sensing of Environment 81, 149-161 (very turbid water, Gironde)
    Landmann & Roy 2004: doi:10.3334/ORNLDAAC/751 (white ash and black ash, Kruger)
    Dozier 1989: Remote Sensing of Environment 28, 9-22 (snow in the bands of Landsat)
    Herold et al. 2004: IEEE Transactions on Geoscience and Remote Sensing 42, 1907-1919 (cities)
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Material -> reflectance 0-1 in BLUE, GREEN, RED, NIR_NARROW, SWIR_1, SWIR_2.
SPECTRA: dict[str, tuple[float, ...]] = {
    # splib07a, Aspen-1 green top (Kokaly et al. 2017): a leaf from above, as in dense low crops.
    "leaf": (0.0587, 0.1206, 0.0595, 0.4750, 0.3043, 0.1732),
    # Green vegetation of closed canopies, Table 1 of Souza et al. 2005; to be mixed with shade.
    "canopy": (0.0119, 0.0475, 0.0169, 0.6250, 0.2399, 0.0675),
    # Rounded after the conifers of Meerdink et al. 2019.
    "needles": (0.025, 0.045, 0.030, 0.300, 0.130, 0.060),
    # splib07a, Grass Golden Dry GDS480 (Kokaly et al. 2017).
    "dry": (0.1144, 0.1701, 0.2281, 0.3153, 0.3303, 0.2505),
    # Rounded after the curves of organic and of minimally altered soils (Stoner & Baumgardner).
    "dark soil": (0.035, 0.045, 0.060, 0.100, 0.170, 0.150),
    "brown soil": (0.080, 0.110, 0.150, 0.230, 0.330, 0.290),
    # Rounded after the curve of iron-rich soils of the same source.
    "red soil": (0.045, 0.085, 0.190, 0.280, 0.380, 0.330),
    # splib07a, Sand DWO-3-DEL2a (Kokaly et al. 2017); brighter, as in the sand seas, in `Climate`.
    "sand": (0.1092, 0.1525, 0.1899, 0.2865, 0.3717, 0.3097),
    # Rounded after the fresh water of Meerdink et al. 2019, with some light from below the surface.
    "clear water": (0.035, 0.035, 0.020, 0.008, 0.004, 0.003),
    # Marinho et al. 2021 measured below 0.005 per steradian in the Negro, times pi: below 0.016.
    "black water": (0.008, 0.010, 0.012, 0.006, 0.003, 0.002),
    # Rounded after some 200 mg/l in Yepez et al. 2018, and some 1000 mg/l in Doxaran et al. 2002.
    "turbid water": (0.060, 0.100, 0.130, 0.090, 0.012, 0.006),
    "muddy water": (0.090, 0.160, 0.230, 0.220, 0.040, 0.020),
    # Rounded after Landmann & Roy 2004.
    "char": (0.030, 0.035, 0.042, 0.060, 0.095, 0.090),
    "ash": (0.260, 0.310, 0.340, 0.400, 0.420, 0.380),
    # Rounded after old snow in Dozier 1989.
    "snow": (0.880, 0.880, 0.860, 0.750, 0.080, 0.060),
    # Rounded after asphalt, concrete and red tile in Herold et al. 2004.
    "asphalt": (0.080, 0.090, 0.100, 0.130, 0.180, 0.170),
    "concrete": (0.210, 0.260, 0.300, 0.350, 0.380, 0.350),
    "tile": (0.080, 0.120, 0.230, 0.300, 0.360, 0.330),
}

#: Names of the regions, home first.
REGIONS = ("temperate", "boreal", "mediterranean", "savanna", "monsoon", "desert")
#: What climates differ in, a column each; shares and covers are 0-1, days are days of year.
_TABLE: dict[str, tuple[float, ...]] = {
    # Degrees north, middle of the belt.
    "latitude": (49, 62, 39, 12, 22, 29),
    # Spread of slopes, as a tangent.
    "relief": (0.07, 0.12, 0.25, 0.05, 0.10, 0.15),
    # Fall of the terrain's spectrum with spatial frequency; less is more rugged.
    "roughness": (3.8, 3.4, 3.4, 4.0, 3.7, 3.2),
    # Shares of the soils.
    "dark": (0.25, 0.65, 0.05, 0.00, 0.15, 0.00),
    "brown": (0.60, 0.30, 0.40, 0.15, 0.45, 0.05),
    "red": (0.05, 0.00, 0.45, 0.75, 0.35, 0.10),
    "sand": (0.10, 0.05, 0.10, 0.10, 0.05, 0.85),
    # Factor on the reflectance of soils.
    "soil_brightness": (1.0, 0.9, 1.1, 1.0, 0.9, 1.6),
    # How wet, and so how dark, soils are along the rivers.
    "moisture": (0.50, 0.80, 0.20, 0.30, 0.70, 0.05),
    # Ground covered by grass and shrubs.
    "cover": (0.85, 0.75, 0.55, 0.65, 0.85, 0.20),
    # Share of needle-leaved trees.
    "needles": (0.20, 0.90, 0.40, 0.00, 0.05, 0.10),
    # Shade within forests.
    "shade": (0.25, 0.45, 0.25, 0.15, 0.30, 0.10),
    # Greenest day of natural vegetation.
    "peak_day": (175, 200, 110, 240, 265, 60),
    # Green share of the vegetation in the worst and the best season.
    "low_green": (0.40, 0.15, 0.20, 0.10, 0.45, 0.15),
    "high_green": (0.90, 0.80, 0.70, 0.80, 0.95, 0.50),
    # Middle of the season of the images, by task.
    "flood_day": (190, 125, 310, 245, 225, 95),
    "fire_day": (215, 200, 225, 330, 85, 150),
    "map_day": (180, 190, 150, 250, 280, 75),
    # How far crops are on that day: 0 sown, 1 harvested.
    "crop_stage": (0.55, 0.25, 0.85, 0.45, 0.65, 0.35),
    # Light that the air adds in the blue band, in reflectance.
    "haze": (0.012, 0.006, 0.010, 0.030, 0.060, 0.035),
    # Sediment in rivers and floods: 0 none, 0.5 turbid, 1 muddy.
    "turbidity": (0.25, 0.00, 0.45, 0.75, 0.80, 0.95),
    # Share of black water where there is little sediment.
    "humus": (0.20, 0.95, 0.05, 0.10, 0.10, 0.00),
    # Sunlight mirrored by rough water, in reflectance, in all bands.
    "glint": (0.000, 0.000, 0.010, 0.010, 0.020, 0.025),
    # Vegetation and treetops that stand above a flood.
    "emergent": (0.06, 0.25, 0.05, 0.45, 0.55, 0.02),
    # Share of the ground that shows through flood water at its edge.
    "shallow": (0.30, 0.20, 0.50, 0.55, 0.40, 0.80),
    # Snow on land in late winter.
    "snow": (0.00, 0.90, 0.00, 0.00, 0.00, 0.00),
    # Share of the vegetation that fire turned into char and ash.
    "severity": (0.75, 0.90, 0.80, 0.45, 0.55, 0.60),
    # White ash instead of black char.
    "ash": (0.10, 0.02, 0.20, 0.10, 0.05, 0.50),
    # Green that came back since the fire.
    "regrowth": (0.05, 0.02, 0.02, 0.15, 0.35, 0.00),
    # Side of a field in pixels.
    "field_size": (14, 12, 9, 7, 5, 16),
    # How crooked fields are.
    "irregular": (0.2, 0.3, 0.5, 0.9, 0.6, 0.1),
    # Shares of these in towns; the rest is asphalt.
    "concrete": (0.30, 0.20, 0.40, 0.20, 0.40, 0.60),
    "tile": (0.35, 0.10, 0.40, 0.30, 0.20, 0.10),
    # How much more forest, cropland and bare ground than elsewhere.
    "wooded": (0.0, 0.5, 0.0, -0.2, 0.2, -0.4),
    "farmed": (0.3, -0.3, 0.0, 0.0, 0.3, -0.3),
    "barren": (-0.2, 0.0, 0.1, 0.0, -0.3, 0.6),
}


class Climate(SimpleNamespace):
    """A climate: an attribute for each row of the table above, all of them floats."""

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
