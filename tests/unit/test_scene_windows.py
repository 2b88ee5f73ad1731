"""Crops cover a scene: each pixel once in sum, whatever the sizes."""

import numpy as np

from geopeft_nb.evaluation.windows import Axis

RNG = np.random.default_rng(0)
AXES = [
    Axis(int(length), int(crop), int(RNG.integers(0, crop * 3 // 4 + 1)))
    for length, crop in zip(RNG.integers(1, 400, 300), RNG.integers(4, 100, 300), strict=True)
]


def test_the_weights_of_all_crops_sum_to_exactly_one() -> None:
    for axis in AXES:
        total = np.zeros(axis.length)
        for index, start in enumerate(axis.starts):
            part, weights = axis.part(index), axis.weights(index)
            total[part] += weights
            assert (weights >= 0).all(), axis
            assert start <= part.start <= part.stop <= start + axis.crop, axis
        assert (total == 1).all(), axis  # exactly: weights are parts of 1024


def test_a_crop_takes_the_pixels_where_it_lies_and_mirrors_beyond() -> None:
    for axis in AXES[:100]:
        pixels = np.arange(axis.length)
        mirrored = np.pad(pixels, 400, mode="reflect") if axis.length > 1 else np.zeros(801, int)
        for index, start in enumerate(axis.starts):
            expected = mirrored[400 + start : 400 + start + axis.crop]
            assert (axis.pixels(index) == expected).all(), axis


def test_ends_of_crops_are_trimmed_and_the_scene_is_mirrored_for_it() -> None:
    axis = Axis(100, 40, 32)
    assert axis.starts[:2] == (-2, 6) and axis.starts[-1] == 62
    # 2 px are trimmed on either side of what is shared, and 28 px fade
    assert [axis.part(i) for i in range(2)] == [slice(0, 36), slice(8, 44)]
    assert Axis(100, 40, 8).weights(1)[:5].tolist() == [0.0625, 0.1875, 0.3125, 0.4375, 0.5625]
