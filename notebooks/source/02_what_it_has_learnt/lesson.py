# %% [markdown]
# # 02 · What a geospatial foundation model has learnt
# **Look inside before you fine-tune: which light the model takes in, how it cuts an image up, what it can fill in where you hide things, and where it puts the places of the Earth.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Tell* which bands a model expects, and *scale* an image as it was scaled in pretraining.
# - *Count* the tokens that an image becomes, and *read* a position code.
# - *Judge* a masked reconstruction against naive ways to fill a gap.
# - *Look* at embeddings of places, and *measure* whether they gather by class or by region.
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
# Where everything is installed, the next cell does nothing. On Colab and Kaggle it installs what is missing, and leaves torch and numpy as they are.

# %% tags=["setup"]
import importlib.util

from IPython import get_ipython

source = "geopeft-nb @ git+{{repository}}"
if importlib.util.find_spec("geopeft_nb") is None:
    get_ipython().run_line_magic("pip", f"install -q '{source}'")

# %% [markdown]
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same lesson on fewer chips.

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
from geopeft_nb.backbones.vit import sincos_grid
from geopeft_nb.bands import WAVELENGTHS
from geopeft_nb.files import data_folder
from geopeft_nb.pictures.sliders import sliders

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
pd.set_option("display.max_colwidth", None)  # show long lists of bands whole
step = 3 if FAST else 1  # every third chip is enough to see that all runs
sizes = {name: gp.load_backbone(name).patch_size for name in (model, compare) if name}
assert len({*sizes.values()}) == 1, f"compare models whose patches have one size, not {sizes}"


# %% [markdown]
# ## 1 · Bands: what the sensor lets through
# A satellite does not take photographs. It measures, pixel by pixel, how much sunlight the ground sends back in a few narrow windows of wavelength, its *bands*. *Reflectance* is the share that comes back, 0 to 1. A model is made for certain bands, and `gp.list_backbones()` lists for each model which ones. *Width* is how many numbers a token has, *depth* how many blocks (layers) the network stacks.

# %%
gp.list_backbones()[["bands", "patch (px)", "width", "depth", "parameters"]]

# %% [markdown]
# Here are the bands of one model per family. The axis is logarithmic, because the short-wave infrared lies far from the visible light. Grey is where water vapour swallows nearly all light; a band in there sees thin high clouds and not the ground.

# %%
families = {
    "Prithvi-EO, geopeft tiny": "geopeft_tiny",
    "Clay v1 (any; here Sentinel-2)": "clay_v1_base",
    "SatMAE": "satmae_base",
    "Galileo": "galileo_nano",
    "DeCUR": "decur_resnet50",
}
wavelengths = gp.list_backbones(full=True)["wavelengths (µm)"]


# %%
ticks = [0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.4, 1.6, 2.2]


def spectral_axis(axes: plt.Axes) -> None:
    """Give an axis wavelengths, and mark the light that we see and what vapour swallows."""
    axes.set(xscale="log", xlim=(0.4, 2.5), xlabel="wavelength (µm)")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    for low, high in ((1.35, 1.45), (1.80, 1.95)):
        axes.axvspan(low, high, color="#DDDDDD", zorder=0)


# %%
figure, axes = plt.subplots(figsize=(9, 2.9), layout="constrained")
spectral_axis(axes)
light = {"blue": ("#0072B2", 0.44, 0.50), "green": ("#009E73", 0.50, 0.58)}
light["red"] = ("#D55E00", 0.62, 0.70)
light |= {"near infrared": ("#CC79A7", 0.78, 1.0), "short-wave infrared": ("#E69F00", 1.5, 2.4)}
for name, (colour, low, high) in light.items():
    axes.axvspan(low, high, color=colour, alpha=0.18, zorder=0)
    axes.text((low + high) / 2, -0.85, name, ha="center", fontsize=8, color="#333333")
for row, name in enumerate(families.values()):
    axes.plot(wavelengths[name], [row] * len(wavelengths[name]), "|", color="#222222", ms=19, mew=3)
