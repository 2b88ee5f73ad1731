"""The one way a file arrives: what ships, then the offline mirror, then the cache, then a download.

`GEOPEFT_MIRROR` names one or more folders (separated like PATH) that are looked in before the
network: a classroom points it at a shared drive. `GEOPEFT_CACHE` moves the download folder. In a
mirror, a file of the Hugging Face hub may also lie as the hub's own tools lay it out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geopeft_nb.errors import GeopeftError


@dataclass(frozen=True)
class FileEntry:
    """One file that the toolkit can ask for.

    Attributes:
        path: Name below `data/`, a mirror folder or the cache, with forward slashes.
        size: Size in bytes, where it is known.
        sha256: Checksum in hexadecimal, or its first digits, where that is published.
        url: https address to download from; empty for files that ship or that only mirrors have.
        hub: Repository on the Hugging Face hub, ``"owner/name"``, instead of a url.
        hub_path: Path inside that repository; empty if it is the file's name.
        revision: Commit or branch of that repository.
        licence: SPDX name of the licence.
        md5: Checksum in hexadecimal, where only that one is published.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    url: str = ""
    hub: str = ""
    hub_path: str = ""
    revision: str = "main"
    licence: str = ""
    md5: str | None = None

    @property
    def name(self) -> str:
        """The file's own name, without folders."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def layouts(self) -> list[str]:
        """Where a mirror folder may hold it, first choice first.

        That is `path`; and of a file of the hub also ``<repository>/<file>`` and
        ``<owner>/<repository>/<path in it>``.
        """
        if not self.hub:
            return [self.path]
        inside = self.hub_path or self.name
        repository, file = self.hub.rpartition("/")[2], inside.rpartition("/")[2]
        return list(dict.fromkeys([self.path, f"{repository}/{file}", f"{self.hub}/{inside}"]))

    @property
    def source(self) -> str:
        """Where it can be downloaded; empty if nowhere."""
        if self.hub:
            return f"https://huggingface.co/{self.hub} ({self.hub_path or self.name})"
        return self.url if self.url.startswith("https://") else ""


def data_folder() -> Path:
    """Return the folder of what ships: `data/` in a checkout, or inside the installed package."""
    package = Path(__file__).resolve().parent
    installed = package / "data"
    return installed if installed.is_dir() else package.parent / "data"


def data_path(name: str) -> Path:
    """Return the path of a file or folder that ships with the toolkit.

    Args:
        name: Path below the data folder, for example ``"scenes/virginia.tif"``.

    Returns:
        The existing path.

    Raises:
        FileNotFoundError: It is not there, so the installation is incomplete.
    """
    path = data_folder() / name
    if not path.exists():
        raise FileNotFoundError(
            f"{name!r} should ship with geopeft_nb but is not in {data_folder()}. "
            "Install the package again, or run from a complete checkout."
        )
    return path


def mirror_folders() -> list[Path]:
    """Return the folders named by the environment variable GEOPEFT_MIRROR that exist."""
    names = os.environ.get("GEOPEFT_MIRROR", "").split(os.pathsep)
    return [Path(name).expanduser() for name in names if name and Path(name).expanduser().is_dir()]


def cache_folder() -> Path:
    """Return the folder where downloads are kept (GEOPEFT_CACHE, or the user's cache)."""
    default = Path.home() / ".cache" / "geopeft_nb"
    return Path(os.environ.get("GEOPEFT_CACHE") or default).expanduser()


def find_folder(name: str, what: str) -> Path:
    """Find a data set's folder in the mirror or the cache.

    Args:
        name: Folder name, for example ``"hls_water"``.
        what: What to tell the user that the folder holds.

    Returns:
        The first existing folder.

    Raises:
        FileNotFoundError: No mirror and no cache has it; the message says where it was looked for.
    """
    places = [folder / name for folder in [*mirror_folders(), cache_folder()]]
    for place in places:
        if place.is_dir():
            return place
    looked = ", ".join(str(place) for place in places)
    raise FileNotFoundError(
        f"{what} is not on this machine (looked for {looked}). It cannot be downloaded: set the "
        f"environment variable GEOPEFT_MIRROR to a folder that contains {name!r}, or pass root=."
    )


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
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"root={root!r} is no folder. Give the folder of the files.")
        return folder
    places = [folder / name for folder in [*mirror_folders(), cache_folder()]]
    return next((place for place in places if place.is_dir()), None)


