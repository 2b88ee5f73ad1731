"""Checks of the exercises of lesson 04."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from geopeft_nb.classroom.check import Finding, ask_number, exercise

if TYPE_CHECKING:
    from torch import Tensor

    from geopeft_nb.models import SegmentationModel

IN, OUT, RANK, ALPHA = 12, 20, 4, 10  # of the layer that a learner's class is tried on


@exercise("04/directions", "a number of directions, a whole number", (Real, torch.Tensor))
def directions(answer: float | Tensor, values: Tensor) -> Finding:
    """Compare with the number of singular values that carry 90 % of the squares."""
    if isinstance(answer, torch.Tensor):
        if answer.numel() != 1:
            return f"One number is wanted, and this tensor has {answer.numel()}."
        answer = answer.item()

    def count(strength: Tensor, share: float = 0.9) -> int:
        return int((strength.cumsum(0) / strength.sum() < share).sum()) + 1

    right = count(values.square())
    if answer == right:
        return ""
    if 0 < answer < 1:
        return "That is a share. How many directions are it?"
    if answer == right - 1:
        return "One too few: with these the share is still below 90 %."
    if answer == count(values):
        return "That adds up the singular values. Square them first."
    if answer == count(values.square().flip(0)):
        return "Add the squares up from the strongest."
    return (
        f"There are {len(values)} directions. At which does the running sum of squares reach 90 %?"
    )


@exercise("04/lora_layer", "a class LoRALayer(base, r, alpha)")
def lora_layer(answer: Any) -> Finding:  # noqa: ANN401 - whatever the learner wrote
    """Try the class on a small layer: at the start, with other A and B, backwards, and merged."""
    if not isinstance(answer, type) or not issubclass(answer, nn.Module):
        return "It wants the class itself, and the class has to be an nn.Module."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = nn.Linear(IN, OUT)
        weight, bias = (part.detach().clone() for part in base.parameters())
        x = torch.randn(2, 5, IN)
        try:
            layer = answer(base, r=RANK, alpha=ALPHA)
            for look in (_parts, _start, _trained, _scaled, _merged):
                if finding := look(layer, x, weight, bias):
                    return finding
        except Exception as error:  # whatever the learner's code raises is the finding
            return f"Tried on nn.Linear({IN}, {OUT}), it raised {type(error).__name__}: {error}."
    return ""


def _parts(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:  # noqa: ANN401
    """A and B are parameters of the right shape."""
    for name, shape in (("A", (RANK, IN)), ("B", (OUT, RANK))):
        matrix = getattr(layer, name, None)
        if not isinstance(matrix, nn.Parameter):
            kind = "missing" if matrix is None else f"of type {type(matrix).__name__}"
            return f"self.{name} has to be an nn.Parameter, so that it is trained; it is {kind}."
        if tuple(matrix.shape) != shape:
            return (
                f"For a layer from {IN} to {OUT} and r = {RANK}, {name} has to be {shape}, and it "
                f"is {tuple(matrix.shape)}."
            )
    return ""


def _start(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:  # noqa: ANN401
    """At first nothing changes, and still A is not zero."""
    right, output = functional.linear(x, weight, bias), layer(x)
    if not isinstance(output, torch.Tensor) or output.shape != right.shape:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        return f"From x of shape {tuple(x.shape)} comes {shape}; it should be {tuple(right.shape)}."
    if not torch.allclose(output, right, atol=1e-6):
        if bool(layer.B.any()):
            return (
                "Before training the output has to be that of the base layer. How should B begin?"
            )
        if torch.allclose(output, right - bias, atol=1e-6):
            return "The bias of the base layer got lost."
        return "Before training, with B at zero, the output has to be that of the base layer."
    if not bool(layer.A.any()):
        return "A and B are both zero: then neither ever gets a gradient. Let A begin random."
    return ""


def _trained(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:  # noqa: ANN401
    """Only A and B are trained, and both get a gradient."""
    trained = {id(part) for part in layer.parameters() if part.requires_grad}
    if trained - {id(layer.A), id(layer.B)}:
        return "More than A and B would be trained. What should the base layer be?"
    if len(trained) < 2:
        return "A and B have to be trained both, and one of them is frozen."
    if sum(part.numel() for part in layer.parameters()) < weight.numel():
        return (
            "Keep the base layer as a part of the module, self.base = …, so that it is saved too."
        )
    return ""


def _scaled(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:  # noqa: ANN401
    """With random A and B the output is W x + b + alpha / r * B A x, and gradients reach both."""
    with torch.no_grad():
        layer.A.normal_()
        layer.B.normal_()
    output = layer(x)
    plain, detour = functional.linear(x, weight, bias), x @ layer.A.T @ layer.B.T

    def is_close(scale: float, base: Tensor = plain) -> bool:
        return torch.allclose(output, base + scale * detour, rtol=1e-4, atol=1e-4)

    if is_close(1):
        return "The detour is not scaled. Where do alpha and r come in?"
    if is_close(RANK / ALPHA):
        return "The scale is turned round: it is alpha over r."
    if is_close(ALPHA):
        return "The detour is scaled by alpha alone. What is it divided by?"
    if is_close(ALPHA // RANK):
        return "alpha / r was rounded to a whole number. Divide with /, not with //."
    if is_close(ALPHA / math.sqrt(RANK)):
        return "That divides by the root of r. There is such a variant (rsLoRA); here it is r."
    if is_close(ALPHA / RANK, torch.zeros_like(plain)):
        return "Only the detour comes out. The base layer's output belongs beside it."
    if is_close(0):
        return "A and B change nothing. Does forward use them, and not a copy from the start?"
    if not is_close(ALPHA / RANK):
        return (
            "With random A and B the output is not W x + b + alpha / r * B A x. Check each factor."
        )
    output.sum().backward()
    if layer.A.grad is None or layer.B.grad is None:
        return "No gradient reaches A or B. Is there a .data, .detach() or no_grad in the way?"
    return ""


def _merged(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:  # noqa: ANN401
    """The merged weight does the work of both, and taking it changes nothing."""
    if not callable(getattr(layer, "merged_weight", None)):
        return "The layer computes the right thing. It still lacks merged_weight(self)."
    with torch.no_grad():
        before = layer(x)
        merged = layer.merged_weight()
        if not isinstance(merged, torch.Tensor) or tuple(merged.shape) != (OUT, IN):
            shape = (
                tuple(merged.shape) if isinstance(merged, torch.Tensor) else type(merged).__name__
            )
            return f"merged_weight gives {shape}; W is (out, in) = {(OUT, IN)}, and so is the sum."
        if not torch.allclose(layer(x), before, atol=1e-5):
            return "After merged_weight() the layer computes something else. Return a new matrix."
        if torch.allclose(merged, weight + layer.B @ layer.A, atol=1e-4):
            return "merged_weight leaves out the scale."
        if torch.allclose(merged, ALPHA / RANK * layer.B @ layer.A, rtol=1e-4, atol=1e-4):
            return "That is the change alone. Add it to the base layer's weight."
        if not torch.allclose(functional.linear(x, merged, bias), before, rtol=1e-4, atol=1e-4):
            return "A linear layer with the merged weight does not give what your layer gives."
    return ""


@exercise("04/count_lora", "a function of width, depth and r", Callable)
def count_lora(answer: Callable) -> Finding:
    """Ask the function for small and large transformers."""
    for width, depth, r in ((10, 1, 1), (192, 6, 4), (768, 12, 16), (1024, 24, 8)):
        words = f"For width {width}, depth {depth} and r {r}"
        count = ask_number(words, answer, width, depth, r)
        unit = depth * r * width  # of each width that a matrix touches: queries and values 2 + 2
        slips = {
            14 * r * width: "it counts one block. There are `depth` of them.",
            14 * unit + 2 * unit: "it adapts keys as well. The paper leaves them alone.",
            12 * unit: "it adapts one of queries and values. Count both.",
            9 * unit: "it counts either fc1 or fc2. Both are adapted.",
            4 * unit: "it leaves out the feed-forward layers fc1 and fc2.",
            10 * unit: "it leaves out queries and values.",
            8 * unit: "fc1 and fc2 are counted as if they were width x width.",
            7 * unit: "it counts only one matrix, or each pair once. A and B both learn.",
            depth * width * width * 10: "it counts whole layers. A and B are thin.",
        }
        if count != 14 * unit:
            hint = "count d_in and d_out of each of the four places, times r."
            return f"{words} it gives {count:g}: {slips.get(round(float(count)), hint)}"
    return ""


@exercise("04/less_memory", "a network with LoRA attached")
def less_memory(
    answer: SegmentationModel, kept: Callable[[SegmentationModel], int], limit: float
) -> Finding:
    """Measure the activations of a step, and look where the adapters are."""
    if not hasattr(answer, "named_parameters"):
        return f"It wants the network itself, and this is of type {type(answer).__name__}."
    trained = [name for name, weight in answer.named_parameters() if weight.requires_grad]
    if any(".lora_" not in name and not name.startswith("decoder.") for name in trained):
        return "Pretrained weights train here. LoRA leaves them frozen."
    blocks = {
        name.split(".blocks.")[1].split(".")[0]
        for name in trained
        if ".lora_" in name and ".blocks." in name
    }
    if not blocks:
        return "There is no LoRA in the blocks of this network. Which call attaches one?"
    if len(blocks) < 2:
        return f"It adapts block {', '.join(blocks)} alone. Another option says how many blocks."
    share = kept(answer) / limit / 2
    if share >= 0.5:
        return (
            f"A step keeps {share:.0%} of the preset's activations. Rank changes little: through "
            "how many blocks does the error have to travel back?"
        )
    return ""
