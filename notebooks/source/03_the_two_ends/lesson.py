# %% [markdown]
# # 03 · The two ends of the ruler: linear probe and full fine-tuning
# **Train nothing of a foundation model, or all of it: see what each costs, which learning rate each stands, what is moved and what is forgotten.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Freeze* a network by hand, and *solve* a linear probe exactly, without a training loop.
# - *Predict* the bytes of a training step at both ends, and *measure* them.
# - *Explain* why full fine-tuning needs a smaller learning rate.
# - *Measure* how far features moved, and *tell* moving from forgetting.
#
# ## Time to learn
# About 60 min, of which the computer needs about 2 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, mIoU | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Training a network: loss, gradient, learning rate | necessary | [PyTorch: learn the basics](https://docs.pytorch.org/tutorials/beginner/basics/intro.html) |
# | Least squares | helpful | [scikit-learn: ridge regression](https://scikit-learn.org/stable/modules/linear_model.html#ridge-regression-and-classification) |
# | What features are | helpful | [02 · What it has learnt](02_what_it_has_learnt.ipynb) |

# %% [markdown]
# ## Set up
# Where everything is installed, the next cell does nothing. On Colab and Kaggle it installs what is missing, and leaves torch and numpy as they are. The cell after it holds all that you may want to change.

# %% tags=["setup"]
import importlib.util

from IPython import get_ipython

source = "geopeft-nb @ git+{{repository}}"
if importlib.util.find_spec("geopeft_nb") is None:
    get_ipython().run_line_magic("pip", f"install -q '{source}'")

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "full"  # the far end of the ruler; "lora" stands between the two
epochs = 3
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with less of everything
out_dir = None  # folder for tables and figures; None takes a temporary one

# %%
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
from geopeft_nb.tasks import confusion, mean_iou

out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {"epochs": 1 if FAST else epochs, "batch_size": batch_size, "device": device}
chips = gp.load_data(data)
away = next(iter(chips.holdout))
for part in (chips.train, chips.val, chips.test, chips.holdout[away]):
    part.chips[:] = part.chips[:: 5 if FAST else 1]


def build(method: str | None, chips: object, weights: str | None = "pretrained") -> nn.Module:
    """Put a linear decoder on a fresh backbone and attach a method, or none."""
    backbone = gp.load_backbone(model, weights=weights, bands=chips.bands, seed=seed)
    network = gp.build_model(backbone, chips, decoder="linear", metadata=False, seed=seed)
    return gp.attach(network, method, seed=seed) if method else network


# %% [markdown]
# ## 1 · Nothing, or everything
# The pretrained *backbone* turns each patch of an image into numbers, its *features*. The *decoder* is new and must learn; here it is a linear map from features to classes. For the backbone there is a ruler:
#
# - **Linear probe.** The backbone is *frozen*: its weights stay.
# - **Full fine-tuning.** Every weight may move, and the features with it.
#
# All that the other lessons attach lies between these ends.

# %% tags=["nbval-check-output"]
for name in ("linear_probe", method):
    parts = gp.parameter_table(build(name, chips)).loc["total"]
    share = parts["trainable"] / (parts["trainable"] + parts["frozen"])
    print(f"{name}: trains {int(parts['trainable']):,} weights, {share:.1%} of all")

# %% [markdown]
# ### Exercise 1 · write
# Make a linear probe **by hand**. `build(None, chips)` gives a network all of which would be trained. Freeze the right part: every weight has `.requires_grad`, and a whole part of a network has `.requires_grad_(False)`. The parts are `network.backbone` and `network.decoder`.

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
# Which matrix $W$ brings the rows $X$ ($M$ × $D$) closest to the wanted answers $T$ ($M$ × $P$), 1 or 0 for each class and pixel of a patch? With squared differences there is a formula; $I$ is the identity matrix, and a *penalty* $\lambda$ keeps $W$ small:
#
# $$W = (X^\top X + \lambda I)^{-1} X^\top T$$
#
# ### Exercise 2 · write
# `solve(X, T, penalty)` returns $W$ of shape ($D$, $P$). Do not invert a matrix: `torch.linalg.solve(A, B)` gives $A^{-1} B$, more exactly. `torch.eye(n, dtype=X.dtype)` is the identity.

