# %% [markdown]
# # 10 · Somewhere it has never been
# **Find out what a test score is worth: deal places and not chips, hold out whole regions, put an interval on every score, and turn up the difference between regions on a planet of your own.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Explain* why a random split of neighbours flatters, and *check* a split for places on both sides.
# - *Show* on a synthetic planet how a score falls as regions grow apart.
# - *Write* a bootstrap over places, and *say* what its interval covers and what it does not.
# - *Hold out* one region after the other, and *judge* two methods by their paired difference.
# - *Read* a published table of scores away from home critically.
#
# ## Time to learn
# About 60 min, of which the computer needs about 4 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, what LoRA is | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Mean, percentile, drawing with replacement | necessary | [Learning Data Science, chapter 17](https://learningds.org/ch/17/inf_pred_gen_intro.html) |
# | Linear probe, and what it leaves frozen | helpful | [01 · The whole idea](01_the_whole_idea.ipynb), section 3 |

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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same lesson with fewer chips, epochs and regions.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships
data = "scenes"  # real chips for sections 3 and 5; gp.list_datasets() lists others
method = "lora"  # the method that is compared with a linear probe in section 4
epochs = 5
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with fewer chips, epochs and regions
out_dir = None  # folder for scores and figures; None takes a temporary one

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ipywidgets import FloatSlider, IntSlider
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.datasets.split import shared_places
from geopeft_nb.pictures.sliders import sliders
from geopeft_nb.tasks import confusion, mean_iou
from geopeft_nb.training.run import Run

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {"epochs": 2 if FAST else epochs, "batch_size": batch_size, "device": device}


def train(chips: object, method: str, seed: int, watch: bool = False) -> Run:
    """Train a fresh pretrained network with a method attached; `watch` shows the live view."""
    backbone = gp.load_backbone(model, bands=chips.bands)
    network = gp.build_model(backbone, chips, decoder="linear", seed=seed)
    network = gp.attach(network, method, seed=seed)
    return gp.fit(network, chips, seed=seed, dashboard=watch, **settings)


# %% [markdown]
# ## 1 · Next door is too easy
# The usual way to test a model: deal the samples at random, some for training, the others for the test. With samples from one map this goes wrong, because of what geographers call *spatial autocorrelation*: what lies near is alike. Same day, same haze, same soil, one field cut in two by the edge of a chip. A test chip whose neighbour was trained on is hardly a test.
#
# How much does that flatter? Take all 225 chips of the shipped scene of Virginia and deal them in four ways, half for training and half for the test. The scene is a grid of chips; each chip holds 4 × 4 *squares* of 16 × 16 pixels, and a square is a sample.

# %% tags=["nbval-check-output"]
scene = gp.load_data("scenes")
every = [sample for part in (scene.train, scene.val, scene.test) for sample in part]
row, column = (np.array([int(s["name"].split("-")[i]) for s in every]) for i in (1, 2))
side = int(row.max()) + 1  # chips across the scene
kilometres = scene.size * scene.card.resolution / 1000
print(f"{len(every)} chips, {side} x {side}, of {kilometres:.2f} km a side")

# %%
dealings = {
    "squares at random": 0.25,  # how many chips wide is what stays together
    "chips at random": 1,
    "blocks of 2 x 2 chips": 2,
    "blocks of 5 x 5 chips": 5,
}


