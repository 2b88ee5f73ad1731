"""Share what was trained: a folder with a model card, the hub, and files for other programs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, cast

import torch

from geopeft_nb.backbones.load import find_card
from geopeft_nb.backbones.vit import join_qkv
from geopeft_nb.decoders.load import CARDS as DECODERS
from geopeft_nb.errors import GeopeftError
from geopeft_nb.evaluation.regions import Report
from geopeft_nb.files import named_path
from geopeft_nb.models import BESIDE, SegmentationModel
from geopeft_nb.open_files import regular_file
from geopeft_nb.pictures.show import markdown
from geopeft_nb.training.run import Run
from geopeft_nb.tuning.adapter_files import FILES, check_folder, save
from geopeft_nb.tuning.identity import check_files, damaged, read_description
from geopeft_nb.tuning.methods import CARDS
from geopeft_nb.writing import held, placed, written_beside, written_together

#: Our decoders in TerraTorch, and what it calls their options. Its LinearDecoder has a head of its
#: own, but the factory of release 1.2.13 always appends a 1×1 convolution: an identity there makes
#: the two equal.
TERRATORCH = {
    "linear": "LinearDecoder", "fcn": "FCNDecoder",
    "unet": "UNetDecoder", "upernet": "UperNetDecoder",
}  # fmt: skip
OPTIONS = {"kernel": "upsampling_size", "channels": "channels", "convs": "num_convs"}
TERRATORCH_FILES = ("config.yaml", "state_dict.ckpt")
#: Our names of weights -> TerraTorch's. The pyramid is the third of its necks, and each layer norm
#: of the FCN is in a module of its own.
RENAMED = {
    r"^pyramid\.": "neck.2.",
    r"^head\.": "head.head.2.",
    r"^(?=conv\.)|^body\.": "decoder.",
    r"^(decoder\.convs\.\d+\.2)\.": r"\1.ln.",
}


def save_adapter(
    model_or_run: SegmentationModel | Run,
    folder: str | os.PathLike[str],
    report: Report | None = None,
    licence: str | None = None,
) -> Path:
    """Write what was trained to a folder, as peft would, with its decoder and a model card.

    Args:
        model_or_run: A model with a method attached, or the run of `fit`.
        folder: A new or empty folder, or one that holds an earlier adapter, whose files are
            replaced, all at one moment; whatever else is there stays.
        report: From `evaluate`, for the model card.
        licence: What you license the adapter under; None derives a hint from backbone and data.

    Returns:
        The folder: what `geopeft_nb.tuning.adapter_files.save` writes, and `model_card.md`.

    Raises:
        ValueError: Nothing is attached, or it is merged; the folder holds something else, or
            another process writes there; or the report is of another method. Or the card could not
            be written: then the adapter is saved without.
    """
    model = cast("SegmentationModel", getattr(model_or_run, "model", model_or_run))
    if report is not None and set(report.table["method"]) != {model.method}:
        raise GeopeftError(f"The report is of {report.title!r}, and the model has {model.method}.")
    best, history = (getattr(model_or_run, name, None) for name in ("best", "history"))
    with held(check_folder(folder)):
        target = save(model, folder, best, history)
        try:
            write_card(target, report, licence)
        except Exception as error:  # of the template, or of what others named
            raise GeopeftError(
                f"The adapter is saved in {target}, but without model_card.md ({error!r})."
            ) from error
    return target


def write_card(folder: Path, report: Report | None = None, licence: str | None = None) -> None:
    """Write what somebody must know before using a saved adapter, all of it from its files.

    Args:
        folder: Of an adapter.
        report: Scores region by region, or None.
        licence: The licence that was given, or None.
    """
    from jinja2 import Environment

    about = read_description(folder)
    template = Path(__file__).with_name("model_card.jinja").read_text(encoding="utf-8")
    with damaged(folder, GeopeftError):
        card = Environment(finalize=markdown).from_string(template).render(
            about | {
                "name": repr(folder.name), "backbone": find_card(about["backbone"]),
                "tags": ["remote-sensing", about["task"], about["method"]],
                "method": CARDS[about["method"]], "report": report, "licence": licence,
                "units": units(about["built_for"]),
            }
        )  # fmt: skip
    with written_beside(folder / "model_card.md") as part:
        part.write_text(card, encoding="utf-8")


def units(built_for: dict[str, Any]) -> str:
    """Say what the numbers of the images are that a model was built for."""
    if built_for["reflectance"]:
        return "Reflectance 0-1"
    return f"The numbers of {built_for['title']}, which are not reflectance"


def push_adapter(
    folder: str | os.PathLike[str], repo_id: str, private: bool = True, token: str | None = None
) -> str:
    """Send a saved adapter to the Hugging Face hub, in one commit.

    Args:
        folder: Written by `save_adapter`, or by `fit(..., out=)`.
        repo_id: Repository, ``"owner/name"``; made if it is not there.
        private: Whether a new repository can only be seen by you.
        token: Access token; None takes the one that `hf auth login` stored.

    Returns:
        Address of the commit.

    Raises:
        FileNotFoundError: The folder holds no adapter.
        GeopeftError: One of its files is a link that leads out of the folder.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    source = named_path(folder, "folder")
    check_files(source, about := read_description(source))
    if not placed(source, "model_card.md").is_file():
        with held(source.resolve()):
            write_card(source)
    files = [
        # a link could lead to any file of this machine
        CommitOperationAdd(
            name.replace("model_card", "README"), regular_file(placed(source, name), source)
        )
        for name in ("adapter.json", "model_card.md", *about["files"]) if name in FILES
    ]  # fmt: skip
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    return str(api.create_commit(repo_id, files, commit_message="Add an adapter").commit_url)


