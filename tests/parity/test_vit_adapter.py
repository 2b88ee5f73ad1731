"""ViT-Adapter equals the published implementation, tensor by tensor."""

from collections.abc import Callable

import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.backbones.vit import split_qkv
from geopeft_nb.tuning.beside import VitAdapter

#: Parts of the transformer that the published network with adapter lacks.
UNUSED = {"vit.cls_token", "vit.norm.weight", "vit.norm.bias"}


def published_names(model: VitAdapter) -> dict[str, str]:
    """Our keys -> the published ones, in which adapter and transformer stand side by side."""
    return {key: key.removeprefix("vit.") for key in model.state_dict() if key not in UNUSED}


def test_every_map_equals_the_golden_tensors(
    golden: Callable, close: Callable, shrink: Callable
) -> None:
    state, inputs, outputs, meta = golden("prithvi_vit_adapter")
    size, name = meta["cfg"]["kwargs"], meta["cfg"]["variant"]
    sizes = {"width": size["embed_dim"], "heads": size["deform_num_heads"]}
    shrink(name, img_size=size["img_size"], depth=size["depth"], **sizes)
    model = VitAdapter(gp.load_backbone(name, weights=None), stem=size["conv_inplane"]).eval()
    names, state = published_names(model), split_qkv(state, ())
    assert set(names.values()) == set(state)
    model.load_state_dict({ours: state[theirs] for ours, theirs in names.items()}, strict=False)

    compared = set()
    for call in meta["cfg"]["calls"]:
        with torch.no_grad():
            maps = model(inputs[call["x"]])
        for index, features in enumerate(maps):
            key = f"{call['name']}/map_{index}"
            close(features, outputs[key], outputs)
            compared.add(key)
    assert compared == set(outputs)


@pytest.mark.parametrize(
    ("name", "trainable"), [("prithvi_eo_v1_100", 11_886_368), ("prithvi_eo_v2_300", 20_057_472)]
)
def test_full_size_layout_and_parameter_count_are_the_published_ones(
    name: str, trainable: int, published_layout: Callable
) -> None:
    with torch.device("meta"):
        model = VitAdapter(gp.load_backbone(name, weights=None))
    ours = model.state_dict()
    shapes = {theirs: list(ours[key].shape) for key, theirs in published_names(model).items()}
    assert shapes == published_layout(f"{name}__vit_adapter")
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
