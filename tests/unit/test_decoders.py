"""Decoders: sizes, gradients, options; and the tasks besides segmentation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error, r2_score
from torch import Tensor, nn

import geopeft_nb as gp
from geopeft_nb.backbones.base import Backbone
from geopeft_nb.datasets.augment import turn_and_mirror
from geopeft_nb.datasets.base import Chip, ChipDataset
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.datasets.scenes import CARD
from geopeft_nb.decoders.four_maps import resize
from geopeft_nb.decoders.load import CARDS, build_decoder
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tasks import TASKS
from geopeft_nb.training.run import Run

PIXELS = [name for name, card in CARDS.items() if card.target == "mask"]
#: A plain transformer, whose maps are all of one size, and a network with stages.
KINDS = ["geopeft_tiny", "timm:resnet18"]

pytestmark = pytest.mark.filterwarnings("ignore:.*never saw")


@pytest.fixture(scope="module")
def data() -> GeoData:
    return gp.load_data("scenes")


def load(name: str, data: GeoData, **options: object) -> Backbone:
    return gp.load_backbone(name, None, bands=data.bands, **options)


class Maps(nn.Module):
    """Stands in for a backbone: its maps are averages of the image, in its own strides."""

    def __init__(self, strides: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.strides, self.channels = strides, (width,) * len(strides)
        self.patch_size = strides[-1]

    def check_input(self, image: Tensor) -> Tensor:
        return image[:, :, None]

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = []
        for stride, width in zip(self.strides, self.channels, strict=True):
            bottom, right = (-side % stride for side in image.shape[-2:])
            padded = nn.functional.pad(image, (0, right, 0, bottom), mode="replicate")
            mean = nn.functional.avg_pool2d(padded, stride)
            maps.append(mean.expand(-1, width, -1, -1))
        return maps


def model_of(backbone: nn.Module, decoder: nn.Module) -> SegmentationModel:
    model = SegmentationModel(backbone, "linear", {}, torch.zeros(1), torch.ones(1), ("a", "b"))
    model.decoder = decoder
    return model


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("decoder", PIXELS)
def test_logits_have_the_size_of_the_image_and_every_weight_learns(
    decoder: str, name: str, data: GeoData
) -> None:
    model = gp.build_model(load(name, data), data, decoder=decoder)
    model.eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 6, 97, 131)).shape == (1, 2, 97, 131)
    model.train()
    torch.manual_seed(0)
    logits = model(torch.rand(2, 6, 64, 64))
    assert logits.shape == (2, 2, 64, 64)
    if decoder == "upernet":
        with pytest.raises(ValueError, match=r"batch_size of 2 or more, or take decoder='unet'"):
            model(torch.rand(1, 6, 64, 64))
    logits.square().mean().backward()
    weights = dict(model.decoder.named_parameters())
    assert weights
    without = [n for n, p in weights.items() if p.grad is None or not p.grad.abs().max() > 0]
    # Batch norm takes the mean off again, and with it any bias of the layer before it.
    assert [n for n in without if not n.endswith("fpn1.0.bias")] == []
    assert all(p.grad is not None for p in weights.values())


@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("decoder", PIXELS)
def test_any_patch_size_and_any_image_work(decoder: str, patch: int) -> None:
    backbone = Maps((patch,) * 4)
    model = model_of(backbone, build_decoder(decoder, backbone, 2)).eval()
    for size in ((97, 131), (patch, patch), (3 * patch, 5 * patch - 1)):
        with torch.no_grad():
            assert model(torch.rand(1, 1, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize(("covers", "stride"), [(0, 4), (-1, 32)])
def test_what_a_map_shows_stays_where_it_is_on_the_ground(covers: int, stride: int) -> None:
    """Cells hold the column of their centre, so between centres each pixel must get its own."""
    pick = nn.Identity()  # a decoder that returns one of the maps as it is
    pick.covers, pick.forward = covers, lambda features: features[covers]  # type: ignore[assignment]
    model = model_of(Maps((4, 8, 16, 32), width=1), pick)
    column = torch.arange(131.0).expand(1, 1, 97, 131)
    shown = model(column)[0, 0, 50, stride // 2 : 95]  # the right border is padded
    assert torch.allclose(shown, column[0, 0, 50, stride // 2 : 95], atol=1e-4)


def test_a_plain_transformer_gives_the_maps_of_its_quarters_only_where_four_are_needed(
    data: GeoData,
) -> None:
    backbone = load("geopeft_tiny", data)
    assert gp.build_model(backbone, data, decoder="fcn").backbone.layers == (5,)
    model = gp.build_model(backbone, data, decoder="unet")
    assert model.backbone.layers == (0, 2, 3, 5)
    assert model.decoder.pyramid.channels == (48, 96, 192, 192)
    with torch.device("meta"):
        vit = load("timm:vit_tiny_patch16_224", data)
        stages = gp.build_model(load("timm:resnet18", data), data, decoder="unet", pad=True)
        assert gp.build_model(vit, data, decoder="upernet").backbone.layers == (2, 5, 8, 11)
    assert stages.decoder.pyramid is None


def test_layers_that_the_user_chose_are_never_overruled(data: GeoData) -> None:
    four = load("geopeft_tiny", data, layers=[1, 2, 4, 5])
    assert gp.build_model(four, data, decoder="unet").backbone.layers == (1, 2, 4, 5)
    two = load("geopeft_tiny", data, layers=[2, 5])
    with pytest.raises(ValueError, match=r"layers=\[2, 5\]\. Use .*layers=\[0, 2, 3, 5\]"):
        gp.build_model(two, data, decoder="unet")
    assert two.layers == (2, 5)
    stages = load("timm:resnet18", data, layers=[2, 3])
    with pytest.raises(ValueError, match=r"and timm:resnet18 gives 2.*Use decoder='fcn'"):
        gp.build_model(stages, data, decoder="upernet", pad=True)


def test_decoders_are_as_wide_as_the_papers_but_not_wider_than_the_backbone(data: GeoData) -> None:
    def widths(backbone: nn.Module, name: str) -> list[int]:
        body = build_decoder(name, backbone, 2).body
        if name == "unet":
            return [block.conv2[0].out_channels for block in body.decoder.blocks]
        return [body.out_channels]

    with torch.device("meta"):
        wide, narrow = Maps((16,) * 4, width=768), Maps((16,) * 4, width=192)
        assert widths(wide, "unet") == [512, 256, 128, 64]
        assert widths(narrow, "unet") == [192, 192, 128, 64]
        assert (widths(wide, "fcn"), widths(narrow, "fcn")) == ([512], [192])
        assert (widths(wide, "upernet"), widths(narrow, "upernet")) == ([256], [192])
        doublings = {
            patch: len(build_decoder("fcn", Maps((patch,), 32), 2).body.convs)
            for patch in (4, 8, 14, 16, 32)
        }
    assert doublings == {4: 2, 8: 3, 14: 4, 16: 4, 32: 5}


def test_options_reach_the_decoder_and_a_new_one_has_them_too(data: GeoData) -> None:
    model = gp.build_model(load("geopeft_tiny", data), data, decoder="fcn", channels=24, convs=2)
    assert (model.decoder_name, model.decoder_options) == ("fcn", {"channels": 24, "convs": 2})
    again, other = model.new_decoder(0), model.new_decoder(1)
    shapes = {key: value.shape for key, value in model.decoder.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes
    weight = "body.convs.0.0.weight"
    assert torch.equal(again.state_dict()[weight], model.decoder.state_dict()[weight])
    assert not torch.equal(other.state_dict()[weight], again.state_dict()[weight])
    linear = gp.build_model(load("geopeft_tiny", data), data, kernel=16)
    assert linear.decoder.conv.kernel_size == (16, 16)
    assert linear(torch.zeros(1, 6, 64, 64)).shape == (1, 2, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "unt"}, "Did you mean 'unet'"),
        ({"decoder": "unet", "width": 4}, "option of decoder 'unet' 'width'.*channels"),
        ({"decoder": "linear", "channels": 4}, "option of decoder 'linear' 'channels'.*kernel"),
        ({"normalize": "dataset"}, "Did you mean 'normalise'"),
        ({"normalise": "datset"}, "Did you mean 'dataset'"),
        ({"decoder": "unet", "channels": (64, 32)}, "channels takes 4 whole numbers"),
        ({"decoder": "classify"}, "decoder for segmentation 'classify'.* Known: fcn, linear, unet"),
    ],
)
def test_bad_requests_say_what_would_work(
    data: GeoData, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gp.build_model(load("geopeft_tiny", data), data, **options)


def test_decoders_are_listed_with_options_and_paper() -> None:
    table = gp.list_decoders()
    assert list(table.index) == ["linear", "fcn", "unet", "upernet", "classify"]
    assert table.loc["unet", "maps"] == 4
    assert "512, 256, 128, 64" in table.loc["unet", "options"]


def bright(task: str, classes: tuple[str, ...], count: int = 24) -> GeoData:
    """Make 16 px chips: the left half is darker or not, the right half too."""

    def chip(index: int) -> Chip:
        dark = np.array([index % 2, index // 2 % 2])
        field = np.repeat(dark, 8)[None].repeat(16, axis=0)  # (16, 16)
        rng = np.random.default_rng(index)
        image = (0.3 - 0.2 * field + rng.normal(0, 0.01, (6, 16, 16))).astype(np.float32)
        field = field.astype(np.float32)
        field[:4] = np.nan  # not known
        target = {
            "classification": np.int64(dark.sum()),
            "multilabel": np.array([dark.any(), not dark.all()], dtype=np.int64),
            "regression": field if len(classes) == 1 else np.stack([field, 1 - field]),
        }[task]
        return Chip(f"chip-{index}", "virginia", f"p{index}", lambda: (image, target))

    card = replace(CARD, task=task, classes=classes, colours=("#000000",) * len(classes))
    parts = [
        ChipDataset([chip(i) for i in range(start, count, 3)], classes, -1, task)
        for start in range(3)
    ]
    return GeoData(*parts, {}, card, CARD.bands, ("virginia",), 16)


EXAMPLES = {
    "classification": (("none", "one", "both"), "classify", "val_accuracy", 0.9),
    "multilabel": (("dark", "bright"), "classify", "val_f1", 0.9),
    "regression": (("darkness",), "linear", "val_r2", 0.5),
}


@pytest.fixture(scope="module", params=EXAMPLES)
def trained(request: pytest.FixtureRequest) -> tuple[str, GeoData, Run]:
    classes, decoder, _, _ = EXAMPLES[request.param]
    data = bright(request.param, classes)
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder=decoder)
    model = gp.attach(model, "linear_probe")
    return request.param, data, gp.fit(model, data, epochs=15, lr=2e-2, dashboard=False)


def test_each_task_is_learnt_and_scored_in_its_own_words(
    trained: tuple[str, GeoData, Run], capsys: pytest.CaptureFixture
) -> None:
    task, data, run = trained
    _, _, column, enough = EXAMPLES[task]
    assert run.model.task == data.task == task
    assert list(run.history)[-1] == column
    assert run.best[column] == run.history[column].max() > enough
    assert run.history.train_loss.iloc[-1] < 0.7 * run.history.train_loss.iloc[0]
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder=EXAMPLES[task][1])
    gp.fit(gp.attach(model, "linear_probe"), data, epochs=1, dashboard=True)
    printed = capsys.readouterr().out
    assert f"validation {TASKS[task].title}" in printed and "mIoU" not in printed


def test_each_task_is_evaluated_in_its_own_columns(trained: tuple[str, GeoData, Run]) -> None:
    task, data, run = trained
    column, more, limits = {
        "classification": ("accuracy", ["F1 none", "F1 one", "F1 both"], "0-1"),
        "multilabel": ("F1", ["F1 dark", "F1 bright"], "0-1"),
        "regression": ("R²", ["RMSE"], "1 at best"),
    }[task]
    report = gp.evaluate(run, data)
    first = ["method", "role", "chips", "places"]
    assert list(report.table) == [*first, column, "low", "high", *more]
    row = report.table.loc["virginia"]
    assert row["low"] <= row[column] <= row["high"] and row["places"] == 8
    # The scores of the report are those of all chips put together, by scikit-learn.
    samples = [data.test[index] for index in range(len(data.test))]
    truth = np.stack([s["mask" if task == "regression" else "label"].numpy() for s in samples])
    guess = np.stack(run.predict(samples)).reshape(truth.shape)
    if task == "regression":
        known = np.isfinite(truth)
        truth, guess = truth[known], guess[known]
        expected = [r2_score(truth, guess), mean_squared_error(truth, guess) ** 0.5]
    else:
        each = f1_score(truth, guess, average=None)
        mean = accuracy_score(truth, guess) if task == "classification" else each.mean()
        expected = [mean, *each]
    assert row[[column, *more]].tolist() == pytest.approx(expected, abs=1e-5)
    assert report.plot().axes[0].get_xlabel().startswith(f"{column} ({limits})")
    same = report.compare(report).loc["virginia"]
    assert same.tolist() == [0.0, 0.0, 0.0]


def test_what_a_run_cannot_do_is_refused(trained: tuple[str, GeoData, Run]) -> None:
    task, data, run = trained
    with pytest.raises(ValueError, match=f"shows a class for each pixel, .* is for {task}"):
        gp.map_regions(run, data)
    other = replace(data, card=replace(data.card, task="segmentation"))
    with pytest.raises(ValueError, match=f"built for the task {task}, and .* has segmentation"):
        gp.evaluate(run, other)
    with pytest.raises(ValueError, match=f"built for the task {task}, and .* has segmentation"):
        gp.fit(run.model, other)


def test_the_model_card_of_each_task_has_its_score(
    trained: tuple[str, GeoData, Run], tmp_path: Path
) -> None:
    _, data, run = trained
    report = gp.evaluate(run, data)
    card = gp.save_adapter(run, tmp_path / "adapter", report) / "model_card.md"
    assert f"| {report.score} | 95 % interval |" in card.read_text()


def test_pixels_that_are_not_known_teach_nothing() -> None:
    card = TASKS["regression"]
    output = torch.zeros(1, 1, 2, 2, requires_grad=True)
    target = torch.tensor([[[1.0, float("nan")], [3.0, float("inf")]]])
    loss = card.loss(output, target, -1)
    loss.backward()
    assert loss.item() == 5.0  # (1 + 9) / 2
    assert output.grad.flatten().tolist() == [-1.0, 0.0, -3.0, 0.0]
    assert card.loss(output, torch.full((1, 2, 2), float("nan")), -1).item() == 0.0


def test_labels_stay_and_masks_of_numbers_turn_with_the_image() -> None:
    torch.manual_seed(0)
    image = torch.rand(6, 3, 5, 5)
    turned, masks = turn_and_mirror(image, image[:, :2].clone())
    assert torch.equal(turned[:, :2], masks) and not torch.equal(turned, image)
    for labels in (torch.arange(6), torch.arange(12).view(6, 2)):
        assert torch.equal(turn_and_mirror(image, labels)[1], labels)


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        ("classification", np.int64(7), r"label of chip 'odd' has unknown values \[7\]"),
        ("classification", np.zeros(2, np.int64), r"a label of \(2,\) instead of \(\)"),
        ("multilabel", np.array([0, 2]), r"has unknown values \[2\], not {0: 'absent'"),
        ("multilabel", np.zeros(3, np.int64), r"a label of \(3,\) instead of \(2,\)"),
        ("regression", np.zeros((3, 8, 8), np.float32), r"of \(3, 8, 8\) instead of \(2, 8"),
    ],
)
def test_unfit_targets_are_named(task: str, target: np.ndarray, message: str) -> None:
    image = np.zeros((6, 8, 8), np.float32)
    chips = ChipDataset([Chip("odd", "r", "p", lambda: (image, target))], ("a", "b"), -1, task)
    with pytest.raises(ValueError, match=message):
        chips[0]


def test_maps_are_resized_in_float32_under_autocast_as_on_a_gpu() -> None:
    coarse, fine = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16), torch.ones(1, 1, 4, 4)
    assert resize(coarse, fine).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert resize(coarse, fine).dtype == torch.float32
