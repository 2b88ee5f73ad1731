"""Backbones of timm and torchgeo: plain ViTs, and networks that have stages, such as a ResNet.

torchgeo's ResNets and ViTs are timm's networks with weights of their own, so timm builds both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from geopeft_nb.backbones.base import Backbone, BackboneRequest, Stages, Transformer, adapt_kernel
from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.backbones.vit import SelfAttention, split_qkv
from geopeft_nb.bands import band_name
from geopeft_nb.errors import GeopeftError, did_you_mean
from geopeft_nb.files import FileEntry, hub_file

#: Reflectance that stands for 255 in the 8-bit images that some weights were trained on. This
#: toolkit's choice, a usual stretch of true-colour images: timm and torchgeo leave it to the user.
WHITE = 0.3
#: Part of the name of a torchgeo weight -> prefix of its band numbers.
_LANDSAT = {"LANDSAT_TM": "L5", "LANDSAT_ETM": "L7", "LANDSAT_OLI": "L8"}
#: What a card says about its network before the network was looked at, see `_measured`.
UNKNOWN: dict[str, Any] = dict(family="", patch_size=1, width=0, depth=0, heads=0, parameters=0)


class TimmBackbone(Backbone):
    """A network that timm builds, without its classifier; its keys keep timm's names.

    Args:
        card: Its ``extra["timm"]`` is timm's name of the model.
        request: See `Backbone`.
        **options: What `timm.create_model` takes besides.
    """

    any_name = True

    def __init__(self, card: BackboneCard, request: BackboneRequest, **options: Any) -> None:  # noqa: ANN401
        super().__init__(card, request)
        self.network = _network(card.extra["timm"], len(self.bands), **options)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Drop the classifier (`fc.*` of a ResNet, `head.*` of a ViT) and choose bands.

        timm itself would repeat the RGB weights over further channels (`in_chans`), as the paper
        does; here each band takes the weights of its own or the nearest wavelength, and one without
        a wavelength keeps its fresh ones.
        """
        classifier = self.network.pretrained_cfg.get("classifier") or ()
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        kept = {key: value for key, value in state.items() if key.rpartition(".")[0] not in heads}
        own = self.network.state_dict()
        for first in _first_layers(self.card.extra["timm"], len(self.card.bands)):
            if first in kept:
                kept[first] = adapt_kernel(kept[first], self.card.bands, self.bands, own.get(first))
        return {f"network.{key}": value for key, value in kept.items()}


class TimmStages(TimmBackbone, Stages):
    """A network with stages, such as a ResNet: those of at least 4 pixels per cell.

    Where a network ends in a norm, the map of its last stage has passed it, and no other map.
    """

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__(card, request)
        reductions = [info["reduction"] for info in self.network.feature_info]
        #: Index of each stage among timm's feature maps.
        self.indices = [index for index, stride in enumerate(reductions) if stride >= 4]
        infos = [self.network.feature_info[index] for index in self.indices]
        self.stages = [(info["num_chs"], info["reduction"]) for info in infos]
        self.reach = reductions[-1]
        self.choose(request.layers)

    def maps(self, image: Tensor) -> Sequence[Tensor]:
        """Compute one map per chosen stage; see `Stages.maps`."""
        taken = [self.indices[layer] for layer in self.layers]
        maps: list[Tensor] = self.network.forward_intermediates(
            image, taken, norm=True, stop_early=True, intermediates_only=True
        )
        return maps


class SplitAttention(SelfAttention):
    """A timm attention with a layer each for queries, keys and values, without dropout."""

    def __init__(self, fused: Any) -> None:  # noqa: ANN401 - timm's attention
        super().__init__(fused.qkv.in_features, fused.num_heads, fused.qkv.bias is not None)
        self.proj = fused.proj
        self.load_state_dict(split_qkv(fused.state_dict(), ()))

    def forward(self, x: Tensor, *args: object, **options: object) -> Tensor:
        """Attend (B, N, D) to itself: (B, N, D); plain blocks give masks that are None."""
        return super().forward(x)


