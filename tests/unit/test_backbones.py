"""Loading a backbone: sizes, bands, and checkpoints that do not fit."""

import hashlib
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from masked_autoencoder import MaskedAutoencoder

import geopeft_nb as gp
from geopeft_nb.files import data_folder

WEIGHTS = "models/geopeft_tiny.safetensors"


def test_shipped_weights_load_and_say_where_they_are_from() -> None:
    with patch("hashlib.file_digest", wraps=hashlib.file_digest) as digest:
        backbone = gp.load_backbone("geopeft_tiny")
    assert digest.call_count == 1  # checked and noted: large files take seconds
    assert backbone.provenance["weights"].endswith("geopeft_tiny.safetensors")
    content = (data_folder() / WEIGHTS).read_bytes()
    assert backbone.provenance["sha256"] == hashlib.sha256(content).hexdigest()
    assert (data_folder() / WEIGHTS).stat().st_size <= 8_000_000


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (24, 200)])
def test_any_size_gives_the_grid_that_the_backbone_announces(size: tuple[int, int]) -> None:
    backbone = gp.load_backbone("geopeft_tiny", layers=[1, -1])
    maps = backbone(torch.zeros(2, 6, *size))
    assert [tuple(m.shape) for m in maps] == [(2, 192, *backbone.grid(*size))] * 2


def test_a_band_subset_takes_its_own_columns_of_the_first_layer() -> None:
    full = gp.load_backbone("geopeft_tiny")
    few = gp.load_backbone("geopeft_tiny", bands=["B12", "GREEN"])
    kernel = full.patch_embed.proj.weight
    assert few.bands == ("SWIR_2", "GREEN")
    assert torch.equal(few.patch_embed.proj.weight, kernel[:, [5, 1]])
    assert "SWIR_2" in few.provenance["adapted"]


def test_a_band_that_the_model_never_saw_shares_its_nearest_bands_weights_and_says_so() -> None:
    full = gp.load_backbone("geopeft_tiny")
    with pytest.warns(UserWarning, match="never saw NIR_BROAD .* share of the weights"):
        mixed = gp.load_backbone("geopeft_tiny", bands=["B8", "RED", "B8A"])
    kernel = full.patch_embed.proj.weight
    broad, red, narrow = mixed.patch_embed.proj.weight.unbind(1)
    assert torch.equal(red, kernel[:, 2])
    assert torch.equal(broad, kernel[:, 3] / 2) and torch.equal(narrow, kernel[:, 3] / 2)
    assert "NIR_BROAD takes a share" in mixed.provenance["adapted"]
    # Equal reflectance in both near-infrared bands is what pretraining saw in one.
    image = torch.rand(1, 2, 40, 40)
    both = mixed(mixed.normalise(image[:, [1, 0, 1]]))[0]
    one = gp.load_backbone("geopeft_tiny", bands=["RED", "NIR_NARROW"])
    assert torch.allclose(both, one(one.normalise(image))[0], atol=1e-4)


def test_frames_are_joined_in_the_features_and_must_be_as_announced() -> None:
    backbone = gp.load_backbone("geopeft_tiny", frames=3)
    (features,) = backbone(torch.zeros(1, 6, 3, 32, 32))
    assert features.shape == (1, *backbone.channels, 4, 4) == (1, 576, 4, 4)
    with pytest.raises(ValueError, match=r"takes C=6 bands, BLUE.* and T=3 frames; got shape"):
        backbone(torch.zeros(1, 6, 2, 32, 32))


def test_metadata_is_refused_by_a_model_that_takes_none() -> None:
    with pytest.raises(ValueError, match="does not take location"):
        gp.load_backbone("geopeft_tiny")(torch.zeros(1, 6, 64, 64), location=torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "geopeft_tinny"}, "Did you mean 'geopeft_tiny'"),
        ({"name": "geopeft_tiny", "bands": ["CIRUS"]}, "Did you mean 'CIRRUS'"),
        ({"name": "geopeft_tiny", "bands": ["RED", "B4"]}, "each band once"),
        ({"name": "clay_v1_base", "frames": 2}, r"takes 1 date\(s\) at most, got frames=2"),
        ({"name": "galileo_nano", "frames": 25}, r"takes 24 date\(s\) at most"),
        ({"name": "geopeft_tiny", "layers": [9]}, "between 0 and 5"),
        ({"name": "geopeft_tiny", "img_size": 60}, "multiple of the patch of 8"),
    ],
)
def test_bad_requests_say_what_would_work(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gp.load_backbone(**arguments)


def test_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no file"):
        gp.load_backbone("geopeft_tiny", weights=tmp_path / "none.safetensors")


def test_random_initialisation_follows_its_seed_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, again, other = (gp.load_backbone("geopeft_tiny", None, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.cls_token, again.cls_token)
    assert not torch.equal(first.cls_token, other.cls_token)


def test_masked_autoencoder_hides_three_quarters_and_learns_only_from_them() -> None:
    encoder = gp.load_backbone("geopeft_tiny", weights=None)
    model = MaskedAutoencoder(encoder, 6, (32, 1, 2))
    image = torch.randn(2, 6, 1, 64, 64)
    loss, rebuilt, mask = model(image)
    assert mask.sum(dim=1).tolist() == [48, 48]
    error = (rebuilt - model.patches(image)).square().mean(dim=-1)
    assert torch.isclose(loss, error[mask.bool()].mean())


def test_patches_are_rows_columns_then_bands() -> None:
    model = MaskedAutoencoder(gp.load_backbone("geopeft_tiny", weights=None), 6, (32, 1, 2))
    image = torch.arange(6 * 16 * 16.0).reshape(1, 6, 1, 16, 16)
    patch = model.patches(image)[0, 1]  # first row of patches, second column
    assert torch.equal(patch.reshape(8, 8, 6), image[0, :, 0, :8, 8:].permute(1, 2, 0))


def test_the_full_list_has_facts_of_files_and_bands() -> None:
    full = gp.list_backbones(full=True)
    assert full.loc["geopeft_tiny", "size"] == 6_482_064
    assert full.loc["unet", "path"] == "none: untrained"
    assert full.loc["galileo_nano", "wavelengths (µm)"][0] == 0.493
