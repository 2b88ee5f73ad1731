"""What each lesson needs besides the toolkit, for rooms without network; see `mirror`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.errors import check_name
from geopeft_nb.files import FileEntry

#: Lesson -> the backbones and data sets that it takes or names.
LESSONS: dict[str, tuple[str, ...]] = {
    "00": ("geopeft_tiny", "scenes"),  # larger ones are planned there, without weights
    "01": ("geopeft_tiny", "scenes"),
    "02": ("geopeft_tiny", "scenes", "galileo_nano"),
    "03": ("geopeft_tiny", "scenes", "prithvi_eo_v2_300", "sen1floods11"),
    "04": ("geopeft_tiny", "scenes", "prithvi_eo_v2_300", "sen1floods11"),
    "05": ("geopeft_tiny", "scenes", "prithvi_eo_v2_300"),
    "06": ("geopeft_tiny", "scenes", "prithvi_eo_v2_300", "sen1floods11"),
    "07": ("geopeft_tiny", "scenes", "prithvi_eo_v2_300", "sen1floods11"),
    "08": ("geopeft_tiny", "scenes", "prithvi_eo_v2_300"),
    "09": ("geopeft_tiny", "prithvi_eo_v2_300_tl"),  # and the sandbox, which has no files
    "10": ("geopeft_tiny", "scenes", "prithvi_eo_v2_300", "sen1floods11"),
    "11": ("geopeft_tiny", "scenes"),  # a large one is planned there, without weights
    "12": ("geopeft_tiny", "scenes"),
}
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
    names = [*(name for number in chosen for name in LESSONS[number]), *also]
    return {name: tuple(n for n in chosen if name in LESSONS[n]) for name in names}


def numbers(lessons: str) -> list[str]:
    """Return the numbers of lessons: of ``"all"``, ``"none"``, or as in ``"01,04"``."""
    given = [number.strip().zfill(2) for number in lessons.split(",") if number.strip()]
    chosen = {"all": list(LESSONS), "none": []}.get(lessons, given)
    for number in chosen:
        check_name("lesson", number, ["all", "none", *LESSONS])
    return chosen


def published_files(name: str) -> Sequence[FileEntry]:
    """Return the files of a data set that comes file by file, with their addresses.

    That is what the function `mirror_files` of its module returns for the name. Of others there is
    none: they are a folder that is somewhere already.
    """
    from geopeft_nb.datasets.load import LOADERS  # here, because it takes seconds

    files = getattr(sys.modules[LOADERS[name][1].__module__], "mirror_files", None)
    return files(name) if files else []
