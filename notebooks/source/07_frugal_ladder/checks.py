"""Checks of the exercises of lesson 07."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from geopeft_nb.classroom.check import Finding, ask, ask_number, exercise


@exercise(
    "07/again", "a function run_again(block, x, gradient) that returns the gradient of x", Callable
)
def again(answer: Callable) -> Finding:
    """Ask the function for the gradients of a small block, and compare with autograd's own."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)).double()
    x, gradient = torch.randn(2, 3, 4).double(), torch.randn(2, 3, 4).double()
    given = x.clone().requires_grad_()
    block(given).backward(gradient)
    wanted = [weight.grad for weight in block.parameters()]
    expected, given = given.grad, x.clone().requires_grad_()
    block.zero_grad()
    try:
        with torch.no_grad():  # as inside the backward pass
            found = answer(block, given, gradient)
    except Exception as error:  # whatever the learner's function raises is the finding
        hint = ""
        if "does not require grad" in str(error):
            hint = " Inside a backward pass autograd does not watch, unless you tell it to."
        return f"It raised {type(error).__name__}: {error}.{hint}"
    if given.grad is not None:
        return "It changed x.grad of the x that it was given. Work on x.detach()."
    return _which_gradients(found, expected, [weight.grad for weight in block.parameters()], wanted)


def _which_gradients(
    found: object, expected: Tensor | None, own: list[Tensor | None], wanted: list[Tensor | None]
) -> Finding:
    """Say which gradients differ from those of autograd."""
    assert expected is not None
    if not isinstance(found, Tensor):
        return (
            f"It returned {type(found).__name__}. The gradient of x is wanted; is there a return?"
        )
    if found.shape != expected.shape:
        return f"It returned shape {tuple(found.shape)}; x has {tuple(expected.shape)}."
    if all(grad is None for grad in own):
        return (
            "The gradient of x may be there, but the block's own weights got none. Which call "
            "works its way to everything that the result was made of?"
        )
    pairs = zip(own, wanted, strict=True)
    if not torch.allclose(found, expected) or not all(
        mine is not None and theirs is not None and torch.allclose(mine, theirs)
        for mine, theirs in pairs
    ):
        return (
            "The gradients are not those without recomputing. Is the backward pass started with "
            "`gradient`, and is it run once?"
        )
    return ""


@exercise(
    "07/to_8bit", "a function to_8bit(weight) that returns whole numbers and factors", Callable
)
def to_8bit(answer: Callable) -> Finding:
    """Round a matrix whose rows differ much in size."""
    torch.manual_seed(0)
    weight = torch.randn(6, 40) * torch.tensor([[1e-3], [0.02], [0.1], [1.0], [5.0], [30.0]])
    before = weight.clone()
    found = ask("With a weight of shape (6, 40)", answer, weight)
    if not (isinstance(found, tuple) and len(found) == 2):
        return f"Two tensors are wanted, `whole, scale`; it returned {type(found).__name__}."
    whole, scale = found
    if not (isinstance(whole, Tensor) and isinstance(scale, Tensor)):
        return "Both, whole and scale, should be tensors."
    if not torch.equal(weight, before):
        return "The weight itself was changed on the way. Work on new tensors."
    if whole.dtype != torch.int8:
        return f"The whole numbers are of type {whole.dtype}. One byte each: torch.int8."
    if tuple(whole.shape) != (6, 40):
        return f"Whole has shape {tuple(whole.shape)}; the weight has (6, 40)."
    if scale.numel() == 1:
        return "There is one factor for the whole matrix. What becomes of a row of small weights?"
    if tuple(scale.shape) != (6, 1):
        return f"Scale has shape {tuple(scale.shape)}; one factor per row is (6, 1): keepdim=True."
    return _rounding(whole, scale, weight)


def _rounding(whole: Tensor, scale: Tensor, weight: Tensor) -> Finding:
    """Say whether whole times scale is as near to the weight as rounding allows."""
    error = (whole.float() * scale - weight).abs()
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    if bool((error <= 0.501 * step).all()):
        return ""
    if bool((error <= 1.01 * step).all()):
        return (
            "Some numbers are off by more than half a step: by cutting off decimals, or by steps "
            "that are wider than need be. Round, and let the largest of a row become 127."
        )
    if bool((whole.float() / scale - weight).abs().le(step).all()):
        return "The factor is upside down: whole * scale should give the weight back."
    return (
        "whole * scale is far from the weight. Did numbers leave the range from -127 to 127, which "
        "wraps round, and was the largest size of a row taken without its sign?"
    )


@exercise("07/cached_seconds", "a function cached_seconds(epochs, prefix, rest, views)", Callable)
def cached_seconds(answer: Callable) -> Finding:
    """Ask the function for a few cases."""
    for epochs, prefix, rest, views in ((5, 3.0, 2.0, 8), (1, 3.0, 2.0, 8), (10, 1.0, 4.0, 1)):
        words = f"For {epochs} epochs, prefix {prefix:g} s, rest {rest:g} s and {views} view(s)"
        found = ask_number(words, answer, epochs, prefix, rest, views)
        if abs(float(found) - (views * prefix + epochs * rest)) > 1e-6:
            slip = _seconds_slip(float(found), epochs, prefix, rest, views)
            return f"{words} it gives {float(found):g}: {slip}"
    return ""


def _seconds_slip(found: float, epochs: int, prefix: float, rest: float, views: int) -> str:
    slips = [
        (epochs * (prefix + rest), "that is without a cache."),
        (prefix + epochs * rest, "the first epoch computes all views, not one."),
        (epochs * (views * prefix + rest), "the frozen part is computed in the first epoch only."),
        (views * (prefix + rest) + (epochs - 1) * rest, "the rest runs on one view of a chip per "
         "epoch, also in the first."),
        (views * prefix + (epochs - 1) * rest, "the first epoch trains, too."),
        (views * prefix + rest, "the later epochs are missing."),
    ]  # fmt: skip
    for value, words in slips:
        if abs(found - value) < 1e-6:
            return words
    return "add up what is computed once, and what in every epoch."
