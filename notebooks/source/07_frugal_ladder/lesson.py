# %% [markdown]
# # 07 · The frugal ladder
# **Train the same model in a fraction of the memory and time, rung by rung: predict what each recipe saves, measure it, and find out who deserves the credit.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Write* checkpointing and 8-bit weights by hand, in a few lines each.
# - *Predict* the bytes of a training step under any recipe.
# - *Separate* the shares of PEFT, precision and checkpointing, with a control.
# - *Plan* the training of a 300-million model for a GPU that you do not have.
#
# ## Time to learn
# About 60 min, of which the computer needs about 2 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, mIoU | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | What a training step keeps in memory | necessary | [06 · Where does the memory go?](06_where_memory_goes.ipynb) |
# | LoRA | helpful | [04 · LoRA](04_lora.ipynb) |

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
model = "geopeft_tiny"  # the small foundation model that ships
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # trains something in every block; the ladder starts from it
epochs = 3  # of the rungs that run whole blocks; those that train late get twice as many
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: fewer rungs, chips and epochs, and section 6 with the small model
out_dir = None  # folder for tables and figures; None takes a temporary one

# %%
import tempfile
import time
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.utils.checkpoint import checkpoint

import geopeft_nb as gp
from geopeft_nb.memory.features import Split
from geopeft_nb.memory.frugal import applied
from geopeft_nb.memory.measure import training_bytes

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
chips = gp.load_data(data)
away = next(iter(chips.holdout))
for part in (chips.train, chips.val, chips.test, chips.holdout[away]):
    part.chips[:] = part.chips[:: 8 if FAST else 1]
GOAL = {"memory": 0.28, "time": 0.35}  # shares of full fine-tuning in 32 bits


def build(method: str, name: str = model, weights: str | None = "pretrained") -> nn.Module:
    """Put a linear decoder on a fresh backbone and attach a method."""
    backbone = gp.load_backbone(name, weights=weights, bands=chips.bands, seed=seed)
    network = gp.build_model(backbone, chips, decoder="linear", metadata=False, seed=seed)
    return gp.attach(network, method, seed=seed)


@cache
def plan_of(method: str, precision: str = "fp32", *frugal: str) -> object:
    """Predict a step under some recipes."""
    return gp.memory_plan(build(method), batch_size, precision=precision, frugal=frugal)


# %% [markdown]
# ## 1 · A promise, and where it comes from
# A summary of the paper on the web promises 72 % less memory and 65 % less training time with PEFT. The authors do not: their repository says 30 % less memory for LoRA, and by their timings LoRA on the 300-million Prithvi saves no time ([IBM/peft-geofm](https://github.com/IBM/peft-geofm); lesson 11 looks closer).
#
# But nothing forbids to reach the promise by other means. The **goal**: at most **28 % of the memory** and **35 % of the time** of full fine-tuning, and nothing lost of the score. On each rung we ask: *is this PEFT at all?*
#
# **Guess before you look:** which share of full fine-tuning's bytes does a step with LoRA keep?

# %%
my_guess = {"share of the bytes": "?"}

# %%
first = {name: plan_of(name) for name in ("full", method)}
parts = ["weights", "gradients", "optimiser", "activations"]
table = pd.DataFrame({n: {p: getattr(plan, p) / 1e6 for p in parts} for n, plan in first.items()}).T
table["total"] = table.sum(axis=1)
print("You guessed:", my_guess)
print(f"{method} / full: {first[method].total / first['full'].total:.0%}; the goal is 28 %")
table.round(1)

# %% [markdown]
# Gradients and moments have nearly gone: that is PEFT. The other rungs go for what is left, **activations** and frozen **weights**.
#
# ## 2 · A rung by hand: compute it again
# A block is a *function*. *Checkpointing* keeps its input, throws the rest away, and runs it again when the backward pass arrives.
#
# ### Exercise 1 · predict
# A block keeps 16 tensors of the tokens' size (lesson 06), its input among them. Of 12 checkpointed blocks only the inputs wait for the backward pass. What share of the bytes of all blocks waits?

# %%
share_kept = None
# solution
share_kept = 1 / 16

# %%
gp.check("07/waits", share_kept)

