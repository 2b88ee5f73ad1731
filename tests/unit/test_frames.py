"""Several dates: a class that only the change between three dates tells, trained and mapped."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.bands import HLS_BANDS
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.geodata import DataCard, DataRequest, GeoData, choose_bands
from geopeft_nb.datasets.load import LOADERS
from geopeft_nb.training.run import Run

SIDE, FIELD = 32, 8  # pixels
DAYS = tuple(datetime.date(2022, month, 5) for month in (4, 6, 8))
#: Days on which the crops of a class are green. Seen alone, each day shows half of all as green.
GREEN = {"always bare": (), "first half": (0, 1), "second half": (1, 2), "both ends": (0, 2)}
CARD = DataCard(
    name="three_dates",
    title="Crops that differ in when they are green",
    predicts="crops",
    classes=(*GREEN,),
    colours=("#D9CFB8", "#117733", "#DDCC77", "#882255"),
    bands=HLS_BANDS,
    regions=("north", "south"),
    home=("north",),
    size=SIDE,
    resolution=30.0,
    labels="drawn at random",
    licence="CC0-1.0",
    citation="none",
    synthetic=True,
)
SOIL, LEAF = np.array([[0.08, 0.10, 0.14, 0.20, 0.30, 0.25], [0.03, 0.07, 0.04, 0.45, 0.20, 0.09]])


def chip(index: int, dates: tuple[int, ...], bands: list[int]) -> Chip:
    """A chip of 4 x 4 fields at some of the dates; of one date the image has no axis for it."""

    def read() -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(index)
        crops = draw.integers(0, len(GREEN), (SIDE // FIELD,) * 2)
        mask = crops.repeat(FIELD, 0).repeat(FIELD, 1)
        green = np.stack([np.isin(mask, [i for i, when in enumerate(GREEN.values()) if day in when])
                          for day in range(len(DAYS))])  # fmt: skip
        colour = np.where(green[None], LEAF[:, None, None, None], SOIL[:, None, None, None])
        image = (colour + draw.normal(0, 0.01, colour.shape)).astype(np.float32)
        image = image[bands][:, dates]
        return (image if len(dates) > 1 else image[:, 0]), mask.astype(np.int64)

    region = CARD.regions[index % 2]
    days = tuple(DAYS[date] for date in dates)
    return Chip(
        f"chip-{index}", region, f"{region} {index // 4}", read, date=days, location=(52.5, 13.4)
    )


def load(dates: tuple[int, ...], request: DataRequest) -> GeoData:
    indices, bands = choose_bands(request.bands, CARD)
    chips = [chip(index, dates, indices) for index in range(64)]
    home, away = ([c for c in chips if c.region == region] for region in CARD.regions)
    sides = {"train": home[:24], "val": home[24:28], "test": home[28:]}
    return GeoData.of(sides, {"south": away[:4]}, CARD, bands, ("north",), SIDE, len(dates))


@pytest.fixture(autouse=True, scope="module")
def loaders() -> Iterator[None]:
    LOADERS["three_dates"] = (CARD, lambda request: load((0, 1, 2), request))
    LOADERS["one_date"] = (CARD, lambda request: load((1,), request))
    yield
    del LOADERS["three_dates"], LOADERS["one_date"]


def trained(data: GeoData) -> Run:
    backbone = gp.load_backbone("geopeft_tiny", bands=data.bands, frames=data.frames)
    model = gp.attach(gp.build_model(backbone, data), "lora")
    return gp.fit(model, data, epochs=4, lr=5e-3, dashboard=False)


@pytest.fixture(scope="module")
def three() -> tuple[GeoData, Run]:
    data = gp.load_data("three_dates")
    return data, trained(data)


def test_three_dates_tell_what_one_date_cannot(three: tuple[GeoData, Run]) -> None:
    data, run = three
    assert data.frames == 3 and data.train[0]["image"].shape == (6, 3, SIDE, SIDE)
    assert data.train[0]["temporal"].tolist() == [[2022, 95], [2022, 156], [2022, 217]]
    assert run.best["val_miou"] > 0.9
    # One date shows two kinds of ground for four classes: half of all guesses are wrong.
    assert trained(gp.load_data("one_date")).best["val_miou"] < 0.5
    table = gp.evaluate(run, data).table
    assert table["mIoU"].min() > 0.9 and [*table.index] == ["north", "south"]


def test_a_run_of_several_dates_is_saved_loaded_and_mapped(
    three: tuple[GeoData, Run], tmp_path: Path
) -> None:
    data, run = three
    again = gp.load_model(gp.save_adapter(run, tmp_path / "adapter"))
    assert again.frames == 3
    image = data.test[0]["image"][None]
    with torch.no_grad():
        assert torch.equal(again(image), run.model(image))
    assert gp.map_regions(run, data) is not None


@pytest.mark.parametrize("decoder", ["fcn", "unet", "upernet"])
def test_decoders_and_the_memory_plan_take_features_of_all_dates(decoder: str) -> None:
    data = gp.load_data("three_dates")
    backbone = gp.load_backbone("geopeft_tiny", frames=3)
    model = gp.attach(gp.build_model(backbone, data, decoder=decoder), "linear_probe").train()
    images = torch.stack([sample["image"] for sample in data.val.spread(2)])
    assert model(images).shape == (2, 4, SIDE, SIDE)
    planned, measured = (
        look(model, batch_size=2, size=SIDE, device="cpu").table["activations"].sum()
        for look in (gp.memory_plan, gp.measure_memory)
    )
    assert planned == measured > 0


def test_day_and_place_of_each_date_reach_a_model_that_takes_them() -> None:
    data = gp.load_data("three_dates")
    backbone = gp.load_backbone("galileo_nano", None, data.bands, frames=3, gsd=30.0)
    model = gp.build_model(backbone, data).eval()
    assert model.metadata == ("time", "location")
    sample = data.test[0]
    image, days, place = (sample[key][None] for key in ("image", "temporal", "location"))
    with torch.no_grad():
        april_to_august, all_april = (model(image, x, place) for x in (days, days[:, [0, 0, 0]]))
    assert not torch.allclose(april_to_august, all_april)


def test_what_takes_one_date_says_what_takes_several() -> None:
    data = gp.load_data("three_dates")
    with pytest.raises(ValueError, match=r"unet takes 1 date.*Several go into geopeft_tiny"):
        gp.load_backbone("unet", frames=data.frames)
    with pytest.raises(
        ValueError, match=r"have 3 of BLUE.*load_backbone\(\.\.\., .*frames=data\.frames"
    ):
        gp.build_model(gp.load_backbone("geopeft_tiny"), data)
    model = gp.build_model(gp.load_backbone("geopeft_tiny", frames=3), data)
    with pytest.raises(ValueError, match="vit_adapter takes images of one date"):
        gp.attach(model, "vit_adapter")
    one = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), gp.load_data("one_date")),
                    "lora")  # fmt: skip
    with pytest.raises(ValueError, match=r"built for the frames 1, and .* has 3"):
        gp.fit(one, data, dashboard=False)
