"""Maps: where chips land, what the colours count, and what survives in a saved notebook."""

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from matplotlib.figure import Figure
from PIL import Image

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.evaluation.scene import Scene
from geopeft_nb.maps import figure, layers, scene as scene_module, shown as shown_module
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

    trained, task, bands, frames = None, "segmentation", BANDS, 1

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


def content(page: str) -> dict[str, Any]:
    """Return what a page shows."""
    found = re.search(r'<script id="content" type="application/json">(.*?)</script>', page)
    assert found
    return dict(json.loads(found[1]))


def codes(layer: dict[str, Any]) -> np.ndarray:
    """Return the codes (H, W) that a page is sent for a layer."""
    return decode(layer["source"])[..., 0]


def read(*chips: Chip) -> list[dict[str, Any]]:
    return list(ChipDataset(chips, COLOURS).spread(len(chips)))


def test_mosaic_places_every_chip_on_its_pixels() -> None:
    samples = read(chip(2, 3), chip(0, 1), chip(1, 1))
    joined = layers.mosaic_grid(samples)
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
    assert layers.mosaic_grid(read(chip(0, 0), other)) is None


def test_pixel_size_on_the_ground_is_in_metres_for_any_crs() -> None:
    metric = layers.Grid([], 10, 10, "EPSG:32618", (LEFT, TOP - 200, LEFT + 200, TOP))
    assert metric.metres == (20.0, 20.0)
    degrees = layers.Grid([], 2, 2, "EPSG:4326", (10.0, 59.999, 10.002, 60.001))
    assert degrees.metres == pytest.approx((55.66, 111.32), rel=1e-3)


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


def test_scores_are_those_of_the_test_chips_whatever_is_predicted_around_them() -> None:
    class Parrot(Predicts):
        """Knows the chips of training by heart, and nothing else."""

        def predict(self, samples: list[dict[str, Any]]) -> list[np.ndarray]:
            known = {chip.name for part in (data.train, data.val) for chip in part.chips}
            masks = [np.maximum(sample["mask"].numpy(), 0) for sample in samples]
            pairs = zip(samples, masks, strict=True)
            return [mask if sample["name"] in known else 1 - mask for sample, mask in pairs]

    data = make_data()
    table = gp.map_regions(Parrot(), data).scores.set_index("region")
    assert table["wrong"].to_dict() == {"coast": 1.0, "lakes": 1.0}
    assert table["role"].to_dict() == {"coast": "home", "lakes": "away"}

    run = Predicts()
    samples = read(*data.holdout["lakes"].chips)
    counts = confusion(
        np.stack([sample["mask"].numpy() for sample in samples]), np.stack(run.predict(samples)),
        2, -1,
    )  # fmt: skip
    row = gp.map_regions(run, data, regions=["lakes"]).scores.iloc[0]
    assert row["miou"] == pytest.approx(float(mean_iou(counts)))
    assert row["wrong"] == pytest.approx(1 - np.trace(counts) / counts.sum())


def test_the_whole_home_is_predicted_and_training_is_outlined() -> None:
    shown = gp.map_regions(Predicts(wrong=0), make_data(), regions=["coast"])
    (view,) = shown.views
    label, prediction, wrong = view.layers
    assert label.codes.shape == (3 * SIDE, 4 * SIDE) and view.picture is not None
    assert view.picture[..., 3].all() and (prediction.codes != layers.GAP).all()
    known = label.codes < 2
    assert np.array_equal(label.codes[known], prediction.codes[known])
    assert not (wrong.codes == layers.MISSED).any()
    # of twelve chips in three rows the first nine are training and validation
    expected = np.ones((3, 4), bool)
    expected[2, 1:] = False
    assert np.array_equal(view.trained, np.kron(expected, np.ones((SIDE, SIDE), bool)))
    assert layers.TRAINED in shown.legend
    for x, y, words in view.signs:
        assert view.trained[int(y), int(x)] == (words == "training")
    (line,) = content(shown.page)["views"][0]["outline"]
    assert np.ptp(line, axis=0).tolist() == [4 * SIDE, 3 * SIDE]
    assert layers.TRAINED not in gp.map_regions(Predicts(), make_data(), regions=["lakes"]).legend


