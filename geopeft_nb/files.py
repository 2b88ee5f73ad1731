"""The one way a file arrives: what ships, then the offline mirror, then the cache, then a download.

`GEOPEFT_MIRROR` names one or more folders (separated like PATH) that are looked in before the
network: a classroom points it at a shared drive. `GEOPEFT_CACHE` moves the download folder. What
comes from the Hugging Face hub lies in the cache of the hub's own tools, where they find it too.
"""

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from geopeft_nb.errors import GeopeftError
from geopeft_nb.writing import NotWrittenError, held, written_beside

#: Bytes that stay free beside what is written.
SPARE = 64_000_000
_ON_HUB = re.compile(
    r"https://(?:huggingface\.co|hf\.co)/(?P<repo_type>datasets/)?(?P<repo_id>[^/]+/[^/]+)"
    r"/resolve/(?P<revision>[^/]+)/(?P<filename>.+)"
)


@dataclass(frozen=True)
class FileEntry:
    """One file that the toolkit can ask for.

    Attributes:
        path: Name below `data/`, a mirror folder or the cache, with forward slashes.
        size: Size in bytes, where it is known.
        sha256: Checksum in hexadecimal, or its first digits, where that is published.
        url: Address to download from; empty for files that ship or that only mirrors have.
        licence: SPDX name of the licence.
        md5: Checksum in hexadecimal, where only that one is published.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    url: str = ""
    licence: str = ""
    md5: str | None = None

    @property
    def hub(self) -> dict[str, Any]:
        """What `hf_hub_download` takes, of a file of the Hugging Face hub; else nothing."""
        if not (found := _ON_HUB.fullmatch(self.url)):
            return {}
        return found.groupdict() | {"repo_type": "dataset" if found["repo_type"] else "model"}


def hub_file(
    path: str, repository: str, file: str = "", revision: str = "main", **facts: str | int | None
) -> FileEntry:
    """Describe a file of the hub: its path here, and in which repository it has which name."""
    url = f"https://huggingface.co/{repository}/resolve/{revision}/{file or path}"
    return FileEntry(path, url=url, **facts)  # type: ignore[arg-type]


def data_folder(name: str = "data") -> Path:
    """Return the folder of what ships: in a checkout, or inside the installed package."""
    package = Path(__file__).resolve().parent
    return package / name if (package / name).is_dir() else package.parent / name


def mirror_folders() -> list[Path]:
    """Return the folders named by the environment variable GEOPEFT_MIRROR that exist."""
    names = os.environ.get("GEOPEFT_MIRROR", "").split(os.pathsep)
    folders = [named_path(name, "GEOPEFT_MIRROR") for name in names if name]
    return [folder for folder in folders if folder.is_dir()]


def cache_folder() -> Path:
    """Return the folder where downloads are kept (GEOPEFT_CACHE, or the user's cache).

    Raises:
        GeopeftError: GEOPEFT_CACHE can be no path, or is not set and the user has no home.
    """
    return named_path(os.environ.get("GEOPEFT_CACHE") or "~/.cache/geopeft_nb", "GEOPEFT_CACHE")


def named_path(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path that somebody named, with ``~`` for a home; nothing need be there.

    Args:
        path: What was given.
        what: What it is, for the message.

    Raises:
        GeopeftError: Nothing can be there: it is too long or no text, or has a home of nobody.
    """
    try:
        named = Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            named.lstat()
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise GeopeftError(f"{what} cannot be {repr(path)[:100]} ({str(error)[:100]}).") from error
    return named


def find_dataset(name: str, root: str | None = None) -> Path | None:
    """Find a data set's folder: `root` itself, or the first mirror or cache that has one.

    Args:
        name: Folder name, for example ``"sen1floods11"``.
        root: Folder that the user named; it must exist.

    Returns:
        The folder, or None if it has to be downloaded.

    Raises:
        FileNotFoundError: `root` is no folder.
    """
    if root is not None:
        folder = named_path(root, "root")
        if not folder.is_dir():
            raise FileNotFoundError(f"root={root!r} is no folder. Give the folder of the files.")
        return folder
    places = (folder / name for folder in _places())
    return next((place for place in places if place.is_dir()), None)


def _places() -> Iterator[Path]:
    """Give the folders where files are looked for, in order: what ships needs no other."""
    yield data_folder()
    yield from mirror_folders()
    yield cache_folder()


def find_file(entry: FileEntry) -> Path | None:
    """Return where a file lies on this machine, unchecked, or None.

    What ships comes first, then mirrors, then the cache, then the cache of the hub's own tools.
    """
    places = (folder / entry.path for folder in _places())
    found = next((place for place in places if place.is_file()), None)
    if not found and entry.hub:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(**entry.hub)
        if isinstance(cached, str) and entry.size in (None, Path(cached).stat().st_size):
            return Path(cached)  # else it is not there, or an older version, of another size
    return found


def fetch(entry: FileEntry, download: bool = True) -> Path:
    """Return a local, checked copy of a file, downloading it if it has an address.

    What ships comes first, then mirrors, then the cache, then a download:
    from the hub by its own client, which resumes what was interrupted, from elsewhere by pooch. One
    process downloads while others that want the same file wait. Downloading weights that are not
    for commercial use gives a warning.

    Args:
        entry: What is wanted.
        download: False never downloads.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: The file is nowhere, and has no address or cannot be downloaded; the
            message says why and what to do.
        NotWrittenError: The disk has too little room.
        GeopeftError: The file that was found or downloaded has the wrong size or checksum.
    """
    place = find_file(entry)
    return check_file(place, entry) if place else _downloaded(entry, download)


def _downloaded(entry: FileEntry, allowed: bool) -> Path:
    """Download a file that is not on this machine, or say why it cannot be had."""
    if not (entry.url and allowed):
        raise _missing(entry, "download=False" if entry.url else "it has no address to download")
    if "-NC" in entry.licence.upper():
        message = f"{entry.path} is not for commercial use: {entry.licence}."
        warnings.warn(message, stacklevel=7)  # the line that calls gp.load_backbone
    from requests import RequestException

    try:
        return _from_hub(entry) if entry.hub else _from_url(entry)
    except Exception as error:  # offline, no such file, no access: each library has its own kinds
        cause = error.__cause__ if isinstance(error, NotWrittenError) else error
        if isinstance(error, GeopeftError) and not isinstance(cause, RequestException):
            raise
        said = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
        raise _missing(entry, f"{entry.url} did not give it: {said}") from error


def fetch_many(entries: Sequence[FileEntry], what: str, download: bool = True) -> list[Path]:
    """Fetch files that come one by one, a few at a time; see `fetch`.

    Args:
        entries: What is wanted.
        what: What they are together, for messages.
        download: False refuses to download.

    Returns:
        Their paths, in order.

    Raises:
        FileNotFoundError: Some are nowhere and may not or cannot be downloaded.
        NotWrittenError: The disk has too little room.
        GeopeftError: One has the wrong size or checksum.
    """
    from tqdm.contrib.concurrent import thread_map

    missing = [entry for entry in entries if find_file(entry) is None]
    get, silent = partial(fetch, download=download), len(missing) <= 8
    return thread_map(get, entries, max_workers=4, desc=what, disable=silent)


def _from_hub(entry: FileEntry) -> Path:
    """Download from the hub into its cache."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    # This asks once: `hf_hub_download` asks for 20 s if offline.
    size = get_hf_file_metadata(hf_hub_url(**entry.hub), timeout=3).size or entry.size or 0
    check_space(Path(constants.HF_HUB_CACHE), size, entry.path)
    path = Path(hf_hub_download(**entry.hub))
    try:
        return check_file(path, entry)
    except GeopeftError:
        path.resolve().unlink(missing_ok=True)  # what is in its cache is a link to the content
        path.unlink(missing_ok=True)
        raise


def _from_url(entry: FileEntry) -> Path:
    """Download into the toolkit's cache, unless another process has done so meanwhile."""
    import pooch

    def follow(answer: Any, **_: object) -> None:
        _check_https(urljoin(answer.url, answer.headers.get("location", "")))

    _check_https(entry.url)
    target, bar = cache_folder() / entry.path, (entry.size or 0) > 10_000_000
    get = pooch.HTTPDownloader(bar, timeout=(15, 60), hooks={"response": follow})
    with held(target, timeout=-1):
        if not target.is_file():
            check_space(target.parent, entry.size or 0, entry.path)
            with written_beside(target) as partial:
                get(entry.url, str(partial), None)
                check_file(partial, entry)
    return check_file(target, entry)


def _check_https(url: str) -> None:
    from requests.exceptions import InvalidSchema

    if not url.startswith("https://"):
        raise InvalidSchema(f"{url} is not an https address")


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse what would fill the disk, before any of it is written.

    Args:
        folder: A folder on the disk in question; it is made if need be.
        needed: Bytes that will be written.
        what: What they are, for the message.

    Raises:
        NotWrittenError: Fewer are free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise NotWrittenError(
            f"{what} takes {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free "
            f"({SPARE / 1e6:.0f} MB stay in reserve). Free some space, or choose a folder on a "
            "larger disk (GEOPEFT_CACHE, and HF_HOME for the hub's files)."
        )


def _missing(entry: FileEntry, reason: str) -> FileNotFoundError:
    """Make the error for a file that cannot be had."""
    facts = [f"{entry.size:,} bytes" if entry.size else "", entry.licence]
    about = f" ({', '.join(filter(None, facts))})" if any(facts) else ""
    return FileNotFoundError(
        f"{entry.path!r}{about} is not on this machine, and {reason}. Looked in "
        f"{', '.join(map(str, _places()))}. Set GEOPEFT_MIRROR to a folder that has it. For weights"
        " you can also give weights=PATH, or weights=None for random ones; for data root=..."
    )


def check_file(path: Path, entry: FileEntry) -> Path:
    """Return the path if the file has the size and checksum that are known of it.

    Raises:
        GeopeftError: Size or checksum differ; the message states both values.
    """
    facts: list[tuple[str, object, object]] = [("size in bytes", path.stat().st_size, entry.size)]
    for kind, digits in (("sha256", entry.sha256), ("md5", entry.md5)):
        facts.append((kind, digits and checksum_of(path, kind)[: len(digits)], digits))
    for what, found, expected in facts:
        if expected not in (None, found):
            said = f"its {what} is {found} instead of {expected}"
            raise GeopeftError(f"{path} is corrupt or incomplete: {said}. Delete it.")
    return path


def checksum_of(path: Path, kind: str = "sha256") -> str:
    """Return a checksum of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
