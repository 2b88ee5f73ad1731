"""SatMAE and Galileo: bands in groups, each with patch tokens of its own.

Written from the papers and the layout of the published tensors, Galileo also from reference
outputs. A patch has one token for each group of bands, and in Galileo for each time step; a cell of
a map is the mean of its tokens.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones import base, vit
from geopeft_nb.backbones.base import Begun, More
from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.bands import nearest_band

#: Galileo's groups of bands, without NDVI, which is a group of its own.
GROUPS: dict[str, tuple[str, ...]] = {
    "S2_RGB": ("BLUE", "GREEN", "RED"),
    "S2_Red_Edge": ("RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3"),
    "S2_NIR_10m": ("NIR_BROAD",),
    "S2_NIR_20m": ("NIR_NARROW",),
    "S2_SWIR": ("SWIR_1", "SWIR_2"),
}
#: Row of each group in the published table of group codes; 0 is radar.
GROUP_CODE = {name: index for index, name in enumerate([*GROUPS, "NDVI"], start=1)}

#: Published modules for inputs that are not Sentinel-2 bands, by our names.
UNUSED = (
    "patch_embed.S1.", "space_embed.SRTM.", "space_embed.DW.", "space_embed.WC.",
    "time_embed.ERA5.", "time_embed.TC.", "time_embed.VIIRS.", "static_embed.LS.",
    "static_embed.DW_static.", "static_embed.WC_static.", "sp_channel_embed", "t_channel_embed",
)  # fmt: skip

#: Published names, as patterns -> ours.
RENAMED = {
    r"space_time_embed\.(\w+)\.proj": r"patch_embed.\1", "s_t_channel_embed": "group_embed",
    "st_channel_embed": "static_embed", r"month_embed\.weight": "month_embed",
    r"static_embed\.location": "location_embed",
}  # fmt: skip

#: Side of the stored patch kernels; smaller patches use resized ones.
KERNEL = 8
JUNE = 5  # month index that stands in for an unknown date, as in the published code


def group_bands(groups: Sequence[Sequence[str]], bands: Sequence[str]) -> list[list[str]]:
    """Put the bands of images into groups, each into that of its nearest known band."""
    known = [band for own in groups for band in own]
    return [[band for band in bands if nearest_band(band, known) in own] for own in groups]


def adapt_group(
    state: dict[str, Tensor], layer: str, known: Sequence[str], wanted: Sequence[str]
) -> None:
    """Choose the input channels of a layer that reads one group of bands, in place.

    What the images lack of the group acts as if it were at its mean everywhere, through the bias.

    Args:
        state: Key -> tensor; ``layer.weight`` is (D, C, p, p) and ``layer.bias`` (D,).
        layer: Name of the layer.
        known: The C bands of the group; their scaled mean is 0.5.
        wanted: Band names of the images, of this group.

    Raises:
        ValueError: See `adapt_kernel`.
    """
    kernel, bias = state.get(f"{layer}.weight"), state.get(f"{layer}.bias")
    if kernel is None or bias is None:
        return  # for the loader to refuse
    state[f"{layer}.weight"] = base.adapt_kernel(kernel, known, wanted)
    used = {nearest_band(band, known) for band in wanted}
    absent = [channel for channel, band in enumerate(known) if band not in used]
    if absent and bias.shape == kernel.shape[:1]:
        state[f"{layer}.bias"] = bias + 0.5 * kernel[:, absent].float().flatten(1).sum(dim=1)


class SatMAEViT(base.CardTransformer):
    """SatMAE group-channel encoder (Cong et al., arXiv 2207.08051), with layer norms of 1e-6.

    Groups without bands make no tokens. Of a
    token's code ``card.extra["group_code"]`` features say its group, the others its position, for
    the image size of pretraining; other sizes use resized codes.
    """

    trained_grid: int
    eps = 1e-6

    def __init__(self, card: BackboneCard, request: base.BackboneRequest) -> None:
        super().__init__(card, request)
        width, patch, group_code = self.width, self.patch_size, card.extra["group_code"]
        self.known = [[card.bands[index] for index in group] for group in card.extra["groups"]]
        self.groups = group_bands(self.known, self.bands)
        self.trained_grid = side = card.img_size // patch
        groups, kernel = enumerate(self.groups), (patch, patch)
        layers = {str(i): vit.PatchEmbed(len(group), width, kernel) for i, group in groups if group}
        self.patch_embed = nn.ModuleDict(layers)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side**2, width - group_code))
        self.channel_embed = nn.Parameter(torch.zeros(1, len(self.groups), group_code))
        self.channel_cls_embed = nn.Parameter(torch.zeros(1, 1, group_code))
        self.make_blocks()
        nn.init.normal_(self.cls_token, std=0.02)
        axis = vit.sincos_1d(torch.arange(side), self.pos_embed.shape[2] // 2)
        with torch.no_grad():  # codes start at fixed ones: rows, then columns; group numbers
            self.pos_embed[0, 1:] = vit.join_axes(axis, axis).transpose(0, 1).flatten(0, 1)
            self.channel_embed[0] = vit.sincos_1d(torch.arange(len(self.groups)), group_code)
        vit.initialise(self)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the encoder's tensors and choose bands; see `Backbone.translate`.

        Dropped are the decoder and the mask token of pretraining, and head and pooling norm of
        fine-tuned files. Bands of a group that the images lack are taken to be at their mean
        everywhere, which adds a constant to the bias; embeddings of groups that the images lack
        altogether are dropped.
        """
        absent = [f"patch_embed.{i}." for i, group in enumerate(self.groups) if not group]
        kept = vit.renamed(state, {}, ("decoder", "mask_token", "head.", "fc_norm.", *absent))
        for number, (known, wanted) in enumerate(zip(self.known, self.groups, strict=True)):
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
        grid = self.grid(*image.shape[2:])
        codes = self.pos_embed[:, 1:].unflatten(1, (self.trained_grid, self.trained_grid))
        position = vit.resize_grid(codes, *grid).flatten(1, 2)
        cls = self.cls_token + torch.cat([self.pos_embed[:, :1], self.channel_cls_embed], dim=2)
        tokens = [cls.expand(image.shape[0], -1, -1)]
        for number, embed in self.patch_embed.items():
            group = self.channel_embed[:, int(number), None].expand(-1, position.shape[1], -1)
            code = torch.cat([position, group], dim=2)
            places = [self.bands.index(band) for band in self.groups[int(number)]]
            tokens.append(embed(image[:, places]) + code)
        return torch.cat(tokens, dim=1), grid

    def begin(self, image: Tensor, temporal: More = None, location: More = None) -> Begun:
        """Make class token and patch tokens; see `Transformer.begin`. The grid is (G, h, w)."""
        image, _, _ = self.prepare(image, temporal, location)  # it takes neither time nor location
        tokens, grid = self.embed(image[:, :, 0])
        return tokens, (len(self.patch_embed), *grid)


