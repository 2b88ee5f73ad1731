"""The live view redraws when due, stops when asked, and leaves a picture that needs no widget."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import pandas as pd
import pytest

from geopeft_nb.widgets import controls, drawing, static
from geopeft_nb.widgets import dashboard as module
from geopeft_nb.widgets import earlier as earlier_runs
from geopeft_nb.widgets.dashboard import Dashboard
from geopeft_nb.widgets.memory_panel import bands
from geopeft_nb.widgets.static import State
from geopeft_nb.widgets.static_png import static_png

GIB = 2**30
ROOT = Path(__file__).parents[2]


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

    def update(self, bundle: dict[str, Any], **_: object) -> None:
        self.bundles.append(bundle)


class Kernel:
    """Stands for a kernel that has neither a queue to look through nor a thread to listen in."""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Output:
    """Make the dashboard believe that it runs in a notebook, with a button."""
    output = Output()
    monkeypatch.setattr(module, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", output.display)
    monkeypatch.setattr(
        module,
        "controls",
        lambda _: controls.Controls(cast(Any, Kernel()), Output().display),
    )
    return output


def a_run(**changes: object) -> State:
    state: State = {
        "title": "LoRA on geopeft_tiny",
        "state": "running",
        "step": 40,
        "total_steps": 100,
        "epoch": 4,
        "total_epochs": 10,
        "seconds_left": 75.0,
        "images_per_second": 85.31,
        "train": [(step, 1 / step) for step in range(1, 41)],
        "validation": [(20, 0.4, 0.71), (40, 0.35, 0.68)],
        "memory": {"process": GIB // 2, "peak": GIB, "limit": 2 * GIB},
    }
    return {**state, **changes}  # type: ignore[typeddict-item]


def parse(html: str) -> ElementTree.Element:
    """Read the drawing as XML, which fails where a tag or an attribute is broken."""
    drawn = re.search("<svg.*</svg>", html)
    assert drawn
    return ElementTree.fromstring(drawn.group())


def words(svg: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in svg.iter() if element.tag.endswith("text")]


def test_it_draws_at_most_five_times_a_second(shown: Output) -> None:
    clock = Clock()
    view = Dashboard(1000, "LoRA", refresh_seconds=0.01, clock=clock)
    view.start()
    for step in range(1, 1001):  # ten seconds of a hundred steps each
        clock.now += 0.01
        view.update(step=step, train_loss=1.0)
    assert 48 <= view.renders <= 50
    assert len(view.state["train"]) == 1000  # every step is kept, drawn or not


@pytest.mark.parametrize(("cost", "drawn"), [(0.0, 50), (0.004, 10), (1.0, 3)])
def test_costly_pictures_are_drawn_less_often(
    shown: Output, monkeypatch: pytest.MonkeyPatch, cost: float, drawn: int
) -> None:
    clock = Clock()

    def draw(state: State) -> str:
        clock.now += cost
        return ""

    monkeypatch.setattr(module, "static_html", draw)
    view = Dashboard(1000, "LoRA", clock=clock)
    view.start()
    end = clock.now + 10
    step = 0
    while clock.now < end:
        step += 1
        clock.now += 0.01
        view.update(step=step)
    assert abs(view.renders - drawn) <= 1


def test_memory_is_measured_only_when_a_picture_is_due(shown: Output) -> None:
    clock, calls = Clock(), []

    def measure() -> dict[str, int]:
        calls.append(clock.now)
        return {"process": len(calls) * GIB, "limit": 16 * GIB}

    view = Dashboard(100, "LoRA", clock=clock)
    view.start()
    for step in range(1, 101):
        clock.now += 0.125  # exact in binary: every second step is due
        view.update(step=step, memory=measure)
    assert len(calls) == view.renders == 50
    assert view.state["memory"]["peak"] == len(calls) * GIB  # the most that was seen


def test_speed_and_time_left_follow_from_the_steps(shown: Output) -> None:
    clock = Clock()
    view = Dashboard(40, "LoRA", clock=clock)
    view.start()
    for step in range(1, 11):
        clock.now += 0.5
        view.update(step=step, images=8)
    assert view.state["images_per_second"] == pytest.approx(16)
    assert view.state["seconds_left"] == pytest.approx(15)


def test_the_root_element_tells_step_and_state(shown: Output) -> None:
    clock = Clock()
    view = Dashboard(10, "LoRA", clock=clock)
    view.start()
    clock.now += 1
    view.update(step=3, train_loss=0.5)
    live = shown.bundles[-1]["text/html"]
    assert '<div class="gp-dashboard" data-step="3" data-state="running"' in live
    view.finish("stopped", "stopped: best weights of epoch 1 kept")
    last = shown.bundles[-1]["text/html"]
    assert 'data-step="3" data-state="stopped"' in last
    assert "best weights of epoch 1 kept" in last


def test_the_last_picture_comes_as_html_text_and_png(shown: Output) -> None:
    view = Dashboard(10, "LoRA")
    view.start()
    view.update(step=10, train_loss=0.5)
    view.validation(epoch=1, step=10, val_loss=0.4, val_miou=0.712)
    view.finish()
    count = len(shown.bundles)
    view.finish("stopped")  # too late: nothing changes
    assert len(shown.bundles) == count
    bundle = shown.bundles[-1]
    assert set(bundle) == {"text/html", "text/plain", "image/png"}
    assert "0.712" in bundle["text/html"] and "0.712" in bundle["text/plain"]
    assert bundle["image/png"].startswith("iVBORw0KGgo")  # the PNG signature in base64
    assert sum(map(len, bundle.values())) < 60_000


def test_the_stop_button_asks_the_loop_to_stop_and_then_goes_away(shown: Output) -> None:
    clock = Clock()
    view = Dashboard(10, "LoRA", clock=clock)
    view.start()
    before = view.should_stop
    assert view._controls
    button = view._controls.buttons["stop"]
    assert "■" in button.tooltip
    button.click()
    assert view.should_stop and not before
    clock.now += 1
    assert view.should_stop and button.disabled
    view.finish("stopped")
    assert view.should_stop  # also once the button is gone
    assert button.comm is None
    assert not any("widget" in key for bundle in shown.bundles for key in bundle)


def test_the_clock_stands_still_while_paused_and_the_buttons_say_what_can_be_done(
    shown: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    view = Dashboard(10, "LoRA", clock=clock)
    view.start()
    clock.now += 1
    view.update(step=1, images=8)
    view.wait_while_paused()  # nobody asked
    assert view.paused_seconds == 0
    assert view._controls
    buttons = view._controls.buttons
    assert [name for name, button in buttons.items() if not button.disabled] == ["pause", "stop"]
    buttons["pause"].click()
    seen = []

    def a_minute_passes(_: float) -> None:
        seen.append([name for name, button in buttons.items() if not button.disabled])
        assert 'data-state="paused"' in shown.bundles[-1]["text/html"]
        assert view._controls and "Paused" in view._controls.status.value
        clock.now += 60
        buttons["resume"].click()

    monkeypatch.setattr("time.sleep", a_minute_passes)
    view.wait_while_paused()
    assert seen == [["resume", "stop"]]
    assert view.paused_seconds == 60
    assert 'data-state="running"' in shown.bundles[-1]["text/html"]
    clock.now += 1
    view.update(step=2, images=8)
    assert view.state["seconds"] == pytest.approx(2)
    assert view.state["images_per_second"] == pytest.approx(8)
    assert view.state["seconds_left"] == pytest.approx(8)


@pytest.mark.parametrize("way", ["stop button", "kernel interrupt"])
def test_a_paused_run_can_be_stopped(
    shown: Output, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    view, interrupted = Dashboard(10, "LoRA"), threading.Event()
    view.start()
    assert view._controls
    controls = view._controls
    controls.buttons["pause"].click()
    press = controls.buttons["stop"].click if way == "stop button" else interrupted.set
    monkeypatch.setattr("time.sleep", lambda _: press())
    view.wait_while_paused(interrupted.is_set)  # would never return
    assert view.should_stop == (way == "stop button")


def test_the_line_for_screen_readers_changes_at_most_every_ten_seconds(shown: Output) -> None:
    clock = Clock()
    view = Dashboard(100, "LoRA", clock=clock)
    view.start()
    assert view._controls
    said = []
    for epoch in range(1, 31):  # one validation a second
        clock.now += 1
        view.validation(epoch, epoch, 0.5, epoch / 100)
        said.append(view._controls.status.value)
    assert len(set(said)) == 3
    assert 'role="status" aria-live="polite">Epoch 21: validation mIoU 0.210.' in said[-1]


def test_a_resumed_run_keeps_its_curves_and_counts_its_own_speed() -> None:
    clock = Clock()
    view = Dashboard(100, "LoRA", enabled=False, clock=clock)
    view.resume(a_history())
    view.start()
    clock.now += 2
    view.update(step=51, train_loss=0.1)
    assert view.state["train"] == [(1, 1.0), (2, 0.5), (51, 0.1)]
    assert view.state["validation"] == [(2, 0.4, 0.8)]
    assert view.state["seconds_left"] == pytest.approx(2 * 49)  # two seconds for the one step


def a_history() -> pd.DataFrame:
    rows = [{"step": 1, "train_loss": 1.0}, {"step": 2, "train_loss": 0.5, "val_loss": 0.4}]
    return pd.DataFrame(rows).assign(val_miou=[math.nan, 0.8])


def test_the_last_three_runs_on_the_same_data_are_drawn_faintly() -> None:
    earlier_runs._watched.clear()
    for number in range(5):
        view = Dashboard(10, f"run {number}", group="scenes")
        view.update(step=1, train_loss=0.5)
        view.validation(1, 1, 0.4, number / 10)
        view.finish()
    other = Dashboard(10, "other data", group="burn_scars")
    silent = Dashboard(10, "not watched", group="scenes", enabled=False)
    silent.update(step=1, train_loss=0.5)
    silent.finish()
    view = Dashboard(10, "now", group="scenes")
    assert "earlier" not in other.state
    assert [run["title"] for run in view.state["earlier"]] == ["run 2", "run 3", "run 4"]
    svg = parse(static.static_html(view.state))
    assert "earlier runs: 1 run 2, best mIoU 0.200" in " ".join(words(svg))
    assert "earlier" not in Dashboard(10, "now", group="scenes", compare=[]).state


def test_a_given_run_is_compared_step_by_step_as_far_as_this_one_goes() -> None:
    history = pd.DataFrame({"step": range(1, 101), "train_loss": 1.0, "val_loss": math.nan})
    history["val_miou"] = math.nan
    history.loc[[9, 99], ["val_loss", "val_miou"]] = 0.5
    view = Dashboard(50, "now", compare=[("before", history)])
    view.update(step=1, train_loss=0.5)
    svg = parse(static.static_html(view.state))
    faint = [e for e in svg.iter() if e.get("class") == "gp-earlier"]
    assert len(faint) == 2  # its loss, and its only score up to step 50
    across = re.findall(r"[Ml]([-\d.]+) ", faint[0].get("d", ""))
    assert 250 < sum(map(float, across)) <= 274  # where the panel ends
    assert static_png(view.state).startswith(b"\x89PNG")


STEP = {"weights": 100, "gradients": 20, "optimiser": 40, "activations": 200, "total": 360}


def test_the_measured_peak_is_split_into_bands() -> None:
    assert bands({"peak": 1000}, STEP) == [
        ("weights", 100), ("gradients", 20), ("optimiser", 40), ("activations", 200),
        ("other", 640),
    ]  # fmt: skip
    assert dict(bands({"peak": 300}, STEP))["other"] == 0  # the parts are not all there at once
    assert bands({"peak": 1000}, {}) == []


@pytest.mark.parametrize("gpu", [False, True])
def test_bands_are_drawn_to_scale_named_and_told_in_words(gpu: bool) -> None:
    memory = {"process": GIB // 2, "peak": GIB, "limit": 4 * GIB}
    if gpu:
        memory |= {"allocated": GIB // 2, "total": 4 * GIB}
    step = {"weights": GIB // 2, "gradients": 0, "optimiser": 0, "activations": GIB // 4}
    state = a_run(memory=memory, step_memory=step)
    svg = parse(static.static_html(state))
    drawn = [e for e in svg.iter() if e.get("class") == "gp-band"]
    widths = [float(e.get("width", 0)) for e in drawn]
    assert widths == pytest.approx([24.75, 12.38, 12.38, 99, 49.5, 49.5], abs=0.02)  # of 198
    assert len({e.get("fill") for e in drawn}) == 3
    for text in ("512 MiB", "256 MiB", "activations", "GPU peak" if gpu else "process peak"):
        assert text in words(svg)
    assert "weights 512 MiB" in svg.get("aria-label", "")
    assert re.search(r"activations +256 MiB", static.static_text(state))


def test_stop_can_be_asked_for_without_a_button() -> None:
    view = Dashboard(10, "LoRA", enabled=False)
    view.start()
    assert not view.should_stop
    view.stop()
    assert view.should_stop


def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'finished' or 'stopped', not 'crashed'"):
        Dashboard(10, "LoRA").finish("crashed")


def click(comm_id: str, event: str = "click", kind: str = "comm_msg") -> list[bytes]:
    """Make the frames that a front end sends for an event of a widget."""
    from jupyter_client.session import Session

    session = Session(key=b"secret")
    content = {"comm_id": comm_id, "data": {"method": "custom", "content": {"event": event}}}
    return session.serialize(session.msg(kind, content), ident=b"front end")


def test_only_a_click_counts() -> None:
    assert controls.clicked_button(click("ours")) == "ours"
    assert controls.clicked_button(click("ours", event="focus")) is None
    assert controls.clicked_button(click("ours", kind="execute_request")) is None
    assert controls.clicked_button([b"no", b"message"]) is None
    assert controls.clicked_button([b"<IDS|MSG>", b"", b"{broken"]) is None


def test_polling_looks_through_the_waiting_messages_and_leaves_them_in_order() -> None:
    """As ipykernel 6 keeps them: (number, what to do, arguments) in a queue."""
    from queue import SimpleQueue

    class Kernel6:
        msg_queue: SimpleQueue[Any] = SimpleQueue()
        shell_stream = type("Stream", (), {"flush": staticmethod(lambda: None)})

    kernel = Kernel6()
    buttons = controls.Controls(cast(Any, kernel), Output().display)
    ids = {asked: button.model_id for asked, button in buttons.buttons.items()}
    kernel.msg_queue.put((0, "dispatch", (click("", kind="execute_request"),)))
    kernel.msg_queue.put((1, "dispatch", ()))
    buttons.poll()
    assert not buttons.stopped.is_set() and not buttons.paused.is_set()
    kernel.msg_queue.put((2, "dispatch", (click(ids["pause"]),)))
    for _ in range(2):  # seen again at every look, and still the same
        buttons.poll()
        assert buttons.paused.is_set() and buttons.buttons["pause"].disabled
    kernel.msg_queue.put((3, "dispatch", (click(ids["resume"]),)))
    buttons.poll()
    assert not buttons.paused.is_set() and buttons.buttons["resume"].disabled
    kernel.msg_queue.put((4, "dispatch", (click(ids["stop"]),)))
    buttons.poll()
    assert buttons.stopped.is_set()
    assert [kernel.msg_queue.get()[0] for _ in range(5)] == [0, 1, 2, 3, 4]


CELL = """
import time
from geopeft_nb.widgets.dashboard import Dashboard
dashboard = Dashboard(total_steps=400, title="LoRA")
dashboard.start()
print("ready", flush=True)
for step in range(1, 1 + {steps}):
    if dashboard.should_stop:
        break
    dashboard.update(step=step, epoch=1, train_loss=1 / step, images=8)
    dashboard.wait_while_paused()
    time.sleep(0.02)
