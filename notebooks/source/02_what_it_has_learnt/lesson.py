# %% [markdown]
# # 02 · What a geospatial foundation model has learnt
# **Look inside before you fine-tune: which light the model takes in, how it cuts an image up, what it can fill in, and where it puts the places of the Earth.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Scale* an image as it was scaled in pretraining.
# - *Count* the tokens that an image becomes.
# - *Judge* a masked reconstruction against naive ways to fill a gap.
# - *Measure* whether embeddings of places gather by class or by region.
#
# ## Time to learn
# About 55 min, of which the computer needs about 1 min on a CPU. Nothing is trained, so a GPU is not needed.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Python and arrays | necessary | [NumPy for beginners](https://numpy.org/doc/stable/user/absolute_beginners.html) |
# | Lesson 01: chips, regions, tokens | helpful | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Principal components | helpful | [scikit-learn's user guide](https://scikit-learn.org/stable/modules/decomposition.html#pca) |

# %% [markdown]
# ## Set up
# Where everything is installed, the next cell does nothing. On Colab and Kaggle it installs what is missing, and leaves torch and numpy as they are. The cell after it holds all that you may want to change.

# %% tags=["setup"]
import importlib.util

from IPython import get_ipython

source = "geopeft-nb @ git+{{repository}}"
if importlib.util.find_spec("geopeft_nb") is None:
    get_ipython().run_line_magic("pip", f"install -q '{source}'")

# %% tags=["parameters"]
model = "geopeft_tiny"  # a model whose pretraining decoder is published: a Prithvi-EO
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
compare = None  # "galileo_nano": a second model beside it, a download of 4 MB
seed = 0  # which patches are hidden, which places are drawn
FAST = False  # True: the same cells on fewer chips
out_dir = None  # folder for the table and the figure; None takes a temporary one
# All lessons share these. Nothing is trained here, so leave method and epochs as they are.
method = None
epochs = 0
batch_size = 16  # images that go through the network together
device = "cpu"

# %%
import itertools
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ipywidgets import FloatSlider, IntSlider
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.bands import WAVELENGTHS
from geopeft_nb.files import data_folder
from geopeft_nb.pictures.sliders import sliders

out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
step = 3 if FAST else 1  # every third chip is enough to see that all runs
sizes = {name: gp.load_backbone(name).patch_size for name in (model, compare) if name}
assert len({*sizes.values()}) == 1, f"compare models whose patches have one size, not {sizes}"

# %% [markdown]
# ## 1 · Bands: what the sensor lets through
# A satellite measures, pixel by pixel, which share of the sunlight the ground sends back (*reflectance*, 0 to 1) in a few windows of wavelength, its *bands*. A model is made for certain bands. Here is one model per family; `gp.list_backbones()` lists all. Grey is where water vapour swallows nearly all light.

# %% tags=["hide-input"]
families = {
    "Prithvi-EO, geopeft tiny": "geopeft_tiny",
    "Clay v1 (any; here Sentinel-2)": "clay_v1_base",
    "SatMAE": "satmae_base",
    "Galileo": "galileo_nano",
    "DeCUR": "decur_resnet50",
}
ticks = [0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.4, 1.6, 2.2]


def spectral_axis(axes: plt.Axes) -> None:
    """Give an axis wavelengths, and mark what vapour swallows."""
    axes.set(xscale="log", xlim=(0.4, 2.5), xlabel="wavelength (µm)")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    for low, high in ((1.35, 1.45), (1.80, 1.95)):
        axes.axvspan(low, high, color="#DDDDDD", zorder=0)