class GalileoViT(base.CardTransformer):
    """Galileo's encoder (Tseng et al., arXiv 2502.09356) for reflectance 0-1, its optical path.

    The published network also takes radar, weather and maps; those tensors are left out here,
    because they never act on an image of Sentinel-2 bands alone.
    A group without any band has no tokens; a channel of a group that is missing counts as its
    pretraining mean; NDVI takes the narrow near-infrared band where the broad one is missing, and
    has no tokens without red or near infrared. Patches have 1 to 8 px.
    """

    prefix = 0
    pos_embed: Tensor
    month_embed: Tensor
    resize: Tensor
    gsd: float

    def __init__(self, card: BackboneCard, request: base.BackboneRequest) -> None:
        super().__init__(card, request)
        width = self.width
        grouped = group_bands([*GROUPS.values()], self.bands)
        infrared = [band for band in ("NIR_BROAD", "NIR_NARROW") if band in self.bands]
        ndvi = ["RED", infrared[0]] if "RED" in self.bands and infrared else []
        members = zip(GROUP_CODE, [*grouped, ndvi], strict=True)
        #: Group -> its bands, without groups that have none; of NDVI red and near infrared.
        self.members = {group: found for group, found in members if found}
        sizes = {group: 1 if group == "NDVI" else len(of) for group, of in self.members.items()}
        layers = {group: nn.Conv2d(n, width, KERNEL, KERNEL) for group, n in sizes.items()}
        self.patch_embed = nn.ModuleDict(layers)
        self.group_embed = nn.Parameter(0.02 * torch.randn(1 + len(GROUP_CODE), width // 4))
        self.location_embed = nn.Linear(3, width)
        self.static_embed = nn.Parameter(0.02 * torch.randn(4, width // 4))
        self.make_blocks()
        self.register_buffer("pos_embed", 0.02 * torch.randn(card.max_frames, width // 4))
        self.register_buffer("month_embed", 0.02 * torch.randn(12, width // 4))
        self.register_buffer("resize", resizing_matrix(self.patch_size), persistent=False)
        vit.initialise(self.blocks)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep what Sentinel-2 bands need and choose bands; see `Backbone.translate`."""
        absent = (f"patch_embed.{group}." for group in GROUP_CODE.keys() - self.members.keys())
        kept = vit.renamed(state, RENAMED, (*UNUSED, *absent))
        for group in GROUPS.keys() & self.members.keys():
            adapt_group(kept, f"patch_embed.{group}", GROUPS[group], self.members[group])
        return kept

    def inputs(self, image: Tensor) -> dict[str, Tensor]:
        """Scale the bands as in pretraining, compute NDVI, and sort both into groups.

        Args:
            image: (B, C, T, H, W) reflectance 0-1.

        Returns:
            Group -> (B, c, T, H, W). NDVI keeps its own scale, -1 to 1, as in pretraining.
        """
        mean, std = (
            torch.tensor(values).to(image)[:, None, None, None]
            for values in self.card.statistics(self.bands)
        )
        scaled = (image - (mean - 2 * std)) / (4 * std)
        places = {g: [self.bands.index(band) for band in m] for g, m in self.members.items()}
        groups = {group: scaled[:, channels] for group, channels in places.items()}
        if "NDVI" in groups:
            # Negative reflectance, an artefact of haze correction, would leave -1 to 1.
            red, nir = image[:, places["NDVI"]].clamp(min=0).split(1, dim=1)
            groups["NDVI"] = (nir - red) / (nir + red).clamp(min=torch.finfo(image.dtype).tiny)
        return groups

    def embed(
        self, groups: dict[str, Tensor], months: Tensor, location: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Turn grouped inputs into tokens with their codes.

        Args:
            groups: Group -> (B, c, T, H, W), H and W filled by patches.
            months: (B, T) month index from 0.
            location: (B, 2) latitude and longitude in degrees, or None.

        Returns:
            Tokens (B, h * w * T * G, D), one more at the end if a location was given, and the grid
            (h, w, T, G).
        """
        parts = []
        for group, image in groups.items():
            kernel, bias = self.patch_embed[group].parameters()
            frames = image.transpose(1, 2)  # (B, T, c, H, W)
            if (side := self.patch_size) != KERNEL:  # as FlexiViT does (arXiv 2212.08013)
                kernel = (kernel.flatten(2) @ self.resize.T).unflatten(2, (side, side))
            cells = functional.conv2d(frames.flatten(0, 1), kernel, bias, stride=side)
            parts.append(cells.unflatten(0, frames.shape[:2]).permute(0, 3, 4, 1, 2))
        cells = torch.stack(parts, dim=4)
        rows, columns, steps = cells.shape[1:4]
        codes = torch.broadcast_tensors(
            self.group_embed[[GROUP_CODE[group] for group in groups]],  # (G, D / 4)
            self.pos_embed[:steps, None],  # (T, 1, D / 4)
            self.month_embed[months][:, None, None, :, None],  # (B, 1, 1, T, 1, D / 4)
            self._space(rows, columns)[:, :, None, None],  # (h, w, 1, 1, D / 4)
        )
        tokens = (cells + torch.cat(codes, dim=-1)).flatten(1, 4)
        if location is not None:
            tokens = torch.cat([tokens, self._locate(location)], dim=1)
        return tokens, tuple(cells.shape[1:5])

    def _space(self, rows: int, columns: int) -> Tensor:
        """Encode each patch's place in steps of 10 m: (rows, columns, D / 4)."""
        per_axis = self.width // 8
        step = self.patch_size * self.gsd / 10
        # The exponent is j / (2 d), not 2 j / d: so was the published network trained.
        j = torch.arange(per_axis // 2, device=self.pos_embed.device)
        omega = 10_000.0 ** (-j / (2 * per_axis))

        across, down = (
            vit.sincos(torch.arange(count, device=omega.device) * step, omega).to(self.pos_embed)
            for count in (columns, rows)
        )
        return vit.join_axes(across, down)

    def _locate(self, location: Tensor) -> Tensor:
        latitude, longitude = location.deg2rad().unbind(1)
        x, y = latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin()
        token = self.location_embed(torch.stack([x, y, latitude.sin()], dim=1))
        code = functional.pad(self.static_embed[1], (0, self.width - self.width // 4))
        return (token + code)[:, None]

    def begin(self, image: Tensor, temporal: More = None, location: More = None) -> Begun:
        """Make patch tokens and, at the end, a location's; see `Transformer.begin`.

        The grid is (h, w, T, G). `image` is reflectance 0-1: the network scales it itself, because
        it needs NDVI as well.
        """
        image, temporal, location = self.prepare(image, temporal, location)
        months = torch.full((image.shape[0], image.shape[2]), JUNE, device=image.device)
        if temporal is not None:
            known = [base.calendar_day(*day).month - 1 for day in temporal.flatten(0, 1).tolist()]
            months = torch.tensor(known, device=image.device).view_as(months)
        return self.embed(self.inputs(image), months, location)

    def cells(self, grid: tuple[int, ...]) -> Tensor:
        """Return for each token the index of its patch; see `Transformer.cells`."""
        return torch.arange(grid[0] * grid[1]).repeat_interleave(grid[2] * grid[3])

    def to_map(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Turn tokens into a map (B, D, h, w), the mean over groups and time steps."""
        patches = tokens[:, : math.prod(grid)].unflatten(1, grid)
        return patches.mean(dim=(3, 4)).permute(0, 3, 1, 2)


def resizing_matrix(patch_size: int) -> Tensor:
    """Return the (p * p, 64) matrix that turns an 8 x 8 kernel into one for p x p patches.

    It is the pseudo-inverse of resizing p x p patches to 8 x 8 (FlexiViT, arXiv 2212.08013).
    """
    side = torch.eye(KERNEL**2).reshape(-1, 1, KERNEL, KERNEL)
    size = (patch_size, patch_size)
    resized = functional.interpolate(side, size=size, mode="bicubic", antialias=True)
    return torch.linalg.pinv(resized.flatten(1))
