"""Map a whole scene that nobody labelled: imagery in, cloud-optimised GeoTIFFs out."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from inspect import signature
from itertools import cycle, islice
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from geopeft_nb.datasets.own.acquisitions import open_source
from geopeft_nb.datasets.own.rasters import Source, stamp
from geopeft_nb.errors import GeopeftError, check_name, check_names, whole
from geopeft_nb.evaluation.regions import RunOrModel
from geopeft_nb.evaluation.strips import Network, Strips
from geopeft_nb.evaluation.trust import check_scale
from geopeft_nb.evaluation.unfinished import Unfinished, is_ours, write_outlines
from geopeft_nb.evaluation.windows import Axis
from geopeft_nb.files import named_path
from geopeft_nb.models import SegmentationModel
from geopeft_nb.open_files import kept_open
from geopeft_nb.pictures.facts import Facts
from geopeft_nb.pictures.show import COLOURS
from geopeft_nb.training.preflight import DEVICES
from geopeft_nb.tuning.adapter_files import load_model, merged_copy
from geopeft_nb.writing import held

GEOTIFF = (".tif", ".tiff")
#: Arguments that are not the same for all of a list of scenes.
EACH = ("run_or_model", "source", "out", "executor")
#: Beside the class map.
LAYERS = ("probability", "applicability")
#: The band in a file's name.
BAND = r"(?<=[_.])B\d[\dA]?(?=[_.]|$)"
#: Bytes of GDAL's cache at least and at most.
CACHE = (2**25, 2**28)


@dataclass(frozen=True, repr=False)
class Scene(Facts):
    """A scene that was mapped.

    Attributes:
        path: The class map (uint8, 255 for no data), or of a regression the values (float32).
        probability: Calibrated probability of the class; or None. Stored value x scale is 0-1.
        applicability: Distance from training in units of the threshold; or None. Scaled likewise.
        classes: Names of the classes by their index in the map, or of the values.
        colours: #rrggbb of each class.
        threshold: The applicability above which ground is unlike 95 % of that of training.
        polygons: GeoPackage of the classes' outlines, or None.
        notes: What is to be said about the map.
        seconds: Wall time.
    """

    path: Path
    probability: Path | None = None
    applicability: Path | None = None
    classes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    threshold: float = 1.0
    polygons: Path | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def facts(self) -> tuple[str, dict[str, object]]:
        """Say where the files are; see `Facts`."""
        return f"Map of {', '.join(self.classes)}", {
            "map": self.path,
            "probability": self.probability,
            "applicability": self.applicability,
            "polygons": self.polygons,
            "took": f"{self.seconds:.1f} s",
            "note": " ".join(self.notes),
        }


def predict_scene(
    run_or_model: RunOrModel | str | os.PathLike[str],
    source: Any,
    out: Any,
    layers: Sequence[str] = LAYERS, crop: int | None = None, overlap: int | None = None,
    batch_size: int = 16, device: str = "auto", polygons: bool = False, tta: bool = False,
    progress: bool = True,
    band_names: Any = None, scale: Any = None, offset: Any = None, nodata: Any = None,
    dates: Sequence[str] = (), executor: Any = None,
) -> Any:  # fmt: skip
    """Map a scene of any size, in the memory of one row of crops.

    Crops overlap, are trimmed and fade into each other; at its borders the scene is mirrored. What
    has no data in the source has none in the map. If it is interrupted, or killed, the same call
    goes on where it was, and writes the same file.

    Args:
        run_or_model: From `fit` or `load_model`; or a folder or repository that `load_model` takes.
        source: A GeoTIFF or JPEG 2000; a list of files, one a band; or the folder of one product,
            such as a ``.SAFE``. For a model of T frames a list of T of these. Bands that the model
            lacks are left out.
        out: The class map to write, ``"….tif"``. Further layers get its name with theirs at the
            end. A list maps a list of sources.
        layers: Which to write besides: ``"probability"`` of the class, divided by the temperature
            that fits the validation chips; ``"applicability"``, how far the features lie from those
            of training, where above 1 is further than 95 % of its ground. A regression has values
            and applicability.
        crop: Pixels a side that the model sees; None takes the size of the training chips.
        overlap: Pixels that neighbours share; None takes a quarter of the crop.
        batch_size: Crops at a time.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU if there is one.
        polygons: Write outlines of the classes to a GeoPackage, too; they are in memory at once.
        tta: Take the mean over the eight turns and mirrorings of each crop.
        progress: Show a bar with the time that is left.
        band_names: Of a file whose bands have no names, as of `load_data("folder")`.
        scale: Reflectance is (number + offset) / scale, as of `load_data("folder")`.
        offset: See `scale`.
        nodata: Number of pixels without data, as of `load_data("folder")`.
        dates: Day of each date, ``"2021-06-01"``, for models that use it and files that lack it.
        executor: Has `submit`, as executors of concurrent.futures and clients of dask.distributed:
            it maps a list of scenes. Workers of other machines see the same files.

    Returns:
        A `Scene` with the paths; for a list of outs a list of them. Files have the source's CRS,
        transform and size, and are cloud-optimised.

    Raises:
        GeopeftError: Something that is needed is not stated, and the message says what to type; the
            pixels are of another scale than those of training; bands are lacking; the model answers
            for whole images; or another process writes there.
        NotWrittenError: The disk is full; what was done is kept.
    """
    options = {name: x for name, x in locals().items() if name not in EACH}
    if isinstance(out, list | tuple):
        return _map_all(run_or_model, source, out, options, executor)
    import rasterio

    began = monotonic()
    given: Any = getattr(run_or_model, "model", run_or_model)
    model = given if hasattr(given, "decode") else load_model(given)
    path = named_path(out, "out").resolve()
    crop = whole("crop", crop or model.built_for.get("size", 224), 8, 4_096)
    overlap = whole("overlap", crop // 4 if overlap is None else overlap, 0, crop // 2)
    wanted, notes = _check(model, path, layers, device)
    files = _frames(source, model.plain_backbone.frames)
    layered: dict[str, Any] = {layer: path.with_stem(f"{path.stem}_{layer}") for layer in wanted}
    drawn = path.with_suffix(".gpkg") if polygons and model.task == "segmentation" else None
    for file in (path, *layered.values(), *([drawn] if drawn else [])):
        if file.resolve() in {x.resolve() for frame in files for x in frame}:
            raise GeopeftError(f"{file} is the source itself. Name another file to write.")
        if file.exists() and not is_ours(file):
            raise GeopeftError(f"{file} is not a map of ours. Move it, or name another out.")
    shown = [str(one) for one in source] if isinstance(source, list | tuple) else str(source)
    said = {"band_names": band_names, "scale": scale, "offset": offset, "nodata": nodata}
    who = "model" if given is model else repr(str(given))
    usual = signature(predict_scene).parameters
    more = [f"{x}={y!r}, " for x, y in options.items() if x not in said and y != usual[x].default]
    call = f"gp.predict_scene({who}, {shown!r}, {str(out)!r}, {''.join(more)}"
    frames = [open_source(frame, call, **said) for frame in files]
    days = _check_frames(model, frames, dates)
    height, width = (first := frames[0].grid).shape
    trained_on = model.built_for.get("resolution")
    if trained_on and first.metres and not 0.9 < first.metres / trained_on < 1.1:
        notes += (f"Pixels of {first.metres:.4g} m, and {trained_on:.4g} m in training.",)
    if not first.crs:
        notes += ("The source has no coordinates, and so has the map.",)
    grid = {"crs": first.crs, "transform": first.transform, "height": height, "width": width}
    main = "class" if model.task == "segmentation" else "values"
    colours = _colours(model) if main == "class" else ()
    home, cuda = model.mean.device, device != "cpu" and torch.cuda.is_available()
    cached = rasterio.Env(GDAL_CACHEMAX=int(np.clip(_one_row(frames) * 1.2, *CACHE)))
    try:
        far = "applicability" in wanted
        network = Network(merged_copy(model).eval().to("cuda" if cuda else home), far, tta)
        cut = Axis(height, crop, overlap), Axis(width, crop, overlap)
        strips = Strips(network, frames, days, *cut, batch_size)
        with held(path), cached, kept_open():
            key = _key(model, frames, (said, crop, overlap, batch_size, tta, wanted, days, cuda))
            todo = Unfinished({main: path} | layered, grid, key, model.classes, colours)
            with tqdm(desc=path.name, total=height, initial=todo.rows, disable=not progress) as bar:
                for stored in strips.layers(todo.rows):
                    todo.write(stored)
                    bar.update(todo.rows - bar.n)
            todo.finish()
            if drawn:
                write_outlines(path, drawn, model.classes)
    finally:
        model.to(home)
    return Scene(
        path, **layered, classes=tuple(model.classes), colours=colours, polygons=drawn, notes=notes,
        seconds=monotonic() - began,
    )  # fmt: skip


def _map_all(
    model: Any, sources: Any, outs: Sequence[Any], options: dict[str, Any], executor: Any,
) -> list[Scene]:  # fmt: skip
    """Map several scenes one after the other, or on an executor."""
    if not isinstance(sources, list | tuple) or len(sources) != len(outs):
        raise GeopeftError(f"{len(outs)} files to write need a list of as many sources.")
    paths = [named_path(out, "out").resolve() for out in outs]
    files = [x.with_stem(f"{x.stem}_{layer}") for x in paths for layer in LAYERS] + paths
    if len({*files}) < len(files):
        raise GeopeftError("Two scenes would write one file. Give each out a name of its own.")
    pairs = zip(sources, outs, strict=True)
    if executor is None:
        return [predict_scene(model, one, out, **options) for one, out in pairs]
    model = getattr(model, "model", model)  # a run has more than workers need
    jobs = [executor.submit(predict_scene, model, one, out, **options) for one, out in pairs]
    return [job.result() for job in jobs]


def _colours(model: SegmentationModel) -> tuple[str, ...]:
    """Return a #rrggbb for each class: those of its data, if it knows them."""
    told = model.built_for.get("colours") or ()
    if len(told) == len(model.classes) and all(re.fullmatch("#[0-9A-Fa-f]{6}", x) for x in told):
        return tuple(told)
    return tuple(islice(cycle(COLOURS), len(model.classes)))