# %% tags=["hide-input"]
wavelengths = gp.list_backbones(full=True)["wavelengths (µm)"]
names = [f"{title}: {len(wavelengths[name])}" for title, name in families.items()]
light = {"blue": ("#0072B2", 0.44, 0.50), "green": ("#009E73", 0.50, 0.58)}
light["red"] = ("#D55E00", 0.62, 0.70)
light |= {"near infrared": ("#CC79A7", 0.78, 1.0), "short-wave infrared": ("#E69F00", 1.5, 2.4)}
figure, axes = plt.subplots(figsize=(9, 2.9), layout="constrained")
spectral_axis(axes)
for name, (colour, low, high) in light.items():
    axes.axvspan(low, high, color=colour, alpha=0.18, zorder=0)
    axes.text((low + high) / 2, -0.85, name, ha="center", fontsize=8, color="#333333")
for row, name in enumerate(families.values()):
    axes.plot(wavelengths[name], [row] * len(wavelengths[name]), "|", color="#222222", ms=19, mew=3)
axes.set_yticks(range(len(names)), names)
axes.set(ylim=(len(names) - 0.4, -1.1), title="Central wavelengths of the bands, and how many")
gp.show(figure, alt=f"Bands of five model families along the wavelength: {'; '.join(names)}.")

# %% [markdown]
# All share six: blue, green, red, a near infrared and two short-wave infrared bands. Those are the bands of our data.
#
# **Guess before you look.** Which of the six tells water from land best? And will that band be the same in both regions? Write it down; nobody checks.

# %% tags=["nbval-check-output"]
chips = gp.load_data(data)
away = next(iter(chips.holdout))
print(chips)
print(", ".join(f"{band} {WAVELENGTHS[band]:.3f} µm" for band in chips.bands))

# %%
my_guess = {"best band at home": "?", "best band away": "?"}


# %%
# Preparation; you may skip this cell.
def pixels_by_class(dataset: list) -> dict[str, np.ndarray]:
    """Return every second labelled pixel of each class, both ways, as (pixels, bands)."""
    image = torch.stack([sample["image"][:, ::2, ::2] for sample in dataset]).movedim(1, -1)
    label = torch.stack([sample["mask"][::2, ::2] for sample in dataset])
    return {name: image[label == i].numpy() for i, name in enumerate(chips.classes)}


home = chips.regions[0]
sets = {home: [*chips.train, *chips.val, *chips.test], away: [*chips.holdout[away]]}
sets = {region: dataset[::step] for region, dataset in sets.items()}
pixels = {region: pixels_by_class(dataset) for region, dataset in sets.items()}

