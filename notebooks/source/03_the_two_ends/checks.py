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
    """Ask the function for a small problem, and compare with what the usual slips give."""
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(40, 5, generator=draw, dtype=torch.float64)
    T = torch.randn(40, 3, generator=draw, dtype=torch.float64)
    before, penalty = (X.clone(), T.clone()), 7.0
    W = ask("With X (40, 5), T (40, 3) and penalty 7.0", answer, X, T, penalty)
    if not isinstance(W, torch.Tensor):
        return f"It returned {type(W).__name__}. A tensor is wanted; is there a return?"
    if tuple(W.shape) != (5, 3):
        return (
            f"From X (40, 5) and T (40, 3) comes W of shape {tuple(W.shape)}; it should be (5, 3)."
        )
    if not (torch.equal(X, before[0]) and torch.equal(T, before[1])):
        return "X or T was changed on the way. Work on new tensors."
    return _which_solution(W.double(), X, T, penalty)


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
    for trained, frozen in ((300, 7000), (1000, 0), (0, 1000)):
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