def check_export(model: SegmentationModel) -> None:
    """Refuse a model whose adapter could be merged and is not, or that takes more than images.

    Raises:
        ValueError: It is not merged, or it uses metadata.
    """
    if model.metadata or (model.method in CARDS and CARDS[model.method].merges):
        raise GeopeftError(
            f"An export has plain weights and takes an image alone; this model carries "
            f"{model.method}, and uses {', '.join(model.metadata) or 'no metadata'}. Call "
            "gp.merge(model) first, after save_adapter, and train with build_model(metadata=False)."
        )


def export_onnx(
    model: SegmentationModel, file: str | os.PathLike[str], size: int | None = None
) -> Path:
    """Write the model as ONNX: reflectance in, logits out, any number of images at once.

    Args:
        model: Merged, or with a method that does not merge; prompts and ViT-Adapter go along.
        file: Such as ``"water.onnx"``. A model above 2 GB gets a second file beside it.
        size: Side in pixels of the images that it will take; None takes that of the training chips.

    Returns:
        The file. Its input is `image` (B, C, size, size), its output `logits`; its metadata name
        bands and classes in their order.

    Raises:
        ValueError: An adapter that should be merged first, or a model that uses metadata.
        ImportError: The packages of the extra `export` are not installed.
    """
    check_export(model)
    side = model.built_for["size"] if size is None else size
    # Two images, because the exporter takes a batch of one for a constant.
    dates = [model.frames] * (model.frames > 1)
    image = torch.zeros(2, len(model.bands), *dates, side, side, device=model.mean.device)
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    training = model.training
    program: Any = torch.onnx.export(
        model.eval(), (image,), dynamo=True, input_names=["image"], output_names=["logits"],
        dynamic_shapes={"image": batch}, verbose=False,
    )  # fmt: skip
    model.train(training)
    program.model.metadata_props.update(
        bands=", ".join(model.bands), classes=", ".join(model.classes), task=model.task,
        input=units(model.built_for), backbone=model.plain_backbone.card.name,
    )  # fmt: skip
    target = named_path(file, "file")
    with held(target), written_beside(target) as part:  # a second file of it would lie beside it
        program.save(part)
    return target


