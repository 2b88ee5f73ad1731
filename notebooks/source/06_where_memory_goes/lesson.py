# %% [markdown]
# # 06 · Where does the memory go?
# **Count what a training step keeps before it runs, and find out why no single percentage says what LoRA saves.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Count* by hand what a training step holds in memory.
# - *Ask* autograd what it keeps, and *explain* why LoRA keeps nearly all of it.
# - *Predict* the memory of a step, and *measure* it.
# - *Judge* a claim such as "PEFT saves so much memory".
#
# ## Time to learn
# About 60 min, of which the computer needs about 1 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Training: forward, backward, optimiser step | necessary | [PyTorch: learn the basics](https://docs.pytorch.org/tutorials/beginner/basics/intro.html) |
# | Linear probe and full fine-tuning | necessary | [03 · The two ends](03_the_two_ends.ipynb) |
# | LoRA: a thin detour beside a frozen weight | necessary | [04 · LoRA](04_lora.ipynb) |

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
# Change what you like in the next cell. `FAST = True` runs the same lesson with fewer chips and sizes, and plans a smaller model of the paper.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships: it is planned and measured
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # what is compared with full fine-tuning
epochs = 1
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with fewer chips and sizes
out_dir = None  # folder for tables and figures; None takes a temporary one

# %%
import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import nn

import geopeft_nb as gp
from geopeft_nb.memory.frugal import applied
from geopeft_nb.memory.measure import device_memory, memory_now
from geopeft_nb.memory.plan import DEVICES
from geopeft_nb.pictures.show import PALETTE

out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
large = "prithvi_eo_v1_100" if FAST else "prithvi_eo_v2_300"  # planned only, never loaded
GIB, MIB = 2**30, 2**20  # bytes; GPUs are sold in GB, which are 10**9 bytes
parts = ["weights", "gradients", "optimiser", "activations"]
chips, weights = gp.load_data(data), "pretrained"
for dataset in (chips.train, chips.val):
    dataset.chips = dataset.chips[:: 4 if FAST else 1]
try:
    gp.load_backbone(model, bands=chips.bands)
except FileNotFoundError as missing:
    print(missing, "Random weights stand in: memory depends on shapes alone.", sep="\n")
    weights = None


# %%
def build(method: str, name: str = model, weights: str | None = weights) -> nn.Module:
    """Put a linear decoder on a backbone and attach a method."""
    backbone = gp.load_backbone(name, weights=weights, bands=chips.bands)
    network = gp.build_model(backbone, chips, decoder="linear", metadata=False, seed=seed)
    return gp.attach(network, method, seed=seed)


# %% [markdown]
# ## 1 · Three bills that need no computer
# A training step holds four things in memory:
#
# 1. **Weights**: one number each, trained or frozen.
# 2. **Gradients**: one number for each *trained* weight.
# 3. **The optimiser's memory**: AdamW remembers two numbers for each trained weight.
# 4. **Activations**: results of the forward pass that the backward pass will need again.
#
# ### Exercise 1 · predict
# A network has 300 million weights, of which a method trains 6 million. How many bytes are the first three bills together, in 32-bit floats?

# %%
three_bills = None
# solution
three_bills = 4 * 300e6 + (4 + 8) * 6e6  # all weights; gradient and AdamW's two of the trained ones

# %%
gp.check("06/bills", three_bills)

# %% tags=["nbval-check-output"]
names = ["full", method, "linear_probe"]


def by_hand(network: nn.Module) -> dict[str, int]:
    """Count the three bills from the shapes alone, in bytes."""
    total = sum(weight.numel() for weight in network.parameters())
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    return {"weights": 4 * total, "gradients": 4 * trained, "optimiser": 2 * 4 * trained}


networks = {name: build(name) for name in names}
bills = pd.DataFrame({name: by_hand(network) for name, network in networks.items()}).T
(bills / MIB).assign(sum=bills.sum(axis=1) / MIB).round(2).add_suffix(" (MiB)")

# %% [markdown]
# What it showed: PEFT cannot touch the first bill, and nearly deletes the next two. Now for a model of the paper, on torch's *meta device*, where tensors have a shape and no numbers.

# %% tags=["nbval-check-output"]
with torch.device("meta"):
    large_networks = {name: build(name, large, weights=None) for name in names}
large_bills = pd.DataFrame({name: by_hand(net) for name, net in large_networks.items()}).T
gp.parameter_table(large_networks[method]).round(2)

