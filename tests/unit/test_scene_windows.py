"""Crops cover a scene: each pixel counts somewhere, whatever the sizes."""

import numpy as np

from geopeft_nb.evaluation.windows import Axis

RNG = np.random.default_rng(0)
AXES = [
    Axis(int(length), int(crop), int(RNG.integers(0, crop // 2 + 1)))
    for length, crop in zip(RNG.integers(1, 400, 300), RNG.integers(4, 100, 300), strict=True)
]


def test_every_pixel_counts_and_neighbours_fade_into_each_other() -> None:
    for axis in AXES:
        assert axis.total.shape == (axis.length,) and axis.total.min() >= 1, axis
        first, *others = axis.starts
        for start in others[:-1]:  # the last two may share more
            shared = first + axis.crop - start
            both = axis.weights[-shared:] + axis.weights[:shared] if shared else np.ones(1)
            assert (both == axis.overlap - 2 * axis.trim + 1).all(), axis
            first = start


def test_crops_that_reach_beyond_a_scene_say_by_how_much() -> None:
    for axis in AXES:
        for start in axis.starts:
            inside, (before, after) = axis.inside(start, start + axis.crop)
            assert 0 <= inside.start < inside.stop <= axis.length, axis
            assert before + inside.stop - inside.start + after == axis.crop, axis


def test_ends_of_crops_are_trimmed_and_the_scene_is_mirrored_for_it() -> None:
    axis = Axis(100, 40, 16)
    assert axis.starts == (-1, 23, 47, 61)
    # 1 px is trimmed on either side of what is shared, and 14 px fade
    assert axis.weights[:18].tolist() == [*range(16), 15, 15]
    assert axis.total[:50].tolist() == [*range(1, 15), *[15] * 36]
