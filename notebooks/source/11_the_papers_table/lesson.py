# %% [markdown]
# # 11 · The paper's table: run the grid, read it critically
# **A table of means decides nothing by itself. Take the published one apart, find out what its runs allow one to claim, and make a small one of your own.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Read* a table of results cell by cell, and *say* what its averages hide.
# - *Compute* what a few runs with their spread allow one to claim.
# - *Check* an abstract against the numbers behind it: scores, time, memory.
# - *Plan* a grid of runs, *run* it, and *continue* it after an interruption.
#
# ## Time to learn
# About 60 min, of which the computer needs about 2 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: home and away, LoRA, mIoU | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Intervals over places | helpful | [10 · Somewhere it has never been](10_somewhere_new.ipynb) |
# | `groupby`, `unstack` | necessary | [pandas: reshaping](https://pandas.pydata.org/docs/user_guide/reshaping.html) |
# | Student's t | helpful, explained here | [SciPy: t](https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.t.html) |

# %% [markdown]
# ## Set up
# Where everything is installed, the next cell does nothing. On Colab and Kaggle it installs what is missing, and leaves torch and numpy as they are.

# %% tags=["setup"]
import importlib.util

from IPython import get_ipython

source = "geopeft-nb @ git+{{repository}}"
if importlib.util.find_spec("geopeft_nb") is None:
    get_ipython().run_line_magic("pip", f"install -q '{source}'")

# %% [markdown]
# Change what you like in the next cell.

# %% tags=["parameters"]
model = "geopeft_tiny"  # a backbone that gp.list_backbones() lists
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # what is compared with full fine-tuning and a linear probe
epochs = 2
batch_size = 8
seed = 0  # the first of three
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: two methods, two seeds, one epoch, few large chips, a small model to plan
out_dir = None  # folder for rows, map and figures; None takes a temporary one

# %%
import tempfile
from pathlib import Path

import pandas as pd
import torch
from matplotlib import pyplot as plt
from scipy import stats

import geopeft_nb as gp
from geopeft_nb.benchmark.report import METHODS, published_scores
from geopeft_nb.files import data_folder

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
epochs = 1 if FAST else epochs
seeds = [seed, seed + 1] if FAST else [seed, seed + 1, seed + 2]
methods = ["linear_probe", method] if FAST else ["linear_probe", method, "full"]
chip_options = {"size": 128} if FAST else {}

# %% [markdown]
# ## 1 · The table
# The authors of *Fine-tune Smarter, Not Harder* published the numbers behind their tables: test mIoU, mean and standard deviation over their runs. `home` is their test split; `away` the regions that they held out (Bolivia; Austria and Ireland). Everything uses a linear decoder, but for the UNet, which nobody pretrained.
#
# **Guess before you look.** The abstract says that PEFT methods "match or even exceed full fine-tuning performance". In what share of the cells is the mean of LoRA *above* that of full fine-tuning?

# %%
my_guess = "?"  # a share, 0 to 1

# %% tags=["nbval-check-output"]
published = published_scores()
scores = published["published"]  # (model, method, data, side) -> mIoU, 0 to 1
print(f"{len(scores)} cells, {published.index.unique('model').size} models")
(100 * scores.loc["Prithvi 2.0 300M"].unstack(["side", "data"])).round(1)

# %% [markdown]
# That is one model. All of them are in `scores`, a pandas Series with four levels in its index.
#
# ### Exercise 1 · write
# A *cell* is one model on one data set and side. Of all cells that have **both** methods, in what share is `lora` strictly above `full`?

# %%
share_above = None
# solution
wide = scores.unstack("method")[["lora", "full"]].dropna()
share_above = (wide["lora"] > wide["full"]).mean()

# %%
my_share = gp.check("11/share_above", share_above, scores=scores)
print("You guessed:", my_guess)
my_share

# %% [markdown]
# What it showed: "on most data sets" and "on most cells" are two claims. Where LoRA loses, and by how much:

