"""Saving, loading, merging, sharing and exporting what was trained."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import geopeft_nb as gp
from geopeft_nb.backbones.vit import join_qkv
from geopeft_nb.datasets.geodata import GeoData
from geopeft_nb.errors import GeopeftError
from geopeft_nb.evaluation.regions import Report
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tuning.adapter_files import save

PEFT_FILES = ["adapter.json", "adapter_config.json", "adapter_model.safetensors"]


@pytest.fixture(scope="module")
def data() -> GeoData:
    return gp.load_data("scenes")


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 6, 64, 64, generator=torch.Generator().manual_seed(0))


def build(data: GeoData, method: str | None = None, **options: object) -> SegmentationModel:
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data).eval()
    return shaken(gp.attach(model, method, **options)) if method else model


def shaken(model: SegmentationModel) -> SegmentationModel:
    """Move what is trainable, as training would."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.02 * torch.randn(weight.shape, generator=noise))
    return model.eval()


def output(model: SegmentationModel, image: Tensor) -> Tensor:
    with torch.no_grad():
        return model(image)


# Saving


def test_lora_is_saved_in_pefts_own_format_with_decoder_and_card(
    data: GeoData, tmp_path: Path
) -> None:
    folder = gp.save_adapter(build(data, "lora"), tmp_path / "adapter")
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*PEFT_FILES, "decoder.safetensors", "model_card.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".adapter.gp.lock", "adapter"]


@pytest.mark.parametrize("method", ["linear_probe", "full", "vit_adapter", "side"])
def test_methods_that_are_not_pefts_save_the_backbone_only_if_they_change_it(
    data: GeoData, tmp_path: Path, image: Tensor, method: str
) -> None:
    model = build(data, method)
    folder = gp.save_adapter(model, tmp_path / "adapter")
    own = [] if method == "linear_probe" else ["backbone.safetensors"]
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["adapter.json", *own, "decoder.safetensors", "model_card.md"]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert 4 * trained <= size <= 4 * trained + 40_000  # float32, headers and batch statistics
    assert torch.equal(output(gp.load_model(folder), image), output(model, image))


