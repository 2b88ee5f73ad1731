"""A button that works while the cell is still running.

A notebook kernel reads its messages one after the other, and a running cell keeps it from reading
the next: a click would arrive when training is over. So we look for it ourselves:

- ipykernel 7 receives messages in a thread of its own; we look at each one there before it is
  passed on, unchanged, to wherever it goes (the main thread, or a subshell in JupyterLab 4.4+).
- ipykernel 6 (Colab) receives nothing while a cell runs; `poll` has the waiting messages moved
  into the kernel's queue and looks through that queue.
- The button's own `on_click` sets the same event, for front ends that do deliver it in time.

Looking is all that happens: nothing is run, answered or taken out of order. Cells that were
started in the meantime stay queued, as they would without the button.

Source: Jupyter enhancement proposal 91 (kernel subshells); the messaging protocol of Jupyter.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipykernel.kernelbase import Kernel

LABEL = "Stop and keep best"
TOOLTIP = (
    "Ends training after this step and keeps the best weights so far. "
    "Interrupting the kernel (■ in the toolbar) does the same."
)


def is_click(frames: Sequence[Any], comm_id: str) -> bool:
    """Return whether a raw message of the shell channel is a click on the given button.

    Args:
        frames: parts of the message as ZeroMQ delivered them, bytes or frames.
        comm_id: the button's channel, which widgets also call the model id.
    """
    parts = [bytes(getattr(frame, "bytes", frame)) for frame in frames]
    try:
        # signature, header, parent header, metadata, content come after this delimiter
        start = parts.index(b"<IDS|MSG>") + 2
        if json.loads(parts[start])["msg_type"] != "comm_msg":
            return False
        content = json.loads(parts[start + 3])
        return bool(
            content["comm_id"] == comm_id and content["data"]["content"]["event"] == "click"
        )
    except (ValueError, IndexError, KeyError, TypeError):
        return False  # some other message


class StopButton:
    """A displayed button; `clicked` is an event that is set from whichever thread hears of it."""

    def __init__(self, kernel: Kernel, display: Callable[..., Any]) -> None:
        """Show the button in an output of its own.

        Args:
            kernel: the running ipykernel, as in `get_ipython().kernel`.
            display: `IPython.display.display`.
        """
        from ipywidgets import Button, Layout

        self.clicked = threading.Event()
        self.button = Button(
            description=LABEL, tooltip=TOOLTIP, icon="stop", layout=Layout(width="190px")
        )
        self.button.on_click(lambda _: self.clicked.set())
        # as a plain bundle: ipywidgets 7 shows itself without the display id that `close` needs
        view = {"model_id": self.button.model_id, "version_major": 2, "version_minor": 0}
        bundle = {"application/vnd.jupyter.widget-view+json": view, "text/plain": LABEL}
        self.handle = display(bundle, raw=True, display_id=True)
        self.kernel = kernel
        self._listen(self._hear)

    def _hear(self, frames: Sequence[Any]) -> Awaitable[None]:
        if is_click(frames, self.button.model_id):
            self.clicked.set()
        return self.kernel.shell_channel_thread_main(frames)

    def _listen(self, receive: Callable[..., Any]) -> None:
        """Have ipykernel 7 hand incoming messages to `receive`; other kernels have no such step."""
        thread = getattr(self.kernel, "shell_channel_thread", None)
        stream = getattr(self.kernel, "shell_stream", None)
        if thread and stream and hasattr(self.kernel, "shell_channel_thread_main"):
            thread.io_loop.add_callback(stream.on_recv, receive, copy=False)

    def poll(self) -> bool:
        """Return whether the button was clicked; takes about 20 microseconds."""
        queue = getattr(self.kernel, "msg_queue", None)  # ipykernel 6
        stream = getattr(self.kernel, "shell_stream", None)
        if queue is not None and stream is not None and not self.clicked.is_set():
            stream.flush()
            for _ in range(queue.qsize()):  # once around, so that the order stays
                item = queue.get_nowait()
                queue.put_nowait(item)
                if item[2] and is_click(item[2][0], self.button.model_id):
                    self.clicked.set()
        if self.clicked.is_set() and not self.button.disabled:
            self.button.disabled = True
            self.button.description = "Stopping…"
        return self.clicked.is_set()

    def close(self) -> None:
        """Take the button away; nothing of it stays in the saved notebook."""
        if hasattr(self.kernel, "shell_channel_thread_main"):
            self._listen(self.kernel.shell_channel_thread_main)
        self.handle.update({"text/html": "", "text/plain": ""}, raw=True)
        self.button.close()


def stop_button(display: Callable[..., Any]) -> StopButton | None:
    """Show a stop button where somebody can press it, else return None.

    papermill, nbclient and nbval run cells without standard input, which tells that nobody is
    there; a button would only leave widget data in the notebook they save.
    """
    from IPython.core.getipython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None or not getattr(kernel, "_allow_stdin", False):
        return None
    try:
        return StopButton(kernel, display)
    except ImportError:  # no ipywidgets: the kernel's own interrupt still stops training
        return None
