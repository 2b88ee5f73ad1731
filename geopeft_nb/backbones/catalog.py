"""One card per foundation model: whatever differs between models is a field, not an `if`.

Sources: the model cards of the published weights, and the tables of `BackboneCard.citation`.
Published statistics are in Sentinel-2 digital numbers; they are divided by 10,000 here, because the
toolkit's images are reflectance 0-1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geopeft_nb.bands import HLS_BANDS, SENTINEL2_BANDS, WAVELENGTHS, nearest_band
from geopeft_nb.files import FileEntry, hub_file

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BackboneCard:
    """Facts about one backbone, as published.

    Attributes:
        name: What `load_backbone` takes.
        title: Full name with version.
        family: Network code that builds it, see `FAMILIES` in `backbones/load.py`.
        sensor: What it was pretrained on.
        bands: Band names in the order of the checkpoint's input channels.
        mean: Pretraining mean per band, reflectance 0-1.
        std: Pretraining standard deviation per band, reflectance 0-1.
        scheme: How pretraining scaled images, see `scale_by`.
        patch_size: Patch side in pixels (of a network with stages, pixels per cell of the last).
        img_size: Side in pixels of the images it was pretrained on.
        frames: Time steps it was pretrained on.
        max_frames: Most time steps it can take.
        width: Features per token (of the last stage).
        depth: Transformer blocks, or stages.
        heads: Attention heads per block; 0 without attention.
        parameters: Weights of the encoder as published, for its own bands; of Galileo those that
            act on Sentinel-2 images.
        decoder: (width, depth, heads) of its masked-autoencoder decoder, if that is published.
        weights: The checkpoint file; None if there is none.
        citation: Paper or card to cite.
        takes_time: Whether acquisition dates are an input.
        takes_location: Whether coordinates are an input.
        first_day: Number of 1 January in the times that it takes.
        takes_gsd: Whether metres per pixel are an input.
        extra: What only this family needs.
    """

    name: str
    title: str
    family: str
    sensor: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch_size: int
    img_size: int
    width: int
    depth: int
    heads: int
    parameters: int
    weights: FileEntry | None
    citation: str
    frames: int = 1
    max_frames: int = 1
    scheme: str = "standard"
    decoder: tuple[int, int, int] | None = None
    takes_time: bool = False
    takes_location: bool = False
    takes_gsd: bool = False
    first_day: int = 1
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def licence(self) -> str:
        """SPDX name of the licence of the weights."""
        return self.weights.licence if self.weights else "none: untrained"

    def statistics(
        self, bands: Sequence[str], wavelengths: Mapping[str, float] = WAVELENGTHS
    ) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation for bands; an unseen one takes its nearest band's."""
        order = [self.bands.index(nearest_band(b, self.bands, wavelengths)) for b in bands]
        return [self.mean[index] for index in order], [self.std[index] for index in order]

    def scale_by(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Return offset and divisor of this card's scheme for other statistics, each (C,)."""
        if self.scheme == "inside":  # the network scales images itself
            return 0 * mean, 0 * std + 1
        # Of a "range" mean - 2 std becomes 0, and mean + 2 std 1; what lies outside is not cut off.
        return (mean - 2 * std, 4 * std) if self.scheme == "range" else (mean, std)


def _reflectance(*numbers: float) -> tuple[float, ...]:
    return tuple(number / 10_000 for number in numbers)


GEOPEFT_TINY = BackboneCard(
    name="geopeft_tiny",
    title="geopeft tiny 1.1 (Prithvi-EO architecture, small)",
    family="prithvi",
    sensor="HLS and Sentinel-2, 10-30 m",
    bands=HLS_BANDS,
    mean=(0.0718, 0.0891, 0.0953, 0.1977, 0.1737, 0.1168),
    std=(0.0432, 0.0361, 0.0510, 0.1123, 0.1180, 0.0921),
    patch_size=8, img_size=64, max_frames=64, width=192, depth=6, heads=6, parameters=2_743_680,
    decoder=(128, 2, 4),
    weights=FileEntry(
        "models/geopeft_tiny.safetensors", size=6_482_064, licence="Apache-2.0",
        sha256="aea5c59938ce99d1482cf7801da3153cc6c7a67cc01b1944c0fa7b66effc0aaf",
    ),
    citation="data/models/README.md of this toolkit",
)  # fmt: skip


_VERSIONS: dict[str, dict[str, Any]] = {
    "1.0": {
        "sensor": "HLS over the United States, 30 m",
        "mean": _reflectance(775, 1081, 1229, 2497, 2204, 1611),
        "std": _reflectance(1282, 1270, 1399, 1368, 1292, 1155),
        "frames": 3,
        "citation": "Jakubik et al., arXiv 2310.18660",
    },
    "2.0": {
        "sensor": "HLS worldwide, 30 m",
        "mean": _reflectance(1087, 1342, 1433, 2734, 1958, 1363),
        "std": _reflectance(2248, 2179, 2178, 1850, 1242, 1049),
        "frames": 4,
        "citation": "Szwarcman et al., arXiv 2412.02732",
    },
}
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"width": 192, "depth": 12, "heads": 3, "patch_size": 16, "frames": 1},
    "100M": {"width": 768, "depth": 12, "heads": 12, "patch_size": 16},
    "300M": {"width": 1024, "depth": 24, "heads": 16, "patch_size": 16},
    "600M": {"width": 1280, "depth": 32, "heads": 16, "patch_size": 14},
}
#: Facts of the models that take time and location, and of those that do not.
# Days from 0, as arXiv 2504.17397 fine-tuned them; their own model card counts from 1.
_TL: dict[str, Any] = {"takes_time": True, "takes_location": True, "first_day": 0}
_PLAIN: dict[str, Any] = {"extra": {"drops": ("temporal_embed_enc.", "location_embed_enc.")}}
_PRITHVI = [
    BackboneCard(
        name=f"prithvi_eo_{name}",
        title=f"Prithvi-EO {version} {size}",
        family="prithvi",
        bands=HLS_BANDS,
        img_size=224,
        max_frames=64,
        parameters=parameters,
        decoder=(512, 8, 16),
        weights=hub_file(
            f"Prithvi_EO_V{version[0]}_{size.replace('-', '_')}.pt",
            f"ibm-nasa-geospatial/Prithvi-EO-{version}-{size}",
            size=file_bytes, sha256=sha256, licence="Apache-2.0",
        ),
        **_VERSIONS[version] | _SIZES[size.removesuffix("-TL")] | facts,
    )
    for name, version, size, parameters, facts, file_bytes, sha256 in [
        ("v1_100", "1.0", "100M", 86_237_184, {}, None,
         "7fac0c8a8693198e32a055e0c5a967f8b005f382182b63df1b29fdcd5c880731"),
        ("v2_tiny_tl", "2.0", "tiny-TL", 5_634_050, _TL, None, None),
        ("v2_100_tl", "2.0", "100M-TL", 86_237_186, _TL, 454_660_610,
         "d45406d5fc51af1d9657d48f2e2c3ff077408a2e1113f9a242889a4fe4469b17"),
        ("v2_300", "2.0", "300M", 303_886_336, _PLAIN, None,
         "faab2c8b776f0723f93431747603a7ec586a54fc45473613b4322c29752486e7"),
        ("v2_300_tl", "2.0", "300M-TL", 303_886_338, _TL, 1_326_660_716,
         "3629cedfbb350faafcb0dac902ae0d3c927e25ce8d9e0024aa1276ec66956ddb"),
        ("v2_600", "2.0", "600M", 631_188_480, _PLAIN, None, None),
        ("v2_600_tl", "2.0", "600M-TL", 631_188_482, _TL, None,
         "7b92c53b0204a76bb775bd8930f045e05776251caa8c83f7367ed0b75b594702"),
    ]
]  # fmt: skip

