"""Frugal recipes: the same gradients from less memory, and everything as it was afterwards."""

import pytest
import torch
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.memory.frugal import RECIPES, applied, chosen_recipes
from geopeft_nb.memory.lean import quantise
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.models import SegmentationModel


@pytest.fixture(scope="module")
def data() -> GeoData:
    return gp.load_data("scenes")


@pytest.fixture(scope="module")
def batch(data: GeoData) -> tuple[torch.Tensor, torch.Tensor]:
    samples = [data.train[index] for index in range(2)]
    return tuple(torch.stack([sample[key] for sample in samples]) for key in ("image", "mask"))  # type: ignore[return-value]


def build(
    data: GeoData, method: str, backbone: str = "geopeft_tiny", decoder: str = "linear",
    **options: object,
) -> SegmentationModel:  # fmt: skip
    """Attach a method, and move what it trains away from a start at which much is zero."""
    plain = gp.load_backbone(backbone, weights=None, bands=data.bands)
    model = gp.attach(gp.build_model(plain, data, decoder, pad=True), method, **options).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def loss(model: SegmentationModel, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(1)  # of dropout
    image, mask = batch
    return functional.cross_entropy(model(image.to(model.mean.dtype)), mask, ignore_index=-1)


def gradients(
    model: SegmentationModel, batch: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss(model, batch).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def kept(model: SegmentationModel, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, int]:
    return training_bytes(model, lambda: loss(model, batch))


AGAIN = [
    *[("recompute", method, {}) for method in ("full", "lora", "dora", "oft")],
    *[("checkpoint", method, {}) for method in ("full", "lora", "vpt", "vit_adapter", "bitfit")],
    *[(recipe, "lora", {"lora_dropout": 0.1}) for recipe in ("recompute", "checkpoint")],
    ("checkpoint", "adapter", {"kind": "serial"}),
]


@pytest.mark.parametrize(("recipe", "method", "options"), AGAIN)
def test_computing_again_gives_the_same_gradients(
    data: GeoData, batch: tuple, recipe: str, method: str, options: dict
) -> None:
    model = build(data, method, **options)
    plain, before = gradients(model, batch), kept(model, batch)["activations"]
    with applied(model, recipe) as done:
        after = kept(model, batch)["activations"]
        again = gradients(model, batch)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        if (recipe, method) == ("recompute", "lora"):  # sums in another order
            assert (again[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
        else:
            assert torch.equal(gradient, again[name]), name
    assert done.keys() == {recipe} and after < 0.8 * before


def test_recompute_is_exact_in_float64(data: GeoData, batch: tuple) -> None:
    model = build(data, "full").double()
    plain = gradients(model, batch)
    with applied(model, ["recompute", "checkpoint"]):
        again = gradients(model, batch)
    assert all(torch.allclose(plain[name], again[name], rtol=0, atol=1e-10) for name in plain)


def test_recompute_reaches_four_layers_in_each_block_of_lora(data: GeoData, batch: tuple) -> None:
    with applied(build(data, "lora"), "recompute") as done:
        assert "24 layers" in done["recompute"]
    with applied(build(data, "adapter"), "recompute") as done:
        assert " 0 layers" in done["recompute"]


def test_checkpointed_batch_norms_count_each_batch_once(data: GeoData, batch: tuple) -> None:
    model = build(data, "full", "decur_resnet50")
    start = {key: value.clone() for key, value in model.state_dict().items()}
    plain, before = gradients(model, batch), kept(model, batch)["activations"]
    moved = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    assert all(not torch.equal(moved[key], start[key]) for key in moved)
    model.load_state_dict(start)
    with applied(model, "checkpoint"):
        again = gradients(model, batch)
        assert all(torch.equal(model.state_dict()[key], value) for key, value in moved.items())
        assert kept(model, batch)["activations"] < 0.5 * before
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


def test_late_trains_the_last_quarter_and_the_decoder_only(data: GeoData, batch: tuple) -> None:
    model = build(data, "full")
    before = kept(model, batch)
    trainable = [p.requires_grad for p in model.parameters()]
    with applied(model, "late"):
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        after = kept(model, batch)
    assert all(n.startswith(("backbone.blocks.5.", "backbone.norm.", "decoder.")) for n in trained)
    assert any(n.startswith("backbone.blocks.5.") for n in trained)
    assert after["activations"] < before["activations"] / 4  # one block of six, and the ends
    assert [p.requires_grad for p in model.parameters()] == trainable


@pytest.mark.parametrize(
    ("method", "recipe", "reason"),
    [
        ("vpt", "late", "random values"),
        ("vit_adapter", "late", "random values"),
        ("linear_probe", "late", "decoder alone"),
        ("full", "bf16", "there are none"),
        ("dora", "8bit", "take 'bf16'"),
        ("lora", "cached", "from the first block"),
        ("vit_adapter", "cached", "attach 'linear_probe'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_changes(
    data: GeoData, method: str, recipe: str, reason: str
) -> None:
    model = build(data, method)
    before = [(p.requires_grad, p.dtype) for p in model.parameters()]
    with pytest.raises(ValueError, match=reason), applied(model, [recipe, "checkpoint"]):
        raise AssertionError("it was applied")
    assert [(p.requires_grad, p.dtype) for p in model.parameters()] == before
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(("recipe", "share", "error"), [("bf16", 0.5, 0.01), ("8bit", 0.26, 0.03)])
@pytest.mark.parametrize("method", ["lora", "linear_probe", "bitfit", "vpt", "vera", "ia3"])
def test_held_weights_are_small_and_come_back_exactly(
    data: GeoData, batch: tuple, recipe: str, share: float, error: float, method: str
) -> None:
    model = build(data, method)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    plain, before = gradients(model, batch), kept(model, batch)
    weights = sum(p.nbytes for n, p in model.named_parameters() if is_block_matrix(n))
    with applied(model, recipe):
        after = kept(model, batch)
        rounded = gradients(model, batch)
    # A factor per row is all that comes on top, and no full copy is kept for the backward pass.
    assert before["weights"] - after["weights"] >= 0.99 * (1 - share) * weights
    assert after["activations"] <= before["activations"]
    # bfloat16 has 8 bits of precision, a row of whole numbers as many at its largest value only.
    off = sum((plain[n] - rounded[n]).square().sum() for n in plain)
    size = sum(gradient.square().sum() for gradient in plain.values())
    assert 0 < (off / size).sqrt() < error
    state = model.state_dict()
    assert state.keys() == start.keys()
    assert all(torch.equal(state[key], start[key]) for key in start)


def is_block_matrix(name: str) -> bool:
    layers = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2")
    names = [layer + middle for layer in layers for middle in (".weight", ".base_layer.weight")]
    return name.endswith(tuple(names))


def test_quantised_rows_are_within_half_a_step() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    whole, scale = quantise(weight)
    assert whole.dtype == torch.int8 and whole.abs().amax() == 127
    assert bool(((whole * scale - weight).abs() <= 0.5001 * scale).all())


def test_all_takes_what_suits_the_method(data: GeoData) -> None:
    assert chosen_recipes("all", build(data, "lora")) == ("late", "bf16", "checkpoint", "cached")
    assert chosen_recipes("all", build(data, "vpt")) == ("bf16", "checkpoint")
    assert chosen_recipes("all", build(data, "linear_probe")) == ("bf16", "checkpoint", "cached")
    assert chosen_recipes("all", build(data, "full", "unet")) == ("checkpoint",)
    assert chosen_recipes(["all", "8bit"], build(data, "vpt")) == ("8bit", "checkpoint")


def test_names_are_checked(data: GeoData) -> None:
    model = build(data, "lora")
    assert chosen_recipes(None, model) == () and chosen_recipes("late", model) == ("late",)
    assert chosen_recipes(["checkpoint", "late"], model) == ("late", "checkpoint")
    with pytest.raises(ValueError, match="Did you mean 'checkpoint'"):
        chosen_recipes("checkpiont", model)
    with pytest.raises(ValueError, match="choose one"):
        chosen_recipes(["bf16", "8bit"], model)


def test_the_table_lists_every_recipe() -> None:
    assert list(gp.list_recipes().index) == list(RECIPES)
    assert {"title", "does", "costs"} <= set(gp.list_recipes().columns)
    shown = gp.list_recipes()[["does"]]._repr_html_()
    assert all(recipe.does in shown for recipe in RECIPES.values()), "no text ends in dots"
