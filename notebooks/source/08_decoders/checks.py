"""Checks of the exercises of lesson 08."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn import functional

from geopeft_nb.classroom.check import Finding, Slip, ask, exercise, slip_of

if TYPE_CHECKING:
    from geopeft_nb.memory.plan import MemoryPlan
    from geopeft_nb.models import SegmentationModel


@exercise("08/linear_weights", "a number of weights", Real)
def linear_weights(answer: float, network: SegmentationModel) -> Finding:
    """Compare with the decoder of a network, and recognise what was left out."""
    right = sum(weight.numel() for weight in network.decoder.parameters())
    classes, width = len(network.classes), network.backbone.channels[-1]
    side = network.plain_backbone.patch_size
    if answer == right:
        return ""
    slips = {
        right - classes: "That is without the biases.",
        4 * right: "Those are bytes.",
        width * side * side + classes: "Each class needs scores of its own.",
        width * side * side: "Each class needs scores of its own, and a bias.",
        width * side * classes + classes: "A patch has rows and columns.",
        width * side * classes: "A patch has rows and columns, and classes have biases.",
        width * classes + classes: "That is one score for the whole patch. It wants one per pixel.",
        width * classes: "That is one score for the whole patch. It wants one per pixel.",
        (width + 1) * side * side * classes: "The bias is one for each class, not for each pixel.",
    }
    if answer in slips:
        return slips[answer]
    if answer > right and answer % right == 0:
        return "The same decoder serves all tokens: count it once."
    return "Multiply: numbers of a token, pixels of a patch, classes. Then the biases."


@exercise("08/paint", "a function of scores and the side of a patch", Callable)
def paint(answer: Callable) -> Finding:
    """Lay out scores of which each says where it belongs, on a grid that is not square."""
    for side, classes, rows, columns in ((2, 1, 2, 3), (3, 2, 2, 4)):
        shape = (2, classes * side * side, rows, columns)
        scores = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
        words = f"For scores {shape} and patches of {side} x {side},"
        found = ask(words, answer, scores.clone().requires_grad_(), side)
        right = functional.pixel_shuffle(scores, side)
        if not isinstance(found, Tensor):
            return f"{words} it returned {type(found).__name__}, and a tensor is wanted."
        if found.shape != right.shape:
            return f"{words} the shape is {(*found.shape,)}, and should be {(*right.shape,)}."
        if not found.requires_grad:
            return f"{words} no gradient comes back through it, and what is before cannot learn."
        found = found.detach()
        if sorted(found.flatten().tolist()) != scores.flatten().tolist():
            return f"{words} the numbers are no longer those of the scores. Only move them."
        parts = scores.reshape(2, classes, side, side, rows, columns)
        turned = scores.reshape(2, side, side, classes, rows, columns).movedim(3, 1)
        slips = {
            "": right,
            "each patch is mirrored along its diagonal: rows i, columns j.": (
                parts.permute(0, 1, 4, 3, 5, 2)
            ),
            "i comes before the token's row: the token first.": parts.permute(0, 1, 2, 4, 3, 5),
            "classes are mixed: k is the slowest part of a channel's number.": (
                turned.permute(0, 1, 4, 2, 5, 3)
            ),
            "numbers are poured into the new shape in the order of memory, so that pixels leave "
            "their patch. Which axes have to stand side by side first?": scores,
        }
        slips = {slip: made.reshape(right.shape) for slip, made in slips.items()}
        if off := slip_of(found, slips, "some scores are not at the pixel that they belong to."):
            return f"{words} {off}"
    return ""


@exercise("08/join", "a function of a coarse and a fine map", Callable)
def join(answer: Callable) -> Finding:
    """Join maps of even and of odd sides."""
    generator = torch.Generator().manual_seed(0)
    for (h, w), (rows, columns) in (((2, 3), (4, 6)), ((3, 2), (5, 7))):
        coarse = torch.randn(2, 3, h, w, generator=generator)
        fine = torch.randn(2, 5, rows, columns, generator=generator)
        words = f"For maps of {h} x {w} and {rows} x {columns}"
        hint = " Which sides and dimension does it want?"
        given = [each.requires_grad_() for each in (coarse, fine)]
        try:
            found = ask(words, answer, *(each.clone() for each in given))
        except Slip as slip:
            hint = " Is every side twice?" if rows == 5 else hint
            hint = " Stack them; do not add." if "non-singleton" in str(slip) else hint
            raise Slip(f"{slip}{hint * (' it raised RuntimeError' in str(slip))}") from slip
        if off := _not_joined(found, coarse, fine):
            return f"{words} {off}"
        if not found.requires_grad or None in grad(found.sum(), given, allow_unused=True):
            return f"{words} no gradient comes back to both maps, and what is before cannot learn."
    return ""


def _not_joined(found: object, coarse: Tensor, fine: Tensor) -> Finding:
    """Say what is off with a join of two maps."""
    if not isinstance(found, Tensor):
        return f"it returned {type(found).__name__}, and a map is wanted."
    size = fine.shape[-2:]
    shape = (len(fine), coarse.shape[1] + fine.shape[1], *size)
    if found.shape[1:2] == fine.shape[1:2]:
        return "it has as many features as the fine map alone. Join them, do not add."
    if found.shape != shape:
        return f"the shape is {(*found.shape,)}, and should be {shape}."
    nearest = functional.interpolate(coarse, size=size)
    exact = functional.interpolate(coarse, size=size, mode="nearest-exact")
    if any(torch.allclose(found, torch.cat([grown, fine], dim=1)) for grown in (nearest, exact)):
        return ""
    if torch.allclose(found, torch.cat([fine, nearest], dim=1)):
        return "the fine map stands first. The order matters to the weights that come behind."
    if torch.allclose(found[:, 3:], fine):
        return "the coarse map was not enlarged by nearest neighbour."
    return "the fine map does not come through unchanged."


@exercise("08/lora_fcn", "a number of bytes", Real)
def lora_fcn(
    answer: float,
    network: SegmentationModel,
    batch_size: int,
    lora_linear: MemoryPlan,
    full_linear: MemoryPlan,
    full_fcn: MemoryPlan,
) -> Finding:
    """Compare with the plan of the network; a hundredth is close enough."""
    from geopeft_nb.memory.plan import memory_plan

    right = memory_plan(network, batch_size).total
    if any(abs(answer * unit / right - 1) < 0.02 for unit in (1e6, 2**20, 1e9, 2**30)):
        return "The size is right. It wants bytes."
    linear, full, fcn = lora_linear.total, full_linear.total, full_fcn.total
    slips = {
        "": right,
        "That takes the same *share* off. Does LoRA reach what the decoder keeps?": (
            fcn * linear / full
        ),
        "That is full fine-tuning. LoRA saves something under any decoder.": fcn,
        "That is the linear decoder's step. An FCN keeps more.": linear,
        "That is what LoRA saves. What is left?": full - linear,
        "Which way does the saving go?": fcn + full - linear,
        "That counts the backbone twice.": linear + fcn,
    }
    otherwise = "How many bytes does LoRA save with the linear decoder, and where do they lie?"
    return slip_of(answer, slips, otherwise, near=0.01)


@exercise("08/thin", "a function of a mask, a class and a width", Callable)
def thin(answer: Callable) -> Finding:
    """Try a mask with a creek, a lake, a dike and a gap without label, at two widths."""
    mask = torch.zeros(24, 24, dtype=torch.int64)
    mask[3:12, 3:12] = 1  # a lake of 9 pixels
    mask[16:19, 2:22] = 1  # a creek of 3 pixels
    mask[3:12, 15:17] = 1  # a half of a lake of 9 pixels, whose rest has no label
    mask[3:12, 17:24] = -1
    mask[14, 12] = -1
    mask[12:16, 6:9] = 1  # the creek comes from the lake
    mask[19:] = 2  # other ground on one of its banks
    creek = torch.zeros(24, 24, dtype=torch.bool)
    creek[16:19, 2:22] = creek[12:16, 6:9] = True
    cases = [("at width 5", 5, creek), ("at width 3", 3, torch.zeros_like(creek))]
    for words, n, right in cases:
        found = ask(words, answer, mask.clone(), 1, n)
        if not isinstance(found, Tensor):
            return f"{words} it returned {type(found).__name__}, and a tensor is wanted."
        kind, shape = found.dtype, (*found.shape,)
        if kind != torch.bool or shape != mask.shape:
            return f"{words} it returned {kind} {shape}; torch.bool {(*mask.shape,)} is wanted."
        if off := _not_thin(found, right, mask):
            return f"{words} {off}"
    swapped = torch.where((mask == 0) | (mask == 1), 1 - mask, mask)
    if not torch.equal(ask("For class 0", answer, swapped, 0, 5), creek):
        return "it works for class 1 only. Compare the mask with `number`."
    return ""


def _not_thin(found: Tensor, right: Tensor, mask: Tensor) -> Finding:
    """Say what is off with a map of thin pixels of class 1."""
    if torch.equal(found, right):
        return ""
    lake, water, unknown = torch.zeros_like(found), mask == 1, mask < 0
    lake[3:12, 3:12] = True
    if (found & unknown).any():
        return "pixels without a label are called thin. They are of no class."
    if (found & ~water).any():
        return "pixels of another class are called thin."
    if torch.equal(found, water & ~right):
        return "that is what is wide."
    if (found & lake).any() and not found[7, 7]:
        return "the shore of a lake is called thin. What shrank has to grow again."
    if (found & lake).any():
        return "a lake of 9 x 9 pixels is called thin."
    if found[3:12, 15:17].any():
        return "water beside a gap without labels is called thin. The gap may be water."
    if right[12].any() and found[16, 21] and not found[12, 7]:
        return "a creek is wide where it leaves the lake. Grow as far as it shrank, no further."
    if (right & ~found).any():
        return "a creek of 3 pixels, with class 0 and class 2 on its banks, is not called thin."
    return "a creek of 3 pixels holds squares of 3 x 3, so it is not thin."


@exercise("08/slim", "a network with a method attached")
def slim(answer: Any, limit: int, batch_size: int, method: str) -> Finding:
    """Look at the maps that are read, at the method and at the plan."""
    from geopeft_nb.decoders.load import CARDS
    from geopeft_nb.memory.plan import memory_plan
    from geopeft_nb.models import SegmentationModel

    if not isinstance(answer, SegmentationModel):
        return f"It wants the network itself, and this is of type {type(answer).__name__}."
    if CARDS[answer.decoder_name].maps != 4:
        return f"{answer.decoder_name} reads the deepest map alone."
    if answer.method != method:
        return f"The attached method is {answer.method}, and should be {method}."
    if not all(weight.requires_grad for weight in answer.decoder.parameters()):
        return "The decoder is frozen: it starts from random numbers, so it has to learn."
    kept = memory_plan(answer, batch_size).total
    if kept > limit:
        return f"A step keeps {kept / limit:.2f} times what is allowed. What makes a decoder wide?"
    return ""
