"""No ground on two sides: which of somebody's own chips touch, and how they are split."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio.warp

from geopeft_nb.datasets.base import Bounds, Chip
from geopeft_nb.datasets.geodata import DataRequest, GeoData
from geopeft_nb.datasets.hls_water import CARD
from geopeft_nb.datasets.own.places import split_own, touching

UTM, NEXT, DEGREES = "EPSG:32633", "EPSG:32634", "EPSG:4326"
SIDE = 640.0  # metres of a chip of 64 px


def read() -> Any:
    raise AssertionError("no pixel is read to split chips")


def chip(
    name: str, x: float, y: float, crs: str | None = UTM, region: str = "all", file: str = "",
    side: float = SIDE,
) -> tuple[Chip, Bounds]:  # fmt: skip
    """A chip whose lower left corner is so many chips east and north, and its ground."""
    left, bottom = (500_000, 5_000_000) if crs and crs != DEGREES else (0, 0)
    bounds = (left + x * side, bottom + y * side, left + (x + 1) * side, bottom + (y + 1) * side)
    known = bounds if crs else None
    return Chip(name, region, file or name, read, crs, known, filled=known), bounds


def scene(
    columns: int, rows: int, file: str = "scene", **where: Any,
) -> list[tuple[Chip, Bounds]]:  # fmt: skip
    east, north = where.pop("east", 0), where.pop("north", 0)
    return [
        chip(f"{file}-{row}-{column}", east + column, north - row, file=file, **where)
        for row in range(rows)
        for column in range(columns)
    ]


def split(
    pairs: Sequence[tuple[Chip, Bounds]], splits: Sequence[str | None] = (), block: int = 2,
    **request: Any,
) -> tuple[GeoData, list[str]]:  # fmt: skip
    chips, grounds = zip(*pairs, strict=True)
    given = splits or [None] * len(chips)
    card = replace(CARD, bands=("RED",), claims=("val", "test", "holdout"), size=64)
    return split_own(chips, grounds, given, DataRequest(**request), card, block)


def assert_apart(data: GeoData) -> None:
    """No two chips on two sides overlap or share an edge, by exact arithmetic in one system."""
    for (name, one), (other, two) in combinations(data.parts.items(), 2):
        if name.startswith("holdout") and other.startswith("holdout"):
            continue  # regions that are held out may lie side by side
        assert not {x.place for x in one.chips} & {x.place for x in two.chips}
        a, b = (np.array([x.filled for x in part.chips])[:, :, None] for part in (one, two))
        b = b.transpose(2, 1, 0)
        across = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
        along = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
        assert not ((np.minimum(across, along) >= 0) & (np.maximum(across, along) > 0)).any()


def counts(data: GeoData) -> dict[str, int]:
    return {name: len(part) for name, part in data.parts.items()}


def frame(*pairs: tuple[Chip, Bounds]) -> pd.DataFrame:
    table = pd.DataFrame([x for _, x in pairs], columns=["left", "bottom", "right", "top"])
    return table.assign(crs=[x.crs for x, _ in pairs], place=[x.place for x, _ in pairs])


# What touches.


@pytest.mark.parametrize(
    ("x", "y", "touches"),
    [
        (1, 0, True), (0, -1, True), (0.5, 0.5, True), (0, 0, True), (1, 0.5, True),
        (1, 1, False), (1.1, 0, False), (-1, 1, False), (0.2, 2, False), (1.001, 0, True),
    ],
)  # fmt: skip
def test_ground_touches_where_it_overlaps_or_shares_an_edge(
    x: float, y: float, touches: bool
) -> None:
    pairs = touching(frame(chip("a", 0, 0), chip("b", x, y)), 64)
    assert pairs.shape == (2, int(touches))


def test_ground_touches_across_reference_systems() -> None:
    (_, ground) = chip("a", 0, 0)
    corner = rasterio.warp.transform_bounds(UTM, DEGREES, *ground)
    width = corner[2] - corner[0]
    same = Chip("b", "all", "b", read, DEGREES, corner), corner
    beside = [x + width * n for x, n in zip(corner, (1, 0, 1, 0), strict=True)]
    away = [x + width * n for x, n in zip(corner, (3, 0, 3, 0), strict=True)]
    table = frame(chip("a", 0, 0), same)
    assert touching(table, 64).tolist() == [[0], [1]]
    for bounds, count in ((beside, 1), (away, 0)):
        table.loc[1, ["left", "bottom", "right", "top"]] = bounds
        assert touching(table, 64).shape == (2, count)


def test_files_without_coordinates_touch_nothing_but_themselves() -> None:
    table = frame(*scene(2, 1, "a", crs=None), *scene(2, 1, "b", crs=None), chip("c", 0, 0))
    assert touching(table, 64).T.tolist() == [[0, 1], [2, 3]]


# How it is split.


def test_a_file_smaller_than_a_block_is_one_place_and_nothing_is_left_out() -> None:
    files = [x for n in range(12) for x in scene(2, 2, f"f{n:02}", east=5 * n)]
    data, notes = split(files)
    assert sum(counts(data).values()) == 48 and not any("left out" in note for note in notes)
    assert {x.place for part in data.parts.values() for x in part.chips} == {
        f"f{n:02}" for n in range(12)
    }
    assert_apart(data)


@pytest.mark.parametrize("files", [
    [chip(f"f{n:02}", 4 * (n // 2) + n % 2, 0) for n in range(20)],
    [chip(f"f{n:02}", (179, -180)[n % 2], 4 * (n // 2), DEGREES, side=1) for n in range(20)],
])  # fmt: skip
def test_files_that_touch_are_one_place(files: list[tuple[Chip, Bounds]]) -> None:
    """Pairs of neighbours, each on a side together."""
    data, _ = split(files)
    sides = {x.name: name for name, part in data.parts.items() for x in part.chips}
    assert len(sides) == 20 and all(
        sides[f"f{n:02}"] == sides[f"f{n + 1:02}"] for n in range(0, 20, 2)
    )
    assert_apart(data)


@pytest.mark.parametrize("crs", [UTM, None])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_of_one_large_scene_squares_are_places_with_a_strip_between_sides(
    crs: str | None, block: int
) -> None:
    pairs = scene(16, 16, crs=crs)
    data, notes = split(pairs, block=block)
    kept = sum(counts(data).values())
    touch = "chips that touch ground of another side are left out"
    assert f"{256 - kept} {touch}; larger block=: fewer." in notes
    # of dealt squares of 1, 2, 4 chips so many are left at least, by what touches on average
    assert kept > 256 * {1: 0.3, 2: 0.5, 4: 0.7}[block] and min(counts(data).values()) > 10
    ground = dict(zip((x.name for x, _ in pairs), (y for _, y in pairs), strict=True))
    for part in data.parts.values():
        part.chips = [replace(x, filled=ground[x.name]) for x in part.chips]
    assert_apart(data)


def test_the_same_seed_gives_the_same_split_and_another_another() -> None:
    names = [[x.name for x in split(scene(16, 16), seed=seed)[0].train.chips] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_a_few_chips_of_a_mosaic_do_not_cut_the_other_files() -> None:
    files = [*scene(16, 16), *(x for n in range(40) for x in scene(2, 2, f"f{n}", east=50 + 3 * n))]
    data, _ = split(files)
    assert_apart(data)
    small = {x.name for part in data.parts.values() for x in part.chips if x.name[0] == "f"}
    assert len(small) == 160


def test_regions_on_the_same_ground_are_dealt_alike() -> None:
    """As two versions of the same scenes are: chip n of both is on one side, none is lost."""
    pairs = [chip(f"{r}{n}", 3 * n, 0, region=r) for r in ("new", "old") for n in range(10)]
    data, notes = split(pairs)
    assert sum(counts(data).values()) == 20 and not any("left out" in note for note in notes)
    for part in data.parts.values():
        assert {x.name for x in part.chips if x.region == "old"} == {
            x.name.replace("new", "old") for x in part.chips if x.region == "new"
        }
    with pytest.raises(ValueError, match=r"'train' has no chips .* Home: old. Chips: train 0"):
        split(pairs, train_regions=["old"], holdout_regions=["new"])


def test_a_region_beside_another_is_held_out_whole_and_home_keeps_off() -> None:
    pairs = [*scene(8, 8, "a", region="a"), *scene(8, 8, "b", region="b", east=8)]
    data, _ = split(pairs, train_regions=["a"])
    assert counts(data)["holdout:b"] == 64 and data.regions == ("a",)
    assert_apart(data)


def test_too_few_places_are_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="Did you mean 'north'"):
        split([chip("a", 0, 0, region="north")], train_regions=["nort"])
    with pytest.raises(ValueError, match=r"2 chips in 2 place\(s\).*size=.*block="):
        split([chip("a", 0, 0), chip("b", 5, 0)])


# A split of one's own.


def own(**sides: int) -> tuple[list[tuple[Chip, Bounds]], list[str]]:
    """Chips of each side, numbered anew on each, on the same ground."""
    pairs = [chip(f"{side}{n}", 3 * n, 0) for side, count in sides.items() for n in range(count)]
    return pairs, [side for side, count in sides.items() for _ in range(count)]


def test_a_split_of_ones_own_is_kept_and_shared_ground_is_told() -> None:
    data, notes = split(*own(train=8, val=4, test=4))
    assert counts(data) == {"train": 8, "val": 4, "test": 4}
    for side, part in data.parts.items():
        assert {x.name.rstrip("0123456789") for x in part.chips} == {side}
    assert notes[1] == "Your own split is kept." and data.card.claims == ()
    assert notes[2].startswith("8 of its chips overlap or touch")  # four each of train and val


def test_a_split_of_ones_own_that_keeps_apart_says_so() -> None:
    pairs = [chip(f"c{n}", 3 * n, 0) for n in range(10)]
    data, notes = split(pairs, ["train"] * 6 + ["val"] * 2 + ["test"] * 2)
    assert len(notes) == 2 and data.card.claims == ("val", "test", "holdout")
    assert_apart(data)


def test_a_split_without_validation_is_kept_and_told() -> None:
    pairs = [chip(f"c{n}", 3 * n, 0) for n in range(20)]
    data, notes = split(pairs, ["train"] * 15 + ["test"] * 5)
    assert counts(data) == {"train": 15, "val": 0, "test": 5}
    assert any("It has no validation" in note for note in notes)


@pytest.mark.parametrize("side", ["test", "train", "val"])
def test_a_folder_may_be_loaded_as_one_side_only(side: str) -> None:
    pairs = [chip(f"c{n}", 3 * n, 0) for n in range(2)]
    data, _ = split(pairs, [side] * 2)
    assert counts(data) == {"train": 0, "val": 0, "test": 0} | {side: 2}
    if side == "test":
        assert len(data.judged["all"]) == 2
    with pytest.raises(ValueError, match=r"'(train|all)' has no chips"):
        assert data.statistics if side != "train" else data.judged


def test_a_region_is_held_out_of_a_split_of_ones_own() -> None:
    pairs = [chip(f"{r}{n}", 3 * n + 99 * (r == "b"), 0, region=r) for r in "ab" for n in range(6)]
    data, _ = split(
        pairs, ["train", "train", "train", "val", "val", "test"] * 2, train_regions=["a"]
    )
    assert counts(data) == {"train": 3, "val": 2, "test": 1, "holdout:b": 6}
