"""Checks of the exercises of lesson 06."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real

import pandas as pd
import torch

from geopeft_nb.backbones.vit import PreNormBlock
from geopeft_nb.classroom.check import Finding, ask, ask_number, exercise, slip_of
from geopeft_nb.errors import GeopeftError, whole
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.memory.plan import MemoryPlan

FLOAT = 4  # bytes
#: Statistics of the norms and of attention are a few numbers per token, which may be left out.
TOLERANCE = 0.02


@exercise("06/bills", "a number of bytes", Real)
def bills(answer: float) -> Finding:
    """Recognise what was counted for too many weights, too few, or not at all."""
    every, trained = 300e6, 6e6
    right = 4 * every + 12 * trained
    if any(abs(answer * unit / right - 1) < 0.002 for unit in (10**6, 10**9, 2**20, 2**30)):
        return "The size is right. It wants bytes."
    slips = {
        "": right,
        "That is full fine-tuning. What do only trained weights have?": 16 * every,
        "Frozen weights have no gradient, but they are in memory.": 16 * trained,
        "The trained weights are among the 300 million: once is enough.": right + 4 * trained,
        "Each trained weight has four numbers: itself, a gradient and AdamW's two.": right
        - 4 * trained,
        "AdamW remembers two numbers for each trained weight.": right - 8 * trained,
        "Those are the weights. What do trained ones have beside them?": 4 * every,
        "That is a number of numbers. How many bytes has each?": right / 4,
        "Those are bits.": 8 * right,
        "Nearly. It wants four figures.": 1.3e9,
    }
    otherwise = "How many bytes for each of all weights, and how many more for a trained one?"
    return slip_of(answer, slips, otherwise, near=0.002)


@exercise(
    "06/linear", "a function of rows, n_in, n_out, trained and passes that returns bytes", Callable
)
def linear(answer: Callable) -> Finding:
    """Ask the function for a trained and a frozen layer, with and without an error to pass on."""
    rows, n_in, n_out = 50, 7, 11
    x, y, weight = FLOAT * rows * n_in, FLOAT * rows * n_out, FLOAT * n_in * n_out
    hint = "go through the three formulas: which gradients are wanted, and what does each need?"
    anyway = "the weight is there anyway, and is not kept a second time."
    slips = {
        rows * n_in: "that is a number of numbers. How many bytes has each?",
        y: "that is the output. Is it in any of the three formulas?",
        x + y: "one of the two is in none of the three formulas.",
        weight: anyway,
        x + weight: anyway,
        x / 2**20: "that is in MiB. It wants bytes.",
        0: "something is needed for the gradient of the weight.",
        x: "which of the formulas needs x, and is that gradient wanted here?",
    }
    for trained, passes in ((True, True), (True, False), (False, True), (False, False)):
        words = f"For 50 rows, 7 in, 11 out, trained={trained}, passes={passes}"
        found = ask_number(words, answer, rows, n_in, n_out, trained, passes)
        if found != x * trained:
            return f"{words} it gives {found:g}: {slips.get(found, hint)}"
    return ""


@exercise("06/storage", "a function of a tensor that returns a key", Callable)
def storage(answer: Callable) -> Finding:
    """Compare keys of views, which share a storage, and of tensors that are equal and apart."""
    first = torch.arange(24.0).reshape(4, 6)
    views = {
        "a transposed view": first.T,
        "a view of later rows": first[2:],
        "the same tensor, reshaped": first.reshape(-1),
        "a detached tensor": first.detach(),
        "later rows, detached,": first[2:].detach(),
    }
    key = ask("For a tensor", answer, first)
    ask("To look the key up in a set,", hash, key)
    for words, view in views.items():
        if {ask(f"For {words}", answer, view)} != {key}:  # as a set looks it up
            begins = " They begin at different places of it." if "later" in words else ""
            return f"{words.capitalize()} has another key, and the same storage.{begins}"
    other = first.clone()
    if ask("For another tensor", answer, other) == key:
        return "A copy has the same key, though its numbers stand in a storage of their own."
    return ""


@exercise("06/block", "a function of tokens, width and batch that returns bytes", Callable)
def block(answer: Callable) -> Finding:
    """Compare the function with measured blocks of two shapes."""
    for tokens, width, batch in ((33, 96, 5), (35, 64, 3)):
        words = f"For {tokens} tokens of width {width}, batch {batch},"
        found = ask_number(words, answer, tokens, width, batch)
        off = _block_slip(found / _block_bytes(tokens, width, batch), batch, tokens)
        if (found / FLOAT / batch / tokens - 16 * width) / tokens in (1, 2, 6):
            off = "no table of tokens x tokens is kept. Attention goes over it piece by piece."
        if off:
            return f"{words} it gives {found:,.0f} bytes: {off}"
    return ""


def _block_bytes(tokens: int, width: int, batch: int) -> int:
    """Measure what a block keeps that is trained in full; two heads are the usual kind enough."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        made = PreNormBlock(width, heads=2)
        x = torch.randn(batch, tokens, width, requires_grad=True)
    # The sum keeps nothing; the output belongs to the next block.
    return training_bytes(made, lambda: made(x).sum())["activations"]


