"""What training has made of features: alike or not, and whether a head of before still works."""

from typing import Any

import pytest
import torch

import geopeft_nb as gp
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.models import SegmentationModel


@pytest.fixture(scope="module")
def data() -> GeoData:
    return gp.load_data("scenes", size=128)


def built(data: GeoData, method: str, **options: Any) -> SegmentationModel:
    return gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), method, **options)


@pytest.fixture(scope="module")
def probe(data: GeoData) -> SegmentationModel:
    return gp.fit(built(data, "linear_probe"), data, epochs=2, dashboard=False).model


def test_an_untrained_method_has_forgotten_nothing(data: GeoData, probe: SegmentationModel) -> None:
    table = gp.forgetting(built(data, "lora"), probe, data)
    assert table.index.tolist() == [*data.judged]
    assert table["role"].tolist() == ["home", "away"]
    assert table["CKA"].min() > 0.999999
    assert (table["before"] == table["after"]).all() and (table["difference"] == 0).all()


def test_what_changes_more_is_less_alike_and_the_head_stays_as_it_was(
    data: GeoData, probe: SegmentationModel
) -> None:
    backbone, weights = probe.backbone, [p.clone() for p in probe.parameters()]
    tables = []
    for much in (0.01, 0.1):
        changed = built(data, "full")
        with torch.no_grad():
            for p in changed.backbone.parameters():
                noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
                p += much * p.std(correction=0) * noise
        tables.append(gp.forgetting(changed, probe, data))
    little, much_more = (table["CKA"] for table in tables)
    assert (1 > little).all() and (little > much_more).all() and (much_more > 0).all()
    lost = tables[1]["after"] - tables[1]["before"]
    assert lost.to_numpy() == pytest.approx(tables[1]["difference"].to_numpy())
    assert probe.backbone is backbone and probe.method == "linear_probe"
    assert all(torch.equal(a, b) for a, b in zip(weights, probe.parameters(), strict=True))


def test_a_turn_keeps_cka_and_breaks_the_head(data: GeoData, probe: SegmentationModel) -> None:
    turned = built(data, "full")
    norm = turned.backbone.norm
    mix, _ = torch.linalg.qr(torch.randn(192, 192, generator=torch.Generator().manual_seed(0)))
    norm.register_forward_hook(lambda _, __, tokens: tokens @ mix)
    table = gp.forgetting(turned, probe, data)
    assert table["CKA"].min() > 0.9999 and table.loc["virginia", "difference"] < -0.05


def test_what_is_no_probe_of_the_same_backbone_is_refused(
    data: GeoData, probe: SegmentationModel
) -> None:
    with pytest.raises(gp.GeopeftError, match="not lora"):
        gp.forgetting(probe, built(data, "lora"), data)
    other = gp.build_model(gp.load_backbone("unet", bands=data.bands), data)
    with pytest.raises(gp.GeopeftError, match="different backbones"):
        gp.forgetting(other, probe, data)
