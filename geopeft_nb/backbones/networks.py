"""Networks that others wrote: of timm and torchgeo, a UNet that nobody pretrained, and your own.

torchgeo's ResNets and ViTs are timm's networks with weights of their own, so timm builds both. Of
them are taken those for all bands of Sentinel-2, whose pixels are reflectance times 10,000.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from geopeft_nb.backbones import base
from geopeft_nb.backbones.base import Begun, More
from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.backbones.vit import SelfAttention, renamed, split_qkv
from geopeft_nb.bands import band_name
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.files import FileEntry, hub_file

#: Reflectance that stands for 255 in the photographs that timm's weights were trained on. This
#: toolkit's choice, a usual stretch of true-colour images.
WHITE = 0.3


class TimmBackbone(base.Backbone):
    """A network that timm builds, without its classifier; its keys keep timm's names.

    Args:
        card: Its ``extra["timm"]`` is timm's name of the model.
        request: See `Backbone`.
        **options: What `timm.create_model` takes besides.
    """

    any_name = True

    def __init__(self, card: BackboneCard, request: base.BackboneRequest, **options: Any) -> None:
        super().__init__(card, request)
        self.network = _network(card.extra["timm"], len(self.bands), **options)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Drop classifier (`fc.*` of a ResNet, `head.*` of a ViT) and pooling, and choose bands.

        timm itself would repeat the RGB weights over further channels (`in_chans`), as the paper
        does; here each band takes the weights of its own or the nearest wavelength, and one without
        a wavelength keeps its fresh ones.
        """
        heads = ("fc", "head", "head_dist", "fc_norm", "attn_pool")
        kept = renamed(state, {"^": "network."}, [f"network.{head}." for head in heads])
        first = f"network.{self.network.pretrained_cfg['first_conv']}.weight"
        if first in kept:
            own = self.get_parameter(first)
            kept[first] = base.adapt_kernel(kept[first], self.card.bands, self.bands, own)
        return kept


class TimmStages(TimmBackbone, base.Stages):
    """A ResNet: its stages, of at least 4 pixels per cell."""

    def __init__(self, card: BackboneCard, request: base.BackboneRequest) -> None:
        super().__init__(card, request)
        sizes = [(info["num_chs"], info["reduction"]) for info in self.network.feature_info]
        #: Index of each stage among timm's feature maps.
        self.indices = [index for index, (_, stride) in enumerate(sizes) if stride >= 4]
        self.stages = [sizes[index] for index in self.indices]
        self.reach = sizes[-1][1]
        self.choose(request.layers)

    def maps(self, image: Tensor) -> Sequence[Tensor]:
        """Compute one map per chosen stage; see `Stages.maps`."""
        taken = [self.indices[layer] for layer in self.layers]
        return self.network.forward_intermediates(
            image, taken, stop_early=True, intermediates_only=True
        )


class SplitAttention(SelfAttention):
    """A timm attention with a layer each for queries, keys and values, without dropout."""

    def __init__(self, fused: Any) -> None:
        super().__init__(fused.qkv.in_features, fused.num_heads, fused.qkv.bias is not None)
        self.proj = fused.proj
        self.load_state_dict(split_qkv(fused.state_dict(), ()))

    def forward(self, x: Tensor, *args: object, **options: object) -> Tensor:
        """Attend (B, N, D) to itself: (B, N, D); plain blocks give masks that are None."""
        return super().forward(x)


class TimmViT(TimmBackbone, base.Transformer):
    """A plain vision transformer of timm, which resizes its position codes to each image."""

    def __init__(self, card: BackboneCard, request: base.BackboneRequest) -> None:
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
    def blocks(self) -> Any:  # type: ignore[override]
        """The transformer blocks."""
        return self.network.blocks

    @property
    def norm(self) -> Any:  # type: ignore[override]
        """The final layer norm."""
        return self.network.norm

    def begin(self, image: Tensor, temporal: More = None, location: More = None) -> Begun:
        """Make prefix and patch tokens; see `Transformer.begin`. The grid is (h, w)."""
        image, _, _ = self.prepare(image, temporal, location)  # it takes neither time nor location
        patches = self.network.patch_embed(image[:, :, 0])  # (B, h, w, D)
        tokens = self.network.patch_drop(self.network._pos_embed(patches))
        return self.network.norm_pre(tokens), tuple(patches.shape[1:3])