# %% [markdown]
# What it showed: the share does not depend on the number of blocks. (When a block's turn comes, its sixteen are there again.)
#
# A `Function` of PyTorch says by itself what happens forward and backward. Autograd does not watch inside it, so nothing is kept but what we save.


# %%
class Again(torch.autograd.Function):
    """Run a block, keep its input, and run it again on the way back."""

    @staticmethod
    def forward(ctx, x, block, run_again):  # noqa: ANN001, ANN205
        """Return what the block returns; autograd does not see it."""
        ctx.block, ctx.run_again = block, run_again
        ctx.save_for_backward(x)
        return block(x)

    @staticmethod
    def backward(ctx, gradient):  # noqa: ANN001, ANN205
        """Return the gradient of x; block and run_again have none."""
        (x,) = ctx.saved_tensors
        return ctx.run_again(ctx.block, x, gradient), None, None


# %% [markdown]
# ### Exercise 2 · write
# Backward is yours: `run_again(block, x, gradient)`, where `gradient` is that of the block's *output*. It **returns** the gradient of `x`; those of the block's weights are added to their `.grad`, as always.
#
# `x.detach().requires_grad_()` is a fresh start without history; `with torch.enable_grad():` lets autograd watch; `torch.autograd.backward(y, gradient)` goes backward from a `y` that is no single number.

# %%
run_again = None


