"""The sandbox planet with sliders: turn the shift up and see six climates grow apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geopeft_nb.bands import band_indices
from geopeft_nb.datasets.load import load_data
from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.widgets.redrawn import Redrawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from geopeft_nb.datasets.base import Sample
    from geopeft_nb.datasets.geodata import GeoData

#: Task -> the class whose mean spectrum is drawn; None draws that of all pixels.
TASKS: dict[str, str | None] = {
    "flood": "water",
    "burn": "burn scar",
    "crops": "cereal",
    "landcover": "forest",
    "multilabel": None,
}
CHIPS = 8  # of each climate; the spectra are means over all of them
WHITE = 0.35  # reflectance drawn white, the same for all climates and positions of the sliders
GAMMA = 0.7  # brightens dark ground
# Okabe-Ito, and a mark for each climate, so that the lines are told apart without colour too.
LOOKS = (
    ("#0072B2", "o"), ("#56B4E9", "s"), ("#E69F00", "^"),
    ("#D55E00", "v"), ("#009E73", "D"), ("#CC79A7", "P"),
)  # fmt: skip


class Planet(Redrawn):
    """A chip of each climate with its labels, and how alike the climates are; with sliders.

    Args:
        task: A task of the sandbox: ``"flood"``, ``"burn"``, ``"crops"``, ``"landcover"`` or
            ``"multilabel"``.
        shift: How different the climates are at first, from 0 (alike) to 1.
        seed: Seed of the planet.

    Attributes:
        task: The task that is shown.
        shift: The shift that is shown.
        chip: Number of the chip that is shown of each climate, counted from 0.
        seed: Seed in use.

    Raises:
        ValueError: Unknown task, or a shift outside 0-1.
    """

    style, dpi = "gp-planet", 90

    def __init__(self, task: str = "flood", shift: float = 0.0, seed: int = 0) -> None:
        check_name("task", task, TASKS)
        if not 0 <= shift <= 1:
            raise GeopeftError(f"shift must be between 0 and 1, got {shift}.")
        self.task, self.shift, self.seed, self.chip = task, float(shift), seed, 0
        self._shown: tuple[tuple[str, float, int], GeoData, dict[str, list[Sample]]] | None = None

    def compute(self) -> tuple[GeoData, dict[str, list[Sample]]]:
        """Return the data at this task and shift, and climate -> its first `CHIPS` chips."""
        asked = (self.task, self.shift, self.seed)
        if self._shown is None or self._shown[0] != asked:
            data = load_data("sandbox", task=self.task, shift=self.shift, seed=self.seed)
            climates: dict[str, list[Sample]] = {name: [] for name in data.card.regions}
            for part in data.parts.values():
                for index, chip in enumerate(part.chips):
                    if len(climates[chip.region]) < CHIPS:
                        climates[chip.region].append(part[index])
            self._shown = asked, data, climates
        return self._shown[1:]

    def spectra(self) -> dict[str, np.ndarray]:
        """Return the mean reflectance per band of the task's class, (C,), for each climate.

        A climate whose chips do not show the class is left out.
        """
        data, climates = self.compute()
        wanted = TASKS[self.task]
        means = {}
        for name, samples in climates.items():
            pixels = [
                s["image"][:, s["mask"] == data.classes.index(wanted)]
                if wanted
                else s["image"].flatten(1)
                for s in samples
            ]
            found = np.concatenate([part.numpy() for part in pixels], axis=1)
            if found.shape[1]:
                means[name] = found.mean(axis=1)
        return means

    def draw(self) -> tuple[Figure, str]:
        """Return the figure and what it shows in words."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        data, climates = self.compute()
        means = self.spectra()
        apart = np.ptp(np.stack(list(means.values())), axis=0)  # (C,) widest gap in each band
        widest = int(apart.argmax())
        what = TASKS[self.task] or "all pixels"

        # Places by hand: an automatic layout takes longer than all the rest.
        figure = Figure(figsize=(11, 6), facecolor="white")
        FigureCanvasAgg(figure)
        across = 0.155
        for column, (name, samples) in enumerate(climates.items()):
            sample, left = samples[self.chip % len(samples)], 0.035 + column * 0.161
            top = figure.add_axes((left, 0.62, across, across * 11 / 6))
            _picture(top, sample, data)
            top.set_title(name, fontsize=10)
            if data.task == "segmentation":
                below = figure.add_axes((left, 0.42, across, across * 11 / 6 * 0.66))
                _label(below, sample, data)
            else:
                there = zip(data.classes, sample["label"], strict=True)
                words = "\n".join(name for name, yes in there if yes)
                figure.text(left, 0.60, words or "none", fontsize=8, va="top")
        axes = figure.add_axes((0.08, 0.09, 0.62, 0.24))
        _lines(axes, means, data, what)
        title = (
            f"SYNTHETIC: the sandbox planet at shift {self.shift:.2f}, task {self.task}, "
            f"chip {self.chip}"
        )
        figure.suptitle(title, fontsize=12, y=0.99)
        alt = (
            f"{title}. A chip of each climate in true colour with its labels, and below the mean "
            f"spectrum of {what} in {len(means)} climates ({', '.join(means)}). The climates are "
            f"farthest apart in {data.bands[widest]}: {apart[widest]:.3f} in reflectance."
        )
        return figure, alt

    def controls(self, **look: Any) -> dict[str, Any]:  # noqa: ANN401 - ipywidgets has no types
        """Return a control each for shift, chip and task."""
        import ipywidgets as widgets

        return {
            "shift": widgets.FloatSlider(
                self.shift, min=0, max=1, step=0.05, description="Shift:",
                continuous_update=False, **look,
            ),
            "chip": widgets.IntSlider(
                self.chip, min=0, max=CHIPS - 1, description="Chip:", **look,
                continuous_update=False,
            ),
            "task": widgets.Dropdown(
                options=list(TASKS), value=self.task, description="Task:", **look,
            ),
        }  # fmt: skip