def test_of_several_dates_the_last_is_shown_and_it_says_so() -> None:
    def dated(part: ChipDataset) -> ChipDataset:
        def early(one: Chip) -> Chip:
            def read() -> tuple[np.ndarray, np.ndarray]:
                image, mask = one.read()
                return np.stack([image[::-1], 1 - image, image], axis=1), mask

            return replace(one, read=read)

        return replace(part, chips=[early(one) for one in part.chips])

    data = make_data()
    sides = {side: dated(getattr(data, side)) for side in ("train", "val", "test")}
    away = {name: dated(part) for name, part in data.holdout.items()}
    model = Predicts()
    model.frames = 3
    three = replace(data, holdout=away, frames=3, **sides)
    notes = gp.data_card(three).facts.loc["notes"].item()
    assert "3 dates a chip; pictures show the last." in notes
    several = gp.map_regions(model, three).views
    for view, single in zip(several, gp.map_regions(Predicts(), data).views, strict=True):
        assert view.picture is not None and np.array_equal(view.picture, single.picture)
        assert view.caption == f"{single.caption}, the last of 3 dates"


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
    names = ["land", "water", "ice", "no label", "wrong class", layers.TRAINED]
    assert list(regions.legend) == names
    assert regions.scores["wrong"].between(0.1, 0.3).all()


def test_a_saved_notebook_keeps_the_figure_with_words_and_a_live_one_has_maps_below_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda value, **_: shown.append(value))
    gp.map_regions(Predicts(), make_data())._ipython_display_()
    bundle, below = shown
    assert below.value.startswith("<iframe ") and "&lt;canvas" not in below.value
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    alt = re.search(r'<img alt="([^"]+)"', bundle["text/html"])
    assert alt is not None and "Test &lt;chips&gt;" in alt[1]
    for said in ("coast (home: ", "lakes (away: ", "lora: mIoU 0.", "% wrong"):
        assert said in bundle["text/plain"]


def test_the_page_holds_every_pixel_and_what_it_means() -> None:
    shown = gp.map_regions([Predicts("full"), Predicts("lora")], make_data())
    page = content(shown.page)
    assert page["sides"] == ["Prediction: full 1", "Prediction: lora 2"]
    assert page["names"] == [layer.name for layer in shown.views[0].layers]
    for sent, view in zip(page["views"], shown.views, strict=True):
        assert sent["picture"].startswith("data:image/webp")
        assert sent["size"] == [view.grid.width, view.grid.height] and sent["pixel"] == [PIXEL] * 2
        for drawn, layer in zip(sent["layers"], view.layers, strict=True):
            assert np.array_equal(codes(drawn), layer.codes)
            assert set(np.unique(layer.codes)) <= {*range(len(drawn["words"])), layers.GAP}
            assert len(drawn["words"]) == len(drawn["colours"])
        left, bottom, right, top = view.grid.bounds
        corners = rasterio.warp.transform("EPSG:32618", "EPSG:4326", [left, right], [top, bottom])
        places = np.array(sent["places"])
        assert np.allclose(
            [places[0, 0], places[-1, -1]], np.transpose(corners)[:, ::-1], atol=1e-6
        )
    assert "https:" not in shown.page and "http:" not in shown.page


def test_a_large_map_is_drawn_smaller_until_its_page_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = gp.map_regions(Predicts(), make_data())
    whole = codes(content(shown.page)["views"][0]["layers"][0])
    monkeypatch.setattr(shown_module, "MOST", len(shown.page) - 1)
    fitted = content(gp.map_regions(Predicts(), make_data()).page)["views"][0]
    assert np.array_equal(codes(fitted["layers"][0]), whole[::2, ::2])
    assert fitted["size"] == [*whole.shape[::-1]]


