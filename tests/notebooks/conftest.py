"""The lessons that the tests of this folder go through."""

from pathlib import Path

import pytest
from nbval_reference import LESSONS


def grouped(path: Path) -> object:
    """One worker takes all tests of a lesson, which is run once for them."""
    return pytest.param(path, id=path.stem, marks=pytest.mark.xdist_group(path.stem))


@pytest.fixture(params=map(grouped, LESSONS))
def lesson(request: pytest.FixtureRequest) -> Path:
    return request.param
