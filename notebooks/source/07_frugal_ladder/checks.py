"""Checks of the exercises of lesson 07."""

from __future__ import annotations

import copy
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from geopeft_nb.classroom.check import Finding, ask, ask_number, exercise, slip_of

if TYPE_CHECKING:
    from geopeft_nb.memory.plan import MemoryPlan


@exercise("07/waits", "a share between 0 and 1", Real)
def waits(answer: float) -> Finding:
    """Compare with one tensor of sixteen, whatever the number of blocks."""
    slips = {
        "": 1 / 16,
        "that is what is thrown away.": 15 / 16,
        "how many blocks there are does not matter: each keeps its own input.": 1 / 12,
        "each of the blocks keeps an input, not one of them all.": 1 / (12 * 16),
        "count both for all blocks, or both for one.": 12 / 16,
        "it wants a share from 0 to 1, not per cent.": 6.25,
        "that is how many times as much there was before.": 16,
        "the input is one of the sixteen.": 1 / 15,
        "the output of a block is the input of the next: it waits there.": 2 / 16,
    }
    return slip_of(answer, slips, "How many tensors of a block wait, of how many?", near=0.045)


@exercise("07/credit", "a function of three numbers of bytes that returns two factors", Callable)
def credit(answer: Callable) -> Finding:
    """Ask for factors that multiply to the whole, and recognise who gets too much."""
    for full, control, both in ((800.0, 500.0, 100.0), (90.0, 60.0, 45.0)):
        words = f"For {full:g}, {control:g} and {both:g} bytes"
        found = ask(words, answer, full, control, both)
        try:
            pair = one, two = [float(value) for value in found]
        except (TypeError, ValueError):
            return f"{words} it returned {found!r:.80}. Two factors are wanted."
        recipes, peft, all_of_it = control / full, both / control, both / full
        slips = {
            "": (recipes, peft),
            "the second factor is that of everything together. From which of the three does PEFT "
            "start?": (recipes, all_of_it),
            "recipes come first, then PEFT.": (peft, recipes),
            "the factors are upside down: what is left of one?": (1 / recipes, 1 / peft),
            "those are shares that are saved. What is left is a factor, and factors multiply.": (
                1 - recipes, 1 - peft,
            ),
            "the second is a difference, not a factor.": (recipes, recipes - all_of_it),
            "the second is what all saved together.": (recipes, 1 - all_of_it),
        }  # fmt: skip
        otherwise = (
            f"the factors {one:.3g} and {two:.3g} multiply to {one * two:.3g}, and the whole is "
            f"{all_of_it:.3g}. Which run stands between the other two?"
        )
        if off := slip_of(pair, slips, otherwise, near=2e-3):
            return f"{words} {off}"
    return ""


@exercise("07/challenge", "a dictionary of method, precision and frugal", dict)
def challenge(answer: dict, plan: Callable[..., MemoryPlan], limit: float) -> Finding:
    """Plan what was chosen, unless it uses what the exercise rules out."""
    known = {"method", "precision", "frugal"}
    if unknown := {*answer} - known:
        return f"It knows {', '.join(sorted(known))}, and not {', '.join(map(str, unknown))}."
    frugal = answer.get("frugal") or []
    names = {frugal} if isinstance(frugal, str) else {*frugal}
    if out := names & {"late", "checkpoint", "cached", "all"}:
        return f"{', '.join(sorted(out))} is ruled out here."
    if answer.get("method", "lora") == "linear_probe":
        return "A linear probe trains nothing of the backbone."
    if answer.get("method") in ("side", "shallow"):
        return f"With {answer['method']} not every block learns."
    chosen = answer | {"frugal": tuple(sorted(names))}
    peak = ask("When that is planned,", lambda: plan(**chosen)).peak
    if peak <= limit:
        return ""
    more = "" if names else " No recipe is among it yet."
    return f"The peak is {peak / limit:.2f} times what is allowed.{more}"


