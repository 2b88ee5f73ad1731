"""What training leaves behind: a temperature, and how far from training is far."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.models import SegmentationModel, Trained
from geopeft_nb.training.calibration import (
    CELL,
    MOST,
    cell,
    deepest,
    distances,
    temperature,
    trained_on,
)


def drawn(sharpness: float, count: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw classes as likely as logits say, and give the logits times a sharpness."""
    logits = torch.randn(count, 3, generator=torch.Generator().manual_seed(0)) * 2
    target = torch.distributions.Categorical(logits=logits).sample()
    return logits * sharpness, target


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_too_sharp_and_too_soft_logits(sharpness: float) -> None:
    torch.manual_seed(0)
    logits, target = drawn(sharpness)
    found = temperature(logits, target)
    assert found == pytest.approx(sharpness, rel=0.05)  # some 3 % by the draw of 20,000
    probability, answer = (logits / found).softmax(1).max(1)
    # the expected calibration error (Guo et al., 2017): in 15 bins, probabilities less hits
    gap = np.bincount((probability * 15).int().clip(max=14), probability - (answer == target).int())
    assert abs(gap).sum() / len(target) < 0.015


@pytest.mark.parametrize(("logits", "target"), [
    (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)),  # nothing is labelled
    (torch.tensor([[9.0, 0.0]] * 5), torch.zeros(5, dtype=torch.int64)),  # never wrong
])  # fmt: skip
def test_a_temperature_is_a_number_whatever_the_chips(
    logits: torch.Tensor, target: torch.Tensor
) -> None:
    assert 0.01 <= temperature(logits, target) <= 100


def test_distances_count_in_standard_deviations_of_training() -> None:
    reference = torch.tensor([[0.0, 0.0], [0.0, 100.0], [1.0, 0.0], [1.0, 100.0]])
    first, second = reference.std(0).tolist()
    near, far = distances(torch.tensor([[0.5, 50.0], [10.5, 50.0]]), reference).tolist()
    # the mean over all four rows, as five neighbours are more than there are
    assert near == pytest.approx(np.hypot(0.5 / first, 50 / second), rel=1e-4)
    expected = np.mean([np.hypot(x / first, 50 / second) for x in (9.5, 10.5)])
    assert far == pytest.approx(expected, rel=1e-4)  # float32, and 1e-6 beside the deviation


SIDES = ("train", "val")


@pytest.fixture(scope="module")
def data() -> GeoData:
    data = gp.load_data("sandbox", size=32)
    few = {side: replace(data.parts[side], chips=data.parts[side].chips[::6]) for side in SIDES}
    return replace(data, **few)


@pytest.fixture(scope="module")
def model(data: GeoData) -> SegmentationModel:
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data)
    return gp.fit(gp.attach(model, "linear_probe"), data, epochs=1, dashboard=False).model


def test_fit_leaves_a_temperature_and_a_small_reference(model: SegmentationModel) -> None:
    trained = model.trained
    assert trained is not None and trained.reference is not None
    assert trained.temperature is not None and 0.1 < trained.temperature < 10
    rows, width = trained.reference.shape
    assert width == model.backbone.channels[-1] and rows <= MOST
    assert trained.reference.dtype == torch.float32 and trained.reference.nbytes < 600_000


def test_most_ground_of_training_is_within_the_threshold_and_nonsense_is_not(
    model: SegmentationModel, data: GeoData
) -> None:
    trained = model.trained
    assert trained is not None and trained.reference is not None and trained.threshold
    image = torch.stack([sample["image"] for sample in data.train.spread(16)])
    with torch.inference_mode(), deepest(model) as seen:
        model(image)
        model(torch.rand_like(image))
    inside = [
        float((distances(x.permute(0, 2, 3, 1), trained.reference) < trained.threshold)
              .float().mean()) for x in seen
    ]  # fmt: skip
    assert inside[0] > 0.9 and inside[1] < 0.1


def test_calibrating_twice_gives_the_same_and_leaves_the_weights(
    model: SegmentationModel, data: GeoData
) -> None:
    before = {name: x.clone() for name, x in model.state_dict().items()}
    assert isinstance(model.trained, Trained)
    again = trained_on(model, data, seed=0)
    assert again.temperature == model.trained.temperature
    assert again.threshold == model.trained.threshold
    assert torch.equal(again.reference, model.trained.reference)  # type: ignore[arg-type]
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_fine_maps_are_averaged_to_cells() -> None:
    data = gp.load_data("sandbox", size=64)
    model = gp.build_model(gp.load_backbone("unet", bands=data.bands), data)
    assert model.backbone.strides[-1] == 1 and cell(model) == CELL
    with torch.inference_mode(), deepest(model.eval()) as seen:
        model(torch.zeros(1, len(data.bands), 64, 64))
    assert seen[0].shape[-2:] == (8, 8)


def test_regression_has_a_reference_and_no_temperature(data: GeoData) -> None:
    card = replace(data.card, task="regression", classes=("height",), colours=("#000000",))
    image = torch.rand(4, 6, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    chips = [
        Chip(str(i), "home", f"place {i}", lambda i=i: (image[i], image[i, :1])) for i in range(4)
    ]
    train = ChipDataset(chips, card.classes, task="regression")
    data = replace(data, card=card, train=train)
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data)
    trained = trained_on(model, data, seed=0)
    assert trained.temperature is None
    assert trained.reference is not None and trained.threshold
