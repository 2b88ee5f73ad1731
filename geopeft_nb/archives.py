"""Archives: extracted beside their place, by rules that keep them inside, and moved when whole."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import check_space


def extract(parts: Sequence[Path], folder: Path, wanted: Callable[[str], bool] = bool) -> Path:
    """Extract an archive into a new folder, all of it or nothing.

    Args:
        parts: A tar (also compressed) or zip file; or several, in order, that one was cut into.
        folder: Where its content shall lie. If it exists it is complete, and nothing is done.
        wanted: Says by its name, with forward slashes, whether a member is extracted.

    Returns:
        The folder.

    Raises:
        GeopeftError: A member would land outside the folder, is a link or a device, or the file
            is no archive or damaged.
        OSError: The disk has too little room.
    """
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.partial")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.is_dir():
            return folder
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        try:
            if len(parts) == 1 and zipfile.is_zipfile(parts[0]):
                _unzip(parts[0], partial, wanted)
            else:
                _untar(parts, partial, wanted)
            return partial.rename(folder)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise GeopeftError(
                f"{parts[0]} cannot be extracted ({type(error).__name__}: {error}). Delete it, so "
                "that it is fetched again."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _unzip(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Extract what is wanted; zipfile itself keeps names inside the folder."""
    with zipfile.ZipFile(archive) as packed:
        chosen = [member for member in packed.infolist() if wanted(member.filename)]
        for member in chosen:
            if stat.S_ISLNK(member.external_attr >> 16) or ".." in member.filename.split("/"):
                raise zipfile.BadZipFile(f"{member.filename!r} is a link or lies outside")
        check_space(folder, sum(member.file_size for member in chosen), archive.name)
        packed.extractall(folder, chosen)


def _untar(parts: Sequence[Path], folder: Path, wanted: Callable[[str], bool]) -> None:
    """Extract what is wanted in one pass: a compressed archive takes long to read."""

    def check(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        if not (member.isfile() or member.isdir()):
            raise tarfile.SpecialFileError(member)
        if not wanted(member.name):
            return None
        check_space(folder, member.size, member.name)
        return tarfile.data_filter(member, path)

    with ExitStack() as opened:
        files = [opened.enter_context(part.open("rb")) for part in parts]
        with tarfile.open(fileobj=_Joined(files), mode="r|*") as packed:  # type: ignore[call-overload]
            packed.extractall(folder, filter=check)


@dataclass
class _Joined:
    """Reads files one after the other as if they were one."""

    files: Sequence[BinaryIO]

    def read(self, size: int) -> bytes:
        return next(filter(None, (file.read(size) for file in self.files)), b"")
