# %% [markdown]
# # 09 · Does it know where it is? Time and place, on and off
# **Tell a network where an image was taken, and it may use that to read the ground, or instead of reading it. Build a case of each, and learn to tell them apart by lying to the model.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Write* the code by which a transformer is told day and place.
# - *Switch* it on and off, and *compare* what each network makes of the same chips.
# - *Test* by wrong coordinates whether a network looks at the ground.
# - *Predict* what it will do in places that it has never been told of.
#
# ## Time to learn
# About 50 min, of which the computer needs about 2 min on a CPU with one core. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | Lesson 01: chips, home and away, full fine-tuning | necessary | [01 · The whole idea](01_the_whole_idea.ipynb) |
# | Sine, cosine, and their periods | necessary | – |
# | Position codes of transformers | helpful | [Dive into Deep Learning, 11.6](https://d2l.ai/chapter_attention-mechanisms-and-transformers/self-attention-and-positional-encoding.html) |

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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same lesson with one epoch and fewer chips.

# %% tags=["parameters"]
model = "geopeft_tiny"  # or a Prithvi-EO 2.0 with TL in its name, which has its codes already
data = "sandbox"  # a synthetic planet whose coordinates can be trusted to mean nothing else
method = "full"  # codes that are fresh have to be learned, so all weights are trained
epochs = 8
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with one epoch and fewer chips
out_dir = None  # folder for scores, map and figures; None takes a temporary one

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch.nn import functional

import geopeft_nb as gp
from geopeft_nb.backbones.prithvi import CoordinateCode
from geopeft_nb.datasets.base import Reading

# %%
out = Path(out_dir or tempfile.mkdtemp(prefix="geopeft_"))
out.mkdir(parents=True, exist_ok=True)
settings = {
    "epochs": 1 if FAST else epochs,
    "batch_size": batch_size,
    "seed": seed,
    "device": device,
    "lr": 5e-4,  # codes start from nothing: more than fine-tuning usually takes
}
HOME = ["temperate", "savanna"]
per_region = 16 if FAST else 80

# %% [markdown]
# ## 1 · A number becomes features
# Prithvi-EO 2.0 comes in a version with *TL*, time and location. Year, day of the year, latitude and longitude are four numbers; the network has features. The bridge is a code of sines and cosines. For a number $v$ and a width of $w$ features, with $j = 0, 1, \dots, w/2 - 1$:
#
# $$ \text{angle}_j = \frac{v}{10000^{\,j/(w/2)}} \qquad \text{code} = (\sin \text{angle}_0, \dots, \sin \text{angle}_{w/2-1}, \; \cos \text{angle}_0, \dots, \cos \text{angle}_{w/2-1}) $$
#
# ### Exercise 1 · write
# `sincos(values, width)`: for a tensor of M numbers return (M, width), all sines before all cosines.

# %%
sincos = None


