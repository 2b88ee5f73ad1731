"""Checks of the exercises of lesson 02."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch

from geopeft_nb.classroom.check import Finding, ask, ask_number, exercise

if TYPE_CHECKING:
    from torch import Tensor


@exercise("02/normalise", "a function of image, mean and std", Callable)
def normalise(answer: Callable) -> Finding:
    """Try a random image that is not square, with statistics of its own for each band."""
    draw = torch.Generator().manual_seed(0)
    image = 0.4 * torch.rand(5, 9, 7, generator=draw)
    mean, std = (0.05 + 0.2 * torch.rand(5, generator=draw) for _ in range(2))
    found = ask("For a random image", answer, image.clone(), mean.clone(), std.clone())
    if not hasattr(found, "shape"):
        return f"It wants an image as a tensor, and this is of type {type(found).__name__}."
    return _scaled_right(torch.as_tensor(found), image, mean, std)


def _scaled_right(answer: Tensor, image: Tensor, mean: Tensor, std: Tensor) -> Finding:
    if tuple(answer.shape) == (1, *image.shape):
        return "A batch of one image came back. Without the batch it has the shape that was asked."
    if tuple(answer.shape) != tuple(image.shape):
        return (
            f"The image has shape {tuple(image.shape)} and your answer {tuple(answer.shape)}. Give "
            "the statistics a shape that is repeated over rows and columns: [:, None, None]."
        )
    offset, divisor = (value[:, None, None] for value in (mean, std))
    right = (image - offset) / divisor

    def is_close(value: Tensor) -> bool:
        return bool((answer - value).abs().max() < 1e-3 * max(1.0, float(value.abs().max())))

    if torch.allclose(answer.double(), right.double(), atol=1e-4):
        return ""
    if is_close(-right):
        return "The sign is turned round: brighter than usual should be above zero."
    if is_close((image - offset) / divisor**2):
        return "That divides by the variance. Which unit has it, and which has the image?"
    if is_close((1e4 * image - offset) / divisor):
        return "The image is in reflectance 0-1 already. Do not multiply it by 10,000."
    if is_close(image - offset):
        return "The mean is gone, but the spread is still that of each band."
    if is_close(image / divisor):
        return "The spread is right, but nothing was taken off before dividing."
    if is_close((image - offset) * divisor):
        return "The standard deviation goes below the line."
    if is_close(image / divisor - offset) or is_close(image - offset / divisor):
        return "Mind the order: the mean comes off first, and the whole difference is divided."
    own = image.flatten(1)
    spreads = [own.std(1, correction=n)[:, None, None] for n in (0, 1)]
    if any(is_close((image - own.mean(1)[:, None, None]) / spread) for spread in spreads):
        return "Those are the chip's own mean and spread. The network expects those of pretraining."
    if is_close((image - image.mean()) / image.std()):
        return "One mean and one spread for all bands. Each band has its own."
    if is_close((image - mean.mean()) / std.mean()):
        return "The statistics were averaged over the bands. Each band has its own."
    if float(answer.min()) == 0 and math.isclose(float(answer.max()), 1, abs_tol=1e-6):
        return "That runs from 0 to 1. The network expects mean 0 and spread 1 over pretraining."
    return "What should a pixel become that is as bright as the mean, and one that is a std above?"


@exercise("02/tokens", "a function of height, width, frames and patch_size", Callable)
def tokens(answer: Callable) -> Finding:
    """Ask the function for sizes of which patches fill only some."""
    cases = [(224, 224, 3, 16), (64, 64, 1, 8), (96, 32, 1, 8), (50, 64, 1, 8), (100, 30, 4, 16)]
    for case in cases:
        height, width, frames, patch = case
        words = f"For {height} x {width} px, {frames} frame(s) and patches of {patch} px"
        count = ask_number(words, answer, *case)
        rows, columns = -(-height // patch), -(-width // patch)
        if count == rows * columns * frames:
            continue
        if count == rows * columns * frames + 1:
            return f"{words} it counts one too many. The class token stands for no place."
        if count == (height // patch + 1) * (width // patch + 1) * frames:
            return f"{words} it adds a patch even where patches fill the image exactly."
        if count == rows * columns:
            return f"{words} it leaves out time: each frame is cut into patches of its own."
        if count == height * width * frames // patch:
            return f"{words} it divides once by the patch side. A patch is a square."
        if count == (height // patch) * (width // patch) * frames:
            return f"{words} it drops the border. The network pads until patches fill the image."
        if math.isclose(count, height * width * frames / patch**2, abs_tol=1):
            return (
                f"{words} it gives {count:g}. Rows and columns are whole numbers, each by itself."
            )
        return f"{words} it gives {count:g}. Count rows, columns and frames, one by one."
    return ""


@exercise("02/pairs", "a factor", Real)
def pairs(answer: float) -> Finding:
    """Compare with the square of the factor of the tokens."""
    slips = {
        2: "That is how much the side shrinks. A patch is a square.",
        4: "That is how many times as many tokens. Each looks at every other.",
        8: "Four times as many tokens, each beside how many times as many?",
        64: "That is one factor of four too many.",
        1 / 16: "Smaller patches make more tokens, not fewer.",
        1 / 4: "Smaller patches make more tokens, not fewer.",
    }
    if answer == 16:
        return ""
    return slips.get(float(answer), "How many times as many tokens? And beside how many each?")


@exercise("02/fill", "a function of image and hidden", Callable)
def fill(answer: Callable) -> Finding:
    """Fill random images, and compare with the mean of what is visible."""
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 6, 8, generator=draw) + torch.arange(3.0)[:, None, None]
    hidden = torch.rand(2, 1, 6, 8, generator=draw) < 0.6
    row, column = (~hidden[0, 0]).nonzero()[0]
    image[0, :, row, column] = 0  # a visible pixel may be 0
    found = ask("For random images", answer, image.clone(), hidden.clone())
    if not isinstance(found, torch.Tensor) or found.shape != image.shape:
        return f"It should return a tensor of the images' shape, {(*image.shape,)}."
    found, visible = found.float(), (~hidden).float()
    sums, count = (image * visible).sum((2, 3), keepdim=True), visible.sum((2, 3), keepdim=True)
    if torch.allclose(found, torch.where(hidden, sums / count, image), atol=1e-5):
        return ""
    slips = {
        "It still peeks: the mean is of all pixels.": image.mean((2, 3), keepdim=True),
        "It fills with the mean of the hidden pixels, which nobody can see.": (
            image - image * visible
        ).sum((2, 3), keepdim=True)
        / (48 - count),
        "The sum is of visible pixels; it is divided by the number of all.": sums / 48,
        "It fills with zero. Which mean is it?": torch.zeros(1),
        "One mean for all bands: each has its own.": sums.sum(1, keepdim=True) / count / 3,
        "One mean for all images: each has its own.": sums.sum(0) / count.sum(0),
    }
    for words, value in slips.items():
        if torch.allclose(found, torch.where(hidden, value, image), atol=1e-5):
            return words
    if not torch.allclose(found[~hidden.expand_as(found)], image[~hidden.expand_as(image)]):
        return "Visible pixels were changed."
    return "Sum the visible pixels of each band, and divide by how many they are."


@exercise("02/two_bands", "two names of bands", (tuple, list))
def two_bands(answer: tuple[str, str], pixels: dict, bands: tuple[str, ...]) -> Finding:
    """Separate land and water by the normalised difference, in every region."""
    if len(answer) != 2 or any(name not in bands for name in answer):
        return f"It wants two of {', '.join(bands)}."
    if answer[0] == answer[1]:
        return "The same band twice: their difference is zero everywhere."
    first, second = (bands.index(name) for name in answer)
    found = []
    for classes in pixels.values():
        land, water = (
            (part[:, first] - part[:, second]) / (part[:, first] + part[:, second] + 1e-6)
            for part in classes.values()
        )
        found.append((water.mean() - land.mean()) / np.sqrt((land.var() + water.var()) / 2))
    if min(found) >= 5:
        return ""
    if max(found) <= -5:
        return "Water comes out below land. Turn the pair round."
    words = ", ".join(f"{value:.1f}" for value in found)
    hint = "In one region it does, in the other not." if max(found) >= 5 else "Where is water dark?"
    return f"The regions are separated by {words} spreads. {hint}"


@exercise("02/hidden_error", "a function of image, rebuilt and mask", Callable)
def hidden_error(answer: Callable) -> Finding:
    """Try random images whose bands are wrong by different amounts, visible pixels too."""
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(1, 5, 1, 8, 12, generator=draw)
    wrong = torch.randn(1, 5, 1, 8, 12, generator=draw)
    rebuilt = image + wrong * torch.arange(1.0, 6)[:, None, None, None]
    mask = (torch.rand(1, 1, 8, 12, generator=draw) < 0.7).float()
    given = (image.clone(), rebuilt.clone(), mask.clone())
    number = ask_number("For a random image", answer, *given)
    difference = rebuilt - image  # (B, C, T, H, W)
    hidden = (mask > 0)[:, None].expand_as(difference)
    squared = float(difference[hidden].square().mean())

    def near(value: float) -> bool:
        return math.isclose(number, value, rel_tol=1e-4)

    if near(math.sqrt(squared)):
        return ""
    if near(squared):
        return "That is the mean of the squares. Its root is still missing."
    bands = difference.shape[1]
    if near(math.sqrt(bands * squared)) or near(bands * squared):
        return f"Each hidden pixel has {bands} bands, and the sum was divided by the pixels alone."
    everywhere = float(difference.square().mean())
    if near(math.sqrt(everywhere)) or near(everywhere):
        return "That counts visible pixels too. Nothing had to be rebuilt there, so they flatter."
    if near(float(difference[hidden].abs().mean())):
        return "That is the mean absolute error. It weighs large errors less; square first."
    if near(float(difference[~hidden].square().mean().sqrt() if (~hidden).any() else 0)):
        return "Those are the visible pixels. Which value of the mask says hidden?"
    of_bands = [float(difference[:, i][hidden[:, i]].square().mean().sqrt()) for i in range(bands)]
    if any(near(value) for value in of_bands):
        return "That is the error of one band. All of them count."
    return "Over which pixels and which bands did you average, and what before taking the root?"
