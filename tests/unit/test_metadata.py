"""When and where: from the chip to each model's own convention, chosen, recorded and refused."""

import datetime
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.backbones.clay import circle_code, time_code
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.models import SegmentationModel

TL, CLAY, GALILEO = "prithvi_eo_v2_tiny_tl", "clay_v1_base", "galileo_nano"
NEW_YEAR, LEAP_END = datetime.date(2021, 1, 1), datetime.date(2020, 12, 31)
ZURICH = (47.4, 8.5)

Day = datetime.date | None
Place = tuple[float, float] | None


@pytest.fixture(autouse=True)
def small_cards(shrink: Callable) -> None:
    shrink(TL, CLAY, GALILEO, depth=4, img_size=32)


def chips(
    count: int, seed: int, day: Day = NEW_YEAR, place: Place = ZURICH, region: str = "virginia"
) -> ChipDataset:
    def chip(index: int) -> Chip:
        rng = np.random.default_rng([seed, index])
        mask = (rng.random((16, 16)) < 0.5).astype(np.int64)
        image = rng.normal(0.2, 0.02, (6, 16, 16)).astype(np.float32)
        name = f"{region}-{seed}-{index}"
        return Chip(name, region, name, lambda: (image, mask), date=day, location=place)

    return ChipDataset([chip(index) for index in range(count)], CARD.classes, -1)


def make(day: Day = NEW_YEAR, place: Place = ZURICH, away: ChipDataset | None = None) -> GeoData:
    parts = [chips(4, seed, day, place) for seed in range(3)]
    card = replace(CARD, resolution=10.0)
    holdout = {"brandenburg": away} if away else {}
    return GeoData(*parts, holdout, card, CARD.bands, ("virginia",), 16)


def build(data: GeoData, name: str = TL, **options: object) -> SegmentationModel:
    backbone = gp.load_backbone(name, None, bands=data.bands)
    return gp.build_model(backbone, data, pad=True, **options).eval()


def given(data: GeoData, index: int = 0) -> dict[str, torch.Tensor]:
    """Return what `SegmentationModel.forward` takes of a training chip."""
    sample = data.train[index]
    return {key: sample[key][None] for key in ("image", "temporal", "location")}