dashboard.validation(epoch=1, step=step, val_loss=0.5, val_miou=0.6)
dashboard.finish("stopped" if dashboard.should_stop else "finished")
print(dashboard.state["state"])
"""


def test_clicks_pause_and_stop_a_running_cell_of_a_real_kernel() -> None:
    """Speaks to the kernel as JupyterLab does, while the cell is running."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        client.execute(CELL.format(steps=1000), allow_stdin=True)  # 20 seconds if nobody stops it
        queued = client.execute("'the next cell'", allow_stdin=True)
        buttons: dict[str, str] = {}
        to_click = ["Pause", "Resume", "Stop and keep best"]
        printed, shown, started, answers = "", "", 0.0, []
        while queued not in answers:
            message = client.get_iopub_msg(timeout=60)
            kind, content = message["msg_type"], message["content"]
            if kind == "comm_open":
                buttons[content["data"]["state"].get("description", "")] = content["comm_id"]
            printed += content.get("text", "") if kind == "stream" else ""
            shown = str(content["data"]) if kind == "update_display_data" else shown
            # pressed once each, when the view shows that the one before has taken effect
            state = "paused" if to_click[:1] == ["Resume"] else "running"
            if "ready" in printed and to_click and f'data-state="{state}"' in shown:
                data = {"method": "custom", "content": {"event": "click"}}
                comm = {"comm_id": buttons[to_click.pop(0)], "data": data}
                client.shell_channel.send(client.session.msg("comm_msg", comm))
                started, shown = started or time.monotonic(), ""
            if kind == "status" and content["execution_state"] == "idle":
                answers.append(message["parent_header"]["msg_id"])
        assert printed.split() == ["ready", "stopped"]
        assert not to_click
        assert time.monotonic() - started < 15  # the picture for PNG imports matplotlib
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_an_executed_notebook_keeps_the_picture_and_no_widget(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.format(steps=30))])
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    bundles = [output.data for output in notebook.cells[0].outputs if "data" in output]
    assert len(bundles) == 1  # nobody is there to press a button: none was made
    assert set(bundles[0]) == {"text/html", "text/plain", "image/png"}
    assert 'data-state="finished"' in bundles[0]["text/html"]
    assert 'data-step="30"' in bundles[0]["text/html"]
    assert "widgets" not in notebook.metadata
    assert len(nbformat.writes(notebook)) < 60_000


