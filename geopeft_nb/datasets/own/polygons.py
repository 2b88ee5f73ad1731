"""Polygons as labels: burned into each chip when it is read, and nowhere else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.datasets.own.rasters import Grid
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.open_files import read_polygons, refuse

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
        note: What was found.

    Raises:
        GeopeftError: No polygons or no coordinate reference system; no attribute is clearly the
            class; or there are values that are not in the class list.
    """

    def __init__(
        self, path: Path, field: str | None, classes: Sequence[str] | None, background: str | None
    ) -> None:
        frame = read_polygons(path)
        if np.isinf(frame.total_bounds).any():
            raise refuse(path, "it has infinite coordinates")
        if frame.crs is None:
            raise GeopeftError(
                f"{path} has no coordinate reference system. Set it, for example with "
                "geopandas' set_crs; a Shapefile needs its .prj beside it."
            )
        field = _class_field(path, frame, field)
        frame = frame.assign(name=frame[field].map(_text))
        unnamed, crossed = int(frame.name.isna().sum()), int((~frame.geometry.is_valid).sum())
        frame = frame[frame.name.notna()].explode(ignore_index=True)
        frame = frame[(frame.geometry.geom_type == "Polygon") & ~frame.geometry.is_empty]
        if frame.empty:
            raise GeopeftError(f"{path} has no polygon with a class.")
        found = sorted({*frame.name}, key=lambda x: (int(x) if x.isdecimal() else np.inf, x))
        known = list(found if classes is None else classes)
        if background is not None and background not in known:
            known = [background, *known]
        if strange := [name for name in found if name not in known]:
            raise GeopeftError(
                f"{path} has {field} {', '.join(strange)}, which the class list lacks: "
                f"{', '.join(known)}. Add them to classes=, or take those polygons out."
            )
        self.path, self.classes = path, tuple(known)
        self.outside = np.nan if background is None else known.index(background)
        self._frame = frame.assign(code=frame.name.map(known.index)).sort_values("code")
        self._laid: dict[str | None, Any] = {}
        self.note = (
            f"Classes are the values of {field}; {unnamed} polygons without one are left out, and "
            f"{crossed} that cross themselves are filled by the even-odd rule."
        )

    def near(self, grid: Grid, window: Any) -> Any:
        """Return polygons, in the grid's crs, whose bounding box meets a window."""
        if grid.crs not in self._laid:
            self._laid[grid.crs] = self._frame.to_crs(grid.crs)
        frame = self._laid[grid.crs]
        return frame.iloc[np.sort(frame.sindex.intersection(grid.bounds(window)))]

    def burn(self, grid: Grid, window: Any) -> np.ndarray:
        """Return the classes on a window (H, W): a pixel has what its centre lies in.

        Outside all polygons it is the background, or NaN; NaN where classes overlap.
        """
        from rasterio.features import rasterize
        from rasterio.windows import transform

        shape, step = (int(window.height), int(window.width)), transform(window, grid.transform)
        near = self.near(grid, window)
        if near.empty:
            return np.full(shape, float(self.outside))
        shapes = [*zip(near.geometry, near.code, strict=True)]
        # what is burned last stays, so where classes overlap these are the last and the first
        last, first = (
            rasterize(some, shape, -1, transform=step, dtype="int32")
            for some in (shapes, shapes[::-1])
        )
        return np.where(last != first, np.nan, np.where(last < 0, self.outside, last))


def _class_field(path: Path, frame: Any, field: str | None) -> str:
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if field is not None:
        check_name(f"attribute of {path.name}", field, columns)
        return field
    by_name = {name.lower(): name for name in columns}
    usual = [by_name[name] for name in CLASS_FIELDS if name in by_name]
    if usual or len(columns) == 1:
        return (usual or columns)[0]
    shown = ", ".join(f"{name} ({frame[name].map(_text).nunique()} values)" for name in columns)
    raise GeopeftError(
        f"No attribute of {path} is clearly the class. Choose with label_field=, from "
        f"{shown or 'none: there are no attributes'}."
    )


def _text(value: object) -> str | None:
    """Name a class; 3.0, as a column with gaps has it, is 3; nothing is None."""
    if value is None or value != value or value == "":
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
