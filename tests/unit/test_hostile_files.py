"""Files of data that name other files or addresses, or claim too much, are refused by all doors.

More of them, in forks that are watched, are in tests/hostile/hostile_folders.py.
"""

import json
import os
import socket
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import geopeft_nb as gp
from geopeft_nb.errors import GeopeftError
from geopeft_nb.open_files import open_raster, read_polygons, read_text

geopandas = pytest.importorskip("geopandas")
SECRET = 4242


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address on this machine that nobody may ask for anything."""
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "1")  # in case somebody does
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.settimeout(0.05)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder elsewhere, of which nothing may come out."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write(folder / "secret.tif", np.full((4, 32, 32), SECRET, np.uint16))
    fields(folder, "secret.gpkg", "TOP SECRET")
    return folder


def write(path: Path, pixels: np.ndarray, **tags: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
        dtype=pixels.dtype, crs="EPSG:32633", transform=from_origin(5e5, 5e6, 10, 10),
    ) as raster:  # fmt: skip
        raster.write(pixels)
        for domain, items in tags.items():
            raster.update_tags(ns=domain, **items)
    return path


def fields(folder: Path, name: str, label: str = "field") -> Path:
    from shapely.geometry import box

    shapes = [box(5e5, 4_999_900, 500_100, 5e6), box(500_100, 4_999_900, 500_200, 5e6)]
    columns = {"class": [label, "other"]}
    geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32633").to_file(folder / name)
    return folder / name


def sparse(path: Path) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", width=200_000, height=200_000, count=1, dtype="uint8",
        transform=from_origin(5e5, 5e6, 10, 10), SPARSE_OK=True, BIGTIFF="YES",
    ):  # fmt: skip
        pass


VRT = (
    '<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand dataType="UInt16" band="1">'
    "<SimpleSource><SourceFilename>{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    "</VRTRasterBand></VRTDataset>"
)
Write = Callable[[Path, str, Path], object]
RASTERS: dict[str, Write] = {
    "VRT after a space": lambda path, _, elsewhere: path.write_text(
        f" \n{VRT.format(elsewhere / 'secret.tif')}"
    ),
    "overviews elsewhere": lambda path, url, _: write(
        path, np.ones((4, 32, 32), "u2"), OVERVIEWS={"OVERVIEW_FILE": f"/vsicurl/{url}/o.tif"}
    ),
    "places elsewhere": lambda path, url, _: write(
        path, np.ones((4, 32, 32), "u2"), GEOLOCATION={"X_DATASET": f"/vsicurl/{url}/x.tif"}
    ),
    "strips of 40 GB": lambda path, *_: sparse(path),
    "holes of 40 GB": lambda path, *_: (sparse(path), os.truncate(path, 40_000_000_000)),
    "a link to a device": lambda path, *_: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path, *_: path.symlink_to(path),
}


@pytest.mark.parametrize("case", RASTERS)
def test_a_raster_is_what_its_first_bytes_say_and_nothing_else(
    tmp_path: Path, address: str, secret: Path, case: str
) -> None:
    for kind in ("images", "masks"):
        root = tmp_path / kind
        write(root / "images" / "b.tif", np.ones((4, 32, 32), "u2"))
        write(root / "masks" / "b.tif", np.ones((1, 32, 32), "u2"))
        (file := root / kind / "b.tif").unlink()
        RASTERS[case](file, address, secret)
        with pytest.raises(GeopeftError, match=r"b\.tif cannot be read: .+\. .+"):
            gp.load_data("folder", root=root, band_names=["BLUE", "GREEN", "RED", "NIR"])


@pytest.mark.parametrize("beside", [".ovr", ".msk", ".aux.xml"])
def test_nothing_beside_a_raster_is_followed(
    tmp_path: Path, address: str, secret: Path, beside: str
) -> None:
    del address
    pixels = np.arange(4 * 64 * 64, dtype="u2").reshape(4, 64, 64)
    path = write(tmp_path / "a.tif", pixels)
    path.with_name(f"a.tif{beside}").write_text(VRT.format(secret / "secret.tif"))
    with open_raster(path) as raster:
        assert (raster.read() == pixels).all() and raster.dataset_mask().all()
        assert not raster.overviews(1)
        assert raster.read(1, out_shape=(16, 16)).max() < SECRET


def in_base(*statements: str) -> Write:
    def make(path: Path, _: str, __: Path) -> None:
        fields(path.parent, "made.gpkg").rename(path)
        with closing(sqlite3.connect(path)) as base:
            for statement in statements:
                base.execute(statement)
            base.commit()

    return make


def linked_table(path: Path, _: str, elsewhere: Path) -> None:
    fields(path.parent, "made.shp")
    (path.parent / "made.dbf").rename(elsewhere / "secret.dbf")
    for file in path.parent.glob("made.*"):
        file.rename(path.with_suffix(file.suffix))
    path.with_suffix(".dbf").symlink_to(elsewhere / "secret.dbf")


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
OGR_VRT = "<OGRVRTDataSource><OGRVRTLayer name='s'><SrcDataSource>{}</SrcDataSource></OGRVRTLayer>"
VECTORS: dict[str, Write] = {
    "OGR-VRT after a magic.fgb": lambda path, _, elsewhere: path.write_text(
        f"fgb\x03fgb\x01{OGR_VRT.format(elsewhere / 'secret.gpkg')}</OGRVRTDataSource>"
    ),
    "query.gpkg": in_base("ALTER TABLE made RENAME TO real",
                          f"CREATE VIEW made AS SELECT x AS fid FROM ({ENDLESS})"),
    "contents are a query.gpkg": in_base("ALTER TABLE gpkg_contents RENAME TO real",
                                         f"CREATE VIEW gpkg_contents AS {ENDLESS}"),
    "computed.gpkg": in_base("CREATE TABLE t(a, b AS (zeroblob(2000000000)))",
                             "UPDATE gpkg_geometry_columns SET table_name = 't'"),
    "virtual.gpkg": in_base("CREATE VIRTUAL TABLE v USING fts5(a)",
                            "UPDATE gpkg_geometry_columns SET table_name = 'v'"),
    "table elsewhere.shp": linked_table,
}  # fmt: skip


@pytest.mark.parametrize("case", VECTORS)
def test_polygons_are_what_their_first_bytes_say_and_nothing_else(
    tmp_path: Path, address: str, secret: Path, case: str
) -> None:
    root = tmp_path / "root"
    write(root / "a.tif", np.ones((4, 32, 32), "u2"))
    VECTORS[case](root / case, address, secret)
    with pytest.raises(GeopeftError, match=r"cannot be read: .+\. .+") as refused:
        gp.load_data("folder", root=root, band_names=["BLUE", "GREEN", "RED", "NIR"])
    assert "TOP SECRET" not in str(refused.value)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".fgb"])
def test_plain_polygons_are_read_alike(tmp_path: Path, suffix: str) -> None:
    frame = read_polygons(fields(tmp_path, f"p{suffix}"))
    assert {*frame["class"]} == {"field", "other"} and frame.crs == "EPSG:32633"
    assert np.allclose(frame.total_bounds, (5e5, 4_999_900, 500_200, 5e6))


@pytest.mark.parametrize("case", ["external", "soft", "stored elsewhere", "virtual", "huge"])
def test_arrays_of_other_files_are_not_read(tmp_path: Path, case: str) -> None:
    from geopeft_nb.datasets.published.geobench import _own

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.full((8, 8), SECRET)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if case == "external":
            file["x"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
        elif case == "soft":
            file["x"] = h5py.SoftLink("/y")
        elif case == "stored elsewhere":
            place = [(str(tmp_path / "secret.h5"), 0, 64)]
            file.create_dataset("x", (64,), "u1", external=place)
        elif case == "virtual":
            layout = h5py.VirtualLayout((8, 8), "i8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (8, 8))
            file.create_virtual_dataset("x", layout)
        else:
            file.create_dataset("x", (200_000, 200_000), "u1", chunks=(8, 8))
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(GeopeftError, match="cannot be read"):
        _own(file, "x")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 100_000, b"", b"{]", b"1" * 5_000],
    ids=["not utf-8", "deep", "nothing", "unfinished", "large number"],
)  # fmt: skip
def test_text_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(GeopeftError, match=r"a\.json cannot be read"):
        read_text(tmp_path / "a.json", json.loads)


def test_a_table_is_text_with_its_columns_and_names_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("index.csv", "chip,region,place\na,river,1\n")
    for content in (path.read_bytes(), b"chip,region\na,river\n", b"a" * 200_000):
        path.write_bytes(content)
        with pytest.raises(GeopeftError, match=r"index\.csv cannot be read"):
            gp.load_data("hls_water", root=tmp_path)
    path.write_text("chip,region,place\n../../secret,river,1\n")
    with pytest.raises(GeopeftError, match=r"'\.\./\.\./secret' is no name"):
        gp.load_data("hls_water", root=tmp_path)


def test_no_module_opens_files_of_data_past_the_door(root: Path) -> None:
    calls = ("rasterio.open(", "read_csv(", "read_file(", "read_dataframe(", "list_layers(")
    for path in (root / "geopeft_nb").rglob("*.py"):
        text = path.read_text(encoding="utf-8").replace("read_csv(StringIO(text)", "of a text")
        found = [call for call in calls if call in text]
        # what is being written is no file of data yet
        assert not found or path.name in ("open_files.py", "unfinished.py"), f"{path}: {found}"
