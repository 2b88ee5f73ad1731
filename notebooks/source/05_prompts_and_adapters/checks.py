"""Checks of the exercises of lesson 05."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn import functional

from geopeft_nb.backbones.vit import PreNormBlock
from geopeft_nb.classroom.check import Finding, Slip, ask, exercise, slip_of

if TYPE_CHECKING:
    from geopeft_nb.models import SegmentationModel


@exercise("05/prompted_block", "a class that is made from a block and prompts", (type,))
def prompted_block(answer: Callable[..., nn.Module], block: nn.Module) -> Finding:
    """Compare with the block on tokens and prompts, and look at what learns."""
    width = next(block.parameters()).shape[-1]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 5, width, generator=generator).requires_grad_()
    prompts = torch.randn(1, 4, width, generator=generator)
    given = copy.deepcopy(block).requires_grad_(True).eval()
    try:
        module = ask("Made from a block and prompts,", answer, given, prompts.clone())
        result = _tokens(module, tokens)
    except Slip as slip:
        of_batch = "in dimension 1. Expected size 3 but got size 1 " in str(slip)
        return f"{slip}{' The prompts have a batch of one, the tokens of several.' * of_batch}"
    with torch.no_grad():
        both = copy.deepcopy(block).eval()(torch.cat([tokens, prompts.expand(3, -1, -1)], dim=1))
        alone = copy.deepcopy(block).eval()(tokens)
    if _near(result, alone):
        return "The result is what the block gives without prompts. Do they go through it?"
    if result.shape[1] != tokens.shape[1]:
        return (
            f"{tokens.shape[1]} tokens went in and {result.shape[1]} came out. Prompts help inside "
            "the block and leave after it."
        )
    if _near(result[:, :4], both[:, 5:]) or _near(result[:, 1:], both[:, 5:]):
        return "The count is right, but what is kept includes the prompts. Which are the image's?"
    if not _near(result, both[:, : tokens.shape[1]]):
        return "The result is not that of the block on tokens and prompts, side by side."
    hint = "nn.Parameter makes a tensor trainable"
    off = _only_trains(module, result, {"prompts": prompts.numel()}, hint)
    if not off and tokens.grad is None:
        return "No gradient comes back to the tokens: earlier blocks could not learn."
    return off


@exercise("05/deep", "a function of blocks, their prompts and tokens", Callable)
def deep(answer: Callable) -> Finding:
    """Compare with blocks that cut each one's prompts off, and with what the usual slips give."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [PreNormBlock(12, heads=2).eval() for _ in range(3)]
        tokens = torch.randn(2, 5, 12, generator=generator)
        prompts = [torch.randn(1, 4, 12, generator=generator).requires_grad_() for _ in blocks]

        def run(kept: slice, each: bool = True, own: int = 1) -> Tensor:
            """Run the blocks, and cut off in each or at the end; the same prompts if own is 0."""
            x = tokens
            for number, block in enumerate(blocks):
                beside = prompts[number * own].expand(2, -1, -1)
                x = block(torch.cat([x, beside], dim=1))
                x = x[:, kept] if each else x
            return x if each else x[:, kept]

        found = ask("With three blocks", answer, blocks, list(prompts), tokens.clone())
        if not isinstance(found, Tensor):
            return f"It returned {type(found).__name__}, and tokens are wanted."
        if found.shape[1:] != tokens.shape[1:]:
            return f"{len(tokens[0])} tokens went in and {len(found[0])} came out of three blocks."
        learn = found.requires_grad and None not in grad(found.sum(), prompts, allow_unused=True)
        slips = {
            "": run(slice(5)),
            "Prompts are cut off at the end only: later blocks saw those of earlier ones.": run(
                slice(5), each=False
            ),
            "What is kept after a block includes prompts. Which are the image's?": run(
                slice(4, None)
            ),
            "All blocks were given the same prompts.": run(slice(5), own=0),
            "No block was given any prompts.": nn.Sequential(*blocks)(tokens),
        }
        slips = {words: value.detach() for words, value in slips.items()}
    otherwise = "The result is not that of three blocks, each with its own prompts beside."
    off = slip_of(found.detach(), slips, otherwise, near=1e-4)
    return off or ("" if learn else "No gradient reaches all prompts: is it cut off on the way?")


@exercise("05/neutral", "a dictionary of method and True or False", dict)
def neutral(answer: dict[str, bool], changes: dict[str, float]) -> Finding:
    """Compare with how far each method moved the last map before any training."""
    why = {
        "lora": "Its matrix B is zero, and so is the product of B and A.",
        "adapter": "Its way up gives zero, and what the layer gives is added.",
        "vpt": "A random token is attended to like any other.",
        "vit_adapter": "Its maps are made by layers of its own. What have those learnt?",
    }
    for name, words in why.items():
        said = answer.get(name)
        said = said.item() if hasattr(said, "item") else said
        if not isinstance(said, bool):
            return f"For {name!r} it says {said!r}. True or False is wanted."
        if said != (changes[name] < 1e-4):
            return f"{name}: think again. {words}"
    return ""


