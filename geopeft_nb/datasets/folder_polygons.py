"""Polygons as labels: burned into each chip when it is read, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.datasets.folder_rasters import UNSET, Box, Raster
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.open_files import read_polygons

#: Mask value where polygons of different classes overlap; negative, so it counts as unlabelled.
OVERLAP = -2
#: Attributes that are taken for the class, in this order; case does not matter.
CLASS_FIELDS = ("class", "class_name", "label", "landcover", "land_cover", "category", "type")


class Polygons:
    """Polygons with a class each, in any coordinate reference system.

    Args:
        path: GeoPackage, GeoJSON, Shapefile or FlatGeobuf.
        field: Attribute with the class; None takes one of `CLASS_FIELDS`, or the only one.
        classes: Class names in the wanted order; None takes the values of the attribute, sorted.
        background: Name of the class of all ground outside the polygons, which becomes the first;
            None leaves it unlabelled.

    Attributes:
        classes: Class names.
        notes: What was found and mended.

    Raises:
        ValueError: The file cannot be read, has several layers of polygons, no polygons or no
            coordinate reference system; no attribute is clearly the class; or there are values that
            are not in the class list.
        ImportError: geopandas is not installed (pip install geopandas).
    """

    def __init__(
        self, path: Path, field: str | None, classes: Sequence[str] | None, background: str | None
    ) -> None:
        self.path, self.notes = path, []
        frame = self._read()
        self.field = self._choose(frame, field)
        names = [None if _missing(value) else _text(value) for value in frame[self.field]]
        if unnamed := sum(name is None for name in names):
            self.notes.append(f"{unnamed} polygons without a class are left out.")
        found = sorted({name for name in names if name is not None}, key=_order)
        known = list(classes) if classes is not None else found
        if background is not None and background not in known:
            known = [background, *known]
        if strange := [name for name in found if name not in known]:
            raise GeopeftError(
                f"{path} has {self.field} {', '.join(strange)}, which the class list lacks: "
                f"{', '.join(known)}. Add them to classes=, or take those polygons out."
            )
        if len(known) < 2:
            raise GeopeftError(
                f"{path} has one class only: {', '.join(known)}. If all ground outside the "
                "polygons is something else, name it with background='…'."
            )
        self.classes = tuple(known)
        self.outside = UNSET if background is None else known.index(background)
        kept = [name is not None for name in names]
        frame = frame[kept].assign(code=[known.index(name) for name in names if name is not None])
        self.frame = frame[["code", frame.geometry.name]]
        self._laid: dict[str, tuple[np.ndarray, np.ndarray, Any]] = {}

    def _read(self) -> Any:  # noqa: ANN401 - geopandas has no types
        frame = read_polygons(self.path)
        if frame.crs is None:
            raise GeopeftError(
                f"{self.path} has no coordinate reference system. Set it, for example with "
                "geopandas' set_crs; a Shapefile needs its .prj beside it."
            )
        shapes = frame.geometry.geom_type.isin(["Polygon", "MultiPolygon", "GeometryCollection"])
        if not shapes.any():
            raise GeopeftError(f"{self.path} has {len(frame)} features and no polygon among them.")
        if dropped := int((~shapes).sum()):
            self.notes.append(f"{dropped} features without a polygon are left out.")
        frame = frame[shapes]
        if invalid := int((~frame.geometry.is_valid).sum()):
            frame = frame.set_geometry(frame.geometry.make_valid())
            self.notes.append(f"{invalid} polygons crossed themselves and were mended.")
        frame = frame.explode(index_parts=False).reset_index(drop=True)
        return frame[(frame.geometry.geom_type == "Polygon") & ~frame.geometry.is_empty]

    def _choose(self, frame: Any, field: str | None) -> str:  # noqa: ANN401
        columns = [str(name) for name in frame.columns if name != frame.geometry.name]
        if field is not None:
            check_name(f"attribute of {self.path.name}", field, columns)
            return field
        by_name = {name.lower(): name for name in columns}
        usual = [by_name[name] for name in CLASS_FIELDS if name in by_name]
        if usual or len(columns) == 1:
            return (usual or columns)[0]
        shown = ", ".join(f"{name} ({frame[name].nunique()} values)" for name in columns)
        raise GeopeftError(
            f"No attribute of {self.path} is clearly the class. Choose with label_field=, from "
            f"{shown or 'none: there are no attributes'}."
        )

    def _near(self, image: Raster, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return polygons whose bounding box meets a part of an image, and their classes."""
        assert image.crs is not None
        if image.crs not in self._laid:  # plain arrays: a frame takes longer than the burning
            frame = self.frame.to_crs(image.crs)
            laid = (np.array(frame.geometry), np.array(frame["code"]), frame.sindex)
            self._laid[image.crs] = laid
        shapes, codes, index = self._laid[image.crs]
        found = np.sort(index.intersection(image.bounds_of(box)))
        return shapes[found], codes[found]

    def touch(self, image: Raster, box: Box) -> bool:
        """Say whether the bounding box of a polygon meets a part of an image."""
        return len(self._near(image, box)[0]) > 0

    def burn(self, image: Raster, box: Box) -> np.ndarray:
        """Return the classes on a part of an image: a pixel has what its centre lies in.

        Returns:
            (H, W) int32: index of the class; `OVERLAP` where classes differ; outside all polygons
            the background, or `UNSET`.
        """
        from rasterio.features import rasterize
        from rasterio.windows import transform as window_transform

        shape = (box.height, box.width)
        found = np.full(shape, self.outside, np.int32)
        shapes, codes = self._near(image, box)
        covered = np.zeros(shape, bool)
        for code in np.unique(codes):
            inside = rasterize(
                list(shapes[codes == code]), out_shape=shape, dtype="uint8",
                transform=window_transform(box.window, image.transform),
            ).astype(bool)  # fmt: skip
            found[inside] = code
            found[inside & covered] = OVERLAP
            covered |= inside
        return found


def _missing(value: object) -> bool:
    return value is None or value != value or value == ""


def _text(value: object) -> str:
    """Name a class; 3.0, as a column with gaps has it, is 3."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _order(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name
