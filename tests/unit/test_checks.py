"""The checks of exercises take right answers, and name the usual slips.

`TABLE` has rows for each exercise: an answer, and words that must stand in the finding. Where an
exercise needs more than the answer, `CONTEXT` makes it; rows of `MADE` are functions of that.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.backbones.vit import PreNormBlock
from geopeft_nb.classroom.check import check, lesson_folders, load_checks
from geopeft_nb.evaluation.intervals import bootstrap_scores, percentile_interval
from geopeft_nb.memory.lean import quantise
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.memory.plan import MemoryPlan
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tasks import mean_iou

RIGHT = "that's right"

# What exercises need beside the answer


@cache
def chips() -> Any:
    return gp.load_data("scenes")


def network(method: str | None = None, **options: object) -> SegmentationModel:
    """A network with random weights, and a method attached."""
    backbone = gp.load_backbone("geopeft_tiny", weights=None, bands=chips().bands)
    model = gp.build_model(backbone, chips(), decoder="linear")
    return gp.attach(model, method, **options) if method else model


def standin() -> dict[str, Any]:
    """A network's three parts by name: 100 frozen, 8 adapter and 2 decoder parameters."""
    layers = nn.ModuleDict(
        {
            "base_layer": nn.Linear(10, 10, bias=False).requires_grad_(False),
            "lora_A": nn.Linear(8, 1, bias=False),
        }
    )
    peft = nn.ModuleDict({"base_model": nn.ModuleDict({"model": layers})})
    model = nn.ModuleDict({"backbone": peft, "decoder": nn.Linear(2, 1, bias=False)})
    return {"model": model}


def report() -> dict[str, Any]:
    table = pd.DataFrame({"role": ["home", "away"], "mIoU": [0.8, 0.6]}, index=["a", "b"])
    return {"report": SimpleNamespace(table=table)}


@cache
def reflectance() -> dict[str, Any]:
    """Pixels of two regions, whose water is dark in the third of three bands."""
    random = np.random.default_rng(0)
    land, water = np.array([0.1, 0.1, 0.3]), np.array([0.1, 0.1, 0.02])
    pixels = {
        region: {
            name: mean * random.uniform(0.9, 1.1, (200, 3))
            for name, mean in (("land", land), ("water", water))
        }
        for region in "ab"
    }
    return {"pixels": pixels, "bands": ("G", "R", "S")}


def last_trained(last: int) -> SegmentationModel:
    """A network of which decoder and last blocks are trained."""
    model = network()
    model.backbone.requires_grad_(False)
    model.backbone.blocks[len(model.backbone.blocks) - last :].requires_grad_(True)
    return model


def kept(model: SegmentationModel) -> int:
    image = torch.rand(1, 6, 64, 64, generator=torch.Generator().manual_seed(0))
    return training_bytes(model.train(), lambda: model(image).square().mean())["activations"]


@cache
def late() -> dict[str, Any]:
    return {"kept": kept, "limit": kept(network("lora")) / 2}


@cache
def block() -> nn.Module:
    torch.manual_seed(0)
    return PreNormBlock(16, 4)


@cache
def deliveries() -> dict[str, Any]:
    """Two folders of a plot each: the corner is 0, and numbers of the second are 1,000 higher."""
    folder, ground = Path(mkdtemp()), np.random.default_rng(0).integers(300, 3000, (6, 32, 32))
    for name, more in (("first", 0), ("second", 1_000)):
        pixels = (ground + more).astype(np.uint16)
        pixels[:, :8, :8] = 0
        path = folder / name / "images" / "plot.tif"
        path.parent.mkdir(parents=True)
        shape: dict[str, Any] = {"count": 6, "height": 32, "width": 32, "dtype": "uint16"}
        shape["transform"] = rasterio.transform.from_origin(5e5, 4e6, 20, 20)
        with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32618", **shape) as file:
            file.write(pixels)
    return {"folder": folder}


@cache
def large_plan() -> dict[str, Any]:
    """Planning a large model, which half of the recipes bring below the limit."""

    def plan(method: str = "lora", precision: str = "fp32", frugal: object = None) -> MemoryPlan:
        gp.attach(model := network(), method)
        return gp.memory_plan(model, 8, 64, precision, frugal)  # type: ignore[arg-type]

    return {"plan": plan, "limit": (plan().peak + plan(frugal="late").peak) / 2}


@cache
def decoding() -> dict[str, Any]:
    """Networks with an FCN, and the plans that a learner has of others."""

    def build(decoder: str, method: str, **options: object) -> SegmentationModel:
        backbone = gp.load_backbone("geopeft_tiny", weights=None, bands=chips().bands)
        return gp.attach(gp.build_model(backbone, chips(), decoder=decoder, **options), method)

    plans = {
        f"{method}_{decoder}": gp.memory_plan(build(decoder, method, **options), 4)
        for method, decoder, options in [
            ("lora", "linear", {}), ("full", "linear", {}), ("full", "fcn", {"channels": 64}),
        ]
    }  # fmt: skip
    return {"build": build, "network": build("fcn", "lora", channels=64), "plans": plans}


def slim() -> dict[str, Any]:
    limit = int(1.5 * decoding()["plans"]["lora_linear"].total)
    return {"limit": limit, "batch_size": 4, "method": "lora"}


@cache
def recipes_of_all() -> dict[str, Any]:
    """Planning LoRA and full fine-tuning; a limit that takes bf16 in both of its meanings."""
    planned = large_plan()["plan"]
    kept = [planned(precision="bf16", frugal=recipes).peak for recipes in (
        ["recompute"], ["recompute", "bf16"])]  # fmt: skip
    return {"plan": planned, "limit": sum(kept) / 2}


CONTEXT: dict[str, Callable[[], dict[str, Any]]] = {
    "00/eight": lambda: {"one": 1_600, "two": 1_700, "planned": 2_300},
    "00/challenge": large_plan,
    "01/trainable_share": standin,
    "01/frozen_backbone": lambda: {"limit": 8},
    "01/region_gap": report,
    "02/two_bands": reflectance,
    "03/between": lambda: {"kept": kept, "limit": kept(network("full")) / 2},
    "04/less_memory": late,
    "05/prompted_block": lambda: {"block": block()},
    "05/bottleneck": lambda: {"layer": block().attn},
    "05/neutral": lambda: {
        "changes": {"lora": 0.0, "adapter": 2e-7, "vpt": 0.4, "vit_adapter": 1.3}
    },
    "05/lean": lambda: {"lora": network("lora"), "batch_size": 4},
    "07/challenge": recipes_of_all,
    "08/linear_weights": lambda: {"network": network("linear_probe")},
    "08/lora_fcn": lambda: {
        "network": decoding()["network"],
        "batch_size": 4,
        **decoding()["plans"],
    },
    "08/slim": slim,
    "11/share_above": lambda: {"scores": scores_of_models()},
    "11/time_share": lambda: {"times": times_of_two()},
    "11/grid": lambda: {
        "data": "scenes",
        "data_options": {},
        "model": "geopeft_tiny",
        "methods": ["lora", "full"],
        "seeds": [0, 1, 2],
        "epochs": 2,
        "batch_size": 8,
    },
    "12/fill": deliveries,
    "12/offset": deliveries,
}

# Answers, right and wrong


def changed(model: Any, change: Callable[[Any], object]) -> Any:
    """Return a network after a change in place."""
    change(model)
    return model


def scaled(scale: Callable[[Tensor, Tensor, Tensor], object]) -> Callable[..., object]:
    return lambda image, mean, std: scale(image, mean[:, None, None], std[:, None, None])


def error(measure: Callable[[Tensor, Tensor], object]) -> Callable[..., object]:
    return lambda image, rebuilt, mask: measure(
        rebuilt - image, (mask > 0)[:, None].expand_as(image)
    )


def filled(image: Tensor, hidden: Tensor) -> Tensor:
    seen = (~hidden).float()
    return torch.where(hidden, (image * seen).sum((2, 3), True) / seen.sum((2, 3), True), image)


def eye(X: Tensor) -> Tensor:
    return torch.eye(X.shape[1], dtype=X.dtype)


def ridge(X: Tensor, T: Tensor, penalty: float) -> Tensor:
    return torch.linalg.solve(X.T @ X + penalty * eye(X), X.T @ T)


def ridge_in_place(X: Tensor, T: Tensor, penalty: float) -> Tensor:
    W = ridge(X, T, penalty)
    X -= X.mean(dim=0)
    return W


class Lora(nn.Module):
    """A right layer, whose parts are replaced one by one by slips."""

    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)
        self.r, self.alpha, self.scale = r, alpha, alpha / r

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * detour(self, x)

    def merged_weight(self) -> Tensor:
        return self.base.weight + self.scale * self.B @ self.A


def detour(layer: Any, x: Tensor) -> Tensor:
    return x @ layer.A.T @ layer.B.T


class Prompted(nn.Module):
    """A right block with prompts behind the tokens."""

    def __init__(self, block: nn.Module, prompts: Tensor) -> None:
        super().__init__()
        self.block = block.requires_grad_(False)
        self.prompts = nn.Parameter(prompts)

    def beside(self, tokens: Tensor) -> Tensor:
        return self.block(torch.cat([tokens, self.prompts.expand(len(tokens), -1, -1)], dim=1))

    def in_front(self, tokens: Tensor) -> Tensor:
        return self.block(torch.cat([self.prompts.expand(len(tokens), -1, -1), tokens], dim=1))

    def without_gradient(self, tokens: Tensor) -> Tensor:
        prompts = self.prompts.detach().expand(len(tokens), -1, -1)
        return self.block(torch.cat([tokens, prompts], dim=1))[:, : tokens.shape[1]]

    def forward(self, tokens: Tensor) -> Tensor:
        return self.beside(tokens)[:, : tokens.shape[1]]


class Adapted(nn.Module):
    """A right bottleneck adapter behind a layer."""

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


def adapts(method: Callable[[Any, Tensor], Tensor]) -> type[nn.Module]:
    """An adapter that makes something else of what its layer gives."""
    return forward(Adapted, lambda s, x: method(s, s.layer(x)))