# %%
shown = (large_bills / GIB).assign(sum=large_bills.sum(axis=1) / GIB)
without_activations = 1 - large_bills.sum(axis=1)[method] / large_bills.sum(axis=1)["full"]
print(f"Without activations {method} would save {without_activations:.0%}. Keep this number.")

shown.round(2).add_suffix(" (GiB)")

# %% [markdown]
# ## 2 · The fourth bill: what does a layer keep?
# A linear layer computes $y = xW^\top + b$ for every row of $x$. Going backward, it is given $\partial y$ and makes up to three gradients:
#
# $$\partial W = \partial y^\top x \qquad \partial b = \textstyle\sum_{\text{rows}} \partial y \qquad \partial x = \partial y\, W$$
#
# The first is wanted if the layer learns, the last if something further down learns. What stands in a wanted formula, and is neither $\partial y$ nor a weight, **must be kept from the forward pass**.
#
# ### Exercise 2 · write
# `kept_by_linear(rows, n_in, n_out, trained, passes)`: the bytes that the layer keeps besides its weights. `n_in` and `n_out` are the widths of $x$ and $y$; `trained` says whether $W$ and $b$ learn, `passes` whether the error travels on to $x$.

# %%
kept_by_linear = None


# solution
def input_if_trained(rows: int, n_in: int, n_out: int, trained: bool, passes: bool) -> int:
    """Only the gradient of W needs anything of the forward pass: the input."""
    return 4 * rows * n_in if trained else 0


kept_by_linear = input_if_trained

# %%
gp.check("06/linear", kept_by_linear)

# %% [markdown]
# What it showed: a frozen layer that only passes the error on keeps **nothing**.
#
# ## 3 · Ask autograd itself
# PyTorch calls a *hook*, a function of yours, whenever it saves a tensor for the backward pass.
#
# ### Exercise 3 · mend a broken line
# Several tensors can look into the same memory, a *storage*, which should count once: all views of one storage need the same key. The line below gives each Python object a key of its own. (`tensor.untyped_storage()` is the storage; `.data_ptr()` is the address where something begins.)


# %%
def by_object(tensor: torch.Tensor) -> int:
    """Return a key of a tensor's memory."""
    return id(tensor)  # mend this line


key_of = by_object


