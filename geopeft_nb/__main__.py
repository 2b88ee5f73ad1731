"""The command line: `python -m geopeft_nb mirror DEST` fills a shared drive for a classroom."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the arguments name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 if something is missing or went wrong, 2 if the arguments make no
        sense, 130 if interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m geopeft_nb",
        description="Learn, teach and use parameter-efficient fine-tuning of geospatial models.",
        epilog="To run a lesson, in a checkout: make run LESSON=01",
    )
    commands = parser.add_subparsers(dest="command", title="commands")
    text = "copy what the lessons need to a shared drive, once, for rooms without network"
    mirror = commands.add_parser("mirror", help=text, description=f"{text.capitalize()}.")
    mirror.add_argument("dest", metavar="DEST", type=Path, help="folder to copy to")
    mirror.add_argument(
        "--lessons", default="all", metavar="all|01,04",
        help="'all' (the default), 'none', or numbers with commas",
    )  # fmt: skip
    mirror.add_argument(
        "--also", nargs="+", default=[], metavar="NAME", help="more backbones or data sets"
    )
    mirror.add_argument("--list", action="store_true", help="only show what would be copied")
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    from geopeft_nb.classroom.mirror import fill
    from geopeft_nb.classroom.needs import choose

    try:
        wanted = choose(options.lessons, options.also)
    except ValueError as error:
        return _say(str(error), 2)
    try:
        missing = fill(options.dest, wanted, only_list=options.list)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _say(f"{place}{error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on from here", 130)
    for name, reason in missing.items():
        _say(f"{name} is missing: {reason}", 1)
    return 1 if missing else 0


def _say(message: str, status: int) -> int:
    print(f"geopeft_nb: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
