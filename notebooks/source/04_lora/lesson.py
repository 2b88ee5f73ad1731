# %% [markdown]
# # 04 · LoRA from a blank cell, then with peft
# **See why a small change is enough, write LoRA in about 15 lines, show that it is peft's to the last digits, and find out what rank, alpha and placement cost and bring.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Measure* how many directions a fine-tuning really uses.
# - *Write* a LoRA layer, and *show* that it equals peft's.
# - *Count* the weights of a LoRA before you attach it.
# - *Choose* rank, alpha and placement, and *say* what each changes in memory and score.
# - *Merge*, *save* and *switch* adapters.
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
# | Matrix products and their shapes | necessary | [NumPy for beginners](https://numpy.org/doc/stable/user/absolute_beginners.html) |
# | Singular values | helpful, explained here | [NumPy: linear algebra on images](https://numpy.org/numpy-tutorials/tutorial-svd/) |

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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same lesson with one epoch, one seed and a quarter of the training chips.

# %% tags=["parameters"]
model = "geopeft_tiny"  # a transformer that gp.list_backbones() lists
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # "dora" trains the length of each weight row besides
epochs = 3
batch_size = 8
seed = 0  # the runs that are compared take this one and the next
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with one epoch, one seed and fewer chips
out_dir = None  # folder for table, figures and adapter; None takes a temporary one

# %%
import copy
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.tasks import confusion, mean_iou

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {"epochs": 1 if FAST else epochs, "batch_size": batch_size, "device": device}
seeds = [seed] if FAST else [seed, seed + 1]
chips = gp.load_data(data)
chips.train.chips = chips.train.chips[:: 4 if FAST else 1]


def build(method: str, seed: int = seed, **options: object) -> nn.Module:
    """Put a linear decoder on a fresh pretrained backbone and attach a method."""
    backbone = gp.load_backbone(model, bands=chips.bands)
    network = gp.build_model(backbone, chips, decoder="linear", seed=seed)
    return gp.attach(network, method, seed=seed, **options)


# %% [markdown]
# ## 1 · Why a low rank?
# LoRA changes a weight matrix by a product of two thin ones. Such a product can only be a matrix of *low rank*. Is that enough? Look at what a fine-tuning without that limit does: let **all** weights learn for a few epochs, once, and compare the weights before and after.
#
# Each block of the network has six linear layers. Attention has `attn.q`, `attn.k` and `attn.v`, which make queries, keys and values, and `attn.proj`, its output. The MLP (or feed-forward part) has `mlp.fc1`, which widens, and `mlp.fc2`, which narrows again; between them stands a nonlinearity, GELU.

# %%
pretrained = gp.load_backbone(model, bands=chips.bands)
full_run = gp.fit(build("full"), chips, seed=seed, dashboard="text", **settings)
print(f"{full_run.seconds:.0f} s, mIoU of the validation chips {full_run.best['val_miou']:.3f}")

# %%
middle = len(pretrained.blocks) // 2
before = pretrained.blocks[middle].mlp.fc1.weight.detach()  # W, (out, in)
tuned = full_run.model.backbone.blocks[middle].mlp.fc1.weight.detach()
change = tuned - before  # ΔW, (out, in)
print(f"fc1 of block {middle}: ΔW has {change.shape[0]} x {change.shape[1]} numbers;")
share = change.norm() / before.norm()  # of the roots of the sums of squares
print(f"its size (root of the sum of squares) is {share:.1%} of that of the weights")

# %% [markdown]
# Any matrix is a sum of simple pieces. Each looks for one direction in the input and answers with one in the output; its strength is a *singular value*. A matrix of rank $r$ has $r$ such pieces. Shares of the squares of singular values add up to 1.
#
# **Guess before you look.** ΔW has as many directions as its shorter side. How many of them does it take to carry 90 % of the squares? And how many for the pretrained weights themselves?

# %%
my_guess = {"directions of ΔW": "?", "directions of the pretrained weights": "?"}

