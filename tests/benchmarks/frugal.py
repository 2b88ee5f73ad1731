"""Which recipe saves what? Memory, time to the same score, and the score, of each and together.

    python tests/benchmarks/frugal.py                              # geopeft_tiny on this CPU
    python tests/benchmarks/frugal.py --data hls_water --out FOLDER
    python tests/benchmarks/frugal.py --device cuda --data sandbox --model prithvi_eo_v2_300

Prints Markdown, in three parts:

- search: each method's learning rate, late LoRA's too, is chosen from one grid by the validation
  loss, with a seed of its own, as arXiv 2504.17397 searched one for each method. Without this part
  each method has its default rate.
- train: bytes that a training step keeps, measured (`measure_memory`); then each row is trained
  with each seed. The score to reach is the best validation score of full fine-tuning with the worst
  of the seeds, so full fine-tuning reaches it with all. A row that has done as many epochs goes on
  until it has taken as many seconds; what has not reached the score by then has not reached it.
  "map" is the time of mapping the test chips on the CPU. The depth of "shallow" is found by CKA.
  Scores home and away are those of the weights with the best validation score. Seconds include
  validation and the filling of the cache.
- plans: the same for memory at the sizes of published models, by `memory_plan`.

On a CPU seconds are processor seconds on one thread; on a GPU they are wall seconds, the copy of
the best weights to the computer's memory included, and products in float32 are not rounded to TF32.
bf16 is quick on GPUs from Ampere on and on processors with AVX512_BF16 or AMX, and slow on others.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.training.recorder import Diverged

MIB = 2**20
MOST_EPOCHS = 100  # as in the protocol of arXiv 2504.17397
RATES = (2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
PLANNED = [
    (name, size) for name in ("prithvi_eo_v1_100", "prithvi_eo_v2_300") for size in (224, 512)
]


@dataclass(frozen=True)
class Row:
    """What is compared."""

    method: str
    frugal: tuple[str, ...] = ()
    precision: str = "fp32"
    options: Mapping[str, str] = field(default_factory=dict)
    augment: bool = True

    @property
    def family(self) -> str:
        """What shares a learning rate with it: recipes but "late" train the same weights."""
        words = [self.method, *self.options.values()]
        return ", ".join(words + ["late"] * bool({"late", "all"} & set(self.frugal)))


FULL = "full fine-tuning"
LATE = ("late", "recompute")
CACHED = (*LATE, "cached")
FC1 = {"preset": "fc1"}
ROWS = {
    FULL: Row("full"),
    "full, checkpoint": Row("full", ("checkpoint",)),
    "full, bf16": Row("full", precision="bf16"),
    "LoRA": Row("lora"),
    "LoRA, recompute": Row("lora", ("recompute",)),
    "LoRA, checkpoint": Row("lora", ("checkpoint",)),
    "LoRA, late, recompute": Row("lora", LATE),
    "LoRA, late, recompute, cached": Row("lora", CACHED),
    "LoRA in bf16, recompute": Row("lora", ("recompute",), "bf16"),
    "LoRA in bf16, checkpoint": Row("lora", ("checkpoint",), "bf16"),
    "LoRA in bf16, late, recompute, cached": Row("lora", CACHED, "bf16"),
    "LoRA in bf16, all": Row("lora", ("all",), "bf16"),
    "LoRA, fc1": Row("lora", options=FC1),
    "shallow": Row("shallow"),
    "side": Row("side"),
    "side, cached": Row("side", ("cached",)),
    "side, 8bit, cached": Row("side", ("8bit", "cached")),
    "side in bf16, 8bit, cached": Row("side", ("8bit", "cached"), "bf16"),
    "side, 8bit, cached, no augmentation": Row("side", ("8bit", "cached"), augment=False),
    "linear probe, cached": Row("linear_probe", ("cached",)),
    "linear probe in bf16, cached": Row("linear_probe", ("cached",), "bf16"),
}
#: Of each family the quickest row that trains the same weights.
SEARCHED = (
    Row("full"), Row("lora"), Row("lora", CACHED), Row("lora", options=FC1), Row("shallow"),
    Row("side", ("cached",)), Row("linear_probe", ("cached",)),
)  # fmt: skip


def build(row: Row, data: GeoData, options: Any, seed: int = 0) -> Any:
    """Build a model with the row's method attached."""
    weights = None if options.weights == "none" else options.weights
    backbone = gp.load_backbone(
        options.model, weights, bands=data.bands, img_size=data.size, seed=seed
    )
    model = gp.build_model(backbone, data, decoder=options.decoder, pad=True, seed=seed)
    found = {"chips": data.train} if row.method == "shallow" else {}
    return gp.attach(model, row.method, seed=seed, **row.options, **found)


