"""Where crops lie on a scene, and how much each counts: arithmetic of whole numbers, no pixels."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Weights are multiples of one part of so many, so that products and sums of them are exact.
PARTS = 1024


@dataclass(frozen=True)
class Axis:
    """One side of a scene, covered by crops that overlap.

    A sixteenth of an overlap is trimmed from either crop, where a network sees no further; between,
    one crop fades into the next. (To trim more and fade less shows borders: of Virginia's pixels
    5 % more changed there than elsewhere with a quarter.) Beyond the ends the scene is mirrored.

    Args:
        length: Pixels of the scene's side.
        crop: Pixels of a crop's side; the scene may be shorter.
        overlap: Pixels that neighbours share; the last two may share more.

    Example:
        >>> axis = Axis(100, crop=40, overlap=16)
        >>> axis.starts, axis.part(1)
        ((-1, 23, 47, 61), slice(24, 62, None))
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
    def edges(self) -> tuple[float, ...]:
        """Where each crop begins to count for more than the one before, and the scene's end."""
        pairs = zip(self.starts, self.starts[1:], strict=False)
        return (0, *((one + self.crop + other) / 2 for one, other in pairs), self.length)

    @property
    def fade(self) -> int:
        """Pixels in which one crop fades into the next."""
        return self.overlap - 2 * self.trim

    def part(self, index: int) -> slice:
        """Return the pixels of the scene for which a crop counts."""
        low, high = self.edges[index : index + 2]
        first = int(low - self.fade / 2) if index else 0
        last = -int(-(high + self.fade / 2) // 1) if index + 1 < len(self.starts) else self.length
        return slice(max(first, 0), min(last, self.length))

    def weights(self, index: int) -> np.ndarray:
        """Return how much a crop counts at each pixel of its part; all crops sum to exactly one."""
        part = self.part(index)
        middles = np.arange(part.start, part.stop) + 0.5
        return self._risen(index, middles) - self._risen(index + 1, middles)

    def _risen(self, edge: int, middles: np.ndarray) -> np.ndarray:
        """Return how much the crops from an edge on count together."""
        if edge in (0, len(self.starts)):
            return np.full(middles.shape, float(edge == 0))
        ramp = (middles - self.edges[edge]) / max(self.fade, 1e-9) + 0.5
        return np.round(np.clip(ramp, 0, 1) * PARTS) / PARTS

    def pixels(self, first: int, last: int | None = None) -> np.ndarray:
        """Return for each pixel of a crop the one of the scene, mirrored beyond the ends.

        Args:
            first: The crop.
            last: Another one further on: the pixels are those from the start of the first to its
                end.
        """
        period = max(2 * (self.length - 1), 1)
        end = self.starts[first if last is None else last] + self.crop
        found = np.arange(self.starts[first], end) % period
        return np.minimum(found, period - found)


def span(pixels: np.ndarray) -> slice:
    """Return the slice from the smallest to the largest."""
    return slice(int(pixels.min()), int(pixels.max()) + 1)
