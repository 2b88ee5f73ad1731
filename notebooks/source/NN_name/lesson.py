# %% [markdown]
# # NN · A title
# **One sentence: what this lesson promises.**
#
# {{badges}}

# %% [markdown]
# ## What you will be able to do
# - *Load* …
# - *Compare* …
# - *Explain* …
#
# ## Time to learn
# About 45 min, of which the computer needs about 3 min on a CPU with two cores. A GPU is used where there is one.
#
# ## What you need to know
#
# | Concept | Importance | Where |
# |---|---|---|
# | LoRA, regions held out | necessary | lesson 01 |

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
# Everything that you may want to change stands in the next cell. `FAST = True` runs the same lesson with fewer epochs.

# %% tags=["parameters"]
model = "geopeft_tiny"  # the small foundation model that ships
data = "scenes"  # real Sentinel-2 scenes that ship; gp.list_datasets() lists others
method = "lora"  # the method that you watch
epochs = 10
batch_size = 8
seed = 0
device = "auto"  # "cpu", "cuda" or "auto"
FAST = False  # True: the same cells with fewer epochs
out_dir = None  # folder for what the lesson writes; None takes a temporary one

# %%
import torch
from matplotlib import pyplot as plt

import geopeft_nb as gp

# %% [markdown]
# ## 1 · Look
# **Guess before you look.** How many chips are there to train on?

# %%
my_guess = {"chips to train on": "?"}

# %% tags=["nbval-check-output"]
chips = gp.load_data(data)
print(chips)

# %%
figure, axes = plt.subplots(figsize=(4, 2.6), layout="constrained")
axes.bar(["train", "val", "test"], [len(chips.train), len(chips.val), len(chips.test)])
axes.set(title="Chips at home", ylabel="chips")
gp.show(figure, alt="Bars of the number of chips for training, validation and test.")
print("You guessed:", my_guess)

# %% [markdown]
# ### Exercise 1
# How many chips are there to train on?

# %%
train_chips = None
# solution
train_chips = len(chips.train)

# %%
gp.check("NN/train_chips", train_chips, chips=chips)

# %% [markdown]
# ### Exercise 2
# Write a function that returns the share of a sample's pixels that carry a label.


# %%
labelled = None  # your function labelled(mask, ignore_index)
# solution


def share_of_labels(mask: torch.Tensor, ignore_index: int) -> float:
    """Return the share of pixels with a label."""
    return float((mask != ignore_index).float().mean())


labelled = share_of_labels


# %%
gp.check("NN/labelled", labelled)

# %% [markdown]
# ## Check yourself
# Decide first, then click your answer to see why it is right or wrong.

# %%
gp.quiz("NN")

# %% [markdown]
# ## What we have seen
# In this lesson we have …
#
# ## What to try next
# - Set `seed = 1` in the parameters and run again.
#
# ## How this differs at full scale
# …
#
# ## References
# - …
