"""Who has passed what: a learner's results in a small file, those of a class in a table.

Nothing is noted unless the environment variable GEOPEFT_RESULTS names a file, such as
`results/ada.jsonl`; the first line that goes there is announced. A teacher collects the files, and
`python -m geopeft_nb class FOLDER` draws them. They tell who needs help and are no marks: whoever
has such a file can edit it.
"""

import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import named_path
from geopeft_nb.open_files import read_text, regular_file
from geopeft_nb.pictures.show import filled, visible
from geopeft_nb.writing import written_beside

#: Begins a page of ours, which alone may be replaced.
_MARK = "<!doctype html><!-- geopeft_nb class -->"


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


def draw_class(folder: Path, columns: list[str], out: Path) -> list[str]:
    """Draw the files of a class, those in folders within it as well, as a page without network.

    Args:
        folder: Where they were collected. The name of a file is that of the student.
        columns: Exercises and quizzes that there are.
        out: The page.

    Returns:
        A sentence for each file that is damaged.

    Raises:
        GeopeftError: There is none; or `out` is somebody else's file, or cannot be written.
    """
    if out.exists() and not out.read_bytes().startswith(_MARK.encode()):
        raise GeopeftError(f"{out} is there and is no table of a class. Name another with --out.")
    folder, damaged = folder.expanduser(), []
    table: dict[str, dict[str, str]] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        student = path.relative_to(folder).with_suffix("").as_posix()
        try:
            lines = read_text(regular_file(path, folder), str.splitlines, 2_000_000)
            told = [_entry(line) for line in lines if line.strip()]
            said = {name: [words for column, words in told if column == name] for name in columns}
            if not (good := sum(map(len, said.values()))):
                raise GeopeftError("there is no result in it.")
        except (OSError, GeopeftError) as error:
            damaged.append(f"{student} was left out: {error}")
            continue
        table[student] = {name: _summed(words) for name, words in said.items() if words}
        if bad := len(told) - good:
            damaged.append(f"{student}: {bad} of {len(told)} lines are damaged, and left out.")
    if not table and not damaged:
        raise GeopeftError(
            f"There is no .jsonl file in {folder}. Collect the files there that GEOPEFT_RESULTS "
            "named on the students' machines."
        )
    tried = {column[:2] for row in table.values() for column in row}
    shown = [column.split("/") for column in columns if column[:2] in tried]
    page = filled(Path(__file__).with_name("class.jinja"), columns=shown, table=table)
    with written_beside(out) as new:
        new.write_text(_MARK + page, encoding="utf-8")
    print(f"Who passed what, and how often it was tried: {out}")
    return damaged


def _entry(line: str) -> tuple[str, str]:
    """Return the column of a line and what it says there; of none if the line is damaged."""
    with suppress(ValueError, RecursionError):
        match json.loads(line):
            case {"exercise": str(name), "passed": bool(passed)}:
                return name, "✓" if passed else "✗"
            case {"quiz": str(number), "right": int(right), "of": int(of)} if 0 <= right <= of < 99:
                return f"{number}/quiz", f"{right} of {of}"
    return "", ""


def _summed(words: list[str]) -> str:
    """Say what a column's lines come to: passed stays passed, the first quiz counts."""
    first = "✓" if "✓" in words else words[0]
    return f"✗ {len(words)}" if first == "✗" else first
