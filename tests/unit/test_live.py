"""The live view redraws when due, stops when asked, and leaves a figure that needs no widget."""

from __future__ import annotations

import base64
import io
import itertools
import math
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.lines import Line2D
from PIL import Image

from geopeft_nb.pictures.show import png
from geopeft_nb.widgets import controls, live
from geopeft_nb.widgets.live import Dashboard
from geopeft_nb.widgets.picture import distinct, draw_run
from geopeft_nb.widgets.words import facts, words

GIB = 2**30
ROOT = Path(__file__).parents[2]
STEP = {"weights": 100 * 2**20, "gradients": 0, "optimiser": 2**20, "activations": 50 * 2**20}
STEP["total"] = sum(STEP.values())


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
    monkeypatch.setattr(live, "_kernel", lambda: SimpleNamespace(_allow_stdin=True))
    monkeypatch.setattr("IPython.display.display", output.display)
    monkeypatch.setattr(live, "_watched", {})
    return output


def decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1])))


def drawn(state: dict[str, Any], earlier: list[dict[str, Any]]) -> list[dict[str, Line2D]]:
    """Return the curves of the plots by what their legend says."""
    figure = draw_run(state, earlier, {})
    return [{str(line.get_label()): line for line in axes.lines} for axes in figure.axes]


def step(view: Dashboard, number: int, loss: float = 0.5, **more: float) -> None:
    """Do what training does after a step."""
    row = {"step": number, "epoch": 1, "seconds": number, "train_loss": loss, "lr": 0.001}
    view.update([*view.state["rows"], {**row, "memory_bytes": GIB, **more}])


