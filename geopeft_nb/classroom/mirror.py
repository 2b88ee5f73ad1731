"""Fill a shared drive with what the lessons need, so that a room without network has it.

    python -m geopeft_nb mirror DEST --lessons all

Afterwards each machine sets GEOPEFT_MIRROR to DEST, which it only has to read. What ships with the
toolkit is not copied: it is wherever the toolkit is installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.classroom.needs import NO_FILES, published_files
from geopeft_nb.downloads import check_space
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import (
    FileEntry,
    cache_folder,
    check_file,
    data_folder,
    fetch_many,
    find_file,
    mirror_folders,
)

#: The file that is being copied; it gets its own name when it is whole.
_PARTIAL = ".mirror.part"
#: What programs leave beside files and nobody needs.
_LEFT_OVER = (".lock", ".part", ".part-tag", ".tmp")


@dataclass
class Item:
    """One backbone or data set, and how it comes into the mirror.

    Attributes:
        name: As in its catalogue.
        lessons: Numbers of the lessons that need it.
        files: Its files, named as below `base`.
        todo: Those that the mirror lacks.
        base: Where they go. A data set's folder has another name until it is whole.
        folder: Where a data set's folder lies on this machine; None for single files.
        origin: Where the files come from, in words.
        state: What happens, or happened, to it.
        problem: Why it cannot be had; empty if it can.
    """

    name: str
    lessons: tuple[str, ...]
    base: Path
    files: list[FileEntry] = field(default_factory=list)
    todo: list[FileEntry] = field(default_factory=list)
    folder: Path | None = None
    origin: str = "–"
    state: str = "to copy"
    problem: str = ""

    def missing(self, problem: str) -> None:
        """Note that it cannot be had, and why."""
        self.todo, self.state, self.problem = [], "missing", " ".join(problem.split())

    def row(self) -> str:
        """Return its line of the table."""
        sizes = [entry.size for entry in self.files]
        size = "?" if None in sizes else f"{sum(size or 0 for size in sizes) / 1e6:,.1f}"
        lessons = " ".join(self.lessons) or "–"
        return _line(self.name, lessons, str(len(self.files)), size, self.state, self.origin)


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

    dest = dest.expanduser().absolute()
    if dest.exists() and not dest.is_dir():
        raise NotADirectoryError(f"{dest} is a file. Give a folder to copy to.")
    with _not_a_source(dest):
        if only_list:
            items = [_item(name, lessons, dest) for name, lessons in wanted.items()]
            print(f"{_total(items)}.\n\n{_HEAD}")
            for item in items:
                print(item.row())
        else:
            dest.mkdir(parents=True, exist_ok=True)
            with FileLock(dest / ".mirror.lock"):
                items = _fill(dest, wanted)
    missing = {item.name: item.problem for item in items if item.problem}
    if not (missing or only_list):
        print(f"\nSet the environment variable GEOPEFT_MIRROR to {dest} on each machine.")
    return missing


def _fill(dest: Path, wanted: dict[str, tuple[str, ...]]) -> list[Item]:
    items = [_item(name, lessons, dest) for name, lessons in wanted.items()]
    free = shutil.disk_usage(dest).free
    print(f"{_total(items)}; {free / 1e6:,.0f} MB are free in {dest}.", flush=True)
    needed = sum(entry.size or 0 for item in items for entry in item.todo)
    if needed:
        check_space(dest, needed, "The mirror", "choose a folder on a larger disk")
    print(f"\n{_HEAD}")
    for item in items:
        _bring(item, dest)
        print(item.row(), flush=True)
    return items


@contextmanager
def _not_a_source(dest: Path) -> Iterator[None]:
    """Take the folder that is filled out of GEOPEFT_MIRROR: it may hold what is to be replaced."""
    before = os.environ.get("GEOPEFT_MIRROR")
    others = [str(folder) for folder in mirror_folders() if folder.resolve() != dest.resolve()]
    os.environ["GEOPEFT_MIRROR"] = os.pathsep.join(others)
    try:
        yield
    finally:
        del os.environ["GEOPEFT_MIRROR"]
        if before is not None:
            os.environ["GEOPEFT_MIRROR"] = before


def _line(*texts: str) -> str:
    return "{:<20}  {:<12}  {:>5}  {:>9}  {:<15}  {}".format(*texts)


_HEAD = _line("name", "lessons", "files", "MB", "state", "from")


def _total(items: Sequence[Item]) -> str:
    """Say how much there is to copy, and how much of it to download."""
    todo = [(item, entry) for item in items for entry in item.todo]
    least = "at least " if any(entry.size is None for _, entry in todo) else ""
    copied = sum(entry.size or 0 for _, entry in todo)
    loaded = sum(entry.size or 0 for item, entry in todo if item.state == "to download")
    return f"{least}{copied / 1e6:,.0f} MB to copy, {loaded / 1e6:,.0f} MB of it to download"


def _item(name: str, lessons: tuple[str, ...], dest: Path) -> Item:
    """Find out where the files of a backbone or data set are, and which the mirror lacks."""
    item = Item(name, lessons, dest)
    card = CARDS.get(name)
    entry = card.weights if card else None
    if name in NO_FILES or (card and not entry):
        item.state = "has no files"
    elif (data_folder() / (entry.path if entry else name)).exists():
        item.files = [entry] if entry else _listing(data_folder() / name)
        item.state, item.origin = "ships, no copy", str(data_folder())
    elif files := [entry] if entry else published_files(name):
        _find_files(item, files)
    else:
        _find_folder(item, dest)
    return item


def _find_files(item: Item, files: Sequence[FileEntry]) -> None:
    """Look for files that each have a name, and mostly an address, of their own."""
    item.state, item.origin = "there already", str(item.base)
    for entry in files:
        if any(_is_whole(item.base / layout, entry) for layout in entry.layouts):
            item.files.append(entry)
            continue
        path, size = find_file(entry), entry.size
        if path:
            size = path.stat().st_size
            if item.state == "there already":
                item.state, item.origin = "to copy", str(path.parent)
        else:
            item.state, item.origin = "to download", entry.source or "nowhere"
            try:
                size = size or _size_on_hub(entry)
            except Exception as error:  # offline, no such file, no access: each its own kind
                item.files.append(entry)
                item.missing(
                    f"{entry.source} gave {type(error).__name__}: "
                    f"{str(error).partition(chr(10))[0]}. Run this where there is a network, or "
                    f"set GEOPEFT_MIRROR to a folder that has it as {entry.path}"
                )
                return
        item.files.append(replace(entry, size=size))
        item.todo.append(item.files[-1])


def _size_on_hub(entry: FileEntry) -> int | None:
    if not entry.hub:
        return None
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(entry.hub, entry.hub_path or entry.name, revision=entry.revision)
    size: int | None = get_hf_file_metadata(url).size
    return size


def _find_folder(item: Item, dest: Path) -> None:
    whole = dest / item.name
    item.base = whole if whole.is_dir() else dest / f"{item.name}.partial"
    places = [folder / item.name for folder in [*mirror_folders(), cache_folder()]]
    item.folder = next((place for place in [*places, whole] if place.is_dir()), None)
    if item.folder is None:
        item.missing(
            f"no folder {item.name!r} on this machine, looked for {', '.join(map(str, places))}. "
            "Set GEOPEFT_MIRROR to a folder that contains it"
        )
        return
    item.origin, item.files = str(item.folder), _listing(item.folder)
    item.todo = [entry for entry in item.files if not _is_whole(item.base / entry.path, entry)]
    if whole.is_dir() and not item.todo:
        item.state = "there already"


def _listing(folder: Path) -> list[FileEntry]:
    """Describe the files of a folder, named as below it, by their sizes."""
    return [
        FileEntry(path.relative_to(folder).as_posix(), size=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(_LEFT_OVER)
    ]


def _is_whole(path: Path, entry: FileEntry) -> bool:
    try:
        check_file(path, size=entry.size, sha256=entry.sha256, md5=entry.md5)
    except (OSError, ValueError):
        return False
    return True


def _bring(item: Item, dest: Path) -> None:
    """Copy what the mirror lacks of an item; what goes wrong is noted there."""
    if item.state not in ("to copy", "to download"):
        return
    try:
        if item.folder:
            sources = [item.folder / entry.path for entry in item.todo]
        else:
            sources = fetch_many(item.todo, item.name)
        for entry, source in zip(item.todo, sources, strict=True):
            _copy(source, item.base / entry.path, dest / _PARTIAL, entry)
        if item.base.name == f"{item.name}.partial":
            item.base.rename(dest / item.name)
    except (OSError, ValueError) as error:
        item.missing(str(error))
    else:
        item.state = "copied"


def _copy(source: Path, target: Path, partial: Path, entry: FileEntry) -> None:
    """Copy a file under another name, compare it with what is known of it, then rename it."""
    try:
        shutil.copyfile(source, partial)
        try:
            check_file(partial, size=entry.size, sha256=entry.sha256, md5=entry.md5)
        except ValueError as error:
            raise GeopeftError(str(error).replace(str(partial), str(source))) from error
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
