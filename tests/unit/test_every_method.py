"""Every method on every family of transformers: what it trains, leaves alone, saves and merges."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.memory.frugal import applied
from geopeft_nb.models import BESIDE, SegmentationModel, part_of
from geopeft_nb.tuning.methods import CARDS

#: What peft warns about is for us to know, not for the learner.
pytestmark = pytest.mark.filterwarnings("error::UserWarning")

D, DEPTH, HIDDEN = 64, 4, 256
SMALL = {"width": D, "depth": DEPTH, "heads": 4}

#: Small instances of the four families, by the name of the card that they take the place of.
FAMILIES: dict[str, dict[str, object]] = {
    "prithvi_eo_v2_300": SMALL | {"img_size": 64},
    "clay_v1_base": SMALL,
    "satmae_base": SMALL | {"img_size": 64},
    "galileo_nano": SMALL,
}

#: Options that make a method small, and the weights that it trains in an encoder of this size.
CHOICES: dict[str, tuple[str, dict[str, object], int | None]] = {
    "linear_probe": ("linear_probe", {}, 0),
    "lora": ("lora", {"r": 4}, DEPTH * 4 * (4 * D + 2 * (D + HIDDEN))),
    "lora q_v": ("lora", {"r": 4, "preset": "q_v"}, DEPTH * 4 * 4 * D),
    "lora all_linear": (
        "lora", {"r": 4, "preset": "all_linear"}, DEPTH * 4 * (8 * D + 2 * (D + HIDDEN))
    ),
    "lora late": ("lora", {"r": 4, "preset": "late"}, 4 * (4 * D + 2 * (D + HIDDEN))),
    "lora dropout": ("lora", {"r": 4, "lora_dropout": 0.5}, DEPTH * 4 * (4 * D + 2 * (D + HIDDEN))),
    "dora": (
        "dora", {"r": 4}, DEPTH * (4 * (4 * D + 2 * (D + HIDDEN)) + 2 * D + HIDDEN + D)
    ),
    "vpt deep": ("vpt", {"prompts": 5}, DEPTH * 5 * D),
    "vpt shallow": ("vpt", {"prompts": 5, "deep": False}, 5 * D),
    "adapter parallel": ("adapter", {"width": 8}, DEPTH * (2 * 8 * D + 8 + D)),
    "adapter serial": (
        "adapter", {"kind": "serial", "width": 8}, DEPTH * 2 * (2 * 8 * D + 8 + D)
    ),
    "vit_adapter": ("vit_adapter", {}, None),
    # Two rungs: each reads D features into 4, and mixes these; the last is projected up again.
    "side": ("side", {"r": 4, "layers": 2}, 2 * (4 * D + 4 + 10 * 4 + 5 * 4) + 5 * D),
    "shallow": ("shallow", {"r": 4, "depth": 2}, 2 * 4 * (4 * D + 2 * (D + HIDDEN))),
    "ln_tuning": ("ln_tuning", {}, DEPTH * 4 * D),
    "bitfit": ("bitfit", {}, None),
    "ia3": ("ia3", {}, DEPTH * (3 * D + HIDDEN)),
    "vera": ("vera", {"r": 16}, DEPTH * (4 * 16 + 2 * D + HIDDEN + D)),
    "loha": ("loha", {"r": 2}, DEPTH * 4 * (4 * D + 2 * (D + HIDDEN))),
    "lokr": ("lokr", {"r": 2}, None),
    "oft": ("oft", {"oft_block_size": 16}, None),
    "full": ("full", {}, None),
}  # fmt: skip
CHANGES_AT_ONCE = {"vpt", "vit_adapter", "shallow"}  # new or missing parts count from the start


@pytest.fixture(autouse=True)
def small_cards(shrink: Callable) -> None:
    for name, sizes in FAMILIES.items():
        shrink(name, **sizes)


@pytest.fixture(scope="module")
def data() -> GeoData:
    # A machine with a GPU may have no library that reads rasters.
    return gp.load_data("scenes" if find_spec("rasterio") else "sandbox")


def build(data: GeoData, family: str, choice: str | None = None) -> SegmentationModel:
    torch.manual_seed(0)
    backbone = gp.load_backbone(family, weights=None, bands=data.bands)
    model = gp.build_model(backbone, data).eval()
    if choice is None:
        return model
    method, options, _ = CHOICES[choice]
    return gp.attach(model, method, **options).eval()


@pytest.fixture
def image(data: GeoData) -> Tensor:
    return torch.stack([data.train[i]["image"] for i in range(2)])


def features(model: SegmentationModel, image: Tensor) -> Tensor:
    with torch.no_grad():
        return model.backbone((image - model.mean) / model.std)[-1]


def train(model: SegmentationModel, image: Tensor, steps: int = 2) -> None:
    """Take steps large enough to be seen; the first of LoRA leaves A alone, because B is zero."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        model(image).square().mean().backward()
        optimiser.step()
    model.eval()


