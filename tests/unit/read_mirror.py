"""One learner's machine: says that it is ready, waits for the others, reads. Run as a program."""

from __future__ import annotations

import hashlib
import sys

from geopeft_nb.files import FileEntry, fetch, find_dataset


def main(path: str, sha256: str, folder: str) -> None:
    """Fetch a file and read a data set's folder; print one checksum of all bytes."""
    print("ready", flush=True)
    sys.stdin.readline()
    content = hashlib.sha256(fetch(FileEntry(path, sha256=sha256)).read_bytes())
    found = find_dataset(folder)
    assert found is not None
    for chip in sorted(found.rglob("*.bin")):
        content.update(chip.read_bytes())
    print(content.hexdigest(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
