"""Networks beside a frozen transformer: ViT-Adapter, and ladder side-tuning.

Each stands in for the backbone that it wraps: it takes the same images and answers the same
questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.base import Backbone, More, Transformer, block_names
from geopeft_nb.backbones.vit import pad_to_patches, run_blocks, widened
from geopeft_nb.errors import GeopeftError, whole

STRIDES = (4, 8, 16, 32)
INTERACTIONS = 4
#: Points per head and map at which deformable attention looks.
POINTS = 4

#: Rows and columns of a map.
Size = tuple[int, int]


class DeformableAttention(nn.Module):
    """Let each query read a few points of feature maps, which it chooses relative to its place.

    Deformable attention (Zhu et al., arXiv 2010.04159) looks at a few points, not at every cell.
    Others compile that operation for one kind of GPU; here it is `grid_sample`, which runs
    everywhere.

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


def interaction(width: int, heads: int, extra: int = 0) -> nn.ModuleDict:
    """Make one exchange: an injector before a group of blocks, extractors after it."""
    injector = CrossAttention(width, heads, levels=3, gated=True)
    extractor, *more = (CrossAttention(width, heads, levels=1) for _ in range(1 + extra))
    parts = {"injector": injector, "extractor": extractor}
    return nn.ModuleDict(parts | {"extra_extractors": nn.ModuleList(more)})


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


class Beside(Backbone):
    """A network beside a frozen transformer, which it stands in for.

    Args:
        vit: A backbone with transformer blocks, which is frozen.

    Raises:
        ValueError: A network without transformer blocks.
    """

    def __init__(self, vit: Backbone) -> None:
        super().__init__(vit.card, vit.request)
        block_names(vit)  # refuses a network without blocks
        assert isinstance(vit, Transformer)
        self.vit = vit.requires_grad_(False)
        self.patch_size, self.layers, self.provenance = vit.patch_size, vit.layers, vit.provenance

    def choose(self, layers: Sequence[int] | None) -> None:
        """Refuse a choice of layers; see `Backbone.choose`."""
        raise GeopeftError("What is attached beside a backbone has its maps: choose them before.")