def test_chips_without_coordinates_get_a_plain_map() -> None:
    many = [chip(0, column, "lakes", None) for column in range(AT_MOST + 1)]
    regions = gp.map_regions(Predicts(), make_data(crs=None, away=many))
    for view, note in zip(regions.views, ["3 of 3 test", "12 of 13 hold-out"], strict=True):
        assert f"scores of {note} chips side by side" in view.heading
    sent = content(regions.page)["views"][1]
    height, width = regions.views[1].layers[0].codes.shape
    assert sent["size"] == [width, height] and sent["places"] is None
    assert len(regions.figure.axes) == 2 * 4, "no world map where nothing is known of the place"


def test_shipped_outlines_surround_the_shipped_scenes() -> None:
    axes = Figure().add_subplot()
    figure.draw_land(axes)
    points = np.concatenate(figure.land_lines())
    assert len(axes.collections[0].get_segments()) == len(figure.land_lines())
    near_virginia = np.hypot(points[:, 0] + 75.6, points[:, 1] - 37.6) < 0.5
    assert near_virginia.any() and np.abs(points[:, 0]).max() <= 180


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run_or_runs": []}, "at least one run of fit"),
        ({"run_or_runs": ["lora"]}, "takes RunOrModel.* got .*lora"),
        ({"data": "scenes"}, "data takes GeoData, got 'scenes'"),
        ({"regions": "lakes"}, r"regions takes lists of texts, got 'lakes'"),
        ({"run_or_runs": "lora"}, "takes RunOrModel.* got .*lora"),
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
    run.bands = bands
    regions = gp.map_regions(run, make_data(bands=bands))
    assert {view.caption for view in regions.views} == {"band NIR_NARROW"}
    pictures = [view.picture for view in regions.views if view.picture is not None]
    assert pictures and all((x[..., :3] == x[..., :1]).all() for x in pictures)


@pytest.fixture
def mapped(tmp_path: Path) -> Callable[..., Scene]:
    """Write the files of a mapped scene of 60 x 90 pixels, a block of them without data."""

    def write(name: str = "fields", crs: str | None = "EPSG:32618", zoom: int = 1) -> Scene:
        noise, shape = np.random.default_rng(len(name)), (60 * zoom, 90 * zoom)
        stored = [noise.integers(0, high, shape, np.uint8) for high in (3, 200, 180)]
        paths = [tmp_path / f"{name}{end}.tif" for end in ("", "_probability", "_applicability")]
        for path, band, scale in zip(paths, stored, (1, 1 / 200, 1 / 100), strict=True):
            band[:20, :20] = 255
            place = rasterio.transform.from_origin(LEFT, TOP, PIXEL, PIXEL)
            kind = {"count": 1, "dtype": "uint8", "nodata": 255, "crs": crs, "transform": place}
            height, width = band.shape
            with rasterio.open(path, "w", "GTiff", width, height, **kind) as file:
                file.write(band, 1)
                file.scales = (scale,)
        classes, colours = ("soil", "<b>crop</b>", "water"), (*COLOURS[:2], "#117733")
        return Scene(*paths, classes, colours, notes=("Calibrated.",))

    return write