def _picture(axes: Axes, sample: Sample, data: GeoData) -> None:
    """Draw a chip in true colour, alike for every chip of the planet."""
    rgb = sample["image"][band_indices(["RED", "GREEN", "BLUE"], data.bands)].movedim(0, -1)
    axes.imshow((rgb / WHITE).clip(0, 1).numpy() ** GAMMA)
    axes.set(xticks=[], yticks=[])


def _label(axes: Axes, sample: Sample, data: GeoData) -> None:
    from matplotlib.colors import ListedColormap

    colours = ListedColormap(list(data.colours)).with_extremes(under="#9A9A9A")
    axes.imshow(sample["mask"].numpy(), cmap=colours, vmin=0, vmax=len(data.classes) - 1)
    axes.set(xticks=[], yticks=[])


def _lines(axes: Axes, means: dict[str, np.ndarray], data: GeoData, what: str) -> None:
    """Draw the mean spectrum of each climate, and name climates and classes beside it."""
    from matplotlib.patches import Patch

    looks = dict(zip(data.card.regions, LOOKS, strict=True))
    for name, mean in means.items():
        colour, mark = looks[name]
        axes.plot(range(len(mean)), mean, color=colour, marker=mark, ms=5, lw=1.6, label=name)
    axes.set_xticks(range(len(data.bands)), [band.replace("_", " ") for band in data.bands])
    axes.set(ylabel="reflectance (0-1)", ylim=(0, None))
    axes.set_title(f"mean spectrum of {what} in each climate", fontsize=10, loc="left")
    axes.grid(axis="y", alpha=0.3)
    first = axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.05))
    if data.task == "segmentation":
        axes.add_artist(first)
        patches = [
            Patch(facecolor=colour, edgecolor="#555555", label=label)
            for label, colour in zip(data.classes, data.colours, strict=True)
        ]
        axes.legend(
            handles=patches, frameon=False, fontsize=8, loc="upper left",
            bbox_to_anchor=(1.2, 1.05), title="label", title_fontsize=8,
        )  # fmt: skip
