"""How fast, how small and how seamless whole scenes are mapped; ratios within one run.

    python tests/benchmarks/scenes.py [throughput memory seams] [--side 2745] [--large 10980]
    python tests/benchmarks/scenes.py terratorch    # where TerraTorch is installed, too

Model: geopeft_tiny with LoRA, three epochs on the scene of Virginia, and chips of 64 px, unless
`--crop` says otherwise. Files: random ground, 6 bands of uint16 in tiles of 512 px, written to a
temporary folder. Memory: peak of a process of its own, whose model says one of two classes at once,
so that what is measured is everything but the model.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.evaluation.windows import Axis
from geopeft_nb.files import data_folder
from geopeft_nb.models import SegmentationModel

STATED = {"scale": 10_000, "offset": 0, "nodata": float("nan"), "progress": False}


def write_mirrored(path: Path, side: int) -> Path:
    """Write the scene of Virginia and its mirror images, side by side."""
    with rasterio.open(data_folder() / "scenes" / "virginia.tif") as raster:
        profile, names, image = raster.profile, raster.descriptions, raster.read()
    margins = [(0, 0), (0, max(0, side - image.shape[1])), (0, max(0, side - image.shape[2]))]
    image = np.pad(image, margins, mode="symmetric")[:, :side, :side]
    profile |= {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(path, "w", **profile | {"height": side, "width": side}) as raster:
        raster.descriptions = names
        raster.write(image)
    return path


def write_scene(path: Path, side: int) -> Path:
    """Write random ground, a row of tiles at a time."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 6, "height": side, "width": side,
               "tiled": True, "blockxsize": 512, "blockysize": 512, "crs": "EPSG:32633",
               "transform": rasterio.Affine(10, 0, 4e5, 0, -10, 5.8e6)}  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=2**26), rasterio.open(path, "w", **profile) as raster:
        raster.descriptions = HLS_BANDS
        for top in range(0, side, 512):
            rows = min(512, side - top)
            ground = rng.integers(300, 4_000, (6, rows // 4 + 1, side // 4 + 1), np.uint16)
            ground = ground.repeat(4, 1).repeat(4, 2)[:, :rows, :side]
            raster.write(ground, window=Window(0, top, side, rows))
    return path


def train() -> SegmentationModel:
    """Train geopeft_tiny on Virginia."""
    data = gp.load_data("scenes", train_regions=["virginia"], holdout_regions=["brandenburg"])
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "lora", r=16)
    return gp.fit(model, data, epochs=3, dashboard=False).model


def throughput(folder: Path, side: int, crop: int) -> None:
    """Compare with the bare model, which computes the same crops from memory."""
    model, source = train().eval(), write_scene(folder / "scene.tif", side)
    axis = Axis(side, crop, crop // 4)
    crops = len(axis.starts) ** 2
    image = torch.rand(16, 6, crop, crop)
    with torch.inference_mode():
        model(image)
        began = perf_counter()
        for _ in range(-(-crops // 16)):
            model(image)
    bare = perf_counter() - began
    began = perf_counter()
    gp.predict_scene(model, source, folder / "map.tif", layers=[], crop=crop, **STATED)
    plain = perf_counter() - began
    began = perf_counter()
    gp.predict_scene(model, source, folder / "all.tif", crop=crop, **STATED)
    every = perf_counter() - began
    print(f"{side} px, {crops} crops of {crop} px: bare model {bare:.1f} s, scene {plain:.1f} s")
    print(f"share of the bare model's pixels a second: {bare / plain:.2f} (wanted: 0.9)")
    print(f"three layers instead of one: {every / plain:.2f} times (wanted: at most 1.3)")


def terratorch(folder: Path, side: int, crop: int) -> None:
    """Compare with TerraTorch's tiled inference: same model, crops, overlap and batch, in turns.

    It reads the whole scene into memory, and computes LoRA beside the weights; `predict_scene`
    folds LoRA into a copy of them. Both write a map.
    """
    from terratorch.tasks.tiled_inference import tiled_inference

    model, source = train().eval(), write_mirrored(folder / "scene.tif", side)

    def theirs() -> None:
        with rasterio.open(source) as raster:
            image = torch.from_numpy(raster.read().astype("float32") / 10_000)[None]
            profile = raster.profile | {"count": 1, "dtype": "uint8"}
        options = {"crop": crop, "stride": crop - crop // 4, "delta": 4, "batch_size": 16}
        with torch.inference_mode():
            scores = tiled_inference(model, image, **options)
        with rasterio.open(folder / "theirs.tif", "w", **profile) as raster:
            raster.write(scores[0].argmax(0).numpy().astype("uint8"), 1)

    def ours() -> None:
        gp.predict_scene(model, source, folder / "ours.tif", layers=[], crop=crop,
                         batch_size=16, **STATED)  # fmt: skip

    took: dict[str, list[float]] = {"TerraTorch": [], "predict_scene": []}
    for _ in range(3):
        for name, work in zip(took, (theirs, ours), strict=True):
            began = perf_counter()
            work()
            took[name].append(perf_counter() - began)
    best = {name: min(seconds) for name, seconds in took.items()}
    with rasterio.open(folder / "ours.tif") as a, rasterio.open(folder / "theirs.tif") as b:
        alike = (a.read(1) == b.read(1)).mean()
    print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in best.items()))
    print(f"{best['TerraTorch'] / best['predict_scene']:.2f} times TerraTorch's pixels a second; "
          f"{alike:.2%} of the pixels have the same class")  # fmt: skip


def peak(source: str, out: str, crop: int) -> None:
    """Map with a model that costs nothing, and print the peak of this process in bytes."""
    torch.set_num_threads(1)
    data = gp.load_data("scenes")
    model = gp.build_model(gp.load_backbone("geopeft_tiny", weights=None), data)
    model.forward = lambda image: image[:, :2]  # type: ignore[method-assign]
    gp.predict_scene(model, source, out, crop=crop, **STATED)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def memory(folder: Path, side: int, large: int, crop: int) -> None:
    """Compare the peaks of a small and a large scene."""
    peaks = []
    for pixels in (side, large):
        source, out = write_scene(folder / f"{pixels}.tif", pixels), folder / "map.tif"
        command = [sys.executable, __file__, "peak", "--source", source, "--out", out]
        done = subprocess.run([*map(str, command), "--crop", str(crop)], capture_output=True,
                              text=True, check=True)  # fmt: skip
        peaks.append(int(done.stdout.split()[-1]))
        source.unlink()
    small, big = (x / 1e6 for x in peaks)
    print(f"peak {small:,.0f} MB for {side} px, {big:,.0f} MB for {large} px: {big / small:.2f} "
          "times (wanted: at most 1.2, under 1,000 MB)")  # fmt: skip


def seams(folder: Path, crop: int, overlap: int) -> None:
    """Compare with a run whose tiles lie half a tile further down and right."""
    model, virginia = train(), data_folder() / "scenes" / "virginia.tif"
    half = (crop - overlap) // 2
    with rasterio.open(virginia) as raster:
        window = Window(half, half, raster.width - half, raster.height - half)
        profile = raster.profile | {"height": window.height, "width": window.width}
        profile["transform"] = raster.window_transform(window)
        with rasterio.open(folder / "cut.tif", "w", **profile | {"driver": "GTiff"}) as cut:
            cut.write(raster.read(window=window))
            cut.descriptions = raster.descriptions
    maps = []
    for source, name in ((virginia, "whole"), (folder / "cut.tif", "shifted")):
        options = {"layers": [], "crop": crop, "overlap": overlap}
        made = gp.predict_scene(model, source, folder / f"{name}.tif", **options, **STATED)
        with rasterio.open(made.path) as raster:
            maps.append(raster.read(1))
    # away from the end of the scene, where one of them is mirrored
    whole, shifted = maps[0][half:, half:][crop:-crop, crop:-crop], maps[1][crop:-crop, crop:-crop]
    near = np.zeros(maps[0].shape, bool)
    for axis, side in enumerate(maps[0].shape):
        starts = Axis(side, crop, overlap).starts
        for edge in np.add(starts[:-1], starts[1:]) / 2 + crop / 2:
            place = [slice(None), slice(None)]
            place[axis] = slice(max(0, int(edge) - 8), int(edge) + 8)
            near[tuple(place)] = True
    near = near[half:, half:][crop:-crop, crop:-crop]
    differ = whole != shifted
    border, elsewhere = differ[near].mean(), differ[~near].mean()
    print(f"crop {crop}, overlap {overlap}: {border:.3%} differ within 8 px of borders "
          f"({near.mean():.0%} of the pixels), {elsewhere:.3%} elsewhere: "
          f"{border / elsewhere:.2f} times (wanted: at most 1.02)", flush=True)  # fmt: skip


def main() -> None:
    """Run what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["throughput", "memory", "seams"])
    parser.add_argument("--side", type=int, default=2_745)
    parser.add_argument("--large", type=int, default=10_980)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--source")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if "peak" in options.what:
        peak(options.source, options.out, options.crop)
        return
    with tempfile.TemporaryDirectory() as folder:
        if "throughput" in options.what:
            throughput(Path(folder), options.side, options.crop)
        if "terratorch" in options.what:
            terratorch(Path(folder), options.side, options.crop)
        if "memory" in options.what:
            memory(Path(folder), options.side, options.large, options.crop)
        if "seams" in options.what:
            overlap = options.crop // 4 if options.overlap is None else options.overlap
            seams(Path(folder), options.crop, overlap)


if __name__ == "__main__":
    main()
