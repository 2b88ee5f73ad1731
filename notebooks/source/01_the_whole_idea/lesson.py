# %% [markdown]
# # 01 · The whole idea in one sitting
# **Load a geospatial foundation model, attach LoRA, train it while you watch, judge it in a region whose labels it has never seen, and look at it on a map.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Load* a pretrained backbone and real Sentinel-2 scenes.
# - *Attach* three fine-tuning methods and *count* what each one trains.
# - *Read* the live view of a training run: loss, score and memory.
# - *Compare* scores at home and in a region that was held out.
# - *Explain* on a map where a model fails.
#
# ## Time to learn
# About 45 min, of which the computer needs about 3 min on a CPU with two cores. A GPU is used where there is one.
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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same lesson with fewer epochs.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # the method that you watch first
epochs = 10
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with fewer epochs
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
# You will train in one region and ask whether the model still works in another. With the scenes that ship, that is from an Atlantic coast to inland lakes, partly frozen and partly under clouds. Each scene is cut into *chips*, small squares that the model takes one at a time. The home region is split into training, validation and test **by place**: neighbouring chips look alike, and a test next door would be too easy. The other region is held out as a whole.

# %% tags=["nbval-check-output"]
chips = gp.load_data(data)
print(chips)

# %% [markdown]
# Read the last line: nobody surveyed the ground. A model can only be as right as its labels, so keep that in mind when scores look high. How the shipped labels were made stands in `data/scenes/README.md`; the rule has other thresholds in each scene, so part of a drop from home to away comes from the labels and not from the model.
#
# *Held out* means: held out of fine-tuning. `geopeft_tiny` saw the pixels of both scenes when it was pretrained, without labels (`data/models/README.md`). A region that it never saw at all would be harder.
#
# Two chips from home and two from away, and their labels. Grey pixels carry no label (cloud, doubtful shore) and count neither in training nor in scores.

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
# A *backbone* has learnt from imagery without labels, here by rebuilding images of which three quarters were hidden, and in the end by learning from the features of a larger model (`data/models/README.md`). `geopeft_tiny` has the architecture of Prithvi-EO at a size that a laptop can train. It cuts an image into patches and describes each patch by a list of numbers, a *token*. A stack of *blocks* then refines the tokens: in each block, *attention* lets tokens look at each other through queries, keys and values, and two *feed-forward* layers (fc1, fc2) work on each token by itself.

# %% tags=["nbval-check-output"]
backbone = gp.load_backbone(model, bands=chips.bands)
rows, columns = backbone.grid(chips.size, chips.size)
print(f"{backbone.card.title}: {sum(p.numel() for p in backbone.parameters()):,} weights")
print(f"bands: {', '.join(backbone.bands)}")
print(f"a chip of {chips.size} x {chips.size} pixels becomes {rows} x {columns} tokens")

# %% [markdown]
# `provenance` says which file the weights came from. Note it down whenever a result matters.

# %%
backbone.provenance

# %% [markdown]
# ## 3 · Attach a method
# On top of the backbone sits a *decoder* that turns tokens into classes; here it is one linear layer. The decoder always has to learn. The question is what happens to the backbone:
#
# - **Linear probe**: the backbone stays as it is.
# - **Full fine-tuning**: every weight of the backbone may change.
# - **LoRA** (low-rank adaptation): the pretrained weights $W$ stay, and beside some of them a thin detour learns, $W x + \frac{\alpha}{r} B A x$. $A$ squeezes the input to $r$ numbers, $B$ brings them back to full width; together they are the *adapter*, and $\alpha / r$ scales it (1 here). $B$ starts at zero, so before training the network computes what it computed without LoRA. As in the paper that this toolkit follows, the detours stand at queries, values and both feed-forward layers of every block, with $r = 16$.
#
# **Guess before you look.** Which share of all weights will LoRA train, decoder included? Which method will score best at home, and which one away? Write it down; nobody checks.

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
# ### Exercise 1
# Which share of **all** weights does the network train, as a number between 0 and 1? Use `network.parameters()`: each parameter knows its `.numel()`, and whether it `.requires_grad`.

# %%
trainable_share = None
# solution
weights = list(network.parameters())
trainable = sum(p.numel() for p in weights if p.requires_grad)
trainable_share = trainable / sum(p.numel() for p in weights)

