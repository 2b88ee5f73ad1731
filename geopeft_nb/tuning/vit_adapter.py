"""ViT-Adapter (Chen et al., arXiv 2205.08534): a convolutional branch beside a frozen transformer.

A plain ViT sees an image at one coarse scale. ViT-Adapter puts a small convolutional network beside
it, the spatial prior module, whose maps have 4, 8, 16 and 32 pixels per cell. Before each quarter
of the blocks an injector adds details of these maps to the tokens; after it an extractor brings the
maps up to date from the tokens. Both are cross-attention, made affordable by deformable attention
(Zhu et al., arXiv 2010.04159): a query looks at a few points that it chooses, not at every cell.
Others compile that operation for one kind of GPU; here it is `grid_sample`, which runs everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.base import Backbone, More, Transformer
from geopeft_nb.backbones.vit import pad_to_patches, widened
from geopeft_nb.errors import GeopeftError
from geopeft_nb.tuning.target_modules import block_names

STRIDES = (4, 8, 16, 32)
INTERACTIONS = 4
#: Points per head and map at which deformable attention looks.
POINTS = 4

#: Rows and columns of a map.
Size = tuple[int, int]


class DeformableAttention(nn.Module):
    """Let each query read a few points of feature maps, which it chooses relative to its place.

    Args:
        width: Features D of queries and maps.
        heads: Attention heads; each chooses points of its own.
        levels: Number of maps.
    """

    def __init__(self, width: int, heads: int, levels: int) -> None:
        super().__init__()
        self.heads, self.levels = heads, levels
        self.sampling_offsets = nn.Linear(width, heads * levels * POINTS * 2)
        self.attention_weights = nn.Linear(width, heads * levels * POINTS)
        self.value_proj = nn.Linear(width, width // 2)
        self.output_proj = nn.Linear(width // 2, width)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # At first each head looks into a direction of its own, its points 1, 2, … cells away.
        angle = torch.arange(heads) * (2 * math.pi / heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=1)  # (heads, 2)
        direction = direction / direction.abs().amax(dim=1, keepdim=True)
        steps = torch.arange(1, POINTS + 1)[:, None] * direction[:, None, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(steps.expand(-1, levels, -1, -1).flatten())

    def forward(
        self, query: Tensor, places: Tensor, features: Tensor, sizes: Sequence[Size]
    ) -> Tensor:
        """Attend to maps.

        Args:
            query: (B, Q, D).
            places: (Q, 2) x and y of each query as shares of the maps' width and height.
            features: (B, sum of h * w, D), the cells of one map after the other, row after row.
            sizes: Rows and columns (h, w) of each map.

        Returns:
            (B, Q, D).
        """
        offsets = self.sampling_offsets(query).unflatten(2, (self.heads, self.levels, -1, 2))
        weights = self.attention_weights(query).unflatten(2, (self.heads, -1)).softmax(dim=-1)
        weights = weights.unflatten(3, (self.levels, -1))  # (B, Q, heads, levels, points)
        values = self.value_proj(features).unflatten(2, (self.heads, -1))
        mixed = torch.zeros((), device=query.device)
        for level, value in enumerate(values.split([h * w for h, w in sizes], dim=1)):
            height, width = sizes[level]
            # In float32 throughout: bfloat16 cannot tell neighbouring pixels of a wide map apart.
            cells = torch.tensor([width, height], device=query.device)
            at = places[:, None, None] + offsets[:, :, :, level].float() / cells
            taken = functional.grid_sample(
                value.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (height, width)).float(),
                2 * at.transpose(1, 2).flatten(0, 1) - 1,
                align_corners=False,
            )  # (B * heads, D / 2 / heads, Q, points)
            weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
            mixed = mixed + (taken * weight).sum(dim=-1)
        mixed = mixed.unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2)
        return self.output_proj(mixed.to(query.dtype))


class CrossAttention(nn.Module):
    """Add to queries what deformable attention reads from maps: an injector or an extractor.

    Args:
        width: Features D.
        heads: Attention heads.
        levels: Number of maps that are read.
        gated: Whether what is read is scaled by a learned factor per feature that starts at 0. The
            injector's is, so that at first the transformer computes what it did without adapter.
    """

    def __init__(self, width: int, heads: int, levels: int, gated: bool = False) -> None:
        super().__init__()
        self.query_norm, self.feat_norm = (nn.LayerNorm(width) for _ in range(2))
        self.attn = DeformableAttention(width, heads, levels)
        self.gamma = nn.Parameter(torch.zeros(width)) if gated else None

    def forward(
        self, query: Tensor, places: Tensor, features: Tensor, sizes: Sequence[Size]
    ) -> Tensor:
        """Update queries (B, Q, D); see `DeformableAttention.forward`."""
        read = self.attn(self.query_norm(query), places, self.feat_norm(features), sizes)
        return query + (read if self.gamma is None else self.gamma * read)


class Interaction(nn.Module):
    """One exchange: an injector before a group of blocks, extractors after it."""

    def __init__(self, width: int, heads: int, extra: int = 0) -> None:
        super().__init__()
        self.injector = CrossAttention(width, heads, levels=3, gated=True)
        self.extractor = CrossAttention(width, heads, levels=1)
        self.extra_extractors = nn.ModuleList(
            CrossAttention(width, heads, levels=1) for _ in range(extra)
        )


class SpatialPrior(nn.Module):
    """A small convolutional network that makes four maps of an image.

    Args:
        channels: Bands C.
        width: Features D of each map.
        stem: Features of the first layers.
    """

    def __init__(self, channels: int, width: int, stem: int = 64) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

        self.stem = nn.Sequential(
            *layer(channels, stem, 2), *layer(stem, stem, 1), *layer(stem, stem, 1),
            nn.MaxPool2d(3, 2, padding=1),
        )  # fmt: skip
        self.conv2 = nn.Sequential(*layer(stem, 2 * stem, 2))
        self.conv3 = nn.Sequential(*layer(2 * stem, 4 * stem, 2))
        self.conv4 = nn.Sequential(*layer(4 * stem, 4 * stem, 2))
        self.fc1, self.fc2 = nn.Conv2d(stem, width, 1), nn.Conv2d(2 * stem, width, 1)
        self.fc3, self.fc4 = (nn.Conv2d(4 * stem, width, 1) for _ in range(2))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Turn (B, C, H, W) into four maps (B, D, H / s, W / s) for s in 4, 8, 16, 32."""
        first = self.stem(image)
        second = self.conv2(first)
        third = self.conv3(second)
        return [self.fc1(first), self.fc2(second), self.fc3(third), self.fc4(self.conv4(third))]


