# %% [markdown]
# # 05 · Prompts and adapters: VPT, bottleneck adapter, ViT-Adapter
# **Write visual prompts and a bottleneck adapter from a blank cell, see where a ViT-Adapter looks, and find out what each costs and what it brings.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Name* four places where a frozen network can be changed, and *say* which of them start neutral.
# - *Write* deep prompts and a bottleneck adapter in about eight lines each.
# - *Predict* what prompts cost on small and on large images, and *measure* it.
# - *Show* which points of an image a ViT-Adapter reads, and which of its maps the decoder uses.
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
# | Writing a layer: `nn.Module`, `nn.Parameter` | necessary | [PyTorch: build the neural network](https://docs.pytorch.org/tutorials/beginner/basics/buildmodel_tutorial.html) |
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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same lesson with one epoch and half of the training chips.

# %% tags=["parameters"]
model = "geopeft_tiny"  # a transformer that gp.list_backbones() lists, for one image at a time
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "vpt"  # this lesson trains five methods; the name is here as in all lessons
epochs = 6
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with one epoch
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
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.tasks import confusion, mean_iou

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {
    "epochs": 1 if FAST else epochs,
    "batch_size": batch_size,
    "seed": seed,
    "device": device,
}
runs = {}  # method -> its training run
place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"  # for measurements


# %% tags=["nbval-check-output"]
chips = gp.load_data(data)
if FAST:
    chips.train.chips[:] = chips.train.chips[::2]
away = next(iter(chips.holdout))
print(chips)

# %%
batch = [chips.train[i] for i in range(batch_size)]
image = torch.stack([sample["image"] for sample in batch])
label = torch.stack([sample["mask"] for sample in batch])


linear = {"decoder": "linear"}
unet = {"decoder": "unet", "channels": (64, 32, 16, 16)}  # a slim one; section 4 uses it


def make_network(method: str, decoder: dict = linear, **options: object) -> nn.Module:
    """Put a decoder on a fresh pretrained backbone and attach a method."""
    backbone = gp.load_backbone(model, bands=chips.bands)
    network = gp.build_model(backbone, chips, seed=seed, **decoder)
    return gp.attach(network, method, seed=seed, **options)


# %% [markdown]
# ## 1 · Four ways into a frozen network
# LoRA changes *weights*. That is not the only way to bend a network that stays frozen:
#
# - change its **input**: put learned tokens, *prompts*, beside those of the image (visual prompt tuning, VPT);
# - put small layers **between** its layers: a *bottleneck adapter*;
# - put another network **beside** it that trades features with it: *ViT-Adapter*.
#
# Here is one block of a transformer, and where each of them enters. Grey is frozen.


# %%
# Preparation; you may skip this cell.
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


# %%
# Preparation; you may skip this cell.
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


# %%
# Preparation; you may skip this cell.
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


# %%
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

# %% [markdown]
# ViT-Adapter trades once per quarter of the network, not in each block. In this toolkit:

# %%
compared = ["vpt", "adapter", "vit_adapter", "lora", "linear_probe"]
gp.list_methods().loc[compared[:-1], ["trains", "merges", "citation"]]

# %% [markdown]
# `merges` says whether the change can be folded into the weights after training, so that it costs nothing when the network is used. Only LoRA's can: $W + BA$ is a matrix again. Prompts are no weights; an adapter has a bend between its two layers, which no matrix has.
#
# ## 2 · Prompts: change the input
# In attention every token collects from all others. So a token that the image did not bring can steer what the image's tokens collect, although no weight changes. VPT learns $n$ such prompts (Jia et al., 2022). In its *deep* form every block gets prompts of its own: put them beside the tokens, run the block, cut them off.
#
# ### Exercise 1
# Write that for one block: a class with `__init__(self, block, prompts)` and `forward(self, tokens)`. `block` is a pretrained block, `prompts` a start value of shape (1, n, D), `tokens` has the shape (B, N, D), and so has the result. Only the prompts learn, so freeze the block. (About eight lines. `torch.cat([a, b], dim=1)` puts tokens side by side, `tensor.expand(B, -1, -1)` repeats without copying.)

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
backbone = gp.load_backbone(model, bands=chips.bands).eval()
my_block = gp.check("05/prompted_block", PromptedBlock, block=backbone.blocks[0])
my_block

# %% [markdown]
# Is it what `gp.attach(network, "vpt")` does? Take the first block with its prompts out of such a network, and give both the same tokens. In training, the toolkit also sets a tenth of the prompts' values to zero at random (*dropout*); in evaluation mode it does not.