# %%
solve = None


# solution
def ridge(X: torch.Tensor, T: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return the (D, P) matrix for which X W comes closest to T, with a penalty on its size."""
    return torch.linalg.solve(X.T @ X + penalty * torch.eye(X.shape[1], dtype=X.dtype), X.T @ T)


solve = ridge

# %%
gp.check("03/solve", solve)

# %% [markdown]
# What it showed: a probe can be solved, not only trained. The lesson goes on by another road, so as not to depend on your answer: least squares with rows more, $\sqrt{\lambda} I$, whose wanted answer is zero.


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


# %% [markdown]
# Now the same probe in the usual way: AdamW goes downhill in small steps.
#
# **Guess before you look.** How long will the steps take, and how long the formula? And what would a probe score on the features of a network that was **never trained**?

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
report = gp.evaluate(trained, chips).table["mIoU"]
table["trained, pretrained features"] = {"home": report.iloc[0], "away": report[away]}
del blank_rows  # its memory is wanted again
print("You guessed:", my_guess)
print(f"steps: {trained.seconds:.1f} s; formula, four penalties: {formula_seconds:.1f} s")
pd.DataFrame(table).T[["train", "val", "home", "away"]].round(3)

# %% [markdown]
# Both roads choose among the same linear maps; where the steps score less, they may not have arrived. Untrained features are a yardstick: what pretraining brings lies *above* that line.
#
# ## 3 · What each end costs
# One training step keeps the weights; a gradient for each *trained* weight; two more numbers that AdamW remembers about each trained weight; and the *activations*, results of the forward pass that the backward pass needs again.
#
# **Guess before you look.** How many times as large is a step of full fine-tuning, how many times as slow?

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

# %% [markdown]
# **Activations** of the probe are next to nothing: no error has to travel into the backbone. LoRA cannot have this: its adapters stand deep in the network. **Time:** backward takes two matrix products where forward takes one; the probe goes forward only.
#
# ### Exercise 3 · predict
# `step_bytes(trained, frozen)`: how many bytes do weights, gradients and AdamW's memory take, if all are 32-bit floats (4 bytes)? `trained` and `frozen` are numbers of weights. Leave the activations out.

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

# %%
large = gp.list_backbones().loc[["prithvi_eo_v1_100", "prithvi_eo_v2_300", "prithvi_eo_v2_600"]]
if my_bytes.passed:
    for name, number in large["parameters"].astype(int).items():
        low, high = step_bytes(0, number) / 1e9, step_bytes(number, 0) / 1e9
        print(f"{name}: probe {low:.1f} GB, full fine-tuning {high:.1f} GB")

# %% [markdown]
# What it showed: at the size of the paper's models the ends lie gigabytes apart, before a single activation.
#
# ## 4 · A learning rate for each end
# The two ends have different default rates. Why? AdamW divides each gradient by its usual size. So every trained weight moves by about the learning rate in each step, **however small its gradient is**. Compare that with the weights themselves:

# %%
pretrained = gp.load_backbone(model, bands=chips.bands)
sizes = [w.detach().abs().flatten() for w in pretrained.blocks.parameters() if w.ndim > 1]
size = float(torch.cat(sizes).median())
rates = [2e-4, 5e-3] if FAST else [2e-4, 1e-3, 5e-3, 2.5e-2]
print(f"half of the weights in the blocks are smaller than {size:.3f}")
for rate in rates:
    print(f"rate {rate:g}: one step can move a weight by {rate / size:.1%} of that")
gp.list_methods().loc[["linear_probe", method], ["lr"]]

# %% [markdown]
# The decoder starts from random numbers and has nothing to lose. In the backbone all layers move at once, away from values that took a long pretraining to find.
#
# **Guess before you look.** Which rate is best for which end? What does full fine-tuning score with the *probe's* default rate, at home and away: nearly the same, much less, or nothing?

# %%
my_guess = {"best for the probe": "?", "best for full": "?", "full at the probe's rate, away": "?"}

# %%
default = gp.list_methods().loc["linear_probe", "lr"]
runs, tried = {("linear_probe", default): trained}, []  # section 2 trained that one


def train(name: str, rate: float) -> None:
    """Train one end with one rate, and write down what came out."""
    if (name, rate) not in runs:
        options = {"lr": rate, "seed": seed, "dashboard": "text", **settings}
        runs[name, rate] = gp.fit(build(name, chips), chips, **options)
    run = runs[name, rate]
    scores = gp.evaluate(run, chips).table["mIoU"]
    row = {"method": name, "rate": rate, "val": run.best["val_miou"]}
    tried.append(row | {"home": scores.iloc[0], "away": scores[away]})


for rate in rates:
    train("linear_probe", rate)

# %%
for rate in rates[:2]:
    train(method, rate)

# %%
for rate in rates[2:]:
    train(method, rate)

# %% tags=["hide-input"]
sweep = pd.DataFrame(tried)
sweep.to_csv(out / "scores.csv", index=False)
figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
for name, colour, mark in (("linear_probe", "#009E73", "o"), (method, "#0072B2", "s")):
    part = sweep[sweep["method"] == name]
    for role, line in (("home", "-"), ("away", "--")):
        style = {"color": colour, "marker": mark, "mfc": colour if role == "home" else "white"}
        axes.plot(part["rate"], part[role], line, label=f"{name}, {role}", **style)
axes.set(xscale="log", xlabel="learning rate", ylabel="mIoU (0-1)", title="Score by rate")
axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
axes.minorticks_off()
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
gp.show(figure, alt=f"mIoU by learning rate, in the table below; {len(sweep)} runs.")
print("You guessed:", my_guess)
sweep.astype({"rate": str}).round(3)

# %% [markdown]
# *A score at home does not tell whether pretraining survived*: a simple task can be learnt anew.
#
# ### Exercise 4 · write
# Was the search wide enough? `too_narrow(rates, scores)`: True where the best score belongs to the smallest or the largest rate. The rates come in any order.

# %%
too_narrow = None


# solution
def at_the_edge(rates: list[float], scores: list[float]) -> bool:
    """Say whether the best rate is the smallest or the largest that was tried."""
    best = rates[max(range(len(rates)), key=lambda n: scores[n])]
    return best in (min(rates), max(rates))


too_narrow = at_the_edge

# %%
gp.check("03/too_narrow", too_narrow)

# %% [markdown]
# What it showed: a best rate at the edge is where the search ended, not where the best one is.
#
# Swipe between the two ends, each with the best of its rates on the validation chips:

# %%
best_row = sweep.loc[sweep.groupby("method")["val"].idxmax()].set_index("method")
for name, row in best_row.iterrows():
    edge = row["rate"] in (rates[0], rates[-1])
    print(f"{name}: best at {row['rate']:g},", "at the edge" if edge else "inside the search")
for role in ("home", "away"):
    ahead = best_row.loc["linear_probe", role] - best_row.loc[method, role]
    print(f"{role}: the probe minus {method} is {ahead:+.3f} mIoU, with one seed")
gp.map_regions({name: runs[name, rate] for name, rate in best_row["rate"].items()}, chips)

# %% [markdown]
# ## 5 · Moved is not forgotten
# On chips that training never saw, compare each patch's features before and after by the *cosine similarity*: 1 is the same direction; the grey line shows two patches at random. (The mean of all features is taken off first.)
#
# **Guess before you look.** Will the early or the late blocks move more? The features at home, or those away?

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
        after = features(runs[method, rate].model, sets[role], every_block)
        drift[rate, role] = [similarity(b, a) for b, a in zip(before, after, strict=True)]

# %% tags=["hide-input"]
colours = ["#56B4E9", "#0072B2", "#E69F00", "#D55E00"]
figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axes, (role, before) in zip(panels, untouched.items(), strict=True):
    for rate, colour, mark in zip(rates, colours, "osD^", strict=False):
        axes.plot(drift[rate, role], color=colour, marker=mark, label=f"{rate:g}")
    order = torch.randperm(len(before[0]), generator=torch.Generator().manual_seed(seed))
    shuffled = [similarity(b, b[order].flip(-1)) for b in before]
    axes.plot(shuffled, color="#7F7F7F", ls=":", label="another patch")
    axes.set(title=f"test chips, {role}", xlabel="block, first to last")
    axes.set_xticks(every_block, [number + 1 for number in every_block])
panels[0].set(ylabel="cosine similarity to pretrained", ylim=(-0.15, 1.03))
panels[1].legend(frameon=False, title="learning rate", loc="center left", bbox_to_anchor=(1, 0.5))
figure.savefig(out / "drift.png", dpi=110)
words = [f"{rate:g} at {role} {values[-1]:.2f}" for (rate, role), values in drift.items()]
gp.show(figure, alt=f"Similarity of features before and after; last block: {'; '.join(words)}.")
untouched.clear()  # its memory is wanted again

# %% [markdown]
# Has the network *forgotten*? Not yet: if all features are turned together like a map on a table, each of them moves and nothing is lost.
#
# ### Exercise 5 · mend a broken line
# Turn rows of features (M, D): all lengths and distances stay. A matrix of random numbers stretches them besides. `torch.linalg.qr` makes an orthogonal matrix of any square one.


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
# What it showed: turned features say the same to a fresh linear map; compare with section 2. So ask what **can still be read off**, with a question that fine-tuning knew nothing about: *land cover* on the synthetic planet of lesson 10. A fresh probe is solved in one climate, and read off there and in two that it has never seen.
#
# **Guess before you look.** Who reads land cover best: pretrained, fine-tuned or untrained features?

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
    readable[f"{method}, rate {rate:g}"] = land_cover(runs[method, rate].model)
climates = [*other.holdout]
memory = pd.DataFrame(readable).T[["home", *climates]]
memory.to_csv(out / "forgotten.csv")
print("You guessed:", my_guess)
memory.round(3)

# %% [markdown]
# Where home stays and away falls, something that held elsewhere was lost. One task, one planet, one seed: this shows how to measure forgetting, not how much there is.
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
# ## 6 · The same two ends in the paper
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
# The distance between the ends is a property of the task: small on floods, where water stands in the spectrum; large on cashew, with small plantations inside a patch. Below zero, the UNet did better.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("03")

# %% [markdown]
# ## What we have seen
# In this lesson we have gone to both ends of the ruler. A linear probe keeps almost no activations and can be solved by a formula. Full fine-tuning keeps three more numbers for each weight and the activations of every block, and moves the features. Moving is not forgetting: a fresh probe of another task tells the two apart.
#
# ## What to try next
# - `method = "lora"` in the parameters: where on the ruler does it lie?
# - `seed = 10`: which of your sentences survive?
# - Few labels: shorten `chips.train.chips`, and repeat what is left, so that every run takes the same number of steps. Who wins?
#
# ## How this differs at full scale
# With a GPU, set `model = "prithvi_eo_v2_300"` and `data = "sen1floods11"`; full fine-tuning then needs the gigabytes of exercise 3, and activations besides. The paper trains for up to 100 epochs with early stopping. How to compare carries over; who won here does not.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); tables: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Alain and Bengio, *Understanding intermediate layers using linear classifier probes*, [arXiv 1610.01644](https://arxiv.org/abs/1610.01644)
# - Kumar et al., *Fine-Tuning can Distort Pretrained Features*, [arXiv 2202.10054](https://arxiv.org/abs/2202.10054)