# %%
gp.check("01/trainable_share", trainable_share, model=network)

# %% [markdown]
# The same, part by part:

# %%
gp.parameter_table(network)

# %% [markdown]
# ## 4 · Train and watch
# Three panels follow the training: the loss; the validation score, mIoU, which says how well prediction and label overlap (1 is perfect); and the memory that one step takes, beside that of the runs before. Below them are four validation chips and one from the region that is held out: image, label and prediction. *Stop and keep best* ends the run early with the best weights so far, and so does the kernel's ■.

# %%
runs = {method: gp.fit(network, chips, **settings)}

# %% [markdown]
# A run remembers every step in a table, so that each curve can be drawn again. Here are the ends of the epochs:

# %%
history = runs[method].history.dropna()
history[["epoch", "seconds", "train_loss", "val_loss", "val_miou"]].round(3)

# %% [markdown]
# Now the other methods, each on a fresh network. Each has a learning rate of its own, which `gp.list_methods()` lists: few new weights stand larger steps than all pretrained ones. The paper searched a rate for every model, data set and method; here they are fixed.

# %%
others = [name for name in ("linear_probe", "lora", "full") if name != method]
runs[others[0]] = gp.fit(make_network(others[0]), chips, **settings)

# %%
runs[others[1]] = gp.fit(make_network(others[1]), chips, **settings)

# %% [markdown]
# ## 5 · One table
# *Home* are the test chips of the home region, *away* is the region that was held out. Memory comes in two numbers. `step` counts what one training step keeps, in 32-bit floats: the weights; a gradient for each trained weight; two more numbers that the optimiser AdamW remembers for each of them; and the *activations*, results of the forward pass that the backward pass needs. `peak` is what the process grew by at most while it trained (or the most that tensors took on a GPU, where one trains): it adds short-lived results, the best weights so far and whatever the system did not take back. The adapter file is what you would send to somebody who has the backbone already.

# %%
names = ["linear_probe", "lora", "full"]
reports = {name: gp.evaluate(runs[name], chips) for name in names}
reports["lora"].table[["role", "chips", "places", "mIoU", "low", "high"]].round(3)

# %% [markdown]
# That is the report of LoRA; `low` and `high` are the ends of a 95 % interval, which section 6 explains. Now all methods side by side:

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
# A method whose best epoch is the last would have gone on improving. Now for the cost:

# %%
lora, full = runs["lora"], runs["full"]
saved = 1 - lora.memory["total"] / full.memory["total"]
print(f"LoRA keeps {saved:.0%} less memory per step than full fine-tuning here,")
print(f"and took {lora.seconds / full.seconds:.2f} times its seconds, in this one run.")

# %% [markdown]
# - **Memory.** Frozen weights need no gradient, and the optimiser remembers nothing about them. Most activations stay, because the error has to travel back through the frozen layers to reach the adapters; some of them this toolkit's LoRA computes again in the backward pass instead of keeping them (lesson 04). So the saving depends on how large the activations are beside the weights: larger chips and batches make it smaller.
# - **Time.** LoRA spares the gradients of the frozen weights and adds the small products with A and B. Seconds on a shared machine vary from run to run.
# - **What the authors say.** The paper's abstract announces less memory *and* less training time. Its [project page](https://github.com/IBM/peft-geofm) puts the memory at 30 % less. In the timings published there, LoRA needed on average 0.94 (Clay), 0.99 (Prithvi 2.0, 300M) and 1.12 (Prithvi 1.0) times the training time of full fine-tuning, so it saved next to none. "72 % less memory and 65 % less time", which you may meet elsewhere, stands in none of the authors' files that we know.
#
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
# A score is an estimate from the places that were looked at. The bars are 95 % intervals from a *bootstrap*: draw places again and again with replacement, and score each draw. They say how far the score depends on the places. They say nothing about the luck of training, for which you need other seeds.

# %%
words = [f"{n} {table.miou_home[n]} at home and {table.miou_away[n]} away" for n in names]
gp.show(gp.plot_reports(list(reports.values())), alt=f"mIoU with intervals: {'; '.join(words)}.")

# %% [markdown]
# Bars that overlap do not settle a comparison: both methods were scored on the same places, and what makes a place hard for both cancels out. So draw places for the *difference*. If its interval leaves out zero, the places at least are no excuse.

# %%
reports["lora"].compare(reports["full"]).round(3)

