"""What a model was trained on, beside its adapter: facts and ground as JSON, features as tensors.

`trained.json` says of every training and validation chip where and when it was: whoever shares an
adapter shares that, and whoever loads it cannot score it on ground that it has seen.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from geopeft_nb.backbones.load import read_checkpoint
from geopeft_nb.datasets.base import Ground
from geopeft_nb.errors import check_values
from geopeft_nb.models import Trained
from geopeft_nb.tuning.identity import damaged, read_json
from geopeft_nb.writing import placed

FACTS, FEATURES = "trained.json", "reference.safetensors"
#: Bytes of the largest trained.json that is read: of some hundred thousand chips.
LARGEST = 64_000_000
#: Fields of `Trained` and of `Ground`, as JSON holds them.
KINDS = {
    "data": "str", "seed": "int", "size": "int", "seen": "Sequence[Any]", "absent": "Sequence[str]",
    "pixels": "tuple[Sequence[float], Sequence[float]]", "products": "Sequence[str]",
    "temperature": "float | None", "threshold": "float | None",
}  # fmt: skip
GROUND = {"crs": "str | None", "bounds": "tuple[float, float, float, float] | None"}
#: A code or WKT: rasterio might take anything else for the name of a file.
CRS = re.compile(r"[A-Za-z]+:\w+$|[A-Z_]+\[")


def write_trained(trained: Trained, folder: Path) -> None:
    """Write what a model was trained on, and read it again, to save nothing that cannot be."""
    facts = vars(trained) | {"pixels": [values.tolist() for values in trained.pixels]}
    reference = facts.pop("reference")
    if reference is not None:
        save_file({"reference": reference.cpu().contiguous()}, folder / FEATURES)
    text = json.dumps(facts, ensure_ascii=False, default=str)
    # Names of files may hold bytes that are no letters.
    (folder / FACTS).write_text(text, encoding="utf-8", errors="replace")
    read_trained(folder, len(trained.pixels[0]))


def read_trained(folder: Path, bands: int) -> Trained | None:
    """Read what a model of so many bands was trained on; None where that was not saved.

    Raises:
        GeopeftError: It is damaged.
    """
    file, features = placed(folder, FACTS), placed(folder, FEATURES)
    if not file.exists():
        return None
    with damaged(file):
        facts = read_json(file, LARGEST) | {"reference": None}
        if facts.keys() != {entry.name for entry in fields(Trained)}:
            raise ValueError(f"it says {', '.join(facts)}")
        check_values({key: facts[key] for key in KINDS}, KINDS)
        if {*map(len, facts["pixels"])} != {bands}:
            raise ValueError(f"its pixels are not of {bands} bands")
        facts["pixels"] = tuple(torch.tensor(values) for values in facts["pixels"])
        facts["seen"] = tuple(_ground(*row) for row in facts["seen"])
        facts |= {key: tuple(facts[key]) for key in ("absent", "products")}
        if features.exists():
            (facts["reference"],) = read_checkpoint(features).values()
            if facts["reference"].ndim != 2 or not facts["reference"].isfinite().all():
                raise ValueError(f"{FEATURES} holds no finite features")
        return Trained(**facts)


def _ground(name: Any, crs: Any, bounds: Any, day: Any) -> Ground:  # noqa: ANN401 - of JSON
    check_values({"crs": crs, "bounds": bounds}, GROUND)
    if not isinstance(name, str) or (crs and not CRS.match(crs)):
        raise ValueError(f"a chip cannot be {name!r:.100} in {crs!r:.100}")
    return Ground(name, crs, bounds and tuple(bounds), day and date.fromisoformat(day))
