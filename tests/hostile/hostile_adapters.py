"""Folders of adapters whose adapter.json or adapter_config.json is damaged in every way."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

from hostile_fork import Input, Room

import geopeft_nb as gp

Edit = Callable[[Path, Room], object]
BOTH = ("adapter.json", "adapter_config.json")
#: Fields that say how the model is built.
FIELDS = (
    "backbone", "weights", "layers", "frames", "gsd", "metadata", "decoder", "task",
    "bands", "classes", "mean", "std", "decoder_options", "img_size", "method", "options",
    "adapter", "built_for",
)  # fmt: skip


def put(keys: str, value: str) -> Edit:
    """Put JSON at a key below others, or in place of the file; `...` takes the key out."""
    value = value.replace("@D", "[" * 100_000 + "]" * 100_000).replace("@9", "1" * 5000)

    def edit(path: Path, room: Room) -> None:
        about = inner = json.loads(path.read_text(encoding="utf-8"))
        *above, key = keys.split(".")
        for name in above:
            inner = inner[name]
        inner[key] = "@@"
        if value == "...":
            del inner[key]
        path.write_text(
            json.dumps(about).replace('"@@"', value) if key else value, encoding="utf-8"
        )

    return edit


def text(change: Callable[[str], bytes]) -> Edit:
    return lambda path, room: path.write_bytes(change(path.read_text()))


def instead(make: Callable[[Path], object]) -> Edit:
    return lambda path, room: (path.unlink(), make(path))


def rows() -> list[tuple[str, str, str, Edit]]:
    table = Path(__file__).with_name("adapters.txt").read_text(encoding="utf-8").splitlines()
    found = []
    for line in table[2:]:
        file, name, keys, value = (part.strip() for part in line.split("|", 3))
        expected = "either" if name.endswith("?") else "refused"
        found.append((file, name.rstrip("?"), expected, put(keys, value)))
    for field, value in zip(FIELDS, cycle(("7", "[[null]]", '{"a": 1}')), strict=False):
        found.append(("adapter.json", f"{field}_is_{value}", "refused", put(field, value)))
    whole: dict[str, Edit] = {
        **{f"cut_at_{share:.0%}": text(lambda old, s=share: old[: int(s * len(old))].encode())
           for share in (0.01, 0.5, 0.99)},
        "utf_16": text(lambda old: old.encode("utf-16")),
        "utf_32": text(lambda old: old.encode("utf-32")),
        "latin_1": text(lambda old: old.replace("{", '{"\u00e9": 1, ', 1).encode("latin-1")),
        "nul_bytes": text(lambda old: old.replace(" ", "\0").encode()),
        "binary": text(lambda old: b"\xb9\xff" * 250),
        "key_twice": text(lambda old: old.replace("{", '{"r": 3, "method": "full",', 1).encode()),
        "600_MB": instead(lambda path: (path.touch(), os.truncate(path, 600_000_000))),
    }  # fmt: skip
    gone = {"folder": Path.mkdir, "fifo": os.mkfifo, "missing": lambda path: None}
    for file in BOTH:
        found += [(file, name, "refused", edit) for name, edit in whole.items()]
        found += [(file, name, "missing", instead(make)) for name, make in gone.items()]
    many = ("classes", str([str(number) for number in range(10**6)]).replace("'", '"'))
    return [*found, ("adapter.json", "classes_1e6", "refused", put(*many))]


def damaged(file: str, name: str, expected: str, edit: Edit, join: bool = False) -> Input:
    def make(room: Room) -> Callable[[], object]:
        folder = room.inside / "adapter"
        shutil.copytree(room.warm.saved / "lora", folder)
        edit(folder / file, room)
        owned = f"import os; os.mkdir({str(room.outside / 'code_ran')!r})"
        (room.inside / "owned.py").write_text(owned)
        sys.path.insert(0, str(room.inside))  # as in a notebook's folder
        if not join:
            return lambda: gp.load_model(folder)
        model = gp.build_model(gp.load_backbone("geopeft_tiny"), room.warm.data)
        return lambda: gp.load_adapter(model, folder)

    return Input(f"{file} {name}{', joined' if join else ''}", expected, make)


INPUTS = [damaged(*row) for row in rows()] + [damaged(*row, join=True) for row in rows()[::10]]
