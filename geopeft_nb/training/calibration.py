"""What training leaves for maps: how far to believe its scores, and where it has never been.

A network says 0.99 more often than it is right in 99 of 100 cases, and says so too where nothing is
like what it was trained on. Two numbers from the chips of training tell both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData, band_statistics
from geopeft_nb.inputs import stack_metadata
from geopeft_nb.models import SegmentationModel, Trained
from geopeft_nb.training.preflight import READ

#: Chips of training, and of validation, that are looked at, so many at once, and pixels of each.
CHIPS, BATCH, PIXELS = 48, 8, 4_000
#: Rows of the reference, which is to have at most so many numbers; and neighbours among them.
LEAST, MOST, NUMBERS, NEIGHBOURS = 256, 1_024, 100_000, 5
#: Pixels a side of the smallest cell that is looked at: finer maps are averaged.
CELL = 8


def cell(model: SegmentationModel) -> int:
    """Return the pixels a side of which `deepest` notes features."""
    stride: int = model.backbone.strides[-1]
    return stride * max(1, CELL // stride)


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
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([inverse], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = functional.cross_entropy(logits.double() * inverse, target)
        value.backward()
        return value

    search.step(loss)  # convex in the inverse
    return float(1 / inverse.detach().nan_to_num(1).clamp(0.01, 100))


def trained_on(model: SegmentationModel, data: GeoData, seed: int) -> Trained:
    """Say what a model has been trained on, now and before."""
    seen, absent = (*data.train.grounds(), *data.val.grounds()), data.train.absent()
    if before := model.trained:
        seen = (*dict.fromkeys((*before.seen, *seen)),)
        absent = [name for name in absent if name in before.absent]
    return Trained(
        data.card.name, seed, data.size, band_statistics(data.train, READ), seen, (*absent,),
        data.products,
    )  # fmt: skip


def calibrated(
    model: SegmentationModel, data: GeoData, trained: Trained, device: torch.device | str = "cpu"
) -> Trained:
    """Add temperature, reference and threshold to what is known of a training.

    Args:
        model: As it was trained, of pixels; others are left as they are.
        data: Its data; at most `CHIPS` chips of validation and of training are read.
        trained: What is known.
        device: Where to compute.
    """
    if data.task not in ("segmentation", "regression"):
        return trained
    model.to(device)
    features, places, _ = _said(model, data.train)
    if len({*places}) > 1:
        trained = replace(trained, **_reference(features, places))
    if data.task == "segmentation":
        pairs = _said(model, data.val)[2]
        logits, target = map(torch.cat, zip(*pairs, strict=True))
        trained = replace(trained, temperature=temperature(logits, target))
    model.to("cpu")
    return trained


def _said(
    model: SegmentationModel, chips: ChipDataset
) -> tuple[list[Tensor], list[str], list[tuple[Tensor, Tensor]]]:
    """Return features (P, D) and place of some chips, and logits (N, K) and target (N,) of each."""
    features, places, pairs = [], [], []
    draw = torch.Generator().manual_seed(0)
    model.eval()
    with torch.inference_mode(), deepest(model) as seen:
        chosen = chips.spread(CHIPS)
        while samples := [*islice(chosen, BATCH)]:
            batch = {"image": torch.stack([s["image"] for s in samples]), **stack_metadata(samples)}
            output = model(**{name: x.to(model.mean.device) for name, x in batch.items()})
            features += [x.flatten(1).T.float().cpu() for x in seen.pop()]
            places += [sample["place"] for sample in samples]
            for sample, logits in zip(samples, output, strict=True):
                if chips.task == "segmentation":
                    target = sample["mask"].flatten()
                    known = (target != chips.ignore_index).nonzero()[:, 0]
                    known = known[torch.randperm(len(known), generator=draw)[:PIXELS]]
                    pairs.append((logits.flatten(1).T.cpu()[known], target[known]))
    return features, places, pairs


def _reference(features: list[Tensor], places: list[str]) -> dict[str, Any]:
    """Choose rows of the reference, and the distance within which 95 % of training lie.

    Chips are compared with those of other places, as ground that is new would be.
    """
    draw = torch.Generator().manual_seed(0)
    width = features[0].shape[1]
    each = -(-min(max(LEAST, NUMBERS // width), MOST) // len(features))
    rows = [x[torch.randperm(len(x), generator=draw)[:each]] for x in features]
    reference = torch.cat(rows)
    of = np.repeat(places, [len(x) for x in rows])
    lying = [
        distances(x, reference[torch.from_numpy(of != place)])
        for x, place in zip(features, places, strict=True)
    ]
    return {"reference": reference, "threshold": float(torch.cat(lying).quantile(0.95))}
