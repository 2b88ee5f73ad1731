"""A few chips and what the model makes of them: the answer sharpens as training goes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.datasets.base import ChipDataset, Sample
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.pictures.chips import GREY, last_date, legend_of, painted, picture_of
from geopeft_nb.pictures.show import visible
from geopeft_nb.tasks import TASKS

CHIPS, LOOKED_AT = 4, 32
SIDE = 64  # pixels of a picture at most


class WatchedChips:
    """Four validation chips and one held-out chip, whose answers are drawn beside their labels.

    Args:
        data: Where the chips are from.
        predict: Returns what is predicted for each sample, as `predict` does.
    """

    def __init__(
        self, data: GeoData, predict: Callable[[list[Sample]], list[NDArray[Any]]]
    ) -> None:
        self.data, self.predict = data, predict
        self.samples = [("validation", s) for s in telling(data.val, CHIPS)]
        for region, part in [*data.holdout.items()][:1]:
            self.samples += [(f"held out: {visible(region)}", s) for s in telling(part, 1)]
        self.answers: list[NDArray[Any]] = []
        dated = [last_date(sample["image"].numpy()) for _, sample in self.samples]
        self._dates = dated[0][1]
        # one stretch for all, so that dark and bright mean the same in each
        drawn, _ = picture_of(np.concatenate([_small(x) for x, _ in dated], axis=-1), data.bands)
        self._images = np.split(drawn, len(dated), axis=1)

    def look(self) -> None:
        """Ask for answers anew."""
        self.answers = self.predict([sample for _, sample in self.samples])

    def shown(self) -> dict[str, Any]:
        """Return pictures, captions and legend, with the latest answers."""
        labels = [sample["mask"].numpy() for _, sample in self.samples if "mask" in sample]
        drawn = [*self._images, *(self._drawn([*labels, *self.answers]) if labels else [])]
        spaced = [np.pad(x, ((0, 0), (0, 2), (0, 0)), constant_values=255) for x in drawn]
        chips, count = [], len(self.samples)
        for number, (where, sample) in enumerate(self.samples):
            said = [where + self._dates]
            if not labels:
                said.append(f"label {self.data.words(sample)}")
            if self.answers:
                said.append(self._mark(sample, self.answers[number]))
            picture = np.concatenate(spaced[number::count], axis=1)
            chips.append({"picture": picture, "caption": said})
        if self.data.task != "segmentation":
            return {"chips": chips, "legend": []}
        classes = dict(zip(map(visible, self.data.classes), self.data.colours, strict=True))
        return {"chips": chips, "legend": legend_of(labels, classes, self.data.ignore_index)}

    def _drawn(self, maps: list[NDArray[Any]]) -> list[NDArray[np.uint8]]:
        """Draw labels and answers, the values of a regression to one scale."""
        wide = np.concatenate([_small(x.reshape(-1, *x.shape[-2:])[0]) for x in maps], axis=1)
        if self.data.task == "segmentation":
            # a label that is none is the last colour, whatever its number
            codes = np.where(wide == self.data.ignore_index, len(self.data.colours), wide)
            drawn = painted(codes, [*self.data.colours, GREY])[..., :3]
        else:
            drawn, _ = picture_of(wide[None], self.data.bands[:1])
        return np.split(drawn, len(maps), axis=1)

    def _mark(self, sample: Sample, answer: NDArray[Any]) -> str:
        """Say how good an answer is."""
        if "mask" not in sample:
            right = np.array_equal(np.asarray(sample["label"]).astype(int), answer.astype(int))
            return f"{self.data.words({'label': answer})} {'✓' if right else '✗'}"
        truth = sample["mask"]
        known = TASKS[self.data.task].known(truth, self.data.ignore_index).numpy()
        miss = (answer.reshape(truth.shape) - truth.numpy())[known]
        if not miss.size:
            return "no label"
        if self.data.task == "regression":
            return f"error {np.sqrt((miss**2).mean()):.3g}"
        return f"{(miss == 0).mean():.0%} right"


def telling(part: ChipDataset, count: int) -> list[Sample]:
    """Take, of some evenly spread chips, those with the widest spread of labels or values."""
    looked = list(part.spread(LOOKED_AT))
    if "mask" not in looked[0]:
        return looked[:: -(-len(looked) // count)]

    def spread(sample: Sample) -> float:
        known = TASKS[part.task].known(sample["mask"], part.ignore_index)
        return float(np.std(sample["mask"][known].numpy())) if known.any() else 0.0

    return sorted(looked, key=spread, reverse=True)[:count]


def _small(image: NDArray[Any]) -> NDArray[Any]:
    """Take every n-th pixel of (…, H, W), so that the longer side has at most `SIDE`."""
    step = -(-max(image.shape[-2:]) // SIDE)
    return image[..., step // 2 :: step, step // 2 :: step]
