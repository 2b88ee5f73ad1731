"""Archives: extracted beside their place, by rules that keep them inside, and moved when whole."""

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from posixpath import normpath
from typing import Any, Self

from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import check_space
from geopeft_nb.writing import held, new_folder

#: An archive holds at most so many times its own bytes, and these besides.
SWELLS, BESIDES = 200, 64_000_000
#: Folders in an archive lie so deep at most, and a header of a tar is so long.
DEPTH, HEADER = 64, 1 << 20
#: Says of a member's name, and whether it is a folder, whether it is extracted.
Chooser = Callable[[str, bool], bool]


def extract(parts: Sequence[Path], folder: Path, wanted: Callable[[str], bool] = bool) -> Path:
    """Extract an archive into a new folder, all of it or nothing.

    Args:
        parts: A zip or tar.gz file; or several, in order, that a tar.gz was cut into.
        folder: Where its content shall lie. If it exists it is complete, and nothing is done.
        wanted: Says by its name, with forward slashes, whether a member is extracted.

    Returns:
        The folder.

    Raises:
        GeopeftError: A member would land outside the folder, is a link or a device or comes twice;
            or the file is no archive, damaged, cut off, or swells beyond measure.
        NotWrittenError: The disk has too little room.
    """
    with held(folder, timeout=-1):
        if folder.is_dir():
            return folder
        with new_folder(folder) as made:
            (files := made / "files").mkdir()
            try:
                most = SWELLS * sum(part.stat().st_size for part in parts) + BESIDES
                unpack = _untar if len(parts) > 1 or not zipfile.is_zipfile(parts[0]) else _unzip
                unpack(parts, files, _chooser(wanted), most)
                return files.rename(folder)
            except GeopeftError:
                raise
            except Exception as error:  # what is not an archive can make any of them
                raise GeopeftError(
                    f"{parts[0]} cannot be extracted ({error!r}): delete it to fetch it again."
                ) from error


def _chooser(wanted: Callable[[str], bool]) -> Chooser:
    """Make what says whether a member is extracted, by its name and whether it is a folder."""
    seen = set[str]()

    def choose(name: str, is_folder: bool) -> bool:
        if name.count("/") > DEPTH:
            raise tarfile.ReadError(f"a member lies {name.count('/')} folders deep")
        if is_folder or not wanted(name):
            return wanted(name)
        place = normpath(name.lstrip("/")).casefold()  # not all disks tell "a" from "A"
        if place in seen:
            raise tarfile.ReadError(f"{name!r} is in it twice")
        seen.add(place)
        return True

    return choose


def _unzip(parts: Sequence[Path], folder: Path, choose: Chooser, most: int) -> None:
    """Extract what is wanted; zipfile itself keeps names inside the folder."""
    with zipfile.ZipFile(parts[0]) as packed:
        chosen = [m for m in packed.infolist() if choose(m.filename, m.is_dir())]
        for member in chosen:
            if stat.S_ISLNK(member.external_attr >> 16) or ".." in member.filename.split("/"):
                raise zipfile.BadZipFile(f"{member.filename!r} is a link or lies outside")
        size = sum(member.file_size for member in chosen)
        if size > most:
            raise zipfile.BadZipFile(f"its {size:,} bytes are too many for its size")
        check_space(folder, size, parts[0].name)
        packed.extractall(folder, chosen)


def _untar(parts: Sequence[Path], folder: Path, choose: Chooser, most: int) -> None:
    """Extract what is wanted in one pass: a compressed archive takes long to read."""

    def check(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        if not (member.isfile() or member.isdir()) or member.issparse():
            raise tarfile.SpecialFileError(member)
        if not choose(member.name, member.isdir()):
            return None
        check_space(folder, member.size, member.name)
        return tarfile.data_filter(member, path)

    with ExitStack() as opened:
        files = [opened.enter_context(part.open("rb")) for part in parts]
        # tarfile itself would not see where what it is compressed in is cut off.
        content: Any = _Content([gzip.open(_Content(files, most))], most)  # type: ignore[call-overload]
        with tarfile.open(fileobj=content, mode="r|", tarinfo=_Header) as packed:
            packed.extractall(folder, filter=check)
            # Behind what tarfile takes for the end, if only for a damaged header, there have to be
            # zeros, a block at least; and what it is compressed in ends with a checksum.
            rest = iter(partial(packed.fileobj.read, HEADER), b"")
            zeros = [0 if any(part) else len(part) for part in rest]
            if sum(zeros) < tarfile.BLOCKSIZE or 0 in zeros:
                raise tarfile.ReadError("its end is missing")


class _Header(tarfile.TarInfo):
    """A header that takes little memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size > HEADER and not header.isfile():
            raise tarfile.ReadError(f"a header has {header.size:,} bytes")
        return header


@dataclass
class _Content:
    """Reads files one after the other as if they were one, as far as that may swell."""

    files: Sequence[Any]
    left: int

    def read(self, size: int) -> bytes:
        content: bytes = next(filter(None, (file.read(size) for file in self.files)), b"")
        self.left -= len(content)
        if self.left < 0:
            raise tarfile.ReadError("it holds too many bytes for its size")
        return content
