"""What will a training step keep in memory? Known without running it, by part of the model.

Autograd decides what to keep by the operations, the shapes and what is trained, never by the
values. So the step is run on torch's fake tensors, which have a shape, a type and a device and no
numbers: nothing is computed, and a network of any size is planned in about a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from geopeft_nb.errors import GeopeftError, check_name, expect, name_options, whole
from geopeft_nb.memory.frugal import applied, normalise
from geopeft_nb.memory.measure import GIB, KeptTensors, LiveBytes, tensor_bytes, unmoved
from geopeft_nb.memory.parts import Parts
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.show import PALETTE, in_bytes
from geopeft_nb.tasks import TASKS
from geopeft_nb.tuning.methods import CARDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Where one may train -> bytes of memory, as the makers count them (1 GB = 10⁹ bytes).
DEVICES = {"Binder": 2e9, "T4": 16e9, "A100": 40e9, "H200": 141e9}
COLUMNS = tuple(PALETTE)
PLACES = ("auto", "cpu", "cuda")
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class MemoryPlan:
    """What one training step keeps in memory, in bytes.

    Attributes:
        table: One row per part of the model, in the order in which they compute; columns weights,
            gradients, optimiser, activations and total. With bf16 or fp16 the activations include
            the copies of the weights in that precision that the backward pass needs.
        weights: Parameters and buffers.
        gradients: One per trainable weight.
        optimiser: AdamW's two moments per trainable weight.
        activations: What the forward pass keeps for the backward pass.
        total: Their sum.
        peak: The most that is alive at once: the total, and what comes and goes beside it in the
            forward pass, in the backward pass or in AdamW's step, and the batch. Left out are the
            workspace inside single operations, what an allocator adds by rounding, and what torch
            and CUDA take for themselves.
        batch_size: Chips per step.
        size: Height and width of a chip in pixels.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        frugal: Names of the recipes.
        title: Model, method, decoder and how the numbers came about.
    """

    table: pd.DataFrame
    peak: int
    batch_size: int
    size: tuple[int, int]
    precision: str
    frugal: tuple[str, ...]
    title: str

    @property
    def weights(self) -> int:
        """Bytes of parameters and buffers."""
        return int(self.table["weights"].sum())

    @property
    def gradients(self) -> int:
        """Bytes of the gradients."""
        return int(self.table["gradients"].sum())

    @property
    def optimiser(self) -> int:
        """Bytes that the optimiser remembers."""
        return int(self.table["optimiser"].sum())

    @property
    def activations(self) -> int:
        """Bytes kept for the backward pass."""
        return int(self.table["activations"].sum())

    @property
    def total(self) -> int:
        """Bytes of all four."""
        return int(self.table["total"].sum())

    def fits(self, limit_bytes: float) -> bool:
        """Say whether the peak is within a limit; see `peak` for what it leaves out."""
        return self.peak <= limit_bytes

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {in_bytes(getattr(self, name))}" for name in COLUMNS)
        return f"{self.title}: {in_bytes(self.total)} ({parts}); peak {in_bytes(self.peak)}"

    def _repr_html_(self) -> str:
        """Show the table in a notebook, with its sums and where it fits."""
        shown = self.table.copy()
        shown.loc["total"] = shown.sum()
        caption = f"{self.title}. Peak {in_bytes(self.peak)}. {self._fits()}"
        return str(shown.style.format(in_bytes).set_caption(caption).to_html())

    def _fits(self) -> str:
        marks = [
            f"{name} {limit / 1e9:g} GB: {'yes' if self.fits(limit) else 'no'}"
            for name, limit in DEVICES.items()
        ]
        return f"Fits on {', '.join(marks)}."

    def plot(self) -> Figure:
        """Draw each part as a bar of weights, gradients, optimiser and activations.

        Returns:
            A figure that belongs to no pyplot state, so a notebook shows it only when asked.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        unit, name = (GIB, "GiB") if self.table["total"].max() >= GIB else (2**20, "MiB")
        figure = Figure(figsize=(9, 2.1 + 0.24 * len(self.table)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        left = pd.Series(0.0, self.table.index)
        for column, colour in PALETTE.items():
            label = f"{column}, {in_bytes(getattr(self, column))}"
            width = self.table[column] / unit
            axes.barh(self.table.index, width, left=left, color=colour, label=label, height=0.75)
            left += width
        for row, end in enumerate(left):
            axes.annotate(
                in_bytes(end * unit), (end, row), (4, 0), textcoords="offset points",
                va="center", size=8, color="#444444",
            )  # fmt: skip
        axes.invert_yaxis()
        axes.margins(x=0.12, y=0.01)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"memory ({name})")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
        total = f"total {in_bytes(self.total)}, peak {in_bytes(self.peak)}"
        axes.set_title(f"{self.title}\n{total}\n{self._fits()}", size=10, loc="left")
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        return figure


@name_options
def memory_plan(
    model: SegmentationModel,
    batch_size: int = 8,
    size: int | tuple[int, int] | None = None,
    precision: str = "fp32",
    frugal: str | Sequence[str] | None = None,
    device: str = "cpu",
) -> MemoryPlan:
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
        ValueError: Nothing is attached, an unknown precision, device or recipe, a batch that is no
            whole number, or chips that the patches do not fill.

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

    shape = _check(model, batch_size, size, precision, device)
    gpu = _on_gpu(device)
    with _as_trained(model, frugal, park="memory") as recipes:
        parts = Parts(model)
        weights = parts.weights()
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        state = {
            name: _fake(mode, tensor)
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        }
        with mode, _Answers(), torch.autograd.set_multithreading_enabled(False):
            step = _Step(model, parts, state.values(), batch_size, shape, precision)
            torch.func.functional_call(step, {f"model.{k}": v for k, v in state.items()}, ())
        table = _table(weights, step.kept)
        return _plan(model, table, step, gpu, "planned", batch_size, shape, precision, recipes)


def measure_memory(
    model: SegmentationModel,
    batch_size: int = 8,
    size: int | tuple[int, int] | None = None,
    precision: str = "fp32",
    frugal: str | Sequence[str] | None = None,
    device: str = "auto",
) -> MemoryPlan:
    """Measure what one training step keeps in memory, by running it on random images.

    What the forward pass keeps is counted exactly, by watching what autograd saves. The peak is on
    a GPU what the allocator handed out, in the second of two steps with AdamW that change nothing;
    on a CPU, where no allocator tells, what the tensors of the passes took.

    Args:
        model: With a method attached. Weights, buffers, gradients and the random state are left as
            they were, and the model where it was.
        batch_size: See `memory_plan`, as for all others.
        size: Side of a chip in pixels, or height and width.
        precision: ``"fp16"`` needs a GPU, as in `fit`.
        frugal: Recipes that save memory.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``: a GPU if there is one.

    Returns:
        The same as `memory_plan`, measured.

    Raises:
        ValueError: As `memory_plan`; a model on the meta device, or a GPU that is not there.
    """
    shape = _check(model, batch_size, size, precision, device)
    gpu = _on_gpu(device)
    _check_measurable(model, precision, device)
    place = torch.device("cuda" if gpu else "cpu")
    home = next(model.parameters()).device
    devices = [torch.cuda.current_device()] if gpu else []
    gradients = [(weight, weight.grad) for weight in model.parameters()]
    try:
        model.zero_grad(set_to_none=True)
        model.to(place)
        with (
            torch.random.fork_rng(devices),
            _as_trained(model, frugal, park="disk") as recipes,
            unmoved(model),
        ):
            parts = Parts(model)
            own = [*model.parameters(), *model.buffers()]
            step = _Step(model, parts, own, batch_size, shape, precision)
            step()
            table = _table(parts.weights(), step.kept)
            plan = _plan(model, table, step, gpu, "measured", batch_size, shape, precision, recipes)
            return replace(plan, peak=_allocated(step)) if gpu else plan
    finally:
        model.zero_grad(set_to_none=True)
        model.to(home)
        for weight, gradient in gradients:
            weight.grad = gradient


class _Answers(TorchDispatchMode):
    """Answers for fake tensors, which have no numbers, whoever wants one: yes, and 1.

    Asked are whether dates and places are in range, which week a date is in, and by some of peft's
    methods whether a layer takes part in this step; all of it with a dropout of layers of 0.
    """

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        """Run one operation on fake tensors."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return args[0].dtype is torch.bool or 1
        return func(*args, **(kwargs or {}))


class _Step(nn.Module):
    """Forward and backward pass of one batch, watched.

    Attributes:
        kept: Bytes kept for the backward pass, by part.
        forward_most: The most bytes alive in the forward pass, batch included, weights not.
        backward_most: The same in the backward pass, with the gradients that it makes.
    """

    def __init__(
        self, model: SegmentationModel, parts: Parts, own: Any, batch_size: int,  # noqa: ANN401
        size: tuple[int, int], precision: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.parts, self.own = model, parts, list(own)
        self.batch_size, self.size, self.precision = batch_size, size, precision
        self.kept: dict[str, int] = {}
        self.forward_most = self.backward_most = 0

    def forward(self) -> None:
        """Run the step; `fit` holds the batch as it was loaded and as it was turned."""
        tensors = KeptTensors(self.own, lambda: self.parts.running)
        with LiveBytes(self.own) as live:
            batch = self.batch()
            loaded = {name: tensor.clone() for name, tensor in batch.items()}
            with tensors.watching(), self.parts.following():
                loss = self.loss(batch)
            self.forward_most = live.most
            self.kept = tensors.count()
            live.most = live.now
            loss.backward()
            self.backward_most = live.most
        del loaded

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Compute the loss of a batch in the precision."""
        model, device = self.model, batch["image"].device.type
        dtype = AUTOCAST[self.precision]
        # Lightning keeps no cast weights from one layer to the next, either.
        with torch.autocast(device, dtype, enabled=dtype is not None, cache_enabled=False):
            more = {key: batch[key] for key in ("temporal", "location") if key in batch}
            return TASKS[model.task].loss(model(batch["image"], **more), batch["target"], -1)

    def batch(self) -> dict[str, Tensor]:
        """Make a random batch with the targets that the task has."""
        model, count, device = self.model, self.batch_size, self.own[0].device
        task = TASKS[model.task]
        shape = task.shape(len(model.classes), self.size)
        batch = {
            "image": torch.rand(count, len(model.bands), *self.size, device=device),
            "target": torch.zeros(count, *shape, dtype=task.dtype, device=device),
        }
        if "time" in model.metadata:
            batch["temporal"] = torch.ones(count, 1, 2, device=device)
        if "location" in model.metadata:
            batch["location"] = torch.zeros(count, 2, device=device)
        return batch


def _allocated(step: _Step) -> int:
    """Return the most bytes that CUDA's allocator handed out in a step like those of `fit`."""
    step.model.zero_grad(set_to_none=True)
    own = sum(tensor_bytes(tensor) for tensor in step.own)
    others = torch.cuda.memory_allocated() - own  # what else is on the GPU now
    trained = [weight for weight in step.model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.0)
    for _ in range(2):  # the moments are there from the second on
        torch.cuda.reset_peak_memory_stats()
        batch = step.batch()
        turned = {name: tensor.clone() for name, tensor in batch.items()}
        loss = step.loss(turned)
        optimiser.zero_grad()  # in Lightning's order: the old gradients live through the forward
        loss.backward()
        for weight in trained:
            if weight.grad is not None:
                weight.grad.zero_()  # nothing changes, and an overflow cannot spoil a weight
        optimiser.step()
        del batch, turned, loss
    return torch.cuda.max_memory_allocated() - others


def _plan(
    model: SegmentationModel, table: pd.DataFrame, step: _Step, gpu: bool, how: str,
    batch_size: int, size: tuple[int, int], precision: str, recipes: tuple[str, ...],
) -> MemoryPlan:  # fmt: skip
    """Put the plan together."""
    weights, gradients, optimiser = (int(table[name].sum()) for name in COLUMNS[:3])
    trained = [tensor_bytes(weight) for weight in model.parameters() if weight.requires_grad]
    # torch.optim.adam: the root of the second moments, of all weights on a GPU, else of one.
    spare = sum(trained) if gpu else 2 * max(trained, default=0)
    most = max(gradients + step.forward_most, step.backward_most, gradients + spare)
    with_recipes = f", {' + '.join(recipes)}" if recipes else ""
    title = (
        f"{model.plain_backbone.card.title}, {CARDS[str(model.method)].title}, "
        f"{model.decoder_name} decoder, {how}: {batch_size} × {size[0]} × {size[1]} px, {precision}"
        f"{with_recipes}"
    )
    peak = weights + optimiser + most
    return MemoryPlan(table, peak, batch_size, size, precision, recipes, title)


def _table(weights: dict[str, list[Tensor]], kept: dict[str, int]) -> pd.DataFrame:
    """Make the rows; parts without bytes are left out."""
    rows = {}
    for part, tensors in weights.items():
        held = sum(tensor_bytes(tensor) for tensor in tensors)
        gradients = sum(tensor_bytes(tensor) for tensor in tensors if tensor.requires_grad)
        rows[part] = (held, gradients, 2 * gradients, kept.get(part, 0))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))
    table["total"] = table.sum(axis=1)
    return table[table["total"] > 0].rename_axis("part")