names = [f"{title}: {len(wavelengths[name])}" for title, name in families.items()]
axes.set_yticks(range(len(names)), names)
axes.set(
    ylim=(len(names) - 0.4, -1.1),
    title="Central wavelengths of the bands that models take, and how many",
)
words = "; ".join(names)
gp.show(figure, alt=f"Bands of five model families along the wavelength, number of bands: {words}.")

# %% [markdown]
# All of them share blue, green, red, a near infrared and two short-wave infrared bands: the six that the data of this toolkit have. Here are the data, and the six.

# %% tags=["nbval-check-output"]
chips = gp.load_data(data)
away = next(iter(chips.holdout))
print(chips)
print(", ".join(f"{band} {WAVELENGTHS[band]:.3f} µm" for band in chips.bands))

# %% [markdown]
# **Guess before you look.** Which of the six bands tells water from land best? And will that band be the same in both regions? Write it down; nobody checks.

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

# %%
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

# %% [markdown]
# A number for it, band by band: (mean of water − mean of land) / typical spread within a class, the spread being the *standard deviation* (std). 0: no difference; 3: hardly any overlap.

# %%
separation = pd.DataFrame(index=list(chips.bands))
for region, classes in pixels.items():
    land, water = classes.values()
    spread = np.sqrt((land.var(axis=0) + water.var(axis=0)) / 2)
    separation[region] = (water.mean(axis=0) - land.mean(axis=0)) / spread
print("You guessed:", my_guess)
separation.round(2)

# %% [markdown]
# The sign says whether water is darker (−) or brighter (+). Water swallows infrared light, the more the longer the wave; where it is muddy, shallow or frozen, it looks different. The longest wave need not separate best: land gets darker there too, see the figure. Remember that these labels were made from green, near infrared and the first short-wave band (`data/scenes/README.md`). Their lead is partly how the labels were made. A band whose sign or size changes between the regions makes a rule learnt at home fail away. That is a *domain gap*, in the raw pixels, before any model.
#
# ### What normalisation does
# Bands differ in brightness and spread. So that no band outshouts the others, each is scaled by mean and standard deviation of the **pretraining** imagery, which stand in the model's card. Not by those of your own chips: the weights have learnt what a value of 2 means, namely two standard deviations brighter than usual. Leave it out and no error tells you.

# %%
backbone = gp.load_backbone(model, bands=chips.bands).eval()
card = backbone.card
pd.DataFrame({"mean": card.mean, "std": card.std}, index=list(card.bands))

# %%
sample = torch.cat([torch.stack([s["image"] for s in d[::4]]) for d in sets.values()])
figure, panels = plt.subplots(1, 2, figsize=(10, 3.1), layout="constrained")
for axes, image, unit in zip(
    panels,
    (sample, backbone.normalise(sample)),
    ("reflectance (0-1)", "pretraining std from the mean"),
    strict=True,
):
    values = image.movedim(1, 0).flatten(1)[:, ::11].numpy()
    axes.boxplot(list(values), whis=(2, 98), showfliers=False, medianprops={"color": "#D55E00"})
    axes.set_xticks(range(1, len(chips.bands) + 1), chips.bands, rotation=30, fontsize=8)
    axes.set(ylabel=unit)
panels[1].axhline(0, color="#7F7F7F", lw=0.8, ls=":")
figure.suptitle("The same pixels before and after scaling (boxes: quartiles; whiskers: 2 to 98 %)")
gp.show(figure, alt="Box plots per band: different in reflectance, around zero once normalised.")

# %% [markdown]
# Boxes that do not sit at zero say how these two scenes differ from the average image of pretraining. One reason is what they show: half of Virginia is water, dark in the infrared. Another is the air: both scenes are measured at the top of the atmosphere, with the haze left in, which brightens blue most; part of the pretraining imagery had it taken out.
#
# ### Exercise 1 · write
# `normalise(image, mean, std)`: scale a chip (bands, rows, columns) so that it can go into the network. `mean` and `std` are tensors of one number for each band.

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
# A transformer takes a list of *tokens*, not an image. So the image is cut into square patches, and one linear layer turns all pixel values of a patch, in all bands, into one token.


# %%
# Preparation; you may skip this cell.
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


