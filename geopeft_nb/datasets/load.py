"""Load a data set by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pandas as pd

from geopeft_nb.datasets import hls_water, scenes
from geopeft_nb.datasets.base import DataCard, GeoData
from geopeft_nb.errors import unknown_name

LOADERS: dict[str, tuple[DataCard, Callable[..., GeoData]]] = {
    "scenes": (scenes.CARD, scenes.load_scenes),
    "hls_water": (hls_water.CARD, hls_water.load_hls_water),
}


def load_data(
    name: str,
    root: str | os.PathLike[str] | None = None,
    bands: Sequence[str] | None = None,
    size: int | None = None,
    train_regions: Sequence[str] | None = None,
    holdout_regions: Sequence[str] | None = None,
    seed: int = 0,
) -> GeoData:
    """Load a data set, split by place and by region.

    Args:
        name: A name that `gp.datasets()` lists.
        root: Folder of the files; None looks in what ships and in the mirror.
        bands: Bands to keep, in this order; None keeps all.
        size: Chip side in pixels; None takes the data set's own.
        train_regions: Home regions, split into train, validation and test by place.
        holdout_regions: Regions that training never sees; None takes all others.
        seed: Seed of the split by place.

    Returns:
        Data with `.train`, `.val`, `.test` and `.holdout[region]`.

    Raises:
        ValueError: Unknown name, region or band, or a region without chips.
        FileNotFoundError: The files are not on this machine.
    """
    if name not in LOADERS:
        raise unknown_name("data set", name, LOADERS)
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ValueError(f"size is the chip side in pixels, a whole number above 0; got {size!r}.")
    if isinstance(bands, str):
        raise ValueError(f"bands must be a list of names, for example [{bands!r}].")
    for argument, regions in (("train", train_regions), ("holdout", holdout_regions)):
        if isinstance(regions, str):
            raise ValueError(f"{argument}_regions must be a list, for example [{regions!r}].")
    _, loader = LOADERS[name]
    folder = os.fspath(root) if root is not None else None
    return loader(folder, bands, size, train_regions, holdout_regions, seed)


def datasets() -> pd.DataFrame:
    """List the data sets that `load_data` knows, one row each."""
    rows = [
        {
            "name": card.name,
            "title": card.title,
            "task": card.task,
            "regions": ", ".join(card.regions),
            "pixel (m)": card.resolution,
            "labels": card.labels,
            "licence": card.licence,
            "synthetic": card.synthetic,
        }
        for card, _ in LOADERS.values()
    ]
    return pd.DataFrame(rows).set_index("name")