# %%
prompted = make_network("vpt").eval()
layer = prompted.plain_backbone.blocks[0]
prompts = layer.vpt_prompts["default"].detach()
tokens, _ = backbone.begin(backbone.normalise(image))
with torch.no_grad():
    theirs = layer(tokens)
    if my_block.passed:
        mine = PromptedBlock(layer.base_layer, prompts)(tokens)
        print(
            f"largest difference between yours and the toolkit's: {(mine - theirs).abs().max():.1e}"
        )
print(f"tokens in: {tokens.shape[1]} (one is the class token); prompts: {prompts.shape[1]}")

# %% [markdown]
# ### Does their place among the tokens matter?
# VPT's authors put prompts behind the class token, the toolkit puts them at the end. The same block, with prompts in front, at the end, and shuffled among themselves:

# %%
block = layer.base_layer
n, count = prompts.shape[1], tokens.shape[1]
extra = prompts.expand(len(tokens), -1, -1)
with torch.no_grad():
    at_end = block(torch.cat([tokens, extra], dim=1))[:, :count]
    in_front = block(torch.cat([extra, tokens], dim=1))[:, n:]
    shuffled = block(torch.cat([tokens, extra[:, torch.randperm(n)]], dim=1))[:, :count]
for words, other in (("in front", in_front), ("shuffled", shuffled)):
    print(f"{words}: largest difference {(other - at_end).abs().max():.0e}")

# %% [markdown]
# What is left is rounding. Attention treats tokens as a *set*: where a patch lies stands in its position code, which is added to the token before (lesson 02), and prompts have none. This holds for networks with such codes. Where attention itself adds positions (Swin, rotary codes), it does not.
#
# ### No neutral start
# LoRA begins with $B = 0$: attached and untrained, it changes nothing. **Guess before you look.** By what share does the last feature map change when you attach 100 random, untrained prompts? And an untrained adapter? Write it down; nobody checks.

# %%
my_guess = {"VPT changes the map by": "?", "the adapter by": "?"}


# %%
def change_before_training(method: str, **options: object) -> float:
    """Return how far a new method moves the last map, as a share of the map's own length."""
    network = make_network(method, **options).eval()
    with torch.no_grad():
        (changed,) = network.backbone(backbone.normalise(image))
        with network.without_adapter():
            (pretrained,) = network.backbone(backbone.normalise(image))
    return float((changed - pretrained).norm() / pretrained.norm())


start = {"lora": change_before_training("lora"), "adapter": change_before_training("adapter")}
start["vpt, deep"] = change_before_training("vpt")
start["vpt, deep, 10 prompts"] = change_before_training("vpt", prompts=10)
start["vpt, shallow"] = change_before_training("vpt", deep=False)
print("You guessed:", my_guess)
pd.Series(start, name="change before training").to_frame().style.format("{:.1%}")

# %% [markdown]
# Prompts disturb from the first step: there is no value of a prompt that would make it invisible, because it always takes a share of the attention. So training begins from a disturbed network. Does that make VPT slow? You will see in section 5.
#
# ### Deep or shallow
# *Shallow* prompts enter before the first block only, and travel through all blocks like tokens. That has fewer weights. Is it cheaper to train?


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


# %%
forms = {"deep": make_network("vpt"), "shallow": make_network("vpt", deep=False)}
rows = {}
for name, network in forms.items():
    weights = gp.parameter_table(network).loc["adapter", "trainable"]
    kept = activations(network.train(), image, label) / 1e6
    rows[name] = {"weights of the prompts": f"{weights:,}", "activations (MB)": round(kept, 1)}
pd.DataFrame(rows).T

# %% [markdown]
# The weights differ by the number of blocks. The work does not: every block processes the prompts either way, and the error has to travel back through all of them to reach the first block's prompts. The paper that this toolkit follows uses deep prompts, $n = 100$.
#
# ### What prompts cost
# With $N$ tokens of the image, a block works on $N + n$ tokens, and attention compares $(N + n)^2$ pairs.
#
# ### Exercise 2
# Write a function `growth(tokens, prompts)` that returns two factors: by how much the number of tokens grows, and by how much the number of pairs.

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
# Now count. A chip of 64 px has 8 × 8 = 64 patches here. The paper's largest chips have 512 px and patches of 16: 1,024 tokens. **Guess before you look:** by what factor does 100 prompts stretch a training step at 64 tokens? And at 1,024? (The same step with a single prompt is the yardstick.)

# %%
my_guess = {"time at 64 tokens, times": "?", "time at 1,024 tokens, times": "?"}

