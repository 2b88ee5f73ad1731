r"""Which recipe saves what? Memory, time to the same score, and the score, of each and together.

    python tests/benchmarks/frugal.py                              # geopeft_tiny on this CPU
    python tests/benchmarks/frugal.py --data hls_water --out FOLDER
    python tests/benchmarks/frugal.py --device cuda --sizes 224 --chips 24 --weights FILE

Prints Markdown, in four parts:

- search: each method's learning rate, late LoRA's too, is chosen from one grid by the validation
  loss, with a seed of its own, as arXiv 2504.17397 searched one for each method. Without this part
  each method has its default rate.
- train: bytes that a training step keeps, measured (`measure_memory`), and those of features that
  are cached in memory; then each row is trained with each seed. The score to reach is the best
  validation score of full fine-tuning with the worst of the seeds, so full fine-tuning reaches it
  with all. A row that has done as many epochs goes on until it has taken as many seconds; what has
  not reached the score by then has not reached it. Scores home and away are those of the weights
  with the best validation score. Seconds include validation and the filling of the cache.
- turns: seconds of a training step for PEFT, bf16 and checkpointing, alone and together; every
  model takes a step in its turn, so that other work on the machine meets all alike.
- plans: the same for memory at the sizes of published models, by `memory_plan`.

The share of a factor is its part of what all three save (or cost) together: the mean over the six
orders in which they can be added, so that the shares sum to the whole (Shapley 1953). On a CPU
seconds are processor seconds on one thread; on a GPU they are wall seconds, the copy of the best
weights to the computer's memory included, and products in float32 are not rounded to TF32. bf16 is
quick on GPUs from Ampere on and on processors with AVX512_BF16 or AMX, and slow on others.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.memory.features import CachedFeatures
from geopeft_nb.memory.frugal import RECIPES, applied, normalise
from geopeft_nb.memory.plan import AUTOCAST, COLUMNS, MemoryPlan
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tasks import TASKS
from geopeft_nb.training.recorder import Diverged, Recorder

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

    @property
    def family(self) -> str:
        """What shares a learning rate with it: recipes but "late" train the same weights."""
        return self.method + (", late" if {"late", "all"} & set(self.frugal) else "")


FULL = "full fine-tuning"
CACHED = ("late", "cached_on_disk")
ROWS = {
    FULL: Row("full"),
    "full + checkpoint": Row("full", ("checkpoint",)),
    "full, bf16": Row("full", precision="bf16"),
    "LoRA": Row("lora"),
    "LoRA + recompute": Row("lora", ("recompute",)),
    "LoRA + checkpoint": Row("lora", ("checkpoint",)),
    "LoRA + bf16 weights": Row("lora", ("bf16",)),
    "LoRA + late": Row("lora", ("late",)),
    "LoRA + late + cached": Row("lora", CACHED),
    "LoRA + all": Row("lora", ("all",)),
    "LoRA, bf16": Row("lora", precision="bf16"),
    "LoRA, bf16 + checkpoint": Row("lora", ("checkpoint",), "bf16"),
    "LoRA, bf16 + late + cached": Row("lora", CACHED, "bf16"),
    "LoRA, bf16 + all": Row("lora", ("all",), "bf16"),
    "linear probe + cached": Row("linear_probe", ("cached_on_disk",)),
    "linear probe, bf16 + cached": Row("linear_probe", ("cached_on_disk",), "bf16"),
}
#: Family -> the quickest row that trains the same weights.
SEARCHED = {
    "full": Row("full"),
    "lora": Row("lora"),
    "lora, late": Row("lora", CACHED),
    "linear_probe": Row("linear_probe", ("cached_on_disk",)),
}
#: The factors of which the shares are wanted -> how each changes a row.
FACTORS: dict[str, dict[str, Any]] = {
    "PEFT": {"method": "lora"},
    "precision": {"precision": "bf16"},
    "checkpointing": {"frugal": ("checkpoint",)},
}
#: What plans show beside all combinations of the factors.
MORE = {
    "full + recompute": Row("full", ("recompute",)),
    "LoRA + bf16 weights": Row("lora", ("bf16",)),
    "LoRA + 8bit weights": Row("lora", ("8bit",)),
    "LoRA + late": Row("lora", ("late",)),
    "LoRA + all": Row("lora", ("all",)),
    "LoRA + precision + all": Row("lora", ("all",), "bf16"),
    "LoRA + precision + all, 8bit": Row("lora", ("all", "8bit"), "bf16"),
    "linear probe": Row("linear_probe"),
    "linear probe + precision": Row("linear_probe", precision="bf16"),
}


def combinations() -> dict[frozenset[str], Row]:
    """Return the row of each set of factors, from none (full fine-tuning) to all."""
    rows = {}
    for count in range(len(FACTORS) + 1):
        for chosen in itertools.combinations(FACTORS, count):
            changes = {key: value for name in chosen for key, value in FACTORS[name].items()}
            rows[frozenset(chosen)] = Row(**{"method": "full", **changes})
    return rows


def named(factors: frozenset[str]) -> str:
    """Write a set of factors in words."""
    return " + ".join(name for name in FACTORS if name in factors) or "none: " + FULL


def shares(cost: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Return each factor's part of the saving of all, in the unit of `cost`."""
    orders = list(itertools.permutations(FACTORS))
    saved = dict.fromkeys(FACTORS, 0.0)
    for order in orders:
        for place, name in enumerate(order):
            before = frozenset(order[:place])
            saved[name] += (cost[before] - cost[before | {name}]) / len(orders)
    return saved


