"""What the tests kill half-way: a download, an extraction, a cache of chips. Run as a program."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from geopeft_nb.datasets.base import Reading

CHIPS = 200


def chip(number: int) -> Reading:
    """A chip that is large enough to be caught half-written."""
    time.sleep(0.001)
    pixels = np.random.default_rng(number).integers(0, 9999, (6, 64, 64))
    return Reading(pixels.astype(np.uint16), np.full((64, 64), number, np.int16))


def main(what: str, *arguments: str) -> None:
    """Do one of them; `started` on standard output says that it has begun."""
    # Each imports what it needs before it begins, so that no kill comes while it is imported.
    if what == "download":
        import pooch  # noqa: F401
        import requests
        from trickling_server import without_certificate

        from geopeft_nb import files

        requests.adapters.HTTPAdapter.send = without_certificate()
        url, digest, size = arguments
        print("started", flush=True)
        files.fetch(files.FileEntry("big.bin", url=url, sha256=digest, size=int(size)))
    elif what == "extract":
        from geopeft_nb import archives

        print("started", flush=True)
        archives.extract([Path(arguments[0])], Path(arguments[1]))
    elif what == "chips":
        from geopeft_nb.datasets.chip_cache import ChipCache

        cache = ChipCache("killed", "key")
        print("started", flush=True)
        for number in range(CHIPS):
            time.sleep(0.002)  # the whole takes longer than all tries of the test together
            cache.read(f"chip/{number}", lambda number=number: chip(number))
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
