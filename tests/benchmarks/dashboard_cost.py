"""What does the live view cost? Steps with and without it, in turns within one training run.

python tests/benchmarks/dashboard_cost.py [epochs] [device]

A kernel trains the shipped model as a notebook would, buttons included. The live view is fed in
blocks of ten steps and left out in the next ten, so that both see the same machine. Two answers:
the ratio of the medians of the blocks' times, and the share of the run's time that was spent in the
live view's own methods, validations included, also in the thread's own time, which does not run
while a busy machine does something else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from queue import Empty

from jupyter_client.manager import start_new_kernel

ROOT = Path(__file__).resolve().parents[2]
TRAIN = '''
import random, statistics, time
import geopeft_nb as gp
from geopeft_nb.training import fit as module
from geopeft_nb.widgets.live import Dashboard

BLOCK = 10
spent, entered = {{"steps": [0.0, 0.0], "validations": [0.0, 0.0]}}, []


def now():
    """Seconds on the wall, and of work by this thread."""
    return time.perf_counter(), time.thread_time()


def timed(method, what="steps"):
    def call(*arguments, **options):
        begun = now()
        try:
            return method(*arguments, **options)
        finally:
            spent[what] = [s + e - b for s, b, e in zip(spent[what], begun, now())]
    return call


class InTurns(Dashboard):
    """Fed in every second block of steps."""

    on = True

    def update(self, *, step, epoch, **more):
        entered.append((time.perf_counter(), epoch, self.on))
        self.on = step // BLOCK % 2 == 0
        entered[-1] = (entered[-1][0], epoch, self.on)
        if self.on:
            timed(super().update)(step=step, epoch=epoch, **more)

    @property
    def should_stop(self):
        return timed(lambda: Dashboard.should_stop.fget(self))() if self.on else False

    def validation(self, *arguments):
        timed(super().validation, "validations")(*arguments)


module.Dashboard = InTurns
data = gp.load_data("scenes")
backbone = gp.load_backbone("geopeft_tiny", bands=data.bands)
network = gp.attach(gp.build_model(backbone, data, decoder="linear"), "lora")
begun = now()
run = gp.fit(network, data, epochs={epochs}, device="{device}")
whole = [end - start for start, end in zip(begun, now())]
blocks = {{True: [], False: []}}
count, seconds = 0, 0.0
for before, after in zip(entered, entered[1:]):
    if before[2] != after[2]:  # a block has ended
        if count:
            blocks[before[2]].append(seconds / count)
        count, seconds = 0, 0.0
    elif before[1] == after[1]:  # no validation between the two
        count, seconds = count + 1, seconds + after[0] - before[0]
on, off = (statistics.median(blocks[with_view]) for with_view in (True, False))
fed = sum(1 for entry in entered if entry[2]) / len(entered)
print(len(entered), "steps in", len(blocks[True]), "+", len(blocks[False]), "blocks")
chance = random.Random(0)
again = sorted(
    statistics.median(chance.choices(blocks[True], k=len(blocks[True])))
    / statistics.median(chance.choices(blocks[False], k=len(blocks[False])))
    for _ in range(2000)
)
print(f"median step {{1e3 * on:.2f}} ms with, {{1e3 * off:.2f}} ms without: ratio "
      f"{{on / off:.4f}}, 95 % interval {{again[50]:.3f}} - {{again[-51]:.3f}}, by bootstrap")
for index, clock in enumerate(("of the wall clock", "of the thread's own work")):
    steps, validations = spent["steps"][index] / fed, spent["validations"][index]
    share = 100 * (steps + validations) / whole[index]
    print(f"{{share:.2f}} % {{clock}}: {{steps:.3f}} s for steps and {{validations:.3f}} s for "
          f"validations of {{whole[index]:.1f}} s, if all steps were shown")
'''


def main() -> None:
    """Train in a kernel of its own, and print what it found."""
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 36
    device = sys.argv[2] if len(sys.argv) > 2 else "cpu"
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        request = client.execute(TRAIN.format(epochs=epochs, device=device), allow_stdin=True)
        while True:
            try:
                message = client.get_iopub_msg(timeout=600)
            except Empty:
                raise SystemExit("The kernel said nothing for ten minutes.") from None
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                print(content["text"], end="")
            elif kind == "error":
                raise SystemExit("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                if message["parent_header"].get("msg_id") == request:
                    return
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
