"""Checks of the exercises of lesson 05."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor, nn

from geopeft_nb.classroom.check import Finding, ask, exercise


@exercise("05/prompted_block", "a class that is made from a block and prompts", (type,))
def prompted_block(answer: Callable[..., nn.Module], block: nn.Module) -> Finding:
    """Compare with the block on tokens and prompts, and look at what learns."""
    width = next(block.parameters()).shape[-1]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 5, width, generator=generator)
    prompts = torch.randn(1, 4, width, generator=generator)
    given = copy.deepcopy(block).requires_grad_(True).eval()
    try:
        module = answer(given, prompts.clone())
        result = module(tokens)
    except Exception as error:  # whatever the learner's class raises is the finding
        hint = ""
        if "Sizes of tensors must match" in str(error):
            hint = " The prompts have a batch of one, the tokens a batch of several."
        return f"With tokens {(*tokens.shape,)} it raised {type(error).__name__}: {error}.{hint}"
    if off := _not_tokens(result, tokens):
        return off
    with torch.no_grad():
        both = copy.deepcopy(block).eval()(torch.cat([tokens, prompts.expand(3, -1, -1)], dim=1))
        alone = copy.deepcopy(block).eval()(tokens)
    if _near(result, alone):
        return "The result is what the block gives without prompts. Do they go through it?"
    if result.shape[1] != tokens.shape[1]:
        return (
            f"{tokens.shape[1]} tokens went in and {result.shape[1]} came out. Prompts help inside "
            "the block and leave after it."
        )
    if not _near(result, both[:, : tokens.shape[1]]):
        if _near(result[:, :4], both[:, 5:]) or _near(result[:, 1:], both[:, 5:]):
            return (
                "The count is right, but what is kept includes the prompts. Which are the image's?"
            )
        return "The result is not that of the block on tokens and prompts, side by side."
    return _only_trains(
        module, result, {"prompts": prompts.numel()}, "nn.Parameter makes a tensor trainable"
    )


@exercise("05/growth", "a function of tokens and prompts that returns two factors", Callable)
def growth(answer: Callable) -> Finding:
    """Ask the function for small and large images."""
    for tokens, prompts in ((64, 100), (1024, 100), (256, 10), (50, 0)):
        words = f"For {tokens} tokens and {prompts} prompts"
        pair = ask(words, answer, tokens, prompts)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            return f"{words} it returned {pair!r}. Two factors are wanted."
        if not all(isinstance(value, Real) and not isinstance(value, bool) for value in pair):
            return f"{words} it returned {pair!r}, which are not two numbers."
        some, pairs = (float(value) for value in pair)
        factor = (tokens + prompts) / tokens
        if _same(some, factor) and _same(pairs, factor**2):
            continue
        if _same(pairs, factor) and _same(some, factor**2):
            return f"{words} the factors stand in the other order: tokens first, then pairs."
        if _same(some, tokens + prompts):
            return f"{words} it counts them. A factor says how many times as many."
        if _same(some, prompts / tokens):
            return f"{words} it gives what is added, as a share. The tokens themselves stay too."
        if _same(some, factor) and _same(pairs, factor):
            return f"{words} pairs grow like tokens. But the prompts look around, too."
        if _same(some, factor) and _same(pairs, 1 + (prompts / tokens) ** 2):
            return f"{words} the pairs between prompts and tokens are missing."
        which = "pairs" if _same(some, factor) else "tokens"
        return f"{words} the factor on {which} is off. How many are there, and how many were there?"
    return ""


@exercise(
    "05/bottleneck", "a class that is made from a layer, its width and the bottleneck", (type,)
)
def bottleneck(answer: Callable[..., nn.Module], layer: nn.Module) -> Finding:
    """Look at the start, the count, what learns, and the bend."""
    width, small = next(layer.parameters()).shape[-1], 7
    x = torch.randn(3, 5, width, generator=torch.Generator().manual_seed(0))
    given = copy.deepcopy(layer).requires_grad_(True).eval()
    module = ask(f"Made for a width of {width},", answer, given, width, small)
    result = ask(f"With x {(*x.shape,)}", module, x)
    if off := _not_tokens(result, x):
        return off
    if result.shape != x.shape:
        return f"{(*x.shape,)} went in and {(*result.shape,)} came out. The shape should stay."
    with torch.no_grad():
        plain = copy.deepcopy(layer).eval()(x)
    if not bool(result.any()):
        return "All zeros come out: what the frozen layer gives is not added."
    if _near(result, plain + x):
        return "That adds what came in once more. The block does so already, outside of the layer."
    if not _near(result, plain):
        return (
            "At the start it should give what the layer alone gives. Which weights begin at zero?"
        )
    wanted = 2 * width * small + small + width
    if off := _only_trains(module, result, {"two linear layers": wanted}, "mind the biases"):
        return off
    return _bends_behind(answer, width, small)


def _bends_behind(answer: Callable[..., nn.Module], width: int, small: int) -> Finding:
    """Say whether an adapter reads what the layer gives, and whether it has a nonlinearity."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 5, width, generator=generator)

    def added(layer: nn.Module) -> Callable[[Tensor], Tensor]:
        module = answer(layer, width, small).eval()
        with torch.no_grad():
            for weight in module.parameters():
                if weight.requires_grad:
                    weight.copy_(torch.randn(weight.shape, generator=generator))
        return lambda value: (module(value) - layer(value)).detach()

    silent = nn.Linear(width, width)  # gives zeros, whatever comes in
    nn.init.zeros_(silent.weight)
    nn.init.zeros_(silent.bias)
    behind = added(silent)
    if not _near(behind(x), behind(2 * x)):
        return "That reads what comes into the layer: it stands beside it. Here it stands behind."
    of = added(nn.Identity())
    if _near(of(2 * x) - of(0 * x), 2 * (of(x) - of(0 * x))):
        return "Without a nonlinearity between them, two linear layers are no more than one."
    return ""


def _only_trains(module: nn.Module, result: Tensor, wanted: dict[str, int], hint: str) -> Finding:
    """Say what is off with the trained weights, or with the gradient that reaches them."""
    ((what, count),) = wanted.items()
    found = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    total = sum(weight.numel() for weight in module.parameters())
    if not found:
        return f"Nothing is trained. The {what} should learn ({hint})."
    if found == total and found > count:
        return "Everything is trained. What was pretrained should stay frozen."
    if found != count:
        return f"{found:,} weights are trained, and the {what} are {count:,}: {hint}."
    if not result.requires_grad:
        return f"No gradient reaches the {what}: somewhere on the way it is cut off."
    result.square().sum().backward()
    if not any(p.grad is not None and bool(p.grad.any()) for p in _matrices(module)):
        return f"No gradient reaches the {what}. Did both ways begin at zero?"
    return ""


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad and p.ndim > 1]


def _not_tokens(result: object, given: Tensor) -> Finding:
    if not isinstance(result, Tensor):
        return f"It returned {type(result).__name__}, and tokens are wanted."
    if result.ndim != 3 or result.shape[0] != given.shape[0] or result.shape[2] != given.shape[2]:
        return f"{(*given.shape,)} went in and {(*result.shape,)} came out: (B, N, D) is wanted."
    return ""


def _near(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding in another order of the tokens."""
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-4 * b.abs().max())


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)
