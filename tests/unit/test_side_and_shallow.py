"""A ladder beside the backbone, and a backbone that ends early: what is theirs alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.lora import cka

pytestmark = pytest.mark.filterwarnings("ignore:.*never saw", "ignore:.* was told pixels")


@pytest.fixture(scope="module")
def data() -> GeoData:
    return gp.load_data("scenes")


@pytest.fixture
def image(data: GeoData) -> Tensor:
    return torch.stack([data.train[index]["image"] for index in range(2)])


def build(data: GeoData, name: str = "geopeft_tiny", decoder: str = "linear") -> SegmentationModel:
    return gp.build_model(gp.load_backbone(name, bands=data.bands), data, decoder, pad=True)


def shaken(model: SegmentationModel) -> SegmentationModel:
    torch.manual_seed(3)
    for weight in model.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.1)
    return model.eval()


# Side


@pytest.mark.parametrize("decoder", ["linear", "unet"])
def test_no_gradient_goes_through_the_backbone_and_every_map_gets_its_share(
    data: GeoData, image: Tensor, decoder: str
) -> None:
    model = build(data, decoder=decoder).eval()
    plain = model.backbone(image)
    gp.attach(model, "side").train()
    seen: list[bool] = []
    for block in model.plain_backbone.blocks:
        block.register_forward_hook(lambda *call: seen.append(call[-1].requires_grad))
    shaken(model).train()(image).square().mean().backward()
    assert seen == [False] * 6
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert [x.shape for x in model.backbone(image)] == [x.shape for x in plain]
    assert not any(torch.equal(*pair) for pair in zip(model.backbone(image), plain, strict=True))
    plan = gp.memory_plan(model).table
    assert (plan.loc["block 1":"block 6", ["gradients", "activations"]] == 0).all(axis=None)
    assert plan.loc["adapter", "activations"] > 0


@pytest.mark.parametrize(("layers", "rungs"), [(None, 6), (1, 1), (3, 3)])
def test_rungs_are_spread_evenly_and_end_at_the_last_block(
    data: GeoData, layers: int | None, rungs: int
) -> None:
    model = gp.attach(build(data), "side", layers=layers, r=4)
    assert model.backbone.rungs == list(range(6 // rungs - 1, 6, 6 // rungs))
    each, d = 4 * 192 + 4 + 10 * 4 + 5 * 4, 192
    assert gp.parameter_table(model).loc["adapter", "trainable"] == rungs * each + 5 * d


def test_the_features_are_those_of_evaluation_in_training_too(data: GeoData) -> None:
    backbone = gp.load_backbone("timm:test_vit", None, bands=data.bands)
    backbone.blocks[0].drop_path1 = nn.Dropout(0.5)
    model = gp.attach(gp.build_model(backbone, data, pad=True), "side").train()
    image = torch.rand(1, len(data.bands), 64, 64)
    first, again = (model.backbone.read(image) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


# Shallow


def test_blocks_that_change_nothing_are_found_and_dropped(data: GeoData, image: Tensor) -> None:
    backbone = gp.load_backbone("geopeft_tiny", None, bands=data.bands)
    for block in backbone.blocks[2:]:
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    model = gp.build_model(backbone, data)
    whole, weights = model.backbone(image)[-1], sum(p.numel() for p in model.backbone.parameters())
    gp.attach(model, "shallow", chips=data.train, similarity=0.9999, r=2)
    assert model.method_options == {"r": 2, "depth": 2}
    assert torch.equal(model.backbone(image)[-1], whole)
    plan = gp.memory_plan(model).table
    assert "block 2" in plan.index and "block 3" not in plan.index
    left = sum(p.numel() for p in model.backbone.parameters() if not p.requires_grad)
    assert weights - left == 4 * (12 * 192**2 + 13 * 192)


@pytest.mark.parametrize("name", ["geopeft_tiny", "timm:test_vit", "galileo_nano"])
def test_a_saved_depth_goes_onto_a_whole_backbone(
    data: GeoData, image: Tensor, tmp_path: Path, name: str
) -> None:
    def fresh() -> SegmentationModel:
        backbone = gp.load_backbone(name, None, bands=data.bands)
        return gp.build_model(backbone, data, pad=True).eval()

    model = shaken(gp.attach(fresh(), "shallow", depth=1))
    expected = model(image)
    folder = gp.save_adapter(model, tmp_path / "adapter")
    for again in (gp.load_model(folder), gp.load_adapter(fresh(), folder).eval()):
        assert len(again.plain_backbone.blocks) == 1
        assert torch.equal(again(image), expected)
    merged = gp.merge(model)
    torch.testing.assert_close(merged(image), expected, rtol=1e-4, atol=1e-4)


def test_four_maps_are_taken_at_the_same_shares_of_the_depth(data: GeoData) -> None:
    model = build(data, decoder="unet")  # maps of blocks 0, 2, 3 and 5
    with pytest.raises(ValueError, match=r"depth.*from 4 to 6, got 3"):
        gp.attach(model, "shallow", depth=3)
    assert model.method is None and len(model.backbone.blocks) == 6
    gp.attach(model, "shallow", depth=4, name="north")
    assert model.plain_backbone.layers == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="from 4 to 4, got 3"):  # the first adapter needs them
        gp.attach(model, "shallow", depth=3, name="south")
    gp.attach(model, "shallow", depth=4, name="south").use_adapter("north")
    with pytest.warns(UserWarning, match="drops south"):
        gp.merge(model)
    with pytest.raises(ValueError, match="TerraTorch takes geopeft_tiny and every prithvi_eo"):
        gp.export_terratorch(model, "nowhere")


def test_alike_is_alike_up_to_turns_and_factors() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 8)
    turn = torch.linalg.qr(torch.randn(8, 8))[0]
    assert cka(x, 3 * x @ turn + 5) == pytest.approx(1, abs=1e-5)
    assert cka(x, torch.randn(500, 8)) < 0.05
