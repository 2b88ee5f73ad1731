"""What will a training step keep in memory? Known without running it, by part of the model.

Autograd decides what to keep by the operations, the shapes and what is trained, never by the
values. So the step is run on torch's fake tensors, which have a shape, a type and a device and no
numbers: nothing is computed, and a network of any size is planned in about a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.memory.frugal import RECIPES, applied
from geopeft_nb.memory.measure import unmoved
from geopeft_nb.memory.step import AUTOCAST, Step
from geopeft_nb.models import SegmentationModel, outline
from geopeft_nb.pictures.memory_bars import memory_figure
from geopeft_nb.pictures.show import PALETTE, in_bytes, plain, table_html, visible
from geopeft_nb.pictures.sliders import sliders
from geopeft_nb.tuning.methods import CARDS

#: Where one may train -> bytes of memory, as the makers count them (1 GB = 10⁹ bytes).
DEVICES = {"Binder": 2e9, "T4": 16e9, "A100": 40e9, "H200": 141e9}
COLUMNS = tuple(PALETTE)


class MemoryPlan:
    """What one training step keeps in memory, in bytes.

    Args:
        table: One row per part of the model, in the order in which they compute; columns weights,
            gradients, optimiser, activations and total. With bf16 or fp16 the activations include
            the copies of the weights in that precision that the backward pass needs.
        peak: The most that is alive at once: the total, and what comes and goes beside it in the
            forward pass, in the backward pass or in AdamW's step, and the batch. Left out are the
            workspace inside single operations, what an allocator adds by rounding, and what torch
            and CUDA take for themselves.
        title: Model, method, decoder, settings, recipes and how the numbers came about.

    Attributes:
        weights: Parameters and buffers.
        gradients: One per trainable weight.
        optimiser: AdamW's two moments per trainable weight.
        activations: What the forward pass keeps for the backward pass.
        total: Their sum.
    """

    def __init__(self, table: pd.DataFrame, peak: int, title: str) -> None:
        self.table, self.peak, self.title = table, peak, title
        sums = (int(table[name].sum()) for name in (*COLUMNS, "total"))
        self.weights, self.gradients, self.optimiser, self.activations, self.total = sums

    def fits(self, limit_bytes: float) -> bool:
        """Say whether the peak is within a limit; see `peak` for what it leaves out."""
        return self.peak <= limit_bytes

    def words(self) -> str:
        """Say what is kept, what is alive at most, and which of `DEVICES` have room for it."""
        parts = ", ".join(f"{name} {in_bytes(getattr(self, name))}" for name in COLUMNS)
        fits = [name for name, limit in DEVICES.items() if self.fits(limit)]
        where = f"Fits on {', '.join(fits) or 'none of ' + ', '.join(DEVICES)}."
        return f"{in_bytes(self.total)} ({parts}); peak {in_bytes(self.peak)}. {where}"

    def __repr__(self) -> str:
        return f"{self.title}: {self.words()}"

    def _repr_html_(self) -> str:
        """Show the table in a notebook, with its sums and where it fits."""
        shown = self.table.copy()
        shown.loc["total"] = shown.sum()
        return table_html(shown, repr(self), in_bytes)

    def plot(self, title: str = "") -> Figure:
        """Draw where it fits, and each part as a bar of what it keeps.

        Args:
            title: In place of the plan's own title and sums.

        Returns:
            A figure that belongs to no pyplot state, so a notebook shows it only when asked.
        """
        total = f"total {in_bytes(self.total)}, peak {in_bytes(self.peak)}"
        title = title or f"{self.title}\n{total}"
        return memory_figure(self.table, self.peak, title, DEVICES)


def memory_plan(
    model: SegmentationModel, batch_size: int = 8, size: int | tuple[int, int] | None = None,
    precision: str = "fp32", frugal: str | Sequence[str] | None = None, device: str = "cpu",
) -> MemoryPlan:  # fmt: skip
    """Predict what one training step of `fit` keeps in memory; no numbers are computed.

    A model on the meta device, which takes no memory, can be planned too.

    Args:
        model: With a method attached. Neither its weights nor the random state change.
        batch_size: Chips per step.
        size: Side of a chip in pixels, or height and width; None takes that of the data.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``. As in `fit`, weights, gradients and moments
            stay in float32 and most of the computing is done in the other.
        frugal: Recipes that save memory, as in `fit`.
        device: Where it would be trained, ``"cpu"`` or ``"cuda"``, or ``"auto"``: a GPU if there is
            one. On a GPU, AdamW changes all weights at once and needs room for that at its peak.
            What the passes keep is planned by the rules of the CPU on both.

    Returns:
        The plan.

    Raises:
        ValueError: Nothing is attached, an unknown precision, device or recipe, or a batch or size
            that is no whole number.

    Source: PyTorch documentation, "Fake tensor" and "Hooks for autograd saved tensors".

    Example:
        >>> import geopeft_nb as gp
        >>> data, backbone = gp.load_data("scenes"), gp.load_backbone("geopeft_tiny")
        >>> model = gp.attach(gp.build_model(backbone, data), "lora")
        >>> plan = gp.memory_plan(model, batch_size=8)
        >>> plan.fits(DEVICES["Binder"]), plan.table.index[1]
        (True, 'block 1')
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    shape, gpu = _check(model, batch_size, size, precision, device)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = outline(model).train()
    with applied(model, frugal) as recipes:
        step = Step(model, batch_size, shape, precision)
        own = [*step.named_parameters(), *step.named_buffers()]
        state = {name: fake_like(mode, tensor) for name, tensor in own}
        with mode, torch.autograd.set_multithreading_enabled(False):
            torch.func.functional_call(step, state, ())
        return _plan(step, "planned", [*recipes], gpu)


