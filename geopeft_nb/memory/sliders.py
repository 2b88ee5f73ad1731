"""What fits where, known before anything is trained: a memory plan that sliders redraw.

The picture is no widget, so its last state stays in a saved notebook; the sliders above it need a
running kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.memory.frugal import RECIPES
from geopeft_nb.memory.plan import DEVICES, MemoryPlan, memory_plan
from geopeft_nb.models import SegmentationModel
from geopeft_nb.pictures.memory_bars import memory_figure
from geopeft_nb.pictures.show import PALETTE, bundle, in_bytes, png

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SIZES = (64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)  # pixels
PRECISIONS = ("fp32", "bf16", "fp16")
NO_RECIPE = "none"
LABELS = {
    "method": "Method:", "batch_size": "Batch:", "size": "Chip size:",
    "precision": "Precision:", "recipe": "Recipe:",
}  # fmt: skip


class MemorySliders:
    """A plan as a picture, and sliders above it.

    Attributes:
        choices: Setting -> what can be chosen: method, batch_size, size, precision and recipe.
        chosen: What is shown.
        plan: Returns the plan of five settings; each is computed once.
    """

    def __init__(self, plan: Callable[..., MemoryPlan], choices: dict[str, Sequence[Any]]) -> None:
        self.plan, self.choices = cache(plan), choices
        self.chosen = {name: values[0] for name, values in choices.items()}
        self._before: int | None = None  # bytes of the plan that was shown last

    def choose(self, **wanted: object) -> None:
        """Choose what is shown; a keyword for each entry of `chosen` that changes.

        Raises:
            ValueError: Not one of the choices.
        """
        for name, value in wanted.items():
            check_name("setting", name, self.choices)
            if value not in self.choices[name]:
                allowed = ", ".join(map(str, self.choices[name]))
                raise GeopeftError(f"{name} {value!r} is not one of {allowed}.")
        self.chosen.update(wanted)

    def bundle(self) -> dict[str, str]:
        """Return the picture in the forms that a notebook keeps, or say why there is none."""
        method, batch, size, precision, recipe = self.chosen.values()
        settings = f"{method} · batch {batch} · {size} × {size} pixels · {precision} · "
        settings += "no recipe" if recipe == NO_RECIPE else str(recipe)
        try:
            plan = self.plan(**self.chosen)
        except ValueError as error:
            words = f"{settings} is not possible: {error}"
            return {"text/plain": words, "text/html": f"<p>{words}</p>"}
        fits = [name for name, limit in DEVICES.items() if plan.fits(limit)]
        kept = f"{in_bytes(plan.total)} kept in one training step"
        if self._before not in (None, plan.total):
            times = plan.total / self._before
            kept += f" (before: {in_bytes(self._before)}; now {times:.2g} times as much)"
        self._before = plan.total
        title = f"{plan.title}; {settings}\n{kept}"
        parts = ", ".join(f"{part} {in_bytes(getattr(plan, part))}" for part in PALETTE)
        where = f"Fits on {', '.join(fits) or 'none of ' + ', '.join(DEVICES)}."
        words = f"{title}: {parts}; at most {in_bytes(plan.peak)} at once. {where}"
        return bundle(png(memory_figure(plan.table, plan.peak, title, DEVICES), 80), words)

    def _ipython_display_(self) -> None:
        """Display the sliders, and below them the picture that they redraw when let go."""
        import ipywidgets as widgets
        from IPython.display import display

        look = {"style": {"description_width": "80px"}, "layout": widgets.Layout(width="330px")}
        controls = {}
        for name, label in LABELS.items():
            options = {"options": self.choices[name], "value": self.chosen[name], **look}
            if name in ("batch_size", "size"):
                controls[name] = widgets.SelectionSlider(continuous_update=False, **options)
            else:
                controls[name] = widgets.Dropdown(**options)
            controls[name].description = label
        status = widgets.HTML()
        row = widgets.HBox([*controls.values()], layout=widgets.Layout(flex_flow="row wrap"))
        display(widgets.VBox([row, status]))
        handle = display(self.bundle(), raw=True, display_id=True)

        def redraw(_: object) -> None:
            self.choose(**{name: control.value for name, control in controls.items()})
            status.value = "computing …"
            shown = self.bundle()
            handle.update(shown, raw=True)
            said = shown["text/plain"].splitlines()[-1]
            status.value = f'<span role="status" aria-live="polite">{said}</span>'

        for control in controls.values():
            control.observe(redraw, names="value")


def memory_widget(
    models: SegmentationModel | Mapping[str, SegmentationModel],
    batch_size: int = 8, size: int = 224, batches: Sequence[int] = BATCHES,
    sizes: Sequence[int] = SIZES,
) -> MemorySliders:  # fmt: skip
    """Show what a training step would keep in memory, part by part, and move sliders to see why.

    Nothing is trained: every picture is a `gp.memory_plan`.

    Args:
        models: A model with a method attached, or a dictionary of such models by name.
        batch_size: Chips per step at first.
        size: Side of a chip in pixels at first.
        batches: Batches to choose from.
        sizes: Sides to choose from.

    Returns:
        What a notebook shows when it is the last line of a cell.

    Raises:
        ValueError: Nothing is attached to the model, or the first setting is no choice.

    Example:
        gp.memory_widget(gp.attach(gp.build_model(backbone, data), "lora"))
    """
    if isinstance(models, SegmentationModel):
        if models.method is None:
            raise GeopeftError(
                "Nothing is attached to the model. Call gp.attach(model, ...) first."
            )
        models = {str(models.method): models}

    def plan(method: str, batch_size: int, size: int, precision: str, recipe: str) -> MemoryPlan:
        frugal = None if recipe == NO_RECIPE else recipe
        return memory_plan(models[method], batch_size, size, precision, frugal)

    choices: dict[str, Sequence[Any]] = {
        "method": [*models], "batch_size": batches, "size": sizes, "precision": PRECISIONS,
        "recipe": (NO_RECIPE, *RECIPES, "all"),
    }  # fmt: skip
    sliders = MemorySliders(plan, choices)
    sliders.choose(batch_size=batch_size, size=size)
    return sliders