def test_a_plain_script_prints_one_line_per_epoch_and_needs_no_ipython() -> None:
    script = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "from geopeft_nb.widgets.dashboard import Dashboard\n"
        "view = Dashboard(4, 'LoRA'); view.start()\n"
        "for step in range(1, 5):\n"
        "    view.update(step=step, train_loss=0.5, memory={'process': 2**30, 'limit': 2**31})\n"
        "    if step % 2 == 0: view.validation(step // 2, step, 0.4, 0.25 * step / 2)\n"
        "assert not view.should_stop; view.finish()\n"
        "assert not {'IPython', 'torch', 'matplotlib'} & set(sys.modules)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert printed[0] == "Training LoRA"
    assert printed[2] == (
        "epoch 2 · training loss 0.500 · validation loss 0.400 · validation mIoU 0.500 · 1.00 GiB"
    )
    assert printed[3].startswith("finished: step 4 of 4 · epoch 2")
    assert len(printed) == 4


def test_disabled_it_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    view = Dashboard(4, "LoRA", enabled=False)
    view.start()
    view.update(step=1, train_loss=0.5)
    view.validation(1, 1, 0.4, 0.3)
    view.finish()
    assert capsys.readouterr().out == ""


def test_the_label_for_screen_readers_says_the_current_numbers() -> None:
    svg = parse(static.static_html(a_run()))
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == (
        "Training LoRA on geopeft_tiny: running, step 40 of 100, epoch 4 of 10, 85.3 images/s, "
        "1:15 left, best validation mIoU 0.710, training loss 0.025, validation loss 0.350, "
        "validation mIoU 0.680, process now 512 MiB of 2.00 GiB, process peak 1.00 GiB of "
        "2.00 GiB."
    )


