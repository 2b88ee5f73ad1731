"""Run by test_every_method in a process of its own: load adapters and compare their outputs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

import geopeft_nb as gp
from geopeft_nb.backbones.catalog import CARDS

folder = Path(sys.argv[1])
for name, sizes in json.loads((folder / "families.json").read_text()).items():
    card = CARDS[name]
    extra = card.extra | {"group_code": 16} if "group_code" in card.extra else card.extra
    CARDS[name] = replace(card, extra=extra, **sizes)
image, expected = torch.load(folder / "expected.pt", weights_only=True)
for name, output in expected.items():
    model = gp.load_model(folder / name)
    with torch.no_grad():
        assert torch.equal(model(image), output), name
print(len(expected), "equal")
