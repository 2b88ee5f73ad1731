"""Draw the loss curve of the pretraining run from its record.

python data/models/plot_loss.py
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

FOLDER = Path(__file__).parent


def main() -> None:
    """Read geopeft_tiny.json and write geopeft_tiny_loss.png beside it."""
    stages = json.loads((FOLDER / "geopeft_tiny.json").read_text())["stages"]
    figure = Figure(figsize=(6.5, 3), layout="constrained")
    axes = figure.add_subplot()
    done = 0
    for number, stage in enumerate(stages, start=1):
        steps = [done + row["step"] for row in stage["curve"]]
        losses = [row["loss"] for row in stage["curve"]]
        colour = ("#0072B2", "#D55E00")[(number - 1) % 2]
        axes.plot(steps, losses, color=colour, linewidth=1.2, label=f"stage {number}")
        done += stage["steps"]
    axes.set(
        title="Pretraining of geopeft_tiny",
        xlabel=f"step (batches of {stages[0]['batch_size']} crops)",
        ylabel="loss on hidden patches\n(standard deviations squared)",
        yscale="log",
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.3, which="both")
    figure.savefig(FOLDER / "geopeft_tiny_loss.png", dpi=100)


if __name__ == "__main__":
    main()