# %%
few = {n: make_network("vpt", prompts=n).train() for n in (1, 100)}
rows = []
for larger, chips_at_once in ((1, 8), (2, 2), (4, 1)):
    wide_image = functional.interpolate(image[:chips_at_once], scale_factor=larger)
    wide_label = label[:chips_at_once].repeat_interleave(larger, 1).repeat_interleave(larger, 2)
    number = int(np.prod(backbone.grid(*wide_image.shape[-2:])))
    times = seconds(few, wide_image, wide_label, rounds=2 if FAST else 5)
    kept = {n: activations(network, wide_image, wide_label) for n, network in few.items()}
    row = {"image (px)": wide_image.shape[-1], "tokens of the image": number}
    row |= {"tokens, times": (number + 100) / (number + 1)}
    row |= {"pairs, times": ((number + 100) / (number + 1)) ** 2}
    row |= {"step time, times": times[100] / times[1], "activations, times": kept[100] / kept[1]}
    rows.append(row)
cost = pd.DataFrame(rows).set_index("tokens of the image")
few = forms = prompted = None  # frees networks that are not needed any more

# %%
print("You guessed:", my_guess)
cost.style.format(precision=2)

# %% [markdown]
# (The larger images are the chips, enlarged: for counting it does not matter what they show. The class token is left out of the count.) On small chips prompts are expensive, on large ones the price nearly vanishes. On a quiet machine time follows the tokens rather than the pairs, because most of the work of a block at these sizes is in its linear layers. The activations that are kept follow the tokens too: the attention in use never stores the table of pairs.
#
# So a sentence such as "VPT is cheap" has no meaning without the number of tokens.
#
# ### Train it, and see who listens to the prompts
# Before and after training, take each patch's attention and add up what goes to the 100 prompts.

# %%
untrained = make_network("vpt").eval()
runs["vpt"] = gp.fit(make_network("vpt"), chips, **settings)


# %%
def attention_to_prompts(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return the share of each patch's attention that goes to prompts: (blocks, rows, columns)."""
    plain, maps = network.plain_backbone, []
    tokens, grid = plain.begin(plain.normalise(image))
    count = tokens.shape[1]
    for layer in plain.blocks:
        both = torch.cat([tokens, layer.vpt_prompts["default"].expand(len(tokens), -1, -1)], dim=1)
        block = layer.base_layer
        attention, normed = block.attn, block.norm1(both)
        query, key = (  # each (B, heads, N + n, D / heads)
            layer(normed).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
            for layer in (attention.q, attention.k)
        )
        weights = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1)
        share = weights[:, :, plain.prefix : count, count:].sum(dim=-1).mean(dim=1)
        maps.append(share[0].unflatten(0, grid[-2:]))
        tokens = layer(tokens)
    return torch.stack(maps)


# %%
# Preparation; you may skip this cell.
rgb = [chips.bands.index(band) for band in ("RED", "GREEN", "BLUE")]


stretch = {}
for dataset in (chips.test, chips.holdout[away]):
    pixels = torch.stack([sample["image"][rgb] for sample in dataset]).movedim(1, -1)
    pixels = pixels.flatten(0, 2)[::7]  # every seventh is enough for quantiles
    stretch[dataset[0]["region"]] = [pixels.quantile(q, dim=0) for q in (0.01, 0.95)]


def picture(sample: dict) -> np.ndarray:
    """Return a chip in true colour, stretched as all chips of its region."""
    low, high = stretch[sample["region"]]
    return (((sample["image"][rgb].movedim(0, -1) - low) / (high - low)).clip(0, 1) ** 0.7).numpy()


def unevenness(sample: dict) -> float:
    """Return how far a chip is from showing as much water as land."""
    return abs(float((sample["mask"] == 1).float().mean()) - 0.5)


shore = min(chips.test, key=unevenness)

# %%
states = {"untrained": untrained, "trained": runs["vpt"].model.eval()}
with torch.no_grad():
    shares = {k: attention_to_prompts(part, shore["image"][None]) for k, part in states.items()}
blocks = len(shares["trained"])
figure, panels = plt.subplots(2, blocks + 1, figsize=(11, 3.9), layout="constrained")
for row, (name, maps) in zip(panels, shares.items(), strict=True):
    row[0].imshow(picture(shore))
    row[0].set(ylabel=name, title="image")
    for number, (axes, share) in enumerate(zip(row[1:], maps, strict=True), start=1):
        drawn = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
        axes.set(title=f"block {number}: {share.mean():.0%}")
for axes in panels.flat:
    axes.set(xticks=[], yticks=[])
figure.colorbar(drawn, ax=panels, label="share of attention (0-1)", shrink=0.8)
figure.suptitle("How much of each patch's attention goes to the prompts")
words = ", ".join(f"{name} {maps.mean():.0%}" for name, maps in shares.items())
gp.show(figure, alt=f"Maps per block of the attention that patches give to prompts: {words}.")

