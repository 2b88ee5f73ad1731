"""Share what was trained: a folder with a model card, the hub, and files for other programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from geopeft_nb.backbones.load import find_card
from geopeft_nb.backbones.vit import join_qkv
from geopeft_nb.decoders.load import MapDecoder
from geopeft_nb.errors import GeopeftError, expect, whole
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.adapter_files import FILES, check_folder, save, written_whole
from geopeft_nb.tuning.methods import CARDS

if TYPE_CHECKING:
    from geopeft_nb.evaluation.regions import Report
    from geopeft_nb.training.run import Run

#: Our decoders in TerraTorch. Its LinearDecoder has a head of its own, but the factory of release
#: 1.2.13 always appends a 1×1 convolution: an identity there makes the two equal.
TERRATORCH = {
    "linear": "LinearDecoder",
    "fcn": "FCNDecoder",
    "unet": "UNetDecoder",
    "upernet": "UperNetDecoder",
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
        folder: A new or empty folder, or one that holds an earlier adapter, which is replaced.
        report: From `evaluate`, for the model card.
        licence: What you license the adapter under; None derives a hint from backbone and data.

    Returns:
        The folder: what `geopeft_nb.tuning.adapter_files.save` writes, and `model_card.md`.

    Raises:
        ValueError: Nothing is attached, or it is merged; the folder holds something else; or the
            report is of another method.
    """
    model = cast("SegmentationModel", getattr(model_or_run, "model", model_or_run))
    if report is not None and set(report.table["method"]) != {model.method}:
        raise GeopeftError(f"The report is of {report.title!r}, and the model has {model.method}.")
    target = save(model, folder, getattr(model_or_run, "best", None))
    write_card(target, report, licence)
    return target


def write_card(folder: Path, report: Report | None = None, licence: str | None = None) -> None:
    """Write what somebody must know before using a saved adapter, all of it from its files.

    Args:
        folder: Of an adapter.
        report: Scores region by region, or None.
        licence: The licence that was given, or None.
    """
    from huggingface_hub import ModelCard, ModelCardData

    about = json.loads((folder / "adapter.json").read_text())
    data = about["built_for"].get("data")
    header = ModelCardData(
        library_name="geopeft_nb", tags=["remote-sensing", about["task"], about["method"]]
    )
    card = ModelCard.from_template(
        header,
        template_path=str(Path(__file__).with_name("model_card.jinja")),
        **about | {
            "name": repr(folder.name), "backbone": find_card(about["backbone"]), "data": data,
            "method": CARDS[about["method"]], "report": report, "licence": licence,
            "units": units(data), "files": sorted(folder.iterdir()),
        },
    )  # fmt: skip
    card.save(folder / "model_card.md")


def units(data: dict[str, Any] | None) -> str:
    """Say what the numbers of the images are; of the fields of a `DataCard`, or None."""
    if data is None or data["reflectance"]:
        return "Reflectance 0-1"
    return f"The numbers of {data['title']}, which are not reflectance"


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
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    source = Path(folder).expanduser()
    if not (source / "adapter.json").is_file():
        raise FileNotFoundError(f"{source} holds no adapter.json; save_adapter writes one.")
    if not (source / "model_card.md").is_file():
        write_card(source)
    names = {name: "README.md" if name == "model_card.md" else name for name in FILES}
    files = [
        CommitOperationAdd(there, source / here)
        for here, there in names.items()
        if (source / here).is_file()
    ]
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    return str(api.create_commit(repo_id, files, commit_message="Add an adapter").commit_url)


def check_export(model: SegmentationModel, what: str) -> None:
    """Refuse a model whose adapter could be merged and is not, or that takes more than images.

    Raises:
        ValueError: It is not merged, or it uses metadata.
    """
    expect(model, "method_options", "the model that build_model returned")
    if model.method in CARDS and CARDS[model.method].merges:
        raise GeopeftError(
            f"{what} takes plain weights, and this model carries {model.method} beside them. Call "
            "gp.merge(model) first; save_adapter before that, to keep the adapter."
        )
    if model.metadata:
        raise GeopeftError(
            f"{what} is written for models that take an image alone, and this one also uses "
            f"{' and '.join(model.metadata)}. Train one with build_model(..., metadata=False)."
        )


def export_onnx(
    model: SegmentationModel, file: str | os.PathLike[str], size: int | None = None
) -> Path:
    """Write the model as ONNX: reflectance in, logits out, any number of images at once.

    Args:
        model: Merged, or with a method that does not merge; prompts and ViT-Adapter go along.
        file: Ends in ``.onnx``. A model above 2 GB gets a second file beside it.
        size: Side in pixels of the images that it will take; None takes that of the training chips.

    Returns:
        The file. Its input is `image` (B, C, size, size), its output `logits`; its metadata name
        bands and classes in their order.

    Raises:
        ValueError: An adapter that should be merged first, a model that uses metadata, or a size
            that is no size.
        ImportError: The packages of the extra `export` are not installed.
    """
    check_export(model, "ONNX")
    target = Path(file).expanduser().resolve()
    if target.suffix != ".onnx":
        raise GeopeftError(f"The name of the file must end in .onnx, got {target.name!r}.")
    side = model.built_for.get("size", 224) if size is None else size
    whole("size", side)
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it, and its own message is long
    except ImportError as error:
        raise ImportError("ONNX needs more packages: pip install geopeft-nb[export]") from error
    # Two images, because the exporter takes a batch of one for a constant.
    image = torch.zeros(2, len(model.bands), side, side, device=model.mean.device)
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    training = model.training
    try:
        program: Any = torch.onnx.export(
            model.eval(), (image,), dynamo=True, input_names=["image"], output_names=["logits"],
            dynamic_shapes={"image": batch}, verbose=False,
        )  # fmt: skip
    finally:
        model.train(training)
    data = model.built_for.get("data")
    program.model.metadata_props.update(
        bands=", ".join(model.bands), classes=", ".join(model.classes), task=model.task,
        input=units(data and vars(data)), backbone=model.plain_backbone.card.name,
    )  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:  # nothing half-written under its name
        program.save(Path(folder) / target.name)
        for part in Path(folder).iterdir():
            part.replace(target.with_name(part.name))
    return target


