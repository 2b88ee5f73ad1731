"""Load a backbone by name, with its published weights, and refuse anything that does not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from geopeft_nb.backbones.base import Backbone
from geopeft_nb.backbones.catalog import CARDS, BackboneCard, backbone_card
from geopeft_nb.backbones.prithvi import PrithviViT
from geopeft_nb.bands import band_indices, band_name
from geopeft_nb.files import fetch, sha256_of


def load_backbone(
    name: str,
    weights: str | os.PathLike[str] | None = "pretrained",
    bands: Sequence[str] | None = None,
    img_size: int | None = None,
    frames: int = 1,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Backbone:
    """Load a geospatial foundation model.

    Args:
        name: A name that `gp.backbones()` lists.
        weights: ``"pretrained"``; a path of a checkpoint in the same layout; or None for a random
            initialisation.
        bands: Bands of your images, in their order; a subset of the model's. None takes all.
        img_size: Image side in pixels that the position codes are made for. None keeps that of
            pretraining; images of other sizes then use resized codes.
        frames: Time steps T of your images.
        layers: Blocks whose feature maps are returned, for example ``[1, 3, 5]`` or ``[-1]``;
            None means the last.
        seed: Seed of the random initialisation, for ``weights=None``.

    Returns:
        The backbone, in float32 on the CPU. `backbone.provenance` says where the weights are from.

    Raises:
        ValueError: Unknown name, band or layer, or a checkpoint that does not fit or is corrupt.
        FileNotFoundError: The weights file is not there.
    """
    card = backbone_card(name)
    if isinstance(bands, str):
        raise ValueError(f"bands must be a list of names, for example [{bands!r}].")
    if not isinstance(frames, int) or frames < 1:
        raise ValueError(f"frames must be a whole number above 0, got {frames!r}.")
    if img_size is not None and (img_size < card.patch_size or img_size % card.patch_size):
        raise ValueError(
            f"img_size must be a multiple of the patch of {card.patch_size} px, got {img_size!r}."
        )
    chosen = tuple(band_name(band) for band in bands) if bands is not None else card.bands
    indices = band_indices(chosen, card.bands)
    with seeded(seed):
        backbone = PrithviViT(
            len(chosen), card.width, card.depth, card.heads, card.patch_size,
            img_size or card.img_size, frames, layers,
        )  # fmt: skip
    backbone.card, backbone.bands = card, chosen
    if weights is None:
        backbone.provenance = {"weights": f"random initialisation, seed {seed}"}
        return backbone
    path = _weights_file(card, weights)
    state = _encoder_part(read_checkpoint(path))
    if (kernel := state.get("patch_embed.proj.weight")) is not None:
        if kernel.shape[1] == len(card.bands):
            state["patch_embed.proj.weight"] = kernel[:, indices]
    load_exactly(backbone, state, path)
    backbone.provenance = {"weights": str(path), "sha256": sha256_of(path)}
    if chosen != card.bands:
        backbone.provenance["adapted"] = f"input bands {', '.join(chosen)} of {len(card.bands)}"
    return backbone


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random weights from `seed` without disturbing the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs as well
        yield


def _weights_file(card: BackboneCard, weights: str | os.PathLike[str]) -> Path:
    if weights == "pretrained":
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
        Key -> tensor, in the precision of the file.

    Raises:
        ValueError: The file is corrupt, or holds something else than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every reader has exceptions of its own for a damaged file
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}). It may be "
            "truncated, or hold code instead of tensors. Fetch it again."
        ) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a mapping of tensors.")
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _encoder_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the encoder's tensors, without prefix; position codes are recomputed, not loaded."""
    kept = {}
    for key, value in state.items():
        key = key.removeprefix("_timm_module.").removeprefix("encoder.")
        if not key.startswith(("decoder", "mask_token")) and key != "pos_embed":
            kept[key] = value.float()
    return kept


def load_exactly(module: torch.nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict and name every key that is missing, unexpected or mis-shaped.

    Args:
        module: Where to load to; its fixed position codes are left as they are.
        state: Key -> tensor.
        path: Where the state came from, for the message.

    Raises:
        ValueError: Anything does not fit; nothing has been loaded then.
    """
    own = {key: value for key, value in module.state_dict().items() if key != "pos_embed"}
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
        raise ValueError(f"{path} does not fit {type(module).__name__}: {shown}.")
    module.load_state_dict(dict(state), strict=False)


def backbones() -> pd.DataFrame:
    """List the backbones that `load_backbone` knows, one row each."""
    rows = [
        {
            "name": card.name,
            "title": card.title,
            "sensor": card.sensor,
            "bands": len(card.bands),
            "patch (px)": card.patch_size,
            "frames": card.frames,
            "width": card.width,
            "depth": card.depth,
            "heads": card.heads,
            "time": card.takes_time,
            "location": card.takes_location,
            "licence": card.licence,
            "citation": card.citation,
        }
        for card in CARDS.values()
    ]
    return pd.DataFrame(rows).set_index("name")
