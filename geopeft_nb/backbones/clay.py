"""Clay v1: a vision transformer whose first layer is made from the wavelengths of the bands.

Written from the tensor layout of the published checkpoint. The patch embedding follows the idea of
DOFA (Xiong et al., arXiv 2403.15356): a small transformer reads the wavelengths and writes the
kernel of a convolution, so that one set of weights serves any sensor. Date, place and ground
sampling distance enter as fixed codes; the blocks' attention has no biases.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.base import BackboneRequest, Begun, CardTransformer, More, calendar_day
from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.backbones.vit import initialise, join_axes, renamed, sincos
from geopeft_nb.bands import WAVELENGTHS

#: Features of a wavelength's code, and tokens that the generator of kernels keeps for itself.
WAVE_FEATURES, WEIGHT_TOKENS = 128, 128
#: Generated kernels are made small, so that they start like those of a convolution; biases are not.
KERNEL_SCALE = 0.02
#: Features of the codes of date and place that stand at the end of each patch token.
TIME_FEATURES, PLACE_FEATURES = 4, 4

#: Clay states 0.842 micrometres for the broad near-infrared band; the other values are the same.
CLAY_WAVELENGTHS = {**WAVELENGTHS, "NIR_BROAD": 0.842}

#: Published names, as patterns -> our names, which are timm's. TerraTorch writes `clay_encoder`.
RENAMED = {
    r"^(model\.encoder|clay_encoder)\.": "", r"^transformer\.layers": "blocks",
    r"^transformer\.norm": "norm", r"\.0\.norm\.": ".norm1.", r"\.0\.to_qkv": ".attn.qkv",
    r"\.0\.to_out": ".attn.proj", r"\.1\.net\.0": ".norm2", r"\.1\.net\.1": ".mlp.fc1",
    r"\.1\.net\.3": ".mlp.fc2",
}  # fmt: skip


def position_code(height: int, columns: int, width: int, gsd: float) -> Tensor:
    """Encode the cells of a grid, scaled by the ground that a pixel covers.

    Args:
        height: Rows h.
        columns: Columns w.
        width: Features, a multiple of 4.
        gsd: Ground sampling distance in metres per pixel.

    Returns:
        (h * w, width): sine and cosine of the column, then of the row; row after row. The
        frequencies only fall from gsd to gsd * 10000^(-2 / width), as in the published model.
    """
    steps = torch.linspace(0, 1, width // 4, dtype=torch.float64)
    frequencies = gsd * 10000.0 ** (-2 * steps / width)
    across, down = (sincos(torch.arange(n), frequencies) for n in (columns, height))
    return join_axes(across, down).flatten(0, 1)


def time_code(temporal: Tensor) -> Tensor:
    """Encode dates as sine and cosine of the ISO week of 52 and of the hour, taken as noon.

    Args:
        temporal: (B, 1, 2) year and day of year from 1.

    Returns:
        (B, 4).
    """
    days = [calendar_day(year, day) for year, day in temporal[:, 0].tolist()]
    turns = [(day.isocalendar().week / 52, 12 / 24) for day in days]
    return circle_code(2 * math.pi * torch.tensor(turns, dtype=torch.float64)).float()


def circle_code(angles: Tensor) -> Tensor:
    """Encode (B, 2) angles in radians as (B, 4): sine and cosine of each."""
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class ResidualBlock(nn.Module):
    """Two linear layers with GELU, added to their input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.l1, self.l2 = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, values: Tensor) -> Tensor:
        """Map (C, size) to (C, size)."""
        return values + functional.gelu(self.l2(functional.gelu(self.l1(values))))


class WeightGenerator(nn.Module):
    """Write the kernel and the bias of a convolution that fits the bands.

    Args:
        kernel_size: Values of the kernel per band, D * p * p.
        width: Output features D of the convolution.
    """

    def __init__(self, kernel_size: int, width: int) -> None:
        super().__init__()
        self.weight_tokens = nn.Parameter(torch.empty(WEIGHT_TOKENS, WAVE_FEATURES))
        self.bias_token = nn.Parameter(torch.empty(1, WAVE_FEATURES))
        layer = nn.TransformerEncoderLayer(
            WAVE_FEATURES, nhead=4, dropout=0.0, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False)
        self.fc_weight = nn.Linear(WAVE_FEATURES, kernel_size)
        self.fc_bias = nn.Linear(WAVE_FEATURES, width)

    def forward(self, waves: Tensor) -> tuple[Tensor, Tensor]:
        """Turn (C, 128) codes of wavelengths into a kernel (C, D * p * p) and a bias (D,)."""
        tokens = self.encoder(torch.cat([self.weight_tokens, waves, self.bias_token]))
        # A band's own code is added again, so that its kernel keeps to its wavelength.
        return self.fc_weight(tokens[WEIGHT_TOKENS:-1] + waves), self.fc_bias(tokens[-1])