# %%
shore = sorted(chips.test, key=unevenness)[:2] + sorted(chips.holdout[away], key=unevenness)[:2]
patch = backbone.patch_size
grid_rows, grid_columns = backbone.grid(chips.size, chips.size)
whole = picture(shore[0])
apart = np.ones((grid_rows * (patch + 2), grid_columns * (patch + 2), 3))
for row, column in np.ndindex(grid_rows, grid_columns):
    top, left = row * (patch + 2), column * (patch + 2)
    tile = whole[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
    apart[top : top + tile.shape[0], left : left + tile.shape[1]] = tile

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
left.imshow(whole)
left.set(title=f"{chips.size} x {chips.size} pixels", xticks=[], yticks=[])
for line in range(0, chips.size + 1, patch):
    left.axhline(line - 0.5, color="white", lw=0.6)
    left.axvline(line - 0.5, color="white", lw=0.6)
right.imshow(apart)
cuts = f"{grid_rows} x {grid_columns}"
right.set(title=f"{cuts} patches of {patch} x {patch} pixels", xticks=[], yticks=[])
right.axis("off")
gp.show(figure, alt=f"A chip with a grid, and cut apart into {cuts} patches.")

# %% tags=["nbval-check-output"]
numbers = patch * patch * len(chips.bands)
metres = patch * chips.card.resolution
tokens = grid_rows * grid_columns
print(f"{cuts} = {tokens} tokens for a chip of {chips.size} x {chips.size} px")
print(f"a patch: {patch} x {patch} px x {len(chips.bands)} bands = {numbers} numbers,")
print(f"a square of {metres:.0f} m on the ground; its token has {card.width} numbers")

# %% [markdown]
# Everything inside a patch has to fit into its token, which is why small patches draw finer maps. But in attention each token looks at every other.
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
# Write a function that counts the tokens of an image series: `count_tokens(height, width, frames, patch_size)`. Images that patches do not fill are padded until they do. The class token, which some models put in front, does not count.

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
# ### Where was this patch?
# Attention treats tokens as a *set*: shuffle them, and it computes the same, shuffled. So that the network can tell what lies beside what, a *position code* is added to each token. Prithvi-EO and `geopeft_tiny` use fixed codes of sines and cosines with slow and fast waves, one part for the column, one for the row, one for the time step. Three patches (white dots), and how similar their codes are to all others, as *cosine similarity*: 1 is the same direction, 0 unrelated.

# %%
codes = sincos_grid(card.width, 1, grid_rows, grid_columns)[0]  # (rows, columns, width)
unit = functional.normalize(codes, dim=-1)
lowest = float((unit.flatten(0, 1) @ unit.flatten(0, 1).T).min())
picked = [(0, 0), (grid_rows // 2, grid_columns // 2), (grid_rows - 1, grid_columns // 3)]
figure, panels = plt.subplots(1, 3, figsize=(9, 3.1), layout="constrained")
for axes, (row, column) in zip(panels, picked, strict=True):
    drawn = axes.imshow(unit @ unit[row, column], cmap="cividis", vmin=lowest, vmax=1)
    axes.plot(column, row, "o", mfc="white", mec="black", ms=8)
    axes.set(title=f"row {row}, column {column}", xlabel="column of patches")
panels[0].set(ylabel="row of patches")
figure.colorbar(drawn, ax=panels, label="cosine similarity", shrink=0.8)
gp.show(figure, alt="Similarity of a position code with all others: high nearby, lower far away.")

# %% tags=["nbval-check-output"]
others = {"next to it": (0, 1), "in the far corner": (grid_rows - 1, grid_columns - 1)}
for words, place in others.items():
    print(f"the code of the first patch and the one {words}: {unit[0, 0] @ unit[place]:.3f}")

# %% [markdown]
# Codes of near patches are alike. Along its own row and column a patch keeps more likeness than across them, because row and column each have a part of the code: patches of one row share that part. Even the far corner stays alike: a quarter of the code stands for the time step, equal in all patches of one image, and the slow waves hardly change. All this is fixed before training; the model had to learn to use it.
#
# ## 3 · Masked reconstruction: hide, and fill in
# How do you learn from images that nobody labelled? Hide most of them, and ask the network to fill in what is missing. To do that well it has to find out what usually lies beside what. A *masked autoencoder* works in two parts. The *encoder*, our backbone, sees the visible patches only. A small *decoder* gets their tokens, and for each hidden patch a placeholder with its position code, and rebuilds the pixels. Fine-tuning throws the decoder away; today we keep it.

# %%
sys.path.append(str(data_folder() / "models"))  # its code stands where geopeft_tiny was made
from masked_autoencoder import load_autoencoder

autoencoder = load_autoencoder(model).eval()
parts = {"encoder": autoencoder.encoder, "decoder": autoencoder.decoder}
for name, part in parts.items():
    print(f"{name}: {sum(p.numel() for p in part.parameters()):,} weights")

# %% [markdown]
# **Guess before you look.** Up to which hidden share can you still recognise the place in what is rebuilt? Which is rebuilt better, land or water? And from which hidden share on is the model better than a plain interpolation between the visible patches, if ever?

# %%
my_guess = {"still recognisable at": "?", "rebuilt better": "?", "beats interpolation from": "?"}

# %% [markdown]
# **What the model has seen.** `geopeft_tiny` saw the pixels of both scenes in pretraining, without labels: first as a masked autoencoder with 75 % hidden, in a last stage also with 50 % or nothing hidden. In that stage the visible tokens also learnt to predict the features of Galileo nano, a foundation model trained on Sentinel-2 from all over the world (*knowledge distillation*; `data/models/README.md`). So nothing below is a test on new imagery.
#
# Move the sliders: a larger share, another chip, another draw of patches (one draw hides ever more patches as the share grows). The error has the same colours at every share. Without a running kernel you see the last position of the sliders.


# %% tags=["hide-input"]
def rebuild(chip: int, share: float, draw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rebuild a chip; return what was hidden, the error (rows, columns) and the new picture."""
    image = backbone.normalise(shore[chip]["image"][None])[:, :, None]
    rebuilt, mask = autoencoder.reconstruct(image, share, torch.Generator().manual_seed(draw))
    wrong = (rebuilt - image)[0, :, 0].square().mean(dim=0).sqrt()
    offset, divisor = (value[:, None, None] for value in backbone.scaling())
    after = picture({**shore[chip], "image": rebuilt[0, :, 0] * divisor + offset})
    return (mask[0, 0] > 0).numpy(), wrong.numpy(), after


# %% tags=["hide-input"]
def draw_rebuilt(hidden: float, chip: int, draw: int) -> tuple[plt.Figure, str]:
    """Draw a chip, what the model sees of it, what it rebuilds, and how wrong that is."""
    gone, wrong, after = rebuild(chip, hidden, draw)
    before, share = picture(shore[chip]), f"{gone.mean():.0%}"
    error = np.sqrt((wrong[gone] ** 2).mean())
    shown = {"image": before, f"visible ({share} hidden)": np.where(gone[..., None], 0.55, before)}
    shown |= {"rebuilt": after, "error": np.ma.array(wrong, mask=~gone)}
    figure, panels = plt.subplots(1, 4, figsize=(11, 3.3), layout="constrained")
    for axes, (title, what) in zip(panels, shown.items(), strict=True):
        drawn = axes.imshow(what, cmap="cividis", vmin=0, vmax=0.7)  # the same at every share
        axes.set(title=title, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=panels[3], label="pretraining std", extend="max")
    words = f"{shore[chip]['name']}: root mean square error on hidden pixels {error:.2f}"
    figure.suptitle(words)
    return figure, f"A chip, what the model sees, what it rebuilds; {share} hidden. {words}."


# %%
names = {f"{sample['region']}, {sample['name']}": i for i, sample in enumerate(shore)}
share = FloatSlider(0.75, min=0.05, max=0.95, step=0.05)
sliders(draw_rebuilt, hidden=share, chip=names, draw=IntSlider(seed, min=0, max=20))

# %% [markdown]
# Look for three things. Where do large shapes survive, and fine ones (creeks, field edges) not? Which colours are right although no visible patch has that exact colour? And where do you see *seams*, edges that run along the patches? An average of all that could be there is the safe answer: blur is how the model says that it does not know.
#
# What it showed: look for blur and seams before you look at numbers.
#
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
# Anybody can guess that a gap in the sea holds sea. So set two naive fillings beside the model. One fills every hidden pixel with the *mean* of what is visible in the chip. The other *interpolates*: it starts from that mean and lets each hidden pixel become the average of its four neighbours, again and again, so that colours run in smoothly from the edges of the visible patches. (The code overshoots a little in each round, which settles the same picture sooner.)


# %%
def fill_with_mean(image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Fill the hidden pixels (B, 1, H, W) of an image (B, C, H, W) by the mean of the others."""
    visible = (~hidden).float()
    mean = (image * visible).sum((2, 3), keepdim=True) / visible.sum((2, 3), keepdim=True)
    return torch.where(hidden, mean, image)


def interpolate(image: torch.Tensor, hidden: torch.Tensor, rounds: int = 200) -> torch.Tensor:
    """Fill the hidden pixels so that each is the average of its neighbours."""
    before = filled = fill_with_mean(image, hidden)
    for _ in range(rounds):
        wide = functional.pad(filled, (1, 1, 1, 1), mode="replicate")
        across = wide[:, :, 1:-1, :-2] + wide[:, :, 1:-1, 2:]
        down = wide[:, :, :-2, 1:-1] + wide[:, :, 2:, 1:-1]
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


# %% [markdown]
# Each share is hidden three times, by three draws of patches.

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

# %%
styles = {"mean of the visible": ("#7F7F7F", "^:"), "interpolation": ("#E69F00", "s--")}
styles |= {model: ("#0072B2", "o-"), "ratio": ("#0072B2", "o-")}


def band(axes: plt.Axes, name: str, method: str) -> None:
    """Draw the mean of a region's three draws over the share in percent, and their range."""
    colour, style = styles[method]
    values = draws[method].agg(["mean", "min", "max"]).loc[name]
    percent = 100 * values.index
    axes.fill_between(percent, values["min"], values["max"], color=colour, alpha=0.25, lw=0)
    axes.plot(percent, values["mean"], style, c=colour, label=method)


# %%
figure, panels = plt.subplots(2, 2, figsize=(9, 5), sharex=True, sharey="row", layout="constrained")
for (above, below), name in zip(panels.T, tests, strict=True):
    for method in styles:
        band(below if method == "ratio" else above, name, method)
    below.axhline(1, color="#E69F00", ls="--")
    above.set(title=name, ylim=(0, None))
    below.set(xlabel="hidden share of the patches (%)")
panels[0, 0].set(ylabel="error on hidden pixels\n(pretraining std)")
panels[1, 0].set(ylabel="model / interpolation\n(below 1: model better)")
handles, names = panels[0, 0].get_legend_handles_labels()
figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
figure.suptitle("Who fills the gaps best? Mean of three draws; the band is their range")
gp.show(figure, alt="Error over the hidden share, for the mean, an interpolation and the model.")

# %%
print("You guessed:", my_guess)
print(f"chips: {', '.join(f'{name} {len(part)}' for name, part in tests.items())}")
curve = draws.mean().drop(columns="draw")
curve.to_csv(out / "reconstruction.csv")
curve.round(3)

# %% [markdown]
# The comparison may be less flattering than the pictures. With three draws on a few dozen chips, differences of under about 5 % may turn round with another seed. Where the error speaks for the model and the share of chips does not, a few hard chips decide.
#
# - **Few patches hidden.** An interpolation has a neighbour on nearly every side and copies its pixels exactly. The model has to push everything through tokens. Losing here is no failure of pretraining: only hiding *much* makes the task hard enough to learn from.
# - **Half and three quarters hidden.** These are shares of pretraining. If the model is ahead of the interpolation here, by that much it knows more than "nearby is alike", about scenes that it has seen.
# - **Nearly everything hidden.** Now all of them depend on a few patches. The gap to the mean is no measure of learning: an interpolation, which has learnt nothing, closes most of it. Compare with that.
#
# A good rebuilder need not be a good backbone: pixels that are hard to guess (waves, noise) cost error and teach nothing. Now land against water, at three quarters hidden:

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
# A class with a small error in *every* column is smooth, and so it is easy. What the model adds is the difference between its column and the others. Is the easier class the same in both regions? Water of the open sea, a muddy estuary and a frozen lake are one class to the label, and three things to the sensor.
#
# ## 4 · Embeddings: where does the model put a place?
# For fine-tuning, the decoder goes and the tokens stay. A token, or the mean of a few, is an *embedding*: a list of numbers that stands for a place. Here a place is a square of 2 × 2 patches. Its embedding is the mean of their tokens after the last block.
#
# A token also carries its position code. So the mean over all chips at the same position is taken off; otherwise the nearest place would often just be the one in the same corner.

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


# %% [markdown]
# Beside the pretrained network stand two yardsticks: the same network with *random* weights, which has learnt nothing, and the *band means* of the place, six numbers and no network at all.

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
# Nearly all places of one region are land. So draw equally many of each region and class; pure chance is then right half of the time, in every question below.

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

# %% [markdown]
# **Guess before you look.** In which of the embeddings will places gather by class, in which by region, in which by both?

# %%
my_guess = {"gathers by class": "?", "gathers by region": "?", "pretrained beats band means": "?"}

# %% [markdown]
# An embedding has many dimensions and the page has two. *Principal components* are the two directions along which the places differ most. The same dots, coloured twice:


# %%
def standardised(values: np.ndarray) -> np.ndarray:
    """Give every feature mean 0 and standard deviation 1 over the places."""
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)


def plane(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first two principal components, and the share of variance of each."""
    left, size, _ = np.linalg.svd(standardised(values), full_matrices=False)
    return left[:, :2] * size[:2], size[:2] ** 2 / (size**2).sum()


# %%
looks = dict(zip(sets, (("#E69F00", "o"), ("#CC79A7", "^")), strict=True))
watery = LinearSegmentedColormap.from_list("water", chips.colours)
dot_style = {"edgecolor": "#555555", "linewidth": 0.5, "s": 30}
share_of_water = drawn["water"].to_numpy()


def scatter(top: plt.Axes, bottom: plt.Axes, values: np.ndarray) -> object:
    """Draw the places twice, by region and by class; return the dots for a colour bar."""
    dots, explained = plane(values)
    for name, (colour, marker) in looks.items():
        x, y = dots[region == name].T
        top.scatter(x, y, c=colour, marker=marker, label=name, **dot_style)
        shades = {"c": share_of_water[region == name], "cmap": watery, "vmin": 0, "vmax": 1}
        shaded = bottom.scatter(x, y, marker=marker, **shades, **dot_style)
    bottom.set_xlabel(f"component 1 ({explained[0]:.0%} of the variance)")
    bottom.set_ylabel(f"component 2 ({explained[1]:.0%})")
    return shaded


# %%
size = (3.4 * len(embeddings), 6.5)
figure, panels = plt.subplots(2, len(embeddings), figsize=size, layout="constrained")
for column, (name, values) in zip(panels.T, embeddings.items(), strict=True):
    shaded = scatter(column[0], column[1], values)
    column[0].set_title(name)
for axes in panels.flat:
    axes.set(xticks=[], yticks=[], facecolor="#E4E4E4")
figure.legend(
    *panels[0, 0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=2,
    title="in both rows",
)
figure.colorbar(shaded, ax=panels[1], label="share of water (0-1)")
figure.suptitle("The same places, coloured by region (above) and by class (below)")
gp.show(figure, alt="Scatter plots of embeddings: by region above, by share of water below.")

# %% [markdown]
# Two of many directions can deceive. So ask in the full space: which place is *nearest* to this one, not counting neighbours on the ground? Is it in the same region? Of the same class? And if it has to come from the **other** region, is it then still of the same class?


# %%
def same(values: np.ndarray, allowed: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return for each place whether its nearest allowed neighbour is of the same kind."""
    points = torch.from_numpy(standardised(values))
    distance = torch.cdist(points, points).masked_fill(torch.from_numpy(~allowed), torch.inf)
    return asked[distance.argmin(dim=1).numpy()] == asked


# %%
elsewhere = ground[:, None] != ground  # neighbours on the ground look alike anyway
across = region[:, None] != region
questions = {
    "nearest is of the same region": (elsewhere, region),
    "nearest is of the same class": (elsewhere, kind),
    "nearest in the other region is of the same class": (across, kind),
}
neighbours = pd.DataFrame(index=list(embeddings))
for question, (allowed, asked) in questions.items():
    neighbours[question] = [same(part, allowed, asked).mean() for part in embeddings.values()]
neighbours["places"] = len(drawn)
neighbours.to_csv(out / "neighbours.csv")
print("You guessed:", my_guess)
neighbours.round(2)

# %% [markdown]
# The third column again, apart for places of each region and class:

# %%
right = drawn[["region", "class"]].copy()
for name, values in embeddings.items():
    right[name] = same(values, across, kind)
right.groupby(["region", "class"], sort=False).mean().round(2)

# %% [markdown]
# Chance is one half in each column of the first table. Many places share a square of ground, so differences of a few points mean nothing. How to read what you see:
#
# - **The first column is the domain gap.** If nearly every nearest neighbour is of the same region, the space is divided by region. Look at the band means in the same column: where they are as high, the gap is in the light itself (season, sun, haze), and the network has passed it on. Nobody told it that a frozen lake and an estuary are both "water". Divided need not mean harmful: see the third column.
# - **The second column is easy.** Open water is dark in the infrared, so six numbers go far, and the labels were made from these very bands.
# - **The third column is the honest one.** Where it is far below the second, a boundary drawn at home lies wrongly away. The next cell says aloud who wins. Where it is random weights or band means, pretraining *hurt* here: the bands nearly give the answer, and a random network changes little about them. See it win where they do not: land cover away from home in lesson 03, section 5, and EuroSAT in `data/models/README.md`.
#
# %%
third = neighbours.iloc[:, 2].sort_values(ascending=False)
for name, share in third.items():
    print(f"{name}: {share:.2f}")
print(f"across regions {third.index[0]} wins;", end=" ")
print(f"pretrained is {third['pretrained'] - third.iloc[0]:+.2f} from it")

# %% [markdown]
# ### Exercise 6 · open challenge
# Two bands can say more than one. Choose a pair whose normalised difference, (first − second) / (first + second), separates water from land by **at least 5** spreads in *both* regions, water above. (The best single band reached less than 4.) `pixels` has the pixels of each region and class.

# %%
two_bands = None  # ("BLUE", "GREEN"), for example
# solution
two_bands = ("RED", "SWIR_1")

# %%
gp.check("02/two_bands", two_bands, pixels=pixels, bands=chips.bands)

# %% [markdown]
# What it showed: a good pair of bands is a strong yardstick. Distances in the *whole* space count every direction alike, also the many that your task does not need. A *probe* (one linear layer on the frozen network) or an adapter can choose directions. That is what fine-tuning is for.
#
# ### Inside a chip
# The same components can colour a map: give the first three of each token to red, green and blue. Equal colours then mean alike in these three of the many numbers of a token, and nothing about the others. Larger chips, for more tokens; all with the same components.

# %%
wide = gp.load_data(data, size=128)
wide_sets = {home: [*wide.train, *wide.val, *wide.test], away: [*wide.holdout[away]]}
wide_sets = {name: dataset[::step] for name, dataset in wide_sets.items()}
wide_samples = [sample for dataset in wide_sets.values() for sample in dataset]
maps = token_maps(backbone, torch.stack([sample["image"] for sample in wide_samples]))
parts = maps.movedim(1, -1).split([len(dataset) for dataset in wide_sets.values()])
tokens_of = dict(zip(wide_sets, parts, strict=True))


# %%
def as_colours(maps: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Turn token maps (B, h, w, D) of each region into colours, by their common components."""
    flat = torch.cat([part.flatten(0, 2) for part in maps.values()])
    centre = flat.mean(dim=0)
    _, _, directions = torch.pca_lowrank(flat, q=6)
    values = (flat - centre) @ directions[:, :3]
    low, high = values.quantile(0.02, dim=0), values.quantile(0.98, dim=0)
    return {
        name: (((part - centre) @ directions[:, :3] - low) / (high - low)).clip(0, 1).numpy()
        for name, part in maps.items()
    }


torch.manual_seed(seed)  # pca_lowrank draws random numbers
coloured = as_colours(tokens_of)
centred = as_colours({name: part - part.mean(dim=(0, 1, 2)) for name, part in tokens_of.items()})

# %%
shown = [
    (name, index)
    for name, dataset in wide_sets.items()
    for index in sorted(range(len(dataset)), key=lambda i: unevenness(dataset[i]))[:2]
]
kilometres = wide.size * wide.card.resolution / 1000
row_titles = [f"true colour, {kilometres:.1f} km wide", "label: water, land"]
row_titles += ["three components", "… less the region's mean"]

# %%
figure, panels = plt.subplots(4, 4, figsize=(10, 10), layout="constrained")
for column, (name, index) in zip(panels.T, shown, strict=True):
    sample = wide_sets[name][index]
    water = np.ma.masked_less(sample["mask"].numpy(), 0)  # grey: no label
    column[0].imshow(picture(sample))
    column[1].imshow(water, cmap=watery, vmin=0, vmax=1)
    column[2].imshow(coloured[name][index])
    column[3].imshow(centred[name][index])
    column[0].set(title=name)
for axes, words in zip(panels[:, 0], row_titles, strict=True):
    axes.set(ylabel=words)
for axes in panels.flat:
    axes.set(xticks=[], yticks=[], facecolor="#BBBBBB")
figure.suptitle("Three components of the tokens, of many")
figure.savefig(out / "embedding_map.png", dpi=110)
gp.show(
    figure,
    alt="Four chips, above the image and the label, below their tokens coloured by components.",
)

# %% [markdown]
# In the third row, see whether water at home and water away have the same colour. In the lowest row each region's mean token was taken off first; see what the two have in common then. Within a chip, look for shapes, for nobody showed the model a single label: which shores and fields do you find again, and which not (in Virginia, compare marsh and creeks)?
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("02")

# %% [markdown]
# ## What we have seen
# In this lesson we have looked at the bands that models take and scaled images as in pretraining; cut images into patches and given them position codes; hidden patches, had them rebuilt, and compared the model with two naive fillings; and looked at embeddings of places, by class and by region, beside a random network and plain band means.
#
# ## What to try next
# The first two are changes in the parameters cell; run everything again after them.
#
# - Set `seed = 1`: which of your conclusions survive other patches and other places?
# - Set `compare = "galileo_nano"`: for `geopeft_tiny` that is its teacher. Where do the two agree, and where has the pupil stayed closer to the pixels?
# - Take an earlier block: above, where `backbone` is loaded, write `layers=[1]` beside `bands=chips.bands`. Does it keep the regions further apart or closer together?
# - Leave the scaling out in `token_maps` (`network(part)`): what happens to the table?
#
# ## How this differs at full scale
# Prithvi-EO 2.0 was pretrained on 4.2 million image series from all over the world, with pixels of 30 m, patches of 14 or 16 pixels and up to 600 million weights; some of its versions also take time and place of the image. `geopeft_tiny` saw a few hundred images, including the ones that you looked at, and owes part of its features to a teacher that saw the world. So do not judge foundation models by its numbers; take away how to look, and what to compare with.
#
# ## References
# - He et al., *Masked Autoencoders Are Scalable Vision Learners*, [arXiv 2111.06377](https://arxiv.org/abs/2111.06377)
# - Jakubik et al., *Foundation Models for Generalist Geospatial Artificial Intelligence* (Prithvi-EO 1.0), [arXiv 2310.18660](https://arxiv.org/abs/2310.18660); Szwarcman et al., *Prithvi-EO-2.0*, [arXiv 2412.02732](https://arxiv.org/abs/2412.02732)
# - Cong et al., *SatMAE*, [arXiv 2207.08051](https://arxiv.org/abs/2207.08051); Tseng et al., *Galileo*, [arXiv 2502.09356](https://arxiv.org/abs/2502.09356); Wang et al., *DeCUR*, [arXiv 2309.05300](https://arxiv.org/abs/2309.05300)
# - Clay: [documentation of the model](https://clay-foundation.github.io/model)
# - Central wavelengths: ESA, *Sentinel-2 Spectral Response Functions*, satellite A
