"""The live view redraws when due, stops when asked, and leaves a figure that needs no widget."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from geopeft_nb.pictures.show import PALETTE
from geopeft_nb.widgets import controls, live
from geopeft_nb.widgets.finished import finished_figure
from geopeft_nb.widgets.live import Dashboard
from geopeft_nb.widgets.view import describe, words

GIB = 2**30
ROOT = Path(__file__).parents[2]
STEP = {"weights": 100 * 2**20, "gradients": 0, "optimiser": 2**20, "activations": 50 * 2**20}


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Output:
    """Stands for the notebook's output: keeps every bundle that was displayed in it."""

    def __init__(self) -> None:
        self.bundles: list[dict[str, Any]] = []

    def display(self, bundle: dict[str, Any], **_: object) -> Output:
        self.bundles.append(bundle)
        return self

    update = display


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Output:
    """Make the dashboard believe that somebody watches it in a notebook."""
    output = Output()
    monkeypatch.setattr(live, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", output.display)
    monkeypatch.setattr(controls, "panel", lambda: controls.Panel(SimpleNamespace()))
    monkeypatch.setattr(live, "_watched", {})
    return output


def drawn(view: Dashboard) -> dict[str, Any]:
    """Return what the browser was last told, which JSON can carry."""
    assert view.panel is not None
    told: dict[str, Any] = view.panel.view
    json.dumps(told, allow_nan=False)
    return told


def step(view: Dashboard, number: int, loss: float = 0.5, **more: float) -> None:
    """Do what training does after a step."""
    row = {"step": number, "epoch": 1, "seconds": number, "train_loss": loss, "lr": 0.001}
    view.update([*view.state["rows"], {**row, "memory_bytes": GIB, **more}])


def lines(view: dict[str, Any], panel: int) -> dict[str, list[list[float]]]:
    return {line["name"]: line["points"] for line in view["panels"][panel]["lines"]}


def test_it_draws_at_most_twice_a_second(shown: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pictures = Clock(), []
    monkeypatch.setattr(live, "monotonic", clock)
    view = Dashboard("LoRA", 1000)
    view.start()
    monkeypatch.setattr(Dashboard, "_draw", lambda self: pictures.append(clock.now))
    for _ in range(1000):
        clock.now += 0.01
        view.update([])
    assert len(pictures) in (19, 20)


def test_speed_and_time_left_follow_from_the_seconds_of_the_steps() -> None:
    view = Dashboard("LoRA", 40, show=False, images=8)
    for number in range(11, 21):
        step(view, number, seconds=0.5 * number)
    assert describe(view.state, [])["facts"][:5] == [
        "step 20 of 40", "epoch 1 of 1", "2 steps/s", "16 images/s", "0:00:10 left"
    ]  # fmt: skip


def test_the_browser_is_told_curves_memory_and_progress(
    shown: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(live, "monotonic", clock)
    view = Dashboard("LoRA", 40, total_epochs=4, data="scenes")
    view.state |= {"step_memory": STEP, "device": {"process": GIB, "limit": 16 * GIB}}
    view.start()
    for number in range(1, 31):
        clock.now += 0.25
        scores = {"val_loss": 0.5, "val_miou": 0.01 * number} if number % 10 == 9 else {}
        size = GIB + number * 2**20
        step(view, number, 1 / number, epoch=1 + number // 11, memory_bytes=size, **scores)
    told = drawn(view)
    assert (told["title"], told["state"], told["step"]) == ("LoRA on scenes", "running", 30)
    assert told["done"] == 0.75 and told["end"] == 40
    assert "best validation mIoU 0.290" in told["facts"]
    loss, score = lines(told, 0), lines(told, 1)
    assert len(loss["training"]) == 30 and loss["validation"][-1] == [29, 0.5]
    assert score["0.290 now"] == [[number, pytest.approx(number / 100)] for number in (9, 19, 29)]
    assert told["memory"] == [{"name": "LoRA", "parts": STEP, "words": "151 MiB"}]
    assert told["sizes"]["activations"] == "50.0 MiB" and told["palette"] == PALETTE
    assert told["process"] == "process 1.03 GiB of 16.0 GiB"
    (growth,) = told["trace"]["lines"]
    assert growth["points"][-1] == [30, 29]  # MiB since the first step


def test_earlier_methods_are_named_ghosts_as_far_as_this_run_goes(shown: Output) -> None:
    for number, name in enumerate(["full", "probe", "BitFit", "LoRA"]):
        view = Dashboard(name, 100, data="scenes")
        view.state["step_memory"] = STEP
        view.start()
        for done in range(1, 101):
            step(view, done, val_miou=number / 10)
        view.finish()
    assert not lines(describe(Dashboard("LoRA", 10, data="other").state, []), 0)["training"]
    view = Dashboard("DoRA", 5, data="scenes")
    view.start()
    told = drawn(view)
    assert set(lines(told, 0)) == {"probe", "BitFit", "LoRA", "training", "validation"}
    assert lines(told, 0)["probe"][-1][0] <= 5
    assert set(lines(told, 1)) == {"0.100 probe", "0.200 BitFit", "0.300 LoRA", ""}
    assert [row["name"] for row in told["memory"]] == ["LoRA", "BitFit", "probe"]
    colours = {line["colour"] for line in told["panels"][0]["lines"]}
    assert len(colours) == 5
    quiet = Dashboard("other", 5, data="burn scars")
    quiet.start()
    assert set(lines(drawn(quiet), 0)) == {"training", "validation"}


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_a_figure_with_words_takes_the_place_of_the_widget(shown: Output, state: str) -> None:
    view = Dashboard("LoRA", 10, data="scenes")
    view.state["step_memory"] = STEP
    view.start()
    assert "application/vnd.jupyter.widget-view+json" in shown.bundles[0]
    panel = view.panel
    assert panel is not None
    step(view, 10, val_loss=0.4, val_miou=0.712)
    view.validation()
    view.finish(state, "Kept epoch 1.")
    view.finish("finished" if state == "stopped" else "stopped")  # too late: nothing changes
    assert len(shown.bundles) == 2 and panel.comm is None
    last = shown.bundles[-1]
    assert set(last) == {"text/html", "text/plain", "image/png"}
    assert last["image/png"].startswith("iVBORw0KGgo")  # the PNG signature in base64
    assert (
        f'<div class="gp-dashboard" data-step="10" data-state="{state}"><img alt='
        in (last["text/html"])
    )
    for said in (f"LoRA on scenes: {state}. Kept epoch 1.", "0.712 now", "weights 100 MiB"):
        assert said in last["text/plain"]
    assert sum(map(len, last.values())) < 150_000


@pytest.mark.parametrize(
    ("losses", "changes", "said"),
    [
        ([], {}, "loss: none yet"),
        ([0.5, math.nan, 0.4], {}, "training: 0.400"),
        ([math.inf] * 40, {}, "loss: none yet"),
        ([0.5], {"total_steps": 0}, "step 1 of 0"),
        ([0.5], {"device": {"limit": 17 * GIB // 16}}, "▲ near the limit"),
        ([0.5], {"device": {"total": 80 * GIB}}, "GPU 1.00 GiB of 80.0 GiB"),
        ([0.5], {"title": "<b>R&D</b> " * 30}, "<b>R&D</b>"),
    ],
)
def test_unusual_runs_are_drawn_and_said(
    losses: list[float], changes: dict[str, Any], said: str
) -> None:
    run = Dashboard("LoRA", 100, show=False)
    for number, loss in enumerate(losses, 1):
        step(run, number, loss, val_miou=math.nan)
    view = describe({**run.state, **changes}, [])
    json.dumps(view, allow_nan=False)
    assert said in words(view, {})
    assert not losses or "best validation mIoU none yet" in words(view, {})
    assert len(finished_figure(view, {}).axes) == 3


@pytest.mark.parametrize(
    ("done", "end"), [(1, 16), (50, 125), (300, 1000), (1200, 1200)]
)  # 1000 halved until the steps done, 5 at least, are a quarter to a half of it
def test_the_axes_leave_a_short_run_room(done: int, end: int) -> None:
    view = Dashboard("LoRA", 1000, show=False)
    step(view, done)
    assert describe(view.state, [])["end"] == end
    assert describe({**view.state, "state": "stopped"}, [])["end"] == done


def test_long_curves_are_thinned_to_100_points_without_bending_them() -> None:
    view = Dashboard("LoRA", 10_000, show=False)
    for number in range(1, 10_001):
        step(view, number, 3.0 * number)
    thin = lines(describe(view.state, []), 0)["training"]
    assert len(thin) == 100 and thin[-1][0] == 10_000
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(thin)]
    assert slopes == pytest.approx([3.0] * 99)


def test_a_plain_script_prints_one_line_per_epoch_and_needs_no_ipython() -> None:
    script = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "from geopeft_nb.widgets.live import Dashboard\n"
        "view = Dashboard('LoRA', 4, 2); view.start()\n"
        "for step in range(1, 5):\n"
        "    row = {'step': step, 'epoch': (step + 1) // 2, 'seconds': 30 * step, 'lr': 0.1}\n"
        "    row |= {'train_loss': 0.5, 'val_loss': 0.4, 'val_miou': 0.25 * step / 2}\n"
        "    view.update([*view.state['rows'], row])\n"
        "    if step % 2 == 0: view.validation()\n"
        "assert not view.should_stop; view.finish(message='Kept epoch 2.')\n"
        "assert not {'IPython', 'torch', 'matplotlib'} & set(sys.modules)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert printed[:2] == [
        "Training LoRA",
        "epoch 1 of 2 · training loss 0.500 · validation loss 0.400 · mIoU 0.250 · 0:01:00 left",
    ]
    assert printed[-1].startswith("finished: Kept epoch 2. step 4 of 4 · epoch 2 of 2")
    assert len(printed) == 4


@pytest.mark.parametrize(("show", "count"), [("text", 3), (False, 0)])
def test_text_prints_in_a_notebook_too_and_false_says_nothing(
    shown: Output, capsys: pytest.CaptureFixture[str], show: bool | str, count: int
) -> None:
    view = Dashboard("LoRA", 4, show=show)
    view.start()
    step(view, 1, val_loss=0.4, val_miou=0.3)
    view.validation()
    view.stop()
    assert view.should_stop
    view.finish("stopped")
    assert len(capsys.readouterr().out.splitlines()) == count
    assert not shown.bundles
    with pytest.raises(ValueError, match="True, False or 'text', not 'yes'"):
        Dashboard("LoRA", 4, show="yes")


def message(comm_id: str, event: str = "stop", kind: str = "comm_msg") -> list[bytes]:
    """Make the frames that a front end sends for an event of a widget."""
    from jupyter_client.session import Session

    session = Session(key=b"secret")
    content = {"comm_id": comm_id, "data": {"method": "custom", "content": {"event": event}}}
    return session.serialize(session.msg(kind, content), ident=b"front end")


def test_polling_finds_stop_among_waiting_messages_and_leaves_them_in_order() -> None:
    """As ipykernel 6 keeps them: (number, what to do, arguments) in a queue."""
    waiting: SimpleQueue[Any] = SimpleQueue()
    stream = SimpleNamespace(flush=lambda: None)
    panel = controls.Panel(SimpleNamespace(msg_queue=waiting, shell_stream=stream))
    others: list[Any] = [
        [message("another")],
        [],
        [message(panel.model_id, event="focus")],
        [[b"no", b"message"]],
        [[b"<IDS|MSG>", b"", b"", b"", b"", b"{broken"]],
        [message("", kind="execute_request")],
    ]
    for number, arguments in enumerate(others):
        waiting.put((number, "dispatch", arguments))
    assert not panel.poll()
    waiting.put((6, "dispatch", (message(panel.model_id),)))
    assert panel.poll() and panel.poll()
    assert [waiting.get()[0] for _ in range(7)] == [*range(7)]
    panel.close()


CELL = """
import time
from geopeft_nb.widgets.live import Dashboard
dashboard = Dashboard("LoRA", total_steps=400)
dashboard.start()
print("ready", flush=True)
for step in range(1, 1 + {steps}):
    if dashboard.should_stop:
        break
    row = {{"step": step, "epoch": 1, "seconds": 0.02 * step, "train_loss": 1 / step}}
    rows = dashboard.state["rows"]
    dashboard.update([*rows, row | {{"memory_bytes": 2**30, "lr": 0.001}}])
    time.sleep(0.02)
dashboard.validation()
dashboard.finish("stopped" if dashboard.should_stop else "finished")
print(dashboard.state["state"], step)
"""


def test_a_click_stops_a_running_cell_of_a_real_kernel() -> None:
    """Speaks to the kernel as JupyterLab does, while the cell is running."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        client.execute(CELL.format(steps=30_000), allow_stdin=True)  # 10 min if nobody stops it
        queued = client.execute("'the next cell'", allow_stdin=True)
        panel, printed, pressed, done = "", "", False, False
        while not done:
            message = client.get_iopub_msg(timeout=600)
            kind, content = message["msg_type"], message["content"]
            if kind == "comm_open" and "_esm" in content["data"]["state"]:
                panel = content["comm_id"]
            printed += content.get("text", "") if kind == "stream" else ""
            if "ready" in printed and not pressed:
                data = {"method": "custom", "content": {"event": "stop"}}
                comm = {"comm_id": panel, "data": data}
                client.shell_channel.send(client.session.msg("comm_msg", comm))
                pressed = True
            done = (
                kind == "status"
                and content["execution_state"] == "idle"
                and message["parent_header"]["msg_id"] == queued
            )
        ready, state, step = printed.split()
        assert (ready, state) == ("ready", "stopped") and int(step) < 30_000
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_an_executed_notebook_keeps_the_figure_and_no_widget(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.format(steps=30))])
    NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    bundles = [output.data for output in notebook.cells[0].outputs if "data" in output]
    assert len(bundles) == 1  # nobody is there to press a button: no widget was made
    assert set(bundles[0]) == {"text/html", "text/plain", "image/png"}
    assert 'data-step="30" data-state="finished"' in bundles[0]["text/html"]
    assert "widgets" not in notebook.metadata
