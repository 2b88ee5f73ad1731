"""A few chips and what the model makes of them: the answer sharpens as training goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.pictures.chips import coloured, legend_of, picture_of

if TYPE_CHECKING:
    from geopeft_nb.datasets.base import ChipDataset, Sample
    from geopeft_nb.datasets.geodata import GeoData

CHIPS, LOOKED_AT = 4, 32
SIDE = 64  # pixels of a picture at most

Picture = NDArray[np.uint8]  # (H, W, 3)


class WatchedChips:
    """Four validation chips and one held-out chip, whose answers are drawn beside their labels.

    Of the first chips those are taken whose label has most to tell: the most even mixture of
    classes, the widest spread of values, or one of each label.

    Args:
        data: Where the chips are from.
        predict: Returns what is predicted for each sample, as `predict` does.
    """

    def __init__(
        self, data: GeoData, predict: Callable[[list[Sample]], list[NDArray[Any]]]
    ) -> None:
        self.data, self.predict = data, predict
        self.samples = [("validation", s) for s in self._telling(data.val, CHIPS)]
        for region, part in [*data.holdout.items()][:1]:
            self.samples += [(f"held out: {region}", s) for s in self._telling(part, 1)]
        self.first: list[NDArray[Any]] | None = None
        self.latest: list[NDArray[Any]] | None = None
        self.kept: list[NDArray[Any]] | None = None
        images = [sample["image"].numpy() for _, sample in self.samples]
        last = [image.reshape(len(image), -1, *image.shape[-2:])[:, -1] for image in images]
        sides = [_small(image) for image in last]  # (C, H, W), of several dates the last
        # one stretch for all, so that dark and bright mean the same in each
        drawn, _ = picture_of(np.concatenate(sides, axis=-1), data.bands)
        ends = np.cumsum([side.shape[-1] for side in sides])[:-1]
        self._images: list[Picture] = np.split(drawn, ends, axis=1)

    def look(self, kept: bool) -> None:
        """Ask for answers anew; `kept` says that the weights are the best so far."""
        self.latest = self.predict([sample for _, sample in self.samples])
        self.first = self.first or self.latest
        if kept or self.kept is None:
            self.kept = self.latest

    def shown(self, kept: bool = False) -> dict[str, Any]:
        """Return pictures, captions and legend, with the latest answers or the kept weights'."""
        answers = self.kept if kept else self.latest
        chips = []
        for number, (where, sample) in enumerate(self.samples):
            pictures, said = [self._images[number]], [where]
            if self.data.task in ("segmentation", "regression"):
                pictures.append(self._drawn(sample, sample["mask"].numpy()))
            else:
                said.append(f"label {self.data.words(sample)}")
            if answers is not None and self.first is not None:
                if len(pictures) > 1:
                    pictures.append(self._drawn(sample, answers[number]))
                marks = [self._mark(sample, answer[number]) for answer in (self.first, answers)]
                said.append(" → ".join(dict.fromkeys(marks)))
            chips.append(
                {"picture": _beside(pictures), "caption": said, "words": f"{', '.join(said)}."}
            )
        classes = dict(zip(self.data.classes, self.data.colours, strict=True))
        legend = []
        if self.data.task == "segmentation":
            masks = [sample["mask"].numpy() for _, sample in self.samples]
            legend = legend_of(masks, classes, self.data.ignore_index)
        return {"chips": chips, "legend": legend}

    def _telling(self, part: ChipDataset, count: int) -> list[Sample]:
        looked = [part[index] for index in range(min(len(part), LOOKED_AT))]
        if self.data.task == "segmentation":
            return sorted(looked, key=self._evenness, reverse=True)[:count]
        if self.data.task == "regression":
            spread = [float(np.nanstd(sample["mask"].numpy())) for sample in looked]
            return [looked[index] for index in np.argsort(spread)[::-1][:count]]
        distinct = {sample["label"].numpy().tobytes(): sample for sample in reversed(looked)}
        return [*distinct.values()][::-1][:count]

    def _evenness(self, sample: Sample) -> float:
        known = sample["mask"][sample["mask"] != self.data.ignore_index].numpy()
        shares = np.bincount(known) / max(1, known.size)
        return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())

    def _drawn(self, sample: Sample, values: NDArray[Any]) -> Picture:
        if self.data.task == "segmentation":
            return coloured(_small(values), self.data.colours, self.data.ignore_index)
        truth = sample["mask"].numpy().reshape(-1, *values.shape[-2:])[0]
        low, high = np.nanmin(truth), np.nanmax(truth)  # the answer on its label's own scale
        first = _small(values.reshape(-1, *values.shape[-2:])[0])
        grey = 40 + 215 * np.clip((first - low) / max(float(high - low), 1e-6), 0, 1)
        return np.repeat(np.nan_to_num(grey).astype(np.uint8)[..., None], 3, axis=2)

    def _mark(self, sample: Sample, answer: NDArray[Any]) -> str:
        """Say how good an answer is."""
        if self.data.task == "segmentation":
            mask = sample["mask"].numpy()
            known = mask != self.data.ignore_index
            return f"{(answer == mask)[known].mean():.0%} right" if known.any() else "no label"
        if self.data.task == "regression":
            miss = answer - sample["mask"].numpy().reshape(answer.shape)
            return f"error {np.sqrt(np.nanmean(miss**2)):.3g}"
        right = np.array_equal(np.asarray(sample["label"]).astype(int), answer.astype(int))
        return f"{self.data.words({'label': answer})} {'✓' if right else '✗'}"


def _small(image: NDArray[Any]) -> NDArray[Any]:
    """Take every n-th pixel of (…, H, W), so that the longer side has at most `SIDE`."""
    step = -(-max(image.shape[-2:]) // SIDE)
    return image[..., step // 2 :: step, step // 2 :: step]


def _beside(pictures: Iterable[Picture]) -> NDArray[np.uint8]:
    """Put pictures (H, W, 3) side by side, (H, W, 4), with gaps that show the page."""
    wide: list[NDArray[np.uint8]] = []
    for picture in pictures:
        opaque = np.full((*picture.shape[:2], 1), 255, np.uint8)
        wide += [np.dstack([picture, opaque]), np.zeros((len(picture), 2, 4), np.uint8)]
    return np.concatenate(wide[:-1], axis=1)
