# %% [markdown]
# # 06 · Where does the memory go?
# **Count what a training step keeps, to the byte and before it runs; see what autograd holds on to and why; and find out why nobody can say what share LoRA saves without naming chip size and batch.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Count* weights, gradients and optimiser memory by hand, for any model.
# - *Watch* what autograd keeps for the backward pass, and *derive* it for a layer and a block.
# - *Explain* why LoRA keeps nearly all activations.
# - *Plan* the memory of a step before it runs, and *measure* it afterwards.
# - *Judge* claims such as "72 % less memory".
#
# ## Time to learn
# About 60 min, of which the computer needs about 2 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Training a network: forward, backward, optimiser step | necessary | [PyTorch: learn the basics](https://docs.pytorch.org/tutorials/beginner/basics/intro.html) |
# | The two ends, linear probe and full fine-tuning | necessary | [03 · The two ends](03_the_two_ends.ipynb) |
# | LoRA: a thin detour beside a frozen weight | necessary | [04 · LoRA](04_lora.ipynb) |
# | How autograd works | helpful, explained here | [PyTorch: autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html) |

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
# Everything that you may want to change stands in the next cell. `large` is a model of the paper. It is only planned, never loaded: a plan needs shapes and no numbers. `FAST = True` runs the same lesson with fewer chip sizes.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships: it is planned and measured
large = "prithvi_eo_v2_300"  # planned only, so that nothing is downloaded
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # what is compared with full fine-tuning
epochs = 1
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with fewer chip sizes
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

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
chips = gp.load_data(data)
GIB, MIB = 2**30, 2**20  # bytes; GPUs are sold in GB, which are 10**9 bytes
parts = ["weights", "gradients", "optimiser", "activations"]


def build(method: str, name: str = model, on_paper: bool = False) -> nn.Module:
    """Put a linear decoder on a backbone and attach a method; on paper without any numbers."""
    with torch.device("meta") if on_paper else contextlib.nullcontext():
        weights = None if on_paper else "pretrained"
        backbone = gp.load_backbone(name, weights=weights, bands=chips.bands)
        network = gp.build_model(backbone, chips, decoder="linear", metadata=False, seed=seed)
        return gp.attach(network, method, seed=seed)


# %% [markdown]
# ## 1 · Three bills that need no computer
# A training step holds four things in memory:
#
# 1. **Weights**: one number each, trained or frozen.
# 2. **Gradients**: one number for each *trained* weight.
# 3. **The optimiser's memory**: AdamW remembers two numbers for each trained weight, a running mean of its gradient and one of the gradient's square.
# 4. **Activations**: results of the forward pass that the backward pass will need again.
#
# A 32-bit float has 4 bytes. So the first three need no more than counting: 4 + 4 + 8 = 16 bytes for a trained weight, 4 for a frozen one.

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
# The same for a model of the paper. It stands on torch's *meta device*, where tensors have a shape and no numbers, so that hundreds of millions of weights take no memory here.

# %% tags=["nbval-check-output"]
large_networks = {name: build(name, large, on_paper=True) for name in names}
large_bills = pd.DataFrame({name: by_hand(net) for name, net in large_networks.items()}).T
gp.parameter_table(large_networks[method]).round(2)

# %%
shown = (large_bills / GIB).assign(sum=large_bills.sum(axis=1) / GIB)
shown.round(2).add_suffix(" (GiB)")

# %%
without_activations = 1 - large_bills.sum(axis=1)[method] / large_bills.sum(axis=1)["full"]
print(f"Without activations {method} would save {without_activations:.0%}. Keep this number.")

# %% [markdown]
# ## 2 · The fourth bill: what does a layer keep?
# A linear layer computes $y = xW^\top + b$ for every row of $x$. Going backward, it is given $\partial y$, the gradient of the loss for $y$, and has up to three gradients to make:
#
# $$\partial W = \partial y^\top x \qquad \partial b = \textstyle\sum_{\text{rows}} \partial y \qquad \partial x = \partial y\, W$$
#
# The first is wanted if the layer learns. The last is wanted if something further down learns, so that the error has to travel on. What stands in a wanted formula, and is neither $\partial y$ nor a weight (weights are in memory anyway), **must be kept from the forward pass**. What stands in none is let go.
#
# ### Exercise 1
# Write `kept_by_linear(rows, n_in, n_out, trained, passes)`: the bytes that the layer keeps besides its weights, with 32-bit floats. `rows` is the number of rows of $x$; `n_in` and `n_out` are the widths of $x$ and $y$; `trained` says whether $W$ and $b$ learn, `passes` whether the error has to travel on to $x$.

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
# ## 3 · Ask autograd itself
# You need not believe formulas. PyTorch calls a *hook*, a function of yours, whenever it saves a tensor for the backward pass. A few lines make that a list. Two things need care: several tensors can look into the same memory (a *storage*), which counts once; and a saved weight is no news.


