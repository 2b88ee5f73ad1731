"""Load a backbone by name, with its published weights, and refuse anything that does not fit."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geopeft_nb.backbones.base import Backbone, Request, choose_layers
from geopeft_nb.backbones.catalog import CARDS, BackboneCard, backbone_card
from geopeft_nb.backbones.vit import split_qkv
from geopeft_nb.bands import band_names, nearest_band
from geopeft_nb.errors import GeopeftError, whole
from geopeft_nb.files import checksum_of, fetch

#: Family of a card -> module and class that build it.
FAMILIES = {
    "prithvi": ("prithvi", "PrithviViT"),
    "clay": ("clay", "ClayViT"),
    "satmae": ("satmae", "SatMAEViT"),
    "galileo": ("galileo", "GalileoViT"),
    "resnet": ("timm_models", "TimmStages"),
    "vit": ("timm_models", "TimmViT"),
    "unet": ("own", "UNet"),
    "own": ("own", "OwnBackbone"),
}


def load_backbone(
    name: str,
    weights: str | os.PathLike[str] | None = "pretrained",
    bands: Sequence[str] | None = None,
    img_size: int | None = None,
    frames: int = 1,
    layers: Sequence[int] | None = None,
    gsd: float = 10.0,
    seed: int = 0,
) -> Backbone:
    """Load a geospatial foundation model.

    Args:
        name: A name that `gp.list_backbones()` lists; or ``"torchgeo:"`` and a weight of torchgeo,
            such as ``"torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO"``; or ``"timm:"`` and a model
            of timm, such as ``"timm:vit_base_patch16_224.augreg_in21k"``.
        weights: ``"pretrained"``; a path of a checkpoint in the same layout; or None for a random
            initialisation.
        bands: Bands of your images, in their order. None takes the model's own. A band that the
            model never saw takes the weights of the band nearest in wavelength, with a warning.
        img_size: Image side in pixels that stored position codes are made for. None keeps that of
            pretraining; images of other sizes then use resized codes.
        frames: Time steps T of your images.
        layers: Blocks whose feature maps are returned, for example ``[1, 3, 5]`` or ``[-1]``.
            None means the last block, or all stages of a network that has stages.
        gsd: Ground sampling distance of your images in metres per pixel, for Clay and Galileo.
        seed: Seed of the random initialisation, for ``weights=None``.

    Returns:
        The backbone, in float32 on the CPU. `backbone.provenance` says where the weights are from.
        Inside ``with torch.device("meta")`` and with ``weights=None`` it takes no memory.

    Raises:
        ValueError: Unknown name, band or layer, or a checkpoint that does not fit or is corrupt.
        FileNotFoundError: The weights file is not there and cannot be downloaded.
    """
    card = find_card(name)
    request = _checked(card, bands, img_size, frames, layers, gsd)
    module, family = FAMILIES[card.family]
    with seeded(seed):
        backbone: Backbone = getattr(
            import_module(f"geopeft_nb.backbones.{module}"), family
        ).from_card(card, request)
    backbone.card, backbone.bands, backbone.frames = card, request.bands, request.frames
    backbone.layers_given = layers is not None
    if weights == "pretrained" and card.weights is None:
        weights = None
    shares = weights is not None and not backbone.any_band
    adapted = _announce_unseen(card, request.bands, shares)
    if weights is not None and torch.get_default_device().type == "meta":
        raise GeopeftError("On the meta device there is nowhere to load to: give weights=None.")
    if weights is None:
        backbone.provenance = {"weights": f"random initialisation, seed {seed}"}
        return backbone
    path = weights_file(card, weights)
    state = {key: value.float() for key, value in read_checkpoint(path).items()}
    try:
        translated = backbone.translate(state)
    except ValueError as error:
        raise GeopeftError(f"{path} does not fit {card.name}: {error}.") from error
    load_exactly(backbone, translated, path)
    backbone.provenance = {
        "weights": str(path), "sha256": checksum_of(path), "licence": card.licence
    }  # fmt: skip
    if notes := [*adapted, *backbone.notes]:
        backbone.provenance["adapted"] = "; ".join(notes)
    return backbone


def find_card(name: str) -> BackboneCard:
    """Return the card of a name, made on the spot for a model of torchgeo or timm."""
    if isinstance(name, str) and name.startswith(("torchgeo:", "timm:")):
        from geopeft_nb.backbones.timm_models import make_card

        return make_card(name)
    return backbone_card(name)


def _checked(
    card: BackboneCard,
    bands: Sequence[str] | None,
    img_size: int | None,
    frames: int,
    layers: Sequence[int] | None,
    gsd: float,
) -> Request:
    chosen = card.bands if bands is None else band_names(bands)
    whole(f"frames of {card.name}", frames, 1, card.max_frames)
    if img_size is not None and whole("img_size", img_size) % card.patch_size:
        raise GeopeftError(
            "img_size must be the side of a square image in pixels, a multiple of the patch of "
            f"{card.patch_size} px, got {img_size!r}."
        )
    if not isinstance(gsd, int | float) or not gsd > 0:
        raise GeopeftError(f"gsd must be metres per pixel above 0, got {gsd!r}.")
    choose_layers(layers, card.depth)  # here, because building a large network takes seconds
    return Request(chosen, img_size or card.img_size, frames, layers, float(gsd))


def _announce_unseen(card: BackboneCard, bands: tuple[str, ...], shares: bool) -> list[str]:
    """Warn of bands that the model never saw; return what provenance says of the bands."""
    if bands == card.bands:
        return []
    notes = [f"input bands {', '.join(bands)}"]
    unseen = {band: nearest_band(band, card.bands) for band in bands if band not in card.bands}
    if unseen:
        takes = "a share of the weights and the statistics" if shares else "the statistics"
        notes += [f"{band} takes {takes} of {source}" for band, source in unseen.items()]
        warnings.warn(
            f"{card.name} never saw {', '.join(unseen)} in pretraining: {'; '.join(notes[1:])}.",
            stacklevel=4,  # the line that asked for the backbone
        )
    return notes


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random weights from `seed` without disturbing the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs as well
        yield


def weights_file(card: BackboneCard, weights: str | os.PathLike[str]) -> Path:
    """Return the path of the published or the given checkpoint of a card."""
    if weights == "pretrained" and card.weights is not None:
        return fetch(card.weights)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={str(weights)!r} is no file. Give 'pretrained', None (random "
            "initialisation) or the path of a checkpoint."
        )
    return path


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint without running any code that it may contain.

    Args:
        path: A .safetensors file, or a PyTorch file, which is read with `weights_only=True`.

    Returns:
        Key -> tensor, in the precision of the file. Of a training checkpoint that is its
        `state_dict` or `model`.

    Raises:
        ValueError: The file is corrupt, or holds something else than tensors.
    """
    # Masked autoencoders store their command line in a Namespace, which holds no code.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                state: Any = load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # every reader has exceptions of its own for a damaged file
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:150]}"
            raise GeopeftError(
                f"{path} cannot be read as a checkpoint ({reason}). It may be truncated, or hold "
                "code or other objects besides tensors. Fetch it again."
            ) from error
    for inner in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(inner), Mapping):
            state = state[inner]
    if not isinstance(state, Mapping):
        raise GeopeftError(f"{path} holds a {type(state).__name__}, not a mapping of tensors.")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise GeopeftError(f"{path} holds no tensors but {', '.join(map(str, list(state)[:5]))}.")
    odd = [
        f"{key} ({value.dtype})"
        for key, value in tensors.items()
        if not value.is_floating_point() and not key.endswith("num_batches_tracked")
    ]
    if odd:
        raise GeopeftError(f"{path} holds weights that are no real numbers: {', '.join(odd[:3])}.")
    if all(key.startswith("module.") for key in tensors):  # of a model trained on several GPUs
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def load_exactly(module: torch.nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict and name every key that is missing, unexpected or mis-shaped.

    Args:
        module: Where to load to; fixed position codes, which are no weights, stay as they are.
        state: Key -> tensor; fused projections of queries, keys and values are split.
        path: Where the state came from, for the message.

    Raises:
        ValueError: Anything does not fit; nothing has been loaded then.
    """
    fixed = getattr(module, "fixed", ())
    own = {key: value for key, value in module.state_dict().items() if key not in fixed}
    state = split_qkv(state, own)
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    problems += [
        f"{key} has values that are not finite"
        for key in state
        if key in own and not bool(state[key].isfinite().all())
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" * (len(problems) > 5))
        raise GeopeftError(f"{path} does not fit {type(module).__name__}: {shown}.")
    module.load_state_dict(state, strict=False)


def list_backbones(full: bool = False) -> pd.DataFrame:
    """List the backbones that `load_backbone` knows, one row each.

    Besides these it takes ``"torchgeo:<Weights>"`` and ``"timm:<model>"``.

    Args:
        full: Also show wavelengths, statistics, inputs, the weights' file, citation and note.
    """
    rows = []
    for card in CARDS.values():
        file = card.weights
        row: dict[str, Any] = {"name": card.name, "title": card.title, "sensor": card.sensor}
        row |= {"bands": ", ".join(card.bands), "patch (px)": card.patch_size}
        row |= {key: getattr(card, key) for key in ("width", "depth", "parameters", "licence")}
        if full:
            row |= {key: getattr(card, key) for key in ("heads", "frames", "citation", "note")}
            row |= {
                "wavelengths (µm)": card.wavelengths, "mean (reflectance)": card.mean,
                "std (reflectance)": card.std, "image (px)": card.img_size,
                "time": card.takes_time, "location": card.takes_location, "gsd": card.takes_gsd,
                "file": (file.url or f"{file.path}, which ships") if file else "none: untrained",
                "size (bytes)": file.size if file else None,
                "sha256": file.sha256 if file else None,
            }  # fmt: skip
        rows.append(row)
    table = pd.DataFrame(rows).set_index("name")
    return table.astype({"size (bytes)": "Int64"}) if full else table
