"""The data card: what a data set is, how its classes are balanced, and where its chips lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from geopeft_nb.datasets.geodata import DataCard, GeoData
from geopeft_nb.datasets.load import LOADERS, load_data
from geopeft_nb.errors import check_name
from geopeft_nb.maps.figure import draw_land
from geopeft_nb.pictures.show import image_html, plain, png, table_html, visible
from geopeft_nb.tasks import TASKS

#: Chips of each side that are read to count classes and to place them on the map.
AT_MOST = 200
#: Side -> mark on the map: apart by shape, too.
MARKS = {"train": "o", "val": "s", "test": "D", "holdout": "^"}


@dataclass(frozen=True)
class DataSheet:
    """A data card that was filled in from the files.

    Attributes:
        card: The facts that are known without the files.
        facts: The same as a table, one row per fact.
        balance: Per side the share of each class in the labelled pixels of chips that were read,
            0-1; for labels of whole images the share of the images. None without files.
        places: Per chip that was read: side, region, latitude and longitude in degrees, NaN where
            they are not known. None without files.
    """

    card: DataCard
    facts: pd.DataFrame
    balance: pd.DataFrame | None = None
    places: pd.DataFrame | None = None

    def map(self) -> Figure | None:
        """Draw where the chips lie on the world, one mark per chip; None if no place is known."""
        if self.places is None or not len(known := self.places.dropna(subset=["latitude"])):
            return None
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        axes = figure.add_subplot()
        draw_land(axes)
        for side, chips in known.groupby("side", sort=False):
            axes.plot(
                "longitude", "latitude", MARKS[side], data=chips, mec="white", ms=5,
                label=f"{side} ({len(chips)})",
            )  # fmt: skip
        (west, south), (east, north) = known[["longitude", "latitude"]].agg(["min", "max"]).values
        axes.set(xlim=(west - 8, east + 8), ylim=(south - 8, north + 8), aspect="equal",
                 xlabel="longitude (degrees)", ylabel="latitude (degrees)")  # fmt: skip
        invented = ", SYNTHETIC: these places are invented" if self.card.synthetic else ""
        axes.set_title(f"{self.card.title}: where the chips lie{invented}", fontsize=11, loc="left")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="chips")
        return plain(figure)

    def _repr_html_(self) -> str:
        """Show the facts, the balance and the map in a notebook."""
        parts = [self.facts.map(visible).to_html(header=False)]
        if self.balance is not None:
            caption = f"Share of each class (of at most {AT_MOST} chips a side, 0-1)"
            parts.append(table_html(self.balance, caption))
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
            return DataSheet(card, _facts(card, f"Balance and map need the files. {error}"))
    task, places, balance = TASKS[data.task], [], {}
    dates = [f"{data.frames} dates a chip; pictures show the last."] if data.frames > 1 else []
    for side, chips in data.parts.items():
        counts = np.zeros(len(data.classes))
        for sample in chips.spread(AT_MOST):
            labels = sample[task.target][None]
            counts += task.labelled(task.count(labels, labels, len(counts), data.ignore_index))
            where = sample["location"].tolist() if "location" in sample else (np.nan, np.nan)
            places.append((sample["name"], side.partition(":")[0], sample["region"], *where))
        # Several labels may be in one image, and numbers have no classes.
        every = {"multilabel": min(AT_MOST, len(chips)), "regression": np.nan}
        balance[side] = counts / every.get(data.task, counts.sum() or np.nan)
    return DataSheet(
        data.card,
        _facts(data.card, " ".join([*data.notes, *dates])),
        pd.DataFrame(balance, data.classes).T.rename_axis("side"),
        pd.DataFrame(places, columns=["chip", "side", "region", "latitude", "longitude"]),
    )


def _facts(card: DataCard, notes: str) -> pd.DataFrame:
    """List the facts of a card, those that are empty left out."""
    left_out = ("colours", "default_bands", "mean", "std")
    words = {
        name.replace("_", " "): ", ".join(map(str, fact)) if isinstance(fact, tuple) else str(fact)
        for name, fact in (vars(card) | {"notes": notes}).items()
        if fact and name not in left_out
    }
    return pd.DataFrame({"": words})
