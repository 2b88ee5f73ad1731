"""SatMAE for multispectral images: bands in groups, each with patch tokens of its own.

Written from the paper (Cong et al., arXiv 2207.08051) and the tensor layout of the published
weights: a ViT in which every group of bands has its own patch embedding, a token's code joins the
position of its patch with the number of its group, and layer norms have epsilon 1e-6.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geopeft_nb.backbones.base import BackboneRequest, Begun, CardTransformer, More, adapt_group
from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.backbones.vit import PatchEmbed, initialise, join_axes, resize_grid, sincos_1d
from geopeft_nb.bands import nearest_band


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


class SatMAEViT(CardTransformer):
    """SatMAE group-channel encoder; as a `Backbone` it returns one map per chosen block.

    A cell of a map is the mean of its groups' tokens. Groups without bands make no tokens. Of a
    token's code ``card.extra["group_code"]`` features say its group, the others its position, for
    the image size of pretraining; other sizes use resized codes.
    """

    trained_grid: int
    eps = 1e-6

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__(card, request)
        width, patch, group_code = self.width, self.patch_size, card.extra["group_code"]
        self.groups = group_bands(card, self.bands)
        self.trained_grid = side = card.img_size // patch
        groups, kernel = enumerate(self.groups), (patch, patch)
        layers = {str(i): PatchEmbed(len(group), width, kernel) for i, group in groups if group}
        self.patch_embed = nn.ModuleDict(layers)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side**2, width - group_code))
        self.channel_embed = nn.Parameter(torch.zeros(1, len(self.groups), group_code))
        self.channel_cls_embed = nn.Parameter(torch.zeros(1, 1, group_code))
        self.make_blocks()
        nn.init.normal_(self.cls_token, std=0.02)
        axis = sincos_1d(torch.arange(side), self.pos_embed.shape[2] // 2)
        with torch.no_grad():  # codes start at fixed ones: rows, then columns; group numbers
            self.pos_embed[0, 1:] = join_axes(axis, axis).transpose(0, 1).flatten(0, 1)
            self.channel_embed[0] = sincos_1d(torch.arange(len(self.groups)), group_code)
        initialise(self)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the encoder's tensors and choose bands; see `Backbone.translate`.

        Dropped are the decoder and the mask token of pretraining, and head and pooling norm of
        fine-tuned files. Bands of a group that the images lack are taken to be at their mean
        everywhere, which adds a constant to the bias; embeddings of groups that the images lack
        altogether are dropped.
        """
        absent = [f"patch_embed.{i}." for i, places in enumerate(self.groups) if not places]
        dropped = ("decoder", "mask_token", "head.", "fc_norm.", *absent)
        kept = {key: value for key, value in state.items() if not key.startswith(dropped)}
        for number, group in enumerate(self.card.extra["groups"]):
            known = [self.card.bands[index] for index in group]
            wanted = [self.bands[place] for place in self.groups[number]]
            adapt_group(kept, f"patch_embed.{number}.proj", known, wanted)
        return kept

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images into tokens with their codes.

        Args:
            image: (B, C, H, W), normalised; H and W are multiples of the patch.

        Returns:
            Tokens (B, 1 + G * h * w, D) of the class and of the G groups that have bands, one
            group after the other, and the grid (h, w).
        """
        grid = (image.shape[2] // self.patch_size, image.shape[3] // self.patch_size)
        codes = self.pos_embed[:, 1:].unflatten(1, (self.trained_grid, self.trained_grid))
        if grid != codes.shape[1:3]:
            codes = resize_grid(codes, *grid)
        position = codes.flatten(1, 2)
        cls = self.cls_token + torch.cat([self.pos_embed[:, :1], self.channel_cls_embed], dim=2)
        tokens = [cls.expand(image.shape[0], -1, -1)]
        for number, embed in self.patch_embed.items():
            group = self.channel_embed[:, int(number), None].expand(-1, position.shape[1], -1)
            code = torch.cat([position, group], dim=2)
            tokens.append(embed(image[:, self.groups[int(number)]]) + code)
        return torch.cat(tokens, dim=1), grid

    def begin(self, image: Tensor, temporal: More = None, location: More = None) -> Begun:
        """Make class token and patch tokens; see `Transformer.begin`. The grid is (G, h, w)."""
        image, _, _ = self.prepare(image, temporal, location)  # it takes neither time nor location
        tokens, grid = self.embed(image[:, :, 0])
        return tokens, (len(self.patch_embed), *grid)