def test_the_list_covers_every_method() -> None:
    assert {method for method, _, _ in CHOICES.values()} == set(gp.list_methods().index)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choice", CHOICES)
def test_method_keeps_its_promises(
    choice: str, family: str, data: GeoData, image: Tensor, tmp_path: Path
) -> None:
    method, _, count = CHOICES[choice]
    plain, model = build(data, family), build(data, family, choice)
    base = features(plain, image)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}

    # Only what the method says is trained.
    encoder = {name for name in trainable if not name.startswith("decoder.")}
    assert {part_of(name) for name in encoder} <= {"backbone" if method == "full" else "adapter"}
    assert any(name.startswith("decoder.") for name in trainable)
    if count is not None:
        assert sum(before[name].numel() for name in encoder) == count

    # Before training the network computes what it computed.
    if method not in CHANGES_AT_ONCE:
        assert torch.allclose(features(model, image), base, atol=1e-5 * float(base.abs().max()))

    # A step changes what is trained, and nothing else.
    train(model, image)
    after = dict(model.named_parameters())
    changed = {name for name, p in after.items() if not torch.equal(p, before[name])}
    assert changed <= trainable
    assert len(changed & encoder) >= 0.7 * len(encoder)  # biases of keys never matter
    trained = features(model, image)
    if method not in ("linear_probe", "vit_adapter"):
        assert (trained - base).abs().max() > 1e-4

    # Taken off, the pretrained network is there again, bit for bit.
    if method in BESIDE:
        with torch.no_grad():
            assert torch.equal(model.plain_backbone((image - model.mean) / model.std)[-1], base)
    elif method == "shallow":
        with pytest.raises(ValueError, match="nothing to take off"), model.without_adapter():
            pass
    elif method != "full":
        with model.without_adapter():
            assert torch.equal(features(model, image), base)
    if model.adapter is not None or method in BESIDE:
        assert torch.equal(features(model, image), trained)

    # Saved and loaded, it gives the same, bit for bit.
    again = gp.load_model(gp.save_adapter(model, tmp_path / "adapter"))
    assert torch.equal(features(again, image), trained)

    # Merged, the output is the same, and nothing is left that would cost time.
    if CARDS[method].merges:
        merged = gp.merge(model)
        assert torch.allclose(features(merged, image), trained, atol=1e-5 * trained.abs().max())
        if method == "shallow":
            plain.backbone.cut(2)
        assert describe(merged.backbone) == describe(plain.backbone)
    else:
        with pytest.raises(ValueError, match="lora"):
            gp.merge(model)
        assert torch.equal(features(model, image), trained)


def describe(network: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in network.named_modules()]


def test_one_model_carries_several_adapters_and_their_decoders(
    data: GeoData, image: Tensor
) -> None:
    model = build(data, "prithvi_eo_v2_300")
    outputs = {}
    for name, rank in (("virginia", 2), ("brandenburg", 4)):
        gp.attach(model, "lora", name=name, r=rank)
        train(model, image)
        with torch.no_grad():
            outputs[name] = model(image)
    assert model.adapters == ("virginia", "brandenburg") and model.adapter == "brandenburg"
    assert not torch.equal(outputs["virginia"], outputs["brandenburg"])
    for name in ("virginia", "brandenburg", "virginia"):
        with torch.no_grad():
            assert torch.equal(model.use_adapter(name)(image), outputs[name])
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert all(f".{name}." in n or n.startswith("decoder.") for n in trained)
    model.double()  # the decoder on the shelf follows when it is taken
    assert model.use_adapter("brandenburg")(image.double()).dtype == torch.float64
    with pytest.raises(ValueError, match=r"Unknown adapter 'virgina'\. Did you mean 'virginia'"):
        model.use_adapter("virgina")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("lora", {"target_modules": ["key"]}, "No layer .* ends in 'key'.*attn.q, attn.v, mlp.fc1"),
        ("lora", {"preset": "papper"}, "Did you mean 'paper'"),
        ("lora", {"last": 9}, "from 1 to 4, got 9"),
        ("ia3", {"r": 4}, "Unknown option of ia3 'r'. Known: .*last"),
        ("dora", {"rank": 4}, "option of dora 'rank'. Did you mean 'r'. Known: .*lora_alpha"),
        ("lora", {"alpha": 4}, "Did you mean 'lora_alpha'"),
        ("loha", {"lora_alpha": 4}, "Did you mean 'alpha'"),
        ("vera", {"dropout": 0.1}, "Did you mean 'vera_dropout'"),
        ("lora", {"targets": ["q"]}, "Did you mean 'target_modules'"),
        ("lorra", {}, "Did you mean 'lora'"),
        ("adapter", {"kind": "seriell"}, "Did you mean 'serial'"),
        ("lora", {"backbone": 1}, "Unknown option of lora 'backbone'"),
        ("lora", {"options": 1}, "Unknown option of lora 'options'"),
        ("lora", {"sead": 1}, "Did you mean 'seed'"),
        ("dora", {"use_dorra": True}, r"option of dora 'use_dorra'\.(?! Did you mean 'use_dora')"),
        ("lora", {"layers_to_transform": [0]}, r"finds no block\. Say last=2, or name layers"),
        ("lora", {"name": "two words"}, "one word"),
        ("vpt", {"name": "train"}, "which torch does not keep for itself"),
    ],
)
def test_bad_options_name_what_would_work(
    data: GeoData, method: str, options: dict[str, object], message: str
) -> None:
    model = build(data, "prithvi_eo_v2_300")
    with pytest.raises(ValueError, match=message):
        gp.attach(model, method, **options)
    assert model.method is None and not model.adapters and not model.method_options


