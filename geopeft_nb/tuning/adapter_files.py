"""What was trained, as files: megabytes to keep or share instead of a whole model."""

from __future__ import annotations

import copy
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from geopeft_nb.backbones.load import check_numbers, load_backbone, read_checkpoint
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import named_path
from geopeft_nb.models import BESIDE, SegmentationModel, outline
from geopeft_nb.open_files import first_bytes
from geopeft_nb.tuning.identity import (
    check_files,
    damaged,
    describe,
    identity,
    read_config,
    read_description,
    read_trained,
    write_trained,
)
from geopeft_nb.tuning.methods import CARDS, attach, quiet_peft
from geopeft_nb.writing import placed, written_together

if TYPE_CHECKING:
    import pandas as pd

#: All files that a saved adapter can consist of; nothing else is sent to a hub or fetched.
FILES = (
    "adapter.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "backbone.safetensors",
    "decoder.safetensors",
    "model_card.md",
    "reference.safetensors",
    "trained.json",
)
#: All that is replaced when an adapter is saved over another.
OWN = (*FILES, "history.csv")
#: How the first file of a folder that we wrote begins: an adapter's, and an export's.
BEGIN = b'{\n "backbone"', b"# Each band is scaled"


def save(
    model: SegmentationModel,
    folder: str | os.PathLike[str],
    best: Mapping[str, float] | None = None,
    history: pd.DataFrame | None = None,
) -> Path:
    """Write what was trained to a folder: the active adapter in peft's format, and its decoder.

    Args:
        model: With a method attached.
        folder: A new or empty folder, or one that holds an earlier adapter, whose files are
            replaced, all at one moment; whatever else is there stays.
        best: Scores on the validation chips, to be remembered.
        history: Of the run, a table that is written beside.

    Returns:
        The folder, with `adapter_config.json` and `adapter_model.safetensors` (peft's), or
        `backbone.safetensors` (methods that are not peft's); `decoder.safetensors`; of what `fit`
        trained, `trained.json` and `reference.safetensors`, see `Trained`; and `adapter.json`: all
        that `load_model` needs to build the model again.

    Raises:
        ValueError: No method is attached, so that nothing says what is adapter and what backbone;
            it is merged; its numbers are not finite; or the folder holds something else.
    """
    if model.method not in CARDS:
        raise GeopeftError(
            f"This model has {model.method or 'nothing'} attached. Call attach(model, ...) and fit "
            "before saving, and save_adapter before merge; export_onnx writes a merged model."
        )
    target = check_folder(folder)
    with written_together(target, OWN) as part:
        for name, tensors in trained_tensors(model).items():
            check_numbers(tensors, tensors, target / name)
            # Copies, because a file holds no two names of one tensor, and no views.
            save_file({key: t.detach().cpu().clone() for key, t in tensors.items()}, part / name)
        if model.adapter is not None:
            config = model.backbone.peft_config[model.adapter]
            with quiet_peft():
                replace(config, inference_mode=True).save_pretrained(str(part))
        if model.trained is not None:
            write_trained(model.trained, part, model.backbone.channels[-1])
        about = describe(model, best or {}, part)
        (part / "adapter.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        read_description(part)  # what could not be read again is not saved
        if history is not None:
            history.to_csv(part / "history.csv", index=False)
    return target


def check_folder(folder: str | os.PathLike[str], names: Sequence[str] = OWN) -> Path:
    """Return the absolute path of a folder that may be written: new, empty, or written before.

    Args:
        folder: What was given.
        names: Of the files that would be written; the first marks a folder that was.

    Raises:
        ValueError: It is a file, or a folder that holds something else.
    """
    target = named_path(folder, "folder").resolve()
    if target.exists() and not target.is_dir():
        raise GeopeftError(f"{target} is a file. Name a folder.")
    there = {path.name[:5] for path in target.glob("*")} - {".new-", ".read"}
    folders = [name for name in names if (target / name).is_dir()]
    ours = placed(target, names[0])
    if folders or (there and not (ours.is_file() and first_bytes(ours).startswith(BEGIN))):
        raise GeopeftError(
            f"{target} holds {folders or 'other files'}, and nothing that was saved here before "
            f"looks like that. Name a new folder, for example {target / 'adapter'}."
        )
    return target


def trained_tensors(model: SegmentationModel) -> dict[str, dict[str, Tensor]]:
    """Return what a model with a method is besides its pretrained backbone: file -> tensors."""
    files: dict[str, dict[str, Tensor]] = {"decoder.safetensors": model.decoder.state_dict()}
    if model.adapter is not None:
        from peft import get_peft_model_state_dict

        files["adapter_model.safetensors"] = get_peft_model_state_dict(
            model.backbone, adapter_name=model.adapter
        )
    elif model.method in ("full", *BESIDE):
        left_out = ("vit.",) if model.method in BESIDE else model.backbone.fixed
        state = model.backbone.state_dict().items()
        files["backbone.safetensors"] = {k: v for k, v in state if not k.startswith(left_out)}
    return files


def load_model(
    folder: str | os.PathLike[str],
    weights: str | os.PathLike[str] = "pretrained",
    revision: str | None = None,
) -> SegmentationModel:
    """Build the model of a saved adapter anew, from the folder alone.

    Args:
        folder: As in `load_adapter`.
        weights: The backbone's checkpoint, if it is not the published one.
        revision: As in `load_adapter`.

    Returns:
        The model in evaluation mode; it gives what the saved one gave, and `evaluate`, `fit` and
        the maps take it as they take a run's. `trained` says what it was trained on.

    Raises:
        FileNotFoundError: There is no adapter, or the backbone's weights cannot be had.
        ValueError: Other weights than those that it was trained on, or a damaged file.
    """
    source = local_folder(folder, revision)
    about = read_description(source)
    drawn = re.fullmatch(r"random initialisation, seed (\d+)", about["weights"])
    backbone = load_backbone(
        about["backbone"], None if drawn else weights, about["bands"], about["img_size"],
        about["frames"], about["layers"], about["gsd"] or 10.0, int(drawn[1]) if drawn else 0,
        about["wavelengths"],
    )  # fmt: skip
    mean, std = torch.tensor(about["mean"]), torch.tensor(about["std"])
    with damaged(source), torch.device("meta"):  # the decoder gets memory once its file fits
        model = SegmentationModel(
            backbone, about["decoder"], about["decoder_options"], mean, std,
            tuple(about["classes"]), about["task"], about["pad"], tuple(about["metadata"]),
        )  # fmt: skip
    model.built_for = about["built_for"]
    return load_adapter(model, source).eval()


def load_adapter(
    model: SegmentationModel,
    folder: str | os.PathLike[str],
    name: str | None = None,
    revision: str | None = None,
) -> SegmentationModel:
    """Attach a saved method and load its weights and its decoder, in place.

    Args:
        model: From `build_model`, with the same backbone, bands, classes and decoder; pixels are
            scaled as when the adapter was trained. If the model carries adapters of the same method
            already, the loaded one joins them and becomes the active one.
        folder: Written by `save_adapter`; or a repository of the Hugging Face hub, ``"owner/name"``
            or ``"hub:owner/name"``.
        name: Name of the adapter in the model; None takes the one that it was saved with.
        revision: Branch, tag or commit of the repository.

    Returns:
        The same model.

    Raises:
        FileNotFoundError: There is no adapter.
        ValueError: Another backbone, other bands or classes, a name in use, or a damaged file; the
            message says what differs and what would work. The model is left as it was.
    """
    source = local_folder(folder, revision)
    about = read_description(source)
    check_files(source, about)
    for what, own in identity(model).items():
        if about[what] != own and what not in ("mean", "std"):  # these come with the adapter
            raise GeopeftError(
                f"{source} does not fit the model: it was saved for {what} {about[what]}, and the "
                f"model has {own}. gp.load_model({str(source)!r}) builds the model that it fits, "
                "also on a checkpoint of your own, by weights=."
            )
    joins = name or about["adapter"] or "default"
    trial = outline(model)
    with damaged(source, GeopeftError), torch.device("meta"):
        _attach_saved(trial, source, about, joins)
    trained = read_trained(source, len(model.bands), trial.backbone.channels[-1])
    files = _read_tensors(source, trained_tensors(trial))
    _attach_saved(model, source, about, joins)
    model.method_options, model.trained = about["options"], trained
    scaling = [torch.tensor(about[key])[:, None, None].to(model.mean) for key in ("mean", "std")]
    if not all(map(torch.allclose, scaling, (model.mean, model.std))):
        change = "mean and std of the adapter, which differ from those of the model"
        warnings.warn(f"Pixels are now scaled by the {change}.", stacklevel=3)
    model.mean, model.std = scaling
    if next(model.decoder.parameters()).is_meta:
        model.decoder.to_empty(device=model.mean.device)
    model.decoder.load_state_dict(files["decoder.safetensors"])
    if "adapter_model.safetensors" in files:
        from peft import set_peft_model_state_dict

        with quiet_peft():
            set_peft_model_state_dict(model.backbone, files["adapter_model.safetensors"], joins)
    model.backbone.load_state_dict(files.get("backbone.safetensors", {}), strict=False)
    return model


def merge(model: SegmentationModel) -> SegmentationModel:
    """Fold the active adapter into the backbone's weights, in place: same output, no extra cost.

    Args:
        model: With an adapter of a method that merges, see `gp.list_methods()`.

    Returns:
        The same model, with a plain backbone. Other adapters that it carried are gone.

    Raises:
        ValueError: The method cannot be merged; the message lists those that can.
    """
    if model.method not in CARDS or not CARDS[model.method].merges:
        able = ", ".join(card.name for card in CARDS.values() if card.merges)
        raise GeopeftError(
            f"This model has {model.method or 'nothing'} attached. Methods that merge: {able}. To "
            "share what was trained, use save_adapter; export_onnx takes this model as it is."
        )
    if others := [name for name in model.adapters if name != model.adapter]:
        warnings.warn(f"Merging {model.adapter} drops {', '.join(others)}.", stacklevel=2)
    return _fold(model)


def merged_copy(model: SegmentationModel) -> SegmentationModel:
    """Return a copy that predicts the same at no extra cost; or the model, if it cannot merge."""
    able = model.method in CARDS and CARDS[model.method].merges
    return _fold(copy.deepcopy(model)) if able else model


def _fold(model: SegmentationModel) -> SegmentationModel:
    model.backbone = model.backbone.merge_and_unload().requires_grad_(False)
    model.method = model.backbone.attached = f"merged {model.method}"
    model.adapter, model.shelf = None, {}
    return model.train(model.training)  # a frozen backbone keeps its batch statistics


def local_folder(folder: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a saved adapter, fetched from the hub if it is a repository's name.

    Raises:
        FileNotFoundError: There is no such folder, and no such repository can be reached.
    """
    path, repository = named_path(folder, "folder"), str(folder).removeprefix("hub:")
    if path.is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        return path
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # offline, no such repository, no access: each its own kind
        raise FileNotFoundError(
            f"There is no folder {str(folder)!r} here, and https://huggingface.co/{repository} did "
            f"not give an adapter: {error!r:.300}."
        ) from error


def _attach_saved(model: SegmentationModel, source: Path, about: dict[str, Any], name: str) -> None:
    if about["adapter"] is None or about["method"] == "shallow":  # its options cut the backbone
        attach(model, about["method"], name=name, **about["options"])
    else:
        attach(model, read_config(source, about["method"]), name=name)


def _read_tensors(
    source: Path, wanted: dict[str, dict[str, Tensor]]
) -> dict[str, dict[str, Tensor]]:
    """Read the files that hold the wanted tensors, and refuse what does not fit."""
    found = {name: read_checkpoint(placed(source, name)) for name in wanted}
    there, needed = (
        {(key, *tensor.shape) for tensors in files.values() for key, tensor in tensors.items()}
        for files in (found, wanted)
    )
    if there != needed:
        lacks, has = (sorted(x)[:2] for x in (needed - there, there - needed))
        raise GeopeftError(
            f"{source} does not fit the model: of names and shapes it lacks {lacks} and has {has} "
            "instead. Build the model with the decoder and options that its adapter.json names."
        )
    for name, tensors in found.items():
        check_numbers(tensors, wanted[name], source / name)
    return found
