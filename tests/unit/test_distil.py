"""Learning from a teacher: what the student is asked, and that turns keep pairs together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distil import GalileoTeacher, Student, TeacherBank  # of data/models
from masked_autoencoder import MaskedAutoencoder
from pretrain import blend
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

import geopeft_nb as gp


def patch_means(image: Tensor) -> Tensor:
    """A teacher that sees the mean of each band in each patch: (B, N, C)."""
    return functional.avg_pool2d(image, 8).flatten(2).transpose(1, 2)


@pytest.fixture
def bank() -> TeacherBank:
    torch.manual_seed(0)
    return TeacherBank(lambda count: torch.rand(count, 6, 32, 32), patch_means, 100)


def student(features: int) -> Student:
    encoder = gp.load_backbone("geopeft_tiny", weights=None, img_size=32)
    return Student(MaskedAutoencoder(encoder, 6, (32, 1, 2)), features)


def test_crops_and_the_teachers_answers_turn_together(bank: TeacherBank) -> None:
    chance = torch.Generator().manual_seed(1)
    for _ in range(8):  # several turns and mirrors
        images, features = bank.batch(4, chance)
        again = patch_means(images)
        for band in range(6):  # features are standardised: a straight line of what they were
            pair = torch.stack([features[..., band].flatten(), again[..., band].flatten()])
            assert torch.corrcoef(pair)[0, 1] > 0.999


def test_features_are_standardised_over_the_bank(bank: TeacherBank) -> None:
    std, mean = torch.std_mean(bank.features.float().flatten(0, 1), dim=0)
    assert mean.abs().max() < 1e-3 and (std - 1).abs().max() < 1e-2


def test_visible_tokens_answer_for_their_own_patches(bank: TeacherBank) -> None:
    model = student(6)
    seen_order = []

    def answer(tokens: Tensor) -> Tensor:
        return seen_order[0]

    images, features = bank.batch(3, torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    _, restore, _ = model.autoencoder.encode(images[:, :, None], 0.5)
    order = restore.argsort(dim=1)[:, :8]
    seen_order.append(features.gather(1, order[..., None].expand(-1, -1, 6)))
    model.head.forward = answer  # type: ignore[method-assign]
    torch.manual_seed(5)  # the same patches are hidden
    pixels, wrong = model(images[:, :, None], features, 0.5)
    assert wrong == 0 and pixels > 0


def test_without_hidden_patches_only_the_teacher_counts(bank: TeacherBank) -> None:
    model = student(6)
    images, features = bank.batch(3, torch.Generator().manual_seed(0))
    pixels, wrong = model(images[:, :, None], features, 0.0)
    assert pixels == 0
    wrong.backward()
    assert model.autoencoder.encoder.patch_embed.proj.weight.grad.abs().max() > 0
    assert model.autoencoder.decoder.decoder_pred.weight.grad is None


@pytest.mark.mirror
def test_galileo_gives_features_for_each_patch_of_the_student(mirror: Path) -> None:
    teacher = GalileoTeacher(gp.load_backbone("geopeft_tiny", weights=None).bands)
    answers = teacher(torch.rand(2, 6, 64, 64))
    assert answers.shape == (2, 64, 256)
    assert answers.isfinite().all() and answers.std() > 0


def test_blended_weights_lie_between_their_two_files_and_keep_the_record(tmp_path: Path) -> None:
    for name, value in (("first", 0.0), ("second", 1.0)):
        save_file({"weight": torch.full((3,), value)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "second.json").write_text('{"stages": [{"steps": 7}]}')
    out = tmp_path / "out.safetensors"
    blend(tmp_path / "first.safetensors", tmp_path / "second.safetensors", 0.25, out)
    assert load_file(out)["weight"].tolist() == [0.25] * 3
    record = json.loads(out.with_suffix(".json").read_text())
    assert record == {"stages": [{"steps": 7}], "share_of_last_stage": 0.25}


def test_the_script_that_made_what_ships_still_runs(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.safetensors"
    command = [sys.executable, root / "data/models/pretrain.py", "--steps", "2", "--out", out]
    options = ["--batch-size", "2", "--without", "hls_water", "eurosat_ms"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    assert gp.load_backbone("geopeft_tiny", weights=out).state_dict().keys()
    assert json.loads(out.with_suffix(".json").read_text())["stages"][0]["steps"] == 2
