"""The Prithvi-EO vision transformer, in one file to read in a sitting.

Written from the tensor layout of the published checkpoints and from Prithvi-EO-2.0
(arXiv 2412.02732): a ViT over patches in space and time, pre-norm blocks, exact GELU, fixed
sin-cos position codes and layer norms with epsilon 1e-5. The TL models also take the time and the
location of an image. The decoder for pretraining is in `data/models`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geopeft_nb.backbones import vit
from geopeft_nb.backbones.base import BackboneRequest, Begun, CardTransformer, More, adapt_kernel
from geopeft_nb.backbones.catalog import BackboneCard


class CoordinateCode(nn.Module):
    """Encode a pair of numbers, half of the features each, times a learned scale.

    Args:
        width: Features per token D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, pairs: Tensor, repeats: int = 1) -> Tensor:
        """Encode (year, day of year) or (latitude, longitude): (B, M, 2) -> (B, M * repeats, D)."""
        # In float32 as in pretraining: for a year that differs visibly from float64.
        codes = [
            vit.sincos_1d(values, self.width // 2, torch.float32) for values in pairs.unbind(-1)
        ]
        code = self.scale * torch.cat(codes, dim=-1).unflatten(0, pairs.shape[:2])
        return code.repeat_interleave(repeats, dim=1)


class PrithviViT(CardTransformer):
    """Prithvi-EO encoder; as a `Backbone` it returns one map per chosen block.

    Position codes are made for the image size and frames of the request; images of other sizes
    use resized ones. The TL models, whose cards say so, also take time and location.
    """

    pos_embed: Tensor
    trained_grid: int
    fixed = ("pos_embed",)

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__(card, request)
        width, patch = self.width, self.patch_size
        self.trained_grid = request.img_size // patch
        self.patch_embed = vit.PatchEmbed(len(self.bands), width, (1, patch, patch))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if card.takes_time:
            self.temporal_embed_enc = CoordinateCode(width)
            self.location_embed_enc = CoordinateCode(width)
        self.make_blocks()
        # Published files store this buffer too.
        self.register_buffer("pos_embed", vit.position_table(width, self.frames, self.trained_grid))
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        vit.initialise(self.blocks)

    def choose(self, layers: Sequence[int] | None) -> None:
        """Choose which blocks' outputs are returned; see `Backbone.choose`."""
        super().choose(layers)
        self.channels = (self.width * self.frames,) * len(self.layers)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the encoder's tensors and choose bands; see `Backbone.translate`.

        What is dropped: the decoder of the masked autoencoder, the position codes, which are
        computed, and in a Prithvi-EO 2.0 without coordinates the scales of a TL checkpoint.
        """
        scales = self.card.extra.get("drops", ())
        dropped = ("decoder", "mask_token", "pos_embed", *scales)
        kept = vit.renamed(state, {r"^(_timm_module\.)?(encoder\.)?": ""}, dropped)
        if scales and any("_embed_enc." in key for key in state):
            self.notes += ("its codes of time and location are left out",)
        first = "patch_embed.proj.weight"
        if first in kept and self.bands != self.card.bands:
            kept[first] = adapt_kernel(kept[first], self.card.bands, self.bands)
        return kept

    def embed(
        self, image: Tensor, temporal: More = None, location: More = None
    ) -> tuple[Tensor, tuple[int, int, int]]:
        """Turn an image series into patch tokens with position, time and location codes.

        Args:
            image: (B, C, T, H, W), normalised; H and W are multiples of the patch.
            temporal: (B, T, 2) year and day of year, or None.
            location: (B, 2) latitude and longitude in degrees, or None.

        Returns:
            Tokens (B, T * h * w, D), without class token, and the grid (T, h, w).
        """
        grid = (image.shape[2], *self.grid(*image.shape[3:]))
        tokens = self.patch_embed(image)
        tokens = tokens + vit.position_codes(self.pos_embed, self.trained_grid, grid)
        if temporal is not None:
            tokens = tokens + self.temporal_embed_enc(temporal, repeats=grid[1] * grid[2])
        if location is not None:
            tokens = tokens + self.location_embed_enc(location[:, None])  # the same everywhere
        return tokens, grid

    def add_class_token(self, tokens: Tensor) -> Tensor:
        """Put the class token in front: (B, N, D) -> (B, 1 + N, D)."""
        cls = self.cls_token + self.pos_embed[:, :1]
        return torch.cat([cls.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def begin(self, image: Tensor, temporal: More = None, location: More = None) -> Begun:
        """Make class token and patch tokens; see `Transformer.begin`. The grid is (T, h, w)."""
        tokens, grid = self.embed(*self.prepare(image, temporal, location))
        # A step of its own: the masked autoencoder takes patches away in between.
        return self.add_class_token(tokens), grid

    def to_map(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Turn tokens into a map (B, T * D, h, w): T frames give T * D features per place."""
        patches = tokens[:, self.prefix : self.prefix + math.prod(grid)]
        # (B, D, T, h, w)
        return patches.mT.unflatten(2, grid).transpose(1, 2).flatten(1, 2)