class TimmViT(TimmBackbone, Transformer):
    """A plain vision transformer of timm, which resizes its position codes to each image."""

    def __init__(self, card: BackboneCard, request: BackboneRequest) -> None:
        super().__init__(card, request, img_size=card.img_size, dynamic_img_size=True)
        # Pooling belongs to the classifier.
        self.network.fc_norm, self.network.attn_pool = nn.Identity(), None
        for block in self.blocks:
            block.attn = SplitAttention(block.attn)
        self.patch_size = self.network.patch_embed.patch_size[0]
        if self.network.pos_embed is not None:
            self.trained_grid = card.img_size // self.patch_size
        self.width, self.prefix = self.network.embed_dim, self.network.num_prefix_tokens
        self.choose(request.layers)

    @property
    def blocks(self) -> Any:  # type: ignore[override]  # noqa: ANN401 - timm's own, under `network`
        """The transformer blocks."""
        return self.network.blocks

    @property
    def norm(self) -> Any:  # type: ignore[override]  # noqa: ANN401
        """The final layer norm."""
        return self.network.norm

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Also drop the pooling `fc_norm.*` and `attn_pool.*`."""
        pooling = ("fc_norm.", "attn_pool.")
        return super().translate({k: v for k, v in state.items() if not k.startswith(pooling)})

    def begin(
        self, image: Tensor, temporal: Tensor | None = None, location: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Make prefix and patch tokens; see `Transformer.begin`. The grid is (h, w)."""
        image, _, _ = self.prepare(image, temporal, location)  # it takes neither time nor location
        patches = self.network.patch_embed(image[:, :, 0])  # (B, h, w, D)
        tokens = self.network.patch_drop(self.network._pos_embed(patches))
        return self.network.norm_pre(tokens), tuple(patches.shape[1:3])


def make_card(name: str) -> BackboneCard:
    """Make the card of a model of torchgeo or timm.

    Args:
        name: ``"torchgeo:"`` and a weight of a ResNet or ViT of torchgeo, or ``"timm:"`` and a
            model of timm, with or without the tag of its weights.

    Returns:
        The card. Scaling: torchgeo's `Normalize` steps, in reflectance; of weights that were
        trained on 8-bit images (all of timm's, Satlas RGB, SeCo, Landsat) 255 is taken to be
        reflectance `WHITE`, before the mean and standard deviation of their photographs.

    Raises:
        ValueError: Unknown name, a network of another kind, bands that the toolkit does not know,
            or a scaling that contradicts itself (SeCo).
        ImportError: torchgeo is not installed.
    """
    library, _, model = name.partition(":")
    return _measured({"torchgeo": _torchgeo_card, "timm": _timm_card}[library](name, model))


def _timm_card(name: str, model: str) -> BackboneCard:
    _check_name("timm model", model, timm.list_models(pretrained="." in model))
    config: Any = timm.get_pretrained_cfg(model)
    licence, url = config.license or "not stated by timm", config.url or ""
    if hub := config.hf_hub_id:
        stored = "model.safetensors"
        file = hub_file(f"{hub.rpartition('/')[2]}/{stored}", hub, stored, licence=licence)
    else:  # a model of which timm has no weights has no address: loading it must fail
        file = FileEntry(url.rpartition("/")[2] or model, url=url, licence=licence)
    return BackboneCard(
        name=name,
        title=f"{model} of timm",
        sensor="RGB photographs",
        bands=("RED", "GREEN", "BLUE"),
        mean=tuple(WHITE * value for value in config.mean),
        std=tuple(WHITE * value for value in config.std),
        img_size=config.input_size[-1],
        weights=file,
        citation=config.origin_url or f"timm, {model}",
        extra={"timm": model},
        **UNKNOWN,
    )


def _torchgeo_card(name: str, model: str) -> BackboneCard:
    from torchgeo import models  # an extra; Python says so where it is missing

    kinds = [kind for kind in vars(models) if kind.endswith("_Weights")]
    known = {str(weight): weight for kind in kinds for weight in getattr(models, kind)}
    _check_name("torchgeo weight", model, known)
    weight, kind = known[model], model.partition("_")[0]
    if not kind.startswith(("ResNet", "ViT")):
        raise GeopeftError(f"{name} is no ResNet or ViT, the ones of torchgeo that can be loaded.")
    bands = bands_of(name, weight.meta.get("bands"))
    mean, std = scaling_of(name, weight.transforms, len(bands))
    # The field `model` of some ResNets names another depth; the class of the weight is right.
    network = kind.lower() if kind.startswith("ResNet") else weight.meta["model"]
    licence = weight.meta.get("license", "not stated by torchgeo: see its card")
    return BackboneCard(
        name=name,
        title=f"{model} of torchgeo",
        sensor=weight.meta.get("dataset", "not stated"),
        bands=bands,
        mean=mean,
        std=std,
        img_size=weight.meta.get("img_size", 224),
        weights=FileEntry(weight.url.rpartition("/")[2], url=weight.url, licence=licence),
        citation=weight.meta.get("publication", "torchgeo"),
        extra={"timm": network},
        **UNKNOWN,
    )


