"""Filling a shared drive for a classroom, and thirty machines that read it."""

import hashlib
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import requests
from trickling_server import trickling, without_certificate

import geopeft_nb as gp
from geopeft_nb import files
from geopeft_nb.__main__ import main
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.classroom import mirror as command
from geopeft_nb.classroom.mirror import NO_FILES
from geopeft_nb.classroom.quiz import load_questions
from geopeft_nb.datasets.load import LOADERS
from geopeft_nb.files import FileEntry, fetch, find_dataset, hub_file

HERE = Path(__file__).parent
WEIGHTS = np.random.default_rng(0).bytes(500_000)
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
CHIPS = {
    f"{part}/chip{i}.bin": np.random.default_rng(i).bytes(20_000)
    for part in ("train", "test")
    for i in range(60)
}
ENTRY = hub_file("toy/encoder.pt", "owner/toy", size=len(WEIGHTS), sha256=DIGEST)


def listing(folder: Path) -> dict[str, int]:
    """When each file was changed."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files}


def holds_all(folder: Path) -> bool:
    chips = all((folder / "chips" / name).read_bytes() == data for name, data in CHIPS.items())
    return chips and (folder / "toy/encoder.pt").read_bytes() == WEIGHTS


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror that has a backbone `toy` and a data set `chips`, which lesson 01 needs."""
    folder = tmp_path / "source"
    for name, content in CHIPS.items():
        (folder / "chips" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "chips" / name).write_bytes(content)
    (folder / "toy").mkdir()
    (folder / "toy/encoder.pt").write_bytes(WEIGHTS)
    monkeypatch.setitem(CARDS, "toy", replace(CARDS["galileo_nano"], name="toy", weights=ENTRY))
    monkeypatch.setitem(LOADERS, "chips", LOADERS["hls_water"])
    named = ["geopeft_tiny", "scenes", "toy", "chips"]
    monkeypatch.setattr(command, "load_questions", lambda *_: named)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(folder))
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    return folder


@pytest.fixture
def dest(source: Path, tmp_path: Path) -> Path:
    return tmp_path / "dest"


def copy(dest: Path, *more: str) -> int:
    return main(["mirror", str(dest), "--lessons", "01", *more])


def test_every_lesson_and_what_it_names_is_in_the_table(root: Path) -> None:
    wanted = re.compile(r'(?:(?:model|data|compare) = (?:None  # )?|load_\w+\()"(\w+)"')
    for path in (root / "notebooks/source").glob("[0-9]*/lesson.py"):
        needed = {*load_questions(path.parent, "needs")}
        named = {*wanted.findall(path.read_text(encoding="utf-8"))} & (
            CARDS.keys() | LOADERS.keys()
        )
        assert named - {*NO_FILES} <= needed <= CARDS.keys() | LOADERS.keys(), path


def test_what_was_copied_is_a_mirror_of_its_own_that_is_only_read(
    dest: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copy(dest) == 0
    before = listing(dest)
    assert before.keys() == listing(source).keys()
    shutil.rmtree(source)
    for path in [*dest.rglob("*"), dest]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(dest))
    assert fetch(ENTRY) == dest / "toy/encoder.pt" and find_dataset("chips") == dest / "chips"
    assert holds_all(dest) and listing(dest) == before and not (dest.parent / "cache").exists()
    for path in [dest, *dest.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    shown = capsys.readouterr().out
    assert shown.startswith(f"2.9 MB to copy to {dest}\n")
    assert re.search(r"toy +1 files, 0\.5 MB +copied\n", shown)
    assert re.search(r"chips +120 files, 2\.4 MB +copied", shown)
    assert re.search(r"geopeft_tiny +0 files, 0\.0 MB +ships", shown)
    assert f"Set the environment variable GEOPEFT_MIRROR to {dest}" in shown


def test_a_list_copies_nothing_and_a_second_time_changes_nothing(
    dest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copy(dest, "--list") == 0 and not dest.exists()
    assert capsys.readouterr().out.count("  to copy\n") == 2
    copy(dest)
    before = listing(dest)
    capsys.readouterr()
    assert copy(dest) == 0
    assert listing(dest) == before
    shown = capsys.readouterr().out
    assert shown.startswith("0.0 MB to copy") and shown.count("there already") == 2


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (False, r"'toy/encoder\.pt' \(500,000 bytes.*\) is not on .*ConnectionError: no network"),
        (True, r"\S+source/toy/encoder\.pt is corrupt"),
    ],
)
def test_what_cannot_be_had_is_named_and_the_rest_copied(
    dest: Path,
    source: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    damaged: bool,
    said: str,
) -> None:
    (source / "toy/encoder.pt").unlink()
    if damaged:
        (source / "toy/encoder.pt").write_bytes(bytes(len(WEIGHTS)))
    monkeypatch.setitem(LOADERS, "absent", LOADERS["hls_water"])
    assert copy(dest, "--also", "absent") == 1
    assert (dest / "chips").is_dir() and not (dest / "toy").exists()
    shown = capsys.readouterr()
    assert re.search(r"toy .* missing", shown.out) and "Set the environment" not in shown.out
    first, second = shown.err.splitlines()
    assert re.match(f"geopeft_nb: toy is missing: {said}", first)
    assert second.startswith("geopeft_nb: absent is missing: 'absent' is not on this machine")