class OwnBackbone(base.Stages):
    """What a card of the family ``"own"`` describes; it is built by ``card.extra["build"]``.

    Args:
        card: Its ``build`` takes the number of bands and makes the network, which takes
            (B, C, H, W) and returns a list of maps (B, D, h, w), fine to coarse.
        request: See `Backbone`.
    """

    any_name = True

    def __init__(self, card: BackboneCard, request: base.BackboneRequest) -> None:
        super().__init__(card, request)
        self.network: Any = card.extra["build"](len(self.bands)).eval()
        size = card.img_size
        with torch.no_grad():  # one image is tried, to learn the sizes of its maps
            maps = self.network(torch.zeros(1, len(self.bands), size, size))
        self.stages = [(one.shape[1], size // one.shape[-1]) for one in maps]
        self.reach = self.stages[-1][1]
        self.choose(request.layers)
        self.train()

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the network's own `state_dict`."""
        return renamed(state, {"^": "network."})

    def maps(self, image: Tensor) -> Sequence[Tensor]:
        """Compute the chosen maps; see `Stages.maps`."""
        maps = self.network(image)
        return [maps[layer] for layer in self.layers]


class UNet(base.Stages):
    """segmentation-models-pytorch's UNet without its last layer, as one map at full resolution.

    Of the image it makes (B, 16, H, W), so that a linear decoder on it is a 1×1 convolution to the
    classes (the library's own last layer is 3×3). All weights are random.
    """

    any_name = True
    stages = ((16, 1),)
    reach = 32  # pixels per cell of the encoder's deepest map

    def __init__(self, card: BackboneCard, request: base.BackboneRequest) -> None:
        super().__init__(card, request)
        # Here, because it takes seconds to import and only this network needs it.
        import segmentation_models_pytorch as smp

        self.network = smp.Unet("resnet50", encoder_weights=None, in_channels=len(self.bands))
        self.network.segmentation_head = nn.Identity()
        # The library makes its first layer on the CPU, also under `torch.device("meta")`.
        self.network.to(torch.empty(0).device)
        self.choose(request.layers)

    def maps(self, image: Tensor) -> Sequence[Tensor]:
        """Compute one (B, 16, H, W) map; see `Stages.maps`."""
        return [self.network(image)]


def make_card(name: str) -> BackboneCard:
    """Make the card of a model of torchgeo or timm.

    Args:
        name: ``"torchgeo:"`` and a weight ``SENTINEL2_ALL_…`` of a ResNet or ViT of torchgeo, or
            ``"timm:"`` and a model of timm, with or without the tag of its weights.

    Returns:
        The card. Its statistics are in reflectance: of torchgeo its own transforms', of timm those
        of photographs whose 255 is taken to be `WHITE`.

    Raises:
        ValueError: Unknown name, or a network of another kind.
        ImportError: torchgeo is not installed.
    """
    library, _, model = name.partition(":")
    facts = {"torchgeo": _torchgeo_facts, "timm": _timm_facts}[library](model)
    card = BackboneCard(
        name=name, title=f"{model} of {library}", **facts,
        family="", patch_size=1, width=0, depth=0, heads=0, parameters=0,  # read off below
    )  # fmt: skip
    request = base.BackboneRequest(card.bands, card.img_size)
    try:
        with torch.device("meta"):
            network = _network(card.extra["timm"], len(card.bands))
            vit = type(getattr(network, "patch_embed", None)) is PatchEmbed
            if not isinstance(network, VisionTransformer if vit else ResNet):
                raise TypeError(f"a {type(network).__name__}")
            backbone: Any = (TimmViT if vit else TimmStages)(card, request)
    except Exception as error:  # whatever timm and torch raise for attention of another kind
        raise GeopeftError(
            f"{card.name} cannot be used. Of timm, this toolkit takes plain vision transformers "
            "(vit_…, deit…, but no hybrids, no DINOv3 and no attention with norms or gates of its "
            "own), and ResNets and their kin (resnet50, resnext50_32x4d, seresnet50, …)."
        ) from error
    return replace(
        card,
        family="vit" if vit else "resnet",
        patch_size=backbone.patch_size,
        width=backbone.channels[-1],
        depth=len(backbone.blocks if vit else backbone.stages),
        heads=backbone.blocks[0].attn.num_heads if vit else 0,
        parameters=sum(weight.numel() for weight in backbone.parameters()),
    )


def _timm_facts(model: str) -> dict[str, Any]:
    check_name("timm model", model, timm.list_models(pretrained="." in model))
    config: Any = timm.get_pretrained_cfg(model)
    licence, url = config.license or "not stated by timm", config.url or ""
    if hub := config.hf_hub_id:
        stored = "model.safetensors"
        file = hub_file(f"{hub.rpartition('/')[2]}/{stored}", hub, stored, licence=licence)
    else:  # a model of which timm has no weights has no address: loading it must fail
        file = FileEntry(url.rpartition("/")[2] or model, url=url, licence=licence)
    return dict(
        sensor="RGB photographs",
        bands=("RED", "GREEN", "BLUE"),
        mean=tuple(WHITE * value for value in config.mean),
        std=tuple(WHITE * value for value in config.std),
        img_size=config.input_size[-1],
        weights=file,
        citation=config.origin_url or f"timm, {model}",
        extra={"timm": model},
    )


def _torchgeo_facts(model: str) -> dict[str, Any]:
    from torchgeo import models  # an extra; Python says so where it is missing

    kinds = [kind for kind in vars(models) if re.fullmatch(r"(ResNet|ViT)\w+_Weights", kind)]
    weights = [weight for kind in kinds for weight in getattr(models, kind)]
    known = {str(weight): weight for weight in weights if ".SENTINEL2_ALL_" in str(weight)}
    check_name("torchgeo weight for all bands of Sentinel-2", model, known)
    weight, kind = known[model], model.partition("_")[0]
    bands = tuple(band_name(f"S2:{number}") for number in weight.meta["bands"])
    # Its transforms are linear in each band: two images of one colour say how they scale.
    black, white = (
        weight.transforms(torch.full((1, len(bands), 256, 256), 10_000 * value))[0, :, 99, 99]
        for value in (0.0, 1.0)
    )
    std = 1 / (white - black)
    # The field `model` of some ResNets names another depth; the class of the weight is right.
    network = kind.lower() if kind.startswith("ResNet") else weight.meta["model"]
    licence = weight.meta.get("license", "not stated by torchgeo: see its card")
    return dict(
        sensor=weight.meta["dataset"],
        bands=bands,
        mean=tuple((-black * std).tolist()),
        std=tuple(std.tolist()),
        img_size=weight.meta.get("img_size", 224),
        weights=FileEntry(weight.url.rpartition("/")[2], url=weight.url, licence=licence),
        citation=weight.meta["publication"],
        extra={"timm": network},
    )


def _network(name: str, channels: int, **options: Any) -> Any:
    """Build an untrained timm model without classifier."""
    return timm.create_model(name, pretrained=False, in_chans=channels, num_classes=0, **options)
