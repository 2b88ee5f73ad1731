"""Galileo (Tseng et al., arXiv 2502.09356), its optical path: several tokens for each patch.

Written from the paper, the layout of the published tensors and reference outputs. Sentinel-2 bands
come in groups, and each patch, time step and group has a token of its own. The published network
also takes radar, weather and maps; those tensors are left out here, because they never act on an
image of Sentinel-2 bands alone.
"""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.base import (
    BackboneRequest,
    Begun,
    CardTransformer,
    More,
    adapt_group,
    calendar_day,
)
from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.backbones.vit import initialise, join_axes, sincos
from geopeft_nb.bands import nearest_band

#: Groups of bands, without NDVI, which is a group of its own.
GROUPS: dict[str, tuple[str, ...]] = {
    "S2_RGB": ("BLUE", "GREEN", "RED"),
    "S2_Red_Edge": ("RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3"),
    "S2_NIR_10m": ("NIR_BROAD",),
    "S2_NIR_20m": ("NIR_NARROW",),
    "S2_SWIR": ("SWIR_1", "SWIR_2"),
}
#: Row of each group in the published table of group codes; 0 is radar.
GROUP_CODE = {name: index for index, name in enumerate([*GROUPS, "NDVI"], start=1)}

#: Published modules for inputs that are not Sentinel-2 bands.
UNUSED = (
    "space_time_embed.S1.", "space_embed.SRTM.", "space_embed.DW.", "space_embed.WC.",
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


class GalileoViT(CardTransformer):
    """Galileo's encoder for reflectance 0-1; as a `Backbone` it averages the tokens of a patch.

    A group without any band has no tokens; a channel of a group that is missing counts as its
    pretraining mean; NDVI takes the narrow near-infrared band where the broad one is missing, and
    has no tokens without red or near infrared. Patches have 1 to 8 px.
    """

    prefix = 0
    pos_embed: Tensor
    month_embed: Tensor
    resize: Tensor
    gsd: float

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__(card, request)
        width = self.width
        self.members = group_members(self.bands)
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
        initialise(self.blocks)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep what Sentinel-2 bands need and choose bands; see `Backbone.translate`."""
        absent = (f"space_time_embed.{group}." for group in GROUP_CODE.keys() - self.members.keys())
        unused, kept = (*UNUSED, *absent), {}
        for key, value in state.items():
            if not key.startswith(unused):
                for theirs, ours in RENAMED.items():
                    key = re.sub(theirs, ours, key)
                kept[key] = value
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
            cells = functional.conv2d(
                frames.flatten(0, 1), self._kernel(kernel), bias, stride=self.patch_size
            )
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

    def _kernel(self, kernel: Tensor) -> Tensor:
        """Resize stored kernels (D, c, 8, 8) to the patch, as FlexiViT does (arXiv 2212.08013)."""
        if self.patch_size == KERNEL:
            return kernel
        resized = kernel.flatten(2) @ self.resize.T
        return resized.unflatten(2, (self.patch_size, self.patch_size))

    def _space(self, rows: int, columns: int) -> Tensor:
        """Encode each patch's place in steps of 10 m: (rows, columns, D / 4)."""
        per_axis = self.width // 8
        step = self.patch_size * self.gsd / 10
        # The exponent is j / (2 d), not 2 j / d: so was the published network trained.
        j = torch.arange(per_axis // 2, device=self.pos_embed.device)
        omega = 10_000.0 ** (-j / (2 * per_axis))

        across, down = (
            sincos(torch.arange(count, device=omega.device) * step, omega).to(self.pos_embed)
            for count in (columns, rows)
        )
        return join_axes(across, down)

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
        return self.embed(self.inputs(image), month_indices(temporal, image), location)

    def cells(self, grid: tuple[int, ...]) -> Tensor:
        """Return for each token the index of its patch; see `Transformer.cells`."""
        return torch.arange(grid[0] * grid[1]).repeat_interleave(grid[2] * grid[3])

    def to_map(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Turn tokens into a map (B, D, h, w), the mean over groups and time steps."""
        patches = tokens[:, : math.prod(grid)].unflatten(1, grid)
        return patches.mean(dim=(3, 4)).permute(0, 3, 1, 2)


def group_members(bands: Sequence[str]) -> dict[str, list[str]]:
    """Sort image bands into groups, each to that of its nearest known band.

    Returns:
        Group -> its bands, without groups that have none; of NDVI, if it can be had, the red and a
        near-infrared band.
    """
    known = [band for own in GROUPS.values() for band in own]
    members = {
        group: [band for band in bands if nearest_band(band, known) in own]
        for group, own in GROUPS.items()
    }
    infrared = [band for band in ("NIR_BROAD", "NIR_NARROW") if band in bands]
    members["NDVI"] = ["RED", infrared[0]] if "RED" in bands and infrared else []
    return {group: found for group, found in members.items() if found}


def month_indices(temporal: Tensor | None, image: Tensor) -> Tensor:
    """Return the month index 0-11 of each image and time step, (B, T); June if none is known."""
    batch, frames = image.shape[0], image.shape[2]
    if temporal is None:
        return torch.full((batch, frames), JUNE, device=image.device)
    months = [calendar_day(*day).month - 1 for day in temporal.flatten(0, 1).tolist()]
    return torch.tensor(months, device=image.device).reshape(batch, frames)


def resizing_matrix(patch_size: int) -> Tensor:
    """Return the (p * p, 64) matrix that turns an 8 x 8 kernel into one for p x p patches.

    It is the pseudo-inverse of resizing p x p patches to 8 x 8 (FlexiViT, arXiv 2212.08013).
    """
    side = torch.eye(KERNEL**2).reshape(-1, 1, KERNEL, KERNEL)
    size = (patch_size, patch_size)
    resized = functional.interpolate(side, size=size, mode="bicubic", antialias=True)
    return torch.linalg.pinv(resized.flatten(1))
