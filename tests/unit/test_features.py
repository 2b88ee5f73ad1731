"""Cached features: the same training, without running the frozen part again."""

import resource
from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

import geopeft_nb as gp
from geopeft_nb.datasets.augment import all_views, draw_views, turned
from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.memory.features import CachedFeatures, Split
from geopeft_nb.memory.frugal import applied
from geopeft_nb.models import SegmentationModel


@pytest.fixture(scope="module")
def data() -> GeoData:
    """Every sixth of the shipped scenes."""
    full = gp.load_data("scenes")

    def some(chips: ChipDataset, count: int) -> ChipDataset:
        spread = chips.chips[::6][:count]
        return ChipDataset(spread, chips.classes, chips.ignore_index, chips.task)

    parts = some(full.train, 20), some(full.val, 6), some(full.test, 2)
    return GeoData(*parts, {}, full.card, full.bands, full.regions, full.size, full.ignore_index)


def build(
    data: GeoData, method: str, backbone: str = "geopeft_tiny", decoder: str = "linear",
    **options: object,
) -> SegmentationModel:  # fmt: skip
    gsd = data.card.resolution if backbone.startswith("galileo") else 10.0
    plain = gp.load_backbone(backbone, weights=None, bands=data.bands, gsd=gsd)
    small = {"channels": [16] * 4} if decoder == "unet" else {}
    model = gp.build_model(plain, data, decoder, pad=True, **small)
    return gp.attach(model, method, **options).train()


@pytest.mark.parametrize(
    ("method", "options", "decoder", "recipes"),
    [
        ("linear_probe", {}, "linear", []),
        ("lora", {"preset": "late"}, "unet", []),
        ("lora", {}, "linear", ["late", "bf16"]),
        ("full", {}, "linear", ["late", "checkpoint"]),
        ("side", {"r": 4}, "linear", []),
    ],
)
def test_twenty_cached_steps_give_the_same_weights(
    data: GeoData, method: str, options: dict, decoder: str, recipes: list[str]
) -> None:
    weights, losses = [], []
    for more in ([], ["cached"]):
        model = build(data, method, decoder=decoder, **options)
        run = gp.fit(
            model, data, epochs=4, batch_size=4, dashboard=False, device="cpu",
            frugal=[*recipes, *more],
        )  # fmt: skip
        assert len(run.history) == 20
        weights.append({key: value.clone() for key, value in model.state_dict().items()})
        losses.append(run.history.train_loss)
    # Matrix products may round differently for eight views of a chip than for a mixed batch.
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=1e-5)
    assert losses[0].iloc[-1] != losses[0].iloc[0]
    assert (losses[0] - losses[1]).abs().max() < 1e-5


@pytest.mark.parametrize("backbone", ["decur_resnet50", "prithvi_eo_v2_tiny_tl", "galileo_nano"])
def test_both_parts_of_a_split_make_the_whole(data: GeoData, backbone: str) -> None:
    image = torch.stack([data.train[index]["image"] for index in range(2)])
    for method in ("linear_probe", "lora", "side"):
        if backbone == "decur_resnet50" and method != "linear_probe":
            continue
        model = build(data, method, backbone).eval()
        with torch.no_grad(), applied(model, "late" if method == "lora" else None):
            split = Split(model)
            state = split.prefix(image)
            assert torch.equal(split.suffix(state, image.shape[-2:]), model(image))
            assert (split.first is None) == (method != "lora")


def test_only_maps_that_the_decoder_reads_are_kept(data: GeoData) -> None:
    image = data.train[0]["image"][None]
    assert len(Split(build(data, "linear_probe", "decur_resnet50")).prefix(image)) == 1
    assert len(Split(build(data, "linear_probe", "decur_resnet50", "unet")).prefix(image)) == 4


def test_the_frozen_part_runs_once_per_chip(data: GeoData) -> None:
    model = build(data, "linear_probe")
    calls = []
    model.backbone.register_forward_hook(lambda *given: calls.append(len(given[1][0])))
    cached = CachedFeatures(model, data.train)
    cached.fill()
    batch = default_collate([cached[index] for index in (3, 1)])
    logits, target = cached.look(batch)
    assert calls == [8] * len(data.train)
    assert logits.shape == (2, 2, data.size, data.size) and target.dtype == torch.int64


def test_features_leave_nothing_behind(
    data: GeoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path))
    cached = CachedFeatures(build(data, "linear_probe"), data.val, augment=False)
    cached.fill()
    assert list(tmp_path.iterdir()) == []
    assert cached.nbytes == sum(store.nbytes for store in cached.store) > 0


def test_features_too_large_for_the_disk_are_refused(
    data: GeoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path))
    monkeypatch.setattr("geopeft_nb.files.SPARE", 10**18)
    with pytest.raises(GeopeftError, match=r"features of 6 chips in 8 views takes .* MB are free"):
        CachedFeatures(build(data, "linear_probe"), data.val).fill()


@pytest.mark.parametrize("room", [0, 10_000, 200_000])
def test_a_disk_that_fills_up_is_told_before_training_and_left_as_it_was(
    data: GeoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setenv("GEOPEFT_CACHE", str(tmp_path))
    cached = CachedFeatures(build(data, "linear_probe"), data.val)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(GeopeftError, match=r"could not be written.*too large"):
            cached.fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_dropout_does_harm_in_the_frozen_part_only(data: GeoData) -> None:
    model = build(data, "lora", lora_dropout=0.1)
    with pytest.raises(ValueError, match=r"dropout of 0\.1"), applied(model, ["late", "cached"]):
        raise AssertionError("it was applied")
    assert Split(build(data, "lora", preset="late", lora_dropout=0.1)).first == 5


def test_views_are_eight_and_differ() -> None:
    chip = torch.arange(9).reshape(1, 3, 3)
    views = all_views()
    assert len({tuple(turned(chip, view).flatten().tolist()) for view in views}) == 8
    torch.manual_seed(0)
    assert set(draw_views(200)) == set(views)
    assert set(draw_views(200, square=False)) == set(all_views(square=False))
