"""The checks of lesson 06 recognise right answers and name the usual slips."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.classroom.check import check
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.models import SegmentationModel

CHIP = 64  # pixels


@pytest.fixture(scope="module")
def data() -> GeoData:
    return gp.load_data("scenes")


def build(data: GeoData, method: str) -> SegmentationModel:
    with torch.device("meta"):
        backbone = gp.load_backbone("geopeft_tiny", None, bands=data.bands)
        return gp.attach(gp.build_model(backbone, data, metadata=False), method)


def kept_by_linear(rows: int, n_in: int, n_out: int, trained: bool, passes: bool) -> int:
    return 4 * rows * n_in if trained else 0


def test_linear_takes_what_autograd_does() -> None:
    assert check("06/linear", kept_by_linear).passed
    for trained in (True, False):
        for passes in (True, False):
            layer = torch.nn.Linear(7, 11).requires_grad_(trained)
            x = torch.zeros(50, 7, requires_grad=passes)
            saved: list[torch.Tensor] = []

            def keep(tensor: torch.Tensor, saved: list[torch.Tensor] = saved) -> torch.Tensor:
                saved.append(tensor)
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                layer(x)
            weight = layer.weight.untyped_storage().data_ptr()
            kept = {t.untyped_storage().data_ptr(): t.nbytes for t in saved}
            kept.pop(weight, None)
            assert sum(kept.values()) == kept_by_linear(50, 7, 11, trained, passes)


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (lambda r, i, o, t, p: r * i * t, "How many bytes"),
        (lambda r, i, o, t, p: 4 * r * o, "that is the output"),
        (lambda r, i, o, t, p: 4 * r * (i + o), "one of the two"),
        (lambda r, i, o, t, p: 4 * (r * i + i * o), "there anyway"),
        (lambda r, i, o, t, p: 4 * r * i * t + 4 * i * o * p * (not t), "there anyway"),
        (lambda r, i, o, t, p: 0, "gradient of the weight"),
        (lambda r, i, o, t, p: 4 * r * i * p, "trained=True, passes=False"),
        (lambda r, i, o, t, p: 4 * r * i * (t or p), "trained=False, passes=True"),
        (lambda r, i, o, t, p: 4 * r * i, "is that gradient wanted"),
        (lambda r, i, o, t, p: 3, "three formulas"),
        (lambda r, i, o, t, p: None, "no number"),
        (lambda r: r, "TypeError"),
        (1400, "function itself"),
    ],
)
def test_linear_recognises_the_usual_slips(count: object, says: str) -> None:
    result = check("06/linear", count)
    assert not result.passed and says in result.message, result.message


def test_block_takes_the_count_with_or_without_statistics() -> None:
    assert check("06/block", lambda tokens, width, batch: 64 * batch * tokens * width).passed
    exact = lambda tokens, width, batch: 4 * batch * tokens * (16 * width + 4 + 2)  # noqa: E731
    assert check("06/block", exact).passed


def test_block_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    check("06/block", lambda tokens, width, batch: 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (lambda n, d, b: 16 * b * n * d, "How many bytes"),
        (lambda n, d, b: 64 * n * d, "one chip"),
        (lambda n, d, b: 64 * b * d, "one token"),
        (lambda n, d, b: 40 * b * n * d, "the wide tensors"),
        (lambda n, d, b: 48 * b * n * d, "one of the two wide"),
        (lambda n, d, b: 56 * b * n * d, "three, not one"),
        (lambda n, d, b: 52 * b * n * d, "values are missing"),
        (lambda n, d, b: 60 * b * n * d, "is missing; go"),
        (lambda n, d, b: 68 * b * n * d, "One tensor too many"),
        (lambda n, d, b: 80 * b * n * d, "too many"),
        (lambda n, d, b: 100 * b * n * d, "times what is measured"),
        (lambda n, d, b: "much", "no number"),
        (lambda n: n, "TypeError"),
        (64, "function itself"),
    ],
)
def test_block_recognises_the_usual_slips(count: object, says: str) -> None:
    result = check("06/block", count)
    assert not result.passed and says in result.message, result.message


def test_thirty_takes_the_last_batch_that_saves_enough(data: GeoData) -> None:
    full, lora = (gp.memory_plan(build(data, name), 1, CHIP) for name in ("full", "lora"))
    table = lora.table.assign(activations=full.table["activations"])  # as plain LoRA keeps them
    table["total"] = table.drop(columns="total").sum(axis=1)
    lora = replace(lora, table=table)
    fixed = [plan.total - plan.activations for plan in (full, lora)]

    def saved(batch: int) -> float:
        totals = [f + batch * p.activations for f, p in zip(fixed, (full, lora), strict=True)]
        return 1 - totals[1] / totals[0]

    last = max(batch for batch in range(1, 500) if saved(batch) >= 0.3)
    given = {"full": full, "lora": lora}
    assert check("06/thirty", last, **given).passed
    assert "too many" in check("06/thirty", last + 1, **given).message
    assert "one more" in check("06/thirty", last - 1, **given).message
    for wrong in (last + 0.5, 0, "many", True):
        assert "whole number" in check("06/thirty", wrong, **given).message


def test_fits_takes_the_largest_batch_alone(data: GeoData) -> None:
    network = build(data, "full")
    limit = gp.memory_plan(network, 5, CHIP).peak + 1
    given = {"network": network, "size": CHIP, "limit": limit}
    assert check("06/fits", 5, **given).passed
    assert "at its peak" in check("06/fits", 6, **given).message
    assert "so does a larger" in check("06/fits", 4, **given).message
    for wrong in (4.5, 0, "many"):
        assert "whole number" in check("06/fits", wrong, **given).message
