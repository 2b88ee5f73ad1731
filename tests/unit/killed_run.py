"""What the tests kill in the middle of training, and go on with. Run as a program.

One process imports, and forks one child for every part of a run: imports take longer than the
training itself. It has used no thread of torch's before, so that forking is safe.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from test_fit import few

import geopeft_nb as gp
from geopeft_nb.training.fit import fit
from geopeft_nb.training.recorder import Recorder

EPOCHS, STEPS = 6, 18  # 12 chips, two at a time, two batches a step: three steps an epoch


class Impatient(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """Halves the learning rate after every second epoch, so that its state matters."""

    def __init__(self, optimiser: torch.optim.Optimizer, factor: float, patience: int) -> None:
        super().__init__(optimiser, factor=factor, patience=1, threshold=0.9)


def train(out: Path, tell: int | None) -> None:
    """Train, and write what `fit` writes; each step is told as one byte."""
    torch.set_num_threads(1)
    torch.optim.lr_scheduler.ReduceLROnPlateau = Impatient  # type: ignore[misc]
    data = few()
    # Dropout, and batch statistics of the decoder, which no gradient changes.
    model = gp.build_model(gp.load_backbone("geopeft_tiny"), data, decoder="fcn")
    gp.attach(model, "lora", lora_dropout=0.2)
    if tell is not None:
        record = Recorder.on_train_batch_end

        def slowly(self: Recorder, *arguments: object) -> None:
            record(self, *arguments)  # type: ignore[arg-type]
            os.write(tell, bytes([len(self.rows)]))
            time.sleep(0.01)

        Recorder.on_train_batch_end = slowly  # type: ignore[method-assign, assignment]
    fit(
        model, data, epochs=EPOCHS, batch_size=2, accumulate=2, dashboard=False, resume=True,
        out=out,
    )  # fmt: skip


def part(out: Path, until: int, after: float) -> int:
    """Train in a child and kill it a moment after a step; return the last step that it told."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.close(reading)
        train(out, writing)
        os._exit(0)
    os.close(writing)
    step = 0
    while step < until and (told := os.read(reading, 1)):
        step = told[0]
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    if not killed:
        raise RuntimeError(f"The run was over before it could be killed in step {until}.")
    return step


def main(folder: str, seed: str) -> None:
    """Train once without a break, and once with five."""
    dice, here = random.Random(int(seed)), Path(folder)
    for step in sorted(dice.sample(range(1, STEPS), 5)):
        part(here / "broken", step, dice.uniform(0, 0.02))
        left = sorted(path.name for path in here.glob("*.ckpt"))
        print(f"killed after step {step}, left {', '.join(left) or 'nothing'}", flush=True)
    for name in ("broken", "whole"):
        if not (child := os.fork()):
            train(here / name, None)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError(f"The {name} run failed.")


if __name__ == "__main__":
    main(*sys.argv[1:])