def print_shares(cost: Mapping[frozenset[str], float], unit: str) -> None:
    """Say in a line what all factors leave, and which share each has in it."""
    whole, rest = cost[frozenset()], cost[frozenset(FACTORS)]
    parts = [f"{name} {100 * saved / whole:.1f} points" for name, saved in shares(cost).items()]
    print(
        f"\nTogether they leave {100 * rest / whole:.1f} % of {unit}. Saved, of the "
        f"{100 * (1 - rest / whole):.1f} points: {', '.join(parts)} (negative: it costs).\n",
        flush=True,
    )


def store(lines: list[dict[str, Any]], folder: Path | None, name: str) -> None:
    """Write a CSV, if a folder is given; of training after each run, so that none is lost."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(lines).to_csv(folder / f"{name}.csv", index=False)


def print_table(rows: list[dict[str, str]]) -> None:
    """Print rows in Markdown."""
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(row[column] for column in columns) + " |")
    print(flush=True)


def build(name: str, size: int, row: Row, data: GeoData, options: Any, seed: int = 0) -> Any:  # noqa: ANN401
    """Build a model with the row's method attached."""
    weights = None if options.weights == "none" else options.weights
    backbone = gp.load_backbone(name, weights, bands=data.bands, img_size=size, seed=seed)
    model = gp.build_model(backbone, data, decoder=options.decoder, pad=True, seed=seed)
    return gp.attach(model, row.method, seed=seed)


def on_meta(name: str, size: int, row: Row, data: GeoData, options: Any) -> SegmentationModel:  # noqa: ANN401
    """Build a model that takes no memory."""
    with torch.device("meta"):
        backbone = gp.load_backbone(name, None, bands=data.bands, img_size=size)
        model = gp.build_model(backbone, data, decoder=options.decoder, pad=True, metadata=False)
        return gp.attach(model, row.method)


def bytes_row(label: str, plan: Any, whole: int) -> dict[str, str]:  # noqa: ANN401
    """Return a row of bytes in MiB, of a plan or of anything with the same attributes."""
    parts = {name: f"{getattr(plan, name) / MIB:,.1f}" for name in COLUMNS}
    share = f"{100 * plan.total / whole:.1f}"
    return {"row": label, **parts, "total": f"{plan.total / MIB:,.1f}", "% of full": share}


