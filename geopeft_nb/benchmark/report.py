"""Results of a grid beside the values that arXiv 2504.17397 published."""

import pandas as pd

from geopeft_nb.benchmark.grid import read_table
from geopeft_nb.files import data_folder

#: Method in the published tables -> here.
METHODS = {
    "Full FT": "full", "Linear Prob.": "linear_probe", "LoRA": "lora", "VPT": "vpt",
    "ViT Adapter": "vit_adapter",
}  # fmt: skip
CELL = ["model", "method", "data", "side"]


def published_scores() -> pd.DataFrame:
    """Return the published scores, mean and standard deviation over seeds (mIoU, 0-1).

    Returns:
        A row per model, method, data set and side: ``"home"`` is their test set, ``"away"`` the
        regions that they held out.

    Source: https://github.com/IBM/peft-geofm (Apache-2.0).
    """
    table = read_table(data_folder() / "published/scores.csv")
    table["method"] = table["method"].map(METHODS)
    table["data"] = table["dataset"].str.lower()
    table["side"] = table["split"].map({"test": "home", "ood": "away"})
    scores = table.set_index(CELL)[["miou_mean", "miou_std"]].astype(float) / 100
    return scores.set_axis(["published", "published std"], axis=1)


def beside_published(rows: pd.DataFrame) -> pd.DataFrame:
    """Put results beside published scores.

    Args:
        rows: From `run_benchmark`, of cells of the grid ``"paper"`` or with its `model`.

    Returns:
        A row per model, method, data set and side that both have: seeds, mean and standard
        deviation over them, the published ones, and the difference. Both were trained with seeds
        of their own: the deviations say how much of a difference is luck.
    """
    rows = rows.reindex(columns=[*CELL[:3], "seed", "home", "away"])
    scores = rows.melt([*CELL[:3], "seed"], ["home", "away"], "side", "mIoU").dropna()
    ours = scores.groupby(CELL)["mIoU"].agg(seeds="count", mIoU="mean", std="std")
    table = ours.join(published_scores(), how="inner")
    return table.assign(difference=table["mIoU"] - table["published"])
