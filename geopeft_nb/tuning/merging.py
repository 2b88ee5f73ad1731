"""Fold an adapter into the weights of its backbone."""

from __future__ import annotations

import warnings

from geopeft_nb.errors import GeopeftError, expect
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.methods import CARDS

#: Why a method cannot be merged.
NO_MERGE = {
    None: "Nothing is attached.",
    "linear_probe": "A linear probe leaves the backbone as it is, so there is nothing to merge.",
    "full": "Full fine-tuning trained the backbone's own weights, so there is nothing to merge.",
    "vpt": "Prompts are tokens, not weights.",
    "adapter": "Bottleneck adapters have a nonlinearity, which no weight of the backbone has.",
    "vit_adapter": "ViT-Adapter is a network of its own beside the backbone.",
}


def merge(model: SegmentationModel) -> SegmentationModel:
    """Fold the active adapter into the backbone's weights, in place: same output, no extra cost.

    Args:
        model: With an adapter of a method that merges, see `gp.list_methods()`.

    Returns:
        The same model, with a plain backbone. Other adapters that it carried are gone.

    Raises:
        ValueError: The method cannot be merged; the message lists those that can.
    """
    expect(model, "method_options", "the model that build_model returned")
    if model.method not in CARDS or not CARDS[model.method].merges:
        able = ", ".join(card.name for card in CARDS.values() if card.merges)
        raise GeopeftError(
            f"{NO_MERGE.get(model.method, 'The adapter is merged already.')} Methods that merge: "
            f"{able}. To share what was trained, use save_adapter; export_onnx takes this model as "
            "it is."
        )
    if others := [name for name in model.adapters if name != model.adapter]:
        warnings.warn(f"Merging {model.adapter} drops {', '.join(others)}.", stacklevel=2)
    model.backbone = model.backbone.merge_and_unload().requires_grad_(False)
    model.method = model.backbone.attached = f"merged {model.method}"
    model.adapter, model.options, model.shelf = None, {}, {}
    return model.train(model.training)  # a frozen backbone keeps its batch statistics
