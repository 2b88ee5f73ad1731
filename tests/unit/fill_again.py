"""Filling a mirror, slowly enough to be killed half-way. Run as a program."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from geopeft_nb.classroom import mirror


def main(dest: str, *names: str) -> None:
    """Copy what has these names; `started` on standard output says that it begins."""
    copyfile = shutil.copyfile

    def slow(source: Path, target: Path) -> Path:
        time.sleep(0.02)
        return copyfile(source, target)

    mirror.published_files = lambda name: []  # whether one publishes any takes seconds to find out
    shutil.copyfile = slow  # type: ignore[assignment]
    print("started", flush=True)
    sys.exit(len(mirror.fill(Path(dest), dict.fromkeys(names, ()))))


if __name__ == "__main__":
    main(*sys.argv[1:])