def fake_like(mode: Any, tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape on the CPU that has no numbers."""
    with mode:
        return torch.empty_like(tensor, device="cpu", requires_grad=tensor.requires_grad)


def measure_memory(
    model: SegmentationModel, batch_size: int = 8, size: int | tuple[int, int] | None = None,
    precision: str = "fp32", frugal: str | Sequence[str] | None = None, device: str = "auto",
) -> MemoryPlan:  # fmt: skip
    """Measure what one training step keeps in memory, by running it on random images.

    What the forward pass keeps is counted exactly, by watching what autograd saves. The peak is on
    a GPU what the allocator handed out, in the second of two steps with AdamW that change nothing;
    on a CPU, where no allocator tells, what the tensors of the passes took.

    Args:
        model: With a method attached. Weights, buffers and the random state are left as they were,
            and the model where it was; gradients are taken off.
        batch_size: See `memory_plan`, as for all others.
        size: Side of a chip in pixels, or height and width.
        precision: As in `memory_plan`.
        frugal: Recipes that save memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``: a GPU if there is one.

    Returns:
        The same as `memory_plan`, measured.

    Raises:
        ValueError: As `memory_plan`, or a model on the meta device.
    """
    shape, gpu = _check(model, batch_size, size, precision, device)
    if any(tensor.is_meta for tensor in model.parameters()):
        raise GeopeftError("A model on the meta device cannot run. Use memory_plan for it.")
    home = next(model.parameters()).device
    model.zero_grad(set_to_none=True)
    try:
        model.to("cuda" if gpu else "cpu")
        with applied(model, frugal) as recipes, unmoved(model):
            step = Step(model.train(), batch_size, shape, precision)
            step()
            plan = _plan(step, "measured", [*recipes], gpu)
            plan.peak = _allocated(step) if gpu else plan.peak
            return plan
    finally:
        model.to(home).zero_grad(set_to_none=True)


def _plan(step: Step, how: str, recipes: Sequence[str], gpu: bool) -> MemoryPlan:
    """Put the plan together; parts without bytes are left out."""
    rows = {}
    for part, tensors in step.weights.items():
        gradients = sum(tensor.nbytes for tensor in tensors if tensor.requires_grad)
        weights = sum(tensor.nbytes for tensor in tensors)
        rows[part] = (weights, gradients, 2 * gradients, step.kept[part])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))
    table["total"] = table.sum(axis=1)
    model, (height, width) = step.model, step.size
    title = (
        f"{model.plain_backbone.card.title}, {CARDS[str(model.method)].title}, "
        f"{model.decoder_name} decoder, {how}: {step.batch_size} × {height} × {width} px, "
        f"{step.precision}{', ' * bool(recipes)}{' + '.join(recipes)}"
    )
    trained = [p.nbytes for p in model.parameters() if p.requires_grad]
    # torch.optim.adam: the root of the second moments, of all weights on a GPU, else of one.
    spare = sum(trained) if gpu else 2 * max(trained, default=0)
    beside = max(step.forward_most, spare) + sum(trained)
    peak = int(table["weights"].sum() + table["optimiser"].sum()) + max(beside, step.backward_most)
    return MemoryPlan(table[table["total"] > 0].rename_axis("part"), peak, title)


def _allocated(step: Step) -> int:
    """Return the most bytes that CUDA's allocator handed out in a step like those of `fit`."""
    step.model.zero_grad(set_to_none=True)
    own = [*step.model.parameters(), *step.model.buffers()]
    # What else is on the GPU.
    others = torch.cuda.memory_allocated() - sum(tensor.nbytes for tensor in own)
    trained = [weight for weight in step.model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.0)
    for _ in range(2):  # the moments are there from the second on
        torch.cuda.reset_peak_memory_stats()
        batch = step.batch(own[0].device)
        turned = {name: tensor.clone() for name, tensor in batch.items()}
        loss = step.loss(turned)
        optimiser.zero_grad()  # in Lightning's order: the old gradients live through the forward
        loss.backward()
        # In place: nothing changes, and an overflow cannot spoil a weight.
        optimiser.zero_grad(set_to_none=False)
        optimiser.step()
        del batch, turned, loss
    return torch.cuda.max_memory_allocated() - others


def _check(
    model: SegmentationModel, batch_size: int, size: int | tuple[int, int] | None, precision: str,
    device: str,
) -> tuple[tuple[int, int], bool]:  # fmt: skip
    """Refuse what cannot be planned; return height and width, and whether it is for a GPU."""
    if model.method not in CARDS:
        raise GeopeftError("Nothing that trains is attached: call attach(model, method) first.")
    check_name("precision", precision, AUTOCAST)
    check_name("device", device, ("auto", "cpu", "cuda"))
    if size is None:
        size = model.built_for.get("size", model.plain_backbone.card.img_size)
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return (height, width), device == "cuda" or (device == "auto" and torch.cuda.is_available())


def memory_widget(
    models: SegmentationModel | Mapping[str, SegmentationModel],
    batch_size: int = 8, size: int = 224, batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    sizes: Sequence[int] = (64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512),
) -> None:  # fmt: skip
    """Show what a training step would keep in memory, part by part, and move sliders to see why.

    Nothing is trained: every picture is a `gp.memory_plan`, and each is computed once.

    Args:
        models: A model with a method attached, or a dictionary of such models by name.
        batch_size: Chips per step at first.
        size: Side of a chip in pixels at first.
        batches: Batches to choose from, besides.
        sizes: Sides to choose from, besides.

    Example:
        gp.memory_widget(gp.attach(gp.build_model(backbone, data), "lora"))
    """
    from ipywidgets import SelectionSlider

    if isinstance(models, SegmentationModel):
        models = {str(models.method): models}
    models = {visible(name): model for name, model in models.items()}
    planned, before = cache(memory_plan), [0]  # bytes of the plan that was shown last
    slider = partial(SelectionSlider, continuous_update=False)

    def draw(
        method: str, batch_size: int, size: int, precision: str, recipe: str
    ) -> tuple[Figure, str]:
        frugal = None if recipe == "no recipe" else recipe
        try:
            plan = planned(models[method], batch_size, size, precision, frugal)
        except GeopeftError as error:
            settings = f"{method}, {batch_size} × {size} × {size} px, {precision}, {recipe}"
            figure, why = Figure(figsize=(10, 1)), f"{settings} is not possible:\n{error}"
            figure.text(0, 0.5, why, wrap=True)
            return plain(figure), why
        kept = f"{in_bytes(plan.total)} kept in one training step"
        if before[0] not in (0, plan.total):
            kept += (
                f" (before: {in_bytes(before[0])}; now {plan.total / before[0]:.2g} times as much)"
            )
        before[0] = plan.total
        title = f"{method}: {plan.title}\n{kept}"
        return plan.plot(title), f"{title}: {plan.words()}"

    sliders(
        draw,
        method=list(models),
        batch_size=slider(options=sorted({batch_size, *batches}), value=batch_size),
        size=slider(options=sorted({size, *sizes}), value=size),
        precision=["fp32", "bf16", "fp16"],
        recipe=["no recipe", *RECIPES, "all"],
    )
