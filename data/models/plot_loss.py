"""Draw the loss curve of the pretraining run from its record.

python data/models/plot_loss.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from matplotlib.figure import Figure

FOLDER = Path(__file__).parent


#: Column of the record -> label and colour.
CURVES = {
    "loss": ("pixels, 75 % hidden, all sources", "#0072B2"),
    "pixels 75% hidden": ("pixels, 75 % hidden, taught sources", "#D55E00"),
    "pixels 50% hidden": ("pixels, 50 % hidden, taught sources", "#E69F00"),
    "features": ("features of the teacher", "#009E73"),
}


def main() -> None:
    """Read geopeft_tiny.json and write geopeft_tiny_loss.png beside it."""
    stages = json.loads((FOLDER / "geopeft_tiny.json").read_text(encoding="utf-8"))["stages"]
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for column, (label, colour) in CURVES.items():
        done, steps, errors = 0, [], []
        for stage in stages:
            rows = [row for row in stage["curve"] if column in row]
            steps += [*(done + row["step"] for row in rows), done]
            errors += [*(row[column] for row in rows), math.nan]  # a gap between stages
            done += stage["steps"]
        axes.plot(steps, errors, color=colour, lw=1.2, label=label)
    axes.set(
        title="Pretraining of geopeft_tiny",
        xlabel="step",
        ylabel="mean squared error\n(standard deviations squared)",
        yscale="log",
    )
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.08, 1))
    axes.grid(alpha=0.3, which="both")
    figure.savefig(FOLDER / "geopeft_tiny_loss.png", dpi=100)


if __name__ == "__main__":
    main()
