"""The data card: what a data set is, how its classes are balanced, and where its chips lie."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from geopeft_nb.datasets.base import ChipDataset
from geopeft_nb.datasets.cards import DataCard
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.load import LOADERS, load_data
from geopeft_nb.errors import check_name, expect
from geopeft_nb.maps.figure import draw_land
from geopeft_nb.pictures.show import image_html, png
from geopeft_nb.tasks import TASKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Chips of each side that are read to count classes and to place them on the map.
AT_MOST = 200
LOOKS = {
    "train": ("o", "#0072B2"), "val": ("s", "#E69F00"), "test": ("D", "#009E73"),
    "holdout": ("^", "#D55E00"),
}  # fmt: skip


@dataclass(frozen=True)
class DataSheet:
    """A data card that was filled in from the files.

    Attributes:
        card: The facts that are known without the files.
        facts: The same as a table, one row per fact.
        balance: Per side: chips, chips that were read, and the share of each class in the labelled
            pixels, 0-1; for labels of whole images the share of the images. None without files.
        places: Per chip that was read: side, region, latitude and longitude in degrees, NaN where
            they are not known. None without files.
    """

    card: DataCard
    facts: pd.DataFrame
    balance: pd.DataFrame | None = None
    places: pd.DataFrame | None = None

    def map(self) -> Figure | None:
        """Draw where the chips lie on the world, one mark per chip; None if no place is known."""
        if self.places is None or not self.places["latitude"].notna().any():
            return None
        from matplotlib.figure import Figure

        known = self.places.dropna(subset=["latitude"])
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        axes = figure.add_subplot()
        draw_land(axes)
        for side, look in LOOKS.items():
            here = known[known["side"] == side]
            if len(here):
                axes.plot(
                    here["longitude"], here["latitude"], look[0], color=look[1], markersize=5,
                    markeredgecolor="white", markeredgewidth=0.4, label=f"{side} ({len(here)})",
                )  # fmt: skip
        low, high = (known[["longitude", "latitude"]].agg(end) for end in ("min", "max"))
        around = max(8.0, *(0.2 * (high - low)))
        west, south = np.maximum(low - around, (-180, -60))
        east, north = np.minimum(high + around, (180, 85))
        axes.set(xlim=(west, east), ylim=(south, north), aspect="equal")
        axes.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)")
        invented = ", SYNTHETIC: these places are invented" if self.card.synthetic else ""
        axes.set_title(f"{self.card.title}: where the chips lie{invented}", fontsize=11, loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="chips")
        return figure

    def _repr_html_(self) -> str:
        """Show the facts, the balance and the map in a notebook."""
        parts = [self.facts.to_html(header=False, index_names=False, escape=True)]
        if self.balance is not None:
            caption = f"Share of each class (of at most {AT_MOST} chips a side, 0-1)"
            parts.append(self.balance.style.format(precision=3).set_caption(caption).to_html())
        if figure := self.map():
            words = f"Map of where the chips of {self.card.title} lie."
            parts.append(image_html(png(figure, dpi=90), words))
        return "".join(parts)


def data_card(data: str | GeoData) -> DataSheet:
    """Show what a data set is: licence, citation, split, class balance, map of its chips.

    Args:
        data: A name that `gp.list_datasets()` lists, whose files are used if they are on this
            machine (nothing is downloaded); or what `load_data` returned.

    Returns:
        A sheet, which a notebook shows as tables and a map.

    Raises:
        ValueError: Unknown name.

    Example:
        >>> data_card("scenes").card.licence[:7]
        'CC0-1.0'
    """
    if isinstance(data, str):
        check_name("data set", data, LOADERS)
        card = LOADERS[data][0]
        try:
            data = load_data(data, download=False)
        except (FileNotFoundError, ValueError) as error:
            missing = f"balance and map need the files. {error}"
            return DataSheet(card, _facts(card, not_loaded=missing))
    expect(data, "holdout", "a name, or the data that load_data returned")
    balance, places = {}, []
    for side, chips in data.parts.items():
        balance[side], read = _look(side, chips, data)
        places += read
    return DataSheet(
        data.card,
        _facts(data.card, notes=" ".join(data.notes)),
        pd.DataFrame(balance).T.rename_axis("side"),
        pd.DataFrame(places, columns=["chip", "side", "region", "latitude", "longitude"]),
    )


def _facts(card: DataCard, **more: str) -> pd.DataFrame:
    """List the facts of a card, those that are empty left out."""
    left_out = ("colours", "default_bands", "mean", "std")
    names = [field.name for field in fields(DataCard) if field.name not in left_out]
    facts = {name: getattr(card, name) for name in names}
    facts["reflectance"] = "0-1" if card.reflectance else "no: other units"
    facts["synthetic"] = "yes: no pixel was ever seen by a satellite" if card.synthetic else ""
    facts["share no place with training"] = facts.pop("claims") or "not claimed"
    words = {
        name.replace("_", " "): ", ".join(map(str, fact)) if isinstance(fact, tuple) else str(fact)
        for name, fact in (facts | more).items()
        if fact
    }
    return pd.DataFrame({"": words})


def _look(
    side: str, chips: ChipDataset, data: GeoData
) -> tuple[dict[str, float], list[tuple[str, str, str, float, float]]]:
    """Read some chips of a side, evenly spread: count their classes and note where they lie."""
    chosen = np.linspace(0, len(chips) - 1, min(AT_MOST, len(chips))).round().astype(int)
    shares: dict[str, float] = {"chips": float(len(chips)), "read": float(len(chosen))}
    counts, labelled, places = np.zeros(len(data.classes)), 0.0, []
    for sample in (chips[int(index)] for index in chosen):
        target = np.asarray(sample[TASKS[data.task].target])
        known = target[target != data.ignore_index]
        if data.task == "multilabel":
            counts, labelled = counts + target, labelled + 1
        elif target.dtype.kind == "i":
            counts += np.bincount(known.ravel(), minlength=len(counts))
            labelled += known.size
        here = sample["location"].tolist() if "location" in sample else [float("nan")] * 2
        places.append((sample["name"], side.partition(":")[0], sample["region"], *here))
    if labelled:
        shares |= dict(zip(data.classes, counts / labelled, strict=True))
    return shares, places
