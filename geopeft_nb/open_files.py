"""The only door to files of data: what may be opened, told by its first bytes, and how.

GDAL and its drivers follow what a file says: text of a VRT or WMS that is called ``.tif`` reads
other files and addresses, and so do sidecars, overviews and the tables of some formats. Here a
file is a regular one, is opened by the one driver of its first bytes, and stands for itself alone:
no address, no ``/vsi…`` path, no link out of its folder, no sidecar (``.ovr``, ``.aux.xml``,
``.msk``, ``.tfw``). A mask beside a raster is a raster of its own, to be opened here as such.
"""

import json
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from os.path import lexists
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.errors import GeopeftError

#: First bytes -> GDAL's driver.
RASTERS = {
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG", b"\xffO\xffQ": "JP2OpenJPEG",
    b"\x89PNG\r\n": "PNG", b"\xff\xd8\xff": "JPEG",
}  # fmt: skip
#: Bytes that pixels may take at once; in parts a file of n bytes may hold `DENSE` times n more:
#: what deflate makes of zeros is about a thousandth.
AT_ONCE, DENSE = 2**29, 2_000
#: Bytes of a text, which takes some ten times as much in memory; and of each list or object in it.
TEXT, EACH = 2**27, 16
#: A coordinate reference system that names a file by its path, or an address.
_GRID = re.compile(r"""(?:grids=|init=|PARAMETERFILE\["[^"]*",\s*")[^\s,"]*[/\\:]""", re.IGNORECASE)
#: What opens a raster once, while `kept_open` keeps it.
_KEPT: ContextVar[Callable[[Path, bool], Any] | None] = ContextVar("kept", default=None)
#: Names in a GeoPackage that compute something when they are read.
_QUERIES = """
    SELECT name FROM sqlite_master WHERE type = 'view'
        OR (sql LIKE 'create virtual%' AND sql NOT LIKE '%using rtree%')
    UNION SELECT m.name FROM sqlite_master m, pragma_table_xinfo(m.name) c
        WHERE m.type = 'table' AND m.sql NOT LIKE 'create virtual%' AND c.hidden > 1
"""


def refuse(path: Path, why: object, remedy: str = "Restore it, or take it out") -> GeopeftError:
    """Make the error for a file that is not opened."""
    return GeopeftError(f"{path} cannot be read: {str(why).rstrip('.')}. {remedy}.")


def regular_file(path: Path, root: Path | None = None) -> Path:
    """Return a path if it is that of a file that may be opened.

    Args:
        path: The file.
        root: The folder that a link may not lead out of; None lets it lead anywhere, as in the
            folders of published data that other tools keep.

    Raises:
        FileNotFoundError: It is not there.
        GeopeftError: It is no regular file, or leads elsewhere.
    """
    if not lexists(path):
        raise FileNotFoundError(f"{path} is not there: is its name right, with / between folders?")
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a link to nothing, or to itself
        raise refuse(path, error) from error
    if not real.is_file() or str(path.absolute()).startswith("/vsi"):
        raise refuse(path, "it is no regular file", "Put the file itself there")
    if root and not real.is_relative_to(root.resolve()):
        raise refuse(path, f"it is a link to {real}, outside {root}", "Copy the file itself there")
    return path


def first_bytes(path: Path) -> bytes:
    """Return at most 100 bytes of a regular file."""
    try:
        with regular_file(path).open("rb") as file:
            return file.read(100)
    except PermissionError as error:
        raise refuse(path, error, "Allow yourself to read it") from error


