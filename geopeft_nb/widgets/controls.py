"""The live view in the browser, and a Stop button that works while the cell is still running.

A kernel reads its messages one after the other, and a running cell keeps it from reading the next:
a click would arrive when training is over. So we look for it ourselves, and only look:

- ipykernel 7 receives messages in a thread of its own; each is looked at there and passed on.
- ipykernel 6 (Colab) receives nothing while a cell runs; `poll` has the waiting messages moved into
  the kernel's queue and looks through that queue, whose order stays.

Source: Jupyter enhancement proposal 91 (kernel subshells); the messaging protocol of Jupyter.
"""

import json
import threading
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets


class Panel(anywidget.AnyWidget):
    """What `live.js` shows: the latest picture of a run, and a Stop button.

    Attributes:
        view: The picture as a data address, and `words` that say what it shows.
        progress: `state` and `step` of the run, and a `line` of words: cheap, so sent more often.
        stopped: Set once Stop was pressed, from whichever thread hears of it.
    """

    _esm = Path(__file__).with_name("live.js")
    view = traitlets.Dict().tag(sync=True)
    progress = traitlets.Dict().tag(sync=True)

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self.kernel, self.stopped = kernel, threading.Event()
        self._listen(self._hear)

    def poll(self) -> bool:
        """Look whether Stop was pressed; takes about 20 microseconds."""
        queue = getattr(self.kernel, "msg_queue", None)  # ipykernel 6
        if queue is not None and not self.stopped.is_set():
            self.kernel.shell_stream.flush()
            for _ in range(queue.qsize()):  # once around, so that the order stays
                item = queue.get_nowait()
                queue.put_nowait(item)
                if item[2]:
                    self._look(item[2][0])
        return self.stopped.is_set()

    def close(self) -> None:
        """Stop listening, and leave nothing of the widget in the saved notebook."""
        self._listen(getattr(self.kernel, "shell_channel_thread_main", None))
        super().close()

    def _look(self, frames: Sequence[Any]) -> None:
        parts = [bytes(getattr(frame, "bytes", frame)) for frame in frames]
        try:
            # signature, header, parent header, metadata, content come after this delimiter
            content = json.loads(parts[parts.index(b"<IDS|MSG>") + 5])
            asked = content["data"]["content"]["event"]
            if content["comm_id"] == self.model_id and asked == "stop":
                self.stopped.set()
        except (ValueError, IndexError, KeyError, TypeError):
            pass  # some other message

    def _hear(self, frames: Sequence[Any]) -> Awaitable[None]:
        self._look(frames)
        return self.kernel.shell_channel_thread_main(frames)

    def _listen(self, receive: Any) -> None:
        """Have ipykernel 7 hand incoming messages to `receive`; others have no such thread."""
        if thread := getattr(self.kernel, "shell_channel_thread", None):
            thread.io_loop.add_callback(self.kernel.shell_stream.on_recv, receive, copy=False)
