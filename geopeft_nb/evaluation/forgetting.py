"""What fine-tuning has made of the features that the backbone had before.

Two questions, of chips of another task or of the same: are the features still alike (CKA), and does
a head that was trained on the old ones still work on the new ones? A head fails, too, where
features are turned and nothing of them is lost; CKA does not see a turn, so the two are read
together.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.evaluation.regions import RunOrModel, evaluate
from geopeft_nb.inputs import stack_metadata
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.lora import CHIPS, cka

#: Whose adapter, if any, a backbone has: what a model knows of it.
ATTACHED = ("backbone", "method", "adapter", "shelf")


def forgetting(run_or_model: RunOrModel, probe: RunOrModel, data: GeoData) -> pd.DataFrame:
    """Compare a trained backbone with what it was, by its features and by a head of before.

    Args:
        run_or_model: What was trained.
        probe: A linear probe on the same pretrained backbone, of this task or another: its backbone
            is as it was, and its head is the one that is kept.
        data: The probe's data; judged are its test chips and its held-out regions.

    Returns:
        Per region: its role; the CKA of the deepest features before and after, 1 where they differ
        by a turn and a factor; the score of the head `before` and `after`, on features that it was
        not trained on; and their difference with the ends of its 95 % interval over places.

    Raises:
        ValueError: `probe` is none, or has another backbone or bands; or what `evaluate` refuses.

    Source: centred kernel alignment, Kornblith et al., arXiv 1905.00414.

    Example:
        >>> gp.forgetting(run_of_lora, run_of_probe, data)
    """
    model: Any = getattr(run_or_model, "model", run_or_model)
    head: Any = getattr(probe, "model", probe)
    if head.method != "linear_probe":
        raise GeopeftError(f"probe has a linear probe attached, not {head.method}: see attach.")
    kinds = {(one.plain_backbone.card.name, one.bands) for one in (model, head)}
    if len(kinds) > 1:
        raise GeopeftError("Model and probe have different backbones or bands. Build both alike.")
    before = evaluate(head, data)
    alike = {region: _alike(head, model, chips) for region, chips in data.judged.items()}
    worn = copy(head)
    worn._modules = dict(head._modules)  # which a copy has in common
    for name in ATTACHED:
        setattr(worn, name, getattr(model, name))
    after = evaluate(worn, data)
    found = after.compare(before)
    scores = {"before": before.table[before.score], "after": after.table[after.score]}
    return before.table[["role"]].assign(CKA=alike, **scores).join(found)


@torch.inference_mode()
def _alike(one: SegmentationModel, other: SegmentationModel, chips: ChipDataset) -> float:
    """Return the CKA of the deepest maps of two models on some chips."""
    features: list[list[Tensor]] = [[], []]
    for sample in chips.spread(CHIPS):
        for model, found in zip((one, other), features, strict=True):
            batch = {"image": sample["image"][None], **stack_metadata([sample])}
            moved: Any = {name: x.to(model.mean.device) for name, x in batch.items()}
            scaled, more = model.eval().scale(**moved)
            found.append(model.backbone(scaled, **more)[-1][0].flatten(1).T.cpu())
    return cka(*(torch.cat(found).double() for found in features))
