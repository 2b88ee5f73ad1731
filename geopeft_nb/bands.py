"""Sensors, band names and wavelengths: one table, so that B8A, B5 and NIR_NARROW are one band.

Central wavelengths are those of the Sentinel-2 A MultiSpectral Instrument (ESA, Sentinel-2
Spectral Response Functions) in micrometres. Bands of Landsat take the name of the nearest of
them; HLS harmonises Landsat 8/9 to Sentinel-2.
"""

import re
from collections.abc import Mapping, Sequence

from geopeft_nb.errors import GeopeftError, check_names, unknown_name

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

#: The thirteen bands of Sentinel-2's MultiSpectral Instrument, in the order of ESA's products.
SENTINEL2_BANDS: tuple[str, ...] = tuple(WAVELENGTHS)

_MSI = dict(zip("1 2 3 4 5 6 7 8 8A 9 10 11 12".split(), WAVELENGTHS, strict=True))
_OLI = {
    "1": "COASTAL_AEROSOL", "2": "BLUE", "3": "GREEN", "4": "RED", "5": "NIR_NARROW",
    "6": "SWIR_1", "7": "SWIR_2", "9": "CIRRUS",
}  # fmt: skip
_TM = {"1": "BLUE", "2": "GREEN", "3": "RED", "4": "NIR_BROAD", "5": "SWIR_1", "7": "SWIR_2"}
#: Prefix -> the sensor's numbers: the same number is another band on another sensor. S30 and L30
#: are the products of HLS, which keep the numbers of Sentinel-2 and of Landsat 8/9.
_SENSORS: dict[str, dict[str, str]] = {
    **dict.fromkeys(("", "S2:", "S30:"), _MSI),
    **dict.fromkeys(("L8:", "L9:", "L30:"), _OLI),
    **dict.fromkeys(("L4:", "L5:", "L7:"), _TM),
}
#: All that names a band, in capitals -> the band; numbers with and without a leading zero.
_NAMES: dict[str, str] = {
    **{name: name for name in WAVELENGTHS},
    **dict.fromkeys(("NIR", "NIR08"), "NIR_NARROW"),
    **dict.fromkeys(("SWIR1", "SWIR16"), "SWIR_1"),
    **dict.fromkeys(("SWIR2", "SWIR22"), "SWIR_2"),
    **{
        f"{sensor}B{number:0>{digits}}": band
        for sensor, numbers in _SENSORS.items()
        for number, band in numbers.items()
        for digits in (1, 2)
    },
}
#: Numbers of bands, with what products and programs write before them.
_NUMBER = re.compile(r"(?:(?:SR_|TOA_)?B(?:and)?[ _]?)?(\d{1,2}A?)", re.IGNORECASE)


def band_name(name: str) -> str:
    """Return the toolkit's name of a band.

    A number without a prefix is Sentinel-2's, as in HLS S30. The files of Landsat and of HLS L30
    use the same numbers for other bands (B5 is near infrared there), so those need their prefix.

    Args:
        name: A name of the table above; a number such as ``"B8A"``, ``"B2"`` or ``"B02"``; a
            number after ``S2:``, ``S30:`` (HLS), ``L8:``, ``L9:``, ``L30:`` (HLS), ``L4:``,
            ``L5:`` or ``L7:``, such as ``"L30:B05"``; or a common alias. Case does
            not matter.

    Returns:
        For example ``"NIR_NARROW"``.

    Raises:
        ValueError: The name is unknown, as those of thermal and panchromatic bands are.

    Example:
        >>> band_name("b8a"), band_name("L8:B5"), band_name("L5:B4")
        ('NIR_NARROW', 'NIR_NARROW', 'NIR_BROAD')
    """
    if (band := _NAMES.get(str(name).upper())) is None:
        raise GeopeftError(
            f"{unknown_name('band', name, WAVELENGTHS)} Numbers of Sentinel-2 are known, too, and "
            f"of Landsat's and HLS' optical bands after {' '.join(filter(None, _SENSORS))}."
        )
    return band


def own_name(name: str, sensor: str = "") -> str | None:
    """Return the toolkit's name of a band in somebody's file; else the name as it is.

    Args:
        name: What the file, its name or its user says.
        sensor: Prefix of the sensor's numbers, such as ``"L8:"``, or ``""`` if it is not known.

    Returns:
        None for a number without a sensor, which says nothing.

    Example:
        >>> own_name("SR_B5", "L8:"), own_name("NDVI"), own_name("B05")
        ('NIR_NARROW', 'NDVI', None)
    """
    name = re.sub(r"^(?!.*ST_B)(?:.*_)?(B\d{1,2}A?)(?:_\d\dm)?$", r"\1", name, flags=re.IGNORECASE)
    plain = re.sub(r"^b(?:and)?[ _]?\d+a?\W+|\W+$|[ _]band$", "", name, flags=re.IGNORECASE)
    name = name.partition("(")[0].strip() or name  # "B02 (490 nm)"
    number = _NUMBER.fullmatch(name)
    if number and sensor:
        return _NAMES.get(f"{sensor}B{number[1].upper()}", name)
    found = None if _NUMBER.fullmatch(plain) else _NAMES.get(plain.upper())  # "Band 1 (Blue)"
    return found or (None if number else _NAMES.get(name.upper(), name))


def band_names(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the toolkit's names of different bands; those that its table lacks stay as given.

    These are what is no reflectance, such as NDVI, a height or radar; networks that know no
    wavelengths learn them.

    Raises:
        GeopeftError: No list, a band that is there twice, none at all, or no short line of text.

    Example:
        >>> band_names(["b8a", "NDVI"])
        ('NIR_NARROW', 'NDVI')
    """
    listed = () if isinstance(wanted, str) else tuple(map(str, wanted))
    names = tuple(_NAMES.get(name.upper(), name) for name in listed)
    if not names or len(set(names)) < len(names):
        raise GeopeftError(f"bands must be a list that names each band once, got {wanted!r}.")
    if odd := [name for name in names if not (name.isprintable() and 0 < len(name) <= 64)]:
        raise GeopeftError(f"A band has a name of 1 to 64 letters and digits, got {odd[0]!r:.99}.")
    return names


def band_indices(wanted: Sequence[str], available: Sequence[str]) -> list[int]:
    """Find where the wanted bands stand among the available ones.

    Args:
        wanted: Band names in the order that is needed.
        available: Band names in the order that exists.

    Returns:
        One index into `available` for each wanted band.

    Raises:
        ValueError: A band is asked for twice, or not available.

    Example:
        >>> band_indices(["RED", "B02"], HLS_BANDS)
        [2, 0]
    """
    names, present = band_names(wanted), band_names(available)
    check_names("band of these data", names, present)
    return [present.index(name) for name in names]


def nearest_band(
    name: str, known: Sequence[str], wavelengths: Mapping[str, float] = WAVELENGTHS
) -> str:
    """Return the known band that is `name` itself, or else nearest in central wavelength.

    Args:
        name: Band name.
        known: Band names.
        wavelengths: Central wavelength of each of them in micrometres.

    Example:
        >>> nearest_band("NIR_BROAD", HLS_BANDS)
        'NIR_NARROW'
    """
    return min(known, key=lambda other: abs(wavelengths[other] - wavelengths[name]))