class Watch:
    """Notes, while `fit` runs inside it, when each epoch ended with which score.

    Args:
        now: The clock.
        epochs: Epochs after which training ends, if it took so many seconds.
        seconds: These.

    Attributes:
        ends: Seconds from the start of training to the end of each epoch's validation.
        scores: Validation score of each epoch.
        cached: Bytes of cached features in memory.
    """

    def __init__(
        self, now: Callable[[], float], epochs: int = 0, seconds: float = math.inf
    ) -> None:
        self.now, self.start, self.cached = now, 0.0, 0
        self.epochs, self.seconds = epochs, seconds
        self.ends: list[float] = []
        self.scores: list[float] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the end of the `with` statement."""
        start, end, close = (
            Recorder.on_train_start,
            Recorder.on_validation_end,
            CachedFeatures.close,
        )

        def started(recorder: Recorder, *args: Any) -> None:  # noqa: ANN401
            start(recorder, *args)
            self.start = self.now()

        def ended(recorder: Recorder, trainer: Any, *args: Any) -> None:  # noqa: ANN401
            end(recorder, trainer, *args)
            self.ends.append(self.now() - self.start)
            self.scores.append(recorder.rows[-1][recorder.card.column])
            if len(self.ends) >= self.epochs and self.ends[-1] >= self.seconds:
                trainer.should_stop = True

        def closed(features: CachedFeatures) -> None:
            self.cached += features.nbytes if features.folder is None else 0
            close(features)

        with (
            patch.object(Recorder, "on_train_start", started),
            patch.object(Recorder, "on_validation_end", ended),
            patch.object(CachedFeatures, "close", closed),
        ):
            yield

    @property
    def epoch(self) -> float:
        """Seconds of an epoch after the first."""
        gaps = [b - a for a, b in itertools.pairwise(self.ends)]
        return statistics.median(gaps or self.ends)


def now_on(device: str) -> Callable[[], float]:
    """Return the clock of a device."""
    if device == "cpu":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return now


def changes_nothing(model: SegmentationModel, row: Row) -> str:
    """Say why the row computes as without its recipes; empty if it does not."""
    recipes = [RECIPES[name] for name in normalise(row.frugal, model)]
    reasons = ["" if recipe.reaches(model) else recipe.idle for recipe in recipes]
    return "; ".join(reasons) if reasons and all(reasons) else ""


def search(data: GeoData, size: int, options: Any, rows: dict[str, Row]) -> dict[str, float]:  # noqa: ANN401
    """Choose each family's learning rate; print what each came to, and return the best."""
    seed, lines, best = options.seeds, [], {}
    for family in dict.fromkeys(row.family for row in rows.values()):
        row = SEARCHED[family]
        losses = {}
        for rate in options.rates:
            model = build(options.model, size, row, data, options, seed)
            try:
                run = gp.fit(
                    model, data, options.epochs, options.batch, lr=rate, seed=seed,
                    frugal=row.frugal, precision="fp32", device=options.device,
                    dashboard=False,
                )  # fmt: skip
                losses[rate] = float(run.history["val_loss"].min())
            except Diverged:
                losses[rate] = math.inf
        best[family] = min(losses, key=losses.__getitem__)
        cells = {f"{rate:g}": f"{loss:.4f}" for rate, loss in losses.items()}
        lines.append({"method": family, **cells, "chosen": f"{best[family]:g}"})
        print(f"{family}: {lines[-1]}", file=sys.stderr, flush=True)
    print("Lowest validation loss for each learning rate:\n")
    print_table(lines)
    return best


