"""Backbone + decoder = the model that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.backbones.load import seeded
from geopeft_nb.decoders.linear import LinearDecoder
from geopeft_nb.errors import expect, unknown_name

if TYPE_CHECKING:
    from geopeft_nb.datasets.base import ChipDataset, GeoData

DECODERS = {"linear": LinearDecoder}


class SegmentationModel(nn.Module):
    """Reflectance in, one score per class and pixel out.

    Args:
        backbone: Computes the feature maps.
        decoder: Turns them into logits.
        mean: Mean per band, reflectance 0-1, shape (C,).
        std: Standard deviation per band, reflectance 0-1, shape (C,).
        classes: Class names.
        pad: Whether images that patches do not fill are allowed for.

    Attributes:
        method: Name of the attached method, or None before `attach`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        decoder: nn.Module,
        mean: Tensor,
        std: Tensor,
        classes: tuple[str, ...],
        pad: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.classes = backbone, decoder, classes
        self.method: str | None = None
        self.pad = pad
        self.method_options: dict[str, object] = {}
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    @property
    def bands(self) -> tuple[str, ...]:
        """The input bands, in order."""
        return self.backbone.bands

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a backbone without trained weights stays as it is in evaluation.

        Else the running statistics of its batch norms would move, and frozen would not be frozen.
        """
        super().train(mode)
        if not any(weight.requires_grad for weight in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel.

        Args:
            image: (B, C, H, W) reflectance 0-1; H and W need not be multiples of the patch.

        Returns:
            Logits (B, K, H, W).
        """
        if image.ndim != 4 or image.shape[1] != len(self.bands):
            raise ValueError(
                f"image must be (B, {len(self.bands)}, H, W) with bands {', '.join(self.bands)}, "
                f"got shape {tuple(image.shape)}."
            )
        logits = self.decoder(self.backbone((image - self.mean) / self.std))
        return logits[..., : image.shape[-2], : image.shape[-1]]


def build_model(
    backbone: Backbone,
    data: GeoData,
    decoder: str = "linear",
    normalise: str = "pretraining",
    pad: bool = False,
    seed: int = 0,
) -> SegmentationModel:
    """Put a decoder for the classes of `data` on a backbone.

    Args:
        backbone: From `load_backbone`.
        data: From `load_data`; gives classes, bands and chip size.
        decoder: ``"linear"``.
        normalise: ``"pretraining"`` scales the input as the backbone saw it when it was pretrained;
            ``"dataset"`` by mean and standard deviation of the training chips, as the paper does.
        pad: Allow chips that patches do not fill, by repeating their border.
        seed: Seed of the decoder's random weights.

    Returns:
        The model, all weights trainable until `attach` chooses.

    Raises:
        ValueError: Unknown decoder or normalisation, bands that differ, or chips that the patch
            size does not divide.
    """
    expect(backbone, "patch_size", "the backbone that load_backbone returned")
    expect(data, "holdout", "the data that load_data returned")
    if decoder not in DECODERS:
        raise unknown_name("decoder", decoder, DECODERS)
    if tuple(backbone.bands) != tuple(data.bands):
        raise ValueError(
            f"The backbone was loaded for bands {', '.join(backbone.bands)} but the data have "
            f"{', '.join(data.bands)}. Use load_backbone(..., bands=data.bands)."
        )
    if backbone.frames != 1:
        raise ValueError(
            f"The backbone was loaded for {backbone.frames} frames, and these data have one. "
            "Use load_backbone(..., frames=1)."
        )
    patch = backbone.patch_size
    if data.size % patch and not pad:
        below, above = data.size // patch * patch, -(-data.size // patch) * patch
        sizes = f"{below} or {above}" if below else str(above)
        raise ValueError(
            f"Chips of {data.size} px are not divisible by the patch of {patch} px. Use "
            f"load_data(..., size={sizes}), or build_model(..., pad=True) to repeat the border."
        )
    if normalise == "pretraining":
        mean, std = backbone.scaling()
    elif normalise == "dataset" and backbone.card.scheme == "inside":
        raise ValueError(
            f"{backbone.card.name} scales reflectance by itself, because it also computes an index "
            "from it. Use normalise='pretraining'."
        )
    elif normalise == "dataset":
        mean, std = backbone.card.scale_by(*band_statistics(data.train))
    else:
        raise unknown_name("normalisation", normalise, ["pretraining", "dataset"])
    with seeded(seed):
        head = DECODERS[decoder](backbone.channels, len(data.classes), patch)
    return SegmentationModel(backbone, head, mean, std, data.classes, pad)


def band_statistics(dataset: ChipDataset) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per band over all pixels of a data set, each (C,)."""
    pixels = torch.stack([dataset[i]["image"].double().flatten(1) for i in range(len(dataset))])
    std, mean = torch.std_mean(pixels, dim=(0, 2))
    return mean.float(), std.float()


def moving_state(model: SegmentationModel) -> dict[str, Tensor]:
    """Return what training changes, detached: trainable weights and running batch statistics.

    The state of a model is its pretrained backbone plus this.
    """
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    running = ("running_mean", "running_var", "num_batches_tracked")
    return {
        name: value.detach()
        for name, value in model.state_dict().items()
        if name in trainable or name.endswith(running)
    }


def part_of(name: str) -> str:
    """Say which part of the model a parameter belongs to: adapter, decoder, or backbone."""
    if "lora_" in name:
        return "adapter"
    return "decoder" if name.startswith("decoder.") else "backbone"
