"""Decoded chips on disk: decoding a compressed GeoTIFF takes longer than training on it should."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from geopeft_nb.datasets.base import Reading
from geopeft_nb.files import cache_folder, check_space, checksum_of
from geopeft_nb.writing import written_beside


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
            sources: Its files. Their checksums are part of the key, and no times: the checksum of
                2 MB takes a millisecond, decoding them fifty.

        Returns:
            Arrays that belong to the caller.
        """
        if not self.enabled:
            return decode()
        file = self.file(chip, sources)
        if kept := _load(file):
            return kept
        reading = decode()
        try:
            check_space(self.folder, reading.image.nbytes, "A decoded chip")
            about = json.dumps([reading.crs, reading.bounds])
            with written_beside(file) as written:
                np.savez(written, image=reading.image, target=reading.target, about=about)
        except OSError as error:
            self.enabled = False
            warnings.warn(
                f"Decoded chips are not kept in {self.folder} ({error}): every epoch decodes them "
                "again. Set GEOPEFT_CACHE to another folder, or load_data(cache=False).",
                stacklevel=2,
            )
        return reading

    def file(self, chip: str, sources: Sequence[Path] = ()) -> Path:
        """Return where a chip of this name is kept that was decoded from this content."""
        content = repr((chip, [checksum_of(path) for path in sources]))
        return self.folder / f"{hashlib.sha256(content.encode()).hexdigest()}.npz"


def _load(file: Path) -> Reading | None:
    """Return a kept chip; None if there is none, or a damaged one."""
    try:
        with np.load(file) as kept:
            crs, bounds = json.loads(kept["about"].item())
            bounds = tuple(bounds) if bounds else None
            return Reading(kept["image"], kept["target"], crs, bounds)
    except Exception:  # damage has many errors, and none matters: the chip is decoded again
        return None
