"""The one way a file arrives: what ships, then the offline mirror, then the cache, then a download.

`GEOPEFT_MIRROR` names one or more folders (separated like PATH) that are looked in before the
network: a classroom points it at a shared drive. `GEOPEFT_CACHE` moves the download folder.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileEntry:
    """One file that the toolkit can ask for.

    Attributes:
        path: Name below `data/`, a mirror folder or the cache, with forward slashes.
        size: Size in bytes, where it is known.
        sha256: Checksum in hexadecimal, where it is published.
        url: https address to download from; empty for files that ship or that only mirrors have.
        licence: SPDX name of the licence.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    url: str = ""
    licence: str = ""


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


def fetch(entry: FileEntry) -> Path:
    """Return a local, checked copy of a file, downloading it if it has an address.

    Args:
        entry: What is wanted.

    Returns:
        Path of the file. What ships comes first, then mirrors, then the cache.

    Raises:
        FileNotFoundError: The file is nowhere and has no address.
        ValueError: The file that was found has the wrong size or checksum.
    """
    places = [folder / entry.path for folder in [data_folder(), *mirror_folders(), cache_folder()]]
    for place in places:
        if place.is_file():
            return check_file(place, size=entry.size, sha256=entry.sha256)
    if not entry.url.startswith("https://"):
        raise FileNotFoundError(
            f"{entry.path!r} is in none of {', '.join(map(str, places))} and has no https address. "
            "Set GEOPEFT_MIRROR to a folder that has it."
        )
    import pooch  # only a download needs it

    folder, name = (cache_folder() / entry.path).parent, Path(entry.path).name
    known_hash = f"sha256:{entry.sha256}" if entry.sha256 else None
    return check_file(
        Path(pooch.retrieve(entry.url, known_hash, fname=name, path=folder)), size=entry.size
    )


def check_file(path: Path, *, size: int | None = None, sha256: str | None = None) -> Path:
    """Return the path if the file has the stated size and checksum.

    Args:
        path: An existing file.
        size: Expected bytes, or None.
        sha256: Expected checksum in hexadecimal, or None.

    Returns:
        The same path.

    Raises:
        ValueError: Size or checksum differ; the message states both values.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise ValueError(
            f"{path} is corrupt or incomplete: {found} bytes instead of {size}. Delete it and "
            "fetch it again."
        )
    if sha256 is not None and (actual := sha256_of(path)) != sha256:
        raise ValueError(
            f"{path} is corrupt: its sha256 is {actual[:16]}… instead of {sha256[:16]}…. Delete it "
            "and fetch it again."
        )
    return path


def sha256_of(path: Path) -> str:
    """Return the sha256 checksum of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
