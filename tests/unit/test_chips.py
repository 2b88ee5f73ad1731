"""The watched chips are telling ones, and their answers belong to the weights that are kept."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import DataCard, GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.widgets import live
from geopeft_nb.widgets.chips import WatchedChips
from geopeft_nb.widgets.live import Dashboard
from geopeft_nb.widgets.picture import draw_run


def made_of(targets: list[Any], card: DataCard = CARD, side: int = 16) -> GeoData:
    """Make data whose chips have the given labels, here and in a held-out region."""

    def chip(index: int, target: Any) -> Chip:
        image = np.random.default_rng(index).normal(0.1 * (1 + index), 0.02, (6, side, side))
        return Chip(
            f"chip {index}", "virginia", f"p{index}", lambda: (image.astype(np.float32), target)
        )

    chips = [chip(index, target) for index, target in enumerate(targets)]
    part = ChipDataset(chips, card.classes, -1, card.task)
    return GeoData(part, part, part, {"kenya": part}, card, card.bands, ("virginia",), side)


def test_of_several_dates_the_last_is_drawn_and_it_says_so() -> None:
    single = made_of([halves(0.5)] * 4)

    def dated(chip: Chip) -> Chip:
        image, mask = chip.read()
        return replace(chip, read=lambda: (np.stack([1 - image, image[::-1], image], 1), mask))

    part = replace(single.val, chips=[dated(chip) for chip in single.val.chips])
    several = replace(single, val=part, holdout={"kenya": part})
    drawn = [WatchedChips(data, list).shown()["chips"] for data in (single, several)]
    for one, last in zip(*drawn, strict=True):
        assert np.array_equal(one["picture"], last["picture"])
        assert last["caption"] == [f"{one['caption'][0]}, the last of 3 dates"]


def halves(share: float, side: int = 16) -> np.ndarray:
    mask = np.zeros((side, side), np.int64)
    mask[:, : round(share * side)] = 1
    return mask


SHARES = [0, 0.5, 0.0625, 1, 0.25, 0.125, 0.5]  # of water


def test_the_most_mixed_labels_are_chosen_and_answers_compared_with_them() -> None:
    labels = [halves(share) for share in SHARES]
    labels[1][:2] = -1  # a part without label
    data = made_of(labels)
    chips = WatchedChips(data, lambda samples: [np.zeros((16, 16), np.int64)] * len(samples))
    assert [sample["name"] for _, sample in chips.samples] == [
        "chip 1", "chip 6", "chip 4", "chip 5", "chip 1"
    ]  # fmt: skip
    assert [chip["caption"] for chip in chips.shown()["chips"]][3:] == [
        ["validation"], ["held out: kenya"]
    ]  # fmt: skip
    chips.look()
    shown = chips.shown()
    captions = [chip["caption"][-1] for chip in shown["chips"]]
    assert captions == [f"{share} right" for share in ("50%", "50%", "75%", "88%", "50%")]
    assert shown["chips"][0]["picture"].shape == (16, 3 * (16 + 2), 3)
    assert [name for name, _ in shown["legend"]] == [*CARD.classes, "no label"]
    sheet = draw_run(Dashboard("LoRA", 1, show=False).state, [], shown).axes[3]
    assert [text.get_text().splitlines() for text in sheet.texts] == [
        chip["caption"] for chip in shown["chips"]
    ]


def test_all_chips_are_stretched_alike() -> None:
    data = made_of([halves(0.5)] * 4)  # each brighter than the one before
    chips = WatchedChips(data, lambda samples: [])
    means = [chip["picture"][:, :16, :3].mean() for chip in chips.shown()["chips"]]
    assert means[:4] == sorted(means[:4]) and means[3] > means[0] + 50
    assert means[4] == means[0]  # the held-out chip is the same image


@pytest.mark.parametrize(
    ("task", "targets", "answer", "said"),
    [
        ("classification", [1, 1, 0], 1, ["label water", "water ✓"]),
        ("multilabel", [[1, 0]] * 3, [True, True], ["label land", "land, water ✗"]),
        ("regression", [[[[0.0, 2.0]] * 2] * 2] * 3, [[[0.0, 1.0]] * 2] * 2, ["error 0.707"]),
    ],
)
def test_other_tasks_are_answered_in_their_own_words(
    task: str, targets: list[Any], answer: Any, said: list[str]
) -> None:
    dtype = np.float32 if task == "regression" else np.int64
    data = made_of([np.asarray(t, dtype) for t in targets], replace(CARD, task=task), side=2)
    chips = WatchedChips(data, lambda samples: [np.asarray(answer)] * len(samples))
    chips.look()
    assert chips.shown()["chips"][0]["caption"] == ["validation", *said]
    assert chips.shown()["legend"] == []


def test_fit_shows_what_the_kept_weights_say(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, str]] = []

    class Handle:
        def update(self, bundle: dict[str, str], **_: object) -> None:
            shown.append(bundle)

    monkeypatch.setattr(live, "_kernel", object)  # one that nobody watches
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Handle())
    data = made_of([halves(share) for share in SHARES])
    network = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "linear_probe")
    run = gp.fit(network, data, epochs=3, batch_size=3)
    (view,) = shown
    assert 'data-state="finished"' in view["text/html"]
    lines = re.findall(r"validation, (\d+%) right\.", view["text/plain"])
    samples = [data.val[index] for index in (1, 6, 4, 5)]
    right = [(run.predict([s])[0] == s["mask"].numpy()).mean() for s in samples]
    assert lines == [f"{share:.0%}" for share in right]
    assert all(part in view["text/plain"] for part in ("weights", "activations"))
