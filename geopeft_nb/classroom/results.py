"""Who has passed what: a learner's results in a small file, those of a class in a table.

Nothing is noted unless the environment variable GEOPEFT_RESULTS names a file, such as
`results/ada.jsonl`; the first line that goes there is announced. A teacher collects the files, and
`python -m geopeft_nb class FOLDER` draws them. They tell who needs help and are no marks: whoever
has such a file can edit it.
"""

import json
import os
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import named_path
from geopeft_nb.pictures.show import filled, visible
from geopeft_nb.writing import written_beside

#: Begins a page of ours, which alone may be replaced.
_MARK = "<!doctype html><!-- geopeft_nb class -->"
#: Student -> column, such as "04/directions" or "04/quiz" -> what stands there.
Table = dict[str, dict[str, str]]


def note(**entry: object) -> None:
    """Add a line to the file that GEOPEFT_RESULTS names, if it names one.

    A file that cannot be written keeps nobody from learning: it is told, and that is all.

    Raises:
        GeopeftError: GEOPEFT_RESULTS names something else than a .jsonl file.
    """
    if not (named := os.environ.get("GEOPEFT_RESULTS")):
        return
    path = named_path(named, "GEOPEFT_RESULTS").absolute()
    if path.suffix != ".jsonl":
        raise GeopeftError(
            f"GEOPEFT_RESULTS must name a file that ends in .jsonl, such as ada.jsonl, got {named}."
        )
    time = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time, **entry}) + "\n")
        _announce(f"What you pass and answer is noted in {path} (GEOPEFT_RESULTS).")
    except OSError as error:
        _announce(f"Nothing could be noted in {path}: {error}. All else works.")


@cache
def _announce(words: str) -> None:
    """Print a sentence once."""
    print(visible(words), file=sys.stderr)


def read_results(folder: Path, columns: list[str]) -> tuple[Table, list[str]]:
    """Read the files of a class, those in folders within it as well.

    Args:
        folder: Where they were collected. The name of a file is that of the student.
        columns: Exercises and quizzes that there are.

    Returns:
        What each student has, and a sentence for each file that is damaged.

    Raises:
        GeopeftError: There is none.
    """
    table: Table = {}
    damaged = []
    for path in sorted(folder.expanduser().rglob("*.jsonl")):
        student = path.relative_to(folder.expanduser()).with_suffix("").as_posix()
        try:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > 2_000_000:
                raise ValueError("it is a link, no file, or larger than 2 MB")
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            entries = [entry for entry in map(_entry, lines) if entry and entry[0] in columns]
            if not entries:
                raise ValueError("there is no result in it")
        except (OSError, ValueError) as error:
            damaged.append(f"{student} was left out: {error}.")
        else:
            table[student] = {}
            for column, said in entries:
                table[student][column] = _later(table[student].get(column, ""), said)
            if bad := len(lines) - len(entries):
                damaged.append(f"{student}: {bad} of {len(lines)} lines are damaged, and left out.")
    if not table and not damaged:
        raise GeopeftError(
            f"There is no .jsonl file in {folder}. Collect the files there that GEOPEFT_RESULTS "
            "named on the students' machines."
        )
    return table, damaged


def _entry(line: str) -> tuple[str, str] | None:
    """Return the column of a line and what it says there; None if the line is damaged."""
    try:
        match json.loads(line):
            case {"exercise": str(name), "passed": bool(passed)}:
                return name, "✓" if passed else "✗ 1"
            case {"quiz": str(number), "right": int(right), "of": int(of)} if 0 <= right <= of < 99:
                return f"{number}/quiz", f"{right} of {of}"
    except (ValueError, RecursionError):
        pass
    return None


def _later(before: str, said: str) -> str:
    """Say what stands after another line: passed stays passed, the first quiz counts."""
    if before.startswith("✗") and said.startswith("✗"):
        return f"✗ {int(before[2:]) + 1}"
    return said if not before or before.startswith("✗") else before


def draw_class(table: Table, columns: list[str], out: Path) -> None:
    """Write the table of a class as a page that opens without network.

    Raises:
        GeopeftError: `out` is somebody else's file, or cannot be written.
    """
    if out.exists() and not out.read_bytes().startswith(_MARK.encode()):
        raise GeopeftError(f"{out} is there and is no table of a class. Name another with --out.")
    tried = {column[:2] for row in table.values() for column in row}
    shown = [column.split("/") for column in columns if column[:2] in tried]
    page = filled(Path(__file__).with_name("class.jinja"), columns=shown, table=table)
    with written_beside(out) as new:
        new.write_text(_MARK + page, encoding="utf-8")
