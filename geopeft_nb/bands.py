"""Sensors, band names and wavelengths: one table, so that B8A, B5 and NIR_NARROW are one band.

Central wavelengths are those of the Sentinel-2 A MultiSpectral Instrument (ESA, Sentinel-2
Spectral Response Functions) in micrometres. HLS harmonises Landsat 8/9 to the same bands.
"""

from __future__ import annotations

from collections.abc import Sequence

from geopeft_nb.errors import unknown_name

#: Band name -> central wavelength in micrometres.
WAVELENGTHS: dict[str, float] = {
    "COASTAL_AEROSOL": 0.443,
    "BLUE": 0.493,
    "GREEN": 0.560,
    "RED": 0.665,
    "RED_EDGE_1": 0.704,
    "RED_EDGE_2": 0.740,
    "RED_EDGE_3": 0.783,
    "NIR_BROAD": 0.833,
    "NIR_NARROW": 0.865,
    "WATER_VAPOR": 0.945,
    "CIRRUS": 1.374,
    "SWIR_1": 1.610,
    "SWIR_2": 2.190,
}

#: The six bands that HLS, Prithvi-EO and this toolkit's own data share, in their usual order.
HLS_BANDS: tuple[str, ...] = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")

#: Sentinel-2 numbers -> band name. Landsat numbers differ (its B5 is NIR), so they need a prefix.
_SENTINEL2 = {
    "B01": "COASTAL_AEROSOL", "B02": "BLUE", "B03": "GREEN", "B04": "RED",
    "B05": "RED_EDGE_1", "B06": "RED_EDGE_2", "B07": "RED_EDGE_3", "B08": "NIR_BROAD",
    "B8A": "NIR_NARROW", "B09": "WATER_VAPOR", "B10": "CIRRUS", "B11": "SWIR_1", "B12": "SWIR_2",
}  # fmt: skip
_LANDSAT = {
    "B1": "COASTAL_AEROSOL", "B2": "BLUE", "B3": "GREEN", "B4": "RED", "B5": "NIR_NARROW",
    "B6": "SWIR_1", "B7": "SWIR_2", "B9": "CIRRUS",
}  # fmt: skip
_ALIASES: dict[str, str] = {
    **_SENTINEL2,
    **{number.replace("B0", "B"): band for number, band in _SENTINEL2.items()},
    **{f"S2:{number}": band for number, band in _SENTINEL2.items()},
    **{f"L8:{number}": band for number, band in _LANDSAT.items()},
    "NIR": "NIR_NARROW", "SWIR1": "SWIR_1", "SWIR2": "SWIR_2", "SWIR16": "SWIR_1",
    "SWIR22": "SWIR_2", "NIR08": "NIR_NARROW",
}  # fmt: skip


def band_name(name: str) -> str:
    """Return the toolkit's name of a band.

    Args:
        name: A name of the table above, a Sentinel-2 number such as ``"B8A"`` or ``"B02"``, a
            prefixed Landsat number such as ``"L8:B5"``, or a common alias; case does not matter.

    Returns:
        For example ``"NIR_NARROW"``.

    Raises:
        ValueError: The name is unknown; the message suggests the nearest one.

    Example:
        >>> band_name("b8a"), band_name("L8:B5")
        ('NIR_NARROW', 'NIR_NARROW')
    """
    key = str(name).upper()
    if key in WAVELENGTHS:
        return key
    if key in _ALIASES:
        return _ALIASES[key]
    raise unknown_name("band", name, WAVELENGTHS)


def band_indices(wanted: Sequence[str], available: Sequence[str]) -> list[int]:
    """Find where the wanted bands stand among the available ones.

    Args:
        wanted: Band names in the order that is needed.
        available: Band names in the order that exists.

    Returns:
        One index into `available` for each wanted band.

    Raises:
        ValueError: A band is unknown, asked for twice, or not available.

    Example:
        >>> band_indices(["RED", "B02"], HLS_BANDS)
        [2, 0]
    """
    if isinstance(wanted, str):
        raise ValueError(f"bands must be a list of names, not the string {wanted!r}.")
    names = [band_name(name) for name in wanted]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"bands must name each band once and at least one, got {list(wanted)}.")
    present = [band_name(name) for name in available]
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(
            f"Band {', '.join(missing)} is not available here; choose from {', '.join(present)}."
        )
    return [present.index(name) for name in names]
