"""Decoded chips on disk: decoding a compressed GeoTIFF takes longer than training on it should."""

from __future__ import annotations

import hashlib
import json
import re
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.datasets.base import Reading
from geopeft_nb.files import cache_folder, check_space, checksum_of
from geopeft_nb.writing import written_beside

#: Nanoseconds in which a file may change twice without another time of change, with a margin.
YOUNG = 2_000_000_000


class ChipCache:
    """Keeps decoded chips below ``chips/`` in the cache folder, a file each.

    Args:
        name: Name of the data set.
        key: Whatever else decides what a chip holds: bands, size.
        enabled: False decodes each time.

    Example:
        >>> cache = ChipCache("toy", "bands 1-6", enabled=False)
        >>> chip = cache.read("a", lambda: Reading(np.ones((6, 2, 2)), np.zeros((2, 2))))
    """

    def __init__(self, name: str, key: str, enabled: bool = True) -> None:
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        self.folder = cache_folder() / "chips" / f"{name}-{digest}"
        self.enabled = enabled

    def read(
        self, chip: str, decode: Callable[[], Reading], sources: Sequence[Path] = ()
    ) -> Reading:
        """Return pixels and where they lie as `decode` gave them, now or earlier.

        Args:
            chip: Name of the chip.
            decode: Reads it from its own files.
            sources: Its files: once the content of one has changed, the chip is decoded again. Only
                a file of another size, time of change or inode is read to tell, for its checksum.

        Returns:
            Arrays that belong to the caller.
        """
        if not self.enabled:
            return decode()
        whose = repr((chip, [str(path.absolute()) for path in sources]))
        digest = hashlib.sha256(whose.encode()).hexdigest()
        file = self.folder / f"{re.sub('[^A-Za-z0-9]', '_', chip)[-50:]}-{digest}.npz"
        states, kept = [_state(path) for path in sources], _load(file)
        if kept and kept[1] == states:
            return kept[0]
        checksums = [checksum_of(path) for path in sources]  # before decoding: a change then shows
        reading = kept[0] if kept and kept[2] == checksums else decode()
        try:
            self._keep(file, reading, states, checksums)
        except OSError as error:
            self.enabled = False
            warnings.warn(
                f"Decoded chips are not kept in {self.folder} ({error}): every epoch decodes them "
                "again. Set GEOPEFT_CACHE to another folder, or load_data(cache=False).",
                stacklevel=2,
            )
        return reading

    def _keep(self, file: Path, chip: Reading, *facts: list[Any]) -> None:
        """Write a file whole or not at all."""
        check_space(self.folder, chip.image.nbytes, "A decoded chip")
        about = json.dumps([*facts, chip.crs, chip.bounds])
        with written_beside(file) as written:
            np.savez(written, image=chip.image, target=chip.target, about=about)


def _state(path: Path) -> list[int]:
    """Return what changes with a file, though not at once: of a young one no two are the same."""
    found, now = path.stat(), time.time_ns()
    changed = found.st_ctime_ns if now - found.st_ctime_ns > YOUNG else now
    return [found.st_size, found.st_mtime_ns, changed, found.st_ino]


def _load(file: Path) -> tuple[Reading, list[Any], list[Any]] | None:
    """Return a kept chip, the states and the checksums of its files; None if damaged, or absent."""
    try:
        with np.load(file) as kept:
            states, checksums, crs, bounds = json.loads(kept["about"].item())
            bounds = tuple(bounds) if bounds else None
            return Reading(kept["image"], kept["target"], crs, bounds), states, checksums
    except Exception:  # damage has many errors, and none matters: the chip is decoded again
        return None
