"""Frugal recipes: train the same model in less memory or time, each recipe alone or with others.

    with frugal.applied(model, ["late", "bf16", "checkpoint"]) as done:
        loss_of(model).backward()

A recipe changes how a model computes, in place, and leaving the `with` statement undoes it. `done`
says in a sentence each what was done to this model. The backward pass belongs inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from geopeft_nb.backbones.base import Transformer
from geopeft_nb.errors import GeopeftError, check_names
from geopeft_nb.memory.features import first_trained, why_not_split
from geopeft_nb.memory.lean import again, hold, saving_layers, why_not_hold
from geopeft_nb.memory.step import running_blocks
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.listing import Listing
from geopeft_nb.tuning.beside import CrossAttention


@contextmanager
def train_late(model: SegmentationModel) -> Iterator[str]:
    """Freeze what a method trains in and before the first three quarters of the blocks.

    A gradient travels from the loss down to the first weight that is trained, and everything on its
    way is kept. If nothing below the last quarter learns, nothing below is kept and nothing below
    is run backwards. Features of early blocks are the more general ones, so they suffer least from
    staying at the method's neutral start (or where earlier training left them). The decoder and the
    final norm are trained as ever.

    Source: Yosinski et al., How transferable are features in deep neural networks?, arXiv
    1411.1792.
    """
    late, plain = _late_blocks(model), model.plain_backbone
    stays = {id(p) for part in (*late, plain.norm) for p in part.parameters()}  # type: ignore[union-attr]
    trained = [p for p in model.backbone.parameters() if p.requires_grad]
    early = nn.ParameterList(p for p in trained if id(p) not in stays)
    try:
        early.requires_grad_(False)
        count = sum(parameter.numel() for parameter in early)
        yield f"trains the last {len(late)} blocks; {count:,} weights before them stay as they are"
    finally:
        early.requires_grad_(True)


def why_not_late(model: SegmentationModel) -> str:
    """Say why a model cannot be trained late; empty if it can."""
    if not isinstance(model.plain_backbone, Transformer):
        return "'late' trains the last quarter of a transformer's blocks, and here are none."
    if model.method in ("vpt", "vit_adapter"):
        return f"What {model.method} adds early starts at random values. Take 'lora'."
    if any(p.requires_grad for block in _late_blocks(model) for p in block.parameters()):
        return ""
    return f"{model.method} trains no blocks: 'late' would train the decoder alone. Take 'lora'."


def _late_blocks(model: SegmentationModel) -> list[nn.Module]:
    """Return the last quarter of the blocks, as of LoRA's preset ``"late"``."""
    blocks = running_blocks(model)
    return blocks[-max(1, len(blocks) // 4) :]


@contextmanager
def checkpoint_blocks(model: SegmentationModel) -> Iterator[str]:
    """Keep only the input of each block, and run the block again when the backward pass arrives.

    The memory of a whole network shrinks to that of one block and the inputs of the others. Dropout
    draws the same again; batch norms count a batch once: their momentum is 0 in the second run.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174.
    """
    # The blocks that gradients reach, of ViT-Adapter also the exchanges between them.
    parts: list[nn.Module] = [part for part in model.modules() if isinstance(part, CrossAttention)]
    if (first := first_trained(model)) is not None:
        parts += running_blocks(model)[first:]
    norms = {m: m.momentum for part in parts for m in part.modules() if isinstance(m, _BatchNorm)}

    def count(first: bool, *_: object) -> None:
        for norm, momentum in norms.items():
            norm.momentum = momentum if first else 0.0

    with ExitStack() as stack:
        stack.callback(count, True)
        stack.enter_context(model.backbone.register_forward_pre_hook(partial(count, True)))
        stack.enter_context(model.backbone.register_forward_hook(partial(count, False)))
        for part in parts:
            stack.callback(vars(part).pop, "forward", None)
            part.forward = partial(checkpoint, part.forward, use_reentrant=False)
        yield f"keeps only the input of {len(parts)} blocks"


@contextmanager
def recompute_cheap(model: SegmentationModel) -> Iterator[str]:
    """Compute layer norms and GELUs again in backward, instead of keeping what they gave.

    They are cheap, and give two fifths of what a block keeps. Where the layer behind is frozen
    nothing is kept anyway.
    """
    count = 0
    with ExitStack() as stack:
        for wrapped in running_blocks(model):
            block: Any = getattr(wrapped, "base_layer", wrapped)  # without prompts around it
            if layers := saving_layers(block):
                stack.callback(vars(block).pop, "forward", None)
                block.forward = partial(again, block)
                count += len(layers)
        yield f"computes the norm or GELU before {count} layers again"


@dataclass(frozen=True)
class Recipe:
    """Facts about a recipe.

    Attributes:
        name: What `fit` and `memory_plan` take as `frugal`.
        title: What it is.
        does: What it changes.
        costs: What it costs.
        exact: Whether the gradients are those without it.
        in_all: Whether ``"all"`` takes it where it suits.
        apply: Changes a model, yields a sentence that says what was done, and undoes it.
        refuses: Says why it cannot be applied to a model; empty if it can.
    """

    name: str
    title: str
    does: str
    costs: str
    exact: bool
    in_all: bool
    apply: Callable[[SegmentationModel], AbstractContextManager[str]]
    refuses: Callable[[SegmentationModel], str] = lambda model: ""


#: In the order in which they are applied.
RECIPES = {
    recipe.name: recipe
    for recipe in [
        Recipe(
            "late", "Train late", "trains only the last quarter of the blocks, the rest runs "
            "without a graph", "early blocks do not learn", False, True, train_late, why_not_late,
        ),
        Recipe(
            "bf16", "Frozen weights in two bytes", "holds frozen linear layers of blocks as "
            "bfloat16", "rounds weights to eight significant bits", False, True,
            partial(hold, kind="bf16"), partial(why_not_hold, kind="bf16"),
        ),
        Recipe(
            "8bit", "Frozen weights in one byte", "holds them as whole numbers and a factor per "
            "row", "rounds them to 1/254 of the row's range; takes time", False, False,
            partial(hold, kind="8bit"), partial(why_not_hold, kind="8bit"),
        ),
        Recipe(
            "recompute", "Recompute what is cheap", "computes layer norms and GELUs again in the "
            "backward pass", "they are computed twice", True, False, recompute_cheap,
        ),
        Recipe(
            "checkpoint", "Checkpoint blocks", "keeps only the input of each block, and runs it "
            "again", "a quarter to half more time on a CPU core", True, True, checkpoint_blocks,
        ),
        Recipe(
            "cached", "Cached features", "computes what stands before the first trained weight "
            "once per chip and view", "disk for eight views of each chip", True, True,
            lambda model: nullcontext("keeps features of the frozen part in a file"),
            why_not_split,
        ),
    ]
}  # fmt: skip


def list_recipes() -> pd.DataFrame:
    """List the recipes that `fit` and `memory_plan` know, one row each."""
    shown = ["name", "title", "does", "costs", "exact", "in_all"]
    return Listing(pd.DataFrame(RECIPES.values())[shown].set_index("name"))


def chosen_recipes(frugal: str | Sequence[str] | None, model: SegmentationModel) -> tuple[str, ...]:
    """Return the recipes that are meant, in the order in which they are applied.

    Args:
        frugal: None, the name of a recipe, a list of names, or ``"all"``, which stands for those
            marked so in `RECIPES` that suit model and method.
        model: With a method attached.

    Raises:
        ValueError: An unknown name, ``"bf16"`` and ``"8bit"`` at once, or a recipe that does not
            suit the model; the message says why.
    """
    names = {frugal} if isinstance(frugal, str) else {*(frugal or ())}
    check_names("recipe", names, [*RECIPES, "all"])
    if names >= {"bf16", "8bit"}:
        raise GeopeftError("frugal takes either 'bf16' or '8bit': choose one.")
    chosen = []
    with ExitStack() as stack:
        for name, recipe in RECIPES.items():
            in_all = "all" in names and recipe.in_all and not (name == "bf16" and "8bit" in names)
            reason = recipe.refuses(model) if name in names or in_all else "not wanted"
            if reason and name in names:
                raise GeopeftError(reason)
            if not reason:
                chosen.append(name)
                if name == "late":  # the others see what it leaves to train
                    stack.enter_context(train_late(model))
    return tuple(chosen)


@contextmanager
def applied(
    model: SegmentationModel, frugal: str | Sequence[str] | None
) -> Iterator[dict[str, str]]:
    """Let a model compute by recipes, and undo it at the end.

    ``"cached"`` only says what it would keep: it is about epochs, not steps, so `fit` does it with
    `CachedFeatures`.

    Args:
        model: With a method attached. Its trained weights are trained as ever and stay.
        frugal: See `chosen_recipes`.

    Yields:
        Name -> sentence that says what was done to this model.

    Raises:
        ValueError: See `chosen_recipes`; before anything is changed.
    """
    names = chosen_recipes(frugal, model)
    with ExitStack() as stack:
        yield {name: stack.enter_context(RECIPES[name].apply(model)) for name in names}
