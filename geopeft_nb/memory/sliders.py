"""What fits where, known before anything is trained: a memory plan that sliders redraw.

The picture is no widget, so its last state stays in a saved notebook; the sliders above it need a
running kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from geopeft_nb.errors import GeopeftError, unknown_name
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

Models = SegmentationModel | Mapping[str, SegmentationModel] | Callable[[str], SegmentationModel]


class MemorySliders:
    """A plan as a picture, and sliders above it.

    Attributes:
        choices: Setting -> what can be chosen: method, batch_size, size, precision and recipe.
        chosen: What is shown.
        plan: Returns the plan of five settings; each is computed once.
    """

    def __init__(
        self, plan: Callable[..., MemoryPlan], choices: dict[str, Sequence[Any]],
        devices: Mapping[str, float] = DEVICES,
    ) -> None:  # fmt: skip
        self.plan, self.choices, self.devices = cache(plan), choices, devices
        for name, values in choices.items():
            if not values:
                raise GeopeftError(f"There is no {name} to choose from; give at least one.")
        self.chosen = {name: values[0] for name, values in choices.items()}
        self._before: int | None = None  # bytes of the plan that was shown last

    def choose(self, **wanted: object) -> None:
        """Choose what is shown; a keyword for each entry of `chosen` that changes.

        Raises:
            ValueError: Not one of the choices.
        """
        for name, value in wanted.items():
            if name not in self.choices:
                raise unknown_name("setting", name, self.choices)
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
        fits = [name for name, limit in self.devices.items() if plan.fits(limit)]
        kept = f"{in_bytes(plan.total)} kept in one training step"
        if self._before not in (None, plan.total):
            times = plan.total / self._before
            kept += f" (before: {in_bytes(self._before)}; now {times:.2g} times as much)"
        self._before = plan.total
        title = f"{plan.title}; {settings}\n{kept}"
        parts = ", ".join(f"{part} {in_bytes(getattr(plan, part))}" for part in PALETTE)
        where = f"Fits on {', '.join(fits) or 'none of ' + ', '.join(self.devices)}."
        words = f"{title}: {parts}; at most {in_bytes(plan.peak)} at once. {where}"
        return bundle(png(memory_figure(plan.table, plan.peak, title, self.devices), 80), words)

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
    models: Models, methods: Sequence[str] = ("full", "linear_probe", "lora"),
    batch_size: int = 8, size: int = 224, batches: Sequence[int] = BATCHES,
    sizes: Sequence[int] = SIZES, precisions: Sequence[str] = PRECISIONS,
    recipes: Sequence[str] = (NO_RECIPE, *RECIPES, "all"),
    devices: Mapping[str, float] = DEVICES,
) -> MemorySliders:  # fmt: skip
    """Show what a training step would keep in memory, part by part, and move sliders to see why.

    Nothing is trained: every picture is a `gp.memory_plan`.

    Args:
        models: A model with a method attached; a dictionary of such models by name; or a function
            that takes the name of a method and returns a model with it attached. The function is
            called once for each method that is looked at.
        methods: Names of methods to choose from, if `models` is a function.
        batch_size: Chips per step at first.
        size: Side of a chip in pixels at first.
        batches: Batches to choose from.
        sizes: Sides to choose from.
        precisions: Precisions to choose from.
        recipes: Recipes to choose from, several joined by a plus.
        devices: Name -> bytes of memory, for the ruler.

    Returns:
        What a notebook shows when it is the last line of a cell.

    Raises:
        ValueError: Nothing is attached to the model, there is nothing to choose from, or the first
            setting is not one of the choices.

    Example:
        gp.memory_widget(lambda name: gp.attach(gp.build_model(backbone, data), name))
    """
    if isinstance(models, SegmentationModel):
        if models.method is None:
            raise GeopeftError(
                "Nothing is attached to the model. Call gp.attach(model, ...) first."
            )
        models = {str(models.method): models}
    if isinstance(models, Mapping):
        methods = [*models]
    make = cache(models.__getitem__ if isinstance(models, Mapping) else models)

    def plan(method: str, batch_size: int, size: int, precision: str, recipe: str) -> MemoryPlan:
        frugal = None if recipe == NO_RECIPE else recipe.split("+")
        return memory_plan(make(method), batch_size, size, precision, frugal)

    choices: dict[str, Sequence[Any]] = {
        "method": methods, "batch_size": batches, "size": sizes, "precision": precisions,
        "recipe": recipes,
    }  # fmt: skip
    sliders = MemorySliders(plan, choices, devices)
    sliders.choose(batch_size=batch_size, size=size)
    return sliders
