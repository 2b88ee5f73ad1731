"""Checks of the exercises of lesson 02."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch

from geopeft_nb.classroom.check import Finding, ask_number, exercise

if TYPE_CHECKING:
    from torch import Tensor

    from geopeft_nb.backbones.base import Backbone


@exercise("02/normalise", "an image of the shape of the reflectance, scaled for the network")
def normalise(answer: Tensor, image: Tensor, backbone: Backbone) -> Finding:
    """Compare with the network's own scaling, and recognise the usual slips."""
    if not hasattr(answer, "shape"):
        return f"It wants an image as a tensor, and this is of type {type(answer).__name__}."
    answer = torch.as_tensor(answer)
    if tuple(answer.shape) == (1, *image.shape):
        return "A batch of one image came back. Without the batch it has the shape that was asked."
    if tuple(answer.shape) != tuple(image.shape):
        return (
            f"The image has shape {tuple(image.shape)} and your answer {tuple(answer.shape)}. Give "
            "the statistics a shape that is repeated over rows and columns: [:, None, None]."
        )
    offset, divisor = (value[:, None, None] for value in backbone.scaling())
    right = (image - offset) / divisor

    def is_close(value: Tensor) -> bool:
        return bool((answer - value).abs().max() < 1e-3 * max(1.0, float(value.abs().max())))

    if bool((answer - right).abs().max() < 1e-3):
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
    if is_close((image - own.mean(1)[:, None, None]) / own.std(1)[:, None, None]):
        return "Those are the chip's own mean and spread. The network expects those of pretraining."
    if is_close((image - image.mean()) / image.std()):
        return "One mean and one spread for all bands. Each band has its own, see backbone.card."
    if float(answer.min()) == 0 and math.isclose(float(answer.max()), 1, abs_tol=1e-6):
        return "That runs from 0 to 1. The network expects mean 0 and spread 1 over pretraining."
    return "What should a pixel become that is as bright as the mean, and one that is a std above?"


@exercise("02/tokens", "a function of height, width, frames and patch_size", Callable)
def tokens(answer: Callable) -> Finding:
    """Ask the function for sizes of which patches fill only some."""
    cases = [(64, 64, 1, 8), (224, 224, 3, 16), (96, 32, 1, 8), (50, 64, 1, 8), (100, 30, 4, 16)]
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


@exercise("02/hidden_error", "the root mean square error on hidden pixels")
def hidden_error(answer: object, image: Tensor, rebuilt: Tensor, mask: Tensor) -> Finding:
    """Compare with the error over hidden pixels of all bands."""
    answer = _plain(answer)
    if isinstance(answer, bool) or not isinstance(answer, Real):
        return f"It wants one number, and this is of type {type(answer).__name__}."
    number = float(answer)
    difference = rebuilt - image  # (B, C, T, H, W)
    hidden = (mask > 0)[:, None].expand_as(difference)
    squared = float(difference[hidden].square().mean())

    def near(value: float) -> bool:
        return math.isclose(number, value, rel_tol=0.006)  # three digits, as a number is read off

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


def _plain(value: object) -> object:
    """Return the number in an array or tensor that holds just one."""
    single = (
        isinstance(value, torch.Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1
    )
    return value.item() if single else value  # type: ignore[attr-defined]
