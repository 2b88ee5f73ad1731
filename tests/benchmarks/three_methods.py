"""The README's table: three methods and training from scratch, home and away, over seeds.

    python tests/benchmarks/three_methods.py scenes --epochs 10
    GEOPEFT_MIRROR=... python tests/benchmarks/three_methods.py hls_water --epochs 12
    python tests/benchmarks/three_methods.py scenes --methods vpt adapter vit_adapter

The split into train, validation and test is the same for all; a seed changes the random weights,
the order of the chips and the augmentation. Seconds are only comparable within one run.
"""

import argparse

import numpy as np
import pandas as pd
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.tasks import confusion, mean_iou

#: Label -> (method to attach, weights of the backbone).
ROWS = {
    "linear probe": ("linear_probe", "pretrained"),
    "LoRA": ("lora", "pretrained"),
    "full fine-tuning": ("full", "pretrained"),
    "same network from random initialisation": ("full", None),
}


def water_index_rows(data: GeoData) -> dict[str, float]:
    """Return the mIoU home and away of one MNDWI threshold, chosen on the training chips."""
    green, swir = data.bands.index("GREEN"), data.bands.index("SWIR_1")

    def score(dataset: ChipDataset, threshold: float) -> float:
        total = np.zeros((2, 2), dtype=np.int64)
        for sample in dataset:
            g, s = sample["image"][green], sample["image"][swir]
            predicted = ((g - s) / (g + s + 1e-6) > threshold).numpy()
            total += confusion(sample["mask"].numpy(), predicted, 2, data.ignore_index)
        return float(mean_iou(total))

    best = max(np.linspace(-0.5, 0.9, 71), key=lambda value: score(data.train, value))
    (away,) = data.holdout.values()
    return {"threshold": best, "home": score(data.test, best), "away": score(away, best)}


def main() -> None:
    """Run all rows and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["scenes", "hls_water"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--methods", nargs="+", choices=list(gp.list_methods().index), metavar="METHOD"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = gp.load_data(options.data)
    print(data)
    print("one MNDWI threshold:", water_index_rows(data), flush=True)
    results = []
    rows = ROWS
    if options.methods:
        rows = {str(gp.list_methods().loc[m, "title"]): (m, "pretrained") for m in options.methods}
    for label, (method, weights) in rows.items():
        for seed in range(options.seeds):
            backbone = gp.load_backbone("geopeft_tiny", weights=weights, seed=seed)
            model = gp.attach(gp.build_model(backbone, data, seed=seed), method, seed=seed)
            run = gp.fit(model, data, epochs=options.epochs, seed=seed, dashboard=False)
            score = gp.evaluate(run, data).table.groupby("role")["mIoU"].mean()
            trained = gp.parameter_table(model).loc["total", "trainable"]
            row = {
                "method": label,
                "trained": trained,
                "home": score["home"],
                "away": score["away"],
            }
            results.append({**row, "seconds": run.seconds, "MB": run.memory["total"] / 1e6})
            print({key: round(v, 3) if key != "method" else v for key, v in results[-1].items()})
    groups = pd.DataFrame(results).groupby("method", sort=False)
    mean, spread = groups.mean(), groups.std()
    print("\n| method | trained weights | step memory (MB) | mIoU home | mIoU away |")
    print("|---|---|---|---|---|")
    for label in rows:
        cells = [f"{mean.loc[label, k]:.3f} ± {spread.loc[label, k]:.3f}" for k in ("home", "away")]
        counted = f"{mean.loc[label, 'trained']:,.0f} | {mean.loc[label, 'MB']:.0f}"
        print(f"| {label} | {counted} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
