# %% [markdown]
# # 10 · Somewhere it has never been
# **Find out what a test score is worth: deal places, hold out whole regions, put an interval on every score.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Explain* why a random split of neighbours flatters, and *deal* one that does not.
# - *Show* on a synthetic planet how a score changes as regions grow apart.
# - *Write* a bootstrap over places, and *say* what its interval covers.
# - *Hold out* one region after the other, and *judge* two methods by their difference.
#
# ## Time to learn
# About 60 min, of which the computer needs about 4 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, LoRA and linear probe | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Mean, percentile, drawing with replacement | necessary | [Learning Data Science, chapter 17](https://learningds.org/ch/17/inf_pred_gen_intro.html) |

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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same cells with fewer chips, epochs and regions, to see whether all works: read nothing off its scores.

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
from geopeft_nb.evaluation.intervals import bootstrap_scores
from geopeft_nb.pictures.sliders import sliders
from geopeft_nb.tasks import confusion, mean_iou
from geopeft_nb.training.run import Run

out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {"epochs": 1 if FAST else epochs, "batch_size": batch_size, "device": device}
weights = "pretrained"
try:
    gp.load_backbone(model)
except FileNotFoundError as missing:
    print(missing, "Random weights stand in: sizes hold, scores say nothing.", sep="\n")
    weights = None


def train(chips: object, method: str, seed: int, watch: bool | str = "text") -> Run:
    """Train a fresh pretrained network: `watch` is a line an epoch, or the live view."""
    backbone = gp.load_backbone(model, weights, bands=chips.bands)
    network = gp.build_model(backbone, chips, decoder="linear", seed=seed)
    network = gp.attach(network, method, seed=seed)
    return gp.fit(network, chips, seed=seed, dashboard=watch, **settings)


# %% [markdown]
# ## 1 · Next door is too easy
# The usual test deals samples at random. With one map this goes wrong, because what lies near is alike (*spatial autocorrelation*).
#
# Take all chips of the scene of Virginia and deal them in four ways, half for training. Each chip holds 4 × 4 *squares* of 16 × 16 pixels, and a square is a sample.

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
# ### Exercise 1 · predict
# Chips are dealt with a coin. What share of the test chips, away from the border, has a training chip above, below, left or right?

# %%
with_neighbour = None
# solution
with_neighbour = 1 - 0.5**4  # all but those whose four neighbours all went to the test

# %%
my_neighbours = gp.check("10/neighbours", with_neighbour)
beside = []
for number in range(20):
    trained = deal(1, number)[::4, ::4]  # one square of each chip
    around = trained[:-2, 1:-1] | trained[2:, 1:-1] | trained[1:-1, :-2] | trained[1:-1, 2:]
    beside.append(around[~trained[1:-1, 1:-1]].mean())
if my_neighbours.passed:
    print(f"dealt 20 times: {np.mean(beside):.1%} of the test chips have a neighbour in training")
my_neighbours

# %% [markdown]
# What it showed: dealing chips at random separates hardly any from training.
#
# Now two tasks for the squares:
#
# - **water**: is more than half of it water? The answer stands in the pixels.
# - **made up**: *above or below the median* of random hills and valleys, a few chips wide. They have **nothing to do with the image**, so an honest score is a coin's, 0.5.
#
# A test square gets the answer of the training square whose bands are most alike (*nearest neighbour*). Nothing says where a square lies.

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


def nearest_score(label: torch.Tensor, dealt: np.ndarray) -> float:
    """Score the nearest neighbour of squares dealt 1 (training) or 0 (test); a coin gets 0.5."""
    train_side, test_side = (torch.from_numpy(dealt == number) for number in (1, 0))
    distance = torch.cdist(features[test_side], features[train_side])
    answer, truth = label[train_side][distance.argmin(dim=1)], label[test_side]
    return float(np.mean([(answer == truth)[truth == kind].float().mean() for kind in (0, 1)]))


