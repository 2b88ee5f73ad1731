# %% [markdown]
# # 05 · Prompts and adapters: VPT, bottleneck adapter, ViT-Adapter
# **Write visual prompts and a bottleneck adapter, look into a ViT-Adapter, and find out what each costs and what it brings.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Name* four places where a frozen network can be changed, and *say* which of them start neutral.
# - *Write* deep prompts and a bottleneck adapter in about eight lines each.
# - *Predict* what prompts cost on small and on large images, and *measure* it.
# - *Compare* a run of your own with a published table, and *say* where they disagree.
#
# ## Time to learn
# About 60 min, of which the computer needs about 3 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, what LoRA is | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | `nn.Module`, `nn.Parameter` | necessary | [PyTorch: build the neural network](https://docs.pytorch.org/tutorials/beginner/basics/buildmodel_tutorial.html) |
# | Attention: queries, keys, values | helpful | [Dive into Deep Learning, chapter 11](https://d2l.ai/chapter_attention-mechanisms-and-transformers/index.html) |

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
model = "geopeft_tiny"  # a transformer that gp.list_backbones() lists, for one image at a time
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "vpt"  # this lesson trains five methods; the name is here as in all lessons
epochs = 6
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with one epoch and an eighth of the chips
out_dir = None  # folder for the table and a figure; None takes a temporary one

# %%
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyBboxPatch
from torch import nn
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.benchmark.report import METHODS, published_scores
from geopeft_nb.files import data_folder
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.pictures.chips import picture_of
from geopeft_nb.tasks import confusion, mean_iou

out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {
    "epochs": 1 if FAST else epochs,
    "batch_size": batch_size,
    "seed": seed,
    "device": device,
}
runs = {}  # method -> its training run
linear = {"decoder": "linear"}
unet = {"decoder": "unet", "channels": (64, 32, 16, 16)}  # a slim one; section 4 uses it
place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"  # for measurements

# %% tags=["nbval-check-output"]
chips = gp.load_data(data)
if FAST:
    for part in (chips.train, chips.val, chips.test, *chips.holdout.values()):
        part.chips[:] = part.chips[::8]
away = next(iter(chips.holdout))
print(chips)


def make_network(method: str, decoder: dict = linear, **options: object) -> nn.Module:
    """Put a decoder on a fresh pretrained backbone and attach a method."""
    if method == "adapter":
        options = {"kind": "serial"} | options  # behind the layers, as in the drawing
    backbone = gp.load_backbone(model, bands=chips.bands)
    network = gp.build_model(backbone, chips, seed=seed, **decoder)
    return gp.attach(network, method, seed=seed, **options)


# %% [markdown]
# ## 1 · Four ways into a frozen network
# LoRA changes *weights*. A frozen network can also be bent by
#
# - its **input**: learned tokens, *prompts*, beside those of the image (visual prompt tuning, VPT);
# - small layers **between** its layers: a *bottleneck adapter*;
# - a network **beside** it that trades features with it: *ViT-Adapter*.
#
# One block of a transformer, and where each of them enters. Grey is frozen.


# %% tags=["hide-input"]
def box(axes: plt.Axes, x: float, y: float, wide: float, text: str, colour: str) -> None:
    """Draw a box with words, centred at (x, y)."""
    style = {"boxstyle": "round,pad=0.02", "facecolor": colour, "edgecolor": "#444444"}
    axes.add_patch(FancyBboxPatch((x - wide / 2, y - 0.2), wide, 0.4, **style))
    dark = colour in ("#0072B2", "#A8456E", "#00795A")
    axes.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")


def arrow(axes: plt.Axes, start: tuple, end: tuple, colour: str = "#444444") -> None:
    """Draw an arrow between two points."""
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6}, zorder=0.5
    )


prompt_blue, lora_pink, adapter_orange, branch_green = "#0072B2", "#A8456E", "#E69F00", "#00795A"


