"""Every card at its full size: an odd image, a subset of its bands, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.backbones.catalog import CARDS

#: Too large or too slow for every run: built without memory only.
LARGE = {"prithvi_eo_v2_600", "prithvi_eo_v2_600_tl", "satmae_large"}
SUBSET = ["RED", "NIR_NARROW", "SWIR_1"]


@pytest.mark.parametrize("name", CARDS)
def test_published_parameter_count_without_memory(name: str) -> None:
    with torch.device("meta"):
        backbone = gp.load_backbone(name, weights=None)
    assert sum(p.numel() for p in backbone.parameters()) == CARDS[name].parameters
    assert {p.device.type for p in backbone.parameters()} == {"meta"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(CARDS) - LARGE))
def test_forward_and_backward_at_an_odd_size_with_three_bands(name: str) -> None:
    backbone = gp.load_backbone(name, weights=None, bands=SUBSET).train()
    image = backbone.normalise(torch.rand(1, 3, 97, 131))
    maps = backbone(image)
    assert tuple(maps[-1].shape) == (1, backbone.channels[-1], *backbone.grid(97, 131))
    for features, stride in zip(maps, backbone.strides, strict=True):
        assert tuple(features.shape[2:]) == (math.ceil(97 / stride), math.ceil(131 / stride))
    sum(features.square().mean() for features in maps).backward()
    # Codes of dates and places that were not given are all that gets no gradient.
    without = {n.split(".")[0] for n, p in backbone.named_parameters() if p.grad is None}
    assert without <= {
        "temporal_embed_enc", "location_embed_enc", "location_embed", "static_embed"
    }  # fmt: skip
    gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
    assert all(bool(g.isfinite().all()) for g in gradients.values())
    assert any(float(g.abs().max()) > 0 for g in gradients.values())
    if CARDS[name].heads:  # the residual branches of a ResNet begin at zero
        assert all(float(g.abs().max()) > 0 for n, g in gradients.items() if n.endswith("weight"))