# %% [markdown]
# ### An honest baseline: one number
# Water is dark in the short-wave infrared. The index MNDWI = (GREEN − SWIR_1) / (GREEN + SWIR_1) (Xu, 2006) is therefore high over water. Choose the threshold that scores best on the training chips, and apply it in both regions: no network, one number.

# %%
green, swir = chips.bands.index("GREEN"), chips.bands.index("SWIR_1")


def threshold_miou(dataset: list, threshold: float) -> float:
    """Score the rule: water is where MNDWI is above the threshold."""
    image = torch.stack([sample["image"] for sample in dataset])
    label = torch.stack([sample["mask"] for sample in dataset]).numpy()
    index = (image[:, green] - image[:, swir]) / (image[:, green] + image[:, swir] + 1e-6)
    return float(mean_iou(confusion(label, (index > threshold).numpy(), 2, chips.ignore_index)))


best = max(np.linspace(-0.6, 0.8, 71), key=lambda value: threshold_miou(chips.train, value))
for role, dataset in (("home", chips.test), ("away", chips.holdout[away])):
    print(f"MNDWI above {best:.2f}: mIoU {threshold_miou(dataset, best):.3f} {role}")
print("the labels:", chips.card.labels)

# %% [markdown]
# Does the number beat your networks? It has an unfair advantage on the shipped scenes: their labels were made with thresholds on this very index and one other, so the rule is nearly the label itself. The network has a handicap besides: one token has to describe all pixels of a patch, which may cost fine shores and small lakes. Look for them on the map. A baseline like this belongs in every comparison.
#
# ### Exercise 2
# How much mIoU does your first run lose away from home? Give home minus away, with three decimals, from `reports[method].table`.

# %%
region_gap = None
# solution
scores = reports[method].table.set_index("role")["mIoU"]
region_gap = scores["home"] - scores["away"]

# %%
gp.check("01/region_gap", region_gap, report=reports[method])

# %% [markdown]
# ## 7 · On the map
# First a figure that stays in the notebook: image, label, prediction, and where they differ. Below it the same as maps to move in: choose what lies left and right of the bar, and fade it with the slider. Look for the *kind* of place where the network fails. Shallow water? Wet soil? Shadow?

# %%
region_map = gp.map_regions(runs[method], chips)
region_map.save(out / "map.png")
region_map

# %% [markdown]
# ### Exercise 3
# Make a network with a *smaller* LoRA, of rank 4, with `make_network`. Everything of the pretrained backbone has to stay frozen.

# %%
small_network = None
# solution
small_network = make_network("lora", r=4)

# %%
gp.check("01/frozen_backbone", small_network, rank=4)

# %% [markdown]
# If you like, train it as above: does it score worse?

# %% [markdown]
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("01")

# %% [markdown]
# ## What we have seen
# In this lesson we have loaded a pretrained backbone and real scenes, attached a linear probe, LoRA and full fine-tuning, watched them train, and judged each at home and in a region that was held out, with intervals and on a map. LoRA trains a small share of the weights and its file is small. What it saves in memory is gradients and optimiser state.
#
# ## What to try next
# - Set `seed = 1` in the parameters and run again: which differences survive?
# - Train in the other region: in section 1, `chips = gp.load_data("scenes", train_regions=["brandenburg"])`. Few places are left for its test, so its score at home says little.
# - Give LoRA a lower learning rate: `gp.fit(make_network("lora"), chips, lr=1e-4, **settings)`.
#
# ## How this differs at full scale
# The paper fine-tunes models of 100 and 300 million weights on five benchmarks with hundreds to thousands of chips, each with several seeds. There the activations weigh differently against the weights, and so does what LoRA saves. Here are two scenes whose labels follow a rule: no ranking of methods can be read off them. `gp.load_backbone` knows those models (`gp.list_backbones()` lists them), for a machine with a GPU; `geopeft_tiny` shares their architecture.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); project page with timings: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)
# - He et al., *Masked Autoencoders Are Scalable Vision Learners*, [arXiv 2111.06377](https://arxiv.org/abs/2111.06377)
# - Xu, *Modification of normalised difference water index (NDWI) to enhance open water features in remotely sensed imagery*, International Journal of Remote Sensing 27 (2006)
# - [Documentation of peft](https://huggingface.co/docs/peft)
