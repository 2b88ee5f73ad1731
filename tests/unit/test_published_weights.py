"""Every card's weights in their published layout: loaded from a mirror, or refused by name."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from masked_autoencoder import MaskedAutoencoder
from safetensors.torch import save_file
from torch import Tensor

import geopeft_nb as gp
from geopeft_nb.backbones.base import Backbone
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.backbones.vit import join_qkv

State = dict[str, Tensor]


def prithvi_file(backbone: Backbone) -> State:
    """Encoder and decoder; version 1 has no prefixes."""
    state = join_qkv(MaskedAutoencoder(backbone, 6, backbone.card.decoder).state_dict())
    if "_v1_" in backbone.card.name:
        return {key.split(".", 1)[1]: value for key, value in state.items()}
    return state


def clay_file(backbone: Backbone) -> dict[str, object]:
    """A Lightning checkpoint with encoder and decoder."""
    parts = {
        "norm1": "0.norm", "attn.qkv": "0.to_qkv", "attn.proj": "0.to_out",
        "norm2": "1.net.0", "mlp.fc1": "1.net.1", "mlp.fc2": "1.net.3",
    }  # fmt: skip
    state = {"model.decoder.mask_token": torch.zeros(3)}
    for key, value in join_qkv(backbone.state_dict()).items():
        if key.startswith("blocks."):
            _, index, *part, kind = key.split(".")
            key = f"transformer.layers.{index}.{parts['.'.join(part)]}.{kind}"
        elif key.startswith("norm."):
            key = f"transformer.{key}"
        state[f"model.encoder.{key}"] = value
    return {"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 1e-4}}


def satmae_file(backbone: Backbone) -> dict[str, object]:
    """A masked autoencoder's training checkpoint."""
    state = {
        **join_qkv(backbone.state_dict()),
        "mask_token": torch.zeros(1),
        "decoder_norm.bias": torch.zeros(1),
    }
    return {"model": state, "epoch": 199, "args": argparse.Namespace(lr=1e-3)}


def galileo_file(backbone: Backbone) -> State:
    """Queries, keys and values apart, and the modules for radar, weather and maps."""
    names = {
        "group_embed": "s_t_channel_embed", "static_embed": "st_channel_embed",
        "month_embed": "month_embed.weight",
        "location_embed.weight": "static_embed.location.weight",
        "location_embed.bias": "static_embed.location.bias",
    }  # fmt: skip
    state = {
        "space_time_embed.S1.proj.weight": torch.zeros(64, 2, 8, 8),
        "space_embed.DW.proj.bias": torch.zeros(64),
        "t_channel_embed": torch.zeros(3, 16),
    }
    for key, value in backbone.state_dict().items():
        if key == "resize":
            continue
        if key.startswith("patch_embed."):
            _, group, kind = key.split(".")
            key = f"space_time_embed.{group}.proj.{kind}"
        state[names.get(key, key)] = value
    return state


def resnet_file(backbone: Backbone) -> State:
    """timm's keys, with a classifier."""
    state = {key.removeprefix("network."): value for key, value in backbone.state_dict().items()}
    return {**state, "fc.bias": torch.zeros(3)}


FILES: dict[str, Callable[[Backbone], dict]] = {
    "prithvi": prithvi_file,
    "clay": clay_file,
    "satmae": satmae_file,
    "galileo": galileo_file,
    "resnet": resnet_file,
}
NAMES = [name for name, card in CARDS.items() if card.weights is not None]


def tensors(content: dict) -> State:
    """The state dict inside a checkpoint."""
    return content.get("state_dict", content.get("model", content))


def write(content: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: value.half().contiguous() for key, value in content.items()}, path)
    else:
        torch.save(content, path)


@pytest.fixture
def published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shrink: Callable
) -> Callable[[str], tuple[Backbone, dict, Path]]:
    """Make the random network of a card, its published file's content, and the path in a mirror."""

    def make(name: str) -> tuple[Backbone, dict, Path]:
        sizes: dict[str, object] = {"depth": 2, "decoder": (32, 1, 2)}
        if CARDS[name].family == "resnet":
            sizes = {"extra": {"timm": "resnet18"}, "width": 512}
        shrink(name, weights=replace(CARDS[name].weights, size=None, sha256=None), **sizes)
        card = CARDS[name]
        monkeypatch.setenv("GEOPEFT_MIRROR", str(tmp_path))
        if card.weights.url:  # what ships must not be found first
            path = tmp_path / card.weights.path
        else:
            path = tmp_path / "weights" / Path(card.weights.path).name
        original = gp.load_backbone(name, weights=None, seed=5)
        return original, FILES[card.family](original), path

    return make


