"""The rule that turns a Sentinel-2 scene into a water mask, with every exception to it.

The masks are derived from the imagery itself, not from a survey. To be more than a
threshold on the six bands that ship, the rule reads green and near infrared at their
native 10 m (B03, B08), judges whole objects rather than pixels, and lists in `ZONES`
the places where a person looking at the result decided otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from rasterio.transform import Affine, array_bounds
from rasterio.warp import Resampling, reproject
from rasterio.windows import from_bounds
from scipy import ndimage

LAND, WATER, IGNORED = 0, 1, 255
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
# All sizes below count pixels of 10 m, unless they say otherwise.
SMALLEST_WATER = 20  # 0.2 hectares
SEEDS_NEEDED = 4
DOUBT_REACH = 3  # doubt further than 30 m from water is dark soil or shadow, hence land
SMALLEST_OBJECT_AT_20_METRES = 4  # 0.16 hectares
CLOUD_SMALLEST_AT_20_METRES = 300  # 12 hectares; white roofs and quarries are smaller
CLOUD_MARGIN_AT_20_METRES = 4


@dataclass(frozen=True)
class Rule:
    """Thresholds on two indices of top-of-atmosphere reflectance.

    NDWI = (green - near infrared) / (green + near infrared), at 10 m.
    MNDWI = (green - SWIR_1) / (green + SWIR_1), SWIR_1 interpolated to 10 m.

    Args:
        water: NDWI and MNDWI above which a pixel is water.
        land: NDWI and MNDWI; below either, a pixel is land. What is neither is in doubt.
        seed: NDWI and MNDWI that some pixels of a water object must exceed.
        bright: MNDWI above which a pixel is water whatever its NDWI, because surf, sun
            glint and mud in the water are bright in near infrared but not in SWIR_1;
            None where there is none of these.
        haze: BLUE - RED / 2 (x 10,000, mean of 5 x 5 pixels of 20 m) above which a pixel
            is cloud; None for a scene without clouds.
    """

    water: tuple[float, float]
    land: tuple[float, float]
    seed: tuple[float, float]
    bright: float | None = None
    haze: float | None = None


@dataclass(frozen=True)
class Zone:
    """A polygon in which the rule of the scene is replaced, and why.

    Args:
        decision: other thresholds, or a class for the whole polygon.
        corners: (easting, northing) in metres, in the CRS of the scene.
        reason: what was seen.
    """

    decision: Rule | int
    corners: tuple[tuple[float, float], ...]
    reason: str


RULES = {
    "virginia": Rule(water=(0.28, 0.35), land=(0.15, 0.15), seed=(0.28, 0.40), bright=0.60),
    "brandenburg": Rule(water=(0.06, 0.22), land=(-0.02, 0.10), seed=(0.10, 0.36), haze=1000.0),
}
ZONES: dict[str, tuple[Zone, ...]] = {
    "virginia": (
        Zone(
            IGNORED,
            ((442020, 4163980), (442470, 4163900), (442460, 4163640), (442020, 4163640)),
            "a shoal of mud, awash: its wet surface cannot be told from shallow water",
        ),
        Zone(
            Rule(water=(0.15, -0.20), land=(0.11, -0.30), seed=(0.20, -0.20)),
            (
                (444750, 4175250),
                (445700, 4175250),
                (446500, 4175650),
                (446500, 4177050),
                (445200, 4177050),
                (444750, 4176300),
            ),
            "creeks 20 to 30 m wide in dry marsh, clear in B03 and B08: at 20 m their SWIR_1 "
            "mixes with the banks",
        ),
        Zone(
            Rule(water=(0.10, -0.30), land=(0.05, -0.40), seed=(0.20, -0.30)),
            ((441600, 4169560), (441600, 4169760), (442080, 4169760), (442080, 4169560)),
            "a pond between fields, 20 to 40 m wide, as above",
        ),
    ),
    "brandenburg": (
        Zone(
            Rule(water=(0.15, 0.55), land=(0.08, 0.45), seed=(0.15, 0.55)),
            (
                (334300, 5817100),
                (334800, 5817700),
                (336700, 5817700),
                (336700, 5815500),
                (334300, 5815500),
            ),
            "the shadow of a cloud on a town and on the shores around it makes roofs, gardens "
            "and reeds look like water to the rule of the scene",
        ),
        Zone(
            Rule(water=(0.12, -0.30), land=(0.06, -0.30), seed=(0.12, -0.30)),
            ((336480, 5816960), (336480, 5817120), (336700, 5817120), (336700, 5816960)),
            "the river between two lakes, 20 to 30 m wide: at 20 m its SWIR_1 mixes with the banks",
        ),
        Zone(
            Rule(water=(0.06, -0.30), land=(0.00, -0.30), seed=(0.10, -0.30)),
            ((340060, 5817250), (340060, 5818000), (340960, 5818000), (340960, 5817250)),
            "the river between two lakes, as above",
        ),
        Zone(
            Rule(water=(0.04, -0.40), land=(0.00, -0.40), seed=(0.08, -0.40)),
            (
                (344260, 5820290),
                (344260, 5820440),
                (344560, 5820480),
                (344660, 5820700),
                (344840, 5820700),
                (344740, 5820400),
                (344560, 5820330),
            ),
            "the river between two lakes, as above",
        ),
        Zone(
            LAND,
            ((332250, 5819660), (332250, 5819760), (332600, 5819940), (332700, 5819860)),
            "the shadow of a forest edge under the low winter sun",
        ),
        Zone(
            LAND,
            ((333310, 5819010), (333310, 5819090), (333800, 5819360), (333860, 5819280)),
            "the shadow of a forest edge, as above",
        ),
        Zone(
            LAND,
            ((330210, 5817990), (330210, 5818130), (330370, 5818130), (330370, 5817990)),
            "the shadow of a forest edge, as above",
        ),
    ),
}


def read_indices(
    paths: dict[str, Path], transform: Affine, height: int, width: int
) -> dict[str, NDArray[np.float32]]:
    """Read the two water indices at 10 m.

    Args:
        paths: files of B03, B08 (both at 10 m) and B11 (20 m).
        transform: of the 20 m grid of the scene.
        height: of the 20 m grid, pixels.
        width: of the 20 m grid, pixels.

    Returns:
        "ndwi" and "mndwi", each of shape (2 height, 2 width).
    """
    bounds = array_bounds(height, width, transform)
    fine = {}
    for name in ("B03", "B08"):
        with rasterio.open(paths[name]) as band:
            window = from_bounds(*bounds, transform=band.transform)
            fine[name] = band.read(1, window=window).astype(np.float32)
    shortwave = np.empty((2 * height, 2 * width), np.float32)
    with rasterio.open(paths["B11"]) as band:
        reproject(
            rasterio.band(band, 1),
            shortwave,
            dst_transform=transform * Affine.scale(0.5),
            dst_crs=band.crs,
            resampling=Resampling.bilinear,
        )
    green, infrared = fine["B03"], fine["B08"]
    return {
        "ndwi": (green - infrared) / (green + infrared),
        "mndwi": (green - shortwave) / (green + shortwave),
    }


def apply_rule(
    indices: dict[str, NDArray[np.float32]], rule: Rule
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Judge single pixels of 10 m.

    Returns:
        Water, doubtful and seed pixels, each of the shape of the indices.
    """
    ndwi, mndwi = indices["ndwi"], indices["mndwi"]
    water = (ndwi > rule.water[0]) & (mndwi > rule.water[1])
    if rule.bright is not None:
        water |= mndwi > rule.bright
    doubt = ~water & (ndwi > rule.land[0]) & (mndwi > rule.land[1])
    seed = (ndwi > rule.seed[0]) & (mndwi > rule.seed[1])
    return water, doubt, seed


