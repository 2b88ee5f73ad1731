# %% [markdown]
# # 01 · The whole idea in one sitting
# **Load a geospatial foundation model, attach LoRA, train it while you watch, judge it in a region whose labels it has never seen, and look at it on a map.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Load* a pretrained backbone and real Sentinel-2 scenes.
# - *Attach* three methods and *count* what each one trains.
# - *Compare* scores at home and in a held-out region.
# - *Explain* on a map where a model fails.
#
# ## Time to learn
# About 45 min, of which the computer needs about 2 min on a CPU with two cores. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Python and arrays | necessary | [NumPy for beginners](https://numpy.org/doc/stable/user/absolute_beginners.html) |
# | Training a network: loss, epoch, learning rate | helpful | [PyTorch: learn the basics](https://docs.pytorch.org/tutorials/beginner/basics/intro.html) |
# | Satellite bands and reflectance | helpful | [torchgeo's glossary](https://torchgeo.readthedocs.io/en/stable/user/glossary.html) |

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
# Change what you like in the next cell. `FAST = True` runs the same cells with fewer chips and epochs, to see whether all works: read nothing off its scores.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # the method that you watch first
epochs = 10
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with fewer chips and epochs
out_dir = None  # folder for scores, map and adapters; None takes a temporary one

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

import geopeft_nb as gp
from geopeft_nb.files import data_folder
from geopeft_nb.pictures.show import PALETTE
from geopeft_nb.tasks import confusion, mean_iou

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {
    "epochs": 2 if FAST else epochs,
    "batch_size": batch_size,
    "seed": seed,
    "device": device,
}

# %% [markdown]
# ## 1 · Two places on Earth
# You train in one region, an Atlantic coast, and ask whether the model still works in another: inland lakes, partly frozen or under clouds. Each scene is cut into small squares, *chips*. The home region is split into training, validation and test **by place**: a test next door would be too easy. The other region is held out as a whole.

# %% tags=["nbval-check-output"]
chips = gp.load_data(data)
print(chips)
if FAST:
    for part in (chips.train, chips.val):
        part.chips[:] = part.chips[::3]

# %% [markdown]
# Mind the line on labels: nobody surveyed the ground. They follow a rule with other thresholds in each scene, so part of a drop from home to away comes from them. *Held out* means: of fine-tuning. `geopeft_tiny` saw the pixels of both scenes in pretraining, without labels.
#
# Two chips from home and two from away. Grey pixels carry no label (cloud, doubtful shore) and count neither in training nor in scores.

# %%
away = next(iter(chips.holdout))