@exercise(
    "07/again", "a function run_again(block, x, gradient) that returns the gradient of x", Callable
)
def again(answer: Callable) -> Finding:
    """Ask the function for the gradients of a small block, and compare with autograd's own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)).double()
        x, gradient = torch.randn(2, 3, 4).double(), torch.randn(2, 3, 4).double()
    other = copy.deepcopy(block)  # whose weights have no gradient yet
    given = x.clone().requires_grad_()
    block(given).backward(gradient)
    wanted = [weight.grad for weight in block.parameters()]
    expected, given = given.grad, x.clone().requires_grad_()
    for weight in block.parameters():  # as a batch before this one may have left it
        weight.grad = torch.ones_like(weight)
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
    own = [None if weight.grad is None else weight.grad - 1 for weight in block.parameters()]
    if any(
        grad is None or torch.allclose(grad, right - 1)
        for grad, right in zip(own, wanted, strict=True)
    ):
        return "Gradients that stood in the weights' .grad before are gone. It should add to them."
    with torch.no_grad():
        ask("For weights that have no gradient yet", answer, other, given, gradient)
    return _which_gradients(found, expected, own, wanted)


def _which_gradients(
    found: object, expected: Tensor | None, own: list[Tensor | None], wanted: list[Tensor | None]
) -> Finding:
    """Say which gradients differ from those of autograd."""
    assert expected is not None
    if not isinstance(found, Tensor):
        return (
            f"It returned {type(found).__name__}. The gradient of x is wanted: is there a "
            "return, and does the x whose .grad it takes require one?"
        )
    if found.shape != expected.shape:
        return f"It returned shape {tuple(found.shape)}; x has {tuple(expected.shape)}."
    if all(grad is not None and not grad.any() for grad in own):
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
    noise = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    weight = noise * torch.tensor([[1e-3], [0.02], [0.1], [1.0], [5.0], [30.0]])
    ends = torch.tensor([4.0, -4.0, 4.0, -4.0, -4.0, 4.0])  # the largest of a row has either sign
    weight[:, 7] = ends * weight.abs().mean(dim=1)
    before = weight.clone()
    found = ask("With a weight of shape (6, 40)", answer, weight)
    if not (isinstance(found, tuple | list) and len(found) == 2):
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
    if bool((whole == -128).any()):
        return "Some numbers are -128. The largest of a row becomes 127 or -127, by its sign."
    if bool((error <= 0.501 * step).all()):
        return ""
    if bool((error <= 1.01 * step).all()):
        return (
            "Some numbers are off by more than half a step: by cutting off decimals, or by steps "
            "that are wider than need be. Round, and let the largest of a row become 127."
        )
    if bool((whole.float() / scale - weight).abs().le(step).all()):
        return "The factor is upside down: whole * scale should give the weight back."
    if bool((whole.float() * scale / 127 - weight).abs().le(1.01 * step).all()):
        return "The factor is 127 times too large: it is the size of one step."
    return (
        "whole * scale is far from the weight. Did numbers leave the range from -127 to 127, which "
        "wraps round, and was the largest size of a row taken without its sign?"
    )


@exercise(
    "07/cached_seconds",
    "a function cached_seconds(epochs, prefix, validation, rest, views)",
    Callable,
)
def cached_seconds(answer: Callable) -> Finding:
    """Ask the function for long and short runs; in long ones a lazy cache costs as much."""
    cases = [(20, 3.3, 0.7, 2.5, 8), (5, 3.3, 0.7, 2.5, 8), (1, 3.3, 0.7, 2.5, 4)]
    for epochs, prefix, validation, rest, views in cases:
        words = (
            f"For {epochs} epochs, prefix {prefix:g} s, validation {validation:g} s, rest "
            f"{rest:g} s and {views} views"
        )
        found = ask_number(words, answer, epochs, prefix, validation, rest, views)
        if slip := _seconds_slip(found, epochs, prefix, validation, rest, views):
            return f"{words} it gives {found:g}: {slip}"
    return ""


def _seconds_slip(
    found: float, epochs: int, prefix: float, validation: float, rest: float, views: int
) -> Finding:
    lazily, trained = min(epochs, views) * prefix, epochs * rest
    slips = {
        "": views * prefix + validation + trained,
        "that computes a view when it is first drawn. This cache computes all of them in the first "
        "epoch.": lazily + validation + trained,
        "that is without a cache.": epochs * (prefix + validation) + trained,
        "the validation chips have to go through once, too.": views * prefix + trained,
        "validation chips have one view only.": views * (prefix + validation) + trained,
        "validation chips are cached, too.": views * prefix + epochs * validation + trained,
        "the first epoch computes all views, not one.": prefix + validation + trained,
        "the frozen part is computed in the first epoch only.": (
            epochs * (views * prefix + validation) + trained
        ),
        "the rest runs on one view of a chip per epoch, also in the first.": (
            views * (prefix + rest) + validation + trained - rest
        ),
        "the first epoch trains, too.": views * prefix + validation + trained - rest,
        "the later epochs are missing.": views * prefix + validation + rest,
    }
    return slip_of(found, slips, "add up what is computed once, and what in every epoch.")
