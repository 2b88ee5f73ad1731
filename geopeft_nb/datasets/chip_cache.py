"""Decoded chips on disk: decoding a compressed GeoTIFF takes longer than training on it should."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from geopeft_nb.datasets.base import Reading
from geopeft_nb.files import cache_folder, check_space
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
            sources: Its files: what was kept before one of them changed is decoded again.

        Returns:
            Arrays that belong to the caller.
        """
        if not self.enabled:
            return decode()
        where = zlib.crc32(repr(sources).encode())
        file = self.folder / f"{chip.replace(os.sep, '__')}-{where:08x}.npz"
        try:
            if all(path.stat().st_mtime <= file.stat().st_mtime for path in sources):
                with np.load(file) as kept:
                    bounds = tuple(kept["bounds"].tolist()) or None
                    return Reading(kept["image"], kept["target"], str(kept["crs"]) or None, bounds)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # not there yet, or damaged
        reading = decode()
        try:
            self._keep(file, reading)
        except OSError as error:
            self.enabled = False
            warnings.warn(
                f"Decoded chips are not kept in {self.folder} ({error}): every epoch decodes them "
                "again. Set GEOPEFT_CACHE to another folder, or load_data(cache=False).",
                stacklevel=2,
            )
        return reading

    def _keep(self, file: Path, chip: Reading) -> None:
        """Write a file whole or not at all."""
        check_space(self.folder, chip.image.nbytes, "A decoded chip")
        crs, bounds = chip.crs or "", chip.bounds or ()
        with written_beside(file) as written:
            np.savez(written, image=chip.image, target=chip.target, crs=crs, bounds=bounds)
