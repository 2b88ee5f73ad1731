"""A whole scene is mapped: on its own grid, with its own gaps, whatever its size."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.evaluation import unfinished
from geopeft_nb.evaluation.strips import Network, blended
from geopeft_nb.evaluation.windows import Axis
from geopeft_nb.models import SegmentationModel
from geopeft_nb.writing import held

STATED = {"scale": 10_000, "offset": 0, "nodata": 0}


def write(path: Path, pixels: np.ndarray, **options: object) -> Path:
    profile = {
        "driver": "GTiff", "dtype": pixels.dtype, "count": len(pixels), "crs": "EPSG:32633",
        "height": pixels.shape[1], "width": pixels.shape[2],
        "transform": rasterio.Affine(20, 0, 400_000, 0, -20, 5_800_000),
    }  # fmt: skip
    with rasterio.open(path, "w", **(profile | options)) as raster:
        raster.write(pixels)
        if len(pixels) == 6:
            raster.descriptions = HLS_BANDS
    return path


def draw(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw ground in patches of 4 px, with a gap of 5 rows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(300, 4_000, (6, height // 4 + 1, width // 4 + 1))
    pixels = coarse.repeat(4, 1).repeat(4, 2)[:, :height, :width].astype(np.uint16)
    pixels[:, 7 % height : 12] = 0
    return pixels


def read(path: Path | None) -> np.ndarray:
    assert path is not None
    with rasterio.open(path) as raster:
        return raster.read() * np.float32(raster.scales[0])


@pytest.fixture(scope="module")
def data() -> GeoData:
    data = gp.load_data("sandbox", size=32)
    sides = {x: replace(part, chips=part.chips[::6]) for x, part in data.parts.items()}
    return replace(data, train=sides["train"], val=sides["val"])


def pointwise(data: GeoData) -> SegmentationModel:
    """Make a model whose scores depend on a pixel alone, and by which no rounding can differ."""
    model = gp.build_model(gp.load_backbone("geopeft_tiny", weights=None), data)
    weights = torch.linspace(-3, 3, len(model.classes) * 6).reshape(len(model.classes), 6, 1, 1)

    def forward(image: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        return torch.stack([sum(image[:, b] * w[b] for b in range(6)) for w in weights], dim=1)

    model.forward = forward  # type: ignore[method-assign]
    return model


@pytest.fixture
def point(data: GeoData) -> SegmentationModel:
    return pointwise(data)


@pytest.fixture(scope="module")
def trained(data: GeoData) -> SegmentationModel:
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data)
    return gp.fit(gp.attach(model, "linear_probe"), data, epochs=1, dashboard=False).model


def expected(model: SegmentationModel, pixels: np.ndarray) -> np.ndarray:
    """Return what a pointwise model says of a scene at once."""
    image = torch.from_numpy(pixels.astype(np.float32) / np.float32(10_000))[None]
    there = pixels.any(axis=0)
    return np.where(there, model(image)[0].argmax(0).numpy(), 255)


SIZES = np.random.default_rng(1).integers(1, 90, (200, 2)).tolist()


def test_a_pointwise_model_says_the_same_for_200_sizes_and_crops(data: GeoData) -> None:
    network, rng = Network(pointwise(data), far=False), np.random.default_rng(2)
    for height, width in SIZES:
        crop = int(rng.integers(4, 60))
        overlap = int(rng.integers(0, crop // 2 + 1))
        scene = torch.rand(6, height, width, generator=torch.Generator().manual_seed(crop))
        down, across = Axis(height, crop, overlap), Axis(width, crop, overlap)

        def crops(
            top: int, d: Axis = down, a: Axis = across, s: torch.Tensor = scene
        ) -> Iterator[tuple]:
            rows, above = d.inside(top, top + d.crop)
            for start in a.starts:
                columns, beside = a.inside(start, start + a.crop)
                pixels = np.pad(s[:, rows, columns], [(0, 0), above, beside], mode="reflect")
                yield start, network(torch.from_numpy(pixels)[None])[0]

        whole = network(scene[None])[0]
        rows = [rows.copy() for rows in blended(down, across, len(whole), 0, crops)]
        assert np.array_equal(np.concatenate(rows, axis=1), whole)  # to the last bit


@pytest.mark.parametrize(("height", "width"), [(70, 45), (20, 100), (13, 9), (1, 40), (64, 64)])
@pytest.mark.parametrize("options", [{}, {"crop": 24, "overlap": 7}, {"tta": True}])
def test_grid_and_gaps_are_kept_and_the_classes_are_the_models(
    tmp_path: Path, point: SegmentationModel, height: int, width: int, options: dict[str, Any]
) -> None:
    pixels = draw(height, width)
    if not pixels.any():
        pixels[:, :, 3:] = draw(40, width)[:, 20:21, 3:]
    source = write(tmp_path / "scene.tif", pixels)
    scene = gp.predict_scene(
        point, source, tmp_path / "map.tif", progress=False, **STATED, **options
    )
    with rasterio.open(source) as ours, rasterio.open(scene.path) as made:
        for what in ("crs", "transform", "shape"):
            assert getattr(ours, what) == getattr(made, what)
        assert made.nodata == 255 and made.dtypes == ("uint8",)
        assert made.tags(1)["CLASS_0"] == scene.classes[0]
        assert made.colormap(1)[1][:3] == tuple(bytes.fromhex(scene.colours[1][1:]))
        assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert np.array_equal(made.read(1), expected(point, pixels))
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {
        "scene.tif", "map.tif", "map_probability.tif",
    }  # fmt: skip


def test_every_kind_of_gap_is_carried_pixel_for_pixel(
    tmp_path: Path, point: SegmentationModel
) -> None:
    pixels = draw(70, 60)[:, 20:]
    gone = np.zeros((50, 60), bool)
    gone[20:33, 11:17] = True
    tagged = np.where(gone, 65_535, np.maximum(pixels, 300)).astype(np.uint16)
    one = write(tmp_path / "tagged.tif", tagged, nodata=65_535)
    masked = np.maximum(pixels, 300)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        two = write(tmp_path / "masked.tif", masked)
        with rasterio.open(two, "r+") as raster:
            raster.write_mask(~gone)
    floats = np.where(gone, np.nan, masked / 10_000).astype(np.float32)
    three = write(tmp_path / "floats.tif", floats)
    for source, scale in ((one, 10_000), (two, 10_000), (three, 1)):
        scene = gp.predict_scene(
            point, source, tmp_path / "map.tif", scale=scale, offset=0, progress=False
        )
        for path in (scene.path, scene.probability):
            with rasterio.open(path) as raster:
                assert np.array_equal(raster.read(1) == 255, gone), source


def test_one_file_a_band_and_jpeg_2000_give_the_same_map(
    tmp_path: Path, point: SegmentationModel
) -> None:
    pixels, folder = draw(60, 50), tmp_path / "product"
    folder.mkdir()
    whole = write(tmp_path / "scene.tif", pixels)
    numbers = ("B02", "B03", "B04", "B8A", "B11", "B12")
    lossless = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"}
    files = [
        write(folder / f"T33UUU_20210601T101031_{name}.jp2", band[None], **lossless)
        for name, band in zip(numbers, pixels, strict=True)
    ]
    first = gp.predict_scene(point, whole, tmp_path / "a.tif", progress=False, **STATED)
    for source in (files, folder):
        again = gp.predict_scene(point, source, tmp_path / "b.tif", progress=False, **STATED)
        assert np.array_equal(read(again.path), read(first.path))


class Killed(BaseException):
    """What no code catches."""


def test_an_interrupted_scene_goes_on_and_becomes_the_same_file(
    tmp_path: Path, trained: SegmentationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "scene.tif", draw(150, 90))
    options: dict[str, Any] = {"progress": False, "crop": 32, "overlap": 8, **STATED}
    whole = gp.predict_scene(trained, source, tmp_path / "whole.tif", **options)
    calls, say, dies = [], Network.__call__, [5, 3, 10**6]

    def count(self: Network, image: torch.Tensor, **more: torch.Tensor) -> np.ndarray:
        calls.append(len(image))
        if len(calls) == dies[0]:
            raise Killed
        return say(self, image, **more)

    monkeypatch.setattr(Network, "__call__", count)
    for last in (False, False, True):
        calls.clear()
        with nullcontext() if last else pytest.raises(Killed):
            scene = gp.predict_scene(trained, source, tmp_path / "map.tif", **options)
        assert (tmp_path / "map.tif").exists() == last
        dies.pop(0)
    total = len(Axis(150, 32, 8).starts)  # one batch for each row of crops
    assert len(calls) < total  # what was finished is not computed again
    for one, other in (
        (whole.path, scene.path), (whole.probability, scene.probability),
        (whole.applicability, scene.applicability),
    ):  # fmt: skip
        assert one is not None and other is not None
        assert one.read_bytes() == other.read_bytes()
    assert not list(tmp_path.glob(".part-*"))


def test_what_was_begun_with_another_model_or_scene_begins_anew(
    tmp_path: Path, point: SegmentationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, other = draw(60, 40), draw(60, 40, seed=5)
    source = write(tmp_path / "scene.tif", pixels)
    written = unfinished.Unfinished.write

    def stop(self: unfinished.Unfinished, blocks: dict[str, np.ndarray]) -> None:
        written(self, blocks)
        if self.rows:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(unfinished.Unfinished, "write", stop)
        with pytest.raises(Killed):
            gp.predict_scene(point, source, tmp_path / "map.tif", progress=False, **STATED)
    write(source, other)
    scene = gp.predict_scene(point, source, tmp_path / "map.tif", progress=False, **STATED)
    assert np.array_equal(read(scene.path)[0], expected(point, other))


def test_the_three_layers_say_class_probability_and_distance(
    tmp_path: Path, trained: SegmentationModel
) -> None:
    pixels = draw(64, 32)
    pixels[:, 32:] = np.random.default_rng(3).integers(1, 9_000, (6, 32, 32))  # like nothing
    source = write(tmp_path / "scene.tif", pixels)
    scene = gp.predict_scene(trained, source, tmp_path / "map.tif", overlap=0, crop=32,
                             progress=False, **STATED)  # fmt: skip
    image = torch.from_numpy(pixels.astype(np.float32) / 10_000).reshape(6, 2, 32, 32)
    with torch.inference_mode():
        logits = trained.eval()(image.movedim(1, 0)[1:])[0]  # of the lower crop, without gaps
    assert trained.trained is not None
    probability, answer = (logits / trained.trained.temperature).softmax(0).max(0)
    assert np.array_equal(read(scene.path)[0, 32:], answer.numpy())
    # steps of 0.005, so half a step of rounding
    assert np.allclose(read(scene.probability)[0, 32:], probability.numpy(), atol=0.00251)
    assert (read(scene.applicability)[0, 32:] > scene.threshold).mean() > 0.9
    assert "applicability" in repr(scene) and "map_probability.tif" in scene._repr_html_()


def test_layers_that_are_not_wanted_are_not_written(
    tmp_path: Path, trained: SegmentationModel
) -> None:
    source = write(tmp_path / "scene.tif", draw(40, 40))
    scene = gp.predict_scene(trained, source, tmp_path / "map.tif", layers=[], progress=False,
                             **STATED)  # fmt: skip
    assert (scene.probability, scene.applicability) == (None, None)
    assert {path.name for path in tmp_path.glob("*.tif")} == {"scene.tif", "map.tif"}


def test_a_saved_model_maps_as_the_one_that_was_saved(
    tmp_path: Path, trained: SegmentationModel
) -> None:
    source = write(tmp_path / "scene.tif", draw(50, 40))
    gp.save_adapter(trained, tmp_path / "adapter")
    ours = gp.predict_scene(trained, source, tmp_path / "a.tif", progress=False, **STATED)
    theirs = gp.predict_scene(
        str(tmp_path / "adapter"), source, tmp_path / "b.tif", progress=False, **STATED
    )
    assert theirs.notes == ours.notes == ("Pixels of 20 m, and 30 m in training.",)
    for layer in ("path", "probability", "applicability"):
        assert np.array_equal(read(getattr(ours, layer)), read(getattr(theirs, layer))), layer


def test_a_regression_writes_its_values_as_they_are(tmp_path: Path, data: GeoData) -> None:
    card = replace(data.card, task="regression", classes=("height",), colours=("#000000",))
    data = replace(data, card=card)
    model = gp.build_model(gp.load_backbone("geopeft_tiny", weights=None), data)
    model.forward = lambda image: image[:, :1] * 7  # type: ignore[method-assign]
    pixels = draw(45, 33)
    source = write(tmp_path / "scene.tif", pixels)
    scene = gp.predict_scene(model, source, tmp_path / "map.tif", progress=False, **STATED)
    with rasterio.open(scene.path) as raster:
        found = raster.read(1)
        assert raster.dtypes == ("float32",) and raster.descriptions == tuple(data.classes)
    gone = ~pixels.any(axis=0)
    assert np.array_equal(np.isnan(found), gone)
    value = pixels[0].astype(np.float32) / np.float32(10_000) * np.float32(7)
    assert np.array_equal(found[~gone], value[~gone])


def test_the_outlines_cover_each_class(tmp_path: Path, point: SegmentationModel) -> None:
    source = write(tmp_path / "scene.tif", draw(40, 40))
    scene = gp.predict_scene(point, source, tmp_path / "map.tif", polygons=True, progress=False,
                             **STATED)  # fmt: skip
    shapes, classes = geopandas.read_file(scene.polygons), read(scene.path)
    assert shapes.crs == "EPSG:32633"
    for index, part in shapes.groupby("value"):
        assert part.area.sum() == (classes == index).sum() * 400  # m² of a pixel
        assert {*part["class"]} == {scene.classes[index]}


def test_several_scenes_are_mapped_by_any_executor(
    tmp_path: Path, point: SegmentationModel
) -> None:
    scenes = [draw(40, 30, seed) for seed in range(3)]
    sources = [write(tmp_path / f"{n}.tif", pixels) for n, pixels in enumerate(scenes)]
    outs = [str(tmp_path / f"map{n}.tif") for n in range(3)]
    with ThreadPoolExecutor(1) as pool:
        made = gp.predict_scene(point, sources, outs, executor=pool, progress=False, **STATED)
    for scene, pixels in zip(made, scenes, strict=True):
        assert np.array_equal(read(scene.path)[0], expected(point, pixels))


def test_a_mean_over_eight_views_turns_with_the_scene(trained: SegmentationModel) -> None:
    network = Network(trained.eval(), far=True, views=True)
    image = torch.rand(1, 6, 32, 32, generator=torch.Generator().manual_seed(0)) / 2
    straight, turned = network(image), network(image.rot90(1, (-2, -1)))
    assert np.allclose(np.rot90(straight, 1, (-2, -1)), turned, atol=1e-4)  # sums in other order


def test_a_scene_of_another_scale_is_refused_with_both_tables(
    tmp_path: Path, trained: SegmentationModel
) -> None:
    source = write(tmp_path / "scene.tif", (draw(40, 40) / 90_000).astype(np.float32) + 1e-4)
    assert trained.trained is not None
    far = replace(trained.trained, pixels=(torch.full((6,), 900.0), torch.full((6,), 80.0)))
    before, trained.trained = trained.trained, far
    try:
        with pytest.raises(gp.GeopeftError, match=r"(?s)another scale.*mean in training.*BLUE"):
            gp.predict_scene(
                trained, source, tmp_path / "map.tif", scale=1, offset=0, nodata=float("nan")
            )
    finally:
        trained.trained = before
    assert not (tmp_path / "map.tif").exists()


def test_what_cannot_be_mapped_is_refused_in_words(
    tmp_path: Path, point: SegmentationModel
) -> None:
    source = write(tmp_path / "scene.tif", draw(40, 40))
    few = write(tmp_path / "few.tif", draw(40, 40)[:3])
    out, maps = tmp_path / "map.tif", gp.predict_scene
    with pytest.raises(gp.GeopeftError, match=r"(?s)scale.*predict_scene\(model, .*scale="):
        maps(point, source, out)  # nothing states the scale
    for said, options in {
        "name of a GeoTIFF": {"out": tmp_path / "map.png"},
        "as many sources": {"out": [str(out)]},
        "applicability": {"layers": ["confidence"]},
        "crop": {"crop": 2},
        "overlap": {"crop": 32, "overlap": 20},
        "device": {"device": "tpu"},
        "NIR_NARROW": {"source": few, "band_names": ["BLUE", "GREEN", "RED"]},
    }.items():
        with pytest.raises(gp.GeopeftError, match=said):
            maps(point, **{"source": source, "out": out, **STATED, **options})  # type: ignore[arg-type]
    assert not out.exists()


def test_a_source_is_never_written_over(tmp_path: Path, point: SegmentationModel) -> None:
    source = write(tmp_path / "map_probability.tif", draw(40, 40))
    link, before = tmp_path / "link.tif", source.read_bytes()
    link.symlink_to(source)
    for given, out in ((source, "map.tif"), (source, "link.tif"), (link, source.name)):
        with pytest.raises(gp.GeopeftError, match="is the source itself"):
            gp.predict_scene(point, given, tmp_path / out, progress=False, **STATED)
    assert source.read_bytes() == before


def test_several_dates_for_a_model_of_one_are_refused_in_words(
    tmp_path: Path, point: SegmentationModel
) -> None:
    days = [write(tmp_path / f"s_2021060{n}.tif", draw(40, 40, n)) for n in (1, 2, 3)]
    stacked = write(tmp_path / "stacked.tif", np.concatenate([draw(40, 40)] * 3))
    sources = {"bands of the same names": days, "several dates": stacked, "source takes a file": []}
    for words, source in sources.items():
        with pytest.raises(gp.GeopeftError, match=words):
            gp.predict_scene(point, source, tmp_path / "map.tif", progress=False)


def test_the_call_to_type_is_whole(tmp_path: Path, point: SegmentationModel) -> None:
    (deep := tmp_path / ("a long name " * 9)).mkdir()
    pixels = draw(40, 40)
    files = [str(write(deep / f"x_{b}.tif", pixels[n : n + 1]))
             for n, b in enumerate(("B02", "B03", "B04", "B8A", "B11", "B12"))]  # fmt: skip
    with pytest.raises(gp.GeopeftError) as error:
        gp.predict_scene(point, files, tmp_path / "map.tif", progress=False)
    scene = eval(str(error.value).splitlines()[-1], {"model": point, "gp": gp})
    assert np.array_equal(read(scene.path)[0], expected(point, pixels))
    with pytest.raises(gp.GeopeftError, match="would write one file"):
        gp.predict_scene(point, [files, files], [deep / "m.tif", deep / "m_probability.tif"])
    write(deep / "y_B02.tif", pixels[:1])
    with pytest.raises(gp.GeopeftError, match=r"holds 2 products: x_, y_\. Name one's files"):
        gp.predict_scene(point, deep, tmp_path / "map.tif")


def test_a_file_that_somebody_writes_is_left_to_them(
    tmp_path: Path, point: SegmentationModel
) -> None:
    source, out = write(tmp_path / "scene.tif", draw(40, 40)), tmp_path / "map.tif"
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with held(out):
            taken.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    taken.wait(60)
    try:
        with pytest.raises(gp.GeopeftError, match="is in use by process"):
            gp.predict_scene(point, source, out, progress=False, **STATED)
    finally:
        done.set()
        other.join()


def test_what_is_not_ours_is_neither_replaced_nor_removed(
    point: SegmentationModel, tmp_path: Path
) -> None:
    scene, out = write(tmp_path / "scene.tif", draw(40, 40)), tmp_path / "map.tif"

    for name in ("map.tif", "map_probability.tif", "map.gpkg"):
        other = tmp_path / name
        other.write_bytes(b"measured for years")
        with pytest.raises(gp.GeopeftError, match=f"{name} is not a map of ours"):
            gp.predict_scene(
                point, scene, out, ["probability"], progress=False, polygons=True, **STATED
            )
        assert other.read_bytes() == b"measured for years"
        other.unlink()
    kept = tmp_path / ".part-map.tif" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("of somebody")
    link = tmp_path / ".part-class-map.tif"
    link.symlink_to(kept)
    with pytest.raises(gp.GeopeftError, match="is a link to somewhere else"):
        gp.predict_scene(point, scene, out, [], progress=False, **STATED)
    link.unlink()
    gp.predict_scene(point, scene, out, [], progress=False, polygons=True, **STATED)
    first = out.read_bytes()
    outlines, table = tmp_path / "map.gpkg", "geopeft_nb_outlines"
    drawn = geopandas.read_file(outlines)
    visits = drawn.set_geometry(drawn.geometry.representative_point())
    visits.to_file(outlines, layer="surveyed", mode="w")  # somebody's, beside a map of ours
    with pytest.raises(gp.GeopeftError, match=r"map\.gpkg is not a map of ours"):
        gp.predict_scene(point, scene, out, [], progress=False, polygons=True, **STATED)
    assert geopandas.read_file(outlines, layer="surveyed").equals(visits)
    outlines.unlink()
    drawn.to_file(outlines, layer=table)
    # what is ours is replaced
    gp.predict_scene(point, scene, out, [], progress=False, polygons=True, **STATED)
    assert out.read_bytes() == first and [*kept.parent.iterdir()] == [kept]


def test_days_that_cannot_be_read_are_refused_and_not_taken_from_the_file(
    data: GeoData, tmp_path: Path
) -> None:
    backbone = gp.load_backbone("prithvi_eo_v2_tiny_tl", weights=None, bands=data.bands)
    model = gp.build_model(backbone, data, metadata=True)
    scene = write(tmp_path / "scene_20210601.tif", draw(32, 32))
    given = {"layers": (), "progress": False, **STATED}
    with pytest.raises(gp.GeopeftError, match=r"days as '2021-06-01', got \['1\.6\.2021'"):
        gp.predict_scene(model, scene, tmp_path / "map.tif", dates=["1.6.2021"], **given)
    with pytest.raises(gp.GeopeftError, match=r"source takes a file.* got None"):
        gp.predict_scene(model, None, tmp_path / "map.tif", **given)
    model = gp.build_model(gp.load_backbone("geopeft_tiny", frames=2), replace(data, frames=2))
    files = [write(tmp_path / f"{day}.tif", draw(32, 32)) for day in ("2021-06-02", "2021-06-01")]
    for file in files:
        rasterio.open(file, "r+").update_tags(ACQUISITION_DATE=file.stem)
    with pytest.raises(gp.GeopeftError, match="2021-06-02, 2021-06-01: give scenes in their order"):
        gp.predict_scene(model, files, tmp_path / "map.tif", **given)