def _fake(mode: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401 - torch's FakeTensorMode
    """Return a tensor of the same shape on the CPU that has no numbers."""
    fake = mode.from_tensor(tensor, static_shapes=True)
    if fake.device.type != "cpu":
        with mode:
            fake = torch.empty_like(fake, device="cpu", requires_grad=tensor.requires_grad)
    fake.grad = None
    return fake


@contextlib.contextmanager
def _as_trained(
    model: SegmentationModel, frugal: str | Sequence[str] | None, park: str
) -> Iterator[tuple[str, ...]]:
    """Set training mode and apply recipes, and undo both; yields the recipes' names."""
    before = [(module, module.training) for module in model.modules()]
    with contextlib.ExitStack() as stack:
        recipes = normalise(frugal)
        stack.enter_context(applied(model, recipes, park))
        try:
            model.train()
            yield recipes
        finally:
            for module, training in before:
                module.training = training


def _check(
    model: SegmentationModel, batch_size: int, size: int | tuple[int, int] | None, precision: str,
    device: str,
) -> tuple[int, int]:  # fmt: skip
    """Refuse what cannot be planned; return height and width."""
    expect(model, "method_options", "the model that build_model returned")
    if model.method not in CARDS:
        raise GeopeftError(
            "Nothing that trains is attached: call attach(model, method) first, with one of "
            f"{', '.join(CARDS)}."
        )
    check_name("precision", precision, AUTOCAST)
    check_name("device", device, PLACES)
    whole("batch_size", batch_size)
    if size is None:
        size = model.built_for.get("size", model.plain_backbone.card.img_size)
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    patch = model.backbone.patch_size
    if len(sides) != 2:
        raise GeopeftError(f"size must be pixels, such as 224 or (224, 448), got {size!r}.")
    for side in sides:
        whole("size", side)
    if any(side % patch for side in sides) and not model.pad:
        near = [max(patch, round(side / patch) * patch) for side in sides]
        raise GeopeftError(
            f"Chips of {sides[0]} × {sides[1]} px are not divisible by the patch of {patch} px. "
            f"Use size={near[0] if near[0] == near[1] else tuple(near)}, or build_model(..., "
            "pad=True) to repeat the border."
        )
    return sides


def _check_measurable(model: SegmentationModel, precision: str, device: str) -> None:
    """Refuse what can be planned and not be run here."""
    if device == "cuda" and not torch.cuda.is_available():
        raise GeopeftError("device='cuda', but there is none. Use device='auto' or 'cpu'.")
    if precision == "fp16" and not _on_gpu(device):
        raise GeopeftError("precision='fp16' needs a GPU. Use 'fp32' or 'bf16', or memory_plan.")
    if any(tensor.is_meta for tensor in model.parameters()):
        raise GeopeftError("A model on the meta device cannot run. Use memory_plan for it.")


def _on_gpu(device: str) -> bool:
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())