# %%
evenly = n / (n + count)
print(f"if attention were spread evenly, prompts would get {evenly:.0%}")
untrained = states = None  # frees networks that are not needed any more

# %% [markdown]
# Compare the rows, and each with an even spread. Which blocks listen more to their prompts after training, which less? Do land and water listen alike? Attention says what is *collected*, not what it does to the result, so read such maps as a hint.
#
# ## 3 · A bottleneck adapter: small layers between
# An adapter squeezes the D features of a token down to $w$, bends them by a nonlinearity, and brings them up again: $y + W_\mathrm{up}\,\sigma(W_\mathrm{down}\,y)$. The way up starts at zero, weights and bias, so that the network starts where pretraining left it.
#
# - **Serial** (Houlsby et al., 2019): behind attention and behind the MLP, before what came in is added again. It corrects what they give; $y$ is their output.
# - **Parallel** (AdaptFormer, Chen et al., 2022): beside the MLP, on the same normalised input, times 0.1. It adds what the MLP lacks.
#
# ### Exercise 3
# Write the serial one: a class with `__init__(self, layer, width, bottleneck)` and `forward(self, x)`. It freezes `layer`, runs it, and adapts what comes out. `width` is D, `bottleneck` is $w$; both linear layers have a bias. (About ten lines. `functional.gelu` is a nonlinearity, `nn.init.zeros_(tensor)` sets zeros.)

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
my_adapter = gp.check("05/bottleneck", Adapted, layer=backbone.blocks[0].attn)
my_adapter

# %% [markdown]
# Against the toolkit's: give both the same weights, random ones, since zeros would hide a difference. (The names of your two layers may be others; they are found by their shapes.)

# %%
serial = make_network("adapter", kind="serial").eval()
layer = serial.plain_backbone.blocks[0].attn
down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
nn.init.normal_(up.weight, std=0.1)
with torch.no_grad():
    theirs = layer(tokens)
    if my_adapter.passed:
        mine = Adapted(layer.base_layer, down.in_features, down.out_features)
        own = {weight.shape: weight for weight in mine.parameters() if weight.requires_grad}
        for weight in (down.weight, down.bias, up.weight, up.bias):
            own[weight.shape].copy_(weight)
        largest = (mine(tokens) - theirs).abs().max()
        print(f"largest difference between yours and the toolkit's: {largest:.1e}")
print(f"D = {down.in_features}, w = {down.out_features}")

# %% tags=["nbval-check-output"]
kinds = {kind: make_network("adapter", kind=kind) for kind in ("serial", "parallel")}
for kind, network in kinds.items():
    weights = gp.parameter_table(network).loc["adapter", "trainable"]
    kept = activations(network.train(), image, label) / 1e6
    print(f"{kind}: {weights:,} weights, one step of {batch_size} chips keeps {kept:.0f} MB")

# %% [markdown]
# Twice as many places, twice the weights. What a step keeps grows by much less, because most of it belongs to the frozen layers through which the error travels back. Train the parallel one:

# %%
serial = kinds = network = None  # frees networks that are not needed any more
runs["adapter"] = gp.fit(make_network("adapter"), chips, **settings)

# %% [markdown]
# ## 4 · ViT-Adapter: a network beside
# A plain transformer describes the image on one coarse grid. ViT-Adapter (Chen et al., 2023) puts a small convolutional network beside it, the *spatial prior*, which sees fine detail and makes maps with 4, 8, 16 and 32 pixels per cell. Four times on the way through the blocks they trade: an *injector* adds details of the maps to the tokens, an *extractor* brings the maps up to date from the tokens. In the end there are **four maps instead of one**.

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
# The injector's gate, a factor on what it adds, starts at zero, so the frozen tokens are untouched before training. But the maps that come out are new ones, made by layers that know nothing yet. There is no neutral start here either, in another sense than with prompts: the decoder meets features that pretraining never made. The batch norms of the spatial prior (layers that bring features to a common mean and spread) also learn the statistics of your chips.
#
# ### Why resolution matters for thin water
# Suppose every cell of a map could say only one class, and always the right one: the class of most of its pixels. How good could the best map be? *Thin* means water narrower than five pixels.


# %%
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


# %% tags=["nbval-check-output"]
masks = torch.stack([sample["mask"] for sample in [*chips.test, *chips.holdout[away]]])
thin = thin_water(masks)
print(f"{thin.sum() / (masks == 1).sum():.1%} of the water is thin")
for cell in (1, 4, 8, 16, 32):
    best = best_possible(masks, cell)
    score = mean_iou(confusion(masks.numpy(), best.numpy(), 2, chips.ignore_index))
    found = (best[thin] == 1).float().mean()
    print(f"{cell:2} px per cell: mIoU at most {score:.3f}, thin water found {found:.0%}")

