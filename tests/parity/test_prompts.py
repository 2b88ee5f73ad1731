"""Visual prompts equal the published implementation, tensor by tensor.

There the prompts stand between class token and patches, here at the end.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor

import geopeft_nb as gp
from geopeft_nb.backbones.base import Backbone, BackboneRequest
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.backbones.clay import ClayViT
from geopeft_nb.backbones.load import load_exactly
from geopeft_nb.backbones.prithvi import PrithviViT
from geopeft_nb.backbones.vit import run_blocks
from geopeft_nb.tuning.own_methods import vpt_config

#: Wavelengths of the golden call: blue, green, red, nir, swir16, swir22.
WAVES = torch.tensor([0.493, 0.56, 0.665, 0.842, 1.61, 2.19])


def with_golden_prompts(backbone: Backbone, state: dict[str, Tensor]) -> peft.PeftModel:
    """Load the backbone's weights and put the golden prompts into visual prompts of peft."""
    prompts = [value for key, value in state.items() if "vpt_prompt_embeddings" in key]
    plain = {key: value for key, value in state.items() if "vpt_prompt_embeddings" not in key}
    load_exactly(backbone, backbone.translate(plain), Path("golden"))
    tuned = peft.get_peft_model(backbone, vpt_config(backbone, prompts=prompts[0].shape[1])).eval()
    assert len(prompts) == len(backbone.blocks)
    with torch.no_grad():
        for block, value in zip(backbone.blocks, prompts, strict=True):
            block.vpt_prompts["default"].copy_(value)
    return tuned


def test_prithvi_with_prompts_equals_the_golden_tensors(golden: Callable, close: Callable) -> None:
    state, inputs, outputs, meta = golden("prithvi_vpt")
    size = meta["cfg"]["kwargs"]
    depth = size["depth"]
    card = replace(
        CARDS["prithvi_eo_v2_300"], width=size["embed_dim"], depth=depth, heads=size["num_heads"]
    )
    backbone = PrithviViT(card, BackboneRequest(card.bands, size["img_size"], layers=range(depth)))
    tuned = with_golden_prompts(backbone, state)
    with torch.no_grad():
        tokens, _ = backbone.begin(inputs["x"])
        blocks = run_blocks(backbone.blocks, backbone.norm, backbone.layers, tokens)
        ours = {f"vpt/block_{index}": value for index, value in enumerate(blocks)}
        ours |= {f"vpt/image_{index}": value for index, value in enumerate(tuned(inputs["x"]))}
    assert set(ours) == set(outputs)
    for name, value in ours.items():
        close(value, outputs[name], outputs)
    with torch.no_grad(), tuned.disable_adapter():
        plain = tuned(inputs["x"])[-1]
    # The prompts matter: without them the result is far outside the tolerance.
    assert float((plain - ours["vpt/image_2"]).abs().max()) > 1e-2


def test_clay_with_prompts_equals_the_golden_tensors(golden: Callable, close: Callable) -> None:
    state, inputs, outputs, meta = golden("clay_v1_vpt")
    size = meta["cfg"]["kwargs"]
    card = replace(
        CARDS["clay_v1_base"], width=size["dim"], depth=size["depth"], heads=size["heads"],
        patch_size=size["patch_size"],
    )  # fmt: skip
    backbone = ClayViT(card, BackboneRequest(card.bands, card.img_size, layers=range(card.depth)))
    with_golden_prompts(backbone, state)
    call = meta["cfg"]["calls"][0]
    with torch.no_grad():
        patches, grid = backbone.embed(
            inputs["x"], WAVES, call["gsd"], inputs["time"], inputs["latlon"]
        )
        tokens = backbone.add_class_token(patches)
        layers = run_blocks(backbone.blocks, backbone.norm, backbone.layers, tokens)
    ours = {f"vpt/layer_{index}": value for index, value in enumerate(layers)}
    ours["vpt/image"] = backbone.to_map(layers[-1], grid)
    # What comes before the first block is compared in test_clay.py.
    before = {f"vpt/{n}" for n in ("patches", "waves_encoded", "patches_with_encodings")}
    assert set(ours) == set(outputs) - before
    for name, value in ours.items():
        close(value, outputs[name], outputs)


@pytest.mark.parametrize(
    ("name", "count"), [("prithvi_eo_v1_100", 921_600), ("prithvi_eo_v2_300", 2_457_600)]
)
def test_hundred_prompts_have_the_published_number_of_weights(
    name: str, count: int, golden_path: Callable
) -> None:
    with torch.device("meta"):
        backbone = gp.load_backbone(name, weights=None)
    tuned = peft.get_peft_model(backbone, vpt_config(backbone))
    prompts = [p for p in tuned.parameters() if p.requires_grad]
    assert sum(p.numel() for p in prompts) == count
    layout = json.loads(golden_path("full_size_keys.json").read_text())["models"][f"{name}__vpt100"]
    published = [tuple(shape) for key, shape in layout.items() if "vpt_prompt" in key]
    assert [tuple(p.shape) for p in prompts] == published
