"""Hand out the lessons: their notebooks with exercises open, into a folder of a student's.

    python -m geopeft_nb lessons DEST --lessons 01,04

Checks and quizzes stay with the package, and solutions are in no installed one.
"""

from pathlib import Path

from geopeft_nb.classroom.mirror import numbers
from geopeft_nb.files import data_folder
from geopeft_nb.writing import written_beside


def hand_out(dest: Path, lessons: str = "all") -> dict[str, str]:
    """Copy notebooks, figures and the glossary that are not there yet.

    Args:
        dest: Folder to copy to; it is made if need be.
        lessons: See `mirror.numbers`.

    Returns:
        Name -> what became of it: a file that differs is its owner's, and is kept.

    Raises:
        GeopeftError: No such lesson, or a file could not be written.
    """
    dest, source = dest.expanduser().resolve(), data_folder("notebooks")
    chosen = numbers(lessons)
    files = [path for path in source.glob("[0-9][0-9]_*.ipynb") if path.name[:2] in chosen]
    states = {}
    for path in [*sorted(files), *sorted(source.glob("figures/*.png")), source / "GLOSSARY.md"]:
        name, content = path.relative_to(source), path.read_bytes()
        copy = dest / name
        if copy.is_file() and copy.read_bytes() == content:
            states[name.as_posix()] = "there already"
        elif copy.exists() or copy.is_symlink():
            states[name.as_posix()] = "kept, for it differs; rename it to get a fresh one"
        else:
            with written_beside(copy) as new:
                new.write_bytes(content)
            states[name.as_posix()] = "copied"
    return states
