"""How files arrive: checked, extracted safely; killed at any moment, right in the end."""

import gzip
import hashlib
import io
import json
import pwd
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from trickling_server import Trickle, trickling, without_certificate

from geopeft_nb import files
from geopeft_nb.archives import extract
from geopeft_nb.datasets.base import Reading
from geopeft_nb.datasets.published import common
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import FileEntry, fetch, fetch_many, find_dataset

HERE = Path(__file__).parent

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GEOPEFT_MIRROR", raising=False)
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trickle]:
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", without_certificate())
    with trickling(CONTENT) as server:
        yield server


def chip(number: int) -> Reading:
    """Make a chip that is told from others."""
    pixels = np.random.default_rng(number).integers(0, 9999, (6, 64, 64))
    return Reading(pixels.astype(np.uint16), np.full((64, 64), number, np.int16))


def entry(server: Trickle, **changes: object) -> FileEntry:
    facts = {"url": server.url, "size": len(CONTENT), "sha256": DIGEST} | changes
    return FileEntry("big.bin", **facts)  # type: ignore[arg-type]


def test_a_wrong_checksum_names_both_and_leaves_nothing(server: Trickle, cache: Path) -> None:
    with pytest.raises(ValueError, match=f"its sha256 is {DIGEST} instead of {'0' * 64}"):
        fetch(entry(server, sha256="0" * 64))
    with pytest.raises(ValueError, match=r"its md5 is .* instead of 0000"):
        fetch(entry(server, sha256=None, md5="0" * 32))
    with pytest.raises(ValueError, match=r"its sha256 is .* instead of 00000000\."):
        fetch(entry(server, sha256="0" * 8))  # only the first digits are known
    with pytest.raises(ValueError, match="size in bytes is 3000000 instead of 3000001"):
        fetch(entry(server, size=3_000_001))
    assert {path.name for path in cache.iterdir()} == {".big.bin.gp.lock"}
    assert fetch(entry(server, sha256=DIGEST[:8])).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["broken", "nothing"])
def test_a_broken_connection_or_no_file_is_explained_and_leaves_nothing(
    server: Trickle, cache: Path, content: bytes
) -> None:
    server.content, server.breaks_after = content, 200_000
    with pytest.raises(FileNotFoundError, match=r"did not give it: (ChunkedEnc|HTTP)"):
        fetch(entry(server))
    assert {path.name for path in cache.iterdir()} == {".big.bin.gp.lock"}


@pytest.mark.parametrize("kind", ["http", "HTTP", "ftp", "file", "//", "", "leads on"])
def test_nobody_is_asked_without_encryption(server: Trickle, cache: Path, kind: str) -> None:
    plain = server.url.replace("https", "http")
    server.leads_to = plain if kind == "leads on" else ""
    address = server.url if kind == "leads on" else plain.replace("http", kind, 1)
    with pytest.raises(FileNotFoundError, match="not an https address"):
        fetch(entry(server, url=address or plain[5:]))
    assert server.asked == (kind == "leads on")
    assert not cache.exists() or {path.name for path in cache.iterdir()} == {".big.bin.gp.lock"}