# solution
def by_address(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's memory."""
    return tensor.untyped_storage().data_ptr()


key_of = by_address

# %%
my_key = gp.check("06/storage", key_of)
my_key


# %%
def watch(compute: Callable, own: Iterator[nn.Parameter], where: Callable = str) -> pd.DataFrame:
    """List what autograd keeps while something computes, each key once, weights left out."""
    seen, kept, rows = {key_of(weight) for weight in own}, [], []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if key_of(tensor) not in seen:
            seen.add(key_of(tensor))
            kept.append(tensor)  # or else its address could be given to another
            rows.append((where(), tuple(tensor.shape), tensor.untyped_storage().nbytes()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute()
    return pd.DataFrame(rows, columns=["kept by", "shape", "bytes"])


# %%
if not my_key.passed:
    print("With this key some memory counts twice, here and in the tables below. Mend it first.")
rows, n_in, n_out = 520, 192, 768
cases = []
for trained, passes in ((True, True), (True, False), (False, True), (False, False)):
    layer = nn.Linear(n_in, n_out).requires_grad_(trained)
    x = torch.randn(rows, n_in, requires_grad=passes)
    kept = watch(lambda layer=layer, x=x: layer(x), layer.parameters())
    cases.append({"trained": trained, "error travels on": passes, "kept": kept["bytes"].sum()})
pd.DataFrame(cases).assign(**{"bytes of x": 4 * rows * n_in, "bytes of y": 4 * rows * n_out})

# %% [markdown]
# What it showed: with the right key, *kept* is your formula of exercise 2. Now a whole transformer block. A chip becomes *tokens*, each a list of numbers as long as the *width*; attention mixes tokens, then the MLP works on each alone.


# %%
@contextlib.contextmanager
def names_in(block: nn.Module) -> Iterator[Callable]:
    """Give a function that says which layer of a block computes right now."""
    running, handles = [""], []

    def leave(*_: object) -> None:
        running.pop()

    for name, layer in block.named_modules():
        enter = layer.register_forward_pre_hook(lambda *_, name=name: running.append(name))
        handles += [enter, layer.register_forward_hook(leave)]
    yield lambda: running[-1]
    for handle in handles:
        handle.remove()


# %%
def block_table(network: nn.Module, batch: int = batch_size) -> pd.DataFrame:
    """List what the first block of a network keeps in a training step, and for which layer."""
    backbone = network.train().plain_backbone
    block, width = backbone.blocks[0], backbone.card.width
    tokens = 1 + (chips.size // backbone.patch_size) ** 2
    x = torch.randn(batch, tokens, width, requires_grad=True)
    with names_in(block) as running:
        table = watch(lambda: block(x), block.parameters(), running)
    table["multiple of the width"] = table["bytes"] / (4 * batch * tokens * width)
    layer = r"^((?:attn\.|mlp\.)?[^.]*)"  # what a method puts into a layer counts as the layer
    table["kept by"] = table["kept by"].str.extract(layer, expand=False)
    return table


# %%
full_block = block_table(networks["full"])
print(f"width {networks['full'].plain_backbone.card.width}, batch {batch_size}")
full_block.round(2)

# %% [markdown]
# From top to bottom, as the block computes:
#
# - `norm1`, `norm2` and GELU (`mlp.act`) keep their inputs.
# - `attn.q`, `mlp.fc1`, `mlp.fc2`: trained linear layers keep their input; that of `fc2` is wide. `attn.k` and `attn.v` read the same storage as `attn.q`.
# - `attn` keeps queries, keys and values, and its own result, which `attn.proj` reads, too; but no table of tokens times tokens.
#
# ### Exercise 4 · write
# `bytes_of_block(tokens, width, batch)`: the bytes that a block keeps when all of it is trained. `tokens` are those of one chip; the MLP's inner width is 4 times `width`. You may leave the tiny rows out: the check measures real blocks of other shapes and allows 2 %.

# %%
bytes_of_block = None


# solution
def count_block(tokens: int, width: int, batch: int) -> int:
    """Add up the table: norms 2, q, k and v in 1 and out 3, attention 1, fc1 1, GELU 4, fc2 4."""
    return (2 + 1 + 3 + 1 + 1 + 4 + 4) * 4 * batch * tokens * width


bytes_of_block = count_block

# %%
my_block = gp.check("06/block", bytes_of_block)
my_block

# %% [markdown]
# What it showed: a block keeps a multiple of batch × tokens × width, whatever the images show.
#
# ## 4 · Why LoRA keeps nearly all of it
# LoRA puts its detours at `q`, `v`, `fc1` and `fc2`, and freezes the rest. **Guess before you look.** What share of the block's activations does it keep?

# %%
my_guess = {"share of activations that LoRA keeps": "?"}

# %% [markdown]
# The recipe `"recompute"` computes layer norms and GELUs again in the backward pass, instead of keeping what they gave:

# %%
recomputing = f"{method}, recompute"
blocks = {"full": full_block, method: block_table(networks[method])}
with applied(networks[method], "recompute"):
    blocks[recomputing] = block_table(networks[method])
for kept in blocks.values():  # with recompute, the block itself calls attention's functions
    kept["kept by"] = kept["kept by"].replace("", "attn")
shares = pd.DataFrame(
    {name: t.groupby("kept by")["multiple of the width"].sum() for name, t in blocks.items()}
)
order = ["norm1", "attn.q", "attn.k", "attn.v", "attn", "attn.proj"]
order += ["norm2", "mlp.fc1", "mlp.act", "mlp.fc2"]
known = [name for name in order if name in shares.index]
shares = shares.reindex([*known, *shares.index.difference(order)]).fillna(0)
print("You guessed:", my_guess)
print((shares.sum() / shares["full"].sum()).map("{:.1%}".format).to_string())
shares.round(2)

# %% tags=["hide-input"]
colours = ["#56B4E9", "#0072B2", "#009E73", "#F0E442", "#CC79A7", "#E69F00", "#D55E00", "#999999"]
colours += ["#222222", "#A6761D", "#66A61E"]  # other methods keep something in more places
axes = shares.T.plot.barh(
    stacked=True, figsize=(9, 2.6), color=colours[: len(shares)], edgecolor="white"
)
axes.invert_yaxis()
axes.margins(x=0.03)
axes.set(xlabel="activations kept, in multiples of batch × tokens × width numbers")
axes.set_title("What one block keeps, by the layer that keeps it")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
axes.figure.savefig(out / "block.png", dpi=110, bbox_inches="tight")
words = [f"{name} {value:.1f} times the width" for name, value in shares.sum().items()]
gp.show(axes.figure, alt=f"Stacked bars of what one block keeps: {'; '.join(words)}.")

# %% [markdown]
# - The frozen $W$ needs no input any more. But the trained $A$ reads **the same input**, so it is kept after all; what $A$ gives comes on top.
# - Norms, GELU and attention keep their inputs because the error has to *travel through* them.
#
# **So LoRA saves gradients and optimiser memory, and hardly any activations.** Recomputing saves some; that is a recipe, not LoRA (lesson 07).
#
# ## 5 · Predict, then measure
# `gp.memory_plan` counts so for a whole network, on tensors without numbers. `gp.measure_memory` runs a real step. Take `full` first:

# %%
planned = gp.memory_plan(networks["full"], batch_size)
gp.show(planned.plot(), alt=str(planned))

# %% [markdown]
# `precision="bf16"` is *mixed precision*: most computing is done with 16-bit floats, while weights, gradients and AdamW's two averages stay in 32 bits. **Guess before you look.** How does it change the total of full fine-tuning? And how far will plan and measurement lie apart?

# %%
my_guess = {"changed by bf16 (%)": "?", "plan minus measurement (%)": "?"}

# %%
compared = []
for name, network in networks.items():
    for precision in ("fp32", "bf16"):
        plan = gp.memory_plan(network, batch_size, precision=precision)
        found = gp.measure_memory(network, batch_size, precision=precision, device=device)
        row = {"method": name, "precision": precision} | {p: getattr(plan, p) for p in parts}
        compared.append(row | {"total": plan.total, "measured": found.total})
table = pd.DataFrame(compared).set_index(["method", "precision"])
table["off"] = table["total"] - table["measured"]
table.to_csv(out / "planned_and_measured.csv")
print("You guessed:", my_guess)
for name in names:
    now, before = table.loc[(name, "bf16"), "total"], table.loc[(name, "fp32"), "total"]
    print(f"{name}: bf16 changes the total by {now / before - 1:+.0%}")
(table / MIB).round(2).add_suffix(" (MiB)")

# %% [markdown]
# On a CPU the plan is no estimate: what autograd keeps depends on operations and shapes. (Its weights include buffers, such as the table of positions.) Does your formula fit into it?

# %%
if my_block.passed:
    card = networks["full"].plain_backbone
    tokens = 1 + (chips.size // card.patch_size) ** 2
    mine = bytes_of_block(tokens, card.card.width, batch_size) * len(card.blocks)
    print(f"your blocks {mine / MIB:.1f} MiB, planned activations {planned.activations / MIB:.1f}")
    print("the rest is kept for the patch embedding, the final norm, the decoder and the loss")
else:
    print("Here your formula meets the plan, as soon as it passes its check.")

# %% [markdown]
# ## 6 · The same at full size
# Now a model of the paper, with chips of 224 × 224 pixels. **Guess before you look**: which bill is the largest with full fine-tuning, and which with LoRA?
#
# In 32 bits, activations are proportional to the batch, and all else stays. So the plan of *one* chip tells every batch:

# %%
kinds = {"full": "full", method: method, recomputing: method, "linear_probe": "linear_probe"}


@functools.cache
def plan_large(kind: str, batch: int = 1, side: int = 224, precision: str = "fp32") -> object:
    """Plan a step of the large model, each only once."""
    frugal = "recompute" if kind == recomputing else None
    return gp.memory_plan(large_networks[kinds[kind]], batch, side, precision, frugal)


def total_of(kind: str, batch: int, side: int = 224) -> int:
    """Scale the plan of one chip to a batch: activations grow, the rest is fixed."""
    plan = plan_large(kind, 1, side)
    return plan.total + (batch - 1) * plan.activations


scaled, planned_2 = total_of("full", 2), plan_large("full", 2).total
print(f"two chips, scaled from one: {scaled / GIB:.4f} GiB; planned: {planned_2 / GIB:.4f} GiB")

# %% tags=["hide-input"]
rows = {kind: {part: getattr(plan_large(kind), part) / GIB for part in parts} for kind in kinds}
sizes_224 = pd.DataFrame(rows).T
sizes_224["activations"] *= batch_size
axes = sizes_224.plot.barh(stacked=True, figsize=(9, 2.8), color=list(PALETTE.values()))
axes.invert_yaxis()
axes.set(xlabel="memory (GiB)", title=f"{large}, {batch_size} chips of 224 × 224 pixels, planned")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
axes.figure.savefig(out / "large.png", dpi=110, bbox_inches="tight")
words = [f"{kind} {value:.1f} GiB" for kind, value in sizes_224.sum(axis=1).items()]
gp.show(axes.figure, alt=f"Stacked bars of the memory of a step: {'; '.join(words)}.")

# %%
total = sizes_224.sum(axis=1)
sizes_224.assign(total=total, **{"saved (%)": 100 * (1 - total / total["full"])}).round(2)

# %% [markdown]
# And mixed precision? Its 16-bit copies of the weights come in addition:

# %%
for batch in (1,) if FAST else (1, batch_size):
    fp32, bf16 = total_of("full", batch), plan_large("full", batch, precision="bf16").total
    print(f"batch {batch}, full: fp32 {fp32 / GIB:.2f} GiB, bf16 {bf16 / GIB:.2f} GiB")

# %% [markdown]
# ### Exercise 5 · write
# The authors' project page says that LoRA reduces memory by 30 %. Up to which batch does it save **at least** 30 %? Write `last_batch(full_one, lora_one)` for two plans of a *single* chip, which have `.total` and `.activations`, in bytes. Return a whole number, 0 if not even one chip saves so much.

# %%
last_batch = None


# solution
def by_formula(full_one: object, lora_one: object) -> int:
    """Solve lora_fixed + batch * lora_chip = 0.7 * (full_fixed + batch * full_chip)."""
    full_fixed, lora_fixed = (one.total - one.activations for one in (full_one, lora_one))
    growing = lora_one.activations - 0.7 * full_one.activations
    return max(0, int((0.7 * full_fixed - lora_fixed) / growing))  # the next one would save less


last_batch = by_formula

# %%
my_batch = gp.check("06/thirty", last_batch)
if my_batch.passed:
    most = last_batch(plan_large("full"), plan_large(method))
    print(f"{large}, 224 x 224 pixels: at least 30 % up to {most} chips")
my_batch

# %% [markdown]
# What it showed: "30 %" is true up to a batch, which depends on the model and the chip. **Guess before you look**: what share does LoRA save with small chips, and with large ones?

# %%
chip_sides = (64, 224) if FAST else (64, 128, 224, 320, 512)
batches = (1, 4, 8, 32)
saving = pd.DataFrame({
    batch: {side: 1 - total_of(method, batch, side) / total_of("full", batch, side)
            for side in chip_sides} for batch in batches
})  # fmt: skip
saving.index.name = "side (pixels)"
saving.to_csv(out / "saving.csv")
(100 * saving).round(0).add_prefix("batch ")

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
looks = zip(batches, ("#56B4E9", "#009E73", "#0072B2", "#D55E00"), "o^sD", strict=True)
for batch, colour, mark in looks:
    axes.plot(100 * saving[batch], color=colour, marker=mark, label=f"batch {batch}")
for name, claim in (("authors: 30 %", 30), ("elsewhere: 72 %", 72)):
    axes.axhline(claim, color="#777777", ls="--", lw=1)
    axes.annotate(name, (64, claim), xytext=(0, 3), textcoords="offset points", size=9)
axes.set(xlabel="side of a chip (pixels)", ylabel="memory saved against full (%)")
axes.set(title=f"{method} on {large}, planned: one method, many percentages")
axes.set(ylim=(0, 80), xticks=chip_sides)
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
figure.savefig(out / "saving.png", dpi=110)
ends = (100 * saving.iloc[[0, -1]]).round().astype(int)
words = [f"batch {batch}: {first} to {last} %" for batch, (first, last) in ends.items()]
gp.show(figure, alt=f"Memory saved, from the smallest to the largest chip: {'; '.join(words)}.")

# %%
small, large_chips = saving[8].iloc[[0, -1]]
print(f"batch 8: {small:.0%} at {chip_sides[0]} pixels, {large_chips:.0%} at {chip_sides[-1]}")
least, most = (round(number, 2) for number in (saving.min(axis=None), saving.max(axis=None)))
print(f"all of the table: {least:.0%} to {most:.0%}")
print(f"counted without activations: {without_activations:.0%}")
for claim in (0.30, 0.72):
    print(
        f"a saving of {claim:.0%} lies", "inside" if least <= claim <= most else "outside", "of it"
    )

# %% [markdown]
# - **"30 % less"** is the authors' number, in the README of [IBM/peft-geofm](https://github.com/IBM/peft-geofm), without model, chips or batch.
# - **"72 % less memory and 65 % less time"** is told of the paper on the web; in the authors' README and tables we find neither. Compare it with the saving without activations.
# - **Time.** The authors' `data/epoch_and_time.csv` has LoRA / full per epoch at 1.04 (Prithvi 2.0), 1.05 (Prithvi 1.0) and 0.91 (Clay v1; 1.06 with six bands); the averages over data sets are ours.
#
# ## 7 · Does it fit?
# Which slider moves the pointer on the ruler most?

# %%
gp.memory_widget(
    large_networks,
    batch_size=batch_size,
    size=224,
    batches=(1, 2, 4, 8, 16, 32),
    sizes=(64, 128, 224, 320, 512),
)

# %% [markdown]
# The ruler looks at the **peak**, the most that is alive at once: more than what is kept, because things come and go.
#
# ### Exercise 6 · open challenge
# `largest_batch(plan, limit)`: the largest batch whose step fits into `limit` bytes, 0 if none does. `plan(batch)` (1 to 16,384) returns a plan with `.total`, `.peak` and `.fits(bytes)`. Ask for **at most 25** plans; it may be hundreds.

# %%
largest_batch = None


# solution
def by_a_guess(plan: Callable, limit: float) -> int:
    """Two plans give a guess, which is never too small; then ask whether it fits."""
    one, two = plan(1).peak, plan(2).peak
    most = max(0, int(1 + (limit - one) // (two - one)))
    while most and not plan(most).fits(limit):
        most -= 1
    return most


largest_batch = by_a_guess

# %%
my_largest = gp.check("06/fits", largest_batch)
if my_largest.passed:
    for name in ("full",) if FAST else ("full", method):
        most = largest_batch(functools.partial(plan_large, name), DEVICES["T4"])
        print(f"{name}, 224 x 224 pixels, a T4 of 16 GB: {most} chips")
my_largest

# %% [markdown]
# What it showed: two plans give a guess; `.fits` knows.
#
# ## 8 · What is not in the count
# A plan counts tensors. A process also holds Python, its libraries and the data. Train, and read what the operating system says.

# %%
before = memory_now()
settings = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "device": device}
run = gp.fit(build(method), chips, **settings)
plan = gp.memory_plan(networks[method], batch_size)
seen = {
    "planned: kept in a step": plan.total,
    "planned: peak of a step": plan.peak,
    "measured by fit: growth at its peak, all things included": run.memory["peak"],
    "the process before training": before,
    "the process now": memory_now(),
}
print(f"the process is {memory_now() / plan.peak:.0f} times as large as the peak of a step")
pd.Series({name: f"{value / MIB:,.0f} MiB" for name, value in seen.items()}).to_frame("")

# %% [markdown]
# On a GPU, CUDA takes some hundred megabytes, some operations want *workspace*, and the allocator rounds up. Leave room, and measure where you train:

# %%
if torch.cuda.is_available():
    measured = gp.measure_memory(networks[method], batch_size, device="cuda")
    planned = gp.memory_plan(networks[method], batch_size, device="cuda")
    print(f"peak: planned {planned.peak / MIB:.1f}, allocator {measured.peak / MIB:.1f} MiB")
    print({name: f"{value / GIB:.2f} GiB" for name, value in device_memory("cuda").items()})
else:
    print("There is no GPU here, so there is no allocator to ask.")

# %% [markdown]
# ## Check yourself
# Decide first, then click your answer to see why.

# %%
gp.quiz("06")

# %% [markdown]
# ## What we have seen
# In this lesson we have counted a training step. Three bills follow from the number of weights, and PEFT shrinks two of them to almost nothing. Activations follow from the operations that the error travels through, and LoRA keeps nearly all of them. A percentage without model, chip size, batch and precision says nothing.
#
# ## What to try next
# - `method = "bitfit"`, which trains only the biases: which activations does it keep, and why fewer than LoRA?
# - `decoder="upernet"` in `build`: how much of the memory can no PEFT method touch?
# - `gp.attach(network, method, preset="q_v")` in `build`: which bars of section 4 vanish, and why those?
#
# ## How this differs at full scale
# The large model was planned by the rules of a CPU. On a GPU, set `model = "prithvi_eo_v2_300"` and `data = "sen1floods11"`, and compare section 8.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Hu et al., *LoRA*, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)
# - Dao et al., *FlashAttention*, [arXiv 2205.14135](https://arxiv.org/abs/2205.14135)
