"""The reconstruction figure shows what was hidden, what came back, and how wrong that is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from geopeft_nb.backbones.masked_autoencoder import load_autoencoder
from geopeft_nb.widgets.reconstruction import GAMMA, Reconstructions


class Output:
    """Stands for a notebook's output: keeps every bundle that was displayed in it."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, str]] = []
        self.widgets: list[Any] = []

    def display(self, shown: Any, raw: bool = False, display_id: bool = False) -> Output:  # noqa: ANN401
        (self.bundles if raw else self.widgets).append(shown)
        return self

    def update(self, bundle: dict[str, str], raw: bool) -> None:
        self.bundles.append(bundle)


@pytest.fixture
def samples() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    images = [0.3 * torch.rand(6, 64, 48), 0.1 + 0.2 * torch.rand(6, 64, 48)]
    return [
        {"image": image, "name": f"chip {number}", "region": "here"}
        for number, image in enumerate(images)
    ]


@pytest.fixture
def view(samples: list[dict[str, Any]]) -> Reconstructions:
    return Reconstructions(load_autoencoder("geopeft_tiny", weights=None).eval(), samples)


def test_visible_pixels_stay_and_hidden_ones_are_rebuilt(view: Reconstructions) -> None:
    image, rebuilt, mask = view.compute()
    assert image.shape == rebuilt.shape == (6, 64, 48) and mask.shape == (64, 48)
    assert mask.float().mean() == 0.75
    assert torch.equal(rebuilt[:, ~mask], image[:, ~mask])
    assert not torch.isclose(rebuilt[:, mask], image[:, mask]).all()


def test_larger_share_hides_more_patches_and_shows_none_again(view: Reconstructions) -> None:
    masks = []
    for view.mask_ratio in (0.25, 0.5, 0.95):
        masks.append(view.compute()[2])
    assert masks[0].sum() < masks[1].sum() < masks[2].sum()
    assert (masks[0] <= masks[1]).all() and (masks[1] <= masks[2]).all()


def test_seed_hides_other_patches(view: Reconstructions) -> None:
    first = view.compute()[2]
    view.seed = 1
    assert not torch.equal(first, view.compute()[2])


def test_words_state_the_error_on_hidden_pixels_only(view: Reconstructions) -> None:
    image, rebuilt, mask = view.compute()
    hidden = (rebuilt - image)[:, mask].square().mean().sqrt()
    _, alt = view.draw()
    assert f"hidden pixels {hidden:.2f}" in alt and "75% of the pixels are hidden" in alt
    naive = image - image[:, ~mask].mean(dim=1)[:, None, None]
    assert f"mean of what is visible {naive[:, mask].square().mean().sqrt():.2f}" in alt


def test_error_scale_depends_on_the_samples_and_not_on_the_model(
    view: Reconstructions, samples: list[dict[str, Any]]
) -> None:
    other = Reconstructions(view.autoencoder, samples, mask_ratio=0.3, seed=4)
    with torch.no_grad():
        other.autoencoder.decoder.decoder_pred.weight.mul_(5)
    assert other.worst == view.worst > 0


def test_given_stretch_says_what_is_black_and_white(view: Reconstructions) -> None:
    image, *_ = view.compute()
    offset, divisor = (value[[2, 1, 0]] for value in view.encoder.scaling())
    view.stretch = {"here": [offset, offset + 2 * divisor]}  # mean: black; two std more: white
    (picture,) = view._pictures(image)
    expected = (image[[2, 1, 0]].movedim(0, -1) / 2).clip(0, 1) ** GAMMA
    assert torch.allclose(
        torch.from_numpy(picture), expected, atol=1e-3
    )  # rounding; the power is steep at black


def test_sliders_redraw_the_one_figure(
    view: Reconstructions, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output()
    monkeypatch.setattr("IPython.display.display", output.display)
    view.show()
    (box,) = output.widgets
    share, chip, seed = box.children
    share.value, chip.value, seed.value = 0.5, 1, 3
    assert (view.mask_ratio, view.chip, view.seed) == (0.5, 1, 3)
    assert len(output.bundles) == 4  # the first picture and one for each change
    first, *_, last = output.bundles
    assert "chip 0" in first["text/plain"] and "chip 1" in last["text/plain"]
    assert first["image/png"] != last["image/png"]


def test_figure_is_a_picture_with_alternative_text(view: Reconstructions) -> None:
    view.samples[0]["name"] = '<b>"chip"'
    html = view._bundle()["text/html"]
    assert 'alt="Four pictures of a chip' in html and "<b>" not in html
    assert 'src="data:image/png;base64,' in html


def test_images_of_other_bands_are_refused(
    view: Reconstructions, samples: list[dict[str, Any]]
) -> None:
    samples[1]["image"] = samples[1]["image"][:3]
    with pytest.raises(ValueError, match="3 bands"):
        Reconstructions(view.autoencoder, samples)
    with pytest.raises(ValueError, match="samples is empty"):
        Reconstructions(view.autoencoder, [])
