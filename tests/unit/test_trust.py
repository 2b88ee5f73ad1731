"""What a score is worth: no ground that was seen, pixels of training's scale, and words for it."""

import datetime
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset, Reading
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.evaluation.regions import Report
from geopeft_nb.evaluation.trust import class_notes
from geopeft_nb.tasks import TASKS
from geopeft_nb.training.run import Run

UTM, DAY = "EPSG:32618", datetime.date(2020, 5, 1)
SIDE = 16


def chip(
    side: str, index: int, row: int, crs: str | None = UTM, region: str = "virginia",
    label: Callable[[np.ndarray], np.ndarray] = lambda mask: mask,
) -> Chip:  # fmt: skip
    """Make a chip on a square of 160 m of its own; its water is dark."""
    rng = np.random.default_rng([row, index])
    mask = np.zeros((SIDE, SIDE), np.int64)
    mask[:, : int(rng.integers(4, 13))] = 1
    image = (rng.normal(0.2, 0.02, (6, SIDE, SIDE)) - 0.15 * mask).astype(np.float32)
    left, bottom = 400_000 + 160 * index, 4_100_000 + 160 * row
    bounds = (left, bottom, left + 160.0, bottom + 160.0) if crs else None
    return Chip(
        f"{side}-{index}", region, f"{side}{index}", lambda: (image, label(mask)), crs, bounds, DAY
    )


def part(side: str, row: int, count: int = 8, **options: object) -> ChipDataset:
    chips = [chip(side, index, row, **options) for index in range(count)]  # type: ignore[arg-type]
    return ChipDataset(chips, CARD.classes)


def make(**options: object) -> GeoData:
    sides = (part(side, row, **options) for row, side in enumerate(("train", "val", "test")))
    away = {"brandenburg": part("away", 3, region="brandenburg", **options)}
    return GeoData(*sides, away, CARD, CARD.bands, ("virginia",), SIDE)


