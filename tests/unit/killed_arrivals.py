"""What arrives while the tests kill it, fill its disk or let it race. Run as a program.

One process imports everything and forks a child for each attempt.
"""

import io
import json
import os
import random
import resource
import shutil
import sys
import tarfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tqdm
from trickling_server import trickling, without_certificate

from geopeft_nb.archives import extract
from geopeft_nb.backbones.catalog import CARDS
from geopeft_nb.classroom.mirror import fill
from geopeft_nb.datasets.base import Reading
from geopeft_nb.datasets.load import LOADERS
from geopeft_nb.datasets.published.common import entry, kept
from geopeft_nb.errors import GeopeftError
from geopeft_nb.files import FileEntry, fetch, find_dataset

DONE, DIED, REFUSED, KILLED = 0, 1, 3, 9
#: Functions in C after which something else is on the disk, or is about to be.
WRITES = {
    "write", "sendfile", "replace", "rename", "fsync", "mkdir", "unlink", "remove", "rmdir", "open",
}  # fmt: skip
CHIPS = {f"{part}/chip{n}": os.urandom(40_000) for part in ("a", "b") for n in range(3)}
NUMBERS = range(3)


def tick(last: int, every: bool) -> Callable[..., None]:
    """Make a profiler that ends the process at an event: any, or a write that returns."""
    count = 0

    def profile(_: object, event: str, function: Any) -> None:
        nonlocal count
        if every or (event == "c_return" and function.__name__ in WRITES):
            count += 1
            if count == last:
                os._exit(KILLED)

    return profile


def holds(folder: Path) -> str:
    if not folder.exists():
        return "nothing"
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("?/*")}
    return "all" if found == CHIPS else "half"


def chip(number: int) -> Reading:
    return Reading(np.full((6, 32, 32), number, np.uint16), np.full((32, 32), number, np.int16))


def cached(here: Path) -> str:
    """Look at the chips that were kept; what is there must not be decoded again."""
    there = [*entry("toy", "").parent.glob("*.npz")]
    for number in NUMBERS:
        decoded: list[int] = []
        file = entry("toy", number)
        found = kept(file, lambda n=number, d=decoded: (d.append(n), chip(n))[1])
        if (found.image != number).any() or (decoded and file in there):
            return "half"
    return "all" if len(there) == len(NUMBERS) else "nothing"


def keep(here: Path) -> None:
    for number in NUMBERS:
        kept(entry("toy", number), lambda n=number: chip(n))


def mirrored(here: Path) -> str:
    weights, chips = here / "dest/toy/encoder.pt", holds(here / "dest/chips")
    whole = not weights.exists() or weights.read_bytes() == CHIPS["a/chip0"]
    return chips if whole and (chips != "all" or weights.exists()) else "half"


def mirror(here: Path) -> None:
    if missing := fill(here / "dest", ["toy", "chips"]):
        raise GeopeftError(str(missing))


def downloaded(here: Path) -> str:
    file = here / "cache/big.bin"
    if not file.exists():
        return "nothing"
    return "all" if file.read_bytes() == CHIPS["a/chip0"] else "half"


