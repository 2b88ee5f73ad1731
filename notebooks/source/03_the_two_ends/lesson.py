# %% [markdown]
# # 03 · The two ends of the ruler: linear probe and full fine-tuning
# **Train nothing of a foundation model, or all of it: see what each costs, which learning rate each stands, what is moved and what is forgotten, and who wins with few labels, at home and away.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Freeze* a network by hand, and *solve* a linear probe exactly, without a training loop.
# - *Predict* the bytes of a training step at both ends, and *measure* them.
# - *Explain* why full fine-tuning needs a smaller learning rate.
# - *Measure* how far features moved, and *tell* moving from forgetting.
# - *Compare* two methods over the number of labels, beside honest yardsticks.
#
# ## Time to learn
# About 60 min, of which the computer needs about 4 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, mIoU | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Training a network: loss, gradient, learning rate | necessary | [PyTorch: learn the basics](https://docs.pytorch.org/tutorials/beginner/basics/intro.html) |
# | Least squares | helpful, explained here | [scikit-learn: ridge regression](https://scikit-learn.org/stable/modules/linear_model.html#ridge-regression-and-classification) |
# | What features are | helpful | [02 · What it has learnt](02_what_it_has_learnt.ipynb) |

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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same lesson with one epoch and one seed on a quarter of the chips, with fewer learning rates and steps.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "full"  # the far end of the ruler; "lora" stands between the two
epochs = 3
batch_size = 8
seed = 0  # where seeds are compared, this one and the next
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with less of everything
out_dir = None  # folder for tables and figures; None takes a temporary one

# %%
import copy
import dataclasses
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.files import data_folder
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.pictures.show import PALETTE
from geopeft_nb.tasks import confusion, mean_iou

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {"epochs": 1 if FAST else epochs, "batch_size": batch_size, "device": device}
chips = gp.load_data(data)
away = next(iter(chips.holdout))
for part in (chips.train, chips.val, chips.test, chips.holdout[away]):
    part.chips[:] = part.chips[:: 4 if FAST else 1]


# %%
def build(
    method: str | None, chips: object, seed: int = seed, weights: str | None = "pretrained"
) -> nn.Module:
    """Put a linear decoder on a fresh backbone and attach a method, or none."""
    backbone = gp.load_backbone(model, weights=weights, bands=chips.bands, seed=seed)
    network = gp.build_model(backbone, chips, decoder="linear", metadata=False, seed=seed)
    return gp.attach(network, method, seed=seed) if method else network


# %% [markdown]
# ## 1 · Nothing, or everything
# A network for a map has two parts. The *backbone* turns each patch of the image into a list of numbers, its *features*; it has been pretrained. The *decoder* turns features into classes; it is new and knows nothing. Here it is a single linear map: each patch's features times a matrix, plus a constant, give one score for each class and pixel of the patch.
#
# The decoder must learn in any case. For the backbone there is a ruler, and these are its two ends:
#
# - **Linear probe.** The backbone is *frozen*: its weights stay as they are. The probe asks one question: *what can be read off the pretrained features with a ruler and a pencil?* It is a measurement of the features more than a method.
# - **Full fine-tuning.** Every weight may move, and the features with it.
#
# All that the other lessons attach (LoRA, prompts, adapters) lies between the two.

# %% tags=["nbval-check-output"]
for name in ("linear_probe", method):
    parts = gp.parameter_table(build(name, chips)).loc["total"]
    share = parts["trainable"] / (parts["trainable"] + parts["frozen"])
    print(f"{name}: trains {int(parts['trainable']):,} weights, {share:.1%} of all")

# %% [markdown]
# ### Exercise 1 · write
# Make a linear probe **by hand**, without `gp.attach`. `build(None, chips)` gives a network to which nothing is attached: all of it would be trained. Freeze the right part: every weight has `.requires_grad`, and a whole part of a network has `.requires_grad_(False)`. The parts are `network.backbone` and `network.decoder`.

# %%
by_hand = None
# solution
by_hand = build(None, chips)
for weight in by_hand.backbone.parameters():
    weight.requires_grad = False

# %%
gp.check("03/by_hand", by_hand)

# %% [markdown]
# What it showed: a linear probe is no more than a backbone that gets no gradient.
#
# ## 2 · A probe needs no training loop
# What a frozen backbone says about a chip never changes. So ask it **once**, and keep the answers: one row for each patch.


# %%
def features(network: nn.Module, dataset: object, layers: list[int] | None = None) -> list:
    """Return the backbone's maps (N, D, h, w) of all chips, one for each chosen block."""
    backbone = network.eval().plain_backbone
    images, own = torch.stack([sample["image"] for sample in dataset]), backbone.layers
    backbone.choose(layers or own)
    with torch.inference_mode():
        parts = [backbone((part - network.mean) / network.std) for part in images.split(16)]
    backbone.choose(own)
    return [torch.cat(maps) for maps in zip(*parts, strict=True)]


# %%
def rows_of(maps: torch.Tensor) -> torch.Tensor:
    """Turn maps (N, D, h, w) into one row of features and a constant 1 per patch, (M, D + 1)."""
    rows = maps.movedim(1, -1).flatten(0, 2)
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)