# %% [markdown]
# **Guess before you look.** What will it score on the made-up label, and on water?

# %%
my_guess = {"made up, squares at random": "?", "made up, blocks of 5 x 5": "?", "water": "?"}

# %%
rows = []
for number in range(3 if FAST else 8):
    pattern = made_up(number)
    for name, width in dealings.items():
        trained = deal(width, number)
        row_of = {"dealt": name, "made up": nearest_score(pattern, trained)}
        rows.append(row_of | {"water": nearest_score(water, trained)})
dealt = pd.DataFrame(rows).groupby("dealt", sort=False)
flattery, two_errors = dealt.mean(), 2 * dealt.sem()
print("You guessed:", my_guess)
for name, score in flattery["made up"].items():
    above = "above a coin" if score - two_errors["made up"][name] > 0.5 else "may be a coin"
    print(f"made up, {name}: {score:.3f} ± {two_errors['made up'][name]:.3f}, {above}")
print("(± two standard errors over the patterns)")
flattery.round(3)

# %% [markdown]
# - **Made up.** What is above a coin is flattery: the *place* was recognised by its look. Were any blocks wide enough? Those of `gp.load_data("scenes")` are 2 × 2 chips.
# - **Water.** Where the rows differ little, the answer stands in the square itself. The score alone does not tell which case is yours.
#
# ### Exercise 2 · open challenge
# Deal the scene yourself: an array (60, 60) with 1 (training), 0 (test) and −1 (left out). Any training square and any test square lie **more than 8 squares apart**, centre to centre, and each side has at least a quarter of all squares.

# %%
my_deal = None
# solution
my_deal = np.full((4 * side, 4 * side), -1)
my_deal[:, :25], my_deal[:, 35:] = 1, 0  # a strip between them belongs to nobody

# %%
my_gap = gp.check("10/gap", my_deal)
if my_gap.passed:
    my_deal = np.asarray(my_deal)
    scores = [nearest_score(made_up(number), my_deal) for number in range(3 if FAST else 8)]
    left, two = np.mean(my_deal == -1), 2 * np.std(scores, ddof=1) / len(scores) ** 0.5
    print(f"made up, with your gap: {np.mean(scores):.3f} ± {two:.3f} (a coin: 0.5)")
    print(f"price: {left:.0%} of the squares are in neither side")
my_gap

# %% [markdown]
# What it showed: distance is bought with samples. The safest block is a region of its own.
#
# ### Exercise 3 · mend a broken line
# `shared(train_places, test_places)` takes two lists with a place name per chip and returns the places in both, each once. Mend the line below.


# %%
def at_same_number(train_places: list[str], test_places: list[str]) -> set[str]:
    """Return the places that are on both sides."""
    return {a for a, b in zip(train_places, test_places, strict=False) if a == b}  # mend this


shared = at_same_number


# solution
def on_both_sides(train_places: list[str], test_places: list[str]) -> set[str]:
    """Return the places that are on both sides."""
    return set(train_places) & set(test_places)


shared = on_both_sides

# %%
my_check = gp.check("10/leak", shared)
names = [sample["place"] for sample in every]
half = np.random.default_rng(seed).permutation(len(names)) < len(names) // 2
random_split = [[n for n, first in zip(names, half, strict=True) if first == k] for k in (1, 0)]
by_place = [[sample["place"] for sample in part] for part in (scene.train, scene.test)]
if my_check.passed:
    for name, sides in (("dealt at random", random_split), ("by load_data", by_place)):
        print(f"{name}: {len(shared(*sides))} places on both sides")
my_check

# %% [markdown]
# What it showed: `load_data` keeps places apart. Published splits leak, too: see *leaks* in `gp.data_card(name)`.