class DynamicEmbedding(nn.Module):
    """Embed patches by a convolution that is made from the wavelengths."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.width, self.patch_size = width, patch_size
        self.fclayer = ResidualBlock(WAVE_FEATURES)
        self.weight_generator = WeightGenerator(width * patch_size**2, width)

    def forward(self, image: Tensor, waves: Tensor) -> tuple[Tensor, Tensor]:
        """Embed (B, C, H, W), whose bands have the wavelengths (C,) in micrometres.

        Returns:
            The map of patches (B, D, H/p, W/p) and the codes of the wavelengths (C, 128).
        """
        frequencies = torch.logspace(0, -4, WAVE_FEATURES // 2, dtype=torch.float64)
        codes = self.fclayer(sincos(waves, frequencies).to(self.fclayer.l1.weight))
        kernel, bias = self.weight_generator(codes)
        p = self.patch_size
        kernel = kernel.reshape(-1, self.width, p, p).transpose(0, 1)  # (D, C, p, p)
        return functional.conv2d(image, kernel * KERNEL_SCALE, bias, stride=p), codes


class ClayViT(CardTransformer):
    """Clay v1 encoder; as a `Backbone` it returns one map per chosen block."""

    any_band = True
    attention_bias = False
    gsd: float

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__(card, request)
        self.wavelengths = CLAY_WAVELENGTHS | dict(request.wavelengths)
        self.patch_embedding = DynamicEmbedding(self.width, self.patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.width))
        self.make_blocks()
        generator = self.patch_embedding.weight_generator
        for token in (self.cls_token, generator.weight_tokens, generator.bias_token):
            nn.init.normal_(token, std=0.02)
        initialise(self)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the encoder's tensors under our names; see `Backbone.translate`.

        The published training checkpoint names them ``model.encoder.…`` and holds a decoder and
        more besides: if that prefix occurs, whatever does not have it is dropped. Bands need no
        choosing.
        """
        own = {key: value for key, value in state.items() if key.startswith("model.encoder.")}
        return renamed(own or state, RENAMED)

    def embed(
        self, image: Tensor, waves: Tensor, gsd: float, time: Tensor | None, place: Tensor | None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Turn images into patch tokens to which position, date and place are added.

        Args:
            image: (B, C, H, W), normalised; H and W are multiples of the patch.
            waves: (C,) wavelengths of the bands in micrometres.
            gsd: Ground sampling distance in metres per pixel.
            time: (B, 4) from `time_code`; zeros if None.
            place: (B, 4) from `circle_code`; zeros if None.

        Returns:
            Tokens (B, h * w, D), without class token, and the grid (h, w).
        """
        patches, _ = self.patch_embedding(image, waves)
        grid = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)
        position = position_code(*grid, self.width - TIME_FEATURES - PLACE_FEATURES, gsd)
        batch, none = image.shape[0], torch.zeros(image.shape[0], 4)
        more = torch.cat([none if code is None else code.cpu() for code in (time, place)], dim=1)
        codes = [position.expand(batch, -1, -1), more[:, None].expand(-1, len(position), -1)]
        return tokens + torch.cat(codes, dim=2).to(tokens), grid

    def add_class_token(self, patches: Tensor) -> Tensor:
        """Put the class token in front: (B, N, D) -> (B, 1 + N, D)."""
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)

    def begin(self, image: Tensor, temporal: More = None, location: More = None) -> Begun:
        """Make class token and patch tokens; see `Transformer.begin`. The grid is (h, w)."""
        image, temporal, location = self.prepare(image, temporal, location)
        patches, grid = self.embed(
            image[:, :, 0],
            torch.tensor([self.wavelengths[band] for band in self.bands]),
            self.gsd,
            None if temporal is None else time_code(temporal),
            None if location is None else circle_code(location.deg2rad()),
        )
        return self.add_class_token(patches), grid
