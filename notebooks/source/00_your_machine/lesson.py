# %% [markdown]
# # 00 · Start here: your machine
# **What this machine has, what fits into it, and what runs where: known before anything is trained.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Find out* how many cores, how much memory and which GPU you really have.
# - *Plan* the memory of a model and a method before you load or train anything.
# - *Choose* lessons and models that run here, and *say* what Colab, Binder or a room without network would change.
#
# ## Time to learn
# About 20 min, of which the computer needs about 1 min on a CPU with one core. To read and run it takes five. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Python: functions, dictionaries | necessary | [The Python tutorial](https://docs.python.org/3/tutorial/) |
# | What a weight of a network is | helpful | [PyTorch: learn the basics](https://docs.pytorch.org/tutorials/beginner/basics/intro.html) |

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
# Everything that you may want to change stands in the next cell; so it is in every lesson. `FAST = True` runs the same lesson with fewer models and one epoch.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # the method of the tiny training
epochs = 2
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with fewer models and one epoch
out_dir = None  # folder for the table and the figure; None takes a temporary one

# %%
import os
import platform
import re
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import psutil
import torch
from matplotlib import pyplot as plt

import geopeft_nb as gp
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.classroom.check import lesson_folders
from geopeft_nb.files import data_folder, find_file, mirror_folders
from geopeft_nb.memory.plan import DEVICES, MemoryPlan

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1 · What is here?
# Two numbers mislead. **Cores**: a machine may have many and lend you one. **Memory**: in a container (Docker, Binder, a cluster) the machine's memory is not yours; the limit stands in a file of the system. So ask for what *you* may use.

# %%
if hasattr(os, "sched_getaffinity"):
    cores = len(os.sched_getaffinity(0))  # those that this process may run on
else:
    cores = os.cpu_count()
machine = psutil.virtual_memory().total
files = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
container = next((file.read_text("utf-8") for file in files if file.is_file()), "max\n")
print(f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}")
print(f"cores: {cores} of {os.cpu_count()}, of which torch uses {torch.get_num_threads()}")
print(f"memory: {machine:,} bytes; the container's limit: {container.strip()}")
print(f"disk: {shutil.disk_usage(out).free / 1e9:.0f} GB free")

# %%
GPU = torch.cuda.is_available() and device != "cpu"
if GPU:
    free, total = torch.cuda.mem_get_info()
    print(f"{torch.cuda.get_device_name()}: {free / 1e9:.1f} of {total / 1e9:.1f} GB are free")
else:
    print("no GPU of CUDA: all that follows is planned for the processor's memory")

# %% [markdown]
# ### Exercise 1 · mend a broken line
# Makers sell a T4 as a GPU of 16 GB, and `nvidia-smi` shows less than 16 *GiB*. A GiB has 2³⁰ bytes, a GB has 10⁹. This line says GiB and means something else.


# %%
def to_gib(size: float) -> float:
    """Turn bytes into GiB."""
    return size / 1000**3  # mend this line


in_gib = to_gib


# solution
def bytes_to_gib(size: float) -> float:
    """Turn bytes into GiB, 2**30 bytes each."""
    return size / 2**30


in_gib = bytes_to_gib

# %%
gp.check("00/gib", in_gib)

# %% [markdown]
# What it showed: seven per cent of a memory can be lost between two units with nearly the same name.
#
# ### Exercise 2 · write
# `my_limit(machine, container)`: the bytes that you may use. `machine` is a number of bytes; `container` is the text of the file above: `"max\n"` for no limit, else a number such as `"2000000000\n"`. (An old system writes a number that is larger than any machine.)

# %%
my_limit = None


# solution
def smaller_of_both(machine: int, container: str) -> int:
    """Return the smaller of what there is and what is allowed."""
    allowed = container.strip()
    return machine if allowed == "max" else min(machine, int(allowed))


my_limit = smaller_of_both

# %%
gp.check("00/limit", my_limit)

# %% [markdown]
# What it showed: the smaller number wins, and a program that asks only the machine is killed without a word.
#
# Your budget is what is free now, never above the limit, and a tenth of it stays spare:

# %%
known = [int(container)] if container.strip().isdigit() else []
free_now = psutil.virtual_memory().available
budget = 0.9 * (torch.cuda.mem_get_info()[0] if GPU else min([free_now, *known]))
print(f"budget for a training step: {budget / 1e9:.1f} GB on the {'GPU' if GPU else 'processor'}")

# %% [markdown]
# ## 2 · Plan before you train
# ### Exercise 3 · predict
# Prithvi-EO 2.0 has a model with 303,886,336 weights, as 32-bit floats. How many **bytes** do they take, before anything is trained?

# %%
bytes_of_weights = None
# solution
bytes_of_weights = 303_886_336 * 4

# %%
gp.check("00/weights", bytes_of_weights)

# %% [markdown]
# What it showed: holding the weights is cheap. *Training* a weight in full takes four times that, for its gradient and two numbers of the optimiser, and then come the activations (lesson 06).
#
# `gp.memory_plan` adds all of it up. It runs the step on tensors that have a shape and no numbers, so that a model that would never fit is planned in seconds. No weights are loaded: the networks stand on torch's *meta device*.
#
# **Guess before you look.** Which of these models can be fine-tuned here with LoRA, and which in full?