# %% tags=["hide-input"]
def draw_inside(axes: plt.Axes) -> None:
    """Draw the layers of a block, and what stands between or beside them."""
    for x, words in ((2.6, "attention"), (6.9, "MLP")):
        around = [x - 1.5, x - 1.5, x + 2.1, x + 2.1]
        axes.plot(around, [2, 2.55, 2.55, 2], color="#999999", lw=1.2)
        axes.text(x + 0.5, 2.62, "plus what came in", fontsize=8, color="#666666")
        box(axes, x - 0.75, 2, 0.8, "norm", "#DDDDDD")
        box(axes, x + 0.35, 2, 1.0, words, "#DDDDDD")
        box(axes, x + 0.35, 3.2, 1.0, "LoRA", lora_pink)
        arrow(axes, (x + 0.35, 2.98), (x + 0.35, 2.24), lora_pink)
        box(axes, x + 1.5, 2, 0.9, "adapter", adapter_orange)


# %% tags=["hide-input"]
def draw_around(axes: plt.Axes) -> None:
    """Draw what meets the tokens before and after a block."""
    for x, wide, words in ((0.2, 1.0, "n prompts"), (10.0, 1.4, "cut off again")):
        box(axes, x, 3.2, wide, words, prompt_blue)
    arrow(axes, (0.2, 2.98), (0.2, 2.1), prompt_blue)
    arrow(axes, (10.0, 2.1), (10.0, 2.98), prompt_blue)
    words = "convolutional branch: maps with 4, 8, 16 and 32 pixels per cell"
    box(axes, 5.1, 0.5, 10.2, words, branch_green)
    arrow(axes, (0.45, 0.75), (0.45, 1.95), branch_green)
    arrow(axes, (9.4, 1.95), (9.4, 0.75), branch_green)
    style = {"fontsize": 8.5, "color": branch_green}
    axes.text(0.55, 1.2, "injector: details\nto the tokens", **style)
    axes.text(9.3, 1.2, "extractor: tokens\nto the maps", ha="right", **style)


# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(11, 4.2), layout="constrained")
arrow(axes, (0, 2), (11, 2))
axes.text(-0.1, 1.95, "tokens", fontsize=9, ha="right")
draw_inside(axes)
draw_around(axes)
axes.set(xlim=(-0.9, 11.2), ylim=(0, 3.7), title="One frozen block, and four ways to change it")
axes.axis("off")
words = (
    "Prompts join the tokens before a block and leave after it; LoRA stands beside the layers in "
)
words += (
    "attention and MLP, adapters behind both; a convolutional branch below trades features with "
)
gp.show(figure, alt=f"{words}the tokens by an injector and an extractor.")

# %%
compared = ["vpt", "adapter", "vit_adapter", "lora", "linear_probe"]
gp.list_methods().loc[compared[:-1], ["trains", "merges", "citation"]]

# %% [markdown]
# Only LoRA *merges* into the weights after training: $W + BA$ is a matrix again.
#
# **Guess before anything is trained.** With a linear decoder: which of the five is best at home, which away, and whose step takes longest? Does a UNet decoder help ViT-Adapter more than LoRA?

# %%
my_guess = {"best at home": "?", "best away": "?", "slowest": "?", "UNet helps more": "?"}

# %% [markdown]
# ## 2 · Prompts: change the input
# In attention every token collects from all others. VPT (Jia et al., 2022) learns $n$ tokens that the image did not bring: put them beside the tokens, run the block, cut them off.
#
# ### Exercise 1 · write
# A class with `__init__(self, block, prompts)` and `forward(self, tokens)`. `block` is pretrained; freeze it. `prompts` is a start value (1, n, D); only prompts learn. `tokens` and the result are (B, N, D). (`torch.cat([a, b], dim=1)` puts tokens side by side, `tensor.expand(B, -1, -1)` repeats without copying.)

# %%
PromptedBlock = None