# %% [markdown]
# That is a bound for coarse answers. The linear decoder of these lessons does better in principle: it paints all 8 × 8 pixels of a patch from the patch's one token. Whether the token *knows* where in the patch the creek runs is another question.
#
# Now think of ViT-Adapter. A decoder that uses **all four maps**, such as a UNet, which goes from the coarsest to the finest and takes in one after the other, gets the fine one. A **linear** decoder reads the last, deepest map: here 32 pixels per cell. Behind it, the branch that was built for detail delivers the coarsest map of all. As we read the published configurations of the paper, that is the combination that was run there. So train both.

# %%
runs["vit_adapter"] = gp.fit(make_network("vit_adapter"), chips, **settings)

# %%
runs["vit_adapter, unet"] = gp.fit(make_network("vit_adapter", decoder=unet), chips, **settings)

# %% [markdown]
# ### Look at its four maps
# Each map of the network with UNet decoder, coloured by its first principal component: the direction in which its cells differ most (the sign is arbitrary, and each map has a scale of its own). The finest map is made by a transposed convolution with a kernel of 2 × 2, which leaves a checkerboard; its mean is taken off. Above untrained, below trained.

# %%
wide = gp.load_data(data, size=128)
scenes = [*wide.test, *wide.holdout[away]]
kinds = torch.stack([sample["mask"] for sample in scenes])
creek = scenes[int(thin_water(kinds).sum(dim=(1, 2)).argmax())]  # the chip with most thin water
scenes = kinds = None


def component(features: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the first principal component of a map (D, h, w), as (h, w)."""
    if stride == 4:  # each of the four positions of the 2 x 2 kernel that made it has its own mean
        kernels = features.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        features = (kernels - kernels.mean(dim=(1, 3), keepdim=True)).flatten(3, 4).flatten(1, 2)
    cells = features.flatten(1).T
    left, size, _ = torch.linalg.svd(cells - cells.mean(dim=0), full_matrices=False)
    return (left[:, 0] * size[0]).unflatten(0, features.shape[1:])


# %%
states = {"untrained": beside, "trained": runs["vit_adapter, unet"].model.eval()}
figure, panels = plt.subplots(2, 6, figsize=(11, 4.1), layout="constrained")
for row, (name, network) in zip(panels, states.items(), strict=True):
    row[0].imshow(picture(creek))
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

# %% [markdown]
# Do you find the thin water in the finest map? In the coarsest?
#
# ### Where does a token look?
# Full attention between all tokens and all cells of the maps would be expensive. *Deformable attention* (Zhu et al., 2021) lets each query read a **few points that it chooses**: per head four points in each map, as offsets from the query's own place, with a weight for each. Here is what one token, at the star, reads from the three coarser maps through the last injector.


# %%
def sampling_points(network: nn.Module, image: torch.Tensor, token: int) -> tuple:
    """Return offsets in cells and weights, (heads, levels, points[, 2]), of a token's query."""
    reader, seen = network.backbone.interactions[-1].injector.attn, {}
    parts = {"offsets": reader.sampling_offsets, "weights": reader.attention_weights}
    hooks = [
        part.register_forward_hook(lambda _, __, given, name=name: seen.update({name: given}))
        for name, part in parts.items()
    ]
    with torch.no_grad():
        network.backbone((image[None] - network.mean) / network.std)
    for hook in hooks:
        hook.remove()
    offsets = seen["offsets"][0, token].unflatten(0, (reader.heads, reader.levels, -1, 2))
    weights = seen["weights"][0, token].unflatten(0, (reader.heads, -1)).softmax(dim=-1)
    return offsets, weights.unflatten(1, (reader.levels, -1))


# %%
# Preparation; you may skip this cell.
big = gp.load_data(data, size=256)
scene = min([*big.test, *big.holdout[away]], key=unevenness)
grid_rows, grid_columns = backbone.grid(big.size, big.size)
wet = functional.avg_pool2d((scene["mask"] == 1).float()[None], backbone.patch_size)[0]
top, left = grid_rows // 4, grid_columns // 4  # away from the border
middle = wet[top:-top, left:-left]
row, column = divmod(int((middle - 0.5).abs().argmin()), middle.shape[1])  # half water
row, column = row + top, column + left
token = row * grid_columns + column
star = (np.array([column, row]) + 0.5) * backbone.patch_size
level_looks = {8: ("#E69F00", "o"), 16: ("#56B4E9", "s"), 32: ("#CC79A7", "^")}

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 5.2), layout="constrained")
for axes, (name, network) in zip(panels, states.items(), strict=True):
    offsets, weights = sampling_points(network, scene["image"], token)
    axes.imshow(picture(scene), alpha=0.75)
    for level, (stride, (colour, marker)) in enumerate(level_looks.items()):
        x, y = (star + stride * offsets[:, level].flatten(0, 1).numpy()).T
        style = {"color": colour, "marker": marker, "edgecolor": "black", "linewidth": 0.6}
        style["s"] = 900 * weights[:, level].flatten().numpy()
        axes.scatter(x, y, label=f"map with {stride} px per cell", **style)
    axes.plot(*star, "*", color="white", mec="black", ms=15)
    axes.set(title=name, xticks=[], yticks=[])
