"""How many more cells an hour two workers of a Dask cluster do than one: a ratio of one run.

    python tests/benchmarks/grid.py --cells 16

One thread a worker, as many cores as workers wanted; both clusters have warmed up (a worker imports
torch for its first cell) before their time is taken.
"""

import argparse
import os
import tempfile
from pathlib import Path
from time import perf_counter

os.environ |= {"OMP_NUM_THREADS": "1"}

import pandas as pd
from distributed import Client, LocalCluster

import geopeft_nb as gp


def grid_of(seeds: range) -> pd.DataFrame:
    """Return a small grid: LoRA on chips of 64 px, one epoch a seed."""
    cell = {"backbone": "geopeft_tiny", "data": "scenes", "data_options": {"size": 64}}
    cell |= {"method": "lora", "epochs": 1, "device": "cpu"}
    return pd.DataFrame([cell | {"seed": seed} for seed in seeds])


def seconds(workers: int, cells: int, folder: Path) -> float:
    """Return how long a cluster takes for its cells."""
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        gp.run_benchmark(grid_of(range(1000, 1000 + 2 * workers)), folder / "warm.csv", client)
        began = perf_counter()
        table = gp.run_benchmark(grid_of(range(cells)), folder / "out.csv", client)
        took = perf_counter() - began
    if "error" in table:
        raise RuntimeError(table["error"].dropna().iloc[0])
    return took


def main() -> None:
    """Print seconds of one and two workers, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=16)
    cells = parser.parse_args().cells
    took = {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            took[workers] = seconds(workers, cells, Path(folder))
        print(f"{workers} worker(s): {cells} cells in {took[workers]:.1f} s")
    print(f"two do {took[1] / took[2]:.2f} times the cells an hour of one")


if __name__ == "__main__":
    main()
