"""Checks of the exercises of lesson NN."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from geopeft_nb.classroom.check import Finding, exercise

if TYPE_CHECKING:
    from geopeft_nb.datasets.geodata import GeoData


@exercise("NN/train_chips", "a number of chips", int)
def train_chips(answer: int, chips: GeoData) -> Finding:
    """Recognise the slips of which a word helps more than the right number."""
    if answer == len(chips.train):
        return ""
    if answer in (len(chips.val), len(chips.test)):
        return "That is another part of the home region. Which one is trained on?"
    return "Take the length of the training part."


@exercise("NN/labelled", "a function labelled(mask, ignore_index)", Callable)
def labelled(answer: Callable) -> Finding:
    """Ask the function for a mask whose share is known."""
    share = answer(torch.tensor([[0, 1], [-1, 1]]), -1)
    if share == 0.75:
        return ""
    if share == 0.25:
        return "That is the share without a label."
    return f"For four pixels, one of them without a label, it returned {share!r}."