# %%
generator = torch.Generator().manual_seed(seed)
matrices = {
    "ΔW, what fine-tuning changed": change,
    "W, the pretrained weights": before,
    "random numbers": torch.randn(change.shape, generator=generator),
}
values = {name: torch.linalg.svdvals(matrix) for name, matrix in matrices.items()}

# %%
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
for (name, strength), colour, line in zip(
    values.items(), ("#D55E00", "#0072B2", "#7F7F7F"), ("-", "--", ":"), strict=True
):
    share = strength.square().cumsum(0) / strength.square().sum()
    axes.plot(range(1, len(share) + 1), 100 * share, line, color=colour, label=name, lw=2)
axes.axhline(90, color="#BBBBBB", lw=0.8, zorder=0)
axes.text(1, 91, "90 %", color="#666666", fontsize=9)
ticks = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if k <= len(share)]
axes.set(
    xscale="log", xlabel="number of directions, the strongest first", ylabel="share of squares (%)"
)
axes.set_xticks(ticks, ticks)
axes.minorticks_off()
axes.set(ylim=(0, 103), title=f"How few directions carry fc1 of block {middle}")
axes.legend(frameon=False, loc="lower right")
figure.savefig(out / "singular_values.png", dpi=110)
gp.show(figure, alt="Share of squares over directions: the change rises first, random last.")

# %% [markdown]
# ### Exercise 1 · write
# Read it off exactly. `directions(values, share)`: how many of the singular values, the strongest first, carry at least that share of the squares? `cumsum(0)` adds up one by one.

# %%
directions = None


# solution
def needed(values: torch.Tensor, share: float = 0.9) -> int:
    """Count the strongest directions that carry a share of the squares."""
    carried = values.square().cumsum(0) / values.square().sum()
    return int((carried < share).sum()) + 1


directions = needed

# %%
my_directions = gp.check("04/directions", directions)
my_directions

# %%
print("You guessed:", my_guess)
if my_directions.passed:
    for name, strength in values.items():
        print(f"{name}: {directions(strength, 0.9)} of {len(strength)} carry 90 %")
layers = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2")

# %% [markdown]
# What it showed: how many directions a change needs is a number that you can measure, and compare with that of random numbers.
#
# Squares are not scores: what matters might hide in a weak direction. So test it. Keep only the strongest $k$ directions of ΔW in every linear layer of every block, throw the others away, and score again, without any training.


# %%
def cut(rank: int) -> nn.Module:
    """Copy the fine-tuned network and cut the change of each layer to a rank."""
    network = copy.deepcopy(full_run.model)
    for old_block, block in zip(pretrained.blocks, network.backbone.blocks, strict=True):
        for name in layers:
            old, new = (part.get_submodule(name).weight.data for part in (old_block, block))
            left, strength, right = torch.linalg.svd(new - old, full_matrices=False)
            new.copy_(old + left[:, :rank] * strength[:rank] @ right[:rank])
    return network


def score(network: nn.Module, dataset: list) -> float:
    """Return the mIoU of a network over chips."""
    samples = list(dataset)
    predicted = np.stack(network.predict(samples))
    labels = np.stack([sample["mask"].numpy() for sample in samples])
    return float(mean_iou(confusion(labels, predicted, len(chips.classes), chips.ignore_index)))


# %%
away = next(iter(chips.holdout))
ranks = [0, 1, 4, 16, min(change.shape)]
tests = {"home": chips.test, "away": chips.holdout[away]}
kept_ranks = pd.DataFrame(index=pd.Index(ranks, name="directions kept"), columns=[*tests])
for rank in ranks:
    network = cut(rank)
    kept_ranks.loc[rank] = [score(network, dataset) for dataset in tests.values()]
kept_ranks.astype(float).round(3).add_prefix("mIoU ")

