"""What the tests kill while it writes, fill the disk of, and let race. Run as a program.

One process imports, and forks a child for each attempt. It has used no thread of torch's before, so
that forking is safe. A child dies before an event of its own choice: a file opened to write, a
rename, a removal, a new folder, an fsync, or a file of which half is written.
"""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from killed_arrivals import ended, together
from test_fit import few

import geopeft_nb as gp
from geopeft_nb.errors import GeopeftError
from geopeft_nb.training import resume
from geopeft_nb.training.run import Run
from geopeft_nb.tuning import adapter_files
from geopeft_nb.writing import held

EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.move")
DONE, REFUSED, KILLED = 0, 3, 9


class Clock:
    """Counts the events of a child below a folder, and ends it before one of them."""

    def __init__(self, here: Path, last: int) -> None:
        self.here, self.count, self.last = str(here), 0, last

    def tick(self) -> None:
        self.count += 1
        if self.count == self.last:
            os._exit(KILLED)

    def __call__(self, event: str, facts: tuple[Any, ...]) -> None:
        writes = event == "open" and facts[2] is not None and facts[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in EVENTS) and self.here in str(facts[0]):
            self.tick()

    def watch(self) -> None:
        def by_halves(write: Callable[..., object], at: int) -> Callable[..., object]:
            def half(*args: Any, **options: Any) -> object:
                answer, file = write(*args, **options), Path(args[at])
                whole = file.read_bytes()
                os.truncate(file, len(whole) // 2)
                self.tick()
                file.write_bytes(whole)
                return answer

            return half

        fsync = os.fsync
        os.fsync = lambda number: (self.tick(), fsync(number))[1]  # type: ignore[assignment]
        adapter_files.save_file = by_halves(adapter_files.save_file, 1)  # type: ignore[assignment]
        torch.save = by_halves(torch.save, 1)
        Path.write_text = by_halves(Path.write_text, 0)  # type: ignore[method-assign,assignment]
        sys.addaudithook(self)


def model(method: str, decoder: str = "linear") -> Any:
    backbone = gp.load_backbone("geopeft_tiny")
    return gp.attach(gp.build_model(backbone, few(), decoder=decoder), method)


def run_of(method: str) -> Run:
    history = pd.DataFrame({"step": [1, 2], "method": method})
    return Run(model(method), method, "few", history, {}, 1.0, {"val_miou": 0.5}, "finished")


def place(folder: Path, name: str) -> Path:
    """Return where a file is, or a folder that stands for one that went."""
    ready = folder / ".ready" / name
    return ready if ready.exists() else folder / name


def adapter(folder: Path) -> str:
    """Load an adapter, and say of which method it is; its card must be of the same, if any."""
    if not place(folder, "adapter.json").exists():
        return "none"
    method, card = str(gp.load_model(folder).method), place(folder, "model_card.md")
    fits = not card.is_file() or method in card.read_text(encoding="utf-8").split("---")[1]
    return method if fits else "another's card"


def terratorch(folder: Path) -> str:
    """Say of which decoder an export is; both files must say the same."""
    keys = torch.load(place(folder, "state_dict.ckpt"), weights_only=True)["state_dict"]
    config = place(folder, "config.yaml").read_text(encoding="utf-8")
    said = {"FCNDecoder" in config, any(".ln." in key for key in keys)}
    return "mixed" if len(said) == 2 else "fcn" if said == {True} else "linear"


def checkpoint(state: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        content = {name: kind() for name, kind in resume.PARTS.items()}
        content |= {"about": {"state": state}, "state_dict": {"weights": torch.zeros(100_000)}}
        content["callbacks"] = {"EarlyStopping": {"wait_count": 0}}
        trainer: Any = SimpleNamespace(
            save_checkpoint=lambda part: torch.save(content, part),
            is_last_batch=True, should_stop=True,
        )  # fmt: skip
        with held(path.with_suffix("")), held(path):
            resume.Saver(path, {}, epochs=1).on_train_epoch_end(trainer, MODELS["lora"])

    return write


def onnx(file: Path, text: str) -> object:
    torch.onnx.export = lambda *_, **__: SimpleNamespace(  # type: ignore[assignment]
        save=lambda part: Path(part).write_text(text * 100_000, encoding="utf-8"),
        model=SimpleNamespace(metadata_props={}),
    )
    return gp.export_onnx(MODELS["linear_probe"], file)


def doors() -> dict[str, tuple[str, Callable[..., Any], Callable[..., Any], Callable[..., str]]]:
    """Return what writes: name -> file or folder, what wrote before, what writes now, who reads."""
    runs = {name: run_of(name) for name in ("lora", "linear_probe")}
    MODELS.update({name: run.model for name, run in runs.items()}, fcn=model("linear_probe", "fcn"))

    def saved(name: str) -> Callable[[Path], object]:
        return lambda folder: gp.save_adapter(runs[name], folder)

    return {
        "save": ("out", saved("lora"), saved("linear_probe"), adapter),
        "fit": ("out", runs["linear_probe"].save, runs["lora"].save, adapter),
        "first": ("out", lambda folder: folder.mkdir(), saved("lora"), adapter),
        "terratorch": (
            "out", lambda folder: gp.export_terratorch(MODELS["linear_probe"], folder),
            lambda folder: gp.export_terratorch(MODELS["fcn"], folder), terratorch,
        ),
        "checkpoint": (
            "out.ckpt", checkpoint("old"), checkpoint("new"),
            lambda path: str(resume.read(path)["about"]["state"]),
        ),
        "onnx": (
            "out.onnx", lambda file: onnx(file, "old"), lambda file: onnx(file, "new"),
            lambda file: {b"old" * 100_000: "old", b"new" * 100_000: "new"}[file.read_bytes()],
        ),
    }  # fmt: skip


MODELS: dict[str, Any] = {}


def child(work: Callable[[], object]) -> int:
    """Start a child, which says by its exit status how it ended."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        work()
        status = DONE
    except GeopeftError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
        status = REFUSED
    except Exception as error:
        print(json.dumps({"died": repr(error)}), flush=True)
    finally:
        os._exit(status)


def begin(here: Path, name: str, before: Callable[[Path], object]) -> Path:
    """Make what was there: an older state, and what somebody else keeps beside and within."""
    shutil.rmtree(here, ignore_errors=True)
    (here / f"{name}.part").mkdir(parents=True)
    (here / f"{name}.part" / "thesis.txt").write_bytes(b"years")
    before(here / name)
    if (here / name).is_dir() and any((here / name).iterdir()):
        (here / name / "sub").mkdir()
        (here / name / "sub" / "thesis.txt").write_bytes(b"years")
    return here / name


def state(place: Path, read: Callable[[Path], str]) -> str:
    """Return the state that is there, after a look at what is not ours."""
    theirs = sorted(place.parent.rglob("thesis.txt"))
    if len(theirs) < 1 + (place / "sub").exists() or any(
        f.read_bytes() != b"years" for f in theirs
    ):
        return "lost what is not ours"
    try:
        return read(place)
    except Exception as error:
        return repr(error)


def content(here: Path) -> str:
    """Return a checksum of all names and bytes below a folder, but for names that are random."""
    digest = hashlib.sha256()
    for path in sorted(here.rglob("*")):
        digest.update(re.sub(r"\.new-[^/]*", ".new-", f"{path.relative_to(here)}\0").encode())
        told = path.is_file() and path.suffix != ".lock"  # which has the number of a process
        digest.update(path.read_bytes() if told else b"")
    return digest.hexdigest()


def attempts(door: str, here: Path, scratch: Path) -> dict[str, Any]:
    """Kill a door's writing everywhere, and fill its disk; count the states that are left.

    Many kills leave the same bytes. These are read once, and gone on with once.
    """
    name, before, write, read = DOORS[door]
    old = begin(scratch, name, before)
    was = state(old, read)
    dice, left, again, filled = random.Random(1), set[str](), set[str](), set[tuple[int, str]]()
    seen, gone_on = dict[str, str](), set[str]()

    def look() -> str:
        if (found := content(here)) not in seen:
            seen[found] = state(here / name, read)
        return seen[found]

    def attempt(work: Callable[[Path], object], kill_after: float | None = None) -> tuple[int, str]:
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(scratch, here)
        pid = child(lambda: work(here / name))
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        return ended(pid), look()

    def go_on(found: str) -> None:
        left.add(found)
        if (bytes_left := content(here)) in gone_on:
            return
        gone_on.add(bytes_left)
        again.add("goes on" if ended(child(lambda: write(here / name))) == DONE else "dies")
        again.add(look())
        again.update(p.name for p in here.rglob(".*") if not p.name.endswith(".lock"))

    def until(last: int) -> Callable[[Path], object]:
        def work(place: Path) -> None:
            Clock(here, last).watch()
            write(place)

        return work

    begun, kills = time.monotonic(), 0
    while (found := attempt(until(kills + 1)))[0] == KILLED:
        kills += 1
        go_on(found[1])
    whole = min(0.3, time.monotonic() - begun)
    for _ in range(20):
        go_on(attempt(write, dice.uniform(0, whole))[1])
    for limit in (0, 300, 3_000, 20_000):

        def work(place: Path, limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            write(place)

        filled.add(attempt(work))
    facts: dict[str, Any] = {"left": left, "again": again, "filled": filled}
    facts = {key: sorted(values) for key, values in facts.items()}
    return {"was": was, "now": found[1], "kills": kills, **facts}


def races(here: Path, works: list[Callable[[Path], object]]) -> None:
    """Let two children write to one folder at once, ten times."""
    for _ in range(10):
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        status = together([partial(write, here / "out") for write in works], child)
        left = adapter(here / "out")
        print(json.dumps({"ended": status, "whole": left in ("lora", "linear_probe")}), flush=True)


def named(folder: Path) -> None:
    """Save names in all scripts, in the locale C that this process was started with."""
    import locale

    plain = locale.getpreferredencoding(False)
    data = few()
    card = replace(data.card, classes=("\u6c34", "\U0001f30a", "\xd6dland"), labels="\u043c")
    data = replace(data, card=card)
    model = gp.attach(gp.build_model(gp.load_backbone("geopeft_tiny"), data), "linear_probe")
    run = gp.fit(model, data, epochs=1, dashboard=False, out=folder / "run")
    gp.save_adapter(run, folder / "adapter", licence="\u6c34")
    gp.export_terratorch(model, folder / "terratorch")
    kept = gp.load_model(folder / "run").classes == data.classes
    print(json.dumps({"encoding": plain, "named": kept}), flush=True)


def fits(method: str) -> Callable[[Path], object]:
    return lambda out: gp.fit(
        model(method), few(), epochs=1, batch_size=4, dashboard=False, out=out
    )


DOORS = {}
if __name__ == "__main__":
    torch.set_num_threads(1)
    DOORS = doors()
    folder = Path(sys.argv[1])
    for door in sys.argv[2:]:
        print(json.dumps({"begins": door}), flush=True)
        if door in DOORS:
            print(json.dumps(attempts(door, folder / "here", folder / "was")), flush=True)
        elif door == "names":
            ended(child(lambda: named(folder / "names")))
        else:
            saves = [DOORS[name][2] for name in ("first", "save")]
            races(folder / "here", saves if door == "saves" else [*map(fits, MODELS)][:2])
