"""Writing so that a file is the old one or the new one, whole, whenever somebody pulls the plug."""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import sleep

from filelock import FileLock, Timeout

from geopeft_nb.errors import GeopeftError


class NotWrittenError(GeopeftError, OSError):
    """What could not be written: a full disk, a folder without permission, a name too long."""


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which takes its place once it is whole and on the disk.

    Args:
        path: The file; its folder is made if need be. What is there stays until it is replaced.

    Yields:
        A path of the same name in a new, hidden folder beside it. Further files that are written
        to that folder are moved as well, before this one.

    Raises:
        NotWrittenError: The disk is full, or whatever else keeps it from being written; the file
            is what it was.
    """
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(path) as folder:
            yield folder / path.name
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
                sync(file)
                os.replace(file, path.with_name(file.name))
        sync(path.parent)


@contextmanager
def written_together(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Give a folder to write files to, which replace those of a folder all at one moment.

    They are written to a hidden folder within, which is then renamed to `.ready`: that is the
    moment. From then on `placed` finds the new ones, also if the process is killed before each is
    moved to its place; the next call moves what is left.

    Args:
        folder: It is made if need be, and held meanwhile.
        names: Names of files that are ours, the one that tells of the others first: it is moved
            last. Those that are not written go with the moment; all else in the folder stays.

    Raises:
        NotWrittenError: As `written_beside`; all files are what they were.
        GeopeftError: Another process is writing there.
    """
    with held(folder), refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _settle(folder, names)
        for name in (".ready", *names):
            _remove_left(folder / name)
        with new_folder(folder / ".ready") as part:
            (new := part / "files").mkdir()
            yield new
            for file in new.iterdir():
                sync(file)
            for name in names:
                if not (new / name).exists() and (folder / name).is_file():
                    (new / name).mkdir()  # stands for a file that goes
            sync(new)
            new.rename(folder / ".ready")
        sync(folder)
        _settle(folder, names)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder for what will be moved to a path, whose name says that it is ours."""
    ends = f"-{path.name}~"
    with TemporaryDirectory(ends, ".new-geopeft_nb-", dir=path.parent) as folder:
        yield Path(folder)


def _remove_left(path: Path) -> None:
    """Remove what `new_folder` left for this very path when its process was killed."""
    for left in path.parent.glob(f".new-geopeft_nb-????????-{escape(path.name)}~"):
        rmtree(left, ignore_errors=True)


def placed(folder: Path, name: str) -> Path:
    """Return where a file of a folder is that `written_together` wrote."""
    ready = folder / ".ready" / name
    return ready if ready.exists() else folder / name


def _settle(folder: Path, names: Sequence[str]) -> None:
    """Move files that are ready to their places."""
    for name in reversed(names):
        ready = folder / ".ready" / name
        if ready.is_dir():
            (folder / name).unlink(missing_ok=True)
            ready.rmdir()
        elif ready.exists():
            os.replace(ready, folder / name)
    if (folder / ".ready").is_dir():
        sync(folder)
        (folder / ".ready").rmdir()


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Say in one kind of error what libraries say in many when something cannot be written."""
    try:
        yield
    except GeopeftError:
        raise
    except Exception as error:  # OSError, RuntimeError of torch, SafetensorError, …
        raise NotWrittenError(
            f"{path} could not be written, and is as it was ({error!r}). Name another place."
        ) from error


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk and no longer in memory."""
    if path.is_dir() and os.name == "nt":  # which opens no folders
        return
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def held(path: Path, timeout: float = 0) -> Iterator[None]:
    """Keep a file or folder to this thread, which may ask for it again while it has it.

    The lock is a hidden file beside it that the system frees when its process ends or dies. What
    `written_beside` left when it was killed is removed.

    Args:
        path: What is to be written; it need not exist.
        timeout: Seconds to wait for another process that has it; -1 waits as long as it takes.

    Raises:
        GeopeftError: Another process has it; the message says which and where.
    """
    file, holder = path.with_name(f".{path.name}.gp.lock"), "another process"
    lock = FileLock(file, is_singleton=True)
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout)
        except Timeout:
            sleep(0.1)  # the other may be about to sign
            with suppress(OSError):  # Windows lets nobody read what is locked
                holder = file.read_text(encoding="utf-8") or holder
            raise GeopeftError(f"{path} is in use by {holder}. Wait, or name another.") from None
    try:
        with suppress(OSError):  # a full disk: it is locked without a name
            file.write_text(f"process {os.getpid()} on {platform.node()}", "utf-8")
        _remove_left(path)
        yield
    finally:
        lock.release()