# %% [markdown]
# The last row is the fine-tuned network itself; row 0 has the pretrained layers back under the fine-tuned decoder. Where does the score stop changing?
#
# A few epochs, two classes, one small network: whether it is so for *your* task is a thing to test, as you just did. And a low-rank change that was cut out afterwards is not yet one that training finds by itself.
#
# ## 2 · LoRA in a blank cell
# Freeze $W$ and learn the change as a product from the start:
#
# $$y = W x + b + \frac{\alpha}{r}\, B A x$$
#
# $A$ is ($r$ × in) and takes the input down to $r$ numbers; $B$ is (out × $r$) and takes them up again. $A$ starts random and $B$ at zero: so the product is zero at first and nothing is disturbed.
#
# $\alpha$ only enters through the *scale* $\alpha / r$. Hu et al. leave $\alpha$ as it is when they change $r$, so that the scale falls as the rank grows, and the learning rate need not be searched again. The paper that this toolkit follows sets $\alpha = r$: a scale of 1 at every rank.
#
# ### Exercise 2 · predict
# In the very first step of training, with $B$ at zero: does $A$ get a gradient other than zero, and does $B$?

# %%
first_step = {"A": ..., "B": ...}  # True or False
# solution
first_step = {"A": False, "B": True}  # A's passes through B; B's is made of A x

# %%
gp.check("04/first_step", first_step)

# %% [markdown]
# What it showed: $B$ moves first and $A$ from the second step. Were both zero, neither would ever move.
#
# ### Exercise 3 · mend a broken line
# Somebody wants a scale of **2** at every rank. This line gives 16 at rank 1 and 1 at rank 16.


# %%
def options_of(r: int) -> dict:
    """Return the options of LoRA with this rank."""
    return {"r": r, "lora_alpha": 16}  # mend this line


same_scale = options_of


# solution
def twice(r: int) -> dict:
    """Return the options of LoRA with this rank and a scale of 2."""
    return {"r": r, "lora_alpha": 2 * r}


same_scale = twice

# %%
gp.check("04/same_scale", same_scale)

# %% [markdown]
# What it showed: a comparison of ranks also compares scales, unless $\alpha$ follows.
#
# ### Exercise 4 · write
# Write the layer, as a class `LoRALayer(nn.Module)`:
#
# - `__init__(self, base, r, alpha)` takes an `nn.Linear` to stand in for, freezes it, and makes `self.A`, `self.B` (each an `nn.Parameter`) and the scale;
# - `forward(self, x)` for `x` of shape (…, in) returns (…, out);
# - `merged_weight(self)` returns one (out, in) matrix that does the work of both.
#
# `nn.init.kaiming_uniform_(self.A, a=5**0.5)` fills A as peft does. (In the code, `x @ M.T` applies a matrix M to the last axis of x.)

# %%
LoRALayer = None


# solution
class Layer(nn.Module):
    """A frozen linear layer, and beside it a thin detour that learns."""

    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)
        self.scale = alpha / r

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)

    def merged_weight(self) -> torch.Tensor:
        """Return one (out, in) matrix in place of base, A and B."""
        return self.base.weight + self.scale * self.B @ self.A


LoRALayer = Layer

# %%
my_layer = gp.check("04/lora_layer", LoRALayer)
my_layer

# %% [markdown]
# ## 3 · The same with peft
# [peft](https://huggingface.co/docs/peft) is the library that most people use for LoRA. A *config* says what to do, and `get_peft_model` does it: it looks for layers whose names end as `target_modules` says and puts a LoRA layer in the place of each.

# %%
config = LoraConfig(r=8, lora_alpha=16, target_modules=["mlp.fc1", "mlp.fc2"])
theirs = get_peft_model(gp.load_backbone(model, bands=chips.bands), config)
theirs.print_trainable_parameters()
print(theirs.base_model.model.blocks[0].mlp)

# %% [markdown]
# In the printed block `base_layer` is the frozen $W$, `lora_A` and `lora_B` are the detour; `default` is the adapter's name.
#
# Now put *your* layer in the same places, give both the same A and B (random B, for with zeros everything would agree), and compare what comes out for a batch of chips, and what flows back.