def deep_prompts(
    blocks: list[nn.Module],
    prompts: list[Tensor],
    x: Tensor,
    cut: str = "each",
    front: bool = False,
) -> Tensor:
    """Run tokens through blocks with prompts, which are cut off somewhere."""
    count = x.shape[1]
    for block, own in zip(blocks, prompts, strict=True):
        pair = [x, own.expand(len(x), -1, -1)]
        x = block(torch.cat(pair[::-1] if front else pair, dim=1))
        if cut in ("each", "wrong"):
            x = x[:, -count:] if front or cut == "wrong" else x[:, :count]
    return x[:, :count] if cut == "end" else x


def begun(kind: type[nn.Module], change: Callable[[Any], object]) -> type[nn.Module]:
    """A class whose objects are changed once they are made."""

    class Changed(kind):  # type: ignore[misc, valid-type]
        def __init__(self, *given: object, **named: object) -> None:
            super().__init__(*given, **named)
            change(self)

    return Changed


def forward(kind: type[nn.Module], method: Callable[[Any, Tensor], object]) -> type[nn.Module]:
    return type("Changed", (kind,), {"forward": method})


def merged(method: Callable[[Any], object] | None) -> type[nn.Module]:
    return type("Changed", (Lora,), {"merged_weight": method})


def again(
    block: nn.Module, x: Tensor, gradient: Tensor, leaf: bool = True, watch: bool = True
) -> Tensor | None:
    x = x.detach().requires_grad_() if leaf else x
    with torch.set_grad_enabled(watch):
        y = block(x)
    torch.autograd.backward(y, gradient)
    return x.grad


