"""The strip shows four telling validation chips, and answers that belong to the kept weights."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.cards import DataCard
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.pictures.show import in_bytes
from geopeft_nb.widgets import dashboard as module
from geopeft_nb.widgets.earlier import earlier_run
from geopeft_nb.widgets.static import State, static_bundle
from geopeft_nb.widgets.strip import Strip


def made_of(targets: list[Any], card: DataCard = CARD, side: int = 16) -> GeoData:
    """Make data whose validation chips have the given labels; water is dark."""

    def chip(index: int, target: Any) -> Chip:  # noqa: ANN401 - a class, labels or a mask
        noise = np.random.default_rng(index).normal(0.2, 0.02, (6, side, side))
        dark = target if np.shape(target) == (side, side) else 0
        image = (noise - 0.15 * np.nan_to_num(dark)).astype(np.float32)
        return Chip(f"chip {index}", "virginia", f"p{index}", lambda: (image, target))

    chips = [chip(index, target) for index, target in enumerate(targets)]
    part = ChipDataset(chips, card.classes, -1, card.kind)
    return GeoData(part, part, part, {}, card, card.bands, ("virginia",), side)


def halves(share: float, side: int = 16) -> np.ndarray:
    mask = np.zeros((side, side), np.int64)
    mask[:, : round(share * side)] = 1
    return mask


SHARES = [0, 0.5, 0.0625, 1, 0.25, 0.125, 0.5]  # of water


def watch(strip: Strip, answers: list[Any], epoch: int, best: bool, size: int = 3) -> bool:
    """Show the strip a validation in batches, as the recorder does."""
    data = strip.data.val
    key = "mask" if "mask" in data[0] else "label"
    for start in range(0, len(data), size):
        targets = torch.stack([data[i][key] for i in range(start, min(start + size, len(data)))])
        strip.watch(start, targets, lambda offset, start=start: np.asarray(answers[start + offset]))  # type: ignore[misc]
    return strip.close_epoch(epoch, best)


def test_the_chips_with_the_most_even_labels_are_chosen_and_stay() -> None:
    data = made_of([halves(share) for share in SHARES])
    strip = Strip(data)
    nothing = [np.zeros((16, 16), np.int64)] * len(SHARES)
    assert watch(strip, nothing, 1, best=True)
    first = strip.text()
    names = re.findall(r"chip \d", first)
    assert names == ["chip 1", "chip 4", "chip 5", "chip 6"]
    truth = [halves(share) for share in SHARES]
    assert watch(strip, truth, 2, best=True)
    assert re.findall(r"  (chip \d)", strip.text()) == names * 2
    assert strip.text().count("100% of the pixels as labelled") == 4
    assert "chip 4: 100% land; 75% of the pixels as labelled" in first


def test_the_first_and_the_kept_answers_remain() -> None:
    data = made_of([halves(share) for share in SHARES])
    strip = Strip(data)
    for epoch, best in ((1, True), (2, False), (3, True), (4, False), (5, False)):
        watch(strip, [halves(epoch / 16)] * len(SHARES), epoch, best)
    assert sorted(strip.rows) == [1, 3, 5]
    running, last = strip.html(), strip.html(finished=True)
    assert "epoch 1:" in running and "epoch 5:" in running and "epoch 3" not in running
    assert "epoch 1:" in last and "epoch 3, kept:" in last and "epoch 5" not in last
    assert "19% water" in strip.text(finished=True)  # 3 of 16 columns
    assert len(last) < 25_000


def test_every_picture_is_small_and_has_words() -> None:
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 2, (100, 100)) for _ in range(4)]  # noise is the hardest to pack
    strip = Strip(made_of(labels, side=100))
    watch(strip, labels, 1, best=True)
    watch(strip, labels[::-1], 2, best=True)
    html = strip.html(finished=True)
    images = re.findall(r'<img alt="([^"]*)" width="96" src="data:image/(\w+);base64,', html)
    assert len(images) == 16
    assert all(len(words) > 10 for words, _ in images)
    assert {kind for _, kind in images} <= {"png", "webp"}
    assert len(html) < 30_000
    assert "<script" not in html and "widget" not in html
    for name, colour in zip(CARD.classes, CARD.colours, strict=True):
        assert re.search(rf"background:{colour}\"></span> {name}", html)


def test_an_epoch_without_answers_leaves_no_row() -> None:
    strip = Strip(made_of([halves(0.5)] * 2))
    assert not strip.close_epoch(1, best=True)
    assert watch(strip, [halves(0.5)] * 2, 2, best=True)  # fewer chips than four will do
    assert len(re.findall("chip ", strip.text())) == 2


@pytest.mark.parametrize(
    ("kind", "classes", "targets", "answers", "said"),
    [
        (
            "classification", ("forest", "river", "sea"),
            [np.int64(i) for i in (0, 0, 0, 0, 1, 2)], [np.int64(0)] * 6,
            ["forest ✓", "forest ✓", "forest ✗", "forest ✗"],
        ),
        (
            "multilabel", ("forest", "river"),
            [np.array(labels) for labels in ([1, 0], [1, 1], [0, 0])],
            [np.array([True, False])] * 3,
            ["forest ✓", "forest ✗", "forest ✗"],
        ),
    ],
)  # fmt: skip
def test_images_with_a_label_in_words_are_answered_in_words(
    kind: str, classes: tuple[str, ...], targets: list[Any], answers: list[Any], said: list[str]
) -> None:
    card = replace(CARD, kind=kind, classes=classes, colours=("#000000",) * len(classes))
    strip = Strip(made_of(targets, card))
    watch(strip, answers, 1, best=True)
    assert re.findall(r"chip \d: (.*)", strip.text()) == said
    html = strip.html(finished=True)
    assert html.count("<img") == len(said)  # the images alone
    assert "epoch 1, kept: forest ✗" in html and "label: forest" in html


def test_a_regression_is_drawn_on_the_scale_of_its_label() -> None:
    card = replace(CARD, kind="regression", classes=("depth",), colours=("#000000",))
    field = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    field[0, 0] = np.nan  # not known
    strip = Strip(made_of([field, 1 - field], card))
    watch(strip, [field[None] + 0.5, 1 - field[None]], 1, best=True)
    assert re.findall(r"chip \d: (.*)", strip.text()) == [
        "root mean square error 0.5", "root mean square error 0"
    ]  # fmt: skip
    assert strip.html().count("<img") == 6


class Output:
    """Stands for the notebook: keeps what was shown last in each output."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, str]] = []

    def display(self, bundle: dict[str, str], **_: object) -> Any:  # noqa: ANN401
        self.outputs.append(dict(bundle))
        mine = self.outputs[-1]

        class Handle:
            def update(self, bundle: dict[str, str], **_: object) -> None:
                mine.clear()
                mine.update(bundle)

        return Handle()


