"""Clay v1 equals the published implementation, tensor by tensor."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from geopeft_nb.backbones.base import BackboneRequest
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.backbones.clay import ClayViT
from geopeft_nb.backbones.load import load_exactly
from geopeft_nb.backbones.vit import run_blocks, split_qkv

CARD = CARDS["clay_v1_base"]
#: Wavelengths of the golden calls that name none: blue, green, red, nir, swir16, swir22.
WAVES = torch.tensor([0.493, 0.56, 0.665, 0.842, 1.61, 2.19])
JULY, JANUARY = torch.tensor([[[2021.0, 200.0]]]), torch.tensor([[[2021.0, 10.0]]])
ZURICH, QUITO = torch.tensor([[47.4, 8.5]]), torch.tensor([[-0.2, -78.5]])


def from_golden(state: dict[str, Tensor], sizes: dict) -> ClayViT:
    card = replace(
        CARD, width=sizes["dim"], depth=sizes["depth"], heads=sizes["heads"],
        patch_size=sizes["patch_size"],
    )  # fmt: skip
    model = ClayViT(card, BackboneRequest(card.bands, 64, layers=range(card.depth))).eval()
    load_exactly(model, model.translate(state), Path("golden"))
    return model


def small(bands: Sequence[str] = CARD.bands, gsd: float = 10.0) -> ClayViT:
    """Clay with little of everything, untrained."""
    card = replace(CARD, width=64, depth=2, heads=4)
    torch.manual_seed(0)
    return ClayViT(card, BackboneRequest(tuple(bands), 64, gsd=gsd)).eval()


def embeddings(model: ClayViT, inputs: dict[str, Tensor], call: dict) -> dict[str, Tensor]:
    image, waves = inputs[call["x"]], inputs.get(call.get("waves", ""), WAVES)
    time, place = inputs.get(call.get("time", "")), inputs.get(call.get("latlon", ""))
    patches, waves_encoded = model.patch_embedding(image, waves)
    tokens, _ = model.embed(image, waves, call.get("gsd", 1.0), time, place)
    return {
        "patches": patches.flatten(2).transpose(1, 2),
        "waves_encoded": waves_encoded,
        "patches_with_encodings": tokens,
    }


def test_every_output_equals_the_golden_tensors(golden: Callable, close: Callable) -> None:
    state, inputs, outputs, meta = golden("clay_v1")
    model = from_golden(state, meta["cfg"]["kwargs"])
    compared = set()
    for call in meta["cfg"]["calls"]:
        with torch.no_grad():
            ours = embeddings(model, inputs, call)
            tokens = model.add_class_token(ours["patches_with_encodings"])
            layers = run_blocks(model.blocks, model.norm, model.layers, tokens)
        ours |= {f"layer_{index}": tokens for index, tokens in enumerate(layers)}
        ours["image"] = layers[-1][:, 1:].transpose(1, 2).unflatten(2, (6, 6))
        for name, value in ours.items():
            close(value, outputs[f"{call['name']}/{name}"], outputs)
            compared.add(f"{call['name']}/{name}")
    assert compared == set(outputs)


def test_patch_embedding_of_another_size_equals_the_golden_tensors(
    golden: Callable, close: Callable
) -> None:
    state, inputs, outputs, meta = golden("clay_v1_vpt")
    state = {key: value for key, value in state.items() if "vpt_prompt" not in key}
    model = from_golden(state, meta["cfg"]["kwargs"])
    with torch.no_grad():
        ours = embeddings(model, inputs, meta["cfg"]["calls"][0])
    for name, value in ours.items():
        close(value, outputs[f"vpt/{name}"], outputs)


def test_full_size_has_the_published_layout(golden_path: Callable) -> None:
    layout = json.loads(golden_path("full_size_keys.json").read_text())["models"][CARD.name]
    with torch.device("meta"):
        published = {key: torch.empty(shape) for key, shape in layout.items()}
        model = ClayViT(CARD, BackboneRequest(CARD.bands, CARD.img_size))
    ours = {key: value.shape for key, value in model.state_dict().items()}
    theirs = split_qkv(model.translate(published), ours)
    assert {key: value.shape for key, value in theirs.items()} == ours


def test_the_ground_sampling_distance_changes_features() -> None:
    image = torch.rand(1, 10, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(small()(image)[0], small(gsd=30.0)(image)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("temporal", "location", "message"),
    [
        ([[[2021.0, 400.0]]], None, r"day of year from \(1, 1\) to \(9999, 366\)"),
        ([[[2021.0, float("nan")]]], None, r"day of year from \(1, 1\) to \(9999, 366\)"),
        ([[200.0, 2021.0]], None, r"time must be .* of shape"),
        (None, [[8.5, 147.4, 0.0]], r"location must be .* of shape"),
        (None, [[147.4, 8.5]], r"latitude .* from \(-90, -360\)"),
    ],
)
def test_bad_metadata_is_refused(
    temporal: list | None, location: list | None, message: str
) -> None:
    given = [None if value is None else torch.tensor(value) for value in (temporal, location)]
    with pytest.raises(ValueError, match=message):
        small()(torch.rand(1, 10, 16, 16), *given)
