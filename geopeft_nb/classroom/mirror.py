"""Fill a shared drive with what the lessons need, so that a room without network has it.

    python -m geopeft_nb mirror DEST --lessons all

Afterwards each machine sets GEOPEFT_MIRROR to DEST, which it only has to read. What ships with the
toolkit is not copied: it is wherever the toolkit is installed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.classroom.needs import NO_FILES, published_files
from geopeft_nb.errors import GeopeftError
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

_ROW = "{:<20}  {:<12}  {:>5}  {:>9}  {}"


@dataclass
class Item:
    """One backbone or data set: its files, those that the mirror lacks, and what happens to it."""

    name: str
    lessons: tuple[str, ...]
    files: list[FileEntry] = field(default_factory=list)
    todo: list[FileEntry] = field(default_factory=list)
    state: str = "there already"
    problem: str = ""

    def __str__(self) -> str:
        sizes = [entry.size for entry in self.files]
        size = "unknown" if None in sizes else f"{sum(size or 0 for size in sizes) / 1e6:,.1f}"
        return _ROW.format(
            self.name, " ".join(self.lessons) or "–", len(self.files), size, self.state
        )


def fill(
    dest: Path, wanted: dict[str, tuple[str, ...]], *, only_list: bool = False
) -> dict[str, str]:
    """Copy what is wanted and not there yet, each file checked, and print a table of it.

    Args:
        dest: Folder to copy to; it is made if need be.
        wanted: See `needs.choose`.
        only_list: Copy and download nothing.

    Returns:
        Name -> why it cannot be had. All else has been copied.

    Raises:
        OSError: `dest` is no folder, cannot be written to, or has too little room for all; then
            nothing was copied.
    """
    from filelock import FileLock

    dest = dest.expanduser().resolve()
    items = [_find(name, lessons, dest) for name, lessons in wanted.items()]
    todo = [entry.size for item in items for entry in item.todo]
    needed, least = sum(size or 0 for size in todo), "at least " if None in todo else ""
    if not only_list:
        check_space(dest, needed, "The mirror", "choose a folder on a larger disk")
    print(f"{least}{needed / 1e6:,.0f} MB to copy to {dest}\n")
    print(_ROW.format("name", "lessons", "files", "MB", "state"))
    for item in items:
        if item.todo and not only_list:
            with FileLock(dest / ".mirror.lock"):
                _bring(item, dest)
        print(item, flush=True)
    missing = {item.name: " ".join(item.problem.split()) for item in items if item.problem}
    if not (missing or only_list):
        print(f"\nSet the environment variable GEOPEFT_MIRROR to {dest} on each machine.")
    return missing


def _find(name: str, lessons: tuple[str, ...], dest: Path) -> Item:
    """Find out which files a backbone or data set has, and which the mirror lacks."""
    item, card = Item(name, lessons), CARDS.get(name)
    entry = card.weights if card else None
    ships = (data_folder() / (entry.path if entry else name)).exists()
    if ships or name in NO_FILES or (card and not entry):
        item.state = "ships, or has no files"
        return item
    if files := [entry] if entry else published_files(name):
        item.files = [replace(entry, size=entry.size or _size(entry)) for entry in files]
    else:
        # The mirror itself comes last: what is damaged there is to be seen.
        folders = sorted([*mirror_folders(), cache_folder(), dest], key=lambda f: f == dest)
        places = [folder / name for folder in folders if (folder / name).is_dir()]
        item.files = _listing(places[0]) if places else []
    if not item.files:
        item.state, item.problem = "missing", (
            f"no folder {name!r} on this machine. Set GEOPEFT_MIRROR to a folder that contains it"
        )  # fmt: skip
    item.todo = [e for e in item.files if not _is_whole(dest / e.path, e)]
    if item.todo:
        item.state = "to copy" if find_file(item.todo[0]) else "to download"
    return item


def _size(entry: FileEntry) -> int | None:
    """Return the size of a file here or on the hub; None if neither is in reach."""
    if found := find_file(entry):
        return found.stat().st_size
    try:
        return size_on_hub(entry)
    except Exception:  # offline, no such file, no access: downloading it will say so
        return None


def _listing(folder: Path) -> list[FileEntry]:
    """Describe the files of a data set's folder by their sizes."""
    return [
        FileEntry(path.relative_to(folder.parent).as_posix(), size=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    ]


def _is_whole(path: Path, entry: FileEntry) -> bool:
    try:
        return bool(check_file(path, entry))
    except (OSError, GeopeftError):
        return False


def _bring(item: Item, dest: Path) -> None:
    """Copy what the mirror lacks of an item; what goes wrong is noted there.

    It is moved to its place when all of it has come: a folder that is there is taken for whole.
    """
    coming = dest / f".{item.name}"
    try:
        for entry in item.todo:
            (dest / entry.path).unlink(missing_ok=True)  # damaged, and never to be a source
        for entry, source in zip(item.todo, fetch_many(item.todo, item.name), strict=True):
            copy = coming / entry.path
            if not _is_whole(copy, entry):
                copy.parent.mkdir(parents=True, exist_ok=True)
                check_file(Path(shutil.copyfile(source, copy)), entry)
        for entry in item.todo:
            (dest / entry.path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(coming / entry.path, dest / entry.path)
        shutil.rmtree(coming)
        item.state = "copied"
    except (OSError, GeopeftError) as error:
        item.state, item.problem = "missing", str(error)
