# %% [markdown]
# # 04 · LoRA from a blank cell, then with peft
# **See why a small change is enough, write LoRA, show that it is peft's, and find out what rank, alpha and placement cost and bring.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Measure* how many directions a fine-tuning uses.
# - *Write* a LoRA layer, and *show* that it equals peft's.
# - *Count* the weights of a LoRA before you attach it.
# - *Say* what rank, alpha and placement change in memory and score.
# - *Merge*, *save* and *switch* adapters.
#
# ## Time to learn
# About 60 min, of which the computer needs about 2 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, what LoRA is | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Writing a layer: `nn.Module`, `nn.Parameter` | necessary | [PyTorch: build the neural network](https://docs.pytorch.org/tutorials/beginner/basics/buildmodel_tutorial.html) |
# | Matrix products and their shapes | necessary | [NumPy for beginners](https://numpy.org/doc/stable/user/absolute_beginners.html) |

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
# Change what you like in the next cell. `FAST = True` runs the same lesson with one epoch, one seed and a quarter of the chips.

# %% tags=["parameters"]
model = "geopeft_tiny"  # a transformer that gp.list_backbones() lists
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # "dora" trains the length of each weight row besides
epochs = 3
batch_size = 8
seed = 0  # the runs that are compared take this one and the next
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells, one epoch, one seed, fewer chips
out_dir = None  # folder for table, figures and adapter; None takes a temporary one

# %%
import copy
import tempfile
from collections.abc import Iterator
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


def build(method: str, seed: int = seed, **options: object) -> nn.Module:
    """Put a linear decoder on a copy of the pretrained backbone and attach a method."""
    network = gp.build_model(copy.deepcopy(pretrained), chips, decoder="linear", seed=seed)
    return gp.attach(network, method, seed=seed, **options)


# %%
chips = gp.load_data(data)
for part in chips.parts.values():
    part.chips = part.chips[:: 4 if FAST else 1]
try:
    pretrained = gp.load_backbone(model, bands=chips.bands)
except FileNotFoundError as missing:
    print(missing, "Random weights stand in: sizes hold, scores say nothing.", sep="\n")
    pretrained = gp.load_backbone(model, weights=None, bands=chips.bands)

# %% [markdown]
# ## 1 · Why a low rank?
# LoRA changes a weight matrix by a product of two thin ones, of *low rank*. Is that enough? Let **all** weights learn, without that limit, and compare them before and after.
#
# Each block has six linear layers: `attn.q`, `attn.k` and `attn.v` make queries, keys and values, `attn.proj` follows attention; in the MLP, `mlp.fc1` widens and `mlp.fc2` narrows again.

# %%
full_run = gp.fit(build("full"), chips, seed=seed, **settings)
print(f"{full_run.seconds:.0f} s, mIoU of the validation chips {full_run.best['val_miou']:.3f}")
middle = len(pretrained.blocks) // 2
before = pretrained.blocks[middle].mlp.fc1.weight.detach()  # W, (out, in)
tuned = full_run.model.backbone.blocks[middle].mlp.fc1.weight.detach()
change = tuned - before  # ΔW, (out, in)
print(f"fc1 of block {middle}: ΔW has {change.shape[0]} x {change.shape[1]} numbers;")
share = change.norm() / before.norm()  # of the roots of the sums of squares
print(f"its size (root of the sum of squares) is {share:.1%} of that of the weights")

# %% [markdown]
# Any matrix is a sum of simple pieces. Each looks for one direction in the input and answers with one in the output; its strength is a *singular value*. Rank $r$ means $r$ such pieces. Their squares add up to those of all numbers in the matrix.
#
# **Guess before you look.** How many directions carry 90 % of the squares of ΔW? And of the pretrained weights?

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

# %% tags=["hide-input"]
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
# `directions(values, share)`: how many of the singular values, the strongest first, carry at least that share of the squares? `cumsum(0)` adds up one by one.

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
print("You guessed:", my_guess)
if my_directions.passed:
    for name, strength in values.items():
        print(f"{name}: {directions(strength, 0.9)} of {len(strength)} carry 90 %")
