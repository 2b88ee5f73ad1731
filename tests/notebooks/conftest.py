"""The lessons that the tests of this folder go through."""

from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def grouped(path: Path) -> object:
    """One worker takes all tests of a lesson, which is run once for them."""
    return pytest.param(path, id=path.stem, marks=pytest.mark.xdist_group(path.stem))


@pytest.fixture(params=map(grouped, LESSONS))
def lesson(request: pytest.FixtureRequest) -> Path:
    return request.param