# %%
def watch(compute: Callable, own: Iterator[nn.Parameter], where: Callable = str) -> pd.DataFrame:
    """List what autograd keeps while something computes, each storage once, weights left out."""
    seen, kept, rows = {id_of(weight) for weight in own}, [], []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if id_of(tensor) not in seen:
            seen.add(id_of(tensor))
            kept.append(tensor)  # or else its address could be given to another
            rows.append((where(), tuple(tensor.shape), tensor.untyped_storage().nbytes()))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute()
    return pd.DataFrame(rows, columns=["kept by", "shape", "bytes"])


def id_of(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's memory."""
    return tensor.untyped_storage().data_ptr()


# %%
rows, n_in, n_out = 520, 192, 768
cases = []
for trained, passes in ((True, True), (True, False), (False, True), (False, False)):
    layer = nn.Linear(n_in, n_out).requires_grad_(trained)
    x = torch.randn(rows, n_in, requires_grad=passes)
    kept = watch(lambda layer=layer, x=x: layer(x), layer.parameters())
    cases.append({"trained": trained, "error travels on": passes, "kept": kept["bytes"].sum()})
pd.DataFrame(cases).assign(**{"bytes of x": 4 * rows * n_in, "bytes of y": 4 * rows * n_out})

# %% [markdown]
# A frozen layer that only passes the error on keeps **nothing**. Remember that for LoRA.
#
# Now a whole transformer block. A chip becomes *tokens*, one for each patch and one for the whole chip; each is a list of numbers as long as the *width* of the network. A block refines them: attention mixes tokens, then the MLP works on each token alone.


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
# Read it from top to bottom; it is the block in the order in which it computes.
#
# - `norm1`, `norm2`: a layer norm keeps its input, and a mean and a deviation per token: two tiny rows.
# - `attn.q`, `mlp.fc1`, `mlp.fc2`: trained linear layers keep their input, as in exercise 1. That of `fc2` is wide. `attn.k` and `attn.v` read the same storage as `attn.q`, so they are not listed.
# - `attn`: attention keeps queries, keys and values, its own result, and one number per head and token. It keeps no table of tokens times tokens: today's implementations compute that again. `attn.proj` keeps its input as well; that is attention's result, the same storage, so it is not listed a second time.
# - `mlp.act`: GELU, the nonlinearity, keeps its input.
#
# ### Exercise 2
# Write `bytes_of_block(tokens, width, batch)`: the bytes that a block keeps when all of it is trained, with 32-bit floats. `tokens` are those of one chip. The MLP's inner width is 4 times `width`, as it is here. You may leave the tiny rows out: the check measures real blocks of other shapes and allows 3 %.

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
# ## 4 · Why LoRA keeps nearly all of it
# LoRA as in the paper puts its detours at `q`, `v`, `fc1` and `fc2`, and freezes the rest. The tables of section 1 say how few weights it trains.
#
# **Guess before you look.** What share of the block's activations does a training step with LoRA keep, as peft has it?

# %%
my_guess = {"share of activations that LoRA keeps": "?"}

# %% [markdown]
# One part of it can be had back cheaply. The recipe `"recompute"` computes layer norms and GELUs a second time in the backward pass, instead of keeping what they gave. Look at both:

# %%
recomputing = f"{method}, recompute"
blocks = {"full": full_block, method: block_table(networks[method])}
with applied(networks[method], "recompute"):
    blocks[recomputing] = block_table(networks[method])
shares = pd.DataFrame(
    {name: t.groupby("kept by")["multiple of the width"].sum() for name, t in blocks.items()}
)
order = ["norm1", "attn.q", "attn.k", "attn.v", "attn", "attn.proj"]
order += ["norm2", "mlp.fc1", "mlp.act", "mlp.fc2"]
shares = shares.rename(index={"": "the block itself"})
known = [name for name in order if name in shares.index]
shares = shares.reindex([*known, *shares.index.difference(order)]).fillna(0)
print("You guessed:", my_guess)
print((shares.sum() / shares["full"].sum()).map("{:.1%}".format).to_string())
shares.round(2)

# %%
colours = ["#56B4E9", "#0072B2", "#009E73", "#F0E442", "#CC79A7", "#E69F00", "#D55E00", "#999999"]
axes = shares.T.plot.barh(
    stacked=True, figsize=(9, 2.6), color=colours[: len(shares)], edgecolor="white"
)
axes.invert_yaxis()
axes.set(xlabel="activations kept, in multiples of batch × tokens × width numbers")
axes.set_title("What one block keeps, by the layer that keeps it")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
axes.figure.savefig(out / "block.png", dpi=110, bbox_inches="tight")
words = [f"{name} {value:.1f} times the width" for name, value in shares.sum().items()]
gp.show(axes.figure, alt=f"Stacked bars of what one block keeps: {'; '.join(words)}.")

# %% [markdown]
# Walk through the block with the three formulas in mind:
#
# - The frozen $W$ of a layer needs no input any more. But the detour's first matrix $A$, which is trained, reads **the same input**, so it is kept after all. What the detour has in its middle, *rank* numbers per token, is kept besides; in a narrow network that can make LoRA keep *more* than full fine-tuning.
# - Norms and GELU keep their inputs because the error has to *travel through* them to the blocks below. Whether they learn makes no difference.
# - Attention has no weights at all. It needs queries, keys, values and its result.
# - Only `attn.proj` has no detour, and lets its input go. That input is attention's result, which attention keeps: nothing is won.
#
# **So LoRA saves gradients and optimiser memory, and no activations worth speaking of.** Recomputing saves a part of them: what a norm or a GELU gave is cheap to compute again from what it had, so the inputs of `q`, `v`, `fc1` and `fc2` need not be kept (in the table they vanish, and norm and GELU inputs appear under the block itself). That is *recomputing*, a recipe, and no virtue of LoRA; lesson 07 gives it to other methods, too.
#
# ## 5 · Predict, then measure
# `gp.memory_plan` does all this counting for a whole network, every method and every decoder. It runs the step on *fake tensors*, which have a shape and no numbers, with the same hooks. `gp.measure_memory` runs a real step. Take `full` first:

# %%
planned = gp.memory_plan(networks["full"], batch_size)
gp.show(planned.plot(), alt=str(planned))

# %% [markdown]
# In the next table `precision="bf16"` means *mixed precision*: most of the computing is done with 16-bit floats, while weights, gradients and AdamW's two averages (its *moments*: the optimiser's bytes) stay in 32 bits.
#
# **Guess before you look.** A 16-bit float has half the bytes. What does `bf16` save of the total of full fine-tuning? And how far will plan and measurement lie apart?

# %%
my_guess = {"saved by bf16 (%)": "?", "plan minus measurement (%)": "?"}

# %%
compared = []
for name, network in networks.items():
    for precision in ("fp32", "bf16"):
        plan = gp.memory_plan(network, batch_size, precision=precision)
        found = gp.measure_memory(network, batch_size, precision=precision, device=device)
        row = {"method": name, "precision": precision} | {p: getattr(plan, p) for p in parts}
        compared.append(row | {"total": plan.total, "measured": found.total})

# %%
table = pd.DataFrame(compared).set_index(["method", "precision"])
table["off"] = table["total"] - table["measured"]
table.to_csv(out / "planned_and_measured.csv")
print("You guessed:", my_guess)
for name in names:
    now, before = table.loc[(name, "bf16"), "total"], table.loc[(name, "fp32"), "total"]
    print(f"{name}: bf16 saves {1 - now / before:.0%} of the total")
(table / MIB).round(2).add_suffix(" (MiB)")

# %% [markdown]
# On a CPU the plan is no estimate: autograd decides what to keep by operations and shapes, never by values. So it can be known before. (Its weights are a little more than those of section 1: it counts buffers, too, such as the table of position codes.)
#
# Mixed precision saves less than half of the activations (some operations stay in 32 bits, and copies of the weights in 16 bits come on top) and nothing of the rest. Where activations are the small part, it saves little.
#
# Does your formula from exercise 2 fit into the plan?

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
# Now the model of the paper, with 224 × 224 pixel chips. **Guess before you look**: which of the four bills is the largest with full fine-tuning, and which with LoRA?

# %%
my_guess = {"largest with full": "?", "largest with LoRA": "?"}

# %%
kinds = {"full": "full", method: method, recomputing: method}


@functools.cache
def plan_large(kind: str, batch: int, size: int, precision: str = "fp32") -> object:
    """Plan a step of the large model, each only once."""
    frugal = "recompute" if kind == recomputing else None
    return gp.memory_plan(large_networks[kinds[kind]], batch, size, precision, frugal)


at_224 = {kind: plan_large(kind, batch_size, 224) for kind in kinds}
at_224["linear_probe"] = gp.memory_plan(large_networks["linear_probe"], batch_size, 224)

# %%
rows = {kind: {part: getattr(plan, part) / GIB for part in parts} for kind, plan in at_224.items()}
sizes_224 = pd.DataFrame(rows).T
axes = sizes_224.plot.barh(stacked=True, figsize=(9, 2.8), color=list(PALETTE.values()))
axes.invert_yaxis()
axes.set(xlabel="memory (GiB)", title=f"{large}, {batch_size} chips of 224 × 224 pixels, planned")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
axes.figure.savefig(out / "large.png", dpi=110, bbox_inches="tight")
words = [f"{kind} {value:.1f} GiB" for kind, value in sizes_224.sum(axis=1).items()]
gp.show(axes.figure, alt=f"Stacked bars of the memory of a step: {'; '.join(words)}.")

# %%
print("You guessed:", my_guess)
total = sizes_224.sum(axis=1)
sizes_224.assign(total=total, **{"saved (%)": 100 * (1 - total / total["full"])}).round(2)

# %% [markdown]
# LoRA took the bars of gradients and optimiser away. What is left of them does not depend on the images; the bar of activations does. Weights, gradients and moments are **fixed**; activations **grow** with every chip and every pixel.
#
# And mixed precision, at full size? Its 16-bit copies of the weights are fixed as well, and are there in addition; the plan counts them among the activations, because autograd keeps them for the way back:

# %%
for batch in (1, batch_size):
    fp32, bf16 = (plan_large("full", batch, 224, precision).total for precision in ("fp32", "bf16"))
    print(f"batch {batch}, full: fp32 {fp32 / GIB:.2f} GiB, bf16 {bf16 / GIB:.2f} GiB")

# %% [markdown]
# Where few activations stand beside many weights, mixed precision can take *more* memory than 32 bits. It still computes faster on a GPU that is made for it.
#
# ### Exercise 3
# The authors' project page says that LoRA reduces memory by 30 %. Up to which batch does LoRA save **at least** 30 % with chips of 224 × 224 pixels? Activations are proportional to the batch, and all else stays as it is. Plans of a single chip hold all you need: `full_one.total`, `full_one.activations`, and the same of `lora_one`. Give a whole number.

# %%
full_one = plan_large("full", 1, 224)
lora_one = plan_large(method, 1, 224)
for plan in (full_one, lora_one):
    print(f"fixed {plan.total - plan.activations:,}; for each chip {plan.activations:,} bytes")

# %%
batch_for_thirty = None
# solution
fixed = [plan.total - plan.activations for plan in (full_one, lora_one)]
# lora_fixed + batch * lora_chip = 0.7 * (full_fixed + batch * full_chip), solved for the batch
batch_for_thirty = (0.7 * fixed[0] - fixed[1]) / (lora_one.activations - 0.7 * full_one.activations)
batch_for_thirty = int(batch_for_thirty)  # the next one would save less

# %%
gp.check("06/thirty", batch_for_thirty, full=full_one, lora=lora_one)

# %% [markdown]
# Now the whole picture. **Guess before you look**: draw, on paper, the share of memory that LoRA saves over the side of the chip, for batches of 1, 4 and 16. Where does it start on the left, and where does it go?

# %%
chip_sides = (64, 224, 512) if FAST else (64, 128, 224, 320, 512)
batches = (1, 4, 8, 16)
one_chip = {("full", side): plan_large("full", 1, side) for side in chip_sides}

# %%
one_chip |= {(method, side): plan_large(method, 1, side) for side in chip_sides}

# %%
one_chip |= {(recomputing, side): plan_large(recomputing, 1, side) for side in chip_sides}


# %%
def total_of(kind: str, batch: int, side: int) -> int:
    """Scale the plan of one chip to a batch: activations grow, the rest is fixed."""
    plan = one_chip[kind, side]
    return plan.total + (batch - 1) * plan.activations


saving = pd.DataFrame(
    {(kind, batch): {side: 1 - total_of(kind, batch, side) / total_of("full", batch, side)
                     for side in chip_sides} for kind in list(kinds)[1:] for batch in batches}
)  # fmt: skip
saving.index.name = "side (pixels)"
saving.to_csv(out / "saving.csv")
scaled, planned_8 = total_of("full", batch_size, 224), at_224["full"].total
print(f"scaled from one chip: {scaled / GIB:.3f} GiB; planned: {planned_8 / GIB:.3f} GiB")
(100 * saving).round(0)


# %%
def draw_saving(axes: plt.Axes, kind: str) -> None:
    """Draw the share that is saved over the side of a chip, a line for each batch."""
    looks = zip(batches, ("#56B4E9", "#009E73", "#0072B2", "#D55E00"), "o^sD", strict=True)
    for batch, colour, mark in looks:
        axes.plot(100 * saving[kind, batch], color=colour, marker=mark, label=f"batch {batch}")
    claims = {"authors: 30 %": (30, 64, "left"), "elsewhere: 72 %": (72, 512, "right")}
    for name, (claim, side, align) in claims.items():
        axes.axhline(claim, color="#777777", ls="--", lw=1)
        place = {"xytext": (0, 3), "textcoords": "offset points", "ha": align, "size": 9}
        axes.annotate(name, (side, claim), **place)
    axes.set(xlabel="side of a chip (pixels)", title=kind, ylim=(0, 80), xticks=chip_sides)


# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for axes, kind in zip(panels, list(kinds)[1:], strict=True):
    draw_saving(axes, kind)
panels[0].set_ylabel("memory saved against full (%)")
figure.suptitle(f"{large}, linear decoder, fp32, planned: one method, many percentages")
labels = panels[0].get_legend_handles_labels()
figure.legend(*labels, loc="outside lower center", ncols=4, frameon=False)
figure.savefig(out / "saving.png", dpi=110)
ends = (100 * saving.iloc[[0, -1]]).round().astype(int)
words = [f"{kind}, batch {b}: {first} to {last} %" for (kind, b), (first, last) in ends.items()]
gp.show(figure, alt=f"Memory saved, from the smallest to the largest chip: {'; '.join(words)}.")

# %% [markdown]
# **One method, one model, many percentages.** Read the claims against the picture:
#
# - **"30 % less"** is the authors' number: *"reducing the memory consumption by 30%"*, in the README of [IBM/peft-geofm](https://github.com/IBM/peft-geofm). It says neither for which model nor for which chips or batch; their published configurations mostly have batches of 8. It lies inside the range of the left panel, which is wide: find the chip size at which the line of batch 8 crosses it. What they read the memory from is not said there, so an exact match is not to be expected.
# - **"72 % less memory and 65 % less time"** is told of the paper in summaries on the web. In the authors' README and tables we find neither. On the left you see at which chip sizes LoRA could come near it at all. Compare it with the number that you kept from section 1, which is what comes out if activations are forgotten; whether that is where it comes from, we do not know.
# - **Time.** The authors' own table of timings, `data/epoch_and_time.csv` there, follows. Frozen weights spare some matrix products on the way back, and detours add some; no large saving stands there.

# %%
times = {
    "Prithvi 2.0, 300M": (1.04, 0.99),
    "Prithvi 1.0, 100M": (1.05, 1.12),
    "Clay v1": (0.91, 0.94),
}
columns = ["time per epoch", "time in all"]
pd.DataFrame.from_dict(times, orient="index", columns=columns).rename_axis("LoRA / full")

# %% [markdown]
# (Means over the data sets; the averages are ours.)
#
# ## 7 · Does it fit?
# What counts in the end is not a percentage but whether a step fits. (Mind the units: makers sell GPUs in GB of 10⁹ bytes, the plan writes GiB of 2³⁰. A T4 of 16 GB has 14.9 GiB.) Each of these pictures is a plan: move the sliders, and watch the pointer on the ruler. Which slider moves it most? Which bars stay as they are when you change the batch? The recipes are those of lesson 07.

# %%
gp.memory_widget(
    large_networks,
    batch_size=batch_size,
    size=224,
    batches=(1, 2, 4, 8, 16, 32),
    sizes=(64, 128, 224, 320, 512),
)

# %% [markdown]
# The ruler looks at the **peak**, the most that is alive at once. It is more than what is kept: in the forward and backward pass and in AdamW's step things come and go. It is what has to fit.
#
# ### Exercise 4
# What is the largest batch of 512 × 512 pixel chips with which the large model can be fine-tuned **in full** on a T4 of 16 GB, as planned? Use the widget for an idea and `gp.memory_plan(large_networks["full"], batch, 512)` for the number: a plan has `.peak` in bytes and `.fits(bytes)`.

# %%
largest_batch = None
# solution
one, two = (gp.memory_plan(large_networks["full"], batch, 512).peak for batch in (1, 2))
largest_batch = int(1 + (DEVICES["T4"] - one) // (two - one))  # each further chip adds the same

# %%
gp.check("06/fits", largest_batch, network=large_networks["full"], size=512, limit=DEVICES["T4"])

# %% [markdown]
# ## 8 · What is not in the count
# A plan counts tensors. A process holds more: Python and its libraries, PyTorch's own code, the data, and room that an *allocator* has asked for and not given back. Train for real, and read what the operating system says.

# %%
before = memory_now()
run = gp.fit(build(method), chips, epochs=epochs, batch_size=batch_size, seed=seed,
             device=device, dashboard=False)  # fmt: skip
plan = gp.memory_plan(networks[method], batch_size)
seen = {
    "planned: kept in a step": plan.total,
    "planned: peak of a step": plan.peak,
    "measured by fit: growth at its peak": run.memory["peak"],
    "the process before training": before,
    "the process now": memory_now(),
}
pd.Series({name: f"{value / MIB:,.0f} MiB" for name, value in seen.items()}).to_frame("")

# %% [markdown]
# With a network as small as this, the process is far larger than the step; on Binder it is the process that must fit. With the large model it is the other way round, and on a GPU the step is nearly all. There CUDA itself takes some hundred megabytes before anything is computed, some operations want *workspace* while they run, and the allocator rounds sizes up. A plan leaves these out, so leave some room, and measure where you train:

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
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("06")

# %% [markdown]
# ## What we have seen
# In this lesson we have counted a training step to the byte. Weights, gradients and the optimiser's memory follow from the number of weights, and PEFT shrinks the last two to almost nothing. Activations follow from the operations that the error travels through, and LoRA keeps nearly all of them, because its first matrix reads the inputs that the frozen weights no longer need. So the share that it saves is large where the fixed part is large, with small chips and batches, and small where activations are. A percentage without model, chip size, batch and precision says nothing.
#
# ## What to try next
# - `method = "bitfit"` in the parameters, which trains only the biases: which activations does it keep, and why fewer than LoRA? (Recomputing then changes nothing.) Why has exercise 3 no answer now?
# - Put a larger decoder on the large model (`decoder="upernet"` in `build`): how much of the memory can no PEFT method touch?
# - `large = "clay_v1_base"`: whose activations grow faster with the chip?
# - `gp.attach(network, method, preset="q_v")` in `build`: which bars of section 4 vanish, and why those?
# - Lesson 07 takes the activations down, recipe by recipe.
#
# ## How this differs at full scale
# The large model was planned at full scale, by the rules of a CPU. On a GPU other implementations of attention can keep a few numbers more or less, and the allocator and CUDA add their share; on a machine with a GPU, set `model = "prithvi_eo_v2_300"` and compare section 8. The paper's runs used TerraTorch, whose LoRA and blocks are written differently in places, so their bytes can differ from those planned here. What carries over is the four bills, and what each of them follows.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); README and timings: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)
# - Sung et al., *LST: Ladder Side-Tuning*, [arXiv 2206.06522](https://arxiv.org/abs/2206.06522), on why methods inside the network save so little memory
# - Dao et al., *FlashAttention*, [arXiv 2205.14135](https://arxiv.org/abs/2205.14135), on attention without a table of tokens times tokens
# - Chen et al., *Training Deep Nets with Sublinear Memory Cost*, [arXiv 1604.06174](https://arxiv.org/abs/1604.06174), on computing again instead of keeping
# - [PyTorch: hooks for autograd saved tensors](https://docs.pytorch.org/tutorials/intermediate/autograd_saved_tensors_hooks_tutorial.html)
