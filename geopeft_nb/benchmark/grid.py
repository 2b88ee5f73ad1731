"""Grids: a table whose rows say all that `load_data`, `build_model`, `attach` and `fit` are told.

| column | what it is |
|---|---|
| `data`, `data_options` | name and options of `load_data` |
| `backbone`, `backbone_options` | of `load_backbone` |
| `decoder`, `decoder_options` | of `build_model`; linear unless it is given |
| `method`, `options` | of `attach` |
| `seed`, `lr`, `epochs`, … | arguments of `fit`; the seed is that of all random weights, too |
| `experiment`, `model` | labels: what a row belongs to, and what published tables call it |

Options are objects of JSON, or dictionaries. An empty field is the default.
"""

import hashlib
import json
import os
import warnings
from inspect import signature
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from geopeft_nb.backbones.load import load_backbone
from geopeft_nb.datasets.geodata import GeoData, choose_bands
from geopeft_nb.datasets.load import LOADERS, load_data
from geopeft_nb.datasets.split import SIDES
from geopeft_nb.errors import GeopeftError, check_name, check_names, check_values
from geopeft_nb.files import data_folder
from geopeft_nb.models import SegmentationModel, build_model
from geopeft_nb.open_files import read_text
from geopeft_nb.training.fit import fit
from geopeft_nb.tuning.methods import attach

Cell = dict[str, Any]
LABELS = ("experiment", "model")
NEEDED = ("data", "backbone", "method")
OPTIONS = ("data_options", "backbone_options", "decoder_options", "options")
FITTED = tuple(name for name in signature(fit).parameters if name not in ("model", "data"))
#: Column -> what it takes, as annotations say it.
KINDS = dict.fromkeys((*NEEDED, "decoder"), "str") | dict.fromkeys(OPTIONS, "Mapping[str, Any]")
KINDS |= {name: signature(fit).parameters[name].annotation for name in FITTED}
#: What Python and pandas write, and JSON has in other words.
PLAIN = {"True": True, "False": False, "None": None}


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a CSV file, all its fields as text."""
    table: pd.DataFrame = read_text(Path(path), lambda text: pd.read_csv(StringIO(text), dtype=str))
    return table


def read_grid(grid: str | os.PathLike[str] | pd.DataFrame) -> list[Cell]:
    """Read a grid.

    Args:
        grid: A table, its CSV file, or ``"paper"``: the 202 runs of arXiv 2504.17397.

    Returns:
        A cell for each row: column -> value, without empty ones. Rows that say the same are one.

    Raises:
        ValueError: A column that there is not, or one that is needed is not there or empty; or a
            field that `fit` would not take, or that JSON cannot say.
    """
    if not isinstance(grid, pd.DataFrame):
        grid = read_table(data_folder() / "published" / "paper.csv" if grid == "paper" else grid)
    check_names("column of a grid", grid.columns, (*LABELS, *KINDS))
    cells = [{k: value_of(v) for k, v in row.items()} for row in grid.to_dict("records")]
    cells = [{k: v for k, v in cell.items() if v is not None} for cell in cells]
    once: dict[str, Cell] = {}
    for number, cell in enumerate(cells):
        if lacking := [name for name in NEEDED if name not in cell]:
            raise GeopeftError(f"Row {number} of the grid does not say the {', '.join(lacking)}.")
        check_values(cell, KINDS)
        try:
            once[key_of(cell)] = cell
        except (TypeError, ValueError, RecursionError) as error:
            raise GeopeftError(f"Row {number} of the grid cannot be JSON: {error}.") from error
    return [*once.values()]


def value_of(field: Any) -> Any:
    """Return what a field says: a number, an object, a list, a text; None if it is empty."""
    if isinstance(field, str):
        try:
            return PLAIN[field] if field in PLAIN else json.loads(field)
        except (ValueError, RecursionError):
            return field
    plain = field.tolist() if hasattr(field, "tolist") else field
    return None if pd.api.types.is_scalar(plain) and pd.isna(plain) else plain


def key_of(cell: Cell) -> str:
    """Return by what a cell is known: the checksum of its settings, without labels."""
    told = {name: value for name, value in cell.items() if name not in LABELS}
    text = json.dumps(told, sort_keys=True, default=os.fspath)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build(cell: Cell, data: GeoData, weights: str | None = "pretrained") -> SegmentationModel:
    """Build the model of a cell, with its method attached."""
    seed = cell.get("seed", 0)
    given = {"bands": data.bands, "frames": data.frames, "weights": weights, "seed": seed}
    backbone = load_backbone(cell["backbone"], **given | cell.get("backbone_options", {}))
    options = {"decoder": cell.get("decoder", "linear"), "seed": seed}
    model = build_model(backbone, data, **options | cell.get("decoder_options", {}))
    return attach(model, cell["method"], seed=seed, **cell.get("options", {}))


def build_dry(cell: Cell) -> SegmentationModel:
    """Build the model of a cell without weights, memory or the files of published data."""
    options = cell.get("data_options", {})
    check_name("data set", cell["data"], LOADERS)
    card, _ = LOADERS[cell["data"]]
    if card.mean:  # all that a model is built for is published
        _, bands = choose_bands(options.get("bands"), card)
        none: dict[str, tuple[()]] = dict.fromkeys(SIDES, ())
        size = options.get("size", card.size)
        data = GeoData.of(none, {}, card, bands, card.home, size, allow_empty=True)
    else:
        data = load_data(cell["data"], **options)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bands that were never seen; a run tells of them
        return build(cell, data, weights=None)
