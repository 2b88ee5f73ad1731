# %% [markdown]
# # 08 · Decoders: linear, FCN, UPerNet, UNet
# **One token describes a whole patch; a decoder has to say what stands in each of its pixels. Train four of them on the same backbone, and find out what thin creeks cost.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Explain* how each of four decoders gets from tokens to pixels.
# - *Write* the two steps in which most hand-made decoders go wrong.
# - *Predict* the memory of a decoder with LoRA, and *measure* it.
# - *Score* what is thin by itself, at home and away.
#
# ## Time to learn
# About 50 min, of which the computer needs about 3 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, what LoRA is | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Weights, gradients, optimiser, activations | helpful | [06 · Where does the memory go?](06_where_memory_goes.ipynb) |
# | Convolution and pooling | helpful | [Dive into Deep Learning, chapter 7](https://d2l.ai/chapter_convolutional-neural-networks/index.html) |

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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same cells with one epoch and fewer chips, to see whether all works: read nothing off its scores.

# %% tags=["parameters"]
model = "geopeft_tiny"  # a plain transformer that gp.list_backbones() lists
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # what happens to the backbone, the same under all four decoders
epochs = 6
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with one epoch and fewer chips
out_dir = None  # folder for scores, map and figures; None takes a temporary one

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from torch.nn import functional

import geopeft_nb as gp

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {
    "epochs": 1 if FAST else epochs,
    "batch_size": batch_size,
    "seed": seed,
    "device": device,
}
MB, GIB = 1e6, 2**30  # bytes

# %% tags=["nbval-check-output"]
chips = gp.load_data(data)
if FAST:
    for part in (chips.train, chips.val, chips.test, *chips.holdout.values()):
        part.chips[:] = part.chips[::6]
away = next(iter(chips.holdout))
backbone = gp.load_backbone(model, bands=chips.bands)
rows, columns = backbone.grid(chips.size, chips.size)
side, width = backbone.patch_size, backbone.channels[-1]
pixel = chips.card.resolution  # metres
print(f"A chip of {chips.size} x {chips.size} pixels becomes {rows} x {columns} tokens:")
print(f"{width} numbers for {side} x {side} pixels, which are {side * pixel:.0f} m on the ground")

# %% [markdown]
# ## 1 · One token, many pixels
# Here is the test chip whose labels change most often from pixel to pixel, and the grid of its patches. Each square is one token. The label comes from a rule (lesson 01): does it lack a creek or an islet that you see?


# %% tags=["hide-input"]
def changes(mask: torch.Tensor) -> int:
    """Count neighbours of which one is land and the other water."""
    pairs = (mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])
    return sum(int(((a != b) & (a >= 0) & (b >= 0)).sum()) for a, b in pairs)


def picture(sample: dict) -> torch.Tensor:
    """Return (H, W, 3) in true colour."""
    rgb = sample["image"][[chips.bands.index(band) for band in ("RED", "GREEN", "BLUE")]]
    low, high = rgb.flatten(1).quantile(torch.tensor([0.02, 0.98]), dim=1)  # band by band
    return ((rgb.movedim(0, -1) - low) / (high - low)).clip(0, 1)


# %% tags=["hide-input"]
crooked = max(chips.test, key=lambda sample: changes(sample["mask"]))
colours = ListedColormap(chips.colours).with_extremes(under="#9A9A9A")
figure, panels = plt.subplots(1, 2, figsize=(8.4, 4.4), layout="constrained")
panels[0].imshow(picture(crooked))
panels[1].imshow(crooked["mask"], cmap=colours, vmin=0, vmax=len(chips.classes) - 1)
for axes, title in zip(panels, ("image", "label"), strict=True):
    lines = np.arange(side, chips.size, side) - 0.5
    axes.hlines(lines, -0.5, chips.size - 0.5, color="white", lw=0.6)
    axes.vlines(lines, -0.5, chips.size - 0.5, color="white", lw=0.6)
    axes.set(title=title, xticks=[], yticks=[], xlabel=f"{chips.size} pixels of {pixel:.0f} m")
