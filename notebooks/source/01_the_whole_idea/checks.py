"""Checks of the exercises of lesson 01."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from geopeft_nb.classroom.check import Finding, ask, ask_number, exercise, slip_of

if TYPE_CHECKING:
    from geopeft_nb.evaluation.regions import Report
    from geopeft_nb.models import SegmentationModel


@exercise("01/beside_fc1", "a number of weights", Real)
def beside_fc1(answer: float) -> Finding:
    """Compare with A of rank 16 from 192, and B to 768."""
    slips = {
        "": 16 * (192 + 768),
        "That is the layer itself. A and B go through 16 numbers.": 192 * 768,
        "That is A alone.": 16 * 192,
        "That is B alone.": 16 * 768,
        "Count A and B each by itself, and add them up.": 16 * 192 * 768,
        "B brings 16 numbers to how many?": 2 * 16 * 192,
        "A starts from how many numbers?": 2 * 16 * 768,
        "The layer itself stays frozen. Count the detour alone.": 192 * 768 + 16 * 960,
        "That is beside fc1 of all six blocks.": 6 * 16 * 960,
        "Each of these goes to, or comes from, 16 numbers.": 192 + 768,
        "A and B have no bias.": 16 * 960 + 768,
        "That is beside all layers of all blocks.": 258_048,
    }
    return slip_of(answer, slips, "How many rows and columns has A, and how many has B?")


@exercise("01/spared", "a function of two dictionaries", Callable)
def spared(answer: Callable) -> Finding:
    """Try made-up steps."""
    draw = random.Random(0)
    for _ in range(3):
        weights = draw.randint(100, 200)
        # the weights of the detours are there, too
        lora = {"weights": weights + draw.randint(20, 40), "gradients": draw.randint(1, 9)}
        lora |= {"optimiser": 2 * lora["gradients"], "activations": draw.randint(200, 300)}
        full = {"weights": weights, "gradients": weights, "optimiser": 2 * weights}
        full["activations"] = lora["activations"] + draw.randint(30, 200)
        for step in (lora, full):
            step["total"] = sum(step.values())
        found = ask_number("For a made-up step", answer, dict(lora), dict(full))
        less = {part: full[part] - lora[part] for part in full}
        right = less["activations"] / less["total"]
        slips = {
            "": right,
            "that is a share of the whole step. Which bytes were spared?": (
                less["activations"] / full["total"]
            ),
            "that is the share of the activations that is spared. It wants the share of what is "
            "spared that is activations.": less["activations"] / full["activations"],
            "that is the share of the step that is spared.": less["total"] / full["total"],
            "divide by all that is spared, activations included.": right / (1 - right),
            "that looks like per cent.": 100 * right,
            "that is the other part: what is spared and is no activation.": 1 - right,
            "those are bytes. Which share of all spared ones?": less["activations"],
            "that looks at one of the two steps alone.": lora["activations"] / lora["total"],
            "`total` is the sum of the others already.": right / 2,
            "LoRA's weights are more than full's. Take the difference as it is.": (
                less["activations"] / sum(max(less[part], 0) for part in less if part != "total")
            ),
        }
        otherwise = "it is another. What is spared is full minus LoRA, of the two that are given."
        if off := slip_of(found, slips, otherwise, near=0.003):  # three decimals will do
            return f"For a made-up step {off}"
    return ""


@exercise("01/mndwi", "a function of green and short-wave infrared", Callable)
def mndwi(answer: Callable) -> Finding:
    """Try random reflectance."""
    green, swir = np.random.default_rng(0).uniform(0.02, 0.6, (2, 4, 5))
    import torch

    given = [torch.tensor(band) for band in (green, swir)]
    found = np.asarray(ask("For random reflectance", answer, *given))
    if found.shape != green.shape:
        kind = found.shape or f"one {type(found.item()).__name__}"
        return f"From bands of shape {green.shape} comes {kind}. Each pixel has an index."
    minus, plus = green - swir, green + swir
    slips = {
        "": minus / plus,
        "The sign is turned round: water would come out below zero.": -minus / plus,
        "A division comes before a sum: where do brackets belong?": minus / green + swir,
        "The difference is right. What is it divided by?": minus,
        "That is a ratio of the bands. It runs from 0 to many.": green / swir,
        "The sum below the line has become a difference, or one of the bands.": -minus / green,
    }
    otherwise = "Compare above and below the line with the formula."
    return slip_of(found, slips, otherwise, near=1e-4)


@exercise("01/trainable_share", "the trainable share of all parameters, 0 to 1", Real)
def trainable_share(answer: float, model: SegmentationModel) -> Finding:
    """Compare a share with the one of the model, and recognise the usual slips."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    total, trainable = sum(size for size, _ in sizes), sum(size for size, on in sizes if on)
    tensors = sum(on for _, on in sizes) / len(sizes)
    decoder = sum(w.numel() for n, w in model.named_parameters() if n.startswith("decoder."))
    share = trainable / total
    slips = {
        "": share,
        "That looks like per cent. Give the share as a number between 0 and 1.": 100 * share,
        "That is the frozen share. Which parameters have requires_grad set?": 1 - share,
        "That is trainable over frozen. Divide by all parameters, trainable ones included.": (
            trainable / max(total - trainable, 1)
        ),
        "You left out the decoder. It is trained too.": (trainable - decoder) / total,
        "You left out the decoder, above and below. It is trained too.": (
            (trainable - decoder) / (total - decoder)
        ),
        "You left out the decoder, and divided by the frozen weights alone.": (
            (trainable - decoder) / max(total - trainable, 1)
        ),
        "That counts weight matrices. Count their numbers: parameter.numel().": tensors,
    }
    otherwise = "Sum parameter.numel() where requires_grad is set, and divide by the sum over all."
    if math.isclose(answer, share, rel_tol=0.05):
        otherwise = "Close. Give three decimals, or compute it from the parameters."
    return slip_of(answer, slips, otherwise, near=0.006)  # three digits, as read off a table


@exercise("01/frozen_backbone", "a model with LoRA attached")
def frozen_backbone(answer: SegmentationModel, limit: int) -> Finding:
    """Look at which parts train: adapters and decoder should, the pretrained weights should not."""
    if not hasattr(answer, "named_parameters"):
        return f"It wants the model itself, and this is of type {type(answer).__name__}."
    from geopeft_nb.models import part_of  # imports torch, which building the lessons does without

    trains: dict[str, list[bool]] = {"backbone": [], "adapter": [], "decoder": []}
    size = 0
    for name, weight in answer.named_parameters():
        trains[part_of(name)].append(weight.requires_grad)
        size += weight.numel() * (part_of(name) == "adapter")
    if not any(".lora_" in name for name, _ in answer.named_parameters()):
        return "There is no LoRA in this model. Which call attaches one?"
    if any(trains["backbone"]):
        count = sum(trains["backbone"])
        return f"{count} tensors of the pretrained backbone still train. They should stay frozen."
    if not all(trains["adapter"]):
        return "Some adapter weights are frozen, so they could not learn."
    if not trains["decoder"]:
        return "It wants the whole network, decoder included."
    if size > limit:
        return f"The adapter has {size / limit:.1f} times the weights that it may have."
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
    if abs(answer - gap) < 0.006 or answer == round(gap, 1):
        return "Close. It wants three decimals."
    return "Take the mIoU column: the row of the home region minus the row of the away region."