# %% tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
centres = [WAVELENGTHS[band] for band in chips.bands]
for axes, (region, classes) in zip(panels, pixels.items(), strict=True):
    spectral_axis(axes)
    for (name, values), colour in zip(classes.items(), ("#8C7A4F", "#0072B2"), strict=True):
        low, middle, high = np.percentile(values, [10, 50, 90], axis=0)
        axes.fill_between(centres, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(centres, middle, "o-", color=colour, label=f"{name}: median, 10 to 90 %")
    axes.set(title=region)
panels[0].set(ylabel="reflectance (0-1)", ylim=(0, None))
panels[1].legend(frameon=False, loc="upper left")
figure.suptitle("Spectra of land and water: dots are measured, lines only guide the eye")
gp.show(figure, alt="Reflectance of land and water over six bands, in two regions, with spread.")

# %%
# (mean of water - mean of land) / spread within a class; 3: hardly any overlap
separation = pd.DataFrame(index=list(chips.bands))
for region, classes in pixels.items():
    land, water = classes.values()
    spread = np.sqrt((land.var(axis=0) + water.var(axis=0)) / 2)
    separation[region] = (water.mean(axis=0) - land.mean(axis=0)) / spread
print("You guessed:", my_guess)
separation.round(2)

# %% [markdown]
# Below 0 water is darker: it swallows infrared light, unless mud or ice change it. (The labels were made from green, near infrared and the first short-wave band: `data/scenes/README.md`.) Where the number changes between the regions, a rule learnt at home may fail away: a *domain gap*, before any model.
#
# ### What normalisation does
# Each band is scaled by mean and standard deviation (std) of the **pretraining** imagery, not of your chips: the weights have learnt what "two std brighter than usual" means. Leave it out and no error tells you.
#
# ### Exercise 1 · write
# `normalise(image, mean, std)`: scale a chip (bands, rows, columns). `mean` and `std` are tensors of one number for each band, such as these:

# %%
backbone = gp.load_backbone(model, bands=chips.bands).eval()
card = backbone.card
pd.DataFrame({"mean": card.mean, "std": card.std}, index=list(card.bands))

# %%
normalise = None


# solution
def scale(image: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Take the mean off each band, and divide by its standard deviation."""
    return (image - mean[:, None, None]) / std[:, None, None]


normalise = scale

# %%
gp.check("02/normalise", normalise)

# %% [markdown]
# What it showed: each band is scaled by itself, with numbers of pretraining.
#
# ## 2 · Patches: how an image becomes tokens
# A transformer takes a list of *tokens*. So the image is cut into square patches, and one linear layer turns all numbers of a patch into one token.


# %% tags=["hide-input"]
def unevenness(sample: dict) -> float:
    """Return how far a chip is from showing as much water as land."""
    return abs(float((sample["mask"] == 1).float().mean()) - 0.5)


rgb = [chips.bands.index(band) for band in ("RED", "GREEN", "BLUE")]
stretch = {}
for region, dataset in sets.items():
    values = torch.stack([s["image"][rgb] for s in dataset]).movedim(1, -1).flatten(0, 2)[::97]
    stretch[region] = [values.quantile(q, dim=0) for q in (0.01, 0.99)]


def picture(sample: dict) -> np.ndarray:
    """Return a chip in true colour, stretched as all chips of its region."""
    low, high = stretch[sample["region"]]
    share = ((sample["image"][rgb].movedim(0, -1) - low) / (high - low)).clip(0, 1)
    return (share**0.7).numpy()  # brightens what is dark, beside the bright beach


# %% tags=["hide-input"]
shore = sorted(chips.test, key=unevenness)[:2] + sorted(chips.holdout[away], key=unevenness)[:2]
patch = backbone.patch_size
grid_rows, grid_columns = backbone.grid(chips.size, chips.size)
cuts = f"{grid_rows} x {grid_columns}"
apart = picture(shore[0])
for axis in (0, 1):  # two white lines between patches
    apart = np.insert(apart, np.repeat(range(patch, chips.size, patch), 2), 1, axis=axis)
figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
axes.imshow(apart)
axes.axis("off")
axes.set(title=f"One chip: {cuts} patches of {patch} x {patch} pixels")
gp.show(figure, alt=f"A chip, cut apart into {cuts} patches.")

# %% tags=["nbval-check-output"]
numbers = patch * patch * len(chips.bands)
metres = patch * chips.card.resolution
tokens = grid_rows * grid_columns
print(f"{cuts} = {tokens} tokens for a chip of {chips.size} x {chips.size} px")
print(f"a patch: {patch} x {patch} px x {len(chips.bands)} bands = {numbers} numbers,")
print(f"a square of {metres:.0f} m on the ground; its token has {card.width} numbers")

# %% [markdown]
# Small patches draw finer maps. But in attention each token looks at every other.
#
# ### Exercise 2 · predict
# Halve the side of the patches. How many times as many *pairs* of tokens are there then?

# %%
pairs = None
# solution
pairs = 16  # four times as many tokens, each beside four times as many

# %%
gp.check("02/pairs", pairs)

# %% [markdown]
# What it showed: fine maps cost memory and time, faster than one thinks.
#
# ### Exercise 3 · write
# `count_tokens(height, width, frames, patch_size)` counts the tokens of an image series. Images that patches do not fill are padded until they do. No class token.

# %%
count_tokens = None


# solution
def count(height: int, width: int, frames: int, patch_size: int) -> int:
    """Count the patches of an image series; a border that fills no patch is padded."""
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    return rows * columns * frames


count_tokens = count

# %%
gp.check("02/tokens", count_tokens)

# %% [markdown]
# What it showed: rows, columns and frames are counted each by itself.
#
# Attention treats tokens as a *set*: shuffle them, and it computes the same, shuffled. So a *position code* is added to each token; here, fixed sines and cosines of its row and column.
#
# ## 3 · Masked reconstruction: hide, and fill in
# How do you learn from images that nobody labelled? In a *masked autoencoder* the *encoder*, our backbone, sees a few patches only; a small *decoder* gets their tokens and rebuilds the hidden pixels. Fine-tuning throws the decoder away; today we keep it.

# %%
sys.path.append(str(data_folder() / "models"))  # its code stands where geopeft_tiny was made
from masked_autoencoder import load_autoencoder

autoencoder = load_autoencoder(model).eval()
parts = {"encoder": autoencoder.encoder, "decoder": autoencoder.decoder}
for name, part in parts.items():
    print(f"{name}: {sum(p.numel() for p in part.parameters()):,} weights")

# %% [markdown]
# `geopeft_tiny` saw both scenes in pretraining, without labels, mostly with 75 % hidden (`data/models/README.md`). So nothing below is a test on new imagery.
#
# **Guess before you look.** Up to which hidden share can you still recognise the place? Which is rebuilt better, land or water? From which share on does the model beat a plain interpolation, if ever?

# %%
my_guess = {"still recognisable at": "?", "rebuilt better": "?", "beats interpolation from": "?"}


# %% tags=["hide-input"]
def draw_rebuilt(hidden: float, chip: int, draw: int) -> tuple[plt.Figure, str]:
    """Draw a chip, what the model sees of it, what it rebuilds, and how wrong that is."""
    image = backbone.normalise(shore[chip]["image"][None])[:, :, None]
    rebuilt, mask = autoencoder.reconstruct(image, hidden, torch.Generator().manual_seed(draw))
    gone = (mask[0, 0] > 0).numpy()
    wrong = (rebuilt - image)[0, :, 0].square().mean(dim=0).sqrt().numpy()
    offset, divisor = (value[:, None, None] for value in backbone.scaling())
    after = picture({**shore[chip], "image": rebuilt[0, :, 0] * divisor + offset})
    before, share = picture(shore[chip]), f"{gone.mean():.0%}"
    shown = {"image": before, f"visible ({share} hidden)": np.where(gone[..., None], 0.55, before)}
    shown |= {"rebuilt": after, "error": np.ma.array(wrong, mask=~gone)}
    figure, panels = plt.subplots(1, 4, figsize=(11, 3.3), layout="constrained")
    for axes, (title, what) in zip(panels, shown.items(), strict=True):
        drawn = axes.imshow(what, cmap="cividis", vmin=0, vmax=0.7)  # the same at every share
        axes.set(title=title, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=panels[3], label="pretraining std", extend="max")
    error = np.sqrt((wrong[gone] ** 2).mean())
    figure.suptitle(f"{shore[chip]['name']}: error on hidden pixels {error:.2f}")
    return figure, f"A chip, what the model sees, what it rebuilds; {share} hidden."


# %% [markdown]
# Move the sliders: a larger share, another chip, another draw. Look for *blur*, the safe answer where much is possible, and for *seams* along the patches.

# %%
names = {f"{sample['region']}, {sample['name']}": i for i, sample in enumerate(shore)}
share = FloatSlider(0.75, min=0.05, max=0.95, step=0.05)
sliders(draw_rebuilt, hidden=share, chip=names, draw=IntSlider(seed, min=0, max=20))

# %% [markdown]
# ### Exercise 4 · write
# `hidden_error(image, rebuilt, mask)`: the *root mean square* of `rebuilt - image` over all bands, over **hidden pixels only**. `image` and `rebuilt` are (1, bands, 1, rows, columns); `mask` is (1, 1, rows, columns) with 1 where a pixel was hidden.

# %%
hidden_error = None


# solution
def root_mean_square(image: torch.Tensor, rebuilt: torch.Tensor, mask: torch.Tensor) -> float:
    """Average the squares over the bands, then over the hidden pixels."""
    squares = (rebuilt - image).square().mean(dim=1)  # (1, 1, rows, columns)
    return float(squares[mask > 0].mean().sqrt())


hidden_error = root_mean_square

# %%
my_error = gp.check("02/hidden_error", hidden_error)
my_error

# %%
if my_error.passed:
    for chip in shore:
        image = backbone.normalise(chip["image"][None])[:, :, None]
        generator = torch.Generator().manual_seed(seed)
        rebuilt, mask = autoencoder.reconstruct(image, 0.75, generator)
        print(f"{chip['name']}: {hidden_error(image, rebuilt, mask):.2f}")


# %% [markdown]
# What it showed: an error has a unit, pretraining standard deviations; whether it is large takes a comparison.
#
# ### Exercise 5 · mend a broken line
# `fill(image, hidden)` should fill the hidden pixels of each band (B, C, H, W) by the mean of the *visible* ones; `hidden` is (B, 1, H, W). This line peeks at what is hidden.


# %%
def peeking(image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Fill the hidden pixels."""
    return torch.where(hidden, image.mean((2, 3), keepdim=True), image)  # mend this line


fill = peeking


# solution
def honest(image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Fill the hidden pixels by the mean of the visible ones."""
    seen = (~hidden).float()
    mean = (image * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
    return torch.where(hidden, mean, image)


fill = honest

# %%
gp.check("02/fill", fill)

# %% [markdown]
# What it showed: a yardstick that has seen the answer is none.
#
# ### Compared with what?
# Set two naive fillings beside the model: the *mean* of what is visible in the chip, and an *interpolation*, in which each hidden pixel becomes the average of its four neighbours, again and again. Each share is hidden by three draws of patches.


# %%
def fill_with_mean(image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Fill the hidden pixels (B, 1, H, W) of an image (B, C, H, W) by the mean of the others."""
    visible = torch.where(hidden, torch.nan, image)
    return torch.where(hidden, visible.nanmean((2, 3), keepdim=True), image)


def interpolate(image: torch.Tensor, hidden: torch.Tensor, rounds: int = 200) -> torch.Tensor:
    """Fill the hidden pixels so that each is the average of its neighbours."""
    before = filled = fill_with_mean(image, hidden)
    for _ in range(rounds):
        wide = functional.pad(filled, (1, 1, 1, 1), mode="replicate")
        across = wide[:, :, 1:-1, :-2] + wide[:, :, 1:-1, 2:]
        down = wide[:, :, :-2, 1:-1] + wide[:, :, 2:, 1:-1]
        # 1.95 overshoots a little, which settles the same picture sooner
        filled, before = torch.lerp(before, (across + down) / 4, 1.95 * hidden), filled
    return filled


# %%
def fill_all(dataset: list, share: float, draw: int = 0) -> tuple[torch.Tensor, dict]:
    """Hide a share; return where (B, 1, H, W), and the mean square over bands of each error."""
    image = backbone.normalise(torch.stack([sample["image"] for sample in dataset]))
    generator = torch.Generator().manual_seed(100 * seed + draw)
    rebuilt, mask = autoencoder.reconstruct(image, share, generator)
    hidden = mask > 0
    filled = {"mean of the visible": fill_with_mean(image, hidden)}
    parts = zip(image.split(4), hidden.split(4), strict=True)  # a few at a time fit the cache
    filled["interpolation"] = torch.cat([interpolate(*part) for part in parts])
    filled[model] = rebuilt[:, :, 0]
    squares = {n: (f - image).square().mean(dim=1, keepdim=True) for n, f in filled.items()}
    return hidden, squares


# %%
shares = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
most = max(1, (6 if FAST else 45) * 64 // chips.size)  # chips of a region; large ones take longer
tests = {home: list(chips.test), away: list(chips.holdout[away])}
tests = {name: part[:: math.ceil(len(part) / most)] for name, part in tests.items()}
records = []
for name, share, draw in itertools.product(tests, shares, range(3)):
    hidden, squares = fill_all(tests[name], share, draw)
    scores = {method: float(part[hidden].mean().sqrt()) for method, part in squares.items()}
    by_chip = {method: (part * hidden).sum((1, 2, 3)) for method, part in squares.items()}
    better = float((by_chip[model] < by_chip["interpolation"]).float().mean())
    ratio = scores[model] / scores["interpolation"]
    place = {"region": name, "hidden": share, "draw": draw}
    records.append({**place, **scores, "ratio": ratio, "chips where the model is better": better})
draws = pd.DataFrame(records).groupby(["region", "hidden"])

# %% tags=["hide-input"]
styles = {"mean of the visible": ("#7F7F7F", "^:"), "interpolation": ("#E69F00", "s--")}
styles[model] = ("#0072B2", "o-")
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
for axes, name in zip(panels, tests, strict=True):
    for method, (colour, style) in styles.items():
        values = draws[method].agg(["mean", "min", "max"]).loc[name]
        percent = 100 * values.index
        axes.fill_between(percent, values["min"], values["max"], color=colour, alpha=0.25, lw=0)
        axes.plot(percent, values["mean"], style, c=colour, label=method)
    axes.set(title=name, xlabel="hidden share of the patches (%)")
panels[0].set(ylabel="error on hidden pixels\n(pretraining std)", ylim=(0, None))
panels[1].legend(frameon=False)
figure.suptitle("Who fills the gaps best? Mean of three draws; the band is their range")
gp.show(figure, alt="Error over the hidden share, for the mean, an interpolation and the model.")

# %%
print("You guessed:", my_guess)
print(f"chips: {', '.join(f'{name} {len(part)}' for name, part in tests.items())}")
curve = draws.mean().drop(columns="draw")
curve.to_csv(out / "reconstruction.csv")
curve.round(3)

# %% [markdown]
# `ratio` is model / interpolation: below 1 the model is better. Differences of some 5 % may turn round with another seed.
#
# - **Few hidden.** An interpolation copies neighbours exactly; the model pushes everything through tokens.
# - **Half and three quarters.** Where the model is ahead here, it knows more than "nearby is alike".
# - **Nearly everything.** The gap to the mean is no measure of learning: an interpolation, which learnt nothing, closes part of it.
#
# Now land against water, at three quarters hidden:

# %%
records = []
for name, dataset in tests.items():
    hidden, squares = fill_all(dataset, 0.75)
    label = torch.stack([sample["mask"] for sample in dataset])[:, None]
    for index, title in enumerate(chips.classes):
        where = hidden & (label == index)
        scores = {method: float(part[where].mean().sqrt()) for method, part in squares.items()}
        records.append({"region": name, "class": title, **scores})
pd.DataFrame(records).set_index(["region", "class"]).round(3)

# %% [markdown]
# A class with a small error in *every* column is smooth, and easy. What the model adds is the difference between the columns.
#
# ## 4 · Embeddings: where does the model put a place?
# The mean of a few tokens is an *embedding*: numbers that stand for a place, here a square of 2 × 2 patches. (The mean over all chips at its position is taken off, or else places in the same corner look alike.) Two yardsticks: the same network with *random* weights, and the *band means* of the place, with no network at all.

# %%
everything = [sample for dataset in sets.values() for sample in dataset]
images = torch.stack([sample["image"] for sample in everything])
labels = torch.stack([sample["mask"] for sample in everything])[:, None]


def token_maps(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the tokens (B, D, rows, columns) of the last block, without what position adds."""
    with torch.no_grad():
        maps = [network(network.normalise(part))[-1] for part in images.split(batch_size)]
    return torch.cat(maps) - torch.cat(maps).mean(dim=0)


def places(maps: torch.Tensor) -> np.ndarray:
    """Average maps (B, D, rows, columns) over 2 x 2 cells, and list the places: (places, D)."""
    return functional.avg_pool2d(maps, 2).flatten(2).transpose(1, 2).flatten(0, 1).numpy()


# %%
networks = {"pretrained": backbone}
if compare:
    networks[compare] = gp.load_backbone(compare, bands=chips.bands, gsd=chips.card.resolution)
else:
    print('Left out: a second model. Set compare = "galileo_nano" in the parameters for it.')
untrained = gp.load_backbone(model, weights=None, bands=chips.bands, seed=seed)
networks["random initialisation"] = untrained
every = {name: places(token_maps(part.eval(), images)) for name, part in networks.items()}
every["band means"] = places(functional.avg_pool2d(images, patch))

# %% [markdown]
# Draw equally many places of each region and class; pure chance is then right half of the time. Which place is *nearest*, not counting those on the same ground? Is it of the same region? Of the same class? And the nearest in the **other** region?
#
# **Guess before you look.** In which embeddings will places gather by class, in which by region?

# %%
my_guess = {"gathers by class": "?", "gathers by region": "?", "pretrained beats band means": "?"}

# %%
# Preparation; you may skip this cell.
masks = ((labels >= 0).float(), (labels == 1).float())
known, wet = (places(functional.avg_pool2d(mask, patch))[:, 0] for mask in masks)
table = pd.DataFrame({"known": known, "water": wet / known.clip(1e-6)})
repeat = len(table) // len(everything)
table["region"] = np.repeat([sample["region"] for sample in everything], repeat)
table["ground"] = np.repeat([sample["place"] for sample in everything], repeat)
table["class"] = np.where(table["water"] > 0.5, "water", "land")
groups = table[table["known"] > 0.5].groupby(["region", "class"], sort=False)
count = min(60, groups.size().min())
drawn = groups.sample(count, random_state=seed)
embeddings = {name: values[drawn.index] for name, values in every.items()}
region, ground, kind = (drawn[name].to_numpy() for name in ("region", "ground", "class"))
print(f"{len(drawn)} places ({count} of each region and class)")
on_ground = drawn.groupby("region")["ground"].nunique()
print(f"on {on_ground.sum()} squares of ground: {on_ground.to_dict()}")


# %%
def same(values: np.ndarray, allowed: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return for each place whether its nearest allowed neighbour is of the same kind."""
    scaled = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)
    points = torch.from_numpy(scaled)
    distance = torch.cdist(points, points).masked_fill(torch.from_numpy(~allowed), torch.inf)
    return asked[distance.argmin(dim=1).numpy()] == asked


elsewhere = ground[:, None] != ground  # neighbours on the ground look alike anyway
across = region[:, None] != region
questions = {
    "nearest is of the same region": (elsewhere, region),
    "nearest is of the same class": (elsewhere, kind),
    "nearest in the other region is of the same class": (across, kind),
}

# %%
neighbours = pd.DataFrame(index=list(embeddings))
for question, (allowed, asked) in questions.items():
    neighbours[question] = [same(part, allowed, asked).mean() for part in embeddings.values()]
neighbours.to_csv(out / "neighbours.csv")
print("You guessed:", my_guess)
third = neighbours.iloc[:, 2]
print(f"across regions {third.idxmax()} wins;", end=" ")
print(f"pretrained is {third['pretrained'] - third.max():+.2f} from it")
neighbours.round(2)

# %% [markdown]
# - **Same region** is the domain gap. Where band means score as high, it is in the light itself (season, sun, haze).
# - **Same class** is easy: open water is dark in the infrared.
# - **Across regions** is the honest one. Where random weights or band means win, pretraining did not help here. Lesson 03, section 5, asks where the bands do not nearly give the answer.
#
# ### Exercise 6 · open challenge
# Two bands can say more than one. Choose a pair whose normalised difference, (first − second) / (first + second), separates water from land by **at least 5** spreads in *both* regions, water above. `pixels` has the pixels of each region and class.

# %%
two_bands = None  # ("BLUE", "GREEN"), for example
# solution
two_bands = ("RED", "SWIR_1")

# %%
gp.check("02/two_bands", two_bands, pixels=pixels, bands=chips.bands)

# %% [markdown]
# What it showed: a good pair of bands is a strong yardstick. Distances count every direction of an embedding alike; fine-tuning can choose directions.
#
# ### Inside a chip
# *Principal components* are the directions along which tokens differ most. Give the first three to red, green and blue.

# %%
wide = gp.load_data(data, size=128)  # larger chips, for more tokens
wide_samples = [*wide.train, *wide.val, *wide.test, *wide.holdout[away]][::step]
maps = token_maps(backbone, torch.stack([sample["image"] for sample in wide_samples]))
tokens = maps.movedim(1, -1)
torch.manual_seed(seed)  # pca_lowrank draws random numbers
_, _, directions = torch.pca_lowrank(tokens.flatten(0, 2), q=6)
values = tokens @ directions[:, :3]  # token_maps took the mean off
low, high = (values.flatten(0, 2).quantile(q, dim=0) for q in (0.02, 0.98))
coloured = ((values - low) / (high - low)).clip(0, 1).numpy()
shown = []
for name in sets:
    there = [i for i, sample in enumerate(wide_samples) if sample["region"] == name]
    shown += sorted(there, key=lambda i: unevenness(wide_samples[i]))[:2]

# %% tags=["hide-input"]
watery = LinearSegmentedColormap.from_list("water", chips.colours)
titles = [f"true colour, {wide.size * wide.card.resolution / 1000:.1f} km wide"]
titles += ["label: water, land", "three components"]
figure, panels = plt.subplots(3, 4, figsize=(10, 7.6), layout="constrained")
for column, index in zip(panels.T, shown, strict=True):
    sample = wide_samples[index]
    column[0].imshow(picture(sample))
    water = np.ma.masked_less(sample["mask"].numpy(), 0)  # grey: no label
    column[1].imshow(water, cmap=watery, vmin=0, vmax=1)
    column[2].imshow(coloured[index])
    column[0].set(title=sample["region"])
for axes, words in itertools.zip_longest(panels.flat, np.repeat(titles, 4)):
    axes.set(
        xticks=[], yticks=[], facecolor="#BBBBBB", ylabel=words if axes in panels[:, 0] else ""
    )
figure.suptitle("Three components of the tokens, of many")
figure.savefig(out / "embedding_map.png", dpi=110)
gp.show(figure, alt="Four chips: image, label, and their tokens coloured by three components.")

# %% [markdown]
# Does water at home have the colour of water away? And which shores and fields do you find again, though nobody showed the model a single label?
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("02")

# %% [markdown]
# ## What we have seen
# In this lesson we have scaled images as in pretraining, cut them into tokens, compared rebuilt patches with naive fillings, and embeddings of places with a random network and plain band means.
#
# ## What to try next
# - `seed = 1` in the parameters: which of your conclusions survive?
# - `compare = "galileo_nano"`, the teacher of `geopeft_tiny`: where do the two agree?
# - Take an earlier block: where `backbone` is loaded, add `layers=[1]`. Are the regions further apart?
#
# ## How this differs at full scale
# Prithvi-EO 2.0 saw 4.2 million image series of the world, with up to 600 million weights; `geopeft_tiny` saw a few hundred images, these among them. Take away how to look, and what to compare with.
#
# ## References
# - He et al., *Masked Autoencoders Are Scalable Vision Learners*, [arXiv 2111.06377](https://arxiv.org/abs/2111.06377)
# - Szwarcman et al., *Prithvi-EO-2.0*, [arXiv 2412.02732](https://arxiv.org/abs/2412.02732); Cong et al., *SatMAE*, [arXiv 2207.08051](https://arxiv.org/abs/2207.08051); Tseng et al., *Galileo*, [arXiv 2502.09356](https://arxiv.org/abs/2502.09356); Wang et al., *DeCUR*, [arXiv 2309.05300](https://arxiv.org/abs/2309.05300); [Clay](https://clay-foundation.github.io/model)
# - Central wavelengths: ESA, *Sentinel-2 Spectral Response Functions*, satellite A
