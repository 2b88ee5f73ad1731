"""Maps: where chips land, what the colours count, and what survives in a saved notebook."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.maps import figure, grid, layers
from geopeft_nb.maps.region import AT_MOST
from geopeft_nb.tasks import confusion, mean_iou

BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
COLOURS = ("#D9CFB8", "#0072B2", "#56B4E9")
SIDE, PIXEL, LEFT, TOP = 16, 20.0, 435_740.0, 4_179_460.0


def chip(
    row: int, column: int, region: str = "coast", crs: str | None = "EPSG:32618", classes: int = 2
) -> Chip:
    """Make a chip of noise at a row and column of a grid of chips."""

    def read() -> tuple[np.ndarray, np.ndarray]:
        noise = np.random.default_rng(100 * row + column)
        image = noise.random((len(BANDS), SIDE, SIDE), np.float32)
        return image, noise.integers(-1, classes, (SIDE, SIDE))

    west, north = LEFT + column * SIDE * PIXEL, TOP - row * SIDE * PIXEL
    bounds = (west, north - SIDE * PIXEL, west + SIDE * PIXEL, north)
    name = f"{region}-{row}-{column}"
    return Chip(name, region, name, read, crs, bounds if crs else None)


def make_data(
    crs: str | None = "EPSG:32618", classes: int = 2, away: list[Chip] | None = None,
    bands: tuple[str, ...] = BANDS,
) -> GeoData:  # fmt: skip
    """Make data: coast is home, with training chips around test chips, and lakes are away."""
    home = [chip(row, column, "coast", crs, classes) for row in range(3) for column in range(4)]
    lakes = [chip(row, column, "lakes", crs, classes) for row in range(2) for column in range(3)]
    named = {"classes": ("land", "water", "ice")[:classes], "colours": COLOURS[:classes]}
    card = replace(CARD, title="Test <chips>", **named)
    sides = {"train": home[:6], "val": home[6:9], "test": home[9:]}
    holdout = {"lakes": lakes if away is None else away}
    return GeoData.of(sides, holdout, card, bands, ("coast",), SIDE)


class Predicts:
    """A model that predicts the label, with a share of the pixels replaced by the next class."""

    trained, task, bands = None, "segmentation", BANDS

    def __init__(self, method: str = "lora", wrong: float = 0.2, classes: int = 2) -> None:
        self.method, self.wrong, self.count = method, wrong, classes
        self.classes = ("land", "water", "ice")[:classes]

    def predict(self, samples: list[dict[str, Any]]) -> list[np.ndarray]:
        noise = np.random.default_rng(7)
        masks = [np.maximum(sample["mask"].numpy(), 0) for sample in samples]
        return [
            np.where(noise.random(mask.shape) < self.wrong, (mask + 1) % self.count, mask)
            for mask in masks
        ]


def decode(address: str) -> np.ndarray:
    """Return the RGBA pixels (H, W, 4) of a data address."""
    content = base64.b64decode(address.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def overlays(box: object) -> list[Any]:
    """Return the leaflet maps inside a widget box."""
    if type(box).__name__ == "Map":
        return [box]
    return [found for child in getattr(box, "children", ()) for found in overlays(child)]


def read(*chips: Chip) -> list[dict[str, Any]]:
    return list(ChipDataset(chips, COLOURS).spread(len(chips)))


def test_mosaic_places_every_chip_on_its_pixels() -> None:
    samples = read(chip(2, 3), chip(0, 1), chip(1, 1))
    joined = grid.mosaic_grid(samples)
    assert joined is not None
    assert (joined.height, joined.width) == (3 * SIDE, 3 * SIDE)
    assert joined.bounds == (LEFT + 320, TOP - 960, LEFT + 1280, TOP)
    masks = [sample["mask"].numpy() for sample in samples]
    raster = joined.paste(masks, -9, int)
    assert np.array_equal(raster[2 * SIDE :, 2 * SIDE :], masks[0])
    assert np.array_equal(raster[: 2 * SIDE, :SIDE], np.concatenate(masks[1:]))
    assert (raster == -9).sum() == 6 * SIDE * SIDE


@pytest.mark.parametrize(
    "other",
    [
        replace(chip(0, 1), bounds=tuple(edge + 0.4 * PIXEL for edge in chip(0, 1).bounds or ())),
        chip(0, 1, crs="EPSG:32619"),
        chip(0, 1, crs=None),
        chip(90, 90),
    ],
    ids=["shifted by parts of a pixel", "other zone", "no coordinates", "specks in an empty map"],
)
def test_chips_off_a_common_grid_are_not_joined(other: Chip) -> None:
    assert grid.mosaic_grid(read(chip(0, 0), other)) is None


def test_pixel_size_on_the_ground_is_in_metres_for_any_crs() -> None:
    metric = grid.Grid([[0, 0]], 10, 10, "EPSG:32618", (LEFT, TOP), (PIXEL, PIXEL))
    assert metric.metres == (20.0, 20.0)
    degrees = grid.Grid([[0, 0]], 2, 2, "EPSG:4326", (10.0, 60.001), (0.001, 0.001))
    assert degrees.metres == pytest.approx((55.66, 111.32), rel=1e-3)


def test_warped_layer_covers_the_scene() -> None:
    from rasterio.warp import transform_bounds

    joined = grid.mosaic_grid(read(*(chip(row, column) for row in range(3) for column in range(4))))
    assert joined is not None
    codes = np.random.default_rng(0).integers(0, 2, (joined.height, joined.width), np.uint8)
    warped, ((south, west), (north, east)) = layers.warp(layers.paint(codes, COLOURS), joined)
    expected = transform_bounds("EPSG:32618", "EPSG:4326", *joined.bounds, densify_pts=21)
    pixel = (east - west) / warped.shape[1]
    # Web mercator's pixels are whole, so an edge may lie up to one pixel outside.
    assert np.array([west, south, east, north]) == pytest.approx(expected, abs=1.01 * pixel)
    shown = {bytes(colour).hex() for colour in np.unique(warped.reshape(-1, 4), axis=0)}
    assert shown == {"00000000", *(f"{c[1:].lower()}ff" for c in COLOURS[:2])}, "no new colours"
    assert (warped[..., 3] == 255).mean() > 0.9


@pytest.mark.parametrize("classes", [2, 3])
def test_difference_layer_counts_what_numpy_counts(classes: int) -> None:
    noise = np.random.default_rng(0)
    label = noise.choice([*range(classes + 1), layers.GAP], (40, 50)).astype(np.uint8)
    prediction = noise.integers(0, classes, (40, 50)).astype(np.uint8)
    codes = layers.difference(label, prediction, classes)
    scored = label < classes
    wrong = scored & (label != prediction)
    alarms = wrong & (label == 0) & (prediction == 1) & (classes == 2)
    counts = np.bincount(codes.ravel(), minlength=256)
    assert counts[layers.FALSE_ALARM] == alarms.sum()
    assert counts[layers.MISSED] == wrong.sum() - alarms.sum()
    assert counts[layers.CORRECT] == (scored & ~wrong).sum()
    assert counts[layers.UNLABELLED] == (label == classes).sum()
    assert counts[layers.GAP] == (label == layers.GAP).sum()


def test_scores_are_those_of_the_shown_test_chips() -> None:
    data, run = make_data(), Predicts()
    table = gp.map_regions(run, data).scores.set_index("region")
    for region, part in (("coast", data.test), ("lakes", data.holdout["lakes"])):
        samples = read(*part.chips)
        label = np.stack([sample["mask"].numpy() for sample in samples])
        counts = confusion(label, np.stack(run.predict(samples)), 2, -1)
        assert table.loc[region, "miou"] == pytest.approx(float(mean_iou(counts)))
        assert table.loc[region, "wrong"] == pytest.approx(1 - np.trace(counts) / counts.sum())
    assert table["role"].to_dict() == {"coast": "home", "lakes": "away"}


def test_home_shows_the_chips_around_but_scores_only_test_chips() -> None:
    view = gp.map_regions(Predicts(), make_data(), regions=["coast"]).views[0]
    assert (view.label != layers.GAP).sum() == 3 * SIDE * SIDE
    assert view.picture[..., 3].all() and view.label.shape == (3 * SIDE, 4 * SIDE)


def test_figure_names_regions_scores_and_every_class() -> None:
    regions = gp.map_regions({"A": Predicts(), "B": Predicts(wrong=0.4)}, make_data())
    texts = [
        text.get_text() for text in regions.figure.findobj(match=lambda a: hasattr(a, "get_text"))
    ]
    miou = regions.scores.set_index(["region", "run"])["miou"]
    for wanted in (*regions.legend, "Label", f"Prediction, B: mIoU {miou['lakes', 'B']:.2f}"):
        assert wanted in texts
    for start in ("coast (home", "lakes (away", "missed: label water", "false alarm: label land"):
        assert any(text.startswith(start) for text in texts)
    assert any(text.endswith("N ↑") for text in texts), "scale bar and north"
    panels = [axes for axes in regions.figure.axes if axes.images]
    assert len(panels) == 2 * 6  # image, label, two predictions and two differences per region


def test_three_classes_have_one_kind_of_error() -> None:
    regions = gp.map_regions(Predicts(classes=3), make_data(classes=3))
    assert list(regions.legend) == ["land", "water", "ice", "wrong class", "no label"]
    assert regions.scores["wrong"].between(0.1, 0.3).all()


def test_a_saved_notebook_keeps_the_figure_with_words_and_a_live_one_has_maps_below_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda value, **_: shown.append(value))
    gp.map_regions(Predicts(), make_data())._ipython_display_()
    bundle, below = shown
    assert len(overlays(below)) == 2
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    alt = re.search(r'<img alt="([^"]+)"', bundle["text/html"])
    assert alt is not None and "Test &lt;chips&gt;" in alt[1]
    for said in ("coast (home)", "lakes (away)", "lora: mIoU 0.", "% wrong"):
        assert said in bundle["text/plain"]


def test_swipe_sides_have_their_own_panes_over_the_same_ground() -> None:
    maps = overlays(gp.map_regions([Predicts("full"), Predicts("lora")], make_data()).widget)
    assert len(maps) == 2
    for world in maps:
        split = next(c for c in world.controls if type(c).__name__ == "SplitMapControl")
        left, right = split.left_layer, split.right_layer
        assert (left.pane, right.pane) == ("left", "right")
        assert {"left", "right", "image", "land"} <= set(world.panes)
        image = next(layer for layer in world.layers if layer.pane == "image")
        assert left.bounds == right.bounds == image.bounds
        (south, west), (north, east) = image.bounds
        assert south < world.center[0] < north and west < world.center[1] < east
        assert not any(type(layer).__name__ == "TileLayer" for layer in world.layers), "no internet"
        assert not decode(left.url)[..., 3].any(), "the left side starts as the bare image"


def test_choosing_a_layer_changes_the_side_on_every_map() -> None:
    regions = gp.map_regions([Predicts(), Predicts(wrong=0.4)], make_data())
    left, right, opacity = regions.widget.children[0].children
    assert right.value == "Prediction: lora 2" and "Difference: lora 1" in left.options
    left.value = "Label"
    for world, view in zip(overlays(regions.widget), regions.views, strict=True):
        split = next(c for c in world.controls if type(c).__name__ == "SplitMapControl")
        painted = layers.paint(view.label, (*regions.data.colours, "#9A9A9A"))
        assert np.array_equal(decode(split.left_layer.url), layers.warp(painted, view.grid)[0])
        assert split.left_layer.opacity == opacity.value


def test_chips_without_coordinates_get_a_plain_map() -> None:
    many = [chip(0, column, "lakes", None) for column in range(AT_MOST + 1)]
    regions = gp.map_regions(Predicts(), make_data(crs=None, away=many))
    notes = ["3 of 3 test chips", "12 of 13 hold-out chips"]
    assert [view.chips for view in regions.views] == notes
    world = overlays(regions.widget)[1]
    assert world.crs["name"] == "Simple"
    (image,) = world.layers
    assert image.bounds == [(0, 0), regions.views[1].label.shape]
    assert len(regions.figure.axes) == 2 * 4, "no world map where nothing is known of the place"


def test_shipped_outlines_surround_the_shipped_scenes() -> None:
    axes = Figure().add_subplot()
    figure.draw_land(axes)
    points = np.concatenate(axes.collections[0].get_segments())
    near_virginia = np.hypot(points[:, 0] + 75.6, points[:, 1] - 37.6) < 0.5
    assert near_virginia.any() and np.abs(points[:, 0]).max() <= 180


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_or_runs": []}, "at least one run of fit"),
        ({"run_or_runs": ["lora"]}, "takes runs of fit or models.* got .*lora"),
        ({"data": "scenes"}, "data takes data that load_data returned, got 'scenes'"),
        ({"regions": "lakes"}, r"regions takes lists of texts, got 'lakes'"),
        ({"run_or_runs": "lora"}, "takes runs of fit or models.* got .*lora"),
        ({"run_or_runs": Predicts(classes=3)}, "built for the classes .*'ice'"),
        ({"regions": ["lake"]}, "Did you mean 'lakes'"),
        ({"data": replace(make_data(), regions=("coast", "cliffs"))}, "'cliffs' has no chips"),
        ({"data": make_data(bands=BANDS[:2])}, "built for the bands"),
    ],
)
def test_bad_input_is_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gp.map_regions(**{"run_or_runs": Predicts(), "data": make_data(), **arguments})


def test_without_true_colour_one_band_is_shown() -> None:
    run, bands = Predicts(), ("NIR_NARROW", "SWIR_1", "SWIR_2", "BLUE", "GREEN", "COASTAL_AEROSOL")
    run.model.bands = bands
    regions = gp.map_regions(run, make_data(bands=bands))
    assert {view.bands for view in regions.views} == {"band NIR_NARROW"}
    assert all((view.picture[..., :3] == view.picture[..., :1]).all() for view in regions.views)