handles, words = panels[0].get_legend_handles_labels()
figure.legend(handles, words, loc="outside lower center", ncols=3, frameon=False)
figure.suptitle("The points that one token reads; a larger mark counts more")
figure.savefig(out / "sampling_points.png", dpi=110)
words = "An image with the points that one token reads from three maps,"
gp.show(figure, alt=f"{words} a regular star before training, and after training.")

# %% [markdown]
# Before training every query reads the same star: each head looks into a direction of its own, one to four cells far, all points with equal weight. Training may move the points, differently for each query, and weigh them. How far have they moved here? Say it with a number, in cells, over all points of this query, and over the points of a second query far away:

# %%
untouched, network = states.values()
before, _ = sampling_points(untouched, scene["image"], token)
after, weights = sampling_points(network, scene["image"], token)
other, _ = sampling_points(network, scene["image"], grid_columns + 1)  # in the upper left corner
print(
    f"training moved the points of this query by {(after - before).norm(dim=-1).mean():.2f} cells"
)
print(f"this query and another differ by {(after - other).norm(dim=-1).mean():.2f} cells")
even = 1 / weights[0].numel()
print(f"weights: {weights.min():.3f} to {weights.max():.3f}; all equal would be {even:.3f}")
gates = [step.injector.gamma.detach().abs().mean() for step in network.backbone.interactions]
print("mean size of the injectors' gates:", ", ".join(f"{gate:.3f}" for gate in gates))
states = beside = untouched = network = part = parts = None  # frees what is not needed any more

# %% [markdown]
# Be honest with such figures. A star that hardly changed means that a short training had little use for choosing; a small gate means that little of what is read reaches the tokens. On chips of 64 pixels, moreover, the coarsest map has 2 × 2 cells: most of its points fall outside, where a query reads zeros. The picture above is from a larger chip than the network was trained on.
#
# ## 5 · One table
# The yardsticks: a linear probe and LoRA, each from a fresh backbone, with the same decoder, data, seed and number of epochs. The learning rate is each method's own (`gp.list_methods()["lr"]`). And LoRA with the same UNet decoder, so that you can tell what a better decoder does by itself.

# %%
for name in ("linear_probe", "lora"):
    runs[name] = gp.fit(make_network(name), chips, **settings)

# %%
runs["lora, unet"] = gp.fit(make_network("lora", decoder=unet), chips, **settings)

# %% [markdown]
# **Guess before you look.** With the linear decoder: who is best at home, who away, and whose step takes longest? Does the UNet decoder help ViT-Adapter more than it helps LoRA?

# %%
my_guess = {"best at home": "?", "best away": "?", "slowest step": "?", "UNet helps more": "?"}

# %% [markdown]
# Times are ratios to a step of full fine-tuning with the linear decoder, measured in turn with it so that a busy machine disturbs all alike. *Activations* are what one step keeps for the backward pass, *file* is what has to be saved: the method's weights and the decoder's.

# %%
order = [*compared, "lora, unet", "vit_adapter, unet"]
full, ratios = make_network("full").train(), {}
for name in order:  # fresh ones: a step in training mode would move the batch norms
    attached, *slim = name.split(", ")
    fresh = make_network(attached, decoder=unet if slim else linear).train()
    pair = seconds({"full": full, name: fresh}, image[:4], label[:4], rounds=1 if FAST else 3)
    ratios[name] = pair[name] / pair["full"]
full = fresh = pair = None  # frees networks that are not needed any more
reports = {name: gp.evaluate(runs[name], chips) for name in order}

# %%
rows = []
for name in order:
    run, score = runs[name], reports[name].table.groupby("role")["mIoU"].mean()
    folder = gp.save_adapter(run.model, out / name.replace(", ", "_"))
    row = {"method": name, "trained": gp.parameter_table(run.model).loc["total", "trainable"]}
    row["file_bytes"] = sum(file.stat().st_size for file in folder.glob("[abd]*.safetensors"))
    row["activation_bytes"] = run.memory["activations"]
    row["step_ratio"] = ratios[name]
    row |= {"miou_home": score["home"], "miou_away": score["away"]}
    row["best_epoch"] = int(run.best["epoch"])
    rows.append(row)
