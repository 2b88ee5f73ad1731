"""Bands without a wavelength, such as NDVI: learnt anew by some networks, refused by the others."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import geopeft_nb as gp
from geopeft_nb.bands import band_names
from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData

BANDS = ("RED", "NIR_NARROW", "NDVI")


def with_ndvi(chips: ChipDataset) -> ChipDataset:
    def read(chip):  # noqa: ANN001, ANN202
        image, mask, *_ = chip.read()
        red, nir = image
        index = (nir - red) / (nir + red + 1e-6)
        return torch.stack([*map(torch.from_numpy, (red, nir, index))]).numpy(), mask

    few = chips.chips[:8]  # enough to train on once
    return replace(chips, chips=[replace(c, read=lambda c=c: read(c)) for c in few])


@pytest.fixture(scope="module")
def data() -> GeoData:
    plain = gp.load_data("scenes", bands=BANDS[:2], size=64)
    parts = {part: with_ndvi(getattr(plain, part)) for part in ("train", "val", "test")}
    away = {region: with_ndvi(chips) for region, chips in plain.holdout.items()}
    return replace(plain, **parts, holdout=away, bands=BANDS)


def test_pretrained_bands_keep_their_weights_and_others_get_fresh_ones(tmp_path: Path) -> None:
    published = timm.create_model("resnet18").state_dict()
    save_file(published, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="never saw NDVI.*NDVI begins with fresh weights"):
        backbone = gp.load_backbone(
            "timm:resnet18", tmp_path / "model.safetensors", bands=["NDVI", "BLUE", "RED"]
        )
    ndvi, blue, red = backbone.network.conv1.weight.unbind(1)
    kernel = published["conv1.weight"]
    assert torch.equal(blue, kernel[:, 2]) and torch.equal(red, kernel[:, 0])
    fresh = ndvi.std() / torch.nn.init.calculate_gain("relu") * (64 * 7 * 7) ** 0.5
    assert 0.8 < fresh < 1.2  # He et al.'s scale, by which timm begins; 3,136 numbers
    assert "NDVI begins with fresh weights" in backbone.provenance["adapted"]


@pytest.mark.filterwarnings("ignore:.*never saw")
@pytest.mark.parametrize("name", ["unet", "timm:resnet18"])
def test_networks_that_know_no_wavelengths_train_on_any_band(
    name: str, data: GeoData, tmp_path: Path
) -> None:
    model = gp.build_model(gp.load_backbone(name, None, bands=data.bands), data)
    assert model.built_for["normalise"] == "dataset"  # pretraining knows no statistics of it
    values = torch.stack([sample["image"][2] for sample in data.train])
    assert float(model.mean[2]) == pytest.approx(float(values.mean()), rel=1e-3)
    run = gp.fit(gp.attach(model, "full"), data, epochs=1, lr=1e-3, dashboard=False)
    assert gp.evaluate(run, data).table["mIoU"].notna().all()
    again = gp.load_model(gp.save_adapter(run, tmp_path / "adapter"))
    image = data.test[0]["image"][None]
    with torch.no_grad():
        assert again.bands == BANDS and torch.equal(again(image), run.model(image))


@pytest.mark.parametrize("name", ["geopeft_tiny", "satmae_base", "galileo_nano", "clay_v1_base"])
def test_networks_that_know_wavelengths_refuse_a_band_without_one(name: str) -> None:
    message = r"NDVI has none here.*bands=.*'unet'"
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        gp.load_backbone(name, None, bands=BANDS)


@pytest.mark.filterwarnings("ignore:.*never saw")
def test_scaling_as_in_pretraining_is_refused_for_what_it_never_saw(data: GeoData) -> None:
    backbone = gp.load_backbone("timm:resnet18", None, bands=data.bands)
    with pytest.raises(ValueError, match=r"NDVI has none.*Use normalise='dataset'"):
        gp.build_model(backbone, data, normalise="pretraining")


def test_clay_takes_wavelengths_and_makes_other_weights_for_each() -> None:
    bands, images = ["RED", "thermal"], torch.rand(1, 2, 16, 16)
    with pytest.raises(ValueError, match=r"wavelengths=\{'thermal': …\} in micrometres"):
        gp.load_backbone("clay_v1_base", None, bands=bands)
    with pytest.raises(ValueError, match=r"wavelengths takes .*from 0\.1 to 100 or None, got"):
        gp.load_backbone("clay_v1_base", None, bands=bands, wavelengths={"thermal": 945.0})
    with pytest.raises(ValueError, match="geopeft_tiny takes no wavelengths"):
        gp.load_backbone("geopeft_tiny", wavelengths={"thermal": 10.9})
    with torch.no_grad():
        shorter, longer = (
            gp.load_backbone(
                "clay_v1_base", None, bands=bands, layers=[0], wavelengths={"thermal": wave}
            )
            for wave in (2.3, 10.9)
        )
        assert shorter.scaling()[0].tolist() == pytest.approx([0.1552, 0.1835])  # SWIR_2 is nearest
        assert not torch.allclose(shorter(images)[0], longer(images)[0])


@pytest.mark.parametrize("names", [["RED", "VV", "VV"], [""], ["A\nB"], ["x" * 65], "NDVI", []])
def test_what_cannot_name_bands_is_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="band"):
        band_names(names)
