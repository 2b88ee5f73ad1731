"""Checks of the exercises of lesson 04."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from geopeft_nb.classroom.check import Finding, ask, ask_number, exercise, slip_of
from geopeft_nb.models import SegmentationModel, part_of

if TYPE_CHECKING:
    from torch import Tensor

IN, OUT, RANK, ALPHA = 12, 20, 5, 17  # of the layer that a learner's class is tried on


@exercise("04/directions", "a function of singular values and a share", Callable)
def directions(answer: Callable) -> Finding:
    """Ask for random strengths, for squares that fall slowly, and for another share."""
    draw = torch.Generator().manual_seed(0)
    slow = torch.linspace(2, 1, 60)
    steep = torch.rand(40, generator=draw).mul(5).exp().sort(descending=True).values
    for values, share in ((slow, 0.9), (steep, 0.9), (slow, 0.5), (torch.ones(4), 0.5)):
        words = f"For {len(values)} values and a share of {share:g}"
        found = ask_number(words, answer, values.clone(), share)
        squares = values.square()
        right = _carrying(squares, share)
        slips = {
            "": right,
            "it gives one too few: with these the share is still below.": right - 1,
            "it gives one too many.": right + 1,
            "it adds up the singular values. Square them first.": _carrying(values, share),
            "it adds up from the weakest. Begin with the strongest.": (
                _carrying(squares.flip(0), share)
            ),
            "it counts for 90 %. Use `share`.": _carrying(squares, 0.9),
            "it stops too soon. Is it the *running* sum, divided by the whole sum?": (
                int((squares.cumsum(0) < share).sum()) + 1
            ),
            "it squares the running sum. Square each value before you add up.": (
                int((values.cumsum(0) / values.sum() < share**0.5).sum()) + 1
            ),
        }
        otherwise = f"it gives {found:g}. At which does the running sum reach the share?"
        if off := slip_of(found, slips, otherwise):
            return f"{words} {off}"
    return ""


def _carrying(strength: Tensor, share: float) -> int:
    return int((strength.cumsum(0) / strength.sum() < share).sum()) + 1


@exercise("04/first_step", "True or False for each of A and B", dict)
def first_step(answer: dict) -> Finding:
    """Compare with what autograd gives a small layer, whose A is random and whose B is zero."""
    answer = {name: x.item() if hasattr(x, "item") else x for name, x in answer.items()}
    if {*answer} != {"A", "B"} or any(not isinstance(value, bool) for value in answer.values()):
        return "It wants True or False for each of A and B."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        A, B = torch.randn(RANK, IN, requires_grad=True), torch.zeros(OUT, RANK, requires_grad=True)
        functional.linear(functional.linear(torch.randn(3, IN), A), B).sum().backward()
    right = {"A": bool(A.grad.any()), "B": bool(B.grad.any())}  # type: ignore[union-attr]
    if answer == right:
        return ""
    if answer == {"A": True, "B": True}:
        return "One of the two is multiplied by zeros on the way back."
    if answer == {"A": False, "B": False}:
        return "Then nothing would ever be learnt. B is zero, but what is its gradient made of?"
    return "Turned round: through which of the two does the error pass to reach the other?"


@exercise("04/same_scale", "a function of the rank that returns options", Callable)
def same_scale(answer: Callable) -> Finding:
    """Look at alpha over r for several ranks."""
    for r in (3, 1, 16, 64):
        options = ask(f"For rank {r}", answer, r)
        if not isinstance(options, dict) or {*options} != {"r", "lora_alpha"}:
            return f"For rank {r} it should return a dictionary of r and lora_alpha."
        if options["r"] != r:
            return f"For rank {r} it asks for rank {options['r']}. The rank stays; what follows it?"
        alpha = ask_number(f"For rank {r}, lora_alpha:", options.get, "lora_alpha")
        slips = {
            r: "the scale is 1.",
            2: "that is the scale itself. Alpha is what is divided by r.",
            2 / r: "it is divided by r once more.",
            r / 2: "the scale is one half.",
            r * r: "the scale grows with the rank.",
            2 * math.sqrt(r): "that fits a scale of alpha over the root of r.",
        }
        if not math.isclose(alpha, 2 * r):
            return f"For rank {r} {slips.get(alpha, f'the scale is {alpha / r:g}.')}"
    return ""


@exercise("04/lora_layer", "a class LoRALayer(base, r, alpha)")
def lora_layer(answer: Any) -> Finding:
    """Try the class on a small layer: at the start, with other A and B, backwards, and merged."""
    if not isinstance(answer, type) or not issubclass(answer, nn.Module):
        return "It wants the class itself, and the class has to be an nn.Module."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base = nn.Linear(IN, OUT)
        weight, bias = (part.detach().clone() for part in base.parameters())
        x = torch.randn(2, 5, IN)
        words = f"Tried on nn.Linear({IN}, {OUT}),"
        layer = ask(words, partial(answer, r=RANK, alpha=ALPHA), base)
        for look in (_parts, _start, _trained, _scaled, _merged):
            if finding := ask(words, look, layer, x, weight, bias):
                return finding
    return ""


def _parts(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:
    """A and B are parameters of the right shape."""
    for name, shape in (("A", (RANK, IN)), ("B", (OUT, RANK))):
        matrix = getattr(layer, name, None)
        if not isinstance(matrix, nn.Parameter):
            kind = "missing" if matrix is None else f"of type {type(matrix).__name__}"
            return f"self.{name} has to be an nn.Parameter, so that it is trained; it is {kind}."
        if _shape(matrix) != shape:
            made = f"For a layer from {IN} to {OUT} and r = {RANK},"
            return f"{made} {name} has to be {shape}, and it is {_shape(matrix)}."
    return ""


def _shape(found: Any) -> tuple[int, ...] | str:
    return tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__


def _start(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:
    """At first nothing changes, and still A is random."""
    right, output = functional.linear(x, weight, bias), layer(x)
    if _shape(output) != _shape(right):
        return f"From x of shape {_shape(x)} comes {_shape(output)}; it should be {_shape(right)}."
    if not torch.allclose(output, right, atol=1e-6):
        if bool(layer.B.any()):
            return "Before training the output is to be that of the base layer. How does B begin?"
        if torch.allclose(output, right - bias, atol=1e-6):
            return "The bias of the base layer got lost."
        return "Before training, with B at zero, the output has to be that of the base layer."
    if torch.equal(layer.A, layer.A[:1].expand(RANK, IN)):
        return "All rows of A are alike. As in the paper, let A begin random, and B at zero."
    return ""


def _trained(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:
    """Only A and B are trained, and both get a gradient."""
    trained = {id(part) for part in layer.parameters() if part.requires_grad}
    if trained - {id(layer.A), id(layer.B)}:
        return "More than A and B would be trained. What should the base layer be?"
    if len(trained) < 2:
        return "A and B have to be trained both, and one of them is frozen."
    if sum(part.numel() for part in layer.state_dict().values()) < weight.numel():
        return "Keep the base layer as a part of the module, self.base = …, to have it saved too."
    return ""


def _scaled(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:
    """With random A and B the output is W x + b + alpha / r * B A x, and gradients reach both."""
    with torch.no_grad():
        layer.A.normal_()
        layer.B.normal_()
        plain, detour = functional.linear(x, weight, bias), x @ layer.A.T @ layer.B.T
    output = layer(x := x.clone().requires_grad_())
    slips = {
        "": plain + ALPHA / RANK * detour,
        "The detour is not scaled. Where do alpha and r come in?": plain + detour,
        "The scale is turned round: it is alpha over r.": plain + RANK / ALPHA * detour,
        "The detour is scaled by alpha alone. What is it divided by?": plain + ALPHA * detour,
        "alpha / r was rounded to a whole number. Divide with /, not with //.": (
            plain + ALPHA // RANK * detour
        ),
        "That divides by the root of r. There is such a variant (rsLoRA); here it is r.": (
            plain + ALPHA / math.sqrt(RANK) * detour
        ),
        "Only the detour comes out. The base layer's output belongs beside it.": (
            ALPHA / RANK * detour
        ),
        "A and B change nothing. Does forward use them, and not a copy from the start?": plain,
    }
    otherwise = (
        "With random A and B the output is not W x + b + alpha / r * B A x. Check each factor."
    )
    if off := slip_of(output.detach(), slips, otherwise, near=1e-4):
        return off
    if output.requires_grad:
        output.sum().backward()
    if layer.A.grad is None or layer.B.grad is None:
        return "No gradient reaches A or B. Is there a .data, .detach() or no_grad in the way?"
    through = weight + ALPHA / RANK * layer.B @ layer.A
    if x.grad is None or not torch.allclose(x.grad, through.sum(0).expand_as(x), atol=1e-4):
        return "The output is right, but the error has to travel on to x, through W and the detour."
    return ""


def _merged(layer: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Finding:
    """The merged weight does the work of both, and taking it changes nothing."""
    if not callable(getattr(layer, "merged_weight", None)):
        return "The layer computes the right thing. It still lacks merged_weight(self)."
    with torch.no_grad():
        before = layer(x)
        merged = layer.merged_weight()
        if _shape(merged) != (OUT, IN):
            return f"merged_weight gives {_shape(merged)}; W and the sum are (out, in), {OUT, IN}."
        if not torch.allclose(layer(x), before, atol=1e-5):
            return "After merged_weight() the layer computes something else. Return a new matrix."
        change = layer.B @ layer.A
        slips = {
            "": weight + ALPHA / RANK * change,
            "merged_weight leaves out the scale.": weight + change,
            "That is the change alone. Add it to the base layer's weight.": ALPHA / RANK * change,
        }
        otherwise = "A linear layer with the merged weight does not give what your layer gives."
        return slip_of(merged, slips, otherwise, near=1e-4)


@exercise("04/count_lora", "a function of shapes and r", Callable)
def count_lora(answer: Callable) -> Finding:
    """Ask the function for layers of many shapes."""
    block = [(192, 192), (192, 192), (192, 768), (768, 192)]
    for shapes, r in (([(7, 11)], 5), ([(7, 11), (5, 23)], 2), (6 * block, 4), ([(192, 576)], 16)):
        words = f"For {shapes[0]}{' and others' if len(shapes) > 1 else ''}, and r {r},"
        count = ask_number(words, answer, list(shapes), r)
        into, out = sum(i for i, _ in shapes), sum(o for _, o in shapes)
        slips = {
            into + out: "r is missing.",
            r * into: "it counts A alone.",
            r * out: "it counts B alone.",
            2 * r * into: "B is counted as if the layer were square.",
            2 * r * out: "A is counted as if the layer were square.",
            sum(i * o for i, o in shapes): "it counts whole layers. A and B are thin.",
            r * sum(i * o for i, o in shapes): "it counts r whole layers.",
            r * sum(shapes[0]): "it counts the first layer only.",
            r * sum(shapes[-1]): "it counts the last layer only.",
            sum(i * o for i, o in shapes) + r * (into + out): "W is frozen: leave it out.",
        }
        if count != r * (into + out):
            hint = "count d_in and d_out of each layer, times r."
            return f"{words} it gives {count:g}: {slips.get(round(float(count)), hint)}"
    return ""


@exercise("04/less_memory", "a network with LoRA attached", SegmentationModel)
def less_memory(
    answer: SegmentationModel, kept: Callable[[SegmentationModel], int], limit: float
) -> Finding:
    """Measure the activations of a step, and look where the adapters are."""
    trained = [name for name, weight in answer.named_parameters() if weight.requires_grad]
    if any(part_of(name) == "backbone" for name in trained):
        return "Pretrained weights train here. LoRA leaves them frozen."
    adapted = (re.search(r"\.blocks\.(\d+)\..*\.lora_", name) for name in trained)
    blocks = {found[1] for found in adapted if found}
    if not blocks:
        return "No LoRA trains in the blocks of this network. Which call attaches one?"
    if len(blocks) < 2:
        alone = f"It adapts block {', '.join(blocks)} alone, and at least two are wanted."
        return f"{alone} Which option says how many blocks?"
    if not all(weight.requires_grad for weight in answer.decoder.parameters()):
        return "The decoder is frozen: it starts from random numbers, so it has to learn."
    share = kept(answer) / limit / 2
    if share >= 0.5:
        return (
            f"A step keeps {share:.0%} of the preset's activations. Rank changes little: through "
            "how many blocks does the error have to travel back?"
        )
    return ""
