"""What all tests share: where things are, one thread, and what is skipped without a GPU."""

import os

# Before torch is imported: more threads than cores make small models slower, not faster.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A callable that gives published backbones, by name, little of everything for one test."""
    from geopeft_nb.backbones.catalog import CARDS

    def small(*names: str, **sizes: object) -> None:
        for name in names:
            extra = CARDS[name].extra
            extra = extra | {"group_code": 16} if "group_code" in extra else extra
            card = replace(CARDS[name], **{"width": 64, "heads": 4, "extra": extra} | sizes)
            monkeypatch.setitem(CARDS, name, card)

    return small


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The first folder of the offline mirror."""
    from geopeft_nb.files import mirror_folders

    return mirror_folders()[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that two workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU or the mirror where there is none, and say so."""
    if item.get_closest_marker("mirror"):
        from geopeft_nb.files import mirror_folders

        if not mirror_folders():
            pytest.skip("needs the offline mirror: set GEOPEFT_MIRROR to its folder")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
