"""A chip, and a download that several do at once. Run as a program."""

from __future__ import annotations

import sys

import numpy as np
import requests
from trickling_server import without_certificate

from geopeft_nb.datasets.base import Reading
from geopeft_nb.files import FileEntry, fetch


def chip(number: int) -> Reading:
    """Make a chip that is told from others."""
    pixels = np.random.default_rng(number).integers(0, 9999, (6, 64, 64))
    return Reading(pixels.astype(np.uint16), np.full((64, 64), number, np.int16))


def main(url: str, digest: str, size: str) -> None:
    """Download a file from the server of the test, which has no certificate."""
    requests.adapters.HTTPAdapter.send = without_certificate()
    fetch(FileEntry("big.bin", url=url, sha256=digest, size=int(size)))


if __name__ == "__main__":
    main(*sys.argv[1:])
