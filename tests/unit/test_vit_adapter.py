"""ViT-Adapter on small instances of every family of transformers."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import geopeft_nb as gp
from geopeft_nb.backbones.base import Transformer
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.tuning.beside import STRIDES, VitAdapter

#: Patches of 16, 14 (which does not divide 32) and 8 px; one token per patch, or several.
FAMILIES = [
    "prithvi_eo_v2_300", "prithvi_eo_v2_600", "clay_v1_base", "satmae_base", "galileo_nano",
    "timm:test_vit",
]  # fmt: skip

Load = Callable[..., Transformer]


@pytest.fixture
def load(shrink: Callable) -> Load:
    """A callable: a backbone with little of everything and random weights."""

    def small(name: str, depth: int = 5, **options: object) -> Transformer:
        if name in CARDS:
            shrink(name, depth=depth)
        backbone = gp.load_backbone(name, weights=None, **options)
        assert isinstance(backbone, Transformer)
        return backbone

    return small


@pytest.mark.parametrize("name", FAMILIES)
def test_every_token_knows_its_patch(name: str, load: Load) -> None:
    backbone = load(name)
    p, bands = backbone.patch_size, len(backbone.bands)
    image = torch.rand(1, bands, 3 * p, 5 * p)
    other = image.clone()
    other[..., 1 * p : 2 * p, 3 * p : 4 * p] = torch.rand(bands, p, p)
    tokens, grid = backbone.begin(image)
    changed = (backbone.begin(other)[0] != tokens).any(dim=2)[0, backbone.prefix :]
    cells = backbone.cells(grid)
    assert set(cells.tolist()) == set(range(15))
    assert torch.equal(changed, cells == 1 * 5 + 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_four_maps_of_an_odd_image_and_steps_that_move_only_the_adapter(
    name: str, load: Load
) -> None:
    torch.manual_seed(0)
    model = VitAdapter(load(name)).train()
    trainable = {key for key, weight in model.named_parameters() if weight.requires_grad}
    assert trainable == {k for k, _ in model.named_parameters() if not k.startswith("vit.")}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=0.01)
    image = torch.rand(2, len(model.bands), 97, 131)
    # What stands behind the injectors' gates, and behind weights that begin at zero, moves later.
    for _ in range(3):
        maps = model(image)
        sum((m * torch.randn_like(m)).sum() for m in maps).backward()
        optimiser.step()
    shapes = [(2, 64, math.ceil(97 / stride), math.ceil(131 / stride)) for stride in STRIDES]
    assert [tuple(m.shape) for m in maps] == shapes
    assert (model.strides, model.channels) == (STRIDES, (64,) * 4)
    assert tuple(maps[-1].shape[2:]) == model.grid(97, 131)
    still = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    # Batch norm takes a constant away again, so that these may have no gradient at all.
    constant = {
        "spm.fc1.bias", "up.bias", "interactions.3.extra_extractors.1.attn.output_proj.bias"
    }  # fmt: skip
    frozen = {key for key in before if key.startswith("vit.")}
    assert frozen <= still <= frozen | constant


@pytest.mark.parametrize("name", FAMILIES)
def test_a_new_adapter_leaves_the_transformers_own_tokens_as_they_are(
    name: str, load: Load
) -> None:
    vit = load(name).eval()
    model, image = VitAdapter(vit).eval(), torch.rand(1, len(vit.bands), 64, 96)
    outputs: list[Tensor] = []
    vit.blocks[-1].register_forward_hook(lambda *call: outputs.append(call[-1]))
    with torch.no_grad():
        expected = vit.begin(image)[0][:, vit.prefix :]
        for block in vit.blocks:
            expected = block(expected)
        model(image)
        assert len(outputs) == 2 and torch.equal(outputs[1], expected)
        model.interactions[-1].injector.gamma.fill_(1.0)
        model(image)
    assert not torch.allclose(outputs[2], expected, atol=1e-3)


@pytest.mark.parametrize("name", ["prithvi_eo_v2_300", "prithvi_eo_v2_600", "galileo_nano"])
def test_what_an_injector_reads_lies_where_its_token_lies(name: str, load: Load) -> None:
    model = VitAdapter(load(name)).eval()
    vit, injector = model.vit, model.interactions[0].injector
    with torch.no_grad():
        for layer in (injector.attn.sampling_offsets, injector.attn.attention_weights):
            layer.weight.zero_()
        injector.attn.sampling_offsets.bias.zero_()  # read exactly at the token's own place
        injector.gamma.fill_(1.0)
        seen: list[Tensor] = []
        vit.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        image = torch.rand(1, len(vit.bands), 192, 320)
        other = image.clone()
        other[..., 100:104, 210:214] += 5.0  # pixels around row 102, column 212
        for pixels in (image, other):
            model(pixels)
        own = [vit.begin(pixels)[0][:, vit.prefix :] for pixels in (image, other)]
    change = ((seen[1] - own[1]) - (seen[0] - own[0])).norm(dim=2)[0]
    rows, columns = vit.grid(192, 320)
    per_patch = torch.zeros(rows * columns).index_add(0, vit.cells(vit.begin(image)[1]), change)
    row, column = divmod(int(per_patch.argmax()), columns)
    centre = ((row + 0.5) * vit.patch_size, (column + 0.5) * vit.patch_size)
    # Half a patch, and half a cell of the coarsest map, whose weight is a third.
    assert abs(centre[0] - 102) <= 24 and abs(centre[1] - 212) <= 24


@pytest.mark.parametrize("name", FAMILIES)
def test_an_extractor_reads_the_mean_over_the_tokens_of_each_patch(name: str, load: Load) -> None:
    model = VitAdapter(load(name)).eval()
    vit, image = model.vit, torch.rand(1, len(model.bands), 64, 96)
    tokens: list[Tensor] = []
    read: list[Tensor] = []
    vit.blocks[model.bounds[1] - 1].register_forward_hook(lambda *call: tokens.append(call[-1]))
    model.interactions[0].extractor.feat_norm.register_forward_hook(
        lambda _, given, __: read.append(given[0])
    )
    with torch.no_grad():
        model(image)
    cells = vit.cells(vit.begin(image)[1])
    for patch in range(read[0].shape[1]):
        expected = tokens[0][:, : len(cells)][:, cells == patch].mean(dim=1)
        torch.testing.assert_close(read[0][:, patch], expected)


def test_a_location_that_is_a_token_of_its_own_changes_the_maps(load: Load) -> None:
    model, image = VitAdapter(load("galileo_nano")).eval(), torch.rand(1, 10, 64, 96)
    with torch.no_grad():
        unknown, placed = model(image), model(image, location=torch.tensor([[52.5, 13.4]]))
    assert [m.shape for m in placed] == [m.shape for m in unknown]
    assert not any(torch.allclose(*pair) for pair in zip(unknown, placed, strict=True))


def test_it_runs_in_bfloat16_by_autocast(load: Load) -> None:
    torch.manual_seed(0)
    model, image = VitAdapter(load("prithvi_eo_v2_300")).eval(), torch.rand(1, 6, 64, 96)
    exact = model(image)
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(image)
        sum(m.float().mean() for m in maps).backward()
    for ours, reference in zip(maps, exact, strict=True):
        # bfloat16 keeps 8 bits, and five blocks add their rounding errors up.
        assert bool(((ours - reference).abs() <= 0.05 * reference.abs().max()).all())
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


def test_what_cannot_take_it_says_what_can(load: Load) -> None:
    with pytest.raises(ValueError, match=r"convolutional network.*'linear_probe'"):
        VitAdapter(gp.load_backbone("timm:test_resnet", weights=None))
    with pytest.raises(ValueError, match="choose them before"):
        VitAdapter(load("galileo_nano")).choose([-1])
