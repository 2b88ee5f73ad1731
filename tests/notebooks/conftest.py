"""The lessons that the tests of this folder go through."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `lesson` once for each lesson."""
    if "lesson" in metafunc.fixturenames:
        lessons = sorted(NOTEBOOKS.glob("*.ipynb"))
        metafunc.parametrize("lesson", lessons, ids=[path.stem for path in lessons])
