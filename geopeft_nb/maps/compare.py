"""Predictions on the map, region by region: at home, and where the model has never been."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geopeft_nb.errors import GeopeftError, check_name, expect
from geopeft_nb.maps.region import Regions, region_view
from geopeft_nb.pictures.show import bundle, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def map_regions(
    run_or_runs: Any,  # noqa: ANN401 (one run, several, or named ones)
    data: Any,  # noqa: ANN401 (GeoData)
    regions: Sequence[str] | str | None = None,
    interactive: bool = True,
) -> RegionMap:
    """Show image, label, prediction and where they differ, for home and hold-out regions.

    Home regions show their test chips, away regions their hold-out chips. Chips that lie on one
    pixel grid are joined into one map. Of others at most twelve are laid out side by side.

    Args:
        run_or_runs: A run of `fit`, a list of runs, or a dictionary name -> run.
        data: What `load_data` returned.
        regions: Names of the regions to show; all of them by default.
        interactive: Add the interactive map below the static figure.

    Returns:
        A map that a notebook displays; `.figure`, `.scores`, `.widget` and
        `.save(path)` give its parts.

    Raises:
        ValueError: Data for another task than segmentation, no run, a run for other classes than
            the data's, an unknown region, or a region without chips.
    """
    if data.task != "segmentation":
        raise GeopeftError(
            f"map_regions shows a class for each pixel, and {data.card.title} is for {data.task}. "
            "Use evaluate(run, data).plot() for its scores, and data.plot(sample) for single chips."
        )
    runs = _name_runs(run_or_runs)
    for name, run in runs.items():
        for kind in ("classes", "bands"):
            trained, given = tuple(getattr(run.model, kind)), tuple(getattr(data, kind))
            if trained != given:
                raise GeopeftError(
                    f"Run {name!r} was trained for the {kind} {', '.join(trained)}, but the data "
                    f"has {', '.join(given)}. Pass the data it was trained on."
                )
    known = [*data.regions, *data.holdout]
    wanted = [regions] if isinstance(regions, str) else list(known if regions is None else regions)
    if not wanted:
        raise GeopeftError(f"regions is empty; name at least one of {', '.join(known)}.")
    for region in wanted:
        check_name("region", region, known)
    views = [region_view(region, runs, data) for region in dict.fromkeys(wanted)]
    return RegionMap(tuple(views), data, interactive)


@dataclass(repr=False)
class RegionMap(Regions):
    """Maps of predictions: displayed as a static figure first, then as interactive maps.

    Attributes:
        interactive: Whether to display interactive maps too.
    """

    interactive: bool = True

    @cached_property
    def figure(self) -> Figure:
        """The static matplotlib figure."""
        from geopeft_nb.maps.figure import draw

        return draw(self)

    @cached_property
    def widget(self) -> Any:  # noqa: ANN401 (ipywidgets is imported only here)
        """The interactive maps with their controls, an ipywidgets box."""
        from geopeft_nb.maps.interactive import build

        return build(self)

    def __repr__(self) -> str:
        """Say what the figure shows, in words, also for those who cannot see it."""
        lines = [f"Maps of {self.data.card.title}: image, label, prediction and where they differ."]
        for view in self.views:
            parts = [f"{view.region} ({view.role}): {view.note}."]
            for row in self.scores[self.scores["region"] == view.region].to_dict("records"):
                text = f"{row['run']}: mIoU {row['miou']:.2f}, {row['wrong']:.1%} of pixels wrong"
                if row.get("missed", np.nan) >= 0:
                    text += f", {row['missed']:.1%} of {self.data.classes[1]} missed"
                if row.get("false_alarm", np.nan) >= 0:
                    text += f", false alarm on {row['false_alarm']:.1%} of {self.data.classes[0]}"
                parts.append(text + ".")
            lines.append(" ".join(parts))
        return "\n".join([*lines[:11], *["…"] * (len(lines) > 11)])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the static figure as a PNG file (the ending becomes .png) and return its path."""
        target = Path(path).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(png(self.figure, 100))
        return target

    def show(self) -> None:
        """Display the static figure, then the interactive maps below it."""
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)
        if self.interactive:
            if "google.colab" in sys.modules:  # Colab shows third-party widgets only if asked to
                from google.colab import output

                output.enable_custom_widget_manager()
            display(self.widget)

    def _ipython_display_(self) -> None:
        self.show()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:  # noqa: ANN401
        """Return the static figure for a saved notebook: HTML with alt text, PNG and text."""
        return bundle(png(self.figure, 100), repr(self))


def _name_runs(run_or_runs: Any) -> dict[str, Any]:  # noqa: ANN401
    """Give every run a name: its method, numbered where methods repeat."""
    if isinstance(run_or_runs, Mapping):
        runs = {str(name): run for name, run in run_or_runs.items()}
    else:
        runs = {}
        for run in run_or_runs if isinstance(run_or_runs, list | tuple) else [run_or_runs]:
            name = str(getattr(run, "method", "")).replace("_", " ")
            same = sum(known.partition(" (")[0] == name for known in runs)
            runs[f"{name} ({same + 1})" if same else name] = run
    if not runs:
        raise GeopeftError("map_regions got no run; pass what fit returned, or a list of such.")
    for run in runs.values():
        expect(run, "predict", "what fit returned, or a list or dictionary of such runs")
    return runs
