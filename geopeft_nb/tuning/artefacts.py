"""Save what was trained, and nothing else: megabytes to share instead of a whole model."""

from __future__ import annotations

import copy
import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from geopeft_nb.backbones.load import read_checkpoint
from geopeft_nb.errors import GeopeftError, expect
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.identity import REMEDIES, check_identity, identity
from geopeft_nb.tuning.methods import CARDS, attach
from geopeft_nb.tuning.model_card import write_card
from geopeft_nb.tuning.sharing import local_folder

if TYPE_CHECKING:
    from geopeft_nb.evaluation.regions import Report
    from geopeft_nb.training.fit import Run


def save_adapter(
    model_or_run: SegmentationModel | Run,
    folder: str | os.PathLike[str],
    report: Report | None = None,
    licence: str | None = None,
) -> Path:
    """Write what was trained to a folder: the active adapter in peft's format, and its decoder.

    Args:
        model_or_run: A model with a method attached, or the run of `fit`.
        folder: A new or empty folder, or one that holds an earlier adapter, which is replaced.
        report: From `evaluate`, for the model card.
        licence: What you license the adapter under; None derives a hint from backbone and data.

    Returns:
        The folder, with `adapter_config.json` and `adapter_model.safetensors` (peft's), or
        `backbone.safetensors` (methods that are not peft's); `decoder.safetensors`; `adapter.json`
        (the backbone, bands and classes that it belongs to); and `model_card.md`.

    Raises:
        ValueError: No method is attached, so that nothing says what is adapter and what backbone;
            it is merged; the folder holds something else; or the report is of another method.
    """
    model = cast("SegmentationModel", getattr(model_or_run, "model", model_or_run))
    expect(model, "method_options", "the model that build_model returned, or the run of fit")
    if model.method is None:
        raise GeopeftError(
            "Nothing is attached yet: call attach(model, ...) and fit before saving."
        )
    if model.method not in CARDS:
        raise GeopeftError(
            "The adapter was merged into the backbone's weights, so it cannot be saved by itself. "
            "Call save_adapter before merge, or write the whole model with export_onnx."
        )
    if report is not None and set(report.table["method"]) != {model.method}:
        raise GeopeftError(f"The report is of {report.title!r}, and the model has {model.method}.")
    target = check_target(folder)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, tensors in trained_tensors(model).items():
        # Copies, because a file holds no two names of one tensor, and no views.
        save_file({key: t.detach().cpu().clone() for key, t in tensors.items()}, part / name)
    if model.adapter is not None:
        config = model.backbone.peft_config[model.adapter]
        with warnings.catch_warnings():  # VeRA's config warns about what was chosen when attaching
            warnings.simplefilter("ignore", UserWarning)
            replace(config, inference_mode=True).save_pretrained(str(part))
    about = {
        **identity(model),
        "decoder_options": model.decoder_options,
        "method": model.method,
        "options": model.method_options,
        "adapter": model.adapter,
    }
    (part / "adapter.json").write_text(json.dumps(about, indent=1) + "\n")
    write_card(part / "model_card.md", target.name, model_or_run, report, licence)
    shutil.rmtree(target, ignore_errors=True)
    return part.replace(target)