for name, colour in [*zip(chips.classes, chips.colours, strict=True), ("no label", "#9A9A9A")]:
    panels[1].plot([], [], "s", color=colour, label=name)
figure.legend(loc="outside lower center", ncols=3, frameon=False)
figure.suptitle(f"A chip of {crooked['region']}, and its patches of {side} x {side} pixels")
gp.show(figure, alt="A chip in true colour and its label, under a grid of patches.")

# %% [markdown]
# The plainest decoder is **linear**: from the numbers of a token straight to a score for each class and pixel of its patch. It never looks at neighbours.
#
# ### Exercise 1 · predict
# How many weights does it have here, biases included (one for each class)? Work it out before you ask a network.

# %%
linear_weights = None
# solution
linear_weights = width * side * side * len(chips.classes) + len(chips.classes)


# %%
def make_network(decoder: str, attached: str = method, **options: object) -> torch.nn.Module:
    """Put a decoder on a fresh pretrained backbone and attach a method."""
    backbone = gp.load_backbone(model, bands=chips.bands)
    network = gp.build_model(backbone, chips, decoder=decoder, seed=seed, **options)
    return gp.attach(network, attached, seed=seed)


gp.check("08/linear_weights", linear_weights, network=make_network("linear"))

# %% [markdown]
# What it showed: a linear decoder grows with the *square* of the patch's side, and all that it knows about a pixel has to stand in one token.
#
# ### Exercise 2 · mend a broken line
# Its last step lays scores out as pixels. Channel `k * p * p + i * p + j` of a token is the score of class `k` for the pixel in row `i` and column `j` of its patch. The line below gives the right shape, trains, and is wrong.