@pytest.mark.parametrize(
    ("day", "index"), [(NEW_YEAR, 0), (LEAP_END, 365), (datetime.date(2021, 2, 1), 31)]
)
def test_prithvi_gets_days_from_zero_as_the_paper_gave_them(day: datetime.date, index: int) -> None:
    data = make(day)
    model, seen = build(data), []
    model.backbone.temporal_embed_enc.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0], output))
    )
    with torch.no_grad():
        model(**given(data))
    (pairs, code), features = seen[0], 64
    assert pairs.tolist() == [[[day.year, index]]]
    # The second half is the day's: sines of 16 frequencies from 1 down, then cosines, times 0.1.
    sines, cosines = code[0, 0, features // 2 :].chunk(2)
    assert sines[0].item() == pytest.approx(0.1 * math.sin(index), abs=1e-6)
    assert cosines[0].item() == pytest.approx(0.1 * math.cos(index), abs=1e-6)


@pytest.mark.parametrize(
    ("day", "week"),
    [
        (NEW_YEAR, 53),  # a Friday: still the last week of 2020
        (LEAP_END, 53),
        (datetime.date(2024, 12, 31), 1),  # a leap year's last day, in the first week of 2025
        (datetime.date(2019, 12, 30), 1),
        (datetime.date(2021, 4, 1), 13),
    ],
)
def test_clay_gets_the_iso_week_of_52_and_noon(day: datetime.date, week: int) -> None:
    code = time_code(chips(1, 0, day)[0]["temporal"][None])[0].tolist()
    turn = 2 * math.pi * week / 52
    # Noon is half a turn of 24 hours.
    assert code == pytest.approx([math.sin(turn), math.cos(turn), 0.0, -1.0], abs=1e-6)
    if week == 53:  # by hand: one week past a full turn
        assert code[:2] == pytest.approx([0.1205367, 0.9927089], abs=1e-6)


def test_clay_gets_sine_and_cosine_of_latitude_and_longitude_in_radians() -> None:
    code = circle_code(chips(1, 0, place=(30.0, -60.0))[0]["location"][None].deg2rad())[0]
    assert code.tolist() == pytest.approx([0.5, 0.8660254, -0.8660254, 0.5], abs=1e-6)


@pytest.mark.parametrize(
    ("day", "month"),
    [
        (NEW_YEAR, 0),
        (LEAP_END, 11),
        (datetime.date(2020, 2, 29), 1),  # day 60 of a leap year
        (datetime.date(2021, 3, 1), 2),  # day 60 of another
    ],
)
def test_galileo_gets_the_month_from_zero_and_a_point_on_the_unit_sphere(
    day: datetime.date, month: int
) -> None:
    data = make(day, (30.0, 60.0))
    model, points, months = build(data, GALILEO), [], []
    model.backbone.location_embed.register_forward_pre_hook(
        lambda module, inputs: points.append(inputs[0])
    )
    embed = model.backbone.embed
    model.backbone.embed = lambda groups, number, place: (
        months.append(number), embed(groups, number, place)
    )[1]  # fmt: skip
    with torch.no_grad():
        model(**given(data))
    assert months[0].tolist() == [[month]]
    # cos 30° cos 60°, cos 30° sin 60°, sin 30°
    assert points[0][0].tolist() == pytest.approx([0.4330127, 0.75, 0.5], abs=1e-6)


@pytest.mark.parametrize("method", ["lora", "vpt", "adapter", "vit_adapter", "full"])
@pytest.mark.parametrize("name", [TL, CLAY, GALILEO])
def test_metadata_reach_the_backbone_through_every_kind_of_method(name: str, method: str) -> None:
    data = make()
    model = gp.attach(build(data, name), method).eval()
    assert model.metadata == ("time", "location")
    call = given(data)
    july = call | {"temporal": torch.tensor([[[2021.0, 190.0]]])}
    quito = call | {"location": torch.tensor([[-0.2, -78.5]])}
    with torch.no_grad():
        here, then, there = model(**call), model(**july), model(**quito)
    assert not torch.equal(here, then) and not torch.equal(here, there)


def test_without_a_choice_all_or_nothing_is_used() -> None:
    assert build(make()).metadata == ("time", "location")
    assert build(make(day=None)).metadata == ()
    assert build(make(away=chips(2, 9, day=None, region="brandenburg"))).metadata == ()
    assert build(make(), "geopeft_tiny").metadata == ()


def test_a_choice_is_kept() -> None:
    assert build(make(), metadata=False).metadata == ()
    assert build(make(), metadata=True).metadata == ("time", "location")
    alone = build(data := make(), metadata=["time"])
    assert alone.metadata == ("time",)
    call = given(data)
    with torch.no_grad():
        assert torch.equal(alone(**call), alone(call["image"], call["temporal"]))


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("geopeft_tiny", True, "geopeft_tiny takes no metadata: leave metadata=True out"),
        ("geopeft_tiny", ["time"], "Unknown metadata of geopeft_tiny 'time'.*Known: none"),
        (TL, ["place"], "Unknown metadata of .* 'place'.*Known: location, time"),
        (TL, "time", r"metadata takes True or False or lists of texts or None, got 'time'\."),
    ],
)
def test_what_a_backbone_does_not_take_is_refused(name: str, wanted: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(make(), name, metadata=wanted)


def test_a_model_that_uses_metadata_refuses_to_go_without() -> None:
    data = make()
    call = given(data)
    with pytest.raises(ValueError, match="The model uses time and location, and got none"):
        build(data)(call["image"])
    with pytest.raises(ValueError, match="The model uses location, and got none"):
        build(data)(call["image"], call["temporal"])
    off = build(data, metadata=False)
    with torch.no_grad():
        assert torch.equal(off(**call), off(call["image"]))


def test_training_prediction_and_scores_use_the_metadata_of_the_chips() -> None:
    data = make(away=chips(3, 9, LEAP_END, region="brandenburg"))
    model, seen = gp.attach(build(data), "full"), []
    before = model.backbone.temporal_embed_enc.scale.item()
    model.backbone.temporal_embed_enc.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape)
    )
    run = gp.fit(model, data, epochs=2, batch_size=2, device="cpu", dashboard=False)
    # The measured step; in each of two epochs two batches to train on and two to validate; then
    # one by one the chips of training and those of validation, for calibration.
    assert seen == 9 * [(2, 1, 2)] + 8 * [(1, 1, 2)]
    assert model.backbone.temporal_embed_enc.scale.item() != before
    assert gp.evaluate(run, data).table.loc["brandenburg", "chips"] == 3
    unknown = {key: value for key, value in data.test[0].items() if key != "temporal"}
    with pytest.raises(ValueError, match="The model uses time, and got none"):
        run.predict([unknown])


