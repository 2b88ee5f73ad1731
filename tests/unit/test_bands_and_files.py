"""Names of bands, and how files are found and checked."""

import hashlib
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pooch
import pytest

import geopeft_nb as gp
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.bands import HLS_BANDS, band_indices, band_name
from geopeft_nb.errors import GeopeftError, unknown_name, whole
from geopeft_nb.files import FileEntry, fetch, fetch_many, hub_file
from geopeft_nb.writing import NotWrittenError


@pytest.mark.parametrize(
    ("names", "band"),
    [
        (["B5", "B05", "S2:B5", "S2:B05", "S30:B05"], "RED_EDGE_1"),
        (["L4:B5", "L5:B5", "L7:B5"], "SWIR_1"),
        (["L8:B5", "L9:B5", "l9:b05", "L30:B5", "L30:B05", "S30:B8A"], "NIR_NARROW"),
        (["L5:B4", "L7:B04", "S2:B8"], "NIR_BROAD"),
        (["B10", "S2:B10", "L8:B9", "L30:B09"], "CIRRUS"),
    ],
)
def test_the_same_number_is_another_band_on_another_sensor(names: list[str], band: str) -> None:
    assert {name: band_name(name) for name in names} == dict.fromkeys(names, band)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, r"Unknown band .*after S2: S30: L8: L9: L30: L4: L5: L7:\.")
          for name in ("L5:B6", "L7:B8", "L8:B10", "L30:B11", "L8:SR_B10", "S2:B13", "L6:B4",
                       "SR_B4", "S2:SR_B4", ":B4", "B004")),
        ("GREN", "Did you mean 'GREEN'"),
    ],
)  # fmt: skip
def test_a_name_that_no_optical_band_has_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        band_name(name)


def test_band_indices_follow_the_wanted_order() -> None:
    assert band_indices(["SWIR_2", "B02"], HLS_BANDS) == [5, 0]


@pytest.mark.parametrize("bands", [[], ["RED", "B04"], ["CIRRUS"], "RED"])
def test_band_indices_refuse_what_cannot_work(bands: list[str]) -> None:
    with pytest.raises(ValueError, match=r"(?i)band"):
        band_indices(bands, HLS_BANDS)


@pytest.mark.parametrize(
    ("given", "known", "meant"),
    [
        ("LORAA", ["full", "lora"], "lora"),
        ("rank", ["lora_alpha", "r"], "r"),
        ("alpha", ["lora_alpha", "r"], "lora_alpha"),
        ("gpu", ["auto", "cpu", "cuda"], "cuda"),
        ("tpu", ["auto", "cpu", "cuda"], None),
        ("max_epochs", ["epochs", "batch_size"], "epochs"),
    ],
)
def test_a_near_miss_gets_the_right_word(given: str, known: list[str], meant: str | None) -> None:
    said = str(unknown_name("word", given, known))
    assert f"Unknown word {given!r}" in said and ", ".join(sorted(known)) in said
    assert said.count("Did you mean") == (meant is not None)
    assert meant is None or f"Did you mean {meant!r}?" in said


@pytest.mark.parametrize("value", [0, 5, 1.0, True, "3", None])
def test_what_is_no_whole_number_within_bounds_is_refused(value: object) -> None:
    with pytest.raises(GeopeftError, match=r"count must be a whole number from 1 to 4, got"):
        whole("count", value, 1, 4)
    assert whole("count", 4, 1, 4) == 4


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path))
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_missing_file_says_where_it_was_looked_for(mirror: Path) -> None:
    with pytest.raises(FileNotFoundError, match="GEOPEFT_MIRROR"):
        fetch(FileEntry("nowhere.bin"))


HUB = hub_file("nano/encoder.pt", "owner/model", "models/nano/encoder.pt", size=5)
URL = FileEntry(
    "weights.bin", url="https://example.org/weights.bin", size=5, licence="CC-BY-NC-4.0"
)


