"""Arguments of other kinds than the annotations say, and of absurd sizes, at all public doors."""

import math
from collections.abc import Callable
from typing import Any

import peft
import pytest

import geopeft_nb as gp
from geopeft_nb.errors import check_values

#: Values that no argument should have; a door takes those that are not of its kind.
TEXT, NAN, LIST, NUL, LONG = "x", math.nan, [], "a\0b", "n" * 5_000
NUMBERS = (-1, NAN, math.inf, TEXT, LIST, 1e300, 10**5_000)
PATHS = (-1, NAN, LIST, NUL, LONG, "n" * 300, "\ud800", b"a", "~nobody_here/x")
NAMES = (-1, NAN, TEXT, [0], {"a": 1}, [NUL])
TEXTS = (-1, NAN, LIST, NUL, LONG)


@pytest.fixture(scope="module")
def data() -> Any:
    return gp.load_data("scenes")


def model(data: Any, method: Any = "lora", **options: Any) -> Any:
    built = gp.build_model(gp.load_backbone("geopeft_tiny"), data)
    return gp.attach(built, method, **options)


def backbone(_: Any, **options: Any) -> object:
    return gp.load_backbone(**{"name": "geopeft_tiny", "weights": None} | options)


def folder(_: Any, **options: Any) -> object:
    return gp.load_data("folder", **{"root": "."} | options)


def loaded(_: Any, **options: Any) -> object:
    return gp.load_data(**{"name": "scenes"} | options)


def left_out(_: Any, **options: Any) -> object:
    return list(gp.leave_one_region_out(**{"name": "scenes"} | options))


def folds(data: Any, **options: Any) -> object:
    return list(gp.knndm_folds(data, **options))


def built(data: Any, /, **options: Any) -> object:
    usual = {"backbone": gp.load_backbone("geopeft_tiny"), "data": data}
    return gp.build_model(**usual | {"decoder": "fcn"} | options)


def fitted(data: Any, **options: Any) -> object:
    return gp.fit(model(data), data, **options)


def config(data: Any, **options: Any) -> object:
    return model(data, peft.LoraConfig(target_modules=["q", "v"], **options))


def of(method: str) -> Callable[..., object]:
    return lambda data, **options: model(data, method, **options)


def written(data: Any, **options: Any) -> object:
    return gp.save_adapter(**{"model_or_run": model(data), "folder": "."} | options)


