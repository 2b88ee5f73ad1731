"""The checks of lesson 07 recognise right answers and name the usual slips."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geopeft_nb.classroom.check import check

Tensor = torch.Tensor


def right(block: nn.Module, x: Tensor, gradient: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = block(x)
    torch.autograd.backward(y, gradient)
    assert x.grad is not None
    return x.grad


def by_grad(block: nn.Module, x: Tensor, gradient: Tensor) -> Tensor:
    """Another road: ask for all gradients, and hand the weights theirs."""
    x = x.detach().requires_grad_()
    weights = list(block.parameters())
    with torch.enable_grad():
        y = block(x)
    first, *others = torch.autograd.grad(y, [x, *weights], gradient)
    for weight, grad in zip(weights, others, strict=True):
        weight.grad = grad
    return first


def only_x(block: nn.Module, x: Tensor, gradient: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = block(x)
    return torch.autograd.grad(y, x, gradient)[0]


def unwatched(block: nn.Module, x: Tensor, gradient: Tensor) -> Tensor | None:
    x = x.detach().requires_grad_()
    torch.autograd.backward(block(x), gradient)
    return x.grad


def without_return(block: nn.Module, x: Tensor, gradient: Tensor) -> None:
    right(block, x, gradient)


def of_the_sum(block: nn.Module, x: Tensor, gradient: Tensor) -> Tensor | None:
    return right(block, x, torch.ones_like(gradient))


def twice(block: nn.Module, x: Tensor, gradient: Tensor) -> Tensor | None:
    right(block, x, gradient)
    return right(block, x, gradient)


def attached(block: nn.Module, x: Tensor, gradient: Tensor) -> Tensor | None:
    with torch.enable_grad():
        y = block(x)
    torch.autograd.backward(y, gradient)
    return x.grad


@pytest.mark.parametrize("answer", [right, by_grad])
def test_again_takes_every_road_to_the_gradients(answer: object) -> None:
    assert check("07/again", answer).passed


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (only_x, "own weights got none"),
        (unwatched, "does not watch"),
        (without_return, "is there a return"),
        (of_the_sum, "not those"),
        (twice, "run once"),
        (attached, "x.detach()"),
        (lambda block, x, gradient: right(block, x, gradient)[0], "x has (2, 3, 4)"),
        (lambda block, x: x, "TypeError"),
        (torch.zeros(2), "function itself"),
    ],
)
def test_again_recognises_the_usual_slips(answer: object, says: str) -> None:
    result = check("07/again", answer)
    assert not result.passed and says in result.message, result.message


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round().to(torch.int8), scale


def for_all(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().max() / 127
    return (weight / scale).round().to(torch.int8), scale


def cut_off(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).to(torch.int8), scale


def with_sign(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.amax(dim=1, keepdim=True) / 200
    return (weight / scale).round().to(torch.int8), scale


def in_place(weight: Tensor) -> tuple[Tensor, Tensor]:
    weight *= 2
    return rounded(weight)


def test_to_8bit_takes_what_rounds_each_row() -> None:
    from geopeft_nb.memory.eight_bit import quantise

    assert check("07/to_8bit", rounded).passed
    assert check("07/to_8bit", quantise).passed


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (for_all, "row of small weights"),
        (cut_off, "more than half a step"),
        (with_sign, "far from the weight"),
        (in_place, "changed on the way"),
        (lambda w: rounded(w)[0], "Two tensors"),
        (lambda w: (rounded(w)[0].float(), rounded(w)[1]), "One byte each"),
        (lambda w: (rounded(w)[0].T, rounded(w)[1]), "the weight has"),
        (lambda w: (rounded(w)[0], rounded(w)[1][:, 0]), "keepdim"),
        (lambda w: (rounded(w)[0], 1 / rounded(w)[1]), "upside down"),
        (lambda w: (rounded(w)[0], 3.0), "should be tensors"),
        (lambda: None, "TypeError"),
        (8, "function itself"),
    ],
)
def test_to_8bit_recognises_the_usual_slips(answer: object, says: str) -> None:
    result = check("07/to_8bit", answer)
    assert not result.passed and says in result.message, result.message


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda e, p, r, v: e * (p + r), "without a cache"),
        (lambda e, p, r, v: p + e * r, "all views"),
        (lambda e, p, r, v: e * (v * p + r), "first epoch only"),
        (lambda e, p, r, v: v * (p + r) + (e - 1) * r, "one view"),
        (lambda e, p, r, v: v * p + (e - 1) * r, "first epoch trains"),
        (lambda e, p, r, v: v * p + r, "later epochs"),
        (lambda e, p, r, v: 1.0, "computed once"),
        (lambda e, p, r, v: None, "no number"),
        (lambda e: e, "TypeError"),
        (12.0, "function itself"),
    ],
)
def test_cached_seconds_recognises_the_usual_slips(answer: object, says: str) -> None:
    assert check("07/cached_seconds", lambda e, p, r, v: v * p + e * r).passed
    result = check("07/cached_seconds", answer)
    assert not result.passed and says in result.message, result.message