def export_terratorch(model: SegmentationModel, folder: str | os.PathLike[str]) -> Path:
    """Write a Prithvi model for TerraTorch (arXiv 2503.20563): a configuration and its weights.

    Logits are the same for images that patches fill, with an even number of them where the decoder
    needs four maps; TerraTorch pads other images by mirroring.

    Args:
        model: Merged, or with `linear_probe` or `full`; backbone of Prithvi's architecture.
        folder: A new or empty folder, or one that holds an earlier export, whose two files are
            replaced; whatever else is there stays.

    Returns:
        The folder, with `config.yaml` (`model_args` of TerraTorch's SemanticSegmentationTask;
        bands, offset and divisor per band for reflectance 0-1) and `state_dict.ckpt`, the weights
        of the model that its EncoderDecoderFactory builds from them.

    Raises:
        ValueError: An adapter that should be merged first, a model that uses metadata, or another
            backbone, decoder or task.
    """
    from jinja2.utils import htmlsafe_json_dumps

    check_export(model)
    backbone, classes = model.plain_backbone, list(model.classes)
    card, side = backbone.card, backbone.patch_size
    beside = model.method in ("vpt", "adapter", *BESIDE) or backbone.uncut
    if card.family != "prithvi" or beside or model.task != "segmentation":
        raise GeopeftError(
            "TerraTorch takes geopeft_tiny and every prithvi_eo backbone for segmentation, plain or"
            f" merged, not {card.name} with {model.method} for {model.task}; export_onnx takes all."
        )
    target = check_folder(folder, TERRATORCH_FILES)
    options = DECODERS[model.decoder_name].usual(backbone) | model.decoder_options
    pyramid = getattr(model.decoder, "pyramid", None) is not None
    arguments = {
        # The small network has no name there: it is a larger one with other numbers.
        "backbone": "prithvi_eo_tiny" if card.name == "geopeft_tiny" else card.name,
        "backbone_pretrained": False, "backbone_num_frames": model.frames,
        "backbone_bands": list(model.bands), "backbone_patch_size": [1, side, side],
        "backbone_img_size": (backbone.trained_grid or 1) * side,
        "backbone_embed_dim": card.width, "backbone_depth": card.depth,
        "backbone_num_heads": card.heads, "num_classes": len(classes),
        "decoder": TERRATORCH[model.decoder_name],
        **({"decoder_num_classes": len(classes)} if model.decoder_name == "linear" else {}),
        **{f"decoder_{OPTIONS[option]}": value for option, value in options.items()},
        "necks": [
            {"name": "SelectIndices", "indices": list(backbone.layers)},
            {"name": "ReshapeTokensToImage"},
            *[{"name": "LearnedInterpolateToPyramidal"}] * pyramid,
        ],
    }  # fmt: skip
    facts = {
        "bands": list(model.bands), "means": model.mean.flatten().tolist(),
        "stds": model.std.flatten().tolist(), "classes": classes,
    }  # fmt: skip
    network = {
        "class_path": "terratorch.tasks.SemanticSegmentationTask",
        "init_args": {"model_factory": "EncoderDecoderFactory", "model_args": arguments},
    }
    lines = ["# Each band is scaled by (reflectance - mean) / std."]
    lines += [f"{name}: {htmlsafe_json_dumps(fact)}" for name, fact in facts.items()]
    lines += [f"model: {htmlsafe_json_dumps(network, indent=1)}\n"]  # JSON is YAML
    with written_together(target, TERRATORCH_FILES) as part:
        (part / "config.yaml").write_text("\n".join(lines), encoding="utf-8")
        torch.save({"state_dict": _terratorch_state(model)}, part / "state_dict.ckpt")
    return target


def _terratorch_state(model: SegmentationModel) -> dict[str, torch.Tensor]:
    """Return the weights under TerraTorch's names."""
    state = {f"encoder.{k}": v for k, v in join_qkv(model.plain_backbone.state_dict()).items()}
    for name, value in model.decoder.state_dict().items():
        for ours, theirs in RENAMED.items():
            name = re.sub(ours, theirs, name)
        state[name] = value
    if model.decoder_name == "linear":
        count = len(model.classes)
        state["head.head.2.weight"] = torch.eye(count)[:, :, None, None]
        state["head.head.2.bias"] = torch.zeros(count)
    return {name: value.detach().cpu().clone() for name, value in state.items()}