# solution
def encode(values: torch.Tensor, width: int) -> torch.Tensor:
    """Turn M numbers into (M, width) sines and cosines of ever longer periods."""
    steps = torch.arange(width // 2) / (width / 2)
    angles = values[:, None] / 10_000.0**steps
    return torch.cat([angles.sin(), angles.cos()], dim=1)


sincos = encode

# %%
my_code = gp.check("09/sincos", sincos)
my_code

# %% [markdown]
# What it showed: the first features turn around within a few degrees, the last hardly move over the whole Earth. Together they say where a place is, coarsely and finely.
#
# Latitude gets half of the features, longitude the other half, and a learned number scales the whole. That is `CoordinateCode`; one for time, one for place, added to every token.
#
# ### Exercise 2 · predict
# A network of width 192 gets both. How many weights that can be trained does that add?

# %%
added = None
# solution
added = 2

# %%
gp.check("09/added", added)

# %% [markdown]
# What it showed: the code itself is fixed. Everything that a network makes of a place, its other weights have to make.
#
# How alike are the codes of two places? Here is the similarity of every place on Earth to one; the ripples are the fine features.

# %% tags=["hide-input"]
code_of = CoordinateCode(192)


def codes_at(places: object) -> torch.Tensor:
    """Return the codes of (N, 2) places, each of length 1."""
    pairs = torch.as_tensor(places, dtype=torch.float32)[:, None]
    return functional.normalize(code_of(pairs)[:, 0], dim=1).detach()


# %% tags=["hide-input"]
latitudes, longitudes = np.meshgrid(np.arange(-88, 90, 4), np.arange(-178, 180, 4), indexing="ij")
grid = np.stack([latitudes.ravel(), longitudes.ravel()], axis=1)
here = (49.0, 12.0)
alike = (codes_at(grid) @ codes_at([here]).T).reshape(latitudes.shape)
figure, axes = plt.subplots(figsize=(7.4, 3.6), layout="constrained")
shown = axes.imshow(alike, extent=(-180, 180, -90, 90), origin="lower", cmap="cividis")
axes.plot(here[1], here[0], "o", color="#D55E00", label="the place")
axes.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)")
axes.set_title("Cosine similarity of codes to that of one place")
axes.legend(frameon=True)
figure.colorbar(shown, label="similarity (-1 to 1)")
gp.show(
    figure, alt="A map of the Earth: codes are most alike along the place's latitude and longitude."
)

# %% [markdown]
# A cross: half of the features know the latitude alone, half the longitude. And nothing in it knows that 180° east is 180° west.
#
# ## 2 · A planet with two map offices
# The sandbox planet has six climates. With `shift=0` all six look alike, so that *no pixel tells where it is*: only the coordinates do. Two regions are home. And there is a trap, as in data from several countries: the two map offices use **other words**. In the savanna, class 0 is water and class 1 is land.


# %%
def other_words(chip: object) -> object:
    """Return the chip with its two classes swapped."""
    read = chip.read

    def swapped() -> Reading:
        reading = Reading(*read())
        return reading._replace(target=np.where(reading.target < 0, -1, 1 - reading.target))

    return replace(chip, read=swapped)


def load(shift: float, two_offices: bool) -> object:
    """Load the planet; the savanna at home is labelled by another office, or by the same."""
    options = {"task": "flood", "shift": shift, "chips": per_region, "seed": seed}
    chips = gp.load_data(data, train_regions=HOME, **options)
    if not two_offices:
        return chips
    parts = {}
    for side in ("train", "val", "test"):
        part = getattr(chips, side)
        words = [other_words(c) if c.region == HOME[1] else c for c in part.chips]
        parts[side] = replace(part, chips=words)
    return replace(chips, **parts)


# %% tags=["nbval-check-output"]
one_office, two_offices = load(0, False), load(0, True)
print(two_offices)

# %% [markdown]
# The backbone that ships takes no coordinates. Here it gets the two codes, with fresh scales:


# %%
def told(chips: object, kinds: object) -> torch.nn.Module:
    """Build a network that is told time, place, both or nothing, and attach the method."""
    backbone = gp.load_backbone(model, bands=chips.bands)
    if not backbone.card.takes_location:
        backbone.temporal_embed_enc = CoordinateCode(backbone.width)
        backbone.location_embed_enc = CoordinateCode(backbone.width)
        with torch.no_grad():
            backbone.location_embed_enc.scale.fill_(
                1.0
            )  # TL models begin at 0.1, and have long to learn
        backbone.card = replace(backbone.card, takes_time=True, takes_location=True)
    network = gp.build_model(backbone, chips, metadata=kinds, seed=seed)
    return gp.attach(network, method, seed=seed)


# %% [markdown]
# **Guess before you look.** Four networks: told the place or not, with one office or two. What share of the test pixels at home will each get right? (Half is what a coin gets.)

