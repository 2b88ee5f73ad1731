"""Downloads that may be interrupted: what has arrived is kept, the next try fetches the rest."""

from __future__ import annotations

import errno
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from requests import Response

#: Times that a broken connection is taken up again, as long as each brings something.
TRIES = 5
#: Bytes that stay free beside what is written.
SPARE = 64_000_000
_CHUNK = 1 << 18
_TIMEOUT = (15, 60)  # seconds to connect, and between two packets


def download(url: str, target: Path, *, size: int | None = None) -> Path:
    """Download to ``<target>.part``, going on where an earlier try ended.

    A validator of the server (its ETag, or date of change) is kept beside the part: if the file
    has changed there in the meantime, or the server cannot send a part of it, all is fetched anew.

    Args:
        url: Address.
        target: Path that the file shall have in the end; its folder exists.
        size: Expected bytes, or None to believe the server.

    Returns:
        Path of the part, complete as far as the server's word goes. The caller checks and renames.

    Raises:
        OSError: The disk is too full (the message says what is needed), the server refuses, or
            the connection broke again and again; what arrived is kept except after a refusal.
    """
    part, tag = _paths(target)
    tries = TRIES
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _request(url, part, tag, size)
            return part
        except OSError as error:  # requests' exceptions are OSErrors, too
            if error.errno == errno.ENOSPC or _status(error) is not None:
                raise
            after = part.stat().st_size if part.is_file() else 0
            tries = tries - 1 if after > before else 0
            if tries <= 0:
                raise ConnectionError(
                    f"{type(error).__name__}: {error}. {after:,} bytes have arrived and are kept: "
                    "the next try goes on from there"
                ) from error


def forget(target: Path) -> None:
    """Remove what an interrupted download of this file left."""
    for path in _paths(target):
        path.unlink(missing_ok=True)


#: What a user can do about a full disk.
_ELSEWHERE = "set the environment variable GEOPEFT_CACHE to a folder on a larger disk"


def check_space(folder: Path, needed: int, what: str, remedy: str = _ELSEWHERE) -> None:
    """Refuse what would fill the disk, before any of it is written.

    Args:
        folder: An existing folder on the disk in question.
        needed: Bytes that will be written.
        what: What they are, for the message.
        remedy: What to do besides making room, for the message.

    Raises:
        OSError: Fewer are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise OSError(
            errno.ENOSPC,
            f"{what} takes {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free "
            f"({SPARE / 1e6:.0f} MB stay in reserve). Free some space, or {remedy}",
        )


def _paths(target: Path) -> tuple[Path, Path]:
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part-tag")


def _request(url: str, part: Path, tag: Path, size: int | None) -> None:
    """Ask for the file, or for what is missing of it, and append what comes to the part."""
    import requests

    have = part.stat().st_size if part.is_file() and tag.is_file() else 0
    if have and have == size:
        return
    headers = {"Accept-Encoding": "identity"}  # a range counts the bytes of the file itself
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        refuse_plain(response)
        if response.status_code == 416:  # nothing lies behind what we have: not the same file
            part.unlink()
            return _request(url, part, tag, size)
        response.raise_for_status()
        start = response.headers.get("Content-Range", "").partition(" ")[2].partition("-")[0]
        if have and not (response.status_code == 206 and start == str(have)):
            have = 0
        if not have:  # in this order: a tag never stands beside another file's bytes
            part.unlink(missing_ok=True)
            tag.write_text(_validator(response))
        length = response.headers.get("Content-Length")
        rest = int(length) if length else max(0, (size or 0) - have)
        check_space(part.parent, rest, part.name.removesuffix(".part"))
        _append(response, part, have, rest)


def _append(response: Response, part: Path, have: int, rest: int) -> None:
    from tqdm.auto import tqdm

    shown = rest > 10_000_000 and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    name = part.name.removesuffix(".part")
    with (
        part.open("ab" if have else "wb") as file,
        tqdm(
            total=have + rest, initial=have, unit="B", unit_scale=True, desc=name,
            disable=not shown,
        ) as bar,
    ):  # fmt: skip
        arrived = 0
        for chunk in response.iter_content(_CHUNK):
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    check_space(part.parent, rest - arrived, name)
                raise
            arrived += len(chunk)
            bar.update(len(chunk))
    if arrived < rest:
        raise ConnectionError(f"the connection ended after {have + arrived:,} bytes")


def refuse_plain(response: Response) -> None:
    """Refuse an answer that came over a connection without encryption.

    Raises:
        OSError: The address, or one that it led to, is not https.
    """
    if not response.url.startswith("https://"):
        raise OSError(errno.EPROTO, f"{response.url} is not an https address")


def _validator(response: Response) -> str:
    """Return what says that a file is still the same; a weak ETag does not say it."""
    etag = str(response.headers.get("ETag", ""))
    if etag and not etag.startswith("W/"):
        return etag
    # Without any validator an impossible one makes the server send the whole file.
    return str(response.headers.get("Last-Modified") or '"unknown"')


def _status(error: OSError) -> int | None:
    """Return the HTTP status of a refusal, or None for another error."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    return 0 if error.errno == errno.EPROTO else None