my_directions

# %% [markdown]
# What it showed: how many directions a change needs can be measured. But what matters might hide in a weak one. So keep only the strongest $k$ directions of ΔW in every linear layer, and score again, without any training.

# %%
layers = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2")


def cuts(ranks: list[int]) -> Iterator[nn.Module]:
    """Give the fine-tuned network with the change of each layer cut to each rank."""
    network, pieces = copy.deepcopy(full_run.model), []
    for old_block, block in zip(pretrained.blocks, network.backbone.blocks, strict=True):
        for name in layers:
            old, new = (part.get_submodule(name).weight.data for part in (old_block, block))
            pieces.append((new, old, *torch.linalg.svd(new - old, full_matrices=False)))
    for rank in ranks:
        for new, old, left, strength, right in pieces:
            new.copy_(old + left[:, :rank] * strength[:rank] @ right[:rank])
        yield network


def score(network: nn.Module, dataset: list) -> float:
    """Return the mIoU of a network over chips."""
    samples = list(dataset)
    predicted = np.stack(network.predict(samples))
    labels = np.stack([sample["mask"].numpy() for sample in samples])
    return float(mean_iou(confusion(labels, predicted, len(chips.classes), chips.ignore_index)))


# %%
away = next(iter(chips.holdout))
tests = {"home": chips.test, "away": chips.holdout[away]}
ranks = [0, 1, 4, 16, min(change.shape)]
kept_ranks = pd.DataFrame(index=pd.Index(ranks, name="directions kept"), columns=[*tests])
for rank, network in zip(ranks, cuts(ranks), strict=True):
    kept_ranks.loc[rank] = [score(network, dataset) for dataset in tests.values()]
near = (kept_ranks - kept_ranks.iloc[-1]).astype(float).abs().max(axis=1) < 0.01
print(f"as good as all, to 0.01 mIoU: {near.idxmax()} directions of {ranks[-1]}")
kept_ranks.astype(float).round(3).add_prefix("mIoU ")

# %% [markdown]
# The last row is the fine-tuned network itself. In row 0 these layers are as they were pretrained, and all else is fine-tuned.
#
# ## 2 · LoRA in a blank cell
# Freeze $W$ and learn the change as a product from the start:
#
# $$y = W x + b + \frac{\alpha}{r}\, B A x$$
#
# $A$, ($r$ × in), takes the input down to $r$ numbers; $B$, (out × $r$), takes them up again. $A$ starts random and $B$ at zero, so that nothing is disturbed at first. $\alpha$ only enters through the *scale* $\alpha / r$. Hu et al. leave $\alpha$ as it is when they change $r$; the paper that this toolkit follows sets $\alpha = r$.
#
# ### Exercise 2 · predict
# In the very first step, with $B$ at zero: does $A$ get a gradient other than zero, and does $B$?

# %%
first_step = {"A": ..., "B": ...}  # True or False
# solution
first_step = {"A": False, "B": True}  # A's passes through B; B's is made of A x

# %%
gp.check("04/first_step", first_step)

# %% [markdown]
# What it showed: $B$ moves first, $A$ from the second step. Were both zero, neither would ever move.
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
# `nn.init.kaiming_uniform_(self.A, a=5**0.5)` fills A as peft does; `x @ M.T` applies a matrix M to the last axis of x.

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
# [peft](https://huggingface.co/docs/peft) is the usual library for LoRA. `get_peft_model` looks for layers whose names end as `target_modules` says and puts a LoRA layer in the place of each.

# %%
config = LoraConfig(r=8, lora_alpha=16, target_modules=["mlp.fc1", "mlp.fc2"])
theirs = get_peft_model(copy.deepcopy(pretrained), config)
theirs.print_trainable_parameters()
print(theirs.base_model.model.blocks[0].mlp)

# %% [markdown]
# Here `base_layer` is the frozen $W$, `lora_A` and `lora_B` are the detour. Put *your* layer in the same places, with the same A and B (random B: with zeros everything would agree), and compare what comes out, and what flows back.