def test_fit_shows_what_the_kept_weights_say(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output()
    monkeypatch.setattr(module, "_in_notebook", lambda: True)
    monkeypatch.setattr(module, "controls", lambda _: None)
    monkeypatch.setattr("IPython.display.display", output.display)
    data = made_of([halves(share) for share in SHARES])
    network = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "linear_probe")
    run = gp.fit(network, data, epochs=3, batch_size=3)
    view, strip = output.outputs
    assert 'data-state="finished"' in view["text/html"]
    kept = strip["text/plain"].split(f"epoch {run.best['epoch']}, kept:")[1]
    for index in (1, 4, 5, 6):
        sample = data.val[index]
        right = (run.predict([sample])[0] == sample["mask"].numpy()).mean()
        assert re.search(rf"chip {index}: .*; {right:.0%} of the pixels", kept)
    assert "activations" in view["text/plain"] and "other" in view["text/plain"]
    assert re.search(rf"activations +{in_bytes(run.memory['activations'])}", view["text/plain"])


def test_a_long_run_beside_three_others_takes_less_than_60_kb_of_a_notebook() -> None:
    data = gp.load_data("scenes")
    strip = Strip(data)
    labels = [data.val[index]["mask"].numpy() for index in range(len(data.val))]
    watch(strip, [np.roll(mask, 9, axis=0) for mask in labels], 1, best=True, size=8)
    watch(strip, [np.roll(mask, 2, axis=1) for mask in labels], 2, best=True, size=8)
    rng = np.random.default_rng(0)
    train = [(step, 1 / step + 0.1 * float(rng.random())) for step in range(1, 1001)]
    scores = [(step, 0.5, float(rng.random())) for step in range(50, 1001, 50)]
    parts = dict.fromkeys(("weights", "gradients", "optimiser", "activations"), 2**26)
    state: State = {
        "title": "LoRA on two scenes", "state": "finished", "step": 1000, "total_steps": 1000,
        "epoch": 20, "seconds": 100.0, "images_per_second": 80.0, "learning_rate": 1e-3,
        "train": train, "validation": scores, "step_memory": parts,
        "memory": {"process": 2**30, "peak": 2**30, "limit": 2**31},
        "earlier": [earlier_run(f"Run {number}", train, scores) for number in range(3)],
    }  # fmt: skip
    sizes = [
        len(json.dumps(bundle, ensure_ascii=False))
        for bundle in (static_bundle(state), strip.bundle(True))
    ]
    assert sum(sizes) < 60_000