# %%
with torch.no_grad():
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            weight.normal_(std=0.1, generator=generator)
batch = [chips.train[index] for index in range(batch_size)]
images = torch.stack([sample["image"] for sample in batch])
masks = torch.stack([sample["mask"] for sample in batch])
scaled = pretrained.normalise(images)


# %%
def with_my_layers() -> nn.Module:
    """Put LoRALayer beside fc1 and fc2 of every block, with the A and B of peft's."""
    backbone = gp.load_backbone(model, bands=chips.bands).requires_grad_(False)
    for block, other in zip(backbone.blocks, theirs.base_model.model.blocks, strict=True):
        for name in ("fc1", "fc2"):
            mine, peft_layer = getattr(block.mlp, name), getattr(other.mlp, name)
            mine = LoRALayer(mine, r=8, alpha=16)
            mine.A.data.copy_(peft_layer.lora_A["default"].weight)
            mine.B.data.copy_(peft_layer.lora_B["default"].weight)
            setattr(block.mlp, name, mine)
    return backbone


def difference(mine: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference, as a share of the largest value."""
    return float((mine - other).detach().abs().max() / other.detach().abs().max())


# %%
if my_layer.passed:
    ours = with_my_layers().eval()
    outputs = [network(scaled)[-1] for network in (ours, theirs.eval())]
    for output in outputs:
        output.square().mean().backward()
    first, peft_first = ours.blocks[0].mlp.fc1, theirs.base_model.model.blocks[0].mlp.fc1
    print(f"outputs differ by       {difference(*outputs):.1g} of the largest value")
    for name in ("A", "B"):
        peft_gradient = getattr(peft_first, f"lora_{name}")["default"].weight.grad
        apart = difference(getattr(first, name).grad, peft_gradient)
        print(f"gradients of {name} differ by {apart:.1g}")
else:
    print("Here your layer meets peft's, as soon as it passes its check.")

# %% [markdown]
# What it showed: there is no more to LoRA than what you wrote; a difference near $10^{-6}$ is rounding. A library adds names, saving, switching, merging, dropout, and variants.
#
# ## 4 · Count before you attach
# $A$ has $r \cdot d_{in}$ numbers and $B$ has $d_{out} \cdot r$. The paper attaches LoRA in every block at four places: queries, values (each from width to width), fc1 (from width to 4 × width) and fc2 (back again).
#
# ### Exercise 5 · write
# `count_lora(shapes, r)`: how many weights does LoRA of rank `r` train beside layers of these shapes, a list of pairs (d_in, d_out)?

# %%
count_lora = None


# solution
def count(shapes: list[tuple[int, int]], r: int) -> int:
    """Count the numbers of A and B beside each layer."""
    return sum(r * d_in + d_out * r for d_in, d_out in shapes)


count_lora = count

# %%
my_count = gp.check("04/count_lora", count_lora)
my_count

# %% [markdown]
# Does that agree with what `attach` builds, and with the paper? For the two Prithvi models, the column *LoRA* holds what the published configurations train, counted by building them with the authors' library (TerraTorch).

# %% tags=["nbval-check-output"]
attached = gp.parameter_table(build("lora")).loc["adapter", "trainable"]
print(f"attached to {model} with r = 16: {attached:,} weights")

# %%
published = {"prithvi_eo_v1_100": 2_064_384, "prithvi_eo_v2_300": 5_505_024}
listed = gp.list_backbones().loc[[model, *published], ["width", "depth", "parameters"]]
listed["LoRA, r = 16"] = [attached, *published.values()]
listed["share (%)"] = (100 * listed["LoRA, r = 16"] / listed["parameters"]).astype(float).round(1)
if my_count.passed:
    sizes = zip(listed["width"], listed["depth"], strict=True)
    listed["your count"] = [
        count_lora(depth * [(w, w), (w, w), (w, 4 * w), (4 * w, w)], 16) for w, depth in sizes
    ]
listed

# %% [markdown]
# What it showed: you know the size before you load anything. The share falls as models grow: a layer has width × width weights and its LoRA only $2 r$ × width. (In many published files one layer, `qkv`, makes queries, keys and values. One LoRA beside it counts as many weights as one each beside queries and values, $4 r$ × width, and is another method: keys change too. So `gp.load_backbone` cuts `qkv` in three.)
#
# ## 5 · Rank, alpha, placement: what do they change?
# Now train, with `gp.attach`. Its presets choose the places: `q_v`, `paper` (fc1 and fc2 besides), `all_linear`, `late` (as the paper, in the last quarter of the blocks). Beside them stand a linear probe and full fine-tuning, each with two seeds.
#
# **Guess before you look.** Rank 16 trains sixteen times as many weights as rank 1. How much more memory will a training step take? Which placement will score best at home, and which away? And how far will two seeds of the *same* setting lie apart?

# %%
my_guess = {"memory of rank 16 / rank 1": "?", "best placement": "?", "two seeds apart": "?"}

# %%
rows, trained = [], {}


def note(variant: str, run: object, seed: int) -> None:
    """Write down what a run trained beside the decoder, what it kept, and what it scored."""
    parts = gp.parameter_table(run.model)["trainable"]
    rows.append({"variant": variant, "seed": seed, "trained": parts["total"] - parts["decoder"]})
    rows[-1] |= {part: run.memory[part] / 1e6 for part in memory_parts}
    rows[-1] |= {role: score(run.model, dataset) for role, dataset in tests.items()}
    rows[-1]["seconds"] = run.seconds


def train(variant: str, method: str = method, **options: object) -> None:
    """Train one setting with every seed."""
    for number in seeds:
        run = gp.fit(
            build(method, number, **options), chips, seed=number, dashboard="text", **settings
        )
        note(variant, run, number)
        trained[variant] = run
    print(f"{variant}: {sum(row['seconds'] for row in rows[-len(seeds) :]):.0f} s")


memory_parts = ("weights", "gradients", "optimiser", "activations")

# %%
for rank in (1, 4):
    train(f"paper, r {rank}", r=rank)

# %%
train("paper, r 16", r=16)
lora_run = trained["paper, r 16"]

# %%
for alpha in (1, 16):
    train(f"paper, r 4, alpha {alpha}", r=4, lora_alpha=alpha)

# %%
for preset in ("late", "q_v", "all_linear"):
    train(f"{preset}, r 16", preset=preset)

# %%
train("linear probe", "linear_probe")
note("full fine-tuning", full_run, seed)
for number in seeds[1:]:
    run = gp.fit(build("full", number), chips, seed=number, dashboard="text", **settings)
    note("full fine-tuning", run, number)

# %%
runs = pd.DataFrame(rows)
runs.to_csv(out / "scores.csv", index=False)
table = runs.groupby("variant", sort=False).mean().drop(columns="seed")
print("You guessed:", my_guess)
print("trained: weights in the backbone; weights to activations: MB of a step; home, away: mIoU")
table.astype({"trained": int}).round(
    dict.fromkeys([*memory_parts, "seconds"], 1) | dict.fromkeys(tests, 3)
)

# %% [markdown]
# ### Memory: what falls, and what does not

# %%
rank_1, rank_16, full = (table.loc[n] for n in ("paper, r 1", "paper, r 16", "full fine-tuning"))
print("how many times less than full fine-tuning:")
for name, row in (("rank 1", rank_1), ("rank 16", rank_16)):
    times = {part: full[part] / row[part] for part in ("trained", "gradients", "activations")}
    print(f"{name}: " + ", ".join(f"{part} {value:.1f}" for part, value in times.items()))
print(f"a step with rank 16 keeps {rank_16['activations'] / rank_1['activations']:.2f} times")
print("the activations of a step with rank 1")

# %% [markdown]
# Trained weights, and with them gradients and what the optimiser remembers, fall with the rank. The activations hardly notice it, for two reasons: to reach the first adapter the error passes back through every layer above it, frozen or not; and the gradient of $A$ is made of the same input as that of $W$. (Inputs that a layer norm or a GELU made are cheap to compute again: `frugal="recompute"`, lesson 07.)


# %%
def kept(network: nn.Module) -> int:
    """Return the bytes of activations that one training step of the network keeps."""

    def loss() -> torch.Tensor:
        return functional.cross_entropy(network(images), masks, ignore_index=chips.ignore_index)

    return training_bytes(network.train(), loss)["activations"]


# %% [markdown]
# ### Exercise 6 · open challenge
# Make a network with LoRA whose step keeps **less than half** of the activations of the preset `paper` at rank 16, and that still adapts **at least two** blocks. Use `build("lora", …)`; `gp.list_methods().loc["lora", "options"]` lists what LoRA takes, and `kept(network)` measures.

# %%
limit = kept(build("lora")) / 2
small_network = None
# solution
small_network = build("lora", last=2)

# %%
gp.check("04/less_memory", small_network, kept=kept, limit=limit)

# %% [markdown]
# What it showed: the only way to be rid of most activations is to need no gradient in most blocks.
#
# ### Scores: first the spread, then the ranking
# A difference between settings that is no larger than that between two seeds of one says nothing:

# %%
reference = "paper, r 16"
tuned = runs[~runs["variant"].isin(["linear probe", "full fine-tuning"])]
grouped = tuned.groupby("variant", sort=False)[[*tests]]
spread, means = (grouped.max() - grouped.min()).max(), grouped.mean()
apart = (means - means.loc[reference]).abs().drop(reference)
if len(seeds) > 1:
    for role in tests:
        inside = apart.index[apart[role] <= spread[role]]
        print(f"{role}: two seeds of one setting lie up to {spread[role]:.3f} apart.")
        print(f"  No further from {reference!r} are: {'; '.join(inside) or 'none'}")
else:
    print("With one seed there is no spread, and no ranking either.")

# %% [markdown]
# Two seeds show the size of luck only roughly. Before you trust what lies outside it: were these few epochs enough? A smaller rank or scale moves more slowly at the same learning rate, so what looks like a worse setting may be an unfinished one.
#
# Now look at LoRA beside full fine-tuning, and swipe:

# %%
region_map = gp.map_regions({"LoRA": lora_run, "full": full_run}, chips)
region_map

# %%
for role in tests:
    column = table[role].sort_values(ascending=False)
    print(
        f"{role}: first is {column.index[0]} with {column.iloc[0]:.3f}, the linear probe", end=" "
    )
    print(f"{table.loc['linear probe', role]:.3f}, full fine-tuning", end=" ")
    print(f"{table.loc['full fine-tuning', role]:.3f}")

# %% [markdown]
# Where the linear probe does as well as any LoRA, adapting the backbone has brought nothing *on these data*. So do not learn from this table which setting is best. Learn what each one costs, and how to compare: keep $\alpha / r$ as it is, tune the learning rate, and where memory is short change the *placement*.
#
# ## 6 · Take off, merge, save, switch
# Train a network, and then go through what an adapter is good for besides being cheap to train.

# %%
network = build("lora", name="first", r=8)
network = gp.fit(network, chips, seed=seed, **settings).model.eval()

# %% [markdown]
# **Take off.** Inside `with network.without_adapter():` the backbone computes what it computed before anything was attached, to the bit:

# %%
pretrained.eval()
with torch.no_grad():
    adapted, original = network.backbone(scaled)[-1], pretrained(scaled)[-1]
    with network.without_adapter():
        bare = network.backbone(scaled)[-1]
print(f"adapter on:  features differ by {difference(adapted, original):.1%} of the largest value")
print(f"adapter off: exactly the pretrained features: {torch.equal(bare, original)}")

# %% [markdown]
# **Merge.** The detour costs a little time in every forward pass. For use after training you can be rid of it: $W + \frac{\alpha}{r} B A$ is a matrix of the shape of $W$, your `merged_weight`. `gp.merge` puts it in the place of $W$ in every layer. The adapter can then no longer be taken off, so merge a copy, or save it first.
#
# **Guess again.** Will the merged network give exactly the same numbers?

# %%
merged = gp.merge(copy.deepcopy(network)).eval()
with torch.no_grad():
    unequal = difference(merged(images), network(images))
parts = [part.plain_backbone for part in (network, merged)] + [pretrained]
kinds = [str(type(part.blocks[0].attn.q)) for part in parts]
print("queries are made by {}, merged by {}, pretrained by {}".format(*kinds))
print(f"outputs differ by {unequal:.1g} of the largest value")
assert unequal < 1e-5, "merging must not change what the network computes"

# %% [markdown]
# Equal to rounding, not to the bit: $W x + B A x$ and $(W + B A) x$ are the same number in exact arithmetic, and floats round in another order.
#
# **Save.** What has to be kept of a fine-tuning is what was trained, the adapter and the decoder. Whoever has the backbone needs nothing else.

# %%
folder = gp.save_adapter(network, out / "adapter")
files = pd.Series({file.name: file.stat().st_size / 1e3 for file in sorted(folder.iterdir())})
whole = sum(weight.numel() for weight in pretrained.parameters()) * 4 / 1e3
kept = files[["adapter_model.safetensors", "decoder.safetensors"]].sum()
print(f"adapter and decoder: {kept:.0f} kB; the backbone in float32: {whole:.0f} kB,")
print(f"{whole / kept:.0f} times as much")
files.rename("kB").to_frame().round(1)

# %% [markdown]
# `gp.load_model(folder)` builds the network again from the folder alone; `model_card.md` says what somebody needs to know who gets it from you.
#
# **Switch.** Adapters are small, so one backbone can carry many: one per region, task or season. Attach again under another name, and a second adapter with a decoder of its own stands beside the first. Here the second learns at the other place.

# %%
home, elsewhere = chips.regions[0], gp.load_data(data, train_regions=[away])
network = gp.attach(network, "lora", name="second", seed=seed, r=8)
# Fewer chips make fewer steps in an epoch, and more epochs make up for that.
more = settings["epochs"] * len(chips.train) / len(elsewhere.train)
again = {**settings, "epochs": max(1, round(more))}
network = gp.fit(network, elsewhere, seed=seed, dashboard="text", **again).model
print("adapters:", ", ".join(network.adapters), "| active:", network.adapter)

# %%
places = {home: chips.test, away: elsewhere.test}
print("test chips:", {place: len(dataset) for place, dataset in places.items()})
switched = pd.DataFrame(index=pd.Index(network.adapters, name="adapter"))
for place, dataset in places.items():
    switched[f"mIoU {place}"] = [
        score(network.use_adapter(name), dataset) for name in network.adapters
    ]
switched.round(3)

# %% [markdown]
# Each row is one adapter, with its decoder, on the same frozen backbone. The second place has few chips to learn from and few to be tested on.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("04")

# %% [markdown]
# ## What we have seen
# In this lesson we have looked at how few directions a fine-tuning used; written LoRA and found it equal to peft's; counted its weights; varied rank, alpha and placement beside the spread of two seeds; seen that gradients and optimiser state fall while activations stay; and merged, saved and switched adapters.
#
# ## What to try next
# - Set `method = "dora"` in the parameters and run again. What happens to the activations, and to the seconds?
# - Set `epochs = 10`: which differences of section 5 were only unfinished training?
#
# ## How this differs at full scale
# The paper's models are 30 to 110 times as large: weights, gradients and optimiser state weigh more beside the activations. Its runs go on for up to 100 epochs with a searched learning rate and several seeds. There, by the authors' account, LoRA matches or surpasses full fine-tuning on most data sets; on cashew plantations it stays behind for every model ([their results](https://github.com/IBM/peft-geofm)).
#
# ## References
# - Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); configurations and timings: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Aghajanyan et al., *Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning*, [arXiv 2012.13255](https://arxiv.org/abs/2012.13255)
# - Liu et al., *DoRA: Weight-Decomposed Low-Rank Adaptation*, [arXiv 2402.09353](https://arxiv.org/abs/2402.09353)
# - [Documentation of peft on LoRA](https://huggingface.co/docs/peft/package_reference/lora)
