"""Checks of the exercises of lesson 12."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from geopeft_nb.classroom.check import Finding, Slip, ask, ask_number, exercise, slip_of
from geopeft_nb.open_files import open_raster


@exercise("12/fill", "the number that stands where the sensor saw nothing", (int, float))
def fill(answer: float, folder: Path) -> Finding:
    """Count the pixels that have this number in all bands."""
    share = {path.parent.parent.name: [] for path in _images(folder)}
    for path in _images(folder):
        with open_raster(path) as file:
            pixels = file.read()
        share[path.parent.parent.name].append((pixels == answer).all(axis=0).mean())
    found = [float(np.mean(part)) for part in share.values()]
    if not any(found):
        return "No pixel has this number in all bands. The table has a column for it."
    if min(found) < 0.005:
        return "It fills few pixels, and not in all of the deliveries. Look for one that both have."
    return ""


def _images(folder: Path) -> list[Path]:
    return sorted(Path(folder).rglob("images/*.tif"))


@exercise("12/reflectance", "a function of numbers and an offset", Callable)
def reflectance(answer: Callable) -> Finding:
    """Try numbers of both baselines, and of one that may come."""
    numbers = np.array([[900, 1_500], [3_000, 11_234]], np.float32)
    for offset in (0, -1_000, 250):
        words = f"For the numbers {numbers.astype(int).tolist()} and offset {offset}"
        found = np.asarray(ask(words, answer, numbers.copy(), offset))
        if found.dtype == object:
            return f"{words} it returned {found.item() if not found.ndim else found!r:.80}."
        if found.dtype.kind != "f":
            return f"{words} it returned {found.dtype}. Reflectance has decimals."
        right = (numbers + offset) / 10_000
        if np.shape(found) != right.shape:
            return f"{words} it returned the shape {np.shape(found)}, and not {right.shape}."
        ends = [f"{np.min(part):.4g} to {np.max(part):.4g}" for part in (found, right)]
        slips = {
            "": right,
            "the offset is subtracted. It has a sign already: add it.": (numbers - offset) / 10_000,
            "it is far below 0. What does the rule do first?": numbers / 10_000 + offset,
            "it cuts off what lies below 0 or above 1. Shadow and ice do; keep them.": right.clip(
                0, 1
            ),
            "it cuts off what lies below 0. Shadow does; keep it.": right.clip(0),
        }
        otherwise = f"it returned values from {ends[0]}, and should from {ends[1]}."
        if off := slip_of(found, slips, otherwise):
            return f"{words} {off}"
    return ""


@exercise("12/offset", "a dictionary with the offset of each delivery", dict)
def offset(answer: dict[str, float], folder: Path) -> Finding:
    """Compare the two deliveries by their darkest ground."""
    names = {path.parent.parent.name for path in _images(folder)}
    if {*answer} != names:
        return f"It wants an offset for each of {', '.join(sorted(names))}."
    answer = {name: ask_number(f"For {name}", answer.get, name) for name in names}
    if any(0 < abs(value) < 1 for value in answer.values()):
        return "That is in reflectance. The offset is added to the numbers as they are stored."
    if {*map(abs, answer.values())} - {0, 1_000}:
        return "ESA's rule knows two offsets."
    if 1_000 in answer.values():
        return "The rule *adds* the offset: which sign takes the 1,000 away again?"
    low = {}
    for name in names:
        darkest = []
        for path in _images(Path(folder) / name):
            with open_raster(path) as file:
                pixels = file.read()
            darkest.append(np.percentile(pixels[:, (pixels > 0).any(axis=0)], 1))
        low[name] = (np.median(darkest) + answer[name]) / 10_000
    if min(low.values()) < -0.02:
        return "One delivery would have reflectance far below 0."
    if max(low.values()) - min(low.values()) > 0.05:
        return "The darkest ground of one delivery would be much brighter than that of the other."
    return ""


@exercise("12/outside", "a function of distances and a limit that returns a share", Callable)
def outside(answer: Callable) -> Finding:
    """Try a layer with pixels at the limit, and one without data."""
    layer = np.array([[0, 90, 110, 20, 255, 250, 100], [30, 255, 40, 70, 130, 10, 50]], np.uint8)
    words = "For distances of which 3 of 12 lie beyond 100"
    found = ask_number(words, answer, layer.copy(), 100)
    if found == ask_number("With a limit of 60", answer, layer.copy(), 60):
        return f"{words}, and 6 beyond 60, it returned {found:.3g} each time. Use `limit`."
    slips = {
        "": 3 / 12,
        "it counts ground that nobody saw as outside: 255 is no distance.": 5 / 14,
        "it counts ground that nobody saw above the line: 255 is no distance.": 5 / 12,
        "it divides by all pixels, also by those without data.": 3 / 14,
        "it takes a distance of 0 for no data. It is the ground of training.": 3 / 11,
        "it counts the other side.": 9 / 12,
        "it counts the other side, without what lies at the limit.": 8 / 12,
        "it counts what lies just at the limit. Beyond means more.": 4 / 12,
        "it returned a number of pixels. A share is wanted.": 3.0,
        "it wants a share from 0 to 1, not per cent.": 25.0,
    }
    return slip_of(found, slips, f"{words} it returned {found:.3g}.", near=0.003)


@exercise("12/choose", "a function that returns corners (row, column) of squares", Callable)
def choose(answer: Callable) -> Finding:
    """Count what the squares cover in layers that are not square, with patches at random places."""
    random = np.random.default_rng(5)
    for size, count in ((8, 3), (10, 2)):
        layer = random.integers(5, 90, (40, 64)).astype(np.uint8)
        layer[:16, :24] = 255  # nobody saw this, and it is no distance
        layer[20:34, 57:] = random.integers(90, 140, (14, 7))  # a grid of 10 goes over the edge
        layer[2:10, 50:61] = 130
        layer[18:34, :24] = 99  # nearly beyond
        layer[25, 5:9] = 250  # far, and tiny
        words = f"For a layer of 40 x 64, {count} squares of {size}"
        made = ask(words, answer, layer.copy(), 100, size, count)
        corners = _squares(words, made, size, count)
        beyond = (layer > 100) & (layer != 255)
        tiles = [
            beyond[r : r + size, c : c + size].sum()
            for r in range(0, 41 - size, size)
            for c in range(0, 65 - size, size)
        ]
        found = [beyond[r : r + size, c : c + size].sum() for r, c in corners]
        unseen = [(layer[r : r + size, c : c + size] == 255).mean() for r, c in corners]
        if sum(found) >= sum(sorted(tiles)[-count:]):
            continue
        if max(unseen) > 0.5:
            return f"{words} one lies where nobody saw anything: 255 is no distance."
        if not any(found):
            return f"{words} none covers any ground beyond the limit."
        return (
            f"{words} cover {sum(found)} pixels beyond the limit, and squares of a plain grid "
            f"cover more, {sum(sorted(tiles)[-count:])}."
        )
    return ""


def _squares(words: str, corners: Any, size: int, count: int) -> list[tuple[int, int]]:
    """Return corners of squares, or say what is off with them, whatever they cover."""
    try:
        found = [(float(row), float(column)) for row, column in corners]
    except (TypeError, ValueError) as error:
        raise Slip(f"{words} it returned {corners!r:.80}, no pairs (row, column).") from error
    pairs = [(int(row), int(column)) for row, column in found]
    if pairs != found:
        raise Slip(f"{words} a corner lies within a pixel: rows and columns are whole numbers.")
    if len(pairs) != count:
        raise Slip(f"{words} the number of corners is {len(pairs)}, and should be {count}.")
    for row, column in pairs:
        if not (0 <= row <= 40 - size and 0 <= column <= 64 - size):
            where = f"the corner {(row, column)} goes over the edge"
            raise Slip(f"{words} {where}. Is it upper left, row first?")
    for number, (row, column) in enumerate(pairs):
        if any(abs(row - r) < size and abs(column - c) < size for r, c in pairs[:number]):
            if len({*pairs}) == count and all(r < 40 // size and c < 64 // size for r, c in pairs):
                raise Slip(f"{words} two overlap. Are these numbers of tiles? It wants pixels.")
            raise Slip(f"{words} two of them overlap: the same ground would be labelled twice.")
    return pairs


@exercise("12/other_scale", "a function of two arrays of means: True or False", Callable)
def other_scale(answer: Callable) -> Finding:
    """Try the same scale, larger and smaller numbers, and one odd band."""
    trained = np.array([0.06, 0.08, 0.09, 0.25, 0.20, 0.12])
    cases = [
        ("the same ground", trained * 1.3, False),
        ("numbers 39 times as large", trained * 39, True),
        ("numbers 39 times as small", trained / 39, True),
        ("numbers 9 times as large", trained * 9, False),
        ("one band of six that differs", trained * [1, 1, 1, 1, 1, 30], False),
        ("four bands of six 11 times as large", trained * [11, 11, 11, 1, 1, 11], True),
        ("three bands of six 11 times as large", trained * [11, 11, 11, 1, 1, 1], False),
        ("two bands of three 11 times as large", trained[:3] * [11, 11, 1], True),
        ("two bands of six larger and two smaller", trained * [11, 11, 1, 1, 1 / 11, 1 / 11], True),
    ]
    for words, found, right in cases:
        said = ask(f"For {words}", answer, trained[: len(found)].copy(), found)
        said = said.item() if getattr(said, "ndim", None) == 0 else said
        if not isinstance(said, bool):
            return f"For {words} it returned {said!r}, neither True nor False."
        if bool(said) != right:
            return f"For {words} it says {bool(said)}."
    return ""