def test_every_line_has_its_name_beside_it_and_text_takes_the_colour_of_the_page() -> None:
    svg = parse(static.static_html(a_run()))
    said = words(svg)
    for label in (
        "training",
        "validation",
        "loss",
        "validation mIoU",
        "memory",
        "0.680, best 0.710",
    ):
        assert label in said
    assert svg.get("fill") == "currentColor"
    assert not any(element.get("fill") for element in svg.iter() if element.tag.endswith("text"))


def test_memory_bars_are_as_long_as_the_share_of_the_limit() -> None:
    svg = parse(static.static_html(a_run()))
    bars = [e for e in svg.iter() if e.tag.endswith("rect") and e.get("height") == "9"]
    full, now, _, peak = [float(bar.get("width", 0)) for bar in bars]
    assert (now / full, peak / full) == pytest.approx((0.25, 0.5), abs=0.01)


def test_on_a_gpu_its_own_memory_comes_first_and_near_the_limit_it_warns() -> None:
    memory = {"process": GIB, "limit": 8 * GIB, "allocated": GIB, "peak": 15 * GIB}
    said = words(parse(static.static_html(a_run(memory={**memory, "total": 16 * GIB}))))
    assert said.index("GPU now") < said.index("GPU peak") < said.index("process")
    assert "15.0 GiB of 16.0 GiB" in said
    assert "▲ near the limit" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": [], "validation": [], "memory": {}, "step": 0}, "waiting for the first step"),
        ({"validation": []}, "no validation yet"),
        ({"train": [(1, 0.5)], "validation": [(1, 0.5, 0.5)], "step": 1}, "0.500"),
        ({"train": [(1, 0.5), (2, math.nan), (3, 0.4)]}, "loss is nan at step 2"),
        ({"train": [(step, math.inf) for step in range(1, 41)]}, "loss is inf at step 1"),
        ({"validation": [(20, math.nan, math.nan)]}, "no finite score yet"),
        ({"total_steps": 0}, "step 40 · epoch 4 of 10"),
        ({"title": "<b>R&D</b> " * 30}, "…"),
    ],
    ids=[
        "nothing yet",
        "no validation",
        "one point",
        "nan",
        "inf",
        "nan score",
        "open end",
        "long",
    ],
)
def test_unusual_histories_are_drawn_and_named(changes: dict[str, Any], said: str) -> None:
    state = a_run(**changes)
    svg = parse(static.static_html(state))
    assert any(said in text for text in words(svg))
    numbers = [v for e in svg.iter() for k, v in e.items() if k in {"d", "x", "y", "cx", "cy"}]
    assert not any("nan" in number or "inf" in number for number in numbers)
    assert static_png(state).startswith(b"\x89PNG")
    assert static.static_text(state)


