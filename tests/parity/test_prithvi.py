"""Prithvi-EO equals the published implementation, tensor by tensor."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from masked_autoencoder import MaskedAutoencoder, load_autoencoder
from torch import Tensor

import geopeft_nb as gp
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.backbones.prithvi import PrithviViT
from geopeft_nb.backbones.vit import run_blocks


def sizes_of(size: dict[str, int]) -> dict[str, object]:
    """What a card says of the sizes of a golden file."""
    return {
        "img_size": size["img_size"], "width": size["embed_dim"], "depth": size["depth"],
        "heads": size["num_heads"], "frames": size["num_frames"],
        "decoder": (size.get("decoder_embed_dim", 32), size.get("decoder_depth", 1), 2),
    }  # fmt: skip


@pytest.fixture
def load_small(shrink: Callable, tmp_path: Path) -> Callable[..., PrithviViT]:
    """A callable: load weights by the real loader into a small network of a published name."""

    def load(
        name: str, size: dict[str, int], state: dict[str, Tensor], **options: object
    ) -> PrithviViT:
        shrink(name, **sizes_of(size))
        torch.save(state, tmp_path / "checkpoint.pt")
        model = gp.load_backbone(
            name, tmp_path / "checkpoint.pt", img_size=size["img_size"],
            frames=size["num_frames"], layers=range(size["depth"]), **options,
        )  # fmt: skip
        assert isinstance(model, PrithviViT)
        return model.eval()

    return load


@pytest.mark.parametrize("name", ["v2_t1", "v2_t3", "v2_tl_t1", "v2_tl_t3", "interp"])
def test_blocks_and_maps_equal_the_golden_tensors(
    name: str, golden: Callable, close: Callable, load_small: Callable
) -> None:
    state, inputs, outputs, meta = golden(f"prithvi_{name}")
    size, variant = meta["cfg"]["kwargs"], meta["cfg"]["variant"]
    compared = set()
    for call in meta["cfg"]["calls"]:
        image = inputs[call["x"]]
        if call["name"] == "72x88":  # upstream drops the border that fills no patch; we keep it
            image = image[..., :64, :80]
        image = image if image.ndim == 5 else image[:, :, None]
        given = {key: inputs[call[key]] for key in ("temporal", "location") if key in call}
        model = load_small(variant, size, state)
        # Other codes than the sin-cos ones count only for the frames that they were made for.
        if "pos_embed" in call and image.shape[2] == size["num_frames"]:
            model.pos_embed.copy_(inputs[call["pos_embed"]])
        with torch.no_grad():
            tokens, grid = model.embed(image, **given)  # `begin` would refuse other frames
            tokens = model.add_class_token(tokens)
            blocks = run_blocks(model.blocks, model.norm, model.layers, tokens)
        assert grid == (image.shape[2], image.shape[3] // 16, image.shape[4] // 16)
        for index, tokens in enumerate(blocks):
            key = f"{call['name']}/block_{index}"
            close(tokens, outputs[key], outputs)
            compared.add(key)
        if call.get("images"):
            with torch.no_grad():
                maps = model(image, **given)
            for index, features in enumerate(maps):
                key = f"{call['name']}/image_{index}"
                close(features, outputs[key], outputs)
                compared.add(key)
    wanted = {key for key in outputs if "pos_embed" not in key}
    assert compared == wanted


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("layout", ["as published", "oldest", "half precision"])
def test_checkpoints_load_like_upstream_into_other_sizes_bands_and_models(
    version: str, layout: str, golden: Callable, close: Callable, load_small: Callable
) -> None:
    state, inputs, outputs, meta = golden(f"prithvi_{version}_checkpoint")
    if layout == "oldest":  # every key carried the name of the module that wrapped timm's
        state = {f"_timm_module.{key}": value for key, value in state.items()}
    if layout == "half precision":  # exact: the golden weights are representable in bfloat16
        state = {key: value.bfloat16() for key, value in state.items()}
    for wanted in meta["models"]:
        name, size = wanted["name"], wanted["kwargs"]
        model = load_small(wanted["variant"], size, state, bands=wanted["bands"])
        kernel = outputs[f"{name}/loaded/patch_embed.proj.weight"]
        assert np.array_equal(model.patch_embed.proj.weight.detach(), kernel)
        image = inputs[wanted["x"]]
        kinds = ("temporal", "location") if wanted["coords"] else ()
        given = {kind: inputs[f"{kind}_coords"] for kind in kinds}
        close(model.pos_embed, outputs[f"{name}/loaded/pos_embed"], outputs)
        with torch.no_grad():
            image = image if image.ndim == 5 else image[:, :, None]
            tokens, _ = model.begin(image, **given)
            blocks = run_blocks(model.blocks, model.norm, model.layers, tokens)
        for index, tokens in enumerate(blocks):
            close(tokens, outputs[f"{name}/block_{index}"], outputs)


@pytest.mark.parametrize(
    ("version", "name"), [("v1", "prithvi_eo_v1_100"), ("v2", "prithvi_eo_v2_300_tl")]
)
def test_the_same_files_load_as_autoencoders_and_rebuild_any_image(
    version: str, name: str, golden: Callable, shrink: Callable, tmp_path: Path
) -> None:
    state, _, _, meta = golden(f"prithvi_{version}_checkpoint")
    shrink(name, **sizes_of(meta["mae_kwargs"]))
    torch.save(state, tmp_path / "checkpoint.pt")
    model = load_autoencoder(name, tmp_path / "checkpoint.pt")
    bias = state["decoder_pred.bias" if version == "v1" else "decoder.decoder_pred.bias"]
    assert torch.equal(model.decoder.decoder_pred.bias, bias)
    image = torch.randn(2, 6, 2, 40, 70, generator=torch.Generator().manual_seed(0))
    rebuilt, hidden = model.reconstruct(image, 0.5, torch.Generator().manual_seed(0))
    assert model.reconstruct(image[:, :, 0])[0].shape == (2, 6, 1, 40, 70)
    assert rebuilt.shape == image.shape and hidden.shape == (2, 2, 40, 70)
    hidden = hidden[:, None].expand_as(image) == 1
    assert torch.equal(rebuilt[~hidden], image[~hidden])
    assert not torch.isclose(rebuilt[hidden], image[hidden]).all()
    with pytest.raises(ValueError, match=r'Missing key.*"decoder\.mask_token"'):
        bad = {key: value for key, value in state.items() if not key.endswith("mask_token")}
        torch.save(bad, tmp_path / "checkpoint.pt")
        load_autoencoder(name, tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("name", [name for name in CARDS if name.startswith("prithvi")])
def test_full_size_keys_and_shapes_are_the_published_ones(
    name: str, published_layout: Callable
) -> None:
    with torch.device("meta"):  # no memory, so that the 600M can be looked at as well
        model = gp.load_backbone(name, weights=None, img_size=224)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == published_layout(name)


@pytest.mark.parametrize("name", ["prithvi_eo_v1_100", "prithvi_eo_v2_300"])
def test_full_size_autoencoder_has_the_published_keys(
    name: str, published_layout: Callable
) -> None:
    card = CARDS[name]
    with torch.device("meta"):
        encoder = gp.load_backbone(name, weights=None, frames=4)
        assert isinstance(encoder, PrithviViT) and card.decoder is not None
        model = MaskedAutoencoder(encoder, 6, card.decoder)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == published_layout(f"{name}__mae_num_frames4")
