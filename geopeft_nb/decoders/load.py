"""The catalogue of decoders, and the one function that builds them for a backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor, nn

from geopeft_nb.decoders.classify import ClassificationHead
from geopeft_nb.decoders.fcn import FCNDecoder
from geopeft_nb.decoders.linear import LinearDecoder
from geopeft_nb.decoders.pyramid import LearnedPyramid
from geopeft_nb.decoders.unet import UNetDecoder
from geopeft_nb.decoders.upernet import UperNetDecoder
from geopeft_nb.errors import GeopeftError, check_name, whole
from geopeft_nb.tasks import TASKS

if TYPE_CHECKING:
    from geopeft_nb.backbones.base import Backbone

PER_PIXEL = tuple(name for name, task in TASKS.items() if task.target == "mask")
PER_IMAGE = tuple(name for name, task in TASKS.items() if task.target == "label")


@dataclass(frozen=True)
class DecoderCard:
    """Facts about a decoder.

    Attributes:
        name: What `build_model` takes.
        title: Full name.
        maps: Feature maps that it uses: 1, the deepest; or 4, from fine to coarse.
        tasks: What it can be trained for.
        options: Options of `build_model` -> default, in words.
        citation: Paper.
    """

    name: str
    title: str
    maps: int
    tasks: tuple[str, ...]
    options: dict[str, str]
    citation: str


CARDS = {
    card.name: card
    for card in [
        DecoderCard(
            "linear", "One linear map per token", 1, PER_PIXEL,
            {"kernel": "the patch side in pixels"}, "arXiv 2504.17397",
        ),
        DecoderCard(
            "fcn", "FCN", 1, PER_PIXEL,
            {"channels": "512 or the backbone's width", "convs": "log2 of the stride"},
            "Long et al., arXiv 1411.4038",
        ),
        DecoderCard(
            "unet", "UNet", 4, PER_PIXEL,
            {"channels": "(512, 256, 128, 64), none above the backbone's width"},
            "Ronneberger et al., arXiv 1505.04597",
        ),
        DecoderCard(
            "upernet", "UPerNet", 4, PER_PIXEL,
            {"channels": "256 or the backbone's width"}, "Xiao et al., arXiv 1807.10221",
        ),
        DecoderCard(
            "classify", "Average and linear layer", 1, PER_IMAGE, {}, "He et al., arXiv 2111.06377"
        ),
    ]
}  # fmt: skip


class MapDecoder(nn.Module):
    """A decoder between a pyramid, if it needs one, and a 1×1 convolution to the outputs.

    Args:
        pyramid: Makes maps of four sizes, or None if the backbone has them.
        body: Joins the maps to one.
        outputs: Classes or targets per pixel, K.
    """

    def __init__(self, pyramid: nn.Module | None, body: Any, outputs: int) -> None:  # noqa: ANN401
        super().__init__()
        self.pyramid, self.body, self.covers = pyramid, body, body.covers
        self.head = nn.Conv2d(body.out_channels, outputs, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map a list of (B, D_i, h_i, w_i), fine to coarse, to (B, K, h, w)."""
        return self.head(self.body(self.pyramid(features) if self.pyramid else features))


def check_decoder(name: str, options: dict[str, object], task: str) -> DecoderCard:
    """Return the card of a decoder that is known, takes the options and does the task.

    Raises:
        ValueError: It does not; the message says what would work.
    """
    check_name("decoder", name, CARDS)
    card = CARDS[name]
    if task not in card.tasks:
        able = ", ".join(repr(card.name) for card in CARDS.values() if task in card.tasks)
        raise GeopeftError(f"decoder={name!r} is not for {task}. For these data, take {able}.")
    if unknown := set(options) - set(card.options):
        known = ", ".join(f"{option} ({default})" for option, default in card.options.items())
        raise GeopeftError(
            f"decoder={name!r} does not take {', '.join(sorted(unknown))}. Options: "
            f"{known or 'none'}."
        )
    return card


def choose_maps(card: DecoderCard, backbone: Backbone) -> None:
    """Let a plain transformer return four maps where a decoder needs them, in place.

    The outputs of the blocks at the quarters of its depth, as in arXiv 2504.17397: 2, 5, 8 and 11
    of 12. What the user chose in `load_backbone` is never overruled.

    Raises:
        ValueError: There are no four maps; the message says how to get them.
    """
    if card.maps == 1 or len(backbone.strides) == card.maps:
        return
    blocks = getattr(backbone, "blocks", ())
    quarters = [len(blocks) * (part + 1) // 4 - 1 for part in range(4)]
    start = f"decoder={card.name!r} needs four feature maps, and {backbone.card.name} "
    if len(blocks) < 4:
        raise GeopeftError(
            f"{start}gives {len(backbone.strides)}. Take decoder='linear' or 'fcn', or a network "
            "that is loaded with four stages or has four blocks or more."
        )
    if backbone.layers_given:
        raise GeopeftError(
            f"{start}was loaded with layers={list(backbone.layers)}. Use load_backbone(..., "
            f"layers={quarters}), or leave layers out."
        )
    backbone.choose(quarters)


def build_decoder(name: str, backbone: Backbone, outputs: int, **options: Any) -> nn.Module:  # noqa: ANN401
    """Build a decoder with random weights for the maps that a backbone returns now.

    Args:
        name: A name that `gp.list_decoders()` lists.
        backbone: Gives strides and channels of the maps. Maps of one size get a `LearnedPyramid`
            where maps of four sizes are needed.
        outputs: Classes, labels or targets K.
        **options: See `gp.list_decoders()`.

    Raises:
        ValueError: An option has a value that cannot work.
    """
    channels, strides = backbone.channels, backbone.strides
    if name == "classify":
        return ClassificationHead(channels, outputs)
    if name == "linear":
        kernel = options.get("kernel", backbone.patch_size)
        return LinearDecoder(channels, outputs, whole("kernel", kernel))
    if name == "fcn":
        width = whole("channels", options.get("channels", min(512, channels[-1])))
        convs = whole("convs", options.get("convs", max(1, math.ceil(math.log2(strides[-1])))))
        return MapDecoder(None, FCNDecoder(channels, width, convs), outputs)
    pyramid = LearnedPyramid(channels[-1]) if len(set(strides)) == 1 else None
    maps: Sequence[int] = pyramid.channels if pyramid else channels
    if name == "upernet":
        width = whole("channels", options.get("channels", min(256, channels[-1])))
        return MapDecoder(pyramid, UperNetDecoder(maps, width), outputs)
    widths = options.get("channels", [min(width, channels[-1]) for width in (512, 256, 128, 64)])
    if not isinstance(widths, Sequence) or len(widths) != len(maps):
        raise GeopeftError(
            f"channels of the UNet must be {len(maps)} numbers, coarse to fine, for example "
            f"(512, 256, 128, 64); got {widths!r}."
        )
    body = UNetDecoder(maps, [whole("channels", width) for width in widths])
    return MapDecoder(pyramid, body, outputs)


def list_decoders() -> pd.DataFrame:
    """List the decoders that `build_model` knows, one row each."""
    rows = [
        {
            **vars(card),
            "tasks": ", ".join(card.tasks),
            "options": "; ".join(f"{key} = {text}" for key, text in card.options.items()) or "none",
        }
        for card in CARDS.values()
    ]
    return pd.DataFrame(rows).set_index("name")
