"""When memory runs out, the error says what to change, and nothing stays behind."""

import gc
import re
import weakref
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from test_fit import few

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.memory.shortage import explain, is_shortage, smaller
from geopeft_nb.models import SegmentationModel
from geopeft_nb.training import fit as fit_module

GIB = 2**30
SETTINGS = {"batch_size": 4, "accumulate": 1, "precision": "fp32", "frugal": ()}


@dataclass
class Plan:
    """A plan whose activations are a GiB a chip, and half of it with checkpoints."""

    batch_size: int
    frugal: tuple[str, ...]
    weights: int = 1 * GIB
    gradients: int = 0
    optimiser: int = 0

    @property
    def activations(self) -> int:
        return self.batch_size * GIB // (2 if "checkpoint" in self.frugal else 1)

    @property
    def total(self) -> int:
        return self.weights + self.activations

    def fits(self, limit: int) -> bool:
        return self.total <= limit


@pytest.fixture(autouse=True)
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Plan by rule, and note what was asked."""
    asked = []

    def memory_plan(model, batch_size, size, precision, frugal, device):  # noqa: ANN001, ANN202
        asked.append((batch_size, size, precision, frugal))
        return Plan(batch_size, tuple(frugal))

    monkeypatch.setattr("geopeft_nb.memory.shortage.memory_plan", memory_plan)
    return asked


@pytest.fixture(scope="module")
def data() -> GeoData:
    return few()


def network(data: GeoData, method: str = "lora") -> SegmentationModel:
    return gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), method)


def run_out(patch: pytest.MonkeyPatch, step: int, error: BaseException) -> list[weakref.ref]:
    """Let a training step fail while its graph is alive; return a look at its loss."""
    seen, train, steps = [], fit_module.Task.training_step, iter(range(1, 1000))

    def fail(self, batch, index):  # noqa: ANN001, ANN202
        loss = train(self, batch, index)
        if next(steps) == step:
            seen.append(weakref.ref(loss))
            raise error
        return loss

    patch.setattr(fit_module.Task, "training_step", fail)
    return seen


def limit(patch: pytest.MonkeyPatch, gib: float) -> None:
    memory = {"process": 0, "limit": int(gib * GIB)}
    patch.setattr("geopeft_nb.memory.shortage.device_memory", lambda device: memory)


def tensors(but: SegmentationModel) -> int:
    """Count the tensors that are alive and are not the model's own."""
    gc.collect()
    own = {id(tensor) for tensor in [*but.parameters(), *but.buffers()]}
    alive = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return sum(id(tensor) not in own for tensor in alive)


def test_running_out_says_what_took_it_and_leaves_the_kernel_usable(
    data: GeoData, monkeypatch: pytest.MonkeyPatch, plans: list[Any]
) -> None:
    model = network(data)
    gp.fit(model, data, epochs=1, batch_size=4, dashboard=False)  # fills what is kept for good
    before = tensors(model)
    with monkeypatch.context() as patch:
        limit(patch, 4)
        seen = run_out(patch, 5, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
        with pytest.raises(gp.OutOfMemory) as raised:
            gp.fit(model, data, batch_size=4, dashboard=False, seed=3)
        # A notebook keeps the error and its traceback.
        assert raised.value.__context__ is None and raised.value.__cause__ is None
        gc.collect()
        assert seen and seen[0]() is None
        assert tensors(model) <= before
    said = str(raised.value)
    assert "Memory ran out on cpu, which has 4.00 GiB: CUDA out of memory." in said
    assert (
        "batch_size=4, precision='fp32') at 16 px: 5.00 GiB = weights 1.00 GiB + gradients 0 B"
        in said
    )
    assert "Try fit(..., batch_size=2, accumulate=2, precision='fp32'): planned 3.00 GiB." in said
    assert plans == [(4, 16, "fp32", ()), (2, 16, "fp32", ())]
    assert not model.training and all(weight.grad is None for weight in model.parameters())
    assert {weight.device.type for weight in model.parameters()} == {"cpu"}
    again = gp.fit(model, data, epochs=1, batch_size=2, accumulate=2, dashboard=False)
    assert again.state == "finished" and len(again.history) == 3


def test_the_best_weights_are_back_after_running_out(
    data: GeoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gp.fit(network(data), data, epochs=1, batch_size=4, dashboard=False)
    model = network(data)
    run_out(monkeypatch, 5, MemoryError())  # in the second epoch
    with pytest.raises(gp.OutOfMemory, match="MemoryError"):
        gp.fit(model, data, epochs=3, batch_size=4, dashboard=False)
    pairs = zip(model.parameters(), whole.model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("method", "gib", "advice"),
    [
        ("lora", 2.0, r"batch_size=1, accumulate=4, precision='fp32'\): planned 2\.00 GiB"),
        ("lora", 1.5, r"accumulate=4, precision='fp32', frugal=\['checkpoint'\]\): planned"),
        ("lora", 1.2, "No smaller batch and no recipe helps enough. Use smaller chips"),
    ],
)
def test_the_advice_is_the_next_that_fits(
    data: GeoData, monkeypatch: pytest.MonkeyPatch, method: str, gib: float, advice: str
) -> None:
    limit(monkeypatch, gib)
    error = explain("no memory", network(data, method), 16, SETTINGS, "cpu")
    assert re.search(advice, str(error))


def test_smaller_ways_see_at_least_as_many_chips_a_step(data: GeoData) -> None:
    settings = {**SETTINGS, "batch_size": 5, "accumulate": 2, "frugal": ("late",)}
    ways = list(smaller(network(data), settings))
    assert all(way["batch_size"] * way["accumulate"] >= 10 for way in ways)
    assert [way["batch_size"] for way in ways[:2]] == [2, 1]
    assert all(way["frugal"][0] == "late" for way in ways)
    assert len({(way["batch_size"], way["frugal"]) for way in ways}) == len(ways) == 8
    assert not any("bf16" in way["frugal"] for way in smaller(network(data, "full"), SETTINGS))


def test_other_errors_stay_what_they_are(data: GeoData, monkeypatch: pytest.MonkeyPatch) -> None:
    run_out(monkeypatch, 1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied") as raised:
        gp.fit(network(data), data, batch_size=4, dashboard=False)
    assert not isinstance(raised.value, gp.OutOfMemory)
    assert is_shortage(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_shortage(ValueError("out of memory"))