# %%
with torch.no_grad():
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            weight.normal_(std=0.1, generator=generator)
batch = [chips.train[index] for index in range(min(batch_size, len(chips.train)))]
images = torch.stack([sample["image"] for sample in batch])
masks = torch.stack([sample["mask"] for sample in batch])
scaled = pretrained.normalise(images)


# %%
def with_my_layers() -> nn.Module:
    """Put LoRALayer beside fc1 and fc2 of every block, with the A and B of peft's."""
    backbone = copy.deepcopy(pretrained).requires_grad_(False)
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
# What it showed: there is no more to LoRA than what you wrote.
#
# ## 4 · Count before you attach
# The paper attaches LoRA in every block beside queries, values (each from width to width), fc1 (from width to 4 × width) and fc2 (back again).
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
# Does it agree with what `attach` builds? For the two Prithvi models, *LoRA* counts what the published configurations train, built with the authors' library.

# %% tags=["nbval-check-output"]
attached = gp.parameter_table(build("lora")).loc["adapter", "trainable"]
published = {"prithvi_eo_v1_100": 2_064_384, "prithvi_eo_v2_300": 5_505_024}
counts = {model: attached} | published
listed = gp.list_backbones().loc[[*counts], ["width", "depth", "parameters"]]
listed["LoRA, r = 16"] = [*counts.values()]
listed["share (%)"] = (100 * listed["LoRA, r = 16"] / listed["parameters"]).astype(float).round(1)
if my_count.passed:
    sizes = zip(listed["width"], listed["depth"], strict=True)
    listed["your count"] = [
        count_lora(depth * [(w, w), (w, w), (w, 4 * w), (4 * w, w)], 16) for w, depth in sizes
    ]
listed

# %% [markdown]
# What it showed: you know the size beforehand, and its share falls as models grow. (In many published files one layer, `qkv`, makes queries, keys and values; LoRA beside it changes keys, too. So `gp.load_backbone` cuts `qkv` in three.)
#
# ## 5 · Rank, alpha, placement: what do they change?
# Presets of `gp.attach` choose the places: `q_v`, `paper` (fc1 and fc2 besides), `late` (as the paper, in the last quarter of the blocks). Beside them stand a linear probe and full fine-tuning, each with its own learning rate (lesson 03).
#
# **Guess before you look.** How much more memory does a step take at rank 16 than at rank 1? Which placement will score best? And how far will two seeds of the *same* setting lie apart?

# %%
my_guess = {"memory of rank 16 / rank 1": "?", "best placement": "?", "two seeds apart": "?"}

# %%
rows = []
memory_parts = ("weights", "gradients", "optimiser", "activations")


def note(variant: str, run: object, seed: int) -> None:
    """Write down what a run trained beside the decoder, what it kept, and what it scored."""
    parts = gp.parameter_table(run.model)["trainable"]
    rows.append({"variant": variant, "seed": seed, "trained": parts["total"] - parts["decoder"]})
    rows[-1] |= {part: run.memory[part] / 2**20 for part in memory_parts}
    rows[-1] |= {role: score(run.model, dataset) for role, dataset in tests.items()}
    rows[-1]["seconds"] = run.seconds


def train(variant: str, method: str = method, seeds: list = seeds, **options: object) -> object:
    """Train one setting with every seed, and return the last run."""
    for number in seeds:
        network = build(method, number, **options)
        run = gp.fit(network, chips, seed=number, dashboard="text", **settings)
        note(variant, run, number)
    return run


# %%
train("paper, r 1", r=1)
lora_run = train("paper, r 16", r=16, name="first")

# %%
two = {"paper, r 16, alpha 64": {"lora_alpha": 64}, "q_v, r 16": {"preset": "q_v"}}
for variant, options in two.items():
    train(variant, r=16, **options)

# %%
train("late, r 16", r=16, preset="late")
train("linear probe", "linear_probe")
note("full fine-tuning", full_run, seed)
if len(seeds) > 1:
    train("full fine-tuning", "full", seeds[1:])