@pytest.mark.parametrize(
    ("state", "step", "end"),
    [
        ("running", 0, 31),  # 1000 halved until five steps are an eighth to a quarter of it
        ("running", 50, 250),
        ("running", 300, 1000),
        ("running", 1200, 1200),
        ("stopped", 50, 50),
    ],
)
def test_the_axes_leave_a_short_run_room(state: str, step: int, end: float) -> None:
    assert static.axis_end(a_run(state=state, step=step, total_steps=1000)) == end


def test_labels_at_line_ends_do_not_overlap() -> None:
    panel = drawing.Panel("loss", 0, 100, 10, [0, 1])
    for value, label in ((0.01, "training"), (0.0, "validation")):
        panel.curve([(0, 1), (10, value)], drawing.BLUE, label)
    svg = ElementTree.fromstring(f"<svg>{panel.svg()}</svg>")
    heights = [
        float(e.get("y", 0)) for e in svg.iter("text") if e.text in {"training", "validation"}
    ]
    assert abs(heights[0] - heights[1]) >= 12
    assert max(heights) <= drawing.BOTTOM


def test_long_curves_are_thinned_to_100_points_without_bending_them() -> None:
    points = [(float(step), 3.0 * step) for step in range(1, 10_001)]
    thin = drawing.decimate(points)
    assert len(thin) == 100
    assert thin[-1][0] == 10_000
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(thin)]
    assert slopes == pytest.approx([3.0] * 99)
    assert len(static.static_html(a_run(train=points, step=10_000))) < 25_000


