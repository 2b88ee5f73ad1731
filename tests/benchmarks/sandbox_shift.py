"""Does shift do what it says? Train in one climate, test at home and in the other five.

    python tests/benchmarks/sandbox_shift.py --tasks flood burn crops landcover multilabel

Home is the first region; each seed draws another planet, other random weights and another order of
the chips. Scores are mIoU (multilabel: mean F1) in points, 0-100.
"""

from __future__ import annotations

import argparse
import time

import pandas as pd
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.sandbox.load import TASKS


def score(task: str, shift: float, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train once and return the score in each region, in points."""
    data = gp.load_data("sandbox", task=task, shift=shift, chips=options.chips, seed=seed)
    backbone = gp.load_backbone("geopeft_tiny", bands=data.bands, seed=seed)
    decoder = "classify" if data.task == "multilabel" else "linear"
    model = gp.build_model(backbone, data, decoder=decoder, seed=seed)
    gp.attach(model, options.method, seed=seed)
    run = gp.fit(model, data, epochs=options.epochs, seed=seed, device="cpu", dashboard=False)
    report = gp.evaluate(run, data)
    found = 100 * report.table[report.score]
    home = str(report.table.index[report.table["role"] == "home"][0])
    away = found.drop(home)
    row = {"home": found[home], "away": away.mean(), "difference": away.mean() - found[home]}
    return {**row, **away.to_dict(), "seconds": run.seconds}


def chips_per_second(task: str, chips: int = 80) -> float:
    """Make chips of 64 x 64 pixels of all six climates, read each once, and return how many."""
    data = gp.load_data("sandbox", task=task, chips=chips)
    start = time.perf_counter()
    made = sum(1 for part in data.parts.values() for index in range(len(part)) if part[index])
    return made / (time.perf_counter() - start)


def main() -> None:
    """Print one row per task, shift and seed, then the mean over the seeds in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--shifts", nargs="+", type=float, default=[0.0, 1.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--chips", type=int, default=160)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for task in options.tasks:
        print(f"{task}: {chips_per_second(task):.0f} chips a second on this core", flush=True)
        for shift in options.shifts:
            for seed in options.seeds:
                found = score(task, shift, seed, options)
                rows.append({"task": task, "shift": shift, "seed": seed, **found})
                shown = " ".join(f"{name} {value:.1f}" for name, value in found.items())
                print(f"{task} shift {shift:g} seed {seed}: {shown}", flush=True)
    table = pd.DataFrame(rows).drop(columns="seed").groupby(["task", "shift"], sort=False)
    mean, worst = table.mean(), table["difference"].agg(["min", "max"])
    columns = list(mean.columns)
    print("\n| task | shift | " + " | ".join(columns) + " | difference, lowest to highest |")
    print("|---" * (len(columns) + 3) + "|")
    for (task, shift), row in mean.iterrows():
        cells = " | ".join(f"{row[column]:.1f}" for column in columns)
        low, high = worst.loc[(task, shift)]
        print(f"| {task} | {shift:g} | {cells} | {low:.1f} to {high:.1f} |")


if __name__ == "__main__":
    main()