def mixed(dataset: list, count: int) -> list:
    """Return samples that show both classes."""
    found = [s for s in dataset if 0.2 < (s["mask"] == 1).float().mean() < 0.8]
    return found[:: max(1, len(found) // count)][:count]


samples = mixed(chips.test, 2) + mixed(chips.holdout[away], 2)

# %%
rgb = [chips.bands.index(band) for band in ("RED", "GREEN", "BLUE")]
stretch = {}
for dataset in (chips.test, chips.holdout[away]):
    pixels = torch.stack([sample["image"][rgb] for sample in dataset])
    pixels = pixels.movedim(1, -1).flatten(0, 2)[::7]  # every seventh is enough for quantiles
    stretch[dataset[0]["region"]] = [pixels.quantile(q, dim=0) for q in (0.02, 0.98)]

# %%
colours = ListedColormap(chips.colours).with_extremes(under="#9A9A9A")
figure, axes = plt.subplots(2, 4, figsize=(10, 5.4), layout="constrained")
for (top, bottom), sample in zip(axes.T, samples, strict=True):
    image = sample["image"][rgb].permute(1, 2, 0)
    low, high = stretch[sample["region"]]
    top.imshow(((image - low) / (high - low)).clip(0, 1))
    bottom.imshow(sample["mask"], cmap=colours, vmin=0, vmax=1)
    top.set(title=sample["region"], xticks=[], yticks=[])
    kilometres = chips.size * chips.card.resolution / 1000
    bottom.set(xlabel=f"{chips.size} pixels, {kilometres:.1f} km", xticks=[], yticks=[])
named = [*zip(chips.classes, chips.colours, strict=True), ("no label", "#9A9A9A")]
handles = [Patch(color=colour, label=name) for name, colour in named]
figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
figure.suptitle("Red, green and blue, stretched alike within a region, and the labels")
gp.show(figure, alt="Four chips in red, green and blue above their labels of land and water.")

# %% [markdown]
# ## 2 · Load a foundation model
# A *backbone* has learnt from imagery without labels (lesson 02). `geopeft_tiny` has the architecture of Prithvi-EO at a size for laptops. It cuts an image into patches and describes each by a list of numbers, a *token*. A stack of *blocks* then refines the tokens: in each, *attention* lets tokens look at each other through queries, keys and values, and two *feed-forward* layers (fc1, fc2) work on each token by itself.

# %% tags=["nbval-check-output"]
backbone = gp.load_backbone(model, bands=chips.bands)
rows, columns = backbone.grid(chips.size, chips.size)
print(f"{backbone.card.title}: {sum(p.numel() for p in backbone.parameters()):,} weights")
print(f"bands: {', '.join(backbone.bands)}")
print(f"a chip of {chips.size} x {chips.size} pixels becomes {rows} x {columns} tokens")

# %%
backbone.provenance  # which file the weights came from: note it down when a result matters

# %% [markdown]
# ## 3 · Attach a method
# On top of the backbone sits a *decoder* that turns tokens into classes; here it is one linear layer. It always has to learn. The question is what happens to the backbone:
#
# - **Linear probe**: the backbone stays as it is.
# - **Full fine-tuning**: every weight of the backbone may change.
# - **LoRA** (low-rank adaptation): the pretrained weights $W$ stay, and beside some of them a thin detour learns, $W x + \frac{\alpha}{r} B A x$. $A$ squeezes the input to $r$ numbers (the *rank*), $B$ brings them to the width of the output; together they are the *adapter*. You choose $r$ and $\alpha$, a scale; here both are 16. $B$ starts at zero, so before training nothing changes. As in the paper, the detours stand at queries, values and both feed-forward layers of every block.
#
# **Guess before you look.** Which share of all weights will LoRA train, decoder included? Which method will score best at home, and away?

# %%
my_guess = {"share that LoRA trains": "?", "best at home": "?", "best away": "?"}


# %%
def make_network(method: str, **options: object) -> torch.nn.Module:
    """Put a decoder on a fresh pretrained backbone and attach a method."""
    backbone = gp.load_backbone(model, bands=chips.bands)
    network = gp.build_model(backbone, chips, decoder="linear", seed=seed)
    return gp.attach(network, method, seed=seed, **options)


network = make_network(method)

# %% [markdown]
# ### Exercise 1 · predict
# fc1 of one block takes 192 numbers to 768. How many numbers does LoRA of rank 16 train beside it, A and B together?

# %%
beside_fc1 = None
# solution
beside_fc1 = 16 * 192 + 768 * 16  # A squeezes 192 to 16, B brings 16 to 768

# %%
gp.check("01/beside_fc1", beside_fc1)

# %% [markdown]
# What it showed: the layer itself has 192 × 768 = 147,456 weights, ten times as many.
#
# ### Exercise 2 · write
# Which share of **all** weights does the network train, from 0 to 1? Each of `network.parameters()` knows its `.numel()`, and whether it `.requires_grad`.

# %%
trainable_share = None
# solution
weights = list(network.parameters())
trainable = sum(p.numel() for p in weights if p.requires_grad)
trainable_share = trainable / sum(p.numel() for p in weights)

# %%
gp.check("01/trainable_share", trainable_share, model=network)

# %% [markdown]
# What it showed: what is trained is not the adapter alone:

# %%
gp.parameter_table(network)

# %% [markdown]
# ## 4 · Train and watch
# Three panels follow the training: the loss; the validation score, mIoU, which says how well prediction and label overlap (1 is perfect); and the memory of a step, in MiB (1.05 MB). Below them are chips: image, label and prediction. *Stop and keep best* ends the run early with the best weights so far.

# %%
runs = {method: gp.fit(network, chips, **settings)}

# %% [markdown]
# Now the other methods, each on a fresh network, with the learning rate that `gp.list_methods()` lists for it: few new weights stand larger steps than all pretrained ones.

# %%
others = [name for name in ("linear_probe", "lora", "full") if name != method]
runs[others[0]] = gp.fit(make_network(others[0]), chips, **settings)

# %%
runs[others[1]] = gp.fit(make_network(others[1]), chips, **settings)

# %% [markdown]
# ## 5 · One table
# *Home* are the test chips of the home region, *away* is the region that was held out. A training `step` keeps the weights; a gradient for each trained weight; two more numbers for each of them, which the optimiser AdamW remembers; and the *activations*, results of the forward pass that the backward pass needs. `peak` is what the process grew by at most. The adapter file is what you would send to somebody who has the backbone.

# %%
names = ["linear_probe", "lora", "full"]
reports = {name: gp.evaluate(runs[name], chips) for name in names}
reports["lora"].table[["role", "chips", "places", "mIoU", "low", "high"]].round(3)

# %% [markdown]
# That is the report of LoRA (`low` and `high`: section 6). Now all methods:

# %%
rows = []
for name in names:
    run, score = runs[name], reports[name].table.groupby("role")["mIoU"].mean()
    files = gp.save_adapter(run, out / name).glob("[abd]*.safetensors")
    rows.append(
        {
            "method": name,
            "trainable_parameters": gp.parameter_table(run.model).loc["total", "trainable"],
            "adapter_bytes": sum(file.stat().st_size for file in files),
            "seconds": round(run.seconds, 1),
            "step_bytes": run.memory["total"],
            "peak_bytes": run.memory["peak"],
            "miou_home": round(score["home"], 3),
            "miou_away": round(score["away"], 3),
            "best_epoch": int(run.best["epoch"]),
        }
    )
table = pd.DataFrame(rows).set_index("method")
table.to_csv(out / "scores.csv")

# %%
sizes = table[["adapter_bytes", "step_bytes", "peak_bytes"]] / 1e6
sizes.columns = ["adapter file (MB)", "step (MB)", "peak (MB)"]
counts = table.drop(columns=["adapter_bytes", "step_bytes", "peak_bytes"])
print("You guessed:", my_guess)
counts.join(sizes.round(1))

# %% [markdown]
# Where a method's best epoch is the last, it may not have been finished.
#
# ### Exercise 3 · write
# Of the bytes that LoRA *spares* against full fine-tuning, which share are activations? Write `spared(lora, full)`. Both are dictionaries of bytes: `weights`, `gradients`, `optimiser`, `activations`, and `total`, their sum.

# %%
spared = None


# solution
def share_of_activations(lora: dict, full: dict) -> float:
    """Return which share of the spared bytes are activations."""
    return (full["activations"] - lora["activations"]) / (full["total"] - lora["total"])


spared = share_of_activations


# %%
my_spared = gp.check("01/spared", spared)
my_spared

# %%
lora, full = runs["lora"], runs["full"]
saved = 1 - lora.memory["total"] / full.memory["total"]
print(f"LoRA keeps {saved:.0%} less memory per step than full fine-tuning here,")
if my_spared.passed:
    activations = float(spared(lora.memory, full.memory))
    print(f"{activations:.0%} of that are activations,")
    assert model != "geopeft_tiny" or activations < 0.1, (
        "the text below says that nearly none of it is"
    )
print(f"and took {lora.seconds / full.seconds:.2f} times its seconds, in this one run.")

# %% [markdown]
# What it showed: nearly all that is spared here is gradients and what the optimiser remembers. The activations stay, because the error has to travel back to the adapters; so larger chips and batches make the saving smaller (lesson 06).
#
# **What the authors say.** The paper's abstract announces less memory *and* less training time. Their [published times](https://github.com/IBM/peft-geofm), LoRA divided by full fine-tuning, mean of five data sets (above 1, LoRA took longer):

# %%
times = pd.read_csv(data_folder() / "published/times.csv")
wide = times.pivot_table(index=["model", "dataset"], columns="method", values="total_time")
(wide["LoRA"] / wide["Full FT"]).dropna().groupby("model").mean().round(2)  # 1: as long

# %% [markdown]
# Where the memory of a step goes:

# %%
memory = pd.DataFrame({n: {p: runs[n].memory[p] / 1e6 for p in PALETTE} for n in names}).T
axes = memory.plot.barh(stacked=True, figsize=(8, 2.6), color=PALETTE)
axes.set(xlabel=f"MB kept in one step of {batch_size} chips", title="Where the memory goes")
axes.invert_yaxis()
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
words = [f"{n} {memory.loc[n].sum():.0f} MB" for n in names]
gp.show(axes.figure, alt=f"Stacked bars of the memory of a training step: {', '.join(words)}.")

# %% [markdown]
# ## 6 · Home and away
# The bars are 95 % intervals from a *bootstrap*: draw places again and again with replacement, and score each draw. They cover the choice of places, and not the luck of training: that takes other seeds.

# %%
words = [f"{n} {table.miou_home[n]} at home and {table.miou_away[n]} away" for n in names]
gp.show(gp.plot_reports(list(reports.values())), alt=f"mIoU with intervals: {'; '.join(words)}.")

# %% [markdown]
# Bars that overlap do not settle a comparison: what makes a place hard for both methods cancels out. So draw places for the *difference*, here LoRA minus full. If zero lies outside its interval, the choice of places does not explain it.

# %%
reports["lora"].compare(reports["full"]).round(3)

# %% [markdown]
# ### Exercise 4 · read
# How much mIoU does your first run lose away from home? Give home minus away, with three decimals, from `reports[method].table`.

# %%
region_gap = None
# solution
scores = reports[method].table.set_index("role")["mIoU"]
region_gap = scores["home"] - scores["away"]

# %%
gp.check("01/region_gap", region_gap, report=reports[method])

# %% [markdown]
# What it showed: a score at home is no promise elsewhere.
#
# ### An honest baseline: one number
# Water is dark in the short-wave infrared, so the index MNDWI = (GREEN − SWIR_1) / (GREEN + SWIR_1) (Xu, 2006) is high over it. The threshold that scores best on the training chips is applied in both regions: no network, one number.
#
# ### Exercise 5 · mend a broken line
# The line below has two mistakes. Water should come out near 1, and no value outside −1 to 1.


# %%
def broken(green: torch.Tensor, swir: torch.Tensor) -> torch.Tensor:
    """Return the index of each pixel."""
    return (swir - green) / green + swir  # mend this line


mndwi = broken


# solution
def mended(green: torch.Tensor, swir: torch.Tensor) -> torch.Tensor:
    """Return the index of each pixel."""
    return (green - swir) / (green + swir)


mndwi = mended

# %%
gp.check("01/mndwi", mndwi)


# %%
def index_and_label(dataset: list) -> tuple[np.ndarray, np.ndarray]:
    """Return MNDWI and label of each pixel."""
    image = torch.stack([sample["image"] for sample in dataset])
    green, swir = (image[:, chips.bands.index(band)] for band in ("GREEN", "SWIR_1"))
    index = (green - swir) / (green + swir + 1e-6)
    return index.numpy(), torch.stack([sample["mask"] for sample in dataset]).numpy()


def rule_miou(index: np.ndarray, label: np.ndarray, threshold: float) -> float:
    """Score the rule: water is where the index is above the threshold."""
    return float(mean_iou(confusion(label, index > threshold, 2, chips.ignore_index)))


# %%
known = index_and_label(chips.train)
best = max(np.linspace(-0.6, 0.8, 15), key=lambda threshold: rule_miou(*known, threshold))
for role, dataset in (("home", chips.test), ("away", chips.holdout[away])):
    rule, column = rule_miou(*index_and_label(dataset), best), table[f"miou_{role}"]
    first = "the rule wins" if rule > column.max() else f"{column.idxmax()} wins"
    print(f"{role}: MNDWI above {best:.2f} scores {rule:.3f}, the networks", end=" ")
    print(f"{column.min():.3f} to {column.max():.3f}: {first}")
print("the labels:", chips.card.labels)

# %% [markdown]
# What it showed: a baseline like this belongs in every comparison. It has an unfair advantage here: the labels were made with thresholds on this very index and one other.
#
# ## 7 · On the map
# Below the figure are the same layers as maps: choose what lies left and right of the bar, and swipe. Look for the *kind* of place where a network fails. Shallow water? Wet soil? Shadow?

# %%
two, where = {"LoRA": runs["lora"], "full": runs["full"]}, [away] if FAST else []
region_map = gp.map_regions(two, chips, regions=where)
region_map.save(out / "map.png")
region_map

# %% [markdown]
# **Who won?** In one run, of one seed:

# %%
for role in ("home", "away"):
    column = table[f"miou_{role}"].sort_values(ascending=False)
    ahead = column.iloc[0] - column.iloc[1]
    print(f"{role}: {column.index[0]} is first, {ahead:.3f} before {column.index[1]}")
    if column.index[0] == "linear_probe":
        print("  The simplest method wins: the backbone did not have to change.")

# %% [markdown]
# Water differs in its spectrum, so a linear probe has a fair chance. Harder tasks follow in lesson 03.
#
# ### Exercise 6 · open challenge
# With `make_network`, make a *smaller* LoRA: its adapter trains at most a quarter of the weights that the first one did, and the pretrained backbone stays frozen. `gp.list_methods().loc["lora", "options"]` names what you can set.

# %%
small_network = None
# solution
small_network = make_network("lora", r=4)

# %%
limit = gp.parameter_table(make_network("lora")).loc["adapter", "trainable"] // 4
gp.check("01/frozen_backbone", small_network, limit=limit)

# %% [markdown]
# What it showed: the rank, and how many layers have a detour, set the size.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("01")

# %% [markdown]
# ## What we have seen
# In this lesson we have loaded a pretrained backbone and real scenes, attached three methods, watched them train, and judged each at home and away. LoRA trains a small share of the weights. What it saves is gradients and optimiser state; the activations stay.
#
# ## What to try next
# - Set `seed = 1` in the parameters and run again: which differences survive?
# - Train in the other region: in section 1, `chips = gp.load_data("scenes", train_regions=["brandenburg"])`.
# - Train the smaller LoRA of exercise 6. Does it score worse?
#
# ## How this differs at full scale
# The paper fine-tunes models of 100 and 300 million weights on five benchmarks, each with several seeds. Here are two scenes whose labels follow a rule: no ranking of methods can be read off them.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397)
# - Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)

# - Xu, *Modification of normalised difference water index (NDWI) to enhance open water features in remotely sensed imagery* (2006)
# - [Documentation of peft](https://huggingface.co/docs/peft)
