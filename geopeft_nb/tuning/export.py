"""Take a trained model to other programs: as ONNX."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from geopeft_nb.errors import GeopeftError, expect
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.methods import CARDS
from geopeft_nb.tuning.model_card import units


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
    if not isinstance(side, int) or side < 1:
        raise GeopeftError(f"size is the side of the images in pixels, above 0; got {size!r}.")
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
    program.model.metadata_props.update(
        bands=", ".join(model.bands), classes=", ".join(model.classes), task=model.task,
        input=units(model.built_for.get("data")), backbone=model.plain_backbone.card.name,
    )  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:  # nothing half-written under its name
        program.save(Path(folder) / target.name)
        for part in Path(folder).iterdir():
            part.replace(target.with_name(part.name))
    return target