#: The ten Sentinel-2 bands of 10 and 20 m, by number.
_TEN_BANDS = tuple(
    band for band in SENTINEL2_BANDS if band not in ("COASTAL_AEROSOL", "WATER_VAPOR", "CIRRUS")
)

_CLAY = BackboneCard(
    name="clay_v1_base",
    title="Clay v1",
    family="clay",
    sensor="Sentinel-2, Landsat, NAIP, LINZ and Sentinel-1, 1-30 m",
    bands=_TEN_BANDS,
    # From the metadata file of Clay v1.5, for Sentinel-2.
    mean=_reflectance(1105, 1355, 1552, 1887, 2422, 2630, 2743, 2785, 2388, 1835),
    std=_reflectance(1809, 1757, 1888, 1870, 1732, 1697, 1742, 1648, 1470, 1379),
    patch_size=8, img_size=256, width=768, depth=12, heads=12, parameters=92_102_144,
    weights=hub_file(
        "clay-v1-base.ckpt", "made-with-clay/Clay-legacy", "v1/clay-v1-base.ckpt",
        licence="Apache-2.0",
    ),
    citation="Clay Foundation, clay-foundation.github.io/model",
    takes_time=True, takes_location=True, takes_gsd=True,
)  # fmt: skip

_SATMAE = [
    BackboneCard(
        name=f"satmae_{size}",
        title=f"SatMAE group-channel ViT-{size[0].upper()}",
        family="satmae",
        sensor="Sentinel-2 (fMoW), 10-60 m",
        bands=_TEN_BANDS,
        mean=_reflectance(
            1184.3824625, 1120.77120066, 1136.26026392, 1263.73947144, 1645.40315151,
            1846.87040806, 1762.59530783, 1972.62420416, 1732.16362238, 1247.91870117,
        ),
        std=_reflectance(
            650.2842772, 712.12507725, 965.23119807, 948.9819932, 1108.06650639,
            1258.36394548, 1233.1492281, 1364.38688993, 1310.36996126, 1087.6020813,
        ),
        scheme="range",
        patch_size=8, img_size=96, width=width, depth=depth, heads=heads, parameters=parameters,
        weights=FileEntry(
            f"pretrain-vit-{size}-e199.pth", licence="CC-BY-NC-4.0",
            url=f"https://zenodo.org/records/7338613/files/pretrain-vit-{size}-e199.pth",
        ),
        citation="Cong et al., arXiv 2207.08051",
        extra={"groups": ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9)), "group_code": 256},
    )
    for size, width, depth, heads, parameters in [
        ("base", 768, 12, 12, 85_625_856), ("large", 1024, 24, 16, 303_083_264)
    ]
]  # fmt: skip

