"""Decoded chips on disk: decoding a compressed GeoTIFF takes longer than training on it should."""

import hashlib
import json
import warnings
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

    A disk without room, or a folder that cannot be written, costs time and no training run: the
    chip is decoded at each reading, and a warning says so.

    Args:
        file: From `entry`.
        decode: Reads the chip from its own files.
    """
    try:
        with np.load(file) as stored:
            crs, bounds = json.loads(stored["about"].item())
            return Reading(stored["image"], stored["target"], crs, bounds and tuple(bounds))
    except Exception:  # none is kept, or a damaged one, which has many errors: decode it
        reading = decode()
    try:
        check_space(file.parent, reading.image.nbytes, "A decoded chip")
        with written_beside(file) as written:
            about = json.dumps([reading.crs, reading.bounds])
            np.savez(written, image=reading.image, target=reading.target, about=about)
    except OSError:
        warnings.warn(  # the same words for each chip, so that Python shows them once
            f"Decoded chips are not kept in {file.parent}: it cannot be written or the disk is "
            "full, and every epoch decodes them again. Free some space, set GEOPEFT_CACHE to "
            "another folder, or load_data(cache=False).",
            stacklevel=2,
        )
    return reading
