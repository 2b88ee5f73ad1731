"""Take a trained Prithvi model to TerraTorch (arXiv 2503.20563): configuration and weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from geopeft_nb.decoders.load import MapDecoder
from geopeft_nb.errors import GeopeftError
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.export import check_export

#: Our decoders in TerraTorch. Its LinearDecoder has a head of its own, but the factory of release
#: 1.2.13 always appends a 1×1 convolution: an identity there makes the two equal.
TERRATORCH = {
    "linear": "LinearDecoder",
    "fcn": "FCNDecoder",
    "unet": "UNetDecoder",
    "upernet": "UperNetDecoder",
}


def export_terratorch(model: SegmentationModel, folder: str | os.PathLike[str]) -> Path:
    """Write a Prithvi model for TerraTorch: a configuration and the weights that it loads.

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
    target = Path(folder).expanduser().resolve()
    if target.exists() and any(target.iterdir()) and not (target / "state_dict.ckpt").is_file():
        raise GeopeftError(f"{target} holds other files, which would be lost. Name a new folder.")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
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
    (part / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    torch.save({"state_dict": _terratorch_state(model)}, part / "state_dict.ckpt")
    shutil.rmtree(target, ignore_errors=True)
    return part.replace(target)


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
    state = {f"encoder.{key}": value for key, value in model.plain_backbone.state_dict().items()}
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