# %%
my_guess = {"one office, told nothing": "?", "one office, told the place": "?"}
my_guess |= {"two offices, told nothing": "?", "two offices, told the place": "?"}

# %%
runs = {}
name = "one office, told nothing"
runs[name] = gp.fit(told(one_office, False), one_office, dashboard="text", **settings)

# %%
name = "one office, told the place"
runs[name] = gp.fit(told(one_office, ["location"]), one_office, dashboard="text", **settings)

# %%
name = "two offices, told nothing"
runs[name] = gp.fit(told(two_offices, False), two_offices, dashboard="text", **settings)

# %%
name = "two offices, told the place"
runs[name] = gp.fit(told(two_offices, ["location"]), two_offices, **settings)

# %% [markdown]
# ## 3 · Lie to it
# A score with true coordinates does not say what they were used for. So ask again with false ones. If nothing changes, they were not used.
#
# ### Exercise 3 · mend a broken line
# `lie(samples, places)` gives each sample one of the places, in turn. This one works once, and spoils every score that comes after it. Why? Mend it.


# %%
def lie_in_place(samples: list[dict], places: list[torch.Tensor]) -> list[dict]:
    """Return the samples with false coordinates."""
    for number, sample in enumerate(samples):
        sample["location"] = places[number % len(places)]  # mend this
    return samples


lie = lie_in_place


# solution
def lie_in_copies(samples: list[dict], places: list[torch.Tensor]) -> list[dict]:
    """Make a new dictionary for each sample, and leave the given ones as they are."""
    return [s | {"location": places[n % len(places)]} for n, s in enumerate(samples)]


lie = lie_in_copies

# %%
my_lie = gp.check("09/lie", lie)
my_lie


# %%
def right(run: object, samples: list[dict]) -> float:
    """Return the share of pixels with the right class."""
    hits = [
        (torch.as_tensor(guess) == sample["mask"])[sample["mask"] >= 0]
        for sample, guess in zip(samples, run.model.predict(samples), strict=True)
    ]
    return float(torch.cat(hits).float().mean())


def asked_twice(run: object, chips: object) -> dict[str, float]:
    """Score each home region with its own coordinates, and with those of the other."""
    found = {}
    for region, other in (HOME, HOME[::-1]):
        samples = list(chips.test.in_region(region))
        places = [sample["location"] for sample in chips.test.in_region(other)]
        found[f"{region}, true"] = right(run, samples)
        found[f"{region}, lied to"] = right(run, lie([dict(s) for s in samples], places))
    return found


# %%
offices = {"one": one_office, "two": two_offices}
rows = {name: asked_twice(run, offices[name.split()[0]]) for name, run in runs.items()}
truth = pd.DataFrame(rows).T
truth.to_csv(out / "scores.csv")
print("You guessed:", my_guess)
truth.round(3)

# %%
true, lied = truth.filter(like="true").mean(axis=1), truth.filter(like="lied").mean(axis=1)
for name in truth.index:
    print(f"{name}: {true[name]:.2f} with true coordinates, {lied[name]:.2f} with false ones")

# %% [markdown]
# With one office the place is no help. With two, it is *all* the help there is: on average nobody who is not told can do better than a coin, for the pixels are the same and the words are not. And the network that is told reads the ground **and** the office off its coordinates: lie about them, and it answers in the other office's words. (One seed each; the printed shares are this run's.)
#
# ### Exercise 4 · write
# `uses_place(true, lied, tolerance)`: does a network use the place? `true` and `lied` are lists of scores, one for each region. Say `True` if lying changes any region's score by more than the tolerance. (A lie can help, too.)

# %%
uses_place = None


# solution
def looks_at_coordinates(true: list[float], lied: list[float], tolerance: float) -> bool:
    """Say whether any score moves, up or down."""
    return any(abs(a - b) > tolerance for a, b in zip(true, lied, strict=True))


uses_place = looks_at_coordinates

