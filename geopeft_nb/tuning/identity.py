"""What an adapter belongs to, as its adapter.json says: a backbone, its bands and its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.files import checksum_of
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.methods import CARDS, parameter_table
from geopeft_nb.writing import placed

#: What an adapter must find again in a model -> what to do where it does not.
REMEDIES = {
    "backbone": "Load it with load_backbone({!r}).",
    "bands": "Use load_data(..., bands={0!r}) and load_backbone(..., bands={0!r}).",
    "classes": "Use the data set that it was trained on, or your own with these classes.",
    "task": "Use data for this task.",
    "decoder": "Use build_model(..., decoder={!r}).",
    "weights": "Give load_backbone(..., weights=...) the checkpoint that it was trained on.",
    "layers": "Use load_backbone(..., layers={!r}).",
    "channels": "Use load_backbone(...) as it was when it was trained.",
    "grid": "Use load_backbone(..., img_size=...) with the patch side times this.",
    "gsd": "Use load_backbone(..., gsd={!r}).",
    "metadata": "Use build_model(..., metadata=...) as when it was trained.",
    "mean": "Use build_model(..., normalise=...) and the data as when it was trained.",
    "std": "Use build_model(..., normalise=...) and the data as when it was trained.",
}
#: Where these differ, the others say nothing new.
FIRST = ("backbone", "bands", "classes", "task", "decoder")
#: What else must be known to attach it again.
NEEDED = ("method", "options", "adapter", "built_for")


def identity(model: SegmentationModel) -> dict[str, Any]:
    """Say what an adapter must find again: backbone, its weights, bands, scaling and classes."""
    backbone = model.plain_backbone
    return {
        "backbone": backbone.card.name,
        "weights": backbone.provenance.get("sha256", backbone.provenance["weights"]),
        "layers": list(backbone.layers),
        "channels": list(backbone.channels),
        "grid": backbone.trained_grid,
        "gsd": backbone.gsd,
        "metadata": list(model.metadata),
        "decoder": model.decoder_name,
        "task": model.task,
        "bands": list(backbone.bands),
        "classes": list(model.classes),
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
    data, backbone = model.built_for.get("data"), model.plain_backbone
    return {
        **identity(model), "pad": model.pad, "decoder_options": model.decoder_options,
        "img_size": backbone.trained_grid and backbone.trained_grid * backbone.patch_size,
        "method": model.method, "options": model.method_options, "adapter": model.adapter,
        "built_for": model.built_for | {"data": data and asdict(data)},
        "provenance": backbone.provenance | {"weights": Path(backbone.provenance["weights"]).name},
        "trained": parameter_table(model)["trainable"].to_dict(),
        "best": dict(best),
        "files": {file.name: {"size": file.stat().st_size, "sha256": checksum_of(file)}
                  for file in sorted(folder.iterdir())},
    }  # fmt: skip


def read_description(source: Path) -> dict[str, Any]:
    """Read what `describe` said when the adapter in a folder was saved.

    Raises:
        FileNotFoundError: The folder has no `adapter.json`.
        ValueError: It is damaged, or its method is unknown.
    """
    file = placed(source, "adapter.json")
    if not file.is_file():
        raise FileNotFoundError(f"{source} holds no adapter.json; save_adapter writes one.")
    try:
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if lacking := {*REMEDIES, *NEEDED} - set(about):
            raise ValueError(f"it does not say the {', '.join(sorted(lacking))}")
    except (ValueError, TypeError) as error:
        raise GeopeftError(f"{file} is damaged, or of an older release: {error}.") from error
    check_name("method", about["method"], CARDS)
    return about


def check_identity(source: Path, about: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse damaged files, another backbone, other bands or classes, and say how they differ.

    Args:
        source: Where the adapter is, for the message.
        about: What `identity` said when it was saved.
        own: What it says of the model.

    Raises:
        ValueError: They differ; the message says what would work.
    """
    _check_files(source, about)
    differing = [key for key in REMEDIES if _rounded(about[key]) != _rounded(own[key])]
    said = [key for key in differing if key in FIRST] or differing
    sentences = [
        f"It was saved for {key} {_words(about[key])}, but the model has {_words(own[key])}. "
        f"{REMEDIES[key].format(about[key])}"
        for key in said
    ]
    if sentences:
        raise GeopeftError(f"{source} does not fit the model. {' '.join(sentences)}")


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any value of JSON
    """Leave out digits of statistics in which two machines that add them up may differ."""
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 6) if isinstance(value, float) else value


def _words(value: Any) -> str:  # noqa: ANN401
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _check_files(source: Path, about: dict[str, Any]) -> None:
    """Refuse files that are not those which were saved together; earlier releases say of none."""
    for name, facts in about.get("files", {}).items():
        file = placed(source, Path(name).name)  # never outside
        if not (file.is_file() and facts["sha256"] == checksum_of(file)):
            raise GeopeftError(
                f"The adapter in {source} is damaged: {name} is missing, or not the file that was "
                "saved with adapter.json. Save it again, or fetch it again from where it came."
            )
