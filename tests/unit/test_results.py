"""What is said of the grid that was run is what its rows say."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from geopeft_nb.benchmark.grid import key_of, read_grid

CELL = re.compile(r"(\d\.\d{3}) ± (\d\.\d{3})")
RESULTS = "data/results/README.md"
#: Words before a table -> its grid and data sets, in the order of its columns.
TABLES = {
    "by which less is changed": ("first", ("sandbox", "hls_water", "scenes")),
    "rates searched by validation loss": ("searched", ("sandbox", "hls_water", "scenes")),
    "The same at other shifts": ("searched", ("sandbox 0.25", "sandbox 1", "eurosat")),
}


def named(row: pd.Series) -> str:
    """Name what was trained as the tables do."""
    if row["backbone"] == "unet":
        return "unet from scratch"
    options = json.loads(row["options"]) if isinstance(row.get("options"), str) else {}
    return " ".join([row["method"], *(str(value) for value in options.values())])


def rows_of(root: Path, grid: str) -> pd.DataFrame:
    rows = pd.read_csv(root / f"data/results/{grid}.csv")
    shifts = rows["data_options"].astype(str).str.extract(r'"shift": ([\d.]+)')[0]
    other = " " + shifts.where(shifts != "0.5")
    return rows.assign(trained=rows.apply(named, axis=1), data=rows["data"] + other.fillna(""))


def written(text: str, start: str) -> dict[str, list[tuple[str, str]]]:
    """Return name -> the (mean, deviation) pairs of its row, of the table behind some words."""
    lines = text[text.index(start) :].splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("| "))
    table = {}
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        if found := CELL.findall(line):
            table[line.split("|")[1].strip().strip("`*")] = found
    return table


def test_every_cell_of_the_grid_has_one_row_and_no_error(root: Path) -> None:
    cells = read_grid(root / "data/results/first_grid.csv")
    rows = pd.read_csv(root / "data/results/first.csv")
    assert sorted(rows["key"]) == sorted(map(key_of, cells))
    assert "error" not in rows or rows["error"].isna().all()


@pytest.mark.parametrize(
    ("where", "words"),
    [*((RESULTS, x) for x in TABLES), ("README.md", "rates searched by validation loss")],
)
def test_the_table_of_a_grid_is_that_of_its_rows(root: Path, where: str, words: str) -> None:
    text = (root / where).read_text(encoding="utf-8")
    grid, every = TABLES[words]
    rows = rows_of(root, grid)
    scores = rows.groupby(["data", "trained"])[["home", "away"]].agg(["mean", "std"])
    table = written(text, words)
    assert len(table) == (rows["trained"].nunique() if where == RESULTS else 6)
    for name, pairs in table.items():
        said = [
            tuple(f"{scores.loc[(data, name), (side, kind)]:.3f}" for kind in ("mean", "std"))
            for data in every if (data, name) in scores.index for side in ("home", "away")
        ]  # fmt: skip
        assert pairs == said, name


@pytest.mark.parametrize(("where", "least"), [("README.md", 3), (RESULTS, 14)])
def test_differences_are_those_of_their_rows(root: Path, where: str, least: int) -> None:
    text = (root / where).read_text(encoding="utf-8")
    said = re.findall(
        r"`(\w+)` minus `(\w+)`, (\w[\w. ]*), (home|away): ([+−]\d\.\d{3}) \(([+−]\d\.\d{3}) to "
        r"([+−]\d\.\d{3})\)", text,
    )  # fmt: skip
    assert len(said) >= least
    for one, other, data, side, *numbers in said:
        grid, name = ("searched", data[9:]) if data.startswith("searched") else ("first", data)
        rows = rows_of(root, grid).set_index(["data", "trained", "seed"])
        score = rows[side].loc["hls_water" if "water" in name else name]
        difference = score.loc[one] - score.loc[other]
        half = stats.t.ppf(0.975, len(difference) - 1) * difference.sem()
        mean = difference.mean()
        right = [f"{x:+.3f}".replace("-", "−") for x in (mean, mean - half, mean + half)]
        assert numbers == right, (one, other, data, side)