def check_target(folder: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a folder that an adapter may be written to.

    Raises:
        ValueError: It is a file, or a folder that holds something else than an adapter.
    """
    target = Path(folder).expanduser().resolve()
    if target.exists() and not target.is_dir():
        raise GeopeftError(f"{target} is a file. Name a folder for the adapter.")
    if target.is_dir() and any(target.iterdir()) and not (target / "adapter.json").is_file():
        raise GeopeftError(
            f"{target} holds other files, which would be lost. Name a new folder, for example "
            f"{target / 'adapter'}."
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
    elif model.method in ("full", "vit_adapter"):
        left_out = ("vit.",) if model.method == "vit_adapter" else model.backbone.fixed
        files["backbone.safetensors"] = {
            key: value
            for key, value in model.backbone.state_dict().items()
            if not key.startswith(left_out)
        }
    return files


def load_adapter(
    model: SegmentationModel,
    folder: str | os.PathLike[str],
    name: str | None = None,
    revision: str | None = None,
) -> SegmentationModel:
    """Attach a saved method and load its weights and its decoder, in place.

    Args:
        model: From `build_model`, with the same backbone, bands and classes. If it carries adapters
            of the same method already, the loaded one joins them and becomes the active one.
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
    expect(model, "method_options", "the model that build_model returned")
    source = local_folder(folder, revision)
    about, files = _read(source)
    check_identity(source, about, identity(model))
    method, options = about["method"], about["options"]
    if name is None and model.adapters:
        raise GeopeftError(
            f"The model carries adapters already: {', '.join(model.adapters)}. Choose another name "
            f"for {source} with load_adapter(..., name=...)."
        )
    name = name or about["adapter"] or "default"
    if name in model.adapters:
        raise GeopeftError(
            f"The model carries an adapter {name!r} already, attached with {model.options[name]}; "
            f"{source} was saved with {options}. Choose another with load_adapter(..., name=...)."
        )
    ghost = _without_weights(model)
    with torch.device("meta"):
        attach(ghost, method, name=name, **options)
    _check_shapes(source, trained_tensors(ghost), files)
    attach(model, method, name=name, **options)
    model.decoder.load_state_dict(files["decoder.safetensors"])
    if "adapter_model.safetensors" in files:
        from peft import set_peft_model_state_dict

        tensors = files["adapter_model.safetensors"]
        set_peft_model_state_dict(model.backbone, tensors, adapter_name=name)
    model.backbone.load_state_dict(files.get("backbone.safetensors", {}), strict=False)
    return model


def _read(source: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Read the identity and all tensors of a saved adapter."""
    file = source / "adapter.json"
    if not file.is_file():
        raise FileNotFoundError(f"{source} holds no adapter.json; save_adapter writes one.")
    try:
        about = {"metadata": [], **json.loads(file.read_text())}  # without it: none
        lacking = {*REMEDIES, "method", "options", "adapter"} - set(about)
    except (ValueError, TypeError) as error:
        raise GeopeftError(f"{file} is damaged: {error}.") from error
    if lacking:
        raise GeopeftError(
            f"{file} does not say the {', '.join(sorted(lacking))}: it is damaged, or of an older "
            "release, whose adapters have to be saved anew."
        )
    if about["method"] not in CARDS:
        raise GeopeftError(
            f"{source} has the method {about['method']!r}; known: {', '.join(CARDS)}."
        )
    names = ["decoder.safetensors"]
    names += ["adapter_model.safetensors"] if CARDS[about["method"]].config else []
    names += ["backbone.safetensors"] if about["method"] in ("full", "vit_adapter") else []
    for name in names:
        if not (source / name).is_file():
            raise FileNotFoundError(f"{source} holds no {name}; save_adapter writes one.")
    return about, {name: read_checkpoint(source / name) for name in names}


def _without_weights(model: SegmentationModel) -> SegmentationModel:
    """Copy a model whose weights are on the meta device: they have shapes and take no memory."""
    modules = [model, *model.shelf.values()]
    copies: dict[int, Any] = {}
    for tensor in [t for m in modules for t in (*m.parameters(), *m.buffers())]:
        empty = tensor.detach().to("meta")
        is_weight = isinstance(tensor, nn.Parameter)
        copies[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_weight else empty
    return copy.deepcopy(model, copies)


def _check_shapes(
    source: Path, wanted: dict[str, dict[str, Tensor]], found: dict[str, dict[str, Tensor]]
) -> None:
    """Refuse tensors that do not fit, before anything has been attached."""
    problems = []
    for name, own in wanted.items():
        own_shapes, shapes = ({k: tuple(v.shape) for k, v in t.items()} for t in (own, found[name]))
        problems += [f"{name} lacks {key}" for key in own_shapes.keys() - shapes.keys()]
        problems += [f"{name} has an unknown {key}" for key in shapes.keys() - own_shapes.keys()]
        problems += [
            f"{key} in {name} is {shapes[key]} instead of {own_shapes[key]}"
            for key in own_shapes.keys() & shapes.keys()
            if shapes[key] != own_shapes[key]
        ]
    if problems:
        raise GeopeftError(
            f"{source} does not fit the model: {'; '.join(sorted(problems)[:4])}. Build the model "
            "with the decoder and the options that its adapter.json names."
        )