def test_a_gap_in_the_numbers_is_a_gap_in_the_line() -> None:
    panel = drawing.Panel("loss", 0, 100, 3, [0, 1])
    panel.curve([(0, 1), (1, math.nan), (2, 0), (3, 1)], drawing.BLUE)
    assert re.findall("[Ml]", re.findall(' d="(M[^"]*)" stroke="#', panel.svg())[0]) == [
        "M",
        "M",
        "l",
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1]), (0.52, 0.81, [0.5, 0.6, 0.7, 0.8, 0.9]), (5, 5, [2, 4, 6, 8])],
)
def test_ticks_are_round_and_cover_the_values(
    low: float, high: float, expected: list[float]
) -> None:
    assert drawing.ticks(low, high) == pytest.approx(expected)


def test_where_svg_is_removed_the_same_picture_appears_as_an_image() -> None:
    """A viewer that does not trust the notebook removes svg, style and data, and keeps words."""
    html = static.static_html(a_run(state="finished"), last=True)
    assert html.startswith("<style>.gp-dashboard[data-state] .gp-fallback{display:none}</style>")
    assert '<div style="font-size:0"><svg' in html
    image = re.search(r'<img class="gp-fallback" alt="([^"]*)"[^>]*svg\+xml,([^"]*)"', html)
    assert image and image[1].startswith("Training LoRA on geopeft_tiny: finished, step 40 of 100")
    picture = parse(unquote(image[2]))
    assert drawing.GREY in picture.get("style", "")  # an image knows nothing of the page's theme
    assert json.dumps(static.static_bundle(a_run(state="finished")))
