"""What every backbone offers: its card, its bands, its grid and a list of feature maps."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import torch
from torch import Tensor, nn

from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.backbones.vit import PreNormBlock, pad_to_patches, run_blocks
from geopeft_nb.bands import WAVELENGTHS, nearest_band
from geopeft_nb.errors import GeopeftError
from geopeft_nb.pictures.facts import Facts

#: What a network may be told beside the image; tokens, and the grid that they are of.
More = Tensor | None
Begun = tuple[Tensor, tuple[int, ...]]


@dataclass(frozen=True)
class BackboneRequest:
    """What the user asked for, checked.

    Attributes:
        bands: Input bands in their order, by the toolkit's names.
        img_size: Image side in pixels that computed position codes are made for.
        frames: Time steps T.
        layers: Blocks whose output is returned; None means the last, or all stages.
        gsd: Ground sampling distance in metres per pixel, for models that take it.
        wavelengths: Of bands that have none here, in micrometres.
    """

    bands: tuple[str, ...]
    img_size: int
    frames: int = 1
    layers: Sequence[int] | None = None
    gsd: float = 10.0
    wavelengths: Mapping[str, float] = field(default_factory=dict)


class Backbone(Facts, nn.Module):
    """Base class of all backbones.

    Args:
        card: Sizes and bands of pretraining.
        request: Bands, image size, frames, layers and ground sampling distance.

    Attributes:
        card: Published facts.
        request: What the user asked for.
        bands: Input bands, in order.
        patch_size: Pixels per cell of the deepest map that is returned.
        strides: Pixels per cell of each returned map, shallow to deep.
        reach: Pixels that images are padded to a multiple of; 0 means the patch.
        layers: Indices of the blocks whose output is returned, ascending; `choose` sets them.
        uncut: The same before `Transformer.cut` dropped blocks; empty if it did not.
        frames: Time steps of an image.
        channels: Features D of each returned map.
        attached: Name of the method that `attach` put on it, or None.
        provenance: Where the weights came from: file, sha256, what was adapted.
        fixed: Keys of `state_dict` that are computed and never loaded.
        any_band: Whether the first layer is made from wavelengths, so that no band is new to it.
        any_name: Whether it takes bands without a wavelength, such as NDVI.
        wavelengths: Of all bands that have one, in micrometres.
        others: Input bands without a wavelength.
        trained_grid: Rows and columns of patches of its stored position codes, if it has such.
        gsd: Metres per pixel, if it takes that.
        notes: What was adapted to the request, for `provenance`.
    """

    patch_size: int
    strides: tuple[int, ...]
    reach: int = 0
    layers: tuple[int, ...]
    uncut: tuple[int, ...] = ()
    channels: tuple[int, ...]
    attached: str | None = None
    provenance: dict[str, Any]
    fixed: tuple[str, ...] = ()
    any_band: bool = False
    any_name: bool = False
    trained_grid: int | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__()
        self.card, self.request = card, request
        self.bands, self.frames = request.bands, request.frames
        self.gsd = request.gsd if card.takes_gsd else None
        self.wavelengths = WAVELENGTHS | dict(request.wavelengths)
        self.others = tuple(band for band in self.bands if band not in self.wavelengths)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn the tensors of a published checkpoint into this network's, bands chosen.

        Args:
            state: Key -> tensor, as the published file names them, and in its type.

        Returns:
            Key -> tensor as `state_dict` names them. What is missing or not understood stays as it
            is, so that the loader can name it.

        Raises:
            ValueError: The first layer has other channels than the card's bands.
        """
        return state

    @abstractmethod
    def choose(self, layers: Sequence[int] | None) -> None:
        """Choose which blocks' or stages' outputs are returned; sets layers, strides and channels.

        Args:
            layers: Indices, negative ones count from the end; None means the last block, or all
                stages of a network that has stages.

        Raises:
            ValueError: An index is outside the network, or given twice.
        """

    def facts(self) -> tuple[str, dict[str, object]]:
        """Say what was loaded; see `Facts`."""
        return f"{self.card.title} ({self.card.name})", {
            "weights": self.provenance.get("weights"),
            "adapted": self.provenance.get("adapted"),
            "parameters": f"{sum(weight.numel() for weight in self.parameters()):,}",
            "bands": ", ".join(self.bands),
            "patch": f"{self.patch_size} px",
            "maps": f"{', '.join(map(str, self.channels))} features",
            "attached": self.attached,
            "licence": self.card.licence,
        }

    def scaling(self) -> tuple[Tensor, Tensor]:
        """Return offset and divisor per input band, each (C,), that turn reflectance into input."""
        statistics = self.card.statistics(self.bands, self.wavelengths)
        return self.card.scale_by(*map(torch.tensor, statistics))

    def normalise(self, reflectance: Tensor) -> Tensor:
        """Scale images as they were scaled in pretraining.

        Args:
            reflectance: (B, C, H, W) or (B, C, T, H, W), reflectance 0-1.

        Returns:
            The same shape: what `forward` takes.
        """
        offset, divisor = (value.to(reflectance) for value in self.scaling())
        shape = (-1, *[1] * (reflectance.ndim - 2))
        return (reflectance - offset.reshape(shape)) / divisor.reshape(shape)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of the deepest map of an image of that size in pixels."""
        return -(-height // self.patch_size), -(-width // self.patch_size)

    def check_input(self, image: Tensor) -> Tensor:
        """Return the image as (B, C, T, H, W).

        Args:
            image: (B, C, H, W) or (B, C, T, H, W).

        Raises:
            ValueError: Another number of dimensions, bands or frames.
        """
        series = image[:, :, None] if image.ndim == 4 else image
        if series.ndim != 5 or series.shape[1:3] != (len(self.bands), self.frames):
            raise GeopeftError(
                f"{self.card.name} takes C={len(self.bands)} bands, {', '.join(self.bands)}, and "
                f"T={self.frames} frames; got shape {(*image.shape,)}. See load_backbone(bands=)."
            )
        return series

    def prepare(
        self, image: Tensor, temporal: More, location: More
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Check an image and its metadata, see `forward`, and fill the image's last patches.

        Args:
            image: (B, C, H, W) or (B, C, T, H, W).
            temporal: (B, T, 2) year and day of year, or None.
            location: (B, 2) latitude and longitude in degrees, or None.

        Returns:
            The image (B, C, T, H', W'), and time and location as float32 on its device.
        """
        image = self.check_input(image)
        if temporal is not None:
            temporal = check_metadata(self.card, "time", temporal, image)
        if location is not None:
            location = check_metadata(self.card, "location", location, image)
        return pad_to_patches(image, self.reach or self.patch_size), temporal, location

    @abstractmethod
    def forward(self, image: Tensor, temporal: More = None, location: More = None) -> list[Tensor]:
        """Compute feature maps.

        Args:
            image: (B, C, H, W) or (B, C, T, H, W), normalised (see `normalise`).
            temporal: (B, T, 2) year and day of year, from `card.first_day`, for models that take
                time.
            location: (B, 2) latitude and longitude in degrees, for models that take location.

        Returns:
            One (B, D, h, w) map per chosen block, shallow to deep.
        """


