# %% [markdown]
# # 07 · The frugal ladder
# **Train the same model in a fraction of the memory and time, rung by rung: predict what each recipe saves, measure it, and find out who deserves the credit.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Write* checkpointing and 8-bit weights by hand, in a few lines each.
# - *Predict* the bytes of a training step under any recipe, and *check* the prediction.
# - *Separate* the shares of PEFT, precision and checkpointing, with a control.
# - *Explain* which recipes cost time, which save it, and after how many epochs a cache pays.
# - *Plan* the training of a 300-million model for a GPU that you do not have.
#
# ## Time to learn
# About 60 min, of which the computer needs about 4 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, mIoU | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | What a training step keeps in memory | necessary | [06 · Where does the memory go?](06_where_memory_goes.ipynb) |
# | LoRA | helpful | [04 · LoRA](04_lora.ipynb) |
# | How autograd goes backward | helpful | [PyTorch: autograd mechanics](https://docs.pytorch.org/docs/stable/notes/autograd.html) |

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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same lesson with one or two epochs on a quarter of the chips, and with fewer plans of the large model.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # trains something in every block; the ladder starts from it
epochs = 3  # of the rungs that run whole blocks; those that train late get twice as many
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with less of everything
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
    part.chips[:] = part.chips[:: 4 if FAST else 1]


# %%
def build(method: str, name: str = model, weights: str | None = "pretrained") -> nn.Module:
    """Put a linear decoder on a fresh backbone and attach a method."""
    backbone = gp.load_backbone(name, weights=weights, bands=chips.bands, seed=seed)
    network = gp.build_model(backbone, chips, decoder="linear", metadata=False, seed=seed)
    return gp.attach(network, method, seed=seed)


# %% [markdown]
# ## 1 · A promise, and where it comes from
# A summary of the paper that goes round on the web promises 72 % less memory and 65 % less training time with PEFT. The authors do not. Their repository says 30 % less memory for LoRA, and their own timings have LoRA and full fine-tuning of the 300-million Prithvi take the same time: the ratio of whole runs, averaged over five data sets, is 0.99 (that of an epoch 1.04). ([IBM/peft-geofm](https://github.com/IBM/peft-geofm): README and `data/epoch_and_time.csv`; the average is ours.)
#
# But nothing forbids to reach the promise by other means. So here is the **goal** of this lesson: at most **28 % of the memory** and **35 % of the time** of full fine-tuning in 32 bits, and nothing lost of the score. On the way there we ask of each rung: *is this PEFT at all?*

# %%
GOAL = {"memory": 0.28, "time": 0.35}

# %% [markdown]
# Where do we stand? `gp.memory_plan` predicts, from the structure of the model alone, what a training step keeps: weights, gradients, AdamW's two moments, and the activations that the backward pass will need again. **Guess before you look:** which share of full fine-tuning's bytes does LoRA need, as this toolkit computes it? It trains a small part of the weights. (What "as this toolkit computes it" is worth, section 4 will tell.)

# %%
my_guess = {"share of the bytes": "?"}

# %%
first = {name: gp.memory_plan(build(name), batch_size) for name in ("full", method)}
parts = ["weights", "gradients", "optimiser", "activations"]
table = pd.DataFrame({n: {p: getattr(plan, p) / 1e6 for p in parts} for n, plan in first.items()}).T
table["total"] = table.sum(axis=1)
print("You guessed:", my_guess)
print(f"{method} / full: {first[method].total / first['full'].total:.0%}; the goal is 28 %")
table.round(1)

# %% [markdown]
# Gradients and moments have nearly gone: that is what PEFT does. What is left are two other things. **Activations**, because adapters deep in the network want their gradient, and so the error still has to travel down through every block. And the frozen **weights**. The rungs of the ladder go for these two.
#
# ## 2 · A rung by hand: compute it again
# The activations of a block are kept for one reason: the backward pass needs them. But a block is a *function*. Whoever keeps its input can have all the rest once more, by running it again. That is *checkpointing*: keep the input, throw the rest away, and pay with one more forward pass when the backward pass arrives.
#
# In PyTorch a `Function` says by itself what happens forward and backward. Forward is easy: inside a `Function` autograd does not watch, so nothing is kept but what we save ourselves.


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
# ### Exercise 1
# Backward is yours. Write `run_again(block, x, gradient)`, where `gradient` is that of the loss with respect to the block's *output*. It should **return** the gradient with respect to `x`, and leave the gradients of the block's weights in their `.grad`, as always.
#
# What you need: `x.detach().requires_grad_()` is a fresh start without history; `with torch.enable_grad():` lets autograd watch (inside a backward pass it does not); `torch.autograd.backward(y, gradient)` goes backward from a result `y` that is no single number.

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
# PyTorch has the same ready-made, with more care for details: `torch.utils.checkpoint.checkpoint`. Take one block of full fine-tuning, and compare. **Guess before you look:** what share of the bytes is left? How much longer does forward and backward take? (Backward is usually counted as two forwards: one for the gradient of the weights, one for that of the input.)

