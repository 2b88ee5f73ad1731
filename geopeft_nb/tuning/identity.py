"""What an adapter belongs to, as its adapter.json says: a backbone, its bands and its classes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geopeft_nb.bands import band_names
from geopeft_nb.decoders.load import check_decoder
from geopeft_nb.errors import GeopeftError, check_name, check_values
from geopeft_nb.files import checksum_of
from geopeft_nb.inputs import METADATA
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tasks import TASKS
from geopeft_nb.tuning.methods import (
    CARDS,
    card_of_config,
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
    "class_weights": "Sequence[float] | None",
}  # fmt: skip
#: What else must be true of it, given all fields.
CHECKS: dict[str, Callable[[Any, dict[str, Any]], bool]] = {
    "weights": lambda value, _: re.search("seed .{19}", value) is None,  # torch takes 63 bits
    "metadata": lambda value, _: set(value) <= set(METADATA),
    "bands": lambda value, _: band_names(value) == tuple(value),
    "classes": lambda value, _: 0 < len(set(value)) == len(value),
    "mean": lambda value, about: len(value) == len(about["bands"]),
    "std": lambda value, about: len(value) == len(about["bands"]) and min(value) > 0,
    "files": lambda value, _: all({*facts} == {"size", "sha256"} for facts in value.values()),
}


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
        "layers": list(backbone.layers),
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
            by which `check_identity` knows a damaged one, or one of another adapter.
    """
    backbone = model.plain_backbone
    return {
        **identity(model), "pad": model.pad, "decoder_options": model.decoder_options,
        "method": model.method, "options": model.method_options, "adapter": model.adapter,
        "built_for": model.built_for,
        "provenance": backbone.provenance | {"weights": Path(backbone.provenance["weights"]).name},
        "trained": parameter_table(model)["trainable"].to_dict(),
        "best": dict(best),
        "files": {file.name: {"size": file.stat().st_size, "sha256": checksum_of(file)}
                  for file in sorted(folder.iterdir())},
    }  # fmt: skip


@contextmanager
def damaged(source: Path, *kept: type[Exception]) -> Iterator[None]:
    """Say that an adapter is damaged, whatever its descriptions make Python, peft or torch raise.

    Args:
        source: The adapter, or its file.
        kept: What says best itself what is wrong; as do missing files and packages.

    Raises:
        GeopeftError: Anything else was raised.
    """
    plain: tuple[type[Exception], ...] = (FileNotFoundError, ImportError, *kept)
    try:
        yield
    except plain:
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
        about: dict[str, Any] = {"files": {}, "frames": 1, "wavelengths": {}} | read_json(file)
        if lacking := FIELDS.keys() - about.keys():
            raise ValueError(f"it does not say the {', '.join(sorted(lacking))}")
        check_values({field: about[field] for field in FIELDS}, FIELDS)
        for field, is_true in CHECKS.items():
            if not is_true(about[field], about):
                raise ValueError(f"{field} cannot be {about[field]!r:.100}")
        check_name("task", about["task"], TASKS)
        check_decoder(about["decoder"], about["decoder_options"], about["task"])
        check_name("method", about["method"], CARDS)
        known = option_kinds(CARDS[about["method"]])
        for option in about["options"] if about["method"] != "peft" else ():
            check_name("option", option, known)
        built = about["built_for"] | (about["built_for"].get("data") or {})  # as it once was
        about["built_for"] = {key: built.get(key) for key in BUILT_FOR}
        check_values(about["built_for"], BUILT_FOR)
    return about


def read_json(file: Path, largest: int = 1_000_000) -> dict[str, Any]:
    """Read an object of JSON that somebody else may have written."""
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} holds no {file.name}; save_adapter writes one.")
    if file.stat().st_size > largest:
        raise ValueError(f"it has more than {largest:,} bytes")
    found = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_each_once)
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
        if card_of_config(config).name != method:
            raise ValueError(f"it is not of {method}")
    return config


def check_identity(source: Path, about: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse damaged files, another backbone, other bands or classes, and say how they differ.

    Args:
        source: Where the adapter is, for the message.
        about: What `identity` said when it was saved.
        own: What it says of the model.

    Raises:
        ValueError: They differ; the message says what would work.
    """
    check_files(source, about)
    # Its own scaling comes with an adapter; see `load_adapter`.
    other = next((k for k in own if k not in ("mean", "std") and about[k] != own[k]), None)
    if other is not None:
        raise GeopeftError(
            f"{source} does not fit the model: it was saved for {other} {_words(about[other])}, "
            f"and the model has {_words(own[other])}. gp.load_model({str(source)!r}) builds the "
            "model that it fits, also on a checkpoint of your own, by weights=."
        )


def _words(value: Any) -> str:  # noqa: ANN401
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def check_files(source: Path, about: dict[str, Any]) -> None:
    """Refuse files that are not those which were saved together; earlier releases say of none."""
    for name, facts in about["files"].items():
        file = placed(source, Path(name).name)  # never outside
        if not (file.is_file() and facts["sha256"] == checksum_of(file)):
            raise GeopeftError(
                f"The adapter in {source} is damaged: {name} is missing, or not the file that was "
                "saved with adapter.json. Save it again, or fetch it again from where it came."
            )
