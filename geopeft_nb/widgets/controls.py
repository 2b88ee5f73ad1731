"""Buttons that work while the cell is still running: pause, resume, stop and keep the best.

A notebook kernel reads its messages one after the other, and a running cell keeps it from reading
the next: a click would arrive when training is over. So we look for it ourselves:

- ipykernel 7 receives messages in a thread of its own; we look at each one there before it is
  passed on, unchanged, to wherever it goes (the main thread, or a subshell in JupyterLab 4.4+).
- ipykernel 6 (Colab) receives nothing while a cell runs; `poll` has the waiting messages moved
  into the kernel's queue and looks through that queue.
- The buttons' own `on_click` does the same, for front ends that do deliver it in time.

Looking is all that happens: nothing is run, answered or taken out of order. Cells that were
started in the meantime stay queued, as they would without the buttons. A message may therefore be
seen more than once, which is why each button says what shall be (paused, not paused, stopped)
rather than turn it over; and a toggle button would not do, because ipywidgets holds back its second
change until the kernel has answered the first.

Source: Jupyter enhancement proposal 91 (kernel subshells); the messaging protocol of Jupyter.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipykernel.kernelbase import Kernel

#: What a button asks for -> its label, icon and tooltip.
BUTTONS = {
    "pause": (
        "Pause",
        "pause",
        "Training waits after this step, with everything in memory; the clock stops.",
    ),
    "resume": ("Resume", "play", "Training goes on where it was paused."),
    "stop": (
        "Stop and keep best",
        "stop",
        "Ends training after this step and keeps the best weights so far. "
        "Interrupting the kernel (■ in the toolbar) does the same.",
    ),
}


def clicked_button(frames: Sequence[Any]) -> str | None:
    """Return the channel of the button that a raw message of the shell channel is a click on.

    Args:
        frames: parts of the message as ZeroMQ delivered them, bytes or frames.

    Returns:
        The button's channel, which widgets also call the model id; None for any other message.
    """
    parts = [bytes(getattr(frame, "bytes", frame)) for frame in frames]
    try:
        # signature, header, parent header, metadata, content come after this delimiter
        start = parts.index(b"<IDS|MSG>") + 2
        if json.loads(parts[start])["msg_type"] != "comm_msg":
            return None
        content = json.loads(parts[start + 3])
        return str(content["comm_id"]) if content["data"]["content"]["event"] == "click" else None
    except (ValueError, IndexError, KeyError, TypeError):
        return None  # some other message


class Controls:
    """The displayed buttons, and what they ask for.

    Attributes:
        stopped: Set once stop was pressed, from whichever thread hears of it.
        paused: Set while training shall wait.
        buttons: The buttons by what they ask for, the keys of `BUTTONS`.
        status: A line of text below them, which screen readers announce when it changes.
    """

    def __init__(self, kernel: Kernel, display: Callable[..., Any]) -> None:
        """Show the buttons in an output of their own.

        Args:
            kernel: the running ipykernel, as in `get_ipython().kernel`.
            display: `IPython.display.display`.
        """
        from ipywidgets import HTML, Button, HBox, Layout, VBox

        self.stopped, self.paused = threading.Event(), threading.Event()
        self.buttons = {}
        for asked, (label, icon, tooltip) in BUTTONS.items():
            layout = Layout(width="190px" if asked == "stop" else "110px")
            button = Button(description=label, tooltip=tooltip, icon=icon, layout=layout)
            button.on_click(lambda _, asked=asked: self.ask(asked))
            self.buttons[asked] = button
        self._asked = {button.model_id: asked for asked, button in self.buttons.items()}
        self.status = HTML()
        row = HBox([*self.buttons.values()], layout=Layout(flex_flow="row wrap"))
        self.box = VBox([row, self.status])
        self._boxes = (self.box, row)
        self.refresh()
        # as a plain bundle: ipywidgets 7 shows itself without the display id that `close` needs
        view = {"model_id": self.box.model_id, "version_major": 2, "version_minor": 0}
        words = " | ".join(label for label, _, _ in BUTTONS.values())
        bundle = {"application/vnd.jupyter.widget-view+json": view, "text/plain": words}
        self.handle = display(bundle, raw=True, display_id=True)
        self.kernel = kernel
        self._listen(self._hear)

    def ask(self, asked: str | None) -> None:
        """Note what was asked for; None is nothing."""
        if asked == "stop":
            self.stopped.set()
        elif asked == "pause":
            self.paused.set()
        elif asked == "resume":
            self.paused.clear()

    def poll(self) -> None:
        """Look whether a button was clicked; takes about 20 microseconds."""
        queue = getattr(self.kernel, "msg_queue", None)  # ipykernel 6
        stream = getattr(self.kernel, "shell_stream", None)
        if queue is not None and stream is not None and not self.stopped.is_set():
            stream.flush()
            for _ in range(queue.qsize()):  # once around, so that the order stays
                item = queue.get_nowait()
                queue.put_nowait(item)
                if item[2]:  # clicks wait here until the cell ends: the last one counts
                    self.ask(self._asked.get(clicked_button(item[2][0]) or ""))
        self.refresh()

    def refresh(self) -> None:
        """Let the buttons show what can be asked for now."""
        stopping, waiting = self.stopped.is_set(), self.paused.is_set()
        looks = {"pause": stopping or waiting, "resume": stopping or not waiting, "stop": stopping}
        for asked, disabled in looks.items():
            if self.buttons[asked].disabled != disabled:  # only a change is sent to the browser
                self.buttons[asked].disabled = disabled
        if stopping:
            self.buttons["stop"].description = "Stopping…"

    def say(self, words: str) -> None:
        """Show a line below the buttons. Announced politely, so call it only with news."""
        self.status.value = f'<span role="status" aria-live="polite">{escape(words)}</span>'

    def close(self) -> None:
        """Take the buttons away; nothing of them stays in the saved notebook."""
        if hasattr(self.kernel, "shell_channel_thread_main"):
            self._listen(self.kernel.shell_channel_thread_main)
        self.handle.update({"text/html": "", "text/plain": ""}, raw=True)
        for widget in (*self._boxes, *self.buttons.values(), self.status):
            widget.close()

    def _hear(self, frames: Sequence[Any]) -> Awaitable[None]:
        self.ask(self._asked.get(clicked_button(frames) or ""))
        return self.kernel.shell_channel_thread_main(frames)

    def _listen(self, receive: Callable[..., Any]) -> None:
        """Have ipykernel 7 hand incoming messages to `receive`; other kernels have no such step."""
        thread = getattr(self.kernel, "shell_channel_thread", None)
        stream = getattr(self.kernel, "shell_stream", None)
        if thread and stream and hasattr(self.kernel, "shell_channel_thread_main"):
            thread.io_loop.add_callback(stream.on_recv, receive, copy=False)


def controls(display: Callable[..., Any]) -> Controls | None:
    """Show the buttons where somebody can press them, else return None.

    papermill, nbclient and nbval run cells without standard input, which tells that nobody is
    there; buttons would only leave widget data in the notebook they save.
    """
    from IPython.core.getipython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None or not getattr(kernel, "_allow_stdin", False):
        return None
    try:
        return Controls(kernel, display)
    except ImportError:  # no ipywidgets: the kernel's own interrupt still stops training
        return None