def train(data: GeoData, **options: object) -> Run:
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "linear_probe")
    return gp.fit(model, data, epochs=1, batch_size=4, dashboard=False, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> GeoData:
    return make()


@pytest.fixture(scope="module")
def run(data: GeoData) -> Run:
    return train(data)


def shifted(chip: Chip, metres: float) -> Chip:
    left, bottom, right, top = chip.bounds or (0, 0, 0, 0)
    return replace(chip, bounds=(left + metres, bottom, right + metres, top))


def larger(chip: Chip) -> Chip:
    left, bottom, right, top = chip.bounds or (0, 0, 0, 0)
    return replace(chip, bounds=(left, bottom - 5_000, right + 5_000, top))


def reprojected(chip: Chip) -> Chip:
    bounds = transform_bounds(chip.crs, "EPSG:32617", *(chip.bounds or ()))
    return replace(chip, crs="EPSG:32617", bounds=bounds)


def in_its_file(chip: Chip) -> Chip:
    image, mask = chip.read()[:2]
    reading = Reading(image, mask, chip.crs, chip.bounds, date=chip.date)
    return replace(chip, crs=None, bounds=None, date=None, read=lambda: reading)


COPIES: dict[str, Callable[[Chip], Chip]] = {
    "itself": lambda chip: chip,
    "shifted": lambda chip: shifted(chip, 100),
    "larger": larger,
    "reprojected": reprojected,
    "in degrees": lambda chip: replace(
        chip, crs="EPSG:4326", bounds=transform_bounds(UTM, "EPSG:4326", *(chip.bounds or ()))
    ),
    "in its file": in_its_file,
    "of no date": lambda chip: replace(chip, date=None),
    "in words": lambda chip: replace(chip, crs=CRS.from_string(UTM).to_wkt()),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("side", ["train", "val"])
@pytest.mark.parametrize(("where", "judge"), [
    ("home", gp.evaluate), ("away", gp.map_regions), ("other data", gp.map_regions),
    ("other size", gp.evaluate),
])  # fmt: skip
def test_ground_that_was_seen_is_not_judged_under_another_name(
    data: GeoData, run: Run, copy: Callable[[Chip], Chip], side: str, where: str, judge: Callable
) -> None:
    seen = getattr(data, side).chips[3]
    region = "brandenburg" if where == "away" else "virginia"
    again = copy(replace(seen, name="anything", region=region))
    chips = [*(data.holdout[region] if where == "away" else data.test).chips[:2], again]
    leaky = ChipDataset(chips, CARD.classes)
    if where == "away":
        data = replace(data, holdout={region: leaky})
    else:
        card = replace(CARD, name="own") if where == "other data" else CARD
        data = replace(data, test=leaky, card=card, size=32 if where == "other size" else SIDE)
    with pytest.raises(ValueError, match=r"1 of these chips, 'anything' among.*'(train|val)-\d'"):
        judge(run, data)


@pytest.mark.parametrize("other", [
    lambda data: data,
    lambda data: replace(data, test=part("train", 7)),  # names say nothing where ground does
    lambda data: replace(data, size=32),
    # what reaches into the ground of another by less than a tenth is padding
    lambda data: replace(
        data, test=ChipDataset([shifted(data.val.chips[7], 150)], CARD.classes)
    ),
])  # fmt: skip
def test_other_ground_is_judged_without_a_word(
    data: GeoData, run: Run, other: Callable[[GeoData], GeoData]
) -> None:
    assert gp.evaluate(run, other(data)).notes == ()


def test_the_same_ground_on_another_day_is_judged_with_a_word(data: GeoData, run: Run) -> None:
    later = [replace(chip, name=f"later {chip.name}", date=DAY.replace(year=2021))
             for chip in data.train.chips]  # fmt: skip
    report = gp.evaluate(run, replace(data, test=ChipDataset(later, CARD.classes)))
    said = "8 chips lie on ground of training, on another day or as published."
    assert report.notes == (said,)
    assert report.notes[0] in repr(report) and report.notes[0] in report._repr_html_()


def test_ground_that_is_shared_as_published_is_said(data: GeoData) -> None:
    shared = ChipDataset([shifted(chip, 50) for chip in part("test", 0).chips], CARD.classes)
    data = replace(data, test=shared, card=replace(CARD, claims=("holdout",)))
    report = gp.evaluate(train(data), data)
    assert report.notes[0].startswith("8 chips lie on ground of training")


@pytest.mark.parametrize("side", ["train", "val"])
def test_without_ground_names_are_compared_and_it_is_said(side: str) -> None:
    data = make(crs=None)
    run = train(data)
    assert "overlap could not be checked" in gp.evaluate(run, data).notes[0]
    with pytest.raises(ValueError, match=f"8 of these chips, '{side}-0' among them"):
        gp.evaluate(run, replace(data, test=getattr(data, side)))
    with pytest.raises(ValueError, match=r"chips of 32 px may lie on the same ground.*size=16"):
        gp.evaluate(run, replace(data, size=32))


SCALES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "10,000 times": lambda x: x * 1e4,
    "a 10,000th": lambda x: x / 1e4,
    "bytes": lambda x: x * 255,
    "percent": lambda x: x * 100,
    "nothing": lambda x: x * 0,
    "decibels": lambda x: 10 * np.log10(np.maximum(x, 1e-6)),
    "kelvin": lambda x: x + 273,
    "one band": lambda x: np.concatenate([x[:1] * 1e4, x[1:]]),
    "beyond": lambda x: x + 1e30,
}


@pytest.mark.parametrize(("region", "judge"), [
    ("virginia", gp.evaluate), ("brandenburg", gp.map_regions),
])  # fmt: skip
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_pixels_of_another_scale_are_not_judged(
    data: GeoData, run: Run, scale: Callable[[np.ndarray], np.ndarray], region: str, judge: Callable
) -> None:
    def scaled(chip: Chip) -> Chip:
        image, mask = chip.read()[:2]
        return replace(chip, read=lambda: (scale(image).astype(np.float32), mask))

    side = data.test if region == "virginia" else data.holdout[region]
    other = ChipDataset([scaled(chip) for chip in side.chips], CARD.classes)
    data = (
        replace(data, test=other) if side is data.test else replace(data, holdout={region: other})
    )
    with pytest.raises(ValueError, match=f"pixels of '{region}' are of another scale") as caught:
        judge(run, data)
    assert f"mean in training       std  mean in {region}" in str(caught.value)


@pytest.mark.parametrize("home", ["virginia", "brandenburg"])
def test_no_region_of_the_scenes_is_of_another_scale(home: str) -> None:
    data = gp.load_data("scenes", train_regions=[home])
    assert gp.evaluate(train(data), data).notes == ()


@pytest.mark.parametrize("climate", ["temperate", "desert", "boreal", "savanna"])
def test_no_climate_is_of_another_scale(climate: str) -> None:
    data = gp.load_data("sandbox", chips=24, size=32, train_regions=[climate])
    assert len(gp.evaluate(train(data), data).table) == 6


@pytest.mark.parametrize("task", ["segmentation", "classification", "multilabel"])
def test_a_class_that_no_training_chip_shows_is_said(task: str) -> None:
    def target(mask: np.ndarray) -> np.ndarray:
        one = {
            "segmentation": 0 * mask,
            "classification": np.array(0),
            "multilabel": np.array([1, 0]),
        }
        return one[task]

    data, card = make(label=target), replace(CARD, task=task)
    sides = {side: replace(getattr(data, side), task=task) for side in ("train", "val", "test")}
    data = replace(data, **sides, holdout={}, card=card)
    decoder = "linear" if task == "segmentation" else "classify"
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder)
    run = gp.fit(gp.attach(model, "linear_probe"), data, epochs=1, batch_size=4, dashboard=False)
    said = "No training chip shows water: nothing was learnt of it."
    assert run.model.trained.absent == ("water",) and "in no training chip: water" in repr(run)
    report = gp.evaluate(run, data)
    assert report.notes[0] == said and report.notes[1].startswith(
        "No label of virginia shows water"
    )


