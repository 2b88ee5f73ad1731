"""The live view: watch a training run, pause it, and stop it when you have seen enough."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geopeft_nb.errors import GeopeftError
from geopeft_nb.pictures.show import in_bytes
from geopeft_nb.widgets.controls import Controls, controls
from geopeft_nb.widgets.earlier import curves, earlier_run, recall, remember
from geopeft_nb.widgets.static import (
    State,
    facts,
    static_bundle,
    static_html,
    static_text,
)
from geopeft_nb.widgets.words import number

if TYPE_CHECKING:
    from geopeft_nb.widgets.strip import Strip

SHARE = 0.004  # of the time that drawing may take
SLOWEST = 3.0  # seconds between two pictures at most

Memory = Mapping[str, int] | Callable[[], Mapping[str, int]]


class Dashboard:
    """Shows loss, validation score, speed and memory of a training run while it goes on.

    In a notebook it is one output, redrawn every `refresh_seconds`, or less often where that would
    take more than 0.4 % of the time; buttons below it; and the strip of validation chips,
    redrawn after each validation. When the run ends, a picture that
    needs no widget takes the place of all that moves. In a plain Python script it is one printed
    line per epoch.

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
        group: str | None = None,
        compare: Sequence[tuple[str, Any]] | None = None,
        strip: Strip | None = None,
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
            group: runs of the same group and score can be compared, for example the name of the
                data set: the last three that were watched in this kernel are drawn as faint curves,
                step by step, as far as this run goes. None compares and remembers nothing.
            compare: draw these runs instead: (title, history), a history as in `Run.history`. An
                empty list draws none.
            strip: validation chips to show with what is predicted for them.
        """
        self.refresh_seconds = max(0.2, refresh_seconds)
        self.enabled = enabled
        self.clock = clock
        self.strip = strip
        self.paused_seconds = 0.0  # for which the run was paused so far
        self._group = (group, score) if group is not None else None
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
        if compare is not None:
            earlier = [earlier_run(name, *curves(history)) for name, history in compare]
        else:
            earlier = recall(self._group)
        if earlier:
            self.state["earlier"] = earlier
        self.renders = 0  # pictures drawn so far
        self._started = clock()
        self._drawn = -math.inf  # when the last picture was drawn
        self._cost = 0.0  # seconds that the last picture took
        self._polled = -math.inf  # when the buttons were last looked at
        self._said = -math.inf  # when the line below the buttons last changed
        self._steps_before: int | None = None  # steps that an earlier, resumed run had done
        self._recent: deque[tuple[float, int]] = deque(maxlen=50)  # (seconds, images) per step
        self._display: Callable[..., Any] | None = None
        self._handle: Any = None
        self._strip_handle: Any = None
        self._controls: Controls | None = None
        self._stop = False

    def start(self) -> None:
        """Show the view and the buttons, and start the clock."""
        self._started = self.clock()
        if not self.enabled:
            return
        if not _in_notebook():
            print(f"Training {self.state['title']}")
            return
        from IPython.display import display

        self._handle = display(self._picture(), raw=True, display_id=True)
        self._drawn = self._started
        self._display = display
        self._controls = controls(display)

    def step_memory(self, parts: Mapping[str, int]) -> None:
        """Note what one training step keeps, in bytes by part: from `training_bytes`."""
        self.state["step_memory"] = dict(parts)

    def resume(self, history: Any) -> None:  # noqa: ANN401 - a table of pandas, which is not needed
        """Begin with the curves of a run that goes on, from its history as in `Run.history`."""
        self.state["train"], self.state["validation"] = curves(history)

    @property
    def due(self) -> bool:
        """True when the next `update` will draw: the moment to measure what is costly."""
        pause = max(self.refresh_seconds, min(SLOWEST, self._cost / SHARE))
        return self._handle is not None and self.clock() - self._drawn >= pause

    @property
    def should_stop(self) -> bool:
        """True once somebody asked to stop; cheap enough to ask at every step."""
        now = self.clock()
        if self._controls is not None and now - self._polled >= self.refresh_seconds:
            self._polled = now
            self._controls.poll()
        return self._stop or (self._controls is not None and self._controls.stopped.is_set())

    def stop(self) -> None:
        """Ask the training loop to end after this step, as a click on the button does."""
        self._stop = True

    def wait_while_paused(self, released: Callable[[], bool] = lambda: False) -> None:
        """Wait as long as somebody has paused the run; to be called after every step.

        The clock stops meanwhile: the wait is added to `paused_seconds`. Stop ends it.

        Args:
            released: asked 20 times a second; True ends the wait, too.
        """
        if self.should_stop or self._controls is None or not self._controls.paused.is_set():
            return
        begun = self.clock()
        self.state["state"] = "paused"
        self._controls.refresh()
        self._say("Paused: resume to go on, or stop.")
        self._draw()
        while self._controls.paused.is_set() and not self.should_stop and not released():
            time.sleep(0.05)
        self.paused_seconds += self.clock() - begun
        self.state["state"] = "running"
        self._controls.refresh()
        self._say("Stopping." if self.should_stop else "Training goes on.")
        self._draw()

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
            memory: bytes, as from `memory.measure.device_memory`; or a function that returns
                them, which is called only when a picture is due.
            learning_rate: of this step.
        """
        now, state = self._now(), self.state
        state["step"], state["seconds"] = step, now - self._started
        if self._steps_before is None:
            self._steps_before = step - 1
        if epoch is not None:
            state["epoch"] = epoch
        if train_loss is not None:
            state["train"].append((step, float(train_loss)))
        if learning_rate is not None:
            state["learning_rate"] = learning_rate
        done = step - self._steps_before
        if done and state["total_steps"] >= step:
            state["seconds_left"] = state["seconds"] / done * (state["total_steps"] - step)
        self._recent.append((now, images))
        elapsed = now - self._recent[0][0]
        if elapsed > 0:  # the first entry only marks where the time starts
            state["steps_per_second"] = (len(self._recent) - 1) / elapsed
            state["images_per_second"] = sum(n for _, n in list(self._recent)[1:]) / elapsed
        begun, due = self.clock(), self.due
        if memory is not None and (due or not callable(memory)):
            self._note_memory(memory() if callable(memory) else memory)
        if due:
            self._draw(begun)

    def validation(self, epoch: int, step: int, val_loss: float, val_miou: float) -> None:
        """Note the scores after an epoch: the loss, and mIoU (0-1) or what `score` names."""
        self.state["epoch"] = epoch
        self.state["validation"].append((step, float(val_loss), float(val_miou)))
        if self._handle is not None:
            if self.due:
                self._draw()
            self._say(f"Epoch {epoch}: validation {self.state['score']} {number(val_miou)}.", 10)
        elif self.enabled:
            print(self._line(val_loss, val_miou))

    @property
    def shows_strip(self) -> bool:
        """True if there is a strip of chips and somebody to see it."""
        return self.strip is not None and self._handle is not None

    def show_strip(self, epoch: int, kept: bool) -> None:
        """Redraw the strip with the answers it was given; `kept` if they are the best so far."""
        if self.strip is None or self._display is None or not self.strip.close_epoch(epoch, kept):
            return
        if self._strip_handle is None:
            self._strip_handle = self._display(self.strip.bundle(), raw=True, display_id=True)
        else:
            self._strip_handle.update(self.strip.bundle(), raw=True)

    def finish(self, state: str = "finished", message: str = "") -> None:
        """Replace the live view by the picture that stays; a second call changes nothing.

        Args:
            state: how the run ended, "finished" or "stopped".
            message: what became of it, for example "stopped: best weights of epoch 2 kept".

        Raises:
            ValueError: if `state` is neither of the two.
        """
        if state not in ("finished", "stopped"):
            raise GeopeftError(f"A run ends 'finished' or 'stopped', not {state!r}.")
        if self.state["state"] not in ("running", "paused"):
            return
        self.state["state"], self.state["message"] = state, message
        self.state["seconds"] = self._now() - self._started
        if self._controls is not None:
            self._stop = self._stop or self._controls.stopped.is_set()
            self._controls.close()
            self._controls = None
        if self._strip_handle is not None and self.strip is not None:
            self._strip_handle.update(self.strip.bundle(finished=True), raw=True)
            self._strip_handle = None
        if self.enabled:
            mine = earlier_run(self.state["title"], self.state["train"], self.state["validation"])
            remember(self._group, mine)
        if self._handle is not None:
            self._handle.update(static_bundle(self.state), raw=True)
            self._handle = None
        elif self.enabled:
            print(f"{message or state}: {' · '.join(facts(self.state))}")

    def _now(self) -> float:
        """Return seconds by the clock, which stands still while the run is paused."""
        return self.clock() - self.paused_seconds

    def _say(self, words: str, apart: float = 0.0) -> None:
        """Change the line below the buttons, but not within `apart` seconds of its last change."""
        now = self.clock()
        if self._controls is not None and now - self._said >= apart:
            self._said = now
            self._controls.say(words)

    def _note_memory(self, memory: Mapping[str, int]) -> None:
        known = self.state.get("memory", {})
        self.state["memory"] = {**known, **memory}
        if "peak" not in memory and "process" in memory:  # then the most that was seen
            self.state["memory"]["peak"] = max(known.get("peak", 0), memory["process"])

    def _picture(self) -> dict[str, str]:
        return {"text/html": static_html(self.state), "text/plain": static_text(self.state)}

    def _draw(self, begun: float | None = None) -> None:
        """Draw; what was done for the picture may have `begun` before."""
        begun = self.clock() if begun is None else begun
        self._handle.update(self._picture(), raw=True)
        self._drawn = self.clock()
        self._cost = self._drawn - begun
        self.renders += 1

    def _line(self, val_loss: float, val_miou: float) -> str:
        train = self.state["train"][-1][1] if self.state["train"] else None
        parts = [f"epoch {self.state['epoch']}", f"training loss {number(train)}"]
        score = f"{self.state['score']} {number(val_miou)}"
        parts += [f"validation loss {number(val_loss)}", f"validation {score}"]
        if memory := self.state.get("memory"):
            parts.append(in_bytes(memory.get("allocated", memory.get("process", 0))))
        return " · ".join(parts)


def _in_notebook() -> bool:
    """Return whether this runs in a Jupyter kernel, without importing IPython for the question."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