def load(name: str, path: Path) -> Backbone:
    """By name from the mirror, or by path for what ships."""
    ships = not CARDS[name].weights.url
    return gp.load_backbone(name, weights=path if ships else "pretrained")


@pytest.mark.parametrize("name", NAMES)
def test_a_published_file_in_a_mirror_folder_gives_back_the_network(
    name: str, published: Callable
) -> None:
    original, content, path = published(name)
    write(content, path)
    loaded = load(name, path)
    assert loaded.provenance["weights"] == str(path)
    for key, value in original.state_dict().items():
        again = loaded.state_dict()[key]
        if key not in original.fixed and path.suffix == ".safetensors":
            value = value.half().float()  # the file's precision
        assert torch.equal(again, value), key


#: One weight of each family, by its published name and by ours.
KEYS = {
    "prithvi": ("encoder.blocks.0.norm2.weight", "blocks.0.norm2.weight"),
    "clay": ("model.encoder.transformer.layers.0.1.net.0.weight", "blocks.0.norm2.weight"),
    "satmae": ("blocks.0.norm2.weight", "blocks.0.norm2.weight"),
    "galileo": ("blocks.0.norm2.weight", "blocks.0.norm2.weight"),
    "resnet": ("layer2.0.bn1.weight", "network.layer2.0.bn1.weight"),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("renamed", 'Missing key.*"{ours}".*Unexpected key.*weights"'),
        ("shape", r"size mismatch for {ours}: .*\[7\].*\[\d+\]"),
        ("not finite", "{ours} with values that are no finite"),
    ],
)
@pytest.mark.parametrize("name", {CARDS[name].family: name for name in NAMES}.values())
def test_a_damaged_file_is_refused_and_says_what_is_wrong(
    name: str, change: str, message: str, published: Callable
) -> None:
    _, content, path = published(name)
    state, (key, ours) = tensors(content), KEYS[CARDS[name].family]
    value = state.pop(key)
    changed = {"shape": torch.ones(7), "not finite": torch.full_like(value, torch.nan)}
    state[f"{key}s" if change == "renamed" else key] = changed.get(change, value)
    write(content, path)
    with pytest.raises(ValueError, match=message.replace("{ours}", ours)):
        load(name, path)


def test_a_file_of_other_bands_is_refused_and_not_reordered(published: Callable) -> None:
    _, content, path = published("prithvi_eo_v2_300")
    key = "encoder.patch_embed.proj.weight"
    content[key] = content[key][:, :3]
    write(content, path)
    with pytest.raises(ValueError, match="that of the published one has 6 input channels: BLUE"):
        gp.load_backbone("prithvi_eo_v2_300", bands=["GREEN", "BLUE", "RED"])


def test_scales_of_time_and_location_are_left_out_only_where_that_is_documented(
    published: Callable,
) -> None:
    _, content, path = published("prithvi_eo_v2_300")
    scales = {f"encoder.{name}_embed_enc.scale": torch.ones(1) for name in ("temporal", "location")}
    write({**content, **scales}, path)
    loaded = gp.load_backbone("prithvi_eo_v2_300")
    assert "time and location are left out" in loaded.provenance["adapted"]
    _, content, path = published("prithvi_eo_v1_100")
    write({**content, **{k.removeprefix("encoder."): v for k, v in scales.items()}}, path)
    with pytest.raises(ValueError, match=r'Unexpected key.*"temporal_embed_enc\.scale"'):
        gp.load_backbone("prithvi_eo_v1_100")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder": {"weight": torch.zeros(1)}}, r"holds no tensors by name"),
        ({"norm.bias": torch.zeros(192, dtype=torch.int8)}, "no finite real numbers"),
        ([torch.zeros(1)], "holds no tensors by name"),
        ({f"{part}norm.bias": torch.zeros(192) for part in ("", "encoder.")}, "a tensor twice"),
    ],
)
def test_content_that_is_no_state_dict_is_refused(
    content: object, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=message):
        gp.load_backbone("geopeft_tiny", weights=tmp_path / "odd.pt")


def test_pretrained_weights_cannot_go_to_the_meta_device() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="weights=None"):
        gp.load_backbone("geopeft_tiny")
