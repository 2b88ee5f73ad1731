"""The learning rate is found by a test that changes nothing, or by training with each."""

import numpy as np
import pandas as pd
import pytest
import torch
from test_fit import chips

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.models import SegmentationModel
from geopeft_nb.training.search import choose_lrs, steepest


@pytest.fixture(scope="module")
def data() -> GeoData:
    return GeoData(chips(12, 0), chips(4, 1), chips(4, 2), {}, CARD, CARD.bands, ("virginia",), 16)


def network(data: GeoData) -> SegmentationModel:
    return gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data, "fcn"), "lora")


def test_a_range_test_suggests_a_rate_and_leaves_the_model_as_it_was(data: GeoData) -> None:
    model = network(data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    test = gp.find_lr(model, data, batch_size=2, steps=100)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(weight.grad is None for weight in model.parameters())
    assert test.table.lr.is_monotonic_increasing
    # With three seeds it was 1.8e-4 to 2.6e-4, and the lowest loss at 1e-3 to 3e-3.
    assert 5e-5 < test.suggestion < 1e-3
    assert len(test.table) > 60 and test.table.loss.iloc[-1] > 1.1 * test.table.loss.min()
    axes = test.plot().axes[0]
    assert axes.get_xscale() == "log" and len(axes.lines) == 2


def test_the_suggestion_is_where_the_loss_falls_most_on_a_logarithmic_scale() -> None:
    rates = np.geomspace(1e-6, 1, 61)
    losses = 1 / (1 + (rates / 1e-3) ** 2) + (rates > 0.1)  # half-way down at 1e-3
    assert steepest(pd.DataFrame({"lr": rates, "loss": losses})) == pytest.approx(1e-3)


def test_a_loss_that_explodes_at_once_gives_no_suggestion(data: GeoData) -> None:
    model = network(data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"exploded in step \d+, at lr=.*Use a smaller low"):
        gp.find_lr(model, data, low=0.5, high=0.99, batch_size=2)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 5}, "steps must be a whole number from 20"),
        ({"low": 0.1, "high": 0.01}, "0 < low < high < 1"),
        ({"precision": "auto"}, "precision='auto' is not known here"),
    ],
)
def test_bad_range_tests_are_refused(
    data: GeoData, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gp.find_lr(network(data), data, **options)


def test_a_search_takes_the_rate_of_the_lowest_validation_loss(data: GeoData) -> None:
    search = gp.search_lr(lambda: network(data), data, [1e-6, 3e-3], epochs=2, batch_size=4)
    assert search.best == 3e-3 and search.table.lr.tolist() == [3e-3, 1e-6]
    assert search.run.settings["lr"] == 3e-3
    assert search.table.val_loss.tolist() == sorted(search.table.val_loss)
    again = gp.fit(network(data), data, epochs=2, batch_size=4, lr=3e-3, dashboard=False)
    assert again.history.val_loss.min() == search.table.val_loss[0]
    assert len(search.plot().axes[0].lines) == 2


def test_a_rate_that_diverges_loses_the_search_and_does_not_end_it(
    data: GeoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network_or_nan() -> SegmentationModel:
        model = network(data)
        built.append(model)
        if len(built) == 1:
            with torch.no_grad():
                list(model.decoder.parameters())[-1].fill_(float("nan"))
        return model

    built: list[SegmentationModel] = []
    search = gp.search_lr(network_or_nan, data, [0.9, 1e-3], epochs=1, batch_size=4)
    assert search.best == 1e-3
    assert search.table.lr.tolist() == [1e-3, 0.9] and np.isnan(search.table.val_loss[1])
    built.clear()
    with pytest.raises(ValueError, match=r"Training diverged with 0\.9"):
        gp.search_lr(network_or_nan, data, [0.9], epochs=1, batch_size=4)


def test_a_pair_is_drawn_from_evenly_on_a_logarithmic_scale() -> None:
    drawn = np.log10(choose_lrs((1e-5, 1e-3), 400, seed=3))
    assert -5 < drawn.min() < -4.9 and -3.1 < drawn.max() < -3
    assert abs(drawn.mean() + 4) < 0.1  # the deviation of the mean is 0.03
    assert choose_lrs((1e-5, 1e-3), 2) == choose_lrs((1e-5, 1e-3), 2) != choose_lrs((1e-5, 1e-3), 2, 1)  # fmt: skip  # noqa: E501


def test_bad_searches_are_refused_before_training(data: GeoData) -> None:
    model = network(data)
    for lrs, message in (
        ([], "must lie between 0 and 1"),
        ([2.0], "must lie between 0 and 1"),
        ((1e-3, 1e-5), "0 < low < high < 1"),
        ((1e-5, 1e-4, 1e-3), "A pair"),
    ):
        with pytest.raises(ValueError, match=message):
            gp.search_lr(lambda: model, data, lrs)
    with pytest.raises(ValueError, match="trials must be"):
        gp.search_lr(lambda: model, data, trials=0)
    with pytest.raises(ValueError, match="share one out"):
        gp.search_lr(lambda: model, data, out="runs")
    with pytest.raises(ValueError, match="same model twice"):
        gp.search_lr(lambda: model, data, [1e-3, 1e-4], epochs=1)
