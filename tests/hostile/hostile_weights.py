"""Checkpoints and weights of adapters that lie, are damaged, ask for too much or hold code."""

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hostile_fork import NOISE, Input, Room
from safetensors.torch import load_file, save_file

import geopeft_nb as gp
from geopeft_nb.files import data_folder

Write = Callable[[Path, Room], object]
KEY = "encoder.blocks.0.mlp.fc1.weight"


class Code:
    """Makes a folder outside when it is unpickled."""

    def __init__(self, room: Room) -> None:
        self.folder = str(room.outside / "code_ran")

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@cache
def tiny() -> dict[str, torch.Tensor]:
    return load_file(data_folder() / "models/geopeft_tiny.safetensors")


def changed(**tensors: torch.Tensor) -> Write:
    """Write the published weights with one tensor, or more, put in place of theirs."""
    return lambda path, room: torch.save({**tiny(), **tensors}, path)


def key(tensor: torch.Tensor) -> Write:
    return changed(**{KEY: tensor})


def plain(content: Callable[[Room], object], protocol: int = 2) -> Write:
    return lambda path, room: path.write_bytes(pickle.dumps(content(room), protocol))


def saved(content: Callable[[Room], object], **how: Any) -> Write:
    return lambda path, room: torch.save(content(room), path, **how)


def header(about: object, data: bytes = b"", length: int | None = None) -> Write:
    """Write a .safetensors file by hand."""
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    size = len(text) if length is None else length
    return lambda path, room: path.write_bytes(struct.pack("<Q", size) + text + data)