@exercise("05/lean", "a network with a method attached")
def lean(answer: object, lora: SegmentationModel, batch_size: int) -> Finding:
    """Count what is trained in the backbone, and plan a step."""
    from geopeft_nb.memory.plan import memory_plan
    from geopeft_nb.models import SegmentationModel
    from geopeft_nb.tuning.methods import parameter_table

    if not isinstance(answer, SegmentationModel):
        return f"It wants the network itself, and this is of type {type(answer).__name__}."
    weights, limit = (
        int(parameter_table(each).drop("total").drop("decoder", errors="ignore")["trainable"].sum())
        for each in (answer, lora)
    )
    if not weights:
        return f"With {answer.method} nothing in the backbone learns."
    if weights > limit / 10:
        return f"{weights / limit:.0%} of LoRA's weights are trained, and a tenth is the most."
    plan, most = (memory_plan(each, batch_size).total for each in (answer, lora))
    if plan > most:
        why = " What adds tokens?" * (answer.method == "vpt")
        return f"A step keeps {plan / most:.2f} times as much as LoRA's.{why}"
    return ""


@exercise("05/growth", "a function of tokens and prompts that returns two factors", Callable)
def growth(answer: Callable) -> Finding:
    """Ask the function for small and large images."""
    for tokens, prompts in ((64, 100), (1024, 100), (256, 10), (50, 0)):
        words = f"For {tokens} tokens and {prompts} prompts"
        found = ask(words, answer, tokens, prompts)
        try:
            pair = first, _ = [float(value) for value in found]
        except (TypeError, ValueError):
            return f"{words} it returned {found!r:.80}. Two factors are wanted."
        share, factor = prompts / tokens, (tokens + prompts) / tokens
        slips = {
            "": (factor, factor**2),
            "the factors stand in the other order: tokens first, then pairs.": (factor**2, factor),
            "pairs grow like tokens. But the prompts look around, too.": (factor, factor),
            "the pairs between prompts and tokens are missing.": (factor, 1 + share**2),
        }
        of_tokens = {
            "it counts them. A factor says how many times as many.": tokens + prompts,
            "it gives what is added, as a share. The tokens themselves stay too.": share,
            "the factor on pairs is off. How many are there, and how many were there?": factor,
        }
        off = "the factor on tokens is off. How many are there, and how many were there?"
        if off := slip_of(pair, slips, slip_of(first, of_tokens, off)):
            return f"{words} {off}"
    return ""


@exercise(
    "05/bottleneck", "a class that is made from a layer, its width and the bottleneck", (type,)
)
def bottleneck(answer: Callable[..., nn.Module], layer: nn.Module) -> Finding:
    """Look at the start, the count, what learns, and the bend."""
    width, small = next(layer.parameters()).shape[-1], 7
    x = torch.randn(3, 5, width, generator=torch.Generator().manual_seed(0))
    given = copy.deepcopy(layer).requires_grad_(True).eval()
    module = ask(f"Made for a width of {width},", answer, given, width, small)
    result = _tokens(module, x)
    if result.shape != x.shape:
        return f"{(*x.shape,)} went in and {(*result.shape,)} came out. The shape should stay."
    with torch.no_grad():
        plain = copy.deepcopy(layer).eval()(x)
    if not bool(result.any()):
        return "All zeros come out: what the frozen layer gives is not added."
    if _near(result, plain + x):
        return "That adds what came in once more. The block does so already, outside of the layer."
    if _near(result, x):
        return "What comes in is added there, and not what the layer gives."
    if not _near(result, plain):
        return "At the start it should give what the layer gives. Which weights begin at zero?"
    wanted = 2 * width * small + small + width
    if off := _only_trains(module, result, {"two linear layers": wanted}, "mind the biases"):
        return off
    return _bends_behind(answer, width, small) or _adds_the_formula(answer, layer, width, small)