# %%
my_test = gp.check("09/uses_place", uses_place)
my_test

# %%
if my_test.passed:
    for name, row in truth.iterrows():
        pairs = [list(row.filter(like=word)) for word in ("true", "lied")]
        print(f"{name}: {'uses the place' if uses_place(*pairs, 0.05) else 'does not use it'}")

# %% [markdown]
# What it showed: the test needs no new labels and no new training, only a lie. It works on any model that takes coordinates.
#
# ## 4 · Where nobody told it anything
# Four regions were never home. Their office is the first one: water is 1. The network that was told the place has to make *something* of coordinates that it has never met. Which of the two offices does it take an away region for?
#
# ### Exercise 5 · write
# Predict it from the codes alone. `nearest_home(place, homes, code)`: `code` turns (N, 2) places into (N, D) features, `place` is (2,), `homes` is a dictionary region → (M, 2) places. Return the name of the region whose **mean code** has the highest cosine similarity with the place's.

# %%
nearest_home = None


# solution
def most_alike(place: torch.Tensor, homes: dict[str, torch.Tensor], code: object) -> str:
    """Compare the place's code with the mean code of each home."""
    mine = code(place[None])[0]
    alike = {
        name: float(functional.cosine_similarity(mine, code(places).mean(dim=0), dim=0))
        for name, places in homes.items()
    }
    return max(alike, key=alike.get)


nearest_home = most_alike

# %%
my_nearest = gp.check("09/nearest_home", nearest_home)
my_nearest

# %%
told_run = runs["two offices, told the place"]
homes = {
    region: torch.stack([s["location"] for s in two_offices.train.in_region(region)])
    for region in HOME
}
encoder = told_run.model.plain_backbone.location_embed_enc


def code(places: torch.Tensor) -> torch.Tensor:
    """Return what the trained network is told of (N, 2) places."""
    return encoder(places[:, None])[:, 0].detach()


rows = {}
for region, part in two_offices.holdout.items():
    samples = list(part.spread(8 if FAST else 32))
    share = right(told_run, samples)
    rows[region] = {"right": share, "spoke as": HOME[0] if share >= 0.5 else HOME[1]}
    if my_nearest.passed:
        guesses = [nearest_home(s["location"], homes, code) for s in samples]
        rows[region]["nearest code"] = max(set(guesses), key=guesses.count)
elsewhere = pd.DataFrame(rows).T.infer_objects()
elsewhere.round(3)

# %%
if my_nearest.passed:
    same = (elsewhere["spoke as"] == elsewhere["nearest code"]).sum()
    print(f"The nearest code says the office of {same} of {len(elsewhere)} regions")
low = elsewhere["right"].idxmin()
print(f"Worst: {low}, {elsewhere['right'][low]:.2f} right. Its ground looks as that of all others.")

# %% [markdown]
# What it showed: what a network makes of coordinates far from those of training is decided by the geometry of a code and by luck, not by the ground. A map of the world made by such a network may change its words at a meridian.
#
# On the map: one region away, by the network that is told the place and by the one that is not, of **one** office. Move the bar.

# %%
two = {name: runs[name] for name in ("one office, told nothing", "one office, told the place")}
region_map = gp.map_regions(two, one_office, regions=["boreal"])
region_map.save(out / "map.png")
region_map

# %%
for region in one_office.holdout:
    samples = list(one_office.holdout[region].spread(8 if FAST else 32))
    off, on = (right(run, samples) for run in two.values())
    ahead = "told nothing" if off > on else "told the place"
    ahead = ahead if abs(off - on) > 0.01 else "neither, by a hundredth"
    print(f"{region}: told nothing {off:.3f}, told the place {on:.3f}; ahead: {ahead}")

# %% [markdown]
# ## 5 · Nobody told it, and it knows
# Is a network that is told nothing safe? Turn the climates on: `shift=0.5`. Two offices again, no coordinates.
#
# **Guess before you look.** With `shift=0` it did no better than a coin. And now?