def child(work: Callable[[], object]) -> int:
    """Start a child, which says by its exit status how it ended."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status = DIED
    try:
        work()
        status = DONE
    except (GeopeftError, FileNotFoundError):
        status = REFUSED
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def attempts(here: Path, write: Callable[..., object], state: Callable[..., str]) -> dict[str, Any]:
    """Kill everywhere, and fill the disk; count what is left, and what a second try makes of it."""
    left, again, filled = set[str](), set[tuple[int, str]](), set[tuple[int, str]]()

    def attempt(prepare: Callable[[], object]) -> int:
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        return ended(child(lambda: (prepare(), write(here))))

    def kill(last: int, every: bool = False) -> int:
        status = attempt(lambda: sys.setprofile(tick(last, every)))
        left.add(state(here))
        again.add((ended(child(lambda: write(here))), state(here)))
        return status

    def events() -> int:
        count = 0

        def profile(*_: object) -> None:
            nonlocal count
            count += 1

        for counted in (None, profile):  # what is imported at first does not count
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir()
            sys.setprofile(counted)
            write(here)
        sys.setprofile(None)
        return count

    kills = 0
    while kill(kills + 1) == KILLED:
        kills += 1
    dice, last = random.Random(1), events()
    caught = [kill(dice.randrange(1, last), every=True) for _ in range(20)]
    for limit in (0, 300, 20_000):
        both = (limit, limit)
        status = attempt(lambda both=both: resource.setrlimit(resource.RLIMIT_FSIZE, both))
        filled.add((status, state(here)))
    return {
        "kills": kills, "random": caught.count(KILLED), "left": sorted(left),
        "again": sorted(again), "filled": sorted(filled),
    }  # fmt: skip


def together(
    works: list[Callable[[], object]], child: Callable[[Callable[[], object]], int] = child
) -> list[int]:
    """Let children begin at the same moment; return how they ended."""
    wait, go = os.pipe()

    def begin(work: Callable[[], object]) -> None:
        os.close(go)
        os.read(wait, 1)  # until it is closed
        work()

    children = [child(lambda work=work: begin(work)) for work in works]
    os.close(go)
    status = sorted(map(ended, children))
    os.close(wait)
    return status


def read(here: Path) -> None:
    """Read all of a mirror, as a machine of a classroom does."""
    assert find_dataset("chips") == here / "source/chips" and holds(here / "source/chips") == "all"
    assert fetch(CARDS["toy"].weights).read_bytes() == CHIPS["a/chip0"]  # type: ignore[arg-type]
    assert holds(extract([here / "set.tar.gz"], here / "cache/set")) == "all"
    keep(here)
    assert cached(here) == "all"


def main(door: str, folder: Path) -> dict[str, Any]:
    """Try one door, and say how it went."""
    folder.mkdir()
    here, source, archive = folder / "here", folder / "source", folder / "set.tar.gz"
    os.environ |= {"GEOPEFT_CACHE": str(here / "cache"), "GEOPEFT_MIRROR": str(source)}
    weights = FileEntry("toy/encoder.pt", size=len(CHIPS["a/chip0"]))
    CARDS["toy"] = replace(CARDS["galileo_nano"], name="toy", weights=weights)
    LOADERS["chips"] = LOADERS["hls_water"]
    with tarfile.open(archive, "w:gz") as packed:
        for name, content in CHIPS.items():
            (source / "chips" / name).parent.mkdir(parents=True, exist_ok=True)
            (source / "chips" / name).write_bytes(content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    (source / "toy").mkdir()
    (source / "toy/encoder.pt").write_bytes(CHIPS["a/chip0"])
    if door == "readers":
        rounds = []
        for _ in range(10):
            os.environ["GEOPEFT_CACHE"] = str(folder / "cache")
            shutil.rmtree(folder / "cache", ignore_errors=True)
            rounds.append(together([lambda: read(folder)] * 30))
        return {"rounds": rounds}
    if door == "mirrors":
        rounds = []
        for _ in range(10):
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir()
            rounds.append([*together([lambda: mirror(here)] * 2), mirrored(here)])
        return {"rounds": rounds}
    if door == "download":
        with trickling(CHIPS["a/chip0"]) as server:
            entry = FileEntry("big.bin", url=server.url, size=40_000)
            return attempts(here, lambda _: fetch(entry), downloaded)
    if door == "downloads":
        with trickling(bytes(3_000_000)) as server:
            server.pause = 0.01
            entry = FileEntry("big.bin", url=server.url, size=3_000_000)
            ended = together([lambda: fetch(entry)] * 3)
            return {"ended": ended, "asked": server.asked, "size": fetch(entry).stat().st_size}
    doors: dict[str, tuple[Callable[..., object], Callable[..., str]]] = {
        "extraction": (lambda here: extract([archive], here / "set"), lambda h: holds(h / "set")),
        "mirror": (mirror, mirrored), "cache": (keep, cached),
    }  # fmt: skip
    return attempts(here, *doors[door])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    # A child that is killed while it holds tqdm's lock, which processes share, would stop the rest.
    tqdm.tqdm.set_lock(threading.RLock())
    tqdm.tqdm.monitor_interval = 0
    requests.adapters.HTTPAdapter.send = without_certificate()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the doors themselves print
    json.dump({door: main(door, Path(sys.argv[1], door)) for door in sys.argv[2:]}, out)
    out.close()
