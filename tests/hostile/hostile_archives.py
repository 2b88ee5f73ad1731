"""Tar.gz and zip files that reach out of their folder, blow up, end early or hold no file."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from hostile_fork import NOISE, Input, Room

from geopeft_nb.archives import extract

Write = Callable[[Path, Room], object]


def tar(*members: tuple[str, dict[str, object]], room: Room | None = None) -> bytes:
    """Make a tar of names, with {out} for the folder outside, and fields of their headers."""
    buffer = io.BytesIO()
    out = str(room.outside) if room else ""
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for name, fields in members:
            info = tarfile.TarInfo(name.format(out=out))
            content = str(fields.get("content", "text")).encode()
            for key, value in fields.items():
                if key != "content":
                    setattr(info, key, value.format(out=out) if isinstance(value, str) else value)
            info.size = len(content) if info.isreg() else 0
            packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def members(*given: tuple[str, dict[str, object]]) -> Write:
    return lambda path, room: path.write_bytes(gzip.compress(tar(*given, room=room)))


def linked(target: str, kind: bytes = tarfile.SYMTYPE) -> dict[str, object]:
    return {"type": kind, "linkname": target}


def ends(tar_share: float, share: float = 1) -> Write:
    """Cut the blocks of a tar of three files of 3,000 bytes, and then what they are packed in."""

    def write(path: Path, room: Room) -> None:
        content = tar(*((f"file{n}", {"content": str(n) * 3000}) for n in range(3)))
        packed = gzip.compress(content[: int(tar_share * 3 * 3584)])
        path.write_bytes(packed[: int(share * len(packed))])

    return write


def zipped(
    *names: str, flags: int = 0, method: int = 0, mode: int = 0, content: bytes = b"text"
) -> Write:
    """Make a zip; flags and method are written over those of every member."""

    def write(path: Path, room: Room) -> None:
        with zipfile.ZipFile(path, "w") as packed:
            for name in names:
                info = zipfile.ZipInfo(name.format(out=room.outside))
                info.external_attr = mode << 16
                packed.writestr(info, content.replace(b"{out}", os.fsencode(room.outside)))
        raw = path.read_bytes()
        for mark in (b"PK\3\4" + b"\x14\0", b"PK\1\2" + b"\x14\3\x14\0"):
            raw = raw.replace(mark + bytes(4), mark + struct.pack("<HH", flags, method))
        path.write_bytes(raw)

    return write


def zip_bomb(path: Path, room: Room) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(200_000_000))


def tar_bomb(path: Path, room: Room) -> None:
    info = tarfile.TarInfo("zeros")
    info.size = 200_000_000
    path.write_bytes(gzip.compress(info.tobuf() + bytes(info.size)))


def long_header(path: Path, room: Room) -> None:
    path.write_bytes(gzip.compress(tar(("n" * 2_000_000, {}))))


def damaged_header(path: Path, room: Room) -> None:
    lost = tar(("a", {}))[:1024] + b"x" * 512 + tar(("b", {}))
    path.write_bytes(gzip.compress(lost))


def zeros_behind(path: Path, room: Room) -> None:
    path.write_bytes(gzip.compress(tar(("a", {}))) + gzip.compress(bytes(100_000_000)))


def spoilt(write: Write, change: Callable[[bytearray], object]) -> Write:
    def spoil(path: Path, room: Room) -> None:
        write(path, room)
        raw = bytearray(path.read_bytes())
        change(raw)
        path.write_bytes(raw)

    return spoil


def flip(at: int) -> Callable[[bytearray], object]:
    return lambda content: content.__setitem__(at, content[at] ^ 255)


def cut(share: float) -> Callable[[bytearray], object]:
    return lambda content: content.__delitem__(slice(int(share * len(content)), None))


def raw(content: bytes) -> Write:
    return lambda path, room: path.write_bytes(content)


def pax(**fields: str) -> Write:
    return members(("file", {"pax_headers": fields}))


PLAIN: dict[str, object] = {}
SPARSE = {"major": "1", "minor": "0", "realsize": "1000000000000"}
ARCHIVES: dict[str, Write] = {
    "absolute.tar": members(("{out}/new", PLAIN)), "up.tar": members(("../outside/new", PLAIN)),
    "up_inside.tar": members(("a/../../outside/new", PLAIN)),
    "path_of_pax.tar": pax(path="../outside/new"),
    "link_up.tar": members(("a", linked("../outside"))),
    "link_absolute.tar": members(("a", linked("{out}/secret.txt"))),
    "through_link.tar": members(("a", linked("{out}")), ("a/new", PLAIN)),
    "link_chain.tar": members(("a", linked("b")), ("b", linked("{out}"))),
    "hard_link.tar": members(("a", linked("{out}/secret.txt", tarfile.LNKTYPE))),
    "device.tar": members(("zero", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5})),
    "block_device.tar": members(("disk", {"type": tarfile.BLKTYPE})),
    "fifo.tar": members(("fifo", {"type": tarfile.FIFOTYPE})),
    "two_of_a_name.tar": members(("a", PLAIN), ("./A", {"content": "other"})),
    "file_then_folder.tar": members(("a", PLAIN), ("a/b", PLAIN)),
    "long_name.tar": members(("n" * 5000, PLAIN)), "nul_in_name.tar": pax(path="a\0b"),
    "undecodable_name.tar": members(("\udc80\udcff", PLAIN)),
    "deep_folders.tar": members(("d/" * 3000 + "a", PLAIN)),
    "size_of_pax.tar": pax(size="1000000000000"), "size_minus.tar": pax(size="-512"),
    "sparse.tar": pax(**{f"GNU.sparse.{k}": v for k, v in SPARSE.items()}),
    "sparse_of_gnu.tar": members(("a", {"type": tarfile.GNUTYPE_SPARSE})),
    "long_header.tar": long_header, "damaged_header.tar": damaged_header,
    "zeros_behind.tar": zeros_behind, "bomb.tar": tar_bomb,
    "noise.tar": raw(NOISE), "empty.tar": raw(b""), "text.tar": raw(b"<html>404"),
    "folder.tar": lambda path, room: path.mkdir(),
    **{f"cut_at_{share:.0%}.tar.gz": ends(4, share) for share in (0.1, 0.34, 0.8, 0.97)},
    **{f"cut_at_{share:.0%}.tar": ends(share) for share in (0.1, 0.34, 0.8, 0.97)},
    **{f"cut_after_{n}_files.tar": ends(n / 3 + 1e-9) for n in (1, 2, 3)},
    "plain.tar": lambda path, room: path.write_bytes(tar(("a", PLAIN))),
    "bad_byte.gz": spoilt(ends(4), flip(60)),
    "absolute.zip": zipped("{out}/new"), "up.zip": zipped("../outside/new"),
    "up_inside.zip": zipped("a/../../outside/new"), "drive.zip": zipped("C:\\..\\new"),
    "link.zip": zipped("a", mode=0o120777, content=b"{out}/secret.txt"),
    "device.zip": zipped("a", mode=0o020666), "fifo.zip": zipped("a", mode=0o010666),
    "locked.zip": zipped("a", flags=1), "method_99.zip": zipped("a", method=99),
    "patched.zip": zipped("a", flags=0x20), "two_of_a_name.zip": zipped("a", "A"),
    "file_then_folder.zip": zipped("a", "a/b"),
    "long_name.zip": zipped("n" * 5000), "bomb.zip": zip_bomb,
    "deep_folders.zip": zipped("d/" * 900 + "a"),
    "bad_byte.zip": spoilt(zipped("a"), flip(31)),
    **{f"cut_at_{share:.0%}.zip": spoilt(zipped(*"abc", content=bytes(3000)), cut(share))
       for share in (0.1, 0.5, 0.97)},
}  # fmt: skip
#: Where what lies inside the folder in the end is as good: names without their root, plain files.
EITHER = "absolute.tar absolute.zip drive.zip device.zip fifo.zip undecodable_name.tar".split()


def archive(name: str, write: Write) -> Input:
    def make(room: Room) -> Callable[[], object]:
        path = room.inside / name
        write(path, room)

        def call() -> str:
            try:
                found = sorted(extract([path], room.inside / "data").rglob("*"))
            finally:
                there = {path.name, ".data.gp.lock"}
                assert {p.name for p in room.inside.iterdir()} - {"data", "cache"} == there
            assert all(p.resolve().is_relative_to(room.inside) for p in found)
            return str(found)

        return call

    return Input(f"archive {name}", "either" if name in EITHER else "refused", make)


INPUTS = [archive(*pair) for pair in ARCHIVES.items()]
