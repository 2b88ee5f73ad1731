"""Backbones that other libraries build: timm's, torchgeo's, and the untrained UNet."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import geopeft_nb as gp
from geopeft_nb.backbones.networks import WHITE, make_card
from geopeft_nb.backbones.vit import join_qkv
from geopeft_nb.bands import SENTINEL2_BANDS
from geopeft_nb.decoders.one_map import LinearDecoder

IMAGE = (97, 131)  # pixels: no multiple of any patch


@pytest.mark.filterwarnings("ignore:.*never saw:UserWarning")
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("timm:vit_tiny_patch16_224", [(192, 7, 9)]),
        ("timm:resnet18", [(64, 25, 33), (128, 13, 17), (256, 7, 9), (512, 4, 5)]),
        ("timm:seresnet18", [(64, 25, 33), (128, 13, 17), (256, 7, 9), (512, 4, 5)]),
        ("unet", [(16, 97, 131)]),
    ],
)
def test_odd_sizes_and_few_bands_go_forward_and_backward(
    name: str, shapes: list[tuple[int, int, int]]
) -> None:
    backbone = gp.load_backbone(name, weights=None, bands=["B12", "RED"])
    maps = backbone(torch.rand(1, 2, *IMAGE))
    assert [tuple(m.shape[1:]) for m in maps] == shapes
    assert backbone.channels == tuple(shape[0] for shape in shapes)
    assert backbone.grid(*IMAGE) == shapes[-1][1:]
    sum(m.square().mean() for m in maps).backward()
    gradients = [weight.grad for weight in backbone.parameters() if weight.grad is not None]
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


def random_state(network: nn.Module) -> dict[str, Tensor]:
    """Fill every tensor at random, so that each one shows in the output."""
    generator = torch.Generator().manual_seed(0)
    return {
        # Batch normalisation divides by the root of a variance, which must stay above zero.
        key: torch.rand(value.shape, generator=generator) * 0.1 + 0.5 * ("var" in key)
        if value.is_floating_point()
        else value
        for key, value in network.state_dict().items()
    }


def test_decur_has_the_keys_and_shapes_of_its_published_file(root: Path) -> None:
    golden = root.parent / "shared/golden/resnet50_decur_keys.json"
    if not golden.exists():
        pytest.skip(f"needs {golden.name}")
    published = json.loads(golden.read_text())["state_dict"]
    with torch.device("meta"):
        backbone = gp.load_backbone("decur_resnet50", weights=None)
    own = {
        key.removeprefix("network."): list(value.shape)
        for key, value in backbone.state_dict().items()
    }
    classifier = ("fc.weight", "fc.bias")
    wanted = {key: entry["shape"] for key, entry in published.items() if key not in classifier}
    assert own == wanted


@pytest.mark.parametrize("name", ["resnet18", "resnet18d"])
def test_stages_are_timms(name: str, tmp_path: Path) -> None:
    reference = timm.create_model(name).eval()
    state = random_state(reference)
    reference.load_state_dict(state)
    save_file(state, tmp_path / "model.safetensors")
    backbone = gp.load_backbone(f"timm:{name}", weights=tmp_path / "model.safetensors").eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps, raw = backbone(image), reference.forward_intermediates(image)[1][-4:]
        assert torch.equal(maps[-1], reference.forward_features(image))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, raw, strict=True))


def test_stages_can_be_chosen() -> None:
    backbone = gp.load_backbone("timm:resnet18", weights=None, layers=[1, 2])
    assert (backbone.strides, backbone.patch_size) == ((8, 16), 16)
    assert [m.shape[-2:] for m in backbone(torch.rand(1, 3, *IMAGE))] == [(13, 17), (7, 9)]


def test_only_the_last_block_of_a_vit_passes_the_final_norm(tmp_path: Path) -> None:
    reference = timm.create_model("vit_tiny_patch16_224", num_classes=5).eval()
    state = random_state(reference)
    reference.load_state_dict(state)
    save_file(state, tmp_path / "vit.safetensors")
    backbone = gp.load_backbone(
        "timm:vit_tiny_patch16_224", weights=tmp_path / "vit.safetensors", layers=[10, 11]
    ).eval()
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        final, blocks = reference.forward_intermediates(image, indices=[10, 11])
        before, last = backbone(image)
    # Three products round otherwise than one of three times the width.
    torch.testing.assert_close(before, blocks[0], rtol=0, atol=1e-5)
    own = last.flatten(2).transpose(1, 2)
    torch.testing.assert_close(own, final[:, 1:], rtol=0, atol=1e-5)  # without the class token
    # The unused classifier is the only thing of the file that is left out.
    assert len(join_qkv(backbone.state_dict())) == len(state) - 2


@pytest.mark.parametrize(
    "name", ["timm:vit_tiny_patch16_224", "timm:resnet18", "satmae_base", "clay_v1_base", "unet"]
)
def test_models_without_computed_codes_take_no_image_size(name: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="leave img_size out"):
        gp.load_backbone(name, None, img_size=96 + 32)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("patch_embed.proj.weight", (192, 3, 8, 8)),
        ("patch_embed.proj.weight", (192, 3, 9, 7)),
        ("patch_embed.proj.weight", (192, 3 * 16 * 16)),
        ("pos_embed", (1, 1 + 7 * 7, 192)),
    ],
)
def test_a_vit_file_of_other_patches_or_of_another_grid_is_refused(
    key: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    state = random_state(timm.create_model("vit_tiny_patch16_224"))
    save_file(state | {key: torch.rand(shape)}, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=f"mismatch for network.{key}.*{re.escape(str([*shape]))}"):
        gp.load_backbone("timm:vit_tiny_patch16_224", tmp_path / "vit.safetensors")


def test_weights_of_timm_come_from_a_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resnet18.a1_in1k/model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(random_state(timm.create_model("resnet18")), path)
    monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path))
    assert gp.load_backbone("timm:resnet18").provenance["weights"] == str(path)


def test_a_photograph_model_sees_reflectance_stretched_to_white() -> None:
    backbone = gp.load_backbone("timm:resnet18", weights=None)
    white = backbone.normalise(torch.full((1, 3, 1, 1), WHITE)).flatten()
    # ImageNet's mean and standard deviation, which timm states for these weights.
    wanted = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(white, wanted, rtol=1e-5)  # float32


@pytest.mark.parametrize(
    ("weight", "bands", "mean", "std"),
    [
        ("ResNet50_Weights.SENTINEL2_ALL_MOCO", SENTINEL2_BANDS, 0.0, 1.0),
        ("ViTSmall14_DINOv2_Weights.SENTINEL2_ALL_SOFTCON", SENTINEL2_BANDS, 0.16129, 0.0791),
    ],
)
def test_cards_of_torchgeo_state_bands_and_scaling_in_reflectance(
    weight: str, bands: tuple[str, ...], mean: float, std: float
) -> None:
    pytest.importorskip("torchgeo")
    card = make_card(f"torchgeo:{weight}")
    assert card.bands == bands
    assert (card.mean[0], card.std[0]) == pytest.approx((mean, std), rel=1e-5)  # float32
    assert card.weights is not None and len(card.weights.hub["revision"]) == 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet5", "Unknown timm model 'resnet5'"),
        ("timm:resnet18.nope", "Did you mean 'resnet18[.]"),
        ("timm:vit_tiny_patch16_22", "Did you mean 'vit_tiny_patch16_224'"),
        ("timm:swin_tiny_patch4_window7_224", "ResNets and their kin"),
        ("timm:xcit_nano_12_p16_224", "plain vision transformers"),
        ("timm:convnext_atto", "ResNets and their kin"),
        ("timm:vit_base_patch16_dinov3", "no DINOv3"),
        ("timm:vit_srelpos_small_patch16_224", "plain vision transformers"),
        ("timm:vit_base_patch16_xp_224", "plain vision transformers"),
        # Patches of a convolutional network's maps.
        ("timm:vit_base_r50_s16_224", "no hybrids"),
        ("torchgeo:ResNet50_Weights.SENTINEL2_MOCO", "Did you mean"),
        # Its images are scaled to around a thousand instead of one.
        ("torchgeo:ResNet50_Weights.SENTINEL2_RGB_SECO", "for all bands of Sentinel-2"),
        ("torchgeo:ResNet50_Weights.SENTINEL1_ALL_MOCO", "for all bands of Sentinel-2"),
        ("torchgeo:Swin_V2_B_Weights.SENTINEL2_SI_RGB_SATLAS", "for all bands of Sentinel-2"),
    ],
)
def test_what_cannot_be_loaded_says_what_can(name: str, message: str) -> None:
    if name.startswith("torchgeo"):
        pytest.importorskip("torchgeo")
    with pytest.raises(ValueError, match=message):
        gp.load_backbone(name, weights=None)


def test_unet_under_a_linear_decoder_is_the_librarys_unet_with_a_pointwise_head() -> None:
    import segmentation_models_pytorch as smp

    backbone = gp.load_backbone("unet", weights=None).eval()
    decoder = LinearDecoder(backbone.channels, 3, backbone.patch_size)
    reference = smp.Unet("resnet50", encoder_weights=None, in_channels=6, classes=3).eval()
    head = reference.segmentation_head[0] = nn.Conv2d(16, 3, kernel_size=1)
    # A transposed convolution stores (inputs, outputs), a convolution (outputs, inputs).
    head.weight.data = decoder.conv.weight.data.transpose(0, 1)
    head.bias.data = decoder.conv.bias.data
    own = {key.removeprefix("network."): value for key, value in backbone.state_dict().items()}
    missing, unexpected = reference.load_state_dict(own, strict=False)
    assert set(missing) == {"segmentation_head.0.weight", "segmentation_head.0.bias"}
    assert unexpected == []
    image = torch.rand(1, 6, 64, 96)
    with torch.no_grad():
        wanted, ours = reference(image), decoder(backbone(image))
    # The same sums in another order: float32 rounding.
    assert torch.allclose(ours, wanted, atol=1e-5 * float(wanted.abs().max()))