def train(
    data: GeoData,
    size: int,
    options: Any,  # noqa: ANN401
    rows: dict[str, Row],
    rates: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Train all rows with all seeds, and return a dictionary for each run."""
    runs: list[dict[str, Any]] = []
    place = options.device
    skipped, kept, budget = set(), {}, math.inf
    # Full fine-tuning comes first, with all seeds: it says what is to be reached, in which time.
    order = [(FULL, seed) for seed in range(options.seeds)]
    order += [(label, seed) for seed in range(options.seeds) for label in rows if label != FULL]
    for label, seed in order:
        row = rows[label]
        if label in skipped:
            continue
        model = build(options.model, size, row, data, options, seed)
        if label not in kept:
            if reason := changes_nothing(model, row):
                print(f"- {label} is left out, it changes nothing: {reason}", flush=True)
                skipped.add(label)
                continue
            kept[label] = gp.measure_memory(
                model, options.batch, size, row.precision, row.frugal, device=place
            )
        if label != FULL:
            budget = statistics.mean(run["whole"] for run in runs if run["row"] == FULL)
        watch = Watch(now_on(options.device), options.epochs, budget)
        try:
            with watch.watching():
                run = gp.fit(
                    model, data, options.epochs if label == FULL else MOST_EPOCHS, options.batch,
                    lr=rates.get(row.family), precision=row.precision, frugal=row.frugal,
                    seed=seed, device=place, dashboard=False,
                )  # fmt: skip
        except Diverged as error:
            if label == FULL:
                raise
            print(f"- {label}, seed {seed}, is left out: {error}", flush=True)
            continue
        model.to(options.device)
        score = gp.evaluate(run, data).table.groupby("role")["mIoU"].mean()
        model.cpu()
        step = {name: getattr(kept[label], name) for name in (*COLUMNS, "total", "peak")}
        runs.append({
            "row": label, "size": size, "seed": seed, "lr": run.settings["lr"],
            "first": watch.ends[0], "epoch": watch.epoch, "epochs": len(watch.ends),
            "whole": watch.ends[-1], "val": max(watch.scores), "home": score["home"],
            "away": score["away"], "cached": watch.cached, **step,
            "ends": " ".join(f"{value:.2f}" for value in watch.ends),
            "scores": " ".join(f"{value:.4f}" for value in watch.scores),
        })  # fmt: skip
        print(f"{label}, seed {seed}: {runs[-1]['scores']}", file=sys.stderr, flush=True)
        store(runs, options.out, f"train_{size}")
    return runs


def reached(run: Any, score: float) -> float:  # noqa: ANN401 - a row of a table
    """Return the seconds until a run had reached a score, NaN if it did not."""
    pairs = zip(str(run["ends"]).split(), str(run["scores"]).split(), strict=True)
    return next((float(end) for end, value in pairs if float(value) >= score), math.nan)


def print_training(runs: list[dict[str, Any]]) -> None:
    """Print the tables of kept bytes and of time and score."""
    frame = pd.DataFrame(runs)
    full = frame[frame["row"] == FULL]
    whole, goal = full["total"].iloc[0], round(full["val"].min(), 4)  # as the scores are stored
    frame["seconds"] = [reached(run, goal) for _, run in frame.iterrows()]
    full = frame[frame["row"] == FULL]
    kept, timed = [], []
    for label, group in frame.groupby("row", sort=False):
        plan, cached = group.iloc[0], int(group["cached"].max())
        line = bytes_row(str(label), plan, whole)
        with_cache = 100 * (plan.total + cached) / whole
        kept.append({
            **line, "peak": f"{plan.peak / MIB:,.1f}", "cache in memory": f"{cached / MIB:,.1f}",
            "% with cache": f"{with_cache:.1f}",
        })  # fmt: skip
        there = int(group["seconds"].notna().sum())
        seconds = f"{group['seconds'].mean():.1f}" if there else "not reached"
        ratio = 100 * group["seconds"].mean() / full["seconds"].mean()
        timed.append({
            "row": str(label), "lr": f"{group['lr'].iloc[0]:g}",
            "first epoch s": f"{group['first'].median():.2f}",
            "later epochs s": f"{group['epoch'].median():.2f}",
            "% of full's epoch": f"{100 * group['epoch'].median() / full['epoch'].median():.0f}",
            "epochs": f"{group['epochs'].mean():.0f}", "s to score": seconds,
            "reached": f"{there} of {len(group)}",
            "% of full's s": f"{ratio:.0f}" if there else "-",
            **{key: spread(group[key]) for key in ("val", "home", "away")},
        })  # fmt: skip
    print("\nKept by a training step (MiB), measured:\n")
    print_table(kept)
    print(
        f"Time to a validation mIoU of {goal:.4f}, and scores (mIoU, mean ± standard deviation "
        "over seeds):\n"
    )
    print_table(timed)


def spread(values: Any) -> str:  # noqa: ANN401 - a pandas column
    """Write mean and standard deviation."""
    return f"{values.mean():.4f}" + (f" ± {values.std():.4f}" if len(values) > 1 else "")


def turns(data: GeoData, size: int, options: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Let the models of all combinations take steps in turns; print and return their seconds."""
    now, samples = now_on(options.device), [data.train[index] for index in range(options.batch)]
    image = torch.stack([sample["image"] for sample in samples]).to(options.device)
    mask = torch.stack([sample["mask"] for sample in samples]).to(options.device)
    card = TASKS[data.task]
    rows = combinations()
    taken: dict[frozenset[str], list[float]] = {factors: [] for factors in rows}
    with ExitStack() as stack:
        models, optimisers = {}, {}
        for factors, row in rows.items():
            model = build(options.model, size, row, data, options).to(options.device).train()
            stack.enter_context(applied(model, row.frugal))
            trained = [p for p in model.parameters() if p.requires_grad]
            models[factors], optimisers[factors] = model, torch.optim.AdamW(trained, lr=1e-4)
        for number in range(options.steps + 1):
            for factors, row in rows.items():
                start, dtype = now(), AUTOCAST[row.precision]
                with torch.autocast(
                    options.device, dtype, enabled=dtype is not None, cache_enabled=False
                ):
                    loss = card.loss(models[factors](image), mask, data.ignore_index)
                optimisers[factors].zero_grad()
                loss.backward()
                optimisers[factors].step()
                if number:  # the first makes the optimiser's moments
                    taken[factors].append(now() - start)
    medians = {factors: statistics.median(seconds) for factors, seconds in taken.items()}
    whole = medians[frozenset()]
    print_table([
        {
            "factors": named(factors), "step ms": f"{1000 * seconds:.1f}",
            "% of full": f"{100 * seconds / whole:.0f}",
        }
        for factors, seconds in medians.items()
    ])  # fmt: skip
    print_shares(medians, "the time of a step")
    return [{"factors": named(factors), "size": size, "step": s} for factors, s in medians.items()]


def plans(options: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Print and return the plans of all combinations and recipes."""
    data, lines = load(options), []
    for name, size in PLANNED:
        found: dict[str, MemoryPlan] = {}
        built = {
            m: on_meta(name, size, Row(m), data, options) for m in ("full", "lora", "linear_probe")
        }
        for label, row in {**{named(k): v for k, v in combinations().items()}, **MORE}.items():
            found[label] = gp.memory_plan(
                built[row.method], options.batch, size, row.precision, row.frugal or None,
                device=options.device,
            )  # fmt: skip
            parts = {
                column: getattr(found[label], column) for column in (*COLUMNS, "total", "peak")
            }
            lines.append(
                {"model": name, "size": size, "batch": options.batch, "row": label, **parts}
            )
        whole = found[named(frozenset())].total
        print(
            f"### {name}, {options.batch} x {size} x {size} px, {options.decoder} decoder: "
            "planned MiB\n"
        )
        print_table([
            {**bytes_row(label, plan, whole), "peak": f"{plan.peak / MIB:,.0f}"}
            for label, plan in found.items()
        ])  # fmt: skip
        print_shares({key: found[named(key)].total for key in combinations()}, "the kept bytes")
    return lines


def load(options: Any, size: int | None = None) -> GeoData:  # noqa: ANN401
    """Load the data, of the sandbox as few chips as were asked for."""
    more = {"chips": options.chips} if options.data == "sandbox" else {}
    return gp.load_data(options.data, size=size, **more)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parts = ["search", "train", "turns", "plans"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--data", help="scenes, or sandbox on a GPU, which has chips of any size")
    parser.add_argument("--chips", type=int, default=160, help="of each region of the sandbox")
    parser.add_argument("--model", help="geopeft_tiny, or prithvi_eo_v2_300 on a GPU")
    parser.add_argument("--weights", default="pretrained", help="pretrained, none or a path")
    parser.add_argument("--sizes", type=int, nargs="+", help="pixels; those of the data")
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="ROW")
    parser.add_argument("--rates", nargs="+", type=float, default=RATES, help="the grid to search")
    parser.add_argument("--lr", nargs="+", metavar="FAMILY=RATE", default=[],
                        help="rates known already, such as 'lora, late=0.005'")  # fmt: skip
    parser.add_argument("--decoder", default="linear")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15, help="of each model, in turns")
    parser.add_argument("--out", type=Path, help="folder for the numbers as CSV")
    options = parser.parse_args()
    cuda = options.device == "cuda"
    options.data = options.data or ("sandbox" if cuda else "scenes")
    options.model = options.model or ("prithvi_eo_v2_300" if cuda else "geopeft_tiny")
    if options.rows and FULL not in options.rows:
        parser.error(f"--rows must include {FULL!r}, with which all are compared")
    rows = {label: row for label, row in ROWS.items() if label in (options.rows or ROWS)}
    known = {name: float(rate) for name, rate in (pair.rsplit("=", 1) for pair in options.lr)}
    if strange := known.keys() - SEARCHED.keys():
        parser.error(f"--lr knows {', '.join(SEARCHED)}; got {', '.join(strange)}")
    options.rates = [float(rate) for rate in options.rates]
    if not cuda:
        torch.set_num_threads(1)
    for size in options.sizes or [None]:
        if not {"search", "train", "turns"} & set(options.parts):
            break
        data = load(options, size)
        side = size or data.size
        print(
            f"## {options.model} ({options.weights}) on {options.data}, {options.batch} x {side} x "
            f"{side} px, {options.decoder} decoder, {options.epochs} epochs of {len(data.train)} "
            f"chips, {options.seeds} seeds, {options.device}\n",
            flush=True,
        )
        rates = known
        if "search" in options.parts:
            wanted = {label: row for label, row in rows.items() if row.family not in known}
            rates = known | search(data, side, options, wanted)
        if "train" in options.parts:
            print_training(train(data, side, options, rows, rates))
        if "turns" in options.parts:
            store(turns(data, side, options), options.out, f"turns_{side}")
    if "plans" in options.parts:
        store(plans(options), options.out, "plans")


if __name__ == "__main__":
    main()
