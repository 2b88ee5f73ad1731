"""The command line, for a classroom: `python -m geopeft_nb --help` lists its commands."""

import argparse
import sys
from pathlib import Path

from geopeft_nb.errors import GeopeftError
from geopeft_nb.pictures.show import visible


def mirror(options: argparse.Namespace) -> int:
    """Fill a shared drive."""
    from geopeft_nb.classroom.mirror import choose, fill

    wanted = choose(options.lessons, options.also)
    missing = fill(options.dest, wanted, only_list=options.list)
    for name, reason in missing.items():
        print(f"geopeft_nb: {name} is missing: {reason}", file=sys.stderr)
    return 1 if missing else 0


def lessons(options: argparse.Namespace) -> int:
    """Copy notebooks, and say what became of each."""
    from geopeft_nb.classroom.mirror import hand_out

    for name, state in hand_out(options.dest, options.lessons).items():
        print(f"{name:<32} {state}")
    return 0


def draw_class(options: argparse.Namespace) -> int:
    """Draw who has passed what of each lesson as a page."""
    from geopeft_nb.classroom import results
    from geopeft_nb.classroom.check import lesson_folders, load_checks

    columns = []
    for number, folder in lesson_folders().items():
        columns += [*load_checks(folder), f"{number}/quiz"]
    table, damaged = results.read_results(options.dest, columns)
    for sentence in damaged:
        print(f"geopeft_nb: {visible(sentence)}", file=sys.stderr)
    results.draw_class(table, columns, options.out)
    print(f"Who passed what, and how often it was tried: {options.out}")
    return 1 if damaged else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the arguments name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 if something is missing or went wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m geopeft_nb", description="For a classroom.",
        epilog="To run a lesson, in a checkout: make run LESSON=01",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, words: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("dest", metavar="FOLDER", type=Path)
        return command

    fills = add("mirror", "copy what lessons need to a shared drive, for rooms without network")
    fills.add_argument("--also", nargs="+", default=[], metavar="NAME", help="more of them")
    fills.add_argument("--list", action="store_true", help="only show what would be copied")
    fills.set_defaults(run=mirror)
    copies = add("lessons", "copy the notebooks, exercises open, to a folder")
    copies.set_defaults(run=lessons)
    for command in (fills, copies):
        words = "'all' (the default), 'none', or numbers with commas"
        command.add_argument("--lessons", default="all", metavar="all|01,04", help=words)
    draws = add("class", "draw who has passed what, from collected files of results")
    draws.add_argument("--out", type=Path, default=Path("class.html"), help="page to write")
    draws.set_defaults(run=draw_class)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (GeopeftError, OSError) as error:
        print(f"geopeft_nb: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())
