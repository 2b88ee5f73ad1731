"""Checks of the exercises of lesson 03."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from geopeft_nb.classroom.check import Finding, ask, ask_number, exercise

if TYPE_CHECKING:
    from torch import Tensor

    from geopeft_nb.models import SegmentationModel


@exercise("03/by_hand", "a network whose right part is frozen")
def by_hand(answer: SegmentationModel) -> Finding:
    """Look at which weights of backbone and decoder are trained."""
    if not all(hasattr(answer, part) for part in ("backbone", "decoder")):
        return (
            f"It wants the network itself, with backbone and decoder, and this is of type "
            f"{type(answer).__name__}."
        )
    if answer.method:
        return f"gp.attach did that: {answer.method} is attached. Start from build(None, chips)."
    backbone, decoder = (
        [weight.requires_grad for weight in part.parameters()]
        for part in (answer.backbone, answer.decoder)
    )
    if not any(backbone) and not any(decoder):
        return "All of it is frozen. Which part is new, and has to learn?"
    if not all(decoder):
        return "The decoder is frozen, at least in part. Is that the part that is pretrained?"
    if all(backbone):
        return "All of it would be trained: that is the other end of the ruler."
    if any(backbone):
        return (
            f"{sum(backbone)} of the backbone's {len(backbone)} weights and biases would still be "
            "trained. Freeze the whole part."
        )
    return ""


@exercise("03/solve", "a function solve(X, T, penalty) that returns W", Callable)
def solve(answer: Callable) -> Finding:
    """Ask the function for two small problems, and compare with what the usual slips give."""
    draw = torch.Generator().manual_seed(0)
    for rows, width, wanted, penalty in ((40, 5, 3, 7.0), (30, 4, 2, 0.5)):
        X = torch.randn(rows, width, generator=draw, dtype=torch.float64)
        T = torch.randn(rows, wanted, generator=draw, dtype=torch.float64)
        words = f"With X ({rows}, {width}), T ({rows}, {wanted}) and penalty {penalty}"
        W = ask(words, answer, X, T, penalty)
        if not isinstance(W, torch.Tensor):
            return f"It returned {type(W).__name__}. A tensor is wanted; is there a return?"
        if tuple(W.shape) != (width, wanted):
            return f"{words} W has shape {(*W.shape,)}; it should be ({width}, {wanted})."
        if off := _which_solution(W.double(), X, T, penalty):
            return off
    return ""


def _which_solution(W: Tensor, X: Tensor, T: Tensor, penalty: float) -> Finding:
    eye, products = torch.eye(X.shape[1], dtype=X.dtype), X.T @ X

    def is_close(matrix: Tensor) -> bool:
        return torch.allclose(W, torch.linalg.solve(matrix, X.T @ T), rtol=1e-4, atol=1e-6)

    if is_close(products + penalty * eye):
        return ""
    if is_close(products):
        return "The penalty changes nothing. Where does it come in?"
    if is_close(products + penalty):
        return "The penalty was added to every entry. It belongs on the diagonal alone."
    if is_close(products - penalty * eye):
        return "The penalty was taken off. It is added."
    if is_close(products + penalty**2 * eye) or is_close(products + penalty**0.5 * eye):
        return "The penalty has another power than in the formula."
    if is_close(products / len(X) + penalty * eye) or is_close(products + len(X) * penalty * eye):
        return "That is the formula for means over rows. Here sums are meant: no division by M."
    if is_close(eye):
        return "That is only the right-hand side. The matrix on the left is missing."
    return "The shape is right, the values are not. Compare each factor with the formula."


@exercise("03/step_bytes", "a function of trained and frozen, two numbers of weights", Callable)
def step_bytes(answer: Callable) -> Finding:
    """Ask the function for both ends and for something between."""
    for trained, frozen in ((317, 7001), (1009, 0), (0, 997), (5, 3)):
        words = f"For {trained} trained and {frozen} frozen weights"
        found = ask_number(words, answer, trained, frozen)
        if found != 16 * trained + 4 * frozen:
            return f"{words} it gives {found:g}: {_bytes_slip(float(found), trained, frozen)}"
    return ""


def _bytes_slip(found: float, trained: int, frozen: int) -> str:
    slips = {
        4 * trained + frozen: "those are numbers. How many bytes has each?",
        16 * (trained + frozen): "frozen weights have neither gradient nor moments.",
        16 * trained: "frozen weights stay in memory, too.",
        12 * trained: "the weights themselves are missing.",
        8 * trained + 4 * frozen: "AdamW's memory is missing.",
        12 * trained + 4 * frozen: "one number for each trained weight is missing. AdamW remembers "
        "two, and the gradient is a third.",
        4 * trained + 4 * frozen: "only the weights are counted.",
        8 * trained + 2 * frozen: "a 32-bit float has four bytes.",
    }
    hint = "count weights, gradients and AdamW's two numbers, each with four bytes."
    return slips.get(round(found), hint)


@exercise("03/too_narrow", "a function of rates and scores", Callable)
def too_narrow(answer: Callable) -> Finding:
    """Try searches whose best rate is inside, smallest and largest, in and out of order."""
    cases = [
        ([1e-4, 1e-3, 1e-2], [0.5, 0.7, 0.6], False, "best in the middle"),
        ([1e-4, 1e-3, 1e-2], [0.5, 0.6, 0.7], True, "best at the largest"),
        ([1e-4, 1e-3, 1e-2], [0.7, 0.6, 0.5], True, "best at the smallest"),
        ([1e-2, 1e-4, 1e-3], [0.5, 0.4, 0.9], False, "out of order, best in the middle"),
        ([1e-3, 1e-2, 1e-4], [0.5, 0.9, 0.4], True, "out of order, best at the largest"),
        ([2e-4, 1e-3, 5e-3, 2.5e-2], [0.6, 0.5, 0.9, 0.4], False, "best inside"),
        ([2e-4, 1e-3, 5e-3, 2.5e-2], [0.5, 0.9, 0.4, 0.8], False, "best inside"),
        ([2e-4, 1e-3, 5e-3, 2.5e-2], [0.9, 0.5, 0.7, 0.6], True, "best at the smallest"),
    ]
    for rates, scores, right, words in cases:
        found = ask(f"For rates {rates}, {words},", answer, [*rates], [*scores])
        if found not in (True, False):
            return f"For rates {rates} it returned {found!r}. True or False is wanted."
        if bool(found) != right:
            return f"For rates {rates}, {words}, it says {bool(found)}."
    return ""


@exercise("03/turn", "a function of rows of features", Callable)
def turn(answer: Callable) -> Finding:
    """Compare lengths and distances of random rows before and after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for count, width in ((20, 6), (3, 8)):
            rows = torch.randn(count, width, dtype=torch.float64)
            words = f"For rows ({count}, {width})"
            found = ask(words, answer, rows.clone())
            if not isinstance(found, torch.Tensor) or found.shape != rows.shape:
                return f"{words} it should return a tensor of the same shape."
            if torch.allclose(found, rows, atol=1e-4):
                return f"{words} nothing was turned."
            before, after = rows @ rows.T, (found := found.double()) @ found.T
            if torch.allclose(before, after, atol=1e-4):
                continue
            if torch.allclose(torch.cdist(rows, rows), torch.cdist(found, found), atol=1e-4):
                return f"{words} the distances stay, and the lengths do not: nothing should move."
            if torch.allclose(before.diag(), after.diag(), atol=1e-4):
                return f"{words} lengths stay and angles change: each row is turned another way."
            return f"{words} lengths and distances change. Which matrices only turn?"
    return ""


@exercise("03/between", "a network that stands between the ends")
def between(
    answer: SegmentationModel, kept: Callable[[SegmentationModel], int], limit: float
) -> Finding:
    """Count what is trained, and measure what a step keeps."""
    if not all(hasattr(answer, part) for part in ("backbone", "decoder")):
        return f"It wants the network itself, and this is of type {type(answer).__name__}."
    if answer.method:
        return f"gp.attach did that: {answer.method} is attached. Start from build(None, chips)."
    if not all(weight.requires_grad for weight in answer.decoder.parameters()):
        return "The decoder is frozen, at least in part. It has to learn."
    sizes = [(weight.numel(), weight.requires_grad) for weight in answer.parameters()]
    share = sum(size for size, on in sizes if on) / sum(size for size, _ in sizes)
    if share < 0.1:
        return f"{share:.1%} of the weights are trained, and a tenth is wanted."
    if (more := kept(answer) / limit) > 1:
        return (
            f"A step keeps {more:.2f} times what is allowed. Through how many blocks does the "
            "error have to travel back?"
        )
    return ""
