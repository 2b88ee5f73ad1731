"""The eight symmetries of the square, by which training chips are augmented."""

from __future__ import annotations

import torch
from torch import Tensor

#: A view of a chip: quarter turns, and whether it is mirrored afterwards.
View = tuple[int, bool]


def all_views(square: bool = True) -> list[View]:
    """List the eight views of a square chip, or the four of one that is not square."""
    step = 1 if square else 2
    return [(turns, mirror) for turns in range(0, 4, step) for mirror in (False, True)]


def draw_views(count: int, square: bool = True) -> list[View]:
    """Draw a view for each of so many chips, from torch's random state."""
    step = 1 if square else 2
    return [
        (int(torch.randint(4 // step, ())) * step, bool(torch.rand(()) < 0.5)) for _ in range(count)
    ]


def seen(chip: Tensor, view: View) -> Tensor:
    """Turn and mirror the last two axes of an image or a mask; a label stays as it is."""
    if chip.ndim < 2:
        return chip
    turns, mirror = view
    turned = chip.rot90(turns, dims=(-2, -1))
    return turned.flip(-1) if mirror else turned


def turn_and_mirror(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Apply one of the eight symmetries of the square to each chip, at random.

    Args:
        image: (B, C, H, W). Chips that are not square are mirrored and turned by 180 degrees only.
        target: Masks (B, H, W) or (B, K, H, W), which are turned alike; labels (B,) or (B, K),
            which stay as they are.

    Returns:
        Image and target.
    """
    views = draw_views(len(image), image.shape[-1] == image.shape[-2])
    images, targets = (
        torch.stack([seen(chip, view) for chip, view in zip(chips, views, strict=True)])
        for chips in (image, target)
    )
    return images, targets
