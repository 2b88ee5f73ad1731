"""The checks of lesson 04 recognise right answers and name the usual slips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import geopeft_nb as gp
from geopeft_nb.classroom.check import check
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.models import SegmentationModel

Tensor = torch.Tensor


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (0.9, "a share"),
        (2, "One too few"),
        (4, "Square them"),
        (5, "running sum"),
        (6, "from the strongest"),
    ],
)
def test_directions_recognises_the_usual_slips(count: float, says: str) -> None:
    values = torch.tensor([10.0, 5.0, 4.0, 2.0, 1.0, 0.5])  # squares 100, 25, 16, …: 3 carry 96 %
    result = check("04/directions", count, values=values)
    assert not result.passed and says in result.message
    assert check("04/directions", 3, values=values).passed


class Right(nn.Module):
    """A LoRA layer whose parts the tests replace one by one by slips."""

    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)
        self.r, self.alpha, self.scale = r, alpha, alpha / r

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)

    def merged_weight(self) -> Tensor:
        return self.base.weight + self.scale * self.B @ self.A


def test_lora_layer_takes_a_right_one_and_leaves_the_random_state() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert check("04/lora_layer", Right).passed
    assert torch.equal(torch.rand(1), expected)


def with_init(change: Callable[[Any], object]) -> type[nn.Module]:
    class Changed(Right):
        def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
            super().__init__(base, r, alpha)
            change(self)

    return Changed


def with_forward(forward: Callable[[Any, Tensor], object]) -> type[nn.Module]:
    return type("Changed", (Right,), {"forward": forward})


def with_merged(merged: Callable[[Any], object]) -> type[nn.Module]:
    return type("Changed", (Right,), {"merged_weight": merged})


def detour(layer: Right, x: Tensor) -> Tensor:
    return x @ layer.A.T @ layer.B.T


SLIPS = [
    (Right(nn.Linear(2, 2), 1, 1), "class itself"),
    (dict, "nn.Module"),
    (type("Empty", (nn.Module,), {}), "TypeError"),
    (with_init(lambda s: delattr(s, "A")), "missing"),
    (with_init(lambda s: (delattr(s, "B"), setattr(s, "B", torch.zeros(20, 4)))), "nn.Parameter"),
    (with_init(lambda s: setattr(s, "A", nn.Parameter(s.A.T.detach()))), "has to be (4, 12)"),
    (with_init(lambda s: nn.init.ones_(s.B)), "How should B begin"),
    (with_init(lambda s: nn.init.zeros_(s.A)), "both zero"),
    (with_init(lambda s: s.base.requires_grad_(True)), "More than A and B"),
    (with_init(lambda s: s.A.requires_grad_(False)), "one of them is frozen"),
    (with_init(lambda s: s.__dict__.update(base=s._modules.pop("base"))), "part of the module"),
    (with_forward(lambda s, x: s.base(x)[0]), "it should be"),
    (with_forward(lambda s, x: x @ s.base.weight.T), "bias of the base layer"),
    (with_forward(lambda s, x: detour(s, x)), "with B at zero"),
    (with_forward(lambda s, x: s.base(x) + detour(s, x)), "not scaled"),
    (with_forward(lambda s, x: s.base(x) + s.r / s.alpha * detour(s, x)), "turned round"),
    (with_forward(lambda s, x: s.base(x) + s.alpha * detour(s, x)), "alpha alone"),
    (with_forward(lambda s, x: s.base(x) + s.alpha // s.r * detour(s, x)), "not with //"),
    (with_forward(lambda s, x: s.base(x) + s.alpha / s.r**0.5 * detour(s, x)), "root of r"),
    (with_forward(lambda s, x: s.base(x)), "change nothing"),
    (with_forward(lambda s, x: s.base(x) + 7 * detour(s, x)), "each factor"),
    (with_forward(lambda s, x: s.base(x) + s.scale * detour(s, x).detach()), "RuntimeError"),
    (with_forward(lambda s, x: s.base(x) + s.scale * x @ s.A.T.detach() @ s.B.T), "No gradient"),
    (with_merged(None), "still lacks"),  # type: ignore[arg-type]
    (with_merged(lambda s: s.base.weight.T), "(out, in)"),
    (with_merged(lambda s: s.base.weight.add_(s.scale * s.B @ s.A)), "Return a new matrix"),
    (with_merged(lambda s: s.base.weight + s.B @ s.A), "leaves out the scale"),
    (with_merged(lambda s: s.scale * s.B @ s.A), "change alone"),
    (with_merged(lambda s: s.base.weight - s.scale * s.B @ s.A), "does not give"),
]


@pytest.mark.parametrize(("answer", "says"), SLIPS, ids=[says for _, says in SLIPS])
def test_lora_layer_recognises_the_usual_slips(answer: object, says: str) -> None:
    result = check("04/lora_layer", answer)
    assert not result.passed and says in result.message, result.message


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (lambda d, n, r: 14 * d * r, "one block"),
        (lambda d, n, r: 16 * d * n * r, "keys"),
        (lambda d, n, r: 12 * d * n * r, "one of queries and values"),
        (lambda d, n, r: 9 * d * n * r, "either fc1 or fc2"),
        (lambda d, n, r: 4 * d * n * r, "leaves out the feed-forward"),
        (lambda d, n, r: 10 * d * n * r, "leaves out queries"),
        (lambda d, n, r: 8 * d * n * r, "as if they were"),
        (lambda d, n, r: 7 * d * n * r, "A and B both"),
        (lambda d, n, r: 10 * d * d * n, "whole layers"),
        (lambda d, n, r: 3, "each of the four places"),
        (lambda d, n, r: None, "no number"),
        (lambda d: d, "TypeError"),
        (64, "function itself"),
    ],
)
def test_count_lora_recognises_the_usual_slips(count: object, says: str) -> None:
    result = check("04/count_lora", count)
    assert not result.passed and says in result.message, result.message


def test_count_lora_agrees_with_what_attach_builds(network: Callable[..., Any]) -> None:
    def count(width: int, depth: int, r: int) -> int:
        return depth * (2 * r * 2 * width + 2 * r * 5 * width)

    assert check("04/count_lora", count).passed
    built = gp.parameter_table(network("lora", r=4)).loc["adapter", "trainable"]
    assert built == count(192, 6, 4)


@pytest.fixture(scope="module")
def network() -> Callable[..., SegmentationModel]:
    chips = gp.load_data("scenes")

    def build(method: str, **options: object) -> SegmentationModel:
        backbone = gp.load_backbone("geopeft_tiny", weights=None, bands=chips.bands)
        model = gp.build_model(backbone, chips, decoder="linear")
        return gp.attach(model, method, **options)

    return build


def kept(model: SegmentationModel) -> int:
    image = torch.rand(1, 6, 64, 64, generator=torch.Generator().manual_seed(0))
    return training_bytes(model.train(), lambda: model(image).square().mean())["activations"]


def test_less_memory_takes_late_adapters_and_explains_the_others(
    network: Callable[..., SegmentationModel],
) -> None:
    limit = kept(network("lora")) / 2

    def found(answer: object) -> str:
        return check("04/less_memory", answer, kept=kept, limit=limit).message

    assert check("04/less_memory", network("lora", last=2), kept=kept, limit=limit).passed
    assert "how many blocks" in found(network("lora", preset="late"))
    assert "Rank changes little" in found(network("lora", r=1))
    assert "frozen" in found(network("full"))
    assert "no LoRA" in found(network("linear_probe"))
    assert "network itself" in found("lora")
