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

import pandas as pd

from geopeft_nb.backbones.vit import PreNormBlock
from geopeft_nb.errors import GeopeftError, expect, unknown_name
from geopeft_nb.memory.eight_bit import hold, why_not_hold
from geopeft_nb.memory.features import why_not_split
from geopeft_nb.memory.recipe_checkpoint import (
    checkpoint_blocks,
    checkpointed,
    own_blocks,
    recompute_cheap,
    recomputed,
)
from geopeft_nb.memory.recipe_late import train_late, why_not_late
from geopeft_nb.models import SegmentationModel


def _nothing(model: SegmentationModel) -> str:
    return ""


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
        refuses: Says why it cannot be applied to a model; empty if it can.
        idle: Says why it would change nothing of a model; empty if it would.
    """

    name: str
    title: str
    does: str
    costs: str
    exact: bool
    in_all: bool
    refuses: Callable[[SegmentationModel], str] = _nothing
    idle: Callable[[SegmentationModel], str] = _nothing


def _no_graph(model: SegmentationModel) -> str:
    return "" if checkpointed(model) else "no gradient passes a block, so none keeps anything"


def _no_inputs(model: SegmentationModel) -> str:
    if recomputed(model):
        return ""
    if not any(isinstance(block, PreNormBlock) for block in own_blocks(model)):
        name = model.plain_backbone.card.name
        return f"it reaches only this toolkit's own blocks, and {name} has others"
    if model.method == "lora":
        return "LoRA of this toolkit computes norms and GELUs again by itself"
    return f"with {model.method} no layer behind a norm or GELU keeps its input"


#: In the order in which they are applied.
RECIPES = {
    recipe.name: recipe
    for recipe in [
        Recipe(
            "late", "Train late", "trains only the last quarter of the blocks; those before run "
            "without a graph", "the early blocks do not learn", False, True, why_not_late,
        ),
        Recipe(
            "bf16", "Frozen weights in two bytes", "holds frozen linear layers of the blocks in "
            "bfloat16", "weights rounded to eight significant bits", False, True,
            lambda model: why_not_hold(model, "bf16"),
        ),
        Recipe(
            "8bit", "Frozen weights in one byte", "holds frozen linear layers of the blocks as "
            "whole numbers and a factor per row", "weights rounded to 1/254 of the row's range; "
            "writing them out takes time", False, False, lambda model: why_not_hold(model, "8bit"),
        ),
        Recipe(
            "recompute", "Recompute what is cheap", "computes layer norms and GELUs again in the "
            "backward pass instead of keeping what they gave", "they are computed twice",
            True, False, idle=_no_inputs,
        ),
        Recipe(
            "checkpoint", "Checkpoint blocks", "keeps only the input of each block, and runs it "
            "again in the backward pass", "a quarter to nearly half more time on one CPU core",
            True, True, idle=_no_graph,
        ),
        Recipe(
            "cached", "Cached features", "computes what stands before the first trained weight "
            "once per chip and view", "memory or disk for eight views of each chip; the first "
            "epoch computes all eight", True, True, why_not_split,
        ),
        Recipe(
            "cached_on_disk", "Cached features in a file", "as 'cached', but never in memory",
            "disk for eight views of each chip; the first epoch computes all eight", True, False,
            why_not_split,
        ),
    ]
}  # fmt: skip


def list_recipes() -> pd.DataFrame:
    """List the recipes that `fit` and `memory_plan` know, one row each."""
    hidden = ("refuses", "idle")
    rows = [{k: v for k, v in vars(r).items() if k not in hidden} for r in RECIPES.values()]
    return pd.DataFrame(rows).set_index("name")


def normalise(
    frugal: str | Sequence[str] | None, model: SegmentationModel | None = None
) -> tuple[str, ...]:
    """Return the recipes that are meant, in the order in which they are applied.

    Args:
        frugal: None, the name of a recipe, a list of names, or ``"all"``.
        model: With a method attached. Then ``"all"`` becomes those marked so in `RECIPES` that suit
            model and method and change something, and a named one that cannot work is refused.

    Raises:
        ValueError: An unknown name, ``"bf16"`` and ``"8bit"`` or both ways to cache at once, or a
            recipe that does not suit the model; the message says why.
    """
    names = [] if frugal is None else [frugal] if isinstance(frugal, str) else frugal
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise GeopeftError(
            f"frugal must be a recipe's name, a list of names, 'all' or None; got {frugal!r}."
        )
    for name in names:
        if name not in RECIPES and name != "all":
            raise unknown_name("recipe", name, [*RECIPES, "all"])
    if {"bf16", "8bit"} <= set(names):
        raise GeopeftError("Frozen weights are held either as 'bf16' or as '8bit': choose one.")
    if {"cached", "cached_on_disk"} <= set(names):
        raise GeopeftError(
            "Features are 'cached' where there is room, or 'cached_on_disk': choose one."
        )
    if model is None:
        return tuple(name for name in ["all", *RECIPES] if name in names)
    expect(model, "method_options", "the model that build_model returned")
    wanted = set(names)
    if "all" in names:
        general = {name for name, recipe in RECIPES.items() if recipe.in_all}
        general -= {"bf16"} if "8bit" in names else set()
        wanted |= general - ({"cached"} if "cached_on_disk" in names else set())
    late = "late" in wanted and ("late" in names or not why_not_late(model))
    if "late" in names and (reason := why_not_late(model)):
        raise GeopeftError(reason)
    chosen = []
    with train_late(model) if late else nullcontext():  # the others see what it leaves to train
        for name in (name for name in RECIPES if name in wanted):
            reason = "" if late and name == "late" else RECIPES[name].refuses(model)
            if reason and name in names:
                raise GeopeftError(reason)
            if not reason and (name in names or not RECIPES[name].idle(model)):
                chosen.append(name)
    return tuple(chosen)


@contextmanager
def applied(
    model: SegmentationModel, frugal: str | Sequence[str] | None, park: str = "disk"
) -> Iterator[dict[str, str]]:
    """Let a model compute by recipes, and undo it at the end.

    ``"cached"`` and ``"cached_on_disk"`` only say what they would keep: they are about epochs, not
    steps, so `fit` does it with `CachedFeatures`.

    Args:
        model: With a method attached. Its trained weights are trained as ever and stay.
        frugal: See `normalise`.
        park: Where the exact weights are while others are held, see `hold`.

    Yields:
        Name -> sentence that says what was done to this model, or why nothing had to be.

    Raises:
        ValueError: See `normalise`; before anything is changed.
    """
    names = normalise(frugal, model)
    doers: dict[str, Callable[[], AbstractContextManager[str]]] = {
        "late": lambda: train_late(model),
        "bf16": lambda: hold(model, "bf16", park),
        "8bit": lambda: hold(model, "8bit", park),
        "recompute": lambda: recompute_cheap(model),
        "checkpoint": lambda: checkpoint_blocks(model),
        "cached": lambda: nullcontext("features of the frozen part are kept"),
        "cached_on_disk": lambda: nullcontext("features of the frozen part are kept in a file"),
    }
    done = {}
    with ExitStack() as stack:
        for name in names:
            if idle := RECIPES[name].idle(model):
                done[name] = f"changes nothing: {idle}"
            elif name == "recompute" and "checkpoint" in names:
                done[name] = "changes nothing: whole blocks are checkpointed"
            else:
                done[name] = stack.enter_context(doers[name]())
        yield done