DOORS: list[tuple[Callable[..., object], dict[str, tuple[object, ...]]]] = [
    (backbone, {
        "seed": NUMBERS, "gsd": NUMBERS, "img_size": (*NUMBERS, 8 * 10**8, True),
        "frames": (*NUMBERS, True), "weights": PATHS, "bands": NAMES, "name": TEXTS,
        "layers": (-1, NAN, TEXT, [NAN], {0: 1}),
    }),
    (loaded, {
        "seed": NUMBERS, "size": (*NUMBERS, 8 * 10**8), "bands": (*NAMES, []), "root": PATHS,
        "train_regions": NAMES, "holdout_regions": NAMES, "download": (TEXT, 2), "name": TEXTS,
    }),
    (folds, {"k": (*NUMBERS, True, 8 * 10**8), "seed": NUMBERS,
             "to": (-1, NAN, TEXT, LIST, [[91.0, 0.0]], [[0.0, NAN]], [["a", "b"]], [[]])}),
    (left_out, {"regions": NAMES, "seed": NUMBERS, "bands": NAMES}),
    (folder, {
        "block": NUMBERS, "scale": NUMBERS, "resolution": (*NUMBERS, 1e-9), "nodata": (TEXT, LIST),
        "offset": (NAN, TEXT, LIST, 1e300), "unlabelled": (NAN, TEXT, [TEXT]),
        "classes": (*NAMES, {TEXT: "a"}, {1: NAN}), "band_names": NAMES, "labels": PATHS,
        "label_field": TEXTS,
    }),
    (built, {
        "decoder": TEXTS, "channels": NUMBERS, "convs": (*NUMBERS, 100), "seed": NUMBERS,
        "data": TEXTS, "backbone": TEXTS, "pad": (TEXT, 1), "normalise": TEXTS,
    }),
    (fitted, {
        "epochs": NUMBERS, "batch_size": NUMBERS, "lr": (*NUMBERS, 0, 1), "weight_decay": NUMBERS,
        "seed": NUMBERS, "precision": TEXTS, "frugal": (-1, NAN, [0]), "out": PATHS,
        "devices": NUMBERS, "patience": NUMBERS, "accumulate": NUMBERS, "callbacks": (3, TEXT),
    }),
    (of("lora"), {
        "r": (*NUMBERS, True, 8 * 10**8), "lora_alpha": NUMBERS,
        "lora_dropout": (*NUMBERS, 1), "last": NUMBERS, "target_modules": (*NAMES, []),
        "seed": NUMBERS, "name": TEXTS, "rank_pattern": (3, {"q": 10**9}, {"q": TEXT}),
        "alpha_pattern": ({"q": NAN}, {"q": 1e300}),
    }),
    (of("vpt"), {"prompts": (*NUMBERS, 10**6), "dropout": (*NUMBERS, 1), "deep": (TEXT, 1)}),
    (of("adapter"), {"width": (*NUMBERS, 10**6), "scale": NUMBERS, "kind": TEXTS}),
    (of("vit_adapter"), {"stem": (*NUMBERS, 10**6)}),
    (of("side"), {"r": (*NUMBERS, 10**6), "layers": (*NUMBERS, 0, 7)}),
    (of("shallow"), {"depth": (*NUMBERS, 0, 7), "similarity": NUMBERS, "chips": TEXTS}),
    (of("vera"), {"r": (*NUMBERS, 10**6), "target_modules": (*NAMES, [])}),
    (of("oft"), {"oft_block_size": (*NUMBERS, 8 * 10**8)}),
    (config, {
        "r": (NAN, 10**6), "lora_alpha": NUMBERS, "lora_dropout": (-1, NAN, 1),
        "alpha_pattern": ({"q": 1e300},), "rank_pattern": ({"q": 10**9},),
    }),
    (written, {"folder": PATHS, "model_or_run": TEXTS, "report": TEXTS, "licence": (3, LONG)}),
    (lambda data, **options: gp.memory_plan(**{"model": model(data)} | options), {
        "batch_size": NUMBERS, "size": (*NUMBERS, (1, 2, 3), 10**6), "model": TEXTS,
    }),
    (lambda data, **options: gp.evaluate(data=data, **options), {"run_or_model": TEXTS}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("door", "argument", "values"),
    [(door, name, values) for door, table in DOORS for name, values in table.items()],
)
def test_an_unfit_value_is_refused_in_words(
    data: Any, door: Callable[..., object], argument: str, values: tuple[object, ...]
) -> None:
    for value in values:
        with pytest.raises((gp.GeopeftError, FileNotFoundError)) as refusal:
            door(data, **{argument: value})
        assert len(str(refusal.value)) < 12_000


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int | None", None), ("int", 1_000_000), ("float", 3), ("str | os.PathLike[str]", "a/é"),
        ("Sequence[str]", ("a", "b")), ("Sequence[str]", []), ("Mapping[int, str]", {1: "a"}),
        ("str | Sequence[str] | None", "a"), ("tuple[int, int]", (1, 2)), ("Unheard[of]", object()),
    ],
)  # fmt: skip
def test_a_value_of_the_kind_passes(kind: str, value: object) -> None:
    check_values({"argument": value}, {"argument": kind})


def test_annotations_may_be_types_and_what_is_allowed_is_said() -> None:
    with pytest.raises(
        gp.GeopeftError, match="rows takes whole numbers from 1 to 1,000,000, got 0"
    ):
        check_values({"rows": 0}, {"rows": int})
    with pytest.raises(gp.GeopeftError, match="bands takes lists of texts or None, got 'RED'"):
        check_values({"bands": "RED"}, {"bands": "Sequence[str] | None"})
    with pytest.raises(
        gp.GeopeftError, match="pair takes 2 whole numbers from 1 to 1,000,000, got"
    ):
        check_values({"pair": (1, 2, 3)}, {"pair": "tuple[int, int]"})