@pytest.fixture
def hub(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub that gives this file; what it gives is a link to a blob, as the real one does."""

    def download(**asked: str) -> str:
        assert asked == HUB.hub
        assert (asked["repo_id"], asked["repo_type"]) == ("owner/model", "model")
        (mirror / "encoder.pt").unlink(missing_ok=True)
        (mirror / "encoder.pt").symlink_to(mirror / "blob")
        return str(mirror / "encoder.pt")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    facts = SimpleNamespace(size=5)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: facts)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(mirror / "hub"))
    (mirror / "blob").write_bytes(b"right")
    return mirror / "blob"


def test_a_file_of_the_hub_is_downloaded_and_checked(hub: Path) -> None:
    assert fetch(HUB).read_bytes() == b"right"
    hub.write_bytes(b"rig")
    with pytest.raises(ValueError, match="size in bytes is 3 instead of 5"):
        fetch(HUB)
    assert not hub.exists() and not (hub.parent / "encoder.pt").is_symlink()


def test_an_address_of_a_data_set_on_the_hub_is_known_as_one() -> None:
    url = "https://huggingface.co/datasets/owner/model/resolve/v2/a/b.pt"
    assert FileEntry("b.pt", url=url).hub == {
        "repo_id": "owner/model", "filename": "a/b.pt", "revision": "v2", "repo_type": "dataset"
    }  # fmt: skip


def test_a_hub_that_refuses_is_explained(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise PermissionError("Access to model owner/model is restricted.\nMore lines")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(FileNotFoundError) as caught:
        fetch(HUB)
    message = str(caught.value)
    for part in (
        "nano/encoder.pt", "5 bytes", "huggingface.co/owner/model", "is restricted.",
        str(hub.parent), "GEOPEFT_MIRROR", "weights=None",
    ):  # fmt: skip
        assert part in message
    assert "More lines" not in message


def test_what_the_hub_gave_once_is_found_without_asking_it(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = hub.with_name("kept.pt")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda **_: str(kept))
    kept.write_bytes(b"known")
    assert fetch(HUB, download=False) == kept
    kept.write_bytes(b"an older version")  # of another size: the hub is asked
    assert fetch(HUB).read_bytes() == b"right"


def test_a_full_disk_is_seen_before_the_hub_is_asked(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(NotWrittenError, match=r"encoder\.pt takes 0 MB in .*hub.* HF_HOME"):
        fetch(HUB)


def test_one_truncated_or_changed_file_of_many_is_refused(mirror: Path) -> None:
    for name in ("a", "b"):
        (mirror / name).write_bytes(b"right")
    digest = hashlib.sha256(b"right").hexdigest()
    entries = [FileEntry(name, size=5, sha256=digest) for name in ("a", "b")]
    assert fetch_many(entries, "letters") == [mirror / "a", mirror / "b"]
    for content, what in ((b"rig", "size in bytes is 3 instead of 5"), (b"wrong", "sha256 is")):
        (mirror / "b").write_bytes(content)
        with pytest.raises(ValueError, match=f"b is corrupt or incomplete: its {what}"):
            fetch_many(entries, "letters")


@pytest.mark.filterwarnings("ignore:.*not for commercial use:UserWarning")
def test_without_a_network_a_missing_file_is_told_after_one_question(
    mirror: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def unresolved(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    for entry in (HUB, URL):
        with pytest.raises(FileNotFoundError, match=r"did not give it: Conn.*name resolution"):
            fetch(entry)
    # The hub's own way asks six times, with a pause and a warning before each.
    assert asked.count("huggingface.co") <= 2 and len(asked) <= 3 and not caplog.records


def test_downloading_weights_that_are_not_for_commercial_use_warns_the_line_that_asked(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr(pooch, "HTTPDownloader", offline)
    monkeypatch.setitem(CARDS, "geopeft_tiny", replace(CARDS["geopeft_tiny"], weights=URL))
    message = r"not for commercial use: CC-BY-NC-4\.0"
    with pytest.warns(UserWarning, match=message) as warned, pytest.raises(FileNotFoundError):
        gp.load_backbone("geopeft_tiny")
    assert [warning.filename for warning in warned] == [__file__]
