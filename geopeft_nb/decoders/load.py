"""The catalogue of decoders, and the one function that builds them for a backbone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor, nn

from geopeft_nb.decoders.four_maps import LearnedPyramid, UNetDecoder, UperNetDecoder
from geopeft_nb.decoders.one_map import ClassificationHead, FCNDecoder, LinearDecoder
from geopeft_nb.errors import GeopeftError, check_name, check_names, check_values
from geopeft_nb.pictures.listing import Listing
from geopeft_nb.tasks import TASKS

if TYPE_CHECKING:
    from geopeft_nb.backbones.base import Backbone


#: Options of `build_model` itself, of which a misspelt one arrives here too.
BUILD = ("decoder", "normalise", "pad", "seed", "metadata")


@dataclass(frozen=True)
class DecoderCard:
    """Facts about a decoder.

    Attributes:
        name: What `build_model` takes.
        title: Full name.
        maps: Feature maps that it uses: 1, the deepest; or 4, from fine to coarse.
        target: What it makes an output for: ``"mask"``, each pixel; ``"label"``, each image.
        citation: Paper.
        network: Its class, called with the channels of the maps, the number of outputs if `ends`,
            and the options by name.
        usual: Says for a backbone what the options of `build_model` are by default.
        ends: Whether its network ends in the outputs, and not in a map for a 1×1 convolution.
    """

    name: str
    title: str
    maps: int
    target: str
    citation: str
    network: Callable[..., nn.Module]
    usual: Callable[[Backbone], dict[str, Any]] = lambda backbone: {}
    ends: bool = False


CARDS = {
    card.name: card
    for card in [
        DecoderCard(
            "linear", "One linear map per token", 1, "mask", "arXiv 2504.17397", LinearDecoder,
            lambda backbone: {"kernel": backbone.patch_size}, ends=True,
        ),
        DecoderCard(
            "fcn", "FCN", 1, "mask", "Long et al., arXiv 1411.4038", FCNDecoder,
            lambda backbone: {
                "channels": min(512, backbone.channels[-1]),
                "convs": max(1, math.ceil(math.log2(backbone.strides[-1]))),
            },
        ),
        DecoderCard(
            "unet", "UNet", 4, "mask", "Ronneberger et al., arXiv 1505.04597", UNetDecoder,
            lambda backbone: {
                "channels": tuple(min(w, backbone.channels[-1]) for w in (512, 256, 128, 64))
            },
        ),
        DecoderCard(
            "upernet", "UPerNet", 4, "mask", "Xiao et al., arXiv 1807.10221", UperNetDecoder,
            lambda backbone: {"channels": min(256, backbone.channels[-1])},
        ),
        DecoderCard(
            "classify", "Average and linear layer", 1, "label", "He et al., arXiv 2111.06377",
            ClassificationHead, ends=True,
        ),
    ]
}  # fmt: skip
#: Width, stride and patch of the paper's backbones, whose defaults `list_decoders` shows.
PAPER: Any = SimpleNamespace(channels=(1024,), strides=(16,), patch_size=16)


class MapDecoder(nn.Module):
    """A decoder between a pyramid, if it needs one, and a 1×1 convolution to the outputs.

    Args:
        pyramid: Makes maps of four sizes, or None if the backbone has them.
        body: Joins the maps to one.
        outputs: Classes or targets per pixel, K.
    """

    def __init__(self, pyramid: nn.Module | None, body: Any, outputs: int) -> None:
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
    able = [card.name for card in CARDS.values() if card.target == TASKS[task].target]
    check_name(f"decoder for {task}", name, able)
    check_names(f"option of decoder {name!r}", options, [*CARDS[name].usual(PAPER), *BUILD])
    return CARDS[name]


def choose_maps(card: DecoderCard, backbone: Backbone) -> None:
    """Let a plain transformer return the four maps that a decoder needs, in place.

    The outputs of the blocks at the quarters of its depth, as in arXiv 2504.17397: 2, 5, 8 and 11
    of 12. What the user chose in `load_backbone` is never overruled.

    Raises:
        ValueError: There are no four maps; the message says how to get them.
    """
    blocks = getattr(backbone, "blocks", ())
    quarters = [len(blocks) * (part + 1) // 4 - 1 for part in range(4)]
    if len(blocks) < 4 or backbone.request.layers is not None:
        use = f"load_backbone(..., layers={quarters})" if len(blocks) >= 4 else "decoder='fcn'"
        got = f"{backbone.card.name} gives {len(backbone.strides)}, layers={[*backbone.layers]}"
        raise GeopeftError(f"decoder={card.name!r} needs four feature maps, and {got}. Use {use}.")
    backbone.choose(quarters)


def build_decoder(name: str, backbone: Backbone, outputs: int, **options: Any) -> nn.Module:
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
    card = CARDS[name]
    usual = card.usual(backbone)
    kinds = {int: "int", tuple: "tuple[int, int, int, int]"}
    check_values(options, {option: kinds[type(value)] for option, value in usual.items()})
    chosen = usual | options
    if card.ends:
        return card.network(backbone.channels, outputs, **chosen)
    equal = card.maps > 1 and len(set(backbone.strides)) == 1
    pyramid = LearnedPyramid(backbone.channels[-1]) if equal else None
    body = card.network(pyramid.channels if pyramid else backbone.channels, **chosen)
    return MapDecoder(pyramid, body, outputs)


def list_decoders() -> pd.DataFrame:
    """List the decoders that `build_model` knows, one row each.

    Options are shown as for a backbone of 1,024 features in patches of 16 px: no layer is wider
    than the backbone's deepest map, and a linear decoder paints its patches.
    """
    rows = [
        {
            "name": card.name, "title": card.title, "maps": card.maps,
            "tasks": ", ".join(n for n, task in TASKS.items() if task.target == card.target),
            "options": ", ".join(f"{k}={v}" for k, v in card.usual(PAPER).items()) or "none",
            "citation": card.citation,
        }
        for card in CARDS.values()
    ]  # fmt: skip
    return Listing(pd.DataFrame(rows).set_index("name"))