def export_terratorch(model: SegmentationModel, folder: str | os.PathLike[str]) -> Path:
    """Write a Prithvi model for TerraTorch (arXiv 2503.20563): a configuration and its weights.

    Logits are the same for images that patches fill, with an even number of them where the decoder
    needs four maps; TerraTorch pads other images by mirroring.

    Args:
        model: Merged, or with `linear_probe` or `full`; backbone of Prithvi's architecture.
        folder: A new or empty folder, or one that holds an earlier export, which is replaced.

    Returns:
        The folder, with `config.yaml` (`model_args` of TerraTorch's SemanticSegmentationTask;
        bands, offset and divisor per band for reflectance 0-1) and `state_dict.ckpt`, the weights
        of the model that its EncoderDecoderFactory builds from them.

    Raises:
        ValueError: An adapter that should be merged first, a model that uses metadata, or another
            backbone, decoder or task.
    """
    import yaml

    check_export(model, "TerraTorch")
    card = model.plain_backbone.card
    able = model.method not in ("vpt", "adapter", "vit_adapter")
    if card.family != "prithvi" or not able or model.task != "segmentation":
        raise GeopeftError(
            f"TerraTorch builds Prithvi's architecture for segmentation, and this is {card.name} "
            f"with {model.method or 'nothing attached'} for {model.task}. It can be exported from "
            "geopeft_tiny and every prithvi_eo backbone, with linear_probe, full or a merged "
            "adapter. export_onnx takes every model."
        )
    target = check_folder(folder, "state_dict.ckpt")
    config = {
        "bands": list(model.bands),
        "means": model.mean.flatten().tolist(),
        "stds": model.std.flatten().tolist(),
        "classes": list(model.classes),
        "model": {
            "class_path": "terratorch.tasks.SemanticSegmentationTask",
            "init_args": {
                "model_factory": "EncoderDecoderFactory",
                "model_args": _terratorch_arguments(model),
            },
        },
    }
    with written_whole(target) as part:
        (part / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        torch.save({"state_dict": _terratorch_state(model)}, part / "state_dict.ckpt")
    return target


def _terratorch_arguments(model: SegmentationModel) -> dict[str, Any]:
    backbone, card = model.plain_backbone, model.plain_backbone.card
    decoder: Any = model.decoder
    side = backbone.patch_size
    arguments: dict[str, Any] = {
        # The small network has no name there: it is a larger one with other numbers.
        "backbone": "prithvi_eo_tiny" if card.name == "geopeft_tiny" else card.name,
        "backbone_pretrained": False,
        "backbone_num_frames": 1,
        "backbone_bands": list(model.bands),
        "backbone_img_size": (backbone.trained_grid or 1) * side,
        "backbone_patch_size": [1, side, side],
        "backbone_embed_dim": card.width,
        "backbone_depth": card.depth,
        "backbone_num_heads": card.heads,
        "decoder": TERRATORCH[model.decoder_name],
        "num_classes": len(model.classes),
        "necks": [
            {"name": "SelectIndices", "indices": list(backbone.layers)},
            {"name": "ReshapeTokensToImage"},
        ],
    }
    if not isinstance(decoder, MapDecoder):
        sizes = {"num_classes": len(model.classes), "upsampling_size": decoder.conv.stride[0]}
    elif model.decoder_name == "fcn":
        sizes = {"channels": decoder.body.out_channels, "num_convs": len(decoder.body.convs)}
    elif model.decoder_name == "unet":
        widths = [block.conv2[0].out_channels for block in decoder.body.decoder.blocks]
        sizes = {"channels": widths}
    else:
        sizes = {"channels": decoder.body.out_channels}
    if getattr(decoder, "pyramid", None) is not None:
        arguments["necks"].append({"name": "LearnedInterpolateToPyramidal"})
    return arguments | {f"decoder_{key}": value for key, value in sizes.items()}


def _terratorch_state(model: SegmentationModel) -> dict[str, Tensor]:
    """Return the weights under TerraTorch's names."""
    encoder = join_qkv(model.plain_backbone.state_dict())
    state = {f"encoder.{key}": value for key, value in encoder.items()}
    for key, value in model.decoder.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "pyramid":
            state[f"neck.2.{rest}"] = value  # the third of the necks
        elif part == "head":
            state[f"head.head.2.{rest}"] = value
        elif model.decoder_name == "fcn":
            convs, step, layer, name = rest.split(".")
            layer = "2.ln" if layer == "2" else layer  # its layer norm is in a module of its own
            state[f"decoder.{convs}.{step}.{layer}.{name}"] = value
        else:
            state[f"decoder.{rest if part == 'body' else key}"] = value
    if model.decoder_name == "linear":
        count = len(model.classes)
        state["head.head.2.weight"] = torch.eye(count)[:, :, None, None]
        state["head.head.2.bias"] = torch.zeros(count)
    return {key: value.detach().cpu().clone() for key, value in state.items()}