# %% tags=["nbval-check-output"]
pairs = scores.unstack("method")
lead = 100 * (pairs["lora"] - pairs["full"]).dropna()
by_data = lead.groupby(["data", "side"]).agg(["count", "min", "mean", "max"]).round(1)
worst = by_data["mean"].idxmin()
print(f"LoRA minus full, points of mIoU. Worst on average: {worst[0]} ({worst[1]})")
by_data

# %% [markdown]
# ## 2 · What an average hides
# ### Exercise 2 · mend a broken line
# Somebody wants the mean lead of one method over another. The function below runs, and gives a number near the right one by luck alone: not every model was trained by every method, so its two means are over *different cells*.


# %%
def unpaired(scores: pd.Series, a: str, b: str) -> float:
    """Return how far method a is above b, on average over cells that have both."""
    means = scores.groupby("method").mean()  # mend this
    return means[a] - means[b]


mean_lead = unpaired


# solution
def paired(scores: pd.Series, a: str, b: str) -> float:
    """Subtract within each cell first; a cell that lacks one of the two drops out."""
    wide = scores.unstack("method")
    return (wide[a] - wide[b]).mean()


mean_lead = paired

# %%
my_lead = gp.check("11/mean_lead", mean_lead)
my_lead

# %%
if my_lead.passed:
    without = scores[scores.index.get_level_values("data") != worst[0]]
    for name, some in ((f"all {len(lead)} cells", scores), (f"without {worst[0]}", without)):
        print(f"LoRA minus full, {name}: {100 * mean_lead(some, 'lora', 'full'):+.1f} points")
    for model_name in lead.index.unique("model"):
        value = 100 * mean_lead(scores.loc[[model_name]], "lora", "full")
        print(f"  {model_name}: {value:+.1f}")

# %% [markdown]
# What it showed: one data set and one model can carry the sign of an average. Prithvi 2.0 100M, which fares well above, has scores here; whoever averages over "the models of the paper" has to say whether it is among them.
#
# Who is highest in each column? **Guess before you look:** is any column won by a network that nobody pretrained?

# %% tags=["nbval-check-output"]
best = scores.unstack(["side", "data"]).idxmax()
for (side, name), (winner, how) in best.items():
    print(f"{name:22} {side:5} {winner}, {how}")
print("won by the UNet from scratch:", [name for (_, name), (w, _) in best.items() if "Rand" in w])

# %% [markdown]
# ## 3 · How sure is a cell?
# Each mean comes from a few runs that differ in their seed. The standard deviation `s` is that of *single runs*. The mean of `n` runs is surer, and the difference of two means less sure than either. With $s_a$ and $s_b$:
#
# $$ m_a - m_b \;\pm\; t \,\sqrt{\frac{s_a^2 + s_b^2}{n}} $$
#
# $t$ is the 97.5 % point of Student's t with $2n - 2$ degrees of freedom: with few runs, 1.96 is far too small.

# %% tags=["nbval-check-output"]
for runs_each in (2, 3, 5, 20):
    print(f"{runs_each} runs of each: t = {stats.t.ppf(0.975, 2 * runs_each - 2):.2f}")

# %% [markdown]
# ### Exercise 3 · write
# `interval(mean_a, std_a, mean_b, std_b, n)` returns both ends, low first. `n` is for both.

# %%
interval = None


