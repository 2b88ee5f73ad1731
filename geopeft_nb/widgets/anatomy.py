"""The anatomy of memory with sliders: what fits where, known before anything is trained.

One picture is redrawn in place. It is a picture and no widget, so its last state stays in a saved
notebook; the sliders below it need a running kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.memory.plan import DEVICES
from geopeft_nb.pictures.show import in_bytes
from geopeft_nb.widgets.anatomy_drawing import (
    fits_words,
    plan_html,
    plan_text,
    plan_words,
    settings,
)

if TYPE_CHECKING:
    import pandas as pd

    from geopeft_nb.models import SegmentationModel

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SIZES = (64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)  # pixels
PRECISIONS = ("fp32", "bf16", "fp16")
NO_RECIPE = "none"


class Plan(Protocol):
    """What is drawn: a `MemoryPlan`, or anything with the same attributes."""

    table: pd.DataFrame  # row per part; weights, gradients, optimiser, activations, total in bytes
    batch_size: int
    precision: str
    frugal: tuple[str, ...]
    title: str

    @property
    def size(self) -> int | tuple[int, int]:
        """Side of a chip, or its height and width, in pixels."""

    @property
    def total(self) -> int:
        """Bytes that are kept."""

    @property
    def peak(self) -> int:
        """Most bytes at once."""

    def fits(self, limit_bytes: float) -> bool:
        """Return whether the peak is within a limit."""


#: Method, batch, size in pixels, precision and recipe -> a plan.
Planner = Callable[[str, int, int, str, str], Plan]
Settings = tuple[str, int, int, str, str]


class MemoryAnatomy:
    """Stacked bars of a memory plan and where it fits, with sliders.

    Args:
        plan: Returns the plan for a method, batch, chip size in pixels, precision and recipe. What
            it refuses with a ValueError is shown in words. Each plan is asked for once.
        methods: What can be chosen; the first one is shown at first, as with all of these.
        batches: Chips per step.
        sizes: Sides of a chip in pixels.
        precisions: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        recipes: Names of recipes, several joined by a plus, or ``"none"``.
        devices: Name -> bytes, for the ruler.

    Attributes:
        chosen: What is shown: method, batch_size, size, precision and recipe.

    Raises:
        ValueError: A list of choices is empty.
    """

    def __init__(
        self,
        plan: Planner,
        methods: Sequence[str],
        batches: Sequence[int] = BATCHES,
        sizes: Sequence[int] = SIZES,
        precisions: Sequence[str] = PRECISIONS,
        recipes: Sequence[str] = (NO_RECIPE,),
        devices: Mapping[str, float] = DEVICES,
    ) -> None:
        self.plan, self.devices = plan, dict(devices)
        self.choices: dict[str, list[Any]] = {
            "method": [*methods], "batch_size": [*batches], "size": [*sizes],
            "precision": [*precisions], "recipe": [*recipes],
        }  # fmt: skip
        for name, choices in self.choices.items():
            if not choices:
                raise GeopeftError(f"There is no {name} to choose from; give at least one.")
        self.chosen: dict[str, Any] = {name: values[0] for name, values in self.choices.items()}
        self._plans: dict[Settings, Plan | ValueError] = {}
        self._before: Plan | None = None
        self._now: Plan | None = None

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

    @property
    def known(self) -> bool:
        """Whether the chosen plan needs no computing any more."""
        return self._key in self._plans

    def compute(self) -> Plan:
        """Return the chosen plan.

        Raises:
            ValueError: The settings do not go together.
        """
        if not self.known:
            try:
                self._plans[self._key] = self.plan(*self._key)
            except ValueError as error:
                self._plans[self._key] = error
        found = self._plans[self._key]
        if isinstance(found, ValueError):
            raise found
        return found

    def words(self) -> str:
        """Say what is shown in one line: the plan, or why there is none."""
        try:
            return plan_words(self.compute(), self.devices)
        except ValueError as error:
            return f"{' · '.join(map(str, self._key))} is not possible: {error}"

    def summary(self) -> str:
        """Say in a few words what is shown: the bytes and where they fit, or why there are none."""
        try:
            plan = self.compute()
        except ValueError:
            return self.words()
        kept = f"{settings(plan)}: {in_bytes(plan.total)} kept."
        return f"{kept} {fits_words(plan, self.devices)}"

    def bundle(self) -> dict[str, str]:
        """Return the picture of the chosen plan in the forms that a notebook keeps."""
        try:
            plan = self.compute()
        except ValueError:
            html = f'<div class="gp-anatomy" data-state="refused">{escape(self.words())}</div>'
            return {"text/html": html, "text/plain": self.words()}
        if plan is not self._now:
            self._before, self._now = self._now, plan
        return {
            "text/html": plan_html(plan, self.devices, self._before),
            "text/plain": plan_text(plan, self.devices),
        }

    def show(self) -> None:
        """Display the picture, and sliders below it that redraw it when they are let go."""
        import ipywidgets as widgets
        from IPython.display import display

        handle = display(self.bundle(), raw=True, display_id=True)
        status = widgets.HTML()
        style, layout = {"description_width": "80px"}, widgets.Layout(width="340px")
        titles = {
            "method": "Method:", "batch_size": "Batch:", "size": "Chip size:",
            "precision": "Precision:", "recipe": "Recipe:",
        }  # fmt: skip
        controls = {}
        for name, title in titles.items():
            ordered = name in ("batch_size", "size")
            kind = widgets.SelectionSlider if ordered else widgets.Dropdown
            more = {"continuous_update": False} if ordered else {}
            controls[name] = kind(
                options=self.choices[name], value=self.chosen[name], description=title,
                style=style, layout=layout, **more,
            )  # fmt: skip

        def say(words: str) -> None:
            status.value = f'<span role="status" aria-live="polite">{escape(words)}</span>'

        def redraw(_: object) -> None:
            self.choose(**{name: control.value for name, control in controls.items()})
            if not self.known:
                say("computing …")
            handle.update(self.bundle(), raw=True)
            say(self.summary())

        for control in controls.values():
            control.observe(redraw, names="value")
        row = widgets.HBox([*controls.values()], layout=widgets.Layout(flex_flow="row wrap"))
        display(widgets.VBox([row, status]))

    def _ipython_display_(self) -> None:
        self.show()

    @property
    def _key(self) -> Settings:
        chosen = self.chosen
        return (
            chosen["method"], chosen["batch_size"], chosen["size"], chosen["precision"],
            chosen["recipe"],
        )  # fmt: skip


def memory_widget(
    models: SegmentationModel
    | Mapping[str, SegmentationModel]
    | Callable[[str], SegmentationModel],
    methods: Sequence[str] = ("full", "linear_probe", "lora"),
    batch_size: int = 8,
    size: int = 224,
    batches: Sequence[int] = BATCHES,
    sizes: Sequence[int] = SIZES,
    precisions: Sequence[str] = PRECISIONS,
    recipes: Sequence[str] | None = None,
    devices: Mapping[str, float] = DEVICES,
) -> MemoryAnatomy:
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
        recipes: Recipes to choose from, several joined by a plus; None offers each of
            `gp.list_recipes()` and all of them together.
        devices: Name -> bytes of memory, for the ruler.

    Returns:
        What a notebook shows when it is the last line of a cell.

    Raises:
        ValueError: Nothing is attached to the model, there is nothing to choose from, or the first
            setting is not one of the choices.

    Example:
        gp.memory_widget(lambda name: gp.attach(gp.build_model(backbone, data), name))
    """
    made: dict[str, SegmentationModel] = {}
    if isinstance(models, Mapping):
        made, methods = dict(models), [*models]
    elif hasattr(models, "method"):  # a model, which could be called, too
        if models.method is None:
            raise GeopeftError(
                "Nothing is attached to the model. Call gp.attach(model, ...) first."
            )
        made = {str(models.method): models}  # type: ignore[dict-item]
        methods = [*made]
    if recipes is None:
        known = import_module("geopeft_nb.memory.frugal").RECIPES
        recipes = (NO_RECIPE, *known, "all")

    def plan(method: str, batch_size: int, size: int, precision: str, recipe: str) -> Plan:
        if method not in made:
            made[method] = models(method)  # type: ignore[operator]
        frugal = None if recipe == NO_RECIPE else recipe.split("+")
        found: Plan = import_module("geopeft_nb.memory.plan").memory_plan(
            made[method], batch_size=batch_size, size=size, precision=precision, frugal=frugal
        )
        return found

    anatomy = MemoryAnatomy(plan, methods, batches, sizes, precisions, recipes, devices)
    anatomy.choose(batch_size=batch_size, size=size)
    return anatomy