@contextmanager
def open_raster(path: Path, whole: bool = False) -> Iterator[Any]:
    """Open a GeoTIFF (also BigTIFF and COG), JPEG 2000, PNG or JPEG to read it with rasterio.

    Georeferences count that lie in the file itself. One without any gives no warning.

    Args:
        path: The file.
        whole: True if all pixels are going to be read at once, and not in windows.

    Raises:
        GeopeftError: It is something else, names other files, or claims more pixels than such a
            file can hold.
        RasterioIOError: Pixels cannot be read; it is an `OSError`.
    """
    from rasterio.errors import RasterioIOError

    kept = _KEPT.get()
    with nullcontext(kept(path, whole)) if kept else _opened(path, whole) as raster:
        try:
            yield raster
        except RasterioIOError as error:
            if "previous exception" not in str(error):  # of another file, or said already
                raise
            raise RasterioIOError(str(refuse(path, error.__cause__))) from error


@contextmanager
def kept_open() -> Iterator[None]:
    """Let rasters that are opened meanwhile stay open, with the tiles that GDAL has decoded.

    For one thread that reads many windows of a few files.
    """
    with ExitStack() as stack:
        token = _KEPT.set(cache(lambda *asked: stack.enter_context(_opened(*asked))))
        stack.callback(_KEPT.reset, token)
        yield


@contextmanager
def _opened(path: Path, whole: bool) -> Iterator[Any]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    head = first_bytes(path)
    driver = next((name for first, name in RASTERS.items() if head.startswith(first)), None)
    if driver is None:
        raise refuse(
            path, f"it begins with {head[:16]!r} and is no GeoTIFF, JPEG 2000, PNG or JPEG",
            "Write a GeoTIFF: files that only name others (VRT, WMS, …) are not followed",
        )  # fmt: skip
    alone = rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO")
    with warnings.catch_warnings(), alone:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            raster = rasterio.open(path.absolute(), driver=driver)
            _check_raster(path, raster, whole or driver in ("PNG", "JPEG"))
        except (RasterioError, OSError, UnicodeError) as error:
            raise refuse(path, error) from error
        with raster:
            yield raster


def _check_raster(path: Path, raster: Any, whole: bool) -> None:
    """Refuse a header that names other files, or claims what no such file holds."""
    if named := {"OVERVIEWS", "GEOLOCATION"} & {*raster.tag_namespaces()}:
        raise refuse(path, f"its metadata name other files ({', '.join(named)})", "Copy it without")
    check_crs(path, raster.crs.to_wkt() if raster.crs else "")
    kinds = [16 if "complex" in kind else np.dtype(kind).itemsize for kind in raster.dtypes]
    state, claimed = path.stat(), raster.width * raster.height * sum(kinds)
    held = min(state.st_size, getattr(state, "st_blocks", state.st_size) * 512)  # holes hold none
    block = max(rows * columns for rows, columns in raster.block_shapes) * max(kinds)
    if claimed > AT_ONCE + (0 if whole else DENSE * held) or block > AT_ONCE:
        raise refuse(
            path, f"its header claims {raster.height:,} x {raster.width:,} pixels in {len(kinds)} "
            f"bands, {claimed / 1e6:,.0f} MB in blocks of {block / 1e6:,.1f} MB, of {held:,} bytes",
            "If it is whole, cut it, or write it in tiles (rio convert --co TILED=YES)",
        )  # fmt: skip


def check_crs(path: Path, wkt: str) -> None:
    """Refuse a coordinate reference system whose grids are files or addresses.

    Raises:
        GeopeftError: It names one by its path.
    """
    if found := _GRID.search(wkt):
        raise refuse(path, f"its coordinate system names a file ({found[0]}…)", "Give it another")


def read_text(path: Path, parse: Callable[[str], Any], most: int = TEXT) -> Any:
    """Read a file of text, such as JSON or CSV.

    Args:
        path: The file, in UTF-8.
        parse: Takes what is wanted from the text, and relies on what should be there.
        most: Bytes; there are fewer lists and objects by `EACH`.

    Raises:
        GeopeftError: It is too large, or not what it should be.
    """
    if (size := regular_file(path).stat().st_size) > most:
        raise refuse(path, f"{size / 1e6:,.0f} MB of text, more than {most / 1e6:,.0f}", "Cut it")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.count("[") + text.count("{") > most / EACH:
            raise ValueError("more lists than data of such a size have")
        return parse(text)
    except Exception as error:  # whatever is wrong in it, and shapely's have no kind in common
        raise refuse(path, f"its content is not what it should be ({error!r:.200})") from error


