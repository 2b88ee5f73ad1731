"""Save what was trained, and nothing else: megabytes to share instead of a whole model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from safetensors.torch import save_file

from geopeft_nb.backbones.load import read_checkpoint
from geopeft_nb.models import SegmentationModel, moving_state
from geopeft_nb.tuning.methods import attach


def save_adapter(model: SegmentationModel, folder: str | os.PathLike[str]) -> Path:
    """Write the trained part of a model to a folder.

    Args:
        model: With a method attached.
        folder: A new or empty folder, or one that holds an earlier adapter, which is replaced.

    Returns:
        The folder, with `adapter.safetensors` (what was trained) and `adapter.json` (the backbone,
        bands, classes and method that it belongs to).

    Raises:
        ValueError: No method is attached, so that nothing says what is adapter and what backbone;
            or the folder holds something else.
    """
    if model.method is None:
        raise ValueError("Nothing is attached yet: call attach(model, ...) and fit before saving.")
    target = check_target(folder)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    state = {name: value.cpu().contiguous() for name, value in moving_state(model).items()}
    save_file(state, part / "adapter.safetensors")
    about = {**_identity(model), "method": model.method, "options": model.method_options}
    (part / "adapter.json").write_text(json.dumps(about, indent=1) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    return part.replace(target)


def check_target(folder: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a folder that an adapter may be written to.

    Raises:
        ValueError: It is a file, or a folder that holds something else than an adapter.
    """
    target = Path(folder).expanduser().resolve()
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file. Name a folder for the adapter.")
    if target.is_dir() and any(target.iterdir()) and not (target / "adapter.json").is_file():
        raise ValueError(
            f"{target} holds other files, which would be lost. Name a new folder, for example "
            f"{target / 'adapter'}."
        )
    return target


def load_adapter(model: SegmentationModel, folder: str | os.PathLike[str]) -> SegmentationModel:
    """Attach a saved method to a fresh model and load its weights, in place.

    Args:
        model: From `build_model`, with the same backbone, bands and classes, nothing attached.
        folder: Written by `save_adapter`.

    Returns:
        The same model.

    Raises:
        FileNotFoundError: The folder holds no adapter.
        ValueError: Another backbone, other bands or classes, or a damaged file; the message says
            what differs. Unless the weights do not fit the method, the model is left as it was.
    """
    source = Path(folder)
    for name in ("adapter.json", "adapter.safetensors"):
        if not (source / name).is_file():
            raise FileNotFoundError(f"{source} holds no {name}; save_adapter writes one.")
    about = json.loads((source / "adapter.json").read_text())
    for key, own in {**_identity(model), "method": None, "options": None}.items():
        if key not in about:
            raise ValueError(f"{source / 'adapter.json'} does not say the {key}; it is damaged.")
        if own is not None and about[key] != own:
            raise ValueError(f"{source} was saved for {key} {about[key]}, but the model has {own}.")
    state = read_checkpoint(source / "adapter.safetensors")
    attach(model, about["method"], **about["options"])
    own_state = moving_state(model)
    differing = sorted(set(own_state) ^ set(state)) + [
        name for name in set(own_state) & set(state) if own_state[name].shape != state[name].shape
    ]
    if differing:
        raise ValueError(f"{source} does not fit the model: {', '.join(differing[:5])}.")
    model.load_state_dict(state, strict=False)
    return model


def _identity(model: SegmentationModel) -> dict[str, object]:
    """Say what an adapter must find again: backbone, its weights, bands, scaling and classes."""
    backbone = model.backbone
    return {
        "backbone": backbone.card.name,
        "backbone weights": backbone.provenance.get("sha256", backbone.provenance["weights"]),
        "layers": list(backbone.layers),
        "channels": list(backbone.channels),
        "grid": backbone.trained_grid,
        "gsd": backbone.gsd,
        "decoder": type(model.decoder).__name__,
        "bands": list(backbone.bands),
        "classes": list(model.classes),
        "mean": [round(value, 6) for value in model.mean.flatten().tolist()],
        "std": [round(value, 6) for value in model.std.flatten().tolist()],
    }
