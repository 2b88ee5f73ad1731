"""Predictions on the map, region by region: at home, and where the model has never been."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geopeft_nb.errors import GeopeftError, check_name
from geopeft_nb.evaluation.trust import check_judged
from geopeft_nb.maps.region import Regions, region_view
from geopeft_nb.pictures.show import bundle, png, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geopeft_nb.datasets.geodata import GeoData
    from geopeft_nb.evaluation.regions import RunOrModel
    from geopeft_nb.models import SegmentationModel


def map_regions(
    run_or_runs: RunOrModel | Sequence[RunOrModel] | Mapping[str, RunOrModel],
    data: GeoData,
    regions: Sequence[str] = (),
) -> RegionMap:
    """Show image, label, prediction and where they differ, for home and hold-out regions.

    Home regions show their test chips, away regions their hold-out chips. Chips that lie on one
    pixel grid are joined into one map. Of others at most twelve, evenly spread, are laid out side
    by side. The map is drawn when it is displayed, or when `.figure` or `.widget` is asked for.

    Args:
        run_or_runs: A run of `fit` or a model, a list of them, or a dictionary name -> run.
        data: What `load_data` returned.
        regions: Names of the regions to show; all of them by default.

    Returns:
        A map that a notebook displays; `.figure`, `.scores`, `.widget` and
        `.save(path)` give its parts.

    Raises:
        ValueError: Data for another task than segmentation, no run, a run that `evaluate` would
            not judge on these data, an unknown region, or a region without chips.
    """
    if data.task != "segmentation":
        raise GeopeftError(
            f"A map shows a class for each pixel, and {data.card.title} is for {data.task}; see "
            "evaluate(run, data).plot()."
        )
    runs = _name_runs(run_or_runs)
    if not runs:
        raise GeopeftError("A map shows at least one run of fit, and got none.")
    parts = data.judged
    for model in runs.values():
        check_judged(model, data, parts)
    for region in regions:
        check_name("region", region, parts)
    views = [region_view(region, parts[region], runs, data) for region in regions or parts]
    return RegionMap(tuple(views), data)


class RegionMap(Regions):
    """Maps of predictions: displayed as a static figure first, then as interactive maps."""

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
            scores = self.scores[self.scores["region"] == view.region].to_dict("records")
            said = [f"{x['run']}: mIoU {x['miou']:.2f}, {x['wrong']:.1%} wrong." for x in scores]
            lines.append(
                " ".join([f"{view.region} ({view.role}): {view.chips} {view.grid.extent}.", *said])
            )
        return visible("\n".join([*lines[:11], *["…"] * (len(lines) > 11)]))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the static figure as a PNG file and return its path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(png(self.figure, 100))
        return target

    def _ipython_display_(self) -> None:
        """Display the static figure, then the interactive maps below it."""
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)
        if "google.colab" in sys.modules:  # Colab shows third-party widgets only if asked to
            from google.colab import output

            output.enable_custom_widget_manager()
        display(self.widget)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:  # noqa: ANN401
        """Return the static figure for a saved notebook: HTML with alt text, PNG and text."""
        return bundle(png(self.figure, 100), repr(self))


def _name_runs(run_or_runs: Any) -> dict[str, SegmentationModel]:  # noqa: ANN401 (one, several)
    """Give the model of every run a name: its method, and several in a list a number."""
    named, listed = isinstance(run_or_runs, Mapping), isinstance(run_or_runs, list | tuple)
    runs = list(run_or_runs.values() if named else run_or_runs if listed else [run_or_runs])
    models = [getattr(run, "model", run) for run in runs]
    if named:
        return dict(zip(map(visible, run_or_runs), models, strict=True))
    return {f"{x.method} {i}" if listed else x.method: x for i, x in enumerate(models, 1)}