def test_it_draws_at_most_twice_a_second_and_in_a_tenth_of_the_time(
    shown: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pictures, takes = Clock(), [], [0.0]

    def draw(self: Dashboard) -> tuple[bytes, str]:
        clock.now += takes[0]
        pictures.append(clock.now)
        return b"", ""

    monkeypatch.setattr(live, "monotonic", clock)
    monkeypatch.setattr(Dashboard, "_picture", draw)
    view = Dashboard("LoRA", 1000)
    view.start()
    for takes[0], most in ((0.01, 21), (0.2, 5)):
        began, count = clock.now, len(pictures)
        while clock.now < began + 10:
            clock.now += 0.01
            view.update([])
        assert most - 2 <= len(pictures) - count <= most


def test_progress_is_told_between_two_pictures(
    shown: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pictures, told = Clock(), [], set()

    def draw(self: Dashboard) -> tuple[bytes, str]:
        clock.now += 0.25
        pictures.append(clock.now)
        return b"", ""

    monkeypatch.setattr(live, "monotonic", clock)
    monkeypatch.setattr(Dashboard, "_picture", draw)
    view = Dashboard("LoRA", 40)
    view.start()
    assert view.panel is not None
    for number in range(1, 17):  # a run of two seconds
        clock.now += 0.125
        step(view, number)
        told.add(view.panel.progress["step"])
    assert len(pictures) == 1 and len(told) == 9


def test_speed_and_time_left_follow_from_the_seconds_of_the_steps() -> None:
    view = Dashboard("LoRA", 40, show=False, images=8)
    for number in range(11, 21):
        step(view, number, seconds=0.5 * number)
    assert facts(view.state)[:5] == [
        "step 20 of 40", "epoch 1 of 1", "2 steps/s", "16 images/s", "0:00:10 left"
    ]  # fmt: skip


def test_the_browser_is_sent_pictures_and_words(
    shown: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(live, "monotonic", clock)
    view = Dashboard("LoRA", 40, total_epochs=4, data="scenes")
    view.state |= {"step_memory": STEP, "device": {"process": GIB, "limit": 16 * GIB}}
    view.start()
    assert view.panel is not None
    first = view.panel.view
    for number in range(1, 31):
        clock.now += 0.25
        scores = {"val_loss": 0.5, "val_miou": 0.01 * number} if number % 10 == 9 else {}
        size = GIB + number * 2**20
        step(view, number, 1 / number, epoch=1 + number // 11, memory_bytes=size, **scores)
    told = dict(view.panel.view)
    told |= view.panel.progress
    assert (told["state"], told["step"]) == ("running", 30)
    assert told["line"].startswith("step 30 of 40 · epoch 3 of 4")
    assert told["picture"] != first["picture"]
    for said in (
        "LoRA on scenes: running",
        "best validation mIoU 0.290",
        "validation loss 0.500, mIoU 0.290.",
        "A step keeps 151 MiB",
        "activations 50.0 MiB",
        "process 1.03 GiB of 16.0 GiB",
    ):
        assert said in told["words"]  # fmt: skip
    sizes = [decoded(picture["picture"]).size for picture in (first, told)]
    assert sizes[0] == sizes[1], "no notebook scrolls because a picture grows"
    loss, score, _ = drawn(view.state, [])
    assert len(loss["training"].get_xdata()) == 30 and loss["validation"].get_xydata()[-1, 0] == 29
    assert score["0.290 now"].get_xydata()[:, 0].tolist() == [9, 19, 29]


def test_earlier_methods_are_named_curves_beside_this_one(shown: Output) -> None:
    for number, name in enumerate(["full", "probe", "BitFit", "LoRA"]):
        view = Dashboard(name, 100, data="scenes")
        view.state["step_memory"] = STEP
        view.start()
        for done in range(1, 101):
            step(view, done, val_miou=number / 10)
        view.finish()
    view = Dashboard("DoRA", 5, data="scenes")
    view.state["step_memory"] = STEP
    view.start()
    step(view, 1, val_loss=0.4, val_miou=0.5)
    earlier = list(view._earlier)
    loss, score, _ = drawn(view.state, earlier)
    assert list(loss) == ["probe", "BitFit", "LoRA", "training", "validation"]
    assert len({line.get_color() for line in loss.values()}) == 5
    assert list(score) == ["0.100 probe", "0.200 BitFit", "0.300 LoRA", "0.500 now"]
    memory = draw_run(view.state, earlier, {}).axes[2]
    names = [label.get_text() for label in memory.get_yticklabels()]
    assert names == ["DoRA", "LoRA", "BitFit", "probe"]
    assert not Dashboard("other", 5, data="burn scars")._earlier


def test_runs_of_one_name_are_counted() -> None:
    assert distinct([{"name": name} for name in ("full", "LoRA", "full")]) == [
        "full (1)", "LoRA", "full (2)"
    ]  # fmt: skip


def test_words_of_a_picture_do_not_lie_on_each_other_nor_on_curves() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    runs = []
    for name in ("Linear probe, linear decoder", "BitFit", "Visual prompt tuning, unet", "LoRA"):
        view = Dashboard(name, 200, 10, data="a set with quite a long title", show=False)
        view.state |= {"step_memory": STEP, "device": {"process": GIB, "limit": 16 * GIB}}
        for number in range(1, 41):
            more = {} if number % 10 else {"val_loss": 0.5, "val_miou": 0.9 - 1 / number}
            step(view, number, 1 / number, **more)
        runs.append(view.state)
    chip = {"picture": np.zeros((64, 196, 3), np.uint8), "caption": ["validation, 2021-06-01"] * 2}
    legend = [("land", "#D9CFB8"), ("water", "#0072B2"), ("no label", "#999999")]
    figure = draw_run(runs[3], runs[:3], {"chips": [chip] * 5, "legend": legend})
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    gone = {  # matplotlib does not draw labels beyond the ends of an axis
        label
        for axis in (axis for axes in figure.axes[:3] for axis in (axes.xaxis, axes.yaxis))
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if not min(axis.get_view_interval()) <= place <= max(axis.get_view_interval())
    }
    boxes = {
        f"{text.get_text()} at {text.get_position()}": text.get_window_extent(renderer)
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in gone
    }
    plots = {axes.get_title(): axes.patch.get_window_extent(renderer) for axes in figure.axes[:3]}
    legends = {
        f"legend of {axes.get_title()}": axes.get_legend().get_window_extent(renderer)
        for axes in figure.axes[:3]
    }
    assert len(boxes) > 30 and len(legends) == 3
    for some, others in ((boxes, boxes), (legends, plots), (legends, legends)):
        for (said, one), (other, two) in itertools.product(some.items(), others.items()):
            wide = min(one.x1, two.x1) - max(one.x0, two.x0)
            high = min(one.y1, two.y1) - max(one.y0, two.y0)
            assert one is two or min(wide, high) <= 1, f"{said} | {other}"
    shown = figure.bbox
    assert all(shown.x0 <= box.x0 and box.x1 <= shown.x1 for box in [*legends.values()])


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
    assert len(shown.bundles) == 2 and panel.comm is None
    last = shown.bundles[-1]
    assert set(last) == {"text/html", "text/plain", "image/png"}
    assert last["image/png"].startswith("iVBORw0KGgo")  # the PNG signature in base64
    shown = f'<div class="gp-dashboard" data-step="1" data-state="{state}"><img alt='
    assert shown in last["text/html"]
    for said in (f"LoRA on scenes: {state}. Kept epoch 1.", "mIoU 0.712", "weights 100 MiB"):
        assert said in last["text/plain"]
    assert sum(map(len, last.values())) < 150_000


@pytest.mark.parametrize(
    ("losses", "changes", "said"),
    [
        ([], {}, "Last training loss none yet, validation loss none yet, mIoU none yet."),
        ([0.5, math.nan, 0.4], {}, "training loss 0.400"),
        ([math.inf] * 40, {}, "training loss none yet"),
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
    state = {**run.state, **changes}
    assert said in words(state)
    assert not losses or "best validation mIoU none yet" in words(state)
    assert png(draw_run(state, [], {}))


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
