"""The live view: watch a training run, and stop it when you have seen enough."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from geopeft_nb.widgets.static import (
    State,
    facts,
    gib,
    number,
    static_bundle,
    static_html,
    static_text,
)
from geopeft_nb.widgets.stop_button import StopButton, stop_button

Memory = Mapping[str, int] | Callable[[], Mapping[str, int]]


class Dashboard:
    """Shows loss, validation score, speed and memory of a training run while it goes on.

    In a notebook it is one output, redrawn at most every `refresh_seconds`, and a stop button. When
    the run ends, a picture that needs no widget takes its place. In a plain Python script it is one
    printed line per epoch.

    Example:
        >>> dashboard = Dashboard(total_steps=2, title="LoRA", enabled=False)
        >>> dashboard.start()
        >>> for step in (1, 2):
        ...     if dashboard.should_stop:
        ...         break
        ...     dashboard.update(step=step, epoch=1, train_loss=1 / step, images=8)
        >>> dashboard.validation(epoch=1, step=2, val_loss=0.6, val_miou=0.7)
        >>> dashboard.finish()
        >>> dashboard.state["state"]
        'finished'
    """

    def __init__(
        self,
        total_steps: int,
        title: str,
        refresh_seconds: float = 0.2,
        enabled: bool = True,
        total_epochs: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        score: str = "mIoU",
    ) -> None:
        """Prepare the view; nothing is shown before `start`.

        Args:
            total_steps: training steps planned; the curves grow towards it.
            title: what is trained, for example "LoRA on geopeft_tiny".
            refresh_seconds: shortest time between two pictures; at least 0.2.
            enabled: False shows and prints nothing; the state is still kept.
            total_epochs: epochs planned, if known.
            clock: returns seconds; tests pass their own.
            score: what the validation score is called.
        """
        self.refresh_seconds = max(0.2, refresh_seconds)
        self.enabled = enabled
        self.clock = clock
        self.state: State = {
            "title": title,
            "score": score,
            "state": "running",
            "step": 0,
            "total_steps": total_steps,
            "train": [],
            "validation": [],
        }
        if total_epochs:
            self.state["total_epochs"] = total_epochs
        self.renders = 0  # pictures drawn so far
        self._started = clock()
        self._drawn = -math.inf  # when the last picture was drawn
        self._polled = -math.inf  # when the button was last asked
        self._recent: deque[tuple[float, int]] = deque(maxlen=50)  # (seconds, images) per step
        self._handle: Any = None
        self._button: StopButton | None = None
        self._stop = False

    def start(self) -> None:
        """Show the view and the button, and start the clock."""
        self._started = self.clock()
        if not self.enabled:
            return
        if not _in_notebook():
            print(f"Training {self.state['title']}")
            return
        from IPython.display import display

        self._handle = display(self._picture(), raw=True, display_id=True)
        self._drawn = self._started
        self._button = stop_button(display)

    @property
    def due(self) -> bool:
        """True when the next `update` will draw: the moment to measure what is costly."""
        return self._handle is not None and self.clock() - self._drawn >= self.refresh_seconds

    @property
    def should_stop(self) -> bool:
        """True once somebody asked to stop; cheap enough to ask at every step."""
        now = self.clock()
        if self._button is not None and now - self._polled >= self.refresh_seconds:
            self._polled = now
            self._stop = self._button.poll() or self._stop
        return self._stop or (self._button is not None and self._button.clicked.is_set())

    def stop(self) -> None:
        """Ask the training loop to end after this step, as a click on the button does."""
        self._stop = True

    def update(
        self,
        *,
        step: int,
        epoch: int | None = None,
        train_loss: float | None = None,
        images: int = 0,
        memory: Memory | None = None,
        learning_rate: float | None = None,
    ) -> None:
        """Note one training step, and redraw if the last picture is old enough.

        Args:
            step: steps done, counted from 1.
            epoch: the epoch under way, counted from 1.
            train_loss: loss of this step.
            images: images in this step's batch.
            memory: bytes, as from `training.memory.device_memory`; or a function that returns
                them, which is called only when a picture is due.
            learning_rate: of this step.
        """
        now, state = self.clock(), self.state
        state["step"], state["seconds"] = step, now - self._started
        if epoch is not None:
            state["epoch"] = epoch
        if train_loss is not None:
            state["train"].append((step, float(train_loss)))
        if learning_rate is not None:
            state["learning_rate"] = learning_rate
        if step and state["total_steps"] >= step:
            state["seconds_left"] = state["seconds"] / step * (state["total_steps"] - step)
        self._recent.append((now, images))
        elapsed = now - self._recent[0][0]
        if elapsed > 0:  # the first entry only marks where the time starts
            state["images_per_second"] = sum(n for _, n in list(self._recent)[1:]) / elapsed
        if memory is not None and (self.due or not callable(memory)):
            self._note_memory(memory() if callable(memory) else memory)
        if self.due:
            self._draw()

    def validation(self, epoch: int, step: int, val_loss: float, val_miou: float) -> None:
        """Note the scores after an epoch: the loss, and mIoU (0-1) or what `score` names."""
        self.state["epoch"] = epoch
        self.state["validation"].append((step, float(val_loss), float(val_miou)))
        if self._handle is not None:
            if self.due:
                self._draw()
        elif self.enabled:
            print(self._line(val_loss, val_miou))

    def finish(self, state: str = "finished", message: str = "") -> None:
        """Replace the live view by the picture that stays; a second call changes nothing.

        Args:
            state: how the run ended, "finished" or "stopped".
            message: what became of it, for example "stopped: best weights of epoch 2 kept".

        Raises:
            ValueError: if `state` is neither of the two.
        """
        if state not in ("finished", "stopped"):
            raise ValueError(f"A run ends 'finished' or 'stopped', not {state!r}.")
        if self.state["state"] != "running":
            return
        self.state["state"], self.state["message"] = state, message
        self.state["seconds"] = self.clock() - self._started
        if self._button is not None:
            self._stop = self._stop or self._button.clicked.is_set()
            self._button.close()
            self._button = None
        if self._handle is not None:
            self._handle.update(static_bundle(self.state), raw=True)
            self._handle = None
        elif self.enabled:
            print(f"{message or state}: {' · '.join(facts(self.state))}")

    def _note_memory(self, memory: Mapping[str, int]) -> None:
        known = self.state.get("memory", {})
        self.state["memory"] = {**known, **memory}
        if "peak" not in memory and "process" in memory:  # then the most that was seen
            self.state["memory"]["peak"] = max(known.get("peak", 0), memory["process"])

    def _picture(self) -> dict[str, str]:
        return {"text/html": static_html(self.state), "text/plain": static_text(self.state)}

    def _draw(self) -> None:
        self._handle.update(self._picture(), raw=True)
        self._drawn = self.clock()
        self.renders += 1

    def _line(self, val_loss: float, val_miou: float) -> str:
        train = self.state["train"][-1][1] if self.state["train"] else None
        parts = [f"epoch {self.state['epoch']}", f"training loss {number(train)}"]
        score = f"{self.state['score']} {number(val_miou)}"
        parts += [f"validation loss {number(val_loss)}", f"validation {score}"]
        if memory := self.state.get("memory"):
            parts.append(gib(memory.get("allocated", memory.get("process", 0))))
        return " · ".join(parts)


def _in_notebook() -> bool:
    """Return whether this runs in a Jupyter kernel, without importing IPython for the question."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
