"""From ground to image: what pixels consist of, fire and flood, light, air and sensor."""

import datetime

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.datasets.base import Reading
from geopeft_nb.datasets.sandbox.climates import SPECTRA, Array, Climate, sun_elevation
from geopeft_nb.datasets.sandbox.ground import COVERS, FIRST_CROP, Ground, make_ground, smooth_noise

#: What pixels are mixed from; what is missing to 1 is shade.
MATERIALS = ("green", "needles", "dry", "soil", "water", "burnt", "snow", "built")
GREEN, NEEDLES, DRY, SOIL, WATER, BURNT, SNOW, BUILT = range(len(MATERIALS))
PLANTS = [GREEN, NEEDLES, DRY]
#: Smallest and largest share of a place that is under water (flood) or burnt (burn).
FLOODED, BURNED = (0.20, 0.60), (0.25, 0.65)
#: Chips that lie side by side in a place, along each axis.
WINDOWS = 2
#: Stored numbers per unit of reflectance, as in the products of HLS.
SCALE = 10_000
#: Haze by band: Angstrom's law with exponent 1.3, relative to the blue band.
HAZE = (np.array([482, 561, 655, 865, 1609, 2201]) / 482) ** -1.3


def make_place(
    task: str, climate: Climate, size: int, longitude: float, seed: list[int]
) -> list[Reading]:
    """Make the chips of one place: windows of the same ground, on the same day.

    Args:
        task: ``"flood"``, ``"burn"``, ``"crops"`` or ``"landcover"``.
        climate: From `climate_of`.
        size: Chip side in pixels.
        longitude: Degrees east, to 0.05 degrees.
        seed: Numbers that name the place; the same numbers give the same bytes.

    Returns:
        Reflectance times `SCALE`, (6, size, size) int16, the classes of the task, (size, size)
        uint8, day and location of each.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    side = WINDOWS * size
    season = {"flood": climate.flood_day, "burn": climate.fire_day}.get(task, climate.map_day)
    day = (season + rng.uniform(-20, 20)) % 365
    date = datetime.date(int(rng.integers(2017, 2024)), 1, 1) + datetime.timedelta(int(day))
    latitude = climate.latitude + rng.uniform(-3, 3)
    longitude += rng.uniform(-0.05, 0.05)
    ground = make_ground(rng, climate, side, farmed=task == "crops")
    spectra = _spectra(rng, climate)
    parts = _parts(rng, climate, ground, day)
    mask = ground.cover
    if task == "flood":
        parts, mask = _flood(rng, climate, ground, parts)
    elif task == "burn":
        parts, mask = _burn(rng, climate, ground, parts)
    elif task == "crops":
        mask = np.where(mask < FIRST_CROP, len(COVERS) - FIRST_CROP, mask - FIRST_CROP)
    else:
        mask = np.minimum(mask, FIRST_CROP)
    reflectance = np.tensordot(spectra.T, parts, axes=1)
    reflectance *= _light(ground, sun_elevation(latitude, day), rng.uniform(1.9, 2.7))
    reflectance = _blur(reflectance)
    scenes, step = [], size * 30 / 111_000  # 30 m pixels; a degree of latitude is 111 km long
    for top, left in np.ndindex(WINDOWS, WINDOWS):
        window = np.s_[top * size : (top + 1) * size, left * size : (left + 1) * size]
        image = _sense(rng, climate, reflectance[(slice(None), *window)])
        here = (latitude - top * step, longitude + left * step / np.cos(np.radians(latitude)))
        scenes.append(Reading(image, mask[window].astype(np.uint8), location=here, date=date))
    return scenes


def _spectra(rng: np.random.Generator, climate: Climate) -> Array:
    """Mix the spectra of this place's materials, (8, 6): no two places have the same soil."""
    library = {name: np.array(values) for name, values in SPECTRA.items()}

    def near(value: float, spread: float) -> float:
        return float(np.clip(value + rng.uniform(-spread, spread), 0, 1))

    shares = np.array([climate.dark, climate.brown, climate.red, climate.sand])
    shares = shares * rng.uniform(0.4, 1.6, 4) + 0.02
    pairs = zip(shares / shares.sum(), ("dark soil", "brown soil", "red soil", "sand"), strict=True)
    soil = sum(share * library[name] for share, name in pairs)
    soil = soil * climate.soil_brightness * rng.uniform(0.85, 1.15)
    humus, turbidity = near(climate.humus, 0.1), near(climate.turbidity, 0.15)
    clear = humus * library["black water"] + (1 - humus) * library["clear water"]
    knots = np.stack([clear, library["turbid water"], library["muddy water"]])
    water = np.array([np.interp(2 * turbidity, [0, 1, 2], band) for band in knots.T])
    water = water + climate.glint * rng.uniform(0.5, 1.5)
    leaf, ash = rng.uniform(0.3, 0.7), near(climate.ash, 0.08)
    asphalt = max(0.0, 1 - climate.concrete - climate.tile)
    built = climate.concrete * library["concrete"] + climate.tile * library["tile"]
    return np.stack([
        leaf * library["leaf"] + (1 - leaf) * library["canopy"],
        library["needles"],
        library["dry"] * rng.uniform(0.8, 1.1),
        soil,
        water,
        (1 - ash) * library["char"] + ash * library["ash"],
        library["snow"],
        built + asphalt * library["asphalt"],
    ])  # fmt: skip


