"""Names of classes, regions, runs and data are words, and nothing else, wherever they are shown."""

from __future__ import annotations

import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import mistune
import pytest
from hostile_words import MAKERS, NAMES, data_named, figures, model_card, run_named, sent
from matplotlib.text import Text
from PIL import Image

import geopeft_nb as gp
from geopeft_nb.errors import GeopeftError
from geopeft_nb.pictures.show import png

PLUGINS = ["table", "url", "strikethrough", "footnotes", "task_lists", "math", "def_list"]
each_name = pytest.mark.parametrize("name", list(NAMES.values()), ids=list(NAMES))


class Structure(HTMLParser):
    """Elements and their attributes, without words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attributes)))

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}",))


def is_seen(text: str) -> bool:
    """Say whether no control character, mark of direction or half of a character is in a text."""
    return all(x.isprintable() or x in "\n\t" for x in text)  # half a character is not


@each_name
@pytest.mark.parametrize("maker", MAKERS)
def test_html_has_the_same_elements_whatever_the_names(maker: str, name: str) -> None:
    html = MAKERS[maker](name)
    assert Structure(html).found == Structure(MAKERS[maker]("water")).found
    assert is_seen(html) or maker in ("table", "compare")  # those are plain tables of pandas


@pytest.mark.parametrize("name", ["surrogate", "long", "lines"])
def test_what_no_file_can_name_is_refused_before_it_is_saved(name: str, tmp_path: Path) -> None:
    with pytest.raises(GeopeftError, match=r"adapter is damaged|classes takes"):
        model_card(NAMES[name], tmp_path)
    assert [*tmp_path.rglob("adapter*")] == []


@pytest.mark.parametrize(
    "name", [NAMES[x] for x in NAMES if x not in ("surrogate", "long", "lines")]
)
def test_the_model_card_has_the_same_elements_whatever_the_names(name: str, tmp_path: Path) -> None:
    read = mistune.create_markdown(escape=False, plugins=PLUGINS)
    cards = [model_card(name, tmp_path / "a"), model_card("water", tmp_path / "b")]
    hostile, usual = (Structure(str(read(card.split("---", 2)[2]))).found for card in cards)
    assert hostile == usual
    assert is_seen(cards[0])


@pytest.mark.parametrize("name", ["formula", "bidi", "surrogate", "long", "lines"])
def test_figures_show_names_as_they_are_and_shorten_long_ones(name: str) -> None:
    for maker, figure in figures(NAMES[name]).items():
        with Image.open(io.BytesIO(png(figure, 50))) as picture:
            assert max(picture.size) < 3_000, maker
        said = [text.get_text() for text in figure.findobj(Text)]
        assert all(map(is_seen, said)) and max(map(len, said)) < 1_000, maker
        assert name != "formula" or any(NAMES[name] in text for text in said), maker


@each_name
def test_what_is_sent_to_the_browser_and_said_in_words_can_be_written(name: str) -> None:
    assert is_seen(sent(name))
    run, data = run_named(name)
    assert all(is_seen(repr(x)) for x in (run, data, run.model, gp.evaluate(run, data)))


@pytest.mark.parametrize(
    "colour", ["red", "#12345", "#12345g", '#123456"onload="x', "#1234567", None]
)
def test_a_colour_is_checked_where_data_are_made(colour: str) -> None:
    data = data_named("water")
    with pytest.raises(gp.GeopeftError, match="Colours are written #rrggbb"):
        replace(data, card=replace(data.card, colours=("#123456", colour)))
