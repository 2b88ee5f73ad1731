"""Decoded chips on disk: decoding a compressed GeoTIFF takes longer than training on it should."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from geopeft_nb.datasets.base import Reading
from geopeft_nb.files import cache_folder, check_space, checksum_of
from geopeft_nb.writing import written_beside


def entry(name: str, key: object, sources: Sequence[Path] = ()) -> Path:
    """Return where a decoded chip is kept, below ``chips/`` in the cache folder.

    Args:
        name: Name of the data set.
        key: Whatever decides what the chip holds: its name, square and bands.
        sources: The files that it was decoded from. Their checksums are part of the key, and no
            times: the checksum of 2 MB takes a millisecond, decoding them fifty.
    """
    content = repr((key, [checksum_of(path) for path in sources]))
    return cache_folder() / "chips" / name / f"{hashlib.sha256(content.encode()).hexdigest()}.npz"


def kept(file: Path, decode: Callable[[], Reading]) -> Reading:
    """Return pixels and where they lie as `decode` gave them, now or earlier.

    Args:
        file: From `entry`.
        decode: Reads the chip from its own files.

    Raises:
        NotWrittenError: The disk has too little room, or the folder cannot be written.
    """
    try:
        with np.load(file) as stored:
            crs, bounds = json.loads(stored["about"].item())
            return Reading(stored["image"], stored["target"], crs, bounds and tuple(bounds))
    except Exception:  # none is kept, or a damaged one, which has many errors: decode it
        reading = decode()
    check_space(file.parent, reading.image.nbytes, "With cache=True a decoded chip")
    with written_beside(file) as written:
        about = json.dumps([reading.crs, reading.bounds])
        np.savez(written, image=reading.image, target=reading.target, about=about)
    return reading
