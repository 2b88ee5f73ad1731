"""Building a model, attaching a method, and saving only what was trained."""

import re
from pathlib import Path

import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.models import SegmentationModel


@pytest.fixture(scope="module")
def data() -> GeoData:
    return gp.load_data("scenes")


def build(data: GeoData, method: str | None = None, **options: object) -> SegmentationModel:
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data)
    return gp.attach(model, method, **options) if method else model


def test_input_is_scaled_as_in_pretraining_unless_asked_otherwise(data: GeoData) -> None:
    backbone = gp.load_backbone("geopeft_tiny")
    pretraining = gp.build_model(backbone, data)
    assert pretraining.mean.flatten().tolist() == pytest.approx(list(backbone.card.mean))
    own = gp.build_model(gp.load_backbone("geopeft_tiny"), data, normalise="dataset")
    pixels = torch.stack([data.train[i]["image"] for i in range(len(data.train))])
    assert torch.allclose(own.mean.flatten(), pixels.mean(dim=(0, 2, 3)), atol=1e-6)
    assert torch.allclose(own.std.flatten(), pixels.std(dim=(0, 2, 3)), atol=1e-6)


def test_chips_that_patches_do_not_fill_are_refused_unless_padded() -> None:
    data = gp.load_data("scenes", size=50)
    backbone = gp.load_backbone("geopeft_tiny")
    with pytest.raises(ValueError, match=r"not divisible by the patch of 8 px.*size=48"):
        gp.build_model(backbone, data)
    assert gp.build_model(backbone, data, pad=True)(torch.zeros(1, 6, 50, 50)).shape[-1] == 50


def test_bands_of_backbone_and_data_must_agree(data: GeoData) -> None:
    with pytest.raises(ValueError, match=r"load_backbone\(\.\.\., bands=data\.bands"):
        gp.build_model(gp.load_backbone("geopeft_tiny", bands=["RED", "GREEN"]), data)


@pytest.mark.parametrize("shape", [(1, 6, 2, 16, 16), (1, 5, 16, 16), (6, 16, 16)])
def test_a_model_refuses_what_is_no_batch_of_images(data: GeoData, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got shape {shape}")):
        build(data)(torch.zeros(shape))


def test_images_of_one_date_may_have_a_dimension_for_it(data: GeoData) -> None:
    model, image = build(data).eval(), torch.rand(2, 6, 16, 16)
    assert torch.equal(model(image[:, :, None]), model(image))


def test_one_backbone_serves_one_model(data: GeoData) -> None:
    backbone = gp.load_backbone("geopeft_tiny")
    gp.attach(gp.build_model(backbone, data), "lora")
    with pytest.raises(ValueError, match=r"'lora' is attached already.*fresh backbone"):
        gp.attach(gp.build_model(backbone, data), "full")


def test_objects_of_another_kind_are_named(data: GeoData) -> None:
    with pytest.raises(ValueError, match="takes SegmentationModel, got 'gp'"):
        gp.attach("gp", "lora")
    with pytest.raises(ValueError, match="takes GeoData, got 'scen"):
        gp.build_model(gp.load_backbone("geopeft_tiny"), "scenes")
    with pytest.raises(ValueError, match="got a ChipDataset"):
        gp.fit(build(data, "lora"), data.train)


@pytest.mark.filterwarnings("ignore:.*never saw")
@pytest.mark.parametrize(
    ("name", "method"),
    [("timm:vit_tiny_patch16_224", "lora"), ("timm:resnet18", "linear_probe"), ("unet", "full")],
)
def test_what_was_trained_is_saved_and_loaded_for_the_families_that_test_every_method_lacks(
    name: str, method: str, data: GeoData, tmp_path: Path
) -> None:
    backbone = gp.load_backbone(name, None, bands=data.bands)
    model = gp.attach(gp.build_model(backbone, data, pad=True), method).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.01 * torch.randn_like(weight))
    again = gp.load_model(gp.save_adapter(model, tmp_path / "adapter"))
    image = data.train[0]["image"][None]
    with torch.no_grad():
        assert torch.equal(model(image), again(image))


@pytest.mark.filterwarnings("ignore:.*never saw")
def test_a_frozen_network_with_batch_norm_does_not_move_while_training(data: GeoData) -> None:
    backbone = gp.load_backbone("timm:resnet18", None, bands=data.bands)
    model = gp.attach(gp.build_model(backbone, data), "linear_probe").train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    model(torch.stack([data.train[i]["image"] for i in range(4)]))
    assert model.training and model.decoder.training
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_dataset_statistics_keep_the_scheme_of_the_models_pretraining(data: GeoData) -> None:
    with torch.device("meta"):
        satmae = gp.load_backbone("satmae_base", None, bands=data.bands)
    model = gp.build_model(satmae, data, normalise="dataset")
    pixels = torch.stack([data.train[i]["image"] for i in range(len(data.train))])
    scaled = (pixels - model.mean) / model.std
    assert torch.allclose(scaled.mean(dim=(0, 2, 3)), torch.tensor(0.5), atol=1e-3)  # mean at 0.5
    assert torch.allclose(scaled.std(dim=(0, 2, 3)), torch.tensor(0.25), atol=1e-2)
