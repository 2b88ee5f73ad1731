"""What training leaves for maps: how far to believe its scores, and where it has never been.

A network says 0.99 more often than it is right in 99 of 100 cases, and says so too where nothing is
like what it was trained on. Two numbers from the chips of training tell both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from geopeft_nb.datasets.base import ChipDataset, Sample
from geopeft_nb.datasets.geodata import GeoData, band_statistics
from geopeft_nb.inputs import stack_metadata
from geopeft_nb.models import SegmentationModel, Trained
from geopeft_nb.training.preflight import READ

#: Chips of training, and of validation, that are looked at, and pixels of each.
CHIPS, PIXELS = 48, 4_000
#: The reference has about NUMBERS numbers, so that distances to it cost little beside the network,
#: but LEAST to about MOST rows, whatever their width; and neighbours that are averaged.
LEAST, MOST, NUMBERS, NEIGHBOURS = 256, 1_024, 100_000, 5
#: Pixels a side of the smallest cell that is looked at: finer maps are averaged.
CELL = 8


def cell(model: SegmentationModel) -> int:
    """Return the side in pixels of one cell of the map that `deepest` notes."""
    return int(max(stride := model.backbone.strides[-1], CELL // stride * stride))


@contextmanager
def deepest(model: SegmentationModel) -> Iterator[list[Tensor]]:
    """Note the deepest map of features (B, D, h, w) of what the model is called on meanwhile."""
    seen: list[Tensor] = []
    pool = cell(model) // model.backbone.strides[-1]
    with model.backbone.register_forward_hook(
        lambda _, __, maps: seen.append(functional.avg_pool2d(maps[-1], pool, ceil_mode=True))
    ):
        yield seen


def distances(features: Tensor, reference: Tensor) -> Tensor:
    """Say how far features lie from the nearest ones of training.

    The dissimilarity index of Meyer and Pebesma, of what the backbone has learnt instead of of
    bands: in units of each feature's standard deviation, and the mean over a few neighbours, since
    in so many dimensions the very nearest is a matter of luck.

    Args:
        features: (..., D).
        reference: Features of training chips (N, D).

    Returns:
        (...), not yet divided by a threshold.

    Source: Meyer and Pebesma, Methods in Ecology and Evolution 12 (2021), 1620-1633.
    """
    std, mean = torch.std_mean(reference, dim=0)
    ours, theirs = (((x - mean) / (std + 1e-6)) for x in (features.float(), reference))
    every = torch.cdist(ours.flatten(0, -2), theirs)
    near = every.topk(min(NEIGHBOURS, len(theirs)), largest=False).values.mean(1)
    return near.reshape(features.shape[:-1])


def temperature(logits: Tensor, target: Tensor) -> float:
    """Return what to divide logits by so that their probabilities are likeliest to be true.

    Args:
        logits: (N, K).
        target: (N,) classes.
    """

    def loss(inverse: float) -> float:
        return float(functional.cross_entropy(logits.double() * inverse, target, reduction="sum"))

    # convex in the inverse
    return float(1 / minimize_scalar(loss, bounds=(0.01, 100)).x) if len(target) else 1.0


def trained_on(
    model: SegmentationModel, data: GeoData, seed: int, device: torch.device | str = "cpu"
) -> Trained:
    """Say what a model has been trained on, now and before, and what maps need to know of it.

    Args:
        model: As it was trained.
        data: Its data; of models of pixels at most `CHIPS` chips of training and of validation are
            looked at for reference, threshold and temperature.
        seed: Of the training.
        device: Where to compute.
    """
    seen, absent = (*data.train.grounds(), *data.val.grounds()), data.train.absent()
    if before := model.trained:
        seen = (*dict.fromkeys((*before.seen, *seen)),)
        absent = [name for name in absent if name in before.absent]
    found: dict[str, Any] = {}
    model.to(device).eval()
    if data.task in ("segmentation", "regression"):
        found = _reference(model, data.train)
    if data.task == "segmentation":
        found["temperature"] = temperature(*_labelled(model, data.val))
    model.to("cpu")
    facts = data.card.name, seed, data.size, band_statistics(data.train, READ), seen, (*absent,)
    return Trained(*facts, data.products, **found)


def _looked_at(
    model: SegmentationModel, chips: ChipDataset
) -> Iterator[tuple[Sample, Tensor, Tensor]]:
    """Yield some chips, with features (P, D) and output (K, H, W) of each."""
    with torch.inference_mode(), deepest(model) as seen:
        for sample in chips.spread(CHIPS):
            batch = {"image": sample["image"][None], **stack_metadata([sample])}
            output = model(**{name: x.to(model.mean.device) for name, x in batch.items()})
            yield sample, seen.pop()[0].flatten(1).T.float().cpu(), output[0].cpu()


def _labelled(model: SegmentationModel, chips: ChipDataset) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) and classes (N,) of some labelled pixels."""
    draw, pairs = torch.Generator().manual_seed(0), []
    for sample, _, output in _looked_at(model, chips):
        target = sample["mask"].flatten()
        known = (target != chips.ignore_index).nonzero()[:, 0]
        known = known[torch.randperm(len(known), generator=draw)[:PIXELS]]
        pairs.append((output.flatten(1).T[known], target[known]))
    logits, targets = zip(*pairs, strict=True)
    return torch.cat(logits), torch.cat(targets)


def _reference(model: SegmentationModel, chips: ChipDataset) -> dict[str, Any]:
    """Choose rows of the reference, and the distance within which 95 % of training lie.

    Chips are compared with those of other places, as ground that is new would be.
    """
    draw = torch.Generator().manual_seed(0)
    looked = [(sample["place"], features) for sample, features, _ in _looked_at(model, chips)]
    if len({place for place, _ in looked}) < 2:
        return {}
    each = -(-min(max(LEAST, NUMBERS // looked[0][1].shape[1]), MOST) // len(looked))
    rows = [(home, x[torch.randperm(len(x), generator=draw)[:each]]) for home, x in looked]
    # distances to features of all other places
    far = [distances(x, torch.cat([y for home, y in rows if home != at])) for at, x in looked]
    threshold = float(torch.cat(far).quantile(0.95))
    reference = torch.cat([x for _, x in rows])
    return {"reference": reference, "threshold": threshold} if 1e-6 < threshold < 1e30 else {}
