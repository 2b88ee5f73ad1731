"""What lessons need besides the toolkit, as their `quiz.toml` says, for rooms without network."""

import sys
from collections.abc import Sequence

from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.classroom.check import lesson_folders
from geopeft_nb.classroom.quiz import load_questions
from geopeft_nb.errors import check_name
from geopeft_nb.files import FileEntry

#: Data sets without files of their own: one is computed, the other is the user's.
NO_FILES = ("sandbox", "folder")


def choose(lessons: str = "all", also: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Say what is wanted.

    Args:
        lessons: ``"all"``, ``"none"``, or numbers with commas, such as ``"01,04"``.
        also: More backbones or data sets.

    Returns:
        Name of a backbone or data set -> numbers of the lessons that need it.

    Raises:
        GeopeftError: No such lesson, backbone or data set; the message lists all.

    Example:
        >>> choose("01")
        {'geopeft_tiny': ('01',), 'scenes': ('01',)}
    """
    chosen = numbers(lessons)
    if also:
        from geopeft_nb.datasets.load import LOADERS  # here, because it takes seconds

        for name in also:
            check_name("backbone or data set", name, {**CARDS, **LOADERS})
    needs = {number: load_questions(lesson_folders()[number], "needs") for number in chosen}
    names = [*(name for some in needs.values() for name in some), *also]
    return {name: tuple(n for n in chosen if name in needs[n]) for name in names}


def numbers(lessons: str) -> list[str]:
    """Return the numbers of lessons: of ``"all"``, ``"none"``, or as in ``"01,04"``."""
    given = [number.strip().zfill(2) for number in lessons.split(",") if number.strip()]
    chosen = {"all": [*lesson_folders()], "none": []}.get(lessons, given)
    for number in chosen:
        check_name("lesson", number, ["all", "none", *lesson_folders()])
    return chosen


def published_files(name: str) -> Sequence[FileEntry]:
    """Return the files of a data set that comes file by file, with their addresses.

    That is what the function `mirror_files` of its module returns for the name. Of others there is
    none: they are a folder that is somewhere already.
    """
    from geopeft_nb.datasets.load import LOADERS  # here, because it takes seconds

    files = getattr(sys.modules[LOADERS[name][1].__module__], "mirror_files", None)
    return files(name) if files else []
