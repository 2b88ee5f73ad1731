"""Every card at its full size, counted without memory; and each family of transformers, small."""

from collections.abc import Callable

import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.backbones.base import Transformer
from geopeft_nb.backbones.catalog import CARDS

Load = Callable[..., Transformer]
BANDS = ["RED", "NIR_NARROW", "SWIR_1"]


@pytest.mark.parametrize("name", CARDS)
def test_published_parameter_count_without_memory(name: str) -> None:
    with torch.device("meta"):
        backbone = gp.load_backbone(name, weights=None)
    assert sum(p.numel() for p in backbone.parameters()) == CARDS[name].parameters
    assert {value.device.type for value in backbone.state_dict().values()} == {"meta"}


@pytest.fixture(params=["geopeft_tiny", "clay_v1_base", "satmae_base", "galileo_nano"])
def load(request: pytest.FixtureRequest, shrink: Callable) -> Load:
    """A callable that loads a family in a small size, untrained, for some bands."""
    shrink(request.param, depth=2)
    return lambda bands=None: gp.load_backbone(request.param, weights=None, bands=bands).eval()


def test_odd_size_runs_forward_and_backward_with_three_bands(load: Load) -> None:
    backbone = load(BANDS).train()
    (features,) = backbone(backbone.normalise(torch.rand(2, 3, 97, 131)))
    assert features.shape == (2, 64, *backbone.grid(97, 131)) == (2, 64, 13, 17)
    features.square().mean().backward()
    without = {n.split(".")[0] for n, p in backbone.named_parameters() if p.grad is None}
    # Codes of places that were not given are all that gets no gradient.
    assert without <= {"location_embed", "static_embed"}
    gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
    assert all(bool(g.any()) for name, g in gradients.items() if name.endswith("weight"))


def test_a_bright_patch_shows_in_its_own_cell_of_a_non_square_image(load: Load) -> None:
    backbone = load()
    image = torch.zeros(1, len(backbone.bands), 40, 72)
    bright = image.clone()
    bright[..., 24:32, 56:64] = 5.0
    with torch.no_grad():
        change = (backbone(bright)[0] - backbone(image)[0]).norm(dim=1)[0]
    assert change.shape == (5, 9)
    assert divmod(int(change.argmax()), 9) == (3, 7)


def test_bands_in_another_order_give_the_same_features(load: Load) -> None:
    forth, back, image = load(BANDS), load(BANDS[::-1]), torch.rand(1, 3, 16, 24)
    published = load().state_dict()
    for backbone in (forth, back):
        backbone.load_state_dict(backbone.translate(published), strict=False)
    with torch.no_grad():
        same, other = forth(image)[0], back(image.flip(1))[0]
        assert not torch.allclose(same, back(image)[0], atol=1e-3)
    torch.testing.assert_close(same, other, rtol=1e-4, atol=1e-5)  # float32 sums in another order