class VitAdapter(Backbone):
    """A frozen transformer with ViT-Adapter: four maps, with 4, 8, 16 and 32 pixels per cell.

    It stands in for the backbone that it wraps: it takes the same images and answers the same
    questions. Images of any size are padded by repeating their border, and the maps cut to
    ceil(H / stride) x ceil(W / stride). Class token and final layer norm are left out, as in the
    published network.

    Args:
        vit: A backbone with transformer blocks, which is frozen.
        stem: Features of the first layers of the spatial prior.

    Raises:
        ValueError: A network without transformer blocks, or for several dates.

    Source: Chen et al., Vision Transformer Adapter for Dense Predictions, arXiv 2205.08534. Beyond
    it: patches of any size, and several tokens per patch, which all stand at their patch's place;
    extractors read their mean. A map of the convolutional branch is joined with the transformer's
    own map, resized; the first with that after the first interaction, and so on.
    """

    strides = STRIDES

    def __init__(self, vit: Backbone, stem: int = 64) -> None:
        super().__init__(vit.card, vit.request)
        block_names(vit)  # refuses a network without blocks
        assert isinstance(vit, Transformer)
        if vit.frames > 1:
            raise GeopeftError(
                f"vit_adapter takes images of one date, and {vit.card.name} was loaded for "
                f"{vit.frames}. Attach 'lora' or another method."
            )
        depth = len(vit.blocks)  # it runs them all
        self.patch_size, self.layers = vit.patch_size, vit.layers
        self.provenance = vit.provenance
        width, heads = vit.width, vit.card.heads
        self.channels = (width,) * len(STRIDES)
        self.vit = vit.requires_grad_(False)
        #: Index of the first block of each group, and the number of blocks.
        self.bounds = [round(i * depth / INTERACTIONS) for i in range(INTERACTIONS + 1)]
        self.spm = SpatialPrior(len(vit.bands), width, stem)
        self.level_embed = nn.Parameter(torch.randn(3, width))
        self.interactions = nn.ModuleList(
            Interaction(width, heads, extra=2 if i == INTERACTIONS - 1 else 0)
            for i in range(INTERACTIONS)
        )
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.BatchNorm2d(width) for _ in STRIDES)

    def choose(self, layers: Sequence[int] | None) -> None:
        """Refuse a choice of layers; see `Backbone.choose`."""
        raise GeopeftError("vit_adapter always returns its four maps.")

    def grid(self, height: int, width: int) -> Size:
        """Return the rows and columns of the deepest map of an image of that size in pixels."""
        return -(-height // STRIDES[-1]), -(-width // STRIDES[-1])

    def forward(self, image: Tensor, temporal: More = None, location: More = None) -> list[Tensor]:
        """Compute four maps; see `Backbone.forward`."""
        image = self.vit.check_input(image)
        height, width = image.shape[-2:]
        image = pad_to_patches(image, STRIDES[-1])
        tokens, grid = self.vit.begin(image, temporal, location)
        tokens = tokens[:, self.vit.prefix :]
        cells = self.vit.cells(grid).to(tokens.device)  # the patch of each token
        size, patch = self.vit.grid(*image.shape[-2:]), self.vit.patch_size

        finest, *maps = self.spm(image[:, :, 0])
        sizes = [(features.shape[2], features.shape[3]) for features in maps]
        maps = [m + code[:, None, None] for m, code in zip(maps, self.level_embed, strict=True)]
        features = torch.cat([m.flatten(2) for m in maps], dim=2).transpose(1, 2)  # (B, all h*w, D)
        # Patches may reach beyond the maps: each counts places in shares of what the other covers.
        covered = (size[0] * patch, size[1] * patch)
        of_tokens = centres(size, patch, image.shape[-2:], cells.device)[cells]
        of_maps = torch.cat(
            [centres(s, t, covered, cells.device) for s, t in zip(sizes, STRIDES[1:], strict=True)]
        )

        seen = []  # the transformer's own map after each interaction
        for index, interaction in enumerate(self.interactions):
            assert isinstance(interaction, Interaction)
            patches = interaction.injector(tokens[:, : len(cells)], of_tokens, features, sizes)
            tokens = torch.cat([patches, tokens[:, len(cells) :]], dim=1)
            for block in self.vit.blocks[self.bounds[index] : self.bounds[index + 1]]:
                tokens = block(tokens)
            prefixed = functional.pad(tokens, (0, 0, self.vit.prefix, 0))  # as `to_map` expects it
            seen.append(self.vit.to_map(prefixed, grid))
            read = seen[-1].flatten(2).transpose(1, 2)
            for extractor in (interaction.extractor, *interaction.extra_extractors):
                features = extractor(features, of_maps, read, [size])

        deeper = features.split([h * w for h, w in sizes], dim=1)
        maps = [m.transpose(1, 2).unflatten(2, s) for m, s in zip(deeper, sizes, strict=True)]
        maps = [finest + self.up(maps[0]), *maps]
        norms = (self.norm1, self.norm2, self.norm3, self.norm4)
        outputs = []
        for own, other, norm, stride in zip(maps, seen, norms, STRIDES, strict=True):
            scale = patch / stride
            other = functional.interpolate(widened(other), scale_factor=scale, mode="bilinear")
            rows, columns = -(-height // stride), -(-width // stride)
            outputs.append(norm(own[..., :rows, :columns] + other[..., :rows, :columns]))
        return outputs


def centres(size: Size, stride: int, extent: Sequence[int], device: torch.device) -> Tensor:
    """Return the centres of a map's cells as shares of an area.

    Args:
        size: Rows and columns (h, w) of the map.
        stride: Pixels per cell.
        extent: Height and width of the area in pixels.
        device: Where to put them.

    Returns:
        (h * w, 2): x and y, row after row.
    """
    y, x = (
        (torch.arange(cells, device=device) + 0.5) * stride / pixels
        for cells, pixels in zip(size, extent, strict=True)
    )
    return torch.cartesian_prod(y, x).flip(1)