# %%
my_guess = "?"  # a share of the test pixels

# %%
climates = load(0.5, True)
name = "two offices, told nothing, climates that differ"
runs[name] = gp.fit(told(climates, False), climates, dashboard="text", **settings)

# %%
samples = list(climates.test)
blind = right(runs["two offices, told nothing"], list(two_offices.test))
print("You guessed:", my_guess)
print(f"{right(runs[name], samples):.2f} right, and {blind:.2f} where all climates look alike")
for region, part in climates.holdout.items():
    print(f"  {region}: {right(runs[name], list(part.spread(8 if FAST else 32))):.2f}")

# %% [markdown]
# The soil, the haze and the light say where a chip is from. Leaving coordinates out does not take the shortcut away, it only takes away the *lie* by which you would have found it. What finds it then is lesson 10: regions held out.
#
# ## 6 · Take the shortcut away
# ### Exercise 6 · open challenge
# Write `doubt(sample, places, share, rng)`: with probability `share` return the sample with one of `places` drawn at random by `rng` (a `np.random.Generator`), else as it is. Never change the sample that was given. Trained on such samples, a network cannot lean on coordinates: they are false too often.

# %%
doubt = None


# solution
def sometimes_false(
    sample: dict, places: list[torch.Tensor], share: float, rng: np.random.Generator
) -> dict:
    """Draw first whether to lie, then a place."""
    if rng.random() >= share:
        return sample
    return sample | {"location": places[int(rng.integers(len(places)))]}


doubt = sometimes_false

# %%
my_doubt = gp.check("09/doubt", doubt)
my_doubt

# %%
if my_doubt.passed:
    rng = np.random.default_rng(seed)
    every = [s["location"] for s in one_office.train]
    drawn = [doubt(s, every, 0.5, rng) for s in one_office.train]
    moved = sum(
        not torch.equal(a["location"], b["location"])
        for a, b in zip(drawn, one_office.train, strict=True)
    )
    print(f"{moved} of {len(drawn)} chips would be told another place")

# %% [markdown]
# What it showed: dropping or shuffling metadata in training is a regulariser like any other. What the place alone can tell, it takes away; train with it, and see what it costs where the place is no help.
#
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("09")

# %% [markdown]
# ## What we have seen
# In this lesson we have told a network where it is. Where the ground says everything, coordinates changed little. Where two offices label the same ground by other words, they were the only help, and a lie about them turned the answers over. Far from home, the geometry of the code chose the words. And pixels can tell the place as well as coordinates do.
#
# ## What to try next
# - `["time"]` or `True` for `["location"]` in section 2: is the day of any use here?
# - `scale.fill_(0.1)`, as the published TL models begin: how many epochs until the place is used?
# - `task="crops"`: do coordinates help where seasons differ?
#
# ## How this differs at full scale
# The paper fine-tuned TL models with and without time and location, and its abstract recommends fine-tuning "without metadata"; the scores behind that are not among its published tables. There the codes were learned in pretraining on images of the whole Earth, so that they need not be learned in a few epochs. On a GPU set `model = "prithvi_eo_v2_300_tl"`.
#
# ## References
# - Szwarcman et al., *Prithvi-EO-2.0*, [arXiv 2412.02732](https://arxiv.org/abs/2412.02732): the codes of time and location
# - Marti-Escofet et al., *Fine-tune Smarter, Not Harder*, [arXiv 2504.17397](https://arxiv.org/abs/2504.17397)
# - Geirhos et al., *Shortcut Learning in Deep Neural Networks*, [arXiv 2004.07780](https://arxiv.org/abs/2004.07780)
# - Mac Aodha et al., *Presence-Only Geographical Priors for Fine-Grained Image Classification*, [arXiv 1906.05272](https://arxiv.org/abs/1906.05272)