def _block_slip(times: float, batch: int, tokens: int) -> Finding:
    slips = {
        "": 1,
        "about a quarter of what is measured. How many bytes has a number?": 1 / FLOAT,
        "that is what one chip keeps.": 1 / batch,
        "that is what one token keeps.": 1 / tokens,
        "the wide tensors of the MLP: how often does the table have them, and how wide?": 10 / 16,
        "four times the width is missing: a wide tensor of the MLP, or what attention keeps.": (
            12 / 16
        ),
        "the class token is among the tokens already.": 1 + 1 / tokens,
        "the class token is a token, too.": 1 - 1 / tokens,
        "queries, keys and values are three, not one.": 14 / 16,
        "queries, keys and values are missing.": 13 / 16,
        "nearly. One tensor of the width is missing; go through the table row by row.": 15 / 16,
        "nearly. One tensor too many: which two layers read the same memory, or which tensor "
        "belongs to the next block?": 17 / 16,
        "twice the width too much. Is something counted again?": 18 / 16,
        "the input of every layer by itself. Which layers read the same memory?": 19 / 16,
        "one wide tensor too many.": 20 / 16,
        "those are MiB. It wants bytes.": 2**-20,
    }
    words = "Add up the table's multiples of the width, and scale by batch, tokens and width."
    otherwise = f"{times:.2f} times what is measured. {words}"
    return slip_of(times, slips, otherwise, TOLERANCE)


@exercise("06/thirty", "a function of two plans of one chip that returns a batch", Callable)
def thirty(answer: Callable) -> Finding:
    """Ask the function for made-up plans, whose saving falls below 30 % at different batches."""
    cases = [(900, 40, 300, 37, 200), (5000, 30, 1400, 29, 0), (800, 90, 700, 85, 50)]
    cases.append((500, 50, 300, 40, 0))  # ten chips save 30 % exactly
    for full_fixed, full_chip, lora_fixed, lora_chip, more in cases:
        full, lora = _plan(full_fixed, full_chip, more), _plan(lora_fixed, lora_chip, 3 * more)

        def saved(batch: float, full: MemoryPlan = full, lora: MemoryPlan = lora) -> float:
            return 1 - _total(lora, batch) / _total(full, batch)

        right = max([0, *(batch for batch in range(1, 1_000) if saved(batch) >= 0.3)])
        words = (
            f"For {full_fixed} fixed and {full_chip} a chip in full, {lora_fixed} and {lora_chip} "
            f"with LoRA (MB),"
        )
        found = ask_number(words, answer, full, lora)
        if found == right:
            continue
        if found % 1:
            return f"{words} it gives {found:.3g}. A batch is a whole number."
        if not right:
            return f"{words} even one chip saves less than 30 %, so the answer is 0."
        if found > right:
            return f"{words} it gives {found:g}, too many chips: LoRA saves {saved(found):.1%}."
        return f"{words} it gives {found:g}, and one more still saves {saved(found + 1):.1%}."
    return ""


def _plan(fixed: int, chip: int, more: int = 0, batch: int = 1) -> MemoryPlan:
    """Make a plan in MB; `more` is alive at the peak beside what is kept."""
    row = {"weights": fixed, "gradients": 0, "optimiser": 0, "activations": chip * batch}
    table = pd.DataFrame([row | {"total": fixed + chip * batch}], index=["made up"])
    return MemoryPlan(table * 10**6, (fixed + chip * batch + more) * 10**6, "made up")


def _total(one: MemoryPlan, batch: float) -> float:
    """Return the bytes of a batch; activations are proportional to it, all else is fixed."""
    return one.total - one.activations + one.activations * batch


@exercise("06/fits", "a function of plan and limit that returns a batch", Callable)
def fits(answer: Callable) -> Finding:
    """Ask for small and large limits, count the plans, and compare peaks with what is kept."""
    for fixed, chip, more, limit in ((700, 90, 350, 2000), (900, 50, 80, 800), (900, 7, 100, 4100)):
        asked: list[int] = []

        def made(batch: int, *, of: tuple = (fixed, chip, more)) -> MemoryPlan:
            fixed, chip, more = of  # what comes and goes beside it grows with many chips
            return _plan(fixed, chip, max(more, chip * batch // 12), batch)

        def plan(batch: int, *, made: Callable = made, asked: list = asked) -> MemoryPlan:
            asked.append(batch)
            if len(asked) > 1000:
                raise GeopeftError("1,000 plans were asked for, of 25. Does it ever end?")
            return made(whole("batch_size", batch, 1, 16_384))

        right = next(n for n in range(1, 500) if not made(n).fits(limit * 10**6)) - 1
        words = f"With a limit of {limit} MB"
        found = ask_number(words, answer, plan, limit * 10**6)
        if found == right:
            if len(asked) > 25:
                return f"{words} it is right, but asked for {len(asked)} plans. At most 25."
            continue
        if not right:
            return f"{words} not even one chip fits, so the answer is 0."
        if found == (limit - fixed) // chip:
            return f"{words} a batch of {found:g} keeps so much, but its peak is higher."
        if found % 1:
            return f"{words} it gives {found:.4g}. A batch is a whole number."
        if found == (limit - fixed - more) // chip:
            return f"{words} it gives {found:g}: a guess from small batches. Ask a plan if it fits."
        if found > right:
            peak = made(int(found)).peak / 1e6
            return f"{words} it gives {found:g}, which takes {peak:g} MB at its peak."
        return f"{words} it gives {found:g}, and one more still fits."
    return ""