def named(dtype: str, shape: list[int], start: int = 0, end: int = 4, key: str = KEY) -> object:
    return {key: {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


def cut(share: float) -> Write:
    def write(path: Path, room: Room) -> None:
        content = (data_folder() / "models/geopeft_tiny.safetensors").read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return write


def deep(path: Path, room: Room) -> None:
    path.write_bytes(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")


def laughs(room: Room) -> object:
    """Make lists of lists, a few bytes that are a gigabyte when they are printed."""
    content: object = ["ha" * 400]
    for _ in range(6):
        content = [content] * 10
    return {"state_dict": content}


def bomb(path: Path, room: Room) -> None:
    """Write a zip of some hundred kilobytes whose tensor has 600 MB, compressed."""
    loose = path.with_suffix(".loose")
    with torch.serialization.skip_data():
        torch.save({KEY: torch.empty(150_000_000)}, loose)
    with zipfile.ZipFile(loose) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            zeros = name.endswith("/data/0")
            new.writestr(name, bytes(600_000_000) if zeros else old.read(name), compresslevel=1)
    loose.unlink()


def sparse(size: int, start: bytes = b"") -> Write:
    def write(path: Path, room: Room) -> None:
        with path.open("wb") as file:
            file.write(start)
            file.truncate(size)

    return write


HALF = torch.zeros(1, dtype=torch.float16)
TWICE = '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
CHECKPOINTS: dict[str, Write] = {
    "code.pt": saved(Code), "code_inside.pt": saved(lambda room: {"state_dict": {KEY: Code(room)}}),
    "code_old_format.pth": saved(Code, _use_new_zipfile_serialization=False),
    "code_protocol_0.bin": plain(Code, 0), "code_protocol_5.ckpt": plain(Code, 5),
    "code_as.safetensors": saved(Code), "code_pickle_as.safetensors": plain(Code),
    "code_beside_weights.pt": saved(lambda room: {**tiny(), "x": Code(room)}),
    "eval.pkl": lambda path, room: path.write_bytes(b"cbuiltins\neval\n(V1+1\ntR."),
    "deep.pkl": deep, "laughs.pt": saved(laughs), "number.pt": saved(lambda room: 7),
    "empty.pt": lambda path, room: path.touch(), "noise.pt": lambda path,
    room: path.write_bytes(NOISE),
    "html.safetensors": lambda path, room: path.write_text("<html>404</html>"),
    "folder.pt": lambda path, room: path.mkdir(), "fifo.pt": lambda path, room: os.mkfifo(path),
    "link_to_endless.pt": lambda path, room: path.symlink_to("/dev/zero"),
    "nan.pt": key(torch.full((768, 192), torch.nan)),
    "inf.pt": key(torch.full((768, 192), torch.inf)),
    "double_1e300.pt": key(torch.full((768, 192), 1e300, dtype=torch.float64)),
    "whole_numbers.pt": key(torch.ones(768, 192, dtype=torch.int64)),
    "bool.pt": key(torch.ones(768, 192, dtype=torch.bool)),
    "complex.pt": key(torch.ones(768, 192, dtype=torch.complex64)),
    "sparse_tensor.pt": key(torch.eye(768).to_sparse()),
    "meta.pt": key(torch.empty(768, 192, device="meta")),
    "quantised.pt": saved(lambda room: {**tiny(), KEY: torch.quantize_per_tensor(
        torch.ones(768, 192), 0.1, 0, torch.qint8)}),
    "wrong_shape.pt": key(torch.ones(7)), "transposed.pt": key(torch.ones(192, 768)),
    "no_axis.pt": key(torch.tensor(1.0)), "surplus.pt": changed(other=torch.ones(3)),
    "huge_view.pt": key(torch.zeros(1).expand(10**9)), "huge_view_half.pt": key(HALF.expand(10**9)),
    "huge_view_half_surplus.pt": changed(other=HALF.expand(40_000, 10_000)),
    "huge_view_in_model.pt": saved(lambda room: {"model": {KEY: HALF.expand(10**9)}}),
    "bomb.pt": bomb, "zeros_1e12.pt": sparse(10**12), "zeros_1e12.safetensors": sparse(10**12),
    **{f"cut_{n}.safetensors": cut(share) for n, share in enumerate((0, 1e-6, 0.001, 0.3, 0.9999))},
    "header_2_63.safetensors": header({}, length=2**63),
    "header_longer.safetensors": header({}, length=500),
    "header_no_json.safetensors": header(b"{nonsense"), "header_list.safetensors": header([]),
    "header_deep.safetensors": header(b'{"a":' * 100_000),
    "header_binary.safetensors": header(b"\xff" * 64),
    "no_such_dtype.safetensors": header(named("F7", [1]), bytes(4)),
    "beyond_end.safetensors": header(named("F32", [1], 0, 4), b""),
    "offsets_backwards.safetensors": header(named("F32", [1], 4, 0), bytes(4)),
    "shape_2_62.safetensors": header(named("F32", [2**62, 4]), bytes(4)),
    "shape_negative.safetensors": header(named("F32", [-1, -1]), bytes(4)),
    "shape_zero_huge.safetensors": header(named("F32", [0, 2**60], 0, 0)),
    "two_of_a_key.safetensors": header(f"{{{TWICE},{TWICE}}}".encode(), b"1"),
    "sparse_1e9_halves.safetensors": lambda path, room: sparse(
        2 * 10**9 + 8 + len(HALVES), struct.pack("<Q", len(HALVES)) + HALVES)(path, room),
}  # fmt: skip
HALVES = json.dumps(named("F16", [10**9], 0, 2 * 10**9)).encode()


def checkpoint(name: str, write: Write) -> Input:
    def make(room: Room) -> Callable[[], object]:
        path = room.inside / name
        write(path, room)
        return lambda: gp.load_backbone("geopeft_tiny", path)

    missing = name in ("folder.pt", "fifo.pt", "link_to_endless.pt")
    return Input(f"checkpoint {name}", "missing" if missing else "refused", make)


def poison(value: float, part: str = "") -> Write:
    """Change the first number of the first tensor whose name has `part`."""

    def write(path: Path, room: Room) -> None:
        tensors = load_file(path)
        name = next(name for name in sorted(tensors) if part in name)
        tensors[name] = tensors[name].double() if abs(value) == 1e300 else tensors[name].clone()
        tensors[name].view(-1)[0] = value
        save_file(tensors, path)

    return write


def swap(write: Write) -> Write:
    """Write another file in place of the saved one."""

    def swapped(path: Path, room: Room) -> None:
        path.unlink()
        write(path, room)

    return swapped


def foreign(path: Path, room: Room) -> None:
    save_file({f"other.{name}": value for name, value in load_file(path).items()}, path)


def retyped(dtype: torch.dtype) -> Write:
    def write(path: Path, room: Room) -> None:
        save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path)

    return write


#: Method -> the file with what it trained.
FILES = {
    "lora": "adapter_model",
    "bitfit": "adapter_model",
    "full": "backbone",
    "vit_adapter": "backbone",
}
VALUES = {"nan": torch.nan, "minus_inf": -torch.inf, "1e300": 1e300}
ADAPTERS: list[tuple[str, str, str, Write]] = [
    *((f"{kind}_of_{method}", method, file, poison(value))
      for method, file in FILES.items() for kind, value in list(VALUES.items())[:2]),
    *((f"{kind}_in_decoder", "lora", "decoder", poison(value)) for kind, value in VALUES.items()),
    ("1e300_of_lora", "lora", "adapter_model", poison(1e300)),
    ("nan_in_bias_of_decoder", "linear_probe", "decoder", poison(torch.nan, "bias")),
    ("foreign_layers", "lora", "adapter_model", foreign),
    ("foreign_decoder", "lora", "decoder", foreign),
    ("whole_numbers", "lora", "adapter_model", retyped(torch.int32)),
    ("bool_decoder", "lora", "decoder", retyped(torch.bool)),
    ("code", "lora", "adapter_model", swap(saved(Code))),
    ("code_in_decoder", "lora", "decoder", swap(plain(Code))),
    ("huge_header", "lora", "adapter_model", swap(header({}, length=2**62))),
    ("huge_tensor", "lora", "decoder", swap(CHECKPOINTS["sparse_1e9_halves.safetensors"])),
    ("no_file", "lora", "decoder", swap(lambda path, room: None)),
]  # fmt: skip


def adapter(name: str, method: str, file: str, write: Write) -> Input:
    def make(room: Room) -> Callable[[], object]:
        folder = room.inside / "adapter"
        shutil.copytree(room.warm.saved / method, folder)
        write(folder / f"{file}.safetensors", room)
        return lambda: gp.load_model(folder)

    return Input(f"adapter_weights {name}", "refused", make)


INPUTS = [checkpoint(*pair) for pair in CHECKPOINTS.items()] + [adapter(*row) for row in ADAPTERS]
