"""Layers of a map: codes and what they mean, and what a prediction gets wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.pictures.chips import GREY, painted

#: Colours of what a prediction gets wrong (Okabe-Ito, told apart with any colour vision).
MISSED_COLOUR, FALSE_ALARM_COLOUR = "#D55E00", "#CC79A7"
#: What a legend has for pixels that are striped in grey.
STRIPES = "stripes"
#: Codes of a difference layer. With more than two classes every error is MISSED ("wrong class").
CORRECT, UNLABELLED, MISSED, FALSE_ALARM = 0, 1, 2, 3
#: Code of pixels of which nothing is known; it is clear.
GAP = 255


@dataclass(frozen=True)
class Layer:
    """A code for each pixel, and how it is shown.

    Attributes:
        name: Its name in the controls.
        codes: (H, W) uint8, `GAP` where nothing is known.
        legend: Meaning -> ``"#rrggbb"``, or `STRIPES`.
        colours: Code -> ``"#rrggbb"`` or ``"#rrggbbaa"``; codes beyond are clear.
        words: Code -> what a click says.
        caption: What stands above it in the figure; its name by default.
        striped: (H, W) bool, True where the ground is striped in grey, or None.
    """

    name: str
    codes: NDArray[np.uint8]
    legend: Mapping[str, str]
    colours: Sequence[str]
    words: Sequence[str]
    caption: str = ""
    striped: NDArray[np.bool_] | None = None

    @property
    def stripes(self) -> NDArray[np.bool_]:
        """Where a grey stripe lies: some 50 diagonal ones over a layer."""
        if self.striped is None:
            return np.zeros(self.codes.shape, bool)
        row, column = np.indices(self.codes.shape)
        width = max(1, max(self.codes.shape) // 100)
        return self.striped & ((row + column) // width % 2 == 0)

    def painted(self) -> NDArray[np.uint8]:
        """Return its colours (H, W, 4)."""
        stripe = painted(np.zeros((1, 1), np.uint8), [GREY])
        return np.where(self.stripes[..., None], stripe, painted(self.codes, self.colours))


def difference(
    label: NDArray[np.uint8], prediction: NDArray[np.uint8], count: int
) -> NDArray[np.uint8]:
    """Code where a prediction differs from the label.

    Args:
        label: Classes (H, W); `count` is no label, `GAP` no chip.
        prediction: Classes (H, W).
        count: Number of classes. With two, the second one can be missed or a false alarm.

    Returns:
        Codes (H, W): CORRECT, UNLABELLED, MISSED, FALSE_ALARM or GAP.
    """
    codes = np.where(label == prediction, CORRECT, MISSED)
    if count == 2:
        codes[(label == 0) & (prediction == 1)] = FALSE_ALARM
    codes[label == count] = UNLABELLED
    codes[label == GAP] = GAP
    return codes.astype(np.uint8)