@pytest.mark.parametrize(("counts", "said"), [
    ([[9_000, 0, 45], [0, 900, 0], [0, 0, 0]], [
        "No label of here shows c (predicted all the same, 0 in the mean).",
        "c: less than 0.1% of the labels of here. Without, mIoU is 0.998 instead of 0.665.",
    ]),
    ([[9_000, 0, 0], [0, 900, 0], [0, 0, 0]], ["No label of here shows c (left out of the mean)."]),
    ([[9_000, 0, 0], [0, 900, 0], [5, 0, 1]], [
        "c: less than 0.1% of the labels of here. Without, mIoU is 1.000 instead of 0.722.",
    ]),
    ([[9_000, 5, 0], [0, 900, 0], [0, 10, 800]], []),
])  # fmt: skip
def test_the_report_says_what_rare_and_absent_classes_do_to_the_mean(
    counts: list[list[int]], said: list[str]
) -> None:
    assert [*class_notes("here", TASKS["segmentation"], np.array(counts), [*"abc"])] == said


def test_notes_are_escaped(data: GeoData, run: Run) -> None:
    report = replace(gp.evaluate(run, data), notes=("No label of <script> shows <b>.",))
    assert "<script>" not in report._repr_html_() and "&lt;script&gt;" in report._repr_html_()


@pytest.mark.parametrize("method", ["linear_probe", "full"])
def test_a_comparison_of_seeds_says_what_it_does_not_cover(data: GeoData, method: str) -> None:
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), method)
    other = gp.fit(model, data, epochs=1, batch_size=4, dashboard=False, seed=7)
    reports: list[Report] = [gp.evaluate(each, data) for each in (train(data), other)]
    assert "trained with seed 7" in repr(reports[1]) and "seed 7" in reports[1]._repr_html_()
    table = reports[0].compare(reports[1]).round(3)
    for shown in (repr(table), table._repr_html_()):
        assert "interval over places, not seeds 0 and 7" in shown
    assert "not training anew" in table.attrs["note"]
    alike = reports[0].compare(reports[0])
    assert "seeds" not in repr(alike) and "not training anew" in alike.attrs["note"]
