"""From reflectance and classes to pictures: contrast, composites, colours and their legend."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.bands import band_indices, band_names

TRUE_COLOUR = ("RED", "GREEN", "BLUE")

#: Colour of what has no label.
GREY = "#9A9A9A"
_GAMMA = 0.75  # brightens the dark majority of a scene with a few bright clouds or beaches


def picture_of(image: NDArray[np.float32], bands: Sequence[str]) -> tuple[NDArray[np.uint8], str]:
    """Turn reflectance into a picture: true colour where the bands allow it, else one band.

    Args:
        image: Reflectance (C, H, W), NaN where there is no chip.
        bands: Names of the C bands.

    Returns:
        Picture (H, W, 3) with values 1-255, each band from its 2nd to its 98th percentile and
        brightened, and 0 where there is no chip; and a caption.
    """
    chosen, words = image[:1], f"band {bands[0]}"
    if {*band_names(bands)} >= set(TRUE_COLOUR):
        chosen = image[band_indices(TRUE_COLOUR, bands)]
        words = f"true colour: {', '.join(TRUE_COLOUR)}"
    usable = np.isfinite(chosen).all(axis=0)
    low, high = np.percentile(chosen[:, usable], [2, 98], axis=1)[:, :, None, None]
    scaled = np.clip((chosen - low) / np.maximum(high - low, 1e-6), 0, 1) ** _GAMMA
    drawn = np.where(usable, np.nan_to_num(scaled) * 254 + 1, 0).round().astype(np.uint8)
    return np.broadcast_to(drawn, (3, *usable.shape)).transpose(1, 2, 0), words


def last_date(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """Take the last date (C, H, W) of an image (C, T, H, W), and say so; others stay."""
    if image.ndim == 3:
        return image, ""
    return image[:, -1], f", the last of {image.shape[1]} dates"


def painted(codes: NDArray[np.integer[Any]], colours: Sequence[str]) -> NDArray[np.uint8]:
    """Paint codes (H, W) in ``"#rrggbb"`` or ``"#rrggbbaa"``, (H, W, 4); 255 beyond is clear."""
    values = bytes.fromhex("".join(colour[1:].ljust(8, "f") for colour in colours))
    return np.frombuffer(values.ljust(4 * 256, b"\0"), np.uint8).reshape(-1, 4)[codes]


def legend_of(
    masks: Iterable[NDArray[np.int64]], classes: Mapping[str, str], ignore_index: int
) -> list[tuple[str, str]]:
    """Return name and colour of what class maps show; a few classes are all named."""
    present = {int(value) for mask in masks for value in np.unique(mask)}
    few, named = len(classes) <= 4, enumerate(classes.items())
    entries = [entry for index, entry in named if few or index in present]
    return entries + [("no label", GREY)] * (ignore_index in present)
