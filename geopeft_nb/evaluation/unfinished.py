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
    """Layers of a scene that are not finished, in hidden files beside the map-to-be.

    Plain GeoTIFFs whose rows have their places from the start, so that a killed process leaves
    those whole that the journal counts.

    Args:
        files: Layer -> where it will be, that of the map first.
        grid: Height, width, crs and transform, as rasterio's profiles name them.
        key: Of all that the result depends on: with another one it begins anew.
        classes: Names, by index.
        colours: #rrggbb, by index.

    Attributes:
        rows: How many are written.
    """

    def __init__(
        self, files: Mapping[str, Path], grid: Mapping[str, Any], key: str,
        classes: Sequence[str], colours: Sequence[str],
    ) -> None:  # fmt: skip
        import rasterio

        self.files, self.key, self.rows = files, key, 0
        self.out = out = next(iter(files.values()))
        self.journal = out.with_name(f".part-{out.name}.json")
        self.parts = {layer: out.with_name(f".part-{layer}-{out.name}") for layer in LAYERS}
        if links := [x for x in (self.journal, *self.parts.values()) if x.is_symlink()]:
            raise GeopeftError(f"{links[0]} is a link to somewhere else. Remove it.")
        with suppress(Exception):  # there is none, or a damaged one, which has many errors
            journal = json.loads(self.journal.read_text(encoding="utf-8"))
            for name in files:  # a full disk leaves some that cannot be opened
                rasterio.open(self.parts[name], "r+", driver="GTiff").close()
            self.rows = journal["rows"] if journal["key"] == key else 0
        if self.rows:
            return
        with refusals(out):
            self._clear()
            for name in files:
                layer, names = LAYERS[name], classes if name == "values" else [LAYERS[name].says]
                with rasterio.open(
                    self.parts[name], "w", "GTiff", count=len(names), dtype=layer.dtype, **grid,
                    nodata=layer.nodata, blockysize=1, bigtiff="IF_SAFER", interleave="band",
                ) as raster:  # fmt: skip
                    raster.update_tags(layer=name, says=layer.says, software=SOFTWARE)
                    raster.descriptions = names
                    raster.scales = [layer.scale] * len(names)
                    if name == "class":
                        raster.update_tags(1, **{f"CLASS_{i}": x for i, x in enumerate(classes)})
                        table = {i: tuple(bytes.fromhex(x[1:])) for i, x in enumerate(colours)}
                        raster.write_colormap(1, table)

    def _clear(self) -> None:
        for file in (self.journal, *self.parts.values()):
            file.unlink(missing_ok=True)

    def write(self, blocks: Mapping[str, np.ndarray]) -> None:
        """Take the next rows of all layers, (K, h, W) each."""
        import rasterio
        from rasterio.windows import Window

        with refusals(self.out):
            for name in self.files:
                rows, width = blocks[name].shape[1:]
                with rasterio.open(self.parts[name], "r+", driver="GTiff") as raster:
                    raster.write(blocks[name], window=Window(0, self.rows, width, rows))
                sync(self.parts[name])
            self.rows += rows
            with written_beside(self.journal) as file:
                file.write_text(json.dumps({"key": self.key, "rows": self.rows}), encoding="utf-8")

    def finish(self) -> None:
        """Copy all layers to where they belong, as cloud-optimised GeoTIFFs, and leave no rest."""
        from rasterio.shutil import copy

        with written_beside(self.out) as new:
            for name, path in self.files.items():
                copy(
                    str(self.parts[name]), str(new.with_name(path.name)), driver="COG",
                    COMPRESS="DEFLATE", BLOCKSIZE=512, BIGTIFF="IF_SAFER",
                    OVERVIEW_RESAMPLING=LAYERS[name].overview,
                )  # fmt: skip
        self._clear()


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