# %% [markdown]
# ## 2 · A planet with a knob
# How far is "away"? On this planet you set it: six climates, their pixels mixed from published reflectance spectra. At **shift** 0 all are the same; at 1 each is itself. **All of it is SYNTHETIC**: it says nothing about how well a model does on Earth.
#
# Move *shift* from 0 to 1 (or press Tab, then the arrow keys). What happens to the mean spectrum of water? Where the lines lie on each other, water looks the same in all climates.

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
# ### Train at home, test everywhere
# Training sees the temperate climate only. **Guess before you look:** does the score at home change with the shift? Where does it break down away?

# %%
my_guess = {"home at shift 1": "?", "away at 0.5": "?", "away at 1": "?", "hardest climate": "?"}

# %%
task, per_region = "flood", 12 if FAST else 120
rows = []
for shift in (0.0, 1.0) if FAST else (0.0, 0.5, 1.0):
    planet = gp.load_data("sandbox", task=task, shift=shift, chips=per_region, seed=seed)
    trained = train(planet, method, seed)
    report = gp.evaluate(trained, planet)
    rows.append(report.table.reset_index().assign(shift=shift))
    print(f"shift {shift}: trained on {len(planet.train)} chips in {trained.seconds:.0f} s\n")
curve = pd.concat(rows)
curve.to_csv(out / "scores.csv", index=False)

# %%
print("You guessed:", my_guess)
means = curve.groupby(["role", "shift"])["mIoU"].mean().unstack("role")
moved = means.loc[1.0] - means.loc[0.0]
print(f"from shift 0 to 1: at home {moved['home']:+.3f}, away {moved['away']:+.3f}")
worst = curve[(curve["shift"] == 1.0) & (curve["role"] == "away")].set_index("region")["mIoU"]
print(f"away at shift 1: from {worst.min():.3f} ({worst.idxmin()}) to {worst.max():.3f}")
curve.pivot(index="region", columns="shift", values="mIoU").loc[list(planet.card.regions)].round(3)

# %% tags=["hide-input"]
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
words = [f"{m['home']:.2f} at home, {m['away']:.2f} away" for _, m in means.iterrows()]
gp.show(figure, alt=f"mIoU of six synthetic climates at shifts from 0 to 1: {'; '.join(words)}.")

# %% [markdown]
# At shift 0 places are new and climate is not: is anything lost away? Which climate would a mean hide?
#
# ## 3 · How sure is a score?
# Back to Earth: real chips, trained at home, tested away.

# %%
chips = gp.load_data(data)
if FAST:
    for part in (chips.train, chips.val):
        part.chips[:] = part.chips[::4]
away = next(iter(chips.holdout))
run = train(chips, method, seed, watch=True)
report = gp.evaluate(run, chips)
report.table[["role", "chips", "places", "mIoU", "low", "high"]].round(3)

# %% [markdown]
# What would other places have scored? The *bootstrap* imitates another visit: draw as many places as there are, **with replacement**, and score the draw; do this a thousand times. The middle 95 % of the scores are the interval. Where chips of a place are alike, drawing single chips pretends to have more evidence than there is.


# %%
def counts(run: Run, chips: object, region: str) -> tuple[np.ndarray, list[str]]:
    """Return the confusion matrix of each held-out chip, (N, K, K), and its place."""
    samples = list(chips.holdout[region])
    pairs = zip(samples, run.predict(samples), strict=True)
    classes, ignored = len(chips.classes), chips.ignore_index
    matrices = [confusion(s["mask"].numpy(), found, classes, ignored) for s, found in pairs]
    return np.stack(matrices), [sample["place"] for sample in samples]


matrices, places = counts(run, chips, away)
print(f"{len(matrices)} matrices of {matrices.shape[1:]} counts, from {len(set(places))} places;")
print(f"mIoU of their sum: {mean_iou(matrices.sum(axis=0)):.3f}")