_DECUR = BackboneCard(
    name="decur_resnet50",
    title="DeCUR ResNet-50, Sentinel-2",
    family="resnet",
    sensor="Sentinel-2 L1C (SSL4EO-S12), 10 m",
    bands=SENTINEL2_BANDS,
    mean=(0.0,) * 13,
    std=(1.0,) * 13,
    patch_size=32, img_size=224, width=2048, depth=4, heads=0, parameters=23_539_392,
    weights=hub_file(
        "rn50_ssl4eo-s12_ms_decur_ep100-fc6b09ff.pth", "torchgeo/decur",
        revision="eba7ae5945d482a4319be046d34b552db5dd9950",
        sha256="fc6b09ff", licence="Apache-2.0",  # the file's name states these digits
    ),
    citation="Wang et al., arXiv 2309.05300",
    extra={"timm": "resnet50"},
)  # fmt: skip

_GALILEO = [
    BackboneCard(
        name=f"galileo_{size}",
        title=f"Galileo {size}",
        family="galileo",
        sensor="Sentinel-2 (with radar, weather and maps), 10 m",
        bands=_TEN_BANDS,
        mean=_reflectance(
            1395.3408730676722, 1338.4026921784578, 1343.09883810357, 1543.8607982512297,
            2186.2022069512263, 2525.0932853316694, 2410.3377187373408, 2750.2854646886753,
            2234.911100061487, 1474.5311266077113,
        ),
        std=_reflectance(
            917.7041440370853, 913.2988423581528, 1092.678723527555, 1047.2206083460424,
            1048.0101611156767, 1143.6903026819996, 1098.979177731649, 1204.472755085893,
            1145.9774063078878, 980.2429840007796,
        ),
        scheme="inside",
        patch_size=8, img_size=64, max_frames=24,
        width=width, depth=depth, heads=heads, parameters=parameters,
        weights=hub_file(
            f"galileo_{size}/encoder.pt", "nasaharvest/galileo", f"models/{size}/encoder.pt",
            size=file_bytes, sha256=sha256, licence="MIT",
        ),
        citation="Tseng et al., arXiv 2502.09356",
        takes_time=True, takes_location=True, takes_gsd=True,
    )
    for size, width, depth, heads, parameters, file_bytes, sha256 in [
        ("nano", 128, 4, 8, 885_088, 4_189_406,
         "eab6acacf527886a508a555bc24efe4b4a2cf91b162e84cd1c4a1807e942180c"),
        ("tiny", 192, 12, 3, 5_476_368, None, None),
        ("base", 768, 12, 12, 85_606_464, None, None),
    ]
]  # fmt: skip

_UNET = BackboneCard(
    name="unet",
    title="UNet with ResNet-50 encoder, untrained",
    family="unet",
    sensor="none: random initialisation, the honest baseline",
    bands=HLS_BANDS,
    mean=_VERSIONS["2.0"]["mean"],
    std=_VERSIONS["2.0"]["std"],
    patch_size=1, img_size=224, width=16, depth=1, heads=0, parameters=32_530_368,
    weights=None,
    citation="Ronneberger et al., arXiv 1505.04597",
)  # fmt: skip

CARDS: dict[str, BackboneCard] = {
    card.name: card for card in (GEOPEFT_TINY, *_PRITHVI, _CLAY, *_SATMAE, _DECUR, *_GALILEO, _UNET)
}