def test_only_the_active_adapter_is_saved_whatever_its_name(
    data: GeoData, tmp_path: Path, image: Tensor
) -> None:
    model = build(data, "lora", name="virginia", r=2)
    expected = output(model, image)
    shaken(gp.attach(model, "lora", name="brandenburg", r=4))
    model.use_adapter("virginia")
    folder = gp.save_adapter(model, tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    assert tensors and not any("virginia" in key or "brandenburg" in key for key in tensors)
    assert tensors["base_model.model.blocks.0.mlp.fc1.lora_A.weight"].shape[0] == 2
    again = gp.load_model(folder)
    assert again.adapter == "virginia" and again.method_options == {"r": 2}
    assert torch.equal(output(again, image), expected)


def test_a_folder_alone_gives_the_model_with_its_batch_statistics_and_facts(
    data: GeoData, tmp_path: Path, image: Tensor
) -> None:
    backbone = gp.load_backbone("geopeft_tiny", None, img_size=32, seed=5)
    model = gp.build_model(
        backbone, data, "unet", normalise="dataset", pad=True, channels=(32, 16, 8, 8)
    )
    output(gp.attach(model, "linear_probe").train(), image)
    again = gp.load_model(gp.save_adapter(model.eval(), tmp_path / "adapter"))
    assert torch.equal(output(again, image), output(model, image))
    assert (again.classes, again.pad, again.built_for) == (data.classes, True, model.built_for)


def test_saving_needs_something_attached_and_a_folder_of_its_own(
    data: GeoData, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="has nothing attached"):
        gp.save_adapter(build(data), tmp_path / "adapter")
    folder = gp.save_adapter(model := build(data, "linear_probe"), tmp_path / "adapter")
    torch.nn.init.constant_(next(model.decoder.parameters()), torch.nan)
    with pytest.raises(ValueError, match="no finite real numbers"):
        gp.save_adapter(model, folder)
    gp.load_model(folder)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files"):
        gp.save_adapter(build(data, "linear_probe"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no adapter\.json"):
        gp.load_adapter(build(data), tmp_path)


# The model card


def report_of(method: str) -> Report:
    row = {"method": method, "role": "away", "chips": 7, "places": 3}
    row |= {"mIoU": 0.7512, "low": 0.7, "high": 0.8}
    return Report(pd.DataFrame([row], index=pd.Index(["brandenburg"], name="region")), "a report")


def test_card_says_what_a_user_must_know(data: GeoData, tmp_path: Path) -> None:
    model = build(data, "lora", r=4)
    card = (gp.save_adapter(model, tmp_path / "adapter") / "model_card.md").read_text()
    assert str(model.plain_backbone.provenance["sha256"]) in card
    order = [card.index(f"| {band} |") for band in data.bands]
    assert order == sorted(order) and "| BLUE | 0.071800 | 0.043200 |" in card
    for fact in ("r=4", "adapter: 64,512", data.card.labels, data.card.licence, "virginia"):
        assert fact in card
    assert str(Path.home()) not in card
    assert "Held out: brandenburg" in card and "Not evaluated" in card
    assert "Derived, not chosen by the author" in card


def test_card_tells_scores_and_licence_that_are_given(data: GeoData, tmp_path: Path) -> None:
    model, report = build(data, "linear_probe"), report_of("linear_probe")
    run = SimpleNamespace(model=model, best={"epoch": 3, "val_miou": 0.8123})
    folder = gp.save_adapter(run, tmp_path / "adapter", report=report, licence="CC-BY-4.0")
    card = (folder / "model_card.md").read_text()
    assert "| brandenburg | away | 7 | 3 | 0.751 | 0.700 to 0.800 |" in card
    assert "val_miou 0.8123." in card and "CC-BY-4.0" in card
    assert "Not evaluated" not in card and "Derived" not in card
    with pytest.raises(ValueError, match="report is of 'a report', and the model has lora"):
        gp.save_adapter(build(data, "lora"), tmp_path / "other", report=report)


def test_the_code_of_the_card_gives_the_same_output(
    data: GeoData, tmp_path: Path, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(data, "lora", r=4)
    card = (gp.save_adapter(model, tmp_path / "adapter") / "model_card.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    said: dict[str, SegmentationModel] = {}
    exec(code, said)
    assert torch.equal(output(said["model"], image), output(model, image))


# Loading


def test_a_further_adapter_joins_with_its_decoder_and_can_be_switched(
    data: GeoData, tmp_path: Path, image: Tensor
) -> None:
    other = build(data, "lora", r=2)
    folder = gp.save_adapter(other, tmp_path / "adapter")
    model = build(data, "lora", r=4)
    first = output(model, image)
    for name in (None, "default"):
        with pytest.raises(
            ValueError, match=r"attached already, with adapters \('default',\).*another name="
        ):
            gp.load_adapter(model, folder, name=name)
    gp.load_adapter(model, folder, name="second").eval()
    assert model.adapters == ("default", "second") and model.adapter == "second"
    assert torch.equal(output(model, image), output(other, image))
    assert torch.equal(output(model.use_adapter("default"), image), first)


def change(folder: Path, **facts: object) -> None:
    about = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps(about | facts))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"backbone": "prithvi_eo_v2_300"}, r"prithvi_eo_v2_300, and the model has geopeft_tiny\."),
        ({"weights": "0123"}, r"saved for weights 0123, and .* gp\.load_model\(.* by weights="),
        (
            {"bands": ["GREEN", "BLUE", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]},
            r"for bands \['GREEN', 'BLUE', .* has \['BLUE', 'GREEN', ",
        ),
        (
            {"classes": ["land", "water", "cloud"]},
            r"'water', 'cloud'\], and the model has \['land'",
        ),
        ({"decoder": "unet"}, r"saved for decoder unet, .*has linear"),
        ({"gsd": 30.0}, r"gsd 30\.0, and the model has None\. gp\.load_model\("),
        ({"frames": 3}, r"frames 3, and the model has 1"),
        ({"method": "lorra"}, "Did you mean 'lora'"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would_work_and_nothing_is_changed(
    data: GeoData, tmp_path: Path, facts: dict[str, object], message: str
) -> None:
    folder = gp.save_adapter(build(data, "lora"), tmp_path / "adapter")
    change(folder, **facts)
    model = build(data)
    before, modules = model.backbone, [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        gp.load_adapter(model, folder)
    assert model.backbone is before and model.method is None
    assert [type(module) for module in model.modules()] == modules


def test_a_file_that_does_not_fit_leaves_the_model_as_it_was(data: GeoData, tmp_path: Path) -> None:
    folder = gp.save_adapter(build(data, "lora"), tmp_path / "adapter")
    model, file = build(data), folder / "adapter_model.safetensors"
    about = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    about["files"] = {}  # no checksum tells first
    (folder / "adapter.json").write_text(json.dumps(about), encoding="utf-8")
    gp.load_model(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        gp.load_adapter(model, folder)
    file.write_bytes(whole)
    config = folder / "adapter_config.json"
    kept = config.read_text(encoding="utf-8")
    config.write_text(kept.replace('"r": 16', '"r": 8'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"lacks .*lora_A.weight'.* and has .*lora_A.weight'"):
        gp.load_adapter(model, folder)
    config.write_text(kept, encoding="utf-8")
    tensors = load_file(file)
    tensors.pop("base_model.model.blocks.0.mlp.fc1.lora_A.weight")
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"lacks .*base_model\.model\.blocks\.0\.mlp\.fc1\.lora_A"):
        gp.load_adapter(model, folder)
    file.unlink()
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors .*\(FileNotFoundError"):
        gp.load_adapter(model, folder)
    file.write_bytes(whole)
    (folder / "adapter.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="This adapter is damaged"):
        gp.load_adapter(model, folder)
    assert model.method is None


@pytest.mark.parametrize("name", [*PEFT_FILES[1:], "decoder.safetensors"])
def test_a_file_of_another_save_or_a_damaged_one_is_refused(
    data: GeoData, tmp_path: Path, name: str
) -> None:
    folders = [gp.save_adapter(build(data, "lora", r=r), tmp_path / str(r)) for r in (2, 4)]
    file, other = (folder / name for folder in folders)
    damaged = bytearray(file.read_bytes())
    damaged[-3] ^= 1
    for content in (other.read_bytes(), bytes(damaged), damaged[:-1], None):
        file.unlink() if content is None else file.write_bytes(content)
        model = build(data)
        with pytest.raises(GeopeftError, match=rf"is damaged: {name} is missing, or not the file"):
            gp.load_adapter(model, folders[0])
        assert model.method is None


# Merging


def test_merging_keeps_the_output_and_leaves_a_plain_backbone(
    data: GeoData, tmp_path: Path, image: Tensor
) -> None:
    plain, model = build(data), build(data, "lora")
    expected = output(model, image)
    with pytest.raises(ValueError, match=r"has nothing attached.* Methods that merge: lora, "):
        gp.merge(plain)
    assert gp.merge(model) is model
    assert model.method == "merged lora" and model.adapter is None and not model.adapters
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert torch.allclose(output(model, image), expected, atol=1e-5)  # float32 rounding
    assert not torch.allclose(output(plain, image), expected, atol=1e-2)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    with pytest.raises(ValueError, match="save_adapter before merge"):
        gp.save_adapter(model, tmp_path / "adapter")
    with pytest.raises(ValueError, match="has merged lora attached"):
        gp.merge(model)
    with pytest.raises(ValueError, match="'merged lora' is attached already"):
        gp.attach(model, "lora")
    with pytest.raises(ValueError, match="This is a merged lora model"):
        gp.fit(model, data)
    with pytest.raises(ValueError, match="nothing to take off"), model.without_adapter():
        pass


@pytest.mark.parametrize("method", ["lora", "dora", "ln_tuning", "bitfit"])
def test_an_adapter_that_is_disabled_at_the_moment_merges_too(
    data: GeoData, image: Tensor, method: str
) -> None:
    model = build(data, method)
    expected = output(model, image)
    with model.without_adapter():
        gp.merge(model)
    assert torch.allclose(output(model, image), expected, atol=1e-5)  # float32 rounding


@pytest.mark.filterwarnings("ignore:.*never saw")
def test_merging_moves_no_batch_statistics_and_keeps_the_mode(data: GeoData) -> None:
    backbone = gp.load_backbone("timm:resnet18", None, bands=data.bands)
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "running" in k}
    model = shaken(gp.attach(gp.build_model(backbone, data), "bitfit")).train()
    gp.merge(model)
    assert model.training and model.decoder.training and not model.backbone.training
    output(model, torch.rand(2, 6, 64, 64))
    assert before and all(torch.equal(model.backbone.state_dict()[k], v) for k, v in before.items())


def test_merging_one_of_several_adapters_says_that_the_others_go(
    data: GeoData, image: Tensor
) -> None:
    model = build(data, "lora", name="virginia")
    expected = output(shaken(gp.attach(model, "lora", name="brandenburg")), image)
    with pytest.warns(UserWarning, match="Merging brandenburg drops virginia"):
        gp.merge(model)
    assert torch.allclose(output(model, image), expected, atol=1e-5)


# Sharing


class FakeHub:
    """Keeps in a folder what is pushed, and gives it back."""

    folder: Path
    made: list[tuple[str, bool]]

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
        FakeHub.made.append((repo_id, private))

    def create_commit(
        self, repo_id: str, operations: list[huggingface_hub.CommitOperationAdd], **rest: object
    ) -> SimpleNamespace:
        for operation in operations:
            with operation.as_file() as file:
                (FakeHub.folder / operation.path_in_repo).write_bytes(file.read())
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")


def fake_snapshot(repo_id: str, revision: str | None, allow_patterns: list[str]) -> str:
    if (repo_id, revision) != ("me/water", "v1"):
        raise OSError("no such repository")
    assert all("*" not in pattern and not pattern.endswith(".bin") for pattern in allow_patterns)
    return str(FakeHub.folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    FakeHub.folder, FakeHub.made = tmp_path / "hub", []
    FakeHub.folder.mkdir()
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake_snapshot)
    return FakeHub.folder


def test_an_adapter_goes_to_the_hub_and_comes_back(
    data: GeoData, tmp_path: Path, image: Tensor, hub: Path
) -> None:
    model = build(data, "lora")
    folder = gp.save_adapter(model, tmp_path / "adapter")
    for name in ("history.csv", "backbone.safetensors"):  # the latter is none of its files
        (folder / name).write_text("stays at home")
    assert gp.push_adapter(folder, "me/water") == "https://huggingface.co/me/water/commit/1"
    assert FakeHub.made == [("me/water", True)]
    files = sorted(path.name for path in hub.iterdir())
    assert files == ["README.md", *PEFT_FILES, "decoder.safetensors"]
    readme = (hub / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: geopeft_nb\n")
    assert (folder / "model_card.md").read_text() == readme
    for name in ("me/water", "hub:me/water"):
        again = gp.load_model(name, revision="v1")
        assert torch.equal(output(again, image), output(model, image))


def test_what_fit_wrote_is_pushed_with_a_card_but_no_link(
    data: GeoData, tmp_path: Path, hub: Path
) -> None:
    folder = save(build(data, "lora"), tmp_path / "run", {"val_miou": 0.8123})
    gp.push_adapter(folder, "me/water")
    assert "val_miou 0.8123" in (hub / "README.md").read_text()
    for name in ("model_card.md", "decoder.safetensors"):
        moved = (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(moved)
        with pytest.raises(GeopeftError, match=rf"{name}.*is a link"):
            gp.push_adapter(folder, "me/water")
        moved.replace(folder / name)


def test_a_repository_that_is_not_there_is_named(data: GeoData, tmp_path: Path, hub: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder 'me/fire' here, and https://.*me/fire"):
        gp.load_adapter(build(data), "me/fire")
    with pytest.raises(FileNotFoundError, match=r"adapter\.json"):
        gp.push_adapter(tmp_path, "me/water")


# Exports


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "vpt"])
def test_onnx_gives_the_same_logits_for_any_number_of_images(
    data: GeoData, tmp_path: Path, method: str
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    model = build(data, method).train()
    if method == "lora":
        gp.merge(model)
    file = gp.export_onnx(model, tmp_path / "model.onnx", size=32)
    assert model.training and [path.name for path in tmp_path.glob("[!.]*")] == ["model.onnx"]
    session = runtime.InferenceSession(str(file))
    assert session.get_modelmeta().custom_metadata_map["bands"] == ", ".join(data.bands)
    for batch in (1, 3):
        images = torch.rand(batch, 6, 32, 32)
        (logits,) = session.run(None, {"image": images.numpy()})
        # Two libraries add up float32 numbers in another order.
        assert np.abs(logits - output(model.eval(), images).numpy()).max() <= 1e-4


def test_exports_ask_for_a_merge_first(data: GeoData, tmp_path: Path) -> None:
    model = build(data, "lora")
    for export in (gp.export_onnx, gp.export_terratorch):
        with pytest.raises(ValueError, match=r"carries lora.* Call gp\.merge\(model\) first"):
            export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*never saw")
def test_terratorch_takes_only_what_it_can_build(data: GeoData, tmp_path: Path) -> None:
    backbone = gp.load_backbone("timm:resnet18", None, bands=data.bands)
    model = gp.attach(gp.build_model(backbone, data), "linear_probe")
    for unfit in (model, build(data, "vpt")):
        with pytest.raises(ValueError, match="takes geopeft_tiny and every prithvi_eo backbone"):
            gp.export_terratorch(unfit, tmp_path / "model")


@pytest.mark.parametrize("decoder", ["linear", "fcn", "unet", "upernet"])
def test_terratorch_loads_the_export_strictly_and_gives_the_same_logits(
    data: GeoData, tmp_path: Path, image: Tensor, decoder: str
) -> None:
    import yaml

    backbone = gp.load_backbone("geopeft_tiny")
    model = gp.build_model(backbone, data, decoder=decoder, normalise="dataset")
    gp.merge(shaken(gp.attach(model, "lora")))
    output(model.train(), image)  # batch statistics other than zero and one
    model.eval()
    folder = gp.export_terratorch(model, tmp_path / "model")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    state = torch.load(folder / "state_dict.ckpt", weights_only=True)["state_dict"]
    assert config["bands"] == list(data.bands) and len(state) > len(join_qkv(backbone.state_dict()))
    models = pytest.importorskip("terratorch.models", reason="TerraTorch is not installed")
    arguments = config["model"]["init_args"]["model_args"]
    theirs: nn.Module = models.EncoderDecoderFactory().build_model("segmentation", **arguments)
    theirs.load_state_dict(state, strict=True)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("means", "stds"))
    with torch.no_grad():
        logits = theirs.eval()((image - mean) / std).output
    assert torch.allclose(logits, output(model, image), atol=1e-4)  # float32 rounding
