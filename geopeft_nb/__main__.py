"""The command line, for a classroom: `python -m geopeft_nb --help` lists its commands."""

import argparse
import sys
from pathlib import Path

from geopeft_nb.classroom.check import lesson_folders, load_checks
from geopeft_nb.classroom.mirror import choose, fill, hand_out
from geopeft_nb.classroom.results import draw_class
from geopeft_nb.errors import GeopeftError
from geopeft_nb.pictures.show import visible


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the arguments name; None takes those of the process.

    Returns:
        Exit status: 0, or 1 if something is missing or went wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m geopeft_nb", description="For a classroom.",
        epilog="To run a lesson, in a checkout: make run LESSON=01",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, words in (
        ("mirror", "copy what lessons need to a shared drive, for rooms without network"),
        ("lessons", "copy the notebooks, exercises open, to a folder"),
        ("class", "draw who has passed what, from collected files of results"),
    ):
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("dest", metavar="FOLDER", type=Path)
        if name == "class":
            page = Path("class.html")
            command.add_argument("--out", type=Path, default=page, help="page to write")
            continue
        words = "'all' (the default), 'none', or numbers with commas"
        command.add_argument("--lessons", default="all", metavar="all|01,04", help=words)
        if name == "mirror":
            command.add_argument("--also", nargs="+", default=[], metavar="NAME", help="more")
            command.add_argument("--list", action="store_true", help="only show what would come")
    options = parser.parse_args(arguments)
    wrong: list[str] = []
    try:
        if options.command == "mirror":
            wanted = choose(options.lessons, options.also)
            wrong = fill(options.dest, wanted, only_list=options.list)
        elif options.command == "lessons":
            hand_out(options.dest, options.lessons)
        else:
            lessons = lesson_folders().items()
            columns = [name for n, path in lessons for name in (*load_checks(path), f"{n}/quiz")]
            wrong = draw_class(options.dest, columns, options.out)
    except (GeopeftError, OSError) as error:
        wrong = [str(error)]
    for sentence in wrong:
        print(f"geopeft_nb: {visible(sentence)}", file=sys.stderr)
    return min(1, len(wrong))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())
