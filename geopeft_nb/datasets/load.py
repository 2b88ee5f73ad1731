"""Load a data set by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Any

import pandas as pd

from geopeft_nb.datasets import hls_water, scenes
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData
from geopeft_nb.datasets.own import load as own
from geopeft_nb.datasets.published import burn_scars, eurosat, geobench, reben, sen1floods11
from geopeft_nb.datasets.sandbox import load as sandbox
from geopeft_nb.errors import check_arguments, check_name, check_names, check_values
from geopeft_nb.pictures.listing import Listing

#: Name -> its card, and the function that loads it. What the function takes beside the request are
#: the data set's own options.
LOADERS: dict[str, tuple[DataCard, Callable[..., GeoData]]] = {
    "scenes": (scenes.CARD, scenes.load_scenes),
    "sandbox": (sandbox.CARD, sandbox.load_sandbox),
    "folder": (own.CARD, own.load_folder),
    "eurosat": (eurosat.CARD, eurosat.load_eurosat),
    "hls_water": (hls_water.CARD, hls_water.load_hls_water),
    "sen1floods11": (sen1floods11.CARD, sen1floods11.load_sen1floods11),
    "burn_scars": (burn_scars.CARD, burn_scars.load_burn_scars),
    "reben_7k": (reben.CARD, reben.load_reben),
    "m_cashew_plantation": (geobench.CASHEW, geobench.load_cashew),
    "m_sa_crop_type": (geobench.SA_CROP, geobench.load_sa_crop),
}


@check_arguments
def load_data(
    name: str, root: str | os.PathLike[str] | None = None, bands: Sequence[str] | None = None,
    size: int | None = None, train_regions: Sequence[str] | None = None,
    holdout_regions: Sequence[str] | None = None, download: bool = True, seed: int = 0,
    cache: bool = True,
    **options: Any,
) -> GeoData:  # fmt: skip
    """Load a data set, split by place and by region.

    Nothing is read but what names the chips; each chip is read when it is asked for.

    Args:
        name: A name that `gp.list_datasets()` lists.
        root: Folder of the files; None looks in what ships, in the mirror and in the cache, and
            then downloads, where that is possible.
        bands: Bands to keep, in this order; None takes those of the card.
        size: Chip side in pixels; None takes the data set's own.
        train_regions: Home regions, split into train, validation and test by place.
        holdout_regions: Regions that training never sees; None takes all others.
        download: False never downloads, and says what is missing.
        seed: Seed of the split by place, and of data that are generated.
        cache: Keep decoded chips on disk where decoding takes long (in the folder GEOPEFT_CACHE).
        **options: The data set's own options, which an error lists, for example
            ``split="by_tile"`` of burn_scars, ``task`` and ``shift`` of sandbox, or what the files
            of folder do not say of themselves: see `geopeft_nb.datasets.own.load.load_folder`.

    Returns:
        Data with `.train`, `.val`, `.test` and `.holdout[region]`.

    Raises:
        ValueError: Unknown name, option, region or band, a region without chips, or a place on
            two sides that the data set claims to keep apart.
        FileNotFoundError: The files are not on this machine and cannot be downloaded.
    """
    check_name("data set", name, LOADERS)
    _, loader = LOADERS[name]
    takes = signature(loader).parameters
    known = {*signature(load_data).parameters, *takes} - {"options", "request"}
    check_names(f"option of {name}", options, known)
    check_values(options, {option: takes[option].annotation for option in options})
    where = os.fspath(root) if root is not None else None
    request = DataRequest(where, bands, size, train_regions, holdout_regions, download, seed, cache)
    return loader(request, **options)


def leave_one_region_out(name: str, **arguments: Any) -> Iterator[tuple[str, GeoData]]:
    """Load a data set once for each region, which is held out while the others are home.

    Args:
        name: A name that `gp.list_datasets()` lists.
        **arguments: Of `load_data`, except train_regions and holdout_regions.

    Yields:
        The name of the region that is held out, and the data.

    Raises:
        ValueError: See `load_data`.

    Example:
        >>> for away, data in leave_one_region_out("scenes"):
        ...     print(away, len(data.train), len(data.holdout[away]))
        virginia 44 225
        brandenburg 136 72
    """
    check_name("data set", name, LOADERS)
    everywhere = LOADERS[name][0].regions
    for away in everywhere:
        home = [region for region in everywhere if region != away]
        yield away, load_data(name, train_regions=home, holdout_regions=[away], **arguments)


def list_datasets(full: bool = False) -> pd.DataFrame:
    """List the data sets that `load_data` knows, one row each.

    Args:
        full: Show all facts of their cards, not only those that help to choose.
    """
    table = pd.DataFrame([vars(card) for card, _ in LOADERS.values()]).set_index("name")
    chosen = "title task predicts regions resolution labels licence synthetic".split()
    return Listing(table if full else table[chosen])
