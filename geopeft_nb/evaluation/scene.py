"""Map a whole scene that nobody labelled: imagery in, cloud-optimised GeoTIFFs out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geopeft_nb.pictures.facts import Facts


@dataclass(frozen=True, repr=False)
class Scene(Facts):
    """A scene that was mapped.

    Attributes:
        path: The class map (uint8, 255 for no data), or of a regression the values (float32).
        probability: Calibrated probability of the class; or None. Stored value x scale is 0-1.
        applicability: Distance from training in units of the threshold; or None. Scaled likewise.
        classes: Names of the classes by their index in the map, or of the values.
        colours: #rrggbb of each class.
        threshold: The applicability above which a pixel is unlike 95 % of training.
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
        return f"Map of {len(self.classes)} classes, {', '.join(self.classes)}", {
            "map": self.path,
            "probability": self.probability,
            "applicability": self.applicability,
            "polygons": self.polygons,
            "took": f"{self.seconds:.1f} s",
            "note": " ".join(self.notes),
        }
