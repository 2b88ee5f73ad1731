"""The files of a mapped scene: written piece by piece, resumable, then cloud-optimised at once."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.errors import GeopeftError
from geopeft_nb.open_files import first_bytes, layer_of, open_raster
from geopeft_nb.writing import refusals, sync, written_beside

#: Rows that are written at once, at least: each time costs some milliseconds.
TOGETHER = 256
#: By which tag of a raster, and which layer of a GeoPackage, they are known again as ours.
SOFTWARE, OUTLINES = "geopeft_nb", "geopeft_nb_outlines"


@dataclass(frozen=True)
class Layer:
    """How the numbers of a layer are stored: number = stored value x `scale`.

    Attributes:
        says: What the numbers are.
        dtype: Of the stored values.
        nodata: Stored where the source has no data.
        scale: One step of the stored values.
        overview: How GDAL joins pixels for a smaller scale.
    """

    says: str
    dtype: str = "uint8"
    nodata: float = 255
    scale: float = 1.0
    overview: str = "average"

    def stored(self, numbers: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Return numbers (K, h, w) as they are stored, with no-data where nothing is there."""
        steps = np.divide(numbers, self.scale, dtype=np.float32)
        if self.dtype == "uint8":
            np.clip(np.round(steps, out=steps), 0, 254, out=steps)
        steps[:, ~there] = self.nodata
        return steps.astype(self.dtype)


LAYERS = {
    "class": Layer("index of the class", overview="mode"),
    "probability": Layer("calibrated probability of the class, 0-1", scale=0.005),
    "applicability": Layer(
        "distance of the features from those of training, in units of the distance within which "
        "95 % of the training chips lie: above 1 is outside", scale=0.02,
    ),
    "values": Layer("predicted values", "float32", np.nan),
}  # fmt: skip


class Unfinished:
    """Layers of a scene that are not finished, in a hidden folder beside the file-to-be.

    Plain GeoTIFFs whose rows have their places from the start, so that a killed process leaves
    those whole that the journal counts.

    Args:
        out: Where the first layer will be.
        grid: Height, width, crs and transform, as rasterio's profiles name them.
        key: Of all that the result depends on: with another one it begins anew.
        layers: Name -> number of bands.

    Attributes:
        rows: How many are written.
    """

    def __init__(
        self, out: Path, grid: Mapping[str, Any], key: str, layers: Mapping[str, int]
    ) -> None:
        self.out, self.key, self.layers = out, key, layers
        self.folder = out.with_name(f".part-{out.name}")
        if self.folder.is_symlink():
            raise GeopeftError(f"{self.folder} is a link to somewhere else. Remove it.")
        self.height, self.width = grid["height"], grid["width"]
        self.rows, self.waiting = 0, list[Mapping[str, np.ndarray]]()
        with suppress(Exception):  # there is none, or a damaged one, which has many errors
            journal = json.loads((self.folder / "journal.json").read_text(encoding="utf-8"))
            for name in layers:  # a full disk leaves some that cannot be opened
                self._open(name, "r+").close()
            self.rows = journal["rows"] if journal["key"] == key else 0
        if self.rows:
            return
        with refusals(out):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear()
            for name, count in layers.items():
                self._open(name, "w", count=count, dtype=LAYERS[name].dtype, blockysize=1,
                           nodata=LAYERS[name].nodata, bigtiff="IF_SAFER", interleave="band",
                           **grid).close()  # fmt: skip

    def _clear(self) -> None:
        """Remove what is ours from the folder, and nothing else."""
        for name in ("journal.json", *(f"{layer}.tif" for layer in LAYERS)):
            (self.folder / name).unlink(missing_ok=True)

    def _open(self, name: str, mode: str, **profile: Any) -> Any:
        import rasterio

        return rasterio.open(self.folder / f"{name}.tif", mode, driver="GTiff", **profile)

    def write(self, blocks: Mapping[str, np.ndarray]) -> None:
        """Take the next rows of all layers, (K, h, W) each, and write many at once."""
        from rasterio.windows import Window

        self.waiting.append(blocks)
        count = sum(one[next(iter(self.layers))].shape[1] for one in self.waiting)
        if count < min(TOGETHER, self.height - self.rows):
            return
        with refusals(self.out):
            for name in self.layers:
                rows = np.concatenate([one[name] for one in self.waiting], axis=1)
                with self._open(name, "r+") as raster:
                    raster.write(rows, window=Window(0, self.rows, self.width, count))
                sync(self.folder / f"{name}.tif")
            self.waiting.clear()
            self.rows += count
            with written_beside(self.folder / "journal.json") as file:
                file.write_text(json.dumps({"key": self.key, "rows": self.rows}), encoding="utf-8")

    def finish(
        self, files: Mapping[str, Path], classes: Sequence[str], colours: Sequence[str]
    ) -> None:
        """Copy all layers to where they belong, as cloud-optimised GeoTIFFs, and leave no rest.

        Args:
            files: Layer -> its file, beside `out`.
            classes: Names, by index.
            colours: #rrggbb, by index; or none.
        """
        from rasterio.shutil import copy

        with refusals(self.out):
            for name, count in self.layers.items():
                layer = LAYERS[name]
                with self._open(name, "r+") as raster:
                    raster.update_tags(layer=name, says=layer.says, software=SOFTWARE)
                    raster.descriptions = [*classes] if name == "values" else [layer.says] * count
                    raster.scales = [layer.scale] * count
                    if name == "class":
                        raster.update_tags(1, **{f"CLASS_{i}": x for i, x in enumerate(classes)})
                        table = {i: tuple(bytes.fromhex(x[1:])) for i, x in enumerate(colours)}
                        raster.write_colormap(1, table)
        with written_beside(self.out) as new:
            for name, path in files.items():
                copy(
                    str(self.folder / f"{name}.tif"), str(new.with_name(path.name)), driver="COG",
                    COMPRESS="DEFLATE", BLOCKSIZE=512, BIGTIFF="IF_SAFER",
                    OVERVIEW_RESAMPLING=LAYERS[name].overview,
                )  # fmt: skip
        self._clear()
        with suppress(OSError):  # somebody else's files keep it
            self.folder.rmdir()


def is_ours(path: Path) -> bool:
    """Say whether a file is a layer, or are outlines alone, that `predict_scene` wrote."""
    try:
        if first_bytes(path).startswith(b"SQLite format 3\0"):
            from pyogrio import list_layers

            return layer_of(path) == OUTLINES and len(list_layers(path)) == 1
        with open_raster(path) as raster:
            return raster.tags().get("software") == SOFTWARE
    except (GeopeftError, OSError):
        return False


def write_outlines(path: Path, out: Path, classes: Sequence[str]) -> None:
    """Write the outlines of the classes of a map to a GeoPackage: `class`, and its `value`."""
    from geopandas import GeoDataFrame
    from rasterio import band
    from rasterio.features import shapes

    with open_raster(path) as raster:
        found = [x for x in shapes(band(raster, 1)) if x[1] < len(classes)]
        rows = [{"geometry": area, "properties": {"value": int(code)}} for area, code in found]
        frame = GeoDataFrame.from_features(rows, crs=raster.crs)
    frame["class"] = [classes[code] for code in frame["value"]]
    with written_beside(out) as file:
        frame.to_file(file, driver="GPKG", engine="pyogrio", layer=OUTLINES)
