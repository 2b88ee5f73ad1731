"""A decoded chip is taken from disk for the content that it was decoded from, and for no other."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geopeft_nb.datasets.base import Reading
from geopeft_nb.datasets.published.common import entry, kept

CONTENT = b"a" * 50_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/chips/toy"


def decode(path: Path) -> Callable[[], Reading]:
    """Decode a file: its bytes."""

    def read() -> Reading:
        image = np.frombuffer(path.read_bytes(), np.uint8).astype(np.float32)
        return Reading(image, np.zeros(1), "EPSG:32633", (0.1, 1e-300, 2 / 3, 1e300))

    return read


def not_decoded() -> Reading:
    raise AssertionError("decoded although nothing changed")


def replaced(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    os.utime(other, (1000, 1000))  # as cp -p of an older file
    os.replace(other, path)


def rewritten(path: Path, content: bytes) -> None:
    known = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))


def linked(path: Path, content: bytes) -> None:
    path.rename(path.with_name("first"))
    path.with_name("second").write_bytes(content)
    path.symlink_to("second")


@pytest.mark.parametrize("place", [0, 25_000, 49_999])
@pytest.mark.parametrize("change", [replaced, rewritten, linked])
def test_a_changed_file_is_decoded_again_whatever_its_times_say(
    cache: Path, tmp_path: Path, change: Callable[[Path, bytes], None], place: int
) -> None:
    path = tmp_path / "chip.tif"
    path.write_bytes(CONTENT)
    kept(entry("toy", "chip", [path]), decode(path))
    change(path, CONTENT[:place] + b"b" + CONTENT[place + 1 :])
    found = kept(entry("toy", "chip", [path]), decode(path))
    assert (found.image == decode(path)().image).all() and found.image[place] == ord("b")


def test_a_file_that_only_moved_or_aged_is_not_decoded(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "chip.tif"
    path.write_bytes(CONTENT)
    first = kept(entry("toy", "chip", [path]), decode(path))
    replaced(path, CONTENT)
    path = path.rename(tmp_path / "elsewhere.tif")
    found = kept(entry("toy", "chip", [path]), not_decoded)
    assert found[2:] == first[2:] and (found.image == first.image).all()


@pytest.mark.parametrize(
    "names", [("a/b", "a__b"), ("a", "A"), ("a/../b", "b"), ("..", "x"), ("e\u0301", "\u00e9")]
)
def test_two_chips_never_share_an_entry(
    cache: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    for turn in range(2):
        for number, name in enumerate(names):
            image = np.full(3, number)
            read = not_decoded if turn else (lambda image=image: Reading(image, image))
            assert (kept(entry("toy", name), read).image == image).all()
    entries = {path.name.lower() for path in (tmp_path / "cache").rglob("*.npz")}
    assert len(entries) == 2 == len(list(cache.glob("*.npz")))


def test_a_damaged_entry_is_decoded_again_wherever_it_is_damaged(
    cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "chip.tif"
    path.write_bytes(bytes(range(256)))
    right = kept(entry("toy", "chip", [path]), decode(path))
    (file,) = cache.glob("*.npz")
    whole = file.read_bytes()
    cut = [whole[:length] for length in range(0, len(whole), 97)]
    flipped = [whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :] for at in
               range(0, len(whole), 7)]  # fmt: skip
    for damaged in [*cut, *flipped]:
        file.write_bytes(damaged)
        found = kept(entry("toy", "chip", [path]), decode(path))
        for one, other in zip(found[:4], right[:4], strict=True):
            assert np.array_equal(one, other)
