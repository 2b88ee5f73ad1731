"""Prompts, bottleneck adapters and BitFit behave as peft methods do."""

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import geopeft_nb as gp
from geopeft_nb.backbones.base import Backbone
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.tuning.own_methods import adapter_config, bitfit_config, vpt_config

pytestmark = pytest.mark.filterwarnings("error")

CONFIGS: dict[str, Callable[[Backbone], peft.PeftConfig]] = {
    "deep prompts": lambda backbone: vpt_config(backbone, prompts=7),
    "shallow prompts": lambda backbone: vpt_config(backbone, prompts=7, deep=False),
    "parallel adapter": lambda backbone: adapter_config(backbone, width=8),
    "serial adapter": lambda backbone: adapter_config(backbone, kind="serial", width=8),
    "biases": bitfit_config,
}


def tiny() -> Backbone:
    return gp.load_backbone("geopeft_tiny").eval()


def timm_vit() -> Backbone:
    torch.manual_seed(0)
    return gp.load_backbone("timm:vit_tiny_patch16_224", weights=None).eval()


def resnet() -> Backbone:
    torch.manual_seed(0)
    model = gp.load_backbone("timm:resnet10t", weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # untrained, they shut the residual branches
    return model


BACKBONES = {"tiny": tiny, "timm": timm_vit}
CASES = [(b, c) for b in BACKBONES for c in CONFIGS] + [("resnet", "biases")]
BACKBONES["resnet"] = resnet

on_every_backbone = pytest.mark.parametrize(("backbone_name", "method"), CASES)
every_method = pytest.mark.parametrize("method", CONFIGS)


def image_for(backbone: Backbone) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, len(backbone.bands), 32, 48, generator=generator)


def features(model: nn.Module, image: Tensor) -> Tensor:
    """The deepest map in evaluation, without gradients."""
    with torch.no_grad():
        return model.eval()(image)[-1]


