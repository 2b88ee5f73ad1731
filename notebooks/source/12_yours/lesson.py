# %% [markdown]
# # 12 · Yours
# **Bring your own files: answer what nobody should guess, train, map a whole scene that nobody labelled, see where not to believe the map, and keep what you have made.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Read* what a loader found in your files, and *state* what they do not say.
# - *Turn* stored numbers into reflectance, file by file.
# - *Map* a scene of any size with a model that you trained.
# - *Judge* where a map is worth nothing, without labels.
# - *Save* the model, and *use* it in another process or another program.
#
# ## Time to learn
# About 50 min, of which the computer needs about 1 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, fit and evaluate | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Why a model fails away from home | helpful | [10 · Somewhere it has never been](10_somewhere_new.ipynb) |
# | GeoTIFF: bands, pixels, no-data | helpful | [Rasterio's quickstart](https://rasterio.readthedocs.io/en/stable/quickstart.html) |

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
# Everything that you may want to change stands in the next cell. Go through the lesson once with the folder that it makes; then set `data` to a folder of your own, and run it again. `FAST = True` trains fewer epochs, to see whether all works.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships
data = None  # a folder of yours; None makes one from the scenes that ship
method = "lora"
epochs = 8
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with fewer epochs
out_dir = None  # folder for the map and the adapter; None takes a temporary one

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from rasterio.transform import from_origin

import geopeft_nb as gp

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1 · A folder from somebody else
# Somebody sends you satellite images and hand-drawn masks of water: two deliveries, a folder each, no letter with them. (The next cells make the folder from the scene of Virginia. You need not read them.)


# %% tags=["hide-input"]
def mosaic(chips: list) -> tuple[np.ndarray, np.ndarray, dict]:
    """Lay chips side by side: reflectance (6, H, W), mask (H, W), and where it lies."""
    at = {tuple(int(i) for i in chip["name"].split("-")[1:3]): chip for chip in chips}
    rows, columns = (max(place[i] for place in at) + 1 for i in (0, 1))
    size, corner = chips[0]["mask"].shape[0], at[0, 0]["bounds"]
    image = np.zeros((6, rows * size, columns * size), np.float32)
    mask = np.full(image.shape[1:], 255, np.uint8)
    for (row, column), chip in at.items():
        here = np.s_[row * size : (row + 1) * size, column * size : (column + 1) * size]
        image[(slice(None), *here)] = chip["image"]
        mask[here] = np.where(chip["mask"] < 0, 255, chip["mask"])
    pixel = (corner[2] - corner[0]) / size
    lies = {"crs": chips[0]["crs"], "transform": from_origin(corner[0], corner[3], pixel, pixel)}
    return image, mask, lies


