"""The split lists that were published with arXiv 2504.17397."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from geopeft_nb.datasets.cards import Request
from geopeft_nb.files import FileEntry, fetch

_COMMIT = "5fe258d428d2a8500dcfc376ba1b72051a509160"
_SOURCE = f"https://raw.githubusercontent.com/IBM/peft-geofm/{_COMMIT}/datasets_splits"

#: List, named as in the authors' repository -> sha256 and number of chips.
LISTS: dict[str, tuple[str, int]] = {
    "sen1floods11/train_data": (
        "899ee084e400fefdbe139a52aa3d292072edea4c3695afcc5a5a0383af5ff69d", 252),
    "sen1floods11/valid_data": (
        "45eca7a5b701ac3e8f8b2fd5a52ab443cf6be0d3649116a867fc2c1fdbad1541", 89),
    "sen1floods11/test_data": (
        "b707770200485f909f8e0afcfb06b43cf9137ebca7b09460797a828effb9b42e", 90),
    "sen1floods11/bolivia_data": (
        "6b8239d95214af1c9ecfb70dec058872e7dcf831591bff80ff4d61a643e06434", 15),
    "burn_scars/train_data": (
        "f1dca5c488c7a7451f3aa82f20677c18b3b22a2d96b59d68215494e3dba6f393", 524),
    "burn_scars/val_data": (
        "50a98be7974a2fec73af62b5f54063d938bcfe93cd9802b90eb33eb78f4d7f3e", 160),
    "burn_scars/test_data": (
        "c61ddcb5a434da3f5e63edd7c87549af104c6cc69345876a8ed770844bab1788", 120),
    "reBEN/reBEN_7k/train": (
        "74a32f633a67e33688d89c2b2518f1c3c483f32b891325d905cac69246da83d7", 4690),
    "reBEN/reBEN_7k/val": (
        "9aaf30c26a8df5b7705199739294f0ceedd1a073db2dbed0070715be9f974fe5", 946),
    "reBEN/reBEN_7k/test": (
        "c0460af179f8ceb77a5ccf78d49fe0dd63d80d41197d1b40cdd99a70fc2f69fc", 945),
    "reBEN/reBEN_7k/ood": (
        "c9964324e839eb4a1f89e86fecd59958d3490e2a15686b73966a423c47bc51cf", 807),
}  # fmt: skip


def list_entry(name: str) -> FileEntry:
    """Describe the file of a list; mirrors have it below ``peft_geofm_splits/``."""
    digest, _ = LISTS[name]
    return FileEntry(
        f"peft_geofm_splits/{name}.txt",
        sha256=digest,
        url=f"{_SOURCE}/{name}.txt",
        licence="Apache-2.0",
    )


def split_list(name: str, download: bool = True) -> list[str]:
    """Return the chips of a published list.

    Args:
        name: A key of `LISTS`, for example ``"burn_scars/val_data"``.
        download: Whether it may be downloaded.

    Returns:
        One name per chip, in the list's order.

    Raises:
        FileNotFoundError: It is not on this machine and cannot be downloaded.
        ValueError: The file is not the published one.

    Source: https://github.com/IBM/peft-geofm (Apache-2.0), its folder datasets_splits.
    """
    text = fetch(list_entry(name), download=download).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def keep_present(
    listed: Mapping[str, list[str]],
    missing: Callable[[str], str | None],
    what: str,
    request: Request,
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Check that the files of every listed chip are there, before anything is read.

    Args:
        listed: Side -> names of its chips.
        missing: Says which file a chip lacks, or None if it lacks none.
        what: Name of the data set, for the message.
        request: What was asked for; with ``unreadable="skip"`` chips without files are left out.

    Returns:
        The lists without the chips that are not there; and the name of each of those -> why.

    Raises:
        FileNotFoundError: A listed chip is not there, and is not to be skipped.
    """
    lacking = {chip: file for chips in listed.values() for chip in chips if (file := missing(chip))}
    if lacking and request.unreadable != "skip":
        chip, file = next(iter(lacking.items()))
        total = sum(map(len, listed.values()))
        raise FileNotFoundError(
            f"The split lists of {what} name {total:,} chips, and the files of {len(lacking):,} "
            f"of them are not there, for example of {chip!r}: {file}. Complete the folder, or "
            "load what is there with unreadable='skip', which names the others in data.skipped."
        )
    kept = {side: [chip for chip in chips if chip not in lacking] for side, chips in listed.items()}
    return kept, {chip: f"{file} is not there" for chip, file in lacking.items()}