def deal(width: float, seed: int) -> np.ndarray:
    """Deal blocks of a width (in chips) at random: True for training, (60, 60) squares."""
    across = round(side / width + 0.49)
    blocks = np.random.default_rng(seed).permutation(across**2) < across**2 / 2
    number = (np.arange(4 * side) / 4 // width).astype(int)
    return blocks.reshape(across, across)[np.ix_(number, number)]


# %%
figure, panels = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
for axes, (name, width) in zip(panels, dealings.items(), strict=True):
    axes.imshow(deal(width, seed), cmap=ListedColormap(["#E69F00", "#0072B2"]), vmin=0, vmax=1)
    axes.set(title=name, xticks=[], yticks=[])
panels[0].set(ylabel=f"{side * kilometres:.0f} km")
for colour, name in (("#0072B2", "training"), ("#E69F00", "test")):
    panels[0].plot([], [], "s", color=colour, label=name)
figure.legend(loc="outside lower center", ncols=2, frameon=False)
figure.suptitle("Four ways to deal one scene")
gp.show(figure, alt="Four maps of training and test squares, from a fine mixture to large blocks.")

# %% [markdown]
# Now two tasks for the squares:
#
# - **water**: is more than half of the square water? The answer stands in the pixels.
# - **made up**: a smooth pattern of hills and valleys that a random number generator painted over the scene, as wide as a few chips. *Above or below the median?* It has **nothing to do with the image**. No model can know the answer anywhere but where it was told. So an honest score is that of a coin.
#
# The model is the simplest that can remember: describe a square by mean and spread of its six bands, and give a test square the answer of the training square that is most alike (*nearest neighbour*). It is never told where a square lies.

# %%
images = torch.stack([sample["image"] for sample in every])
mean = functional.avg_pool2d(images, 16)
spread = (functional.avg_pool2d(images**2, 16) - mean**2).clamp(min=0).sqrt()
wet = functional.avg_pool2d(torch.stack([s["mask"] == 1 for s in every]).float()[:, None], 16)


def as_map(values: torch.Tensor) -> torch.Tensor:
    """Lay squares of chips (N, D, 4, 4) out as the scene: (60, 60, D)."""
    order = np.lexsort((column, row))  # chips row by row
    tiles = values[order].unflatten(0, (side, side))  # (rows, columns, D, 4, 4)
    return tiles.permute(0, 3, 1, 4, 2).reshape(4 * side, 4 * side, -1)


features = as_map(torch.cat([mean, spread], dim=1))
features = (features - features.mean(dim=(0, 1))) / features.std(dim=(0, 1))
water = as_map(wet)[..., 0] > 0.5


# %%
def made_up(seed: int) -> torch.Tensor:
    """Return a smooth pattern of 40 waves over the scene, above or below its median: (60, 60)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: 4 * side, : 4 * side] / 4  # in chips
    waves = np.zeros_like(x)
    for up, right, start in random.normal(size=(40, 3)) / 3:
        waves += np.cos(up * y + right * x + 30 * start)
    return torch.from_numpy(waves > np.median(waves))


def nearest_score(label: torch.Tensor, trained: np.ndarray) -> float:
    """Score the nearest neighbour: share found of each class, averaged (a coin gets 0.5)."""
    train_side = torch.from_numpy(trained)
    distance = torch.cdist(features[~train_side], features[train_side])
    answer, truth = label[train_side][distance.argmin(dim=1)], label[~train_side]
    return float(np.mean([(answer == truth)[truth == kind].float().mean() for kind in (0, 1)]))


# %% [markdown]
# **Guess before you look.** What will the nearest neighbour score on the made-up label, where nothing can be learnt, when squares are dealt at random? When chips are? And does the split matter for water?

# %%
my_guess = {"made up, squares at random": "?", "made up, chips": "?", "water, random - blocks": "?"}

# %%
rows = []
for number in range(3 if FAST else 8):
    pattern = made_up(number)
    for name, width in dealings.items():
        trained = deal(width, number)
        row_of = {"dealt": name, "made up": nearest_score(pattern, trained)}
        rows.append(row_of | {"water": nearest_score(water, trained)})
dealt = pd.DataFrame(rows).groupby("dealt", sort=False)
flattery = dealt.mean()
print("You guessed:", my_guess)
flattery.round(3)

# %%
figure, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
at, error = np.arange(len(flattery))[::-1], dealt.sem()
for task, colour, mark in (("made up", "#D55E00", "o"), ("water", "#0072B2", "s")):
    style = {"fmt": mark, "color": colour, "capsize": 3, "label": task}
    axes.errorbar(flattery[task], at, xerr=2 * error[task], **style)
axes.axvline(0.5, color="#555555", ls=":", label="a coin")
axes.set_yticks(at, flattery.index)
axes.set(xlabel="share found of each class, averaged (0-1); bars: 2 standard errors", xlim=(0.4, 1))
axes.set_title("A label with nothing to learn, and one that stands in the pixels")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
words = [f"{name} {flattery['made up'][name]:.2f}" for name in flattery.index]
gp.show(figure, alt=f"Scores of the nearest neighbour; made-up label: {', '.join(words)}.")

# %% [markdown]
# - **Made up.** Everything above a coin is flattery: the model recognised the *place* by its look, and remembered the answer. It takes blocks wider than the pattern before the score comes down to what the model knows, which is nothing. Were blocks of 2 × 2 chips wide enough? Those are the blocks of `gp.load_data("scenes")`.
# - **Water.** If the rows differ little here, it is because the answer stands in the square itself. Neighbours have nothing to add. So a random split does not *always* flatter; the trouble is that the score alone does not tell you.
# - **Your task** lies between the two. Crops, biomass, damage: part stands in the pixels, part is remembered from around. And the more a model can remember, the more it gains.
#
# No width of blocks is right for every task. The safest block is a region of its own: somewhere the model has never been.
#
# ### Exercise 1
# The first thing to do with any split: look for places on both sides. Write a function `shared(train_places, test_places)`. Both are lists with one place name per chip; it returns the places that are in both. (One line is enough.)

# %%
shared = None
# solution


def on_both_sides(train_places: list[str], test_places: list[str]) -> set[str]:
    """Return the places that are on both sides."""
    return set(train_places) & set(test_places)


shared = on_both_sides

# %%
my_check = gp.check("10/leak", shared)
my_check

# %% [markdown]
# On two splits of the scene: all its chips dealt at random, and what `load_data` does.

# %%
names = [sample["place"] for sample in every]
half = np.random.default_rng(seed).permutation(len(names)) < len(names) // 2
random_split = [[n for n, first in zip(names, half, strict=True) if first == k] for k in (1, 0)]
by_place = [[sample["place"] for sample in part] for part in (scene.train, scene.test)]
if my_check.passed:
    for name, sides in (("dealt at random", random_split), ("by load_data", by_place)):
        print(f"{name}: {len(shared(*sides))} places on both sides")

# %% [markdown]
# The toolkit has the same check for a whole data set. `claims` says where the data set promises that nothing is shared; `load_data` refuses data that break the promise.

# %% tags=["nbval-check-output"]
shared_places(scene)

# %% [markdown]
# Published splits leak, too. Where we know of it, `gp.data_card(name)` says so with numbers, under *leaks*.
#
# ## 2 · A planet with a knob
# How far is "away"? On Earth nobody can set it. So here is a planet where you can: six climates, each with terrain, rivers, fields, seasons and haze, its pixels mixed from published reflectance spectra. At **shift** 0 all climates are the same; at 1 each is itself.
#
# **All of it is SYNTHETIC.** No such place exists, the labels are never wrong, and the knob is one that we built. It shows how things work. It says nothing about how well a model does on Earth.
#
# Move *shift* slowly from 0 to 1 (keyboard: Tab to the slider, then the arrow keys), and look through the chips. What happens to water? Its mean spectrum in the six climates stands below.


# %% tags=["hide-input"]
COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#009E73", "#CC79A7")
LOOKS = tuple(zip(COLOURS, "os^vDP", strict=True))  # a mark, too: not all eyes tell the colours
CLASSES = {"flood": "water", "burn": "burn scar", "crops": "cereal", "landcover": "forest"}


def draw_spectra(axes: plt.Axes, climates: dict[str, list], bands: list, number: int) -> None:
    """Draw the mean reflectance of a class in each climate, over all its pixels."""
    for (climate, samples), (colour, mark) in zip(climates.items(), LOOKS, strict=True):
        found = torch.cat([s["image"][:, s["mask"] == number] for s in samples], dim=1)
        axes.plot(bands, found.mean(dim=1), color=colour, marker=mark, label=climate)
    axes.set(ylabel="reflectance (0-1)", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


# %% tags=["hide-input"]
def draw_chips(figure: plt.Figure, chips: dict[str, dict], planet: object) -> None:
    """Draw a chip of each climate in true colour, stretched alike, and its label below."""
    panels = figure.subplots(2, 6, subplot_kw={"xticks": [], "yticks": []})
    rgb = [planet.bands.index(band) for band in ("RED", "GREEN", "BLUE")]
    colours, last = ListedColormap(planet.colours), len(planet.classes) - 1
    for (top, bottom), (climate, sample) in zip(panels.T, chips.items(), strict=True):
        top.imshow((sample["image"][rgb].movedim(0, -1) / 0.35).clip(0, 1) ** 0.7)
        top.set_title(climate)
        bottom.imshow(sample["mask"], cmap=colours, vmin=0, vmax=last)
    named = zip(planet.classes, planet.colours, strict=True)
    patches = [Patch(color=colour, label=name) for name, colour in named]
    figure.legend(handles=patches, loc="outside lower center", ncols=6, frameon=False)


# %% tags=["hide-input"]
def draw_climates(shift: float, chip: int, task: str) -> tuple[plt.Figure, str]:
    """Draw a chip of each climate with its label, and the spectra of one class."""
    planet = gp.load_data("sandbox", task=task, shift=shift, chips=12, seed=seed)
    climates = {name: [] for name in planet.card.regions}
    for part in planet.parts.values():
        for sample in part:
            climates[sample["region"]].append(sample)
    figure = plt.figure(figsize=(11, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3, 2))
    draw_chips(above, {name: chips[chip] for name, chips in climates.items()}, planet)
    number = planet.classes.index(CLASSES[task])
    draw_spectra(below.subplots(), climates, planet.bands, number)
    title = f"SYNTHETIC: shift {shift:.2f}, chip {chip} of task {task}"
    figure.suptitle(f"{title}; below, the mean spectrum of {CLASSES[task]} in each climate")
    return figure, f"{title}: six climates in true colour, their labels, and their spectra."


# %%
sliders(
    draw_climates,
    shift=FloatSlider(0, min=0, max=1, step=0.05, continuous_update=False),
    chip=IntSlider(0, min=0, max=11, continuous_update=False),
    task=list(CLASSES),
)

# %% [markdown]
# *Reading the picture.* Upper row: one chip of each climate in true colour, with the same stretch everywhere, so that brighter is brighter. Second row: its label. Below: how much light water reflects, on average over twelve chips, in the six bands; where the lines lie on each other, water is the same thing to a sensor in all climates. Floods are shallow and full of plants: much of a water pixel is not water.
#
# Try *task* as well: which of them do climates change most?
#
# ### Train at home, test everywhere
# Training sees the temperate climate only. **Guess before you look:** LoRA is trained anew at shift 0, 0.5 and 1. Does the score at home change with the shift? At which of the three does it break down away, and in which climate most?

# %%
my_guess = {"home at shift 1": "?", "away at 0.5": "?", "away at 1": "?", "hardest climate": "?"}

# %%
task, per_region = "flood", 40 if FAST else 120
rows = []
for shift in (0.0, 0.5, 1.0):
    planet = gp.load_data("sandbox", task=task, shift=shift, chips=per_region, seed=seed)
    trained = train(planet, method, seed)
    report = gp.evaluate(trained, planet)
    rows.append(report.table.reset_index().assign(shift=shift))
    print(f"shift {shift}: trained on {len(planet.train)} chips in {trained.seconds:.0f} s")
curve = pd.concat(rows)
curve.to_csv(out / "scores.csv", index=False)

# %%
print(planet)
print("You guessed:", my_guess)
curve.pivot(index="region", columns="shift", values="mIoU").loc[list(planet.card.regions)].round(3)

# %%
figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
for number, (region, (colour, mark)) in enumerate(zip(planet.card.regions, LOOKS, strict=True)):
    part = curve[curve["region"] == region]
    ends = np.stack([part["mIoU"] - part["low"], part["high"] - part["mIoU"]]).clip(min=0)
    role = part["role"].iloc[0]
    style = {"color": colour, "marker": mark, "capsize": 3, "lw": 3 if role == "home" else 1.3}
    at = part["shift"] + 0.012 * (number - 2.5)  # side by side, so that bars do not hide others
    axes.errorbar(at, part["mIoU"], yerr=ends, label=f"{region} ({role})", **style)
axes.set(xlabel="shift (0: all climates alike, 1: each its own)", ylabel="mIoU (0-1)")
axes.set_title(f"SYNTHETIC {task}: trained in one climate; bars: 95 % interval over places")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
figure.savefig(out / "shift.png", dpi=110)
means = curve.groupby(["role", "shift"])["mIoU"].mean().unstack("role")
words = [f"{m['home']:.2f} at home, {m['away']:.2f} away" for _, m in means.iterrows()]
gp.show(figure, alt=f"mIoU of six synthetic climates at shift 0, 0.5 and 1: {'; '.join(words)}.")

# %% [markdown]
# Three things to see:
#
# - **At shift 0 nothing is lost away.** The places are new, the climate is not: that is what a test at home measures, too.
# - **The score at home hardly warns you.** It stays near what it was while the scores away fall. Whoever tests only at home does not notice anything.
# - **The regions do not fall together.** "Away" is not one number. A mean over regions hides the one that fails; which one is it, and what in its picture above might be the reason?
#
# ## 3 · How sure is a score?
# Back to Earth: real chips, trained at home, tested away.

# %%
chips = gp.load_data(data)
if FAST:
    chips.train.chips[:] = chips.train.chips[::3]
away = next(iter(chips.holdout))
run = train(chips, method, seed, watch=True)

# %%
report = gp.evaluate(run, chips)
report.table[["role", "chips", "places", "mIoU", "low", "high"]].round(3)

# %% [markdown]
# One number, from the places that happened to be looked at. With other places of the same region it would have been another. How far might it have been off? We cannot go back and fly again. The *bootstrap* imitates it: draw as many places as there are from those that we have, **with replacement** (some come twice, some not at all), and score the draw; do this a thousand times. The middle 95 % of the thousand scores are the interval.
#
# What is drawn decides what the interval means. Chips of a place look alike: if one is hard, so is its neighbour. Draw single chips, and you pretend to have more independent evidence than there is.
#
# **Guess before you look.** Which interval will be wider, that from drawing single chips or that from drawing places? By what factor?

# %%
my_guess = {"wider": "?", "times": "?"}


# %%
def counts(run: Run, dataset: object) -> tuple[np.ndarray, list[str]]:
    """Return the confusion matrix of each chip, (N, K, K), and the place of each chip."""
    samples = list(dataset)
    pairs = zip(samples, run.predict(samples), strict=True)
    classes, ignored = len(chips.classes), chips.ignore_index
    matrices = [confusion(s["mask"].numpy(), found, classes, ignored) for s, found in pairs]
    return np.stack(matrices), [sample["place"] for sample in samples]


matrices, places = counts(run, chips.holdout[away])
print(f"{len(matrices)} matrices of {matrices.shape[1:]} counts, from {len(set(places))} places;")
print(f"mIoU of their sum: {mean_iou(matrices.sum(axis=0)):.3f}")

# %% [markdown]
# ### Exercise 2
# A *confusion matrix* counts pixels by true and found class; those of many chips can be added. `mean_iou(matrix)` scores one matrix.
#
# Write `interval(matrices, places)`: at least 1,000 draws of whole places, as many in each as there are; add up the matrices of all their chips; score; return the ends of the middle 95 % as (low, high). Places may have different numbers of chips. (About eight lines; `np.random.default_rng(0).choice(names, size=n)` draws with replacement, `np.percentile` gives the ends.)

# %%
interval = None


# solution
def over_places(matrices: np.ndarray, places: list[str]) -> tuple[float, float]:
    """Return the 95 % interval of mIoU over draws of places."""
    random, names = np.random.default_rng(0), sorted(set(places))
    of_place = {name: matrices[np.asarray(places) == name].sum(axis=0) for name in names}
    draws = random.choice(names, size=(1000, len(names)))
    scores = [mean_iou(sum(of_place[name] for name in draw)) for draw in draws]
    low, high = np.percentile(scores, [2.5, 97.5])
    return low, high


interval = over_places

# %%
my_interval = gp.check("10/interval", interval)
my_interval

# %% [markdown]
# Yours, beside what `evaluate` said, and the same with single chips in place of places: give every chip a place of its own.

# %%
found = {"evaluate": tuple(report.table.loc[away, ["low", "high"]].astype(float))}
if my_interval.passed:
    found["yours, drawing places"] = interval(matrices, places)
    found["drawing single chips"] = interval(matrices, [str(n) for n in range(len(matrices))])
print("You guessed:", my_guess)
ends = pd.DataFrame(found, index=["low", "high"]).T
ends["width"] = ends["high"] - ends["low"]
ends.round(3)

# %% [markdown]
# (Yours and that of `evaluate` differ by the luck of a thousand draws.) Where chips of a place are alike, drawing chips gives the narrower interval, and promises too much. If the two hardly differ for your run, then most of what makes a chip hard here changes from chip to chip, and not from place to place. You cannot know before you look, so draw places.
#
# A word of caution in the other direction: with few places even the right bootstrap is too narrow, because the few cannot show how different others might be. Read the column *places* before the interval.
#
# ### What it does not cover: the luck of training
# All the draws score **one** trained network. Train again with another seed: another start of decoder and adapter, another order of chips. On the planet at shift 1, the same places, two seeds more:

# %%
runs = {seed: curve[curve["shift"] == 1.0].set_index("region")}
for other in range(seed + 1, seed + (2 if FAST else 3)):
    runs[other] = gp.evaluate(train(planet, method, other), planet).table
table = pd.concat({f"seed {number}": part["mIoU"] for number, part in runs.items()}, axis=1)
first = runs[seed]
table.insert(1, "low", first["low"])
table.insert(2, "high", first["high"])
table.round(3)

# %%
figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
at = np.arange(len(first))
bars = np.stack([first["mIoU"] - first["low"], first["high"] - first["mIoU"]]).clip(min=0)
style = {"fmt": "o", "color": "#0072B2", "capsize": 4}
axes.errorbar(first["mIoU"], at, xerr=bars, label=f"seed {seed}", **style)
for number, mark, colour in zip(list(runs)[1:], "^s", ("#D55E00", "#E69F00"), strict=False):
    axes.plot(runs[number]["mIoU"], at, mark, color=colour, label=f"seed {number}")
axes.set_yticks(at, [f"{name} ({role})" for name, role in first["role"].items()])
axes.invert_yaxis()
axes.set(xlabel=f"mIoU (0-1); bars: 95 % interval over places of seed {seed}")
axes.set_title("SYNTHETIC flood at shift 1: one network's interval, and other seeds")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
others = table.drop(columns=[f"seed {seed}", "low", "high"])
outside = others.lt(first["low"], axis=0) | others.gt(first["high"], axis=0)
words = f"{outside.to_numpy().sum()} of {outside.size} scores of other seeds lie outside"
gp.show(figure, alt=f"mIoU in six climates by seed: {words} the interval of the first seed.")

# %%
print(f"{words} the interval of seed {seed}")
apart = table[[f"seed {number}" for number in runs]]
spread = (apart.max(axis=1) - apart.min(axis=1)).groupby(first["role"]).mean()
print("seeds differ by", ", ".join(f"{value:.3f} {role}" for role, value in spread.items()))

# %% [markdown]
# If the interval covered the luck of training, about one in twenty of the other seeds would lie outside. Count again. And where do the seeds differ more, at home or away? At home the training data tie a network down. Away, nothing does: networks that agree at home may part there.
#
# So a careful report needs both: *several seeds* for the luck of training, and *an interval over places* for the luck of the test.
#
# ## 4 · Leave one region out
# One held-out region is one sample of "elsewhere". Better: each region in turn is held out, and all others are home. `gp.leave_one_region_out` does the splitting. Here with two methods; the planet at shift 1 again.

# %%
per_region, tested = (20, ["temperate", "boreal"]) if FAST else (40, list(planet.card.regions))
rival = "linear_probe" if method != "linear_probe" else "lora"
turns = gp.leave_one_region_out("sandbox", task=task, shift=1.0, chips=per_region, seed=seed)
folds = {region: fold for region, fold in turns if region in tested}
for region, fold in folds.items():
    print(f"{region:14} held out: {len(fold.holdout[region])} chips; train {len(fold.train)}")

# %% [markdown]
# **Guess before you look.** In how many of the climates does your method beat the linear probe, which trains nothing but the decoder? Which climate is hardest for a model that knows the other five?

# %%
my_guess = {"climates won": "?", "hardest": "?"}


# %%
def left_out(method: str, regions: list[str]) -> dict:
    """Train without each region in turn; return the report of each."""
    turns = {region: folds[region] for region in regions}
    return {name: gp.evaluate(train(fold, method, seed), fold) for name, fold in turns.items()}


first_half, second_half = tested[: len(tested) // 2], tested[len(tested) // 2 :]
mine = left_out(method, first_half)

# %%
mine |= left_out(method, second_half)

# %%
theirs = left_out(rival, tested)

# %% [markdown]
# ### Exercise 3
# Both methods were scored on the same places, so `report.compare(other)` draws places for their **difference** (lesson 01): what makes a place hard for both cancels out. Write `verdict(low, high)`: given the ends of the interval of *first minus second*, it says `"better"`, `"worse"` or `"cannot tell"`. Without draws (a single place) the ends are NaN.

# %%
verdict = None


# solution
def judge(low: float, high: float) -> str:
    """Say what the interval of a difference allows to say."""
    if low > 0:
        return "better"
    return "worse" if high < 0 else "cannot tell"


verdict = judge

# %%
my_verdict = gp.check("10/verdict", verdict)
my_verdict

# %%
rows = {}
for region in tested:
    scores = {name: part[region].table for name, part in ((method, mine), (rival, theirs))}
    row_of = {f"{name}, away": part.loc[region, "mIoU"] for name, part in scores.items()}
    row_of |= mine[region].compare(theirs[region]).loc[region].to_dict()
    if my_verdict.passed:
        row_of[f"{method} is"] = verdict(row_of["low"], row_of["high"])
    home = {name: part[part["role"] == "home"]["mIoU"].mean() for name, part in scores.items()}
    rows[region] = row_of | {f"{name}, home": score for name, score in home.items()}
contest = pd.DataFrame(rows).T.rename_axis("held out").infer_objects()
contest.to_csv(out / "left_out.csv")
print("You guessed:", my_guess)
contest.style.format(precision=3)

# %%
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
at, middle = np.arange(len(contest)), contest["difference"].astype(float)
bars = np.stack([middle - contest["low"], contest["high"] - middle]).astype(float).clip(min=0)
axes.errorbar(middle, at, xerr=bars, fmt="o", color="#0072B2", capsize=4, label="held out")
at_home = contest[f"{method}, home"] - contest[f"{rival}, home"]
axes.plot(at_home.astype(float), at, "x", color="#D55E00", label="at home, mean")
axes.axvline(0, color="#555555", ls=":")
axes.set_yticks(at, contest.index)
axes.invert_yaxis()
axes.set(xlabel=f"mIoU of {method} minus {rival}; bars: 95 % interval over places")
axes.set_title("SYNTHETIC flood at shift 1: paired differences, one climate left out at a time")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
words = ", ".join(f"{name} {value:+.3f}" for name, value in middle.items())
gp.show(figure, alt=f"mIoU of {method} minus {rival} in each climate that was left out: {words}.")

# %% [markdown]
# Before you conclude anything about methods, look at the crosses. Where a method is behind at home **and** away by about the same, it has not failed to generalise: it has learnt less in these few epochs. Where it is level at home and behind away, that is another matter. And the intervals are over places only: you have just seen what another seed can do.
#
# ### The same question in the paper
# Sen1Floods11 has flood chips from many countries, with Bolivia held out. Published test mIoU (%), mean and standard deviation over the authors' runs:

# %%
columns = ["home", "std", "Bolivia", "std away"]
published = {
    ("Prithvi 1.0, 100M", "linear_probe"): (88.78, 0.02, 79.57, 0.28),
    ("Prithvi 1.0, 100M", "lora"): (89.33, 0.08, 61.25, 4.57),
    ("Prithvi 1.0, 100M", "full"): (89.02, 0.07, 74.16, 0.78),
    ("Prithvi 2.0, 300M", "linear_probe"): (88.08, 0.06, 83.19, 0.57),
    ("Prithvi 2.0, 300M", "lora"): (90.04, 0.17, 87.57, 0.77),
    ("Prithvi 2.0, 300M", "full"): (90.13, 0.22, 82.07, 1.96),
    ("Clay v1", "linear_probe"): (89.57, 0.03, 84.88, 0.03),
    ("Clay v1", "lora"): (90.41, 0.17, 88.88, 0.61),
    ("Clay v1", "full"): (90.41, 0.19, 88.33, 0.52),
    ("UNet, not pretrained", "full"): (90.75, 0.53, 87.81, 0.44),
}
paper = pd.DataFrame.from_dict(published, orient="index", columns=columns)
paper.index = pd.MultiIndex.from_tuples(paper.index, names=["model", "method"])
paper["lost"] = paper["home"] - paper["Bolivia"]
paper.style.format(precision=2)

# %% [markdown]
# Source: the tables of the authors' repository, [IBM/peft-geofm](https://github.com/IBM/peft-geofm), `data/peft_table.csv` and `data/ood_table.csv`; the last column is our subtraction.

# %%
bolivia = paper["Bolivia"].unstack("method")
gap = (bolivia["lora"] - bolivia["full"]).dropna()
for name, value in gap.items():
    print(f"{name}: LoRA {value:+.2f} against full fine-tuning in Bolivia")
at_home = paper["home"].unstack("method")
print("the same at home:", (at_home["lora"] - at_home["full"]).dropna().round(2).to_dict())
noisy, calm = paper["std away"].idxmax(), paper["std away"].max()
print(f"largest spread over runs away: {', '.join(noisy)}, {calm}; at home {paper['std'].max()}")

# %% [markdown]
# - **"PEFT generalises better"** holds in this table for one model clearly, for one by less than the spread of its runs, and for one it is turned round, by a wide margin. A sentence without the model's name would be wrong.
# - **At home nothing of it can be seen.** The scores at home are within a point or two of each other. Bolivia spreads the same models over a wide range.
# - **Luck of training, away.** For the method that fails, the runs differ far more away than at home: what you saw with your seeds.
# - **What is missing.** The standard deviations are over runs. Bolivia has 15 chips of one flood; an interval over places is not published, and from 15 chips it would be wide. Nor is there a second held-out region.
# - **An honest yardstick.** A UNet that was never pretrained is among the best in both columns.
#
# ## 5 · On the map
# A table says how much is wrong, a map says *where* and often *why*. Home above, away below: image, label, prediction, and where they differ. Below it the same as maps to move in.

# %%
region_map = gp.map_regions(run, chips)
region_map.save(out / "map.png")
region_map

# %% [markdown]
# Look at the errors away. Are they spread like noise, or do they lie in one kind of place: shores, cloud shadow, ice, small lakes? Errors in patches are what makes chips of one place alike, and so what made your bootstrap over places wider. And remember the labels: they come from a rule with other thresholds in each scene (lesson 01), so part of what looks like failure is the rule.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("10")

# %% [markdown]
# ## What we have seen
# In this lesson we have dealt one scene in four ways and seen a score rise although there was nothing to learn; turned up the difference between six synthetic climates until a model broke, unnoticed at home; drawn places to put an interval on a score, and trained again to see what it leaves out; left out one region at a time and compared two methods by their paired difference; and read a published table with the same eyes.
#
# ## What to try next
# - Give the sandbox another task: `task = "burn"` or `"landcover"` in section 2. At which shift does it break now?
# - More homes: `gp.load_data("sandbox", task=task, shift=1.0, train_regions=["temperate", "desert"])`. Is a second climate worth more than twice the chips of the first (`chips=240`)?
# - Set `method = "full"` or `"linear_probe"` and `seed = 10` in the parameters: which of your sentences survive?
# - More time: `epochs = 20`. Does the order of the two methods in section 4 stay, and do their scores away rise with those at home?
# - Section 1 with wider hills: divide by 6 instead of 3 in `made_up`. How wide must blocks be now?
#
# ## How this differs at full scale
# With a GPU, set `data = "sen1floods11"` in the parameters, and `model = "prithvi_eo_v2_300"` for a model of the paper: sections 3 and 5 then run on the real flood chips, with Bolivia held out as published. There is no knob there, and few regions: held-out scores of one event, whatever their decimals, are one sample. The paper holds out Bolivia, and Austria with Ireland for land cover; it has five runs of each, as we read its tables. Large benchmarks draw the line elsewhere, by continent or by year; ask each time what training may have seen next door. And pretraining has seen more of the world than fine-tuning: *never been* means never with labels.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); tables: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Roberts et al., *Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic structure*, Ecography 40 (2017), [doi 10.1111/ecog.02881](https://doi.org/10.1111/ecog.02881)
# - Ploton et al., *Spatial validation reveals poor predictive performance of large-scale ecological mapping models*, Nature Communications 11 (2020), [doi 10.1038/s41467-020-18321-y](https://doi.org/10.1038/s41467-020-18321-y)
# - Efron and Tibshirani, *An Introduction to the Bootstrap* (1993)
# - Bonafilia et al., *Sen1Floods11: a georeferenced dataset to train and test deep learning flood algorithms for Sentinel-1* (CVPR workshops 2020)
# - Sources of the sandbox's spectra: `geopeft_nb/datasets/sandbox/climates.toml`