# %% [markdown]
# ### Exercise 4 · write
# A *confusion matrix* counts pixels by true and found class; matrices can be added, and `mean_iou(matrix)` scores one. Write `interval(matrices, places)`: at least 1,000 draws of whole places, as many as there are places; add up the matrices of all their chips, twice if a place came twice; score; return the middle 95 % as (low, high). (`np.random.default_rng(0).choice(names, size=n)` draws with replacement, `np.percentile` gives the ends.)

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
single = [str(number) for number in range(len(places))]
found = {"evaluate": tuple(report.table.loc[away, ["low", "high"]].astype(float))}
if my_interval.passed:
    for words, groups in (("yours, drawing places", places), ("drawing single chips", single)):
        found[words] = [float(end) for end in interval(matrices, groups)]
ends = pd.DataFrame(found, index=["low", "high"]).T
ends["width"] = ends["high"] - ends["low"]
if my_interval.passed:
    times = ends.loc["yours, drawing places", "width"] / ends.loc["drawing single chips", "width"]
    print(f"drawing places makes the interval {times:.2f} times as wide as drawing single chips")
print(ends.round(3).to_string())
my_interval

# %% [markdown]
# What it showed: a factor well above 1 says that chips of a place fail together, near 1 that each fails by itself. You cannot know before you look, so draw places. Read the column *places* first: a few cannot show how different others might be.
#
# ### What it does not cover: the luck of training
# All draws score **one** trained network. Train again with other seeds, on the planet at shift 1:

# %%
runs = {seed: curve[curve["shift"] == 1.0].set_index("region")}
for other in range(seed + 1, seed + (2 if FAST else 3)):
    runs[other] = gp.evaluate(train(planet, method, other), planet).table
table = pd.concat({f"seed {number}": part["mIoU"] for number, part in runs.items()}, axis=1)
first = runs[seed]
table.insert(1, "low", first["low"])
table.insert(2, "high", first["high"])
known = table.dropna()  # a climate of few places has no interval
others = known.drop(columns=[f"seed {seed}", "low", "high"])
outside = others.lt(known["low"], axis=0) | others.gt(known["high"], axis=0)
words = f"{outside.to_numpy().sum()} of {outside.size} scores of other seeds lie outside"
print(f"{words} the interval of seed {seed}")
table.round(3)

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
at = np.arange(len(first))
bars = np.stack([first["mIoU"] - first["low"], first["high"] - first["mIoU"]]).clip(min=0)
style = {"fmt": "o", "color": "#0072B2", "capsize": 4}
axes.errorbar(first["mIoU"], at, xerr=bars, label=f"seed {seed}", **style)
for number, mark, colour in zip(list(runs)[1:], "^s", ("#D55E00", "#E69F00"), strict=False):
    axes.plot(runs[number]["mIoU"], at, mark, color=colour, label=f"seed {number}")
axes.set_yticks(at, [f"{name} ({role})" for name, role in first["role"].items()])
axes.set_ylim(len(first) - 0.5, -0.5)
axes.set(xlabel=f"mIoU (0-1); bars: 95 % interval over places of seed {seed}")
axes.set_title(f"SYNTHETIC {task} at shift 1: one network's interval, and other seeds")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
gp.show(figure, alt=f"mIoU in six climates by seed: {words} the interval of the first seed.")
apart = table[[f"seed {number}" for number in runs]]
spread = (apart.max(axis=1) - apart.min(axis=1)).groupby(first["role"]).mean()
print("seeds differ by", ", ".join(f"{value:.3f} {role}" for role, value in spread.items()))

# %% [markdown]
# No bar: too few places. Scores outside the bars show what the interval misses. A report needs both: *seeds*, and *an interval over places*.
#
# ## 4 · Leave one region out
# One held-out region is one sample of "elsewhere". Better: each in turn is held out, and all others are home. Here with two methods, on the planet at shift 1.

# %%
per_region, tested = (12, ["temperate", "boreal"]) if FAST else (40, list(planet.card.regions))
rival = "linear_probe" if method != "linear_probe" else "lora"
turns = gp.leave_one_region_out("sandbox", task=task, shift=1.0, chips=per_region, seed=seed)
folds = {region: fold for region, fold in turns if region in tested}
for region, fold in folds.items():
    print(f"{region:14} held out: {len(fold.holdout[region])} chips; train {len(fold.train)}")