# %%
def pour(scores: torch.Tensor, p: int) -> torch.Tensor:
    """Lay scores of tokens (B, K * p * p, h, w) out as pixels (B, K, h * p, w * p)."""
    batch, channels, h, w = scores.shape
    return scores.reshape(batch, channels // (p * p), h * p, w * p)  # mend this line


paint = pour


# solution
def paint_patches(scores: torch.Tensor, p: int) -> torch.Tensor:
    """Take the channels apart, and bring rows to rows and columns to columns."""
    batch, channels, h, w = scores.shape
    parts = scores.reshape(batch, channels // (p * p), p, p, h, w)
    return parts.permute(0, 1, 4, 2, 5, 3).reshape(batch, -1, h * p, w * p)


paint = paint_patches

# %%
my_paint = gp.check("08/paint", paint)
my_paint

# %% [markdown]
# The label above, cut into tokens and laid out again by your function:

# %% tags=["hide-input"]
if my_paint.passed:
    label = crooked["mask"].clamp(min=0)[None, None].float()
    laid_out = paint(functional.pixel_unshuffle(label, side), side)[0, 0]
    figure, panels = plt.subplots(1, 2, figsize=(6.4, 3.4), layout="constrained")
    for axes, mask, title in zip(panels, (label[0, 0], laid_out), ("before", "after"), strict=True):
        axes.imshow(mask, cmap=colours, vmin=0, vmax=len(chips.classes) - 1)
        axes.set(title=title, xticks=[], yticks=[])
    right = (laid_out == label[0, 0]).float().mean()
    figure.suptitle(f"{right:.0%} of the pixels are where they were")
    gp.show(figure, alt=f"A label before and after; {right:.0%} of its pixels are where they were.")

# %% [markdown]
# What it showed: a shape that fits proves nothing about where the pixels went.
#
# ## 2 · Four ways up
#
# | decoder | reads | how it gets to pixels | in the paper |
# |---|---|---|---|
# | linear | deepest map | one linear map for each token | as here |
# | FCN | deepest map | doubles the size again and again, with convolutions | 512 channels, 4 doublings |
# | UPerNet | four maps | averages the whole image at four scales, then adds maps from coarse to fine | 256 channels |
# | UNet | four maps | doubles the size, and joins the map of that size each time | 512, 256, 128, 64 channels |
#
# *In the paper*: `configs/decoders` in the authors' repository. A convolutional network halves its maps again and again, so it has four sizes. A plain transformer has one, so a *learned pyramid* takes the outputs of four blocks, at the quarters of its depth, and makes one four times finer, one twice finer, one twice coarser. Its fine maps are made of tokens. What no token kept of a patch, no decoder can bring back.
#
# ### Exercise 3 · write
# The step that makes a UNet: `join(coarse, fine)`. Bring `coarse` (B, C, h, w) to height and width of `fine` (B, E, H, W) by nearest neighbour, and stack both: (B, C + E, H, W), coarse first. Sides may be odd.

# %%
join = None


# solution
def join_maps(coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Resize to the finer map, and put the features of both side by side."""
    larger = functional.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
    return torch.cat([larger, fine], dim=1)


join = join_maps

# %%
gp.check("08/join", join)

# %% [markdown]
# What it showed: a UNet *keeps* the fine map beside the coarse one and lets convolutions choose; UPerNet adds, so both have to agree on what a feature means.
#
# ## 3 · What it costs
# Here the decoders are narrow, so that one core trains all four in minutes; the last figure of this section plans them as the paper has them.
#
# **Guess before you look.** Order the four by weights, and by the memory of a training step. Is it the same order?

# %%
my_guess = {"by weights": "?", "by memory": "?"}

# %%
options = {
    "linear": {},
    "fcn": {"channels": 64},
    "upernet": {"channels": 64},
    "unet": {"channels": (128, 64, 32, 32)},
}
networks = {name: make_network(name, **given) for name, given in options.items()}
full = {name: make_network(name, "full", **given) for name, given in options.items()}
plans = {name: gp.memory_plan(network, batch_size) for name, network in full.items()}
weights = {name: sum(p.numel() for p in n.decoder.parameters()) for name, n in full.items()}
costs = pd.DataFrame({"decoder's weights": weights})
full = None  # gives its memory back
costs["a step of full (MB)"] = {name: round(plan.total / MB, 1) for name, plan in plans.items()}
print("You guessed:", my_guess)
costs

# %% [markdown]
# ### Exercise 4 · predict
# These are steps of *full* fine-tuning. For the linear decoder, the next cell plans LoRA as well. What will a step keep with LoRA under an **FCN**, in bytes?

# %%
lora_linear = gp.memory_plan(networks["linear"], batch_size)
full_linear, full_fcn = plans["linear"], plans["fcn"]
for name, plan in (("lora_linear", lora_linear), ("full_linear", full_linear)):
    print(f"{name}.total = {plan.total:,}")
print(f"full_fcn.total = {full_fcn.total:,}")

# %%
lora_fcn = None
# solution
lora_fcn = full_fcn.total - (full_linear.total - lora_linear.total)

# %%
given = {"lora_linear": lora_linear, "full_linear": full_linear, "full_fcn": full_fcn}
gp.check("08/lora_fcn", lora_fcn, network=networks["fcn"], batch_size=batch_size, **given)

# %% [markdown]
# What it showed: LoRA saves in the backbone, the same bytes under every decoder. Now all four, planned and measured:

# %%
rows = {}
for name, network in networks.items():
    plan = gp.memory_plan(network, batch_size)
    measured = gp.measure_memory(network, batch_size, device="cpu")
    rows[name] = {
        "decoder's share of what is trained (%)": 100 * weights[name]
        / sum(p.numel() for p in network.parameters() if p.requires_grad),
        "planned (MB)": plan.total / MB,
        "measured (MB)": measured.total / MB,
        f"{method} saves of full (%)": 100 * (1 - plan.total / plans[name].total),
    }  # fmt: skip
costs = costs.join(pd.DataFrame(rows).T)
off = (costs["planned (MB)"] - costs["measured (MB)"]).abs().max()
print(f"plan and measurement differ by {off:.3f} MB at most")
costs.round(1)

# %% [markdown]
# The more a decoder *keeps*, the smaller the share that a method saves, however many weights it has; and most of "what is trained" may be decoder. Whoever quotes one of these percentages has to name the decoder.
#
# The same at full scale: Prithvi-EO 2.0 with 300 million weights, decoders as wide as in the paper, 224 × 224 pixels, on torch's *meta device*, where nothing is computed. Which decoder keeps most now? (Fast mode takes the model with 100 million.)

# %%
large = "prithvi_eo_v1_100" if FAST else "prithvi_eo_v2_300"


def plan_large(decoder: str, attached: str) -> pd.Series:
    """Plan a step of the large model: bytes of decoder and backbone."""
    with torch.device("meta"):
        backbone = gp.load_backbone(large, weights=None, bands=chips.bands)
        network = gp.build_model(backbone, chips, decoder=decoder, metadata=False)
        table = gp.memory_plan(gp.attach(network, attached), batch_size, 224).table["total"]
    decoding = table.index.str.contains("decoder|loss|pyramid")
    return pd.Series({"decoder": table[decoding].sum(), "backbone": table[~decoding].sum()})


kinds = [(decoder, kind) for decoder in options for kind in ("full", "lora")]
kinds = kinds[1::6] if FAST else kinds

large_plans = pd.DataFrame({f"{d}, {kind}": plan_large(d, kind) / GIB for d, kind in kinds}).T

# %% tags=["hide-input"]
looks = ["#E69F00", "#0072B2"]
axes = large_plans[["backbone", "decoder"]].plot.barh(
    stacked=True, figsize=(8.5, 3.4), color=looks[::-1]
)
axes.invert_yaxis()
axes.set(xlabel="memory kept by one step (GiB)", ylabel="")
axes.set_title(f"{large}, {batch_size} chips of 224 x 224 pixels, planned")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
axes.figure.savefig(out / "large.png", dpi=110, bbox_inches="tight")
words = [f"{name} {total:.1f} GiB" for name, total in large_plans.sum(axis=1).items()]
gp.show(axes.figure, alt=f"Stacked bars of the memory of a step: {'; '.join(words)}.")

# %% [markdown]
# ## 4 · Train and watch
# The same backbone, method, chips, seed and learning rate; only the decoder differs. (The live view counts in MiB, 1.05 MB.) **Guess before you look:** which decoder is best at home, which away, and which finds most of the thin water?

# %%
my_guess = {"best at home": "?", "best away": "?", "most of the thin water": "?"}

# %%
runs = {"linear": gp.fit(networks["linear"], chips, **settings)}

# %% [markdown]
# The next two print a line for each epoch:

# %%
runs["fcn"] = gp.fit(networks["fcn"], chips, dashboard="text", **settings)

# %%
runs["upernet"] = gp.fit(networks["upernet"], chips, dashboard="text", **settings)

# %%
runs["unet"] = gp.fit(networks["unet"], chips, **settings)

# %% [markdown]
# ## 5 · What is thin?
# mIoU counts pixels, and most lie far from any shore. So score by itself what is narrower than `n` pixels.
#
# ### Exercise 5 · write
# `thin(mask, number, n)`: which pixels of class `number` lie in **no** n × n square that is free of other classes? `mask` is (H, W), −1 is *no label* and may be anything, so it does not make things thin; `n` is odd. Return a tensor (H, W), True or False. (`functional.max_pool2d(x, n, 1, n // 2)` of an `x` (1, H, W) lets ones grow, and `-max_pool2d(-x, …)` lets them shrink. First one, then the other.)

# %%
thin = None


# solution
def narrow(mask: torch.Tensor, number: int, n: int) -> torch.Tensor:
    """Shrink, then grow: what does not come back is thin."""
    body = ((mask == number) | (mask < 0)).float()[None]
    core = -functional.max_pool2d(-body, n, 1, n // 2)
    wide = functional.max_pool2d(core, n, 1, n // 2)[0] > 0
    return (mask == number) & ~wide


thin = narrow

# %%
my_thin = gp.check("08/thin", thin)
my_thin

# %% [markdown]
# What it showed: shrinking and growing again, an *opening*, takes away what is narrower than its square, and leaves the shores of wide water alone.

# %%
places = {"home": chips.test, "away": chips.holdout[away]}
NARROW = 5  # pixels


def found_thin(run: object, dataset: object) -> dict[str, float]:
    """Return the share of each class' thin pixels that a run gets right."""
    samples, share = list(dataset), {}
    guessed = [torch.as_tensor(mask) for mask in run.model.predict(samples)]
    for number, name in enumerate(chips.classes):
        pairs = [
            (thin(s["mask"], number, NARROW), g) for s, g in zip(samples, guessed, strict=True)
        ]
        hits = sum(int((mask[where] == number).sum()) for where, mask in pairs)
        share[f"thin {name}"] = hits / max(1, sum(int(where.sum()) for where, _ in pairs))
    return share


# %%
rows, reports = {}, {}
for name, run in runs.items():
    reports[name] = gp.evaluate(run, chips)
    table = reports[name].table
    for role, dataset in places.items():
        row = table[table["role"] == role].filter(regex="^(mIoU|IoU )").mean().to_dict()
        row |= found_thin(run, dataset) if my_thin.passed else {}
        rows[role, name] = row | {"s per epoch": run.seconds / settings["epochs"]}
scores = pd.DataFrame(rows).T.sort_index(level=0, ascending=False, sort_remaining=False)
scores.rename_axis(["where", "decoder"]).to_csv(out / "scores.csv")
print("You guessed:", my_guess)
scores.round(3)

# %% [markdown]
# `thin water` and `thin land` are the shares of thin pixels that are found. Read them together: whoever calls everything water finds all thin water, and no dike.

# %%
words = [f"{where} {name} {row['mIoU']:.2f}" for (where, name), row in scores.iterrows()]
comparison = gp.compare(reports)
gp.show(comparison.plot(), alt=f"mIoU with intervals: {'; '.join(words)}.")


# %% [markdown]
# The crooked chip again:

# %% tags=["hide-input"]
figure, panels = plt.subplots(2, 3, figsize=(8.4, 6.2), layout="constrained")
shown = {"image": picture(crooked), "label": crooked["mask"]}
shown |= {name: run.model.predict([crooked])[0] for name, run in runs.items()}
for axes, (title, picture_of) in zip(panels.flat, shown.items(), strict=True):
    axes.imshow(picture_of, cmap=colours, vmin=0, vmax=len(chips.classes) - 1)
    axes.set(title=title, xticks=[], yticks=[])
for name, colour in [*zip(chips.classes, chips.colours, strict=True), ("no label", "#9A9A9A")]:
    panels[1, 0].plot([], [], "s", color=colour, label=name)
figure.legend(loc="outside lower center", ncols=3, frameon=False)
figure.suptitle(
    f"One chip of {crooked['region']} ({chips.size * pixel / 1000:.2f} km), four decoders"
)
figure.savefig(out / "close.png", dpi=110)
gp.show(figure, alt="A chip, its label, and the predictions of four decoders.")

# %% [markdown]
# On the map, the plainest beside the one that the paper recommends. Move the bar over creeks and shores.

# %%
two, where = {name: runs[name] for name in ("linear", "unet")}, [away] if FAST else []
region_map = gp.map_regions(two, chips, regions=where)
region_map.save(out / "map.png")
region_map

# %% [markdown]
# **Who won?** With the interval of the difference, as in lesson 01:


# %%
def verdict(region: str) -> str:
    """Say which decoder scored highest, and whether zero lies in the interval."""
    order = comparison.table.loc[region, "mIoU"].sort_values(ascending=False)
    first, second = order.index[:2]
    pairs = comparison.differences.loc[region]
    row = pairs.loc[(first, second) if (first, second) in pairs.index else (second, first)]
    unsure = row["low"] <= 0 <= row["high"]
    words = "zero is inside: other places may say otherwise" if unsure else "zero is outside"
    plain = " The plainest decoder won." if first == "linear" else ""
    return (
        f"{first} {order[first]:.3f}, then {second} {order[second]:.3f}; interval of the "
        f"difference {row['low']:+.3f} to {row['high']:+.3f}, {words}. "
        f"UNet is number {[*order.index].index('unet') + 1} of {len(order)}.{plain}"
    )


for region, role in reports["unet"].table["role"].items():
    print(f"{region} ({role}): {verdict(region)}")
if my_thin.passed:
    for role in places:
        most = scores.loc[role].filter(like="thin").idxmax()
        print(f"{role}: most of the", " and of the ".join(f"{w} by {d}" for w, d in most.items()))

# %% [markdown]
# One seed, two scenes, one learning rate for all, labels from a rule: read the *costs* off this lesson, not a ranking.
#
# ### What the paper says
# Its abstract recommends "UNet decoders and fine-tuning without metadata". The scores behind that are not among the authors' published tables. Published are linear decoders on Prithvi 2.0 (300M), and a whole UNet that nobody pretrained. Test mIoU (%), means of several runs:

# %%
columns = ["Burn scars", "Cashew", "SA crops", "reBEN 7k", "reBEN away", "Floods", "Floods away"]
published = {
    "Prithvi 2.0, LoRA, linear": (93.3, 77.5, 40.3, 38.8, 30.2, 90.0, 87.6),
    "Prithvi 2.0, full, linear": (92.8, 80.6, 39.7, 37.4, 28.1, 90.1, 82.1),
    "UNet, not pretrained": (89.3, 81.8, 35.0, 34.6, 25.4, 90.7, 87.8),
}
paper = pd.DataFrame.from_dict(published, orient="index", columns=columns)
ahead = [name for name in columns if paper[name].idxmax() == "UNet, not pretrained"]
print("The UNet without any pretraining is ahead on:", ", ".join(ahead))
paper

# %% [markdown]
# (*Floods*: Sen1Floods11, away Bolivia; *reBEN away*: Austria and Ireland.) Source: [IBM/peft-geofm](https://github.com/IBM/peft-geofm), `data/peft_table.csv` and `data/ood_table.csv`. Do fine maps explain this? Perhaps, but the fine maps of this UNet come from *pixels*, not from tokens.
#
# ### Exercise 6 · open challenge
# With `make_network`, make a network whose decoder reads four maps (`gp.list_decoders()`), and whose step keeps **less than 1.5 times** what the linear decoder's keeps.

# %%
slim = None
# solution
slim = make_network("unet", channels=(32, 16, 8, 8))

# %%
limit = int(1.5 * lora_linear.total)
my_slim = gp.check("08/slim", slim, limit=limit, batch_size=batch_size, method=method)
my_slim

# %%
if my_slim.passed:
    runs["yours"] = gp.fit(slim, chips, dashboard="text", **settings)
    mine = gp.evaluate(runs["yours"], chips).table.groupby("role")["mIoU"].mean()
    for role in places:
        others = scores.loc[role, "mIoU"]
        beaten = ", ".join(others.index[others < mine[role]]) or "none"
        print(f"{role}: yours {mine[role]:.3f}, above {beaten}")

# %% [markdown]
# What it showed: fine maps and many channels are two things, and most of a UNet's price is the second.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("08")

# %% [markdown]
# ## What we have seen
# In this lesson we have put four decoders on one backbone. A decoder's weights say little about its memory, PEFT cannot shrink what the decoder keeps, and thin things have to be scored by themselves.
#
# ## What to try next
# - `seed = 1` in the parameters: which verdict survives?
# - `method = "linear_probe"`: frozen tokens, so that the decoder is all that learns. Who gains most from fine maps now?
# - Decoders at their own width: empty `options` in section 3, and mind the minutes.
# - Thin things count more: `gp.fit(..., class_weights="balanced")`.
#
# ## How this differs at full scale
# The paper's chips have 128 to 512 pixels and patches of 8 or 16, its decoders are as wide as in the table of section 2, and each case has a searched learning rate and several seeds. On a GPU, set `model = "prithvi_eo_v2_300"`.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); settings and tables: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Long et al., *Fully Convolutional Networks*, [arXiv 1411.4038](https://arxiv.org/abs/1411.4038); Ronneberger et al., *U-Net*, [arXiv 1505.04597](https://arxiv.org/abs/1505.04597); Xiao et al., *Unified Perceptual Parsing* (UPerNet), [arXiv 1807.10221](https://arxiv.org/abs/1807.10221)
# - Bao et al., *BEiT* (the learned pyramid), [arXiv 2106.08254](https://arxiv.org/abs/2106.08254)
# - [Documentation of segmentation-models-pytorch](https://smp.readthedocs.io)
