"""The catalogue of fine-tuning methods, and the one function that attaches them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from geopeft_nb.backbones.load import seeded
from geopeft_nb.errors import expect, unknown_name
from geopeft_nb.models import SegmentationModel, part_of


@dataclass(frozen=True)
class MethodCard:
    """Facts about a method.

    Attributes:
        name: What `attach` takes.
        title: Full name.
        trains: What is trained besides the decoder.
        lr: Learning rate that `fit` takes unless told otherwise.
        options: Names of the options of `attach`, with their defaults, in words.
        citation: Paper.
    """

    name: str
    title: str
    trains: str
    lr: float
    options: str
    citation: str


CARDS = {
    card.name: card
    for card in [
        MethodCard(
            "linear_probe", "Linear probe", "nothing: the backbone is frozen", 5e-3, "none", "-"
        ),
        MethodCard(
            "lora", "LoRA", "low-rank updates of q, v, fc1 and fc2 in every block", 1e-3,
            "r=16, alpha=r, dropout=0, targets=(attn.qkv, mlp.fc1, mlp.fc2)",
            "Hu et al., arXiv 2106.09685",
        ),
        MethodCard("full", "Full fine-tuning", "every weight of the backbone", 2e-4, "none", "-"),
    ]
}  # fmt: skip


def attach(
    model: SegmentationModel, method: str, *, seed: int = 0, **options: object
) -> SegmentationModel:
    """Choose what is trained, in place.

    Args:
        model: From `build_model`, with nothing attached yet.
        method: A name that `gp.methods()` lists.
        seed: Seed of the random weights that the method adds.
        **options: Options of the method, see `gp.methods()`.

    Returns:
        The same model. The decoder is always trained.

    Raises:
        ValueError: Unknown method or option, or a method is attached already.
    """
    expect(model, "method_options", "the model that build_model returned")
    if method not in CARDS:
        raise unknown_name("method", method, CARDS)
    if model.method is not None:
        raise ValueError(
            f"{model.method!r} is attached already. Build a new model to attach {method!r}."
        )
    backbone = model.backbone
    if getattr(backbone, "attached", None):
        raise ValueError(
            f"This backbone already serves a model with {backbone.attached}. Load a fresh one "
            "with load_backbone for each model."
        )
    attachers: dict[str, Callable[..., None]] = {
        "linear_probe": _linear_probe,
        "lora": _lora,
        "full": _full,
    }
    with seeded(seed):
        try:
            attachers[method](model, **options)
        except TypeError as error:
            raise ValueError(
                f"{method} does not take {', '.join(options)}. Options: {CARDS[method].options}."
            ) from error
    model.method, model.method_options = method, dict(options)
    backbone.attached = method
    return model


def _linear_probe(model: SegmentationModel) -> None:
    model.backbone.requires_grad_(False)


def _lora(model: SegmentationModel, **options: object) -> None:
    from geopeft_nb.tuning.lora import wrap_lora  # peft is only needed here

    model.backbone = wrap_lora(model.backbone, **options)  # type: ignore[arg-type,assignment]


def _full(model: SegmentationModel) -> None:
    model.backbone.requires_grad_(True)


def methods() -> pd.DataFrame:
    """List the methods that `attach` knows, one row each."""
    rows = [vars(card) for card in CARDS.values()]
    return pd.DataFrame(rows).set_index("name")


def parameter_table(model: SegmentationModel) -> pd.DataFrame:
    """Count trainable and frozen weights per part.

    Args:
        model: With or without a method attached.

    Returns:
        Rows backbone, adapter (if there is one), decoder and total; columns trainable, frozen and
        the trainable share of the row in percent.
    """
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        row = counts.setdefault(part_of(name), [0, 0])
        row[0 if parameter.requires_grad else 1] += parameter.numel()
    order = [part for part in ("backbone", "adapter", "decoder") if part in counts]
    table = pd.DataFrame([counts[part] for part in order], order, ["trainable", "frozen"])
    table.loc["total"] = table.sum()
    table["trainable %"] = (100 * table["trainable"] / table.sum(axis=1)).round(2)
    return table.rename_axis("part")