# %% tags=["hide-input"]
def write(path: Path, pixels: np.ndarray, where: dict) -> None:
    """Write a GeoTIFF that says nothing but where it lies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = pixels.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **where) as file:
        file.write(pixels)


# %% tags=["hide-input"]
def deliver(folder: Path, image: np.ndarray, mask: np.ndarray, lies: dict) -> None:
    """Cut plots of 128 x 128 px out of a scene, as if they came in two deliveries."""
    slope = np.add.outer(np.arange(128), np.arange(128))
    for row in range(6):
        for column in range(6):
            top, left, second = row * 160, column * 160, (row + column) % 2
            here = np.s_[top : top + 128, left : left + 128]
            numbers = np.round(image[(slice(None), *here)] * 10_000) + 1_000 * second
            numbers[:, slope < (80 if row % 3 == 0 else 0)] = 0  # the sensor saw nothing there
            place = rasterio.transform.xy(lies["transform"], top, left, offset="ul")
            where = {"crs": lies["crs"], "transform": from_origin(*place, 20, 20)}
            name = f"{folder}/{('first', 'second')[second]}/{{}}/plot_{row}{column}.tif"
            write(Path(name.format("images")), numbers.astype(np.uint16), where)
            write(Path(name.format("masks")), mask[here][None], where)


# %% tags=["nbval-check-output"]
folder = Path(data or out / "from_somebody")
scenes = gp.load_data("scenes")
if data is None:
    home = [sample for part in (scenes.train, scenes.val, scenes.test) for sample in part]
    deliver(folder, *mosaic(home))
files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tif"))
print(f"{len(files)} files:", ", ".join(files[:2]), "...", files[-1])

# %% [markdown]
# **Guess before you look.** The next cell asks the toolkit to load the folder, and says nothing else. What can a program know about these files, and what can it not?

# %%
my_guess = {"it can know": "?", "it cannot know": "?"}

# %%
try:
    chips = gp.load_data("folder", root=folder)
except gp.GeopeftError as error:
    asked, proposed = str(error).split("If that is right, ")
    print(asked)

# %% [markdown]
# It asks. Numbers taken as they stand would be wrong twice here, and training would not show it. The table holds all that you need to find both traps: which pixels have one number in all bands, and do the two deliveries agree? (The last lines of the message, a call to type, are kept for later.)
#
# ### Exercise 1 · predict
# Where the sensor saw nothing, a number was written that the file does not declare. Which number is it?

# %%
fill = None
# solution
fill = 0

# %%
gp.check("12/fill", fill, folder=folder)

# %% [markdown]
# What it showed: such a number looks like ground, the darkest of all, under a mask that calls it land or water.
#
# ### Exercise 2 · mend a broken line
# The bands are blue, green, red, near infrared and two of shortwave infrared, of Sentinel-2. Reflectance is a share, 0 to 1, stored as a whole number. ESA's rule: *reflectance = (number + offset) / 10,000*. Until January 2022 the offset was 0. Files processed since then (*processing baseline 04.00*) hold numbers that are 1,000 higher, so that the offset is −1,000. The line below has the rule's parts in the wrong order. (`numbers` come as floats: the files' uint16 has no −1,000.)


# %%
def in_haste(numbers: np.ndarray, offset: float) -> np.ndarray:
    """Turn stored numbers into reflectance."""
    return numbers / 10_000 + offset  # mend this line


reflectance = in_haste


# solution
def by_rule(numbers: np.ndarray, offset: float) -> np.ndarray:
    """Add the offset to the number first, then divide."""
    return (numbers + offset) / 10_000


reflectance = by_rule

# %%
gp.check("12/reflectance", reflectance)

# %% [markdown]
# What it showed: an offset is in stored numbers, so it is added before anything is divided. For old files the broken line is right, which is why nobody notices.
#
# ### Exercise 3 · predict
# Which delivery has which offset? Compare their darkest ground: only 1 % of the pixels are darker than what the column *1 %* says.

# %%
offset = {"first": ..., "second": ...}
# solution
offset = {"first": 0, "second": -1_000}

# %%
gp.check("12/offset", offset, folder=folder)

# %% [markdown]
# What it showed: the two deliveries differ by a step that no ground makes, and their darkest pixels give it away.
#
# ## 2 · State it, and train
# Here is what the message ended with, a call that the toolkit thinks likely. Is it right?

# %%
print(proposed)

# %% [markdown]
# Now yours. Each chip is read by the rule of its own file. The notes say what was found and what was done.

# %%
BANDS = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
said = {
    "band_names": BANDS,
    "scale": 10_000,
    "offset": {"first": 0, "second": -1_000},
    "nodata": 0,
    "unlabelled": 255,  # in the masks: nobody could tell
    "classes": ["land", "water"],
}
chips = gp.load_data("folder", root=folder, size=64, **said)
print("\n".join(chips.notes))

# %%
shown = {}  # of each delivery, a chip whose mask holds as much as can be: land, water, no label
for sample in sorted(chips.train, key=lambda sample: len(sample["mask"].unique())):
    shown[sample["region"]] = sample
named = [*zip(chips.classes, chips.colours, strict=True), ("no label", "#9A9A9A")]
colours = ListedColormap(chips.colours).with_extremes(under="#9A9A9A")
figure, panels = plt.subplots(1, 2 * len(shown), figsize=(10, 3), layout="constrained")
for (region, sample), pair in zip(shown.items(), panels.reshape(-1, 2), strict=True):
    rgb = sample["image"][[chips.bands.index(name) for name in ("RED", "GREEN", "BLUE")]]
    pair[0].imshow((rgb.movedim(0, -1) / 0.2).clip(0, 1) ** 0.7)
    pair[1].imshow(sample["mask"], cmap=colours, vmin=0, vmax=len(chips.classes) - 1)
    pair[0].set(title=f"{region}: image", xticks=[], yticks=[])
    pair[1].set(title="mask", xticks=[], yticks=[])
for name, colour in named:
    panels[1].plot([], [], "s", color=colour, label=name)
figure.legend(loc="outside lower center", ncols=len(named), frameon=False)
gp.show(figure, alt="A chip of each delivery in true colour, with its mask.")

# %% [markdown]
# Both deliveries are of one scale now, and ground that was not seen carries no label. Train as in lesson 01.

# %%
backbone = gp.load_backbone(model, bands=chips.bands)
network = gp.build_model(backbone, chips, decoder="linear", seed=seed)
network = gp.attach(network, method, seed=seed)
settings = {"epochs": 2 if FAST else epochs, "batch_size": batch_size, "device": device}
run = gp.fit(network, chips, seed=seed, **settings)

# %%
report = gp.evaluate(run, chips)
report

# %% [markdown]
# A few test plots, and all of them at home: read the interval before the score.
#
# ## 3 · A scene that nobody labelled
# A whole scene, from another country: lakes in Brandenburg, in February, in one file with no word on scale or bands. The model maps it window by window, so that a scene may be larger than the memory.


# %%
away = list(scenes.holdout["brandenburg"])
image, truth, lies = mosaic(away)
scene = out / "scene.tif"
write(scene, np.round(image * 10_000).astype(np.uint16), lies)
result = gp.predict_scene(
    run, scene, out / "lakes.tif", band_names=BANDS, scale=10_000, offset=0, nodata=0
)
result

# %% [markdown]
# **Guess before you look.** Training saw fields, marsh and ocean of one coast. Where will this map be wrong?

# %%
my_guess = {"wrong where": "?"}

# %%
gp.map_scene(result)

# %% [markdown]
# Three layers, pixel for pixel those of the scene:
#
# - **class**: what the model decides. It decides always, on anything.
# - **probability**: how sure it is, after *calibration*: one number, the temperature, was chosen on the validation chips so that of all pixels called 0.8 sure, about 80 % are right *there*.
# - **applicability**, or *distance from training*: how far the features of this ground lie from those of all ground it was trained on. At 1 lies the limit, or *threshold*, within which 95 % of the training chips find each other. Beyond it, the model has never seen anything alike, and both other layers are hearsay (after Meyer and Pebesma, 2021).
#
# ### Exercise 4 · write
# A function of a layer of distances (H, W), with 255 where there is no data, and the limit; it returns the share of the ground that lies beyond it.

# %%
outside_share = None  # your function outside_share(distance, limit)
# solution


def beyond(distance: np.ndarray, limit: float) -> float:
    """Return the share of ground that is unlike all that was trained on."""
    return float((distance[distance != 255] > limit).mean())


outside_share = beyond

# %%
my_share = gp.check("12/outside", outside_share)
my_share


# %%
def layer(path: Path) -> tuple[np.ndarray, float]:
    """Read a layer, (H, W) as stored, and what its numbers are to be multiplied by."""
    with rasterio.open(path) as file:
        return file.read(1), file.scales[0]


classes, _ = layer(result.path)
distance, step = layer(result.applicability)
limit = result.threshold / step
if my_share.passed:
    print(f"{float(outside_share(distance, limit)):.1%} of the scene is unlike what was trained on")

# %% [markdown]
# What it showed: a share needs the right whole, here the ground with data.
#
# Usually it ends here: no labels, no score. This scene has labels after all; they were kept aside for the next cell. Is the model more often wrong where the third layer warns?

# %%
known = (truth != 255) & (classes != 255)
wrong = (classes != truth) & known
errors = {}
for name, where in (("inside", distance <= limit), ("outside", distance > limit)):
    here = where & known
    errors[name] = wrong[here].mean() if here.any() else np.nan
    print(
        f"{name:7} {here.sum() / known.sum():6.1%} of the labelled ground, {errors[name]:.2%} wrong"
    )

# %%
figure, panels = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained")
rgb = np.moveaxis(image[[2, 1, 0]], 0, -1)
panels[0].imshow((rgb / 0.3).clip(0, 1) ** 0.7)
panels[1].imshow(np.where(known, wrong, np.nan), cmap="cividis", vmin=0, vmax=1)
panels[2].imshow(distance > limit, cmap="cividis", vmin=0, vmax=1)
titles = "the scene", "wrong (yellow)", "outside (yellow)"
for axes, title in zip(panels, titles, strict=True):
    axes.set(title=title, xticks=[], yticks=[])
words = ", ".join(f"{share:.1%} wrong {name}" for name, share in errors.items())
gp.show(figure, alt=f"The scene, its wrong pixels, and what is unlike training: {words}.")

# %% [markdown]
# (White: clouds, where nobody could tell.) The layer is a warning, no score: it knows features, not labels. It misses errors on ground that looks familiar, and it warns of new ground that the model happens to get right.
#
# ### Exercise 5 · open challenge
# Somebody offers to label three more plots of this scene for you. Which? Write `choose(distance, limit, size, count)`: the upper left corners (row, column) of `count` squares of `size` pixels, inside the layer and apart from each other, that cover much ground beyond the limit. You pass when yours cover at least as much as the best `count` tiles of a plain grid that starts in the upper left corner.

# %%
choose = None


# solution
def best_tiles(distance: np.ndarray, limit: float, size: int, count: int) -> list[tuple[int, int]]:
    """Count what lies beyond in each tile of a grid, and take the fullest."""
    beyond = (distance > limit) & (distance != 255)
    rows, columns = (side // size for side in beyond.shape)
    tiles = beyond[: rows * size, : columns * size].reshape(rows, size, columns, size)
    order = np.argsort(-tiles.sum(axis=(1, 3)).ravel(), kind="stable")[:count]
    return [(int(i) // columns * size, int(i) % columns * size) for i in order]


choose = best_tiles

# %%
my_choice = gp.check("12/choose", choose)
my_choice

# %%
if my_choice.passed:
    beyond = (distance > limit) & (distance != 255)
    corners = [(int(r), int(c)) for r, c in choose(distance, limit, 64, 3)]
    covered = sum(beyond[r : r + 64, c : c + 64].sum() for r, c in corners)
    share, ground = covered / max(1, beyond.sum()), 3 * 64 * 64 / (distance != 255).sum()
    print(f"{ground:.1%} of the ground, and {share:.1%} of what lies beyond: label {corners}")

# %% [markdown]
# What it showed: how much of the unknown a few plots can cover, in the two shares above. A label is worth most where nothing in training speaks for the map.
#
# ## 4 · Keep it
# What `save_adapter` writes is adapter, decoder, and all that says how to use them. `gp.load_model` needs nothing else. To be sure, do it where none of your variables exist, in a process of its own.

# %%
gp.save_adapter(run, out / "water_model")
script = f"""
import geopeft_nb as gp
model = gp.load_model({str(out / "water_model")!r})
said = dict(band_names={BANDS}, scale=10_000, offset=0, nodata=0)
gp.predict_scene(model, {str(scene)!r}, {str(out / "again.tif")!r}, **said)
"""
done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
print(done.stderr[-500:] if done.returncode else "mapped again, in a process of its own")

# %% tags=["nbval-check-output"]
again, _ = layer(out / "again.tif")
print(f"{(again != classes).sum()} pixels of {classes.size:,} differ")

# %%
for file in sorted((out / "water_model").iterdir()):
    print(f"{file.stat().st_size / 1000:8.1f} kB  {file.name}")

# %% [markdown]
# ### Exercise 6 · write
# A colleague maps a scene in numbers of 0 to 10,000 and types `scale=255`. All ground is 39 times too bright. Your model carries mean and standard deviation of its training pixels, per band. Write the test that would have warned: given both means (C,), is one of them more than ten times the other in most bands?

# %%
other_scale = None  # your function other_scale(trained, found): True or False
# solution


def ten_times(trained: np.ndarray, found: np.ndarray) -> bool:
    """Say whether most bands differ by more than ten times, in either direction."""
    times = np.abs(np.log10(np.asarray(found) / np.asarray(trained)))
    return bool(np.median(times) > 1)


other_scale = ten_times

# %%
gp.check("12/other_scale", other_scale)

# %% [markdown]
# What it showed: two means per band are enough to catch the coarsest mistake, in either direction, and one odd band is no alarm. `predict_scene` does this before it predicts, and refuses:

# %%
try:
    gp.predict_scene(run, scene, out / "no.tif", band_names=BANDS, scale=255, offset=0, nodata=0)
except gp.GeopeftError as error:
    print(error)

# %% [markdown]
# ### Go on elsewhere
# [TerraTorch](https://github.com/terrastackai/terratorch) is the toolkit that Prithvi's makers use in production. `gp.merge` folds the adapter into the network, and `gp.export_terratorch` writes a configuration and a checkpoint that TerraTorch reads; `gp.export_onnx` writes a network for programs without PyTorch.

# %%
if method not in ("linear_probe", "full"):
    gp.merge(run.model)
folder_of = gp.export_terratorch(run.model, out / "terratorch")
written = (folder_of / "config.yaml").read_text(encoding="utf-8")
print("\n".join(written.splitlines()[:12]))

# %% [markdown]
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("12")

# %% [markdown]
# ## What we have seen
# In this lesson we have brought files in by stating what they do not say, trained on them, mapped a scene that nobody labelled, and kept what we made. A loader that asks is a nuisance for a minute; one that guesses is a nuisance for a year. And a map comes with a second one, of where not to believe the first.
#
# ## What to try next
# - Set `data` to a folder of yours in the parameters, and answer what it asks. `help(load_folder)`, of `geopeft_nb.datasets.own.load`, says how to name files by a pattern.
# - Leave `nodata=0` out, or give both deliveries the same offset, and see what you are told, and what the score at home says.
# - Map your scene with two methods and swipe between them: `gp.map_scene({"LoRA": one, "probe": other})`.
# - Lay the map over a basemap of your choice: `gp.map_scene(result).leafmap(basemap="Esri.WorldImagery")`.
#
# ## How this differs at full scale
# - **A Sentinel-2 tile** has 10,980 × 10,980 pixels. `predict_scene` reads it window by window, goes on where it was killed, and writes a cloud-optimised GeoTIFF that maps show by its overviews.
# - **Products that say what they are** (`.SAFE` folders, HLS, Landsat Collection 2) are recognised, and their rules are named in the notes.
# - **More labels beat better models.** Thirty-six plots are few; put new ones where the third layer warns.
#
# ## References
# - Meyer and Pebesma 2021, *Predicting into unknown space? Estimating the area of applicability of spatial prediction models*: [doi:10.1111/2041-210X.13650](https://doi.org/10.1111/2041-210X.13650)
# - Guo et al. 2017, *On calibration of modern neural networks*: [arXiv 1706.04599](https://arxiv.org/abs/1706.04599)
# - ESA, [Sentinel-2 processing baseline 04.00](https://sentinels.copernicus.eu/web/sentinel/-/copernicus-sentinel-2-major-products-upgrade-upcoming)
# - Marti-Escofet et al. 2025, *Fine-tune smarter, not harder*: [arXiv 2504.17397](https://arxiv.org/abs/2504.17397)
