"""The command line: `python -m geopeft_nb mirror DEST` fills a shared drive for a classroom."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from geopeft_nb.errors import GeopeftError


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the arguments name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 if something is missing or went wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m geopeft_nb",
        description="Copy what lessons need to a shared drive, once, for rooms without network.",
        epilog="To run a lesson, in a checkout: make run LESSON=01",
    )
    parser.add_argument("command", choices=["mirror"])
    parser.add_argument("dest", metavar="DEST", type=Path, help="folder to copy to")
    parser.add_argument(
        "--lessons", default="all", metavar="all|01,04",
        help="'all' (the default), 'none', or numbers with commas",
    )  # fmt: skip
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="NAME", help="more backbones or data sets"
    )
    parser.add_argument("--list", action="store_true", help="only show what would be copied")
    options = parser.parse_args(arguments)
    from geopeft_nb.classroom.mirror import fill
    from geopeft_nb.classroom.needs import choose

    try:
        wanted = choose(options.lessons, options.also)
        missing = fill(options.dest, wanted, only_list=options.list)
    except (GeopeftError, OSError) as error:
        print(f"geopeft_nb: {error}", file=sys.stderr)
        return 1
    for name, reason in missing.items():
        print(f"geopeft_nb: {name} is missing: {reason}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