@pytest.mark.parametrize(
    ("method", "options"), [("lora", {"lora_dropout": 0.5}), ("vera", {"vera_dropout": 0.5})]
)
def test_what_is_attached_to_a_model_in_evaluation_does_not_drop_out(
    data: GeoData, image: Tensor, method: str, options: dict[str, object]
) -> None:
    model = gp.attach(build(data, "prithvi_eo_v2_300"), method, **options)
    assert not any(module.training for module in model.modules())
    gp.attach(model.train(), method, name="second", **options)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("method", "options"),
    [("lora", {"preset": "late"}), ("vpt", {}), ("adapter", {}), ("ln_tuning", {"last": 1})],
)
def test_blocks_behind_the_last_chosen_layer_get_nothing_to_train(
    data: GeoData, image: Tensor, method: str, options: dict[str, object]
) -> None:
    backbone = gp.load_backbone("prithvi_eo_v2_300", weights=None, bands=data.bands, layers=[1])
    model = gp.attach(gp.build_model(backbone, data), method, **options)
    model(image).square().mean().backward()
    gradients = [p.grad for n, p in model.named_parameters() if p.requires_grad and "backbone" in n]
    assert gradients and all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize("method", ["lora", "vpt", "vit_adapter"])  # one of each kind
def test_a_convolutional_network_is_refused_before_anything_changes(
    data: GeoData, method: str
) -> None:
    backbone = gp.load_backbone("unet", weights=None)
    model = gp.build_model(backbone, data)
    with pytest.raises(ValueError, match=r"no transformer blocks.*'linear_probe', 'bitfit'"):
        gp.attach(model, method)
    assert model.method is None and model.backbone is backbone


def gradients_of(model: SegmentationModel, image: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(image).float().square().mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def lora(data: GeoData) -> SegmentationModel:
    """A model whose LoRA is well away from its start."""
    model = build(data, "prithvi_eo_v2_300", "lora").train()
    torch.manual_seed(1)
    for parameter in model.backbone.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_recomputing_lora_in_bfloat16_is_as_near_to_float32_as_pefts(
    device: str, lora: SegmentationModel, image: Tensor
) -> None:
    lora, image = lora.to(device), image.to(device)
    exact = gradients_of(lora, image)

    def error() -> float:
        with torch.autocast(device, dtype=torch.bfloat16):
            gradients = gradients_of(lora, image)
        assert all(g.dtype == torch.float32 for g in gradients.values())
        return max(float((gradients[n] - g).norm() / g.norm()) for n, g in exact.items())

    plain = error()
    with applied(lora, "recompute"):
        lean = error()
    assert lean <= 2 * plain <= 0.2  # 8 bits of mantissa, four blocks


def test_recomputing_steps_aside_for_norms_that_are_trained_too(
    lora: SegmentationModel, image: Tensor
) -> None:
    norm = lora.plain_backbone.blocks[1].norm1
    norm.requires_grad_(True)
    plain = gradients_of(lora, image)
    with applied(lora, "recompute"):
        gradients = gradients_of(lora, image)
    assert norm.weight.grad.abs().max() > 0
    for name, gradient in plain.items():
        assert (gradients[name] - gradient).norm() <= 1e-4 * gradient.norm()