# %%
my_guess = {"with LoRA": "?", "in full": "?"}

# %%
chips = gp.load_data(data)
names = [model, "prithvi_eo_v1_100", "prithvi_eo_v2_300", "prithvi_eo_v2_600"][: 2 if FAST else 4]
methods = ["linear_probe", "lora", "full"]


def plan(
    name: str, method: str = "lora", size: int = 224, batch: int = batch_size, **how: object
) -> MemoryPlan:
    """Plan a training step with a linear decoder, on paper."""
    with torch.device("meta"):
        backbone = gp.load_backbone(name, weights=None, bands=chips.bands)
        network = gp.build_model(backbone, chips, metadata=False, pad=True)
        network = gp.attach(network, method)
    return gp.memory_plan(network, batch, size, **how)


plans = {(name, kind): plan(name, kind) for name in names for kind in methods}
plans[names[-1], "full"]


# %%
def where_is(name: str) -> str:
    """Say where the weights of a model are, and what they take."""
    card = CARDS[name]
    file = find_file(card.weights)
    if file is None:
        return f"to download, about {4 * card.parameters / 1e6:,.0f} MB"
    return "ships" if data_folder() in file.parents else "on this machine"


# %%
table = pd.DataFrame(
    {
        kind: {name: f"{plans[name, kind].peak / 1e9:.2f}" for name in names}
        for kind in methods
    }
).add_suffix(" (GB)")  # fmt: skip
for kind in methods:
    table[f"{kind} fits"] = ["yes" if plans[name, kind].fits(budget) else "no" for name in names]
table["weights"] = [where_is(name) for name in names]
table.to_csv(out / "machine.csv")
print("You guessed:", my_guess)
table

# %% [markdown]
# These are the *peaks* of one step: what is alive at most. They are what has to fit.

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(9, 1.6 + 0.55 * len(names)), layout="constrained")
looks = {"linear_probe": ("#009E73", "o"), "lora": ("#0072B2", "s"), "full": ("#D55E00", "^")}
for kind, (colour, mark) in looks.items():
    peaks = [plans[name, kind].peak / 1e9 for name in names]
    axes.plot(peaks, range(len(names)), mark, color=colour, ms=9, label=kind)
for place in ("Binder", "T4", "A100"):
    axes.axvline(DEVICES[place] / 1e9, color="black", lw=1, ls=":")
    axes.text(DEVICES[place] / 1e9, -0.75, place, ha="center", va="bottom", fontsize=9)
axes.axvline(budget / 1e9, color="black", lw=2.4, label="your budget")
axes.set_yticks(range(len(names)), names)
axes.set(xscale="log", xlabel="peak of one training step (GB)", ylim=(len(names) - 0.3, -0.7))
axes.xaxis.set_major_formatter("{x:g}")
figure.suptitle(f"{batch_size} chips of 224 x 224 pixels, linear decoder, fp32, planned")
figure.legend(loc="outside lower center", ncols=4, frameon=False)
figure.savefig(out / "machine.png", dpi=110)
words = [f"{name} {kind} {p.peak / 1e9:.2f} GB" for (name, kind), p in plans.items()]
gp.show(figure, alt=f"Peaks of a training step: {'; '.join(words)}; budget {budget / 1e9:.1f} GB.")

# %% [markdown]
# ### Exercise 4 · write
# `fitting(plans, budget)`: a list of the names whose plan fits. `plans` is a dictionary; a plan has `.total`, what a step keeps, and `.peak`, the most that is alive at once, both in bytes.

# %%
fitting = None


# solution
def those_that_fit(plans: dict, budget: float) -> list:
    """Compare the peak, which is what has to fit."""
    return [name for name, plan in plans.items() if plan.peak <= budget]


fitting = those_that_fit

# %%
my_fitting = gp.check("00/fitting", fitting)
my_fitting

# %%
if my_fitting.passed:
    for place, limit in {"here": budget, **DEVICES}.items():
        left = [" ".join(pair) for pair in plans if pair not in fitting(plans, limit)]
        print(f"{place} ({limit / 1e9:.0f} GB): all" + f" but {', '.join(left)}" * bool(left))

# %% [markdown]
# What it showed: a step fails at its highest moment, so compare peaks.
#
# ### Exercise 5 · predict
# What does a step with **eight** chips keep, if you know it for one and for two? Some of it is there whatever the batch, and each chip adds the same. Give the bytes, without planning.

# %%
one, two = (plan(names[1], "full", batch=count).total for count in (1, 2))
print(f"one chip {one:,} bytes; two chips {two:,} bytes")

# %%
eight = None
# solution
eight = one + 7 * (two - one)

# %%
gp.check("00/eight", eight, one=one, two=two, planned=plans[names[1], "full"].total)

# %% [markdown]
# What it showed: half the batch is not half the memory. Where most of it is there whatever the batch, change the method; where it is chips, change the batch.
#
# ## 3 · What runs where?
# The lessons, with the minutes that stand in their heads. Tests hold the kernel of every lesson to 0.6 GB beside its libraries, so that the 2 GB of Binder are enough.


