"""What a stranger's file, name or argument can do here: be refused in words, or nothing."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import hostile_adapters
import hostile_archives
import hostile_arguments
import hostile_folders
import hostile_fork
import hostile_names
import hostile_weights
import pytest
import torch
from hostile_fork import Input, Room, ask, attempt, listen

import geopeft_nb as gp

# The kernel is asked who touches what, which Linux answers.
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs inotify and /proc of Linux")
MODULES = (
    hostile_weights,
    hostile_adapters,
    hostile_archives,
    hostile_folders,
    hostile_names,
    hostile_arguments,
)
# At the first backward pass autograd decides about its threads. After torch's fake tensors, which
# plans of other tests use, it starts some, and then no fork could train.
torch.ones(1, requires_grad=True).sum().backward()
INPUTS = [hostile for module in MODULES for hostile in module.INPUTS]
NAMES = [hostile.name for hostile in INPUTS]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Load everything once, so that a fork takes hundredths of a second."""
    for name in gp.__all__:
        getattr(gp, name)
    folder = tmp_path_factory.mktemp("warm")
    warm = SimpleNamespace(
        visits=folder / "visits",
        saved=folder / "saved",
        pairs=folder / "pairs",
        data=gp.load_data("scenes"),
    )
    for method in ("linear_probe", "bitfit", "full", "vit_adapter", "lora"):
        options = {"r": 2} if method == "lora" else {}
        warm.model = gp.attach(
            gp.build_model(gp.load_backbone("geopeft_tiny"), warm.data), method, **options
        )
        gp.save_adapter(warm.model, warm.saved / method)
    hostile_folders.write_pairs(warm.pairs)
    gp.load_data("folder", root=warm.pairs, **hostile_folders.STATED).train[0]
    hostile_names.model_card("name", tmp_path_factory.mktemp("card"))  # fonts and templates
    warm.url, listener = listen(warm.visits)
    gc.collect()
    gc.freeze()  # a fork copies what the collector touches
    yield warm
    gc.unfreeze()
    os.kill(listener, signal.SIGKILL)
    os.waitpid(listener, 0)


@pytest.fixture
def room(warm: SimpleNamespace, tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "inside", tmp_path / "outside", warm)
    room.inside.mkdir()
    room.outside.mkdir()
    (room.outside / "secret.txt").write_text("SECRET")
    hostile_folders.write_raster(room.outside / "secret.tif", 4321, count=2)
    (room.outside / "secret.geojson").write_text(
        json.dumps(hostile_folders.features(properties={"class": "SECRET"}))
    )
    for file in (warm.saved / "lora").iterdir():
        shutil.copyfile(file, room.outside / file.name)
    yield room
    shutil.rmtree(tmp_path)


#: What `attempt` must see, and what does it.
BREACHES: dict[str, Callable[[Room], object]] = {
    "touches 'secret.txt' outside": lambda room: (room.outside / "secret.txt").read_bytes(),
    "touches 'new' outside": lambda room: (room.outside / "new").touch(),
    "open of": lambda room: (room.inside.parent / "new").write_bytes(b""),
    "starts": lambda room: subprocess.run(["true"]),
    "reaches the listener": lambda room: ask(room.warm.url),
    "takes 6": lambda room: len(b"x" * 600_000_000),
    "killed by SIGXCPU": lambda room: [number for number in iter(int, 1)],
    "KeyError instead of harmless": lambda room: {}["text"],
    "gives '<script>' on": lambda room: "<script>",
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_seen(breach: str, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    if breach.startswith("killed"):  # 600 MB may take longer than that
        monkeypatch.setattr(hostile_fork, "SECONDS", 1)
    hostile = Input("name of it", "harmless", lambda room: partial(BREACHES[breach], room))
    assert any(wrong.startswith(breach) for wrong in attempt(hostile, room))


def test_there_are_many_inputs_and_each_has_a_name_of_its_own() -> None:
    assert len(INPUTS) == len(set(NAMES)) >= 150


@pytest.mark.parametrize("hostile", [pytest.param(hostile, id=hostile.name) for hostile in INPUTS])
def test_hostile_input_is_refused_or_does_nothing(hostile: Input, room: Room) -> None:
    assert attempt(hostile, room) == []