# solution
def difference(
    mean_a: float, std_a: float, mean_b: float, std_b: float, n: int
) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a difference of means."""
    half = stats.t.ppf(0.975, 2 * n - 2) * ((std_a**2 + std_b**2) / n) ** 0.5
    return mean_a - mean_b - half, mean_a - mean_b + half


interval = difference

# %%
my_interval = gp.check("11/interval", interval)
my_interval

# %% [markdown]
# Now all cells. The paper does not say how many runs stand behind a mean; fractions in its table of epochs fit **five**, and that is what is assumed here.

# %%
RUNS = 5
if my_interval.passed:
    both = published.unstack("method")
    rows = {}
    for cell in lead.index:
        means, deviations = 100 * both["published"].loc[cell], 100 * both["published std"].loc[cell]
        given = means["lora"], deviations["lora"], means["full"], deviations["full"]
        rows[cell] = [*interval(*given, RUNS)]
    ends = pd.DataFrame.from_dict(rows, orient="index", columns=["low", "high"])
    won, lost = (ends["low"] > 0).sum(), (ends["high"] < 0).sum()
    print(f"LoRA above: {won}, below: {lost}, cannot be told: {len(ends) - won - lost}")

# %% tags=["hide-input"]
if my_interval.passed:
    order = lead.sort_values().index
    figure, axes = plt.subplots(figsize=(8.6, 0.24 * len(order) + 1), layout="constrained")
    for row, cell in enumerate(order):
        low, high = ends.loc[[cell]].iloc[0]
        colour = "#0072B2" if low > 0 else "#D55E00" if high < 0 else "#7F7F7F"
        mark = "^" if low > 0 else "v" if high < 0 else "o"
        axes.plot([low, high], [row, row], color=colour)
        axes.plot(lead[cell], row, mark, color=colour, ms=5)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(order)), [f"{m}, {d} ({s})" for m, d, s in order], fontsize=8)
    axes.set(xlabel="LoRA minus full (points of mIoU), bars: 95 % over runs")
    axes.set_title("▲ above, ▼ below, ● cannot be told")
    figure.savefig(out / "published.png", dpi=110)
    words = f"LoRA is above in {won} cells, below in {lost}, and in {len(ends) - won - lost}"
    gp.show(figure, alt=f"Differences with intervals. {words} it cannot be told.")

# %% [markdown]
# What it showed: of the cells in which one mean is above the other, many cannot be told apart. And two limits that no formula mends. The interval covers the *seeds*; whether other places of Bolivia would agree it does not know. And of so many cells, one in twenty seems to differ where nothing does.
#
# ## 4 · Time and memory
# The abstract promises "reducing training time and memory requirements". The authors' times (no unit is given) and epochs, until early stopping:

# %% tags=["nbval-check-output"]
times = pd.read_csv(data_folder() / "published" / "times.csv")
times["method"] = times["method"].map(METHODS)
times = times[times["model"] == "Prithvi 2.0 300M"].set_index(["method", "dataset"])
times = times[["total_time", "epochs"]]
times.loc[["full", "lora"]].unstack("method").round(1)

# %% [markdown]
# ### Exercise 4 · write
# For this model: the total time of LoRA as a share of that of full fine-tuning, for each data set, and then the mean over the data sets.

# %%
time_share = None
# solution
time_share = (times.loc["lora", "total_time"] / times.loc["full", "total_time"]).mean()

# %%
my_time = gp.check("11/time_share", time_share, times=times)
my_time

# %%
if my_time.passed:
    each = times["total_time"] / times["epochs"]
    pace = {name: (each[name] / each["full"]).mean() for name in each.index.unique("method")}
    whole = times["total_time"]
    total = {name: (whole[name] / whole["full"]).mean() for name in pace}
    print(pd.DataFrame({"an epoch": pace, "the whole run": total}).round(2).to_string())

# %% [markdown]
# What it showed: by the authors' own clock LoRA saves no time. It computes forward and backward through the same blocks, and more besides. Linear probing has the cheapest epochs, and needs so many that its whole run takes longer than full fine-tuning.
#
# Memory: the authors' README says 30 % less for LoRA. Of which step? Planned here for their model, on torch's *meta device*, where nothing is computed.

# %%
large = model if FAST else "prithvi_eo_v2_300"
chips = gp.load_data(data, **chip_options)


def planned(attached: str, size: int) -> float:
    """Return the bytes of a training step of eight chips."""
    with torch.device("meta"):
        backbone = gp.load_backbone(large, weights=None, bands=chips.bands)
        network = gp.build_model(backbone, chips, decoder="linear", metadata=False)
        return gp.memory_plan(gp.attach(network, attached), 8, size).total


plans = pd.DataFrame(
    {f"{size} px": {name: planned(name, size) for name in ("full", "lora")} for size in (224, 512)}
)
saved = 1 - plans.loc["lora"] / plans.loc["full"]
words = ", ".join(f"{share:.0%} at {name}" for name, share in saved.items())
print(f"{large}, eight chips, float32: LoRA saves {words}")
(plans / 2**30).round(1)

# %% [markdown]
# So "30 %" is a number *of a chip size*. It may be right, and does not say what your step will take: `gp.memory_plan` does. (Summaries that speak of 72 % and 65 % are not the authors'.)
#
# ## 5 · Your own small table
# A grid is a table, one row a run. `gp.run_benchmark` takes columns that say what `load_data`, `load_backbone`, `build_model`, `attach` and `fit` are told.
#
# ### Exercise 5 · write
# Make the grid of this lesson: **each** of `methods` with **each** of `seeds`, on `data` with `chip_options`, `model`, linear decoder, `epochs` and `batch_size`. Columns: `data`, `data_options`, `backbone`, `decoder`, `method`, `seed`, `epochs`, `batch_size`. Keep the seeds of a method comparable: nothing else may differ.

# %%
grid = None
# solution
same = {"data": data, "data_options": chip_options, "backbone": model, "decoder": "linear"}
same |= {"epochs": epochs, "batch_size": batch_size}
grid = pd.DataFrame([same | {"method": name, "seed": s} for s in seeds for name in methods])

# %%
wanted = {"methods": methods, "seeds": seeds, "epochs": epochs, "batch_size": batch_size}
my_grid = gp.check("11/grid", grid, data=data, data_options=chip_options, model=model, **wanted)
my_grid

# %% [markdown]
# What it showed: a grid that says everything can be run by somebody else. First its dry run, which builds each model and trains nothing:

# %%
if my_grid.passed:
    dry = gp.run_benchmark(grid, dry_run=True)
    print(dry[["method", "seed", "trained weights", "frozen"]].to_string(index=False))

# %% [markdown]
# Now the runs of the first seed. Each row is written as soon as it is known.

# %%
rows_file = out / "rows.csv"
if my_grid.passed:
    first = gp.run_benchmark(grid[grid["seed"] == seeds[0]].assign(device=device), rows_file)
    print(f"{len(first)} rows in {rows_file.name}")

# %% [markdown]
# **Guess before you look.** The next cell asks for the *whole* grid, with the same file. How many runs will it train?

# %%
my_guess = "?"  # a number of runs

# %%
if my_grid.passed:
    rows = gp.run_benchmark(grid.assign(device=device), rows_file)
    print("You guessed:", my_guess)
    print(f"{len(rows) - len(first)} were trained, {len(first)} were there")

# %%
table = None
if my_grid.passed:
    table = rows.groupby("method", sort=False)[["home", "away"]].agg(["mean", "std"]).round(3)
table

# %% [markdown]
# And what may be said? Your `interval`, on your own runs:

# %%
if my_grid.passed and my_interval.passed:
    for side in ("home", "away"):
        part = rows.groupby("method")[side].agg(["mean", "std"])
        ours = tuple(part.loc[method])
        for other in (name for name in methods if name != method):
            low, high = interval(*ours, *part.loc[other], len(seeds))
            what = "cannot be told" if low <= 0 <= high else "above" if low > 0 else "below"
            print(f"{side}: {method} minus {other} {low:+.3f} to {high:+.3f}: {what}")

# %% [markdown]
# These intervals cover seeds, and take the test places as given. `gp.compare({"LoRA": [run, run, run], …}, data)` covers places **and** seeds, and says nothing at all with fewer than three seeds.
#
# A larger grid, run once and kept in the repository (`data/results/`): methods on three data sets, three seeds, at default rates. mIoU:

# %% tags=["nbval-check-output"]
kept_rows = pd.read_csv(data_folder() / "results" / "first.csv")
late = (kept_rows["method"] == "lora") & kept_rows["options"].notna()
kept_rows = kept_rows[(kept_rows["backbone"] == "geopeft_tiny") & ~late]
kept = kept_rows.groupby(["method", "data"])[["home", "away"]].mean().unstack("data")
order = kept_rows.groupby("method")["trained weights"].min().sort_values().index
for name, winner in kept["away"].idxmax().items():
    print(f"best away on {name}: {winner}")
kept.loc[order].round(3)

# %% [markdown]
# Sorted by how many weights are trained, fewest first. There what changes little travels furthest, and a method with one factor a feature, IA³, beats LoRA and full fine-tuning. **At default rates:** with rates searched for each, LoRA is above IA³ on the crops, at home and away, and IA³ is ahead on the scenes only beside full fine-tuning (README, *With rates searched the order changes*). A comparison without searched rates may compare rates. It is one small backbone and three data sets: a reason to look, and no law. In the paper's table linear probing comes last nearly everywhere.
#
# ### On the map
# Two models of the grid, trained once more to be looked at, the first watched, the second a line for each epoch. Move the bar.

# %%
if FAST:
    for part in (chips.train, chips.val, chips.test, *chips.holdout.values()):
        part.chips[:] = part.chips[::3]
runs = {}
options = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "device": device}
for name, show in (("linear_probe", True), (method, "text")):
    backbone = gp.load_backbone(model, bands=chips.bands)
    network = gp.attach(gp.build_model(backbone, chips, seed=seed), name, seed=seed)
    runs[name] = gp.fit(network, chips, dashboard=show, **options)

# %%
away = next(iter(chips.holdout))
region_map = gp.map_regions(runs, chips, regions=[away])
region_map.save(out / "map.png")
region_map

# %%
reports = {name: gp.evaluate(run, chips) for name, run in runs.items()}
for region, role in reports[method].table["role"].items():
    found = {name: report.table.loc[region, "mIoU"] for name, report in reports.items()}
    ahead = max(found, key=found.get)
    print(f"{region} ({role}): {ahead} is ahead, {found[ahead]:.3f}, of {min(found.values()):.3f}")
gp.compare(reports).sentence()

# %% [markdown]
# ## 6 · Your question
# ### Exercise 6 · open challenge
# Ask a question of your own as a grid: **one** column with two or more values (a method, a rank in `options`, a learning rate, a decoder, …), at least **three** seeds of each, everything else the same, at most 24 rows. A dry run checks it; train it when you have the time.

# %%
question = None
# solution
common = {"data": data, "backbone": model, "decoder": "linear", "method": method, "epochs": 5}
question = pd.DataFrame(
    [common | {"options": {"r": r}, "seed": s} for r in (2, 16) for s in range(3)]
)

# %%
my_question = gp.check("11/question", question)
my_question

# %%
if my_question.passed:
    print(gp.run_benchmark(question, dry_run=True).head(3).T.to_string(header=False))
if my_question.passed and my_grid.passed and "epochs" in question:
    pace = rows["seconds"].sum() / rows["epochs run"].sum()
    minutes = pace * question["epochs"].sum() / 60
    print(f"about {minutes:.0f} minutes here, if an epoch takes as long as above")

# %% [markdown]
# What it showed: a question that a grid can answer names what changes, what stays, and how often luck is drawn anew.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("11")

# %% [markdown]
# ## What we have seen
# In this lesson we have gone from a table's means to its cells, from cells to intervals, and from an abstract to the numbers below it: LoRA is above full fine-tuning in about half of the published cells, far below on one data set, no faster by the authors' clock, and saves a share of memory that depends on the chip. Then we made a table of our own, and found it hard to claim much from it. That is as it should be.
#
# ## What to try next
# - Train your question: `gp.run_benchmark(question, "question.csv")`. Interrupt it, and call it again.
# - `gp.run_benchmark("paper", dry_run=True)`: the paper's 202 runs, each built with its settings.
# - `executor=`: the same grid on a pool of processes, or on a Dask cluster.
#
# ## How this differs at full scale
# The paper searched a learning rate for each case and trained up to 100 epochs on a GPU; here two epochs at default rates stand for a run. A grid of that size is the same call, with `"paper"` and an executor.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); settings and tables: [IBM/peft-geofm](https://github.com/IBM/peft-geofm), Apache-2.0
# - Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice* (what few runs allow one to say), [arXiv 2108.13264](https://arxiv.org/abs/2108.13264)
# - [Documentation of dask.distributed](https://distributed.dask.org)