def inside(zone: Zone, shape: tuple[int, int], transform: Affine) -> NDArray[np.bool_]:
    """Pixels whose centre lies in the polygon of a zone."""
    ring = [*zone.corners, zone.corners[0]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    return geometry_mask([polygon], out_shape=shape, transform=transform, invert=True)


def keep_objects(water: NDArray[np.bool_], seed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep connected water that is large enough and somewhere unmistakable.

    Shadows along forest edges and dark roofs are small, or nowhere clearly water.
    """
    labels, count = ndimage.label(water, EIGHT_NEIGHBOURS)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    seeds = np.bincount(labels.ravel(), weights=seed.ravel(), minlength=count + 1)
    keep = (sizes >= SMALLEST_WATER) & (seeds >= SEEDS_NEEDED)
    keep[0] = False
    return keep[labels]


def find_clouds(image: NDArray[np.uint16], haze: float) -> NDArray[np.bool_]:
    """Find clouds by their haze over land and over lakes, but not bright ice.

    Args:
        image: BLUE, GREEN, RED, NIR_NARROW, SWIR_1, SWIR_2, shape (6, height, width).
        haze: threshold, see `Rule`.

    Returns:
        Cloud pixels with a margin, shape (height, width).
    """
    blue, green, red, _, shortwave, _ = image.astype(np.float32)
    # Ice is as bright as cloud in blue, but nearly black in SWIR_1.
    not_ice = (green - shortwave) / (green + shortwave) < 0.15
    cloud = (ndimage.uniform_filter(blue - red / 2, 5) > haze) & not_ice
    labels, _ = ndimage.label(ndimage.binary_opening(cloud, EIGHT_NEIGHBOURS))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    cloud = sizes[labels] >= CLOUD_SMALLEST_AT_20_METRES
    margin = CLOUD_MARGIN_AT_20_METRES
    cloud = ndimage.binary_dilation(cloud, EIGHT_NEIGHBOURS, iterations=margin)
    return ndimage.binary_fill_holes(cloud)


def ignore_specks(mask: NDArray[np.uint8]) -> None:
    """Mark land and water objects too small to trust at 20 m as ignored, in place."""
    for value in (LAND, WATER):
        labels, _ = ndimage.label(mask == value, EIGHT_NEIGHBOURS)
        sizes = np.bincount(labels.ravel())
        sizes[0] = SMALLEST_OBJECT_AT_20_METRES
        mask[sizes[labels] < SMALLEST_OBJECT_AT_20_METRES] = IGNORED


def count_in_fours(pixels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the 10 m pixels in each 20 m pixel, 0 to 4."""
    height, width = pixels.shape
    return pixels.reshape(height // 2, 2, width // 2, 2).sum((1, 3))


def make_mask(
    region: str, paths: dict[str, Path], image: NDArray[np.uint16], transform: Affine
) -> NDArray[np.uint8]:
    """Make the water mask of one scene.

    Args:
        region: a key of `RULES`.
        paths: files of B03, B08 and B11.
        image: the six bands at 20 m, reflectance x 10,000, shape (6, height, width).
        transform: of the 20 m grid.

    Returns:
        0 land, 1 water, 255 ignored, shape (height, width).
    """
    rule = RULES[region]
    _, height, width = image.shape
    indices = read_indices(paths, transform, height, width)
    water, doubt, seed = apply_rule(indices, rule)
    fine_transform = transform * Affine.scale(0.5)
    for zone in ZONES[region]:
        if isinstance(zone.decision, Rule):
            here = inside(zone, water.shape, fine_transform)
            for pixels, local in zip(
                (water, doubt, seed), apply_rule(indices, zone.decision), strict=True
            ):
                pixels[here] = local[here]

    water = keep_objects(water, seed)
    doubt &= ndimage.binary_dilation(water, EIGHT_NEIGHBOURS, iterations=DOUBT_REACH) & ~water
    waters, doubts = count_in_fours(water), count_in_fours(doubt)
    mask = np.where(waters + doubts / 2 >= 2, WATER, LAND).astype(np.uint8)
    mask[doubts >= 3] = IGNORED
    ignore_specks(mask)

    if rule.haze is not None:
        mask[find_clouds(image, rule.haze)] = IGNORED
    for zone in ZONES[region]:
        if isinstance(zone.decision, int):
            mask[inside(zone, mask.shape, transform)] = zone.decision
    return mask
