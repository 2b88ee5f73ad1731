"""One hostile input, tried in a fork of a process that has everything loaded, and what it did."""

import ctypes
import gc
import json
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from geopeft_nb.errors import GeopeftError

#: What an input may take: bytes of resident memory, and seconds of processor time.
MEMORY, SECONDS = 500_000_000, 20
#: Hard stops behind them: bytes of addresses and of a file, and seconds on the clock.
ADDRESSES, FILE, CLOCK = 3_000_000_000, 700_000_000, 45
#: inotify's opened, changed, created, deleted and moved.
TOUCHED = 0x20 | 0x2 | 0x100 | 0x200 | 0xC0
#: The same bytes each time.
NOISE = random.Random(0).randbytes(9999)
#: What must not be found in a page, a card or a note: markup of somebody's, or another file's text.
RAW = ("<script>", "<img src=x", "SECRET", "\n# OWNED", "\n- OWNED")
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile"}
CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
VISIT = "visit\n"
ALLOWED = {
    "refused": ("refused",),
    "missing": ("refused", "missing"),  # FileNotFoundError, which is documented there
    "harmless": ("accepted",),
    "either": ("refused", "accepted"),
}


class Room(NamedTuple):
    """Where an input may work, what lies beside it, and what was made once for all."""

    inside: Path
    outside: Path  # nothing in it may be touched
    warm: SimpleNamespace  # `url` of the listener, `saved` adapters, `data`, `model`, `pairs`


class Input(NamedTuple):
    name: str
    expected: str
    make: Callable[[Room], Callable[[], object]]  # writes files; returns the call at the door


def attempt(hostile: Input, room: Room) -> list[str]:
    """Try an input in a fork and return what is wrong, in words."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            said = _child(hostile, room)
        except BaseException as error:  # the input's own files could not be made
            said = [f"not tried: {type(error).__name__}: {error}"]
        with open(write, "w", encoding="utf-8", errors="replace") as pipe:
            json.dump(said, pipe)
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return [f"killed by {signal.Signals(os.WTERMSIG(status)).name}"]
    return json.loads(said)


def _child(hostile: Input, room: Room) -> list[str]:
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    gc.disable()
    sys.dont_write_bytecode = True  # of what is imported late
    warnings.simplefilter("ignore")
    os.chdir(room.inside)
    tempfile.tempdir = str(room.inside)
    os.environ |= {"GEOPEFT_CACHE": str(room.inside / "cache"), "TMPDIR": str(room.inside)}
    os.environ.pop("GEOPEFT_MIRROR", None)
    call = hostile.make(room)
    wrong: list[str] = []
    visits = room.warm.visits.stat().st_size
    watch = _watch(room.outside)
    sys.addaudithook(_hook(room, wrong))
    before = _limit()
    try:
        outcome, text = "accepted", _text(call())
    except GeopeftError as error:
        outcome, text = "refused", str(error)
    except FileNotFoundError as error:
        outcome, text = "missing", str(error)
    except BaseException as error:
        outcome, text = type(error).__name__, str(error)
    watching = wrong.copy()
    if outcome not in ALLOWED[hostile.expected]:
        watching.append(f"{outcome} instead of {hostile.expected}: {text[:200]!r}")
    if outcome == "accepted":
        shown = hostile.name.startswith("name ")  # notes are plain text, which may say anything
        watching += [f"gives {r!r} on" for r in RAW if r in text and (shown or r == "SECRET")]
    if (grown := _peak() - before) > MEMORY:
        watching.append(f"takes {grown / 1e6:.0f} MB")
    watching += [f"touches {name!r} outside" for name in sorted(set(_events(watch)))]
    ask(room.warm.url)  # it answers one by one: whoever came before is in the book now
    if room.warm.visits.stat().st_size > visits + len(VISIT):
        watching.append("reaches the listener")
    return watching


def _text(result: object) -> str:
    return result if isinstance(result, str) else repr(result)


def _hook(room: Room, wrong: list[str]) -> Callable[[str, tuple], None]:
    """Note programs, connections and writes elsewhere."""
    own = (str(room.inside), "/dev/", "/proc/")

    def hook(event: str, arguments: tuple) -> None:
        if event in STARTS:
            wrong.append(f"starts {arguments[0]!r}")
        elif event in ("socket.connect", "socket.getaddrinfo"):
            wrong.append(f"asks for {arguments[1] if event[7] == 'c' else arguments[0]!r}")
        elif event in CHANGES or (
            event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        ):
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike):
                place = os.path.realpath(os.fsdecode(path))
                if not place.startswith(own):
                    wrong.append(f"{event} of {place}")

    return hook


def _watch(folder: Path) -> int:
    """Let the kernel note who touches what lies outside, libraries in C as well."""
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(folder), TOUCHED) > 0
    return watch


def _events(watch: int) -> list[str]:
    try:
        content = os.read(watch, 65_536)
    except BlockingIOError:
        return []
    names, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at + 12 : at + 16], sys.byteorder)
        names.append(content[at + 16 : at + 16 + size].rstrip(b"\0").decode())
        at += 16 + size
    return names


def _limit() -> int:
    """Set the hard stops from here on; return the resident bytes now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak is counted anew
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    most = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    spent = int(time.process_time()) + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (spent, spent + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(CLOCK)
    return _peak()


def _peak() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def listen(visits: Path) -> tuple[str, int]:
    """Answer whoever comes, in a process of its own, and note it; return address and process."""
    visits.touch()
    server = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    if child := os.fork():
        server.close()
        return address, child
    while True:
        visitor, _ = server.accept()
        with visits.open("a", encoding="utf-8") as book:
            book.write(VISIT)
        with visitor:
            visitor.settimeout(1)
            try:
                visitor.recv(4096)
                visitor.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            except OSError:
                pass


def ask(address: str) -> None:
    """Visit the listener and wait for its answer."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as visitor:
        visitor.sendall(b"GET / HTTP/1.0\r\n\r\n")
        visitor.recv(100)