@pytest.mark.parametrize(
    ("part", "facts", "message"),
    [
        ("train", {"day": None}, r"time, and that of chip 'virginia-1-0' in data\.train is not"),
        ("val", {"day": None}, r"uses time, and that of chip 'virginia-1-0' in data\.val is not"),
        ("test", {"place": None}, r"uses location, and that of chip 'virginia-1-0' in data\.test"),
    ],
)
def test_chips_without_metadata_are_named_before_training(
    part: str, facts: dict[str, None], message: str
) -> None:
    data = make()
    model = gp.attach(build(data), "linear_probe")
    with pytest.raises(ValueError, match=message):
        gp.fit(model, replace(data, **{part: chips(2, 1, **facts)}), dashboard=False)


def test_one_chip_without_a_date_among_many_is_named_before_training() -> None:
    data = make()
    mixed = [*data.train.chips[:3], replace(data.train.chips[3], date=None)]
    mixed = replace(data, train=ChipDataset(mixed, CARD.classes, -1))
    assert build(mixed).metadata == ()
    model = gp.attach(build(data), "linear_probe")
    with pytest.raises(ValueError, match=r"chip 'virginia-0-3' in data\.train is not known"):
        gp.fit(model, mixed, dashboard=False)


def test_a_saved_adapter_knows_which_metadata_it_uses(tmp_path: Path) -> None:
    data = make()
    model = gp.attach(build(data), "lora")
    folder = gp.save_adapter(model, tmp_path / "adapter")
    assert json.loads((folder / "adapter.json").read_text())["metadata"] == ["time", "location"]
    card = (folder / "model_card.md").read_text()
    assert "Metadata: time and location." in card
    again = gp.load_model(folder)
    with torch.no_grad():
        assert torch.equal(again(**given(data)), model.eval()(**given(data)))
    with pytest.raises(
        ValueError, match=r"metadata \['time', 'location'\], and the model has \[\]\."
    ):
        gp.load_adapter(build(data, metadata=False), folder)


def test_other_programs_take_no_metadata(tmp_path: Path) -> None:
    model = gp.attach(build(make()), "linear_probe")
    for export in (gp.export_onnx, gp.export_terratorch):
        with pytest.raises(ValueError, match=r"takes an image alone.* uses time, location"):
            export(model, tmp_path / "model")


def test_numbers_that_are_not_reflectance_are_scaled_by_their_own_statistics() -> None:
    data = make()
    assert build(data).built_for["normalise"] == "pretraining"
    odd = replace(data, card=replace(data.card, reflectance=False, mean=(5.0,) * 6, std=(2.0,) * 6))
    model = build(odd)
    assert model.built_for["normalise"] == "dataset"
    assert model.mean.flatten().tolist() == 6 * [5.0] and model.std.flatten().tolist() == 6 * [2.0]
    with pytest.raises(ValueError, match=r"and scenes has none\. Use normalise='dataset'"):
        build(odd, normalise="pretraining")
    for normalise in (None, "dataset"):
        with pytest.raises(ValueError, match="galileo_nano scales reflectance by itself"):
            build(odd, GALILEO, normalise=normalise)


def test_pixels_of_another_size_than_the_backbone_was_told_are_pointed_out() -> None:
    data = gp.load_data("scenes")
    with pytest.warns(RuntimeWarning, match=r"told pixels of 10 m.*20 m\. Use load_.*gsd=20\)"):
        gp.build_model(gp.load_backbone(CLAY, None, bands=data.bands), data)
    with warnings.catch_warnings(action="error"):  # where it agrees, or is no input
        gp.build_model(gp.load_backbone(CLAY, None, bands=data.bands, gsd=20), data)
        gp.build_model(gp.load_backbone("geopeft_tiny", None, bands=data.bands), data)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [TL, CLAY, GALILEO])
def test_metadata_are_used_on_a_gpu(name: str) -> None:
    data = make()
    run = gp.fit(
        gp.attach(build(data, name), "lora"), data, epochs=1, device="cuda", dashboard=False
    )
    assert run.model.metadata == ("time", "location") and np.isfinite(run.best["val_loss"])
    model = run.model.to("cuda")
    with torch.no_grad():
        there = model(**{key: x.to("cuda") for key, x in given(data).items()}).cpu()
        here = model.cpu()(**given(data))
    assert torch.allclose(here, there, atol=1e-2)  # TF32 on the GPU, float32 here