# solution
class Prompted(nn.Module):
    """A frozen block that also sees prompts (1, n, D)."""

    def __init__(self, block: nn.Module, prompts: torch.Tensor) -> None:
        super().__init__()
        self.block = block.requires_grad_(False)
        self.prompts = nn.Parameter(prompts)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Refine (B, N, D) to (B, N, D)."""
        prompts = self.prompts.expand(len(tokens), -1, -1)
        refined = self.block(torch.cat([tokens, prompts], dim=1))
        return refined[:, : tokens.shape[1]]


PromptedBlock = Prompted

# %%
batch = [chips.train[i] for i in range(batch_size)]
image = torch.stack([sample["image"] for sample in batch])
label = torch.stack([sample["mask"] for sample in batch])
backbone = gp.load_backbone(model, bands=chips.bands).eval()
my_block = gp.check("05/prompted_block", PromptedBlock, block=backbone.blocks[0])
my_block

# %% [markdown]
# What it showed: prompts change what a block computes without changing a weight, and leave after it.
#
# ### Exercise 2 · mend a broken line
# *Deep* prompts: every block gets its own. Below, each block's prompts stay for the blocks behind it.


# %%
def piling_up(blocks: list, prompts: list, tokens: torch.Tensor) -> torch.Tensor:
    """Run tokens (B, N, D) through blocks, each with prompts (1, n, D) of its own."""
    for block, own in zip(blocks, prompts, strict=True):
        both = torch.cat([tokens, own.expand(len(tokens), -1, -1)], dim=1)
        tokens = block(both)  # mend this line
    return tokens


deep = piling_up


# solution
def cut_each_time(blocks: list, prompts: list, tokens: torch.Tensor) -> torch.Tensor:
    """Run tokens (B, N, D) through blocks, each with prompts (1, n, D) of its own."""
    for block, own in zip(blocks, prompts, strict=True):
        both = torch.cat([tokens, own.expand(len(tokens), -1, -1)], dim=1)
        tokens = block(both)[:, : tokens.shape[1]]
    return tokens


deep = cut_each_time

# %%
gp.check("05/deep", deep)

# %% [markdown]
# What it showed: with 100 prompts a block, the broken form ends with more prompts than tokens of the image.
#
# ### Exercise 3 · predict
# LoRA begins with $B = 0$: untrained, it changes nothing. Which others start neutral? The way up of an adapter starts at zero; prompts start at random, and so do the layers that make ViT-Adapter's maps. Say True or False.

# %%
neutral = {"lora": ..., "adapter": ..., "vpt": ..., "vit_adapter": ...}
# solution
neutral = {"lora": True, "adapter": True, "vpt": False, "vit_adapter": False}


# %%
def change_before_training(method: str, **options: object) -> float:
    """Return how far a new method moves the last map, as a share of the map's own length."""
    network = make_network(method, **options).eval()
    with torch.no_grad():
        changed = network.backbone(backbone.normalise(image))[-1]
        pretrained = backbone(backbone.normalise(image))[-1]
    pretrained = functional.interpolate(pretrained, changed.shape[-2:])  # onto ViT-Adapter's grid
    return float((changed - pretrained).norm() / pretrained.norm())


start = {name: change_before_training(name) for name in neutral}
my_neutral = gp.check("05/neutral", neutral, changes=start)
if my_neutral.passed:
    start["vpt, 10 prompts"] = change_before_training("vpt", prompts=10)
    print(pd.Series(start).map("{:.1%}".format).to_string())
my_neutral

# %% [markdown]
# What it showed: having learnt nothing is not the same as doing nothing. No value would make a prompt invisible, because a token always takes a share of the attention.