def read_polygons(path: Path) -> Any:
    """Read a GeoPackage, GeoJSON, Shapefile or FlatGeobuf.

    Returns:
        A GeoDataFrame of its features; of a GeoPackage of those of its one layer with areas.

    Raises:
        GeopeftError: It is something else, or damaged, or has several such layers.
        ImportError: geopandas is not installed.
    """
    import geopandas  # noqa: F401 - what is missing is told before anything is read

    head = first_bytes(path)
    if head.startswith(b"SQLite format 3\0") and head[68:72] in (b"GPKG", b"GP10", b"GP11"):
        return _from_gdal(path, layer=layer_of(path), IMMUTABLE="YES", LIST_ALL_TABLES="NO")
    # a length of less than 16 MB ends the text in which GDAL looks for other formats' words
    if head.startswith(b"fgb\x03fgb") and head[11:12] == b"\0":
        return _from_gdal(path)
    if head.startswith(b"\0\0\x27\x0a"):
        for part in {part for part in path.parent.iterdir() if part.stem == path.stem}:
            regular_file(part, path.parent)
        return _from_gdal(path)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return read_text(path, _features)
    why = f"it begins with {head[:16]!r} and is no GeoPackage, GeoJSON, Shapefile or FlatGeobuf"
    raise refuse(path, why, "Save polygons: files that name others (VRT, …) are not followed")


def _from_gdal(path: Path, **options: str) -> Any:
    from pyogrio import read_dataframe

    place = str(path.absolute())
    if re.search("[!;]", place):  # pyogrio takes what comes before for an archive
        raise refuse(path, "its path has a '!' or ';'", "Rename it")
    try:
        frame = read_dataframe(place, **options)
        wkt = frame.crs.to_wkt() if frame.crs else ""
    except (AttributeError, OSError, RuntimeError, ValueError) as error:  # it has no shapes
        raise refuse(path, error) from error
    check_crs(path, wkt)
    return frame


def layer_of(path: Path) -> str:
    """Name the one layer with areas of a GeoPackage that runs no queries of its own.

    Raises:
        GeopeftError: It is damaged, computes something when it is read, or has several layers.
    """
    beside = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
    if any(side.is_symlink() or (side.exists() and side.stat().st_size) for side in beside):
        raise refuse(path, "changes are not saved yet", "Close the program that has it open")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as base:
            if computed := base.execute(_QUERIES).fetchall():
                raise refuse(path, f"{computed[0][0]} is a query", "Save its layer in a new file")
            every = base.execute(
                "SELECT table_name, upper(geometry_type_name) FROM gpkg_geometry_columns"
            ).fetchall()
    except sqlite3.Error as error:
        raise refuse(path, error) from error
    areas = [name for name, kind in every if re.search("POLYGON|SURFACE|^GEOMETRY", str(kind))]
    layers = [str(name) for name in areas or [name for name, _ in every]]
    if len(layers) != 1:
        raise refuse(path, f"it has {len(layers)} layers with polygons, {layers}", "Keep one in it")
    return layers[0]


def _features(text: str) -> Any:
    """Read GeoJSON without GDAL, several of whose formats are JSON and name other files."""
    from geopandas import GeoDataFrame

    content = json.loads(text)
    features = content["features"] if content["type"] == "FeatureCollection" else [content]
    named = content.get("crs", {"properties": {"name": "OGC:CRS84"}})
    number = r"^(?:urn:ogc:def:crs:)?(EPSG|ESRI|OGC):(?:[\d.]*:)?(\w+)$"
    crs = named and ":".join(re.findall(number, named["properties"]["name"])[0])
    return GeoDataFrame.from_features([{"properties": {}} | one for one in features], crs=crs)