class Watch(Callback):
    """Notes when each epoch ended; ends training after so many epochs and so many seconds.

    Attributes:
        ends: Seconds from the start of training to the end of each epoch's validation.
    """

    def __init__(self, device: str, epochs: int, seconds: float) -> None:
        self.device, self.epochs, self.seconds = device, epochs, seconds
        self.ends: list[float] = []

    def now(self) -> float:
        """Read the clock."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def on_train_start(self, *_: object) -> None:
        """Start the clock, before features are cached."""
        self.start = self.now()

    def on_validation_end(self, trainer: Any, *_: object) -> None:
        """Note the time, and say when it is enough."""
        self.ends.append(self.now() - self.start)
        if len(self.ends) >= self.epochs and self.ends[-1] >= self.seconds:
            trainer.should_stop = True


def search(data: GeoData, options: Any) -> dict[str, float]:
    """Choose each family's learning rate; print what each came to, and return the best."""
    lines, best = [], {}
    families = {ROWS[label].family for label in options.rows}
    for row in (row for row in SEARCHED if row.family in families):
        losses = {}
        for rate in RATES:
            model = build(row, data, options, options.seeds)
            try:
                run = gp.fit(
                    model, data, options.epochs, options.batch, lr=rate, seed=options.seeds,
                    frugal=row.frugal, precision="fp32", device=options.device, dashboard=False,
                )  # fmt: skip
                losses[rate] = float(run.history["val_loss"].min())
            except Diverged:
                losses[rate] = math.inf
        best[row.family] = min(losses, key=losses.__getitem__)
        cells = {f"{rate:g}": f"{loss:.4f}" for rate, loss in losses.items()}
        lines.append({"method": row.family, **cells, "chosen": f"{best[row.family]:g}"})
    print("Lowest validation loss for each learning rate:\n")
    print_table(lines)
    return best


def train(data: GeoData, options: Any, rates: Mapping[str, float]) -> pd.DataFrame:
    """Train all rows with all seeds; return a row for each run."""
    runs: list[dict[str, Any]] = []
    budget, samples = math.inf, [data.test[index] for index in range(len(data.test))]
    # Full fine-tuning comes first, with all seeds: it says what is to be reached, in which time.
    for label, seed in sorted(
        ((label, seed) for seed in range(options.seeds) for label in options.rows),
        key=lambda pair: pair[0] != FULL,
    ):
        row, model = ROWS[label], build(ROWS[label], data, options, seed)
        kept = gp.measure_memory(
            model, options.batch, data.size, row.precision, row.frugal, options.device
        )
        if label != FULL:
            budget = statistics.mean(run["ends"][-1] for run in runs if run["row"] == FULL)
        watch = Watch(options.device, options.epochs, budget)
        try:
            run = gp.fit(
                model, data, options.epochs if label == FULL else MOST_EPOCHS, options.batch,
                lr=rates.get(row.family), precision=row.precision, frugal=row.frugal, seed=seed,
                augment=row.augment, device=options.device, dashboard=False, callbacks=[watch],
            )  # fmt: skip
        except Diverged as error:
            if label == FULL:
                raise
            print(f"- {label}, seed {seed}, is left out: {error}", flush=True)
            continue
        model.to(options.device)
        score = gp.evaluate(run, data).table.groupby("role")["mIoU"].mean()
        model.cpu()
        mapped = Watch("cpu", 0, 0.0)
        mapped.on_train_start()
        model.predict(samples, options.batch)
        runs.append({
            "row": label, "seed": seed, "lr": run.settings["lr"], "kept": kept.total,
            "peak": kept.peak, "ends": watch.ends, "map": mapped.now() - mapped.start,
            "home": score["home"], "away": score["away"],
            "scores": run.history.iloc[:, -1].dropna().round(4).tolist(),
        })  # fmt: skip
        print(f"{label}, seed {seed}: {runs[-1]['scores']}", file=sys.stderr, flush=True)
        store(pd.DataFrame(runs), options.out, "train")
    return pd.DataFrame(runs)


