"""Maps: image, label, prediction and where they differ, first as a figure, then interactive."""

from geopeft_nb.maps.compare import RegionMap, map_regions

__all__ = ["RegionMap", "map_regions"]