def test_a_scene_shows_class_probability_and_where_not_to_believe_it(
    mapped: Callable[..., Scene],
) -> None:
    scene = mapped()
    shown = gp.map_scene(scene)
    (view,) = shown.views
    classes, sure, far = view.layers
    with rasterio.open(scene.path) as file:
        assert np.array_equal(classes.codes, file.read(1))
        assert view.grid.bounds == tuple(file.bounds)
    assert [*classes.words] == ["soil", "<b>crop</b>", "water"] and classes.colours == scene.colours
    assert (sure.words[100], far.words[90]) == ("0.50", "0.90")
    assert far.words[130] == "1.30 (outside what training saw)"
    outside = (far.codes > 100) & (far.codes < 255)
    assert classes.striped is not None and np.array_equal(classes.striped, outside)
    painted = classes.painted()
    grey = (painted[..., :3] == 0x9A).all(axis=-1)
    assert 0.4 < grey[outside].mean() < 0.6 and not grey[~outside].any()
    assert not painted[:20, :20, 3].any() and painted[20:, :, 3].all()
    # each step of colour ends where its words say
    ends = {words: [sure.colours[code] for code in (99, 101)] for words in sure.legend}
    assert ends["probability below 50 %"] == [*sure.legend.values()][:2]
    assert "Calibrated." in repr(shown) and shown.sides == ("Class", "Distance from training")


def test_two_methods_are_swiped_and_other_ground_is_refused(mapped: Callable[..., Scene]) -> None:
    one, other = mapped(), mapped("the same fields")
    shown = gp.map_scene({"LoRA": one, "full": other})
    assert shown.sides == ("Class: LoRA", "Class: full")
    assert len(shown.views[0].layers) == 6 and len(shown.figure.axes) == 7
    assert gp.map_scene([one, one]).sides == ("Class: fields 1", "Class: fields 2")
    bare = replace(other, probability=None, applicability=None)
    assert [layer.name for layer in gp.map_scene(bare).views[0].layers] == ["Class"]
    for wrong in (mapped("larger", zoom=2), replace(one, classes=("soil", "rice", "water"))):
        with pytest.raises(gp.GeopeftError, match=r"other pixels or classes than .*fields\.tif"):
            gp.map_scene([one, wrong])
    with pytest.raises(gp.GeopeftError, match="at least one result of predict_scene"):
        gp.map_scene([])
    with pytest.raises(gp.GeopeftError, match=r"takes Scene.*lora"):
        gp.map_scene("lora")


def test_a_scene_lies_where_it_is_on_a_map_of_leafmap(mapped: Callable[..., Scene]) -> None:
    from rasterio.warp import transform_bounds

    scene = mapped()
    added = gp.map_scene({"<b>one": scene}).leafmap().layers[-3:]
    assert [layer.name.split(": ")[1][:11] for layer in added] == [
        "Class", "Probability", "Distance fr",
    ]  # fmt: skip
    assert not any("<" in layer.name for layer in added)
    with rasterio.open(scene.path) as file:
        west, south, east, north = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    for layer in added:
        # to a pixel of the thinned picture
        assert np.allclose(layer.bounds, ((south, west), (north, east)), atol=2e-4)


def test_a_scene_becomes_one_file_that_needs_nothing_else(
    mapped: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = gp.map_scene(mapped(), out=tmp_path / "maps" / "map.html")
    page = (tmp_path / "maps" / "map.html").read_text(encoding="utf-8")
    assert page == shown.page and "default-src 'none'" in page and "<b>crop" not in page
    assert shown.save(tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(gp.GeopeftError, match=r"neither \.png nor \.html"):
        shown.save(tmp_path / "map.pdf")
    # a scene that is too large for a page is thinned out, on the same ground
    monkeypatch.setattr(scene_module, "SIDE", 45)
    (thin,) = gp.map_scene(mapped()).views
    assert thin.layers[0].codes.shape == (30, 45) and "one of 2 × 2" in thin.heading
    assert thin.grid.bounds == shown.views[0].grid.bounds
    nowhere = gp.map_scene(mapped("nowhere", crs=None))
    assert content(nowhere.page)["views"][0]["pixel"] is None


def test_a_scene_of_numbers_is_refused(mapped: Callable[..., Scene]) -> None:
    scene = mapped()
    with rasterio.open(scene.path, "w", "GTiff", 3, 2, 1, dtype="float32") as file:
        file.write(np.ones((1, 2, 3), np.float32))
    with pytest.raises(gp.GeopeftError, match="has numbers"):
        gp.map_scene(scene)
