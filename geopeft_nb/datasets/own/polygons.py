"""Polygons as labels: burned into each chip when it is read, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.datasets.own.rasters import Grid
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.open_files import read_polygons

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
        GeopeftError: No polygons or no coordinate reference system; no attribute is clearly the
            class; or there are values that are not in the class list.
    """

    def __init__(
        self, path: Path, field: str | None, classes: Sequence[str] | None, background: str | None
    ) -> None:
        self.path, self.notes = path, list[str]()
        frame = self._areas()
        self.field = self._choose(frame, field)
        frame = frame.assign(name=[_text(value) for value in frame[self.field]])
        if unnamed := int(frame["name"].isna().sum()):
            self.notes.append(f"{unnamed} polygons without a class are left out.")
        frame = frame[frame["name"].notna()]
        found = sorted(set(frame["name"]), key=lambda x: (int(x) if x.isdecimal() else np.inf, x))
        known = list(classes) if classes is not None else found
        if background is not None and background not in known:
            known = [background, *known]
        codes = {name: code for code, name in enumerate(known)}
        if strange := [name for name in found if name not in codes]:
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
        self.outside = np.nan if background is None else codes[background]
        self.frame = frame[[frame.geometry.name]].assign(code=frame["name"].map(codes))
        self._laid: dict[str, tuple[np.ndarray, np.ndarray, Any]] = {}

    def _areas(self) -> Any:  # noqa: ANN401 - geopandas has no types
        frame = read_polygons(self.path)
        if frame.crs is None:
            raise GeopeftError(
                f"{self.path} has no coordinate reference system. Set it, for example with "
                "geopandas' set_crs; a Shapefile needs its .prj beside it."
            )
        shapes = frame.geometry.geom_type.isin(["Polygon", "MultiPolygon", "GeometryCollection"])
        if not shapes.any():
            raise GeopeftError(f"{self.path} has {len(frame)} features and no polygon among them.")
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

    def _near(self, grid: Grid, window: Any) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401
        """Return polygons whose bounding box meets a window, and their classes."""
        assert grid.crs is not None
        if grid.crs not in self._laid:  # plain arrays: a frame takes longer than the burning
            frame = self.frame.to_crs(grid.crs)
            laid = (np.array(frame.geometry), np.array(frame["code"]), frame.sindex)
            self._laid[grid.crs] = laid
        shapes, codes, index = self._laid[grid.crs]
        found = np.sort(index.intersection(grid.bounds(window)))
        return shapes[found], codes[found]

    def touch(self, grid: Grid, window: Any) -> bool:  # noqa: ANN401 - rasterio's
        """Say whether a window may have a label."""
        return bool(self.outside == self.outside or len(self._near(grid, window)[0]))

    def burn(self, grid: Grid, window: Any) -> np.ndarray:  # noqa: ANN401 - rasterio's
        """Return the classes on a window (H, W): a pixel has what its centre lies in.

        Outside all polygons it is the background, or NaN; NaN where classes overlap.
        """
        from rasterio.features import rasterize
        from rasterio.windows import transform

        shape = (int(window.height), int(window.width))
        found, covered = np.full(shape, float(self.outside)), np.zeros(shape, bool)
        shapes, codes = self._near(grid, window)
        for code in np.unique(codes):
            inside = rasterize(
                list(shapes[codes == code]), out_shape=shape, dtype="uint8",
                transform=transform(window, grid.transform),
            ).astype(bool)  # fmt: skip
            found[inside] = np.where(covered[inside], np.nan, code)
            covered |= inside
        return found

    def elsewhere(self, path: Path, grid: Grid) -> GeopeftError:
        """Make the error for polygons of which none lies on an image."""
        here = ", ".join(f"{value:.8g}" for value in grid.bounds() or ())
        there = ", ".join(f"{x:.8g}" for x in self.frame.to_crs(grid.crs).total_bounds)
        return GeopeftError(
            f"{self.path} has no polygon on any image: the polygons lie in ({there}), {path.name} "
            f"in ({here}), {grid.crs}. Is its coordinate reference system right?"
        )


def _text(value: object) -> str | None:
    """Name a class; 3.0, as a column with gaps has it, is 3; nothing is None."""
    if value is None or value != value or value == "":
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
