"""Checks of the exercises of lesson 06."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING

import torch

from geopeft_nb.backbones.vit import PreNormBlock
from geopeft_nb.classroom.check import Finding, ask_number, exercise
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.memory.plan import MemoryPlan, memory_plan
from geopeft_nb.pictures.show import in_bytes

if TYPE_CHECKING:
    from geopeft_nb.models import SegmentationModel

FLOAT = 4  # bytes
#: Statistics of the norms and of attention are a few numbers per token, which may be left out.
TOLERANCE = 0.03


@exercise(
    "06/linear", "a function of rows, n_in, n_out, trained and passes that returns bytes", Callable
)
def linear(answer: Callable) -> Finding:
    """Ask the function for a trained and a frozen layer, with and without an error to pass on."""
    rows, n_in, n_out = 50, 7, 11
    for trained, passes in ((True, True), (True, False), (False, True), (False, False)):
        words = f"For 50 rows, 7 in, 11 out, trained={trained}, passes={passes}"
        found = ask_number(words, answer, rows, n_in, n_out, trained, passes)
        if found != FLOAT * rows * n_in * trained:
            return f"{words} it gives {found:g}: {_linear_slip(found, trained, passes)}"
    return ""


def _linear_slip(found: float, trained: bool, passes: bool) -> str:
    x, y, weight = FLOAT * 50 * 7, FLOAT * 50 * 11, FLOAT * 7 * 11
    slips = {
        50 * 7: "that is a number of numbers. How many bytes has each?",
        y: "that is the output. Is it in any of the three formulas?",
        x + y: "one of the two is in none of the three formulas.",
        x + weight: "the weight is there anyway, and is not kept a second time.",
        weight: "the weight is there anyway, and is not kept a second time.",
        0: "something is needed for the gradient of the weight.",
        x: "which of the formulas needs x, and is that gradient wanted here?",
    }
    hint = "go through the three formulas: which gradients are wanted, and what does each need?"
    return slips.get(round(found), hint)


@exercise("06/block", "a function of tokens, width and batch that returns bytes", Callable)
def block(answer: Callable) -> Finding:
    """Compare the function with measured blocks of two shapes."""
    for tokens, width, batch in ((17, 48, 2), (50, 32, 3)):
        words = f"For {tokens} tokens of width {width}, batch {batch},"
        found = ask_number(words, answer, tokens, width, batch)
        kept = _block_bytes(tokens, width, batch)
        if abs(found / kept - 1) > TOLERANCE:
            return f"{words} it gives {found:g} bytes: {_block_slip(found / kept, batch, tokens)}"
    return ""


def _block_bytes(tokens: int, width: int, batch: int) -> int:
    """Measure what a block keeps that is trained in full; two heads are the usual kind enough."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        made = PreNormBlock(width, heads=2)
        x = torch.randn(batch, tokens, width, requires_grad=True)
    # The sum keeps nothing; the output belongs to the next block.
    return training_bytes(made, lambda: made(x).sum())["activations"]


def _block_slip(times: float, batch: int, tokens: int) -> str:
    slips = {
        1 / FLOAT: "about a quarter of what is measured. How many bytes has a number?",
        1 / batch: "that is what one chip keeps.",
        1 / tokens: "that is what one token keeps.",
        10 / 16: "the wide tensors of the MLP: how often does the table have them, and how wide?",
        12 / 16: "one of the two wide tensors of the MLP is missing.",
        14 / 16: "queries, keys and values are three, not one.",
        13 / 16: "queries, keys and values are missing.",
        15 / 16: "nearly. One tensor of the width is missing; go through the table row by row.",
        17 / 16: "nearly. One tensor too many: which two rows of the table share their memory, or "
        "which belongs to the next block?",
        20 / 16: "one wide tensor too many.",
    }
    for factor, words in slips.items():
        if abs(times / factor - 1) < TOLERANCE:
            return words
    return f"{times:.2f} times what is measured. Add up the multiples of the width in the table."


@exercise("06/thirty", "a whole number, the batch", Real)
def thirty(answer: int, full: MemoryPlan, lora: MemoryPlan) -> Finding:
    """Compute the saving at the batch and at the next one, from the plans of one chip."""
    if answer % 1 or answer < 1:
        return f"A batch is a whole number above 0, and this is {answer!r}."

    def saved(count: float) -> float:
        return 1 - _total(lora, count) / _total(full, count)

    if saved(answer) < 0.3:
        return f"With {answer:g} chips LoRA saves {saved(answer):.1%}. That is too many chips."
    if saved(answer + 1) >= 0.3:
        return f"With {answer:g} chips LoRA saves {saved(answer):.1%}, and one more still fits in."
    return ""


def _total(one: MemoryPlan, batch: float) -> float:
    """Return the bytes of a batch; activations are proportional to it, all else is fixed."""
    return one.total - one.activations + one.activations * batch


@exercise("06/fits", "a whole number, the largest batch", Real)
def fits(answer: int, network: SegmentationModel, size: int, limit: float) -> Finding:
    """Plan the batch and the next larger one."""
    if answer % 1 or answer < 1:
        return f"A batch is a whole number above 0, and this is {answer!r}."
    plan = memory_plan(network, int(answer), size)
    if not plan.fits(limit):
        peak, given = in_bytes(plan.peak), f"{limit / 1e9:g} GB are {in_bytes(limit)}"
        return f"A batch of {answer:g} takes {peak} at its peak, and {given}."
    if memory_plan(network, int(answer) + 1, size).fits(limit):
        return f"A batch of {answer:g} fits, and so does a larger one."
    return ""
