"""A user's files: what is written is old or new, whole, and nothing else is touched."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest
from test_fit import few, train

import geopeft_nb as gp
from geopeft_nb import sharing
from geopeft_nb.errors import GeopeftError
from geopeft_nb.models import SegmentationModel
from geopeft_nb.training.resume import checkpoint_path
from geopeft_nb.tuning.adapter_files import OWN
from geopeft_nb.writing import held

#: What writes -> the state before and after.
DOORS = {
    "save": ("lora", "linear_probe"), "fit": ("linear_probe", "lora"), "first": ("none", "lora"),
    "terratorch": ("linear", "fcn"), "checkpoint": ("old", "new"), "onnx": ("old", "new"),
}  # fmt: skip


class Told(NamedTuple):
    """Where each door was tried, and what was said of it."""

    folder: Path
    lines: dict[str, list[Any]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Run what is killed, each door by a child of one process, in the locale C; see there."""
    file, folder = Path(__file__).with_name("killed_writes.py"), tmp_path_factory.mktemp("killed")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, str(file), str(folder), *DOORS, "saves", "fits", "names"],
        capture_output=True, text=True, encoding="utf-8",
        env=os.environ | plain | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines: dict[str, list[Any]] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        if "begins" in line:
            lines[line["begins"]] = []
        else:
            [*lines.values()][-1].append(line)
    return Told(folder, lines)


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_a_kill_at_any_moment_and_a_full_disk_leave_the_old_or_the_new_state(
    told: Told, door: str
) -> None:
    *said, facts = told.lines[door]
    old, new = DOORS[door]
    assert (facts["was"], facts["now"]) == (old, new) and facts["kills"] >= 10
    assert facts["left"] == sorted([old, new])  # after a kill
    assert facts["again"] == sorted([new, "goes on"])  # after the next attempt, nothing else left
    assert facts["filled"] == [[3, old]]  # refused in words, with nothing changed
    assert all("refused" in line for line in said), said


@pytest.mark.slow
@pytest.mark.parametrize("door", ["saves", "fits"])
def test_of_two_that_write_to_one_place_each_is_whole_or_told_who_has_it(
    told: Told, door: str
) -> None:
    refused = [line["refused"] for line in told.lines[door] if "refused" in line]
    rounds = [line for line in told.lines[door] if "ended" in line]
    assert len(rounds) == 10
    assert all(line["ended"] in ([0, 0], [0, 3]) and line["whole"] for line in rounds), rounds
    assert all(" is in use by process " in text for text in refused), refused
    assert refused or door == "saves"  # two runs always overlap


def model(method: str | None = "linear_probe", **names: Any) -> SegmentationModel:
    built = gp.build_model(gp.load_backbone("geopeft_tiny"), few(), **names)
    return gp.attach(built, method) if method else built


WRITES: dict[str, Callable[[Path], object]] = {
    "save_adapter": lambda out: gp.save_adapter(model(), out),
    "fit": lambda out: train(few(), "linear_probe", epochs=1, out=out),
    "export_terratorch": lambda out: gp.export_terratorch(model(), out),
}


@pytest.mark.parametrize("door", WRITES)
@pytest.mark.parametrize("linked", [False, True])
def test_all_that_is_not_ours_stays(tmp_path: Path, door: str, linked: bool) -> None:
    out = tmp_path / "out"
    if linked:
        (tmp_path / "elsewhere").mkdir()
        out.symlink_to("elsewhere")
    WRITES[door](out)
    ours = {path.name for path in out.iterdir()}
    theirs = [out / "notes.txt", out / "sub" / "deep" / "a.tif", out / ".new-ideas" / "x"]
    theirs += [tmp_path / "out.part" / "thesis.txt", out.resolve().with_name(".out.lock")]
    for file in theirs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("years of work", encoding="utf-8")
    WRITES[door](out)
    assert all(file.read_text(encoding="utf-8") == "years of work" for file in theirs)
    assert {path.name for path in out.iterdir()} == ours | {"notes.txt", "sub", ".new-ideas"}
    assert out.is_symlink() == linked


@pytest.mark.parametrize("door", WRITES)
def test_a_place_that_is_something_else_is_refused(tmp_path: Path, door: str) -> None:
    file, folders = tmp_path / "file", [tmp_path / name for name in ("adapter.json", "config.yaml")]
    file.write_text("years of work", encoding="utf-8")
    for folder in folders:  # a name that is ours as well
        folder.mkdir()
        (folder / folder.name).write_text("years of work", encoding="utf-8")
    for place in (file, *folders, file / "below"):
        with pytest.raises(GeopeftError):
            WRITES[door](place)
    assert file.read_text(encoding="utf-8") == "years of work"
    WRITES[door](tmp_path / "ours")
    name = "config.yaml" if door == "export_terratorch" else "decoder.safetensors"
    (tmp_path / "ours" / name).unlink()
    (tmp_path / "ours" / name / "sub").mkdir(parents=True)
    with pytest.raises(GeopeftError, match=rf"holds \['{name}'\]"):
        WRITES[door](tmp_path / "ours")
    assert (tmp_path / "ours" / name / "sub").is_dir()


@pytest.mark.parametrize(
    ("door", "what"), [*((door, "folder") for door in WRITES), ("fit", "checkpoint")]
)
def test_a_place_that_another_process_holds_is_refused_at_once(
    tmp_path: Path, door: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, (told, tell), (never, _) = tmp_path / "out", os.pipe(), os.pipe()
    wanted = out if what == "folder" else checkpoint_path(out)
    monkeypatch.setattr("lightning.Trainer.fit", lambda *_, **__: pytest.fail("it trains"))
    if not (child := os.fork()):
        with held(wanted):
            os.write(tell, b"x")
            os.read(never, 1)  # until it is killed
    os.read(told, 1)
    with pytest.raises(GeopeftError, match=rf"{wanted.name} is in use by process {child} on "):
        WRITES[door](out)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert not (out.exists() and any(out.iterdir()))
    with held(wanted):  # the system has freed it
        pass


def test_what_is_saved_over_another_adapter_leaves_no_file_of_it(tmp_path: Path) -> None:
    for method in ("lora", "full", "linear_probe"):
        train(few(), method, epochs=1, out=tmp_path / "out")
        names = {path.name for path in (tmp_path / "out").iterdir()}
        kinds = {"lora": {"adapter_config.json", "adapter_model.safetensors"}}
        own = kinds.get(method, {"backbone.safetensors"} if method == "full" else set())
        own |= {"adapter.json", "decoder.safetensors", "history.csv", "trained.json"}
        assert names - {"reference.safetensors"} == own
        assert names <= {*OWN} and gp.load_model(tmp_path / "out").method == method


@pytest.mark.parametrize("error", [UnicodeError("水"), OSError(28, "full"), KeyError("region")])
def test_a_card_that_fails_loses_no_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(sharing, "units", Mock(side_effect=error))
    with pytest.raises(GeopeftError, match=r"adapter is saved in .*, but without model_card\.md"):
        gp.save_adapter(model(), tmp_path / "out")
    assert gp.load_model(tmp_path / "out").method == "linear_probe"


@pytest.mark.slow
def test_names_in_all_scripts_are_saved_whatever_the_locale(told: Told) -> None:
    assert told.lines["names"] == [{"encoding": "ANSI_X3.4-1968", "named": True}]
    text = (told.folder / "names/adapter/model_card.md").read_text(encoding="utf-8")
    assert "Classes, in order: 水, 🌊, Ödland." in text and "## Licence\n水\n" in text
