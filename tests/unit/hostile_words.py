"""Data, a run and all that shows them, under names that try to be more than words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import geopeft_nb as gp
from geopeft_nb.classroom.check import Result
from geopeft_nb.classroom.quiz import write
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.memory.plan import MemoryPlan
from geopeft_nb.pictures.show import bundle, png
from geopeft_nb.training.run import Run
from geopeft_nb.widgets.chips import WatchedChips
from geopeft_nb.widgets.controls import Panel
from geopeft_nb.widgets.live import Dashboard
from geopeft_nb.widgets.picture import draw_run

OWN = "window.owned = 1; alert(1)"
NAMES = {
    "script": f"<script>{OWN}</script>",
    "image": f"<img src=http://192.0.2.1/x onerror='{OWN}'>",
    "attribute": f'" onmouseover="{OWN}" style="position:fixed;inset:0" autofocus onfocus="{OWN}',
    "cell": f"</td></table></style></details></script><svg onload='{OWN}'>",
    "formula": r"$\frac{$",
    "heading": "a\n# heading\n\n---\n- item\n",
    "link": f"[x](javascript:{OWN}) ![x](http://192.0.2.1/x) <http://192.0.2.1> www.example.org",
    "columns": "a | b |\n|---|---|\n| `c </code><img src=x>` ``` ~~d~~ **e** __f__",
    "bidi": "\u202egpj\u2066 \u200b\x1b[31m",
    "surrogate": "\udc80\ud800",
    "long": "w" * 50_000,
    "lines": "a\n" * 5_000,
}


def data_named(name: str) -> GeoData:
    """Make data in which everything that can be named is."""

    def read() -> tuple[np.ndarray, np.ndarray]:
        return np.full((6, 32, 32), 0.1, np.float32), np.eye(32, dtype=np.int64)

    classes, home, away = (name, "other"), f"home {name}", f"away {name}"

    def part(side: str, region: str) -> ChipDataset:
        bounds = [(5e5 + n, 5e6, 500_640.0 + n, 5_000_640.0) for n in range(2)]
        chips = [
            Chip(f"{name}{side}{n}", region, f"{name} {side} {n}", read, "EPSG:32633", box)
            for n, box in enumerate(bounds)
        ]
        return ChipDataset(chips, classes)

    words = dict.fromkeys(("title", "labels", "licence", "citation", "homepage", "leaks"), name)
    card = replace(CARD, **words, classes=classes, regions=(home, away), home=(home,), size=32)
    sides = (part(side, home) for side in ("train", "val", "test"))
    held_out = {away: part("away", away)}
    return GeoData(*sides, held_out, card, CARD.bands, (home,), 32, notes=(name,))


@cache
def run_named(name: str) -> tuple[Run, GeoData]:
    data = data_named(name)
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "linear_probe")
    table, facts = pd.DataFrame(), {"note": name}
    return Run(model, "linear_probe", name, table, {}, 1.0, {}, "finished", facts), data


@cache
def report_named(name: str) -> gp.Report:
    return gp.evaluate(*run_named(name))


@cache
def map_named(name: str) -> Any:
    run, data = run_named(name)
    return gp.map_regions({name[:1000]: run}, data)  # longer texts are refused


def plan_named(name: str) -> MemoryPlan:
    columns = ("weights", "gradients", "optimiser", "activations", "total")
    table = pd.DataFrame([[1e6] * 5] * 2, index=[f"{name} a", "decoder"], columns=columns)
    return MemoryPlan(table, 10**7, name)


def live_view(name: str) -> Dashboard:
    """Return a live view that has drawn a step and its chips."""
    run, data = run_named(name)
    view = Dashboard("LoRA", 2, data=data.card.title, show=False)
    view.chips = WatchedChips(data, run.predict)
    view.chips.look()
    view.panel = Panel(SimpleNamespace())
    view.update(
        [{"step": 1, "epoch": 1, "seconds": 1.0, "lr": 0.1, "train_loss": 0.5, "memory_bytes": 1}]
    )
    return view


def figures(name: str) -> dict[str, Figure]:
    card = gp.data_card(data_named(name)).map()
    assert card is not None
    view = live_view(name)
    assert view.chips is not None
    return {
        "data_card": card,
        "report": report_named(name).plot(),
        "map": map_named(name).figure,
        "plan": plan_named(name).plot(),
        "run": draw_run(view.state, [], view.chips.shown()),
    }


def quiz(name: str) -> str:
    return write("01", [{"ask": name, "choice": [{"text": name, "why": name}]}])


#: What is made of a name, as HTML.
MAKERS: dict[str, Callable[[str], str]] = {
    "data": lambda name: run_named(name)[1]._repr_html_(),
    "run": lambda name: run_named(name)[0]._repr_html_(),
    "model": lambda name: run_named(name)[0].model._repr_html_(),
    "data_card": lambda name: gp.data_card(data_named(name))._repr_html_(),
    "report": lambda name: report_named(name)._repr_html_(),
    "table": lambda name: report_named(name).table._repr_html_(),
    "compare": lambda name: report_named(name).compare(report_named(name))._repr_html_(),
    "plan": lambda name: plan_named(name)._repr_html_(),
    "check": lambda name: Result("01/x", "not yet", name)._repr_html_(),
    "quiz": quiz,
    "picture": lambda name: bundle(png(Figure((1, 1))), name)["text/html"],
    "map": lambda name: bundle(b"", repr(map_named(name)))["text/html"],
    "page": lambda name: map_named(name).page,
    "widget": lambda name: map_named(name).widget.value,
}


def model_card(name: str, folder: Path) -> str:
    run, _ = run_named(name)
    saved = gp.save_adapter(run, folder / "saved", report_named(name), licence=name[:1000])
    return (saved / "model_card.md").read_text(encoding="utf-8")


def sent(name: str) -> str:
    """Return the words that Jupyter sends to the live view."""
    panel = live_view(name).panel
    assert panel is not None
    return str(panel.view["words"])
