"""Names of bands, and how files are found and checked."""

import hashlib
from pathlib import Path

import pytest

from geopeft_nb.bands import HLS_BANDS, band_indices, band_name
from geopeft_nb.errors import unknown_name
from geopeft_nb.files import FileEntry, fetch, find_folder


def test_sentinel2_and_landsat_numbers_name_the_same_band() -> None:
    assert band_name("b8a") == band_name("L8:B5") == "NIR_NARROW"
    assert band_name("B2") == band_name("S2:B02") == "BLUE"


def test_unknown_band_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'GREEN'"):
        band_name("GREN")


def test_band_indices_follow_the_wanted_order() -> None:
    assert band_indices(["SWIR_2", "B02"], HLS_BANDS) == [5, 0]


@pytest.mark.parametrize("bands", [[], ["RED", "B04"], ["CIRRUS"], "RED"])
def test_band_indices_refuse_what_cannot_work(bands: list[str]) -> None:
    with pytest.raises(ValueError, match=r"(?i)band"):
        band_indices(bands, HLS_BANDS)


def test_unknown_name_suggests_whatever_the_case() -> None:
    assert "Did you mean 'lora'" in str(unknown_name("method", "LORAA", ["full", "lora"]))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path))
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_file_in_the_mirror_is_found_and_checked(mirror: Path) -> None:
    (mirror / "weights.bin").write_bytes(b"right")
    checksum = hashlib.sha256(b"right").hexdigest()
    assert fetch(FileEntry("weights.bin", size=5, sha256=checksum)) == mirror / "weights.bin"


def test_a_file_with_the_wrong_checksum_is_refused(mirror: Path) -> None:
    (mirror / "weights.bin").write_bytes(b"wrong")
    checksum = hashlib.sha256(b"right").hexdigest()
    with pytest.raises(ValueError, match="corrupt: its sha256"):
        fetch(FileEntry("weights.bin", size=5, sha256=checksum))


def test_a_truncated_file_is_refused(mirror: Path) -> None:
    (mirror / "weights.bin").write_bytes(b"rig")
    with pytest.raises(ValueError, match="3 bytes instead of 5"):
        fetch(FileEntry("weights.bin", size=5))


def test_a_missing_file_says_where_it_was_looked_for(mirror: Path) -> None:
    with pytest.raises(FileNotFoundError, match="GEOPEFT_MIRROR"):
        fetch(FileEntry("nowhere.bin"))
    with pytest.raises(FileNotFoundError, match="GEOPEFT_MIRROR"):
        find_folder("nowhere", "The nowhere data set")