def train_a_little(model: nn.Module, image: Tensor) -> None:
    """Two steps, as upward weights that start at zero give no gradient to the downward ones."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=0.02)
    model.train()
    for _ in range(2):
        optimiser.zero_grad()
        # A plain sum or mean square is nearly constant after a layer norm.
        (model(image)[-1][:, :3] ** 3).mean().backward()
        optimiser.step()
    model.eval()


def attach(backbone: Backbone, method: str, name: str = "default") -> peft.PeftModel:
    torch.manual_seed(0)
    return peft.get_peft_model(backbone, CONFIGS[method](backbone), adapter_name=name).eval()


@on_every_backbone
def test_training_changes_the_methods_weights_alone_and_taking_it_off_undoes_it(
    backbone_name: str, method: str
) -> None:
    backbone = BACKBONES[backbone_name]()
    image = image_for(backbone)
    base = features(backbone, image)
    model = attach(backbone, method)
    # Prompts take part from the start; adapters begin at zero, and biases as they are.
    assert torch.equal(features(model, image), base) == ("prompts" not in method)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    train_a_little(model, image)
    assert not torch.allclose(features(model, image), base, atol=1e-3)
    after = model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == trainable
    assert trainable == {key for key in before if model.base_model.prefix in key} != set()
    with model.disable_adapter():
        assert torch.equal(features(model, image), base)
    assert torch.equal(features(model.unload(), image), base)
    assert not any(isinstance(m, peft.tuners.tuners_utils.BaseTunerLayer) for m in model.modules())


@every_method
def test_named_adapters_switch_and_only_the_active_one_acts_and_learns(method: str) -> None:
    backbone = tiny()
    image = image_for(backbone)
    model = attach(backbone, method, "north")
    train_a_little(model, image)
    north = features(model, image)
    torch.manual_seed(1)
    model.add_adapter("south", CONFIGS[method](backbone))
    assert torch.equal(features(model, image), north)
    model.set_adapter("south")
    train_a_little(model, -image)
    south = features(model, image)
    assert not torch.allclose(south, north, atol=1e-3)
    own = {name: p.requires_grad for name, p in model.named_parameters() if ".south" in name}
    assert own and all(own.values())
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".south" not in name)
    model.set_adapter("north")
    assert torch.equal(features(model, image), north)
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".south" in name)
    model.delete_adapter("south")
    assert torch.equal(features(model, image), north)
    assert not any(".south" in name for name, _ in model.named_parameters())


@every_method
def test_an_adapter_is_saved_alone_and_loads_under_another_name(
    method: str, tmp_path: Path
) -> None:
    backbone = tiny()
    image = image_for(backbone)
    model = attach(backbone, method, "north")
    train_a_little(model, image)
    model.add_adapter("south", CONFIGS[method](backbone))
    model.save_pretrained(tmp_path, selected_adapters=["north"])
    saved = load_file(tmp_path / "north" / "adapter_model.safetensors")
    assert not any("north" in key or "south" in key for key in saved)
    count = sum(value.numel() for value in saved.values())
    assert count == sum(p.numel() for p in model.parameters() if p.requires_grad)
    loaded = peft.PeftModel.from_pretrained(tiny(), tmp_path / "north", adapter_name="again")
    assert torch.equal(features(loaded, image), features(model, image))
    assert not any(p.requires_grad for p in loaded.parameters())  # loaded for inference


@pytest.mark.parametrize("backbone_name", BACKBONES)
def test_biases_merge_into_the_weights(backbone_name: str) -> None:
    backbone = BACKBONES[backbone_name]()
    image = image_for(backbone)
    names = list(backbone.state_dict())
    model = attach(backbone, "biases")
    train_a_little(model, image)
    tuned = features(model, image)
    merged = model.merge_and_unload()
    assert torch.equal(features(merged, image), tuned)
    assert merged is backbone and list(merged.state_dict()) == names


@every_method
def test_half_precision_runs_and_keeps_its_type(method: str) -> None:
    backbone = tiny()
    image = image_for(backbone)
    model = attach(backbone.to(torch.bfloat16), method)
    assert features(model, image.bfloat16()).dtype == torch.bfloat16
    full = attach(tiny(), method)
    with torch.autocast("cpu", torch.bfloat16):
        full(image)[-1].float().square().mean().backward()
    assert all(p.grad is not None for p in full.parameters() if p.requires_grad)


def test_two_adapters_cannot_act_at_once() -> None:
    backbone = tiny()
    model = attach(backbone, "deep prompts", "north")
    model.add_adapter("south", CONFIGS["deep prompts"](backbone))
    model.base_model.set_adapter(["north", "south"])
    with pytest.raises(ValueError, match=r"'north', 'south'.*only one can act"):
        model(image_for(backbone))


def test_prompts_start_as_in_the_paper_and_drop_out_only_in_training() -> None:
    backbone = tiny()
    image = image_for(backbone)
    model = attach(backbone, "deep prompts")
    prompts = backbone.blocks[3].vpt_prompts["default"].detach()
    assert prompts.shape == (1, 7, 192)
    bound = (6 / (3 * backbone.patch_size**2 + 192)) ** 0.5
    assert 0.99 * bound < float(prompts.abs().max()) <= bound  # 1,344 draws come near the bound
    assert abs(float(prompts.mean())) < 5 * bound / (3 * prompts.numel()) ** 0.5
    assert torch.equal(features(model, image), features(model, image))
    with torch.no_grad():
        model.train()
        assert not torch.equal(model(image)[-1], model(image)[-1])


def test_deep_prompts_leave_after_their_block_and_shallow_ones_travel() -> None:
    seen: dict[str, list[int]] = {}
    for method in ("deep prompts", "shallow prompts"):
        model, lengths = attach(tiny(), method), seen.setdefault(method, [])
        for block in model.base_model.model.blocks:
            block.register_forward_hook(lambda _, __, out, to=lengths: to.append(out.shape[1]))
        features(model, image_for(tiny()))
    grid = tiny().grid(32, 48)
    count = 1 + grid[0] * grid[1]
    assert seen == {"deep prompts": [count] * 6, "shallow prompts": [count + 7] * 6}


@pytest.mark.parametrize(
    ("method", "part", "norm"),
    [
        ("parallel adapter", "mlp", "norm2"),
        ("serial adapter", "mlp", "norm2"),
        ("serial adapter", "attn", "norm1"),
    ],
)
def test_an_adapter_adds_to_a_part_of_the_block_as_in_its_paper(
    method: str, part: str, norm: str
) -> None:
    backbone = tiny()
    attach(backbone, method)
    block, tokens = backbone.blocks[2], torch.randn(2, 5, 192)
    layer = getattr(block, part)
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    with torch.no_grad():
        nn.init.normal_(up.weight)
        normalised = getattr(block, norm)(tokens)
        plain = layer.base_layer(normalised)
        serial = plain + up(nn.functional.gelu(down(plain)))
        parallel = plain + 0.1 * up(torch.relu(down(normalised)))
        assert torch.equal(layer(normalised), serial if "serial" in method else parallel)


@pytest.mark.parametrize(("name", "attention"), [("geopeft_tiny", 4), ("clay_v1_base", 0)])
def test_bitfit_trains_every_bias_of_the_blocks_and_the_final_norm(
    name: str, attention: int
) -> None:
    with torch.device("meta"):
        backbone = gp.load_backbone(name, weights=None)
        model = peft.get_peft_model(backbone, bitfit_config(backbone))
    width, depth = CARDS[name].width, CARDS[name].depth
    # Two norms, the attention (Clay has no biases there), fc1 and fc2.
    expected = (depth * (2 + attention + 4 + 1) + 1) * width
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


def test_bitfit_of_a_convolutional_network_leaves_running_statistics_alone() -> None:
    backbone = resnet()
    names = {n for n, m in backbone.named_modules() if getattr(m, "bias", None) is not None}
    model = attach(backbone, "biases")
    wrapped = {n for n, m in backbone.named_modules() if hasattr(m, "bitfit_bias")}
    assert wrapped == names != set()
    mean = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    train_a_little(model, image_for(backbone))
    assert mean and all(torch.equal(model.state_dict()[key], mean[key]) for key in mean)
