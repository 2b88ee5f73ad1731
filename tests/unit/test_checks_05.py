"""The checks of lesson 05 recognise right answers and name the usual slips."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from geopeft_nb.backbones.vit import PreNormBlock
from geopeft_nb.classroom.check import check


@pytest.fixture(scope="module")
def block() -> nn.Module:
    torch.manual_seed(0)
    return PreNormBlock(16, 4)


class Prompted(nn.Module):
    """A right answer, whose parts the wrong ones replace."""

    def __init__(self, block: nn.Module, prompts: Tensor) -> None:
        super().__init__()
        self.block = block.requires_grad_(False)
        self.prompts = nn.Parameter(prompts)

    def beside(self, tokens: Tensor) -> Tensor:
        return self.block(torch.cat([tokens, self.prompts.expand(len(tokens), -1, -1)], dim=1))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.beside(tokens)[:, : tokens.shape[1]]


class InFront(Prompted):
    def forward(self, tokens: Tensor) -> Tensor:
        both = torch.cat([self.prompts.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.block(both)[:, self.prompts.shape[1] :]


class InFrontCutBehind(Prompted):
    def forward(self, tokens: Tensor) -> Tensor:
        both = torch.cat([self.prompts.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.block(both)[:, : tokens.shape[1]]


class CutInFront(Prompted):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.beside(tokens)[:, self.prompts.shape[1] :]


class NotCut(Prompted):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.beside(tokens)


class NotExpanded(Prompted):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(torch.cat([tokens, self.prompts], dim=1))[:, : tokens.shape[1]]


class Ignored(Prompted):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(tokens)


class Added(Prompted):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(tokens + self.prompts.mean(dim=1))


class NoParameter(Prompted):
    def __init__(self, block: nn.Module, prompts: Tensor) -> None:
        super().__init__(block, prompts)
        del self.prompts
        self.prompts = prompts


class NotFrozen(Prompted):
    def __init__(self, block: nn.Module, prompts: Tensor) -> None:
        super().__init__(block, prompts)
        self.block.requires_grad_(True)


class CutOff(Prompted):
    def beside(self, tokens: Tensor) -> Tensor:
        prompts = self.prompts.detach().expand(len(tokens), -1, -1)
        return self.block(torch.cat([tokens, prompts], dim=1))


class Flat(Prompted):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).mean(dim=1)


@pytest.mark.parametrize("answer", [Prompted, InFront])
def test_prompts_may_stand_anywhere(answer: type, block: nn.Module) -> None:
    result = check("05/prompted_block", answer, block=block)
    assert result.passed, result.message
    assert all(weight.requires_grad and weight.grad is None for weight in block.parameters())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (InFrontCutBehind, "includes the prompts"),
        (CutInFront, "includes the prompts"),
        (NotCut, "9 came out"),
        (NotExpanded, "batch of one"),
        (Ignored, "without prompts"),
        (Added, "side by side"),
        (NoParameter, "Nothing is trained"),
        (NotFrozen, "Everything is trained"),
        (CutOff, "cut off"),
        (Flat, "(B, N, D)"),
        (Prompted.forward, "a class that"),
        (dict, "TypeError"),
    ],
)
def test_prompted_block_names_the_slip(answer: object, says: str, block: nn.Module) -> None:
    result = check("05/prompted_block", answer, block=block)
    assert not result.passed and says in result.message


@pytest.mark.parametrize(
    ("growth", "says"),
    [
        (lambda n, p: (n + p, (n + p) ** 2), "counts them"),
        (lambda n, p: (p / n, (p / n) ** 2), "as a share"),
        (lambda n, p: ((1 + p / n) ** 2, 1 + p / n), "other order"),
        (lambda n, p: (1 + p / n, 1 + p / n), "look around"),
        (lambda n, p: (1 + p / n, 1 + (p / n) ** 2), "between prompts and tokens"),
        (lambda n, p: (1 + p / n, 3.0), "on pairs"),
        (lambda n, p: (3.0, 3.0), "on tokens"),
        (lambda n, p: 1 + p / n, "Two factors"),
        (lambda n, p: (str(n), p), "two numbers"),
        (lambda n: n, "TypeError"),
        (2.5, "function itself"),
    ],
)
def test_growth_names_the_slip(growth: object, says: str) -> None:
    result = check("05/growth", growth)
    assert not result.passed and says in result.message
    assert check("05/growth", lambda n, p: ((n + p) / n, ((n + p) / n) ** 2)).passed


class Adapted(nn.Module):
    """A right answer, whose parts the wrong ones replace."""

    bias, bend = True, staticmethod(functional.gelu)

    def __init__(self, layer: nn.Module, width: int, bottleneck: int) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Linear(width, bottleneck, bias=self.bias)
        self.up = nn.Linear(bottleneck, width, bias=self.bias)
        for weight in self.up.parameters():
            nn.init.zeros_(weight)

    def adapt(self, y: Tensor) -> Tensor:
        return self.up(self.bend(self.down(y)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y + self.adapt(y)


class Relu(Adapted):
    bend = staticmethod(functional.relu)


class Straight(Adapted):
    bend = staticmethod(lambda value: value)


class NoBias(Adapted):
    bias = False


class Beside(Adapted):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.adapt(x)


class AdapterAlone(Adapted):
    def forward(self, x: Tensor) -> Tensor:
        return self.adapt(self.layer(x))


class WithInput(Adapted):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class RandomStart(Adapted):
    def __init__(self, layer: nn.Module, width: int, bottleneck: int) -> None:
        super().__init__(layer, width, bottleneck)
        nn.init.normal_(self.up.weight)


class BothZero(Adapted):
    def __init__(self, layer: nn.Module, width: int, bottleneck: int) -> None:
        super().__init__(layer, width, bottleneck)
        for weight in self.down.parameters():
            nn.init.zeros_(weight)


class LayerTrained(Adapted):
    def __init__(self, layer: nn.Module, width: int, bottleneck: int) -> None:
        super().__init__(layer, width, bottleneck)
        self.layer.requires_grad_(True)


class Narrow(Adapted):
    def forward(self, x: Tensor) -> Tensor:
        return self.down(x)


@pytest.mark.parametrize("answer", [Adapted, Relu])
def test_any_bend_will_do(answer: type, block: nn.Module) -> None:
    result = check("05/bottleneck", answer, layer=block.attn)
    assert result.passed, result.message


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Straight, "nonlinearity"),
        (NoBias, "biases"),
        (Beside, "beside it"),
        (AdapterAlone, "not added"),
        (WithInput, "once more"),
        (RandomStart, "begin at zero"),
        (BothZero, "both ways"),
        (LayerTrained, "stay frozen"),
        (Narrow, "(B, N, D)"),
        (lambda layer, width, bottleneck: layer, "a class that"),
        (dict, "TypeError"),
    ],
)
def test_bottleneck_names_the_slip(
    answer: Callable[..., nn.Module], says: str, block: nn.Module
) -> None:
    result = check("05/bottleneck", answer, layer=block.attn)
    assert not result.passed and says in result.message
