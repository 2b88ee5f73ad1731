"""What fits where, known before anything is trained: a memory plan that sliders redraw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from geopeft_nb.errors import GeopeftError
from geopeft_nb.memory.frugal import RECIPES
from geopeft_nb.memory.plan import memory_plan
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.show import in_bytes, plain, visible
from geopeft_nb.pictures.sliders import sliders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_RECIPE = "no recipe"


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
    from matplotlib.figure import Figure

    if isinstance(models, SegmentationModel):
        models = {str(models.method): models}
    models = {visible(name): model for name, model in models.items()}
    planned, before = cache(memory_plan), [0]  # bytes of the plan that was shown last
    slider = partial(SelectionSlider, continuous_update=False)

    def draw(
        method: str, batch_size: int, size: int, precision: str, recipe: str
    ) -> tuple[Figure, str]:
        frugal = None if recipe == NO_RECIPE else recipe
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
        recipe=[NO_RECIPE, *RECIPES, "all"],
    )
