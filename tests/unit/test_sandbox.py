"""The sandbox planet: same seed, same bytes; stated class balance; and shift does what it says."""

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.sandbox.climates import REGIONS, SPECTRA, climate_of, sun_elevation
from geopeft_nb.datasets.sandbox.load import CHIPS_PER_PLACE, TASKS
from geopeft_nb.datasets.sandbox.scene import make_place
from geopeft_nb.tasks import confusion, mean_iou


def everything(data: GeoData) -> dict[str, tuple[bytes, bytes]]:
    """Image and target of each chip by name, as bytes."""
    samples = [part[index] for part in data.parts.values() for index in range(len(part))]
    return {s["name"]: (s["image"].numpy().tobytes(), s["mask"].numpy().tobytes()) for s in samples}


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_bytes_in_any_order(task: str) -> None:
    first = gp.load_data("sandbox", task=task, chips=12, size=32)
    words, classes = TASKS[task]
    assert (first.card.predicts, first.classes) == (words, tuple(classes))
    assert (*first.regions, *first.holdout) == REGIONS and len(first.train) == 4
    again = gp.load_data("sandbox", task=task, chips=12, size=32)
    for region in reversed(again.holdout):  # backwards, and the second window before the first
        for index in reversed(range(len(again.holdout[region]))):
            again.holdout[region][index]
    assert everything(first) == everything(again)
    other = gp.load_data("sandbox", task=task, chips=12, size=32, seed=1)
    assert not set(everything(other).values()) & set(everything(first).values())


def test_a_chip_is_not_changed_by_who_reads_it() -> None:
    data = gp.load_data("sandbox", chips=12, size=32)
    sample = data.train[0]
    kept = sample["image"].clone()
    sample["image"] += 1
    sample["mask"] += 1
    again = data.train[0]
    assert torch.equal(again["image"], kept) and again["mask"].max() <= 1


def test_it_says_everywhere_that_it_is_synthetic() -> None:
    data = gp.load_data("sandbox", task="burn", chips=12, size=32)
    assert data.card.synthetic and gp.list_datasets().loc["sandbox", "synthetic"]
    assert "SYNTHETIC" in repr(data) and "SYNTHETIC" in gp.list_datasets().loc["sandbox", "title"]
    figure = gp.data_card(data).map()
    assert figure is not None and "SYNTHETIC" in figure.axes[0].get_title(loc="left")


def test_a_sample_looks_like_one_of_a_real_sensor() -> None:
    data = gp.load_data("sandbox", chips=12)
    sample = data.holdout["desert"][0]
    image = sample["image"]
    assert image.shape == (6, 64, 64) and image.dtype == torch.float32
    assert 0 <= image.min() and image.max() <= 1
    stored = image.double() * 10_000  # whole numbers, as in the products of HLS
    assert (stored - stored.round()).abs().max() < 1e-3
    assert sample["mask"].shape == (64, 64) and sample["mask"].dtype == torch.int64
    latitude, longitude = sample["location"].tolist()
    assert 25 < latitude < 33 and -65 < longitude < -30  # the belt of the deserts
    year, day = sample["temporal"][0].tolist()
    assert 2017 <= year <= 2023 and 75 <= day <= 116  # a flood about day 95
    few = gp.load_data("sandbox", chips=12, bands=["SWIR_1", "BLUE"])
    assert torch.equal(few.holdout["desert"][0]["image"], image[[4, 0]])


def test_neighbours_share_a_place_and_look_alike() -> None:
    data = gp.load_data("sandbox", task="landcover", chips=80)
    means: dict[str, list[np.ndarray]] = {}
    for sample in (s for part in (data.train, data.val, data.test) for s in part):
        means.setdefault(sample["place"], []).append(sample["image"].mean((1, 2)).numpy())
    chips = np.array(list(means.values()))
    assert chips.shape == (20, CHIPS_PER_PLACE, 6)
    within, between = chips.var(axis=1).mean(axis=0), chips.mean(axis=1).var(axis=0)
    assert (within < between).all()


def test_no_two_places_lie_on_the_same_ground() -> None:
    data = gp.load_data("sandbox", chips=40, size=16, shift=0.0)
    samples = [s for part in data.parts.values() for s in part]
    corners = {s["place"]: s["location"].numpy() for s in samples}
    where = np.stack(list(corners.values()))
    apart = np.abs(where[:, None] - where[None]).max(axis=2) + np.eye(len(where))
    assert apart.min() > 2 * 64 * 30 / 111_000  # degrees: wider than a place


def test_climates_meet_in_their_mean_and_part_in_a_straight_line() -> None:
    assert all(climate_of(region, 0.0) == climate_of("desert", 0.0) for region in REGIONS)
    assert len({repr(climate_of(region, 1.0)) for region in REGIONS}) == 6
    assert climate_of("boreal", 1.0).snow == pytest.approx(0.9)
    for region in REGIONS:
        near, middle, far = (vars(climate_of(region, shift)) for shift in (0.0, 0.5, 1.0))
        for name, value in middle.items():
            assert value == pytest.approx((near[name] + far[name]) / 2)


