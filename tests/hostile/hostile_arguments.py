"""Arguments, environments, addresses and mirrors that nobody should give."""

import math
import os
import pwd
from collections.abc import Callable
from functools import partial
from typing import Any

from hostile_folders import STATED
from hostile_fork import NOISE, Input, Room

import geopeft_nb as gp
from geopeft_nb.__main__ import main
from geopeft_nb.datasets.published import common
from geopeft_nb.files import FileEntry, fetch

PATHS = {
    "nan": math.nan, "nul": "\0", "long": "n" * 10**5, "http": "http://x/y",
    "vsicurl": "/vsicurl/http://x/y", "file": "file", "below_file": "file/a",
}  # fmt: skip
WRITTEN = {kind: PATHS[kind] for kind in ("nan", "nul", "long", "file", "below_file")}
NAMES = {
    "list": [], "long": "n" * 10**5, "timm": "timm:../../x", "torchgeo": "torchgeo:os.system",
}  # fmt: skip
#: What takes a path or a name, what is expected, and what it is given; test_arguments has the rest.
DOORS: dict[str, tuple[Callable[[Room, Any], object], str, dict[str, Any]]] = {
    "name": (lambda _, name: gp.load_backbone(name), "refused", NAMES),
    "weights": (lambda _, path: gp.load_backbone("geopeft_tiny", path), "missing", PATHS),
    "root": (lambda _, path: gp.load_data("folder", root=path, **STATED), "missing", PATHS),
    "labels": (
        lambda room, path: gp.load_data("folder", root=room.warm.pairs, labels=path, **STATED),
        "missing", PATHS,
    ),
    "out": (
        lambda room, path: gp.fit(
            room.warm.model, room.warm.data, dashboard=False, epochs=1, out=path
        ),
        "refused", WRITTEN,
    ),
    "folder": (lambda room, path: gp.save_adapter(room.warm.model, path), "refused", WRITTEN),
}  # fmt: skip


def argument(name: str, kind: str) -> Input:
    door, expected, values = DOORS[name]

    def make(room: Room) -> Callable[[], object]:
        (room.inside / "file").touch()
        return lambda: type(door(room, values[kind])).__name__

    return Input(f"argument {name} {kind}", expected, make)


def environment(room: Room, name: str, value: str | None) -> Callable[[], object]:
    """Set a variable; HOME without a value is that of a user whom nobody knows."""
    (room.inside / "file").touch()
    os.environ |= {name: (value or "").format(room=room.inside)}
    if value is None:
        del os.environ["HOME"], os.environ["GEOPEFT_CACHE"]
        vars(pwd)["getpwuid"] = {}.__getitem__
    return lambda: [repr(gp.load_backbone("geopeft_tiny")), repr(gp.load_data("scenes"))]


def mirror(room: Room, name: str, target: str) -> Callable[[], object]:
    """Copy a mirror with a folder of chips, in which something is a link."""
    source, copy = room.inside / "source/hls_water", room.inside / "copy"
    source.mkdir(parents=True)
    (source / "index.csv").write_text("chip,region,place\n")
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(target.format(out=room.outside))
    os.environ["GEOPEFT_MIRROR"] = str(source.parent)

    def call() -> str:
        if main(["mirror", str(copy), "--lessons", "none", "--also", "hls_water"]):
            raise gp.GeopeftError("The command said no.")
        return " ".join(path.read_text() for path in copy.rglob("*") if path.is_file())

    return call


def address(room: Room, url: str) -> Callable[[], object]:
    port = room.warm.url.rsplit(":")[-1]
    entry = FileEntry("a.bin", url=url.format(here=f"127.0.0.1:{port}", out=room.outside))
    return lambda: fetch(entry).read_text()


def kept(room: Room, content: bytes) -> Callable[[], object]:
    """Leave a file in the cache of decoded chips that nobody of us wrote."""
    file = common.entry("toy", "a")
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return lambda: common.kept(file, lambda: gp.load_backbone("decoded anew"))


def adapter(room: Room, name: str) -> Callable[[], object]:
    return lambda: gp.load_model(name)


LONG = "c" * 5000
#: What is tried, what is expected, and the words for it.
OTHERS: list[tuple[Callable[..., Callable[[], object]], str, list[tuple[Any, ...]]]] = [
    (environment, "harmless", [
        ("HOME", None), ("GEOPEFT_CACHE", "{room}/file"), ("GEOPEFT_CACHE", "{room}/file/below"),
        ("GEOPEFT_MIRROR", "{room}/file")]),
    (environment, "either", [
        ("GEOPEFT_CACHE", LONG), ("GEOPEFT_MIRROR", LONG), ("GEOPEFT_CACHE", "~nobody_here/x"),
        ("GEOPEFT_MIRROR", "~nobody_here/x")]),
    (mirror, "refused", [
        ("a.tif", "{out}/secret.txt"), ("chips", "{out}"), ("index.csv", "{out}/secret.txt"),
        ("b.tif", "../../../outside/secret.txt"), ("circle", ".")]),
    (address, "missing", [
        ("http://{here}/a",), ("HTTP://{here}/a",), ("ftp://{here}/a",), ("sftp://{here}/a",),
        ("file://{out}/secret.txt",), ("{out}/secret.txt",), ("{here}",)]),
    (kept, "refused", [(NOISE,), (b"",), (b"cos\nmkdir\n(Vowned\ntR.",), (b"PK\3\4",)]),
    (adapter, "missing", [
        ("http://127.0.0.1/a",), ("/vsicurl/http://127.0.0.1/a",), ("file:///etc",),
        ("hub:../..",), ("a\0b",), ("s3://a/b",)]),
]  # fmt: skip


def others() -> list[Input]:
    return [
        Input(f"{door.__name__} {shown(words)}", expected, partial(flip, door, words))
        for door, expected, rows in OTHERS
        for words in rows
    ]


def shown(words: tuple[Any, ...]) -> str:
    return " ".join(ascii(word).strip("'") for word in words)[:40]


def flip(door: Callable[..., Callable[[], object]], words: tuple[Any, ...], room: Room) -> Any:
    return door(room, *words)


INPUTS = [argument(name, kind) for name, row in DOORS.items() for kind in row[2]] + others()