def _parts(rng: np.random.Generator, climate: Climate, ground: Ground, day: float) -> Array:
    """Return the share of each material in each pixel, (8, side, side), before fire and flood."""
    green = np.clip(climate.greenness(day) + rng.uniform(-0.08, 0.08), 0.03, 0.97)
    grass = np.clip(climate.cover + rng.uniform(-0.1, 0.1), 0.05, 0.97)
    parts = _cover_table(climate, green, grass, climate.crop_stage + rng.uniform(-0.06, 0.06))
    parts = parts[:, ground.cover]
    # Growth varies within and between fields; where plants thin out, soil shows.
    uneven = 0.16 * smooth_noise(rng, ground.cover.shape[0], 1.5)[0]
    uneven += rng.uniform(-0.15, 0.15, 1024)[ground.fields]
    thinner = parts[PLANTS] * np.clip(uneven, -0.2, 0.6)
    parts[PLANTS] -= thinner
    parts[SOIL] = np.clip(parts[SOIL] + thinner.sum(axis=0), 0, 1)
    parts[BUILT] *= rng.uniform(0.4, 1.6, ground.cover.shape)
    # Wet soil is about half as bright as dry soil (Lobell & Asner 2002).
    parts[SOIL] *= 1 - 0.55 * climate.moisture * (1 - ground.drainage)
    # The noise is drawn with or without snow, so that chance goes on in the same way.
    patches = smooth_noise(rng, ground.cover.shape[0], 2.5)[0]
    if snow := climate.snow_cover(day):
        white = np.clip(snow + 0.3 * patches, 0, 1)
        white *= np.where(ground.cover < 2, 0.3, 0.9)  # little shows on water and in forests
        parts *= 1 - white
        parts[SNOW] += white
    return parts


def _cover_table(climate: Climate, green: float, grass: float, stage: float) -> Array:
    """Return the share of each material in each of `COVERS`, (8, 10).

    Args:
        climate: With its forests.
        green: Green share of natural vegetation.
        grass: Share of grassland that plants cover.
        stage: How far crops are: 0 sown, 1 harvested.
    """
    trees, lit = 0.5 + 0.5 * grass, 1 - climate.shade
    needles, leaves = trees * lit * climate.needles, trees * lit * (1 - climate.needles)
    cereal = 0.9 * np.exp(-(((stage - 0.25) / 0.18) ** 2))
    ripe = 0.85 / (1 + np.exp((0.45 - stage) / 0.05))
    maize = 0.95 * np.exp(-(((stage - 0.62) / 0.2) ** 2))
    rice = 0.8 * np.exp(-(((stage - 0.7) / 0.25) ** 2))
    wet = 1 / (1 + np.exp((stage - 0.75) / 0.05))
    rows = [
        # green, needles, dry, soil, water; what is missing to 1 is shade
        (0, 0, 0, 0, 1),
        (leaves * green**0.5, needles, leaves * (1 - green**0.5), 1 - trees, 0),
        (grass * green, 0, grass * (1 - green), 1 - grass, 0),
        (0.1 * grass * green, 0, 0.1 * grass * (1 - green), 1 - 0.1 * grass, 0),
        (0.2 * green, 0, 0, 0.1, 0),
        (cereal, 0, (1 - cereal) * ripe, (1 - cereal) * (1 - ripe), 0),
        (maize, 0, 0, 1 - maize, 0),
        (rice, 0, (1 - rice) * (1 - wet), 0, (1 - rice) * wet),
        (0.9 * green, 0, 0.9 * (1 - green), 0.1, 0),
        (0, 0, 0.15, 0.85, 0),
    ]
    table = np.zeros((len(MATERIALS), len(COVERS)))
    table[:5] = np.transpose(rows)
    table[BUILT, COVERS.index("built-up")] = 0.65
    return table