# %%
my_guess = {"share of the bytes": "?", "times the seconds": "?"}

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

# %%
one = pd.DataFrame(rows).T
print("You guessed:", my_guess)
share = one.loc["checkpoint"] / one.loc["as ever"]
print(f"checkpoint: {share['kept (MB)']:.0%} of the bytes, {share['ms']:.2f} times the seconds")
one.style.format({"kept (MB)": "{:.2f}", "ms": "{:.1f}", one.columns[0]: "{:.1g}"})

# %% [markdown]
# The gradients are the same: nothing is rounded, nothing is left out. Memory was *bought with time*, no more and no less. What is still kept is the input, and what comes after the block.
#
# ## 3 · The other rungs
# The toolkit has seven recipes. Each is one word in `frugal=`, alone or in a list, in `gp.fit` as in `gp.memory_plan`. Each is a row of a table in `geopeft_nb/memory/frugal.py`, with the few lines that do it beside it.

# %% tags=["nbval-check-output"]
recipes = gp.list_recipes()
recipes["title"]

# %%
pd.set_option("display.max_colwidth", None)
recipes[["does", "costs", "exact"]]

# %% [markdown]
# Two different things have bf16 in their name. The **precision** `precision="bf16"` lets most of the computing happen in 16 bits; so activations take half the bytes. The **recipe** `"bf16"` holds *frozen weights* in 16 bits. And `"8bit"` holds them in 8.
#
# ### Exercise 2
# How does a weight fit into one byte? A whole number of 8 bits goes from -128 to 127. So each row of the matrix gets a *factor*, and its weights become whole numbers of that factor: `whole * scale` is nearly the weight. Write `to_8bit(weight)` for a weight of shape (out, in). It returns `whole`, (out, in) of type `torch.int8` between -127 and 127, and `scale`, (out, 1), such that the largest weight of each row, by its size without the sign, becomes 127 or -127.

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
my_8bit

