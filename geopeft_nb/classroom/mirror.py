"""Hand out what lessons need: files to a shared drive, and notebooks to a student's folder.

    python -m geopeft_nb mirror DEST --lessons all
    python -m geopeft_nb lessons DEST --lessons 01,04

The first is for a room without network.
Afterwards each machine sets GEOPEFT_MIRROR to DEST, which it only has to read. What ships with the
toolkit is not copied: it is wherever the toolkit is installed. Of lessons the exercises are open:
checks and quizzes stay with the package, and solutions are in no installed one.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePath

from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.classroom.check import lesson_folders
from geopeft_nb.classroom.quiz import load_questions
from geopeft_nb.errors import GeopeftError, check_names
from geopeft_nb.files import (
    FileEntry,
    cache_folder,
    check_file,
    check_space,
    data_folder,
    fetch_many,
    find_file,
    mirror_folders,
)
from geopeft_nb.writing import held, new_folder, written_beside

#: Data sets without files of their own: one is computed, the other is the user's.
NO_FILES = ("sandbox", "folder")


def choose(lessons: str = "all", also: Sequence[str] = ()) -> list[str]:
    """Name the backbones and data sets that lessons need.

    Args:
        lessons: ``"all"``, ``"none"``, or numbers with commas, such as ``"01,04"``.
        also: More backbones or data sets.

    Raises:
        GeopeftError: No such lesson, backbone or data set; the message lists all.

    Example:
        >>> choose("01")
        ['geopeft_tiny', 'scenes']
    """
    if also:
        from geopeft_nb.datasets.load import LOADERS  # here, because it takes seconds

        check_names("backbone or data set", also, {**CARDS, **LOADERS})
    needs = [load_questions(lesson_folders()[number], "needs") for number in numbers(lessons)]
    return [*dict.fromkeys(chain(*needs, also))]


def numbers(lessons: str) -> list[str]:
    """Return the numbers of lessons: of ``"all"``, ``"none"``, or as in ``"01,04"``."""
    given = [number.strip().zfill(2) for number in lessons.split(",") if number.strip()]
    chosen = {"all": [*lesson_folders()], "none": []}.get(lessons, given)
    check_names("lesson", chosen, ["all", "none", *lesson_folders()])
    return chosen


def hand_out(dest: Path, lessons: str = "all") -> None:
    """Copy notebooks, figures and the glossary that are not there yet, and say what became of each.

    A file that differs is its owner's, and is kept.

    Args:
        dest: Folder to copy to; it is made if need be.
        lessons: See `numbers`.

    Raises:
        GeopeftError: No such lesson, or a file could not be written.
    """
    dest, source = dest.expanduser().resolve(), data_folder("notebooks")
    notebooks = [path for number in numbers(lessons) for path in source.glob(f"{number}_*.ipynb")]
    for path in [*notebooks, *sorted(source.glob("figures/*.png")), source / "GLOSSARY.md"]:
        name, content, state = path.relative_to(source), path.read_bytes(), "there already"
        copy = dest / name
        if not os.path.lexists(copy):
            with written_beside(copy) as new:
                new.write_bytes(content)
            state = "copied"
        elif not (copy.is_file() and copy.read_bytes() == content):
            state = "kept, for it differs; rename it to get a fresh one"
        print(f"{name.as_posix():<32} {state}")


def published_files(name: str) -> Sequence[FileEntry]:
    """Return the files of a data set that comes file by file, with their addresses.

    That is what the function `mirror_files` of its module returns for the name. Of others there is
    none: they are a folder that is somewhere already.
    """
    from geopeft_nb.datasets.load import LOADERS  # here, because it takes seconds

    files = getattr(sys.modules[LOADERS[name][1].__module__], "mirror_files", None)
    return files(name) if files else []


def fill(dest: Path, wanted: Sequence[str], *, only_list: bool = False) -> list[str]:
    """Copy what is wanted and not there yet, each file checked, and print a table of it.

    Args:
        dest: Folder to copy to; it is made if need be.
        wanted: Names of backbones and data sets.
        only_list: Copy and download nothing.

    Returns:
        What is missing, and why. All else has been copied.

    Raises:
        GeopeftError: Another process fills that folder.
        OSError: `dest` is no folder, cannot be written to, or has too little room for all; then
            nothing was copied.
    """
    dest, missing = dest.expanduser().resolve(), []
    with nullcontext() if only_list else held(dest / "mirror"):
        files = {name: _files_of(name, dest) for name in wanted}
        todo = {
            name: [entry for entry in entries if not _is_whole(dest / entry.path, entry)]
            for name, entries in files.items()
        }
        every = [*chain(*todo.values())]
        if not only_list:
            check_space(dest, sum(entry.size or 0 for entry in every), "The mirror")
        print(f"{_megabytes(every)} to copy to {dest}\n")
        for name, entries in files.items():
            state = "there already" if entries else "ships, or has no files"
            if todo[name] and only_list:
                state = "to copy"
            elif todo[name]:
                try:
                    _bring(name, todo[name], dest)
                    state = "copied"
                except (OSError, GeopeftError) as error:
                    state = "missing"
                    missing.append(f"{name} is missing: {' '.join(str(error).split())}")
            size = f"{len(entries)} files, {_megabytes(entries)}"
            print(f"{name:<20}  {size:<32}  {state}", flush=True)
    if not (missing or only_list):
        print(f"\nSet the environment variable GEOPEFT_MIRROR to {dest} on each machine.")
    return missing


def _files_of(name: str, dest: Path) -> list[FileEntry]:
    """Return the files of a backbone or data set; none of what ships or has none."""
    entry = CARDS[name].weights if name in CARDS else FileEntry(name)
    if not entry or name in NO_FILES or (data_folder() / entry.path).exists():
        return []
    if files := [entry] if name in CARDS else published_files(name):
        return [
            replace(file, size=file.size or (here.stat().st_size if here else None))
            for file, here in zip(files, map(find_file, files), strict=True)
        ]
    # A folder as it is on this machine; as it is in the mirror comes last, to see what is damaged.
    folders = sorted([*mirror_folders(), cache_folder(), dest], key=lambda folder: folder == dest)
    folder = next((f for f in folders if (f / name).is_dir()), dest)
    return [
        FileEntry(path.relative_to(folder).as_posix(), size=path.lstat().st_size)
        for path in sorted((folder / name).rglob("*"))
        if path.is_symlink() or (path.is_file() and path.suffix != ".lock")
    ] or [entry]


def _megabytes(files: Sequence[FileEntry]) -> str:
    """Say how large files are, as far as that is known."""
    least = "" if all(entry.size is not None for entry in files) else "at least "
    return f"{least}{sum(entry.size or 0 for entry in files) / 1e6:,.1f} MB"


def _is_whole(path: Path, entry: FileEntry) -> bool:
    try:
        return bool(check_file(path, entry))
    except (OSError, GeopeftError):
        return False


def _bring(name: str, files: Sequence[FileEntry], dest: Path) -> None:
    """Copy files, and move them to their places when all of them have come.

    A folder that is there is taken for whole: a new one comes in one move. No link is followed: it
    may lead to any file.
    """
    paths = [PurePath(entry.path) for entry in files]
    places = {place for path in paths for place in (path, *path.parents[:-1])}
    for folder in (*mirror_folders(), cache_folder(), dest):
        if links := [folder / place for place in places if (folder / place).is_symlink()]:
            raise GeopeftError(f"{links[0]} is a link. Put there what it points to.")
    sources = fetch_many(files, name)
    with new_folder(dest / "mirror") as made:
        for path, source in zip(paths, sources, strict=True):
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, made / path)
        for path in paths:
            for whole in (path.parts[0], path):
                if (made / whole).exists() and not (dest / whole).is_dir():
                    (dest / whole).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(made / whole, dest / whole)
