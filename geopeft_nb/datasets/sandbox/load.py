"""The sandbox planet: made-up chips in six climates, whose difference is yours to choose.

Nothing here was ever photographed. A place has terrain, rivers and fields, its climate says what
grows there and when, each pixel mixes published reflectance spectra, and light, haze and a sensor
add theirs: see `ground`, `climates` and `scene`. With `shift` all numbers of a climate move from
the mean of the six, where all regions are alike, to the climate's own.

Shares of the classes over the pixels of a region of 80 chips, in every climate at every shift
(`tests/unit/test_sandbox.py`): flooded 30-50 %, burnt 17-35 %, each crop 12-25 % and the water
between the fields 4-12 %, each land cover 4-42 %.
"""

from dataclasses import replace
from functools import cache, partial

import numpy as np

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip, Reading
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData, choose_bands
from geopeft_nb.datasets.sandbox.climates import REGIONS, climate_of
from geopeft_nb.datasets.sandbox.scene import SCALE, WINDOWS, make_place
from geopeft_nb.datasets.split import split_regions
from geopeft_nb.errors import GeopeftError, check_name, whole

#: Task -> what is predicted, and each class with its colour.
TASKS: dict[str, tuple[str, dict[str, str]]] = {
    "flood": ("water or land, per pixel", {"land": "#D9CFB8", "water": "#0072B2"}),
    "burn": ("burn scar or not, per pixel", {"unburnt": "#B5BD4C", "burn scar": "#CC3311"}),
    "crops": ("crop, per pixel", {
        "cereal": "#E6C229", "maize": "#117733", "rice": "#44AA99",
        "pasture": "#B5BD4C", "fallow": "#A08060", "water": "#0072B2",
    }),
    "landcover": ("land cover, per pixel", {
        "water": "#0072B2", "forest": "#117733", "grassland": "#B5BD4C",
        "bare ground": "#D9CFB8", "built-up": "#CC3311", "cropland": "#EE9A3A",
    }),
}  # fmt: skip
#: Chips in a place: a square of neighbours, of one day.
CHIPS_PER_PLACE = WINDOWS**2

CARD = DataCard(
    name="sandbox",
    title="Sandbox planet (SYNTHETIC)",
    predicts="choose with task=: " + ", ".join(TASKS),
    classes=tuple(TASKS["flood"][1]),
    colours=tuple(TASKS["flood"][1].values()),
    bands=HLS_BANDS,
    regions=REGIONS,
    home=("temperate",),
    size=64,
    resolution=30.0,
    labels="known exactly: the generator drew them; days and places are invented",
    licence="CC0-1.0",
    citation="made by this toolkit; sources of the spectra are in datasets/sandbox/climates.toml",
    synthetic=True,
    download="nothing: the chips are computed when they are first asked for",
)


def load_sandbox(
    request: DataRequest, *, task: str = "flood", shift: float = 1.0, chips: int = 160
) -> GeoData:
    """Make chips of the sandbox planet; see `load_data`.

    The same arguments give the same bytes. Place for place, only the climate changes with `shift`:
    the terrain keeps its pattern, so that a slider shows what the climate does.

    Args:
        request: What `load_data` was asked for.
        task: A key of `TASKS`.
        shift: How much the regions differ: 0 not at all, 1 as much as the climates do.
        chips: Chips of each region; four neighbours share a place.

    Returns:
        The data, on a card of the task.

    Raises:
        ValueError: An argument is out of its range.
    """
    check_name("task of sandbox", task, TASKS)
    whole("chips of each region, three places or more,", chips, 3 * CHIPS_PER_PLACE)
    if request.root is not None:
        raise GeopeftError("sandbox is computed and has no files; leave root out.")
    size = request.size or CARD.size
    words, colours = TASKS[task]
    card = replace(CARD, predicts=words, classes=tuple(colours), colours=tuple(colours.values()))
    indices, names = choose_bands(request.bands, card)

    @cache
    def scenes(number: int, place: int) -> list[Reading]:
        """Make the chips of a place once: 53 kB for each of 64 x 64 pixels."""
        climate = climate_of(REGIONS[number], shift)
        # Each region has its own longitudes; steps of the golden ratio never meet again.
        longitude = (60 * number + 24 * (place * 0.618034 % 1) + 180) % 360 - 180
        return make_place(task, climate, size, longitude, [request.seed, number, place])

    def read(number: int, place: int, window: int) -> Reading:
        scene = scenes(number, place)[window]
        image = scene.image[indices].astype(np.float32) / SCALE
        return scene._replace(image=image, target=scene.target.astype(np.int64))

    listed = []
    for number, chip in np.ndindex(len(REGIONS), chips):
        place, window = divmod(chip, CHIPS_PER_PLACE)
        label = f"{REGIONS[number]}-{place:04d}"
        # A chip of another shift is another chip: what trained on one may be tested on it.
        name = f"{task}-{size}px-shift{shift:g}-seed{request.seed}-{label}-{window}"
        listed.append(Chip(name, REGIONS[number], label, partial(read, number, place, window)))
    return split_regions(listed, request, card, names, size)
