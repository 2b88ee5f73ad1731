"""The checks of lesson 03 recognise right answers and name the usual slips."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import geopeft_nb as gp
from geopeft_nb.classroom.check import check
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.models import SegmentationModel

Tensor = torch.Tensor


@pytest.fixture(scope="module")
def chips() -> GeoData:
    return gp.load_data("scenes")


@pytest.fixture
def network(chips: GeoData) -> SegmentationModel:
    backbone = gp.load_backbone("geopeft_tiny", weights=None, bands=chips.bands)
    return gp.build_model(backbone, chips, decoder="linear")


def test_by_hand_takes_what_attach_makes_and_what_hands_make(network: SegmentationModel) -> None:
    network.backbone.requires_grad_(False)
    assert check("03/by_hand", network).passed
    assert check("03/by_hand", gp.attach(network, "linear_probe")).passed


def freeze_first_block(network: SegmentationModel) -> None:
    network.backbone.requires_grad_(False)
    network.backbone.blocks[0].requires_grad_(True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda network: None, "other end"),
        (lambda network: network.requires_grad_(False), "All of it is frozen"),
        (lambda network: network.decoder.requires_grad_(False), "Is that the part"),
        (freeze_first_block, "Freeze the whole part"),
    ],
)
def test_by_hand_recognises_the_usual_slips(
    network: SegmentationModel, change: Callable[[SegmentationModel], object], says: str
) -> None:
    change(network)
    result = check("03/by_hand", network)
    assert not result.passed and says in result.message


def test_by_hand_wants_the_whole_network(network: SegmentationModel) -> None:
    for part in (network.backbone, nn.Linear(2, 2), "frozen"):
        assert "network itself" in check("03/by_hand", part).message


def eye(X: Tensor) -> Tensor:
    return torch.eye(X.shape[1], dtype=X.dtype)


def in_place(X: Tensor, T: Tensor, penalty: float) -> Tensor:
    W = right(X, T, penalty)
    X -= X.mean(dim=0)
    return W


def right(X: Tensor, T: Tensor, penalty: float) -> Tensor:
    return torch.linalg.solve(X.T @ X + penalty * eye(X), X.T @ T)


def more_rows(X: Tensor, T: Tensor, penalty: float) -> Tensor:
    pull = penalty**0.5 * eye(X)
    zeros = T.new_zeros(len(pull), T.shape[1])
    return torch.linalg.lstsq(torch.cat([X, pull]), torch.cat([T, zeros])).solution


@pytest.mark.parametrize(
    "find",
    [right, more_rows, lambda X, T, p: torch.linalg.inv(X.T @ X + p * eye(X)) @ X.T @ T],
)
def test_solve_takes_every_road_to_the_solution(find: object) -> None:
    assert check("03/solve", find).passed


@pytest.mark.parametrize(
    ("find", "says"),
    [
        (lambda X, T, p: torch.linalg.lstsq(X, T).solution, "changes nothing"),
        (lambda X, T, p: torch.linalg.solve(X.T @ X + p, X.T @ T), "diagonal"),
        (lambda X, T, p: right(X, T, -p), "taken off"),
        (lambda X, T, p: right(X, T, p**2), "another power"),
        (lambda X, T, p: right(X, T, len(X) * p), "no division"),
        (lambda X, T, p: X.T @ T, "right-hand side"),
        (lambda X, T, p: 2 * right(X, T, p), "Compare each factor"),
        (lambda X, T, p: right(X, T, p).T, "should be (5, 3)"),
        (lambda X, T, p: None, "is there a return"),
        (lambda X, T, p: torch.linalg.solve(X @ X.T, X.T @ T), "raised"),
        (lambda X, T: X, "TypeError"),
        (in_place, "was changed"),
        (torch.zeros(5, 3), "function itself"),
    ],
)
def test_solve_recognises_the_usual_slips(find: object, says: str) -> None:
    result = check("03/solve", find)
    assert not result.passed and says in result.message, result.message


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (lambda t, f: 4 * t + f, "How many bytes"),
        (lambda t, f: 16 * (t + f), "neither gradient"),
        (lambda t, f: 16 * t, "stay in memory"),
        (lambda t, f: 12 * t, "the weights themselves"),
        (lambda t, f: 8 * t + 4 * f, "AdamW's memory"),
        (lambda t, f: 12 * t + 4 * f, "one number for each"),
        (lambda t, f: 4 * (t + f), "only the weights"),
        (lambda t, f: 8 * t + 2 * f, "four bytes"),
        (lambda t, f: 7, "count weights"),
        (lambda t, f: None, "no number"),
        (lambda t: t, "TypeError"),
        (1000, "function itself"),
    ],
)
def test_step_bytes_recognises_the_usual_slips(count: object, says: str) -> None:
    result = check("03/step_bytes", count)
    assert not result.passed and says in result.message, result.message


def test_step_bytes_agrees_with_what_is_measured(
    network: SegmentationModel, chips: GeoData
) -> None:
    from geopeft_nb.memory.measure import training_bytes

    def count(trained: int, frozen: int) -> int:
        return 16 * trained + 4 * frozen

    assert check("03/step_bytes", count).passed
    probe = gp.attach(network, "linear_probe").train()
    image = chips.train[0]["image"][None]
    measured = training_bytes(probe, lambda: probe(image).mean())
    parts = gp.parameter_table(probe).loc["total"]
    expected = count(parts["trainable"], parts["frozen"])
    buffers = sum(buffer.nbytes for buffer in probe.buffers())  # weights that nobody counts
    assert measured["total"] - measured["activations"] == expected + buffers