def fetch_many(entries: Sequence[FileEntry], what: str, download: bool = True) -> list[Path]:
    """Fetch files that come one by one, a few at a time.

    Args:
        entries: What is wanted.
        what: What they are together, for messages.
        download: False refuses to download, and says how many are missing.

    Returns:
        Their paths, in order. Files of an earlier time are taken by size alone.

    Raises:
        FileNotFoundError: Some are nowhere and may not or cannot be downloaded.
        OSError: The disk has too little room for all of them.
        ValueError: One has the wrong size or checksum.
    """
    from concurrent.futures import ThreadPoolExecutor

    from geopeft_nb.downloads import check_space

    found = [find_file(entry) for entry in entries]
    missing = [entry for entry, path in zip(entries, found, strict=True) if path is None]
    if missing and not download:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(entries)} files of {what} are not on this machine, "
            f"{missing[0].path!r} among them, and download=False. Looked in "
            f"{', '.join(map(str, [*mirror_folders(), cache_folder()]))}."
        )
    if missing:
        cache_folder().mkdir(parents=True, exist_ok=True)
        check_space(cache_folder(), sum(entry.size or 0 for entry in missing), what)
        from tqdm.auto import tqdm

        shown = len(missing) > 8 and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        with ThreadPoolExecutor(4) as pool, tqdm(missing, what, disable=not shown) as bar:
            for _ in pool.map(fetch, missing):
                bar.update()
    return [
        check_file(path, size=entry.size) if path else fetch(entry)
        for entry, path in zip(entries, found, strict=True)
    ]


def fetch(entry: FileEntry, download: bool = True) -> Path:
    """Return a local, checked copy of a file, downloading it if it has an address.

    What ships comes first, then mirrors (see `FileEntry.layouts`), then the cache, then a download:
    from the hub into the hub's own cache, from other addresses into the toolkit's. An interrupted
    download goes on where it ended. One process downloads while others that want the same file
    wait. Downloading weights that are not for commercial use gives a warning.

    Args:
        entry: What is wanted.
        download: False never downloads.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: The file is nowhere, and has no address or cannot be downloaded; the
            message says why and what to do.
        ValueError: The file that was found or downloaded has the wrong size or checksum.
    """
    if place := find_file(entry):
        return check_file(place, size=entry.size, sha256=entry.sha256, md5=entry.md5)
    if not entry.source:
        raise FileNotFoundError(_missing(entry, "it has no address to download it from"))
    if not download:
        raise FileNotFoundError(_missing(entry, "it was not asked, because of download=False"))
    from filelock import FileLock  # only a download needs it

    cached = cache_folder() / entry.path
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        locked = FileLock(f"{cached}.lock").acquire()
    except OSError as error:
        reason = f"the cache cannot be written to ({_reason(error)}): set GEOPEFT_CACHE to a folder"
        raise FileNotFoundError(_missing(entry, reason)) from error
    with locked:
        if cached.is_file():  # another process fetched it while this one waited
            return check_file(cached, size=entry.size, sha256=entry.sha256, md5=entry.md5)
        if "-NC" in entry.licence.upper():
            message = f"{entry.name} is not for commercial use: {entry.licence}."
            warnings.warn(message, stacklevel=4)  # the line that asked for the backbone
        return _from_hub(entry) if entry.hub else _from_url(entry, cached)