# %%
weight = block.attn.q.weight.detach()
held = {"32 bits": (weight.nbytes, weight), "bf16": (weight.nbytes // 2, weight.bfloat16().float())}
if my_8bit.passed:
    whole, scale = to_8bit(weight)
    held["8 bits, yours"] = (whole.nbytes + scale.nbytes, whole * scale)
for name, (size, values) in held.items():
    error = (values - weight).norm() / weight.norm()
    print(f"{name}: {size / 1e3:.0f} kB, error {error:.2%} of the weight")

# %% [markdown]
# Is that good enough? A frozen weight is only *read*; what learns is the adapter beside it, in 32 bits, and it can even out some of the error. Whether it does is a matter of scores; no run of this lesson tests it with 8 bits, that is left to you. (The toolkit's `"8bit"` needs no library. Those that there are were made for running a model, and let autograd keep the full weight while training.)
#
# ### Each recipe alone
# Now the plans: LoRA with each recipe alone. **Guess before you look:** which one saves most, which least?

# %%
my_guess = {"saves most": "?", "saves least": "?"}


# %%
@cache
def plan_of(method: str, precision: str = "fp32", frugal: tuple = ()) -> object:
    """Predict a step."""
    return gp.memory_plan(build(method), batch_size, precision=precision, frugal=list(frugal))


# %%
alone = {"nothing": plan_of(method), 'precision="bf16"': plan_of(method, "bf16")}
alone |= {
    f'"{name}"': plan_of(method, frugal=(name,))
    for name in recipes.index
    if not name.startswith("cached")
}
alone['"late", "cached"'] = plan_of(method, frugal=("late", "cached"))
bytes_alone = pd.Series({name: plan.total for name, plan in alone.items()})
print("You guessed:", my_guess)
pd.DataFrame({"MB": bytes_alone / 1e6, "share": bytes_alone / bytes_alone["nothing"]}).round(2)

# %% [markdown]
# - `"recompute"` computes layer norms and GELUs again, and nothing else: it takes what costs least to make. `"checkpoint"` makes all of a block again.
# - `"cached"` does not change a step beyond what `"late"` does: it is about epochs. Its bytes lie elsewhere (section 5).
# - Holding weights in fewer bytes can save no more than the weights are of the step, here less than a third. Remember the question for the large model.
#
# Is the prediction right? `gp.measure_memory` runs the step, and counts what autograd really keeps.

# %%
everything = ("late", "bf16", "checkpoint")
for precision, frugal in (("fp32", ()), ("fp32", ("checkpoint",)), ("bf16", everything)):
    planned = plan_of(method, precision, frugal)
    measured = gp.measure_memory(
        build(method), batch_size, precision=precision, frugal=list(frugal), device="cpu"
    )
    apart = measured.total / planned.total - 1
    print(f"{precision}, {frugal or 'no recipe'}: measured {measured.total / 1e6:.1f} MB,", end=" ")
    print(f"off the plan by {apart:.1%}")

# %% [markdown]
# ## 4 · Who deserves the credit?
# Now the ladder as a whole, one thing more on each rung, from full fine-tuning down.

# %%
ladder = {
    "full fine-tuning": plan_of("full"),
    "PEFT: LoRA": plan_of(method),
    "+ recompute": plan_of(method, frugal=("recompute",)),
    "+ precision bf16": plan_of(method, "bf16", ("recompute",)),
    "+ checkpoint": plan_of(method, "bf16", ("recompute", "checkpoint")),
    "+ late": plan_of(method, "bf16", ("recompute", "late", "checkpoint")),
    "+ weights bf16": plan_of(method, "bf16", ("recompute", *everything)),
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

# %%
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


# %%
figure, axes = plt.subplots(figsize=(8.5, 3.2), layout="constrained")
draw_ladder(axes, steps, "MB", GOAL["memory"])
axes.set_title("The frugal ladder: one thing more on each rung")
axes.legend(frameon=False, loc="lower right")
figure.savefig(out / "ladder.png", dpi=110)
words = ", ".join(f"{name} {share:.0%}" for name, share in steps["of full"].items())
gp.show(figure, alt=f"Stacked bars of the memory of a step, of full fine-tuning's: {words}.")

# %% [markdown]
# The factors multiply to the whole. But are they *the* shares? Take each thing once as the **first** after LoRA, and once as the **last**, when all others are there.

# %%
things = {"precision bf16": ("bf16", ())} | {name: ("fp32", (name,)) for name in everything}
bottom = plan_of(method, "bf16", everything).total
order = {}
for name, (precision, frugal) in things.items():
    rest = tuple(other for other in everything if other not in frugal)
    without = plan_of(method, "fp32" if precision == "bf16" else "bf16", rest).total
    alone_now = plan_of(method, precision, frugal).total / plan_of(method).total
    order[name] = {"factor as the first": alone_now, "factor as the last": bottom / without}
pd.DataFrame(order).T.rename({"bf16": "weights bf16"}).round(2)

# %% [markdown]
# Precision, checkpointing and late training go for the **same** bytes: those of activations (late training also for the gradients and moments of the early adapters). What one has taken, the next cannot take again. With the frozen weights it is the other way round: the less there is of all else, the more they count. So "checkpointing saves so and so much" is no sentence; "*first*" or "*last*" belongs to it.
#
# ### The control
# And is it PEFT at all? Checkpointing and precision work with full fine-tuning just as well. **Guess before you look:** what does *full fine-tuning* with both of them need?

# %%
my_guess = {"share of plain full fine-tuning": "?"}

# %%
full_plans = {
    "full, fp32": plan_of("full"),
    "full, bf16 + checkpoint": plan_of("full", "bf16", ("checkpoint",)),
    f"{method}, bf16 + checkpoint": plan_of(method, "bf16", ("checkpoint",)),
}
print("You guessed:", my_guess)
for name, plan in full_plans.items():
    print(f"{name}: {plan.total / full_plans['full, fp32'].total:.0%}")

# %% [markdown]
# The difference between the first two lines has nothing to do with PEFT. Only what lies between the second and the third has: the gradients and moments of all weights, which no recipe for activations can touch.
#
# ## 5 · Time and score
# Bytes can be predicted. Seconds and scores have to be measured. Every run below is watched; look at how fast the steps go by. **Guess before you look:** seconds of an epoch, relative to full fine-tuning. Is any rung *slower*? And where does the score suffer?

# %%
my_guess = {
    "full + checkpoint": "?", method: "?", f"{method} late": "?", "suffers": "?",
}  # fmt: skip

# %%
rungs = {  # name: method, precision, recipes, epochs
    "full": ("full", "fp32", (), epochs),
    "full, checkpoint": ("full", "fp32", ("checkpoint",), epochs),
    method: (method, "fp32", (), epochs),
    f"{method}, bf16": (method, "bf16", (), epochs),
    f"{method}, bf16, checkpoint": (method, "bf16", ("checkpoint",), epochs),
    f"{method}, bf16, late": (method, "bf16", ("late",), 2 * epochs),
    f"{method}, bf16, late, cached": (method, "bf16", ("late", "cached"), 2 * epochs),
    f"{method}, bf16, all": (method, "bf16", (*everything, "cached"), 2 * epochs),
}
runs, scores, spent = {}, {}, {}


# %%
def climb(name: str) -> None:
    """Train one rung and score it at home and away."""
    method, precision, frugal, number = rungs[name]
    print(f"precision {precision}, recipes: {', '.join(frugal) or 'none'}")
    settings = {"precision": precision, "frugal": list(frugal), "device": device, "seed": seed}
    settings |= {"epochs": number // epochs if FAST else number, "batch_size": batch_size}
    start = time.process_time()
    runs[name] = gp.fit(build(method), chips, dashboard=not FAST, **settings)
    spent[name] = time.process_time() - start
    table = gp.evaluate(runs[name], chips).table["mIoU"]
    scores[name] = {"home": table.iloc[0], "away": table[away]}


climb("full")

# %%
climb("full, checkpoint")

# %%
climb(method)

# %%
climb(f"{method}, bf16")

# %%
climb(f"{method}, bf16, checkpoint")

# %%
climb(f"{method}, bf16, late")

# %%
climb(f"{method}, bf16, late, cached")

# %%
climb(f"{method}, bf16, all")


# %% [markdown]
# How do we measure time? By three numbers: the seconds of an epoch (the median, after the first one where there is more than one); the seconds of the whole run; and the seconds until the **validation score of full fine-tuning** was reached (NaN: it never was). Beside them stand the seconds that the *processor* worked for the whole call of `fit`, loading of libraries in the first one included. On a computer without GPU they are the fairer measure: if they and the seconds in all disagree about the order of two rungs, other programs were in the way.


# %%
def timing(name: str, wanted: float) -> dict[str, float]:
    """Return epochs, seconds of an epoch and in all, and seconds until a score was there."""
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
table["memory, of full"] = [
    plan_of(method, precision, frugal).total / first["full"].total
    for method, precision, frugal, _ in rungs.values()
]
table["processor s in all"] = pd.Series(spent)
for name in ("s per epoch", "s to the score"):
    table[f"{name}, of full"] = table[name] / table.loc["full", name]
table.to_csv(out / "rungs.csv")

# %%
print("You guessed:", my_guess)
control = [runs[name].history["train_loss"].to_numpy() for name in ("full", "full, checkpoint")]
apart = abs(control[0] - control[1]).max()
print(f"full, with and without checkpoint: losses differ by at most {apart:.1g}")
print(f"validation mIoU to reach: {wanted:.3f}")
if FAST:
    print("FAST: hardly anything has been learnt. Read the bytes, not scores or the time to them.")
table.round(3).astype({"epochs": int})

# %%
tones = ["#000000", "#7F7F7F", "#0072B2", "#56B4E9", "#CC79A7", "#E69F00", "#D55E00", "#009E73"]
looks = dict(zip(runs, zip(tones, "osD^vP*X", strict=True), strict=True))


def draw_goal(axes: plt.Axes) -> None:
    """Draw rungs by memory and time, relative to full fine-tuning."""
    axes.axvspan(0, GOAL["memory"], color="#009E73", alpha=0.08)
    axes.axhspan(0, GOAL["time"], color="#009E73", alpha=0.08)
    for name, (colour, mark) in looks.items():
        place = table.loc[name, ["memory, of full", "s per epoch, of full"]]
        axes.plot(*place, mark, color=colour, ms=8, label=name)
    axes.set(xlim=(0, 1.05), ylim=(0, None), title="A later epoch, the goal shaded")
    axes.set(xlabel="memory of a step, of full", ylabel="seconds of a later epoch, of full")


def draw_scores(axes: plt.Axes) -> None:
    """Draw validation scores over seconds."""
    for name, (colour, mark) in looks.items():
        ends = runs[name].history.dropna(subset="val_miou")
        axes.plot(ends["seconds"], ends["val_miou"], color=colour, marker=mark, ms=5)
    axes.axhline(wanted, color="black", ls="--", lw=1)
    axes.set(xlabel="seconds since the start", ylabel="validation mIoU (0-1)")
    axes.set_title("The way to the score of full (dashed)")


# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
draw_goal(left)
draw_scores(right)
labels = left.get_legend_handles_labels()
figure.legend(*labels, loc="outside lower center", ncols=4, frameon=False)
figure.savefig(out / "rungs.png", dpi=110)
relative = table[["memory, of full", "s per epoch, of full"]]
words = "; ".join(f"{name}: {m:.0%} and {t:.0%}" for name, (m, t) in relative.T.items())
gp.show(figure, alt=f"Memory and time of an epoch, of full: {words}. Right: scores over seconds.")


# %%
def verdict(row: pd.Series) -> str:
    """Say which goals a rung reaches."""
    kinds = {
        "memory": row["memory, of full"] <= GOAL["memory"],
        "time of a later epoch": row["s per epoch, of full"] <= GOAL["time"],
        "time to the score": row["s to the score, of full"] <= GOAL["time"],
        "score at home, to a point": row["home"] >= table.loc["full", "home"] - 0.01,
    }
    return ", ".join(kind for kind, reached in kinds.items() if reached) or "none"


for name, row in table.iterrows():
    print(f"{name}: {verdict(row)}")

# %% [markdown]
# Read the table as a judge would.
#
# - **Checkpointing costs time**, also in the control, and leaves the losses as they were, up to rounding. It is the honest trade of section 2.
# - **LoRA by itself can save some time**: a frozen layer needs no gradient of its weights, about a third of the products of a step. What it computes again and its own small products eat a part of that; in the paper's timings nothing was left.
# - **bf16** may save or cost time. That depends on the processor: some compute in bf16, others only emulate it. Your table says what yours does. (No PEFT needed for this one, either.)
# - **Late** saves time by *ending early*: the backward pass stops at the first trained weight. It is also the rung that can cost score, because most of the network stays as it was. It had twice the epochs. Was that enough?
# - **Cached** makes later epochs cheap and the first one expensive. In a short run that is a loss.
# - **The goal for time has two readings**, per epoch and until the score is there. Compare the two columns: a cheap epoch that teaches less needs more of them, and a cache has to be filled first.
# - **The process.** The live view also shows what the whole process takes. It hardly moves from rung to rung, for in a model this small the libraries outweigh it all. The bytes of a step are what grows with the model (section 6).
# - **One seed**, few epochs, one small task in which one threshold does well (lesson 01). Differences of a point away are noise as far as we know; the bytes are not.
# - **Default learning rates.** Late LoRA has few weights and a higher rate suits it. `tests/benchmarks/frugal.py` searches a rate for *every* method, full fine-tuning too, and trains three seeds: there LoRA in bf16, late and cached in a file, keeps 20 % of the memory and takes 28 % of the time to the score, and a cached linear probe 15 % and 25 %. LoRA alone: 49 % and 50 %. On larger chips of another sensor (HLS) the first of these is 1.5 points of mIoU below full fine-tuning at home, and 4.6 above it away. The tables are in the README.
#
# ### Exercise 3
# When does the cache pay? Let the frozen *prefix* of the network take `prefix` seconds per epoch, for one view of each chip, and the rest (trained blocks, decoder, backward) `rest` seconds. A chip is turned and mirrored at random, so it has eight views, and the first epoch computes the prefix for all of them, at once. Write `cached_seconds(epochs, prefix, rest, views)`, the seconds of a whole run with cache.

# %%
cached_seconds = None


# solution
def seconds_with_cache(epochs: int, prefix: float, rest: float, views: int) -> float:
    """Run the prefix once for each view, and the rest in every epoch."""
    return views * prefix + epochs * rest


cached_seconds = seconds_with_cache

# %%
my_seconds = gp.check("07/cached_seconds", cached_seconds)
my_seconds

# %% [markdown]
# **Guess before you look:** after how many epochs is the run with cache ahead? And if the prefix were ten times as large?

# %%
my_guess = {"epochs": "?", "with a prefix ten times as large": "?"}

# %%
later = {name: table.loc[f"{method}, bf16, late{name}", "s per epoch"] for name in ("", ", cached")}
prefix, rest = max(later[""] - later[", cached"], 0), later[", cached"]
print("You guessed:", my_guess)
print(f"measured: prefix about {prefix:.2f} s per epoch, rest {rest:.2f} s")
if my_seconds.passed:
    for size in (prefix, 10 * prefix):
        number = range(1, 41)
        ahead = [n for n in number if cached_seconds(n, size, rest, 8) < n * (size + rest)]
        print(f"prefix {size:.2f} s: ahead from epoch {ahead[0] if ahead else 'never'} on")

# %%
figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
number = np.arange(1, 21)
axes.plot(number, number * (prefix + rest), color="#E69F00", label="late, predicted")
if my_seconds.passed:
    with_cache = [cached_seconds(int(n), prefix, rest, 8) for n in number]
    axes.plot(
        number, with_cache, color="#D55E00", ls="--", label="late and cached, predicted by you"
    )
for name, colour, mark in (("", "#E69F00", "P"), (", cached", "#D55E00", "*")):
    ends = runs[f"{method}, bf16, late{name}"].history.dropna(subset="val_miou")["seconds"]
    label = f"late{name}, measured"
    axes.plot(np.arange(1, len(ends) + 1), ends, mark, ms=9, color=colour, label=label)
axes.set(xlabel="epochs", ylabel="seconds of the run", title="When does the cache pay?")
axes.set_xticks(number[::2])
axes.legend(frameon=False)
figure.savefig(out / "cache.png", dpi=110)
told = f"a prefix of {prefix:.2f} and a rest of {rest:.2f} seconds per epoch"
gp.show(
    figure, alt=f"Seconds of a run over epochs with and without cache, for {told}; eight views."
)

# %% [markdown]
# It depends neither on the prefix nor on the rest: after as many epochs as there are views both are even, and from the next one on the cache is ahead. (Measured runs can be off, short ones by a lot: the first epoch also makes room for the cache. The validation chips have one view only and pay from the second epoch on; filling the cache goes chip by chip; and other work on the computer gets mixed in.) In the paper's protocol, with tens of epochs and a search for the learning rate besides, that is little. In a quick try it is too much.
#
# And the bytes of the cache? They are not on the device that trains, but they are somewhere: on the computer's disk, in a file that its memory holds as far as there is room.

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
# Does the small model tell us about a large one? The plan needs neither weights nor a GPU: on PyTorch's *meta* device tensors have a shape, and no numbers. So here is Prithvi-EO 2.0 with 300 million weights, with chips of 224 and of 512 pixels. **Guess before you look:** does it climb below the goal with LoRA alone? What does the *control*, full fine-tuning with checkpointing, do when chips become larger?

# %%
my_guess = {"LoRA alone, 224 px": "?", "full + checkpoint, 224 px": "?", "and 512 px": "?"}

# %%
big = "prithvi_eo_v2_300"
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
plans = {}


def plan_large(size: int) -> None:
    """Plan each rung for chips of a size."""
    for name, (method, precision, frugal) in list(on_paper.items())[: 3 if FAST else None]:
        plans[size, name] = gp.memory_plan(large[method], batch_size, size, precision, list(frugal))


plan_large(224)

# %%
plan_large(512)


# %%
def in_gigabytes(size: int) -> pd.DataFrame:
    """Return a size's rungs with their parts in GB, their share and where they fit."""
    some = {name: plan for (of, name), plan in plans.items() if of == size}
    rows = {n: {p: getattr(plan, p) / 1e9 for p in (*parts, "total")} for n, plan in some.items()}
    table = pd.DataFrame(rows).T
    table["of full"] = table["total"] / table["total"].iloc[0]
    table["peak"] = [plan.peak / 1e9 for plan in some.values()]
    table["fits 16 GB"] = [plan.fits(16e9) for plan in some.values()]
    return table


large_tables = {size: in_gigabytes(size) for size in (224, 512)}
print("You guessed:", my_guess)
pd.concat(large_tables, names=["pixels", "rung"]).round(2)

# %%
figure, panels = plt.subplots(1, 2, figsize=(11, 3.4), sharey=True, layout="constrained")
for axes, (size, table_of) in zip(panels, large_tables.items(), strict=True):
    draw_ladder(axes, table_of, "GB", GOAL["memory"])
    axes.set(title=f"{big}, {size} × {size} px (planned)", xlabel=f"GB, {batch_size} chips")
figure.legend(
    *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
)
figure.savefig(out / "large.png", dpi=110)
words = [
    f"{size} pixels: " + ", ".join(f"{n} {share:.0%}" for n, share in t["of full"].items())
    for size, t in large_tables.items()
]
gp.show(figure, alt=f"Memory of a step of {big}, of full fine-tuning's. {'; '.join(words)}.")

# %% [markdown]
# - **Where the bytes are decides what helps.** With small chips the weights, gradients and moments of 300 million numbers weigh most, and PEFT is the big step. Once the activations are small as well, nearly all that is left is the frozen weights: then fewer bytes for them count. With large chips the activations weigh most: checkpointing is the big step, *and it is no PEFT*. Look at the control, full fine-tuning with checkpointing.
# - **The same words, other numbers.** "LoRA saves so and so much memory" depends on model, chip size, batch, decoder, precision, and on what LoRA's layers keep. A percentage without these is advertising. The -30 % in the authors' repository is one such case, and so is each bar above.
# - The decoder here is linear. A heavy one brings activations that no recipe for the backbone reaches (lesson 08).
# - **Time is not in this figure.** No rung of it was trained.
#
# So was the promise true? The goal for memory can be reached, in several ways. The share of PEFT in it you can now state, and the share of the rest. For time the table in section 5 has the answer on this computer: read once more which rungs reached it, in a later epoch and all the way to the score.

# %% [markdown]
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("07")

# %% [markdown]
# ## What we have seen
# In this lesson we have climbed down the frugal ladder. PEFT takes away gradients and moments; precision, checkpointing and late training go for the activations, and so for the same bytes; held weights count where little else is left. Checkpointing pays with time, late training ends the backward pass early, and a cache pays after as many epochs as it has views. Every saving has an author, and to find out which, it takes a control.
#
# ## What to try next
# - `frugal="all"` in `gp.fit` takes what suits. `run.settings["frugal"]` says in words what was done.
# - Full fine-tuning with `precision="bf16"` and `"recompute"`: how near does it come to LoRA in section 5?
# - `epochs = 10`, and `lr` in `settings` five times the default (`gp.list_methods()["lr"]`) for the late rungs: do they reach the score, and the cached one the goal? Search full fine-tuning's rate as well before you believe it (lesson 03).
# - `batch_size = 32`: what happens to the shares of section 4?
# - A linear probe with `"cached"`: its whole backbone is prefix.
# - `gp.memory_widget()` has all of section 6 with sliders.
#
# ## How this differs at full scale
# On a GPU, set `model = "prithvi_eo_v2_300"` and `data = "sen1floods11"`; `gp.measure_memory` then measures the peak that CUDA's allocator reports, workspace included, and bf16 is fast. Recompute and checkpointing cost relatively less where a GPU waits for its memory anyway, and cached features may have to come from a disk that is slower than the GPU. A verdict on scores takes several seeds and the whole protocol; see lesson 10 on intervals.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); tables and timings: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Chen et al., *Training Deep Nets with Sublinear Memory Cost* (checkpointing), [arXiv 1604.06174](https://arxiv.org/abs/1604.06174)
# - Micikevicius et al., *Mixed Precision Training*, [arXiv 1710.03740](https://arxiv.org/abs/1710.03740)
# - Dettmers et al., *LLM.int8()*, [arXiv 2208.07339](https://arxiv.org/abs/2208.07339), on whole numbers with a factor per row
# - Yosinski et al., *How transferable are features in deep neural networks?*, [arXiv 1411.1792](https://arxiv.org/abs/1411.1792), on early and late layers
# - PyTorch documentation: [`torch.utils.checkpoint`](https://docs.pytorch.org/docs/stable/checkpoint.html), [extending autograd](https://docs.pytorch.org/docs/stable/notes/extending.html)