table = pd.DataFrame(rows).set_index("method")
table.to_csv(out / "scores.csv")

# %%
shown = table.copy()
shown[["file_bytes", "activation_bytes"]] /= 1e6
shown.columns = ["trained weights", "file (MB)", "activations (MB)", "step, times full's",
                 "home", "away", "best epoch"]  # fmt: skip
decimals = {"trained weights": "{:,}", "best epoch": "{}", "step, times full's": "{:.2f}"}
decimals |= {"home": "{:.3f}", "away": "{:.3f}"}
print("You guessed:", my_guess)
shown.style.format(decimals, precision=1)

# %%
figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
looks = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#CC79A7", "#009E73"]
for name, colour in zip(order, looks, strict=True):
    history = runs[name].history.dropna()
    style = {"ls": "--" if "unet" in name else "-", "marker": "o", "ms": 4}
    axes.plot(history["epoch"].astype(int), history["val_miou"], color=colour, label=name, **style)
axes.set_xticks(range(1, settings["epochs"] + 1))
axes.set(xlabel="epoch", ylabel="validation mIoU (0-1)", title="How fast each of them learns")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
words = [f"{name} {runs[name].history['val_miou'].dropna().iloc[0]:.2f}" for name in order]
gp.show(figure, alt=f"Validation mIoU over epochs; after the first: {', '.join(words)}.")

# %% [markdown]
# ### What was published
# Test mIoU (%) and training of the paper, means over several runs; *epochs* until early stopping and *time per epoch* relative to full fine-tuning of the same model are averages over its five benchmarks. Cashew has small plantations in fine mosaics, Sen1Floods11 is water.

# %%
cells = ["Cashew", "Burn scars", "Sen1Floods11", "… in Bolivia (away)", "epochs", "time per epoch"]
published = {
    ("Prithvi 1.0, 100M", "linear_probe"): (25.3, 83.2, 88.8, 79.6, 92.5, 0.75),
    ("Prithvi 1.0, 100M", "vpt"): (29.2, 85.2, 89.0, 64.4, 75.8, 0.87),
    ("Prithvi 1.0, 100M", "vit_adapter"): (73.3, 89.5, 87.7, 82.3, 59.2, 1.33),
    ("Prithvi 1.0, 100M", "lora"): (53.0, 89.3, 89.3, 61.2, 43.5, 1.05),
    ("Prithvi 1.0, 100M", "full"): (77.4, 89.3, 89.0, 74.2, 41.2, 1.00),
    ("Prithvi 2.0, 300M", "linear_probe"): (27.3, 83.9, 88.1, 83.2, 73.2, 0.62),
    ("Prithvi 2.0, 300M", "vpt"): (62.0, 92.2, 89.3, 86.2, 56.2, 0.88),
    ("Prithvi 2.0, 300M", "vit_adapter"): (75.9, 91.9, 88.5, 84.9, 47.7, 1.22),
    ("Prithvi 2.0, 300M", "lora"): (77.5, 93.3, 90.0, 87.6, 33.4, 1.04),
    ("Prithvi 2.0, 300M", "full"): (80.6, 92.8, 90.1, 82.1, 34.8, 1.00),
}
paper = pd.DataFrame.from_dict(published, orient="index", columns=cells)
paper.index = pd.MultiIndex.from_tuples(paper.index)
paper.style.format({name: "{:.2f}" if name == "time per epoch" else "{:.1f}" for name in cells})

# %% [markdown]
# Source: the tables of the authors' repository, [IBM/peft-geofm](https://github.com/IBM/peft-geofm), `data/peft_table.csv`, `data/ood_table.csv` and `data/epoch_and_time.csv`; the averages are ours. The bottleneck adapter was not among the paper's methods.
#
# Put both tables next to each other, claim by claim:

# %%
theirs = ", ".join(f"{value:.2f}" for value in paper["time per epoch"].xs("vpt", level=1))
home, first = table["miou_home"], {n: runs[n].history["val_miou"].dropna().iloc[0] for n in order}
gain = {
    m: table["miou_away"][f"{m}, unet"] - table["miou_away"][m] for m in ("lora", "vit_adapter")
}
print(f"after one epoch (validation): VPT {first['vpt']:.3f}, LoRA {first['lora']:.3f}")
print(f"a step of VPT / of full fine-tuning: here {ratios['vpt']:.2f}, published {theirs}")
print(f"ViT-Adapter minus LoRA at home, linear decoder: {home['vit_adapter'] - home['lora']:+.3f}")
print(f"the same with UNet decoder: {home['vit_adapter, unet'] - home['lora, unet']:+.3f}")
print(f"what UNet changes away: LoRA {gain['lora']:+.3f}, ViT-Adapter {gain['vit_adapter']:+.3f}")
print("highest in the table: at home", home.idxmax() + ", away", table["miou_away"].idxmax())

