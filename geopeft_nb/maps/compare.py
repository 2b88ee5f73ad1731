"""Predictions on the map, region by region: at home, and where the model has never been."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geopeft_nb.datasets.pictures import COMPOSITES
from geopeft_nb.errors import GeopeftError, check_name, whole
from geopeft_nb.evaluation.metrics import confusion, mean_iou
from geopeft_nb.maps.region import RegionView, region_view
from geopeft_nb.pictures.show import bundle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def map_regions(
    run_or_runs: Any,  # noqa: ANN401 (one run, several, or named ones)
    data: Any,  # noqa: ANN401 (GeoData)
    regions: Sequence[str] | str | None = None,
    interactive: bool = True,
    chips: int = 12,
    composite: str = "true_colour",
) -> RegionMap:
    """Show image, label, prediction and where they differ, for home and hold-out regions.

    Home regions show their test chips, away regions their hold-out chips. Chips that lie on one
    pixel grid are joined into one map. Chips without coordinates are laid out side by side.

    Args:
        run_or_runs: A run of `fit`, a list of runs, or a dictionary name -> run.
        data: What `load_data` returned.
        regions: Names of the regions to show; all of them by default.
        interactive: Add the interactive map below the static figure.
        chips: Show at most this many chips of a region whose chips cannot be joined.
        composite: ``"true_colour"`` or ``"false_colour"`` (SWIR 1, near infrared, red: open water
            is nearly black, plants are green).

    Returns:
        A map that a notebook displays; `.figure`, `.scores`, `.widget` and
        `.save(path)` give its parts.

    Raises:
        ValueError: Data for another task than segmentation, no run, a run for other classes than
            the data's, an unknown region or composite, a region without chips, or bands that the
            composite needs are missing.
    """
    if (task := getattr(data, "task", "segmentation")) != "segmentation":
        raise GeopeftError(
            f"map_regions shows a class for each pixel, and {data.card.title} is for {task}. Use "
            "evaluate(run, data).plot() for its scores, and data.plot(sample) for single chips."
        )
    runs = _name_runs(run_or_runs)
    for name, run in runs.items():
        _check_run(name, run, data)
    whole("chips", chips)
    check_name("composite", composite, COMPOSITES)
    known = [*data.regions, *data.holdout]
    wanted = [regions] if isinstance(regions, str) else list(known if regions is None else regions)
    if not wanted:
        raise GeopeftError(f"regions is empty; name at least one of {', '.join(known)}.")
    for region in wanted:
        check_name("region", region, known)
    views = [region_view(region, runs, data, chips, composite) for region in dict.fromkeys(wanted)]
    return RegionMap(views, data, interactive)


class RegionMap:
    """Maps of predictions: displayed as a static figure first, then as interactive maps.

    Attributes:
        views: One `RegionView` per region.
        classes: Class names.
        colours: Colour ``"#rrggbb"`` per class.
        ignore_index: Label value that means "no label".
        title: Title of the data set.
        interactive: Whether to display interactive maps too.
    """

    def __init__(self, views: Sequence[RegionView], data: Any, interactive: bool = True) -> None:  # noqa: ANN401
        """Keep what is to be shown; figure and widget are made when first asked for."""
        self.views = tuple(views)
        self.classes: tuple[str, ...] = tuple(data.classes)
        self.colours: tuple[str, ...] = tuple(data.colours)
        self.ignore_index = int(data.ignore_index)
        self.title = str(getattr(getattr(data, "card", None), "title", "") or "the data")
        self.interactive = interactive

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Scores of the shown pixels: a row per region and run.

        `miou` is the mean intersection over union of the classes that label or prediction hold.
        With two classes, `missed` is the share of the second class that was not found, and
        `false_alarm` the share of the first class that was taken for the second; NaN where there
        are no labelled pixels.
        """
        import pandas as pd

        rows = []
        for view in self.views:
            scored = np.where(view.valid, view.label, self.ignore_index)
            for name, prediction in view.predictions.items():
                counts = confusion(scored, prediction, len(self.classes), self.ignore_index)
                truth, found = counts.sum(axis=1), np.diag(counts)
                row: dict[str, Any] = {"region": view.region, "role": view.role, "run": name}
                row["miou"] = float(mean_iou(counts))
                with np.errstate(invalid="ignore"):  # a class without labelled pixels gives NaN
                    row["wrong"] = 1 - found.sum() / truth.sum()
                    if len(self.classes) == 2:
                        row["false_alarm"], row["missed"] = 1 - found / truth
                rows.append(row)
        return pd.DataFrame(rows)

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

    @property
    def alt(self) -> str:
        """What the figure shows, in words, for those who cannot see it."""
        parts = [f"Maps of {self.title}: image, label, prediction and where they differ."]
        for view in self.views:
            parts.append(f"{view.region} ({view.role}): {view.note}.")
            for row in self.scores[self.scores["region"] == view.region].to_dict("records"):
                text = f"{row['run']}: mIoU {row['miou']:.2f}, {row['wrong']:.1%} of pixels wrong"
                if row.get("missed", np.nan) >= 0:
                    text += f", {row['missed']:.1%} of {self.classes[1]} missed"
                if row.get("false_alarm", np.nan) >= 0:
                    text += f", false alarm on {row['false_alarm']:.1%} of {self.classes[0]}"
                parts.append(text + ".")
        return " ".join(parts)

    @cached_property
    def png(self) -> bytes:
        """The static figure as a PNG file."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the static figure as a PNG file (the ending becomes .png) and return its path."""
        return _write(Path(path).with_suffix(".png"), self.png)

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
        return bundle(self.png, self.alt)


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # gone already, unless something failed
    return path


def _name_runs(run_or_runs: Any) -> dict[str, Any]:  # noqa: ANN401
    """Give every run a name: its method, numbered where methods repeat."""
    if isinstance(run_or_runs, Mapping):
        runs = {str(name): run for name, run in run_or_runs.items()}
    else:
        runs = {}
        several = isinstance(run_or_runs, Sequence) and not isinstance(run_or_runs, str)
        for run in run_or_runs if several else [run_or_runs]:
            method = str(getattr(run, "method", "run")).replace("_", " ")
            same = sum(name == method or name.startswith(f"{method} (") for name in runs)
            runs[f"{method} ({same + 1})" if same else method] = run
    if not runs:
        raise GeopeftError(
            "map_regions got no run; pass what fit returned, or a list of such runs."
        )
    return runs


def _check_run(name: str, run: Any, data: Any) -> None:  # noqa: ANN401
    """Refuse what cannot predict, or was trained for other classes or bands than the data's."""
    if not callable(getattr(run, "predict", None)):
        raise GeopeftError(
            f"{name!r} is a {type(run).__name__} without predict(samples); pass what fit returned."
        )
    for kind in ("classes", "bands"):
        trained = getattr(getattr(run, "model", None), kind, None)
        given = tuple(getattr(data, kind))
        if trained is not None and tuple(trained) != given:
            raise GeopeftError(
                f"Run {name!r} was trained for the {kind} {', '.join(trained)}, but the data has "
                f"{', '.join(given)}. Pass the data it was trained on."
            )
