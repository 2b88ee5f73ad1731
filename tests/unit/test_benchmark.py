"""Grids: the published one builds as published, and a run of one's own is kept cell by cell."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import nn

import geopeft_nb as gp
from geopeft_nb.benchmark import run
from geopeft_nb.benchmark.grid import build_dry, key_of, read_grid
from geopeft_nb.benchmark.report import beside_published, published_scores
from geopeft_nb.models import SegmentationModel

#: Trained weights of backbone and method, as the published code counts them.
COUNTED = {
    ("prithvi_eo_v1_100", "lora"): 2_064_384, ("prithvi_eo_v1_100", "vpt"): 921_600,
    ("prithvi_eo_v1_100", "vit_adapter"): 11_886_368, ("prithvi_eo_v1_100", "full_ft"): 86_237_184,
    ("prithvi_eo_v2_300", "lora"): 5_505_024, ("prithvi_eo_v2_300", "vpt"): 2_457_600,
    ("prithvi_eo_v2_300", "vit_adapter"): 20_057_472,
    ("prithvi_eo_v2_300", "full_ft"): 303_886_336, ("clay_v1_base", "full_ft"): 92_102_144,
}  # fmt: skip
TINY = {"backbone": "geopeft_tiny", "data": "scenes", "data_options": {"size": 32}, "epochs": 1}


@pytest.fixture
def recipes(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "data/published/recipes.csv")


def trained(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters() if p.requires_grad)


def loras(model: SegmentationModel) -> set[tuple[str, int, float]]:
    found = [(n, m) for n, m in model.backbone.named_modules() if hasattr(m, "lora_A")]
    return {(n.rpartition(".")[2], m.r["default"], m.scaling["default"]) for n, m in found}


def bands_of(variant: str, data: str) -> int:
    if "decur_bands" in variant:
        return 13 if data == "sen1floods11" else 12
    return 10 if "clay_bands" in variant else 6


@pytest.mark.slow
def test_each_of_the_202_cells_builds_with_the_published_settings(recipes: pd.DataFrame) -> None:
    cells = read_grid("paper")
    assert len(cells) == len(recipes) == 202
    for cell, (_, told) in zip(cells, recipes.iterrows(), strict=True):
        model = build_dry(cell)
        backbone, variant = model.plain_backbone, told["data"]
        assert cell["lr"] == told["lr"] and cell["data"] == told["dataset"].lower()
        size = 32 if told["dataset"] == "reBEN_7k" else 4 if variant.endswith("bs_4") else 8
        assert (cell["batch_size"], cell["epochs"], cell["patience"]) == (size, 100, 15)
        assert len(model.bands) == bands_of(variant, told["dataset"])
        assert model.built_for["normalise"] == "dataset"
        assert backbone.gsd in (None, 30.0 if told["dataset"] == "burn_scars" else 10.0)
        known = {"m_sa_crop_type": (), "m_cashew_plantation": ("time",)}
        given = known.get(told["dataset"], ("time", "location"))
        assert model.metadata == (given if variant.startswith(("clay_tlgw", "prithvi_tl")) else ())
        if isinstance(told["layers"], str):
            depth = len(backbone.blocks)
            assert list(backbone.layers) == [n % depth for n in json.loads(told["layers"])]
        frozen = told["freeze_backbone"] or told["run"] == "lora"
        rest = [p for n, p in model.named_parameters() if not n.startswith("decoder.")]
        assert all(p.requires_grad for p in rest) != frozen
        if told["lora_r"] == 16:
            names = {"q", "v", "fc1", "fc2"}
            assert loras(model) == {(name, 16, 1.0) for name in names}
        if told["vpt_tokens"] == 100:
            prompts = [p for p in model.backbone.parameters() if p.requires_grad]
            assert sum(p.numel() for p in prompts) == 100 * backbone.card.width * len(
                backbone.blocks
            )
        if count := COUNTED.get((told["backbone"], told["run"])):
            assert trained(model.backbone) == count
        decoder_fits(model, told)


def decoder_fits(model: SegmentationModel, told: pd.Series) -> None:
    """Check kind and widths of a decoder by its convolutions."""
    convs = [m for m in model.decoder.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    widths = [conv.out_channels for conv in convs]
    if told["decoder"] == "LinearDecoder":
        patch = model.plain_backbone.patch_size
        assert model.decoder_name == "linear" and convs[-1].kernel_size == (patch, patch)
    elif told["decoder"] == "FCNDecoder":
        assert model.decoder_name == "fcn" and widths.count(512) >= 4
    elif told["decoder"] == "UNetDecoder":
        assert model.decoder_name == "unet" and {512, 256, 128, 64} <= {*widths}
    elif told["decoder"] == "UperNetDecoder":
        assert model.decoder_name == "upernet" and convs[-1].in_channels == 256
    else:
        assert model.plain_backbone.card.name == "unet" and widths == [len(model.classes)]


def test_a_dry_run_lists_cells_with_their_weights() -> None:
    grid = pd.DataFrame(
        [TINY | {"method": "lora", "options": '{"r": 2}'}, TINY | {"method": "full"}]
    )
    table = gp.run_benchmark(grid, dry_run=True)
    model = build_dry(read_grid(grid)[0])
    assert table["trained weights"][0] == trained(model) < table["trained weights"][1]
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_cells_are_run_once_and_what_fails_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results.csv"
    rows = [TINY | {"method": "linear_probe"}, TINY | {"method": "lora", "options": {"r": -1}}]
    grid = pd.DataFrame([*rows, rows[0]])
    done, failed = gp.run_benchmark(grid, out).to_dict("records")
    assert failed["error"].startswith("GeopeftError: r takes")
    assert 0 < done["home low"] < done["home"] < done["home high"] <= 1 and 0 < done["away"] < 1
    assert {*done["regions"]} == {"virginia", "brandenburg"}
    assert done["epochs run"] == 1 and done["kept"] == 4 * done["trained weights"] > 0
    assert done["seconds"] > 0 and done["peak"] > 0 and done["versions"]["torch"]
    monkeypatch.setattr(run, "run_cell", None)  # nothing is left to run
    again = gp.run_benchmark(grid, out)
    assert again["home"][0] == pytest.approx(done["home"]) and again["error"][1] == failed["error"]
    assert again["options"][1] == {"r": -1} and again["key"][1] == key_of(rows[1])


def made_up(cell: dict[str, Any]) -> dict[str, Any]:
    if cell["seed"] == 2:
        raise RuntimeError("the worker died")
    return run._row(cell) | {"home": 0.5 + cell["seed"] / 100}


def pools() -> list[Any]:
    def dask() -> object:
        reason = "needs dask.distributed, which is not installed"
        return pytest.importorskip("distributed", reason=reason).Client(processes=False)

    return [
        pytest.param(lambda: ThreadPoolExecutor(2), id="threads"),
        pytest.param(dask, id="dask"),
    ]


@pytest.mark.parametrize("pool", pools())
def test_an_executor_runs_cells_and_each_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: Callable[[], Executor]
) -> None:
    monkeypatch.setattr(run, "run_cell", made_up)
    grid = pd.DataFrame([TINY | {"method": "full", "seed": seed} for seed in range(4)])
    with pool() as executor:
        gp.run_benchmark(grid, tmp_path / "out.csv", executor)
    table = pd.read_csv(tmp_path / "out.csv").sort_values("seed").set_index("seed")
    assert table["error"].notna().tolist() == [False, False, True, False]
    assert table["error"][2] == "RuntimeError: the worker died"
    assert table["home"].dropna().tolist() == [0.5, 0.51, 0.53]


def test_a_killed_grid_has_the_rows_of_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(cell: dict[str, Any]) -> dict[str, Any]:
        if cell["seed"] == 2:
            raise KeyboardInterrupt
        return made_up(cell)

    out = tmp_path / "out.csv"
    grid = pd.DataFrame([TINY | {"method": "full", "seed": seed} for seed in (0, 1, 2, 3)])
    monkeypatch.setattr(run, "run_cell", stopped)
    with pytest.raises(KeyboardInterrupt):
        gp.run_benchmark(grid, out)
    assert pd.read_csv(out)["seed"].tolist() == [0, 1]
    monkeypatch.setattr(run, "run_cell", lambda cell: made_up(cell | {"seed": 9}))
    assert gp.run_benchmark(grid, out)["seed"].tolist() == [0, 1, 9, 9]


def test_twenty_kills_at_random_moments_lose_no_finished_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(cell: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.005)
        return {"key": key_of(cell), **cell, "home": cell["seed"] / 100}

    monkeypatch.setattr(run, "run_cell", slow)
    # tqdm's own lock is shared with children: one that is killed would hold it for ever
    monkeypatch.setattr(run.tqdm, "_lock", threading.RLock(), raising=False)
    out, dice = tmp_path / "out.csv", random.Random(0)
    grid = pd.DataFrame([TINY | {"method": "full", "seed": seed} for seed in range(40)])
    before: list[int] = []
    for _ in range(20):
        if (child := os.fork()) == 0:
            run.tqdm.set_lock(threading.RLock())  # of before the fork a thread may hold it
            gp.run_benchmark(grid, out)
            os._exit(0)
        time.sleep(dice.uniform(0, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        rows = pd.read_csv(out)["seed"].tolist() if out.exists() else []
        assert rows[: len(before)] == before and len({*rows}) == len(rows)
        before = rows
    assert before
    table = gp.run_benchmark(grid, out)
    assert table["seed"].tolist() == [*range(40)]
    assert [path for path in tmp_path.iterdir() if path.suffix == ".csv"] == [out]


@pytest.mark.slow
def test_a_cluster_repeats_the_cell_of_a_worker_that_was_killed(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs dask.distributed")
    grid = pd.DataFrame([TINY | {"method": "linear_probe", "seed": seed} for seed in range(4)])
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path
    )
    with cluster, distributed.Client(cluster) as client:
        pids = client.run(os.getpid)

        def kill() -> None:
            while not any(client.processing().values()):
                time.sleep(0.05)
            os.kill(next(iter(pids.values())), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        table = gp.run_benchmark(grid, tmp_path / "out.csv", client)
        killer.join()
        assert not {*pids.values()} <= {*client.run(os.getpid).values()}
    assert sorted(table["seed"]) == [0, 1, 2, 3]
    assert "error" not in table or table["error"].isna().all()


def test_a_pool_that_broke_fails_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(cell: dict[str, Any]) -> dict[str, Any]:
        if cell["seed"] == 1:
            raise BrokenExecutor
        return made_up(cell)

    monkeypatch.setattr(run, "run_cell", broken)
    grid = pd.DataFrame([TINY | {"method": "full", "seed": seed} for seed in range(2)])
    with ThreadPoolExecutor(1) as pool, pytest.raises(BrokenExecutor):
        gp.run_benchmark(grid, tmp_path / "out.csv", pool)
    assert pd.read_csv(tmp_path / "out.csv")["seed"].tolist() == [0]


def test_what_is_no_grid_or_no_file_of_results_is_refused(tmp_path: Path) -> None:
    grid = pd.DataFrame([TINY | {"method": "full"}])
    with pytest.raises(ValueError, match=r"Unknown column of a grid 'learning_rate'.*'lr'"):
        gp.run_benchmark(grid.assign(learning_rate=0.1), dry_run=True)
    with pytest.raises(ValueError, match="Row 0 of the grid does not say the method"):
        gp.run_benchmark(grid.drop(columns="method"), dry_run=True)
    with pytest.raises(ValueError, match="needs out"):
        gp.run_benchmark(grid)
    (mine := tmp_path / "mine.csv").write_text("key,b\n1,2\n")
    with pytest.raises(ValueError, match="holds no results"):
        gp.run_benchmark(grid, mine)
    assert mine.read_text() == "key,b\n1,2\n"


def test_results_stand_beside_published_scores() -> None:
    told = {"model": "Prithvi 2.0 300M", "method": "lora", "data": "sen1floods11"}
    rows = pd.DataFrame([told | {"seed": s, "home": 0.9 + s / 100, "away": 0.8} for s in range(3)])
    table = beside_published(rows)
    home = table.loc[(*told.values(), "home")]
    assert home["mIoU"] == pytest.approx(0.91) and home["seeds"] == 3
    assert home["published"] == pytest.approx(0.9004, abs=1e-4)  # table 2 of the paper
    assert home["difference"] == pytest.approx(0.91 - home["published"])
    assert table.loc[(*told.values(), "away"), "std"] == pytest.approx(0)


def test_every_published_score_of_a_model_in_the_grid_finds_its_cell() -> None:
    cells = pd.DataFrame(read_grid("paper"))
    peft = cells[cells["experiment"] == "peft"]
    names = {*zip(peft["model"], peft["method"], peft["data"], strict=True)}
    assert names <= {key[:3] for key in published_scores().index}
    lacking = {key[:3] for key in published_scores().index} - names
    six = {"Clay v1", "DeCUR"}  # burn scars have six bands, and one run stands in two tables
    assert {key[0] for key in lacking} == {"Prithvi 2.0 100M", *six}
    assert {key[2] for key in lacking if key[0] in six} == {"burn_scars"}
