"""From reflectance to pictures: contrast, composites, and a sample with its labels."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geopeft_nb.bands import band_indices, band_name
from geopeft_nb.errors import GeopeftError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from geopeft_nb.datasets.base import Sample
    from geopeft_nb.datasets.geodata import GeoData

#: Band combinations that can be shown, each as red, green, blue.
COMPOSITES: dict[str, tuple[str, str, str]] = {
    "true_colour": ("RED", "GREEN", "BLUE"),
    "false_colour": ("SWIR_1", "NIR_NARROW", "RED"),
}

_GAMMA = 0.75  # brightens the dark majority of a scene with a few bright clouds or beaches
_IGNORED = "#9A9A9A"


def stretch(image: NDArray[np.float32], bands: Sequence[str], composite: str) -> NDArray[np.uint8]:
    """Turn reflectance into a picture: each band from its 2nd to its 98th percentile, brightened.

    Args:
        image: Reflectance (C, H, W), NaN where there is no chip.
        bands: Names of the C bands.
        composite: A key of `COMPOSITES`.

    Returns:
        Picture (3, H, W) with values 1-255, and 0 where there is no chip.
    """
    chosen = image[band_indices(COMPOSITES[composite], bands)]
    usable = np.isfinite(chosen).all(axis=0)
    if not usable.any():
        return np.zeros(chosen.shape, np.uint8)
    low, high = np.percentile(chosen[:, usable], [2, 98], axis=1)[:, :, None, None]
    scaled = np.clip((chosen - low) / np.maximum(high - low, 1e-6), 0, 1) ** _GAMMA
    return np.where(usable, np.nan_to_num(scaled) * 254 + 1, 0).round().astype(np.uint8)


def composites_of(bands: Sequence[str]) -> list[str]:
    """List the composites that the given bands allow."""
    present = {band_name(name) for name in bands}
    return [name for name, wanted in COMPOSITES.items() if present >= set(wanted)]


def plot_sample(data: GeoData, sample: Sample, prediction: NDArray[np.int64] | None) -> Figure:
    """Draw image, labels and prediction of a sample side by side; arguments as `GeoData.plot`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    maps = {"label": np.asarray(sample["mask"])} if data.task == "segmentation" else {}
    if prediction is not None and data.task == "segmentation":
        if np.shape(prediction) != maps["label"].shape:
            raise GeopeftError(
                f"The prediction is {np.shape(prediction)} and the label {maps['label'].shape}. "
                "Give the map that run.predict([sample])[0] returns."
            )
        maps["prediction"] = np.asarray(prediction)
    panels = 1 + len(maps)
    figure = Figure(figsize=(3.3 * panels + 2.2, 3.9), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    picture, caption = picture_of(sample["image"].numpy(), data.bands)
    axes[0].imshow(picture, interpolation="nearest")
    axes[0].set_title(caption, fontsize=10, loc="left")
    for name, panel in zip(maps, axes[1:], strict=True):
        panel.imshow(coloured(maps[name], data), interpolation="nearest")
        panel.set_title(name, fontsize=10, loc="left")
    for panel in axes:
        panel.set(xticks=[], yticks=[])
    title = f"{data.card.title}: {sample['name']} ({sample['region']})"
    if data.task != "segmentation":
        title += f"\n{label_in_words(data, sample)}"
    elif maps:
        _legend(axes[-1], data, maps)
    letters = int(10 * figure.get_figwidth())
    title = "\n".join(textwrap.fill(line, letters) for line in title.splitlines())
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure


def picture_of(image: NDArray[np.float32], bands: Sequence[str]) -> tuple[NDArray[np.uint8], str]:
    """Return (H, W, 3) and a caption: true colour where the bands allow it, else one band."""
    possible = composites_of(bands)
    if possible:
        red, green, blue = COMPOSITES[possible[0]]
        words = possible[0].replace("_", " ")
        return stretch(image, bands, possible[0]).transpose(
            1, 2, 0
        ), f"{words}: {red}, {green}, {blue}"
    low, high = np.percentile(image[0], [2, 98])
    grey = np.clip((image[0] - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2), f"band {bands[0]}"


def coloured(mask: NDArray[np.int64], data: GeoData) -> NDArray[np.uint8]:
    """Paint a class map (H, W) in the colours of the data set, (H, W, 3); grey is no label."""
    table = np.array([list(bytes.fromhex(c[1:7])) for c in (*data.colours, _IGNORED)], np.uint8)
    return table[np.where(mask == data.ignore_index, len(data.colours), mask)]


def _legend(panel: Axes, data: GeoData, maps: dict[str, NDArray[np.int64]]) -> None:
    from matplotlib.patches import Patch

    present = {int(value) for mask in maps.values() for value in np.unique(mask)}
    entries = [
        (colour, label)
        for index, (colour, label) in enumerate(zip(data.colours, data.classes, strict=True))
        if index in present or len(data.classes) <= 4
    ]
    if data.ignore_index in present:
        entries.append((_IGNORED, "no label"))
    patches = [
        Patch(facecolor=colour, edgecolor="#555555", label=textwrap.fill(label, 30))
        for colour, label in entries
    ]
    panel.legend(
        handles=patches, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9
    )


def label_in_words(data: GeoData, sample: Sample) -> str:
    """Say in words what a sample that has no label map is labelled with."""
    if data.task == "classification":
        return data.classes[int(sample["label"])]
    if data.task == "multilabel":
        there = [name for name, yes in zip(data.classes, sample["label"], strict=True) if yes]
        return ", ".join(there) or "none of the classes"
    return f"{data.task} of {', '.join(data.classes)}"
