"""The checks of lesson 02 recognise right answers and name the usual slips."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.backbones.base import Backbone
from geopeft_nb.classroom.check import check

Tensor = torch.Tensor


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return gp.load_backbone("geopeft_tiny", weights=None)


@pytest.fixture
def image() -> Tensor:
    return 0.4 * torch.rand(6, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (lambda x, m, s: x - m, "spread is still"),
        (lambda x, m, s: x / s, "nothing was taken off"),
        (lambda x, m, s: (x - m) * s, "below the line"),
        (lambda x, m, s: x - m / s, "order"),
        (lambda x, m, s: (x - x.mean((1, 2))[:, None, None]) / x.std((1, 2))[:, None, None], "own"),
        (lambda x, m, s: (x - x.mean()) / x.std(), "Each band has its own"),
        (lambda x, m, s: x[0], "shape"),
        (lambda x, m, s: (m - x) / s, "sign"),
        (lambda x, m, s: (x - m) / s**2, "variance"),
        (lambda x, m, s: (1e4 * x - m) / s, "10,000"),
        (lambda x, m, s: (x - x.min()) / (x.max() - x.min()), "0 to 1"),
        (lambda x, m, s: ((x - m) / s)[None], "batch of one"),
        (lambda x, m, s: x + 7, "as bright as the mean"),
        (lambda x, m, s: "text", "tensor"),
    ],
)
def test_normalise_recognises_the_usual_slips(
    scale: Callable[..., Tensor], says: str, image: Tensor, backbone: Backbone
) -> None:
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbone.card.mean, backbone.card.std))
    result = check("02/normalise", scale(image, mean, std), image=image, backbone=backbone)
    assert not result.passed and says in result.message
    right = (image - mean) / std
    for answer in (right, right.numpy()):
        assert check("02/normalise", answer, image=image, backbone=backbone).passed


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (lambda h, w, t, p: -(-h // p) * -(-w // p) * t + 1, "class token"),
        (lambda h, w, t, p: (h // p + 1) * (w // p + 1) * t, "adds a patch"),
        (lambda h, w, t, p: -(-h // p) * -(-w // p), "leaves out time"),
        (lambda h, w, t, p: h * w * t // p, "divides once"),
        (lambda h, w, t, p: (h // p) * (w // p) * t, "drops the border"),
        (lambda h, w, t, p: h * w * t / p**2, "whole numbers"),
        (lambda h, w, t, p: 3, "one by one"),
        (lambda h, w, t, p: None, "no number"),
        (lambda h, w: h * w, "TypeError"),
        (64, "function itself"),
    ],
)
def test_tokens_recognises_the_usual_slips(count: object, says: str) -> None:
    result = check("02/tokens", count)
    assert not result.passed and says in result.message


def test_tokens_takes_a_number_in_a_tensor_or_array() -> None:
    def rows_and_columns(height: int, width: int, patch_size: int) -> int:
        return -(-height // patch_size) * -(-width // patch_size)

    assert check("02/tokens", lambda h, w, t, p: torch.tensor(t * rows_and_columns(h, w, p))).passed
    assert check("02/tokens", lambda h, w, t, p: np.int64(t * rows_and_columns(h, w, p))).passed


def test_tokens_agrees_with_the_grid_of_a_backbone(backbone: Backbone) -> None:
    def count(height: int, width: int, frames: int, patch_size: int) -> int:
        backbone.patch_size = patch_size
        rows, columns = backbone.grid(height, width)
        return rows * columns * frames

    assert check("02/tokens", count).passed


@pytest.mark.parametrize(
    ("measure", "says"),
    [
        (lambda d, h: d[h].square().mean(), "root"),
        (lambda d, h: d.square().mean().sqrt(), "visible pixels too"),
        (lambda d, h: d[h].abs().mean(), "absolute"),
        (lambda d, h: d[~h].square().mean().sqrt(), "Which value of the mask"),
        (lambda d, h: (d[h].square().sum() / h[:, 0].sum()).sqrt(), "6 bands"),
        (lambda d, h: d[:, 3][h[:, 3]].square().mean().sqrt(), "one band"),
        (lambda d, h: torch.tensor(9.0), "Over which pixels"),
    ],
)
def test_hidden_error_recognises_the_usual_slips(
    measure: Callable[[Tensor, Tensor], Tensor], says: str
) -> None:
    torch.manual_seed(0)
    image, mask = torch.randn(1, 6, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., :12] = 1
    rebuilt = image + torch.where(mask[:, None] > 0, torch.randn_like(image), torch.tensor(0.0))
    given = {"image": image, "rebuilt": rebuilt, "mask": mask}
    difference, hidden = rebuilt - image, (mask > 0)[:, None].expand_as(image)
    result = check("02/hidden_error", float(measure(difference, hidden)), **given)
    assert not result.passed and says in result.message
    right = difference[hidden].square().mean().sqrt()
    for answer in (float(right), right, right.numpy()):
        assert check("02/hidden_error", answer, **given).passed
    assert "one number" in check("02/hidden_error", difference, **given).message
