"""Archives: looked through first, extracted beside their place, and moved there when whole."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, cast

from geopeft_nb.downloads import check_space
from geopeft_nb.errors import GeopeftError


def extract(
    archives: Path | Sequence[Path], folder: Path, wanted: Callable[[str], bool] | None = None
) -> Path:
    """Extract an archive into a new folder, all of it or nothing.

    Args:
        archives: A tar (also compressed) or zip file; or its parts, in order, of one that was cut
            into several files.
        folder: Where its content shall lie. If it exists it is complete, and nothing is done.
        wanted: Says by its name, with forward slashes, whether a file is extracted; None takes all.

    Returns:
        The folder.

    Raises:
        ValueError: A member would land outside the folder, is a link or a device, or the file is
            no archive or damaged.
        OSError: The disk has too little room.
    """
    from filelock import FileLock

    parts = [archives] if isinstance(archives, Path) else list(archives)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        for left in folder.parent.glob(f"{folder.name}.partial-*"):
            shutil.rmtree(left)  # of a process that was killed: nobody else holds the lock
        if folder.is_dir():
            return folder
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        partial.mkdir()
        try:
            if len(parts) == 1 and zipfile.is_zipfile(parts[0]):
                _unzip(parts[0], partial, wanted)
            else:
                _untar(parts, partial, wanted)
            return partial.rename(folder)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise GeopeftError(
                f"{parts[0]} cannot be extracted ({type(error).__name__}: {error}). Delete it, so "
                "that it is fetched again."
            ) from error
        finally:
            if partial.is_dir():
                shutil.rmtree(partial)


def _unzip(archive: Path, folder: Path, wanted: Callable[[str], bool] | None) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            _check_name(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise GeopeftError(f"{archive} holds a link, {member.filename!r}: not extracted.")
        chosen = [each for each in packed.infolist() if wanted is None or wanted(each.filename)]
        check_space(folder, sum(member.file_size for member in chosen), archive.name)
        packed.extractall(folder, chosen)


def _untar(parts: Sequence[Path], folder: Path, wanted: Callable[[str], bool] | None) -> None:
    """Extract member by member: a compressed archive is read once, and its sizes checked then."""
    if wanted is None:
        # Compressed imagery hardly shrinks: twice the archive is a fair guess of what it will take.
        check_space(folder, 2 * sum(part.stat().st_size for part in parts), parts[0].name)
    source = cast("IO[bytes]", io.BufferedReader(_Joined(parts), 1 << 20))
    with tarfile.open(fileobj=source, mode="r|*") as packed:
        for member in packed:
            _check_name(parts[0], member.name)
            if not (member.isfile() or member.isdir()):
                raise GeopeftError(
                    f"{parts[0]} holds {member.name!r}, which is neither a file nor a folder: not "
                    "extracted."
                )
            if wanted is not None and not (member.isfile() and wanted(member.name)):
                continue
            check_space(folder, member.size, member.name)
            packed.extract(member, folder, filter="data")


def _check_name(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
        raise GeopeftError(f"{archive} holds {name!r}, which lies outside of it: not extracted.")


class _Joined(io.RawIOBase):
    """Reads files one after the other as if they were one."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self.parts = list(parts)
        self.file: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while True:
            if self.file is None:
                if not self.parts:
                    return 0
                self.file = self.parts.pop(0).open("rb")
            count = int(self.file.readinto(buffer))  # type: ignore[attr-defined]
            if count:
                return count
            self.file.close()
            self.file = None

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        super().close()
