"""Backbone + decoder = the model that is trained."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.base import Backbone, More
from geopeft_nb.backbones.load import seeded
from geopeft_nb.datasets.base import Ground, Sample
from geopeft_nb.datasets.geodata import DataCard, GeoData
from geopeft_nb.decoders.load import build_decoder, check_decoder, choose_maps
from geopeft_nb.errors import GeopeftError, check_arguments, check_name
from geopeft_nb.inputs import METADATA, choose_metadata, choose_scaling, stack_metadata
from geopeft_nb.pictures.facts import Facts
from geopeft_nb.tasks import TASKS

#: Methods that stand in for the backbone, which they hold as `vit`.
BESIDE = ("vit_adapter", "side")
#: How the names of their own weights begin.
_BESIDE = re.compile(r"backbone\.(level_embed|spm|interactions|up|norm[1-4]|side)\b")
#: What each of several adapters has of its own.
OWN = ("decoder", "mean", "std", "method_options", "trained")


@dataclass(frozen=True)
class Trained:
    """What a model was trained on, which stays with it and is saved along.

    Attributes:
        data: Name of the data set.
        seed: Seed of the training.
        size: Side of the chips in pixels.
        pixels: Mean and standard deviation per band of some training chips, each (C,).
        seen: Ground of all chips that it was trained on, or that chose its weights: of training
            and validation.
        absent: Classes that no training chip shows.
        products: What the files are, as far as `load_data` knows, such as ``"HLS L30"``.
        temperature: What logits are divided by to become calibrated probabilities, or None.
        reference: Features of training chips (N, D), from which the distance of others is told.
        threshold: The distance within which 95 % of the cells of training chips lie.
    """

    data: str
    seed: int
    size: int
    pixels: tuple[Tensor, Tensor]
    seen: Sequence[Ground]
    absent: Sequence[str] = ()
    products: Sequence[str] = ()
    temperature: float | None = None
    reference: Tensor | None = None
    threshold: float | None = None


class SegmentationModel(Facts, nn.Module):
    """Reflectance in, one score per class and pixel out; or per class and image.

    Args:
        backbone: Computes the feature maps.
        decoder: Name of the decoder that turns them into logits.
        options: Options of the decoder that were given.
        mean: What is taken off each band, shape (C,): its mean, or the offset of its range.
        std: What is divided by then, shape (C,): its standard deviation, or its range's width.
        classes: Class names; for regression the names of the targets.
        pad: Whether images that patches do not fill are allowed for.
        task: ``"segmentation"``, ``"classification"``, ``"multilabel"`` or ``"regression"``.
        metadata: What it uses besides the image: some of ``"time"`` and ``"location"``.
        seed: Seed of the decoder's random weights.

    Attributes:
        method: Name of the attached method, or None before `attach`.
        adapter: Name of the active adapter, of methods that can have several; else None.
        shelf: Adapter that is not active -> what of `OWN` belongs to it.
        method_options: Options that the attached method, or the active adapter, was given.
        built_for: Facts about the data that `build_model` was given, for the model card.
        trained: What `fit` trained it on; None before.
    """

    mean: Tensor
    std: Tensor
    backbone: Any  # a Backbone, or what a method wrapped around one
    method: str | None = None
    adapter: str | None = None
    trained: Trained | None = None

    def __init__(
        self, backbone: Backbone, decoder: str, options: Mapping[str, Any], mean: Tensor,
        std: Tensor, classes: tuple[str, ...], task: str = "segmentation", pad: bool = False,
        metadata: tuple[str, ...] = (), seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone, self.classes, self.task = backbone, classes, task
        self.decoder_name, self.decoder_options = decoder, dict(options)
        self.pad, self.metadata = pad, metadata
        self.decoder = self.new_decoder(seed)
        self.method_options: dict[str, object] = {}
        self.built_for: dict[str, Any] = {}
        # A plain dict: what is not active is not trained.
        self.shelf: dict[str, dict[str, Any]] = {}
        # By these names checkpoints of runs hold them.
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def facts(self) -> tuple[str, dict[str, object]]:
        """Say what the model is made of; see `Facts`."""
        sizes = [(weight.numel(), weight.requires_grad) for weight in self.parameters()]
        trained, total = sum(n for n, trainable in sizes if trainable), sum(n for n, _ in sizes)
        options = ", ".join(f"{name}={value!r}" for name, value in self.method_options.items())
        return f"{self.plain_backbone.card.title} with decoder {self.decoder_name}", {
            "attached": f"{self.method or 'nothing yet'} {options}",
            "adapters": ", ".join(self.adapters),
            "task": f"{self.task}: {', '.join(self.classes)}",
            "bands": ", ".join(self.bands),
            "metadata": ", ".join(self.metadata),
            "trainable": f"{trained:,} of {total:,} weights ({trained / total:.2%})",
        }

    @property
    def bands(self) -> tuple[str, ...]:
        """The input bands, in order."""
        return self.backbone.bands

    @property
    def frames(self) -> int:
        """Dates T of each image."""
        return self.plain_backbone.frames

    @property
    def plain_backbone(self) -> Backbone:
        """The backbone itself, without what a method wrapped around it."""
        if self.adapter is not None:
            return self.backbone.get_base_model()
        return self.backbone.vit if self.method in BESIDE else self.backbone

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of all adapters that the model carries; the active one is `adapter`."""
        return tuple(self.backbone.peft_config) if self.adapter is not None else ()

    def use_adapter(self, name: str) -> Self:
        """Make another adapter the active one, and its decoder, mean and std.

        Args:
            name: One of `adapters`.

        Returns:
            The model.

        Raises:
            ValueError: The model carries no adapter of that name.
        """
        check_name("adapter", name, self.adapters)
        if name != self.adapter:
            here = self.mean
            self.shelf[str(self.adapter)] = {part: getattr(self, part) for part in OWN}
            for part, own in self.shelf.pop(name).items():
                setattr(self, part, own.to(here) if hasattr(own, "to") else own)
            self.backbone.set_adapter(name)
            self.decoder.train(self.training)
            self.adapter = name
        return self

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Run the pretrained backbone as if nothing were attached, decoder as it is.

        Raises:
            ValueError: The attached method changed the backbone's own weights, or its maps.
        """
        plain = self.adapter is not None or self.method in (None, "linear_probe")
        if not plain or self.plain_backbone.uncut:
            raise GeopeftError(
                f"{self.method} changed the backbone's own weights or maps, so there is nothing "
                "to take off. Load the pretrained backbone anew with load_backbone."
            )
        with self.backbone.disable_adapter() if self.adapter is not None else nullcontext():
            yield

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a backbone without trained weights stays as it is in evaluation.

        Else the running statistics of its batch norms would move, and frozen would not be frozen.
        """
        super().train(mode)
        if not any(weight.requires_grad for weight in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def new_decoder(self, seed: int = 0) -> nn.Module:
        """Build the decoder anew, for the maps that the backbone returns now.

        Args:
            seed: Seed of its random weights.

        Returns:
            A decoder of the same kind and options; the model keeps the one that it has.
        """
        with seeded(seed):
            return build_decoder(
                self.decoder_name, self.backbone, len(self.classes), **self.decoder_options
            )

    def forward(self, image: Tensor, temporal: More = None, location: More = None) -> Tensor:
        """Score every pixel, or every image.

        Args:
            image: (B, C, H, W) reflectance 0-1, or (B, C, T, H, W) of several dates; H and W need
                not be multiples of the patch.
            temporal: (B, T, 2) year and day of year from 1, as samples have it.
            location: (B, 2) latitude and longitude in degrees.

        Returns:
            Logits (B, K, H, W), or values of K targets; (B, K) of a decoder for whole images.

        Raises:
            ValueError: An image of another shape or bands, or metadata that it uses are not given.
                What it does not use may be given and changes nothing.
        """
        scaled, more = self.scale(image, temporal, location)
        return self.decode(self.backbone(scaled, **more), image.shape[-2:])

    def predict(self, samples: Sequence[Sample], batch_size: int = 8) -> list[np.ndarray]:
        """Return the predicted class of each pixel, one (H, W) int64 array per sample.

        For other tasks than segmentation: one class (), one label or none for each class (K,) bool,
        or the values of K targets (K, H, W) float32. Time and location are taken from the samples
        if the model uses them; a sample without is an error. The model is in evaluation mode then.
        """
        self.eval()
        maps: list[np.ndarray] = []
        with torch.inference_mode():
            for start in range(0, len(samples), batch_size):
                part = samples[start : start + batch_size]
                batch = {"image": torch.stack([s["image"] for s in part]), **stack_metadata(part)}
                output = self(**{name: x.to(self.mean.device) for name, x in batch.items()})
                maps.extend(TASKS[self.task].predict(output).cpu().numpy())
        return maps

    def scale(
        self, image: Tensor, temporal: More = None, location: More = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the image and those of its metadata that are used as the backbone takes them."""
        series = self.plain_backbone.check_input(image)  # other bands would broadcast
        more = self._used({"time": temporal, "location": location}) if self.metadata else {}
        scaled = (series - self.mean[..., None]) / self.std[..., None]
        return scaled if scaled.shape[2] > 1 else scaled[:, :, 0], more

    def _used(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return those of the metadata that are used, with days counted as the backbone does."""
        if missing := [kind for kind in self.metadata if given[kind] is None]:
            raise GeopeftError(
                f"The model uses {' and '.join(missing)}, and got none: call model(image, temporal,"
                " location) with those of the samples, or use build_model(..., metadata=False)."
            )
        more = {METADATA[kind]: given[kind] for kind in self.metadata}
        if "temporal" in more:  # days from 1, and backbones count from 1 or 0
            shift = 1.0 - self.plain_backbone.card.first_day
            more["temporal"] = given["time"] - given["time"].new_tensor([0.0, shift])
        return more

    def decode(self, features: list[Tensor], size: Sequence[int]) -> Tensor:
        """Turn the backbone's maps of an image of that height and width into what `forward` does.

        Of a decoder that reads only the deepest map the others may be left out.
        """
        logits = self.decoder(features)
        if logits.ndim == 2:
            return logits
        # The ground that the decoder's map covers, in pixels: the image with its padding.
        covers: Any = self.decoder.covers
        padded = tuple(side * self.backbone.strides[covers] for side in features[covers].shape[-2:])
        if logits.shape[-2:] != padded:
            logits = functional.interpolate(logits, padded, mode="bilinear", align_corners=False)
        return logits[..., : size[0], : size[1]]


@check_arguments
def build_model(
    backbone: Backbone, data: GeoData, decoder: str = "linear", normalise: str | None = None,
    pad: bool = False, seed: int = 0, metadata: bool | Sequence[str] | None = None,
    **options: Any,
) -> SegmentationModel:  # fmt: skip
    """Put a decoder for the classes of `data` on a backbone.

    Args:
        backbone: From `load_backbone`. For a decoder that needs four maps, a plain transformer that
            was loaded without `layers` is set to return those of its quarters.
        data: From `load_data`; gives task, classes, bands and chip size.
        decoder: A name that `gp.list_decoders()` lists: ``"linear"``, ``"fcn"``, ``"unet"`` or
            ``"upernet"`` for pixels; ``"classify"`` for whole images.
        normalise: ``"pretraining"`` scales the input as the backbone saw it when it was pretrained;
            ``"dataset"`` by the data set's published mean and standard deviation, or those of the
            training chips, as the paper does. None takes the first for reflectance, else the other.
        pad: Allow chips that patches do not fill, by repeating their border.
        seed: Seed of the decoder's random weights.
        metadata: Whether day and place of acquisition are an input, for backbones that take them:
            True insists, ``["time"]`` or ``["location"]`` on one alone, False leaves them out; None
            takes all that the backbone takes if all of it is known of all chips, else nothing.
            arXiv 2504.17397 compared and recommends to leave them out.
        **options: Options of the decoder, see `gp.list_decoders()`. Their defaults are those of
            arXiv 2504.17397, except that no layer is wider than the backbone's deepest map.

    Returns:
        The model, all weights trainable until `attach` chooses.

    Raises:
        ValueError: Unknown decoder, option or normalisation, a decoder for another task, too few
            feature maps, bands that differ, chips that the patch size does not divide, numbers that
            are not reflectance where it is needed, or metadata that are not there.
    """
    card = check_decoder(decoder, options, data.task)
    if (tuple(backbone.bands), backbone.frames) != (tuple(data.bands), data.frames):
        raise _other_images(backbone, data)
    if data.size % backbone.patch_size and not pad:
        raise uneven(data.size, backbone.patch_size)
    normalise, mean, std = choose_scaling(backbone, data, normalise)
    used = choose_metadata(backbone, data, metadata)
    if backbone.gsd is not None:
        _compare_pixels(backbone.card.name, backbone.gsd, data.card)
    if card.maps not in (1, len(backbone.strides)):
        choose_maps(card, backbone)
    model = SegmentationModel(
        backbone, decoder, options, mean, std, data.classes, data.task, pad, used, seed
    )
    facts = ("title", "labels", "licence", "citation", "synthetic", "reflectance")
    model.built_for = {key: getattr(data.card, key) for key in facts} | {
        "colours": list(data.colours), "size": data.size,
        "resolution": data.card.resolution if data.card.resolution > 0 else None,  # not NaN
        "regions": list(data.regions), "holdout": list(data.holdout),
        "normalise": normalise, "loss": None, "class_weights": None,
    }  # fmt: skip
    return model


def _other_images(backbone: Backbone, data: GeoData) -> GeopeftError:
    """Make the error for data of other bands or dates than a backbone was loaded for."""
    return GeopeftError(
        f"The backbone was loaded for {backbone.frames} frames of {', '.join(backbone.bands)}, "
        f"and the data have {data.frames} of {', '.join(data.bands)}. Use load_backbone(..., "
        "bands=data.bands, frames=data.frames)."
    )


def _compare_pixels(name: str, stated: float, data: DataCard) -> None:
    """Warn if pixels are of another size in metres than a backbone that takes it was told."""
    actual = data.resolution  # NaN where it is not known
    if actual > 0 and abs(stated - actual) > 0.01 * actual:
        warnings.warn(
            f"{name} was told pixels of {stated:g} m, and those of {data.name} "
            f"are {actual:g} m. Use load_backbone(..., gsd={actual:g}).",
            RuntimeWarning,
            stacklevel=4,  # the line that calls build_model
        )


def uneven(size: int, patch: int) -> GeopeftError:
    """Make the error for chips that patches do not fill, both in pixels."""
    return GeopeftError(
        f"Chips of {size} px are not divisible by the patch of {patch} px. Use "
        f"load_data(..., size={max(size // patch, 1) * patch}), or build_model(..., pad=True) to "
        "repeat the border."
    )


def outline(model: SegmentationModel) -> SegmentationModel:
    """Copy a model without its numbers, to try on it, in no memory, what might not fit."""
    copies: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for weight in model.parameters():
        copies[id(weight)] = nn.Parameter(weight.detach().to("meta"), weight.requires_grad)
    return copy.deepcopy(model, copies)


def moving_state(model: SegmentationModel) -> dict[str, Tensor]:
    """Return what training changes, detached: trainable weights and running batch statistics.

    The state of a model is its pretrained backbone plus this.
    """
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    running = ("running_mean", "running_var", "num_batches_tracked")
    return {
        name: value
        for name, value in model.state_dict().items()
        if name in trainable or name.endswith(running)
    }


def part_of(name: str) -> str:
    """Say which part of the model a parameter belongs to: adapter, decoder, or backbone."""
    if name.startswith("decoder."):
        return "decoder"
    if ".base_model.model." in name:
        from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

        added = any(f".{mark}" in name for mark in PEFT_TYPE_TO_PREFIX_MAPPING.values() if mark)
    else:
        added = _BESIDE.match(name) is not None
    return "adapter" if added else "backbone"
