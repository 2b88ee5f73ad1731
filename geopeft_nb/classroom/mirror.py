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
from dataclasses import replace
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
    size_on_hub,
)
from geopeft_nb.writing import held, new_folder, written_beside

#: Data sets without files of their own: one is computed, the other is the user's.
NO_FILES = ("sandbox", "folder")
_ROW = "{:<20}  {:<12}  {:>5}  {:>9}  {}"


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

        check_names("backbone or data set", also, {**CARDS, **LOADERS})
    needs = {number: load_questions(lesson_folders()[number], "needs") for number in chosen}
    names = [*(name for some in needs.values() for name in some), *also]
    return {name: tuple(n for n in chosen if name in needs[n]) for name in names}


def numbers(lessons: str) -> list[str]:
    """Return the numbers of lessons: of ``"all"``, ``"none"``, or as in ``"01,04"``."""
    given = [number.strip().zfill(2) for number in lessons.split(",") if number.strip()]
    chosen = {"all": [*lesson_folders()], "none": []}.get(lessons, given)
    check_names("lesson", chosen, ["all", "none", *lesson_folders()])
    return chosen


def hand_out(dest: Path, lessons: str = "all") -> dict[str, str]:
    """Copy notebooks, figures and the glossary that are not there yet.

    Args:
        dest: Folder to copy to; it is made if need be.
        lessons: See `numbers`.

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


def published_files(name: str) -> Sequence[FileEntry]:
    """Return the files of a data set that comes file by file, with their addresses.

    That is what the function `mirror_files` of its module returns for the name. Of others there is
    none: they are a folder that is somewhere already.
    """
    from geopeft_nb.datasets.load import LOADERS  # here, because it takes seconds

    files = getattr(sys.modules[LOADERS[name][1].__module__], "mirror_files", None)
    return files(name) if files else []


def fill(
    dest: Path, wanted: dict[str, tuple[str, ...]], *, only_list: bool = False
) -> dict[str, str]:
    """Copy what is wanted and not there yet, each file checked, and print a table of it.

    Args:
        dest: Folder to copy to; it is made if need be.
        wanted: See `choose`.
        only_list: Copy and download nothing.

    Returns:
        Name -> why it cannot be had. All else has been copied.

    Raises:
        GeopeftError: Another process fills that folder, or a mirror's data set has a link in it.
        OSError: `dest` is no folder, cannot be written to, or has too little room for all; then
            nothing was copied.
    """
    dest = dest.expanduser().resolve()
    files = {name: _files_of(name, dest) for name in wanted}
    todo = {
        name: [entry for entry in entries if not _is_whole(dest / entry.path, entry)]
        for name, entries in files.items()
    }
    needed, known = _bytes([entry for entries in todo.values() for entry in entries])
    if not only_list:
        check_space(dest, needed, "The mirror")
    print(f"{'' if known else 'at least '}{needed / 1e6:,.0f} MB to copy to {dest}\n")
    print(_ROW.format("name", "lessons", "files", "MB", "state"))
    missing = {}
    for name, lessons in wanted.items():
        here = "there already" if files[name] else "ships, or has no files"
        state = "to copy" if todo[name] else here
        if todo[name] and not only_list:
            try:
                with held(dest / "mirror"):
                    _bring(name, todo[name], dest)
                state = "copied"
            except (OSError, GeopeftError) as error:
                state, missing[name] = "missing", " ".join(str(error).split())
        size, known = _bytes(files[name])
        megabytes = f"{size / 1e6:,.1f}" if known else "unknown"
        count = len(files[name])
        print(_ROW.format(name, " ".join(lessons) or "–", count, megabytes, state), flush=True)
    if not (missing or only_list):
        print(f"\nSet the environment variable GEOPEFT_MIRROR to {dest} on each machine.")
    return missing


def _files_of(name: str, dest: Path) -> list[FileEntry]:
    """Return the files of a backbone or data set; none of what ships or has none."""
    card = CARDS.get(name)
    entry = card.weights if card else None
    ships = (data_folder() / (entry.path if entry else name)).exists()
    if ships or name in NO_FILES or (card and not entry):
        return []
    if files := [entry] if entry else published_files(name):
        return [replace(entry, size=entry.size or _size(entry)) for entry in files]
    # A folder as it is on this machine; as it is in the mirror comes last, to see what is damaged.
    folders = sorted([*mirror_folders(), cache_folder(), dest], key=lambda folder: folder == dest)
    folder = next((f for f in folders if (f / name).is_dir()), dest)
    for path in [folder / name, *(folder / name).rglob("*")]:
        _refuse_links(folder, str(path.relative_to(folder)))
    return [
        FileEntry(path.relative_to(folder).as_posix(), size=path.stat().st_size)
        for path in sorted((folder / name).rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    ] or [FileEntry(name)]


def _size(entry: FileEntry) -> int | None:
    """Return the size of a file here or on the hub; None if neither is in reach."""
    if found := find_file(entry):
        return found.stat().st_size
    try:
        return size_on_hub(entry)
    except Exception:  # offline, no such file, no access: downloading it will say so
        return None


def _bytes(files: Sequence[FileEntry]) -> tuple[int, bool]:
    """Return the known bytes of files, and whether that is all."""
    return sum(entry.size or 0 for entry in files), None not in [entry.size for entry in files]


def _is_whole(path: Path, entry: FileEntry) -> bool:
    try:
        return bool(check_file(path, entry))
    except (OSError, GeopeftError):
        return False


def _refuse_links(folder: Path, path: str) -> None:
    """Refuse a file if it, or a folder below the first on the way to it, is a link."""
    for place in (PurePath(path), *PurePath(path).parents):
        if place.name and (folder / place).is_symlink():
            raise GeopeftError(
                f"{folder / place} is a link, which may lead to any file. Put what it points to in "
                "its place, or delete it."
            )


def _bring(name: str, files: Sequence[FileEntry], dest: Path) -> None:
    """Copy files, and move them to their places when all of them have come.

    A folder that is there is taken for whole: a new one comes in one move.
    """
    # Another process may have brought some since they were listed.
    files = [entry for entry in files if not _is_whole(dest / entry.path, entry)]
    for entry in files:
        for folder in (*mirror_folders(), cache_folder(), dest):
            _refuse_links(folder, entry.path)
    sources = fetch_many(files, name)
    with new_folder(dest / "mirror") as made:
        for entry, source in zip(files, sources, strict=True):
            copy = Path(made, entry.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            check_file(copy, replace(entry, size=source.stat().st_size))
        for entry in files:
            for whole in (PurePath(entry.path).parts[0], entry.path):
                if (Path(made) / whole).exists() and not (dest / whole).is_dir():
                    (dest / whole).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(made) / whole, dest / whole)