def labels_of(dataset: object) -> torch.Tensor:
    """Return the labels of each patch's pixels, (M, pixels)."""
    masks = torch.stack([sample["mask"] for sample in dataset])
    squares = masks.unflatten(2, (-1, side)).unflatten(1, (-1, side)).movedim(2, 3)
    return squares.flatten(3).flatten(0, 2)


# %%
probe = build("linear_probe", chips)
side = probe.plain_backbone.patch_size
sets = {"train": chips.train, "val": chips.val, "home": chips.test, "away": chips.holdout[away]}
start = time.perf_counter()
rows = {name: rows_of(features(probe, dataset)[0]) for name, dataset in sets.items()}
seconds = time.perf_counter() - start
labels = {name: labels_of(dataset) for name, dataset in sets.items()}
print(f"features of {sum(map(len, sets.values()))} chips: {seconds:.1f} s, once and for all")
print(f"a patch holds {side * side * len(chips.bands)} numbers, its row {rows['train'].shape[1]}")

# %% [markdown]
# What is left is an old acquaintance: find the matrix $W$ for which rows times $W$ come closest to the wanted answers. For each pixel of a patch and each class the wanted answer is 1 or 0. With squared differences there is no need to go downhill step by step; the bottom has a formula. With $X$ the rows ($M$ × $D$), $T$ the wanted answers ($M$ × $P$) and a *penalty* $\lambda$ that keeps $W$ small,
#
# $$W = (X^\top X + \lambda I)^{-1} X^\top T$$
#
# That is *ridge regression*. $I$ is the identity matrix: ones on the diagonal, zeros elsewhere.
#
# ### Exercise 2 · write
# Write `solve(X, T, penalty)`, which returns $W$ of shape ($D$, $P$). Do not invert a matrix: `torch.linalg.solve(A, B)` gives $A^{-1} B$, faster and more exactly. `torch.eye(n, dtype=X.dtype)` is the identity.

# %%
solve = None


