"""Watch a training run: curves that grow in a notebook, one line an epoch in a terminal."""

import sys
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from geopeft_nb.errors import GeopeftError
from geopeft_nb.pictures.show import bundle, data_address, png, visible
from geopeft_nb.widgets.words import Row, facts, latest, left, words

#: Seconds between two pictures at least, and how many times as long as it takes to draw one.
PAUSE, SHARE = 0.5, 10
#: Seconds between two lines of progress: a picture is too slow for runs of a few seconds.
TICK = 0.25
#: Data set and score -> the last runs that were watched in this kernel: curves, and no model.
_watched: dict[tuple[str, str], deque[dict[str, Any]]] = {}


class Dashboard:
    """Shows loss, validation score, speed and memory of a training run while it goes on.

    In a notebook it is a line of progress and a picture below a Stop button. The picture is drawn
    anew at most twice a second and in about a tenth of the time at most; the last one stays when
    the run ends. Elsewhere, or where
    `show` is ``"text"``, it is one printed line an epoch.

    Args:
        name: What is trained, such as "LoRA"; it names the curves, also beside a later run.
        total_steps: Training steps planned.
        total_epochs: Epochs planned.
        data: Title of the data set. Runs on the same data and with the same score are compared.
        score: What the validation score is called.
        column: Its name in the rows.
        images: Images that a step sees.
        chips: Makes the chips whose predictions to show; called only where somebody can see them.
        show: True, ``"text"``, or False, which shows and prints nothing.

    Attributes:
        state: What `draw_run` draws. Its rows belong to who trains: they are only read here.

    Example:
        >>> dashboard = Dashboard("LoRA", total_steps=2, show=False)
        >>> dashboard.start()
        >>> rows = []
        >>> for step in (1, 2):
        ...     if dashboard.should_stop:
        ...         break
        ...     rows.append({"step": step, "train_loss": 1 / step})
        ...     dashboard.update(rows)
        >>> rows[-1] |= {"val_loss": 0.6, "val_miou": 0.7}
        >>> dashboard.validation()
        >>> dashboard.finish()
        >>> dashboard.state["state"]
        'finished'
    """

    def __init__(
        self, name: str, total_steps: int, total_epochs: int = 1, data: str = "",
        score: str = "mIoU", column: str = "val_miou", images: int = 1,
        chips: Callable[[], Any] | None = None, show: bool | str = True,
    ) -> None:  # fmt: skip
        if show not in (True, False, "text"):
            raise GeopeftError(f"dashboard is True, False or 'text', not {show!r}.")
        self.show, self._make_chips = show, chips
        self.state: dict[str, Any] = {
            "title": visible(f"{name} on {data}" if data else name), "name": name, "rows": [],
            "state": "running", "score": score, "column": column, "message": "", "images": images,
            "total_steps": total_steps, "total_epochs": total_epochs, "step_memory": {},
            "device": {},
        }  # fmt: skip
        self._earlier = _watched.setdefault((data, score), deque(maxlen=3))
        # `WatchedChips`, `Panel` and the output below the cell, where there is one
        self.chips: Any = None
        self.panel: Any = None
        self._handle: Any = None
        self._stop, self._due, self._tick = False, 0.0, 0.0

    def start(self, **measured: dict[str, int]) -> None:
        """Show the view with its Stop button.

        Args:
            **measured: Bytes of what a step keeps (`step_memory`), and of the `device`.
        """
        self.state |= measured
        if self.show is True and (kernel := _kernel()) is not None:
            self._display(kernel)
        elif self.show:
            print(f"Training {self.state['title']}")

    @property
    def should_stop(self) -> bool:
        """True once somebody asked to stop; cheap enough to ask at every step."""
        return self._stop or (self.panel is not None and self.panel.poll())

    def stop(self) -> None:
        """Ask the training loop to end after this step, as a click on the button does."""
        self._stop = True

    def update(self, rows: Sequence[Row]) -> None:
        """Redraw if the last picture is old enough; to be called after every step.

        Args:
            rows: The history so far, see `Run.history`; scores may be added to its last row later.
        """
        self.state["rows"] = rows
        if self.panel is not None and monotonic() >= min(self._due, self._tick):
            self._tell()

    def validation(self) -> None:
        """Show what the model now makes of the chips, or print a line; after every epoch."""
        if self.chips is not None:
            self.chips.look()
        elif self._handle is None and self.show:
            state = self.state
            epoch = f"epoch {state['rows'][-1]['epoch']} of {state['total_epochs']}"
            print(" · ".join([epoch, *latest(state), f"{left(state)} left"]))

    def finish(self, state: str = "finished", message: str = "") -> None:
        """Replace the live view by a figure that stays.

        Args:
            state: How the run ended, ``"finished"`` or ``"stopped"``.
            message: What became of it, for example "Kept epoch 2: validation mIoU 0.712."
        """
        self.state |= {"state": state, "message": message}
        if self.chips is not None:
            self.chips.look()  # with the weights that were kept
        if self._handle is not None:
            kept = bundle(*self._picture())
            facts_of = f'data-step="{len(self.state["rows"])}" data-state="{state}"'
            kept["text/html"] = f'<div class="gp-dashboard" {facts_of}>{kept["text/html"]}</div>'
            self._handle.update(kept, raw=True)
        elif self.show:
            print(f"{state}: {message} {' · '.join(facts(self.state))}")
        if self.panel is not None:
            self.panel.close()
        if self.show and self.state["rows"]:
            self._earlier.append(self.state)

    def _display(self, kernel: Any) -> None:
        """Put the widget below the cell, or a line of text where nobody can see a widget.

        papermill, nbclient and nbval run cells without standard input, which tells that nobody is
        there; a widget would only leave its data in the notebook they save.
        """
        from IPython.display import display

        from geopeft_nb.widgets.controls import Panel

        self.chips = self._make_chips() if self._make_chips else None
        shown: dict[str, Any] = {"text/plain": f"Training {self.state['title']}"}
        if getattr(kernel, "_allow_stdin", False):
            self.panel = Panel(kernel)
            self._tell()
            view = {"model_id": self.panel.model_id, "version_major": 2, "version_minor": 0}
            shown["application/vnd.jupyter.widget-view+json"] = view
        self._handle = display(shown, raw=True, display_id=True)

    def _picture(self) -> tuple[bytes, str]:
        """Draw a PNG file, and say what it shows."""
        from geopeft_nb.widgets.picture import draw_run

        chips = self.chips.shown() if self.chips else {}
        figure = draw_run(self.state, list(self._earlier), chips)
        return png(figure, 80, cut=False), words(self.state, chips.get("chips", ()))

    def _tell(self) -> None:
        """Send progress to the browser, and a new picture if one is due."""
        now, state = monotonic(), self.state
        told = {"state": state["state"], "step": len(state["rows"])}
        self.panel.progress = told | {"line": " · ".join(facts(state))}
        if now >= self._due:
            image, said = self._picture()
            self.panel.view = {"picture": data_address(image), "words": visible(said)}
            self._due = monotonic() + max(PAUSE, SHARE * (monotonic() - now))
        self._tick = monotonic() + TICK


def _kernel() -> Any:
    """Return the Jupyter kernel that this runs in, or None; IPython is not imported to find out."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None)