def only_x(block: nn.Module, x: Tensor, gradient: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(block(x), x, gradient)[0]


def by_row(weight: Tensor, largest: float = 127) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(dim=1, keepdim=True) / largest
    return (weight / scale).round().to(torch.int8), scale


def for_all(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().max() / 127
    return (weight / scale).round().to(torch.int8), scale


def saved(full: MemoryPlan, lora: MemoryPlan, batch: int) -> float:
    totals = [one.total + (batch - 1) * one.activations for one in (full, lora)]
    return 1 - totals[1] / totals[0]


def last_batch(
    full: MemoryPlan, lora: MemoryPlan, share: float = 0.7, of: str = "total", clip: bool = True
) -> int:
    """Solve for the last batch at which LoRA needs no more than a share."""
    fixed = [getattr(one, of) - one.activations for one in (full, lora)]
    growing = lora.activations - share * full.activations
    found = int((share * fixed[0] - fixed[1]) // growing)
    return max(0, found) if clip else found


def by_halves(plan: Callable[[int], MemoryPlan], limit: float) -> int:
    low, high = 0, 1024
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if plan(middle).fits(limit) else (low, middle)
    return low


def drawn(
    m: np.ndarray, places: Sequence[str], seed: int = 3, more: int = 0, by_chip: bool = False
) -> np.ndarray:
    """Score draws of places the way a learner might."""
    names, random = sorted(set(places)), np.random.default_rng(seed)
    sums = {n: m[np.asarray(places) == n].sum(axis=0) for n in names}
    draws = random.choice(places if by_chip else names, size=(1000, len(names) + more))
    return np.array([mean_iou(sum(sums[name] for name in draw)) for draw in draws])


def ends(scores: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def of_averages(m: np.ndarray, places: Sequence[str]) -> np.ndarray:
    names = sorted(set(places))
    each = np.array([mean_iou(m[np.asarray(places) == n].sum(axis=0)) for n in names])
    return np.random.default_rng(0).choice(each, (1000, len(each))).mean(axis=1)


def drawn_once(m: np.ndarray, places: Sequence[str]) -> np.ndarray:
    """Score draws in which a place counts once, however often it came."""
    names, random = sorted(set(places)), np.random.default_rng(2)
    draws = random.choice(names, size=(1000, len(names)))
    return np.array([mean_iou(m[np.isin(places, draw)].sum(axis=0)) for draw in draws])


def both_drawn(
    a: np.ndarray, b: np.ndarray, places: Sequence[str], seed: int = 3
) -> tuple[float, float]:
    return ends(drawn(a, places, seed) - drawn(b, places, seed))


def strips(first: int, second: int) -> np.ndarray:
    """Deal columns up to one number for training, from another on for the test."""
    dealt = np.full((60, 60), -1)
    dealt[:, :first], dealt[:, second:] = 1, 0
    return dealt


def planned(answer: Callable[..., float]) -> Callable[..., float]:
    """An answer made of what a step keeps with LoRA and linear, full and linear, full and FCN."""

    def make(network: object, batch_size: int, **plans: MemoryPlan) -> float:
        names = ("lora_linear", "full_linear", "full_fcn")
        return answer(*(plans[name].total for name in names))

    return make


def laid_out(*order: int) -> Callable[[Tensor, int], Tensor]:
    """Lay scores out with the axes B, K, i, j, h, w in some order."""

    def paint(scores: Tensor, p: int) -> Tensor:
        b, c, h, w = scores.shape
        parts = scores.reshape(b, c // p**2, p, p, h, w).permute(order)
        return parts.reshape(b, c // p**2, h * p, w * p)

    return paint


def enlarged(coarse: Tensor, fine: Tensor, mode: str = "nearest") -> Tensor:
    return functional.interpolate(coarse, size=fine.shape[-2:], mode=mode)


def opened(mask: Tensor, number: int, n: int, shrink: bool = True, grow: bool = True) -> Tensor:
    body = ((mask == number) | (mask < 0)).float()[None]
    if shrink:
        body = -functional.max_pool2d(-body, n, 1, n // 2)
    if grow:
        body = functional.max_pool2d(body, n, 1, n // 2)
    return body[0] > 0


def by_squares(mask: Tensor, number: int, n: int) -> Tensor:
    """Look at every square, one by one."""
    thin = mask == number
    for i in range(len(mask) - n + 1):
        for j in range(mask.shape[1] - n + 1):
            square = mask[i : i + n, j : j + n]
            if bool(((square == number) | (square < 0)).all()):
                thin[i : i + n, j : j + n] = False
    return thin


def chosen(
    distance: np.ndarray, limit: float, size: int, count: int, seen: bool = True, far: bool = False
) -> list[tuple[int, int]]:
    """Take the tiles of a grid that have most beyond the limit, or lie farthest on average."""
    beyond = (distance > limit) & ((distance != 255) | (not seen))
    beyond = np.where(distance == 255, 0, distance).astype(int) if far else beyond
    rows, columns = (side // size for side in beyond.shape)
    tiles = {
        (r * size, c * size): beyond[r * size : (r + 1) * size, c * size : (c + 1) * size].sum()
        for r in range(rows)
        for c in range(columns)
    }
    return sorted(tiles, key=lambda corner: -tiles[corner])[:count]


def by_turns(distance: np.ndarray, limit: float, size: int, count: int) -> list[tuple[int, int]]:
    """Take the best square anywhere, blank it, and go on."""
    beyond, corners = ((distance > limit) & (distance != 255)).astype(int), []
    for _ in range(count):
        windows = np.lib.stride_tricks.sliding_window_view(beyond, (size, size)).sum(axis=(2, 3))
        for r, c in corners:
            windows[max(0, r - size + 1) : r + size, max(0, c - size + 1) : c + size] = -1
        r, c = (int(i) for i in np.unravel_index(windows.argmax(), windows.shape))
        corners.append((r, c))
    return corners


def judge(low: float, high: float) -> str:
    return "better" if low > 0 else "worse" if high < 0 else "cannot tell"


def coded(
    values: Tensor, width: int, steps: float = 2, join: str = "cat", sign: int = -1
) -> Tensor:
    """An answer to 09/sincos: angles by powers of 10000, sines and cosines joined somehow."""
    powers = torch.arange(width // 2) * steps / width
    angles = values[:, None] * 10_000.0 ** (sign * powers)
    if join == "cat":
        return torch.cat([angles.sin(), angles.cos()], 1)
    if join == "turned":
        return torch.cat([angles.cos(), angles.sin()], 1)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


def told(samples: list[dict], places: list[Tensor]) -> list[dict]:
    return [{**sample, "location": places[n % len(places)]} for n, sample in enumerate(samples)]


def told_in_place(samples: list[dict], places: list[Tensor]) -> list[dict]:
    for n, sample in enumerate(samples):
        sample["location"] = places[n % len(places)]
    return samples


def by(measure: Callable[[Tensor, Tensor], Any]) -> Callable:
    """An answer to 09/nearest_home by a measure of the place's code and a home's mean code."""

    def nearest(place: Tensor, homes: dict[str, Tensor], code: Callable) -> str:
        mine = code(place[None])[0]
        return max(homes, key=lambda name: float(measure(mine, code(homes[name]).mean(0))))

    return nearest


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return functional.cosine_similarity(a, b, dim=0)


def lied(sample: dict, places: list[Tensor], share: float, rng: Any) -> dict:
    return (
        sample | {"location": places[rng.integers(len(places))]} if rng.random() < share else sample
    )


def lied_in_place(sample: dict, places: list[Tensor], share: float, rng: Any) -> dict:
    if rng.random() < share:
        sample["location"] = places[0]
    return sample


def scores_of_models() -> pd.Series:
    """Scores of which cells lack a method, one model more than it is of others."""
    told = {
        ("m1", "lora", "d1", "home"): 0.9, ("m1", "full", "d1", "home"): 0.8,
        ("m1", "lora", "d2", "home"): 0.7, ("m1", "full", "d2", "home"): 0.8,
        ("m1", "lora", "d2", "away"): 0.5, ("m1", "full", "d2", "away"): 0.6,
        ("m1", "lora", "d3", "home"): 0.5, ("m1", "full", "d3", "home"): 0.5,
        ("Prithvi 2.0 300M", "lora", "d1", "home"): 0.9,
        ("Prithvi 2.0 300M", "full", "d1", "home"): 0.8,
        ("Prithvi 2.0 300M", "lora", "d2", "home"): 0.9,
        ("Prithvi 2.0 300M", "full", "d2", "home"): 0.8,
        ("Prithvi 2.0 300M", "lora", "d2", "away"): 0.3,
        ("Prithvi 2.0 300M", "full", "d2", "away"): 0.4,
        ("m3", "full", "d1", "home"): 0.8, ("m3", "full", "d2", "home"): 0.8,
    }  # fmt: skip
    index = pd.MultiIndex.from_tuples(told, names=["model", "method", "data", "side"])
    return pd.Series(list(told.values()), index)


def times_of_two() -> pd.DataFrame:
    rows = {
        ("lora", "d1"): (12.0, 30.0), ("full", "d1"): (10.0, 20.0),
        ("lora", "d2"): (50.0, 60.0), ("full", "d2"): (80.0, 50.0),
        ("lora", "d3"): (9.0, 25.0), ("full", "d3"): (10.0, 40.0),
    }  # fmt: skip
    index = pd.MultiIndex.from_tuples(rows, names=["method", "dataset"])
    return pd.DataFrame(list(rows.values()), index, ["total_time", "epochs"])


def half(t: Callable[[int], float], spread: Callable[[float, float, int], float]) -> Callable:
    """An answer to 11/interval from its t and its standard error."""

    def ends(a: float, s: float, b: float, z: float, n: int) -> tuple[float, float]:
        width = t(n) * spread(s, z, n)
        return a - b - width, a - b + width

    return ends


def student(n: int) -> float:
    return float(stats.t.ppf(0.975, 2 * n - 2))


def error_of(s: float, z: float, n: int) -> float:
    return math.sqrt((s * s + z * z) / n)


def cells(methods: Sequence[str] = ("lora", "full"), seeds: Sequence[int] = (0, 1, 2),
          **changes: Any) -> pd.DataFrame:  # fmt: skip
    """A grid as lesson 11 wants it, but for some changes."""
    same = {"data": "scenes", "data_options": {}, "backbone": "geopeft_tiny", "decoder": "linear"}
    same |= {"epochs": 2, "batch_size": 8} | changes
    return pd.DataFrame([same | {"method": m, "seed": s} for m in methods for s in seeds])


def ranks(*values: int, seeds: Sequence[int] = (0, 1, 2), **more: Any) -> pd.DataFrame:
    same = {"data": "scenes", "backbone": "geopeft_tiny", "method": "lora"} | more
    return pd.DataFrame([same | {"options": {"r": r}, "seed": s} for r in values for s in seeds])


MADE = {
    "08/lora_fcn",
    "05/lean",
    "08/slim",
    "03/by_hand",
    "03/between",
    "04/less_memory",
    "01/frozen_backbone",
}
TABLE: dict[str, list[tuple[Any, str]]] = {
    "00/gib": [
        (lambda size: size / 2**30, RIGHT),
        (lambda size: np.float64(size) / 1024**3, RIGHT),
        (lambda size: size / 1000**3, "in GB"),
        (lambda size: size / 2**20, "in MiB"),
        (lambda size: 8 * size / 2**30, "bits"),
        (lambda size: int(size // 2**30), "rounded"),
        (lambda size: 2**30 / size, "upside down"),
        (lambda size: f"{size / 2**30} GiB", "no number"),
    ],
    "00/limit": [
        (lambda m, c: m if c.strip() == "max" else min(m, int(c)), RIGHT),
        (lambda m, c: min([m, *(int(word) for word in c.split() if word.isdigit())]), RIGHT),
        (lambda m, c: m, "Who would be killed"),
        (lambda m, c: 16e9 if "max" in c else min(16e9, int(c)), "more than there is"),
        (lambda m, c: m if c.strip() == "max" else int(c), "more than there is"),
        (lambda m, c: m if c.strip() == "max" else max(m, int(c)), "Who would be killed"),
        (lambda m, c: min(m, int(c)), "raised ValueError"),
        (lambda m, c: c.strip(), "no number"),
    ],
    "00/weights": [
        (1_215_545_344, RIGHT),
        (1.2155e9, RIGHT),
        (303_886_336, "number of weights"),
        (303_886_336 * 32, "bits"),
        (303_886_336 * 8, "64-bit"),
        (303_886_336 * 16, "training in full"),
        (1.2155, "wants bytes"),
        (1e6, "Weights times bytes"),
    ],
    "00/fitting": [
        (lambda plans, b: [name for name, plan in plans.items() if plan.peak <= b], RIGHT),
        (lambda plans, b: {name for name in plans if plans[name].fits(b)}, RIGHT),
        (lambda plans, b: [n for n, plan in plans.items() if plan.total <= b], "peaks at 12"),
        (lambda plans, b: [n for n, plan in plans.items() if plan.peak > b], "do not fit"),
        (lambda plans, b: [p for p in plans.values() if p.peak <= b], "names are wanted"),
        (lambda plans, b: sum(p.peak <= b for p in plans.values()), "list of names"),
        (lambda plans, b: [n for n, p in plans.items() if p.peak <= 0.9 * b], "lists small."),
        (lambda plans, b: [], "it lists none"),
    ],
    "00/eight": [
        (2_300, RIGHT),
        (1_600.0 + 7 * 100, RIGHT),
        (8 * 1_600, "eight times"),
        (4 * 1_700, "four times"),
        (2_400, "one chip too many: "),
        (800, "without any"),
        (700, "To what"),
        (2_200, "How much does a chip add"),
    ],
    "00/challenge": [
        ({"method": "lora", "frugal": "late"}, RIGHT),
        ({"method": "lora", "frugal": ["late", "recompute"]}, RIGHT),
        ({"method": "lora"}, "No recipe"),
        ({"method": "full", "frugal": "recompute"}, "times what is allowed."),
        ({"method": "linear_probe"}, "trains nothing"),
        ({"method": "lora", "recipe": "late"}, "and not recipe"),
        ({"method": "lora", "frugal": "frugality"}, "raised GeopeftError"),
        ("late", "It wants a dictionary"),
    ],
    "01/trainable_share": [
        (10 / 110, RIGHT),
        (0.0909, RIGHT),  # read off a table, rounded
        (9.09, "per cent"),
        (100 / 110, "frozen"),
        (8 / 110, "left out the decoder"),
        (8 / 100, "by the frozen weights"),
        (0.5, "numel"),
    ],
    "01/beside_fc1": [
        (15_360, RIGHT),
        (192 * 16.0 + 16 * 768, RIGHT),
        (192 * 768, "layer itself"),
        (16 * 192, "A alone"),
        (16 * 768, "B alone"),
        (16 * 192 * 768, "add them up"),
        (192 * 768 + 15_360, "stays frozen"),
        (6 * 15_360, "six blocks"),
        (960, "comes from, 16"),
    ],
    "01/spared": [
        (lambda a, b: (b["activations"] - a["activations"]) / (b["total"] - a["total"]), RIGHT),
        (lambda a, b: 1 - sum(b[p] - a[p] for p in ("weights", "gradients", "optimiser"))
            / (b["total"] - a["total"]), RIGHT),
        (lambda a, b: (b["activations"] - a["activations"]) / b["total"], "whole step"),
        (lambda a, b: 1 - a["activations"] / b["activations"], "of the activations that"),
        (lambda a, b: 1 - a["total"] / b["total"], "of the step that is spared"),
        (lambda a, b: b["activations"] - a["activations"], "those are bytes"),
        (lambda a, b: (b["activations"] - a["activations"]) / (b["total"] - a["total"]) * 100,
            "per cent"),
        (lambda a, b: a["activations"] / a["total"], "one of the two"),
    ],
    "01/mndwi": [
        (lambda g, s: (g - s) / (g + s), RIGHT),
        (lambda g, s: 1 - 2 * s / (g + s + 1e-6), RIGHT),
        (lambda g, s: (s - g) / (g + s), "turned round"),
        (lambda g, s: (g - s) / g + s, "brackets"),
        (lambda g, s: g - s, "divided by"),
        (lambda g, s: g / s, "ratio"),
        (lambda g, s: ((g - s) / (g + s)).mean(), "Each pixel"),
    ],
    "01/frozen_backbone": [
        (lambda limit: standin()["model"], RIGHT),
        (lambda limit: changed(standin()["model"], lambda m: m.eval()), RIGHT),
        (lambda limit: changed(standin()["model"], lambda m: m["backbone"]["base_model"]["model"]
            .update({"lora_B": nn.Linear(1, 8, bias=False)})), "2.0 times"),
        (lambda limit: changed(standin()["model"], lambda m: m.requires_grad_(True)), "1 tensors"),
        (lambda limit: changed(standin()["model"], lambda m: m["backbone"].requires_grad_(False)),
         "Some adapter weights are frozen"),
        (lambda limit: changed(standin()["model"], lambda m: m["decoder"].requires_grad_(False)),
         "decoder is frozen"),
        (lambda limit: nn.Linear(2, 2), "no LoRA"),
        (lambda limit: 4, "wants the model itself"),
    ],
    "01/region_gap": [
        (0.2, RIGHT),
        (-0.2, "home minus away"),
        (20, "points"),
        (torch.tensor(0.2), RIGHT),
        (0.25, "relative to the score at home"),
        (0.196, "three decimals"),
        (0.5, "Take the mIoU column"),
    ],
    "02/normalise": [
        (scaled(lambda x, m, s: (x - m) / s), RIGHT),
        (scaled(lambda x, m, s: ((x - m) / s).numpy()), RIGHT),
        (scaled(lambda x, m, s: x - m), "spread is still"),
        (scaled(lambda x, m, s: (x - x.mean((1, 2), True)) / x.std((1, 2), keepdim=True)), "own"),
        (scaled(lambda x, m, s: (x - m.mean()) / s.mean()), "averaged over the bands"),
        (scaled(lambda x, m, s: x / s - m), "Mind the order"),
        (scaled(lambda x, m, s: x[0]), "shape"),
        (scaled(lambda x, m, s: ((x - m) / s)[None]), "batch of one"),
        (scaled(lambda x, m, s: x + 7), "as bright as the mean"),
        (scaled(lambda x, m, s: "text"), "tensor"),
    ],
    "02/pairs": [
        (16, RIGHT), (16.0, RIGHT), (4, "tokens. Each looks"), (2, "is a square"),
        (8, "each beside"), (64, "too many"), (1 / 16, "not fewer"), ("four", "of type str"),
    ],
    "02/fill": [
        (filled, RIGHT),
        (lambda x, h: torch.where(h, torch.where(h, torch.nan, x).nanmean((2, 3), True), x), RIGHT),
        (lambda x, h: torch.where(h, x.mean((2, 3), keepdim=True), x), "still peeks"),
        (lambda x, h: torch.where(h, 0.0, x), "fills with zero"),
        (lambda x, h: torch.where(h, (x * ~h).mean((2, 3), keepdim=True), x), "number of all"),
        (lambda x, h: filled(x, h).mean((2, 3), keepdim=True).expand_as(x), "were changed"),
        (lambda x, h: filled(x, h)[0], "of the images' shape"),
        (lambda x, h: torch.where(h, (x * ~h).sum((2, 3), True)
            / (x * ~h != 0).sum((2, 3), True), x), "Sum the visible"),
    ],
    "02/two_bands": [
        (("G", "S"), RIGHT),
        (["G", "S"], RIGHT),
        (("S", "G"), "Turn the pair round"),
        (("G", "R"), "Where is water dark"),
        (("G", "G"), "twice"),
        (("G", "N"), "two of G, R, S"),
        (("G",), "two of G, R, S"),
        ("GS", "of type str"),
    ],
    "02/tokens": [
        (lambda h, w, t, p: -(-h // p) * -(-w // p) * t, RIGHT),
        (lambda h, w, t, p: np.int64(-(-h // p) * -(-w // p) * t), RIGHT),
        (lambda h, w, t, p: -(-h // p) * -(-w // p) * t + 1, "class token"),
        (lambda h, w, t, p: -(-h // p) * -(-w // p), "leaves out time"),
        (lambda h, w, t, p: 3, "one by one"),
        (lambda h, w, t, p: None, "no number"),
        (64, "wants a function"),
    ],
    "02/hidden_error": [
        (error(lambda d, h: float(d[h].square().mean().sqrt())), RIGHT),
        (error(lambda d, h: d[h].square().mean().sqrt()), RIGHT),
        (error(lambda d, h: d[h].square().mean()), "root"),
        (error(lambda d, h: d.square().mean().sqrt()), "visible pixels too"),
        (error(lambda d, h: d[~h].square().mean().sqrt()), "Which value of the mask"),
        (error(lambda d, h: d[h].abs().mean()), "mean absolute error"),
        (error(lambda d, h: d[:, 0][h[:, 0]].square().mean().sqrt()), "of one band"),
        (error(lambda d, h: d), "no number"),
    ],
    "03/by_hand": [
        (lambda: changed(network(), lambda n: n.backbone.requires_grad_(False)), RIGHT),
        (lambda: changed(network().requires_grad_(False),
            lambda n: n.decoder.requires_grad_(True)), RIGHT),
        (lambda: network("linear_probe"), "gp.attach did that"),
        (network, "other end"),
        (lambda: network().requires_grad_(False), "All of it is frozen"),
        (lambda: changed(network(), lambda n: n.decoder.requires_grad_(False)),
            "decoder is frozen"),
        (lambda: changed(network(), lambda n: n.backbone.blocks.requires_grad_(False)),
            "would still be trained"),
        (lambda: network().backbone, "network itself"),
        (lambda: "frozen", "network itself"),
    ],
    "03/too_narrow": [
        (lambda r, s: r[s.index(max(s))] in (min(r), max(r)), RIGHT),
        (lambda r, s: sorted(r).index(r[int(np.argmax(s))]) in (0, len(r) - 1), RIGHT),
        (lambda r, s: s.index(max(s)) in (0, len(s) - 1), "out of order, best in the middle"),
        (lambda r, s: r[s.index(max(s))] == max(r), "best at the smallest, it says False"),
        (lambda r, s: r[s.index(max(s))] == min(r), "best at the largest, it says False"),
        (lambda r, s: r[s.index(min(s))] in (min(r), max(r)), "best in the middle, it says True"),
        (lambda r, s: r[s.index(max(s))] != sorted(r)[1], "best inside, it says True"),
        (lambda r, s: r[s.index(max(s))], "True or False is wanted"),
    ],
    "03/turn": [
        (lambda x: x @ torch.linalg.qr(torch.randn(x.shape[1], x.shape[1]).double()).Q, RIGHT),
        (lambda x: x @ torch.linalg.svd(torch.randn(x.shape[1], x.shape[1]).double())[0], RIGHT),
        (lambda x: x @ torch.randn(x.shape[1], x.shape[1]).double(), "only turn"),
        (lambda x: x, "nothing was turned"),
        (lambda x: x + 1, "nothing should move"),
        (lambda x: 2 * x, "only turn"),
        (lambda x: x * torch.randn(x.shape).double().sign(), "another way"),
        (lambda x: x @ torch.linalg.qr(x.T @ x).R, "only turn"),
        (lambda x: x.T, "same shape"),
    ],
    "03/between": [
        (lambda kept, limit: last_trained(2), RIGHT),
        (lambda kept, limit: last_trained(1), RIGHT),
        (lambda kept, limit: last_trained(6), "times what is allowed"),
        (lambda kept, limit: last_trained(0), "a tenth is wanted"),
        (lambda kept, limit: network("full"), "gp.attach did that"),
        (lambda kept, limit: last_trained(2).requires_grad_(False), "decoder is frozen"),
        (lambda kept, limit: last_trained(2).backbone, "network itself"),
    ],
    "03/solve": [
        (ridge, RIGHT),
        (lambda X, T, p: torch.linalg.inv(X.T @ X + p * eye(X)) @ X.T @ T, RIGHT),
        (lambda X, T, p: torch.linalg.lstsq(X, T).solution, "changes nothing"),
        (lambda X, T, p: 2 * ridge(X, T, p), "Compare each factor"),
        (lambda X, T, p: ridge(X, T, p).T, "should be (5, 3)"),
        (lambda X, T, p: torch.linalg.solve(X @ X.T, X.T @ T), "raised"),
        (ridge_in_place, "changes what it is given"),
        (lambda X, T, p: X.T @ T, "right-hand side"),
        (lambda X, T, p: torch.linalg.solve(X.T @ X + p, X.T @ T), "diagonal alone"),
        (lambda X, T, p: ridge(X, T, 7.0), "The shape is right"),
        (torch.zeros(5, 3), "wants a function"),
    ],
    "03/step_bytes": [
        (lambda t, f: 16 * t + 4 * f, RIGHT),
        (lambda t, f: 4 * t + f, "How many bytes"),
        (lambda t, f: 4 * (t + f) + 3 * 4 * t, RIGHT),
        (lambda t, f: 8 * t + 4 * f, "AdamW's memory"),
        (lambda t, f: 16 * (t + f), "neither gradient"),
        (lambda t, f: 16 * t, "stay in memory"),
        (lambda t, f: 12 * t + 4 * f, "one number for each"),
        (lambda t, f: 7, "count weights"),
    ],
    "04/directions": [
        (lambda v, share: int((v.square().cumsum(0) / v.square().sum() < share).sum()) + 1, RIGHT),
        (lambda v, share: next(k for k in range(1, 99)
            if (v[:k] ** 2).sum() >= share * (v**2).sum()), RIGHT),
        (lambda v, share: share, "it gives 0.9"),
        (lambda v, share: (v.square().cumsum(0) / v.square().sum() < share).sum(), "one too few"),
        (lambda v, share: (v.square().cumsum(0) / v.square().sum() < share).sum() + 2, "too many"),
        (lambda v, share: (v.cumsum(0) / v.sum() < share).sum() + 1, "Square them"),
        (lambda v, share: (v.flip(0).square().cumsum(0) / v.square().sum() < share).sum() + 1,
            "weakest"),
        (lambda v, share: (v.square().cumsum(0) / v.square().sum() < 0.9).sum() + 1, "for 90 %"),
        (lambda v, share: (v.square().cumsum(0) < share).sum() + 1, "*running* sum, divided"),
        (lambda v, share: ((v.cumsum(0) / v.sum()) ** 2 < share).sum() + 1, "Square each value"),
        (lambda v, share: v.square().cumsum(0), "no number"),
    ],
    "04/first_step": [
        ({"A": False, "B": True}, RIGHT), ({"B": True, "A": False}, RIGHT),
        ({"A": True, "B": True}, "multiplied by zeros"), ({"A": False, "B": False}, "made of"),
        ({"A": True, "B": False}, "Turned round"),
        ({"A": np.False_, "B": torch.tensor(True)}, RIGHT),
        ({"A": "no", "B": "yes"}, "True or False"),
        ({"B": True}, "each of A and B"),
    ],
    "04/same_scale": [
        (lambda r: {"r": r, "lora_alpha": 2 * r}, RIGHT),
        (lambda r: {"lora_alpha": r / 0.5, "r": r}, RIGHT),
        (lambda r: {"r": r, "lora_alpha": 16}, "the scale is 5.3"),
        (lambda r: {"r": r, "lora_alpha": r}, "scale is 1."),
        (lambda r: {"r": r, "lora_alpha": r / 2}, "one half"),
        (lambda r: {"r": 2, "lora_alpha": 4}, "asks for rank 2"),
        (lambda r: {"r": r, "lora_alpha": 5 * r}, "the scale is 5"),
        (lambda r: 2 * r, "a dictionary"),
    ],
    "04/lora_layer": [
        (Lora, RIGHT),
        (type("Empty", (nn.Module,), {}), "TypeError"),
        (begun(Lora, lambda s: delattr(s, "A")), "missing"),
        (begun(Lora, lambda s: setattr(s, "A", nn.Parameter(s.A.T.detach()))), "to be (5, 12)"),
        (begun(Lora, lambda s: nn.init.ones_(s.B)), "How does B begin"),
        (begun(Lora, lambda s: nn.init.ones_(s.A)), "rows of A are alike"),
        (forward(Lora, lambda s, x: s.base(x) + 2 * detour(s, x)), "Check each factor"),
        (begun(Lora, lambda s: s.base.requires_grad_(True)), "More than A and B"),
        (begun(Lora, lambda s: s.__dict__.update(base=s._modules.pop("base"))), "part of the mod"),
        (forward(Lora, lambda s, x: x @ s.base.weight.T), "bias of the base layer"),
        (forward(Lora, lambda s, x: s.base(x) + s.scale * detour(s, x).detach()), "No gradient"),
        (forward(Lora, lambda s, x: s.base(x).detach() + s.scale * detour(s, x)), "travel on to x"),
        (forward(Lora, torch.no_grad()(Lora.forward)), "No gradient"),
        (merged(lambda s: s.base.weight.T), "(out, in)"),
        (merged(lambda s: s.base.weight.add_(s.scale * s.B @ s.A)), "Return a new matrix"),
        (merged(lambda s: s.base.weight + s.B @ s.A), "leaves out the scale"),
        (merged(lambda s: s.scale * s.B @ s.A), "the change alone"),
        (forward(Lora, lambda s, x: s.base(x) + s.alpha * detour(s, x)), "by alpha alone"),
        (merged(lambda s: s.base.weight - s.scale * s.B @ s.A), "does not give"),
    ],
    "04/count_lora": [
        (lambda shapes, r: r * sum(map(sum, shapes)), RIGHT),
        (lambda shapes, r: sum(r * i + o * r for i, o in shapes), RIGHT),
        (lambda shapes, r: sum(map(sum, shapes)), "r is missing"),
        (lambda shapes, r: sum(r * i for i, o in shapes), "A alone"),
        (lambda shapes, r: sum(r * o for i, o in shapes), "B alone"),
        (lambda shapes, r: sum(2 * r * i for i, o in shapes), "as if the layer were square"),
        (lambda shapes, r: r + sum(map(sum, shapes)), "gives 23: count d_in"),
        (lambda shapes, r: sum(i * o for i, o in shapes), "whole layers"),
        (lambda shapes, r: r * sum(shapes[0]), "first layer only"),
        (lambda shapes, r: sum(i * o + r * (i + o) for i, o in shapes), "W is frozen"),
    ],
    "04/less_memory": [
        (lambda kept, limit: network("lora", last=2), RIGHT),
        (lambda kept, limit: network("lora", last=2, r=1), RIGHT),
        (lambda kept, limit: network("lora", preset="late"), "how many blocks"),
        (lambda kept, limit: changed(network("lora", last=2),
            lambda n: n.decoder.requires_grad_(False)), "decoder is frozen"),
        (lambda kept, limit: network("lora", r=1), "Rank changes little"),
        (lambda kept, limit: network("full"), "frozen"),
        (lambda kept, limit: network("vpt"), "No LoRA trains"),
        (lambda kept, limit: "lora", "of type str"),
    ],
    "05/prompted_block": [
        (Prompted, RIGHT),
        (forward(Prompted, lambda s, x: s.in_front(x)[:, s.prompts.shape[1] :]), RIGHT),
        (forward(Prompted, lambda s, x: s.in_front(x)[:, : x.shape[1]]), "includes the prompts"),
        (forward(Prompted, lambda s, x: s.block(torch.cat([x, s.prompts], dim=1))), "batch of one"),
        (begun(Prompted, lambda s: s.prompts.requires_grad_(False)), "Nothing is trained"),
        (forward(Prompted, Prompted.without_gradient), "cut off"),
        (forward(Prompted, lambda s, x: Prompted.forward(s, x.detach())), "back to the tokens"),
    ],
    "05/deep": [
        (deep_prompts, RIGHT),
        (partial(deep_prompts, front=True), RIGHT),
        (partial(deep_prompts, cut="never"), "17 came out"),
        (partial(deep_prompts, cut="end"), "at the end only"),
        (partial(deep_prompts, cut="wrong"), "includes prompts"),
        (lambda blocks, prompts, x: deep_prompts(blocks, prompts[:1] * 3, x), "the same prompts"),
        (lambda blocks, prompts, x: nn.Sequential(*blocks)(x), "No block was given"),
        (torch.no_grad()(deep_prompts), "cut off on the way"),
    ],
    "05/neutral": [
        ({"lora": True, "adapter": True, "vpt": False, "vit_adapter": False}, RIGHT),
        (dict(vit_adapter=False, vpt=False, adapter=True, lora=True, linear_probe=True), RIGHT),
        ({"lora": True, "adapter": True, "vpt": True, "vit_adapter": False}, "attended to"),
        ({"lora": True, "adapter": True, "vpt": False, "vit_adapter": True}, "layers of its own"),
        ({"lora": True, "adapter": False, "vpt": False, "vit_adapter": False}, "way up"),
        ({"lora": False, "adapter": True, "vpt": False, "vit_adapter": False}, "matrix B"),
        ({"lora": True, "adapter": "yes", "vpt": False, "vit_adapter": False}, "True or False"),
        ({"lora": True}, "True or False"),
    ],
    "05/lean": [
        (lambda lora, batch_size: network("adapter", kind="serial", width=2), RIGHT),
        (lambda lora, batch_size: network("bitfit"), RIGHT),
        (lambda lora, batch_size: network("adapter", kind="serial"), "of LoRA's weights"),
        (lambda lora, batch_size: network("lora", r=8), "of LoRA's weights"),
        (lambda lora, batch_size: network("vpt", prompts=100, deep=False), "adds tokens"),
        (lambda lora, batch_size: network("linear_probe"), "nothing in the backbone"),
        (lambda lora, batch_size: network("full"), "of LoRA's weights"),
        (lambda lora, batch_size: "bitfit", "network itself"),
    ],
    "05/growth": [
        (lambda n, p: torch.tensor([(n + p) / n, ((n + p) / n) ** 2]), RIGHT),
        (lambda n, p: (n + p, (n + p) ** 2), "counts them"),
        (lambda n, p: ((1 + p / n) ** 2, 1 + p / n), "other order"),
        (lambda n, p: (1 + p / n, 1 + (p / n) ** 2), "between prompts and tokens"),
        (lambda n, p: 1 + p / n, "Two factors"),
    ],
    "05/bottleneck": [
        (Adapted, RIGHT),
        (type("Gelu", (Adapted,), {"bend": nn.GELU()}), RIGHT),
        (type("Relu", (Adapted,), {"bend": staticmethod(functional.relu)}), "bend is relu"),
        (adapts(lambda s, y: y + s.bend(s.up(s.down(y)))), "behind the way up"),
        (adapts(lambda s, y: y + s.up(s.down(s.bend(y)))), "before the way down, and none"),
        (adapts(lambda s, y: y + s.bend(s.up(s.bend(s.down(y))))), "second bend behind"),
        (adapts(lambda s, y: y + s.up(s.bend(s.down(s.bend(y))))), "second bend before"),
        (adapts(lambda s, y: y + s.up(s.bend(s.down(functional.layer_norm(y, y.shape[-1:]))))),
         "layer norm"),
        (adapts(lambda s, y: y + 2 * s.adapt(y)), "Go through the formula"),
        (forward(Adapted, lambda s, x: Adapted.forward(s, x.detach())), "does not come back"),
        (type("Straight", (Adapted,), {"bend": staticmethod(lambda y: y)}), "nonlinearity"),
        (type("NoBias", (Adapted,), {"bias": False}), "biases"),
        (forward(Adapted, lambda s, x: s.layer(x) + s.adapt(x)), "beside it"),
        (begun(Adapted, lambda s: nn.init.normal_(s.up.weight)), "begin at zero"),
        (forward(Adapted, lambda s, x: s.down(x)), "(B, N, D)"),
    ],
    "06/linear": [
        (lambda r, i, o, t, p: 4 * r * i * t, RIGHT),
        (lambda r, i, o, t, p: r * i * t, "How many bytes"),
        (lambda r, i, o, t, p: 4 * r * i * t + 4 * i * o * p * (not t), "there anyway"),
        (lambda r, i, o, t, p: 4 * r * i * t + 4 * i * o * p, "1708: the weight is there"),
        (lambda r, i, o, t, p: 4 * r * i, "is that gradient wanted"),
        (lambda r, i, o, t, p: 4 * r * i * t / 2**20, "wants bytes"),
        (lambda r, i, o, t, p: 3, "three formulas"),
    ],
    "06/block": [
        (lambda n, d, b: 64 * b * n * d, RIGHT),
        (lambda n, d, b: 4 * b * n * (16 * d + 4 + 2), RIGHT),  # with statistics
        (lambda n, d, b: 16 * b * n * d, "How many bytes"),
        (lambda n, d, b: 64 * b * d, "one token"),
        (lambda n, d, b: 60 * b * n * d, "is missing; go"),
        (lambda n, d, b: 4 * 19 * b * n * d, "every layer by itself"),
        (lambda n, d, b: 2 * 16 * b * n * d, "0.50 times what is measured"),
        (lambda n, d, b: 64 * b * (n + 1) * d, "is among the tokens"),
    ],
    "06/bills": [
        (1_272_000_000, RIGHT),
        (16 * 300e6, "full fine-tuning"),
        (16 * 6e6, "Frozen weights"),
        (4 * 300e6 + 16 * 6e6, "once is enough"),
        (4 * 300e6 + 8 * 6e6, "a gradient and AdamW's two"),
        (4 * 300e6, "beside them"),
        (318e6, "number of numbers"),
        (1.272, "wants bytes"),
        (1.3e9, "four figures"),
    ],
    "06/storage": [
        (lambda t: t.untyped_storage().data_ptr(), RIGHT),
        (lambda t: f"storage at {t.untyped_storage()._cdata}", RIGHT),
        (id, "A transposed view has another key"),
        (lambda t: t.data_ptr(), "begin at different places"),
        (lambda t: t.untyped_storage().nbytes(), "A copy has the same key"),
        (lambda t: torch.tensor(t.untyped_storage().data_ptr()), "A transposed view has another"),
        (lambda t: [t.untyped_storage().data_ptr()], "unhashable"),
    ],
    "06/thirty": [
        (last_batch, RIGHT),
        (lambda full, lora: max([0, *(b for b in range(1, 300) if saved(full, lora, b) >= 0.3)]),
         RIGHT),
        (lambda full, lora: last_batch(full, lora) + 1, "too many chips"),
        (lambda full, lora: min(63, last_batch(full, lora)), "one more still"),
        (lambda full, lora: last_batch(full, lora, share=0.3), "one more still"),
        (lambda full, lora: last_batch(full, lora, clip=False), "the answer is 0"),
        (lambda full, lora: last_batch(full, lora) + 0.5, "whole number"),
        (lambda full, lora: last_batch(full, lora, of="peak"), "one more still"),
        (lambda full, lora: None, "no number"),
    ],
    "06/fits": [
        (lambda plan, limit: max(0, int(1 + (limit - plan(1).peak) // (plan(2).peak
            - plan(1).peak))), "a guess from small batches"),
        (by_halves, RIGHT),
        (lambda plan, limit: max([0, *(b for b in range(1, 400) if plan(b).fits(limit))]),
         "asked for 399 plans"),
        (lambda plan, limit: max(0, int(1 + (limit - plan(1).total) // (plan(2).total
            - plan(1).total))), "its peak is higher"),
        (lambda plan, limit: int(limit // plan(1).peak), "one more still fits"),
        (lambda plan, limit: by_halves(plan, limit) + 1, "11, which takes 2040 MB at its peak"),
        (lambda plan, limit: int(1 + (limit - plan(1).peak) // (plan(2).peak - plan(1).peak)),
         "not even one chip fits"),
        (lambda plan, limit: "many", "no number"),
    ],
    "07/again": [
        (again, RIGHT),
        (only_x, "own weights got none"),
        (partial(again, watch=False), "does not watch"),
        (lambda block, x, gradient: [again(block, x, gradient), None][1], "is there a return"),
        (lambda block, x, gradient: [again(block, x, gradient) for _ in "12"][1], "run once"),
        (partial(again, leaf=False), "x.detach()"),
        (lambda block, x, gradient: [block.zero_grad(), again(block, x, gradient)][1], "are gone"),
    ],
    "07/to_8bit": [
        (by_row, RIGHT),
        (quantise, RIGHT),
        (for_all, "row of small weights"),
        (lambda w: by_row(w, largest=100), "more than half a step"),
        (lambda w: ((w / by_row(w, largest=128)[1]).round().clamp(-128, 127).to(torch.int8),
                    by_row(w, largest=128)[1]), "are -128"),
        (lambda w: ((w / by_row(w)[1]).to(torch.int8), by_row(w)[1]), "more than half a step"),
        (lambda w: by_row(w)[0], "Two tensors"),
        (lambda w: (by_row(w)[0].float(), by_row(w)[1]), "One byte each"),
        (lambda w: (by_row(w)[0], by_row(w)[1][:, 0]), "keepdim"),
        (lambda w: (by_row(w)[0], 1 / by_row(w)[1]), "upside down"),
    ],
    "07/cached_seconds": [
        (lambda e, p, v, r, n: n * p + v + e * r, RIGHT),
        (lambda e, p, v, r, n: sum([r] * e, n * p + v), RIGHT),
        (lambda e, p, v, r, n: e * (p + v + r), "without a cache"),
        (lambda e, p, v, r, n: min(e, n) * p + v + e * r, "first drawn"),
        (lambda e, p, v, r, n: n * p + e * r, "go through once"),
        (lambda e, p, v, r, n: n * (p + v) + e * r, "one view only"),
        (lambda e, p, v, r, n: n * p + e * (v + r), "are cached, too"),
        (lambda e, p, v, r, n: n * p + v + (e - 1) * r, "first epoch trains"),
        (lambda e, p, v, r, n: 1.0, "computed once"),
    ],
    "07/waits": [
        (1 / 16, RIGHT),
        (0.0625, RIGHT),
        (15 / 16, "thrown away"),
        (1 / 12, "does not matter"),
        (1 / 192, "not one of them all"),
        (0.75, "both for all blocks"),
        (6.25, "per cent"),
        (16, "times as much"),
        (0.125, "input of the next"),
    ],
    "07/credit": [
        (lambda full, control, both: (control / full, both / control), RIGHT),
        (lambda full, control, both: [control / full, both / full / (control / full)], RIGHT),
        (lambda full, control, both: (control / full, both / full), "everything together"),
        (lambda full, control, both: (both / control, control / full), "come first"),
        (lambda full, control, both: (full / control, control / both), "upside down"),
        (lambda full, control, both: (1 - control / full, 1 - both / control), "shares that are"),
        (lambda full, control, both: (control / full, (control - both) / full), "a difference"),
        (lambda full, control, both: (both / full, 1), "stands between"),
    ],
    "07/challenge": [
        ({"method": "lora", "precision": "bf16", "frugal": ["recompute", "bf16"]}, RIGHT),
        ({"precision": "bf16", "frugal": ("8bit", "recompute")}, RIGHT),
        ({"method": "lora", "precision": "bf16", "frugal": ["late"]}, "late is ruled out"),
        ({"method": "lora", "frugal": "checkpoint"}, "checkpoint is ruled out"),
        ({"method": "linear_probe"}, "trains nothing"),
        ({"method": "lora"}, "No recipe"),
        ({"method": "full", "precision": "bf16", "frugal": ["recompute"]}, "what is allowed."),
        ({"recipes": "bf16"}, "and not recipes"),
        ({"method": "side", "precision": "bf16"}, "not every block"),
    ],
    "10/neighbours": [
        (0.9375, RIGHT),
        (15 / 16, RIGHT),
        (0.94, RIGHT),
        (0.5, "one neighbour"),
        (0.0625, "without any"),
        (1 - 0.5**8, "corners"),
        (93.75, "per cent"),
        (2, "do not add up"),
        (1.0, "all four neighbours went"),
    ],
    "10/gap": [
        (strips(25, 34), RIGHT),
        (strips(25, 34).T.tolist(), RIGHT),
        (torch.from_numpy(strips(22, 40)), RIGHT),
        (strips(25, 32), "8 apart"),
        (strips(30, 30), "Nothing is left out"),
        (strips(30, 30) == 1, "True and False"),
        (strips(14, 30), "a quarter is the least"),
        (strips(25, 34)[:50], "The shape is"),
        (2 * strips(25, 34), "none of 1, 0 and -1"),
    ],
    "10/leak": [
        (lambda a, b: set(a) & set(b), RIGHT),
        (lambda a, b: sorted(set(a) & set(b)), RIGHT),
        (lambda a, b: [p for p in a if p in b], "more than once"),
        (lambda a, b: len(set(a) & set(b)), "no collection of names"),
        (lambda a, b: set(a) - set(b), "alone"),
        (lambda a, b: {p for p, q in zip(a, b, strict=False) if p == q}, "anywhere"),
        (lambda a, b: {q for q in b if any(p in q for p in a)}, "equal as a whole"),
        (lambda a, b: None, "returned None"),
    ],
    "10/interval": [
        # Ends of 1,000 draws are 0.11 standard deviations off; the check allows 0.19.
        *((lambda m, p, seed=seed: ends(drawn(m, p, seed)), RIGHT) for seed in range(8)),
        (lambda m, p: ends(drawn(m, [str(n) for n in range(len(m))])), "single chips"),
        (lambda m, p: ends(drawn(m, p, more=len(p) - len({*p}))), "as there are places"),
        (lambda m, p: ends(drawn(m, p, by_chip=True)), "names that stand once"),
        (lambda m, p: tuple(np.percentile(drawn(m, p), [0.025, 0.975])), "0 to 100"),
        (lambda m, p: tuple(np.percentile(drawn(m, p), [5, 95])), "too far inside"),
        (lambda m, p: ends(of_averages(m, p)), "Add up their counts"),
        (lambda m, p: ends(drawn_once(m, p)), "counts twice"),
        (lambda m, p: (drawn(m, p).min(), drawn(m, p).max()), "the lowest and the highest"),
        (lambda m, p: (drawn(m, p).mean() - 2e-3, drawn(m, p).mean() + 2e-3), "how well the mean"),
        (lambda m, p: drawn(m, p).mean() + drawn(m, p).std() * np.array([-1, 1]), "one standard"),
        (lambda m, p: ends(drawn(m, p, more=-1)), "draw as many as there are"),
        (lambda m, p: ends(np.stack([
            np.mean(np.concatenate([mean_iou(m)[np.array(p) == place] for place in one]))
            for one in np.random.default_rng(1).choice([*{*p}], (1000, len({*p})))
        ])), "scores of chips"),
        (lambda m, p: ends(drawn(m, p))[::-1], "lower end comes first"),
        (lambda m, p: tuple(100 * value for value in ends(drawn(m, p))), "0 to 1"),
        (lambda m, p: ends(mean_iou(m[[p == p[0]] * len(p)].sum(0))), "asarray(places)"),
        (lambda m, p: 0.8, "Two numbers"),
        (lambda m, p: ends(drawn(m, p)[:100]), "a thousand times"),
        (lambda m, p: ends(drawn(m, sorted(p))), "with their own places"),
    ],
    "10/paired": [
        (both_drawn, RIGHT),
        (partial(both_drawn, seed=4), RIGHT),
        (lambda a, b, p: percentile_interval(
            bootstrap_scores(a, p, 1000) - bootstrap_scores(b, p, 1000)), RIGHT),
        (lambda a, b, p: ends(drawn(a, p, 1) - drawn(b, p, 2)), "draws of its own"),
        (lambda a, b, p: both_drawn(b, a, p), "theirs minus mine"),
        (lambda a, b, p: tuple(abs(end) for end in both_drawn(a, b, p)), "times as wide"),
        (lambda a, b, p: both_drawn(a, b, [str(i) for i in range(len(p))]), "single chips"),
        (lambda a, b, p: tuple(x - y for x, y in
            zip(ends(drawn(a, p)), ends(drawn(b, p)), strict=True)), "ends minus ends"),
        (lambda a, b, p: tuple(np.quantile(drawn(a, p) - drawn(b, p), [0.05, 0.95])), "far inside"),
        (lambda a, b, p: ends(drawn(a, p)), "one method"),
        (lambda a, b, p: both_drawn(a, b, p)[::-1], "lower end comes first"),
        (lambda a, b, p: (0.1, 0.1), "anew each time"),
        (lambda a, b, p: both_drawn(a, b, sorted(p)), "with their own places"),
    ],
    "10/verdict": [
        (judge, RIGHT),
        (lambda low, high: "better" if low + high > 0 else "worse", "Where does zero lie"),
        (lambda low, high: "worse" if low > 0 else "better", "first minus the second"),
        (lambda low, high: "better" if not low < 0 < high else "cannot tell", "minus the second"),
        (lambda low, high: "worse" if np.isnan(low) else judge(low, high), "nothing to draw"),
        (lambda low, high: "yes", "Allowed"),
        (lambda low, high: "better" if low > 0 else "cannot tell" if low != low or high > 0
            else "worse", "touches zero"),
        (lambda low, high: "better" if low >= 0 else judge(low, high), "touches zero"),
    ],
    "08/linear_weights": [
        (24_578, RIGHT), (192 * 8 * 8 * 2 + 2.0, RIGHT), (24_576, "without the biases"),
        (192 * 64 + 2, "Each class needs scores"),
        (192 * 8 * 2 + 2, "rows and columns"),
        (192 * 2, "one score for the whole patch"),
        (193 * 64 * 2, "not for each pixel"),
        (24_578 * 64, "count it once"), (24_578 * 4, "bytes"),
    ],
    "08/paint": [
        (functional.pixel_shuffle, RIGHT),
        (laid_out(0, 1, 4, 2, 5, 3), RIGHT),
        (lambda s, p: s.reshape(len(s), -1, p * s.shape[2], p * s.shape[3]), "order of memory"),
        (laid_out(0, 1, 4, 3, 5, 2), "mirrored"),
        (laid_out(0, 1, 2, 4, 3, 5), "the token first"),
        (lambda s, p: functional.pixel_shuffle(
            s.unflatten(1, (p * p, -1)).transpose(1, 2).flatten(1, 2), p), "classes are mixed"),
        (lambda s, p: functional.pixel_shuffle(s, p)[0], "the shape is"),
        (lambda s, p: functional.pixel_shuffle(s, p).flip(-1), "not at the pixel"),
    ],
    "08/join": [
        (lambda c, f: torch.cat([enlarged(c, f), f], dim=1), RIGHT),
        (lambda c, f: torch.cat([torch.nn.Upsample(f.shape[2:])(c), f], 1), RIGHT),
        (lambda c, f: torch.cat([enlarged(c, f, "nearest-exact"), f], dim=1), RIGHT),
        (lambda c, f: enlarged(c, f) + f, "do not add"),
        (lambda c, f: torch.cat([functional.interpolate(c, scale_factor=2.0), f], 1), "twice?"),
        (lambda c, f: torch.cat([enlarged(c, f), f]), "Which sides and dimension"),
        (lambda c, f: torch.cat([f, enlarged(c, f)], dim=1), "stands first"),
        (lambda c, f: torch.cat([enlarged(c, f, "bilinear"), f], dim=1), "nearest neighbour"),
        (lambda c, f: torch.cat([
            functional.interpolate(c, scale_factor=f.shape[2] / c.shape[2]), f], 1), "twice?"),
        (lambda c, f: torch.cat([enlarged(c, f), f.detach()], 1), "no gradient comes back to both"),
        (lambda c, f: torch.cat([c, functional.interpolate(f, c.shape[2:])], 1), "should be"),
        (lambda c, f: torch.cat([enlarged(c, f), 2 * f], dim=1), "unchanged"),
    ],
    "08/lora_fcn": [
        (planned(lambda lora, full, fcn: fcn - (full - lora)), RIGHT),
        (planned(lambda lora, full, fcn: 1.003 * (fcn - full + lora)), RIGHT),
        (planned(lambda lora, full, fcn: fcn * lora / full), "*share*"),
        (planned(lambda lora, full, fcn: fcn), "under any decoder"),
        (planned(lambda lora, full, fcn: lora), "An FCN keeps more"),
        (planned(lambda lora, full, fcn: full - lora), "What is left"),
        (planned(lambda lora, full, fcn: fcn + full - lora), "Which way"),
        (planned(lambda lora, full, fcn: (fcn - full + lora) / 1e6), "wants bytes"),
    ],
    "08/thin": [
        (lambda m, number, n: (m == number) & ~opened(m, number, n), RIGHT),
        (by_squares, RIGHT),
        (lambda m, number, n: (m == number) & ~opened(m, number, n, grow=False), "has to grow"),
        (lambda m, number, n: (m == number) & opened(m, number, n), "what is wide"),
        (lambda m, number, n: (m == 1) & ~opened(m, 1, n), "class 1 only"),
        (lambda m, number, n: ((m == number) & ~opened(m, number, n)).float(), "torch.bool (24"),
        (lambda m, number, n: ((m == number) | (m < 0)) & ~opened(m, number, n), "without a label"),
        (lambda m, number, n: (m == number)
            & ~opened(m.clamp(min=0) * number, number, n), "The gap may be water"),
        (lambda m, number, n: (m == number) & ~opened(m, number, n + 6), "9 x 9"),
        (lambda m, number, n: (m == number)
            & ~opened(m.where(m != 2, number), number, n), "class 2 on its banks"),
        (lambda m, number, n: (m == number) & ~opened(m, number, n + 2), "so it is not thin"),
        (lambda m, number, n: (m == number) & ~opened(m, number, 3), "not called thin"),
    ],
    "08/slim": [
        (lambda **_: decoding()["build"]("unet", "lora", channels=(32, 16, 8, 8)), RIGHT),
        (lambda **_: decoding()["build"]("upernet", "lora", channels=8), RIGHT),
        (lambda **_: decoding()["build"]("unet", "lora"), "makes a decoder wide"),
        (lambda **_: decoding()["build"]("linear", "lora"), "deepest map alone"),
        (lambda **_: changed(decoding()["build"]("upernet", "lora", channels=8),
            lambda n: n.decoder.requires_grad_(False)), "decoder is frozen"),
        (lambda **_: decoding()["build"]("unet", "full", channels=(8, 8, 8, 8)), "should be lora"),
        (lambda **_: decoding()["build"]("unet", "lora").decoder, "network itself"),
        (lambda **_: decoding()["build"]("upernet", "lora", channels=64), "times what"),
    ],
    "09/sincos": [
        (coded, RIGHT),
        (lambda v, w: torch.cat([f(v.unsqueeze(1) * torch.logspace(0, -4, w // 2 + 1)[:-1])
                                 for f in (torch.sin, torch.cos)], 1), RIGHT),
        (partial(coded, join="turned"), "cosines stand before"),
        (partial(coded, join="stack"), "alternate"),
        (partial(coded, steps=1), "half of it"),
        (partial(coded, sign=1), "grow with j"),
        (lambda v, w: torch.cat([f(v[:, None] * torch.logspace(0, -4, w // 2))
                                 for f in (torch.sin, torch.cos)], 1), "one less"),
        (lambda v, w: coded(v, w)[:, : w // 2].repeat(1, 2), "Where are the cosines"),
        (lambda v, w: coded(v, w).T, "shape"),
        (lambda v, w: coded(torch.deg2rad(v), w), "v = 0 is right"),
    ],
    "09/added": [
        (2, RIGHT), (2.0, RIGHT), (1, "two codes"), (4, "one scale"), (192, "computed"),
        (384, "computed"), (0, "how much"), (96, "fixed"), (7, "How many codes"),
    ],
    "09/lie": [
        (told, RIGHT),
        (lambda s, p: [dict(x, location=p[i % len(p)]) for i, x in enumerate(s)], RIGHT),
        (told_in_place, "changes what it is given"),
        (lambda s, p: s, "still has its own"),
        (lambda s, p: [{**x, "location": p[0]} for x in s], "in turn"),
        (lambda s, p: [{"location": y["location"]} for y in told(s, p)], "should stay"),
        (lambda s, p: told(s, p)[:2], "it returned 2"),
        (lambda s, p: told(s, p) and None, "Is there a return"),
    ],
    "09/uses_place": [
        (lambda t, x, tol: any(abs(a - b) > tol for a, b in zip(t, x, strict=True)), RIGHT),
        (lambda t, x, tol: bool(np.abs(np.subtract(t, x)).max() > tol), RIGHT),
        (lambda t, x, tol: any(a - b > tol for a, b in zip(t, x, strict=True)), "*helps*"),
        (lambda t, x, tol: abs(sum(t) - sum(x)) / 2 > tol, "cancel out"),
        (lambda t, x, tol: any(abs(a / b - 1) > tol for a, b in zip(t, x, strict=True)), "plain"),
        (lambda t, x, tol: any(abs(a - b) > 0.05 for a, b in zip(t, x, strict=True)),
         "was not used"),
        (lambda t, x, tol: t != x, "Within the tolerance"),
        (lambda t, x, tol: max(abs(a - b) for a, b in zip(t, x, strict=True)), "True or False"),
    ],
    "09/nearest_home": [
        (by(cosine), RIGHT),
        (by(lambda a, b: (a / a.norm()) @ (b / b.norm())), RIGHT),
        (by(lambda a, b: -(a - b).norm()), "nearest in distance"),
        (by(lambda a, b: a @ b), "grows with the length"),
        (by(lambda a, b: -cosine(a, b)), "*least* alike"),
        (lambda p, h, code: by(cosine)(p, h, lambda x: x), "`code`"),
        (lambda p, h, code: max(h, key=lambda n: float(cosine(code(p[None])[0],
            code(h[n].mean(0)[None])[0]))), "mean of the *codes*"),
        (lambda p, h, code: max(h, key=lambda n: float(cosine(code(p[None])[0], code(h[n])[0]))),
         "of all places"),
    ],
    "09/doubt": [
        (lied, RIGHT),
        (lambda s, p, q, rng: dict(s, location=p[int(rng.integers(0, len(p)))])
            if rng.uniform() < q else dict(s), RIGHT),
        (lied_in_place, "changes what it is given"),
        (lambda s, p, q, rng: lied(s, p, 1 - q, rng), "it lies"),
        (lambda s, p, q, rng: lied(s, p[:1], q, rng), "[1000, 0, 0, 0] times"),
        (lambda s, p, q, rng: dict(s, location=p[int(u * len(p))])
            if (u := rng.random()) < q else s, "With share 0.25 the four places"),
        (lambda s, p, q, rng: lied(s, p[np.random.randint(4):][:1], q, rng), "`rng` alone"),
        (lambda s, p, q, rng: {"location": lied(s, p, q, rng)["location"]}, "should stay"),
        (lambda s, p, q, rng: lied(s, p, q, rng)["location"], "else than a sample"),
        (lambda s, p, q, rng: lied(s, p, 1.5 * q, rng), "of the cases"),
    ],
    "11/share_above": [
        (3 / 7, RIGHT),
        (0.429, RIGHT),
        (3, "how many"),
        (300 / 7, "per cent"),
        (4 / 7, "*not* above"),
        (3 / 9, "lack one of the two"),
        (3 / 16, "divided by all scores"),
        (3 / 5, "at home alone"),
        (2 / 3, "one model"),
        ((1 / 4 + 2 / 3) / 2, "Models count alike"),
        (0.9, "side by side"),
    ],
    "11/mean_lead": [
        (lambda s, a, b: (s.unstack("method")[a] - s.unstack("method")[b]).mean(), RIGHT),
        (lambda s, a, b: float((s.xs(a, level="method") - s.xs(b, level="method")).mean()), RIGHT),
        (lambda s, a, b: s.groupby("method").mean()[a] - s.groupby("method").mean()[b],
         "different cells"),
        (lambda s, a, b: (s.unstack("method")[b] - s.unstack("method")[a]).mean(), "b over a"),
        (lambda s, a, b: (s.unstack("method")[a] - s.unstack("method")[b]).sum(), "a sum"),
        (lambda s, a, b: (s.unstack("method")[a] - s.unstack("method")[b]).median(), "the median"),
        (lambda s, a, b: (s.unstack("method")[a] - s.unstack("method")[b]).abs().mean(), "a sign"),
        (lambda s, a, b: s.unstack("method").fillna(0).pipe(lambda w: w[a] - w[b]).mean(),
         "counts as 0"),
        (lambda s, a, b: s.unstack("method").pipe(lambda w: w["a"] - w["b"]).mean(),
         "use both arguments"),
        (lambda s, a, b: s.xs("home", level="side").unstack("method").pipe(
            lambda w: w[a] - w[b]).mean(), "Subtract within"),
    ],
    "11/interval": [
        (half(student, error_of), RIGHT),
        (lambda a, s, b, z, n: np.array([a - b, a - b]) + student(n) * error_of(s, z, n)
            * np.array([-1, 1]), RIGHT),
        (half(lambda n: 1.96, error_of), "1.96 is for many"),
        (half(student, lambda s, z, n: math.hypot(s, z)), "single runs"),
        (half(student, lambda s, z, n: math.hypot(s, z) / n), "inside the root"),
        (half(student, lambda s, z, n: (s + z) / math.sqrt(n)), "squares of the deviations"),
        (half(student, lambda s, z, n: (s * s + z * z) / math.sqrt(n)), "root goes over"),
        (half(lambda n: float(stats.t.ppf(0.975, n - 1)), error_of), "degrees of freedom"),
        (half(lambda n: float(stats.t.ppf(0.95, 2 * n - 2)), error_of), "*each* end"),
        (half(lambda n: 1.0, error_of), "t is missing"),
        (lambda a, s, b, z, n: half(student, error_of)(b, z, a, s, n), "b minus a"),
        (lambda a, s, b, z, n: half(student, error_of)(a, s, b, z, n)[::-1], "above the high"),
        (lambda a, s, b, z, n: student(n) * error_of(s, z, n), "two ends"),
    ],
    "11/time_share": [
        ((1.2 + 0.625 + 0.9) / 3, RIGHT),
        (np.float64(2.725 / 3), RIGHT),
        ((1 / 1.2 + 1.6 + 1 / 0.9) / 3, "a share of LoRA"),
        (71 / 100, "counts alike"),
        ((1.2 / 1.5 + 0.625 / 1.2 + 0.9 / 0.625) / 3, "the time of an epoch"),
        ((1.5 + 1.2 + 0.625) / 3, "epochs, not time"),
        (1 - 2.725 / 3, "saves, not what it takes"),
        (272.5 / 3, "per cent"),
        (0.9, "the median"),
        (5.0, "data set by data set"),
    ],
    "11/grid": [
        (cells(), RIGHT),
        (cells(("full", "lora"), (2, 0, 1)).sample(frac=1, random_state=0), RIGHT),
        (cells().drop(columns="decoder"), "no column decoder"),
        (cells(lr=0.1, device="cpu"), "a column too many"),
        (cells().iloc[[0, 4]], "Pair each method"),
        (cells(seeds=(0, 1)), "No row has"),
        (cells(seeds=(0, 1, 2, 3)), "does not compare"),
        (pd.concat([cells(), cells().head(1)]), "twice"),
        (cells().assign(epochs=[2, 2, 2, 9, 9, 9]), "epochs differs"),
        (cells(epochs=20), "epochs is 20"),
        (cells(data="sandbox"), "should be scenes"),
        (cells(data_options={"size": 128}), "data_options is"),
    ],
    "11/question": [
        (ranks(2, 16), RIGHT),
        (cells(), RIGHT),
        (ranks(2, 16, seeds=(0, 1)), "4 rows"),
        (ranks(2, seeds=range(6)), "Only the seed"),
        (ranks(2, 16).drop(columns="seed"), "no column seed"),
        (ranks(2, 16).assign(epochs=[1, 1, 1, 2, 2, 2]), "nobody can tell"),
        (ranks(2, 4, 8, seeds=(0, 1)), "fewer than three seeds"),
        (ranks(2, 16).assign(seed=[0, 1, 2, 3, 4, 5]), "different seeds"),
        (pd.concat([ranks(2, 16), ranks(2, 16).head(1)]), "twice"),
        (ranks(2, -1), "run_benchmark refuses it"),
        (ranks(2, 16, colour="red"), "run_benchmark refuses it"),
    ],
    "12/fill": [(0, RIGHT), (np.uint16(0), RIGHT), (-9999, "No pixel has"), ("zero", "type str")],
    "12/reflectance": [
        (lambda numbers, offset: (numbers + offset) / 10_000, RIGHT),
        (lambda numbers, offset: numbers / 10_000 + offset / 10_000, RIGHT),
        (lambda numbers, offset: (numbers - offset) / 10_000, "It has a sign"),
        (lambda numbers, offset: numbers / 10_000 + offset, "first"),
        (lambda numbers, offset: (numbers - (offset < 0) * 1_000) / 10_000, "offset 250 it"),
        (lambda numbers, offset: (numbers - abs(offset)) / 10_000, "already: add it"),
        (lambda numbers, offset: ((numbers + offset) / 10_000).clip(0, 1), "cuts off"),
        (lambda numbers, offset: abs(numbers + offset) / 10_000, "and should from -0.01"),
        (lambda numbers, offset: ((numbers + offset) / 10_000).mean(), "shape"),
    ],
    "12/offset": [
        ({"first": 0, "second": -1_000}, RIGHT),
        ({"first": -1_000, "second": 0}, "far below 0"),
        ({"first": 0, "second": 0}, "much brighter"),
        ({"first": 0, "second": 1_000}, "which sign"),
        ({"first": 0, "second": -0.1}, "in reflectance"),
        ({"first": 0, "second": -500}, "two offsets"),
        ({"first": 0}, "each of first, second"),
    ],
    "12/outside": [
        (lambda layer, limit: (layer[layer != 255] > limit).mean(), RIGHT),
        (lambda layer, limit: round((layer[layer != 255] > limit).mean(), 3), RIGHT),
        (lambda layer, limit: (layer[layer != 255] > 50).mean(), "Use `limit`"),
        (lambda layer, limit: (layer > limit).mean(), "255 is no distance"),
        (lambda layer, limit: (layer > limit).sum() / (layer != 255).sum(), "255 is no distance"),
        (lambda layer, limit: ((layer > limit) & (layer != 255)).mean(), "divides by all"),
        (lambda layer, limit: ((layer > limit) & (layer != 255)).sum(), "A share is wanted"),
        (lambda layer, limit: (layer[layer != 255] <= limit).mean(), "other side"),
        (lambda layer, limit: (layer[layer != 255] < limit).mean(), "other side, without"),
        (lambda layer, limit: (layer[layer != 255] >= limit).mean(), "just at the limit"),
    ],
    "12/choose": [
        (chosen, RIGHT),
        (by_turns, RIGHT),
        (lambda d, limit, n, k: [(float(r), c) for r, c in chosen(d, limit, n, k)], RIGHT),
        (lambda d, limit, n, k: chosen(np.pad(d, (0, n - 1)), limit, n, k), "over the edge"),
        (lambda d, limit, n, k: chosen(d, limit, n, k, seen=False), "255 is no distance"),
        (lambda d, limit, n, k: chosen(d, limit, n, k)[:1] * k, "overlap"),
        (lambda d, limit, n, k: [(r // n, c // n) for r, c in chosen(d, limit, n, k)], "of tiles"),
        (lambda d, limit, n, k: chosen(d, limit, n, k)[:1], "is 1, and should be"),
        (lambda d, limit, n, k: chosen(-d.astype(int), -50, n, k), "none covers"),
        (lambda d, limit, n, k: [(24, 0), (0, 48), (32, 24)][:k], "cover more"),
        (lambda d, limit, n, k: chosen(d, limit, n, k, far=True), "cover more"),
        (lambda d, limit, n, k: k, "pairs (row, column)"),
    ],
    "12/other_scale": [
        (lambda a, b: np.median(abs(np.log10(b / a))) > 1, RIGHT),
        (lambda a, b: bool((b / a > 10).any()), "39 times as small it says False"),
        (lambda a, b: bool((abs(np.log10(b / a)) > 1).any()), "one band of six"),
        (lambda a, b: abs(np.log10(b / a)).min() > 1, "four bands of six"),
        (lambda a, b: np.median(abs(np.log10(b / a))) > 0.5, "9 times as large it says True"),
        (lambda a, b: b / a > 10, "neither True nor False"),
    ],
}  # fmt: skip
ROWS = [(name, answer, says) for name, rows in TABLE.items() for answer, says in rows]


@pytest.mark.parametrize(("name", "answer", "says"), ROWS, ids=[f"{n}: {s}" for n, _, s in ROWS])
def test_check_takes_right_answers_and_names_slips(name: str, answer: object, says: str) -> None:
    given = CONTEXT.get(name, dict)()
    if name in MADE:
        answer = answer(**given)  # type: ignore[operator]
    result = check(name, answer, **given)
    assert says in result.message and result.passed == (says == RIGHT), result.message


def test_every_exercise_is_in_the_table() -> None:
    named = {name for folder in lesson_folders().values() for name in load_checks(folder)}
    assert named == TABLE.keys()


def test_checks_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    check("04/lora_layer", Lora)
    check("06/block", lambda tokens, width, batch: 1)
    assert torch.equal(before, torch.get_rng_state())


# What the checks hold to be right is what the toolkit does


def test_tokens_agrees_with_the_grid_of_a_backbone() -> None:
    backbone = gp.load_backbone("geopeft_tiny", weights=None)

    def count(height: int, width: int, frames: int, patch_size: int) -> int:
        backbone.patch_size = patch_size
        rows, columns = backbone.grid(height, width)
        return rows * columns * frames

    assert check("02/tokens", count).passed


def test_step_bytes_agrees_with_what_is_measured() -> None:
    probe = network("linear_probe").train()
    image = chips().train[0]["image"][None]
    measured = training_bytes(probe, lambda: probe(image).mean())
    parts = gp.parameter_table(probe).loc["total"]
    buffers = sum(buffer.nbytes for buffer in probe.buffers())  # weights that nobody counts
    expected = 16 * parts["trainable"] + 4 * parts["frozen"] + buffers
    assert measured["total"] - measured["activations"] == expected


def test_count_lora_agrees_with_what_attach_builds() -> None:
    built = gp.parameter_table(network("lora", r=4)).loc["adapter", "trainable"]
    assert built == 14 * 192 * 6 * 4
