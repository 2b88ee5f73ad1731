"""One card per foundation model: whatever differs between models is a field, not an `if`."""

from __future__ import annotations

from dataclasses import dataclass

from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.errors import unknown_name
from geopeft_nb.files import FileEntry


@dataclass(frozen=True)
class BackboneCard:
    """Facts about one backbone, as published.

    Attributes:
        name: What `load_backbone` takes.
        title: Full name with version.
        family: Network code that builds it.
        sensor: What it was pretrained on.
        bands: Band names in the order of the checkpoint's input channels.
        mean: Pretraining mean per band, reflectance 0-1.
        std: Pretraining standard deviation per band, reflectance 0-1.
        patch_size: Patch side in pixels.
        img_size: Side in pixels of the images it was pretrained on.
        frames: Time steps it was pretrained on.
        width: Features per token.
        depth: Transformer blocks.
        heads: Attention heads per block.
        decoder: (width, depth, heads) of its masked-autoencoder decoder.
        weights: The checkpoint file.
        licence: SPDX name of the licence of the weights.
        citation: Paper or card to cite.
        takes_time: Whether acquisition dates are an input.
        takes_location: Whether coordinates are an input.
    """

    name: str
    title: str
    family: str
    sensor: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch_size: int
    img_size: int
    frames: int
    width: int
    depth: int
    heads: int
    decoder: tuple[int, int, int]
    weights: FileEntry
    licence: str
    citation: str
    takes_time: bool = False
    takes_location: bool = False


GEOPEFT_TINY = BackboneCard(
    name="geopeft_tiny",
    title="geopeft tiny 1.0 (Prithvi-EO architecture, small)",
    family="prithvi",
    sensor="HLS and Sentinel-2, 10-30 m",
    bands=HLS_BANDS,
    mean=(0.0718, 0.0891, 0.0953, 0.1977, 0.1737, 0.1168),
    std=(0.0432, 0.0361, 0.0510, 0.1123, 0.1180, 0.0921),
    patch_size=8,
    img_size=64,
    frames=1,
    width=192,
    depth=6,
    heads=6,
    decoder=(128, 2, 4),
    weights=FileEntry(
        "models/geopeft_tiny.safetensors",
        size=6_482_064,
        sha256="d96b40d62d767d00c8c7b7ec43955bf27cce2611367d5ff14295557c92af32e8",
        licence="Apache-2.0",
    ),
    licence="Apache-2.0",
    citation="data/models/README.md of this toolkit",
)

CARDS: dict[str, BackboneCard] = {card.name: card for card in [GEOPEFT_TINY]}


def backbone_card(name: str) -> BackboneCard:
    """Return the card of a backbone.

    Raises:
        ValueError: The name is unknown; the message suggests the nearest one.
    """
    if name not in CARDS:
        raise unknown_name("backbone", name, CARDS)
    return CARDS[name]
