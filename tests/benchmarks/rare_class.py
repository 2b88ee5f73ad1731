"""What losses and weights do for a class in 1 % of the pixels: the README's table.

    python tests/benchmarks/rare_class.py

The class is a diagonal one pixel wide, at the same place of every chip (31 of 4,096 pixels) and not
to be seen in the image, as in labels that are as thin as they are hard.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD

CHOICES: dict[str, dict[str, object]] = {
    "cross-entropy": {},
    'class_weights="balanced"': {"class_weights": "balanced"},
    'loss="dice"': {"loss": "dice"},
    'loss="focal"': {"loss": "focal"},
}
CLASSES, PIXELS = ("land", "line"), 64
LINE = (np.add.outer(np.arange(PIXELS), np.arange(PIXELS)) % 97 == 0).astype(np.int64)


def chips(side: str, count: int, seed: int) -> ChipDataset:
    """Make chips of another brightness each, with a little noise."""

    def chip(index: int) -> Chip:
        rng = np.random.default_rng([seed, index])
        image = rng.uniform(0.03, 0.3, (6, 1, 1)) + rng.normal(0, 0.01, (6, PIXELS, PIXELS))
        pair = image.astype(np.float32), LINE
        return Chip(f"{side}-{index}", "virginia", f"{side}{index}", lambda: pair)

    return ChipDataset([chip(index) for index in range(count)], CLASSES, -1)


def main() -> None:
    """Train three seeds of each, print IoU as mean ± standard deviation."""
    parts = chips("train", 12, 0), chips("val", 4, 1), chips("test", 4, 2)
    card = replace(CARD, classes=CLASSES)
    data = GeoData(*parts, {}, card, CARD.bands, ("virginia",), PIXELS)
    rows = []
    for seed in range(3):
        for name, options in CHOICES.items():
            backbone = gp.load_backbone("geopeft_tiny")
            model = gp.attach(gp.build_model(backbone, data, "unet", seed=seed), "lora")
            run = gp.fit(model, data, 15, 4, seed=seed, augment=False, dashboard=False, **options)
            scores = gp.evaluate(run, data).table.loc["virginia", ["IoU line", "IoU land"]]
            rows.append({"choice": name, **scores})
            print(seed, rows[-1], flush=True)
    print(pd.DataFrame(rows).groupby("choice").agg(["mean", "std"]).round(3).to_string())


if __name__ == "__main__":
    main()
