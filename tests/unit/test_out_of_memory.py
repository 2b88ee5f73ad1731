"""When memory runs out, the error says what to change, and nothing stays behind."""

import gc
import weakref
from typing import Any

import pytest
import torch
from test_fit import few

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.memory.shortage import is_shortage
from geopeft_nb.models import SegmentationModel
from geopeft_nb.training import fit as fit_module

GIB = 2**30


class Plan(int):
    """A plan of a batch."""

    def __repr__(self) -> str:
        return f"the plan of a batch of {int(self)}"


@pytest.fixture(autouse=True)
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Plan by rule, and note what was asked."""
    asked = []

    def memory_plan(model, batch_size, size, precision, frugal, device):  # noqa: ANN001, ANN202
        asked.append((batch_size, size, precision, frugal))
        return Plan(batch_size)

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
    memory = {"limit": int(gib * GIB)}
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
    assert "the plan of a batch of 4 Workspace" in said and "Halve batch_size" in said
    assert plans == [(4, 16, "fp32", ())]
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


def test_other_errors_stay_what_they_are(data: GeoData, monkeypatch: pytest.MonkeyPatch) -> None:
    run_out(monkeypatch, 1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied") as raised:
        gp.fit(network(data), data, batch_size=4, dashboard=False)
    assert not isinstance(raised.value, gp.OutOfMemory)
    assert is_shortage(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_shortage(ValueError("out of memory"))
