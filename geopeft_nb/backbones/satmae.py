"""SatMAE for multispectral images: bands in groups, each with patch tokens of its own.

Written from the paper (Cong et al., arXiv 2207.08051) and the tensor layout of the published
weights: a ViT in which every group of bands has its own patch embedding, a token's code joins the
position of its patch with the number of its group, and layer norms have epsilon 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from geopeft_nb.backbones.base import Request, Transformer, adapt_kernel
from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.backbones.vit import PreNormBlock, resize_grid, sincos_1d
from geopeft_nb.bands import nearest_band

#: Value of an average pixel after SatMAE's scaling, which puts mean - 2 std at 0 and + 2 std at 1.
MEAN_INPUT = 0.5


def group_bands(card: BackboneCard, bands: Sequence[str]) -> list[list[int]]:
    """Put bands into the groups of a card.

    Args:
        card: A card with `extra["groups"]`, indices into its bands.
        bands: Bands of the images; one that the card does not list joins the group of the band
            that is nearest in wavelength.

    Returns:
        For each group the places in `bands` of its members; none for a group without bands.
    """
    known = [card.bands.index(nearest_band(band, card.bands)) for band in bands]
    return [
        [place for place, i in enumerate(known) if i in group] for group in card.extra["groups"]
    ]


class PatchEmbed(nn.Module):
    """Cut the bands of one group into patches and project each to a token."""

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, H/p * W/p, D), row after row."""
        return self.proj(image).flatten(2).transpose(1, 2)


class SatMAEViT(Transformer):
    """SatMAE group-channel encoder; as a `Backbone` it returns one map per chosen block.

    A cell of a map is the mean of its groups' tokens. Groups without bands make no tokens.

    Args:
        groups: For each group the channels of the image that belong to it; may be empty.
        width: Features per token D.
        depth: Number of blocks.
        heads: Attention heads per block.
        patch_size: Patch side p in pixels.
        img_size: Image side in pixels whose grid the position codes are made for; other sizes use
            resized codes.
        group_code: Features of a token's code that say its group, an even number; the others, a
            multiple of 4, say its position.
        layers: Blocks whose output is returned; None means the last one.
    """

    trained_grid: int

    def __init__(
        self,
        groups: Sequence[Sequence[int]] = ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9)),
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch_size: int = 8,
        img_size: int = 96,
        group_code: int = 256,
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.groups = [list(group) for group in groups]
        self.width, self.patch_size, self.frames = width, patch_size, 1
        self.trained_grid = side = img_size // patch_size
        self.patch_embed = nn.ModuleDict(
            {
                str(number): PatchEmbed(len(group), width, patch_size)
                for number, group in enumerate(self.groups)
                if group
            }
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side**2, width - group_code))
        self.channel_embed = nn.Parameter(torch.zeros(1, len(self.groups), group_code))
        self.channel_cls_embed = nn.Parameter(torch.zeros(1, 1, group_code))
        self.blocks = nn.ModuleList(PreNormBlock(width, heads, eps=1e-6) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.choose(layers)
        self._initialise()

    @classmethod
    def from_card(cls, card: BackboneCard, request: Request) -> Self:
        """Build the untrained network of a card; see `Backbone.from_card`."""
        return cls(
            group_bands(card, request.bands), card.width, card.depth, card.heads, card.patch_size,
            request.img_size, card.extra["group_code"], request.layers,
        )  # fmt: skip

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the encoder's tensors and choose bands; see `Backbone.translate`.

        Dropped are the decoder and the mask token of pretraining, and head and pooling norm of
        fine-tuned files. Bands of a group that the images lack are taken to be at their mean
        everywhere, which adds a constant to the bias; embeddings of groups that the images lack
        altogether are dropped. Position codes are resized if another image size was asked for.
        """
        dropped = ("decoder", "mask_token", "head.", "fc_norm.")
        kept = {key: value for key, value in state.items() if not key.startswith(dropped)}
        for number, group in enumerate(self.card.extra["groups"]):
            known = [self.card.bands[index] for index in group]
            wanted = [self.bands[place] for place in self.groups[number]]
            weight, bias = (f"patch_embed.{number}.proj.{part}" for part in ("weight", "bias"))
            if not wanted:
                kept = {key: value for key, value in kept.items() if key not in (weight, bias)}
            elif weight in kept:
                kernel = kept[weight]
                used = {nearest_band(band, known) for band in wanted}
                absent = [channel for channel, band in enumerate(known) if band not in used]
                kept[weight] = adapt_kernel(kernel, known, wanted)
                if bias in kept and kept[bias].shape == kernel.shape[:1]:
                    constant = MEAN_INPUT * kernel[:, absent].flatten(1).sum(dim=1)
                    kept[bias] = kept[bias] + constant
        side = self.card.img_size // self.card.patch_size
        codes = kept.get("pos_embed")
        if codes is not None and codes.shape[:2] == (1, 1 + side**2):
            grid = self._resized(codes[:, 1:], side, self.trained_grid, self.trained_grid)
            kept["pos_embed"] = torch.cat([codes[:, :1], grid], dim=1)
        return kept

    def _initialise(self) -> None:
        """Start the codes at fixed sine and cosine ones: rows, columns, group numbers."""
        nn.init.normal_(self.cls_token, std=0.02)
        side, half = self.trained_grid, self.pos_embed.shape[2] // 2
        axis = sincos_1d(torch.arange(side), half)
        rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
        numbers = torch.arange(len(self.groups))
        with torch.no_grad():
            self.pos_embed[0, 1:] = torch.cat([rows, columns], dim=2).flatten(0, 1)
            self.channel_embed[0] = sincos_1d(numbers, self.channel_embed.shape[2])
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all have one

    @staticmethod
    def _resized(codes: Tensor, side: int, height: int, columns: int) -> Tensor:
        """Resize (1, side², F) codes to (1, height * columns, F): bicubic, corners aligned."""
        return resize_grid(codes.unflatten(1, (side, side)), height, columns).flatten(1, 2)

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images into tokens with their codes.

        Args:
            image: (B, C, H, W), normalised; H and W are multiples of the patch.

        Returns:
            Tokens (B, 1 + G * h * w, D) of the class and of the G groups that have bands, one
            group after the other, and the grid (h, w).
        """
        grid = (image.shape[2] // self.patch_size, image.shape[3] // self.patch_size)
        position = self._resized(self.pos_embed[:, 1:], self.trained_grid, *grid)
        cls = self.cls_token + torch.cat([self.pos_embed[:, :1], self.channel_cls_embed], dim=2)
        tokens = [cls.expand(image.shape[0], -1, -1)]
        for number, embed in self.patch_embed.items():
            group = self.channel_embed[:, int(number), None].expand(-1, position.shape[1], -1)
            code = torch.cat([position, group], dim=2)
            tokens.append(embed(image[:, self.groups[int(number)]]) + code)
        return torch.cat(tokens, dim=1), grid

    def begin(
        self, image: Tensor, temporal: Tensor | None = None, location: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Make class token and patch tokens; see `Transformer.begin`. The grid is (G, h, w)."""
        image, _, _ = self.prepare(image, temporal, location)  # it takes neither time nor location
        tokens, grid = self.embed(image[:, :, 0])
        return tokens, (len(self.patch_embed), *grid)