# solution
def with_second_run(block: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Run the block once more, now watched, and go backward through it."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = block(x)
    torch.autograd.backward(y, gradient)
    return x.grad


run_again = with_second_run

# %%
my_again = gp.check("07/again", run_again)
my_again

# %% [markdown]
# What it showed: a backward pass is code like any other. PyTorch has it ready-made, `torch.utils.checkpoint.checkpoint`. One block of full fine-tuning, three ways:

# %%
block = build("full").plain_backbone.blocks[0]
tokens = 1 + 8 * 8  # of a chip of 64 x 64 pixels, with patches of 8 x 8
x = torch.randn(batch_size, tokens, block.norm1.weight.numel(), requires_grad=True)
ways = {"as ever": block, "checkpoint": partial(checkpoint, block, use_reentrant=False)}
if my_again.passed:
    ways["your run_again"] = lambda x: Again.apply(x, block, run_again)


def gradients_of(run: object) -> torch.Tensor:
    """Return all gradients of one forward and backward pass as one row."""
    weights = [x, *block.parameters()]
    for weight in weights:
        weight.grad = None
    run(x).square().mean().backward()
    return torch.cat([weight.grad.flatten() for weight in weights])


# %%
exact, seconds, rows = gradients_of(block), {name: [] for name in ways}, {}
for _ in range(5 if FAST else 25):  # in turn, so that a busy machine slows all alike
    for name, run in ways.items():
        start = time.perf_counter()
        found = gradients_of(run)
        seconds[name].append(time.perf_counter() - start)
        rows[name] = {"largest difference of a gradient": float((found - exact).abs().max())}
for name, run in ways.items():
    kept = training_bytes(block, lambda run=run: run(x).square().mean())["activations"]
    rows[name] |= {"kept (MB)": kept / 1e6, "ms": 1000 * np.median(seconds[name])}
one = pd.DataFrame(rows).T
share = one.loc["checkpoint"] / one.loc["as ever"]
print(f"checkpoint: {share['kept (MB)']:.0%} of the bytes, {share['ms']:.2f} times the seconds")
one.style.format({"kept (MB)": "{:.2f}", "ms": "{:.1f}", one.columns[0]: "{:.1g}"})

# %% [markdown]
# The gradients are the same: memory was *bought with time*.
#
# ## 3 · The other rungs
# The toolkit has six recipes. Each is one word in `frugal=`, in `gp.fit` as in `gp.memory_plan`.

# %% tags=["nbval-check-output"]
recipes = gp.list_recipes()
recipes[["title", "does", "costs", "exact"]]

# %% [markdown]
# `precision="bf16"` lets most of the computing happen in 16 bits. The *recipe* `"bf16"` holds frozen weights in 16 bits, and `"8bit"` in 8.
#
# ### Exercise 3 · write
# How does a weight fit into one byte? Each row of the matrix gets a factor, and its weights become whole numbers. `to_8bit(weight)`, for a weight (out, in), returns `whole`, (out, in) of type `torch.int8`, and `scale`, (out, 1): `whole * scale` is nearly the weight, and the largest of each row, without its sign, becomes 127 or −127.

# %%
to_8bit = None


# solution
def round_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Write each row as whole numbers from -127 to 127 and one factor."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round().to(torch.int8), scale


to_8bit = round_rows

# %%
my_8bit = gp.check("07/to_8bit", to_8bit)
weight = block.attn.q.weight.detach()
held = {"32 bits": (weight.nbytes, weight), "bf16": (weight.nbytes // 2, weight.bfloat16().float())}
if my_8bit.passed:
    whole, scale = to_8bit(weight)
    held["8 bits, yours"] = (whole.nbytes + scale.nbytes, whole * scale)
for name, (size, values) in held.items():
    error = (values - weight).norm() / weight.norm()
    print(f"{name}: {size / 1e3:.0f} kB, error {error:.2%} of the weight")
my_8bit

# %% [markdown]
# What it showed: a quarter of the bytes, for the error in the last line. A frozen weight is only *read*; what learns stays in 32 bits. Now each recipe alone. Which saves most, which least?

# %%
alone = {"nothing": plan_of(method), 'precision="bf16"': plan_of(method, "bf16")}
alone |= {
    f'"{name}"': plan_of(method, "fp32", name)
    for name in recipes.index
    if not name.startswith("cached")
}
bytes_alone = pd.Series({name: plan.total for name, plan in alone.items()})
pd.DataFrame({"MB": bytes_alone / 1e6, "share": bytes_alone / bytes_alone["nothing"]}).round(2)

# %% [markdown]
# Held weights can save no more than the weights are of the step. The bytes of `"cached"` lie elsewhere (section 5).
#
# ## 4 · Who deserves the credit?
# The ladder as a whole, one thing more on each rung, from full fine-tuning down.

# %%
everything = ("late", "bf16", "checkpoint")
ladder = {
    "full fine-tuning": plan_of("full"),
    "PEFT: LoRA": plan_of(method),
    "+ precision bf16": plan_of(method, "bf16"),
    "+ checkpoint": plan_of(method, "bf16", "checkpoint"),
    "+ late": plan_of(method, "bf16", "late", "checkpoint"),
    "+ weights bf16": plan_of(method, "bf16", *everything),
}
ladder = {name.replace("LoRA", method.replace("lora", "LoRA")): p for name, p in ladder.items()}
steps = pd.DataFrame(
    {n: {p: getattr(plan, p) / 1e6 for p in parts} for n, plan in ladder.items()}
).T
steps["total"] = steps[parts].sum(axis=1)
steps["factor"] = steps["total"] / steps["total"].shift()
steps["of full"] = steps["total"] / steps["total"].iloc[0]
steps.to_csv(out / "ladder.csv")
steps.round(2)

# %% tags=["hide-input"]
colours = ["#0072B2", "#56B4E9", "#E69F00", "#D55E00"]


def draw_ladder(axes: plt.Axes, steps: pd.DataFrame, unit: str, goal: float) -> None:
    """Draw rungs as stacked bars, with their share of the first, and the goal."""
    steps[parts].plot.barh(stacked=True, ax=axes, color=colours, width=0.75, legend=False)
    for row, (total, share) in enumerate(zip(steps["total"], steps["of full"], strict=True)):
        axes.annotate(
            f"{share:.0%}",
            (total, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.axvline(goal * steps["total"].iloc[0], color="black", ls="--", label="goal, 28 %")
    axes.margins(x=0.14)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set(xlabel=f"kept in a step of {batch_size} chips ({unit}), and share of the first")


# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8.5, 3.2), layout="constrained")
draw_ladder(axes, steps, "MB", GOAL["memory"])
axes.set_title("The frugal ladder: one thing more on each rung")
axes.legend(frameon=False, loc="lower right")
figure.savefig(out / "ladder.png", dpi=110)
words = ", ".join(f"{name} {share:.0%}" for name, share in steps["of full"].items())
gp.show(figure, alt=f"Stacked bars of the memory of a step, of full fine-tuning's: {words}.")

# %% [markdown]
# Are the factors *the* shares? Take each thing once as the **first** after LoRA, and once as the **last**, when all others are there.

# %%
things = {"precision bf16": ("bf16", ())} | {name: ("fp32", (name,)) for name in everything}
bottom = plan_of(method, "bf16", *everything).total
order = {}
for name, (precision, frugal) in things.items():
    rest = tuple(other for other in everything if other not in frugal)
    without = plan_of(method, "fp32" if precision == "bf16" else "bf16", *rest).total
    alone_now = plan_of(method, precision, *frugal).total / plan_of(method).total
    order[name] = {"factor as the first": alone_now, "factor as the last": bottom / without}
pd.DataFrame(order).T.rename({"bf16": "weights bf16"}).round(2)

# %% [markdown]
# Precision, checkpointing and late training go for the **same** bytes: what one has taken, the next cannot take. So "checkpointing saves so and so much" is no sentence without "*first*" or "*last*".
#
# ### Exercise 4 · mend a broken line
# Recipes work without PEFT, too. So the *control* is full fine-tuning with the same recipes. `credit(full, control, both)` takes bytes: full fine-tuning plain, with recipes, and PEFT with recipes. It should return two factors, of recipes and of PEFT, which multiply to the whole. Below, PEFT gets the recipes' credit once more.


# %%
def all_to_peft(full: float, control: float, both: float) -> tuple[float, float]:
    """Return the factors of recipes and of PEFT on the bytes of a step."""
    return control / full, both / full  # mend this line


credit = all_to_peft


# solution
def with_control(full: float, control: float, both: float) -> tuple[float, float]:
    """Return the factors of recipes and of PEFT on the bytes of a step."""
    return control / full, both / control


credit = with_control

# %%
my_credit = gp.check("07/credit", credit)
some = [plan_of("full"), plan_of("full", "bf16", "checkpoint")]
some = [plan.total for plan in (*some, plan_of(method, "bf16", "checkpoint"))]
print(f"full, bf16 and checkpoint: {some[1] / some[0]:.0%}; {method} with both: ", end="")
print(f"{some[2] / some[0]:.0%}")
if my_credit.passed:
    print("factors of recipes and PEFT: {:.2f} and {:.2f}".format(*credit(*some)))
my_credit

# %% [markdown]
# What it showed: without the control, the recipes' factor would have passed for PEFT's.
#
# ## 5 · Time and score
# Bytes can be predicted; seconds and scores have to be measured. **Guess before you look:** is an epoch of any rung *slower* than of full fine-tuning? Where does the score suffer?

# %%
rungs = {  # name: method, precision, recipes, epochs
    "full": ("full", "fp32", (), epochs),
    "full, checkpoint": ("full", "fp32", ("checkpoint",), epochs),
    method: (method, "fp32", (), epochs),
    f"{method}, bf16": (method, "bf16", (), epochs),
    f"{method}, bf16, late": (method, "bf16", ("late",), 2 * epochs),
    f"{method}, bf16, late, cached": (method, "bf16", ("late", "cached"), 2 * epochs),
    f"{method}, bf16, all": (method, "bf16", (*everything, "cached"), 2 * epochs),
}
if FAST:
    del rungs[f"{method}, bf16"], rungs[f"{method}, bf16, all"]
*others, last = rungs
runs, scores, spent = {}, {}, {}


# %%
def climb(name: str, dashboard: bool | str = "text") -> None:
    """Train one rung and score it at home and away; a line an epoch takes no time to draw."""
    method, precision, frugal, number = rungs[name]
    print(f"precision {precision}, recipes: {', '.join(frugal) or 'none'}")
    settings = {"precision": precision, "frugal": list(frugal), "device": device, "seed": seed}
    settings |= {"epochs": number // epochs if FAST else number, "batch_size": batch_size}
    settings["dashboard"] = dashboard
    start = time.process_time()
    runs[name] = gp.fit(build(method), chips, **settings)
    spent[name] = time.process_time() - start
    table = gp.evaluate(runs[name], chips).table["mIoU"]
    scores[name] = {"home": table.iloc[0], "away": table[away]}


for name in others[:2]:
    climb(name)

# %%
for name in others[2:4]:
    climb(name)

# %%
for name in others[4:]:
    climb(name)

# %%
climb(last, dashboard=True)  # the live view; drawing takes time, too


# %%
def timing(name: str, wanted: float) -> dict[str, float]:
    """Return epochs, seconds of a later epoch and in all, and until a score (NaN: never)."""
    ends = runs[name].history.dropna(subset="val_miou")
    epoch = ends["seconds"].diff().fillna(ends["seconds"])
    there = ends[ends["val_miou"] >= wanted]["seconds"]
    return {
        "epochs": len(ends),
        "s per epoch": float(epoch.iloc[1:].median() if len(ends) > 1 else epoch.iloc[0]),
        "s in all": float(ends["seconds"].iloc[-1]),
        "s to the score": float(there.min()),
    }


# %%
wanted = runs["full"].best["val_miou"]
table = pd.DataFrame({name: timing(name, wanted) | scores[name] for name in runs}).T
held = pd.Series({name: run.memory["total"] for name, run in runs.items()})  # measured
table["memory, of full"] = held / held["full"]
table["processor s in all"] = pd.Series(spent)
for name in ("s per epoch", "s to the score"):
    table[f"{name}, of full"] = table[name] / table.loc["full", name]
table.to_csv(out / "rungs.csv")

# %%
control = [runs[name].history["train_loss"].to_numpy() for name in ("full", "full, checkpoint")]
apart = abs(control[0] - control[1]).max()
print(f"full, with and without checkpoint: losses differ by at most {apart:.1g}")
print(f"validation mIoU to reach: {wanted:.3f}")
if FAST:
    print("FAST: hardly anything has been learnt. Read the bytes, not scores or the time to them.")
table.round(3).astype({"epochs": int})

# %% tags=["hide-input"]
tones = ["#000000", "#7F7F7F", "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#009E73"]
relative = table[["memory, of full", "s per epoch, of full"]]
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
axes.axvspan(0, GOAL["memory"], color="#009E73", alpha=0.08)
axes.axhspan(0, GOAL["time"], color="#009E73", alpha=0.08)
for (name, place), colour, mark in zip(relative.iterrows(), tones, "osD^P*X", strict=False):
    axes.plot(*place, mark, color=colour, ms=8, label=name)
axes.set(xlim=(0, 1.05), ylim=(0, None), title="A later epoch, the goal shaded")
axes.set(xlabel="memory of a step, of full", ylabel="seconds of a later epoch, of full")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
figure.savefig(out / "rungs.png", dpi=110)
words = "; ".join(f"{name}: {m:.0%} and {t:.0%}" for name, (m, t) in relative.T.items())
gp.show(figure, alt=f"Memory and time of a later epoch, of full: {words}.")

# %%
far = table["home"] < table.loc["full", "home"] - 0.01
goals = {
    "memory": table["memory, of full"] <= GOAL["memory"],
    "time of a later epoch": table["s per epoch, of full"] <= GOAL["time"],
    "time to the score of full": table["s to the score, of full"] <= GOAL["time"],
    "score at home, to a point": ~far,
}
for goal, reached in goals.items():
    print(f"{goal}: {'; '.join(table.index[reached]) or 'no rung'}")
everywhere = table.index[np.all(list(goals.values()), axis=0)]
print(f"all of the goal: {'; '.join(everywhere) or 'no rung of this run'}")
for where in ("home", "away"):
    best = table[where].idxmax()
    print(f"best {where}: {best} {table.loc[best, where]:.3f}, full {table.loc['full', where]:.3f}")

# %% [markdown]
# One computer, one seed: times of a few epochs and scores a point apart are noise; the bytes are not.
# Checkpointing computes twice, also in the control, and leaves the losses as they were, up to rounding. bf16 may cost time: some processors only emulate it. "Late" can cost score. "Cached" makes later epochs cheap and the first one expensive.
#
# `tests/benchmarks/frugal.py` searches a rate for *every* method, with three seeds: LoRA in bf16, late, recompute and cached, takes 20 % of the memory and 28 % of the time to the score; a cached linear probe, the simplest of all, 15 % and 25 %. Full and late on the map; move the bar:

# %%
two = {name: runs[name] for name in ("full", f"{method}, bf16, late, cached")}
two_maps = gp.map_regions(two, chips, regions=[away] if FAST else [])
two_maps

# %% [markdown]
# ### Exercise 5 · write
# When does the cache pay? The frozen *prefix* of the network takes `prefix` seconds for one view of each training chip, and `validation` seconds for the validation chips, which have one view only. The rest takes `rest` seconds an epoch. A training chip has `views` views; the first epoch computes the prefix for all of them. Write `cached_seconds(epochs, prefix, validation, rest, views)`, the seconds of a whole run.

# %%
cached_seconds = None


# solution
def seconds_with_cache(
    epochs: int, prefix: float, validation: float, rest: float, views: int
) -> float:
    """Run the prefix once for each view, and the rest in every epoch."""
    return views * prefix + validation + epochs * rest


cached_seconds = seconds_with_cache

# %%
my_seconds = gp.check("07/cached_seconds", cached_seconds)
later = {name: table.loc[f"{method}, bf16, late{name}", "s per epoch"] for name in ("", ", cached")}
saved, rest = max(later[""] - later[", cached"], 0), later[", cached"]
part = len(chips.val) / (len(chips.train) + len(chips.val))  # of the chips of an epoch
print(f"measured: prefix about {saved:.2f} s per epoch, rest {rest:.2f} s")
if my_seconds.passed:
    for size in (saved, 10 * saved):
        one = size * (1 - part), size * part, rest, 8  # prefix, validation, rest, views
        ahead = [n for n in range(1, 41) if cached_seconds(n, *one) < n * (size + rest)]
        print(f"prefix {size:.2f} s: ahead from epoch {ahead[0] if ahead else 'never'} on")
my_seconds

# %% [markdown]
# What it showed: however large the prefix, the cache is ahead after about as many epochs as there are views. (Measured runs can be off, short ones by a lot.)
#
# Its bytes are in a file, which memory holds as far as there is room:

# %%
network = build(method)
with applied(network, "late"):
    state = Split(network.eval()).prefix(chips.train[0]["image"][None])
one_view = sum(part.nbytes for part in state)
image = chips.train[0]["image"].nbytes
total = 8 * one_view * len(chips.train)
print(f"a chip takes {image / 1e3:.0f} kB, its features {one_view / 1e3:.0f} kB in one view")
print(f"{len(chips.train)} chips in 8 views: {total / 1e6:.0f} MB,", end=" ")
print(f"beside {ladder['full fine-tuning'].total / 1e6:.0f} MB of a step of full fine-tuning")

# %% [markdown]
# ## 6 · On paper: 300 million weights
# On PyTorch's *meta* device tensors have a shape and no numbers. So here is Prithvi-EO 2.0 with 300 million weights, with chips of 224 and of 512 pixels. **Guess before you look:** which step is larger at either size, PEFT or checkpointing?

# %%
sizes = (512,) if FAST else (224, 512)  # pixels
big = "geopeft_tiny" if FAST else "prithvi_eo_v2_300"
with torch.device("meta"):
    large = {name: build(name, big, weights=None) for name in ("full", method)}
on_paper = {
    "full": ("full", "fp32", ()),
    "full, checkpoint": ("full", "fp32", ("checkpoint",)),
    method: (method, "fp32", ()),
    f"{method}, bf16": (method, "bf16", ()),
    f"{method}, bf16, checkpoint": (method, "bf16", ("checkpoint",)),
    f"{method}, bf16, late": (method, "bf16", ("late",)),
    f"{method}, bf16, late, checkpoint, 8bit": (method, "bf16", ("late", "8bit", "checkpoint")),
}
if FAST:
    on_paper = dict(list(on_paper.items())[:3])


# %%
def in_gigabytes(size: int) -> pd.DataFrame:
    """Plan each rung for chips of a size: its parts in GB, its share and where it fits."""
    some = {
        name: gp.memory_plan(large[method], batch_size, size, precision, list(frugal))
        for name, (method, precision, frugal) in on_paper.items()
    }
    rows = {n: {p: getattr(plan, p) / 1e9 for p in (*parts, "total")} for n, plan in some.items()}
    table = pd.DataFrame(rows).T
    table["of full"] = table["total"] / table["total"].iloc[0]
    table["peak"] = [plan.peak / 1e9 for plan in some.values()]
    table["fits 16 GB"] = [plan.fits(16e9) for plan in some.values()]
    return table


# %%
large_tables = {size: in_gigabytes(size) for size in sizes}
for size, table_of in large_tables.items():
    share = table_of["of full"]
    print(f"{size} pixels: plain {method} takes {1 - share[method]:.0%} off,", end=" ")
    print(f"checkpointing without any PEFT {1 - share['full, checkpoint']:.0%}")
pd.concat(large_tables, names=["pixels", "rung"]).round(2)

# %% tags=["hide-input"]
figure, panels = plt.subplots(
    1, len(sizes), figsize=(11, 3.4), sharey=True, squeeze=False, layout="constrained"
)
for axes, (size, table_of) in zip(panels[0], large_tables.items(), strict=True):
    draw_ladder(axes, table_of, "GB", GOAL["memory"])
    axes.set(title=f"{big}, {size} × {size} px (planned)", xlabel=f"GB, {batch_size} chips")
figure.legend(
    *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
)
figure.savefig(out / "large.png", dpi=110)
words = [
    f"{size} pixels: " + ", ".join(f"{n} {share:.0%}" for n, share in t["of full"].items())
    for size, t in large_tables.items()
]
gp.show(figure, alt=f"Memory of a step of {big}, of full fine-tuning's. {'; '.join(words)}.")

# %% [markdown]
# **Where the bytes are decides what helps.** With large chips activations weigh most, and checkpointing them *is no PEFT*. What LoRA saves depends on model, chip size, batch, decoder and precision; a percentage without these is advertising. Time is not in this figure: no rung of it was trained.
#
# ### Exercise 6 · open challenge
# A GPU has 6 GB. Bring a step of 8 chips of 512 pixels of the large model below that at its peak, with every block learning (no `"late"`) and **without checkpointing**. Answer with a dictionary of `"method"`, `"precision"` and `"frugal"`, a list.

# %%
recipe = None
# solution
recipe = {"method": method, "precision": "bf16", "frugal": ["recompute", "bf16"]}


# %%
def plan_512(method: str = "lora", precision: str = "fp32", frugal: tuple = ()) -> object:
    """Plan a step of the large model."""
    with torch.device("meta"):  # no bytes for the others either
        network = large[method] if method in large else build(method, big, weights=None)
    return gp.memory_plan(network, batch_size, 512, precision, list(frugal))


gp.check("07/challenge", recipe, plan=plan_512, limit=1.24e9 if FAST else 6e9)  # bytes

# %% [markdown]
# What it showed: there is more than one way below a limit, and a plan tells before anybody pays for the GPU.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("07")

# %% [markdown]
# ## What we have seen
# In this lesson we have climbed down the frugal ladder. PEFT takes away gradients and moments; precision, checkpointing and late training go for the same activations; held weights count where little else is left. Checkpointing costs time, and a cache pays after about as many epochs as it has views. To find the author of a saving takes a control.
#
# ## What to try next
# - `frugal="all"` in `gp.fit` takes what suits; `run.settings["frugal"]` says what was done.
# - `epochs = 10`, and `lr` in `settings` five times the default for the late rungs: do they reach the score? Search full fine-tuning's rate as well before you believe it.
#
# ## How this differs at full scale
# On a GPU, set `model = "prithvi_eo_v2_300"` and `data = "sen1floods11"`; `gp.measure_memory` then measures the peak that CUDA reports, and bf16 is fast. A verdict on scores takes several seeds (lesson 10).
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); tables and timings: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Chen et al., *Training Deep Nets with Sublinear Memory Cost* (checkpointing), [arXiv 1604.06174](https://arxiv.org/abs/1604.06174)
# - Micikevicius et al., *Mixed Precision Training*, [arXiv 1710.03740](https://arxiv.org/abs/1710.03740); Dettmers et al., *LLM.int8()*, [arXiv 2208.07339](https://arxiv.org/abs/2208.07339)
# - PyTorch: [`torch.utils.checkpoint`](https://docs.pytorch.org/docs/stable/checkpoint.html), [extending autograd](https://docs.pytorch.org/docs/stable/notes/extending.html)