def print_training(runs: pd.DataFrame) -> None:
    """Print what README shows: bytes and seconds in percent of full fine-tuning, and scores."""
    goal = min(max(scores) for scores in runs.loc[runs["row"] == FULL, "scores"])
    # The epoch in which a run reached the score; NaN if it never did.
    runs["to score"] = [
        next((end for end, score in zip(*pair, strict=True) if score >= goal), math.nan)
        for pair in zip(runs["ends"], runs["scores"], strict=True)
    ]
    runs["later epoch"] = [(ends[-1] - ends[0]) / max(1, len(ends) - 1) for ends in runs["ends"]]
    groups = runs.groupby("row", sort=False)
    measured = ["kept", "later epoch", "to score", "map"]
    shares = 100 * groups[measured].mean() / groups[measured].mean().loc[FULL]
    print(f"\nIn % of full fine-tuning; the score is a validation mIoU of {goal:.4f}:\n")
    print_table([
        {
            "row": label, "rate": f"{group['lr'].iloc[0]:g}",
            **{name: f"{shares.loc[label, name]:.0f}" for name in measured},
            "reached": f"{group['to score'].notna().sum()} of {len(group)}",
            **{x: f"{group[x].mean():.3f} ± {group[x].std():.3f}" for x in ("home", "away")},
        }
        for label, group in groups
    ])  # fmt: skip


def plans(options: Any) -> None:
    """Print and store the planned bytes of all rows for models of published size."""
    data, lines = gp.load_data(options.data), []
    for name, size in PLANNED:
        whole = 0
        for label, row in ((label, ROWS[label]) for label in options.rows):
            if row.method == "shallow":
                continue  # its depth is found with weights
            with torch.device("meta"):
                backbone = gp.load_backbone(name, None, bands=data.bands, img_size=size)
                model = gp.build_model(
                    backbone, data, decoder=options.decoder, pad=True, metadata=False
                )
                gp.attach(model, row.method, **row.options)
            plan = gp.memory_plan(
                model, options.batch, size, row.precision, row.frugal, options.device
            )
            whole = whole or plan.total
            lines.append({
                "model": name, "px": str(size), "row": label, "MiB": f"{plan.total / MIB:,.0f}",
                "% of full": f"{100 * plan.total / whole:.0f}", "peak": f"{plan.peak / MIB:,.0f}",
            })  # fmt: skip
    print(f"Planned for {options.batch} chips, {options.decoder} decoder:\n")
    print_table(lines)
    store(pd.DataFrame(lines), options.out, "plans")


def store(table: pd.DataFrame, folder: Path | None, name: str) -> None:
    """Write a CSV, if a folder is given; of training after each run, so that none is lost."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / f"{name}.csv", index=False)


def print_table(rows: list[dict[str, str]]) -> None:
    """Print rows in Markdown."""
    for cells in (rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows)):
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parts = ["search", "train", "plans"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--data", default="scenes", help="or sandbox, which has chips of any size")
    parser.add_argument("--size", type=int, help="pixels; those of the data")
    parser.add_argument("--model", default="geopeft_tiny")
    parser.add_argument("--weights", default="pretrained", help="pretrained, none or a path")
    parser.add_argument("--decoder", default="linear")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for the numbers as CSV")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    if {"search", "train"} & set(options.parts):
        data = gp.load_data(options.data, size=options.size)
        rates = search(data, options) if "search" in options.parts else {}
        if "train" in options.parts:
            print_training(train(data, options, rates))
    if "plans" in options.parts:
        plans(options)


if __name__ == "__main__":
    main()