class VitAdapter(Beside):
    """A frozen transformer with ViT-Adapter: four maps, with 4, 8, 16 and 32 pixels per cell.

    A plain ViT sees an image at one coarse scale. ViT-Adapter puts a small convolutional network
    beside it, the spatial prior module, whose maps have 4, 8, 16 and 32 pixels per cell. Before
    each quarter of the blocks an injector adds details of these maps to the tokens; after it an
    extractor brings the maps up to date from the tokens. Both are cross-attention, made affordable
    by deformable attention.

    Images of any size are padded by repeating their border, and the maps cut to
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
        super().__init__(vit)
        if vit.frames > 1:
            raise GeopeftError("vit_adapter takes images of one date. Attach 'lora' for several.")
        depth, width, heads = len(self.vit.blocks), self.vit.width, vit.card.heads  # it runs all
        self.channels = (width,) * len(STRIDES)
        #: Index of the first block of each group, and the number of blocks.
        self.bounds = [round(i * depth / INTERACTIONS) for i in range(INTERACTIONS + 1)]
        self.spm = SpatialPrior(len(vit.bands), width, stem)
        self.level_embed = nn.Parameter(torch.randn(3, width))
        self.interactions = nn.ModuleList(
            interaction(width, heads, extra=2 if i == INTERACTIONS - 1 else 0)
            for i in range(INTERACTIONS)
        )
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.BatchNorm2d(width) for _ in STRIDES)

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
        for index, parts in enumerate(self.interactions):
            assert isinstance(parts, nn.ModuleDict)
            patches = parts["injector"](tokens[:, : len(cells)], of_tokens, features, sizes)
            tokens = torch.cat([patches, tokens[:, len(cells) :]], dim=1)
            for block in self.vit.blocks[self.bounds[index] : self.bounds[index + 1]]:
                tokens = block(tokens)
            prefixed = functional.pad(tokens, (0, 0, self.vit.prefix, 0))  # as `to_map` expects it
            seen.append(self.vit.to_map(prefixed, grid))
            read = seen[-1].flatten(2).transpose(1, 2)
            for extractor in (parts["extractor"], *parts["extra_extractors"].children()):
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


class Rung(nn.Module):
    """One rung of the ladder: it reads features of the backbone into a state, and mixes that.

    Args:
        width: Features D that it reads.
        r: Features of the state.
    """

    def __init__(self, width: int, r: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, r)
        self.depthwise = nn.Conv2d(r, r, 3, padding=1, groups=r)
        self.mix = nn.Conv2d(r, r, 1)

    def forward(self, state: Tensor | float, features: Tensor) -> Tensor:
        """Bring the state (B, r, h, w) up to date with features (B, D, h, w)."""
        tokens = features.movedim(1, -1)
        state = state + self.down(functional.layer_norm(tokens, tokens.shape[-1:])).movedim(-1, 1)
        return state + self.mix(functional.gelu(self.depthwise(state)))


class Side(Beside):
    """A frozen transformer with a ladder beside it (Sung et al., arXiv 2206.06522).

    LoRA and adapters change few weights, but the gradient travels to them through all that lies
    above, and all on its way is kept. Here nothing travels: a thin network beside the backbone
    reads what some of its blocks give, and only that network learns. It climbs from rung to rung,

        s ← s + down(norm(x)),    s ← s + mix(gelu(depthwise(s))),

    with x (D, h, w) what the rung's block gives and s (r, h, w) the state of the ladder;
    `depthwise` looks at the 3 × 3 neighbours, at which a linear probe never looks. At the maps that
    the backbone returns up(s) is added. `up` starts at zero, so that at first this is a linear
    probe. The paper's side network is a thin transformer, started from pruned weights, with gates
    for sums.

    Args:
        vit: A backbone with transformer blocks, which is frozen.
        r: Features of the ladder's state: more fit more, and cost 2 D weights each a rung.
        layers: Number of blocks that it reads, spread evenly over those that run; None means 6, or
            all of a network with fewer. Blocks whose maps are returned are read as well.

    Attributes:
        rungs: Indices of the blocks that are read.

    Raises:
        ValueError: A network without transformer blocks, or more layers than blocks.
    """

    def __init__(self, vit: Backbone, r: int = 16, layers: int | None = None) -> None:
        super().__init__(vit)
        depth = vit.layers[-1] + 1  # blocks that run
        count = min(6, depth) if layers is None else whole("layers", layers, 1, depth)
        even = {depth * (rung + 1) // count - 1 for rung in range(count)}
        self.rungs = sorted(even | set(vit.layers))
        self.strides, self.channels, width = vit.strides, vit.channels, vit.channels[-1]
        self.side = nn.ModuleDict({str(rung): Rung(width, r) for rung in self.rungs})
        self.up = nn.ModuleDict({str(layer): nn.Conv2d(r, width, 1) for layer in vit.layers})
        for weight in self.up.parameters():
            nn.init.zeros_(weight)

    def train(self, mode: bool = True) -> Self:
        """Set training mode of the ladder; the transformer gives the same features always."""
        super().train(mode)
        self.vit.eval()
        return self

    @torch.no_grad()
    def read(self, image: Tensor, temporal: More = None, location: More = None) -> list[Tensor]:
        """Run the frozen transformer: one map (B, D, h, w) per rung. Arguments as in `forward`."""
        tokens, grid = self.vit.begin(image, temporal, location)
        kept = run_blocks(self.vit.blocks, self.vit.norm, self.rungs, tokens)
        return [self.vit.to_map(x, grid) for x in kept]

    def climb(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Turn what `read` gives into the backbone's maps, each with what the ladder adds."""
        state, maps = torch.zeros((), device=features[0].device), []
        for rung, x in zip(self.side, features, strict=True):
            state = self.side[rung](state, x)
            if rung in self.up:
                maps.append(x + self.up[rung](state))
        return maps

    def forward(self, image: Tensor, temporal: More = None, location: More = None) -> list[Tensor]:
        """Compute the maps; see `Backbone.forward`."""
        return self.climb(self.read(image, temporal, location))
