"""SatMAE equals the published implementation, tensor by tensor."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import geopeft_nb as gp
from geopeft_nb.backbones.band_groups import SatMAEViT
from geopeft_nb.backbones.base import BackboneRequest
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.backbones.load import load_exactly
from geopeft_nb.backbones.vit import run_blocks, split_qkv

CARD = replace(
    CARDS["satmae_base"], width=64, depth=2, heads=4, img_size=32,
    extra=CARDS["satmae_base"].extra | {"group_code": 16},
)  # fmt: skip


def small(bands: Sequence[str] = CARD.bands) -> SatMAEViT:
    """SatMAE with little of everything, untrained."""
    torch.manual_seed(0)
    return SatMAEViT(CARD, BackboneRequest(tuple(bands), CARD.img_size)).eval()


@pytest.mark.parametrize(("name", "pooling"), [("satmae_cls", "norm"), ("satmae_globalpool", "fc")])
def test_every_output_equals_the_golden_tensors(
    golden: Callable, close: Callable, name: str, pooling: str
) -> None:
    state, inputs, outputs, meta = golden(name)
    sizes = meta["cfg"]["kwargs"]
    card = replace(
        CARD, width=sizes["embed_dim"], depth=sizes["depth"], heads=sizes["num_heads"],
        patch_size=sizes["patch_size"], img_size=sizes["img_size"],
        extra={"groups": sizes["channel_groups"], "group_code": sizes["channel_embed"]},
    )  # fmt: skip
    model = SatMAEViT(card, BackboneRequest(card.bands, card.img_size)).eval()
    # A network that pools the mean has another norm for it instead of the last one.
    expected = [] if pooling == "norm" else ["norm.weight", "norm.bias"]
    result = model.load_state_dict(split_qkv(model.translate(state), ()), strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (expected, [])

    with torch.no_grad():
        tokens, grid = model.embed(inputs["x"])
        assert grid == (4, 4)
        ours = {"tokens_embedded": tokens}
        for index, block in enumerate(model.blocks):
            tokens = ours[f"tokens_block_{index}"] = block(tokens)
        if pooling == "norm":
            ours["pooled"] = model.norm(tokens)[:, 0]
        else:
            norm = nn.LayerNorm(64, eps=1e-6)
            norm.load_state_dict({key: state[f"fc_norm.{key}"] for key in ("weight", "bias")})
            ours["pooled"] = norm(tokens[:, 1:].mean(dim=1))
        ours["logits"] = ours["pooled"] @ state["head.weight"].T + state["head.bias"]
    for what, value in ours.items():
        close(value, outputs[f"a/{what}"], outputs)
    assert {f"a/{what}" for what in ours} == set(outputs)


def test_base_has_the_published_layout(published_layout: Callable) -> None:
    layout = published_layout("satmae_vit_base_group_channels__96px_p8_62classes")
    with torch.device("meta"):
        model = gp.load_backbone("satmae_base", weights=None)
        published = {key: torch.empty(shape) for key, shape in layout.items()}
        translated = model.translate(published)
    ours = {key: value.shape for key, value in model.state_dict().items()}
    # That file is of a network that pools the mean: it has no final norm.
    missing = {key: ours.pop(key) for key in ("norm.weight", "norm.bias")}
    assert {key: value.shape for key, value in translated.items()} == ours
    assert all(shape == (768,) for shape in missing.values())


def test_bands_join_the_group_of_the_band_nearest_in_wavelength() -> None:
    # Coastal aerosol is nearest to blue, water vapour to the narrow near infrared.
    far = small(["SWIR_2", "WATER_VAPOR", "COASTAL_AEROSOL"])
    assert far.groups == [["COASTAL_AEROSOL"], ["WATER_VAPOR"], ["SWIR_2"]]
    assert small(["NIR_NARROW", "RED", "BLUE"]).groups == [["RED", "BLUE"], ["NIR_NARROW"], []]


def test_absent_bands_count_as_bands_at_their_mean() -> None:
    full, part = small(), small(["SWIR_1", "RED", "BLUE"])
    part.load_state_dict(part.translate(full.state_dict()))
    given = torch.rand(1, 3, 32, 32)
    # 0.5 is where the scaling of SatMAE puts the mean of a band.
    offset, divisor = full.scaling()
    torch.testing.assert_close((torch.tensor(CARD.mean) - offset) / divisor, torch.full((10,), 0.5))
    image = torch.full((1, 10, 32, 32), 0.5)
    image[:, [8, 2, 0]] = given
    with torch.no_grad():
        reference, tokens = full.embed(image)[0], part.embed(given)[0]
    # The second group has no band, so that its 16 tokens do not exist.
    assert (reference.shape[1], tokens.shape[1]) == (1 + 3 * 16, 1 + 2 * 16)
    torch.testing.assert_close(tokens, reference[:, [*range(17), *range(33, 49)]])


def test_position_codes_are_resized_for_each_image() -> None:
    model = small()
    nn.init.normal_(model.pos_embed)
    for embed in model.patch_embed.values():
        nn.init.zeros_(embed.proj.weight)  # so that tokens are their codes
    with torch.no_grad():
        tokens, grid = model.embed(torch.rand(1, 10, 5 * 8, 9 * 8))
    assert grid == (5, 9)
    corners = tokens[:, 1 : 1 + 5 * 9, :48].unflatten(1, (5, 9))[:, ::4, ::8]
    own = model.pos_embed[:, 1:].unflatten(1, (4, 4))
    torch.testing.assert_close(corners, own[:, ::3, ::3])


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("pos_embed", (1, 1 + 3 * 3, 48)),
        ("patch_embed.0.proj.bias", (1,)),
        ("patch_embed.0.proj.weight", (64, 4)),
    ],
)
def test_mis_shaped_tensors_are_left_for_the_loader_to_refuse(key: str, shape: tuple) -> None:
    model = small(["RED", "BLUE"])
    state = small().state_dict() | {key: torch.zeros(shape)}
    with pytest.raises(ValueError, match=f"size mismatch for {key}"):
        load_exactly(model, model.translate(state), Path("wrong.pth"))


def test_feature_map_is_the_mean_of_the_groups_of_a_cell() -> None:
    model, image = small(), torch.rand(1, 10, 16, 24)
    with torch.no_grad():
        tokens, _ = model.begin(image)
        (tokens,) = run_blocks(model.blocks, model.norm, model.layers, tokens)
        # Class token, then three groups of 2 x 3 cells; row 1, column 2 is the last of each.
        expected = tokens[0, [6, 12, 18]].mean(dim=0)
        torch.testing.assert_close(model(image)[0][0, :, 1, 2], expected)