# solution
def ridge(X: torch.Tensor, T: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return the (D, P) matrix for which X W comes closest to T, with a penalty on its size."""
    return torch.linalg.solve(X.T @ X + penalty * torch.eye(X.shape[1], dtype=X.dtype), X.T @ T)


solve = ridge

# %%
my_solve = gp.check("03/solve", solve)
my_solve

# %% [markdown]
# What it showed: a probe can be solved, not only trained. The lesson goes on by another road, so that it does not depend on your answer: plain least squares with rows more, $\sqrt{\lambda} I$, whose wanted answer is zero. The penalty is chosen on the validation chips.


# %%
def least_squares(X: torch.Tensor, T: torch.Tensor, penalty: float) -> torch.Tensor:
    """Solve ridge regression as least squares with rows that pull W to zero."""
    pull = penalty**0.5 * torch.eye(X.shape[1], dtype=X.dtype)
    nothing = torch.zeros(len(pull), T.shape[1], dtype=X.dtype)
    return torch.linalg.lstsq(torch.cat([X, pull]), torch.cat([T, nothing])).solution


def wanted(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Turn the labels of patches (M, pixels) into ones and zeros (M, pixels * classes)."""
    return functional.one_hot(labels, classes).flatten(1).float()


# %%
def read_off(W: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """Return the mIoU of what a solved probe reads off rows of features."""
    found = (rows @ W).unflatten(1, (-1, classes)).argmax(dim=2)
    return float(mean_iou(confusion(labels.numpy(), found.numpy(), classes, chips.ignore_index)))


def solved(rows: dict, labels: dict, classes: int) -> dict[str, float]:
    """Solve a probe on `train`, choose the penalty on `val`, and score every set."""
    known = (labels["train"] != chips.ignore_index).all(dim=1)
    X, T = rows["train"][known], wanted(labels["train"][known], classes)
    probes = [least_squares(X, T, penalty) for penalty in (0.1, 1, 10, 100)]
    W = max(probes, key=lambda W: read_off(W, rows["val"], labels["val"], classes))
    return {name: read_off(W, rows[name], labels[name], classes) for name in rows}


# %%
if my_solve.passed:
    X, T = rows["train"][:500].double(), torch.randn(500, 3, dtype=torch.double)
    apart = (solve(X, T, 10.0) - least_squares(X, T, 10.0)).abs().max()
    print(f"your W and that of the other road differ by at most {float(apart):.1g}")
else:
    print("Here your solution meets the other road, as soon as it passes its check.")

# %% [markdown]
# Now the same probe in the usual way: the loss is cross-entropy, the chips are turned and mirrored at random, and AdamW goes downhill in small steps. **Guess before you look.** How long will the steps take, and how long the formula? Which of the two scores better? And what would a probe score on the features of a network that was **never trained**, whose weights are random numbers?

# %%
my_guess = {"seconds of steps": "?", "seconds of the formula": "?", "untrained, home": "?"}

# %%
trained = gp.fit(probe, chips, seed=seed, **settings)

# %%
start = time.perf_counter()
table = {"solved, pretrained features": solved(rows, labels, len(chips.classes))}
formula_seconds = time.perf_counter() - start
blank = build("linear_probe", chips, weights=None)
blank_rows = {name: rows_of(features(blank, dataset)[0]) for name, dataset in sets.items()}
table["solved, untrained features"] = solved(blank_rows, labels, len(chips.classes))
del blank_rows
report = gp.evaluate(trained, chips).table["mIoU"]
table["trained, pretrained features"] = {"home": report.iloc[0], "away": report[away]}

# %% [markdown]
# And the yardstick of lesson 01: water is where one index of two bands (MNDWI) is above one number, chosen on the training chips. (It needs a green and a short-wave infrared band and two classes.)


# %%
def index_miou(dataset: object, threshold: float) -> float:
    """Score the rule: water is where MNDWI is above the threshold."""
    images = torch.stack([sample["image"] for sample in dataset])
    green, swir = (images[:, chips.bands.index(band)] for band in ("GREEN", "SWIR_1"))
    found = (green - swir) / (green + swir + 1e-6) > threshold
    truth = torch.stack([sample["mask"] for sample in dataset]).numpy()
    return float(mean_iou(confusion(truth, found.numpy(), 2, chips.ignore_index)))


best = max(np.linspace(-0.6, 0.8, 29), key=lambda value: index_miou(chips.train, value))
table["one threshold on MNDWI"] = {name: index_miou(sets[name], best) for name in ("home", "away")}

# %%
print("You guessed:", my_guess)
print(
    f"steps: {trained.seconds:.1f} s; formula, four penalties and scores: {formula_seconds:.1f} s"
)
pd.DataFrame(table).T[["train", "val", "home", "away"]].round(3)

# %% [markdown]
# - **Solved against trained.** Both choose among the same linear maps. Where the steps score less than the formula *on the training chips*, they are not at the bottom yet. (Away, who is lower may well score worse: the bottom is one for the chips of home.)
# - **Untrained features are a yardstick.** A mixture of pixels still holds pixels. What pretraining brings is only what lies *above* that line.
# - **One number.** The threshold is nearly the label itself here (lesson 01). As long as it wins, no score on these scenes shows what a foundation model is good for.
#
# ## 3 · What each end costs
# One training step keeps four things in memory: the weights; a gradient for each *trained* weight; two more numbers that AdamW remembers about each trained weight; and the *activations*, results of the forward pass that the backward pass needs again.
#
# **Guess before you look.** By what factor is a step of full fine-tuning larger than one of the probe? By what factor slower?

# %%
my_guess = {"times the memory": "?", "times the seconds": "?"}

# %%
samples = [chips.train[index] for index in range(batch_size)]
images, masks = (torch.stack([sample[key] for sample in samples]) for key in ("image", "mask"))


def loss_of(network: nn.Module) -> torch.Tensor:
    """Return the loss of one batch."""
    return functional.cross_entropy(network(images), masks, ignore_index=chips.ignore_index)


def step_seconds(network: nn.Module, optimiser: torch.optim.Optimizer) -> float:
    """Return the seconds of one training step."""
    start = time.perf_counter()
    loss_of(network).backward()
    optimiser.step()
    optimiser.zero_grad()
    return time.perf_counter() - start


# %%
ends = {name: build(name, chips).train() for name in ("linear_probe", method)}
kept = {name: training_bytes(end, partial(loss_of, end)) for name, end in ends.items()}
optimisers = {
    name: torch.optim.AdamW([w for w in network.parameters() if w.requires_grad], lr=1e-5)
    for name, network in ends.items()
}
times = {name: [] for name in ends}
for _ in range(3 if FAST else 7):  # in turn, so that a busy machine slows both alike
    for name, network in ends.items():
        times[name].append(step_seconds(network, optimisers[name]))

# %%
del ends, optimisers  # their memory is wanted again
cost = pd.DataFrame(kept).T / 1e6
cost["ms a step"] = [1000 * float(np.median(times[name])) for name in cost.index]
cost.to_csv(out / "cost.csv")
print("You guessed:", my_guess)
ratio = cost.loc[method] / cost.loc["linear_probe"]
print(f"{method} / linear_probe: memory {ratio['total']:.1f}, time {ratio['ms a step']:.1f}")
cost.rename(columns=lambda name: name if " " in name else f"{name} (MB)").round(1)

# %%
axes = cost[list(PALETTE)].plot.barh(stacked=True, figsize=(8, 2), color=PALETTE)
axes.set(xlabel=f"MB kept in one step of {batch_size} chips", title="Where the memory goes")
axes.invert_yaxis()
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
words = [f"{name} {cost.loc[name, 'total']:.0f} MB" for name in cost.index]
gp.show(axes.figure, alt=f"Stacked bars of the memory of a step: {', '.join(words)}.")

# %% [markdown]
# - **Gradients and optimiser** follow the trained weights: three more numbers for each.
# - **Activations** of the probe are next to nothing. No error has to travel into the backbone, so nothing is kept there; the decoder needs its input, and that is all. This is what LoRA cannot have: its adapters stand deep in the network (lesson 04).
# - **Time.** Going backward through a layer takes two matrix products where forward takes one: one for the gradient of its weights, one for the error that travels on. The probe goes forward only. And since a frozen backbone says the same each time, even that can be spared after the first epoch, as you saw with the formula. Lesson 07 turns this into a recipe.
#
# ### Exercise 3 · predict
# Without running anything, write `step_bytes(trained, frozen)`: how many bytes do weights, gradients and AdamW's memory take, if all numbers are 32-bit floats (4 bytes)? `trained` and `frozen` are numbers of weights. Leave the activations out.

# %%
step_bytes = None


# solution
def without_activations(trained: int, frozen: int) -> int:
    """Count weights, gradients and AdamW's two moments in 32-bit floats."""
    return 4 * (trained + frozen) + 4 * trained + 2 * 4 * trained


step_bytes = without_activations

# %%
my_bytes = gp.check("03/step_bytes", step_bytes)
my_bytes

# %% [markdown]
# What it showed, at the size of the paper's models, before a single activation:

# %%
large = gp.list_backbones().loc[["prithvi_eo_v1_100", "prithvi_eo_v2_300", "prithvi_eo_v2_600"]]
if my_bytes.passed:
    for name, number in large["parameters"].astype(int).items():
        low, high = step_bytes(0, number) / 1e9, step_bytes(number, 0) / 1e9
        print(f"{name}: probe {low:.1f} GB, full fine-tuning {high:.1f} GB")
else:
    print("Here stand the large models, as soon as your function passes its check.")

# %% [markdown]
# ## 4 · A learning rate for each end
# `gp.list_methods()` gives the two ends different learning rates:

# %%
default = gp.list_methods()["lr"]
default[["linear_probe", method]]

# %% [markdown]
# Why? Look at what a step does. AdamW divides each gradient by its usual size. So every trained weight moves by about the learning rate in each step, **however small its gradient is** (less where the gradients of many steps contradict each other). Compare that with the size of the weights themselves:

# %%
pretrained = gp.load_backbone(model, bands=chips.bands)
sizes = torch.cat(
    [w.detach().abs().flatten() for w in pretrained.blocks.parameters() if w.ndim > 1]
)
size = float(sizes.median())
rates = [2e-4, 5e-3] if FAST else [2e-4, 1e-3, 5e-3, 2.5e-2]
print(f"half of the weights in the blocks are smaller than {size:.3f}")
for rate in rates:
    print(f"rate {rate:g}: one step can move a weight by {rate / size:.1%} of that")

# %% [markdown]
# The decoder's matrix starts from random numbers: there is nothing to lose, and the loss as a function of that matrix alone is a bowl with one bottom. A step that is too long climbs the other wall, and comes back. In the backbone all layers move at once, each under the feet of the next, away from values that took a long pretraining to find.
#
# **Guess before you look.** Both ends are trained with each of the rates for the same number of epochs. Which rate is best for which end? What does full fine-tuning score at home with the *probe's* default rate: nearly the same, much less, or nothing at all? And away?

# %%
my_guess = {"best for the probe": "?", "best for full": "?", "full at the probe's rate, away": "?"}

# %%
runs, reports, tried = {}, {}, []


def train(name: str, rate: float) -> None:
    """Train one end with one rate, and write down what came out."""
    run = gp.fit(build(name, chips), chips, lr=rate, seed=seed, dashboard="text", **settings)
    reports[name, rate] = gp.evaluate(run, chips)
    scores = reports[name, rate].table["mIoU"]
    row = {"method": name, "rate": rate, "val": run.best["val_miou"]}
    tried.append(row | {"home": scores.iloc[0], "away": scores[away], "seconds": run.seconds})
    if name == method:  # probes have the pretrained backbone
        runs[rate] = run


for rate in rates:
    train("linear_probe", rate)

# %%
for rate in rates[:2]:
    train(method, rate)

# %%
for rate in rates[2:]:
    train(method, rate)

# %%
sweep = pd.DataFrame(tried)
sweep.to_csv(out / "scores.csv", index=False)


def moved(network: nn.Module) -> float:
    """Return how far the blocks' weights moved, relative to their size (roots of squares)."""
    before, after = pretrained.blocks.state_dict(), network.plain_backbone.blocks.state_dict()
    change = sum((after[key] - before[key]).square().sum() for key in before)
    return float((change / sum(weight.square().sum() for weight in before.values())).sqrt())


if method == "full":  # others keep the pretrained weights and add their own
    sweep["moved (%)"] = sweep["rate"].map({r: 100 * moved(run.model) for r, run in runs.items()})
    sweep.loc[sweep["method"] == "linear_probe", "moved (%)"] = 0.0
print("You guessed:", my_guess)
sweep.drop(columns="seconds").astype({"rate": str}).round(3)

# %%
colours = ["#56B4E9", "#0072B2", "#E69F00", "#D55E00"]
look = dict(zip(rates, zip(colours, "osD^", strict=True), strict=False))


# %%
def draw_losses(axes: plt.Axes) -> None:
    """Draw the training loss for each learning rate."""
    for rate, (colour, mark) in look.items():
        loss = runs[rate].history["train_loss"].rolling(3, min_periods=1).mean()
        axes.plot(loss, color=colour, marker=mark, markevery=6, ms=4, label=f"{rate:g}")
    axes.set(xlabel="step", ylabel="training loss, mean of 3 steps", title=f"{method}, by rate")
    axes.legend(frameon=False, title="learning rate")


def draw_rates(axes: plt.Axes) -> None:
    """Draw the scores over learning rates."""
    for name, colour, mark in (("linear_probe", "#009E73", "o"), (method, "#0072B2", "s")):
        part = sweep[sweep["method"] == name]
        for role, line in (("home", "-"), ("away", "--")):
            style = {"color": colour, "marker": mark, "mfc": colour if role == "home" else "white"}
            axes.plot(part["rate"], part[role], line, label=f"{name}, {role}", **style)
    axes.set(xscale="log", xlabel="learning rate", ylabel="mIoU (0-1)", title="Score by rate")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
draw_losses(left)
draw_rates(right)
figure.savefig(out / "rates.png", dpi=110)
told = zip(sweep["method"], sweep["rate"], sweep["home"], sweep["away"], strict=True)
words = [f"{name} at {rate:g}: {home:.2f} home, {far:.2f} away" for name, rate, home, far in told]
gp.show(figure, alt=f"Training loss and mIoU by learning rate; {'; '.join(words)}.")

# %% [markdown]
# - **The probe stands large steps.** With too small a rate it is not wrong but unfinished.
# - **Full fine-tuning** at the probe's default rate need not look bad at home: it can learn this simple task anew. *A score at home does not tell whether pretraining survived*; look away, and at the next section.
#
# ### Exercise 4 · write
# Was the search wide enough? `too_narrow(rates, scores)`: True where the best score belongs to the smallest or the largest rate that was tried. The rates come in any order.

# %%
too_narrow = None


# solution
def at_the_edge(rates: list[float], scores: list[float]) -> bool:
    """Say whether the best rate is the smallest or the largest that was tried."""
    best = rates[max(range(len(rates)), key=lambda n: scores[n])]
    return best in (min(rates), max(rates))


too_narrow = at_the_edge

# %%
my_search = gp.check("03/too_narrow", too_narrow)
my_search

# %%
for name, part in sweep.groupby("method", sort=False):
    best, edge = part.loc[part["val"].idxmax(), "rate"], part["rate"].agg(["min", "max"])
    where = "at the edge: search further" if best in set(edge) else "inside the search"
    print(f"{name}: best at {best:g}, {where}")

# %% [markdown]
# What it showed: a best rate at the edge is where the search ended, not where the best one is. Below, "best" means best of those tried.
#
# Those rates are used from here on:

# %%
best_row = sweep.loc[sweep.groupby("method")["val"].idxmax()].set_index("method")
rate_of = best_row["rate"].to_dict()
print({name: f"{rate:g}" for name, rate in rate_of.items()})
best_reports = {name: reports[name, rate] for name, rate in rate_of.items()}
best_reports["linear_probe"].compare(best_reports[method]).round(3)

# %% [markdown]
# That is the paired difference, probe minus full fine-tuning, with its 95 % interval over places (lesson 01). It does not cover the luck of training: one seed.
#
# ## 5 · Moved is not forgotten
# Full fine-tuning moves the features. How far, and in which block? Take the chips that training never saw, at home and away, and compare each patch's features before and after by the *cosine similarity*: 1 means the same direction, 0 means no more alike than two patches drawn at random. (The mean of all pretrained features is taken off first, or else all patches look alike. The grey line checks the claim about 0.)
#
# **Guess before you look.** Will the early or the late blocks move more? The features at home, on which it was trained, or those away, which it has never seen?

# %%
my_guess = {"moves most, first or last block": "?", "moves more, home or away": "?"}

# %%
every_block = list(range(len(pretrained.blocks)))


def similarity(before: torch.Tensor, after: torch.Tensor) -> float:
    """Return the mean cosine similarity of patches (N, D, h, w), the mean of `before` taken off."""
    mean = before.mean(dim=(0, 2, 3), keepdim=True)
    return float(functional.cosine_similarity(before - mean, after - mean, dim=1).mean())


untouched = {role: features(probe, sets[role], every_block) for role in ("home", "away")}
drift = {}
for rate in rates:
    for role, before in untouched.items():
        after = features(runs[rate].model, sets[role], every_block)
        drift[rate, role] = [similarity(b, a) for b, a in zip(before, after, strict=True)]

# %%
shuffled = {}
for role, before in untouched.items():
    order = torch.randperm(len(before[0]), generator=torch.Generator().manual_seed(seed))
    shuffled[role] = [similarity(b, b[order].flip(-1)) for b in before]


def draw_drift(axes: plt.Axes, role: str) -> None:
    """Draw the similarity to the pretrained features, block by block, for each rate."""
    for rate, (colour, mark) in look.items():
        axes.plot(drift[rate, role], color=colour, marker=mark, label=f"{rate:g}")
    axes.plot(shuffled[role], color="#7F7F7F", ls=":", label="another patch")
    axes.set(title=f"test chips, {role}", xlabel="block, first to last")
    axes.set_xticks(every_block, [number + 1 for number in every_block])


# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axes, role in zip(panels, untouched, strict=True):
    draw_drift(axes, role)
panels[0].set(ylabel="cosine similarity to pretrained", ylim=(-0.15, 1.03))
panels[1].legend(frameon=False, title="learning rate", loc="center left", bbox_to_anchor=(1, 0.5))
figure.savefig(out / "drift.png", dpi=110)
untouched.clear()  # its memory is wanted again
last = {rate: [drift[rate, role][-1] for role in ("home", "away")] for rate in rates}
words = [f"{rate:g} {home:.2f} home, {far:.2f} away" for rate, (home, far) in last.items()]
gp.show(figure, alt=f"Similarity of features before and after, by block; last: {'; '.join(words)}.")

# %% [markdown]
# The features moved away, too, where there was not a single label to say whereto. Does that mean that the network has *forgotten*? Not yet. If all features are turned together like a map on a table, each of them moves and nothing is lost.
#
# ### Exercise 5 · mend a broken line
# This function should turn rows of features (M, D): all lengths and distances stay. A matrix of random numbers stretches them besides. `torch.linalg.qr` makes an orthogonal matrix of any square one.


# %%
def stretch(rows: torch.Tensor) -> torch.Tensor:
    """Turn rows (M, D) by a random rotation."""
    return rows @ torch.randn(rows.shape[1], rows.shape[1], dtype=rows.dtype)  # mend this line


turn = stretch


# solution
def rotate(rows: torch.Tensor) -> torch.Tensor:
    """Turn rows (M, D) by a random rotation."""
    width = rows.shape[1]
    return rows @ torch.linalg.qr(torch.randn(width, width, dtype=rows.dtype)).Q


turn = rotate

# %%
my_turn = gp.check("03/turn", turn)
my_turn

# %%
if my_turn.passed:
    torch.manual_seed(seed)
    joined = turn(torch.cat([part[:, :-1] for part in rows.values()]))
    ones = torch.ones(len(joined), 1)
    parts = torch.cat([joined, ones], dim=1).split([len(part) for part in rows.values()])
    again = solved(dict(zip(rows, parts, strict=True)), labels, len(chips.classes))
    print({role: f"{again[role]:.3f}" for role in ("home", "away")}, "read off turned features")

# %% [markdown]
# What it showed: features that are turned say the same to a fresh linear map; compare with the first row of the table in section 2. So ask what **can still be read off**.
#
# That is a job for the solved probe, with a question that fine-tuning knew nothing about: *land cover*, six classes, on the synthetic planet of lesson 10. Training has seen water and land in one real scene. Its features are now frozen, a fresh probe is solved on chips of the temperate climate, and read off there and in two climates that it has never seen. **Guess:** who reads land cover best, the pretrained features or the fine-tuned ones? And where do the untrained ones stand?

# %%
my_guess = {"best at home": "?", "best away": "?", "untrained": "?"}

# %%
other = gp.load_data(
    "sandbox", task="landcover", shift=1.0, chips=20 if FAST else 80, seed=seed,
    holdout_regions=["boreal", "savanna"],
)  # fmt: skip
other_sets = {"train": other.train, "val": other.val, "home": other.test, **other.holdout}
other_labels = {name: labels_of(dataset) for name, dataset in other_sets.items()}
print(other)


def land_cover(network: nn.Module) -> dict[str, float]:
    """Score a fresh solved probe of land cover on a network's features, in every climate."""
    rows = {name: rows_of(features(network, part)[0]) for name, part in other_sets.items()}
    return solved(rows, other_labels, len(other.classes))


# %%
readable = {"pretrained": land_cover(probe), "untrained": land_cover(blank)}
for rate in rates:
    readable[f"{method}, rate {rate:g}"] = land_cover(runs[rate].model)
climates = [*other.holdout]
memory = pd.DataFrame(readable).T[["home", *climates]]
memory.to_csv(out / "forgotten.csv")
print("You guessed:", my_guess)
memory.round(3)

# %%
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
for name, colour, mark in zip(memory, ("#0072B2", "#D55E00", "#E69F00"), "o^s", strict=True):
    label = name if name == "home" else f"{name} (away)"
    axes.plot(memory[name], memory.index, mark, color=colour, label=label)
axes.invert_yaxis()
axes.grid(axis="y", color="#DDDDDD")
axes.set(xlabel="mIoU of a fresh solved probe (0-1)")
axes.set(title="SYNTHETIC land cover: what can still be read off")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
told = zip(memory.index, memory["home"], memory[climates].mean(axis=1), strict=True)
words = [f"{name} {home:.2f} home, {far:.2f} away" for name, home, far in told]
gp.show(figure, alt=f"mIoU of land cover read off frozen features: {'; '.join(words)}.")

# %% [markdown]
# Compare with the drift above, and with both yardsticks. Home alone cannot detect forgetting: with labels enough, a fresh probe finds its way through features that were *never trained* as well. Where home stays and away falls, something that held elsewhere was lost, so they were not merely turned. *Below* pretrained is not all that can happen: a task can also teach something that another can use. One task, one planet, one seed: this shows how to measure forgetting, not how much there is.
#
# ### Exercise 6 · open challenge
# Stand between the ends. From `build(None, chips)`, by hand: train **at least a tenth** of all weights, and keep **at most half** of the activations that full fine-tuning keeps. `network.backbone.blocks` holds the blocks, first to last.

# %%
between = None
# solution
between = build(None, chips)
between.backbone.requires_grad_(False)
between.backbone.blocks[-2:].requires_grad_(True)


# %%
def kept_by(network: nn.Module) -> int:
    """Return the bytes of activations that one training step keeps."""
    return training_bytes(network.train(), partial(loss_of, network))["activations"]


gp.check("03/between", between, kept=kept_by, limit=kept_by(build("full", chips)) / 2)

# %% [markdown]
# What it showed: what a step keeps depends on how far back the error travels, not on how many weights learn.
#
# ## 6 · Few labels or many?
# It is often said: with few labels take the probe, for a network with millions of free weights will learn the few by heart. With many labels take full fine-tuning. Test it, as fairly as it goes:
#
# - each end has the rate that was best on the validation chips in section 4;
# - every run takes the **same number of steps**, however few chips there are: the few come up more often;
# - whoever has few labels has few for validation as well;
# - the seed decides the decoder's start, the order, *and which chips* were labelled;
# - yardsticks: the solved probe, and the same network trained from random weights (with the first seed).
#
# On the real scenes, and on the planet's land cover, where one threshold does not help.
#
# **Guess before you look.** In which of the four cases will full fine-tuning beat the trained probe: few labels or all, at home or away?

# %%
my_guess = {"full wins on the scenes": "?", "full wins on the planet": "?"}


# %%
def draw(chips: object, count: int, seed: int) -> tuple[object, list[int]]:
    """Keep the labels of a few chips, repeated to the length of all; return them and which."""
    random = np.random.default_rng(seed)
    part, val = copy.copy(chips.train), copy.copy(chips.val)
    chosen = random.permutation(len(part))[:count].tolist()
    part.chips = [part.chips[chosen[n % count]] for n in range(len(part))]
    val.chips = [val.chips[n] for n in random.permutation(len(val))[:count]]
    return dataclasses.replace(chips, train=part, val=val), chosen


points = []


# %%
def learn(where: str, chips: object, count: int, seed: int, name: str) -> None:
    """Train one end, or the yardstick from random weights, with the labels of a few chips."""
    part, _ = draw(chips, count, seed)
    end, _, blank = name.partition(", ")
    network = build(end, part, seed, None if blank else "pretrained")
    steps = settings | {"epochs": max(1, round(budget / (len(part.train) // batch_size)))}
    run = gp.fit(network, part, lr=rate_of[end], seed=seed, dashboard="text", **steps)
    scores = gp.evaluate(run, chips).table.groupby("role")["mIoU"].mean()
    points.append({"data": where, "chips": count, "seed": seed, "method": name, **scores})


# %%
budget = 6 if FAST else 48  # steps of every run
both, blank_end = ("linear_probe", method), f"{method}, from random weights"
seeds = [seed] if FAST else [seed, seed + 1]
few = 8
for number in seeds:
    for name in both:
        learn("scenes", chips, few, number, name)
learn("scenes", chips, few, seed, blank_end)

# %%
for number in seeds:
    for name in both:
        learn("scenes", chips, len(chips.train), number, name)
learn("scenes", chips, len(chips.train), seed, blank_end)

# %%
for number in seeds:
    for name in both:
        learn("planet", other, few, number, name)
learn("planet", other, few, seed, blank_end)

# %%
for number in seeds:
    for name in both:
        learn("planet", other, len(other.train), number, name)
learn("planet", other, len(other.train), seed, blank_end)

# %% [markdown]
# The solved probe costs next to nothing, so it gets a whole curve, with five draws of chips for each point (of all chips there is only one draw):

# %%
planet_rows = {name: rows_of(features(probe, part)[0]) for name, part in other_sets.items()}
kept_rows = {"scenes": (chips, rows, labels), "planet": (other, planet_rows, other_labels)}


# %%
def solve_few(where: str, count: int, seed: int) -> None:
    """Solve the probe with the labels of a few chips."""
    part, all_rows, all_labels = kept_rows[where]
    patches = len(all_rows["train"]) // len(part.train)  # per chip
    chosen = np.array(draw(part, count, seed)[1])[:, None] * patches + np.arange(patches)
    few_rows = all_rows | {"train": all_rows["train"][chosen.ravel()]}
    few_labels = all_labels | {"train": all_labels["train"][chosen.ravel()]}
    score = solved(few_rows, few_labels, len(part.classes))
    far = np.mean([score[name] for name in score if name not in ("train", "val", "home")])
    point = {"data": where, "chips": count, "seed": seed, "method": "solved probe"}
    points.append(point | {"home": score["home"], "away": far})


# %%
for where, (part, *_) in kept_rows.items():
    for count in [n for n in (4, 8, 16, 32, 64) if n < len(part.train)] + [len(part.train)]:
        for number in range(seed, seed + (1 if FAST else 5)):
            solve_few(where, count, number)

# %%
results = pd.DataFrame(points)
results.to_csv(out / "labels.csv", index=False)
print("You guessed:", my_guess)
enough = results[results["method"] != "solved probe"]
enough.groupby(["data", "chips", "method"], sort=False)[["home", "away"]].agg(
    ["mean", "min", "max"]
).round(3)

# %%
looks = {"linear_probe": ("#009E73", "o"), method: ("#0072B2", "s"), blank_end: ("#CC79A7", "x")}


def draw_labels(axes: plt.Axes, where: str, role: str) -> None:
    """Draw scores over the number of labelled chips."""
    part = results[results["data"] == where]
    curve = (
        part[part["method"] == "solved probe"].groupby("chips")[role].agg(["mean", "min", "max"])
    )
    axes.plot(curve.index, curve["mean"], color="#7F7F7F", label="solved probe, mean and range")
    axes.fill_between(curve.index, curve["min"], curve["max"], color="#7F7F7F", alpha=0.2)
    for name, (colour, mark) in looks.items():
        these = part[part["method"] == name]
        axes.plot(these["chips"], these[role], mark, color=colour, mfc="none", label=name)
    axes.set(xscale="log", xlabel="labelled chips", ylabel="mIoU (0-1)")
    axes.set(title=f"{where}{' (SYNTHETIC)' if where == 'planet' else ''}, {role}")
    axes.set_xticks(curve.index, curve.index)
    axes.minorticks_off()


# %%
figure, panels = plt.subplots(2, 2, figsize=(9, 6), sharey="row", layout="constrained")
cases = [(where, role) for where in kept_rows for role in ("home", "away")]
for axes, case in zip(panels.flat, cases, strict=True):
    draw_labels(axes, *case)
handles = panels[0, 0].get_legend_handles_labels()
figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
figure.savefig(out / "labels.png", dpi=110)
told = enough.groupby(["data", "chips", "method"])[["home", "away"]].mean().round(2)
words = [f"{', '.join(map(str, key))}: {h} home, {a} away" for key, (h, a) in told.T.items()]
gp.show(figure, alt=f"mIoU over labelled chips, each seed a mark; {'; '.join(words)}.")

# %%
wide = enough.pivot_table(
    index=["data", "chips", "seed"], columns="method", values=["home", "away"]
)
for role in ("home", "away"):
    ahead = (wide[role, "linear_probe"] - wide[role, method]).dropna()
    print(f"{role}: the probe is ahead in {(ahead > 0).sum()} of {len(ahead)} pairs,", end=" ")
    print(f"by {ahead.min():+.3f} to {ahead.max():+.3f} mIoU")

# %% [markdown]
# Who wins has four parts: how many labels, how many **steps**, at **home or away**, and beside which yardstick. All runs had the same few steps, and a network of which everything moves needs more of them. What lies between the runs from random weights and full fine-tuning is what pretraining was worth. Differences of a point between one seed and another are luck: look how far two seeds of the same lie apart.
#
# Swipe between the two ends, each with the best of its rates:

# %%
probe_run = gp.fit(
    build("linear_probe", chips), chips, lr=rate_of["linear_probe"], seed=seed,
    dashboard="text", **settings,
)  # fmt: skip
gp.map_regions({"probe": probe_run, method: runs[rate_of[method]]}, chips)

# %% [markdown]
# ## 7 · The same two ends in the paper
# Published test mIoU (%), full fine-tuning minus probe, and each minus a UNet that was never pretrained (lesson 11 reads the whole table):

# %%
scores = pd.read_csv(data_folder() / "published/scores.csv")
scores = scores[scores["split"] == "test"]
paper = scores.pivot_table(index=["dataset", "model"], columns="method", values="miou_mean")
unet = paper.xs("UNet (Rand.)", level="model")["Full FT"]
ends = paper[["Linear Prob.", "Full FT"]].dropna()
beside = ends.sub(unet, axis=0, level="dataset").add_suffix(" - UNet")
beside.insert(0, "full - probe", ends["Full FT"] - ends["Linear Prob."])
print("below the UNet, of", len(beside), (beside.iloc[:, 1:] < 0).sum().to_dict())
beside.round(1)

# %% [markdown]
# The distance between the two ends is a property of the task: small on floods, where water stands in the spectrum of each patch; huge on cashew, where one linear map has to paint small plantations inside a patch. Full fine-tuning loses to the UNet in places, too. And many probes were ended by the limit of 100 epochs, at rates near the largest that was searched: on the *training* chips that is less than could be read off, and what it means away nobody can say.

# %% [markdown]
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("03")

# %% [markdown]
# ## What we have seen
# In this lesson we have gone to both ends of the ruler. A linear probe leaves the backbone alone, keeps almost no activations, stands large learning rates, and can be solved by a formula from features that are computed once. Full fine-tuning keeps three more numbers for each weight and the activations of every block, and moves the features everywhere, also where nobody looked. Moving is not forgetting: a fresh probe of another task tells the two apart. And who wins depends on labels, steps, home or away, and on the yardsticks beside.
#
# ## What to try next
# - Set `method = "lora"` in the parameters: where on the ruler does it lie, in bytes, drift and scores away?
# - `seed = 10`: which of your sentences survive?
# - First the probe, then the rest: `network = build("full", chips)`, give it the decoder of the trained probe with `network.decoder.load_state_dict(trained.model.decoder.state_dict())`, and fit it with a small rate. Do the features move less ([arXiv 2202.10054](https://arxiv.org/abs/2202.10054))?
# - More chips on the planet: `chips=240` in section 5. Who gains more from them?
# - Read another task off the features, `task="burn"`.
#
# ## How this differs at full scale
# With a GPU, set `model = "prithvi_eo_v2_300"` and `data = "sen1floods11"` in the parameters; full fine-tuning then needs the gigabytes that you computed in exercise 3, and activations besides. The paper trains for up to 100 epochs with early stopping and searches a rate for every model, data set and method; here there are a few epochs and four rates, and the model is small. What carries over is how to compare: the same steps or until both stop, rates searched for both, yardsticks, home and away, several seeds. What does not carry over is who won here.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); tables: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Alain and Bengio, *Understanding intermediate layers using linear classifier probes*, [arXiv 1610.01644](https://arxiv.org/abs/1610.01644)
# - Kumar et al., *Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution*, [arXiv 2202.10054](https://arxiv.org/abs/2202.10054)
# - Kornblith et al., *Similarity of Neural Network Representations Revisited*, [arXiv 1905.00414](https://arxiv.org/abs/1905.00414), on what a similarity of features should ignore
# - Loshchilov and Hutter, *Decoupled Weight Decay Regularization* (AdamW), [arXiv 1711.05101](https://arxiv.org/abs/1711.05101)