def bands_of(name: str, numbers: Sequence[str] | None) -> tuple[str, ...]:
    """Name the bands of a weight: the same number is another band on another sensor."""
    if numbers is None and "_RGB_" in name:
        return ("RED", "GREEN", "BLUE")
    sensor = next((n for part, n in _LANDSAT.items() if part in name), "S2")
    plain = [number.removeprefix("SR_") for number in numbers or ("not listed by torchgeo",)]
    return tuple(band_name(f"{sensor}:{number}") for number in plain)


def scaling_of(
    name: str, transforms: nn.Module, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Read off a mean and std per band, in reflectance, from what a weight makes of two images.

    Its transforms are linear in each band. Pixels are 8-bit where all bands are divided by 255 or
    less, or this one by just 255; otherwise they are reflectance times 10,000.
    """
    if name.endswith("_RGB_SECO"):  # its own code divides by 255 again; torchgeo's does not
        raise GeopeftError(
            f"{name} cannot be used: torchgeo scales its images to 0-255, and then as if they were "
            "0-1, to around a thousand instead of one. Choose another weight."
        )
    black, white = (
        transforms(torch.full((1, channels, 256, 256), value))[0, :, 99, 99]
        for value in (0.0, 10_000.0)
    )
    std = 10_000 / (white - black)
    eight_bit = std.isclose(torch.tensor(255.0)) | (std.max() < 255.1)
    unit = torch.where(eight_bit, WHITE / 255, 1 / 10_000)
    return tuple((-black * std * unit).tolist()), tuple((std * unit).tolist())


def _network(name: str, channels: int, **options: Any) -> Any:  # noqa: ANN401 - as in timm
    """Build an untrained timm model without classifier."""
    return timm.create_model(name, pretrained=False, in_chans=channels, num_classes=0, **options)


def _first_layers(model: str, channels: int) -> list[str]:
    """Return the keys of the weights that read the image: those that one band more enlarges.

    timm's own entry, `first_conv`, leaves some out where several layers read the image.
    """
    with torch.device("meta"):
        own, larger = (_network(model, count).state_dict() for count in (channels, channels + 1))
    keys = [key for key, value in own.items() if value.shape != larger[key].shape]
    if not keys or any(own[key].shape[1:2] != (channels,) for key in keys):
        raise GeopeftError(f"{model} has no first layer with one channel per band.")
    return keys


def _measured(card: BackboneCard) -> BackboneCard:
    """Build a network without memory, try it, and read off what a card says about it.

    Its maps must be those that it announces: of a ViT by one layer on the image, which a hybrid
    has not; else coarser step by step. Networks for images of one size fail.
    """
    model, bands = card.extra["timm"], card.bands
    try:
        with torch.device("meta"):
            first = _first_layers(model, len(bands))
            vit = isinstance(_network(model, len(bands)), VisionTransformer)
            request = BackboneRequest(bands, card.img_size)
            backbone: Any = (TimmViT if vit else TimmStages)(card, request)
            patch, strides = backbone.patch_size, backbone.strides
            # In evaluation, because batch norm refuses to train on one value.
            maps = backbone.eval()(torch.zeros(1, len(bands), 4 * patch, 6 * patch))
        sizes = zip(backbone.channels, strides, strict=True)
        shapes = [(width, 4 * patch // s, 6 * patch // s) for width, s in sizes]
        coarser = len(strides) > 1 and sorted({*strides}) == [*strides]
        fits = first == ["patch_embed.proj.weight"] if vit else coarser
        if [tuple(features.shape[1:]) for features in maps] != shapes or not fits:
            raise GeopeftError(f"{card.name} has a first layer {first} and strides {strides}")
    except Exception as error:  # whatever timm raises for a network of another kind
        raise GeopeftError(
            f"{card.name} cannot be used. Of timm, this toolkit takes plain vision transformers "
            "(vit_…, deit…, but no hybrids, no DINOv3 and no attention with norms or gates of its "
            "own), and networks for images of any size whose stages get coarser step by step "
            "(resnet50, convnext_tiny, …)."
        ) from error
    return replace(
        card,
        family="vit" if vit else "resnet",
        patch_size=patch,
        width=backbone.channels[-1],
        depth=len(backbone.blocks if vit else backbone.stages),
        heads=backbone.blocks[0].attn.num_heads if vit else 0,
        parameters=sum(weight.numel() for weight in backbone.parameters()),
    )


def _check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Refuse an unknown name; all that are known would be more than a thousand."""
    if name not in known:
        raise GeopeftError(f"Unknown {kind} {name!r}.{did_you_mean(name, known)}")
