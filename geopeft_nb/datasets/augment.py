"""The eight symmetries of the square, by which training chips are augmented."""

import torch
from torch import Tensor

#: A view of a chip: quarter turns, and whether it is mirrored afterwards.
View = tuple[int, bool]


def all_views(square: bool = True) -> list[View]:
    """List the eight views of a square chip, or the four of one that is not square."""
    return [(turns, flip) for turns in range(0, 4, 1 if square else 2) for flip in (False, True)]


def draw_views(count: int, square: bool = True) -> list[View]:
    """Draw a view for each of so many chips, from torch's random state."""
    turns = [0, 1, 2, 3] if square else [0, 2]
    drawn = [(torch.randint(len(turns), ()), torch.rand(()) < 0.5) for _ in range(count)]
    return [(turns[int(turn)], bool(mirror)) for turn, mirror in drawn]


def turned(chip: Tensor, view: View) -> Tensor:
    """Turn and mirror the last two axes of an image or a mask; a label stays as it is."""
    if chip.ndim < 2:
        return chip
    turns, mirrored = view
    found = chip.rot90(turns, dims=(-2, -1))
    return found.flip(-1) if mirrored else found


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
    return torch.stack([*map(turned, image, views)]), torch.stack([*map(turned, target, views)])
