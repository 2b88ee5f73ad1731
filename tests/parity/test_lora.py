"""LoRA by stock peft equals the published one, and has its size."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from torch import Tensor

import geopeft_nb as gp
from geopeft_nb.backbones.base import Transformer
from geopeft_nb.backbones.vit import run_blocks
from geopeft_nb.tuning.lora import lora_config


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the published updates of queries and values as our layers."""
    return {
        key.replace("qkv.q_linear.", "q.").replace("qkv.v_linear.", "v."): value
        for key, value in state.items()
        if "lora_" in key
    }


def blocks_of(backbone: Transformer, image: Tensor) -> list[Tensor]:
    tokens, _ = backbone.begin(image)
    return run_blocks(backbone.blocks, backbone.norm, backbone.layers, tokens)


@pytest.mark.parametrize("mode", ["eval", "train", "merged"])
def test_lora_equals_the_published_one(
    mode: str, golden: Callable, close: Callable, shrink: Callable, tmp_path: Path
) -> None:
    state, inputs, outputs, meta = golden("prithvi_lora")
    size, peft = meta["cfg"]["kwargs"], meta["cfg"]["peft"]["peft_config_kwargs"]
    base = golden("prithvi_lora", weights="base_sd/")[0]
    name = meta["cfg"]["variant"]
    shrink(name, width=size["embed_dim"], depth=size["depth"], heads=size["num_heads"])
    torch.save(base, tmp_path / "checkpoint.pt")
    backbone = gp.load_backbone(
        name, tmp_path / "checkpoint.pt", img_size=size["img_size"], layers=range(size["depth"])
    )
    config = lora_config(backbone, r=peft["r"], lora_alpha=peft["lora_alpha"])
    model = get_peft_model(backbone, config).train(mode == "train")
    report = model.load_state_dict(renamed(state), strict=False)
    assert not report.unexpected_keys and not [k for k in report.missing_keys if "lora_" in k]
    image = inputs["x"][:, :, None]
    with model.disable_adapter():
        for index, tokens in enumerate(blocks_of(backbone, image)):
            close(tokens, outputs[f"adapter_disabled/block_{index}"], outputs)
    if mode == "merged":
        backbone = model.merge_and_unload()
    for index, tokens in enumerate(blocks_of(backbone, image)):
        close(tokens, outputs[f"lora/block_{index}"], outputs)


@pytest.mark.parametrize(
    ("name", "count"), [("prithvi_eo_v1_100", 2_064_384), ("prithvi_eo_v2_300", 5_505_024)]
)
def test_the_paper_trains_as_many_encoder_weights(name: str, count: int) -> None:
    """arXiv 2504.17397; its adapter is then 4 bytes a weight: 22 MB for the 300M model."""
    with torch.device("meta"):
        backbone = gp.load_backbone(name, weights=None)
        model = get_peft_model(backbone, lora_config(backbone))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("name", ["prithvi_eo_v1_100", "prithvi_eo_v2_300"])
def test_shapes_are_those_of_the_published_full_size_models(
    name: str, golden_path: Callable
) -> None:
    listed = json.loads(golden_path("full_size_keys.json").read_text())["models"]
    found = [k for k in listed if name in k and "lora" in k.lower()]
    assert len(found) == 1
    theirs = {k: torch.empty(v, device="meta") for k, v in listed[found[0]].items()}
    with torch.device("meta"):
        backbone = gp.load_backbone(name, weights=None)
        model = get_peft_model(backbone, lora_config(backbone))
    ours = {k: v.shape for k, v in model.state_dict().items() if "lora_" in k}
    assert ours == {k: v.shape for k, v in renamed(theirs).items()}