def _check(
    model: SegmentationModel, path: Path, layers: Sequence[str], device: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Refuse what cannot be mapped; return the layers that can be, and notes on the others."""
    check_name("device", device, DEVICES)
    check_names("layer", layers, LAYERS)
    if model.task not in ("segmentation", "regression") or len(model.classes) > 254:
        raise GeopeftError(
            f"A map is of pixels, with at most 254 classes; this model is for {model.task} with "
            f"{len(model.classes)}. Build one for pixels."
        )
    if path.suffix.lower() not in GEOTIFF:
        raise GeopeftError(f"out takes the name of a GeoTIFF, as 'map.tif'; got {path.name!r}.")
    trained, notes = model.trained, []
    if trained is None:
        notes.append("What it was trained on is not known: the scale of the pixels is not checked.")
    if trained is None or trained.reference is None:
        layers = [layer for layer in layers if layer != "applicability"]
        notes.append("No applicability: the model has no features of its training chips.")
    if model.task == "regression":
        layers = [layer for layer in layers if layer != "probability"]
    elif trained is None or trained.temperature is None:
        notes.append("The probability is not calibrated: no validation chips chose a temperature.")
    return (*layers,), (*notes,)


def _frames(source: Any, count: int) -> list[list[Path]]:
    """Return the files of each date."""
    several = [*source] if count > 1 and isinstance(source, list | tuple) else [source]
    if len(several) != count:
        raise GeopeftError(
            f"The model takes {count} dates, and got {len(several)}: give a list of as many scenes."
        )
    return [_files(one) for one in several]


def _files(source: Any) -> list[Path]:
    """Return the files of one date; of a product's folder one a band, the finest there is."""
    listed = [*source] if isinstance(source, list | tuple) else [source]
    if not listed or not all(isinstance(one, str | os.PathLike) for one in listed):
        raise GeopeftError(f"source takes a file, or a list with one a band; got {source!r:.100}.")
    paths = [named_path(one, "source").absolute() for one in listed]
    if len(paths) != 1 or not paths[0].is_dir():
        return paths
    found = [p for p in sorted(paths[0].rglob("*")) if p.suffix.lower() in (*GEOTIFF, ".jp2")]
    bands: dict[str, Path] = {}
    products = set()
    for file in found:  # R10m comes before R20m
        token = re.search(BAND, file.stem, re.IGNORECASE)
        if token and not file.name.startswith("MSK_"):
            bands.setdefault(token[0].upper(), file)
            products.add(re.sub(rf"(?:S[RT]_)?{BAND}|_\d\dm", "", file.stem, flags=re.IGNORECASE))
    if len(products) > 1:
        some = ", ".join(sorted(products)[:3])
        raise GeopeftError(f"{paths[0]} holds {len(products)} products: {some}. Name one's files.")
    if not (found := [*bands.values()] or found):
        raise GeopeftError(f"{paths[0]} has no GeoTIFF or JPEG 2000. Name the file itself.")
    return found


def _check_frames(
    model: SegmentationModel, frames: Sequence[Source], dates: Sequence[str]
) -> tuple[date, ...]:
    """Refuse dates that do not lie on each other, and pixels that are not like those of training.

    Returns:
        The day of each frame, if the model uses it.
    """
    if len({frame.grid for frame in frames}) > 1:
        raise GeopeftError("The dates have different grids. Warp them onto one, as rio warp does.")
    for frame in frames:
        name = frame.raster.path.name
        if lacking := [band for band in model.bands if band not in frame.bands]:
            raise GeopeftError(
                f"{name} has the bands {', '.join(frame.bands)}, and the model takes "
                f"{', '.join(lacking)}, too. Add files, or say band_names= for its bands."
            )
        pixels = frame.sample(model.bands, 512)
        if not pixels.size:
            raise GeopeftError(f"No pixel of {name} has data in all bands. Is nodata= right?")
        if model.trained:
            now = [torch.from_numpy(x) for x in (pixels.mean(1), pixels.std(1))]
            check_scale(name, model.bands, model.trained.pixels, now)
    days = [frame.day for frame in frames if frame.day]
    if days != sorted({*days}):
        raise GeopeftError(
            f"The dates are {', '.join(map(str, days))}: give scenes in their order."
        )
    if "time" not in model.metadata:
        return ()
    if dates:
        try:
            days = [date.fromisoformat(day) for day in dates]
        except (TypeError, ValueError) as error:
            raise GeopeftError(f"dates takes days as '2021-06-01', got {dates!r:.100}.") from error
    if len(days) != len(frames):
        raise GeopeftError(
            f"The model uses {len(frames)} days, and found {len(days)}: dates=['2021-06-01', …]."
        )
    return tuple(days)


def _one_row(frames: Sequence[Source]) -> int:
    """Return the bytes that a row of tiles of all files takes when it is decoded."""
    return sum(
        x.tiles[0] * x.grid.shape[1] * len(x.numbers) * np.dtype(x.dtype).itemsize
        for frame in frames
        for x in frame.rasters
    )


def _key(model: SegmentationModel, frames: Sequence[Source], settings: object) -> str:
    """Return a key of all that a map depends on: model, files, and settings."""
    stamps = [(str(path), stamp(path)) for frame in frames for path in frame.paths]
    trained = model.trained and (model.trained.temperature, model.trained.threshold)
    known = hashlib.sha256(repr((settings, stamps, trained)).encode())
    for name, value in model.state_dict().items():
        known.update(name.encode())
        known.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return known.hexdigest()
