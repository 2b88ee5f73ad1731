"""Names that are markup, mathematics, paths or no text, where they are written to files.

How they are shown is tested in test_hostile_words.
"""

from collections.abc import Callable
from pathlib import Path

from hostile_fork import Input
from hostile_words import NAMES as SHOWN, model_card, run_named

import geopeft_nb as gp

NAMES = SHOWN | {
    "newline": "a\n# OWNED\n- OWNED\n", "nul": "a\0b", "up": "../../outside/new",
    "percent": "%s %(a)s {0} {{7*7}}",
}  # fmt: skip
#: In place of these, refusing is as good.
EITHER = ("nul", "surrogate", "up", "long", "lines", "heading", "newline")


def trained(name: str, folder: Path) -> str:
    run, data = run_named(name)
    options = {"epochs": 1, "batch_size": 2, "dashboard": "text", "out": folder / "trained"}
    return str(gp.fit(run.model, data, **options)._repr_html_())


def terratorch(name: str, folder: Path) -> str:
    made = gp.export_terratorch(run_named(name)[0].model, folder / "terratorch")
    return (made / "config.yaml").read_text(encoding="utf-8")


DOORS: dict[str, Callable[[str, Path], str]] = {
    "model_card": model_card, "fit": trained, "terratorch": terratorch,
}  # fmt: skip


def written(door: str, kind: str) -> Input:
    expected = "either" if kind in EITHER else "harmless"
    call = DOORS[door]
    return Input(
        f"name {kind} in {door}", expected, lambda room: lambda: call(NAMES[kind], room.inside)
    )


INPUTS = [written(door, kind) for door in DOORS for kind in NAMES]