def _flood(
    rng: np.random.Generator, climate: Climate, ground: Ground, parts: Array
) -> tuple[Array, NDArray[np.int64]]:
    """Fill the valleys up to a height above the river; return the parts and what is under water."""
    side = ground.drainage.shape[0]
    depth = rng.uniform(*FLOODED) - ground.drainage
    wet = np.clip(0.5 + depth / 0.02, 0, 1)
    # Near the edge the ground shows through, and plants stand out of the water in patches.
    bottom = climate.shallow * np.exp(-np.clip(depth, 0, None) / 0.06)
    patches = 1 / (1 + np.exp(-2.5 * smooth_noise(rng, side, 2.0)[0]))
    standing = np.where(ground.cover == 0, 0, 1.6 * climate.emergent * patches)
    standing = np.clip(standing * np.exp(-np.clip(depth, 0, None) / 0.4), 0, 0.85)
    under = parts * (1 - wet) + parts * (wet * bottom * 0.6)
    under[GREEN] += wet * (1 - bottom) * standing * 0.8
    under[DRY] += wet * (1 - bottom) * standing * 0.2
    under[WATER] += wet * (1 - bottom) * (1 - standing)
    return under, (depth > 0).astype(np.int64)


def _burn(
    rng: np.random.Generator, climate: Climate, ground: Ground, parts: Array
) -> tuple[Array, NDArray[np.int64]]:
    """Burn what grows, uphill first; return the parts and the burn scar."""
    side = ground.drainage.shape[0]
    spread = smooth_noise(rng, side, 4.0)[0] + 0.8 * ground.drainage
    spread += 0.2 * smooth_noise(rng, side, 2.8)[0]
    fuel = ~np.isin(ground.cover, [COVERS.index(x) for x in ("water", "bare ground", "built-up")])
    edge = np.quantile(spread[fuel], 1 - rng.uniform(*BURNED))
    burnt = fuel & (spread > edge)
    severity = climate.severity + 0.12 * smooth_noise(rng, side, 2.0)[0] + rng.uniform(-0.08, 0.08)
    severity = np.clip(severity, 0.15, 0.97) * np.clip((spread - edge) / 0.08, 0.5, 1)
    gone = np.where(burnt, severity, 0)
    plants = parts[PLANTS]
    left = plants * (1 - gone)
    # What fire leaves standing is scorched: dry, not green; some green has come back since.
    scorched = 0.8 * np.where(burnt, left[:2].sum(axis=0), 0)
    parts = parts.copy()
    parts[[GREEN, NEEDLES]] = left[:2] * np.where(burnt, 0.2, 1)
    parts[DRY] = left[2] + scorched
    char = (plants.sum(axis=0) + 0.85 * parts[SOIL]) * gone
    parts[SOIL] *= 1 - 0.85 * gone
    back = climate.regrowth * gone
    parts[GREEN] += back * char
    parts[BURNT] += char * (1 - back)
    return parts, burnt.astype(np.int64)


def _light(ground: Ground, elevation: float, azimuth: float) -> Array:
    """Return how much brighter slopes are than flat ground: the cosine law, softened by the sky.

    Args:
        ground: With slopes.
        elevation: Height of the sun in radians.
        azimuth: Where the sun stands, in radians clockwise from north.
    """
    south, east = ground.slopes
    # The normal of a surface that rises to the south leans to the north.
    level, tilt = np.sin(elevation), south * np.cos(azimuth) - east * np.sin(azimuth)
    direct = level + np.cos(elevation) * tilt
    direct /= np.sqrt(1 + south**2 + east**2) * level
    return np.asarray(0.25 + 0.75 * np.clip(direct, 0, 2.2))


def _blur(image: Array) -> Array:
    """Let neighbouring pixels share light, as the optics of a sensor do: weights 1, 4, 1."""
    side = image.shape[-1]
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :side] + 4 * padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((rows[..., :side] + 4 * rows[..., 1:-1] + rows[..., 2:]) / 36)


def _sense(rng: np.random.Generator, climate: Climate, reflectance: Array) -> NDArray[np.int16]:
    """Look through the air with a sensor: haze, noise, whole numbers."""
    side = reflectance.shape[-1]
    haze = climate.haze * rng.uniform(0.6, 1.5) * (1 + 0.15 * smooth_noise(rng, side, 3.5)[0])
    added = HAZE[:, None, None] * np.clip(haze, 0, None)
    seen = added + reflectance * (1 - 1.5 * added)
    seen += (0.002 + 0.01 * seen) * rng.standard_normal(seen.shape)
    return np.clip(np.rint(seen * SCALE), 0, SCALE).astype(np.int16)