# %%
def head(number: str) -> dict[str, object]:
    """Read title and minutes of a lesson off its head."""
    folder = lesson_folders()[number]
    text = (folder.parents[1] / f"{folder.name}.ipynb").read_text(encoding="utf-8")
    title = re.search(r"# \d\d · ([^\\\"]+)", text)
    minutes = re.search(r"About (\d+) min.*?needs about (\d+) min", text)
    return {"title": title[1], "to learn (min)": minutes[1], "computer (min)": minutes[2]}


limit = min([machine, *known])
course = pd.DataFrame({number: head(number) for number in lesson_folders()}).T
course["runs here"] = "yes" if limit >= DEVICES["Binder"] else "may not fit"
course

# %% [markdown]
# | where | what changes |
# |---|---|
# | **your own machine** | nothing is lost when you close it; without a GPU the lessons run on what ships |
# | **Colab** | a GPU if you choose one (*Runtime*, *Change runtime type*); the set-up cell installs the toolkit; files are gone when the session ends, so save to your drive |
# | **Binder** | nothing to install; one core, at most 2 GB, no GPU; a session ends after ten idle minutes, and nothing is kept |
# | **a room without network** | lessons need none on their default path; larger models and other data come from a folder that `GEOPEFT_MIRROR` names, filled once by `python -m geopeft_nb mirror DEST --lessons all` |
#
# Is a mirror named here?

# %%
named = [str(folder) for folder in mirror_folders()]
print(f"mirrors: {len(named)}" + (" (they are looked in before the network)" if named else ""))
ships = [name for name, card in CARDS.items() if card.weights and find_file(card.weights)]
print(f"weights on this machine: {', '.join(ships)}")

# %% [markdown]
# ## 4 · A tiny training
# The small model that ships, on real chips, with the live view: loss, score and memory. **Guess before you look:** how many seconds does an epoch take here?

# %%
my_guess = {"seconds per epoch": "?"}

# %% tags=["nbval-check-output"]
whole = len(chips.train)
if FAST:
    chips.train.chips[:] = chips.train.chips[::3]
backbone = gp.load_backbone(model, bands=chips.bands)
network = gp.attach(gp.build_model(backbone, chips, seed=seed), method, seed=seed)
trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
print(f"{trained:,} weights are trained, decoder included")

# %%
settings = {"epochs": 1 if FAST else epochs, "batch_size": batch_size, "device": device}
run = gp.fit(network, chips, seed=seed, **settings)

# %%
planned = gp.memory_plan(network, batch_size)
each = run.seconds / settings["epochs"]
print("You guessed:", my_guess)
print(f"an epoch of {len(chips.train)} chips took {each:.1f} s with {cores} cores")
minutes = each * 10 * whole / len(chips.train) / 60
print(f"at this speed the ten epochs of a method in lesson 01 take {minutes:.1f} min")
off = abs(planned.total - run.memory["total"])
print(f"a step kept {run.memory['total'] / 1e6:.1f} MB; the plan was off by {off / 1e6:.2f} MB")

# %% [markdown]
# ### Exercise 6 · open challenge
# Fine-tune Prithvi-EO 2.0 with 300 million weights on paper, **8 chips** of 224 × 224 pixels, with a peak of at most **2 GB**. Give a dictionary of what you would change: `method`, `precision` (`"fp32"` or `"bf16"`) and `frugal` (`gp.list_recipes()`; one name or a list). A linear probe does not count: something of the backbone should learn.

# %%
gp.list_recipes()

# %%
choice = {"method": ..., "frugal": ...}
# solution
choice = {"method": "lora", "frugal": ["late", "bf16"]}

# %%
large = "prithvi_eo_v2_300"
gp.check("00/challenge", choice, plan=lambda **how: plan(large, batch=8, **how), limit=2e9)

# %% [markdown]
# What it showed: the method alone does not get there; recipes do, and lesson 07 takes them one by one.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("00")

# %% [markdown]
# ## What we have seen
# In this lesson we have asked the machine for what we may use, planned models and methods against that budget without loading any of them, and trained the small model once. Whatever does not fit here is known beforehand, and so is what to change.
#
# ## What to try next
# - Plan your own case: `plan("clay_v1_base", "lora", size=512, batch=4)`, and `.plot()` what comes back.
# - Move sliders instead of typing: `gp.memory_widget(network)`.
#
# ## How this differs at full scale
# On a GPU, CUDA takes some hundred megabytes before anything is computed, and its allocator rounds up: leave more room than a tenth. On a cluster the limit is that of your job, not of the node. The paper's batches are of 8 chips of 128 to 512 pixels, 32 for one data set; plan yours.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); settings: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - [The Linux kernel's documentation of control groups](https://docs.kernel.org/admin-guide/cgroup-v2.html), for `memory.max`
# - [Binder's user guide](https://mybinder.readthedocs.io/en/latest/about/user-guidelines.html)
# - [Documentation of psutil](https://psutil.readthedocs.io)