class Stages(Backbone):
    """A backbone of maps with growing stride, such as a ResNet: returns all of them, or some.

    Attributes:
        stages: Features and pixels per cell of each map that the network makes, fine to coarse.
    """

    stages: Sequence[tuple[int, int]]

    def choose(self, layers: Sequence[int] | None) -> None:
        """Choose which maps are returned, None all; see `Backbone.choose`."""
        depth = len(self.stages)
        self.layers = (*range(depth),) if layers is None else choose_layers(layers, depth)
        self.channels, self.strides = zip(*(self.stages[i] for i in self.layers), strict=True)
        self.patch_size = self.strides[-1]

    @abstractmethod
    def maps(self, image: Tensor) -> Sequence[Tensor]:
        """Make the chosen maps (B, D, h, w) of images (B, C, H, W), which `reach` divides."""

    def forward(self, image: Tensor, temporal: More = None, location: More = None) -> list[Tensor]:
        """Compute the chosen maps; see `Backbone.forward`."""
        height, width = image.shape[-2:]
        image, _, _ = self.prepare(image, temporal, location)
        return [
            features[..., : -(-height // stride), : -(-width // stride)]
            for features, stride in zip(self.maps(image[:, :, 0]), self.strides, strict=True)
        ]


class Transformer(Backbone):
    """A backbone of equal blocks: an image becomes tokens, blocks change them, tokens become maps.

    A subclass says how an image becomes tokens (`begin`), and how tokens become a map, if it is
    not by the mean over all tokens of a patch.

    Attributes:
        blocks: All transformer blocks; each takes and returns tokens (B, N, D).
        norm: The final layer norm, which only the output of the last block passes.
        width: Features D of a token.
        prefix: Tokens that stand before those of the patches, such as a class token.
    """

    blocks: nn.ModuleList
    norm: nn.Module
    width: int
    prefix: int = 1

    def choose(self, layers: Sequence[int] | None) -> None:
        """Choose which blocks' outputs are returned; see `Backbone.choose`."""
        depth = len(self.blocks)
        self.layers = (depth - 1,) if layers is None else choose_layers(layers, depth)
        self.strides = (self.patch_size,) * len(self.layers)
        self.channels = (self.width,) * len(self.layers)

    def cut(self, depth: int) -> None:
        """Drop all blocks but the first `depth`; maps are taken at the same shares of the depth.

        Raises:
            ValueError: Two maps would be of one block.
        """
        running = self.layers[-1] + 1
        layers = [-(-(layer + 1) * depth // running) - 1 for layer in self.layers]
        choose_layers(layers, depth)
        self.uncut = self.uncut or self.layers
        del self.blocks[depth:]
        self.choose(layers)

    @abstractmethod
    def begin(self, image: Tensor, temporal: More = None, location: More = None) -> Begun:
        """Turn images into the tokens that the first block takes; see `forward` for the arguments.

        Returns:
            Tokens (B, prefix + N, D) and their grid, which ends in (h, w) unless `to_map` and
            `cells` say otherwise. Tokens that belong to no patch may follow the N of the patches.
        """

    def cells(self, grid: tuple[int, ...]) -> Tensor:
        """Return for each of the N tokens of patches the index row * w + column of its patch."""
        return torch.arange(math.prod(grid[-2:])).repeat(math.prod(grid[:-2]))

    def to_map(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Turn the tokens (B, prefix + N, D) that a block returned into a map (B, D, h, w)."""
        patches = tokens[:, self.prefix : self.prefix + math.prod(grid)]
        return patches.unflatten(1, (-1, *grid[-2:])).mean(dim=1).permute(0, 3, 1, 2)

    def forward(self, image: Tensor, temporal: More = None, location: More = None) -> list[Tensor]:
        """Compute one map per chosen block; see `Backbone.forward`."""
        tokens, grid = self.begin(image, temporal, location)
        kept = run_blocks(self.blocks, self.norm, self.layers, tokens)
        return [self.to_map(tokens, grid) for tokens in kept]


class CardTransformer(Transformer):
    """A transformer that is written out in this toolkit and has the sizes of its card.

    Attributes:
        eps: Epsilon of its layer norms.
        attention_bias: Whether the layers of its attention have a bias.
    """

    eps: float = 1e-5
    attention_bias: bool = True

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__(card, request)
        self.width, self.patch_size = card.width, card.patch_size

    def make_blocks(self) -> None:
        """Make the blocks and the final norm, and choose among them."""
        sizes = (self.width, self.card.heads, self.eps, self.attention_bias)
        self.blocks = nn.ModuleList(PreNormBlock(*sizes) for _ in range(self.card.depth))
        self.norm = nn.LayerNorm(self.width, eps=self.eps)
        self.choose(self.request.layers)


def block_names(backbone: Backbone) -> list[str]:
    """Return the full names of the transformer blocks that a backbone runs, in order.

    Blocks behind the last chosen layer are left out: nothing there would learn.

    Args:
        backbone: From `load_backbone`.

    Raises:
        ValueError: The backbone has no transformer blocks.
    """
    if not isinstance(backbone, Transformer):
        raise GeopeftError(
            f"{backbone.card.name} is a convolutional network: it has no transformer blocks, which "
            "this method needs. Attach 'linear_probe', 'bitfit' or 'full', or load a transformer "
            "such as 'geopeft_tiny' or 'prithvi_eo_v2_300'."
        )
    blocks = next(name for name, module in backbone.named_modules() if module is backbone.blocks)
    return [f"{blocks}.{number}" for number in range(backbone.layers[-1] + 1)]


def choose_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the chosen blocks as ascending indices from 0.

    Args:
        layers: Indices, negative ones count from the end.
        depth: Number of blocks, or of stages.

    Raises:
        ValueError: An index is outside the network, or given twice.
    """
    chosen = {index % depth for index in layers if -depth <= index < depth}
    if not 0 < len(layers) == len(chosen):
        raise GeopeftError(f"layers are different ones between 0 and {depth - 1}, got {layers!r}.")
    return tuple(sorted(chosen))


def check_metadata(card: BackboneCard, kind: str, value: Tensor, image: Tensor) -> Tensor:
    """Return time or location as float32 on the image's device.

    Args:
        card: Says what the model takes.
        kind: ``"time"`` or ``"location"``.
        value: (B, T, 2) year and day of year; or (B, 2) latitude and longitude in degrees.
        image: (B, C, T, H, W).

    Raises:
        ValueError: The model does not take it, or shape or range are wrong.
    """
    if not getattr(card, f"takes_{kind}"):
        raise GeopeftError(f"{card.name} does not take {kind}: leave it out.")
    batch, _, frames = image.shape[:3]
    shape, least, most, words = {
        "time": ((batch, frames, 2), (1, card.first_day), (9999, 366), "year and day of year"),
        "location": ((batch, 2), (-90, -360), (90, 360), "latitude and longitude in degrees"),
    }[kind]
    low, high = value.new_tensor(least), value.new_tensor(most)
    if value.shape != shape or not bool(((value >= low) & (value <= high)).all()):
        raise GeopeftError(
            f"{kind} must be {words} from {least} to {most} of shape {shape}; got {[*value.shape]}."
        )
    return value.to(image.device, torch.float32)


def calendar_day(year: float, day: float) -> date:
    """Return the date of a day of the year, counted from 1."""
    return date(int(year), 1, 1) + timedelta(int(day) - 1)


def adapt_kernel(
    kernel: Tensor, known: Sequence[str], wanted: Sequence[str], fresh: Tensor | None = None
) -> Tensor:
    """Choose the input channels of a first layer by band, also for bands it has never seen.

    A band that the model knows takes its own channel. One that it never saw takes a copy of the
    channel of the known band that is nearest in wavelength. Bands that take the same channel share
    its weight equally, so that equal reflectance in all of them has the effect of pretraining.

    Args:
        kernel: (D, C, ...) weights for the known bands.
        known: The C band names of the kernel.
        wanted: Band names of the images.
        fresh: (D, len(wanted), ...) of which bands without a wavelength keep theirs.

    Returns:
        (D, len(wanted), ...) weights.

    Raises:
        ValueError: The kernel is not for these bands.
    """
    if kernel.ndim < 3:
        return kernel  # no kernel at all: for the loader to refuse by its key
    if kernel.shape[1] != len(known):
        raise GeopeftError(
            f"The checkpoint's first layer is {tuple(kernel.shape)}, and that of the published one "
            f"has {len(known)} input channels: {', '.join(known)}."
        )
    places = [place for place, band in enumerate(wanted) if band in WAVELENGTHS]
    sources = [known.index(nearest_band(wanted[place], known)) for place in places]
    shares = torch.tensor([sources.count(index) for index in sources]).to(kernel)
    adapted = kernel[:, sources].float() / shares.reshape(-1, *[1] * (kernel.ndim - 2))
    if fresh is None or len(places) == len(wanted) or fresh[:, places].shape != adapted.shape:
        return adapted
    return fresh.detach().index_copy(1, torch.tensor(places), adapted)
