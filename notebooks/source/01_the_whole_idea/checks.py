"""Checks of the exercises of lesson 01."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING

from geopeft_nb.classroom.check import Finding, exercise

if TYPE_CHECKING:
    from geopeft_nb.evaluation.regions import Report
    from geopeft_nb.models import SegmentationModel


@exercise("01/trainable_share", "the trainable share of all parameters, 0 to 1", Real)
def trainable_share(answer: float, model: SegmentationModel) -> Finding:
    """Compare a share with the one of the model, and recognise the usual slips."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    total, trainable = sum(size for size, _ in sizes), sum(size for size, on in sizes if on)
    tensors = sum(on for _, on in sizes) / len(sizes)
    share = trainable / total
    if _near(answer, share):
        return ""
    if _near(answer, 100 * share):
        return "That looks like per cent. Give the share as a number between 0 and 1."
    if _near(answer, 1 - share):
        return "That is the frozen share. Which parameters have requires_grad set?"
    if _near(answer, trainable / (total - trainable) if total > trainable else math.inf):
        return "That is trainable over frozen. Divide by all parameters, trainable ones included."
    decoder = sum(w.numel() for n, w in model.named_parameters() if n.startswith("decoder."))
    if _near(answer, (trainable - decoder) / total):
        return "You left out the decoder. It is trained too."
    if _near(answer, tensors):
        return "That counts weight matrices. Count their numbers: parameter.numel()."
    if math.isclose(answer, share, rel_tol=0.1):
        return "Close. Give three decimals, or compute it from the parameters."
    return "Sum parameter.numel() where requires_grad is set, and divide by the sum over all."


@exercise("01/frozen_backbone", "a model with LoRA attached")
def frozen_backbone(answer: SegmentationModel, rank: int) -> Finding:
    """Look at which parts train: adapters and decoder should, the pretrained weights should not."""
    if not hasattr(answer, "named_parameters"):
        return f"It wants the model itself, and this is of type {type(answer).__name__}."
    from geopeft_nb.models import part_of  # imports torch, which building the lessons does without

    trains: dict[str, list[bool]] = {"backbone": [], "adapter": [], "decoder": []}
    for name, weight in answer.named_parameters():
        trains[part_of(name)].append(weight.requires_grad)
    if not trains["adapter"]:
        return "There is no adapter in this model. Which call attaches one?"
    if any(trains["backbone"]):
        count = sum(trains["backbone"])
        return f"{count} tensors of the pretrained backbone still train. They should stay frozen."
    if not all(trains["adapter"]):
        return "Some adapter weights are frozen, so they could not learn."
    if not trains["decoder"]:
        return "It wants the whole network, decoder included."
    if answer.method_options.get("r", 16) != rank:
        return "The rank is not the one that was asked for. Which option of LoRA sets it?"
    if not all(trains["decoder"]):
        return "The decoder is frozen: it starts from random numbers, so it has to learn."
    return ""


@exercise("01/region_gap", "the mIoU lost away from home, a difference of two scores", Real)
def region_gap(answer: float, report: Report) -> Finding:
    """Compare a gap with the report's: mean mIoU at home minus mean mIoU away."""
    score = report.table.groupby("role")["mIoU"].mean()
    gap = score["home"] - score["away"]
    if abs(answer - gap) < 0.0015:  # three decimals, as the table shows them
        return ""
    if abs(answer - gap / score["home"]) < 0.0015:
        return "That is relative to the score at home. Give the plain difference."
    if abs(answer + gap) < 0.0015:
        return "The size is right. A loss away from home counts as positive: home minus away."
    if any(abs(answer - value) < 0.0015 for value in score):
        return "That is one of the two scores. How far are they apart?"
    if abs(answer - 100 * gap) < 0.5:
        return "That looks like points of 100. The scores in the report run from 0 to 1."
    return "Take the mIoU column: the row of the home region minus the row of the away region."


def _near(answer: float, value: float) -> bool:
    """Allow for rounding to three digits, which is how a share is read off a table."""
    return math.isclose(answer, value, rel_tol=0.006)