def _from_hub(entry: FileEntry) -> Path:
    """Download from the Hugging Face hub into its cache; a file that fails the check is removed."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    from geopeft_nb.downloads import check_space

    inside = entry.hub_path or entry.name
    try:
        if entry.size:
            folder = Path(HF_HUB_CACHE)
            folder.mkdir(parents=True, exist_ok=True)
            check_space(folder, entry.size, entry.name, "set HF_HOME to a folder on a larger disk")
        path = Path(hf_hub_download(entry.hub, inside, revision=entry.revision))
    except Exception as error:  # offline, no such file, no access: each its own kind
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise FileNotFoundError(_missing(entry, _reason(error))) from error
    try:
        return check_file(path, size=entry.size, sha256=entry.sha256)
    except ValueError:
        path.resolve().unlink()  # the hub's cache holds a link to the content
        path.unlink(missing_ok=True)
        raise


def _from_url(entry: FileEntry, target: Path) -> Path:
    """Download to a temporary name, check, and only then give the file its own name."""
    from geopeft_nb import downloads

    try:
        part = downloads.download(entry.url, target, size=entry.size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise FileNotFoundError(_missing(entry, _reason(error))) from error
    try:
        check_file(part, size=entry.size, sha256=entry.sha256, md5=entry.md5)
        part.replace(target)
    finally:
        downloads.forget(target)
    return target


def find_file(entry: FileEntry) -> Path | None:
    """Return where a file lies on this machine, unchecked, or None.

    What ships comes first, then mirrors, then the cache, then the cache of the hub's own tools,
    which is looked into without asking the hub: without a network that would take many seconds.
    """
    mirrored = [folder / layout for folder in mirror_folders() for layout in entry.layouts]
    places = [data_folder() / entry.path, *mirrored, cache_folder() / entry.path]
    found = next((place for place in places if place.is_file()), None)
    if found or not entry.hub:
        return found
    from huggingface_hub import try_to_load_from_cache

    inside = entry.hub_path or entry.name
    cached = try_to_load_from_cache(entry.hub, inside, revision=entry.revision)
    if not isinstance(cached, str) or not Path(cached).is_file():
        return None
    # Of another size, it is an older version: the hub has the one that is meant.
    return Path(cached) if entry.size in (None, Path(cached).stat().st_size) else None


def _reason(error: Exception) -> str:
    """Say in one line why a download failed."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _missing(entry: FileEntry, reason: str) -> str:
    """Write the message for a file that cannot be had."""
    facts = [f"{entry.size:,} bytes"] if entry.size else []
    facts += [entry.licence] if entry.licence else []
    about = f" ({', '.join(facts)})" if facts else ""
    asked = f"{entry.source} did not give it: " if entry.source else ""
    folders = ", ".join(map(str, [data_folder(), *mirror_folders(), cache_folder()]))
    return (
        f"{entry.path!r}{about} is not on this machine, and {asked}{reason}. Looked in {folders}. "
        "Set the environment variable GEOPEFT_MIRROR to a folder that has it as "
        f"{' or '.join(entry.layouts)}. For weights you can also give a path with weights=..., or "
        "weights=None for a random initialisation; for data a folder with root=..."
    )


def check_file(
    path: Path, *, size: int | None = None, sha256: str | None = None, md5: str | None = None
) -> Path:
    """Return the path if the file has the stated size and checksum.

    Args:
        path: An existing file.
        size: Expected bytes, or None.
        sha256: Expected checksum in hexadecimal, or None.
        md5: The same, for what was published with that one only.

    Returns:
        The same path.

    Raises:
        ValueError: Size or checksum differ; the message states both values.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise GeopeftError(
            f"{path} is corrupt or incomplete: {found} bytes instead of {size}. Delete it and "
            "fetch it again."
        )
    for kind, expected in (("sha256", sha256), ("md5", md5)):
        if expected is not None and not (actual := checksum_of(path, kind)).startswith(expected):
            raise GeopeftError(
                f"{path} is corrupt: its {kind} is {actual[:16]}… instead of {expected[:16]}…. "
                "Delete it and fetch it again."
            )
    return path


def checksum_of(path: Path, kind: str = "sha256") -> str:
    """Return a checksum of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
