"""Names of classes, regions, chips and files that are markup, mathematics, paths or no text."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from hostile_fork import Input, Room
from matplotlib.figure import Figure

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.pictures.show import image_html
from geopeft_nb.training.run import Run

NAMES = {
    "markup": '"><script>alert(1)</script><img src=x onerror=alert(1)>', "mathematics": "$\\frac{$",
    "newline": "a\n# OWNED\n- OWNED\n", "nul": "a\0b", "surrogate": "\udc80",
    "water": "\u6c34\u202e",
    "long": "w" * 50_000, "up": "../../outside/new", "percent": "%s %(a)s {0} {{7*7}}",
}  # fmt: skip
#: In place of these, refusing is as good.
EITHER = ("nul", "surrogate", "up", "long", "newline")


def named(room: Room, name: str) -> GeoData:
    """Make data in which everything that can be named is."""

    def read() -> tuple[np.ndarray, np.ndarray]:
        return np.full((6, 32, 32), 0.1, np.float32), np.eye(32, dtype=np.int64)

    data = room.warm.data

    def part(side: str, region: str) -> ChipDataset:
        where = "EPSG:32633", (500_000.0, 5e6, 500_640.0, 5_000_640.0)
        names = (f"{name} {side} {number}" for number in range(2))
        return ChipDataset([Chip(chip, region, chip, read, *where) for chip in names], classes)

    classes, home, away = (name, "other"), f"home {name}", f"away {name}"
    told = dict.fromkeys("title predicts labels licence citation homepage leaks".split(), name)
    card = replace(data.card, classes=classes, regions=(home, away), home=(home,), size=32, **told)
    sides = [part(side, home) for side in ("train", "val", "test")]
    away_too = {away: part("away", away)}
    return GeoData(*sides, away_too, card, data.bands, (home,), 32, notes=(name,))


def run_of(room: Room, name: str) -> tuple[Run, GeoData]:
    data = named(room, name)
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "linear_probe")
    facts: dict[str, Any] = {"method": "linear_probe", "data_name": data.card.name}
    facts |= {"history": pd.DataFrame(), "memory": {}, "seconds": 1.0, "best": {}}
    return Run(model, **facts, state="finished", settings={"note": name}), data


def drawn(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue().decode().split("-->", 1)[-1]


def card(room: Room, name: str) -> str:
    return str(gp.data_card(named(room, name))._repr_html_())


def report(room: Room, name: str) -> str:
    found = gp.evaluate(*run_of(room, name))
    return found._repr_html_() + drawn(found.plot())


def regions(room: Room, name: str) -> str:
    shown = gp.map_regions(*run_of(room, name))
    page = shown.page.replace("<script>", "", 1)  # the page's own
    return shown._repr_mimebundle_()["text/html"] + page + shown.widget.value


def model_card(room: Room, name: str) -> str:
    run, data = run_of(room, name)
    folder = gp.save_adapter(run, "saved", report=gp.evaluate(run, data), licence=name)
    gp.load_model(folder)
    return (folder / "model_card.md").read_text(encoding="utf-8")


def facts(room: Room, name: str) -> str:
    run, data = run_of(room, name)
    return run._repr_html_() + data._repr_html_() + run.model._repr_html_()


def trained(room: Room, name: str) -> str:
    run, data = run_of(room, name)
    return gp.fit(
        run.model, data, epochs=1, batch_size=2, dashboard="text", out="trained"
    )._repr_html_()


def terratorch(room: Room, name: str) -> str:
    run, _ = run_of(room, name)
    return str(
        gp.export_terratorch(run.model, "terratorch")
        .joinpath("config.yaml")
        .read_text(encoding="utf-8")
    )


def picture(room: Room, name: str) -> str:
    return image_html(b"", name)


#: Door -> what is made there, and how many of the names are tried.
DOORS: dict[str, tuple[Callable[[Room, str], str], int]] = {
    "data_card": (card, 5), "report": (report, 5), "map": (regions, 5),
    "model_card": (model_card, 9),
    "facts": (facts, 6), "fit": (trained, 6), "terratorch": (terratorch, 6),
    "picture": (picture, 1),
}  # fmt: skip


def shown(door: str, kind: str) -> Input:
    def call(room: Room) -> str:
        text = DOORS[door][0](room, NAMES[kind])
        return text if door == "model_card" else " ".join(text.split())  # lines matter in Markdown

    expected = "either" if kind in EITHER else "harmless"
    return Input(f"name {kind} in {door}", expected, lambda room: lambda: call(room))


INPUTS = [shown(door, kind) for door, (_, some) in DOORS.items() for kind in list(NAMES)[:some]]