# %%
runs = pd.DataFrame(rows)
runs.to_csv(out / "scores.csv", index=False)
table = runs.groupby("variant", sort=False).mean().drop(columns="seed")
print("You guessed:", my_guess)
rank_1, rank_16, full = (table.loc[n] for n in ("paper, r 1", "paper, r 16", "full fine-tuning"))
print("how many times less than full fine-tuning:")
for name, row in (("rank 1", rank_1), ("rank 16", rank_16)):
    times = {part: full[part] / row[part] for part in ("trained", "gradients", "activations")}
    print(f"{name}: " + ", ".join(f"{part} {value:.1f}" for part, value in times.items()))
steps = table[[*memory_parts]].sum(axis=1)
print(f"a step of rank 16 takes {steps['paper, r 16'] / steps['paper, r 1']:.2f} times the memory")
print(f"of rank 1, and its activations {rank_16['activations'] / rank_1['activations']:.2f} times")
print("trained: weights in the backbone (gradients are the decoder's, too); home, away: mIoU;")
print("weights to activations: MiB of a step")
table.astype({"trained": int}).round(
    dict.fromkeys([*memory_parts, "seconds"], 1) | dict.fromkeys(tests, 3)
)

# %% [markdown]
# Gradients and what the optimiser remembers fall with the rank. The activations hardly notice it: the error passes back through every layer above the first adapter, frozen or not; and $A$ needs the input that $W$ would need (lesson 06). *Placement* changes them: without $A$, no input is kept.
#
# ### Exercise 6 · open challenge
# Make a network with LoRA whose step keeps **less than half** of the activations of the preset `paper` at rank 16, and that still adapts **at least two** blocks. Use `build("lora", …)`; `gp.list_methods().loc["lora", "options"]` lists what LoRA takes.


# %%
def kept(network: nn.Module) -> int:
    """Return the bytes of activations that one training step of the network keeps."""

    def loss() -> torch.Tensor:
        return functional.cross_entropy(network(images), masks, ignore_index=chips.ignore_index)

    return training_bytes(network.train(), loss)["activations"]


limit = kept(build("lora")) / 2
small_network = None
# solution
small_network = build("lora", last=2)

# %%
gp.check("04/less_memory", small_network, kept=kept, limit=limit)

# %% [markdown]
# What it showed: to be rid of most activations, need no gradient in most blocks.
#
# ### Scores: first the spread, then the ranking
# A difference no larger than that between two seeds of one setting says nothing:

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

# %%
print(f"learning rates, after {len(full_run.history)} steps each:", end=" ")
rates = gp.list_methods().loc[["linear_probe", method, "full"], "lr"]
print(", ".join(f"{name} {rate:g}" for name, rate in rates.items()))
for role in tests:
    column = table[role].sort_values(ascending=False)
    told = column[column.index.isin([column.index[0], "linear probe", "full fine-tuning"])]
    print(f"{role}, best first:", ", ".join(f"{name} {score:.3f}" for name, score in told.items()))

# %% [markdown]
# Two seeds show luck only roughly, and after few steps a smaller rank, scale or learning rate may only be unfinished. Swipe from LoRA to full fine-tuning:

# %%
region_map = gp.map_regions({"LoRA": lora_run, "full": full_run}, chips)
region_map

# %% [markdown]
# Where the linear probe does as well as any LoRA, adapting the backbone has brought nothing *on these data*. To compare elsewhere, keep $\alpha / r$ as it is and tune the learning rate; where memory is short, change the *placement*.
#
# ## 6 · Take off, merge, save, switch
# **Take off.** Inside `with network.without_adapter():` the backbone computes what it computed before anything was attached, to the bit:

# %%
network = lora_run.model.eval()
pretrained.eval()
with torch.no_grad():
    adapted, original = network.backbone(scaled)[-1], pretrained(scaled)[-1]
    with network.without_adapter():
        bare = network.backbone(scaled)[-1]
print(f"adapter on:  features differ by {difference(adapted, original):.1%} of the largest value")
print(f"adapter off: exactly the pretrained features: {torch.equal(bare, original)}")

