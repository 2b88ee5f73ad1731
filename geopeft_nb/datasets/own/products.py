"""What known products imply: a row for each, recognised by the file's name or its tags."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

RGBN = ("BLUE", "GREEN", "RED", "NIR_NARROW")


class Product(NamedTuple):
    """Whole numbers of a product become reflectance: (number + offset) / scale.

    Attributes:
        title: What the notes call it.
        patterns: Regular expressions for the path and the tags; one that fits is enough. They may
            name the `date`, and the `baseline` of Sentinel-2's processing.
        sensor: What goes before its band numbers, see `geopeft_nb.bands`.
        scale: Of the numbers.
        offset: Of the numbers.
        fill: Number of pixels without data.
        since: From this date on, and from baseline 04.00 on, `offset` applies; before it is 0.
        bands: Bands in order, where the product has no other.
        refused: Why it is not taken.
    """

    title: str
    patterns: tuple[str, ...]
    sensor: str = ""
    scale: float = 10_000
    offset: float = 0
    fill: float = 0
    since: str = ""
    bands: tuple[str, ...] = ()
    refused: str = ""


_LANDSAT, _DAY = r"_L2S[PR]_\d{6}_(?P<date>\d{8})_\d{8}_02_", r"(?P<date>\d{8})T\d{6}"
_LANDSAT_1 = r"_L1\w\w_\d{6}_(?P<date>\d{8})(?!\w*_sr_)"
_PLANET = r"/(?P<date>\d{8})_\d{6}_\w*AnalyticMS"
_RULE = 1 / 2.75e-5, -0.2 / 2.75e-5  # of Landsat's Collection 2
PRODUCTS = (
    Product(
        "Sentinel-2", sensor="S2:", offset=-1_000, since="20220125",
        patterns=(
            rf"S2[A-D]_MSIL(?:1C|2A)_{_DAY}_N(?P<baseline>\d{{4}})_",
            rf"/(?:L2A_)?T\d\d[A-Z]{{3}}_{_DAY}_(?:B\d|AOT|WVP|SCL)",
            r"PROCESSING_BASELINE=(?P<baseline>[\d.]+)[\s\S]*?PRODUCT_TYPE=S2MSI",
        ),
    ),
    Product("HLS L30", (r"HLS\.L30\.T\w{5}\.(?P<date>\d{7})",), "L30:", fill=-9999),
    Product("HLS S30", (r"HLS\.S30\.T\w{5}\.(?P<date>\d{7})",), "S30:", fill=-9999),
    Product("Landsat 8/9 Collection 2 level 2", ("L[CO]0[89]" + _LANDSAT,), "L8:", *_RULE),
    Product("Landsat 4-7 Collection 2 level 2", ("L[ET]0[457]" + _LANDSAT,), "L5:", *_RULE),
    Product(
        "Landsat 4-7 level 1", ("L[ET]0[4-7]" + _LANDSAT_1,), "L5:",
        refused="the coefficients of level 1 stand in its MTL file. Take level 2",
    ),
    Product(
        "Landsat 8/9 level 1", ("L[CO]0[89]" + _LANDSAT_1,), "L8:",
        refused="level 1 needs the sun's elevation: reflectance = (0.00002 x number - 0.1) / "
        "sin(elevation). Take level 2, or say scale=50_000 * sin(elevation), offset=-5_000",
    ),
    Product("Planet SR", (_PLANET + r"_SR(?:_clip|_harmonized)*\.",), bands=RGBN),
    Product("Planet SR, 8 bands", (_PLANET + "_SR_8b",), bands=(
        "COASTAL_AEROSOL", "BLUE", "GREEN_1", "GREEN", "YELLOW", "RED", "RED_EDGE_1", "NIR_NARROW",
    )),
    Product(
        "Planet radiance", (_PLANET + r"(?:_clip)?\.",),
        refused="it has radiance, whose coefficients stand in its XML. Take AnalyticMS_SR",
    ),
)  # fmt: skip


def find_product(path: Path, tags: Mapping[str, str]) -> tuple[Product | None, date | None]:
    """Recognise a product.

    Args:
        path: The file; its folders count, too.
        tags: Of the file.

    Returns:
        The product, with the offset that holds for this file, or None; and its day, or None.
    """
    tagged = sorted(f"{key}={value:.200}" for key, value in tags.items())
    text = "/".join(("", *path.parts[-6:], *tagged))[:50_000]  # patterns are slow on longer ones
    for product in PRODUCTS:
        found = [match.groupdict() for x in product.patterns if (match := re.search(x, text))]
        if not found:
            continue
        said = {key: value for part in found[::-1] for key, value in part.items() if value}
        taken, baseline = said.get("date", ""), said.get("baseline", "").replace(".", "")
        if product.since and (baseline or taken) < ("0400" if baseline else product.since):
            product = product._replace(offset=0)
        if product.since and ("_MSIL1C_" in text or "PRODUCT_TYPE=S2MSI1C" in text):
            product = product._replace(title="Sentinel-2 L1C")  # at the top of the atmosphere
        return product, day(taken)
    return None, day(next((tags[key] for key in DATE_TAGS if key in tags), ""))


#: Tags with the day of acquisition; TIFFTAG_DATETIME is often that of the file.
DATE_TAGS = ("ACQUISITION_DATE", "DATE_ACQUIRED", "SENSING_TIME", "DATATAKE_1_SENSING_START")


def day(text: object) -> date | None:
    """Read 20210601, 2021-06-01, 2021152 or 20210601T101559; None for anything else."""
    text = re.sub(r"(?<=[-/._])\d(?!\d)", r"0\g<0>", str(text))[:10].partition("T")[0]  # 2021-1-5
    digits = re.sub(r"^\d{1,3}\D.*|\D", "", text)  # the year is first
    form = {8: "%Y%m%d", 7: "%Y%j"}.get(len(digits), "-")
    try:
        found = datetime.strptime(digits, form).date()
    except ValueError:
        return None
    return found if f"{found:{form}}" == digits else None  # 2023366 is read as of 2024
