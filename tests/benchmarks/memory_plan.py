"""Is what `memory_plan` says of a step what the step keeps? Full-size networks on the CPU.

    OMP_NUM_THREADS=1 python tests/benchmarks/memory_plan.py
    python tests/benchmarks/memory_plan.py --models prithvi_eo_v2_300 --methods lora full --batch 2

Every method × backbone × decoder at two sizes: the network's own and half of it, rounded to a
patch. Random weights: none of the numbers depends on them. Measured are the bytes that autograd
saves in a real forward pass (`training_bytes`), without anything that plans are made with.
UPerNet cannot train on one chip and gets two. The last line is the largest deviation.
"""

import argparse
import gc
import time
import warnings

import torch

import geopeft_nb as gp
from geopeft_nb.memory.measure import training_bytes
from geopeft_nb.models import SegmentationModel
from geopeft_nb.tasks import TASKS

MODELS = ("prithvi_eo_v1_100", "clay_v1_base", "satmae_base", "decur_resnet50")
CONVOLUTIONAL = ("linear_probe", "bitfit", "full")


def kept(model: SegmentationModel, batch: int, size: int) -> int:
    """Return the bytes that a real forward pass keeps."""
    loss = TASKS[model.task].loss
    image = torch.rand(batch, len(model.bands), size, size)
    target = torch.zeros(batch, size, size, dtype=torch.int64)
    model.train()
    return training_bytes(model, lambda: loss(model(image), target, -1))["activations"]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--decoders", nargs="+", default=["linear", "unet", "upernet"])
    parser.add_argument("--methods", nargs="+", default=list(gp.list_methods().index))
    parser.add_argument("--sizes", nargs="+", type=int, help="pixels, in place of the networks'")
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".*was told pixels")
    data = gp.load_data("scenes")
    print("| model | decoder | method | batch | px | planned MiB | measured MiB | ratio | plan s |")
    print("|---|---|---|---|---|---|---|---|---|")
    worst = (0.0, "nothing was compared")
    for name in options.models:
        for decoder in options.decoders:
            for method in options.methods:
                if name == "decur_resnet50" and method not in CONVOLUTIONAL:
                    continue
                backbone = gp.load_backbone(name, None, bands=data.bands)
                model = gp.build_model(backbone, data, decoder, pad=True, metadata=False)
                gp.attach(model, method)
                own, patch = backbone.card.img_size, backbone.patch_size
                batch = max(options.batch, 2 if decoder == "upernet" else 1)
                for size in options.sizes or (own, own // 2 // patch * patch):
                    start = time.perf_counter()
                    planned = gp.memory_plan(model, batch, size).activations
                    seconds = time.perf_counter() - start
                    measured = kept(model, batch, size)
                    ratio = planned / measured
                    line = f"{name} | {decoder} | {method} | {batch} | {size}"
                    worst = max(worst, (abs(ratio - 1), line))
                    sizes = f"{planned / 2**20:.1f} | {measured / 2**20:.1f}"
                    print(f"| {line} | {sizes} | {ratio:.4f} | {seconds:.2f} |", flush=True)
                del model, backbone
                gc.collect()
    print(f"largest deviation: {100 * worst[0]:.3f} % ({worst[1]})")


if __name__ == "__main__":
    main()
