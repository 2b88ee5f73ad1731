"""Backbones of timm and torchgeo: plain ViTs, and networks that have stages, such as a ResNet.

torchgeo's ResNets and ViTs are timm's networks with weights of their own, so timm builds both.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from typing import Any, Self

import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import (  # type: ignore[attr-defined]
    Attention,  # newer releases define it in timm.layers and import it here
    VisionTransformer,
)
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.base import Backbone, Request, Transformer, adapt_kernel, choose_layers
from geopeft_nb.backbones.catalog import BackboneCard
from geopeft_nb.backbones.torchgeo_weights import WHITE, bands_of, scaling_of
from geopeft_nb.backbones.vit import pad_to_patches
from geopeft_nb.errors import GeopeftError, unknown_name
from geopeft_nb.files import FileEntry, hub_file


class TimmBackbone(Backbone):
    """A network that timm builds, without its classifier; its keys keep timm's names.

    Args:
        network: The timm model, with as many input channels as there are bands.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Drop the classifier (`fc.*` of a ResNet, `head.*` of a ViT) and choose bands.

        timm itself would repeat the RGB weights over further channels (`in_chans`), as the paper
        does; here each band takes the weights of its own or the nearest wavelength.
        """
        classifier = self.network.pretrained_cfg.get("classifier") or ()
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        kept = {key: value for key, value in state.items() if key.rpartition(".")[0] not in heads}
        for first in _first_layers(self.card.extra["timm"], len(self.card.bands)):
            if first in kept:
                kept[first] = adapt_kernel(kept[first], self.card.bands, self.bands)
        return {f"network.{key}": value for key, value in kept.items()}


class TimmStages(TimmBackbone):
    """A network with stages of growing stride, such as a ResNet: returns all stages, or some.

    Where a network ends in a norm, the map of its last stage has passed it, and no other map.

    Args:
        name: timm's name of the model.
        channels: Input bands C.
        layers: Stages whose output is returned; None means all.
    """

    def __init__(self, name: str, channels: int, layers: Sequence[int] | None = None) -> None:
        super().__init__(_network(name, channels))
        self.choose(layers)
        info = self.network.feature_info
        self.deepest_stride = max(info[stage]["reduction"] for stage in _stages(self.network))

    def choose(self, layers: Sequence[int] | None) -> None:
        """Choose which stages' outputs are returned; see `Backbone.choose`."""
        stages, info = _stages(self.network), self.network.feature_info
        self.layers = choose_layers(range(len(stages)) if layers is None else layers, len(stages))
        self.taken = [stages[layer] for layer in self.layers]
        self.strides = tuple(info[stage]["reduction"] for stage in self.taken)
        self.channels = tuple(info[stage]["num_chs"] for stage in self.taken)
        self.patch_size = self.strides[-1]

    @classmethod
    def from_card(cls, card: BackboneCard, request: Request) -> Self:
        """Build the untrained network of a card; see `Backbone.from_card`."""
        return cls(card.extra["timm"], len(request.bands), request.layers)

    def forward(
        self, image: Tensor, temporal: Tensor | None = None, location: Tensor | None = None
    ) -> list[Tensor]:
        """Compute one map per chosen stage; see `Backbone.forward`."""
        image = self.check_input(image)
        self.check_metadata(image, temporal, location)
        height, width = image.shape[-2:]
        maps = self.network.forward_intermediates(
            pad_to_patches(image, self.deepest_stride)[:, :, 0],
            indices=self.taken, norm=True, stop_early=True, intermediates_only=True,
        )  # fmt: skip
        return [
            features[..., : -(-height // stride), : -(-width // stride)]
            for features, stride in zip(maps, self.strides, strict=True)
        ]


class SplitAttention(Attention):
    """timm's attention with a layer each for queries, keys and values, without dropout."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Attend (B, N, D) to itself: (B, N, D)."""
        query, key, value = (
            layer(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(
            self.q_norm(query), self.k_norm(key), value, attn_mask=attn_mask, is_causal=is_causal
        )
        return self.proj(self.norm(mixed.transpose(1, 2).flatten(2)))


def split_attention(attention: Any) -> None:  # noqa: ANN401 - timm's, which mypy reads as any
    """Turn the fused projection of a timm attention into three layers, in place."""
    fused = attention.qkv
    del attention.qkv
    width, has_bias = fused.out_features // 3, fused.bias is not None
    for name, weight, bias in zip(
        "qkv", fused.weight.chunk(3), fused.bias.chunk(3) if has_bias else [None] * 3, strict=True
    ):
        layer = nn.Linear(fused.in_features, width, bias=has_bias, device="meta")
        layer.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        setattr(attention, name, layer)
    attention.__class__ = SplitAttention


class TimmViT(TimmBackbone, Transformer):
    """A plain vision transformer of timm; position codes are resized for other image sizes.

    Args:
        name: timm's name of the model.
        channels: Input bands C.
        img_size: Image side in pixels that the stored position codes are made for.
        layers: Blocks whose output is returned; None means the last one.
    """

    def __init__(
        self, name: str, channels: int, img_size: int, layers: Sequence[int] | None = None
    ) -> None:
        super().__init__(_network(name, channels, img_size=img_size, dynamic_img_size=True))
        # Pooling belongs to the classifier.
        self.network.fc_norm, self.network.attn_pool = nn.Identity(), None
        for module in list(self.blocks.modules()):
            if type(module) is Attention and getattr(module, "gate", None) is None:
                split_attention(module)
        self.patch_size = self.network.patch_embed.patch_size[0]
        if self.network.pos_embed is not None:
            self.trained_grid = img_size // self.patch_size
        self.width, self.prefix = self.network.embed_dim, self.network.num_prefix_tokens
        self.choose(layers)

    @property
    def blocks(self) -> Any:  # type: ignore[override]  # noqa: ANN401 - timm's own, under `network`
        """The transformer blocks."""
        return self.network.blocks

    @property
    def norm(self) -> Any:  # type: ignore[override]  # noqa: ANN401
        """The final layer norm."""
        return self.network.norm

    @classmethod
    def from_card(cls, card: BackboneCard, request: Request) -> Self:
        """Build the untrained network of a card; see `Backbone.from_card`."""
        return cls(card.extra["timm"], len(request.bands), request.img_size, request.layers)

    def translate(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Also drop the pooling `fc_norm.*` and `attn_pool.*`, and resize position codes.

        Codes are resized only from the image size of the card to the one that was asked for.
        """
        pooling = ("fc_norm.", "attn_pool.")
        state = super().translate({k: v for k, v in state.items() if not k.startswith(pooling)})
        old, new = self.card.img_size // self.patch_size, self.trained_grid
        codes = state.get("network.pos_embed")
        if codes is not None and new is not None and old != new:
            own = self.network.pos_embed
            prefix = own.shape[1] - new**2  # codes of the class token and the like
            if codes.shape == (1, prefix + old**2, own.shape[2]):
                state["network.pos_embed"] = resample_abs_pos_embed(
                    codes, [new, new], [old, old], num_prefix_tokens=prefix
                )
                self.notes = (f"position codes resized from {old}×{old} to {new}×{new} patches",)
        return state

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
    return {"torchgeo": _torchgeo_card, "timm": _timm_card}[library](name, model)


def _timm_card(name: str, model: str) -> BackboneCard:
    config: Any = None
    with contextlib.suppress(RuntimeError):  # timm's error for an unknown tag
        config = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    if config is None:
        known = timm.list_models(pretrained="." in model)
        raise unknown_name("timm model", model, _near(model, known))
    licence = config.license or "not stated by timm"
    # A model of which timm has no weights keeps an entry without address: loading it must fail.
    path = (config.url or "").rpartition("/")[2] or f"{model}/model.safetensors"
    file = FileEntry(path, url=config.url or "", licence=licence)
    if config.hf_hub_id:
        path = config.hf_hub_filename or "model.safetensors"
        local = f"{config.hf_hub_id.rpartition('/')[2]}/{path}"
        file = hub_file(local, config.hf_hub_id, path, licence=licence)
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
        **_facts(name, model, 3),
    )


def _torchgeo_card(name: str, model: str) -> BackboneCard:
    try:
        from torchgeo import models
    except ImportError as error:
        raise ImportError(f"{name} needs torchgeo: pip install torchgeo") from error
    kinds = [kind for kind in vars(models) if kind.endswith("_Weights")]
    known = {str(weight): weight for kind in kinds for weight in getattr(models, kind)}
    if model not in known:
        raise unknown_name("torchgeo weight", model, _near(model, known))
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
        **_facts(name, network, len(bands)),
    )


def _network(name: str, channels: int, **options: Any) -> Any:  # noqa: ANN401 - as in timm
    """Build an untrained timm model without classifier."""
    return timm.create_model(name, pretrained=False, in_chans=channels, num_classes=0, **options)


def _stages(network: Any) -> list[int]:  # noqa: ANN401
    """Return which of timm's feature maps are stages: those of at least 4 pixels per cell."""
    return [i for i, info in enumerate(network.feature_info) if info["reduction"] >= 4]


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


def _facts(name: str, model: str, channels: int) -> dict[str, Any]:
    """Build a timm model without memory and read off what a card says about its network."""
    try:
        with torch.device("meta"):
            _first_layers(model, channels)
            network = _network(model, channels).eval()  # batch norm refuses to train on one value
            read = _vit_facts if isinstance(network, VisionTransformer) else _stage_facts
            return {"extra": {"timm": model}} | read(model, network, channels)
    except Exception as error:  # whatever timm raises for a network of another kind
        raise GeopeftError(
            f"{name} cannot be used. Of timm, this toolkit takes plain vision transformers "
            "(vit_…, deit…, but no hybrids and no DINOv3), and networks for images of any size "
            "whose stages get coarser step by step (resnet50, convnext_tiny, …)."
        ) from error


def _vit_facts(model: str, network: Any, channels: int) -> dict[str, Any]:  # noqa: ANN401
    """Describe a ViT; a patch that is no single layer on the image (a hybrid) fails the check."""
    patch = network.patch_embed.patch_size[0]
    vit = TimmViT(model, channels, network.patch_embed.img_size[0])
    maps = vit.network.forward_intermediates(
        torch.zeros(1, channels, 4 * patch, 6 * patch), indices=1, intermediates_only=True
    )
    kernel = network.patch_embed.proj.weight
    if maps[0].shape[-2:] != (4, 6) or kernel.shape[2:] != (patch, patch):
        raise GeopeftError(f"the patches of {model} are not those of its first layer")
    return {
        "family": "vit", "patch_size": patch, "width": network.embed_dim,
        "depth": len(vit.blocks), "heads": vit.network.blocks[0].attn.num_heads,
        "parameters": sum(p.numel() for p in vit.parameters()),
    }  # fmt: skip


def _stage_facts(model: str, network: Any, channels: int) -> dict[str, Any]:  # noqa: ANN401
    """Describe a network with stages; one of equal blocks, and one of a fixed size, fail."""
    info = [network.feature_info[stage] for stage in _stages(network)]
    maps = network.forward_intermediates(
        torch.zeros(1, channels, 64, 96),
        indices=_stages(network), norm=True, intermediates_only=True,
    )  # fmt: skip
    strides = [stage["reduction"] for stage in info]
    shapes = [(m.shape[1], 64 // m.shape[2], 96 // m.shape[3]) for m in maps]
    if shapes != [(i["num_chs"], i["reduction"], i["reduction"]) for i in info]:
        raise GeopeftError(f"{model} gives maps of {shapes}")
    if len(set(strides)) < 2 or strides != sorted(set(strides)):
        raise GeopeftError(f"the stages of {model} have {strides} pixels per cell")
    return {
        "family": "resnet", "patch_size": strides[-1], "width": info[-1]["num_chs"],
        "depth": len(info), "heads": 0, "parameters": sum(p.numel() for p in network.parameters()),
    }  # fmt: skip


def _near(name: str, known: Sequence[str] | dict[str, object]) -> list[str]:
    """Choose the five nearest names for a message, of those that begin alike if there are any."""
    alike = [other for other in known if other[:3].lower() == name[:3].lower()]
    return difflib.get_close_matches(name, alike or list(known), n=5, cutoff=0.0)
