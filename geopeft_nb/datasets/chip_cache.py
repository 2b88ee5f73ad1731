"""Decoded chips on disk: decoding a compressed GeoTIFF takes longer than training on it should."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from geopeft_nb.files import cache_folder

#: Bytes that stay free on the disk: with less, nothing more is kept.
RESERVE = 1_000_000_000

Decoded = tuple[np.ndarray, np.ndarray]


class ChipCache:
    """Keeps decoded chips below ``chips/`` in the cache folder, one pair of files each.

    Args:
        name: Name of the data set.
        key: Whatever else decides what a chip holds: folder, bands, size.
        enabled: False decodes each time.

    Example:
        >>> cache = ChipCache("toy", "bands 1-6", enabled=False)
        >>> image, mask = cache.read("a", lambda: (np.ones((6, 2, 2)), np.zeros((2, 2))))
    """

    def __init__(self, name: str, key: str, enabled: bool = True) -> None:
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        self.folder = cache_folder() / "chips" / f"{name}-{digest}"
        self.enabled = enabled

    def read(self, chip: str, decode: Callable[[], Decoded], source: Path | None = None) -> Decoded:
        """Return image and target as `decode` gave them, now or earlier.

        Args:
            chip: Name of the chip.
            decode: Reads it from its own files.
            source: Its file: what was kept before this changed is decoded again.

        Returns:
            Arrays that belong to the caller.
        """
        if not self.enabled:
            return decode()
        image_file = self.folder / f"{chip.replace(os.sep, '__')}.npy"
        target_file = image_file.with_suffix(".target.npy")
        try:
            if source is None or source.stat().st_mtime <= image_file.stat().st_mtime:
                return np.load(image_file), np.load(target_file)
        except (OSError, ValueError, EOFError):  # not there yet, or damaged
            pass
        image, target = decode()
        self._keep(target_file, target)
        self._keep(image_file, image)  # last: an image is never there without its target
        return image, target

    def _keep(self, path: Path, array: np.ndarray) -> None:
        if not self.enabled:
            return
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < RESERVE + array.nbytes:
                raise OSError(errno.ENOSPC, f"less than {RESERVE / 1e9:g} GB are free")
            with temporary.open("wb") as file:
                np.save(file, array)
            os.replace(temporary, path)
        except OSError as error:
            self.enabled = False
            temporary.unlink(missing_ok=True)
            warnings.warn(
                f"Decoded chips are not kept in {self.folder} ({error}): every epoch decodes them "
                "again. Set GEOPEFT_CACHE to another folder, or load_data(cache=False).",
                stacklevel=2,
            )
