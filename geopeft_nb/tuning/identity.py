"""What the files of an adapter say of it: what it belongs to, and what it was trained on.

`adapter.json` names the backbone, its bands and classes, and all that builds the model again.
`trained.json` says of every training and validation chip where and when it was: whoever shares an
adapter shares that, and whoever loads it cannot score it on ground that it has seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from geopeft_nb.backbones.load import read_checkpoint
from geopeft_nb.datasets.base import Ground
from geopeft_nb.decoders.load import check_decoder
from geopeft_nb.errors import GeopeftError, check_name, check_names, check_values
from geopeft_nb.files import checksum_of
from geopeft_nb.inputs import METADATA
from geopeft_nb.models import SegmentationModel, Trained
from geopeft_nb.open_files import read_text
from geopeft_nb.tasks import TASKS
from geopeft_nb.tuning.methods import (
    CARDS,
    card_of,
    maker,
    option_kinds,
    parameter_table,
    quiet_peft,
)
from geopeft_nb.writing import placed

if TYPE_CHECKING:
    from peft import PeftConfig

#: Field of adapter.json -> what it is, as annotations say it.
FIELDS = {
    "backbone": "str", "weights": "str", "layers": "Sequence[int]", "frames": "int",
    "gsd": "float | None", "metadata": "Sequence[str]", "decoder": "str",
    "task": "str", "bands": "Sequence[str]", "classes": "Sequence[str]", "mean": "Sequence[float]",
    "std": "Sequence[float]", "pad": "bool", "decoder_options": "Mapping[str, Any]",
    "img_size": "int | None", "method": "str", "options": "Mapping[str, Any]",
    "adapter": "str | None", "built_for": "Mapping[str, Any]", "files": "Mapping[str, Any]",
    "wavelengths": "Mapping[str, float]",
}  # fmt: skip
BUILT_FOR = {
    "size": "int", "regions": "Sequence[str]", "holdout": "Sequence[str]", "normalise": "str",
    "title": "str", "labels": "str", "licence": "str", "citation": "str", "synthetic": "bool",
    "reflectance": "bool", "colours": "Sequence[str] | None", "loss": "str | None",
    "class_weights": "Sequence[float] | None", "resolution": "float | None",
}  # fmt: skip
FACTS, FEATURES = "trained.json", "reference.safetensors"
#: Bytes of the largest trained.json that is read: of some hundred thousand chips; rows of features.
LARGEST, ROWS = 2**25, 4_096
#: Fields of `Ground`, as JSON holds them.
GROUND = {"crs": "str | None", "bounds": "tuple[float, float, float, float] | None"}
#: A code or WKT: rasterio might take anything else for the name of a file.
CRS = re.compile(r"[A-Za-z]+:\w+$|[A-Z_]+\[")


def identity(model: SegmentationModel) -> dict[str, Any]:
    """Say what an adapter must find again in a model, what says most first, and its scaling."""
    backbone = model.plain_backbone
    return {
        "backbone": backbone.card.name,
        "bands": list(backbone.bands),
        "classes": list(model.classes),
        "task": model.task,
        "decoder": model.decoder_name,
        "weights": backbone.provenance.get("sha256", backbone.provenance["weights"]),
        "layers": list(backbone.uncut or backbone.layers),
        "img_size": backbone.trained_grid and backbone.trained_grid * backbone.patch_size,
        "frames": backbone.frames,
        "gsd": backbone.gsd,
        "wavelengths": dict(backbone.request.wavelengths),
        "metadata": list(model.metadata),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
    }


def describe(model: SegmentationModel, best: Mapping[str, float], folder: Path) -> dict[str, Any]:
    """Say all that `adapter.json` holds: what builds the model again, and what it was.

    Args:
        model: With a method attached.
        best: Scores on the validation chips.
        folder: Of the files that belong to it. Of each, `files` says `size` (bytes) and `sha256`,
            by which `check_files` knows a damaged one, or one of another adapter.
    """
    backbone = model.plain_backbone
    return {
        **identity(model), "pad": model.pad, "decoder_options": model.decoder_options,
        "method": model.method, "options": model.method_options, "adapter": model.adapter,
        "built_for": model.built_for,
        "provenance": backbone.provenance | {"weights": Path(backbone.provenance["weights"]).name},
        "trained": parameter_table(model)["trainable"].to_dict(),
        "best": dict(best),
        "files": {file.name: _facts(file) for file in sorted(folder.iterdir())},
    }  # fmt: skip


@contextmanager
def damaged(source: Path, kept: type[Exception] = ImportError) -> Iterator[None]:
    """Say that an adapter is damaged, whatever its descriptions make Python, peft or torch raise.

    Args:
        source: The adapter, or its file.
        kept: What says best itself what is wrong; as do missing files and packages.

    Raises:
        GeopeftError: Anything else was raised.
    """
    try:
        yield
    except (FileNotFoundError, ImportError, kept):
        raise
    except Exception as error:
        raise GeopeftError(
            f"This adapter is damaged, or of another release: {source}: {error or repr(error)}"
        ) from error


def read_description(source: Path) -> dict[str, Any]:
    """Read what `describe` said when the adapter in a folder was saved.

    Raises:
        FileNotFoundError: The folder has no `adapter.json`.
        GeopeftError: It is damaged: no JSON, a field missing, of another kind or out of bounds; or
            it names a method, decoder or task that there is not.
    """
    file = placed(source, "adapter.json")
    with damaged(file):
        about: dict[str, Any] = {"wavelengths": {}} | read_json(file)
        if lacking := FIELDS.keys() - about.keys():
            raise ValueError(f"it does not say the {', '.join(sorted(lacking))}")
        check_values(about, FIELDS)
        about["built_for"] = {key: about["built_for"].get(key) for key in BUILT_FOR}
        check_values(about["built_for"], BUILT_FOR)
        bands, classes, mean, std = (about[key] for key in ("bands", "classes", "mean", "std"))
        alike = len({*bands}) == len(mean) == len(std) and 0 < len({*classes}) == len(classes)
        if not alike or min(std) < 1e-12:  # of a smaller one pixels would be infinite
            raise ValueError("bands or classes are not different, or mean and std not of its bands")
        check_names("metadata", about["metadata"], METADATA)
        check_name("task", about["task"], TASKS)
        check_decoder(about["decoder"], about["decoder_options"], about["task"])
        check_name("method", about["method"], CARDS)
        known = option_kinds(CARDS[about["method"]])
        check_names("option", about["options"] if about["method"] != "peft" else (), known)
    return about


def read_json(file: Path, largest: int = 1_000_000) -> dict[str, Any]:
    """Read an object of JSON that somebody else may have written."""
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} holds no {file.name}; save_adapter writes one.")
    found = read_text(file, partial(json.loads, object_pairs_hook=_each_once), largest)
    if not isinstance(found, dict):
        raise ValueError(f"it is no object, but a {type(found).__name__}")
    json.dumps(found, ensure_ascii=False).encode()  # no half of a letter
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("it says something twice")
    return found


def read_config(source: Path, method: str) -> PeftConfig:
    """Read peft's config of a saved adapter, for `attach`.

    Raises:
        FileNotFoundError: The folder has no `adapter_config.json`.
        GeopeftError: It is damaged, or of another method.
    """
    from peft import PeftConfig

    maker(CARDS[method])  # whose module makes our own configs known to peft
    file = placed(source, "adapter_config.json")
    with damaged(file), quiet_peft():
        found = read_json(file) | {"inference_mode": False}
        config = PeftConfig.from_peft_type(**PeftConfig.check_kwargs(**found))
        if card_of(config).name != method:
            raise ValueError(f"it is not of {method}")
    return config


def check_files(source: Path, about: dict[str, Any]) -> None:
    """Refuse files that are not those which were saved together."""
    for name, facts in about["files"].items():
        file = placed(source, Path(name).name)  # never outside
        if not (file.is_file() and facts == _facts(file)):
            raise GeopeftError(
                f"The adapter in {source} is damaged: {name} is missing, or not the file that was "
                "saved with adapter.json. Save it again, or fetch it again from where it came."
            )


def _facts(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": checksum_of(file)}


def write_trained(trained: Trained, folder: Path, width: int) -> None:
    """Write what a model was trained on, and read it again, to save nothing that cannot be."""
    facts = vars(trained) | {"pixels": [values.tolist() for values in trained.pixels]}
    reference = facts.pop("reference")
    if reference is not None:
        save_file({"reference": reference.cpu().contiguous()}, folder / FEATURES)
    text = json.dumps(facts, ensure_ascii=False, default=str)
    # Names of files may hold bytes that are no letters.
    (folder / FACTS).write_text(text, encoding="utf-8", errors="replace")
    read_trained(folder, len(trained.pixels[0]), width)


def read_trained(folder: Path, bands: int, width: int) -> Trained | None:
    """Read what a model of so many bands and features was trained on; None if that was not saved.

    Raises:
        GeopeftError: It is damaged.
    """
    file, features = placed(folder, FACTS), placed(folder, FEATURES)
    if not file.exists():
        return None
    with damaged(file):
        facts = read_json(file, LARGEST) | {"reference": None}
        check_values(facts, {entry.name: entry.type for entry in fields(Trained)})
        pixels = torch.tensor(facts["pixels"], dtype=torch.float32)
        if pixels.shape != (2, bands) or not pixels.isfinite().all() or pixels[1].min() < 0:
            raise ValueError(f"its pixels are not of {bands} bands")
        facts["pixels"] = tuple(pixels)
        facts["seen"] = tuple(_ground(*row) for row in facts["seen"])
        facts |= {key: tuple(facts[key]) for key in ("absent", "products")}
        if features.exists():
            (rows,) = read_checkpoint(features).values()
            fits = rows.dtype == torch.float32 and rows.shape[1:] == (width,) and len(rows) <= ROWS
            # of a single row, or where squares are infinite, it is NaN
            if not (fits and rows.std(0).isfinite().all() and facts["threshold"]):
                raise ValueError(f"{FEATURES} and threshold tell no distances")
            facts["reference"] = rows
        return Trained(**facts)


def _ground(name: Any, crs: Any, bounds: Any, day: Any) -> Ground:
    check_values({"crs": crs, "bounds": bounds}, GROUND)
    if not isinstance(name, str) or (crs and not CRS.match(crs)):
        raise ValueError(f"a chip cannot be {name!r:.100} in {crs!r:.100}")
    return Ground(name, crs, bounds and tuple(bounds), day and date.fromisoformat(day))