# %% [markdown]
# **Merge.** `gp.merge` puts your `merged_weight`, $W + \frac{\alpha}{r} B A$, in the place of $W$. Then the adapter can no longer be taken off, so merge a copy. Will it give exactly the same numbers?

# %%
merged = gp.merge(copy.deepcopy(network)).eval()
with torch.no_grad():
    unequal = difference(merged(images), network(images))
parts = [part.plain_backbone for part in (network, merged)] + [pretrained]
kinds = [str(type(part.blocks[0].attn.q)) for part in parts]
print("queries are made by {}, merged by {}, pretrained by {}".format(*kinds))
print(f"outputs differ by {unequal:.1g} of the largest value")
assert unequal < 1e-4, "merging must not change what the network computes"

# %% [markdown]
# Equal to rounding, not to the bit: $W x + B A x$ and $(W + B A) x$ round in another order.
#
# **Save.** Whoever has the backbone needs only the adapter and the decoder.

# %%
folder = gp.save_adapter(network, out / "adapter")
files = pd.Series({file.name: file.stat().st_size / 1e3 for file in sorted(folder.iterdir())})
whole = sum(weight.numel() for weight in pretrained.parameters()) * 4 / 1e3
needed = files[["adapter_model.safetensors", "decoder.safetensors"]].sum()
print(f"adapter and decoder: {needed:.0f} kB; the backbone in float32: {whole:.0f} kB,")
print(f"{whole / needed:.0f} times as much")
files.rename("kB").to_frame().round(1)

# %% [markdown]
# `gp.load_model(folder)` builds the network again. (`reference.safetensors` tells what training has seen.)
#
# **Switch.** One backbone can carry many adapters, each with a decoder of its own: one per region, task or season. Attach a second one under another name, to learn at the other place.

# %%
elsewhere = gp.load_data(data, train_regions=[away], holdout_regions=[])  # split by place, too
for part in elsewhere.parts.values():
    part.chips = part.chips[:: 4 if FAST else 1]
network = gp.attach(network, "lora", name="second", seed=seed, r=8)
# Fewer chips make fewer steps in an epoch, and more epochs make up for that.
more = settings["epochs"] * len(chips.train) / len(elsewhere.train)
again = {**settings, "epochs": max(1, round(more))}
network = gp.fit(network, elsewhere, seed=seed, dashboard="text", **again).model
print("adapters:", ", ".join(network.adapters), "| active:", network.adapter)

# %%
places = {"home": chips.test, away: elsewhere.test}
print("test chips:", {place: len(dataset) for place, dataset in places.items()})
switched = pd.DataFrame(index=pd.Index(network.adapters, name="adapter"))
for place, dataset in places.items():
    switched[f"mIoU {place}"] = [
        score(network.use_adapter(name), dataset) for name in network.adapters
    ]
switched.round(3)

# %% [markdown]
# ## Check yourself
# Decide first, then click your answer to see why.

# %%
gp.quiz("04")

# %% [markdown]
# ## What we have seen
# In this lesson we have looked for the directions of a fine-tuning; written LoRA and found it equal to peft's; counted its weights; varied rank, alpha and placement; and merged, saved and switched adapters. Gradients and optimiser state fall with the rank, activations stay.
#
# ## What to try next
# - Set `method = "dora"`: what happens to the activations, and to the seconds?
# - Set `epochs = 10`: which differences of section 5 were only unfinished training?
# - On a GPU: `model = "prithvi_eo_v2_300"`, `data = "sen1floods11"`.
#
# ## How this differs at full scale
# The paper trains models 30 to 110 times as large, for up to 100 epochs, with a searched learning rate. By the authors' account LoRA matches or surpasses full fine-tuning on most data sets; on cashew plantations it stays behind for every model ([their results](https://github.com/IBM/peft-geofm)).
#
# ## References
# - Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Liu et al., *DoRA: Weight-Decomposed Low-Rank Adaptation*, [arXiv 2402.09353](https://arxiv.org/abs/2402.09353)
# - [Documentation of peft on LoRA](https://huggingface.co/docs/peft/package_reference/lora)
