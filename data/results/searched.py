"""Search each method's rate by validation loss, then train three seeds at it: `searched.csv`.

    python data/results/searched.py [scenes crops_0.25 crops_0.5 crops_1 eurosat hls_water]

Rows are written as they are known, and a second start goes on. EuroSAT needs its chips in a folder
`eurosat_ms` where this is started, HLS water its scenes (`geopeft_nb mirror`); all else ships.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch

import geopeft_nb as gp
from geopeft_nb.benchmark.grid import key_of, read_grid

HERE = Path(__file__).parent
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
#: The rate is searched with a seed of its own.
SEARCHED, SEEDS = 100, (0, 1, 2)
METHODS = [
    ("linear_probe", {}), ("ln_tuning", {}), ("bitfit", {}), ("ia3", {}), ("vpt", {"prompts": 10}),
    ("lora", {"preset": "late"}), ("lora", {"preset": "q_v"}), ("lora", {"preset": "fc1"}),
    ("lora", {}), ("dora", {}), ("adapter", {}), ("side", {}), ("full", {}),
]  # fmt: skip
DATA = {
    "scenes": ("scenes", {}),
    **{
        f"crops_{shift:g}": ("sandbox", {"task": "crops", "shift": shift, "chips": 80})
        for shift in (0.25, 0.5, 1)
    },
    "eurosat": ("eurosat", {"root": "eurosat_ms"}),
    "hls_water": ("hls_water", {}),
}


def methods_on(data: str) -> pd.DataFrame:
    """Return a row for each method, and for a UNet from scratch where pixels have labels."""
    name, options = DATA[data]
    rows = [{"backbone": "geopeft_tiny", "method": x, "options": json.dumps(y)} for x, y in METHODS]
    rows += [{"backbone": "unet", "method": "full", "options": "{}"}] * (name != "eurosat")
    decoder = "classify" if name == "eurosat" else "linear"
    return pd.DataFrame(rows).assign(
        data=name, data_options=json.dumps(options), decoder=decoder, epochs=10, batch_size=8,
        device="cpu",
    )  # fmt: skip


def main() -> None:
    """Search, choose, and train, one data set after the other."""
    parser = argparse.ArgumentParser(prog="python data/results/searched.py")
    parser.add_argument("data", nargs="*", default=[*DATA], help=", ".join(DATA))
    torch.set_num_threads(1)
    for data in parser.parse_args().data:
        methods = methods_on(data)
        grid = methods.merge(pd.DataFrame({"lr": RATES}), how="cross").assign(seed=SEARCHED)
        rows = gp.run_benchmark(grid, HERE / "rates.csv").set_index("key")
        bests = [rows.best[key_of(cell)] for cell in read_grid(grid)]
        # a rate at which training broke is a row with its error, and none to choose
        losses = [x["val_loss"] if isinstance(x, dict) else float("inf") for x in bests]
        same = ["backbone", "method", "options"]
        best = grid.loc[grid.assign(loss=losses).groupby(same).loss.idxmin()]
        chosen = best.drop(columns="seed").merge(pd.DataFrame({"seed": SEEDS}), how="cross")
        gp.run_benchmark(chosen, HERE / "searched.csv")
        print(best[[*same, "lr"]].to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