@pytest.mark.parametrize("name", ["GEOPEFT_CACHE", "GEOPEFT_MIRROR"])
@pytest.mark.parametrize("value", ["~nobody_here/x", "c" * 5000], ids=["nobody", "long"])
def test_a_folder_that_cannot_be_is_refused_by_name(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert find_dataset("scenes") is not None  # it ships
    with pytest.raises(GeopeftError, match=f"{name} cannot be '.{{10,300}}$"):
        find_dataset("absent")
    with pytest.raises(GeopeftError, match="root cannot be"):
        find_dataset("absent", value)


def test_who_has_no_home_needs_one_only_for_a_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # a user of a container without a name
    assert find_dataset("absent") is None
    monkeypatch.delenv("GEOPEFT_CACHE")
    assert find_dataset("scenes") is not None  # it ships
    with pytest.raises(GeopeftError, match=r"GEOPEFT_CACHE cannot be .*home"):
        find_dataset("absent")


def test_a_full_disk_is_seen_before_anything_is_written(
    server: Trickle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=0, used=0, free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"takes 3 MB in .* where 1 MB are free.*GEOPEFT_CACHE"):
        fetch(entry(server))
    assert server.asked == 0


def test_nothing_is_downloaded_if_that_is_not_wanted(server: Trickle, cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match="download=False"):
        fetch(entry(server), download=False)
    with pytest.raises(FileNotFoundError, match=r"big\.bin.*download=False"):
        fetch_many([entry(server)], "the set", download=False)
    assert server.asked == 0


DOORS = ["extraction", "mirror", "download", "cache"]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each door, and what was seen there; one process tries all, each time in a child."""
    command = [sys.executable, str(HERE / "killed_arrivals.py"), str(tmp_path_factory.mktemp("k"))]
    command += [*DOORS, "downloads", "readers", "mirrors"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_first_downloads_at_the_same_time_ask_once(tried: dict[str, Any]) -> None:
    assert tried["downloads"] == {"ended": [0, 0, 0], "asked": 1, "size": 3_000_000}


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_what_was_killed_or_filled_the_disk_is_whole_or_not_there(
    tried: dict[str, Any], door: str
) -> None:
    facts = tried[door]
    assert facts["kills"] >= 20 and facts["random"] >= 15
    assert facts["left"] == ["all", "nothing"] and facts["again"] == [[0, "all"]]
    if door == "cache":  # which warns, and decodes again
        assert [0, "nothing"] in facts["filled"] and {end for end, _ in facts["filled"]} == {0}
    else:
        assert facts["filled"] == [[3, "nothing"]]


@pytest.mark.slow
def test_thirty_readers_of_a_mirror_and_two_who_fill_one_get_all_of_it(
    tried: dict[str, Any],
) -> None:
    assert tried["readers"]["rounds"] == [[0] * 30] * 10
    rounds = tried["mirrors"]["rounds"]
    assert len(rounds) == 10 and all(found in ([0, 3, "all"], [0, 0, "all"]) for found in rounds)


def tar(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as packed:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content)
            packed.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_refused_archive_is_closed(tmp_path: Path) -> None:
    archive = tmp_path / "bad.tar.gz"
    archive.write_bytes(gzip.compress(tar(("link", b""), kind=tarfile.SYMTYPE)))
    with pytest.raises(ValueError, match="SpecialFileError") as caught:
        extract([archive], tmp_path / "out")
    # The frames that the error holds would keep a forgotten file open until it is collected.
    assert caught.tb and str(archive) not in [f.path for f in psutil.Process().open_files()]


def test_an_archive_that_swells_beyond_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(60_000_000))
    usage = SimpleNamespace(total=0, used=0, free=100_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"bomb\.zip takes 60 MB .* where 100 MB are free"):
        extract([tmp_path / "bomb.zip"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def unpacked(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", ["tar", "gz", "zip", "parts"])
def test_an_archive_that_is_cut_off_anywhere_is_refused_and_leaves_nothing(
    tmp_path: Path, kind: str
) -> None:
    members = {f"folder/file{n}": CONTENT[n : n + 1500 * n] for n in range(3)}
    content = tar(*members.items())[: 14 * 512]  # to the end of its two blocks of zeros
    pack = gzip.compress if kind == "tar" else bytes
    if kind == "zip":
        with zipfile.ZipFile(buffer := io.BytesIO(), "w") as packed:
            for name, inside in members.items():
                packed.writestr(name, inside)
        content = buffer.getvalue()
    elif kind != "tar":
        content = gzip.compress(content)
    size = len(content)
    number = size // 7 if kind == "parts" else size
    for end in [*range(0, size, 97), *range(512, size, 512), size - 1, size]:
        parts = [tmp_path / f"{kind}{at}" for at in range(0, max(end, 1), number)]
        for at, part in enumerate(parts):
            part.write_bytes(pack(content[at * number : min(end, (at + 1) * number)]))
        if end == size:
            assert unpacked(extract(parts, tmp_path / "out")) == members
            break
        with pytest.raises(GeopeftError, match="cannot be extracted"):
            extract(parts, tmp_path / "out")
        assert not [path for path in tmp_path.iterdir() if path.is_dir()], end


def test_a_full_disk_keeps_no_chips_and_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SPARE", 10**18)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"Decoded chips are not kept .* GEOPEFT_CACHE"):
            read = common.kept(common.entry("toy", "c"), lambda: chip(7))
        assert (read.target == 7).all()
    assert not list(cache.rglob("*.npz"))


def test_a_root_that_is_no_folder_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder"):
        find_dataset("toy", str(tmp_path / "nowhere"))
    assert find_dataset("toy") is None
    (cache / "toy").mkdir(parents=True)
    assert find_dataset("toy") == cache / "toy"
