"""Folds whose test is as far from training as the places where a model will be used.

A random fold lies beside its training places, and flatters a map of elsewhere; a whole region held
out may be further away than the map will ever go. Linnenbrink et al. 2024 (kNNDM,
doi:10.5194/gmd-17-5897-2024) choose, of many ways to cut the places into clusters, the one whose
distances from test to training are most like those from the map to training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.split import deal
from geopeft_nb.errors import GeopeftError, whole

EARTH = 6371.0  # km
#: Numbers of clusters that are tried, from one a fold to one a place, and share for validation.
TRIED, VALIDATION = 20, 0.25


def knndm_folds(data: GeoData, k: int = 5, to: Any = None, seed: int = 0) -> Iterator[GeoData]:
    """Deal the places at home anew, k times, each time with others as test.

    Args:
        data: From `load_data`, with chips whose location is known.
        k: Number of folds.
        to: (N, 2) latitude and longitude in degrees of where the model will be used; None takes
            the held-out regions.
        seed: Seed of the order in which places that are alike are taken, and of validation.

    Yields:
        The data with the fold's test, and training and validation on the other places; regions that
        are held out stay so. Its notes say how far test and target lie from training.

    Raises:
        ValueError: Fewer than two places a fold, chips without a location, or nothing to go to.

    Source: Linnenbrink et al. 2024, doi:10.5194/gmd-17-5897-2024.

    Example:
        >>> for fold in gp.knndm_folds(gp.load_data("scenes"), k=3):
        ...     print(len(fold.train), len(fold.val), len(fold.test))
    """
    parts = (data.train, data.val, data.test)
    chips = [chip for part in parts for chip in part.chips]
    places, of = np.unique([chip.place for chip in chips], return_inverse=True)
    if len(places) < 4:
        raise GeopeftError(f"{len(places)} places at home: two folds need two places each.")
    k = whole("k", k, 2, len(places) // 2)
    points = _points(parts)
    here = np.stack([points[of == number].mean(0) for number in range(len(places))])
    if to is None and not data.holdout:
        raise GeopeftError("No region is held out: say with to= where the model will be used.")
    there = _points(data.holdout.values()) if to is None else _on_earth(to)
    wanted = cKDTree(here).query(there)[0]
    fold_of, found = _most_alike(here, wanted, k, np.random.default_rng(seed))
    note = (
        f"kNNDM: half of the test lies within {np.median(found):,.3g} km of training, half of "
        f"where the model will be used within {np.median(wanted):,.3g} km."
    )
    for number in range(k):
        others = np.flatnonzero(fold_of != number)
        others = np.random.default_rng([seed, number]).permutation(others)
        side = np.where(fold_of == number, 2, 0)
        side[others[: max(1, round(VALIDATION * len(others)))]] = 1
        train, held, test = (
            replace(data.train, chips=[chips[index] for index in np.flatnonzero(side[of] == one)])
            for one in range(3)
        )
        told = (*data.notes, f"Fold {number + 1} of {k} by {note}")
        yield replace(data, train=train, val=held, test=test, notes=told)


def _points(parts: Iterable[ChipDataset]) -> NDArray[np.float64]:
    """Return (N, 3) where the chips of data sets lie."""
    found = []
    for part in parts:
        for sample in part:
            if "location" not in sample:
                raise GeopeftError(f"Chip {sample['name']!r} does not say where it lies.")
            found.append(sample["location"].numpy())
    return _on_earth(found)


def _on_earth(given: Any) -> NDArray[np.float64]:
    """Return latitude and longitude (N, 2) as points in space, in km: no edge at 180 degrees."""
    try:
        degrees = np.asarray(given, float)
    except (OverflowError, TypeError, ValueError):
        degrees = np.empty(0)
    pairs = degrees.size and degrees.shape[1:] == (2,)
    if not pairs or not (np.abs(degrees) <= (90, 360)).all():
        raise GeopeftError(f"to takes (N, 2) latitudes and longitudes, not {given!r:.100}.")
    latitude, longitude = np.radians(degrees).T
    flat = np.cos(latitude)
    points = flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)
    return EARTH * np.stack(points, axis=1)


def _most_alike(
    here: NDArray[np.float64], wanted: NDArray[np.float64], k: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the fold of each place whose distances to the other folds are most as wanted."""
    tree = linkage(here, "ward")
    tried = []
    for count in np.unique(np.geomspace(k, len(here), TRIED).round().astype(int)):
        cluster = cut_tree(tree, count)[:, 0]
        fold = deal(np.bincount(cluster), [1 / k] * k, rng)[cluster]
        found = np.empty(len(here))
        for number in range(k):
            inside = fold == number
            found[inside] = cKDTree(here[~inside]).query(here[inside])[0]
        tried.append((wasserstein_distance(found, wanted), fold, found))
    _, fold, found = min(tried, key=lambda one: one[0])
    return fold, found
