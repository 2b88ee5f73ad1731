"""Golden files: what the published implementations compute, as numbers.

A golden file holds, for a small instance of a published network, its weights, inputs and outputs.
Tests that need one that is not there are skipped with its name.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geopeft_nb.backbones.vit import split_qkv

GOLDEN = Path(
    os.environ.get("GEOPEFT_GOLDEN", Path(__file__).parents[2].parent / "shared" / "golden")
)

#: weights, inputs, outputs (by "call/what") and facts of one file
Golden = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, np.ndarray], dict[str, Any]]


@pytest.fixture(scope="session")
def golden_path() -> Callable[[str], Path]:
    """A callable that gives the path of a golden file by its name with ending, or skips."""

    def find(name: str) -> Path:
        if not (GOLDEN / name).is_file():
            pytest.skip(f"{name} is not in {GOLDEN.name}/ (set GEOPEFT_GOLDEN to its folder)")
        return GOLDEN / name

    return find


@pytest.fixture(scope="session")
def golden(golden_path: Callable[[str], Path]) -> Callable[[str], Golden]:
    """A callable that opens a golden file by its name without ending, or skips.

    Weights are those whose keys begin with `weights`.
    """

    def read(name: str, weights: str = "sd/") -> Golden:
        with np.load(golden_path(f"{name}.npz")) as file:
            arrays = {key: file[key] for key in file.files}

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

        state, inputs = (
            {key: torch.from_numpy(value) for key, value in part(prefix).items()}
            for prefix in (weights, "in/")
        )
        return state, inputs, part("out/"), json.loads(str(arrays["meta"]))

    return read


@pytest.fixture(scope="session")
def published_layout(golden_path: Callable[[str], Path]) -> Callable[[str], dict[str, list[int]]]:
    """A callable that gives the shapes of a published full-size model, its `qkv` split as ours."""

    def read(name: str) -> dict[str, list[int]]:
        shapes = json.loads(golden_path("full_size_keys.json").read_text())["models"][name]
        state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        return {key: list(value.shape) for key, value in split_qkv(state, ()).items()}

    return read


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """A callable that compares with a golden output, as the README of the golden files says.

    The tolerance is a factor of the largest value of the whole file: published float32 code is
    itself at least five times nearer to a float64 run than 1e-5, and usual mistakes are further.
    """

    def check(
        ours: Tensor, reference: np.ndarray, outputs: dict[str, np.ndarray], factor: float = 1e-5
    ) -> None:
        largest = max(float(np.abs(value).max()) for value in outputs.values())
        assert tuple(ours.shape) == reference.shape
        error = float(np.abs(ours.detach().numpy() - reference).max())
        assert error <= factor * max(1.0, largest), f"off by {error:.2e}, largest is {largest:.1f}"

    return check
