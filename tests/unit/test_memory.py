"""Memory is measured in bytes that can be worked out by hand."""

import doctest
import mmap
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

from geopeft_nb.memory import measure, plan
from geopeft_nb.memory.measure import training_bytes

FLOAT = 4  # bytes


def test_memory_now_grows_with_what_is_allocated() -> None:
    measure.reset_peak()  # hands back what earlier tests left free, so that the block is new
    before = measure.memory_now()
    block = torch.ones(64 * 2**20, dtype=torch.uint8)
    grown = measure.memory_now() - before
    # the allocator may already hold a few free MiB that the block reuses
    assert 0.8 * block.nbytes < grown < 1.5 * block.nbytes


def test_the_peak_remembers_what_was_freed_until_it_is_reset() -> None:
    clear = Path("/proc/self/clear_refs")
    if not (clear.exists() and os.access(clear, os.W_OK)):
        pytest.skip("this system cannot reset the peak of a process")
    measure.reset_peak("cpu")
    size = 64 * 2**20
    # From the system itself: an allocator would reuse what earlier tests left, and keep it.
    with mmap.mmap(-1, size) as block:
        for _ in range(64):
            block.write(b"1" * 2**20)
    assert measure.device_memory("cpu")["peak"] - measure.memory_now() > 0.8 * size
    measure.reset_peak("cpu")
    assert measure.device_memory("cpu")["peak"] - measure.memory_now() < 0.2 * size


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_measured_activations_are_what_the_allocator_hands_out() -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(256, 1024), torch.nn.GELU(), torch.nn.Linear(1024, 256)
    ).cuda()
    x = torch.randn(512, 256, device="cuda")
    parts = training_bytes(model, lambda: model(x).sum())
    measure.reset_peak("cuda")
    before = measure.memory_now("cuda")
    loss = model(x).sum()
    now, device = measure.memory_now("cuda"), measure.device_memory("cuda")
    # x was there before; the scalar loss takes one block of 512 bytes
    assert now - before - 512 == parts["activations"] - x.nbytes
    assert now <= device["peak"] < device["total"] > 2**30
    loss.backward()


@pytest.mark.parametrize("module", [measure, plan])
def test_the_examples_run(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted and not done.failed


def test_a_linear_layer_keeps_its_input_only_for_its_own_gradient() -> None:
    layer, x = torch.nn.Linear(8, 3), torch.randn(5, 8)
    parts = training_bytes(layer, lambda: layer(x).sum())
    weights, kept = (8 * 3 + 3) * FLOAT, 5 * 8 * FLOAT
    assert list(parts.items()) == [
        ("weights", weights), ("gradients", weights), ("optimiser", 2 * weights),
        ("activations", kept), ("total", 4 * weights + kept),
    ]  # fmt: skip
    layer.weight.requires_grad_(False)  # the bias needs no input for its gradient
    parts = training_bytes(layer, lambda: layer(x).sum())
    assert (parts["activations"], parts["gradients"]) == (0, 3 * FLOAT)


def test_only_what_a_gradient_needs_is_kept_and_once() -> None:
    frozen, head, other = torch.nn.Linear(8, 6), torch.nn.Linear(6, 2), torch.nn.Linear(6, 3)
    model = torch.nn.ModuleList([frozen.requires_grad_(False), head, other])
    x, wide = torch.randn(5, 8), torch.randn(5, 60)

    def without_gradients() -> torch.Tensor:
        with torch.no_grad():
            return head(frozen(x)).sum()

    steps = {
        "below the first trained weight nothing": lambda: head(frozen(x)).sum(),
        "used twice": lambda: sum(layer(y).sum() for y in [frozen(x)] for layer in (head, other)),
        "a view with the storage that it keeps alive": lambda: head(wide[:, ::10]).sum(),
        "nothing": without_gradients,
    }
    kept = {name: training_bytes(model, step)["activations"] for name, step in steps.items()}
    assert list(kept.values()) == [5 * 6 * FLOAT, 5 * 6 * FLOAT, wide.nbytes, 0], kept


def test_tied_weights_count_once_and_buffers_are_weights() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4, bias=False) for _ in range(2)))
    model[1].weight = model[0].weight
    model.register_buffer("scale", torch.ones(10))
    parts = training_bytes(model, lambda: model(torch.randn(2, 4)).sum())
    assert parts["weights"] == (16 + 10) * FLOAT
    assert 2 * parts["gradients"] == parts["optimiser"] == 2 * 16 * FLOAT


def test_the_gradients_and_moments_are_those_a_real_step_makes() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 2))
    model[0].requires_grad_(False)
    x = torch.randn(5, 8)
    parts = training_bytes(model, lambda: model(x).sum())
    optimiser = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    model(x).sum().backward()
    optimiser.step()
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    states = [{**state, "step": torch.empty(0)} for state in optimiser.state.values()]
    moments = sum(tensor.nbytes for state in states for tensor in state.values())
    assert (parts["gradients"], parts["optimiser"]) == (gradients, moments)


def test_checkpointing_keeps_only_the_input_of_the_block() -> None:
    from torch.utils.checkpoint import checkpoint

    block = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 8))
    x = torch.randn(5, 8, requires_grad=True)
    plain = training_bytes(block, lambda: block(x).sum())
    frugal = training_bytes(block, lambda: checkpoint(block, x, use_reentrant=False).sum())
    assert plain["activations"] == (5 * 8 + 2 * 5 * 32) * FLOAT  # x, before and after the GELU
    assert frugal["activations"] == 5 * 8 * FLOAT


def test_measuring_leaves_nothing_behind() -> None:
    import gc

    def alive() -> int:
        gc.collect()
        tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        return sum(t.untyped_storage().nbytes() for t in tensors if t.layout == torch.strided)

    layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
    image = torch.randn(256, 64)
    before = alive()
    for _ in range(3):
        training_bytes(layers, lambda: layers(image).sum())
    assert alive() - before < 50_000  # one forward pass keeps 64 kB or more