def test_a_damaged_copy_is_replaced_once_another_has_come(dest: Path, source: Path) -> None:
    copy(dest)
    kept = (source / "toy/encoder.pt").rename(source / "kept.pt")
    (dest / "toy/encoder.pt").write_bytes(bytes(len(WEIGHTS)))
    (dest / "chips/test/chip7.bin").write_bytes(b"cut")
    assert copy(dest) == 1 and (dest / "toy/encoder.pt").read_bytes() == bytes(len(WEIGHTS))
    kept.rename(source / "toy/encoder.pt")
    assert copy(dest) == 0
    assert holds_all(dest)


def test_a_full_disk_is_seen_before_anything_is_copied(
    dest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = SimpleNamespace(total=0, used=0, free=files.SPARE + 1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert copy(dest) == 1
    assert [path.name for path in dest.iterdir()] == [".mirror.gp.lock"]
    (error,) = capsys.readouterr().err.splitlines()
    assert "The mirror takes 3 MB in" in error and "choose a folder on a larger disk" in error


LINKS = {
    "a chip": "source/chips/test/chip7.bin", "a folder": "source/chips/more",
    "a set": "source/chips", "weights": "source/toy/encoder.pt", "their folder": "source/toy",
    "a set there": "dest/chips", "a folder there": "dest/chips/test",
    "weights there": "dest/toy/encoder.pt",
}  # fmt: skip


@pytest.mark.parametrize("kind", LINKS)
def test_no_link_is_followed_from_a_mirror_or_into_one(
    dest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    link, outside = tmp_path / LINKS[kind], tmp_path / "outside"
    outside.mkdir()
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists():
        link.rename(outside / "there")
        link.symlink_to(Path(os.path.relpath(outside / "there", link.parent)))
    else:
        link.symlink_to(outside)
    before = listing(outside)
    assert copy(dest) == 1
    assert f"{link} is a link" in capsys.readouterr().err
    assert listing(outside) == before and not (dest / LINKS[kind].partition("/")[2]).is_file()


def test_a_size_that_the_card_lacks_is_that_of_the_file_here(
    dest: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(CARDS, "toy", replace(CARDS["toy"], weights=replace(ENTRY, size=None)))
    assert copy(dest, "--list") == 0
    (source / "toy/encoder.pt").unlink()
    assert copy(dest, "--list") == 0
    here, nowhere = re.findall(r"^.*MB to copy", capsys.readouterr().out, re.MULTILINE)
    assert (here, nowhere) == ("2.9 MB to copy", "at least 2.4 MB to copy")


def test_a_data_set_that_comes_file_by_file_is_downloaded(
    dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", without_certificate())
    with trickling(WEIGHTS) as server:
        names = [f"parts/chip{i}.bin" for i in range(5)]
        entries = [
            FileEntry(name, url=server.url, size=len(WEIGHTS), sha256=DIGEST) for name in names
        ]
        loader = SimpleNamespace(__module__="toy_set")
        monkeypatch.setitem(sys.modules, "toy_set", SimpleNamespace(mirror_files=lambda _: entries))
        monkeypatch.setitem(LOADERS, "parts", (LOADERS["hls_water"][0], loader))
        assert copy(dest, "--also", "parts") == 0
        assert all((dest / name).read_bytes() == WEIGHTS for name in names)
        shutil.rmtree(tmp_path / "cache")
        assert copy(dest, "--also", "parts") == 0
        assert server.asked == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lessons", "1,99"], "Unknown lesson '99'"),
        (["--lessons", "1", "--also", "galileo_nono"], "Did you mean 'galileo_nano'"),
    ],
)
def test_mistakes_are_told_in_one_line(
    dest: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["mirror", str(dest), *arguments]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert said in error and not dest.exists()


@pytest.mark.mirror
def test_a_classroom_loads_real_weights_and_chips_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--lessons", "none", "--also", "galileo_nano", "hls_water"]
    assert main(["mirror", str(tmp_path / "dest"), *arguments]) == 0
    monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path / "dest"))
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    assert gp.load_backbone("galileo_nano").provenance["weights"].startswith(str(tmp_path))
    data = gp.load_data("hls_water", size=64, download=False)
    assert data.train[0]["image"].shape == (6, 64, 64)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [
        "chips"
    ]  # decoded, not fetched
