"""Four validation chips and what the model makes of them: the answer sharpens as training goes.

Pictures are small and of few colours. Image and label are encoded once, an answer anew at each
validation; of the answers three stay: the first, the best and the latest.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.datasets.pictures import coloured, label_in_words, picture_of

if TYPE_CHECKING:
    from torch import Tensor

    from geopeft_nb.datasets.base import Sample
    from geopeft_nb.datasets.geodata import GeoData

CHIPS = 4
SIDE = 64  # pixels of a picture at most; four of each of four chips then take about 15 kB
COLOURS = 48  # of an image

_WORDS = "font-size:12px;line-height:1.5;image-rendering:pixelated"
_BLOCK = "display:inline-block;vertical-align:top;width:216px;margin:2px 12px 6px 0"
_CELL = "display:inline-block;vertical-align:top;width:104px"
_SWATCH = "display:inline-block;width:9px;height:9px;border-radius:2px"


@dataclass(frozen=True)
class Picture:
    """A picture as a data address, or none, and what is to be read beside or instead of it."""

    words: str
    address: str = ""
    caption: str = ""


@dataclass
class Strip:
    """Chips of the validation side, their labels, and answers to compare with them.

    The chips are those whose label has most to tell: in the first validation, the four with the
    most even mixture of classes, or the first four that are labelled differently. They stay fixed.

    Args:
        data: Where the chips are from.

    Attributes:
        rows: Epoch -> its answers, one picture for each chip.
        best: Epoch of the best validation score.
    """

    data: GeoData
    rows: dict[int, list[Picture]] = field(default_factory=dict)
    best: int = 0
    _images: list[Picture] = field(default_factory=list)
    _labels: list[Picture] = field(default_factory=list)
    _samples: dict[int, Sample] = field(default_factory=dict)  # the chosen chips by number
    _seen: dict[int, tuple[float, NDArray[Any]]] = field(default_factory=dict)
    _known: set[bytes] = field(default_factory=set)

    def watch(self, start: int, targets: Tensor, answer: Callable[[int], NDArray[Any]]) -> None:
        """Look at a batch of the validation, and note the answers that are wanted.

        Args:
            start: Number in `data.val` of the first chip of the batch.
            targets: Labels (B, …): masks (H, W) or (K, H, W), classes () or labels (K,).
            answer: Returns what is predicted for a chip of the batch; called for a few of them.
        """
        for offset in range(len(targets)):
            if self._samples:
                if start + offset in self._samples:
                    self._seen[start + offset] = (0.0, answer(offset))
                continue
            target = targets[offset].cpu().numpy()
            worth = self._worth(target)
            least = min(self._seen, key=lambda index: self._seen[index][0], default=-1)
            if len(self._seen) == CHIPS:
                if worth <= self._seen[least][0]:
                    continue
                del self._seen[least]
            self._seen[start + offset] = (worth, answer(offset))
            self._known.add(target.tobytes() if target.ndim < 2 else b"")

    def close_epoch(self, epoch: int, best: bool) -> bool:
        """Turn the answers that were noted since the last call into the row of an epoch.

        Args:
            epoch: The epoch that was validated, counted from 1.
            best: Whether its score is the best so far.

        Returns:
            Whether there is a new row: not where no answer was noted.
        """
        if not self._samples:
            self._samples = {index: self.data.val[index] for index in sorted(self._seen)}
            self._images = [self._image(sample) for sample in self._samples.values()]
            self._labels = [self._label(sample) for sample in self._samples.values()]
        answers = {index: answer for index, (_, answer) in self._seen.items()}
        self._seen = {}
        if not answers or answers.keys() < self._samples.keys():
            return False
        if best:
            self.best = epoch
        row = [self._answer(sample, answers[i]) for i, sample in self._samples.items()]
        keep = {min(self.rows, default=epoch), self.best}
        self.rows = {key: old for key, old in self.rows.items() if key in keep} | {epoch: row}
        return True

    def html(self, finished: bool = False) -> str:
        """Return the strip as HTML: a block per chip with image, label, first and latest answer.

        Args:
            finished: Show the answer of the weights that are kept instead of the latest.
        """
        shown = self._shown(finished)
        blocks = []
        for index, (image, label) in enumerate(zip(self._images, self._labels, strict=True)):
            columns = [("", image), ("label", label)]
            columns += [(self._title(epoch, finished), row[index]) for epoch, row in shown]
            cells = "".join(_cell(title, picture) for title, picture in columns)
            blocks.append(f'<span style="{_BLOCK}">{cells}</span>')
        return (
            f'<div class="gp-strip" data-epoch="{max(self.rows, default=0)}" style="{_WORDS}">'
            f"<div>{escape(self._heading())}{self._legend()}</div>{''.join(blocks)}</div>"
        )

    def text(self, finished: bool = False) -> str:
        """Say the same in words."""
        lines = [self._heading()]
        for epoch, row in self._shown(finished):
            lines.append(f"{self._title(epoch, finished)}:")
            lines += [f"  {picture.words}" for picture in row]
        return "\n".join(lines)

    def bundle(self, finished: bool = False) -> dict[str, str]:
        """Return the strip in the forms that a notebook keeps."""
        return {"text/html": self.html(finished), "text/plain": self.text(finished)}

    def _shown(self, finished: bool) -> list[tuple[int, list[Picture]]]:
        """Return the first row, and the best or the latest one."""
        last = self.best if finished and self.best else max(self.rows, default=0)
        return [(e, self.rows[e]) for e in sorted({min(self.rows, default=0), last} & {*self.rows})]

    def _title(self, epoch: int, finished: bool) -> str:
        kept = (", kept" if finished else ", best") if epoch == self.best else ""
        return f"epoch {epoch}{kept}"

    def _heading(self) -> str:
        return f"{len(self._samples)} validation chips"

    def _legend(self) -> str:
        """Name the classes that the labels show, each beside its colour."""
        if self.data.task != "segmentation":
            return ""
        there = {int(v) for s in self._samples.values() for v in np.unique(s["mask"])}
        named = zip(self.data.classes, self.data.colours, strict=True)
        return "".join(
            f' &nbsp; <span style="{_SWATCH};background:{colour}"></span> {escape(name)}'
            for index, (name, colour) in enumerate(named)
            if index in there
        )

    def _worth(self, target: NDArray[Any]) -> float:
        """Return how much a label has to tell: evenness of classes, spread, or being new."""
        target = np.asarray(target)
        if self.data.task == "segmentation":
            known = target[target != self.data.ignore_index]
            shares = np.bincount(known.ravel()) / max(1, known.size)
            return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
        if self.data.task == "regression":
            known = target[np.isfinite(target)]
            return float(known.std()) if known.size else 0.0
        return float(target.tobytes() not in self._known)

    def _image(self, sample: Sample) -> Picture:
        pixels, _ = picture_of(_small(sample["image"].numpy()), self.data.bands)
        words = f"image of {sample['name']}, {sample['region']}"
        return Picture(words, _photo(pixels), str(sample["name"]))

    def _label(self, sample: Sample) -> Picture:
        if self.data.task == "segmentation":
            words = f"label: {self._shares(sample['mask'].numpy())}"
            return Picture(words, _png(coloured(_small(sample["mask"].numpy()), self.data)))
        if self.data.task == "regression":
            return Picture("label", _png(self._grey(sample, sample["mask"].numpy()), COLOURS))
        words = label_in_words(self.data, sample)
        return Picture(f"label: {words}", caption=words)

    def _answer(self, sample: Sample, answer: NDArray[Any]) -> Picture:
        name = sample["name"]
        if self.data.task == "segmentation":
            mask = sample["mask"].numpy()
            known = mask != self.data.ignore_index
            right = float((answer == mask)[known].mean()) if known.any() else float("nan")
            words = f"{name}: {self._shares(answer)}; {right:.0%} of the pixels as labelled"
            picture = _png(coloured(_small(answer), self.data))
            return Picture(words, picture, f"{right:.0%} right")
        if self.data.task == "regression":
            truth = sample["mask"].numpy().reshape(answer.shape)
            error = float(np.sqrt(np.nanmean((answer - truth) ** 2)))
            words = f"root mean square error {error:.3g}"
            picture = _png(self._grey(sample, answer), COLOURS)
            return Picture(f"{name}: {words}", picture, f"error {error:.3g}")
        said = label_in_words(self.data, {"label": answer})
        right = bool(np.array_equal(np.asarray(sample["label"]).astype(int), answer.astype(int)))
        said = f"{said} {'✓' if right else '✗'}"
        return Picture(f"{name}: {said}", caption=said)

    def _shares(self, mask: NDArray[Any]) -> str:
        names = enumerate(self.data.classes)
        shares = [(name, float((mask == index).mean())) for index, name in names]
        return ", ".join(f"{share:.0%} {name}" for name, share in shares if share > 0)

    def _grey(self, sample: Sample, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw the first target (H, W, 3) on the label's own scale; unknown is black."""
        truth = sample["mask"].numpy().reshape(-1, *values.shape[-2:])[0]
        low, high = np.nanmin(truth), np.nanmax(truth)
        first = _small(values.reshape(-1, *values.shape[-2:])[0])
        share = np.clip((first - low) / max(float(high - low), 1e-6), 0, 1)
        grey = np.nan_to_num(40 + 215 * share).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)


def _small(image: NDArray[Any]) -> NDArray[Any]:
    """Take every n-th pixel of (…, H, W), so that the longer side has at most `SIDE`."""
    step = -(-max(image.shape[-2:]) // SIDE)
    return image[..., step // 2 :: step, step // 2 :: step]


def _photo(pixels: NDArray[np.uint8]) -> str:
    """Return (H, W, 3) as a data address: WebP takes half of a palette PNG."""
    from PIL import Image, features

    if not features.check("webp"):
        return _png(pixels, COLOURS)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", quality=60)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _png(pixels: NDArray[np.uint8], colours: int = 256) -> str:
    """Return (H, W, 3) as the data address of a palette PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).quantize(colours).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _cell(title: str, picture: Picture) -> str:
    """Return a picture with its caption, or the words alone where there is no picture."""
    caption = ": ".join(words for words in (title, picture.caption) if words)
    if not picture.address:
        return f'<span style="display:block">{escape(caption)}</span>'
    return (
        f'<span style="{_CELL}"><img alt="{escape(picture.words)}" width="96" '
        f'src="{picture.address}"/><br>{escape(caption)}</span>'
    )