looked_at, kept = tested[0], {}  # the runs of one fold are kept, for the map


def left_out(method: str, regions: list[str]) -> dict:
    """Train without each region in turn; return the report of each."""
    reports = {}
    for region in regions:
        run = train(folds[region], method, seed)
        reports[region] = gp.evaluate(run, folds[region])
        if region == looked_at:
            kept[method] = run
    return reports


first_half, second_half = tested[: len(tested) // 2], tested[len(tested) // 2 :]
mine = left_out(method, first_half)

# %%
mine |= left_out(method, second_half)

# %%
theirs = left_out(rival, tested)

# %% [markdown]
# ### Exercise 5 · mend a broken line
# What makes a place hard for both methods cancels out, **if** each draw scores both on the same places. `paired(mine, theirs, places)` should return the 95 % interval of *mine minus theirs*, both (N, K, K). Mend the line that draws for each method anew.


# %%
def drawn_apart(mine: np.ndarray, theirs: np.ndarray, places: list[str]) -> tuple[float, float]:
    """Return the 95 % interval of the difference in mIoU over draws of places."""
    random, names = np.random.default_rng(0), sorted(set(places))
    of_place = [[m[np.asarray(places) == n].sum(axis=0) for n in names] for m in (mine, theirs)]
    scores = []
    for _ in range(1000):
        draws = [random.integers(len(names), size=len(names)) for _ in of_place]  # mend this line
        one, two = (
            mean_iou(sum(sums[i] for i in draw)) for sums, draw in zip(of_place, draws, strict=True)
        )
        scores.append(one - two)
    return tuple(np.percentile(scores, [2.5, 97.5]))


paired = drawn_apart


# solution
def drawn_together(mine: np.ndarray, theirs: np.ndarray, places: list[str]) -> tuple[float, float]:
    """Draw places once, and score both methods on them."""
    names = sorted(set(places))
    sums = np.stack(
        [[m[np.asarray(places) == n].sum(axis=0) for n in names] for m in (mine, theirs)]
    )
    draws = np.random.default_rng(0).integers(len(names), size=(1000, len(names)))
    scores = mean_iou(sums[:, draws].sum(axis=2))  # (2, 1000)
    return tuple(np.percentile(scores[0] - scores[1], [2.5, 97.5]))


paired = drawn_together

# %%
my_paired = gp.check("10/paired", paired)
pair = [counts(kept[name], folds[looked_at], looked_at) for name in (method, rival)]
same_places = pair[0][1]
if my_paired.passed:
    by_compare = mine[looked_at].compare(theirs[looked_at]).loc[looked_at, ["low", "high"]]
    print("{}, by `compare`: {:+.3f} to {:+.3f}".format(looked_at, *by_compare))
    low, high = paired(pair[0][0], pair[1][0], same_places)
    print(f"yours: {low:+.3f} to {high:+.3f}, {high - low:.3f} wide")
    apart = [bootstrap_scores(pair[n][0], same_places, seed=n) for n in (0, 1)]
    begin, end = np.percentile(apart[0] - apart[1], [2.5, 97.5])
    print(f"drawn apart, it would be {end - begin:.3f} wide")
my_paired

# %% [markdown]
# What it showed: the interval of a difference narrows where hard places cancel.
#
# ### Exercise 6 · write
# `verdict(low, high)`: given the interval of *first minus second*, it says `"better"`, `"worse"` or `"cannot tell"`. An interval that only touches zero still holds it. With a single place the ends are NaN.

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
contest.style.format(precision=3)

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
at, middle = np.arange(len(contest)), contest["difference"].astype(float)
bars = np.stack([middle - contest["low"], contest["high"] - middle]).astype(float).clip(min=0)
axes.errorbar(middle, at, xerr=bars, fmt="o", color="#0072B2", capsize=4, label="held out")
at_home = contest[f"{method}, home"] - contest[f"{rival}, home"]
axes.plot(at_home.astype(float), at, "x", color="#D55E00", label="at home, mean")
axes.axvline(0, color="#555555", ls=":")
axes.set_yticks(at, contest.index)
axes.set_ylim(len(contest) - 0.5, -0.5)
axes.set(xlabel=f"mIoU of {method} minus {rival}; bars: 95 % interval over places")
axes.set_title(f"SYNTHETIC {task} at shift 1: paired differences, one climate left out at a time")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
words = ", ".join(f"{name} {value:+.3f}" for name, value in middle.items())
gp.show(figure, alt=f"mIoU of {method} minus {rival} in each climate that was left out: {words}.")

# %% [markdown]
# What it showed: a verdict needs the whole interval on one side of zero. Mind the crosses: behind at home **and** away, a method has learnt less; level at home and behind away, it has failed to generalise. Both methods on the map; move the bar:

# %%
won, lost = contest["low"].gt(0).sum(), contest["high"].lt(0).sum()
print(f"Of {len(contest)} climates, {method} is better in {won} and worse in {lost}.")
if won <= lost and rival == "linear_probe":
    print("The simpler way would have done: a linear probe trains less, and wins as often or more.")
two_maps = gp.map_regions(kept, folds[looked_at], regions=[looked_at])
two_maps

# %% [markdown]
# ### The same question in the paper
# Sen1Floods11 with Bolivia held out: published test mIoU (%), mean and standard deviation over the authors' runs ([IBM/peft-geofm](https://github.com/IBM/peft-geofm), `data/peft_table.csv` and `data/ood_table.csv`; `lost` is our subtraction).

# %% tags=["hide-input"]
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
# - **"PEFT generalises better"**: read the three differences beside the spread of the runs. Without the model's name the sentence is wrong.
# - **What is missing.** Bolivia has 15 chips of one flood, and no interval over places is published.
# - **A simpler yardstick.** A UNet that was never pretrained is among the best in both columns.
#
# ## 5 · On the map
# A table says how much is wrong, a map says *where*.

# %%
region_map = gp.map_regions(run, chips, regions=[away] if FAST else [])
region_map.save(out / "map.png")
region_map

# %% [markdown]
# Are the errors away spread like noise, or do they lie in patches: shores, cloud shadow, ice? Patches make chips of one place alike. And part of what looks like failure is the rule that made the labels.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("10")

# %% [markdown]
# ## What we have seen
# In this lesson we have dealt one scene in many ways, turned up the difference between six climates, drawn places for an interval, and compared two methods, one region left out at a time.
#
# ## What to try next
# - `task = "burn"` or `"landcover"` in section 2.
# - More homes: `gp.load_data("sandbox", task=task, shift=1.0, train_regions=["temperate", "desert"])`. Is a second climate worth more than `chips=240` of the first?
# - `method = "full"` and `seed = 10` in the parameters: which of your sentences survive?
#
# ## How this differs at full scale
# With a GPU, set `data = "sen1floods11"` and `model = "prithvi_eo_v2_300"`: sections 3 and 5 then run on the real flood chips, with Bolivia held out as published. And pretraining has seen more of the world than fine-tuning: *never been* means never with labels.
#
# ## References
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder: Parameter-Efficient Fine-Tuning for Geospatial Foundation Models*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397); tables: [IBM/peft-geofm](https://github.com/IBM/peft-geofm)
# - Roberts et al., *Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic structure* (2017), [doi 10.1111/ecog.02881](https://doi.org/10.1111/ecog.02881)
# - Ploton et al., *Spatial validation reveals poor predictive performance of large-scale ecological mapping models* (2020), [doi 10.1038/s41467-020-18321-y](https://doi.org/10.1038/s41467-020-18321-y)
# - Efron and Tibshirani, *An Introduction to the Bootstrap* (1993)
# - Sources of the sandbox's spectra: `geopeft_nb/datasets/sandbox/climates.toml`