# %%
def step_loss(network: nn.Module, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the loss of one batch."""
    logits = network.to(place)(image.to(place))
    return functional.cross_entropy(logits, label.to(place), ignore_index=chips.ignore_index)


def activations(network: nn.Module, image: torch.Tensor, label: torch.Tensor) -> int:
    """Return the bytes of results that one step keeps for its backward pass."""
    return training_bytes(network, lambda: step_loss(network, image, label))["activations"]


# %%
def seconds(networks: dict, image: torch.Tensor, label: torch.Tensor, rounds: int = 3) -> dict:
    """Time a step of each network, in turn; return the fastest of each."""
    times = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            begin = time.perf_counter()
            step_loss(network, image, label).backward()
            if place == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - begin)
            network.zero_grad()  # gives the memory of the gradients back
    return {name: min(values) for name, values in times.items()}


# %% [markdown]
# ### What prompts cost
# With $N$ tokens of the image, a block works on $N + n$ tokens, and attention compares $(N + n)^2$ pairs.
#
# ### Exercise 4 · write
# `growth(tokens, prompts)` returns two factors: by how much tokens grow, and by how much pairs.

# %%
growth = None


# solution
def factors(tokens: int, prompts: int) -> tuple[float, float]:
    """Return the factors on tokens and on pairs of tokens."""
    factor = (tokens + prompts) / tokens
    return factor, factor**2


growth = factors

# %%
gp.check("05/growth", growth)

# %% [markdown]
# A chip of 64 px has 8 × 8 = 64 patches here; 512 px in patches of 16, as in the paper, make 1,024. By what factor do 100 prompts stretch a training step, compared with a single one, at 64 tokens? And at 1,024?

# %%
few = {n: make_network("vpt", prompts=n).train() for n in (1, 100)}
rows = []
for larger, chips_at_once in ((1, 4), (4, 1)):
    wide_image = functional.interpolate(image[:chips_at_once], scale_factor=larger)
    wide_label = label[:chips_at_once].repeat_interleave(larger, 1).repeat_interleave(larger, 2)
    number = int(np.prod(backbone.grid(*wide_image.shape[-2:])))
    times = seconds(few, wide_image, wide_label, rounds=1 if FAST else 5)
    kept = {n: activations(network, wide_image, wide_label) for n, network in few.items()}
    row = {"image (px)": wide_image.shape[-1], "tokens of the image": number}
    row |= {"tokens, times": (number + 100) / (number + 1)}
    row |= {"pairs, times": ((number + 100) / (number + 1)) ** 2}
    row |= {"step time, times": times[100] / times[1], "activations, times": kept[100] / kept[1]}
    rows.append(row)
few = None  # frees networks that are not needed any more
pd.DataFrame(rows).set_index("tokens of the image").style.format(precision=2)

# %% [markdown]
# What it showed: "VPT is cheap" means nothing without the number of tokens. Train it, and watch:

# %%
runs["vpt"] = gp.fit(make_network("vpt"), chips, **settings)

# %% [markdown]
# ## 3 · A bottleneck adapter: small layers between
# An adapter squeezes the D features of a token down to $w$, bends them, and brings them up again: $y + W_\mathrm{up}\,\sigma(W_\mathrm{down}\,y)$. The *serial* one (Houlsby et al., 2019) stands behind attention and behind the MLP; $y$ is their output.
#
# ### Exercise 5 · write
# A class with `__init__(self, layer, width, bottleneck)` and `forward(self, x)`. It freezes `layer`, runs it, and adapts what comes out. `width` is D, `bottleneck` is $w$; both new layers are `nn.Linear` with a bias, the way up starts at zero, and σ is `functional.gelu`. (`nn.init.zeros_(tensor)` sets zeros.)

# %%
Adapted = None


# solution
class AdaptedLayer(nn.Module):
    """A frozen layer with a bottleneck behind it."""

    def __init__(self, layer: nn.Module, width: int, bottleneck: int) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, N, D) to (B, N, D)."""
        y = self.layer(x)
        return y + self.up(functional.gelu(self.down(y)))


Adapted = AdaptedLayer

# %%
gp.check("05/bottleneck", Adapted, layer=backbone.blocks[0].attn)

# %% [markdown]
# What it showed: zeros on the way up make a neutral start, and because of the bend no matrix can take the adapter in. Train one behind every attention and MLP, a line an epoch:

# %%
runs["adapter"] = gp.fit(make_network("adapter"), chips, dashboard="text", **settings)

# %% [markdown]
# ## 4 · ViT-Adapter: a network beside
# ViT-Adapter (Chen et al., 2023) puts a small convolutional network beside the transformer, the *spatial prior*. Four times on the way they trade: an *injector* adds details of its maps to the tokens, an *extractor* brings the maps up to date. In the end there are **four maps instead of one**.

# %% tags=["nbval-check-output"]
beside = make_network("vit_adapter", decoder=unet).eval()
parts = {
    "spatial prior": beside.backbone.spm,
    "injectors and extractors": beside.backbone.interactions,
}
for name, part in parts.items():
    print(f"{name}: {sum(p.numel() for p in part.parameters()):,} weights")
with torch.no_grad():
    for stride, features in zip(
        beside.backbone.strides, beside.backbone(backbone.normalise(image)), strict=True
    ):
        print(f"{stride} px per cell: {features.shape[2]} x {features.shape[3]} cells")

# %% [markdown]
# ### Why resolution may matter for thin water
# Suppose every cell of a map says one class, that of most of its pixels. How good can it be? *Thin* means water narrower than five pixels.


# %% tags=["nbval-check-output"]
def best_possible(mask: torch.Tensor, cell: int) -> torch.Tensor:
    """Give every cell (of so many pixels a side) of masks (B, H, W) its most frequent class."""
    water = functional.avg_pool2d((mask == 1).float()[:, None], cell)
    land = functional.avg_pool2d((mask == 0).float()[:, None], cell)
    return functional.interpolate((water > land).float(), scale_factor=cell)[:, 0].long()


def thin_water(mask: torch.Tensor) -> torch.Tensor:
    """Return the water that no square of 5 x 5 water pixels covers."""
    dry = (mask != 1).float()[:, None]
    core = 1 - functional.max_pool2d(dry, 5, 1, padding=2)  # centres of squares full of water
    return (mask == 1) & (functional.max_pool2d(core, 5, 1, padding=2)[:, 0] == 0)


masks = torch.stack([sample["mask"] for sample in [*chips.test, *chips.holdout[away]]])
thin = thin_water(masks)
print(f"{thin.sum() / (masks == 1).sum():.1%} of the water is thin")
for cell in (1, 4, 8, 16, 32):
    best = best_possible(masks, cell)
    score = mean_iou(confusion(masks.numpy(), best.numpy(), 2, chips.ignore_index))
    found = (best[thin] == 1).float().mean()
    print(f"{cell:2} px per cell: mIoU at most {score:.3f}, thin water found {found:.0%}")

# %% [markdown]
# That bounds coarse answers only: a decoder may paint many pixels from one token. Of ViT-Adapter's four maps a **linear** decoder, as in the paper's configurations, reads the last, with 32 pixels per cell. A **UNet** takes in all four. Train both:

# %%
runs["vit_adapter"] = gp.fit(make_network("vit_adapter"), chips, dashboard="text", **settings)

# %%
network = make_network("vit_adapter", decoder=unet)
runs["vit_adapter, unet"] = gp.fit(network, chips, dashboard="text", **settings)

# %% [markdown]
# ### Look at its four maps
# Each coloured by its first principal component, the direction in which its cells differ most. Do you find the thin water in the finest? In the coarsest?

# %% tags=["hide-input"]
wide = gp.load_data(data, size=128)
scenes = [*wide.test, *wide.holdout[away]]
kinds = torch.stack([sample["mask"] for sample in scenes])
creek = scenes[int(thin_water(kinds).sum(dim=(1, 2)).argmax())]  # the chip with most thin water
seen, _ = picture_of(creek["image"].numpy(), chips.bands)
scenes = kinds = None


def component(features: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the first principal component of a map (D, h, w), as (h, w)."""
    if stride == 4:  # each of the four positions of the 2 x 2 kernel that made it has its own mean
        kernels = features.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        features = (kernels - kernels.mean(dim=(1, 3), keepdim=True)).flatten(3, 4).flatten(1, 2)
    cells = features.flatten(1).T
    left, size, _ = torch.linalg.svd(cells - cells.mean(dim=0), full_matrices=False)
    return (left[:, 0] * size[0]).unflatten(0, features.shape[1:])


# %% tags=["hide-input"]
states = {"untrained": beside, "trained": runs["vit_adapter, unet"].model.eval()}
figure, panels = plt.subplots(2, 6, figsize=(11, 4.1), layout="constrained")
for row, (name, network) in zip(panels, states.items(), strict=True):
    row[0].imshow(seen)
    row[0].set(ylabel=name, title=f"image, {wide.size} px")
    water = np.ma.masked_less(creek["mask"].numpy(), 0)
    row[1].imshow(water, cmap=ListedColormap(chips.colours), vmin=0, vmax=1)
    row[1].set(title=f"label: {' and '.join(chips.classes)}")
    with torch.no_grad():
        maps = network.backbone(backbone.normalise(creek["image"][None]))
    for axes, stride, features in zip(row[2:], network.backbone.strides, maps, strict=True):
        axes.imshow(component(features[0], stride), cmap="cividis")
        axes.set(title=f"{stride} px per cell")
for axes in panels.flat:
    axes.set(xticks=[], yticks=[], facecolor="#BBBBBB")
figure.suptitle("The four maps of ViT-Adapter: their first principal component")
words = "A chip with creeks, its label, and four maps from fine to coarse,"
gp.show(figure, alt=f"{words} before and after training.")
states = beside = network = parts = None  # frees what is not needed any more

# %% [markdown]
# ## 5 · One table
# The yardsticks: a linear probe, LoRA, and LoRA with the same UNet, which tells what a better decoder does by itself. Data, seed and epochs are the same, the learning rate is each method's own.

# %%
for name, decoder in {"linear_probe": linear, "lora": linear, "lora, unet": unet}.items():
    network = make_network(name.split(",")[0], decoder=decoder)
    runs[name] = gp.fit(network, chips, dashboard="text", **settings)

# %%
order = [*compared, "lora, unet", "vit_adapter, unet"]
timed = {"full": make_network("full")} | {name: runs[name].model for name in order}
for network in timed.values():
    network.eval()  # in training mode a step would move the batch norms
times = seconds(timed, image[:4], label[:4], rounds=1 if FAST else 3)
timed = network = None  # frees the network that is not needed any more


def judge(name: str, where: str, dataset: object) -> dict[str, float]:
    """Return the mIoU of a run, and the share of thin water that it calls water."""
    samples = list(dataset)
    truth = torch.stack([sample["mask"] for sample in samples])
    found = np.stack(runs[name].model.predict(samples))
    score = mean_iou(confusion(truth.numpy(), found, 2, chips.ignore_index))
    return {where: score, f"thin {where}": float((found[thin_water(truth).numpy()] == 1).mean())}


# %%
rows = {}
for name in order:
    run, folder = runs[name], gp.save_adapter(runs[name].model, out / name.replace(", ", "_"))
    files = folder.glob("[abd]*.safetensors")
    rows[name] = {
        "trained weights": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        "file (MB)": sum(file.stat().st_size for file in files) / 1e6,
        "activations of a step (MB)": run.memory["activations"] / 1e6,
        "seconds of a step, of full": times[name] / times["full"],
        **judge(name, "home", chips.test),
        **judge(name, "away", chips.holdout[away]),
    }
table = pd.DataFrame(rows).T.rename_axis("method")
table.to_csv(out / "scores.csv")
print("You guessed:", my_guess)
table.style.format("{:.3f}").format("{:,.0f}", subset=["trained weights"])

# %% [markdown]
# ### What was published
# Test mIoU (%) of the paper, epochs until early stopping, and the time of an epoch relative to full fine-tuning ([IBM/peft-geofm](https://github.com/IBM/peft-geofm); the averages over its five benchmarks are ours). The bottleneck adapter was not among its methods.

# %% tags=["hide-input"]
scores = 100 * published_scores()["published"].unstack(["data", "side"])
sides = [("m_cashew_plantation", "home"), ("burn_scars", "home")]
paper = scores[[*sides, ("sen1floods11", "home"), ("sen1floods11", "away")]]
paper.columns = [f"{name} ({side})" for name, side in paper.columns]
spent = pd.read_csv(data_folder() / "published/times.csv")
spent["method"] = spent["method"].map(METHODS)
spent = spent.set_index(["model", "method", "dataset"])
each = (spent["total_time"] / spent["epochs"]).unstack("method")
pace = each.div(each["full"], axis=0).stack()
paper = paper.assign(
    epochs=spent["epochs"].groupby(["model", "method"]).mean(),
    time_per_epoch=pace.groupby(["model", "method"]).mean(),
).loc[["Prithvi 1.0 100M", "Prithvi 2.0 300M"]]
paper.style.format("{:.1f}").format("{:.2f}", subset=["time_per_epoch"])

# %% [markdown]
# Claim by claim, this run and the paper:

# %%
theirs = paper["time_per_epoch"].xs("vpt", level="method").map("{:.2f}".format)
print(f"a step of VPT, of full: here {times['vpt'] / times['full']:.2f}, there {', '.join(theirs)}")
first = {name: runs[name].history["val_miou"].dropna().iloc[0] for name in order}
print(f"after one epoch (validation): VPT {first['vpt']:.3f}, LoRA {first['lora']:.3f}")
for where in ("home", "away"):
    for name in ("lora", "vit_adapter"):
        one, two = table.loc[name], table.loc[f"{name}, unet"]
        print(f"{where}, {name}: UNet changes mIoU by {two[where] - one[where]:+.3f},", end=" ")
        print(f"thin water from {one[f'thin {where}']:.2f} to {two[f'thin {where}']:.2f}")
    ranking = table[where].sort_values(ascending=False)
    beaten = "; ".join(ranking.index[ranking < ranking["linear_probe"]]) or "none"
    print(f"{where}: {ranking.index[0]} is ahead; the linear probe is above {beaten}")

# %% [markdown]
# - **Do the fine maps pay?** Only where UNet found more thin water, and LoRA's line says whether it took ViT-Adapter.
# - **VPT learns slowly, it is said.** In the paper it needs more epochs than LoRA. Here, mind the learning rates.
# - **A step of VPT is cheaper than full fine-tuning, in the paper**, where an image has hundreds of tokens or more.
# - **ViT-Adapter and detail.** With Prithvi 1.0 it is far above LoRA on Cashew, which has small plantations; with Prithvi 2.0 it is below LoRA in every score of the table.
#
# One seed, one learning rate per method, labels made from thresholds on bands: read *costs* off your table, not a ranking. LoRA and ViT-Adapter on the map; move the bar:

# %%
pair = {name: runs[name] for name in ("lora", "vit_adapter, unet")}
two_maps = gp.map_regions(pair, chips, regions=[away] if FAST else [])
two_maps

# %% [markdown]
# ### Exercise 6 · open challenge
# Attach a method with at most a **tenth of LoRA's weights** in the backbone, at least one, whose step keeps **no more memory than LoRA's**. (`gp.list_methods()`; `prompts=`, `width=` and `r=` are options of `make_network`.)

# %%
lean = None
# solution
lean = make_network("adapter", width=4)

# %%
my_lean = gp.check("05/lean", lean, lora=make_network("lora"), batch_size=batch_size)
my_lean

# %% [markdown]
# What it showed: few weights are easy to have; memory follows the tokens and the depth that the error travels. Whether they score, `gp.fit(lean, chips, **settings)` tells.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("05")

# %% [markdown]
# ## What we have seen
# In this lesson we have changed a frozen network in three ways besides LoRA. Prompts are few weights, with no neutral start and a price that depends on the image's tokens. A bottleneck adapter starts neutral and cannot be merged. ViT-Adapter brings a network and four maps; whether the fine ones pay, a score of thin things has to say.
#
# ## What to try next
# - Fewer prompts, or shallow: `make_network("vpt", prompts=10)`, `make_network("vpt", deep=False)`.
# - AdaptFormer's adapter, beside the MLP: `make_network("adapter", kind="parallel")`.
# - Larger chips: `chips = gp.load_data(data, size=128)`. Which ratios change, and did you expect it?
#
# ## How this differs at full scale
# The paper takes 100 deep prompts and a ViT-Adapter on Prithvi 1.0 and 2.0; images of 128 to 512 pixels, up to 100 epochs, a learning rate searched for each case, several seeds. On a GPU, set `model = "prithvi_eo_v2_300"`; its patches are larger, so count the tokens anew.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); tables: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Jia et al., *Visual Prompt Tuning*, [arXiv 2203.12119](https://arxiv.org/abs/2203.12119)
# - Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, [arXiv 1902.00751](https://arxiv.org/abs/1902.00751); Chen et al., *AdaptFormer*, [arXiv 2205.13535](https://arxiv.org/abs/2205.13535)
# - Chen et al., *Vision Transformer Adapter for Dense Predictions*, [arXiv 2205.08534](https://arxiv.org/abs/2205.08534)