def _adds_the_formula(
    answer: Callable[..., nn.Module], layer: nn.Module, width: int, small: int
) -> Finding:
    """Compare with y + up(GELU(down(y))), all weights random, and with forms that come near."""
    generator = torch.Generator().manual_seed(2)
    given = copy.deepcopy(layer).eval()
    module = answer(given, width, small).eval()
    own = [part for part in module.modules() if isinstance(part, nn.Linear)]
    found = {
        (part.in_features, part.out_features): part for part in own if part.weight.requires_grad
    }
    if found.keys() != {(width, small), (small, width)}:
        return "Two layers nn.Linear are wanted, one from D to w and one from w to D."
    down, up = found[width, small], found[small, width]
    with torch.no_grad():
        for weight in (*down.parameters(), *up.parameters()):
            weight.copy_(torch.randn(weight.shape, generator=generator) / 3)
    x = torch.randn(3, 5, width, generator=generator).requires_grad_()
    y, bend, output = given(x), functional.gelu, module(x)
    (right,) = grad((y + up(bend(down(y)))).square().sum(), x)
    with torch.no_grad():
        y, result = y.detach(), output.detach()
        slips = {
            "": y + up(bend(down(y))),
            "The bend stands behind the way up. It belongs between the two layers.": (
                y + bend(up(down(y)))
            ),
            "The bend stands before the way down, and none between the two layers.": (
                y + up(down(bend(y)))
            ),
            "There is a second bend behind the way up.": y + bend(up(bend(down(y)))),
            "There is a second bend before the way down.": y + up(bend(down(bend(y)))),
            "What the frozen layer gives is counted twice.": 2 * y + up(bend(down(y))),
            "The adapter reads y with what came in added.": y + up(bend(down(y + x))),
            "The adapter reads y after a layer norm, which the formula does not have.": (
                y + up(bend(down(functional.layer_norm(y, y.shape[-1:]))))
            ),
            "What came in is added once more.": y + x + up(bend(down(y))),
        }
        for other in (functional.relu, functional.silu, torch.tanh, torch.sigmoid):
            words = f"The bend is {other.__name__}, and should be functional.gelu."
            slips[words] = y + up(other(down(y)))
    otherwise = (
        "With random weights it does not give y + up(gelu(down(y))). Go through the formula."
    )
    if off := slip_of(result, slips, otherwise, near=1e-4):
        return off
    (found,) = grad(output.square().sum(), x, allow_unused=True)
    if found is None or not _near(found, right):
        return "The error does not come back to what went in: is there a no_grad or a detach?"
    return ""


def _bends_behind(answer: Callable[..., nn.Module], width: int, small: int) -> Finding:
    """Say whether an adapter reads what the layer gives, and whether it has a nonlinearity."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 5, width, generator=generator)

    def added(layer: nn.Module) -> Callable[[Tensor], Tensor]:
        module = answer(layer, width, small).eval()
        with torch.no_grad():
            for weight in module.parameters():
                if weight.requires_grad:
                    weight.copy_(torch.randn(weight.shape, generator=generator))
        return lambda value: (module(value) - layer(value)).detach()

    silent = nn.Linear(width, width)  # gives zeros, whatever comes in
    nn.init.zeros_(silent.weight)
    nn.init.zeros_(silent.bias)
    behind = added(silent)
    if not _near(behind(x), behind(2 * x)):
        return "That reads what comes into the layer: it stands beside it. Here it stands behind."
    of = added(nn.Identity())
    if _near(of(2 * x) - of(0 * x), 2 * (of(x) - of(0 * x))):
        return "Without a nonlinearity between them, two linear layers are no more than one."
    return ""


def _only_trains(module: nn.Module, result: Tensor, wanted: dict[str, int], hint: str) -> Finding:
    """Say what is off with the trained weights, or with the gradient that reaches them."""
    ((what, count),) = wanted.items()
    found = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    total = sum(weight.numel() for weight in module.parameters())
    if not found:
        return f"Nothing is trained. The {what} should learn ({hint})."
    if found == total and found > count:
        return "Everything is trained. What was pretrained should stay frozen."
    if found != count:
        more = f": {hint}" * (found < count)
        return f"{found:,} weights are trained, and the {what} are {count:,}{more}."
    if result.requires_grad:
        result.square().sum().backward()
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    if not any(p.grad is not None and bool(p.grad.any()) for p in matrices):
        return f"No gradient reaches the {what}: is it cut off, or did both ways begin at zero?"
    return ""


def _tokens(module: nn.Module, given: Tensor) -> Tensor:
    """Call a module on tokens (B, N, D); the result may have another number of tokens."""
    shape = (*given.shape,)
    result = ask(f"With {shape}", module, given)
    if not isinstance(result, Tensor):
        raise Slip(f"It returned {type(result).__name__}, and tokens are wanted.")
    if result.ndim != 3 or result.shape[::2] != given.shape[::2]:
        raise Slip(f"{shape} went in and {(*result.shape,)} came out: (B, N, D) is wanted.")
    return result


def _near(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding in another order of the tokens."""
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-4 * b.abs().max())
