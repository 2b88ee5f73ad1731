"""Data of one's own: a torch Dataset with a card, and a loader that is added at run time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.base import Chip
from geopeft_nb.datasets.cards import Request
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.load import LOADERS
from geopeft_nb.datasets.split import split_regions

CARD = gp.DataCard(
    name="ponds",
    title="Ponds",
    task="water or land, per pixel",
    classes=("land", "water"),
    colours=("#D9CFB8", "#0072B2"),
    bands=("RED", "NIR_NARROW"),
    regions=("north", "south"),
    home=("north",),
    size=32,
    resolution=10.0,
    labels="drawn for this test",
    licence="CC-BY-4.0",
    citation="Pond et al. 2024",
)


class Ponds(torch.utils.data.Dataset[dict[str, Any]]):
    """Water is dark in the near infrared."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.masks = (torch.rand(count, 32, 32, generator=generator) < 0.5).long()

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> dict[str, Any]:
        mask = self.masks[index]
        image = torch.stack([0.1 + 0 * mask, 0.4 - 0.35 * mask]).float()
        return {"image": image, "mask": mask, "location": (52.0, 13.0)}


def ponds(card: gp.DataCard = CARD, **arguments: Any) -> GeoData:  # noqa: ANN401 - of own_data
    return gp.own_data(
        card, Ponds(6, 0), Ponds(3, 1), Ponds(3, 2), {"south": Ponds(3, 3)}, **arguments
    )


def test_a_torch_dataset_is_trained_on_judged_and_cited(tmp_path: Path) -> None:
    data = ponds()
    assert data.parts.keys() == {"train", "val", "test", "holdout:south"}
    assert data.train[0]["location"].tolist() == [52.0, 13.0] and data.card.claims == ()
    backbone = gp.load_backbone("geopeft_tiny", bands=data.bands)
    model = gp.attach(gp.build_model(backbone, data, decoder="linear"), "lora")
    run = gp.fit(model, data, epochs=1, batch_size=3, dashboard=False)
    report = gp.evaluate(run, data)
    assert report.table.loc["south", "role"] == "away" and report.table.loc["south", "chips"] == 3
    words = (gp.save_adapter(run, tmp_path / "adapter") / "model_card.md").read_text()
    assert "CC-BY-4.0" in words and "Pond et al. 2024" in words
    assert gp.load_model(tmp_path / "adapter").built_for["data"].citation == CARD.citation


def test_places_are_checked_against_what_the_card_claims() -> None:
    apart = {side: [f"{side}-pond"] * n for side, n in
             (("train", 6), ("val", 3), ("test", 3), ("south", 3))}  # fmt: skip
    assert ponds(places=apart).card.claims == CARD.claims
    with pytest.raises(ValueError, match="1 places of ponds are in training and in test"):
        ponds(places=apart | {"test": ["train-pond"] * 3})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"home": ("north", "south")}, "it needs one home"),
        ({"regions": ("north",)}, "regions that are held out: .*south"),
        ({"colours": ("#000000",)}, "2 classes need as many colours"),
        ({"size": 64}, r"'train-0' is \(2, 32, 32\), and the card has 2 bands of 64 x 64"),
        ({"classes": ("land",), "colours": ("#000000",)}, r"unknown classes \[1\]"),
    ],
)
def test_a_card_that_does_not_fit_the_samples_is_refused(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ponds(replace(CARD, **changed)).train[0]


def test_a_loader_with_its_own_card_is_known_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_ponds(request: Request, *, level: float = 0.1) -> GeoData:
        chip = np.full((2, 32, 32), level, np.float32), np.zeros((32, 32), np.int64)
        chips = [
            Chip(f"{region}-{number}", region, f"{region}-{number}", lambda: chip)
            for region in CARD.regions
            for number in range(4)
        ]
        return split_regions(chips, request, CARD, CARD.bands, CARD.size)

    monkeypatch.setitem(LOADERS, CARD.name, (CARD, load_ponds))
    data = gp.load_data("ponds", level=0.2)
    assert data.train[0]["image"].unique().item() == pytest.approx(0.2)
    assert gp.list_datasets().loc["ponds", "licence"] == "CC-BY-4.0"
    assert gp.data_card("ponds").card.citation == "Pond et al. 2024"
    assert [away for away, _ in gp.leave_one_region_out("ponds")] == ["north", "south"]
    with pytest.raises(ValueError, match=r"option of ponds 'levels'\. Did you mean 'level'"):
        gp.load_data("ponds", levels=0.2)
