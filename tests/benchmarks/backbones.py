r"""Is our Prithvi-EO 1.0 100M as fast as TerraTorch's, and does it hold as little memory?

Both run forward and backward in one process, alternating, with the same weights, images and use of
the output (the feature map of the last block). TerraTorch needs an environment of its own:

    uv venv --python 3.12 terratorch-env
    uv pip install --python terratorch-env/bin/python terratorch==1.2.13 peft timm pooch
    PYTHONPATH=. terratorch-env/bin/python tests/benchmarks/backbones.py --threads 1

Peak memory is the most bytes of tensors alive at once in forward and backward (activations,
gradients and temporaries; weights and image are the same), counted by torch's profiler. The
allocator is told to keep its pages: else chance decides who pays for getting them anew.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

KEEP_PAGES = {"MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}


def make_steps(batch: int) -> dict[str, Callable[[], float]]:
    """Return for both models a function that runs one step and returns the loss."""
    import torch
    from terratorch.registry import BACKBONE_REGISTRY

    import geopeft_nb as gp

    theirs = BACKBONE_REGISTRY.build(
        "terratorch_prithvi_eo_v1_100", pretrained=False, num_frames=1, out_indices=[11]
    ).train()
    ours = gp.load_backbone("prithvi_eo_v1_100", weights=None).train()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(batch, 6, 224, 224, generator=torch.Generator().manual_seed(0))
    target = torch.randn(batch, 768, 14, 14, generator=torch.Generator().manual_seed(1))

    def step(model: torch.nn.Module, features: Callable[[], torch.Tensor]) -> float:
        loss = (features() - target).square().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)
        return loss.item()

    return {
        "theirs": lambda: step(
            theirs, lambda: theirs.prepare_features_for_image_model(theirs(image))[-1]
        ),
        "ours": lambda: step(ours, lambda: ours(image)[-1]),
    }


def peak_bytes(step: Callable[[], float]) -> int:
    """Return the most bytes of tensors that one step holds at once."""
    import torch

    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    if not KEEP_PAGES.items() <= os.environ.items():  # read by the C library when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_PAGES})
    import torch

    try:
        import terratorch  # noqa: F401
    except ImportError:
        sys.exit(f"TerraTorch is not installed in this environment.\n{__doc__}")
    torch.set_num_threads(options.threads)
    for batch in options.batches:
        steps = make_steps(batch)
        losses = {name: step() for name, step in steps.items()}  # and a warm-up
        assert abs(losses["ours"] - losses["theirs"]) <= 1e-5 * losses["theirs"], losses
        peaks = {name: peak_bytes(step) / 2**20 for name, step in steps.items()}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        cpu: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(options.rounds):
            for name in sorted(steps, reverse=turn % 2 == 0):
                start, worked = time.perf_counter(), time.process_time()
                steps[name]()
                seconds[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - worked)
        ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "theirs"))
        # What the processor worked depends less on what else runs on the machine.
        work = statistics.median(cpu["ours"]) / statistics.median(cpu["theirs"])
        print(
            f"batch {batch}, {options.threads} threads: ours {ours:.3f} s, theirs {theirs:.3f} s, "
            f"ratio {ours / theirs:.3f} (processor time {work:.3f}); "
            f"peak memory ours {peaks['ours']:.1f} MiB, theirs {peaks['theirs']:.1f} MiB, "
            f"ratio {peaks['ours'] / peaks['theirs']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
