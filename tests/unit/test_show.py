"""A figure stays in a notebook with its words, and bytes are written as people read them."""

import base64
from typing import Any

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

import geopeft_nb as gp
from geopeft_nb.pictures.show import in_bytes


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (25 * 1024, "25.0 KiB"),
        (1.5 * 2**20, "1.50 MiB"),
        (291 * 2**20, "291 MiB"),
        (1000 * 2**20, "0.98 GiB"),
        (16 * 2**30, "16.0 GiB"),
    ],
)
def test_bytes_are_written_with_three_digits(size: float, said: str) -> None:
    assert in_bytes(size) == said


def test_a_figure_is_kept_with_its_words_and_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle))
    figure = pyplot.figure()
    gp.show(figure, alt='A "curve" & no more')
    (bundle,) = shown
    assert bundle["text/plain"] == 'A "curve" & no more'
    assert 'alt="A &quot;curve&quot; &amp; no more"' in bundle["text/html"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert bundle["image/png"] in bundle["text/html"]
    assert not pyplot.fignum_exists(figure.number)
    with pytest.raises(ValueError, match="say what the figure shows"):
        gp.show(Figure(), alt=" ")