def test_shift_changes_the_climate_and_keeps_the_place() -> None:
    near, far = (make_place("flood", climate_of("savanna", s), 64, 0, [5]) for s in (0.4, 0.6))
    other = make_place("flood", climate_of("savanna", 0.4), 64, 0, [6])
    same, chance = (
        np.mean([a.target == b.target for a, b in zip(near, chips, strict=True)])
        for chips in (far, other)
    )
    assert same > 0.95 > 0.75 > chance
    assert not np.array_equal(near[0].image, far[0].image)


# What the module's docstring states, in its order.
BOUNDS = {
    "flood": [(0.50, 0.70), (0.30, 0.50)],
    "burn": [(0.65, 0.83), (0.17, 0.35)],
    "crops": [(0.12, 0.25)] * 5 + [(0.04, 0.12)],
    "landcover": [(0.04, 0.42)] * 6,
}


def made(task: str, region: str, shift: float, places: range) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance (N, 6, 64, 64) and classes (N, 64, 64) of the chips of some places."""
    climate, number = climate_of(region, shift), REGIONS.index(region)
    chips = [c for place in places for c in make_place(task, climate, 64, 0, [0, number, place])]
    return np.stack([c.image for c in chips]) / 10_000, np.stack([c.target for c in chips])


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("task", BOUNDS)
def test_classes_have_their_stated_shares_in_every_region(task: str, shift: float) -> None:
    low, high = np.array(BOUNDS[task]).T
    for region in REGIONS:
        _, masks = made(task, region, shift, range(20))
        shares = np.bincount(masks.ravel(), minlength=len(low)) / masks.size
        assert len(shares) == len(low) == len(TASKS[task][1])
        assert ((low <= shares) & (shares <= high)).all(), (region, shares)


def pixels(task: str, region: str, shift: float, places: range) -> tuple[np.ndarray, np.ndarray]:
    """Every 13th pixel of the chips of some places: reflectance (N, 6) and class (N,)."""
    images, masks = made(task, region, shift, places)
    return np.moveaxis(images, 1, -1).reshape(-1, 6)[::13], masks.ravel()[::13]


def test_water_is_dark_forest_green_and_a_burn_scar_neither() -> None:
    def means(task: str) -> np.ndarray:
        image, mask = pixels(task, "temperate", 1.0, range(10))
        return np.stack([image[mask == k].mean(axis=0) for k in range(len(TASKS[task][1]))])

    cover = means("landcover")  # water, forest, grassland, bare ground, built-up, cropland
    ndvi = (cover[:, 3] - cover[:, 2]) / (cover[:, 3] + cover[:, 2])
    assert ndvi[1] > 0.6 > 0.4 > ndvi[3] > ndvi[0]
    assert (cover[0, 4:] < cover[1:, 4:].min(axis=0) / 2).all()  # water is dark beyond the visible
    burn = means("burn")
    ratio = (burn[:, 3] - burn[:, 5]) / (burn[:, 3] + burn[:, 5])  # the Normalised Burn Ratio
    assert ratio[0] > ratio[1] + 0.15


def test_seasons_and_the_sun_follow_the_calendar() -> None:
    boreal, desert = climate_of("boreal", 1.0), climate_of("desert", 1.0)
    assert boreal.greenness(200) == pytest.approx(boreal.high_green)
    assert boreal.greenness(200 + 365 / 2) == pytest.approx(boreal.low_green)
    assert boreal.snow_cover(60) > 0.9 > 0.2 < boreal.snow_cover(120)
    assert boreal.snow_cover(200) == desert.snow_cover(60) == 0
    # Berlin at half past ten solar time: NOAA's calculator gives 56 and 11 degrees.
    degrees = [np.degrees(sun_elevation(52.5, day)) for day in (172, 355)]
    assert degrees == pytest.approx([56, 11], abs=1.5)
    assert all(len(x) == 6 and 0 < min(x) < max(x) < 1 for x in SPECTRA.values())


@pytest.mark.slow
@pytest.mark.parametrize("task", BOUNDS)
def test_what_was_learnt_at_home_holds_away_only_while_regions_are_alike(task: str) -> None:
    """A random forest on single pixels, so that it is quick."""
    from sklearn.ensemble import RandomForestClassifier

    def difference(shift: float) -> float:
        forest = RandomForestClassifier(20, min_samples_leaf=5, random_state=0)
        forest.fit(*pixels(task, "temperate", shift, range(12)))

        def score(region: str) -> float:
            image, mask = pixels(task, region, shift, range(12, 22))
            count = len(TASKS[task][1])
            return float(mean_iou(confusion(mask.astype(int), forest.predict(image), count, -1)))

        return float(np.mean([score(region) for region in REGIONS[1:]]) - score(REGIONS[0]))

    assert abs(difference(0.0)) <= 0.05  # 10 places leave a spread of about two points
    assert difference(1.0) <= -0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "floods"}, "Unknown task of sandbox 'floods'. Did you mean 'flood'"),
        ({"shift": 1.5}, "shift takes numbers from 0 to 1, got 1.5"),
        (
            {"chips": 11},
            "three places or more, must be a whole number from 12 to 1,000,000, got 11",
        ),
        ({"root": "here"}, "has no files"),
        ({"seed": -1}, "seed takes whole numbers"),
    ],
)
def test_bad_requests_say_what_would_work(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gp.load_data("sandbox", **arguments)