# %% [markdown]
# - **VPT learns slowly, it is said.** In the paper it needs more epochs than LoRA with both models, on average over its data sets, and on Cashew it stays far behind. Do you see that after the first epoch here? Look at the learning rates before you answer: VPT's is not LoRA's, and with another one the order may change. That its start is not neutral, you have measured; whether it is slow depends on the learning rate and the task, too.
# - **A step of VPT is cheaper than one of full fine-tuning, in the paper.** There an image has hundreds or a thousand tokens. With few tokens the order can turn round: see the ratio above, and your cost table for the reason.
# - **ViT-Adapter is good where detail counts.** With Prithvi 1.0 it is far above LoRA on Cashew, and on water it is below LoRA at home and far above it away. With Prithvi 2.0 it is below LoRA in every column of scores. So "detail" is one reading, not a law: the better the frozen features, the less there is for a branch to add.
# - **What the run adds.** With a linear decoder, ViT-Adapter hands over its coarsest map, and thin water is easily lost in cells of 32 pixels. How far this explains its published scores we cannot tell from here; that the decoder matters, you can see in the two rows with and without UNet.
# - **The linear probe.** If it is at the top here, remember how the labels were made: from thresholds on bands that the features carry anyway (lesson 01). On Cashew it is far below full fine-tuning; on flood water, and more so away, it is not: with Prithvi 1.0 it beats LoRA in Bolivia.
# - **Best epoch.** Where the best epoch is the last, more epochs would have helped, and the ranking is one of speed, not of what a method can reach.
#
# One seed, one fixed learning rate per method, two scenes with labels from a rule: read the *costs* off this table, they will hold on your data if you count the tokens. Do not read off a ranking of scores.

# %%
words = [f"{n} {home[n]:.2f} at home and {table['miou_away'][n]:.2f} away" for n in compared]
gp.show(
    gp.plot_reports([reports[n] for n in compared]), alt=f"mIoU with intervals: {'; '.join(words)}."
)

# %% [markdown]
# These are the five with the linear decoder. The bars say how far the scores depend on the places that were looked at (lesson 01), not how far on the luck of training.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("05")

# %% [markdown]
# ## What we have seen
# In this lesson we have changed a frozen network in three ways besides LoRA. Prompts join the tokens: few weights, no neutral start, and a price that depends on how many tokens the image has. A bottleneck adapter starts neutral and cannot be merged. ViT-Adapter brings a network of its own and four maps, which pay only if the decoder reads the fine ones.
#
# ## What to try next
# - Prompts by the dozen: `gp.fit(make_network("vpt", prompts=10), chips, **settings)`. What is lost, and what does a step cost now?
# - Train the shallow form: `make_network("vpt", deep=False)`.
# - Give all of them more time: `epochs = 20` in the parameters. Does the ranking stay?
# - Train the serial adapter, and a narrow one: `make_network("adapter", kind="serial", width=8)`.
# - Larger chips: above, `chips = gp.load_data(data, size=128)`. Which ratios in the table change, and did you expect it?
#
# ## How this differs at full scale
# The paper takes 100 deep prompts and a ViT-Adapter on Prithvi 1.0 (100 million weights) and 2.0 (300 million), and prompts on Clay; images of 128 to 512 pixels, up to 100 epochs with early stopping, a learning rate searched for each case, several seeds. A ViT-Adapter there has 12 and 20 million weights, about 14 % and 7 % of the network that it stands beside. Other implementations compile deformable attention for one kind of GPU; the one here runs wherever PyTorch runs. On a GPU, set `model = "prithvi_eo_v2_300"` in the parameters; its patches are larger, so count the tokens anew.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); tables: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Jia et al., *Visual Prompt Tuning*, [arXiv 2203.12119](https://arxiv.org/abs/2203.12119)
# - Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, [arXiv 1902.00751](https://arxiv.org/abs/1902.00751); Chen et al., *AdaptFormer*, [arXiv 2205.13535](https://arxiv.org/abs/2205.13535)
# - Chen et al., *Vision Transformer Adapter for Dense Predictions*, [arXiv 2205.08534](https://arxiv.org/abs/2205.08534); Zhu et al., *Deformable DETR*, [arXiv 2010.04159](https://arxiv.org/abs/2010.04159)
# - [Documentation of peft](https://huggingface.co/docs/peft)
