"""Load a backbone by name, with its published weights, and refuse anything that does not fit."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from zipfile import ZipFile

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from geopeft_nb.backbones.base import Backbone, BackboneRequest
from geopeft_nb.backbones.catalog import CARDS, BackboneCard
from geopeft_nb.backbones.vit import split_qkv
from geopeft_nb.bands import WAVELENGTHS, band_names, nearest_band
from geopeft_nb.errors import GeopeftError, check_arguments, check_name, did_you_mean
from geopeft_nb.files import FileEntry, checksum_of, fetch, named_path
from geopeft_nb.pictures.listing import Listing

#: Family of a card -> module and class that build it; imported when asked for.
FAMILIES = {
    "prithvi": "prithvi:PrithviViT",
    "clay": "clay:ClayViT",
    "satmae": "band_groups:SatMAEViT",
    "galileo": "band_groups:GalileoViT",
    "resnet": "networks:TimmStages",
    "vit": "networks:TimmViT",
    "unet": "networks:UNet",
    "own": "networks:OwnBackbone",
}
#: Columns of the short list of backbones.
SHOWN = ("title", "sensor", "bands", "patch (px)", "width", "depth", "parameters", "licence")


@check_arguments
def load_backbone(
    name: str, weights: str | os.PathLike[str] | None = "pretrained",
    bands: Sequence[str] | None = None, img_size: int | None = None, frames: int = 1,
    layers: Sequence[int] | None = None, gsd: float = 10.0, seed: int = 0,
    wavelengths: Mapping[str, float] | None = None,
) -> Backbone:  # fmt: skip
    """Load a geospatial foundation model.

    Args:
        name: A name that `gp.list_backbones()` lists; or ``"torchgeo:"`` and a weight of torchgeo
            for all bands of Sentinel-2, such as
            ``"torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO"``; or ``"timm:"`` and a model of timm,
            such as ``"timm:vit_base_patch16_224.augreg_in21k"``.
        weights: ``"pretrained"``; a path of a checkpoint in the same layout; or None for a random
            initialisation.
        bands: Bands of your images, in their order. None takes the model's own. A band that the
            model never saw takes the weights of the band nearest in wavelength, with a warning.
            What has no wavelength, such as NDVI, heights or radar, gets fresh weights in ``"unet"``
            and the networks of timm and torchgeo; the other models refuse it.
        img_size: Image side in pixels that Prithvi's position codes are computed for; the other
            models take none. None keeps that of pretraining; images of other sizes use resized
            codes.
        frames: Time steps T of your images.
        layers: Blocks whose feature maps are returned, for example ``[1, 3, 5]`` or ``[-1]``.
            None means the last block, or all stages of a network that has stages.
        gsd: Ground sampling distance of your images in metres per pixel, for Clay and Galileo.
        seed: Seed of the random initialisation, for ``weights=None``.
        wavelengths: For Clay: band -> central wavelength in micrometres, of those without one here.

    Returns:
        The backbone, in float32 on the CPU. `backbone.provenance` says where the weights are from.
        Inside ``with torch.device("meta")`` and with ``weights=None`` it takes no memory.

    Raises:
        ValueError: Unknown name, band or layer, or a checkpoint that does not fit or is corrupt.
        FileNotFoundError: The weights file is not there and cannot be downloaded.
    """
    card = find_card(name)
    chosen = card.bands if bands is None else band_names(bands)
    side = card.img_size if img_size is None else img_size
    waves = wavelengths or {}
    waves = dict(zip(band_names([*waves]), waves.values(), strict=True)) if waves else {}
    request = BackboneRequest(chosen, side, frames, layers, gsd, waves)
    build = resolve_name(f"geopeft_nb.backbones.{FAMILIES[card.family]}")
    if request != BackboneRequest(card.bands, card.img_size, layers=layers, gsd=gsd):
        check_request(card, request, build)
    with seeded(seed):
        backbone: Backbone = build(card, request)
    if weights == "pretrained" and card.weights is None:
        weights = None
    if chosen != card.bands:
        announce_bands(backbone, shares=weights is not None and not backbone.any_band)
    backbone.provenance = {"weights": f"random initialisation, seed {seed}"}
    if weights is not None:
        load_weights(backbone, weights)
    return backbone


def find_card(name: str) -> BackboneCard:
    """Return the card of a name, made on the spot for a model of torchgeo or timm.

    Raises:
        ValueError: The name is unknown; the message suggests the nearest one.
    """
    if str(name).startswith(("torchgeo:", "timm:")):
        from geopeft_nb.backbones.networks import make_card

        return make_card(name)
    check_name("backbone", name, [*CARDS, "torchgeo:<Weights>", "timm:<model>"])
    return CARDS[name]


def check_request(card: BackboneCard, asked: BackboneRequest, build: type[Backbone]) -> None:
    """Refuse frames, sizes, bands or wavelengths, beyond those of the card, that a model lacks."""
    if asked.frames > card.max_frames:
        most = f"{card.name} takes {card.max_frames} date(s) at most, got frames={asked.frames}."
        able = ", ".join(name for name, one in CARDS.items() if one.max_frames > 1)
        raise GeopeftError(f"{most} Several go into {able}.")
    if asked.img_size != card.img_size and (asked.img_size % card.patch_size or not build.fixed):
        raise GeopeftError(
            f"{card.name} takes images of any size: leave img_size out. Only Prithvi's codes are "
            f"computed, for a multiple of the patch of {card.patch_size} px; got {asked.img_size}."
        )
    others = [band for band in asked.bands if band not in WAVELENGTHS | dict(asked.wavelengths)]
    if asked.wavelengths and not build.any_band:
        raise GeopeftError(f"{card.name} takes no wavelengths: leave them out. Clay takes them.")
    if others and not build.any_name:
        more = f", give wavelengths={{{others[0]!r}: …}} in micrometres" * build.any_band
        raise GeopeftError(
            f"{card.name} knows bands by their wavelength, and {', '.join(others)} has none here."
            f"{did_you_mean(others[0], WAVELENGTHS)} Leave it out by bands=[...]{more}, or load "
            "'unet' or a 'timm:<model>', which learn any band."
        )


def announce_bands(backbone: Backbone, shares: bool) -> None:
    """Note the bands, and warn of those that the model never saw, and whose weights they share."""
    card, bands = backbone.card, backbone.bands
    takes = "a share of the weights and the statistics" if shares else "the statistics"
    unseen = [band for band in bands if band not in card.bands]
    told = [
        f"{band} begins with fresh weights"
        if band in backbone.others
        else f"{band} takes {takes} of {nearest_band(band, card.bands, backbone.wavelengths)}"
        for band in unseen
    ]
    backbone.notes += (f"input bands {', '.join(bands)}", *told)
    if unseen:
        warnings.warn(
            f"{card.name} never saw {', '.join(unseen)} in pretraining: {'; '.join(told)}.",
            stacklevel=4,  # the line that asked for the backbone
        )


def load_weights(backbone: Backbone, weights: str | os.PathLike[str]) -> None:
    """Load a checkpoint into a backbone and note where it is from; see `load_backbone`."""
    if torch.get_default_device().type == "meta":
        raise GeopeftError("On the meta device there is nowhere to load to: give weights=None.")
    path, published = weights_file(backbone.card, weights), backbone.card.weights
    load_exactly(backbone, backbone.translate(read_checkpoint(path)), path)
    known = published.sha256 or "" if weights == "pretrained" and published else ""
    # A whole checksum has been compared by `fetch`; of some files only the first digits are known.
    digest = known if len(known) == 64 else checksum_of(path)
    backbone.provenance = {"weights": str(path), "sha256": digest, "licence": backbone.card.licence}
    if backbone.notes:
        backbone.provenance["adapted"] = "; ".join(backbone.notes)


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
    path = named_path(weights, "weights")
    if not path.is_file():
        raise FileNotFoundError(f"weights={str(weights)!r} is no file, nor 'pretrained' or None.")
    return path


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint without running any code that it may contain.

    Args:
        path: A .safetensors file, or a PyTorch file, which is read with `weights_only=True`.

    Returns:
        Key -> tensor, in the type and, as far as possible, in the memory of the file: nothing is
        copied before somebody has looked at shapes. Of a training checkpoint that is its
        `state_dict` or `model`.

    Raises:
        ValueError: The file is corrupt, holds no tensors, or names more numbers than it holds.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else unpickled(path)
    except Exception as error:  # every reader has exceptions of its own for a damaged file
        raise GeopeftError(
            f"{path} cannot be read as a checkpoint ({error!r:.150}). Fetch it again."
        ) from error
    return content if path.suffix == ".safetensors" else _named_tensors(content, path)


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors by name in what a PyTorch file, which may hold anything, was read as."""
    for inner in ("state_dict", "model"):  # of a training checkpoint
        if isinstance(content, Mapping) and isinstance(content.get(inner), Mapping):
            content = content[inner]
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {k: v for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise GeopeftError(f"{path} holds no tensors by name.")
    dense = all(
        t.layout is torch.strided and t.is_cpu and not t.is_quantized for t in tensors.values()
    )
    # A few bytes can name a view of gigabytes; weights that share their numbers are named twice.
    if not dense or sum(t.nbytes for t in tensors.values()) > 2 * path.stat().st_size:
        raise GeopeftError(f"{path} names tensors that it does not hold. Fetch it again.")
    return tensors


def unpickled(path: Path) -> Any:
    """Read a PyTorch file without running any code, or unpacking more than its own size.

    Raises:
        ValueError: It is a compressed archive, which PyTorch never writes; or what torch raises.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\3\4"  # as torch asks, which before 1.6 wrote no archives
    if zipped and any(member.compress_type for member in ZipFile(path).infolist()):
        raise ValueError("a compressed archive")
    # Masked autoencoders store their command line in a Namespace, which holds no code.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def load_exactly(module: torch.nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict of which every key, shape and number fits.

    Args:
        module: Where to load to; fixed position codes, which are no weights, stay as they are.
        state: Key -> tensor; fused projections of queries, keys and values are split.
        path: Where the state came from, for the message.

    Raises:
        ValueError: Anything is missing, unexpected, of another shape or not finite.
    """
    own = module.state_dict()
    state = split_qkv(state, own) | {key: own[key] for key in getattr(module, "fixed", ())}
    check_numbers(state, own, path)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:  # names all keys and shapes that differ, one kind a line
        shown = "; ".join(line.strip()[:300] for line in str(error).splitlines()[1:6])
        raise GeopeftError(f"{path} does not fit {type(module).__name__}: {shown}") from error


def check_numbers(found: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Refuse numbers that are not finite, or of another kind, in tensors of the right shape.

    Args:
        found: Key -> tensor, as `read_checkpoint` gives them; those of another shape, which may be
            of any size, are not looked at.
        own: Key -> tensor in whose place they come, with any device.
        path: Where they came from, for the message.

    Raises:
        ValueError: There are such numbers, also once they are of the type of their place.
    """
    for key in own.keys() & found.keys():
        value, place = found[key], own[key]
        same = value.is_floating_point() == place.is_floating_point() and not value.is_complex()
        if value.shape == place.shape and not (same and value.to(place.dtype).isfinite().all()):
            raise GeopeftError(f"{path} holds {key} with values that are no finite real numbers.")


def list_backbones(full: bool = False) -> pd.DataFrame:
    """List the backbones that `load_backbone` knows, one row each.

    Besides these it takes ``"torchgeo:<Weights>"`` and ``"timm:<model>"``.

    Args:
        full: Also show wavelengths (micrometres), statistics (reflectance), all other facts of the
            cards, see `BackboneCard`, and of the weights' files, see `FileEntry`.
    """
    rows = [
        vars(card) | vars(card.weights or FileEntry("none: untrained")) | {
            "bands": ", ".join(card.bands), "licence": card.licence, "patch (px)": card.patch_size,
            "wavelengths (µm)": tuple(WAVELENGTHS[band] for band in card.bands),
        }
        for card in CARDS.values()
    ]  # fmt: skip
    table = pd.DataFrame(rows).set_index("name").drop(columns=["weights", "extra"])
    return Listing(table.astype({"size": "Int64"}) if full else table[list(SHOWN)])
