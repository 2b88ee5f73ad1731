"""The planet's figure shows every climate, says that it is invented, and follows its sliders."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import geopeft_nb as gp
from geopeft_nb.widgets.planet import CHIPS, TASKS, Planet

CLIMATES = ("temperate", "boreal", "mediterranean", "savanna", "monsoon", "desert")


class Output:
    """Stands for a notebook's output: keeps every bundle that was displayed in it."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, str]] = []
        self.widgets: list[Any] = []

    def display(self, shown: Any, raw: bool = False, display_id: bool = False) -> Output:  # noqa: ANN401
        (self.bundles if raw else self.widgets).append(shown)
        return self

    def update(self, bundle: dict[str, str], raw: bool) -> None:
        self.bundles.append(bundle)


def widest(means: dict[str, np.ndarray]) -> float:
    """Return how far apart the climates are where they are farthest, in reflectance."""
    return float(np.ptp(np.stack(list(means.values())), axis=0).max())


@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_shows_six_climates_and_says_that_it_is_synthetic(task: str) -> None:
    figure, alt = Planet(task, shift=1.0).draw()
    assert alt.startswith("SYNTHETIC") and f"task {task}" in alt
    assert all(climate in alt for climate in CLIMATES)
    assert "SYNTHETIC" in figure.get_suptitle()
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if title in CLIMATES] == list(CLIMATES)


def test_shift_drives_the_spectra_apart() -> None:
    apart = [widest(Planet("flood", shift).spectra()) for shift in (0.0, 0.5, 1.0)]
    assert apart[0] < apart[1] < apart[2]
    assert apart[2] > 3 * apart[0]


def test_spectrum_is_the_mean_over_the_labelled_pixels_of_the_shown_chips() -> None:
    planet = Planet("flood", 0.3)
    data, climates = planet.compute()
    assert all(len(samples) == CHIPS for samples in climates.values())
    pixels = [s["image"][:, s["mask"] == data.classes.index("water")] for s in climates["desert"]]
    expected = np.concatenate([part.numpy() for part in pixels], axis=1).mean(axis=1)
    assert np.allclose(planet.spectra()["desert"], expected, atol=1e-6)


def test_climate_without_the_class_has_no_spectrum(monkeypatch: pytest.MonkeyPatch) -> None:
    planet = Planet("flood")
    _, climates = planet.compute()
    for sample in climates["boreal"]:
        sample["mask"].zero_()
    assert set(planet.spectra()) == set(CLIMATES) - {"boreal"}
    _, alt = planet.draw()
    assert "in 5 climates" in alt


def test_seed_makes_another_planet_and_the_same_seed_the_same() -> None:
    first, again, other = (Planet("burn", 1.0, seed=seed)._bundle() for seed in (0, 0, 1))
    assert first["image/png"] == again["image/png"] != other["image/png"]


def test_sliders_redraw_the_one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    output, planet = Output(), Planet("flood", 0.0)
    monkeypatch.setattr("IPython.display.display", output.display)
    planet.show()
    (box,) = output.widgets
    shift, chip, task = box.children
    shift.value, chip.value, task.value = 0.75, 3, "crops"
    assert (planet.shift, planet.chip, planet.task) == (0.75, 3, "crops")
    assert len(output.bundles) == 4  # the first picture and one for each change
    first, *_, last = output.bundles
    assert "shift 0.00" in first["text/plain"] and "shift 0.75" in last["text/plain"]
    assert "chip 3" in last["text/plain"] and "task crops" in last["text/plain"]
    assert len({bundle["image/png"] for bundle in output.bundles}) == 4


def test_redrawing_takes_less_than_a_second() -> None:
    planet = Planet("flood", 0.0)
    planet._bundle()  # imports matplotlib
    start = time.process_time()  # of this process alone: others may be busy
    planet.shift = 0.5
    planet._bundle()
    assert time.process_time() - start < 1


def test_figure_is_a_picture_with_alternative_text() -> None:
    html = Planet()._bundle()["text/html"]
    assert 'class="gp-planet" alt="SYNTHETIC' in html
    assert 'src="data:image/png;base64,' in html


def test_unknown_task_and_shift_are_refused() -> None:
    with pytest.raises(ValueError, match="flood"):
        Planet("floods")
    with pytest.raises(ValueError, match="between 0 and 1"):
        Planet(shift=1.5)


def test_every_task_of_the_sandbox_can_be_chosen() -> None:
    from geopeft_nb.datasets.sandbox import TASKS as KNOWN

    assert set(TASKS) == set(KNOWN)
    for task, shown in TASKS.items():
        assert shown is None or shown in gp.load_data("sandbox", task=task).classes
