"""Galileo with its real published weights equals the published implementation."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.backbones.band_groups import GalileoViT
from geopeft_nb.backbones.base import BackboneRequest
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.backbones.load import load_exactly, read_checkpoint
from geopeft_nb.backbones.vit import run_blocks
from geopeft_nb.files import fetch

pytestmark = pytest.mark.mirror
TEN_BANDS = CARDS["galileo_nano"].bands


def galileo(patch_size: int = 8, gsd: float = 10.0) -> GalileoViT:
    card = CARDS["galileo_nano"]
    try:
        path = fetch(card.weights)
    except FileNotFoundError:
        pytest.skip("galileo_nano/encoder.pt is in no mirror (set GEOPEFT_MIRROR)")
    card = replace(card, patch_size=patch_size)
    model = GalileoViT(card, BackboneRequest(card.bands, card.img_size, gsd=gsd)).eval()
    load_exactly(model, model.translate(read_checkpoint(path)), path)
    return model


def grouped(model: GalileoViT, raw: torch.Tensor, recipe: str, meta: dict) -> dict:
    """Return the inputs that the call's recipe prescribes; `raw` are digital numbers."""
    groups = model.inputs(raw / 10_000)
    if recipe in ("train_stats_ndvi_masked", "helper_as_is"):
        groups.pop("NDVI")
    if recipe == "helper_as_is":  # the published helper ignores the statistics
        for group, members in model.members.items():
            if group in groups:
                groups[group] = raw[:, [TEN_BANDS.index(band) for band in members]] / 10_000
    if recipe == "feat_py":
        mean, std = meta["mean"][12], meta["std"][12]
        groups["NDVI"] = (groups["NDVI"] - (mean - 2 * std)) / (4 * std)
    return groups


def test_every_output_equals_the_golden_tensors(golden: Callable) -> None:
    _, inputs, outputs, meta = golden("galileo_nano")
    checked = set()
    for call in meta["cfg"]["calls"]:
        model = galileo(call["patch_size"], call.get("res", 10.0))
        raw = inputs[call["s2"]].float().permute(0, 4, 3, 1, 2)  # (B, C, T, H, W)
        location = inputs[call["latlon"]] if "latlon" in call else None
        with torch.no_grad():
            groups = grouped(model, raw, call["recipe"], meta)
            tokens, grid = model.embed(groups, inputs["months"], location)
            (everything,) = run_blocks(model.blocks, model.norm, model.layers, tokens)
        cells = everything[:, : math.prod(grid)].unflatten(1, grid)  # (B, h, w, T, G, D)
        ours = {
            "average": everything.mean(dim=1),
            "per_patch_average": cells.mean(dim=(3, 4)).flatten(1, 2),
            "s2_tokens": cells[..., :5, :],
            "ndvi_token": cells[..., -1, :] if "NDVI" in groups else model.norm.bias.detach(),
        }
        for what, value in ours.items():
            key = f"{call['name']}/{what}"
            if key in outputs:
                # Bounds from the rounding noise of the published code, see the golden README.
                noisy = what == "s2_tokens" and call["s2"] == "s2_64"
                bound = 5e-5 if noisy else 3e-6 if what == "average" else 1e-5
                assert np.abs(value.numpy() - outputs[key]).max() <= bound, key
                checked.add(key)
    left = {key.split("/")[1] for key in set(outputs) - checked}
    assert left <= {"masked_s1_token", "space_time_normalised"}  # these belong to masked inputs
    assert len(checked) >= 20


def test_scaled_bands_equal_the_golden_tensors(golden: Callable) -> None:
    _, inputs, outputs, _ = golden("galileo_nano")
    model = galileo()
    groups = model.inputs(inputs["s2_32"].float().permute(0, 4, 3, 1, 2) / 10_000)
    reference = torch.from_numpy(outputs["p8_32_ndvi_masked/space_time_normalised"])
    ours = torch.cat([groups[g] for g in groups if g != "NDVI"], dim=1)
    ours = ours.permute(0, 3, 4, 2, 1)  # (B, H, W, T, C)
    assert (ours - reference[..., 2:12]).abs().max() <= 1e-5


def test_load_backbone_returns_the_mean_over_a_patchs_tokens(golden: Callable) -> None:
    _, inputs, outputs, _ = golden("galileo_nano")
    galileo()
    backbone = gp.load_backbone("galileo_nano").eval()
    raw = inputs["s2_64"][:, :, :, 0].float().permute(0, 3, 1, 2)
    with torch.no_grad():
        (features,) = backbone(raw / 10_000)
    reference = outputs["p8_64_ndvi_raw/per_patch_average"].reshape(4, 8, 8, 128)
    assert np.abs(features.permute(0, 2, 3, 1).numpy() - reference).max() <= 1e-5
    assert backbone.provenance["sha256"].startswith("eab6acac")


def test_dates_and_places_change_the_features_and_nothing_else_breaks() -> None:
    backbone = gp.load_backbone("galileo_nano", weights=None, frames=2, bands=["RED", "B8A"])
    assert set(backbone.members) == {"S2_RGB", "S2_NIR_20m", "NDVI"}
    image = torch.rand(1, 2, 2, 16, 24)
    june, july = (torch.tensor([[[2021.0, day], [2021.0, day]]]) for day in (181.0, 182.0))
    with torch.no_grad():
        (unknown,), (first,), (second,) = (backbone(image, t) for t in (None, june, july))
        (placed,) = backbone(image, june, torch.tensor([[52.5, 13.4]]))
    assert torch.equal(unknown, first)  # an unknown date counts as June
    assert not torch.allclose(first, second) and not torch.allclose(first, placed)


def test_a_missing_band_of_a_group_counts_as_its_pretraining_mean() -> None:
    whole = galileo()
    card = whole.card
    path = fetch(card.weights)
    part = GalileoViT(card, BackboneRequest(("BLUE", "RED"), card.img_size)).eval()
    load_exactly(part, part.translate(read_checkpoint(path)), path)
    image = torch.rand(1, len(TEN_BANDS), 1, 16, 16)
    image[:, TEN_BANDS.index("GREEN")] = card.mean[TEN_BANDS.index("GREEN")]
    with torch.no_grad():
        groups = {"S2_RGB": whole.inputs(image)["S2_RGB"]}
        tokens, grid = whole.embed(groups, torch.full((1, 1), 5))
        (tokens,) = run_blocks(whole.blocks, whole.norm, whole.layers, tokens)
        (features,) = part(image[:, [TEN_BANDS.index("BLUE"), TEN_BANDS.index("RED")]])
    assert torch.allclose(features, whole.to_map(tokens, grid), atol=1e-5)
