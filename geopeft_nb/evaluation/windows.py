"""Where crops lie on a scene, and how much each counts: arithmetic of whole numbers, no pixels."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One side of a scene, covered by crops that overlap.

    A sixteenth of an overlap is trimmed from either crop, where a network sees no further; between,
    one crop fades into the next. (To trim more and fade less shows borders: of Virginia's pixels
    5 % more changed there than elsewhere with a quarter.) Beyond the ends the scene is mirrored.

    Args:
        length: Pixels of the scene's side.
        crop: Pixels of a crop's side; the scene may be shorter.
        overlap: Pixels that neighbours share, at most half a crop; the last two may share more.

    Example:
        >>> axis = Axis(100, crop=40, overlap=16)
        >>> axis.starts, axis.weights[:4].tolist()
        ((-1, 23, 47, 61), [0, 1, 2, 3])
    """

    length: int
    crop: int
    overlap: int

    @property
    def trim(self) -> int:
        """Pixels of a crop's border that never count."""
        return self.overlap // 16

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each crop; it may lie before the scene."""
        last = self.length + self.trim - self.crop
        if last <= -self.trim:
            return ((self.length - self.crop) // 2,)
        return (*range(-self.trim, last, self.crop - self.overlap), last)

    @cached_property
    def weights(self) -> np.ndarray:
        """How much a crop counts at each of its pixels: whole numbers, whose sums are exact."""
        inward = np.arange(self.crop)
        inward = np.minimum(inward, inward[::-1]) - self.trim
        return np.clip(inward + 1, 0, self.overlap - 2 * self.trim + 1)

    @cached_property
    def total(self) -> np.ndarray:
        """How much all crops together count at each pixel of the scene."""
        total, first = np.zeros(self.starts[-1] - self.starts[0] + self.crop), self.starts[0]
        for start in self.starts:
            total[start - first :][: self.crop] += self.weights
        return total[-first:][: self.length]

    def inside(self, first: int, end: int) -> tuple[slice, tuple[int, int]]:
        """Cut pixels at the ends of the scene; return how many are to be mirrored at each, too."""
        low, high = max(first, 0), min(end, self.length)
        return slice(low, high), (low - first, end - high)
