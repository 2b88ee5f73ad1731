"""Run a grid: one fit and evaluation a cell, and a row of results as soon as it is known."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from geopeft_nb.benchmark.grid import (
    FITTED,
    Cell,
    build,
    build_dry,
    key_of,
    read_grid,
    read_table,
    value_of,
)
from geopeft_nb.datasets.load import load_data
from geopeft_nb.errors import GeopeftError
from geopeft_nb.evaluation.compare import compare
from geopeft_nb.evaluation.regions import evaluate
from geopeft_nb.files import named_path
from geopeft_nb.training.fit import fit
from geopeft_nb.tuning.methods import parameter_table
from geopeft_nb.writing import held, written_beside

if TYPE_CHECKING:
    from concurrent.futures import Executor


def run_benchmark(
    grid: str | os.PathLike[str] | pd.DataFrame, out: str | os.PathLike[str] | None = None,
    executor: Executor | None = None, dry_run: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Train and judge every cell of a grid; what is done already is never done again.

    Args:
        grid: A table, its CSV file, or ``"paper"``; see `geopeft_nb.benchmark.grid` for columns.
        out: CSV file of the results. A row is written as soon as its cell is done; cells that it
            has are left out. One that failed is a row with its `error`: remove the row to try anew.
        executor: Where cells run, several at once: any of `concurrent.futures` (of processes: seeds
            and signals are not kept apart in threads), or a `dask.distributed.Client`, which has
            another worker repeat the cell of one that died.
        dry_run: Train nothing: build each cell without weights and data, and count its weights.

    Returns:
        The rows of `out`: the cell's columns, home and away score with 95 % intervals over places,
        all regions (JSON), trained weights, bytes that are kept, the measured peak, seconds,
        epochs, versions, device, and what there is to say. Or of a dry run: cells and weights.

    Raises:
        ValueError: A grid that cannot be read, or no `out`.
        OSError: `out` cannot be written.
        BrokenExecutor: A process of a pool died; finished rows are kept, start again.
    """
    cells = read_grid(grid)
    if dry_run:
        return pd.DataFrame([_counted(cell) for cell in cells])
    if out is None:
        raise GeopeftError("run_benchmark needs out, the CSV file of the results.")
    path = named_path(out, "out").resolve()
    with held(path):
        rows = _read(path) if path.exists() else []
        done = {row["key"] for row in rows}
        todo = [cell for cell in cells if key_of(cell) not in done]
        found, before = _results(todo, executor), len(cells) - len(todo)
        for row in tqdm(found, path.name, len(cells), initial=before, unit="cell"):
            rows.append(row)
            with written_beside(path) as new:
                pd.DataFrame([_written(row) for row in rows]).to_csv(new, index=False)
    return pd.DataFrame(rows)


def _read(path: Path) -> list[dict[str, Any]]:
    """Read rows of results; any other file is refused, so that it is never replaced."""
    table = read_table(path)
    if not {"key", "backbone", "method"} <= {*table}:
        raise GeopeftError(f"{path} holds no results of run_benchmark. Name another out.")
    return [
        {name: field if name == "key" else value_of(field) for name, field in row.items()}
        for row in table.to_dict("records")
    ]


def _counted(cell: Cell) -> dict[str, Any]:
    total = parameter_table(build_dry(cell)).loc["total"]
    return cell | {"trained weights": int(total["trainable"]), "frozen": int(total["frozen"])}


def _results(cells: list[Cell], executor: Any) -> Iterator[dict[str, Any]]:
    """Yield the row of each cell, in the order in which they end."""
    if executor is None:
        yield from map(run_cell, cells)
        return
    # Dask's own futures are not those that Python waits for, but its executor's are.
    pool = executor.get_executor() if hasattr(executor, "get_executor") else executor
    futures = {pool.submit(run_cell, cell): cell for cell in cells}
    try:
        for future in as_completed(futures):
            error = future.exception()
            # a pool of processes breaks as a whole when one dies: the rest is no failed cell
            if error and (isinstance(error, BrokenExecutor) or not isinstance(error, Exception)):
                raise error
            yield _failed(futures[future], error) if error else future.result()
    finally:
        for future in futures:
            future.cancel()


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train and judge one cell; whatever goes wrong is its row.

    Raises:
        KeyboardInterrupt: Training was stopped: that is no result.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            row = _judged(cell)
    except Exception as error:  # of any library: the next cell may work
        return _failed(cell, error)
    notes = [row["notes"], *(f"{one.message}" for one in caught if "geopeft" in one.filename)]
    return row | {"notes": " ".join(filter(None, notes))}


def _judged(cell: Cell) -> dict[str, Any]:
    data = load_data(cell["data"], **cell.get("data_options", {}))
    model = build(cell, data)
    told = {name: value for name, value in cell.items() if name in FITTED}
    run = fit(model, data, **{"dashboard": False} | told)
    if run.state == "stopped":
        raise KeyboardInterrupt
    report = evaluate(run, data)
    table = compare({run.method: report}).table.droplevel("method")
    ends: dict[str, Any] = {"score": report.score}
    for role, part in table.groupby("role", sort=False):
        last = part.iloc[-1]  # all regions of a role, if there are several
        ends |= {role: last[report.score], f"{role} low": last["low"], f"{role} high": last["high"]}
    gpu = torch.cuda.is_available() and cell.get("device") != "cpu"
    return _row(cell) | ends | {
        "regions": table[["role", "places", report.score, "low", "high"]].to_dict("index"),
        "trained weights": int(parameter_table(run.model).loc["total", "trainable"]),
        "kept": report.kept, "peak": run.memory["peak"], "seconds": round(run.seconds, 2),
        "epochs run": int(run.history["epoch"].max()), "best": run.best, "told": run.settings,
        "ran on": torch.cuda.get_device_name() if gpu else f"CPU {platform.machine()}",
        "notes": " ".join(report.notes),
    }  # fmt: skip


def _row(cell: Cell) -> dict[str, Any]:
    versions = {name: version(name) for name in ("geopeft-nb", "torch", "peft", "lightning")}
    return {"key": key_of(cell), **cell, "versions": versions | _commit()}


def _failed(cell: Cell, error: BaseException) -> dict[str, Any]:
    return _row(cell) | {"error": f"{type(error).__name__}: {error}"}


def _commit() -> dict[str, str]:
    """Return the commit of a checkout, if this is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"commit": said.stdout.strip()} if said.returncode == 0 else {}


def _written(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as fields of CSV: objects and lists as JSON."""
    return {
        name: json.dumps(value, default=str) if isinstance(value, dict | list | tuple) else value
        for name, value in row.items()
    }
